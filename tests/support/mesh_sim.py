"""A thousand discovery machines in one process: no trio, no sockets, one queue of events in simulated time.

``MeshSim`` carries out the effects of each node's ``Discovery`` as ``p2p/mesh.py`` does, over a network of links with
latency, loss, partitions and kills; all choices follow from one seed. Gossip is what gossipsub makes of it: a message
goes on to at most ``DEGREE`` neighbours that follow its topic, once, after the machine has judged it. Bytes are
counted as they would be sent, frames and gossip envelopes included.

Hostile nodes run the same machine, and do one thing more each (``Vice``).
"""

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.wire import encode
from depin_node.crypto.envelope import verify_signature
from depin_node.crypto.identity import Identity
from depin_node.p2p import directory as directory_module
from depin_node.p2p import directory_protocol as protocol
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.advert import Advert, DeviceOffer, Offer, read_advert, sign_advert
from depin_node.p2p.directory import Directory, Need
from depin_node.p2p.discovery import Discovery
from depin_node.p2p.discovery_events import (
    Announce,
    AskPeers,
    Blame,
    CatchUp,
    Dial,
    DialEnded,
    Disconnect,
    Find,
    Follow,
    Forward,
    Found,
    Gossiped,
    Introduced,
    PeerConnected,
    PeerLost,
    Search,
    SearchEnded,
    Spread,
    Tick,
    Told,
)
from depin_node.p2p.mesh_config import MeshConfig
from depin_node.p2p.network import NetworkLimits
from depin_node.p2p.shards import capabilities_of
from depin_node.p2p.strikes import Strikes

WALL_NS = 1_800_000_000 * SECOND_NS
DEGREE = 8
CONNECTIONS_MAX = 128
DIAL_TIMEOUT_S = 10.0
DEAD_AFTER_S = 6.0
FRAME_BYTES = 5 + 12 + 16  # a frame's head, yamux's, Noise's tag
GOSSIP_BYTES = 200  # author, signature, sequence number and topic of gossipsub
DIAL_BYTES = 1200  # TCP, Noise, yamux, hello and gossip's subscriptions, each way
LENDER = Offer(lending=True, devices=(DeviceOffer("wasm-1", 512, 2, 2, "a processor", 4000, 2000, 9000),))
NEED = Need(frozenset({"wasm-1"}), 256)


class Vice(Enum):
    """What a hostile node does beside its part in the mesh."""

    NONE = "none"
    FLOOD = "flood"
    """Publishes a new advert ten times a second."""
    FALSE = "false addresses"
    """Advertises where somebody else is, or nobody."""
    ECLIPSE = "eclipse"
    """Tells of hostile nodes only, and dials as many nodes as it can."""
    SYBIL = "sybil"
    """One of many in two address ranges; tells of hostile nodes only."""


@dataclass(eq=False)
class SimNode:
    """One node. ``links`` are its connections, by key."""

    number: int
    identity: Identity
    address: Address
    discovery: Discovery
    rng: random.Random
    vice: Vice
    offer: Offer
    is_alive: bool = True
    advert: bytes = b""
    seq: int = 0

    def __post_init__(self):
        self.links = {}
        self.topics = frozenset()
        self.seen = set()
        self.catching_up = set()
        self.found = {}
        self.strikes = Strikes(NetworkLimits().kept_out_s)
        self.wake_ns = None
        self.sent_bytes = 0

    @property
    def key(self):
        return self.identity.key

    @property
    def is_hostile(self):
        return self.vice is not Vice.NONE


@lru_cache(maxsize=200_000)
def _checked(data, network_id):
    return read_advert(
        data, network_id, Now(0, verify_signature(data, Advert, network_id).payload.expires_s * SECOND_NS)
    )


def _read_once(data, network_id, now):
    """``read_advert``, with each signature checked once for all nodes: they share this process, not their knowledge."""
    verified, addresses = _checked(data, network_id)
    wall_s = now.wall_ns // SECOND_NS
    if not wall_s - 60 <= verified.payload.expires_s <= wall_s + Advert.LIFETIME_S_MAX + 60:
        return read_advert(data, network_id, now)  # which raises
    return verified, addresses


