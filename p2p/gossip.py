"""Gossip: how a message reaches every node that subscribes to its topic. A machine without I/O.

The flow: each node tells its neighbours its topics. A message goes at once to ``EAGER`` random neighbours that want its
topic; the others get its id (``Have``) a second later, unless they have shown that they have it, and ask for the
message (``Want``) if nobody has sent it to them meanwhile. So every message takes several ways at once, chosen anew
each time: there is no tree or mesh that hostile neighbours could cut.

What arrives is judged by the topic's handler before anybody else sees it; only ``ACCEPT`` is passed on, so that whoever
hands us a message that breaks the rules is to blame for it himself.

A message's id is the hash of topic and content: who tells it does not matter, and saying it twice changes nothing. Who
it is by, its own signature says.

What a neighbour may make us do is a token bucket: messages and ids cost tokens, and who has none is not read from until
it has some again (``wait_s``), so that a flood fills the flooder's own pipe. Faults weigh against first deliveries; a
neighbour whose faults reach ``FAULTS_MAX`` is punished. All collections are bounded, oldest out first.

Like the lazy push of Leitão, Pereira, Rodrigues: Epidemic Broadcast Trees (2007), without the tree.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
from blake3 import blake3

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Digest, Message, Name, decode, encode
from depin_node.p2p.bucket import Bucket
from depin_node.p2p.network import PeerKey, Verdict

if TYPE_CHECKING:
    from random import Random

TOPICS_MAX = 64
IDS_MAX = 128
EAGER = 4
SEEN_MAX = 16_384
"""Ids remembered: at least the latest half of so many."""
STORED_MAX = 512
MISSING_MAX = 1024
TELLERS_MAX = 4
HAVE_AFTER_NS = SECOND_NS
"""By then most have it from others, which they tell by sending it, or its id."""
WANT_AFTER_NS = SECOND_NS // 4
ASK_AGAIN_NS = 2 * SECOND_NS
NEWS_NS = 10 * SECOND_NS
"""For so long a new neighbour is told of a message: what gossip carries holds for a minute, and catching up is others'
work."""
TOKENS_BURST = 512.0
TOKENS_PER_S = 64.0
"""A message costs one token, eight ids one. A mesh of any size makes some 10 messages a second (``MeshConfig``)."""
FAULTS_MAX = 8.0
FAULT_HEALED = 0.05
"""What a first delivery takes off a neighbour's faults."""
_LABEL = b"depin/gossip/v1\0"

TOPICS, POST, HAVE, WANT = 1, 2, 3, 4


class Topics(Message, frozen=True):
    """All topics that the sender wants, in place of those it named before."""

    topics: Annotated[tuple[Name, ...], msgspec.Meta(max_length=TOPICS_MAX)]


class Post(Message, frozen=True):
    """One message."""

    topic: Name
    data: bytes


class Ids(Message, frozen=True):
    """``Have`` and ``Want``: ids of messages."""

    ids: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=IDS_MAX)]


FRAME_OVERHEAD_BYTES = 64 * 4 + 64
IDS_BYTES_MAX = IDS_MAX * 34 + 16


def read_post(body: bytes, size_bytes_max: int) -> tuple[Post, bytes]:
    """Return the message in a frame of kind ``POST``, and its id.

    Raises:
        PeerViolation: malformed, or of more than ``size_bytes_max``.
    """
    post = decode(body, Post, size_bytes_max=size_bytes_max)
    return post, message_id(post.topic, post.data)


def message_id(topic: str, data: bytes) -> bytes:
    """Return the id of a message: who sends it has no part in it."""
    name = topic.encode()
    return blake3(_LABEL + len(name).to_bytes(2, "little") + name + data).digest()


class Send(msgspec.Struct, frozen=True):
    """Send one frame to a neighbour; it may be dropped if too many wait."""

    peer: PeerKey
    kind: int
    body: bytes


