"""How a node joins, stays connected and stays known: a machine without I/O.

The flow: a node without a connection dials (``choosing``), each peer and each address with a growing pause
(``dialling``). Once connected, both ends catch up (``CatchUp``: they exchange digests of the shards that they follow
and pull what they miss). While it has too few neighbours, or chose too few of them itself, a node asks a random one for
peers every one to two seconds and dials some of them, or of those that it has heard of: that is what makes a mesh of a
star, and lets the first peer die. Its own advert it announces at an interval, soon after it has changed, and whenever
it finds new neighbours, since gossip reaches few while the mesh grows (``rhythm``). Now and then it catches up with a
random neighbour, which repairs what gossip lost, dials somebody new to see whether they are there, and a first peer,
which joins meshes that were parted. As the mesh grows, it follows smaller shards (``following``); who is beyond them is
found by searching (``search``). A node with too many connections drops some that nobody uses, so that newcomers find
room. What comes in is judged in ``hearing``; who breaks the rules is named to the network (``Blame``).

Every collection is bounded: peers by the network's connections, books by their own sizes, oldest out first.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from depin_node.core.clock import SECOND_NS, Now
from depin_node.p2p.addresses import Address
from depin_node.p2p.choosing import Choosing
from depin_node.p2p.dialling import Purpose
from depin_node.p2p.directory import Digest, Directory, Need
from depin_node.p2p.discovery_events import (
    Announce,
    AskPeers,
    CatchUp,
    Changed,
    DialEnded,
    Disconnect,
    Effect,
    Event,
    Find,
    Found,
    Gossiped,
    Introduced,
    PeerConnected,
    PeerLost,
    Question,
    Search,
    Sighted,
    Tell,
    Tick,
    Told,
)
from depin_node.p2p.following import Following
from depin_node.p2p.hearing import Hearing
from depin_node.p2p.mesh_config import MeshConfig
from depin_node.p2p.rhythm import Rhythm
from depin_node.p2p.search import POINT_BYTES, Searches
from depin_node.p2p.shards import Shard

if TYPE_CHECKING:
    from random import Random

_ASKED_FOR = 16
_KIN_DRAWN = 16


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
        self.kept: Callable[[bytes], bool] = lambda peer: False
        """Whether the connection to a peer is in use, so that it must not be dropped to make room."""
        self._rng = rng
        self.choosing = Choosing(directory, config, rng, first_peers, remembered)
        self._neighbours = self.choosing.neighbours
        self._rhythm = Rhythm(config, rng, now.boottime_ns)
        self._following = Following(directory, self._neighbours, self._rhythm, config, rng, now.boottime_ns)
        self.sharding = self._following.sharding
        self._searches = Searches(directory, self.sharding, self.choosing, rng)
        self._hearing = Hearing(directory, self.choosing, self._following, self._rhythm, now)
        self._parting: set[bytes] = set()  # connections that we close ourselves
        self._asking: bytes | None = None

    @property
    def neighbours(self) -> Collection[bytes]:
        """Who is connected."""
        return self._neighbours.keys

    @property
    def wake_ns(self) -> int:
        """When (boot clock) the next ``Tick`` is due."""
        wake_ns = self._rhythm.wake_ns(asks=self._lacks_neighbours(), samples=bool(self.sharding.bits_max))
        return min([wake_ns, *self._searches.wake_ns()])

    @property
    def nodes_in_topic(self) -> int:
        """How many nodes are known in the largest shard that we follow."""
        return self._rhythm.nodes

    # What peers and the node ask

    def introductions(self, asker: bytes, count_max: int) -> list[bytes]:
        """Return adverts of peers that we dialled ourselves; see ``Choosing.introductions``."""
        return self.choosing.introductions(asker, count_max)

    def news_for(self, digest: Digest, shards: Sequence[Shard], count_max: int) -> list[bytes]:
        """Return at most ``count_max`` adverts of ``shards`` that the sender of ``digest`` lacks."""
        return self.directory.missing_from(digest, shards, count_max, self._rng)

    def answers(self, asker: bytes, question: Question) -> list[bytes]:
        """Return adverts of peers that suit ``question``."""
        found = self.directory.sample(question.need, question.shard, question.point, question.count + 1)
        return [entry.data for entry in found if entry.key != asker and not entry.is_unreachable][: question.count]

    def remembered(self) -> list[str]:
        """Return where to join next time; see ``Choosing.remembered``."""
        return self.choosing.remembered()

    def dialable(self, peer: bytes, now: Now) -> list[str]:
        """Return where ``peer`` may be dialled for work; none while that would be a nuisance to who is there."""
        entry = self.directory.get(peer)
        addresses = self.directory.dialable(entry) if entry else ()
        return [str(address) for address in self.choosing.dialling.reachable(peer, addresses, now.boottime_ns)]

    def topics_published(self, lent: Iterable[str]) -> list[str]:
        """Return the topics of our own advert, for the capabilities ``lent``."""
        return [self.sharding.own(capability).topic for capability in lent]

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return what is to be done, in order."""
        ns = now.boottime_ns
        match event:
            case Gossiped(peer, data):  # first: there are more of these than of all others
                return self._hearing.gossiped(peer, data, now)
            case Tick():
                return self._tick(now)
            case PeerConnected(peer, address, outbound):
                return self._connected(peer, address, outbound, ns)
            case PeerLost(peer):
                return self._lost(peer, ns)
            case DialEnded(peer, error):
                return self._dial_ended(peer, error, ns)
            case Introduced(peer, data):
                self._neighbours.introduced(peer)
                return self._hearing.introduced(peer, data, now)
            case Told(peer, adverts, are_live, bits):
                return self._told(peer, adverts, are_live, bits, now)
            case Found(peer, search, adverts):
                effects, keys = self._hearing.told(peer, adverts, now)
                self._searches.found(peer, search, keys)
                return effects + self._searches.step(ns)
            case Search(number, need, count):
                return self._searches.begin(number, need, count, ns)
            case Sighted(address):
                return [*self.choosing.sighted(address, ns)]
            case Changed():
                self._rhythm.announce_by(ns, ns)
                return []

    # Time

    def _tick(self, now: Now) -> list[Effect]:
        ns, due, effects = now.boottime_ns, self._rhythm, list[Effect]()
        if ns >= due.sweep_ns:
            due.swept(ns)
            effects += [Tell("expired", entry.key) for entry in self.directory.expire(now)]
            effects += self._drop_some(ns)
            effects += self._following.resize(ns)
        if ns >= due.announce_ns:
            due.announced(ns)
            effects.append(Announce())
        effects += self._searches.step(ns)
        if not self._neighbours.keys:
            due.is_alone(ns)
            return [*effects, *self.choosing.first(ns)]
        if ns >= due.ask_ns and self._lacks_neighbours():
            effects += self._look_for_neighbours(ns)
        if ns >= due.catch_up_ns:
            due.catching_up(ns)
            effects.append(CatchUp(self._following.any_kin()))
        if ns >= due.feel_ns:
            due.felt(ns)
            effects += self.choosing.feeler(ns)
        if ns >= due.sample_ns:
            due.sampled(ns)
            if self.sharding.bits_max:
                effects.append(Find(self._neighbours.any(self._rng), 0, self._question(None, None)))
        if ns >= due.heal_ns:
            due.healed(ns, has_unmet=self.choosing.has_unmet)
            effects += self.choosing.apart(ns)
        return effects

    def _drop_some(self, ns: int) -> list[Effect]:
        over = len(self._neighbours) - self.config.connections_high
        settled_ns = ns - int(self.config.settle_s * SECOND_NS)
        return [self._part(peer) for peer in self._neighbours.to_drop(over, settled_ns, self.kept, self._rng)]

    def _part(self, peer: bytes) -> Effect:
        self._parting.add(peer)
        return Disconnect(peer)

    # Neighbours

    def _question(self, need: Need | None, shard: Shard | None) -> Question:
        return Question(need, shard, self._rng.randbytes(POINT_BYTES), _ASKED_FOR)

    def _lacks_neighbours(self) -> bool:
        return self.choosing.lacks or self._following.lacks_kin

    def _look_for_neighbours(self, ns: int) -> list[Effect]:
        """Ask a neighbour for peers; and dial kin, or of those we heard of, if answers name nobody new."""
        self._rhythm.asked(ns)
        effects: list[Effect] = []
        if self._asking is None:
            self._asking = self._neighbours.any(self._rng)
            effects.append(AskPeers(self._asking))
        kin = self._following.kin
        if kin is not None and self._following.lacks_kin:
            effects.append(Find(self._neighbours.any(self._rng), 0, self._question(None, kin)))
            known = self.directory.within([kin])
            drawn = self._rng.sample(known, min(len(known), _KIN_DRAWN))
            effects += self.choosing.among([entry.key for entry in drawn], ns, at_most=2)
        effects += self.choosing.prospects(ns, at_most=2 if self._rhythm.is_asking_in_vain else 1)
        return effects

    def _told(
        self, peer: bytes, adverts: Sequence[bytes], are_live: bool, bits: Sequence[int], now: Now
    ) -> list[Effect]:
        effects, keys = self._hearing.told(peer, adverts, now)
        if any(isinstance(effect, Tell) and effect.what == "discovered" for effect in effects):
            self._rhythm.taught(now.boottime_ns)
        self._following.told(bits, now.boottime_ns)
        if are_live:
            if self._asking == peer:
                self._asking = None
            strangers = [key for key in keys if key not in self._neighbours]
            self._rhythm.answered(names_strangers=bool(strangers))
            self._rng.shuffle(strangers)
            effects += self.choosing.neighbours_of(
                strangers, now.boottime_ns, at_most=min(self.choosing.places_left, 1)
            )
        return effects

    # Connections

    def _dial_ended(self, peer: bytes, error: str | None, ns: int) -> list[Effect]:
        if error is None:
            self.choosing.dialling.ended(peer)
            return []
        self.choosing.failed(peer, ns)
        self._searches.failed(peer)
        return [Tell("undialled", peer, error), *self._searches.step(ns)]

    def _connected(self, peer: bytes, address: str, outbound: bool, ns: int) -> list[Effect]:
        joined = not self._neighbours.keys
        self.directory.connected(peer, address)
        purpose = self.choosing.connected(peer, outbound=outbound, ns=ns)
        self._parting.discard(peer)
        if purpose is Purpose.FEELER and not self._neighbours.is_chosen(peer):
            return [self._part(peer)]
        self._searches.connected(peer)
        effects: list[Effect] = [Tell("joined" if joined else "connected", peer, address)]
        if purpose is not Purpose.ERRAND:
            effects.append(CatchUp(peer))
        effects += self._drop_some(ns)
        if len(self._neighbours) <= self.config.neighbours_wanted:
            # Gossip takes a new neighbour into its own mesh about a second later.
            self._rhythm.announce_by(ns + SECOND_NS, ns)
            if joined:
                self._rhythm.ask_ns = ns + SECOND_NS // 4
            self._rhythm.ask_soon(ns)
        return effects + self._searches.step(ns)

    def _lost(self, peer: bytes, ns: int) -> list[Effect]:
        gone = self._neighbours.pop(peer)
        if gone is None:
            return []
        # Who called and left without a word was only looking whether we are there.
        orderly = peer in self._parting or not (gone.is_outbound or gone.is_introduced)
        self._parting.discard(peer)
        self.directory.lost(peer, is_unreachable=not orderly)
        self._rhythm.ask_soon(ns)
        if self._asking == peer:
            self._asking = None
        self._searches.failed(peer)
        effects: list[Effect] = [Tell("lost", peer)]
        if not self._neighbours.keys:
            effects.append(Tell("alone", peer, "no peer is connected"))
            self._rhythm.ask_ns = ns
        return effects + self._searches.step(ns)
