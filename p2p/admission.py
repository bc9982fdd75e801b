"""Whom a node lets in, and how much each may hold: the accounts of its connections. A machine without I/O.

The flow: a socket that comes in is asked about by its address (``arrived``), again when its handshakes have proven a
key (``proven``); so is each stream that a peer opens (``stream_opened``). What a connection makes us hold is told now
and then (``holds``); ``too_much`` names those that have to go. What breaks a rule is told by ``broke``, which counts
``strikes``.

Caps count per peer, per group (``groups``: addresses of one owner, as far as can be told) and in all. A handshake that
finds all places taken puts out the oldest of those who hold most of them: who only keeps places occupied loses them,
while an honest handshake takes milliseconds. Loopback and the operator's own list are exempt from what counts by group
and by second, and are disconnected but never kept out; what bounds memory holds for all.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from depin_node.core.clock import Now
from depin_node.p2p.bucket import Buckets
from depin_node.p2p.groups import group_of_host, is_loopback_host
from depin_node.p2p.network import NetworkLimits, PeerKey
from depin_node.p2p.strikes import STRIKES_MAX, Strikes

CONNECTIONS_PER_PEER_MAX = 4
"""One, two after a simultaneous dial, and as many again while those that a crash or a move has left are noticed."""


class Refusal(Enum):
    """Why not."""

    FULL = "all places are taken"
    GROUP_FULL = "its group has all the places that it may have"
    PEER_FULL = "it has all the places that it may have"
    TOO_OFTEN = "it comes too often"
    KEPT_OUT = "it broke the rules and is kept out for a while"
    NOT_ALLOWED = "it is not among the allowed peers"
    FOREIGN_KEY = "its identity is no Ed25519 key"
    NO_SUCH_CONNECTION = "its connection has ended"


@dataclass
class _Connection:
    group: str
    is_exempt: bool
    since_ns: int
    is_outbound: bool = False
    peer: PeerKey | None = None
    """None while its handshakes last."""
    streams: int = 0
    held_bytes: int = 0


class Admission:
    """The machine.

    Args:
        limits: all caps.
        listed: peers that are exempt, by the operator's word.
        allowed: if not None, nobody else is called. (Who calls is told why not, by ``hello``.)
    """

    def __init__(
        self, limits: NetworkLimits, *, listed: Collection[PeerKey] = (), allowed: Collection[PeerKey] | None = None
    ) -> None:
        self._limits = limits
        self._listed = frozenset(listed)
        self._allowed = None if allowed is None else frozenset(allowed)
        self._connections: dict[int, _Connection] = {}
        self._arrivals = Buckets(8 * limits.arrivals_per_s, limits.arrivals_per_s)
        self._openings = Buckets(5 * limits.streams_per_s, limits.streams_per_s)
        self._strikes = Strikes(limits.kept_out_s)

    # Connections

    def arrived(self, connection: int, host: str, now: Now) -> tuple[Refusal | None, int | None]:
        """A socket came in from ``host``, an IP address ("" if it came by way of a relay).

        Returns:
            Why it must be closed, or None; and another whose handshake must end to make room, or None.
        """
        limits = self._limits
        is_exempt = limits.exempt_loopback and is_loopback_host(host)
        group = group_of_host(host)
        if not is_exempt and not self._arrivals.of(group, now).take(1, now):
            return Refusal.TOO_OFTEN, None
        under_way = [(number, c) for number, c in self._connections.items() if c.peer is None]
        by_group = Counter(c.group for _, c in under_way)
        evicted = None
        if not is_exempt and by_group[group] >= limits.handshakes_per_group_max:
            evicted = _oldest(under_way, group)
        elif len(under_way) >= limits.handshakes_max:
            evicted = _oldest(under_way, max(by_group, key=lambda name: by_group[name]))
        if evicted is not None:
            self.ended(evicted)
        self._connections[connection] = _Connection(group, is_exempt, now.boottime_ns)
        return None, evicted

    def proven(self, connection: int, peer: PeerKey, now: Now) -> Refusal | None:
        """Its handshakes have shown that ``peer`` is at the other end."""
        limits, entry = self._limits, self._connections.get(connection)
        if entry is None:  # it had to make room
            return Refusal.NO_SUCH_CONNECTION
        entry.is_exempt = entry.is_exempt or peer in self._listed
        refusal = Refusal.KEPT_OUT if self._strikes.keeps_out(peer, now.boottime_ns) else None
        others = [c for c in self._connections.values() if c.peer is not None]
        inbound = [c for c in others if not c.is_outbound]
        if refusal is None and sum(c.peer == peer for c in others) >= CONNECTIONS_PER_PEER_MAX:
            refusal = Refusal.PEER_FULL
        if refusal is None and len(inbound) >= limits.connections_max - limits.connections_max // 8:
            refusal = Refusal.FULL  # the rest is for those that we dial: inbound never keeps us from that
        if refusal is None and not entry.is_exempt:
            of_group = sum(c.group == entry.group and not c.is_exempt for c in inbound)
            if of_group >= limits.connections_per_group_max:
                refusal = Refusal.GROUP_FULL
        if refusal is not None:
            self.ended(connection)
            return refusal
        entry.peer = peer
        return None

    def dialled(self, connection: int, host: str, peer: PeerKey, now: Now) -> None:
        """We called ``peer`` and it answered; ``refuses`` was asked before."""
        is_exempt = peer in self._listed or (self._limits.exempt_loopback and is_loopback_host(host))
        self._connections[connection] = _Connection(
            group_of_host(host), is_exempt, now.boottime_ns, is_outbound=True, peer=peer
        )

    def ended(self, connection: int) -> None:
        """A connection, or its handshake, has ended, however."""
        self._connections.pop(connection, None)

    def refuses(self, peer: PeerKey, now: Now) -> Refusal | None:
        """Say why ``peer`` must not be called, if so."""
        if self._allowed is not None and peer not in self._allowed:
            return Refusal.NOT_ALLOWED
        return Refusal.KEPT_OUT if self._strikes.keeps_out(peer, now.boottime_ns) else None

    # Streams

    def stream_opened(self, connection: int, open_now: int, now: Now) -> Refusal | None:
        """The peer opens a stream, beside ``open_now`` that it has on this connection."""
        entry = self._connections.get(connection)
        if entry is None or entry.peer is None:
            return Refusal.NO_SUCH_CONNECTION
        if not entry.is_exempt and not self._openings.of(entry.peer, now).take(1, now):
            return Refusal.TOO_OFTEN
        entry.streams = open_now
        return self.may_have_another(connection)

    def has_streams(self, connection: int, open_now: int) -> None:
        """Take note of how many streams the peer has open."""
        entry = self._connections.get(connection)
        if entry is not None:
            entry.streams = open_now

    def may_have_another(self, connection: int) -> Refusal | None:
        """Say whether the peer may have one more stream, and if so, count it."""
        limits, entry = self._limits, self._connections.get(connection)
        if entry is None or entry.peer is None:
            return Refusal.NO_SUCH_CONNECTION
        of_peer = of_group = in_all = 0
        for other in self._connections.values():
            in_all += other.streams
            of_group += other.streams if other.group == entry.group and not other.is_exempt else 0
            of_peer += other.streams if other.peer == entry.peer else 0
        if of_peer >= limits.inbound_streams_per_peer_max + STREAMS_BESIDE:
            return Refusal.PEER_FULL
        if not entry.is_exempt and of_group >= limits.streams_per_group_max:
            return Refusal.GROUP_FULL
        if in_all >= limits.streams_max:
            return Refusal.FULL
        entry.streams += 1
        return None

    # Memory

    def holds(self, connection: int, size_bytes: int) -> bool:
        """Take note of what waits to be read of a connection; return whether all together may be too much."""
        entry = self._connections.get(connection)
        if entry is None:
            return False
        grew = size_bytes > entry.held_bytes
        entry.held_bytes = size_bytes
        return grew and bool(self.too_much())

    def too_much(self) -> list[int]:
        """Return the connections that must end so that the caps on what is held are kept: those that hold most."""
        limits = self._limits
        leaving: list[int] = []
        held = {number: c.held_bytes for number, c in self._connections.items() if c.held_bytes}
        biggest_first = sorted(held, key=lambda number: -held[number])
        in_all = sum(held.values())
        by_group: Counter[str] = Counter()
        for number in held:
            if not self._connections[number].is_exempt:
                by_group[self._connections[number].group] += held[number]
        for number in biggest_first:
            entry = self._connections[number]
            over_group = not entry.is_exempt and by_group[entry.group] > limits.buffered_per_group_bytes_max
            if in_all > limits.buffered_bytes_max or over_group:
                leaving.append(number)
                in_all -= held[number]
                by_group[entry.group] -= 0 if entry.is_exempt else held[number]
        return leaving

    # Rules

    def broke(self, peer: PeerKey, now: Now, *, weight: float = STRIKES_MAX) -> bool:
        """``peer`` broke a rule; see ``Strikes.broke``."""
        return self._strikes.broke(peer, now.boottime_ns, weight=weight, is_exempt=self._is_exempt(peer))

    def _is_exempt(self, peer: PeerKey) -> bool:
        return peer in self._listed or any(c.is_exempt for c in self._connections.values() if c.peer == peer)


STREAMS_BESIDE = 16
"""Streams of one peer beside those that a handler serves: gossip, pings, some being negotiated, some ending."""


def _oldest(under_way: list[tuple[int, _Connection]], group: str) -> int:
    return min((entry.since_ns, number) for number, entry in under_way if entry.group == group)[1]
