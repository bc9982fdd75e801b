"""How a node joins, stays connected and stays known: a machine without I/O.

The flow: a node without a connection dials its anchors of last time, first peers, remembered ones, then whoever it has
heard of, each with a growing pause (``Dialling``). Once connected, both ends catch up (``CatchUp``: they exchange
digests of the shards that they follow and pull what they miss). While it has too few neighbours, or chose too few of
them itself (``Neighbours``), a node asks a random one for peers every one to two seconds and dials some of them, or of
those that it has heard of (``AddressBook``): that is what makes a mesh of a star, and lets the first peer die. Its own
advert it announces at an interval, soon after it has changed, and whenever it finds new neighbours, since gossip
reaches few while the mesh grows. Now and then it catches up with a random neighbour, which repairs what gossip lost,
dials somebody new to see whether they are there, and a first peer, which joins meshes that were parted. As the mesh
grows, it follows smaller shards (``Sharding``); who is beyond them is found by searching (``search.py``). A node with
too many connections drops some that nobody uses, so that newcomers find room.

A peer that breaks the protocol ``violations_max`` times is disconnected and kept out for ``ban_s``.

Every collection is bounded: peers by the network's connections, books by their own sizes, oldest out first.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerStale, PeerViolation
from depin_node.p2p.address_book import AddressBook
from depin_node.p2p.addresses import Address
from depin_node.p2p.advert import Advert
from depin_node.p2p.dialling import Dialling, Purpose
from depin_node.p2p.directory import Digest, Directory, Entry, Need, Taken
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
    Find,
    Follow,
    Forward,
    Found,
    Gossiped,
    Introduced,
    Misbehaved,
    PeerConnected,
    PeerLost,
    Question,
    Search,
    SearchEnded,
    Tell,
    Tick,
    Told,
)
from depin_node.p2p.neighbours import Neighbour, Neighbours, room_at, room_of
from depin_node.p2p.search import ASKED_PER_SHARD, SearchState, Ward
from depin_node.p2p.shards import CAPABILITIES, SHARD_MAX, Shard, Sharding, capability_of, place_of
from depin_node.p2p.standing import Standing

if TYPE_CHECKING:
    from random import Random

REMEMBERED_MAX = 64
ANCHORS = 2
SEARCHES_MAX = 8
SHARDS_ASKED = 4
POINT_BYTES = 16
_LENIENCE = 0.5
"""Of the spacing that we keep ourselves: peers may count fewer nodes."""


@dataclass(frozen=True)
class MeshConfig:
    """How a node looks for peers and tells of itself. Measured bases are in the comments of each field."""

    neighbours_wanted: int = 8
    """A random graph of degree 8 stays connected when many nodes die."""
    chosen_wanted: int = 5
    """Neighbours that we dialled ourselves, of as many groups. With a fifth of the mesh hostile all of five are so once
    in 3,000 nodes."""
    kin_wanted: int = 4
    """Neighbours of our own shard, once the mesh has several: gossip goes only through those who follow it."""
    shard_max: int = SHARD_MAX
    """Nodes of one topic."""
    ask_every_s: float = 1.5
    """Asking a neighbour for peers, ± a third. At 40 nodes each had 4 neighbours after 4 s. While answers name nobody
    new the pause doubles, up to ``announce_every_s``: a small mesh has no more to give."""
    dials_max: int = 4
    """Dials under way at once, but for those of searches."""
    dial_pause_s: tuple[float, float] = (0.25, 15.0)
    """First and longest pause before the same peer is dialled again; each failure doubles it."""
    feel_every_s: float = 30.0
    """Dialling somebody whom we only heard of (Heilman et al. 2015, countermeasure 4)."""
    announce_every_s: float = 15.0
    """Least time between adverts when nothing changes; with N nodes in the topic it is max(this, N × 1 s), so that a
    node hears about one advert a second and topic whatever the size of the mesh."""
    change_spacing_s: float = 1.0
    """Least time between adverts when things change; with N nodes in the topic it is max(this, N × 0.1 s)."""
    catch_up_every_s: float = 5.0
    """Catching up with a random neighbour; with N nodes in the topic it is max(this, N × 0.1 s)."""
    sample_every_s: float = 15.0
    """Asking a random neighbour for some peers of anywhere, once the mesh has several shards."""
    heal_every_s: float = 60.0
    """Dialling a first or remembered peer that is not connected."""
    connections_high: int = 96
    """Above this, connections that are not in use and older than ``settle_s`` are dropped."""
    settle_s: float = 10.0
    """By then a newcomer has been introduced to others, and has caught up."""
    violations_max: int = 5
    ban_s: float = 600.0

    def announce_interval_s(self, peers: int) -> float:
        """Return the time between adverts when nothing changes."""
        return min(max(self.announce_every_s, float(peers)), Advert.LIFETIME_S_MAX / 3)

    def advert_lifetime_s(self, peers: int) -> int:
        """Return for how long an advert holds: two may get lost."""
        return int(min(max(60.0, 3 * self.announce_interval_s(peers)), Advert.LIFETIME_S_MAX))


class Discovery:
    """The machine. Call ``handle`` with what happens, and with a ``Tick`` when ``wake_ns`` has come.

    Args:
        directory: kept by this machine from now on.
        config: intervals and bounds.
        rng: all random choices.
        first_peers: dialled first, in order.
        remembered: what ``remembered`` returned last time; the first two are anchors, dialled before all others.
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
        self.sharding = Sharding(directory.own_key, config.shard_max)
        self.kept: Callable[[bytes], bool] = lambda peer: False
        """Whether the connection to a peer is in use, so that it must not be dropped to make room."""
        self._rng = rng
        self._first = _by_peer(first_peers, directory.own_key)
        self._remembered = _by_peer(remembered, directory.own_key)
        self._first_left = dict.fromkeys(self._first)  # not dialled yet
        self._anchors = list(self._remembered)[:ANCHORS]
        self._neighbours = Neighbours()
        self._parting: set[bytes] = set()  # connections that we close ourselves
        self._dialling = Dialling(config.dial_pause_s, [*self._first, *self._remembered], rng)
        self._book = AddressBook(rng.randbytes(32))
        self._standing = Standing(config.violations_max, config.ban_s)
        self._searches: dict[int, SearchState] = {}
        self._asking: bytes | None = None
        self._ask_pause_s = config.ask_every_s
        self._in_topic = 0  # nodes in the largest shard that we follow
        self._topics: frozenset[str] = frozenset()
        start = now.boottime_ns
        self._adopt_until_ns = start + int(config.settle_s * SECOND_NS)
        self._announced_ns = start - int(config.change_spacing_s * SECOND_NS)
        self._announce_ns = self._ask_ns = self._catch_up_ns = self._sweep_ns = self._heal_ns = start
        self._feel_ns = self._after(start, config.feel_every_s)
        self._sample_ns = self._after(start, config.sample_every_s)

    @property
    def neighbours(self) -> Collection[bytes]:
        """Who is connected."""
        return self._neighbours.keys

    @property
    def wake_ns(self) -> int:
        """When (boot clock) the next ``Tick`` is due."""
        wake_ns = min(self._announce_ns, self._catch_up_ns, self._sweep_ns, self._heal_ns, self._feel_ns)
        if self.sharding.bits_max:
            wake_ns = min(wake_ns, self._sample_ns)
        if self._lacks_neighbours():
            wake_ns = min(wake_ns, self._ask_ns)
        return min([wake_ns, *(search.wake_ns for search in self._searches.values())])

    # What peers and the node ask

    def introductions(self, asker: bytes, count_max: int) -> list[bytes]:
        """Return the adverts of at most ``count_max`` peers that we dialled ourselves, drawn at random, live ones
        first.
        """
        live = [peer for peer in self._neighbours.keys if self._book.is_tried(peer)]
        before = [known.peer for known in self._book.tried() if known.peer not in self._neighbours]
        self._rng.shuffle(live)
        self._rng.shuffle(before)
        entries = (self.directory.get(peer) for peer in (*live, *before) if peer != asker)
        shown = [entry.data for entry in entries if entry and not entry.advert.leaving and not entry.is_unreachable]
        return shown[:count_max]

    def news_for(self, digest: Digest, shards: Sequence[Shard], count_max: int) -> list[bytes]:
        """Return at most ``count_max`` adverts of ``shards`` that the sender of ``digest`` lacks."""
        return self.directory.missing_from(digest, shards, count_max, self._rng)

    def answers(self, asker: bytes, question: Question) -> list[bytes]:
        """Return adverts of peers that suit ``question``."""
        found = self.directory.sample(question.need, question.shard, question.point, question.count + 1)
        return [entry.data for entry in found if entry.key != asker and not entry.is_unreachable][: question.count]

    def remembered(self) -> list[str]:
        """Return where to join next time: anchors, then addresses that we dialled, then those of neighbours that called
        from where they say they are, then those remembered before.
        """
        chosen = self._neighbours.chosen()[:ANCHORS]
        tried = {known.peer: known.address for known in self._book.tried()}
        live = [peer for peer in self._neighbours.keys if peer in tried]
        order = [tried[peer] for peer in (*chosen, *live, *tried) if peer in tried]
        callers = [entry for peer in self._neighbours.keys if (entry := self.directory.get(peer)) and peer not in tried]
        order += [a for entry in callers if entry.seen_at for a in entry.addresses if a.host == entry.seen_at.host]
        before = [address for addresses in self._remembered.values() for address in addresses]
        return list(dict.fromkeys(str(address) for address in (*order, *before)))[:REMEMBERED_MAX]

    def dialable(self, peer: bytes, now: Now) -> list[str]:
        """Return where ``peer`` may be dialled for work; none while that would be a nuisance to who is there."""
        entry = self.directory.get(peer)
        addresses = self.directory.dialable(entry) if entry else ()
        return [str(address) for address in self._dialling.reachable(peer, addresses, now.boottime_ns)]

    def topics_published(self, lent: Iterable[str]) -> list[str]:
        """Return the topics of our own advert, for the capabilities ``lent``."""
        return [self.sharding.own(capability).topic for capability in lent]

    @property
    def nodes_in_topic(self) -> int:
        """How many nodes are known in the largest shard that we follow."""
        return self._in_topic

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
                self._neighbours.introduced(peer)
                return self._introduced(peer, data, now)
            case Told(peer, adverts, are_live, bits):
                return self._told(peer, adverts, are_live, bits, now)
            case Found(peer, search, adverts):
                return self._found(peer, search, adverts, now)
            case Misbehaved(peer, reason):
                return self._misbehaved(peer, reason, now)
            case Search(number, need, count):
                return self._search(number, need, count, now)
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
            effects += self._resize(ns)
        if ns >= self._announce_ns:
            self._announced_ns = ns
            self._announce_ns = self._after(ns, self.config.announce_interval_s(self._in_topic))
            effects.append(Announce())
        effects += self._step_searches(now)
        if not self._neighbours.keys:
            self._feel_ns = max(self._feel_ns, ns + SECOND_NS)
            self._sample_ns = max(self._sample_ns, ns + SECOND_NS)
            effects += self._dial_first(ns)
            self._ask_ns = self._after(ns, 0.25)
            self._catch_up_ns = max(self._catch_up_ns, self._ask_ns)
            self._heal_ns = max(self._heal_ns, self._ask_ns)
            return effects
        if ns >= self._ask_ns and self._lacks_neighbours():
            effects += self._look_for_neighbours(ns)
        if ns >= self._catch_up_ns:
            self._catch_up_ns = self._after(ns, max(self.config.catch_up_every_s, 0.1 * self._in_topic))
            effects.append(CatchUp(self._any_kin()))
        if ns >= self._feel_ns:
            self._feel_ns = self._after(ns, self.config.feel_every_s)
            effects += self._feel(ns)
        if ns >= self._sample_ns:
            self._sample_ns = self._after(ns, self.config.sample_every_s)
            if self.sharding.bits_max:
                effects.append(Find(self._neighbours.any(self._rng), 0, self._question(None, None, 16)))
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
        earliest_ns = self._announced_ns + int(self._spacing_s() * SECOND_NS)
        self._announce_ns = min(self._announce_ns, max(ns, earliest_ns, now.boottime_ns))

    def _spacing_s(self) -> float:
        """Return how often an advert may change."""
        return max(self.config.change_spacing_s, 0.1 * self._in_topic)

    def _drop_some(self, ns: int) -> list[Effect]:
        over = len(self._neighbours) - self.config.connections_high
        settled_ns = ns - int(self.config.settle_s * SECOND_NS)
        return [self._part(peer) for peer in self._neighbours.to_drop(over, settled_ns, self.kept, self._rng)]

    def _part(self, peer: bytes) -> Effect:
        self._parting.add(peer)
        return Disconnect(peer)

    # Shards

    def _resize(self, ns: int) -> list[Effect]:
        """Count our shards, and follow larger or smaller ones if need be."""
        counts = Counter[str]()
        for shard in self.sharding.followed():
            counts[shard.capability] = len(self.directory.within([shard]))
        self._in_topic = max(counts.values(), default=0)
        changed = self.sharding.adopt() if ns < self._adopt_until_ns else self.sharding.resize(counts)
        if changed:
            self._in_topic = max((len(self.directory.within([shard])) for shard in self.sharding.followed()), default=0)
            self._announce_ns = min(self._announce_ns, self._after(ns, 1.0))
            self._ask_ns = min(self._ask_ns, self._after(ns, 0.5))
        self.directory.spacing_s = _LENIENCE * self._spacing_s()
        topics = self.sharding.topics()
        if topics == self._topics:
            return []
        self._topics = topics
        return [Follow(topics)]

    def _kin(self) -> Shard | None:
        """Return the shard that our kin share: the smallest we follow; None if all nodes are in it."""
        smallest = max(self.sharding.followed(), key=lambda shard: shard.bits)
        return smallest if smallest.bits else None

    def _kin_count(self) -> int:
        if not self.sharding.bits_max:
            return self.config.kin_wanted
        kin = self._kin()
        assert kin is not None
        return sum(kin.has_place(place_of(peer)) for peer in self._neighbours.keys)

    def _any_kin(self) -> bytes:
        kin = self._kin()
        fellows = [peer for peer in self._neighbours.keys if kin and kin.has_place(place_of(peer))]
        return self._rng.choice(fellows) if fellows else self._neighbours.any(self._rng)

    def _question(self, need: Need | None, shard: Shard | None, count: int) -> Question:
        return Question(need, shard, self._rng.randbytes(POINT_BYTES), count)

    # Neighbours

    def _lacks_neighbours(self) -> bool:
        return (
            len(self._neighbours) < self.config.neighbours_wanted
            or self._choices_left() > 0
            or bool(self._first_left)
            or self._kin_count() < self.config.kin_wanted
        )

    def _choices_left(self) -> int:
        """Return how many neighbours are still to be chosen; first peers do not count: others chose those for us."""
        named = sum(peer in self._neighbours for peer in self._first)
        return self.config.chosen_wanted + min(named, ANCHORS) - len(self._neighbours.rooms())

    def _look_for_neighbours(self, ns: int) -> list[Effect]:
        """Ask a neighbour for peers; and dial kin, or of those we heard of, if answers name nobody new."""
        self._ask_ns = self._after(ns, self._ask_pause_s)
        effects: list[Effect] = []
        if self._asking is None:
            self._asking = self._neighbours.any(self._rng)
            effects.append(AskPeers(self._asking))
        kin = self._kin()
        if kin is not None and self._kin_count() < self.config.kin_wanted:
            effects.append(Find(self._neighbours.any(self._rng), 0, self._question(None, kin, 16)))
            known = [entry.key for entry in self.directory.within([kin]) if self._is_prospect(entry)]
            self._rng.shuffle(known)
            effects += self._dial(known, ns, at_most=2)
        # Each first peer is dialled once at least: it may be the only honest one.
        effects += self._dial(list(self._first_left), ns)
        if self._choices_left() > 0:
            known = [heard.peer for heard in self._book.draw(self._rng, 16)]
            prospects = [peer for peer in known if (entry := self.directory.get(peer)) and self._is_prospect(entry)]
            effects += self._dial(prospects, ns, at_most=1 if self._ask_pause_s == self.config.ask_every_s else 2)
        return effects

    def _is_prospect(self, entry: Entry) -> bool:
        return entry.key not in self._neighbours and not entry.advert.leaving and entry.key != self.directory.own_key

    def _feel(self, ns: int) -> list[Effect]:
        known = self._book.feeler(self._rng)
        if known is None or known.peer in self._neighbours or self._standing.is_banned(known.peer, ns):
            return []
        return self._dial_at(known.peer, [known.address], Purpose.FEELER, ns)

    # Dialling

    def _dial_first(self, ns: int) -> list[Effect]:
        """Dial with nobody connected: anchors, first peers, remembered ones, then anyone known."""
        known = [entry.key for entry in self.directory.peers()]
        self._rng.shuffle(known)
        heard = [known.peer for known in self._book.draw(self._rng, 16)]
        return self._dial(dict.fromkeys([*self._anchors, *self._first, *self._remembered, *heard, *known]), ns)

    def _dial(self, peers: Iterable[bytes], ns: int, *, at_most: int = 64) -> list[Effect]:
        """Dial some of ``peers`` to be neighbours: of each group one."""
        effects: list[Effect] = []
        rooms = set(self._neighbours.rooms()) | {
            self._room(peer) for peer, purpose in self._dialling.under_way.items() if purpose is Purpose.NEIGHBOUR
        }
        for peer in peers:
            if len(effects) >= at_most:
                break
            room, is_trusted = self._room(peer), peer in self._first or peer in self._remembered
            if room in rooms and not is_trusted:
                continue
            dials = self._dial_at(peer, self._addresses(peer), Purpose.NEIGHBOUR, ns)
            if dials:
                rooms.add(room)
                effects += dials
        return effects

    def _dial_at(self, peer: bytes, addresses: Sequence[Address], purpose: Purpose, ns: int) -> list[Effect]:
        under_way = self._dialling.count(Purpose.NEIGHBOUR, Purpose.FEELER)
        if purpose is not Purpose.ERRAND and under_way >= self.config.dials_max:
            return []
        if peer == self.directory.own_key or peer in self._neighbours or self._standing.is_banned(peer, ns):
            return []
        allowed = self._dialling.allowed(peer, addresses, ns)
        if not allowed:
            return []
        self._dialling.start(peer, allowed, purpose)
        self._first_left.pop(peer, None)
        return [Dial(peer, tuple(str(address) for address in allowed))]

    def _addresses(self, peer: bytes) -> tuple[Address, ...]:
        entry = self.directory.get(peer)
        advertised = self.directory.dialable(entry) if entry else ()
        known = (*self._first.get(peer, ()), *self._remembered.get(peer, ()), *advertised)
        return tuple(dict.fromkeys(known))

    def _room(self, peer: bytes) -> str:
        entry, addresses = self.directory.get(peer), self._addresses(peer)
        if entry is not None:
            return room_of(entry.seen_at or next(iter(addresses), None), entry.group)
        return room_at(addresses[0]) if addresses else ""

    def _dial_ended(self, peer: bytes, error: str | None, now: Now) -> list[Effect]:
        if error is None:
            self._dialling.ended(peer)
            return []
        self.directory.unreachable(peer)
        self._dialling.failed(peer, self._addresses(peer), now.boottime_ns)
        self._book.failed(peer)
        effects: list[Effect] = [Tell("undialled", peer, error)]
        for search in self._searches.values():
            search.failed(peer)
        return effects + self._step_searches(now)

    # Connections

    def _connected(self, peer: bytes, address: str, outbound: bool, now: Now) -> list[Effect]:
        if self._standing.is_banned(peer, now.boottime_ns):
            return [self._part(peer)]
        joined = not self._neighbours.keys
        self.directory.connected(peer, address)
        seen_at = self.directory.seen_at(peer)
        purpose = self._dialling.answered(peer, seen_at if outbound else None)
        room = room_at(seen_at) if seen_at else self._room(peer)
        is_chosen = (
            outbound
            and purpose in (None, Purpose.NEIGHBOUR, Purpose.FEELER)
            and room not in self._neighbours.rooms()
            and (purpose is not Purpose.FEELER or self._choices_left() > 0)
        )
        self._parting.discard(peer)
        self._first_left.pop(peer, None)
        self._neighbours.put(peer, Neighbour(now.boottime_ns, outbound, is_chosen, room, place_of(peer)))
        if outbound and seen_at is not None:
            self._book.reached(seen_at, self._group(peer, seen_at), now.boottime_ns)
        if purpose is Purpose.FEELER and not is_chosen:
            return [self._part(peer)]
        for search in self._searches.values():
            search.connected(peer)
        effects: list[Effect] = [Tell("joined" if joined else "connected", peer, address)]
        if purpose is not Purpose.ERRAND:
            effects.append(CatchUp(peer))
        effects += self._drop_some(now.boottime_ns)
        if len(self._neighbours) <= self.config.neighbours_wanted:
            # Gossip takes a new neighbour into its own mesh about a second later.
            self._announce_by(now.boottime_ns + SECOND_NS, now)
            if joined:
                self._ask_ns = now.boottime_ns + SECOND_NS // 4
            self._ask_soon(now)
        return effects + self._step_searches(now)

    def _group(self, peer: bytes, seen_at: Address) -> str:
        entry = self.directory.get(peer)
        return entry.group if entry else room_at(seen_at)

    def _ask_soon(self, now: Now) -> None:
        """Forget that answers named nobody new: things have changed."""
        self._ask_pause_s = self.config.ask_every_s
        self._ask_ns = min(self._ask_ns, self._after(now.boottime_ns, self._ask_pause_s))

    def _lost(self, peer: bytes, now: Now) -> list[Effect]:
        gone = self._neighbours.pop(peer)
        if gone is None:
            return []
        # Who called and left without a word was only looking whether we are there.
        orderly = peer in self._parting or not (gone.is_outbound or gone.is_introduced)
        self._parting.discard(peer)
        self.directory.lost(peer, is_unreachable=not orderly)
        self._ask_soon(now)
        if self._asking == peer:
            self._asking = None
        for search in self._searches.values():
            search.failed(peer)
        effects: list[Effect] = [Tell("lost", peer)]
        if not self._neighbours.keys:
            effects.append(Tell("alone", peer, "no peer is connected"))
            self._ask_ns = now.boottime_ns
        return effects + self._step_searches(now)

    # Searches

    def _search(self, number: int, need: Need, count: int, now: Now) -> list[Effect]:
        if len(self._searches) >= SEARCHES_MAX:
            return [SearchEnded(number, ())]
        point = self._rng.randbytes(POINT_BYTES)
        self._searches[number] = SearchState(number, need, count, point, self._wards(need), now.boottime_ns)
        return self._step_searches(now)

    def _wards(self, need: Need) -> list[Ward]:
        """Return whom to ask: members of random shards, or of the one there is."""
        wards: list[Ward] = []
        for capability in sorted({capability_of(name) for name in need.device_classes}):
            bits = self.sharding.own(capability).bits
            if not bits:
                members = list(self._neighbours.keys)
                wards.append(Ward(None, self._rng.sample(members, min(len(members), 2 * ASKED_PER_SHARD))))
                continue
            known: dict[int, list[Entry]] = {}
            for entry in self.directory.peers():
                if capability in entry.capabilities and not entry.is_unreachable:
                    known.setdefault(entry.place >> (64 - bits), []).append(entry)
            for prefix in self._rng.sample(sorted(known), min(len(known), SHARDS_ASKED)):
                drawn = self._rng.sample(known[prefix], min(len(known[prefix]), 3 * ASKED_PER_SHARD))
                drawn.sort(key=lambda entry: not entry.is_connected)
                wards.append(Ward(Shard(capability, bits, prefix), [entry.key for entry in drawn]))
        return wards

    def _step_searches(self, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for search in list(self._searches.values()):
            while True:
                wish = search.step(self.directory, self._neighbours.keys, now.boottime_ns)
                effects += [Find(peer, search.number, question) for peer, question in wish.ask]
                refused = 0
                for peer in wish.dial:
                    dials = self._dial_at(peer, self._addresses(peer), Purpose.ERRAND, now.boottime_ns)
                    effects += dials
                    if not dials and peer not in self._dialling.under_way:
                        search.failed(peer)
                        refused += 1
                if not refused:
                    break
            if search.is_over(now.boottime_ns):
                del self._searches[search.number]
                effects.append(SearchEnded(search.number, tuple(search.live[: search.count])))
        return effects

    def _found(self, peer: bytes, number: int, adverts: Sequence[bytes], now: Now) -> list[Effect]:
        effects, keys = self._take(peer, adverts, now)
        search = self._searches.get(number)
        if search is not None:
            entries = (self.directory.get(key) for key in keys)
            search.found(peer, [entry for entry in entries if entry is not None])
        return effects + self._step_searches(now)

    # Adverts

    def _gossiped(self, peer: bytes, data: bytes, now: Now) -> list[Effect]:
        """Take anybody's advert from ``peer``, and pass on what is new. One that has expired on its way is no fault."""
        try:
            taken, key = self.directory.receive(data, now)
        except PeerStale:
            return []
        except PeerViolation as error:
            return self._misbehaved(peer, str(error), now)
        effects = self._noted(taken, key, peer, now)
        if taken in (Taken.DISCOVERED, Taken.UPDATED):
            effects.append(Forward())
        return effects

    def _introduced(self, peer: bytes, data: bytes, now: Now) -> list[Effect]:
        """Take an advert that must be ``peer``'s own."""
        try:
            taken, key = self.directory.receive(data, now)
        except PeerViolation as error:
            return self._misbehaved(peer, str(error), now)
        effects = self._noted(taken, key, peer, now)
        if key != peer:
            effects += self._misbehaved(peer, "advert: passed off that of another peer", now)
        return effects

    def _take(self, peer: bytes, adverts: Sequence[bytes], now: Now) -> tuple[list[Effect], list[bytes]]:
        """Take adverts that ``peer`` told; return whose they are."""
        effects, keys = list[Effect](), list[bytes]()
        for data in adverts:
            try:
                taken, key = self.directory.receive(data, now)
            except PeerViolation as error:
                effects += self._misbehaved(peer, str(error), now)
                break
            effects += self._noted(taken, key, peer, now)
            if taken is Taken.DISCOVERED and self._dialling.was_tried(key):
                self.directory.unreachable(key)  # we tried before we knew its advert
            keys.append(key)
        return effects, keys

    def _told(
        self, peer: bytes, adverts: Sequence[bytes], are_live: bool, bits: Sequence[int], now: Now
    ) -> list[Effect]:
        effects, live = self._take(peer, adverts, now)
        if len(bits) == len(CAPABILITIES):
            self.sharding.told(bits)
            if not self.sharding.bits_max:  # a newcomer learns at once how large the topic is
                self._in_topic = max(self._in_topic, len(self.directory))
            if now.boottime_ns < self._adopt_until_ns and tuple(bits) != self.sharding.bits:
                self._sweep_ns = min(self._sweep_ns, now.boottime_ns)
        if are_live:
            if self._asking == peer:
                self._asking = None
            room = max(self.config.neighbours_wanted - len(self._neighbours), self._choices_left())
            wanted = room - self._dialling.count(Purpose.NEIGHBOUR)
            strangers = [key for key in live if key not in self._neighbours]
            longer_s = min(2 * self._ask_pause_s, self.config.announce_every_s)
            self._ask_pause_s = self.config.ask_every_s if strangers else longer_s
            self._rng.shuffle(strangers)
            effects += self._dial(strangers, now.boottime_ns, at_most=max(0, min(wanted, 1)))
        return effects

    def _noted(self, taken: Taken, key: bytes, teller: bytes, now: Now) -> list[Effect]:
        entry = self.directory.get(key)
        if taken is Taken.OURSELVES:
            # From before a restart, and with a higher seq than the one we began with: outbid it.
            self._announce_by(now.boottime_ns, now)
        elif taken is Taken.DISCOVERED and entry is not None and not entry.advert.leaving:
            address = next(iter(self.directory.dialable(entry)), None)
            if address is not None:
                told_by = self.directory.get(teller)
                group = told_by.group if told_by else "unknown"
                self._book.heard(address, room_of(address, entry.group), group, now.boottime_ns)
            return [Tell("discovered", key)]
        elif taken is Taken.UPDATED and entry is not None and entry.advert.leaving:
            return [Tell("left", key)]
        return []

    def _misbehaved(self, peer: bytes, reason: str, now: Now) -> list[Effect]:
        if not self._standing.violated(peer, now.boottime_ns):
            return [Tell("violated", peer, reason)]
        return [Tell("banned", peer, reason), self._part(peer)]


def _by_peer(addresses: Sequence[Address], own_key: bytes) -> dict[bytes, tuple[Address, ...]]:
    by_peer: dict[bytes, tuple[Address, ...]] = {}
    for address in addresses:
        if address.peer != own_key:
            by_peer[address.peer] = (*by_peer.get(address.peer, ()), address)
    return by_peer
