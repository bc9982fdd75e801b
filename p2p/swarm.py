"""Which chunk of a blob to ask of whom, when several holders have it and several peers want it.

The flow: each holder ``joins`` with the chunks that it has, and tells of more as it gets them; whenever a holder has
room for another request, ``take`` says which chunk. Those who fetch the same blob at the same time share it out: of
the chunks that only whole holders have, each asks for every n-th, and gets the others from the peers that have asked
for those. So an input that all providers need leaves its owner about once.

Nobody is waited for without end. If nothing comes for some times as long as chunks usually take (``PATIENCE_S_MIN``
to ``PATIENCE_S_MAX``), chunks of the others' shares are asked of a whole holder too: one, and twice as many each time
again, until a peer brings something. If a holder owes a chunk for ``OVERDUE_S`` and there is nothing else to ask for,
it is asked of another as well. A holder that leaves gives its requests back.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from depin_node.p2p.network import PeerKey

if TYPE_CHECKING:
    import random

PATIENCE_S_MIN = 0.1
PATIENCE_S_MAX = 1.0
_PATIENCE_GAPS = 4
_WAITS_MAX = 10
OVERDUE_S = 1.0
_ASKED_TWICE_MAX = 2


@dataclass
class _Holder:
    """What one holder has: ``offers`` are chunks to ask it for, perhaps some that have come meanwhile."""

    is_whole: bool
    has: bytearray
    offers: deque[int] = field(default_factory=deque)
    later: deque[int] = field(default_factory=deque)
    """Of a whole holder: chunks of the others' shares."""
    owes: dict[int, float] = field(default_factory=dict)


class Swarm:
    """One blob being fetched.

    Args:
        me: this node.
        here: one byte a chunk, 1 if it is here or of no use; kept up to date by whoever writes chunks.
        rng: for the order of chunks.
    """

    def __init__(self, me: PeerKey, here: bytearray, rng: "random.Random") -> None:
        self._me = me
        self._here = here
        self._rng = rng
        self._holders: dict[PeerKey, _Holder] = {}
        self._wanting: set[PeerKey] = set()
        self._asked: dict[int, int] = {}  # chunk: of how many holders
        self._quiet_since_s: float | None = None
        self._gap_s = 0.0
        self._waits = 0  # in vain, one after the other
        self._extra = 0  # chunks of others' shares that may be asked for now

    @property
    def patience_s(self) -> float:
        """How long the peers' shares are waited for."""
        return min(max(PATIENCE_S_MIN, _PATIENCE_GAPS * self._gap_s), PATIENCE_S_MAX)

    def join(self, holder: PeerKey, has: bytearray | None) -> None:
        """A holder can be asked. ``has`` is one byte a chunk; None: it has all."""
        self.leave(holder)
        whole = has is None
        self._holders[holder] = _Holder(whole, has if has is not None else bytearray(b"\1" * len(self._here)))
        if not whole:
            self._wanting.add(holder)
        self._share_out()

    def wants(self, peer: PeerKey) -> None:
        """A peer asks us for the blob: it fetches it too."""
        if peer not in self._wanting and not (peer in self._holders and self._holders[peer].is_whole):
            self._wanting.add(peer)
            self._share_out()

    def needs(self, indices: Iterable[int]) -> None:
        """Chunks that were of no use are wanted now."""
        for index in indices:
            for known in self._holders.values():
                if known.has[index]:
                    known.offers.append(index)

    def leave(self, holder: PeerKey) -> None:
        """A holder cannot be asked any more; what it owes is asked of others."""
        gone = self._holders.pop(holder, None)
        known = holder in self._wanting
        self._wanting.discard(holder)
        if gone is not None:
            for index in gone.owes:
                self._unask(index)
            self._give_back(gone.owes)
        if known:
            self._share_out()

    def has(self, holder: PeerKey, indices: Iterable[int]) -> None:
        """A holder has got more chunks."""
        known = self._holders[holder]
        for index in indices:
            if not known.has[index]:
                known.has[index] = 1
                known.offers.append(index)
        if not known.is_whole and all(known.has):
            known.is_whole = True
            self._wanting.discard(holder)
            self._share_out()

    def take(self, holder: PeerKey, now_s: float) -> int | None:
        """Return which chunk to ask ``holder`` for now, or None: nothing at the moment."""
        known = self._holders[holder]
        if self._quiet_since_s is None:
            self._quiet_since_s = now_s
        index = self._next(known.offers)
        if index is None and now_s - self._quiet_since_s >= self.patience_s:
            self._quiet_since_s = now_s
            self._extra = 1 << min(self._waits, _WAITS_MAX)
            self._waits += 1
        if index is None and self._extra:
            index = self._next(known.later)
            if index is None:
                index = self._overdue(known, now_s)
            self._extra -= index is not None
        if index is not None:
            known.owes[index] = now_s
            self._asked[index] = self._asked.get(index, 0) + 1
        return index

    def owed(self, holder: PeerKey) -> int:
        """Return how many chunks a holder has been asked for and not sent."""
        return len(self._holders[holder].owes)

    def is_offered(self, holder: PeerKey, index: int) -> bool:
        """Tell whether a holder has said that it has this chunk."""
        return bool(self._holders[holder].has[index])

    def sent(self, holder: PeerKey, index: int) -> None:
        """A holder sent a chunk that it owed; whether it is good shows in ``here``, or the holder leaves."""
        known = self._holders[holder]
        known.owes.pop(index, None)
        if not known.is_whole:
            self._waits = self._extra = 0

    def arrived(self, index: int, now_s: float) -> None:
        """A chunk was written."""
        if self._quiet_since_s is not None:
            self._gap_s += (now_s - self._quiet_since_s - self._gap_s) / 8
        self._quiet_since_s = now_s
        self._asked.pop(index, None)

    def _unask(self, index: int) -> None:
        count = self._asked.get(index, 0) - 1
        if count > 0:
            self._asked[index] = count
        else:
            self._asked.pop(index, None)

    def _give_back(self, indices: Iterable[int]) -> None:
        for index in indices:
            if not self._here[index]:
                for other in self._holders.values():
                    if other.has[index]:
                        other.offers.appendleft(index)

    def _next(self, offers: deque[int]) -> int | None:
        """Return the first that is neither here nor asked for; drop what is passed over: it comes, or is given back."""
        while offers:
            index = offers.popleft()
            if not self._here[index] and index not in self._asked:
                return index
        return None

    def _overdue(self, known: _Holder, now_s: float) -> int | None:
        for other in self._holders.values():
            if other is not known:
                for index, since_s in other.owes.items():
                    is_late = now_s - since_s >= OVERDUE_S and self._asked.get(index, 0) < _ASKED_TWICE_MAX
                    if is_late and known.has[index] and not self._here[index]:
                        return index
        return None

    def _share_out(self) -> None:
        """Fill all offers anew: who fetches has changed. The new ones get a while to bring something."""
        self._quiet_since_s = None
        fetching = sorted({self._me, *self._wanting})
        mine, count = fetching.index(self._me), len(fetching)
        missing = [index for index, here in enumerate(self._here) if not here and index not in self._asked]
        for known in self._holders.values():
            offered = [index for index in missing if known.has[index]]
            if known.is_whole:
                known.offers = deque(index for index in offered if index % count == mine)
                others = [index for index in offered if index % count != mine]
                self._rng.shuffle(others)
                known.later = deque(others)
            else:
                self._rng.shuffle(offered)
                known.offers, known.later = deque(offered), deque()
