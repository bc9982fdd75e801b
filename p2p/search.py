"""Searching: so many live peers that suit a need, drawn so that who is asked cannot choose them.

The flow: a search draws a random *point* and some random shards, and asks a few members of each for those who suit, in
the order that the point gives them. Who is honest in a shard knows all of it, so of the answers together those that
rank first are a uniform draw, whatever the others leave out or add. The chosen neighbours are asked beside them, each
about one shard: of other shards a newcomer may know only those that hostile peers told it of. Then the ranks are
dialled in order, since an advert says nothing of who lives now: who answers is live. It ends with enough, with nobody
left, or at its deadline.

Parts of the discovery machine: a ``SearchState`` says what it wants by ``Wish``, and is told what came of it;
``Searches`` carries the wishes of all of them out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.directory import Directory, Entry, Need, ranked
from depin_node.p2p.discovery_events import FOUND_MAX, Effect, Find, Question, SearchEnded
from depin_node.p2p.shards import PLACE_BITS, Shard, Sharding, capability_of

if TYPE_CHECKING:
    from random import Random

    from depin_node.p2p.choosing import Choosing

SEARCHES_MAX = 8
SHARDS_ASKED = 4
POINT_BYTES = 16
ASKED_PER_SHARD = 3
BESIDE_MAX = 8
"""Chosen neighbours that are asked beside the members of shards: all that a node usually has."""
ASK_S = 4.0
END_S = 10.0
PROBES_MAX = 16
SLOW_S = 1.0
"""Beside a dial that takes longer another is begun: who is not there may take the whole deadline."""
SLOW_MAX = 48


@dataclass
class Ward:
    """A shard to be asked about: who may be asked, and how many still ought to be."""

    shard: Shard | None
    members: list[bytes]
    wanted: int = ASKED_PER_SHARD


@dataclass(frozen=True)
class Wish:
    """What a search wants now: to ask connected peers, to have others dialled."""

    ask: Sequence[tuple[bytes, Question]] = ()
    dial: Sequence[bytes] = ()


@dataclass
class SearchState:
    """See the module. ``point`` has 16 random bytes, ``now_ns`` is when it begins (boot clock)."""

    number: int
    need: Need
    count: int
    point: bytes
    wards: list[Ward]
    now_ns: int
    live: list[bytes] = field(default_factory=list)
    is_probing: bool = False
    _found: set[bytes] = field(default_factory=set)
    _asked: dict[bytes, Ward] = field(default_factory=dict)
    _dialled: dict[bytes, Ward | None] = field(default_factory=dict)
    _queue: list[bytes] = field(default_factory=list)
    _slow_ns: dict[bytes, int] = field(default_factory=dict)  # when each probe will have been slow

    @property
    def wake_ns(self) -> int:
        """When it wants to be stepped even if nothing happens."""
        return min([self._deadline_ns, *self._slow_ns.values()])

    @property
    def _deadline_ns(self) -> int:
        return self.now_ns + int((END_S if self.is_probing else ASK_S) * SECOND_NS)

    def step(self, directory: Directory, connected: Iterable[bytes], ns: int) -> Wish:
        """Say what is wanted next. ``is_over`` tells afterwards whether it has ended."""
        connected = frozenset(connected)
        if not self.is_probing:
            wish = self._ask(connected)
            if (self._asked or self._dialled) and ns < self._deadline_ns:
                return wish
            self._begin_to_probe(directory)
        return self._probe(connected, ns)

    def is_over(self, ns: int) -> bool:
        """Tell whether there is enough, or nothing left to try, or no time."""
        if not self.is_probing:
            return False
        return len(self.live) >= self.count or ns >= self._deadline_ns or not (self._queue or self._dialled)

    def found(self, peer: bytes, entries: Iterable[Entry]) -> None:
        """Take the answer of ``peer``."""
        if self._asked.pop(peer, None) is not None and not self.is_probing:
            self._found.update(entry.key for entry in entries)

    def connected(self, peer: bytes) -> None:
        """A peer that was dialled answers; a probe is counted by the next step."""
        ward = None if self.is_probing else self._dialled.pop(peer, None)
        if ward is not None:
            ward.members.insert(0, peer)
            ward.wanted += 1

    def failed(self, peer: bytes) -> None:
        """A peer could not be dialled, or is gone."""
        for waiting in (self._dialled, self._asked):
            ward = waiting.pop(peer, None)
            if ward is not None:
                ward.wanted += 1
        if peer in self.live:
            self.live.remove(peer)

    def _ask(self, connected: frozenset[bytes]) -> Wish:
        ask, dial = list[tuple[bytes, Question]](), list[bytes]()
        per_shard = min(FOUND_MAX, 8 + 2 * self.count // len(self.wards)) if self.wards else 0
        for ward in self.wards:
            while ward.wanted and ward.members:
                peer = ward.members.pop(0)
                if peer in self._asked or peer in self._dialled:
                    continue
                ward.wanted -= 1
                if peer in connected:
                    self._asked[peer] = ward
                    ask.append((peer, Question(self.need, ward.shard, self.point, per_shard)))
                else:
                    self._dialled[peer] = ward
                    dial.append(peer)
        return Wish(ask, dial)

    def _begin_to_probe(self, directory: Directory) -> None:
        """Rank what was found; who is only known here comes last, unless this node knows all there are."""
        self.is_probing = True
        self._asked.clear()
        self._dialled.clear()
        known = directory.sample(self.need, None, self.point, len(directory))
        knows_all = all(ward.shard is None for ward in self.wards)
        found = [entry for entry in known if knows_all or entry.key in self._found]
        order = [*ranked(found, self.point, len(found)), *known[: 4 * self.count]]
        self._queue = [key for key in dict.fromkeys(e.key for e in order) if self._may_answer(directory, key)]

    @staticmethod
    def _may_answer(directory: Directory, key: bytes) -> bool:
        entry = directory.get(key)
        return entry is not None and (entry.is_connected or bool(directory.dialable(entry)))

    def _probe(self, connected: frozenset[bytes], ns: int) -> Wish:
        """Count who is connected; have others dialled, no more than are wanted."""
        for peer in [peer for peer in self._dialled if peer in connected]:
            del self._dialled[peer]
            self.live.append(peer)
        self._slow_ns = {peer: due for peer, due in self._slow_ns.items() if peer in self._dialled and due > ns}
        slow = min(len(self._dialled) - len(self._slow_ns), SLOW_MAX)
        dial: list[bytes] = []
        while self._queue and len(self._dialled) - slow < min(PROBES_MAX, self.count - len(self.live)):
            peer = self._queue.pop(0)
            if peer in connected:
                self.live.append(peer)
            else:
                self._dialled[peer] = None
                self._slow_ns[peer] = ns + int(SLOW_S * SECOND_NS)
                dial.append(peer)
        return Wish((), dial)


class Searches:
    """All searches under way, at most ``SEARCHES_MAX``. Times are of the boot clock."""

    def __init__(self, directory: Directory, sharding: Sharding, choosing: "Choosing", rng: "Random") -> None:
        self._directory = directory
        self._sharding = sharding
        self._choosing = choosing
        self._rng = rng
        self._of: dict[int, SearchState] = {}

    def wake_ns(self) -> list[int]:
        """Return when each wants to be stepped even if nothing happens."""
        return [search.wake_ns for search in self._of.values()]

    def begin(self, number: int, need: Need, count: int, ns: int) -> list[Effect]:
        """Begin a search; ``number`` is new."""
        if len(self._of) >= SEARCHES_MAX:
            return [SearchEnded(number, ())]
        point = self._rng.randbytes(POINT_BYTES)
        self._of[number] = SearchState(number, need, count, point, self._wards(need), ns)
        return self.step(ns)

    def step(self, ns: int) -> list[Effect]:
        """Ask and dial whom they want, and end those that are over."""
        effects: list[Effect] = []
        for search in list(self._of.values()):
            while True:
                wish = search.step(self._directory, self._choosing.neighbours.keys, ns)
                effects += [Find(peer, search.number, question) for peer, question in wish.ask]
                refused = 0
                for peer in wish.dial:
                    dials = self._choosing.errand(peer, ns)
                    effects += dials
                    if not dials and peer not in self._choosing.dialling.under_way:
                        search.failed(peer)
                        refused += 1
                if not refused:
                    break
            if search.is_over(ns):
                del self._of[search.number]
                effects.append(SearchEnded(search.number, tuple(search.live[: search.count])))
        return effects

    def found(self, peer: bytes, number: int, keys: Iterable[bytes]) -> None:
        """``peer`` named those of ``keys`` to a search."""
        if number in self._of:
            entries = (self._directory.get(key) for key in keys)
            self._of[number].found(peer, [entry for entry in entries if entry is not None])

    def connected(self, peer: bytes) -> None:
        """A peer is connected."""
        for search in self._of.values():
            search.connected(peer)

    def failed(self, peer: bytes) -> None:
        """A peer could not be dialled, or is gone."""
        for search in self._of.values():
            search.failed(peer)

    def _wards(self, need: Need) -> list[Ward]:
        """Return whom to ask: members of random shards, or of the one there is."""
        wards: list[Ward] = []
        for capability in sorted({capability_of(name) for name in need.device_classes}):
            bits = self._sharding.own(capability).bits
            if not bits:
                members = list(self._choosing.neighbours.keys)
                wards.append(Ward(None, self._rng.sample(members, min(len(members), 2 * ASKED_PER_SHARD))))
                continue
            chosen = self._choosing.neighbours.chosen()
            beside = self._rng.sample(chosen, min(len(chosen), BESIDE_MAX))
            known: dict[int, list[Entry]] = {}
            for entry in self._directory.peers():
                if capability in entry.capabilities and not entry.is_unreachable and entry.key not in beside:
                    known.setdefault(entry.place >> (PLACE_BITS - bits), []).append(entry)
            prefixes = self._rng.sample(sorted(known), min(len(known), SHARDS_ASKED))
            for number, prefix in enumerate(prefixes):
                drawn = self._rng.sample(known[prefix], min(len(known[prefix]), 3 * ASKED_PER_SHARD))
                drawn.sort(key=lambda entry: not entry.is_connected)
                asked = beside[number :: len(prefixes)]
                members = [*asked, *(entry.key for entry in drawn)]
                wards.append(Ward(Shard(capability, bits, prefix), members, ASKED_PER_SHARD + len(asked)))
        return wards
