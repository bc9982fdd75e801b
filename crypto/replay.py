"""Sequence numbers: no signed message is taken twice, not even after a restart of either end.

A node signs with one growing counter. It begins at the later of what its journal reserved and the wall clock in µs, so
that a restored backup or a lost journal does not fall behind what peers have seen. A receiver remembers the highest
number per sender and channel (a *channel* is one ordered stream of messages: a protocol and a role), and stores it
before it acts on a message that promises anything.
"""

from collections import OrderedDict
from collections.abc import Callable

from depin_node.core.clock import Now
from depin_node.core.errors import PeerViolation

RESERVED_AT_ONCE = 1 << 16
SEQ_MAX = 2**63 - 1


class Sequence:
    """The sender's side. ``next()`` never repeats as long as ``reserved`` is stored before it is used up.

    Args:
        stored_reserved: what was reserved last, by the journal.
        now: the time.
        on_low: called when it is time to ``reserve`` more: half of what was reserved is used up.
    """

    def __init__(self, stored_reserved: int, now: Now, on_low: Callable[[], None] = lambda: None) -> None:
        self._next = max(stored_reserved, now.wall_ns // 1000)
        self.reserved = self._next
        self._on_low = on_low

    def wanted(self) -> int | None:
        """Return the number to store next, and then to ``reserve``; None if enough is still reserved."""
        return self._next + RESERVED_AT_ONCE if self._is_low() else None

    def reserve(self, stored: int) -> None:
        """Numbers below ``stored``, which is on disk, may be used."""
        self.reserved = stored

    def next(self) -> int:
        """Return the next sequence number."""
        if self._next >= self.reserved:
            raise RuntimeError("sequence numbers used before they were reserved")
        self._next += 1
        if self._is_low():
            self._on_low()
        return self._next - 1

    def _is_low(self) -> bool:
        return self.reserved - self._next < RESERVED_AT_ONCE // 2


class ReplayGuard:
    """The receiver's side: the highest number seen per (sender, channel), bounded, least recently heard out first.

    A sender pushed out is safe only because its messages have expired by then: size the guard for more senders than
    can speak within the longest lifetime.
    """

    def __init__(self, seen: dict[tuple[bytes, str], int], *, senders_max: int = 65_536) -> None:
        self._seen: OrderedDict[tuple[bytes, str], int] = OrderedDict(seen)
        self._max = senders_max

    def accept(self, sender: bytes, channel: str, seq: int) -> None:
        """Take note of ``seq``.

        Raises:
            PeerViolation: it is not higher than all seen from that sender on that channel.
        """
        last = self._seen.get((sender, channel), -1)
        if seq <= last:
            raise PeerViolation(f"{channel}: replayed (sequence number {seq}, already at {last})")
        self._seen[(sender, channel)] = seq
        self._seen.move_to_end((sender, channel))
        while len(self._seen) > self._max:
            self._seen.popitem(last=False)
