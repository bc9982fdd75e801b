"""Thousands of nodes in one process: no trio, no sockets, one queue of events in simulated time.

``MeshSim`` carries out the effects of each node's machines, ``Discovery`` and ``Gossip`` with all that they are made
of, as ``p2p/mesh.py`` and ``p2p/gossip_streams.py`` do, over a network of links with latency, loss, partitions and
kills; all choices follow from one seed. Bytes are counted as they would be sent, frames included. Hostile nodes run the
same machines, and do one thing more each (``mesh_vices``).

What nodes share, because they share this process, is the work of checking bytes: the signature and encoding of each
advert, and the encoding and hash of each gossiped frame, are checked by the node's own code once a simulation, and the
outcome is kept by the exact bytes. Adverts that break a rule are not kept: each node finds that out itself.
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from mesh_vices import Vice, Vices
from msgspec.structs import replace
from timeline import TURN_NS, WALL_NS, Timeline

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation, ResourceError
from depin_node.core.wire import encode
from depin_node.crypto.identity import Identity
from depin_node.p2p import directory_protocol as protocol
from depin_node.p2p.addresses import Address, parse
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
    Tell,
    Tick,
    Told,
)
from depin_node.p2p.gossip import HAVE, TOPICS, Gossip, Judge, read_post
from depin_node.p2p.gossip import Send as SendFrame
from depin_node.p2p.mesh_config import MeshConfig
from depin_node.p2p.network import NetworkLimits, Verdict
from depin_node.p2p.shards import capabilities_of
from depin_node.p2p.strikes import Strikes

LIMITS = NetworkLimits()
CATCH_UP_ROUNDS_MAX = 40
DIAL_TIMEOUT_S = 10.0
DEAD_AFTER_S = 6.0
FRAME_BYTES = 5 + 12 + 16  # a frame's head, yamux's, Noise's tag
DIAL_BYTES = 1200  # TCP, Noise, yamux and hello, each way
LENDER = Offer(lending=True, devices=(DeviceOffer("wasm-1", 512, 2, 2, "a processor", 4000, 2000, 9000),))
NEED = Need(frozenset({"wasm-1"}), 256)


@dataclass(eq=False)
class SimNode:
    """One node. ``links`` are its connections: by key, the one-way delay in turns of the timeline."""

    number: int
    identity: Identity
    address: Address
    discovery: Discovery
    rng: random.Random
    vice: Vice
    offer: Offer
    gossip: Gossip
    is_alive: bool = True
    advert: bytes = b""
    seq: int = 0
    sent_bytes: int = 0
    wake_ns: int | None = None
    gossip_wake_ns: int | None = None
    links: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)  # what neighbours that sent too much have sent since, by key
    topics: frozenset = frozenset()
    catching_up: set = field(default_factory=set)
    found: dict = field(default_factory=dict)

    def __post_init__(self):
        self.key = self.identity.key
        self.is_hostile = self.vice is not Vice.NONE
        self.strikes = Strikes(LIMITS.kept_out_s)
        self.allowance = protocol.Allowance(burst=CATCH_UP_ROUNDS_MAX, per_s=2.0)


class MeshSim(Timeline):
    """See the module.

    Args:
        seed: of all choices.
        latency_s: bounds of a link's one-way delay, drawn once a link.
        loss: probability that a gossiped frame, or a question, is lost.
        config: of every node.
    """

    CONNECTIONS_MAX = 128

    def __init__(self, seed, *, latency_s=(0.005, 0.1), loss=0.01, config=None):
        super().__init__()
        self.rng = random.Random(seed)
        self.nodes = []
        self.by_key = {}
        self.by_target = {}
        self.config = config or MeshConfig()
        self.counts = Counter()
        self.vices = Vices(self)
        self._latency_s = latency_s
        self._loss = loss
        self._draw = self.rng.random
        self._searches = 0
        self._side = {}
        self._adverts = {}
        self._posts = {}

    # What is checked once

    def _read_advert(self, data, network_id, now):
        known = self._adverts.get(data)
        if known is None:
            known = self._adverts[data] = read_advert(data, network_id, now)
        expires_s, wall_s = known.verified.payload.expires_s, now.wall_ns // SECOND_NS
        if not wall_s - 60 <= expires_s <= wall_s + Advert.LIFETIME_S_MAX + 60:
            return read_advert(data, network_id, now)  # which raises
        return known

    def _read_post(self, body, size_bytes_max):
        known = self._posts.get(body)
        if known is None:
            known = self._posts[body] = read_post(body, size_bytes_max)
        return known

    # Nodes

    def host(self, *, block=None):
        """Return a new public IPv4 address, of the /16 ``block`` (two octets) or of a random one."""
        if block is None:
            block = (self.rng.randrange(20, 100), self.rng.randrange(256))
        return f"{block[0]}.{block[1]}.{self.rng.randrange(256)}.{self.rng.randrange(1, 255)}"

    def start(self, first=(), *, vice=Vice.NONE, block=None, offer=LENDER, at_s=0.0, remembered=()):
        """Add a node that comes up at ``at_s``, knowing the nodes ``first``."""
        identity = Identity(self.rng.randbytes(32))
        address = Address("ip4", self.host(block=block), 1024 + self.rng.randrange(60_000), identity.key)
        start_ns = int(at_s * SECOND_NS)
        discovery = Discovery(
            Directory("sim", identity.key, dials_loopback=False, read=self._read_advert),
            self.config,
            random.Random(self.rng.randbytes(8)),
            first_peers=[node.address for node in first],
            remembered=remembered,
            now=Now(start_ns, WALL_NS + start_ns),
        )
        rng = random.Random(self.rng.randbytes(8))
        gossip = Gossip(LIMITS.gossip_size_bytes_max, rng, read=self._read_post)
        node = SimNode(len(self.nodes), identity, address, discovery, rng, vice, offer, gossip)
        self.nodes.append(node)
        self.at(start_ns, self._come_up, node)
        return node

    def _come_up(self, node):
        self.by_key[node.key] = node
        self.by_target[node.address.host, node.address.port] = node
        self.sign(node)
        self._follow(node, node.discovery.sharding.topics())
        self._wake(node)
        self.vices.begin(node)

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
        self._searches += 1
        self._handle(node, Search(self._searches, need, count))
        return self._searches

    def partition(self, nodes):
        """Cut ``nodes`` off from the others: what is between them breaks when it has been silent for long."""
        self._side = {node.key: 1 for node in nodes}
        for node in nodes:
            for peer in list(node.links):
                if self._is_cut(node.key, peer):
                    self.after(DEAD_AFTER_S, self._break_if_cut, node, peer)

    def heal(self):
        """End the partition."""
        self._side = {}

    # The discovery machine and its effects, as in p2p/mesh.py

    def _wake(self, node):
        """See that the node's next tick is queued."""
        wake_ns = node.discovery.wake_ns
        if node.wake_ns is None or wake_ns < node.wake_ns:
            node.wake_ns = max(wake_ns, self.now_ns)
            self.at(node.wake_ns, self._tick, node, node.wake_ns)

    def _tick(self, node, due_ns):
        if not node.is_alive or node.wake_ns != due_ns:
            return
        node.wake_ns = None
        if node.discovery.wake_ns <= self.now_ns:
            self._handle(node, Tick())
        else:
            self._wake(node)

    def _handle(self, node, event):
        """Feed the machine; return what is to become of the advert, if it was one that came by gossip."""
        if not node.is_alive:
            return Verdict.IGNORE
        verdict = Verdict.IGNORE
        for effect in node.discovery.handle(event, self.now):
            match effect:
                case Forward():
                    verdict = Verdict.ACCEPT
                case Tell():  # the most frequent, and for people
                    pass
                case Dial(peer, addresses):
                    self._dial(node, peer, list(addresses))
                case CatchUp(peer):
                    if peer not in node.catching_up:
                        node.catching_up.add(peer)
                        self._catch_up(node, peer, CATCH_UP_ROUNDS_MAX)
                case AskPeers(peer):
                    self._ask(node, peer, 40, self._peers_of, self._told_live)
                case Find(peer, search, question):
                    size_bytes = len(encode(protocol.FindRequest.of(question)))
                    self._ask(node, peer, size_bytes, self._answers_of, self._found, question, search)
                case Announce():
                    self.sign(node)
                    self._publish(node, [(topic, node.advert) for topic in self.topics(node)])
                case Spread(adverts):
                    self._publish(node, adverts, by_id=True)
                case Disconnect(peer):
                    self.after(0.0, self._unlink, node, peer)
                case Blame(peer):
                    verdict = Verdict.REJECT
                    self._blame(node, peer, 1)
                case Follow(topics):
                    self._follow(node, topics)
                case SearchEnded(number, peers):
                    node.found[number] = peers
        if type(event) is not Gossiped:  # which changes no plans here: no node comes back and hears its own advert
            self._wake(node)
        return verdict

    def _blame(self, node, peer, weight):
        if not node.is_hostile and peer in self.by_key and not self.by_key[peer].is_hostile:
            self.counts["honest blamed"] += 1
        if node.strikes.broke(peer, self.now_ns, weight=weight):
            self.after(0.0, self._unlink, node, peer)

    def sign(self, node):
        """Have a node sign a new advert of its own."""
        node.seq = max(node.seq + 1, self.now.wall_ns // 1000, node.discovery.directory.own_seq_seen + 1)
        node.advert = sign_advert(
            node.identity,
            "sim",
            node.offer,
            [str(self.vices.shown_address(node))],
            seq=node.seq,
            now=self.now,
            lifetime_s=node.discovery.config.advert_lifetime_s(node.discovery.nodes_in_topic),
        )
        node.discovery.directory.keep_own(node.advert, self.now)

    def topics(self, node):
        """Return the topics of a node's own advert."""
        return node.discovery.topics_published(capabilities_of(node.offer.lending, node.offer.devices))

    def _publish(self, node, adverts, *, by_id=False):
        for topic, data in adverts:
            self._carry(node, node.gossip.publish(topic, data, self.now, by_id=by_id))

    def _follow(self, node, topics):
        for topic in sorted(topics - node.topics):
            self._carry(node, node.gossip.subscribe(topic))
        for topic in sorted(node.topics - topics):
            self._carry(node, node.gossip.unsubscribe(topic))
        node.topics = topics

    # The gossip machine and its effects, as in p2p/gossip_streams.py

    def _carry(self, node, effects):
        if not effects:
            return
        for effect in effects:
            if type(effect) is SendFrame:
                self.send_frame(node, effect.peer, effect.kind, effect.body)
            else:
                self._blame(node, effect.peer, 8)
        self._wake_gossip(node)

    def send_frame(self, node, peer, kind, body):
        """Send a frame of gossip to a neighbour."""
        turns = node.links.get(peer)
        if turns is not None:
            node.sent_bytes += len(body) + FRAME_BYTES
            if not ((self._loss and self._draw() < self._loss) or (self._side and self._is_cut(node.key, peer))):
                self.in_turns(turns, self._frame_came, self.by_key[peer], node.key, kind, body)

    def _frame_came(self, node, peer, kind, body):
        if peer not in node.links:
            return
        if peer not in node.held:
            self._hear(node, peer, kind, body)
        elif len(held := node.held[peer]) < LIMITS.gossip_queue_max:
            held.append((kind, body))

    def _hear(self, node, peer, kind, body):
        """Take a frame; who has sent too much is not read from for a while."""
        gossip, now = node.gossip, self.now
        try:
            effects = gossip.heard(peer, kind, body, now)
        except PeerViolation:
            self._blame(node, peer, 8)
            return
        for effect in effects:
            if type(effect) is Judge:
                verdict = self._handle(node, Gossiped(peer, effect.data))
                if effect.topic in node.topics:
                    self._carry(node, gossip.judged(effect, verdict, now))
            else:
                self._carry(node, (effect,))
        if kind == HAVE:
            self._wake_gossip(node)
        wait_s = gossip.wait_s(peer, now)
        if wait_s:
            self.counts["frames held"] += 1
            node.held[peer] = deque()
            self.after(wait_s, self._read_on, node, peer)

    def _read_on(self, node, peer):
        held = node.held.pop(peer, None)
        while held and peer in node.links:
            if peer in node.held:
                node.held[peer] = held
                return
            self._hear(node, peer, *held.popleft())

    def _wake_gossip(self, node):
        wake_ns = node.gossip.wake_ns
        if wake_ns is not None and (node.gossip_wake_ns is None or wake_ns < node.gossip_wake_ns):
            node.gossip_wake_ns = wake_ns
            self.at(wake_ns, self._tick_gossip, node, wake_ns)

    def _tick_gossip(self, node, due_ns):
        if node.is_alive and node.gossip_wake_ns == due_ns:
            node.gossip_wake_ns = None
            self._carry(node, node.gossip.tick(self.now))

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
            self.after(2 * latency_s, self._dial, node, peer, addresses)  # refused
        elif other is None or self._is_cut(node.key, other.key):
            self.after(DIAL_TIMEOUT_S, self._dial, node, peer, addresses)
        else:
            self.counts["wrong peer dialled"] += other.key != peer
            node.sent_bytes += DIAL_BYTES
            other.sent_bytes += DIAL_BYTES
            self.after(8 * latency_s, self._shake, node, other, peer, addresses, latency_s)

    def _shake(self, node, other, peer, addresses, latency_s):
        if not node.is_alive:
            return
        is_kept_out = other.strikes.keeps_out(node.key, self.now_ns) or node.strikes.keeps_out(peer, self.now_ns)
        if not other.is_alive or other.key != peer or len(other.links) >= self.CONNECTIONS_MAX or is_kept_out:
            self._dial(node, peer, addresses)
            return
        self.link(node, other, latency_s)
        self._handle(node, DialEnded(peer, None))

    def link(self, node, other, latency_s=None):
        """Connect two nodes; ``node`` has dialled."""
        if other.key in node.links:
            return
        latency_s = latency_s or self.rng.uniform(*self._latency_s)
        node.links[other.key] = other.links[node.key] = max(1, round(latency_s * SECOND_NS / TURN_NS))
        for one, peer in ((node, other.key), (other, node.key)):
            one.gossip.joined(peer, self.now)
            self.after(2 * latency_s, self._greet, one, peer)  # once the stream is open
        self._handle(node, PeerConnected(other.key, str(other.address), True))
        seen_from = replace(node.address, port=40_000)
        self._handle(other, PeerConnected(node.key, str(seen_from), False))

    def _greet(self, node, peer):
        self.send_frame(node, peer, TOPICS, node.gossip.greeting())

    def _unlink(self, node, peer):
        if self._forget_link(node, peer):
            other = self.by_key.get(peer)
            if other is not None:
                self._forget_link(other, node.key)

    def _forget_link(self, node, peer):
        if node.links.pop(peer, None) is None:
            return False
        node.held.pop(peer, None)
        node.gossip.left(peer)
        self._handle(node, PeerLost(peer))
        return True

    def _break_if_cut(self, node, peer):
        if self._is_cut(node.key, peer):
            self._unlink(node, peer)

    def _is_cut(self, one, other):
        return bool(self._side) and self._side.get(one, 0) != self._side.get(other, 0)

    def _is_lost(self, one, other):
        return (self._loss and self._draw() < self._loss) or self._is_cut(one, other)

    # Questions

    def _ask(self, node, peer, size_bytes, answer, take, *arguments):
        """Put a question to a peer: ``answer(other, node, ...)`` there, ``take(node, peer, answer, ...)`` here; a lost
        one, and one too many, is answered by nothing after a while.
        """
        turns = node.links.get(peer)
        if turns is None or self._is_lost(node.key, peer):
            self.after(protocol.TIMEOUT_S if turns else 0.0, take, node, peer, None, *arguments)
            return
        node.sent_bytes += size_bytes + 60 + FRAME_BYTES
        self.in_turns(5 * turns // 2, self._serve, node, peer, answer, take, arguments)

    def _serve(self, node, peer, answer, take, arguments):
        other, turns = self.by_key.get(peer), node.links.get(peer)
        if other is None or turns is None:
            take(node, peer, None, *arguments)
            return
        try:
            other.allowance.spend(node.key, self.now)
        except ResourceError:
            self.counts["questions refused"] += 1
            self.in_turns(turns, take, node, peer, None, *arguments)
            return
        said = answer(other, node, *arguments)
        other.sent_bytes += sum(len(data) + 3 for data in said[-1]) + 60 + FRAME_BYTES
        self.in_turns(turns, take, node, peer, said, *arguments)

    def _catch_up(self, node, peer, rounds):
        shards = node.discovery.sharding.followed()
        digest = node.discovery.directory.digest(shards)
        size_bytes = len(node.advert) + 19 * len(digest.lines)
        self._ask(node, peer, size_bytes, self._news_of, self._news, (shards, digest, rounds))

    def _news_of(self, other, asker, question):
        shards, digest, _ = question
        self._handle(other, Introduced(asker.key, asker.advert))
        news = other.discovery.news_for(digest, shards, protocol.ADVERTS_MAX)
        return other.discovery.sharding.bits, self.vices.twisted(other, news)

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
        return (self.vices.twisted(other, other.discovery.introductions(asker.key, protocol.INTRODUCTIONS_MAX)),)

    def _told_live(self, node, peer, said):
        self._handle(node, Told(peer, said[0] if said else (), are_live=True))

    def _answers_of(self, other, asker, question, search):
        return (self.vices.twisted(other, other.discovery.answers(asker.key, question), question.count),)

    def _found(self, node, peer, said, question, search):
        self._handle(node, Found(peer, search, said[0] if said else ()))