class MeshSim:
    """See the module.

    Args:
        seed: of all choices.
        latency_s: bounds of a link's one-way delay, drawn once a link.
        loss: probability that one hop of one gossiped message, or one question, is lost.
        config: of every node.
    """

    def __init__(self, seed, *, latency_s=(0.005, 0.1), loss=0.01, config=None):
        self.rng = random.Random(seed)
        self.now_ns = 0
        self.nodes = []
        self.by_key = {}
        self.by_target = {}
        self.config = config or MeshConfig()
        self.counts = Counter()
        self._latency_s = latency_s
        self._loss = loss
        self._events = []
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._side = {}
        directory_module.read_advert = _read_once

    # Nodes

    def host(self, *, block=None):
        """Return a new public IPv4 address, of the /16 ``block`` (two octets) or of a random one."""
        if block is None:
            block = (self.rng.randrange(20, 100), self.rng.randrange(256))
        return f"{block[0]}.{block[1]}.{self.rng.randrange(256)}.{self.rng.randrange(1, 255)}"

    def start(self, first=(), *, vice=Vice.NONE, block=None, offer=LENDER, at_s=0.0, remembered=()):
        """Add a node that comes up at ``at_s``, knowing the nodes ``first``."""
        number = next(self._numbers)
        identity = Identity(self.rng.randbytes(32))
        address = Address("ip4", self.host(block=block), 1024 + self.rng.randrange(60_000), identity.key)
        start_ns = int(at_s * SECOND_NS)
        discovery = Discovery(
            Directory("sim", identity.key, dials_loopback=False),
            self.config,
            random.Random(self.rng.randbytes(8)),
            first_peers=[node.address for node in first],
            remembered=remembered,
            now=Now(start_ns, WALL_NS + start_ns),
        )
        node = SimNode(number, identity, address, discovery, random.Random(self.rng.randbytes(8)), vice, offer)
        self.nodes.append(node)
        self._at(start_ns, self._come_up, node)
        return node

    def _come_up(self, node):
        self.by_key[node.key] = node
        self.by_target[node.address.host, node.address.port] = node
        node.topics = node.discovery.sharding.topics()
        self._sign(node)
        self._wake(node)
        if node.vice is Vice.FLOOD:
            self._in(node.rng.random(), self._flood, node)
        if node.vice is Vice.ECLIPSE:
            self._in(5 + node.rng.random(), self._crowd, node)

    def kill(self, node):
        """End a node as SIGKILL would."""
        node.is_alive = False
        self.by_key.pop(node.key, None)
        self.by_target.pop((node.address.host, node.address.port), None)
        for peer in list(node.links):
            self._unlink(node, peer)

    def living(self):
        """Return the nodes that are up."""
        return list(self.by_key.values())

    def search(self, node, count=32, need=NEED):
        """Start a search; ``node.found[number]`` has the peers when it has ended."""
        number = next(self._numbers)
        self._handle(node, Search(number, need, count))
        return number

    def partition(self, nodes):
        """Cut ``nodes`` off from the others: what is between them breaks when it has been silent for long."""
        self._side = {node.key: 1 for node in nodes}
        for node in nodes:
            for peer in list(node.links):
                if self._is_cut(node.key, peer):
                    self._in(DEAD_AFTER_S, self._break_if_cut, node, peer)

    def heal(self):
        """End the partition."""
        self._side = {}

    # Time

    def run(self, until_s):
        """Let simulated time pass."""
        end_ns = int(until_s * SECOND_NS)
        while self._events and self._events[0][0] <= end_ns:
            self.now_ns, _, function, arguments = heapq.heappop(self._events)
            function(*arguments)
        self.now_ns = end_ns

    def _at(self, ns, function, *arguments):
        heapq.heappush(self._events, (ns, next(self._order), function, arguments))

    def _in(self, seconds, function, *arguments):
        self._at(self.now_ns + int(seconds * SECOND_NS), function, *arguments)

    def _now(self):
        return Now(self.now_ns, WALL_NS + self.now_ns)

    def _wake(self, node):
        """See that the node's next tick is queued."""
        wake_ns = node.discovery.wake_ns
        if node.wake_ns is None or wake_ns < node.wake_ns:
            node.wake_ns = max(wake_ns, self.now_ns)
            self._at(node.wake_ns, self._tick, node, node.wake_ns)

    def _tick(self, node, due_ns):
        if not node.is_alive or node.wake_ns != due_ns:
            return
        node.wake_ns = None
        if node.discovery.wake_ns <= self.now_ns:
            self._handle(node, Tick())
        else:
            self._wake(node)

    # The machine and its effects, as in p2p/mesh.py

    def _handle(self, node, event):
        if not node.is_alive:
            return False
        is_news = False
        for effect in node.discovery.handle(event, self._now()):
            match effect:
                case Forward():
                    is_news = True
                case Dial(peer, addresses):
                    self._dial(node, peer, list(addresses))
                case CatchUp(peer):
                    if peer not in node.catching_up:
                        node.catching_up.add(peer)
                        self._catch_up(node, peer, 40)
                case AskPeers(peer):
                    self._ask(node, peer, 40, self._peers_of, self._told_live)
                case Find(peer, search, question):
                    size_bytes = len(encode(protocol.FindRequest.of(question)))
                    self._ask(node, peer, size_bytes, self._answers_of, self._found, question, search)
                case Announce():
                    self._sign(node)
                    self._publish(node)
                case Spread(adverts):
                    for topic, data in adverts:
                        if data not in node.seen:
                            node.seen.add(data)
                            self._spread(node, topic, data, None)
                case Disconnect(peer):
                    self._in(0.0, self._unlink, node, peer)
                case Blame(peer):
                    if node.strikes.broke(peer, self.now_ns, weight=1):
                        self._in(0.0, self._unlink, node, peer)
                case Follow(topics):
                    node.topics = topics
                case SearchEnded(number, peers):
                    node.found[number] = peers
        self._wake(node)
        return is_news

    def _sign(self, node):
        wall_us = (WALL_NS + self.now_ns) // 1000
        node.seq = max(node.seq + 1, wall_us, node.discovery.directory.own_seq_seen + 1)
        shown = node.address
        if node.vice is Vice.FALSE:
            victim = self.rng.choice(self.nodes).address
            shown = replace(
                victim if self.rng.random() < 0.5 else parse(f"/ip4/{self.host()}/tcp/9/p2p/{peer_id(node.key)}")
            )
            shown = replace(shown, peer=node.key)
        node.advert = sign_advert(
            node.identity,
            "sim",
            node.offer,
            [str(shown)],
            seq=node.seq,
            now=self._now(),
            lifetime_s=node.discovery.config.advert_lifetime_s(node.discovery.nodes_in_topic),
        )
        node.discovery.directory.keep_own(node.advert, self._now())

    def _publish(self, node):
        for topic in node.discovery.topics_published(capabilities_of(node.offer.lending, node.offer.devices)):
            self._spread(node, topic, node.advert, None)

    def _spread(self, node, topic, data, came_by):
        """Pass a message on; who has it, or will have it sooner by another way, is sent it all the same."""
        followers = [peer for peer in node.links if peer != came_by and topic in self.by_key[peer].topics]
        if len(followers) > DEGREE:
            followers = node.rng.sample(followers, DEGREE)
        for peer in followers:
            self._send(node, len(data) + GOSSIP_BYTES)
            other = self.by_key[peer]
            if data in other.seen or self._is_lost(node.key, peer):
                continue
            other.seen.add(data)
            self._in(node.links[peer], self._gossiped, other, topic, data, node.key)

    def _gossiped(self, node, topic, data, came_by):
        if node.is_alive and self._handle(node, Gossiped(came_by, data)):
            self._spread(node, topic, data, came_by)

    # Connections

    def _dial(self, node, peer, addresses):
        if not addresses:
            self._handle(node, DialEnded(peer, "nobody there"))
            return
        target = parse(addresses.pop(0))
        other = self.by_target.get((target.host, target.port))
        self.counts["dials"] += 1
        latency_s = self.rng.uniform(*self._latency_s)
        if other is None and self.rng.random() < 0.5:
            self._in(2 * latency_s, self._dial, node, peer, addresses)  # refused
        elif other is None or self._is_cut(node.key, other.key):
            self._in(DIAL_TIMEOUT_S, self._dial, node, peer, addresses)
        else:
            self.counts["wrong peer dialled"] += other.key != peer
            self._send(node, DIAL_BYTES)
            self._send(other, DIAL_BYTES)
            self._in(8 * latency_s, self._shake, node, other, peer, addresses, latency_s)

    def _shake(self, node, other, peer, addresses, latency_s):
        if not node.is_alive:
            return
        is_kept_out = other.strikes.keeps_out(node.key, self.now_ns) or node.strikes.keeps_out(peer, self.now_ns)
        if not other.is_alive or other.key != peer or len(other.links) >= CONNECTIONS_MAX or is_kept_out:
            self._dial(node, peer, addresses)
            return
        self._link(node, other, latency_s)
        self._handle(node, DialEnded(peer, None))

    def _link(self, node, other, latency_s):
        if other.key in node.links:
            return
        node.links[other.key] = other.links[node.key] = latency_s
        self._handle(node, PeerConnected(other.key, str(other.address), True))
        seen_from = replace(node.address, port=40_000)
        self._handle(other, PeerConnected(node.key, str(seen_from), False))

    def _unlink(self, node, peer):
        if node.links.pop(peer, None) is None:
            return
        self._handle(node, PeerLost(peer))
        other = self.by_key.get(peer)
        if other is not None and other.links.pop(node.key, None) is not None:
            self._handle(other, PeerLost(node.key))

    def _break_if_cut(self, node, peer):
        if self._is_cut(node.key, peer):
            self._unlink(node, peer)

    def _is_cut(self, one, other):
        return self._side.get(one, 0) != self._side.get(other, 0)

    def _is_lost(self, one, other):
        return self._is_cut(one, other) or (self._loss > 0 and self.rng.random() < self._loss)

    def _send(self, node, size_bytes):
        node.sent_bytes += size_bytes + FRAME_BYTES

    # Questions

    def _ask(self, node, peer, size_bytes, answer, take, *arguments):
        """Put a question to a peer: ``answer(other, node, ...)`` there, ``take(node, peer, answer, ...)`` here; a lost
        one is answered by nothing after a while.
        """
        latency_s = node.links.get(peer)
        if latency_s is None or self._is_lost(node.key, peer):
            self._in(protocol.TIMEOUT_S if latency_s else 0.0, take, node, peer, None, *arguments)
            return
        self._send(node, size_bytes + 60)
        self._in(2.5 * latency_s, self._serve, node, peer, answer, take, arguments)

    def _serve(self, node, peer, answer, take, arguments):
        other, latency_s = self.by_key.get(peer), node.links.get(peer)
        if other is None or latency_s is None:
            take(node, peer, None, *arguments)
            return
        said = answer(other, node, *arguments)
        self._send(other, sum(len(data) + 3 for data in said[-1]) + 60)
        self._in(latency_s, take, node, peer, said, *arguments)

    def _catch_up(self, node, peer, rounds):
        shards = node.discovery.sharding.followed()
        digest = node.discovery.directory.digest(shards)
        size_bytes = len(node.advert) + 19 * len(digest.lines)
        self._ask(node, peer, size_bytes, self._news_of, self._news, (shards, digest, rounds))

    def _news_of(self, other, asker, question):
        shards, digest, _ = question
        self._handle(other, Introduced(asker.key, asker.advert))
        news = other.discovery.news_for(digest, shards, protocol.ADVERTS_MAX)
        return other.discovery.sharding.bits, self._twisted(other, news)

    def _news(self, node, peer, said, question):
        _, digest, rounds = question
        bits, adverts = said or ((), ())
        self._handle(node, Told(peer, adverts, bits=bits))
        shards = node.discovery.sharding.followed()
        full = len(adverts) == protocol.ADVERTS_MAX and node.discovery.directory.digest(shards) != digest
        if full and rounds > 1 and node.is_alive:
            self._catch_up(node, peer, rounds - 1)
        else:
            node.catching_up.discard(peer)

    def _peers_of(self, other, asker):
        return (self._twisted(other, other.discovery.introductions(asker.key, protocol.INTRODUCTIONS_MAX)),)

    def _told_live(self, node, peer, said):
        self._handle(node, Told(peer, said[0] if said else (), are_live=True))

    def _answers_of(self, other, asker, question, search):
        return (self._twisted(other, other.discovery.answers(asker.key, question), question.count),)

    def _found(self, node, peer, said, question, search):
        self._handle(node, Found(peer, search, said[0] if said else ()))

    # Vices

    def _twisted(self, node, adverts, at_least=0):
        """Return what a node tells: hostile ones that want to be found leave all others out."""
        if node.vice not in (Vice.ECLIPSE, Vice.SYBIL):
            return adverts
        friends = [other.advert for other in self.nodes if other.is_hostile and other.is_alive and other.advert]
        return node.rng.sample(friends, min(len(friends), max(len(adverts), at_least, 16)))

    def _flood(self, node):
        if node.is_alive:
            self._sign(node)
            self._publish(node)
            self._in(0.1, self._flood, node)

    def _crowd(self, node):
        """Dial all the nodes there are, a few at a time, to fill their connections."""
        if node.is_alive:
            for other in self.rng.sample(self.living(), min(2, len(self.by_key))):
                if other is not node and len(other.links) < CONNECTIONS_MAX:
                    self._link(node, other, self.rng.uniform(*self._latency_s))
            self._in(0.5, self._crowd, node)
