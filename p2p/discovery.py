"""How a node joins, stays connected and stays known: a machine without I/O.

The flow: a node without a connection dials first peers, then remembered ones, then whoever its directory holds, each
with a growing pause. Once connected, both ends catch up (``CatchUp``: they exchange digests and pull what they miss).
While it has fewer than ``neighbours_wanted`` neighbours a node asks a random one for its live peers every one to two
seconds and dials some of them: that is what makes a mesh of a star, and lets the first peer die. Its own advert it
announces at an interval, soon after it has changed, and whenever it finds new neighbours, since gossip reaches few
while the mesh grows. Now and then it catches up with a random neighbour, which repairs what gossip lost, and dials a
first peer, which joins meshes that were parted. A node with too many connections drops some that nobody uses, so that
newcomers find room.

A peer that breaks the protocol ``violations_max`` times is disconnected and kept out for ``ban_s``.

Every collection is bounded: peers by the network's connections, the rest by ``BOOK_MAX``, oldest out first.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerStale, PeerViolation
from depin_node.p2p.addresses import Address
from depin_node.p2p.advert import Advert
from depin_node.p2p.directory import Digest, Directory, Taken
from depin_node.p2p.discovery_events import (
    Announce,
    AskPeers,
    CatchUp,
    Changed,
    Dial,
    DialEnded,
    Disconnect,
    Effect,
    Event,
    Forward,
    Gossiped,
    Introduced,
    Misbehaved,
    PeerConnected,
    PeerLost,
    Tell,
    Tick,
    Told,
)

if TYPE_CHECKING:
    from random import Random

BOOK_MAX = 4096
REMEMBERED_MAX = 64
V = TypeVar("V")


@dataclass(frozen=True)
class MeshConfig:
    """How a node looks for peers and tells of itself. Measured bases are in the comments of each field."""

    neighbours_wanted: int = 8
    """A random graph of degree 8 stays connected when many nodes die."""
    ask_every_s: float = 1.5
    """Asking a neighbour for peers, ± a third. At 40 nodes each had 4 neighbours after 4 s. While answers name nobody
    new the pause doubles, up to ``announce_every_s``: a small mesh has no more to give."""
    dials_max: int = 4
    """Dials under way at once."""
    dial_pause_s: tuple[float, float] = (0.25, 15.0)
    """First and longest pause before the same peer is dialled again; each failure doubles it."""
    announce_every_s: float = 15.0
    """Least time between adverts when nothing changes; with N peers known it is max(this, N × 1 s), so that a node
    hears about one advert a second whatever the size of the mesh."""
    change_spacing_s: float = 1.0
    """Least time between adverts when things change; with N peers known it is max(this, N × 0.1 s)."""
    catch_up_every_s: float = 5.0
    """Catching up with a random neighbour; with N peers known it is max(this, N × 0.1 s)."""
    heal_every_s: float = 60.0
    """Dialling a first or remembered peer that is not connected."""
    connections_high: int = 96
    """Above this, connections that are not in use and older than ``settle_s`` are dropped."""
    settle_s: float = 10.0
    """By then a newcomer has been introduced to others."""
    violations_max: int = 5
    ban_s: float = 600.0

    def announce_interval_s(self, peers: int) -> float:
        """Return the time between adverts when nothing changes."""
        return min(max(self.announce_every_s, float(peers)), Advert.LIFETIME_S_MAX / 3)

    def advert_lifetime_s(self, peers: int) -> int:
        """Return for how long an advert holds: two may get lost."""
        return int(min(max(60.0, 3 * self.announce_interval_s(peers)), Advert.LIFETIME_S_MAX))


class _Book(Generic[V]):
    """A dictionary of at most ``BOOK_MAX`` entries; the longest unchanged goes first."""

    def __init__(self) -> None:
        self._of: OrderedDict[bytes, V] = OrderedDict()

    def get(self, key: bytes) -> V | None:
        return self._of.get(key)

    def put(self, key: bytes, value: V) -> None:
        self._of[key] = value
        self._of.move_to_end(key)
        if len(self._of) > BOOK_MAX:
            self._of.popitem(last=False)

    def drop(self, key: bytes) -> None:
        self._of.pop(key, None)


@dataclass(frozen=True)
class _Tries:
    failed: int
    again_ns: int


@dataclass(frozen=True)
class _Strikes:
    count: int
    since_ns: int
    banned_until_ns: int = 0


@dataclass(frozen=True)
class _Neighbour:
    since_ns: int
    dialled: bool


class Discovery:
    """The machine. Call ``handle`` with what happens, and with a ``Tick`` when ``wake_ns`` has come.

    Args:
        directory: kept by this machine from now on.
        config: intervals and bounds.
        rng: all random choices.
        first_peers: dialled first, in order.
        remembered: dialled when no first peer answers.
        now: when it starts.
    """

    def __init__(
        self,
        directory: Directory,
        config: MeshConfig,
        rng: "Random",
        *,
        first_peers: Sequence[Address],
        remembered: Sequence[Address],
        now: Now,
    ) -> None:
        self.directory = directory
        self.config = config
        self.kept: Callable[[bytes], bool] = lambda peer: False
        """Whether the connection to a peer is in use, so that it must not be dropped to make room."""
        self._rng = rng
        self._first = _by_peer(first_peers, directory.own_key)
        self._remembered = _by_peer(remembered, directory.own_key)
        self._neighbours: dict[bytes, _Neighbour] = {}
        self._dialling: set[bytes] = set()
        self._tries: _Book[_Tries] = _Book()
        self._strikes: _Book[_Strikes] = _Book()
        self._asking: bytes | None = None
        self._ask_pause_s = config.ask_every_s
        start = now.boottime_ns
        self._announced_ns = start - int(config.change_spacing_s * SECOND_NS)
        self._announce_ns = self._ask_ns = self._catch_up_ns = self._sweep_ns = self._heal_ns = start

    @property
    def neighbours(self) -> Collection[bytes]:
        """Who is connected."""
        return self._neighbours.keys()

    @property
    def wake_ns(self) -> int:
        """When (boot clock) the next ``Tick`` is due."""
        wake_ns = min(self._announce_ns, self._catch_up_ns, self._sweep_ns, self._heal_ns)
        if len(self._neighbours) < self.config.neighbours_wanted:
            wake_ns = min(wake_ns, self._ask_ns)
        return wake_ns

    def introductions(self, asker: bytes, count_max: int) -> list[bytes]:
        """Return the adverts of at most ``count_max`` neighbours that ``asker`` can be sent to, drawn at random."""
        adverts = [
            entry.data
            for peer in self._neighbours
            if peer != asker and self._proven(peer) and (entry := self.directory.get(peer)) is not None
        ]
        return self._rng.sample(adverts, min(count_max, len(adverts)))

    def news_for(self, peer: bytes, digest: Digest, count_max: int) -> list[bytes]:
        """Return at most ``count_max`` adverts that ``peer``, who sent ``digest``, lacks."""
        return self.directory.missing_from(digest, count_max, self._rng)

    def remembered(self) -> list[str]:
        """Return where to join next time: addresses of neighbours, then those remembered before."""
        now_known = [address for peer in self._neighbours for address in self._proven(peer)]
        before = [address for addresses in self._remembered.values() for address in addresses]
        return list(dict.fromkeys(str(address) for address in (*now_known, *before)))[:REMEMBERED_MAX]

    def _proven(self, peer: bytes) -> tuple[Address, ...]:
        """Return where a neighbour surely can be dialled: it was, or it called from a host that it advertises."""
        neighbour, entry = self._neighbours[peer], self.directory.get(peer)
        if entry is None or entry.seen_at is None or entry.advert.leaving:
            return ()
        if neighbour.dialled:
            return (entry.seen_at,)
        return tuple(address for address in entry.addresses if address.host == entry.seen_at.host)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return what is to be done, in order."""
        match event:
            case Tick():
                return self._tick(now)
            case PeerConnected(peer, address, outbound):
                return self._connected(peer, address, outbound, now)
            case PeerLost(peer):
                return self._lost(peer, now)
            case DialEnded(peer, error):
                return self._dial_ended(peer, error, now)
            case Gossiped(peer, data):
                return self._gossiped(peer, data, now)
            case Introduced(peer, data):
                return self._introduced(peer, data, now)
            case Told(peer, adverts, are_live):
                return self._told(peer, adverts, are_live, now)
            case Misbehaved(peer, reason):
                return self._misbehaved(peer, reason, now)
            case Changed():
                self._announce_by(now.boottime_ns, now)
                return []

    # Time

    def _tick(self, now: Now) -> list[Effect]:
        ns, effects = now.boottime_ns, list[Effect]()
        if ns >= self._sweep_ns:
            self._sweep_ns = self._after(ns, 5.0)
            effects += [Tell("expired", entry.key) for entry in self.directory.expire(now)]
            effects += self._drop_some(ns)
        if ns >= self._announce_ns:
            self._announced_ns = ns
            self._announce_ns = self._after(ns, self.config.announce_interval_s(len(self.directory)))
            effects.append(Announce())
        if not self._neighbours:
            effects += self._dial_first(ns)
            self._ask_ns = self._after(ns, 0.25)
            self._catch_up_ns = max(self._catch_up_ns, self._ask_ns)
            self._heal_ns = max(self._heal_ns, self._ask_ns)
            return effects
        if ns >= self._ask_ns and len(self._neighbours) < self.config.neighbours_wanted:
            self._ask_ns = self._after(ns, self._ask_pause_s)
            if self._asking is None:
                self._asking = self._any_neighbour()
                effects.append(AskPeers(self._asking))
        if ns >= self._catch_up_ns:
            self._catch_up_ns = self._after(ns, max(self.config.catch_up_every_s, 0.1 * len(self.directory)))
            effects.append(CatchUp(self._any_neighbour()))
        if ns >= self._heal_ns:
            self._heal_ns = self._after(ns, self.config.heal_every_s)
            apart = [peer for peer in (*self._first, *self._remembered) if peer not in self._neighbours]
            if apart:
                effects += self._dial([self._rng.choice(apart)], ns)
        return effects

    def _after(self, ns: int, seconds: float) -> int:
        """Return a time about ``seconds`` on: ± a third, so that nodes started together do not act together."""
        return ns + int(seconds * self._rng.uniform(2 / 3, 4 / 3) * SECOND_NS)

    def _announce_by(self, ns: int, now: Now) -> None:
        spacing_s = max(self.config.change_spacing_s, 0.1 * len(self.directory))
        earliest_ns = self._announced_ns + int(spacing_s * SECOND_NS)
        self._announce_ns = min(self._announce_ns, max(ns, earliest_ns, now.boottime_ns))

    def _drop_some(self, ns: int) -> list[Effect]:
        over = len(self._neighbours) - self.config.connections_high
        settled_ns = ns - int(self.config.settle_s * SECOND_NS)
        idle = [p for p, neighbour in self._neighbours.items() if neighbour.since_ns < settled_ns and not self.kept(p)]
        return [Disconnect(peer) for peer in self._rng.sample(idle, max(0, min(over, len(idle))))]

    # Dialling

    def _dial_first(self, ns: int) -> list[Effect]:
        """Dial with nobody connected: first peers, then remembered ones, then anyone known."""
        known = [entry.key for entry in self.directory.peers()]
        self._rng.shuffle(known)
        return self._dial([*self._first, *self._remembered, *known], ns)

    def _dial(self, peers: Iterable[bytes], ns: int) -> list[Effect]:
        effects: list[Effect] = []
        for peer in peers:
            if len(self._dialling) >= self.config.dials_max:
                break
            tries, strikes = self._tries.get(peer), self._strikes.get(peer)
            addresses = self._addresses(peer)
            if (
                addresses
                and peer != self.directory.own_key
                and peer not in self._neighbours
                and peer not in self._dialling
                and (tries is None or ns >= tries.again_ns)
                and (strikes is None or ns >= strikes.banned_until_ns)
            ):
                self._dialling.add(peer)
                effects.append(Dial(peer, addresses))
        return effects

    def _addresses(self, peer: bytes) -> tuple[str, ...]:
        entry = self.directory.get(peer)
        advertised = self.directory.dialable(entry) if entry else ()
        known = (*self._first.get(peer, ()), *self._remembered.get(peer, ()), *advertised)
        return tuple(dict.fromkeys(str(address) for address in known))

    def _dial_ended(self, peer: bytes, error: str | None, now: Now) -> list[Effect]:
        self._dialling.discard(peer)
        if error is None:
            return []
        self.directory.unreachable(peer)
        failed = (((tries := self._tries.get(peer)) and tries.failed) or 0) + 1
        first_s, longest_s = self.config.dial_pause_s
        pause_s = min(first_s * 2.0 ** min(failed - 1, 30), longest_s)
        self._tries.put(peer, _Tries(failed, self._after(now.boottime_ns, pause_s)))
        return [Tell("undialled", peer, error)]

    # Connections

    def _connected(self, peer: bytes, address: str, outbound: bool, now: Now) -> list[Effect]:
        strikes = self._strikes.get(peer)
        if strikes is not None and now.boottime_ns < strikes.banned_until_ns:
            return [Disconnect(peer)]
        joined = not self._neighbours
        self._neighbours[peer] = _Neighbour(now.boottime_ns, outbound)
        self.directory.connected(peer, address)
        self._tries.drop(peer)
        effects: list[Effect] = [Tell("joined" if joined else "connected", peer, address), CatchUp(peer)]
        effects += self._drop_some(now.boottime_ns)
        if len(self._neighbours) <= self.config.neighbours_wanted:
            # Gossip takes a new neighbour into its own mesh about a second later.
            self._announce_by(now.boottime_ns + SECOND_NS, now)
            if joined:
                self._ask_ns = now.boottime_ns + SECOND_NS // 4
            self._ask_soon(now)
        return effects

    def _ask_soon(self, now: Now) -> None:
        """Forget that answers named nobody new: things have changed."""
        self._ask_pause_s = self.config.ask_every_s
        self._ask_ns = min(self._ask_ns, self._after(now.boottime_ns, self._ask_pause_s))

    def _lost(self, peer: bytes, now: Now) -> list[Effect]:
        if self._neighbours.pop(peer, None) is None:
            return []
        self.directory.lost(peer)
        self._ask_soon(now)
        if self._asking == peer:
            self._asking = None
        effects: list[Effect] = [Tell("lost", peer)]
        if not self._neighbours:
            effects.append(Tell("alone", peer, "no peer is connected"))
            self._ask_ns = now.boottime_ns
        return effects

    def _any_neighbour(self) -> bytes:
        return self._rng.choice(list(self._neighbours))

    # Adverts

    def _gossiped(self, peer: bytes, data: bytes, now: Now) -> list[Effect]:
        """Take anybody's advert from ``peer``, and pass on what is new. One that has expired on its way is no fault."""
        try:
            taken, key = self.directory.receive(data, now)
        except PeerStale:
            return []
        except PeerViolation as error:
            return self._misbehaved(peer, str(error), now)
        effects = self._noted(taken, key, now)
        if taken in (Taken.DISCOVERED, Taken.UPDATED):
            effects.append(Forward())
        return effects

    def _introduced(self, peer: bytes, data: bytes, now: Now) -> list[Effect]:
        """Take an advert that must be ``peer``'s own."""
        try:
            taken, key = self.directory.receive(data, now)
        except PeerViolation as error:
            return self._misbehaved(peer, str(error), now)
        effects = self._noted(taken, key, now)
        if key != peer:
            effects += self._misbehaved(peer, "advert: passed off that of another peer", now)
        return effects

    def _told(self, peer: bytes, adverts: Sequence[bytes], are_live: bool, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        live: list[bytes] = []
        for data in adverts:
            try:
                taken, key = self.directory.receive(data, now)
            except PeerViolation as error:
                effects += self._misbehaved(peer, str(error), now)
                break
            effects += self._noted(taken, key, now)
            if taken is Taken.DISCOVERED and self._tries.get(key) is not None:
                self.directory.unreachable(key)  # we tried before we knew its advert
            live.append(key)
        if are_live:
            if self._asking == peer:
                self._asking = None
            wanted = self.config.neighbours_wanted - len(self._neighbours) - len(self._dialling)
            strangers = [key for key in live if key not in self._neighbours]
            longer_s = min(2 * self._ask_pause_s, self.config.announce_every_s)
            self._ask_pause_s = self.config.ask_every_s if strangers else longer_s
            self._rng.shuffle(strangers)
            effects += self._dial(strangers[: max(0, min(wanted, 2))], now.boottime_ns)
        return effects

    def _noted(self, taken: Taken, key: bytes, now: Now) -> list[Effect]:
        entry = self.directory.get(key)
        if taken is Taken.OURSELVES:
            # From before a restart, and with a higher seq than the one we began with: outbid it.
            self._announce_by(now.boottime_ns, now)
        elif taken is Taken.DISCOVERED and entry is not None and not entry.advert.leaving:
            return [Tell("discovered", key)]
        elif taken is Taken.UPDATED and entry is not None and entry.advert.leaving:
            return [Tell("left", key)]
        return []

    def _misbehaved(self, peer: bytes, reason: str, now: Now) -> list[Effect]:
        old = self._strikes.get(peer)
        ban_ns = int(self.config.ban_s * SECOND_NS)
        if old is None or now.boottime_ns - old.since_ns > ban_ns:
            old = _Strikes(0, now.boottime_ns)
        count = old.count + 1
        if count < self.config.violations_max:
            self._strikes.put(peer, _Strikes(count, old.since_ns, old.banned_until_ns))
            return [Tell("violated", peer, reason)]
        self._strikes.put(peer, _Strikes(0, now.boottime_ns, now.boottime_ns + ban_ns))
        return [Tell("banned", peer, reason), Disconnect(peer)]


def _by_peer(addresses: Sequence[Address], own_key: bytes) -> dict[bytes, tuple[Address, ...]]:
    by_peer: dict[bytes, tuple[Address, ...]] = {}
    for address in addresses:
        if address.peer != own_key:
            by_peer[address.peer] = (*by_peer.get(address.peer, ()), address)
    return by_peer