class Judge(msgspec.Struct, frozen=True):
    """Have the handler of ``topic`` judge a message, and call ``judged`` with the verdict. ``body`` is the frame."""

    peer: PeerKey
    topic: str
    id: bytes
    data: bytes
    body: bytes


class Punish(msgspec.Struct, frozen=True):
    """A neighbour's faults outweigh its use: disconnect it and keep it out."""

    peer: PeerKey
    reason: str


Effect: TypeAlias = Send | Judge | Punish


@dataclass
class _Neighbour:
    bucket: Bucket
    topics: frozenset[str] = frozenset()
    faults: float = 0.0


@dataclass
class _Missing:
    tellers: list[PeerKey]
    ask_ns: int


class Gossip:
    """One node's part in gossip. Call a method for each thing that happens, and ``tick`` when ``wake_ns`` has come.

    Args:
        size_bytes_max: of one message.
        rng: draws whom to send to.
        read: reads a frame of kind ``POST``, as ``read_post`` does; a simulation shares that work among its nodes.
    """

    def __init__(
        self, size_bytes_max: int, rng: "Random", *, read: Callable[[bytes, int], tuple[Post, bytes]] = read_post
    ) -> None:
        self.frame_bytes_max = max(size_bytes_max + FRAME_OVERHEAD_BYTES, IDS_BYTES_MAX)
        """The longest frame that a neighbour may send."""
        self._rng = rng
        self._read = read
        self._topics: set[str] = set()
        self._neighbours: dict[PeerKey, _Neighbour] = {}
        self._wanting: dict[str, list[PeerKey]] = {}  # neighbours by topic; begun anew when they change
        self._seen: set[bytes] = set()
        self._seen_before: set[bytes] = set()
        self._untold: dict[bytes, tuple[str, set[PeerKey]]] = {}  # by id: the topic, and who need not be told
        self._stored: dict[bytes, tuple[str, bytes, int]] = {}
        self._missing: dict[bytes, _Missing] = {}
        self._tell_ns: int | None = None
        self._ask_ns: int | None = None  # not after the first is to be asked for

    @property
    def wake_ns(self) -> int | None:
        """When (boot clock) the next ``tick`` is due."""
        if self._tell_ns is None or self._ask_ns is None:
            return self._ask_ns if self._tell_ns is None else self._tell_ns
        return min(self._tell_ns, self._ask_ns)

    # Ourselves

    def subscribe(self, topic: str) -> list[Effect]:
        """Want ``topic`` from now on."""
        if len(self._topics) >= TOPICS_MAX:
            raise ValueError(f"more than {TOPICS_MAX} topics")
        self._topics.add(topic)
        return [Send(peer, TOPICS, self.greeting()) for peer in self._neighbours]

    def unsubscribe(self, topic: str) -> list[Effect]:
        """Want ``topic`` no longer, and pass nothing of it on."""
        self._topics.discard(topic)
        for identity in [identity for identity, (about, _, _) in self._stored.items() if about == topic]:
            del self._stored[identity]
        return [Send(peer, TOPICS, self.greeting()) for peer in self._neighbours]

    def publish(self, topic: str, data: bytes, now: Now, *, by_id: bool = False) -> list[Effect]:
        """Send a message of our own, or only its id; one that has been about before goes nowhere."""
        if not self._is_new(identity := message_id(topic, data)):
            return []
        return self._spread(identity, topic, encode(Post(topic, data)), None, now, eager=0 if by_id else EAGER)

    # Neighbours

    def joined(self, peer: PeerKey, now: Now) -> None:
        """Take a new neighbour."""
        self._neighbours.setdefault(peer, _Neighbour(Bucket(TOKENS_BURST, TOKENS_PER_S, now)))

    def greeting(self) -> bytes:
        """Return the frame of kind ``TOPICS`` that begins every stream."""
        return encode(Topics(tuple(sorted(self._topics))))

    def left(self, peer: PeerKey) -> None:
        """Forget a neighbour."""
        if self._neighbours.pop(peer, None) is not None:
            self._wanting = {}

    def wait_s(self, peer: PeerKey, now: Now) -> float:
        """Return for how long nothing is to be read from ``peer``: until it has tokens again."""
        neighbour = self._neighbours.get(peer)
        return neighbour.bucket.wait_s(now) if neighbour else 0.0

    def heard(self, peer: PeerKey, kind: int, body: bytes, now: Now) -> list[Effect]:
        """Take one frame of a neighbour.

        Raises:
            PeerViolation: it is malformed, oversized or of an unknown kind.
        """
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return []
        if kind == POST:
            neighbour.bucket.spend(1, now)
            return self._heard_post(peer, body)
        if kind == TOPICS:
            neighbour.bucket.spend(1, now)
            before = neighbour.topics
            neighbour.topics = frozenset(decode(body, Topics, size_bytes_max=self.frame_bytes_max).topics)
            self._wanting = {}
            return self._greet(peer, neighbour.topics - before, now)
        if kind in (HAVE, WANT):
            ids = decode(body, Ids, size_bytes_max=IDS_BYTES_MAX).ids
            if kind == WANT:
                neighbour.bucket.spend(len(ids), now)
                return [Send(peer, POST, self._stored[i][1]) for i in dict.fromkeys(ids) if i in self._stored]
            neighbour.bucket.spend(1 + len(ids) / 8, now)
            for identity in ids:
                self._has(peer, identity)
            self._note_missing(peer, ids, now)
            return []
        raise PeerViolation(f"gossip: a frame of kind {kind} means nothing")

    def judged(self, judged: Judge, verdict: Verdict, now: Now) -> list[Effect]:
        """Take the verdict on a message."""
        neighbour = self._neighbours.get(judged.peer)
        if verdict is Verdict.ACCEPT:
            if neighbour:
                neighbour.faults = max(0.0, neighbour.faults - FAULT_HEALED)
            return self._spread(judged.id, judged.topic, judged.body, judged.peer, now)
        if verdict is Verdict.REJECT and neighbour:
            neighbour.faults += 1
            if neighbour.faults >= FAULTS_MAX:
                neighbour.faults = 0.0
                return [Punish(judged.peer, "gossip: handed on too many messages that break the rules")]
        return []

    def tick(self, now: Now) -> list[Effect]:
        """Tell neighbours what they may lack, and ask for what we do."""
        effects: list[Effect] = []
        if self._tell_ns is not None and now.boottime_ns >= self._tell_ns:
            untold, self._untold, self._tell_ns = self._untold, {}, None
            for peer, neighbour in self._neighbours.items():
                topics = neighbour.topics
                ids = [i for i, (topic, told) in untold.items() if peer not in told and topic in topics]
                effects += [Send(peer, HAVE, encode(Ids(part))) for part in _in_parts(ids)]
        if self._ask_ns is not None and now.boottime_ns >= self._ask_ns:
            effects += self._ask(now)
        return effects

    # The parts

    def _heard_post(self, peer: PeerKey, body: bytes) -> list[Effect]:
        post, identity = self._read(body, self.frame_bytes_max)
        self._has(peer, identity)
        if post.topic not in self._topics:
            return []  # it has cost its token
        self._missing.pop(identity, None)
        if not self._is_new(identity):
            return []
        return [Judge(peer, post.topic, identity, post.data, body)]

    def _greet(self, peer: PeerKey, topics: frozenset[str], now: Now) -> list[Effect]:
        """Tell a neighbour that now wants ``topics`` what it may have missed of late: not what is old news by now."""
        if not topics:
            return []
        since_ns, known = now.boottime_ns - NEWS_NS, list[bytes]()
        for identity, (topic, _, stored_ns) in reversed(self._stored.items()):  # the newest first
            if stored_ns <= since_ns or len(known) == IDS_MAX:
                break
            if topic in topics:
                known.append(identity)
                self._has(peer, identity)
        return [Send(peer, HAVE, encode(Ids(ids))) for ids in _in_parts(known)]

    def _spread(
        self, identity: bytes, topic: str, body: bytes, source: PeerKey | None, now: Now, *, eager: int = EAGER
    ) -> list[Effect]:
        self._stored[identity] = (topic, body, now.boottime_ns)
        if len(self._stored) > STORED_MAX:
            del self._stored[next(iter(self._stored))]
        wanting, drawn = self._who_wants(topic), list[PeerKey]()
        if eager:
            count = min(eager + 1, len(wanting))  # one of them may be the source
            for turn in range(count):  # the first steps of a shuffle
                other = turn + int(self._rng.random() * (len(wanting) - turn))
                wanting[turn], wanting[other] = wanting[other], wanting[turn]
            drawn = [peer for peer in wanting[:count] if peer != source][:eager]
        if len(wanting) > len(drawn):
            self._untold[identity] = (topic, {*drawn} if source is None else {source, *drawn})
            if len(self._untold) > STORED_MAX:
                del self._untold[next(iter(self._untold))]
            if self._tell_ns is None:
                self._tell_ns = now.boottime_ns + HAVE_AFTER_NS
        return [Send(peer, POST, body) for peer in drawn]

    def _who_wants(self, topic: str) -> list[PeerKey]:
        """Return the neighbours that want a topic, in an order that means nothing."""
        wanting = self._wanting.get(topic)
        if wanting is None:
            wanting = self._wanting[topic] = [p for p, n in self._neighbours.items() if topic in n.topics]
        return wanting

    def _has(self, peer: PeerKey, identity: bytes) -> None:
        """A neighbour has a message: it need not be told."""
        untold = self._untold.get(identity)
        if untold is not None:
            untold[1].add(peer)

    def _note_missing(self, peer: PeerKey, ids: Iterable[bytes], now: Now) -> None:
        for identity in ids:
            if identity in self._seen or identity in self._seen_before:
                continue
            missing = self._missing.get(identity)
            if missing is None:
                missing = self._missing[identity] = _Missing([], now.boottime_ns + WANT_AFTER_NS)
                self._ask_ns = missing.ask_ns if self._ask_ns is None else min(self._ask_ns, missing.ask_ns)
            if len(missing.tellers) < TELLERS_MAX and peer not in missing.tellers:
                missing.tellers.append(peer)
            if len(self._missing) > MISSING_MAX:
                del self._missing[next(iter(self._missing))]

    def _ask(self, now: Now) -> list[Effect]:
        """Ask for what is missing, each of a neighbour that has it and was not asked yet."""
        wants: dict[PeerKey, list[bytes]] = {}
        for identity, missing in list(self._missing.items()):
            if now.boottime_ns >= missing.ask_ns:
                missing.ask_ns = now.boottime_ns + ASK_AGAIN_NS
                missing.tellers = [peer for peer in missing.tellers if peer in self._neighbours]
                if not missing.tellers:
                    del self._missing[identity]
                    continue
                wants.setdefault(missing.tellers.pop(0), []).append(identity)
        self._ask_ns = min((missing.ask_ns for missing in self._missing.values()), default=None)
        return [Send(peer, WANT, encode(Ids(ids))) for peer, wanted in wants.items() for ids in _in_parts(wanted)]

    def _is_new(self, identity: bytes) -> bool:
        if identity in self._seen or identity in self._seen_before:
            return False
        self._seen.add(identity)
        if len(self._seen) >= SEEN_MAX // 2:
            self._seen, self._seen_before = set(), self._seen
        return True


def _in_parts(ids: list[bytes]) -> list[tuple[bytes, ...]]:
    return [tuple(ids[start : start + IDS_MAX]) for start in range(0, len(ids), IDS_MAX)]
