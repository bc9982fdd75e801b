"""The request protocols of the directory: ``directory/2``, ``peers/1``, ``find/1`` and ``owners/1``.

Catching up (``directory/2``): the asker sends its own advert, the shards it follows and the digest of what it knows of
them; the answer holds adverts that it lacks, at most ``ADVERTS_MAX``, and how large the teller's shards are; a full
answer is followed by another request. Each side of a new connection does so, so both know all that either knew.

Peer exchange (``peers/1``): the answer holds adverts of peers that the teller has dialled itself. Searching
(``find/1``): the answer holds adverts of peers that suit a need, in the order that a point gives them. Adverts are
signed by whom they are about, so a teller can leave out but not invent. The same holds for what owners have revoked
(``owners/1``): the asker names owners and the ``seq`` of the list it has; the answer holds newer ones.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ResourceError
from depin_node.core.wire import Key, Message, Name, Uint, decode, encode
from depin_node.crypto.ownership import REVOCATIONS_BYTES_MAX
from depin_node.p2p.advert import ADVERT_BYTES_MAX
from depin_node.p2p.directory import DIGEST_MAX, Digest, Need
from depin_node.p2p.discovery_events import FOUND_MAX, Question
from depin_node.p2p.frames import request
from depin_node.p2p.network import Network, PeerKey
from depin_node.p2p.shards import BITS_MAX, CAPABILITIES, Shard

M = TypeVar("M", bound=Message)

DIRECTORY_PROTOCOL = "directory/2"
PEERS_PROTOCOL = "peers/1"
ADVERTS_MAX = 128
INTRODUCTIONS_MAX = 16
CLASSES_MAX = 8
POINT_BYTES = 16
FIND_PROTOCOL = "find/1"
OWNERS_PROTOCOL = "owners/1"
OWNERS_ASKED_MAX = 16
LISTS_MAX = 4
TIMEOUT_S = 5.0
"""For one question and its answer; the largest are 160 KiB."""

SignedAdvert = Annotated[bytes, msgspec.Meta(max_length=ADVERT_BYTES_MAX)]


_Capability = Annotated[int, msgspec.Meta(ge=0, lt=len(CAPABILITIES))]
_Bits = Annotated[int, msgspec.Meta(ge=0, le=BITS_MAX)]


class ShardLine(Message, frozen=True):
    """A shard: the index of its capability, and its prefix of so many bits."""

    capability: _Capability
    bits: _Bits
    prefix: Annotated[int, msgspec.Meta(ge=0, lt=1 << BITS_MAX)]

    @classmethod
    def of(cls, shard: Shard) -> "ShardLine":
        """Return a shard as it is sent."""
        return cls(CAPABILITIES.index(shard.capability), shard.bits, shard.prefix)

    @property
    def shard(self) -> Shard:
        """The shard that was sent."""
        return Shard(CAPABILITIES[self.capability], self.bits, self.prefix)


class CatchUpRequest(Message, frozen=True):
    """Who I am, which shards I follow, and what I know of them."""

    advert: SignedAdvert
    shards: Annotated[tuple[ShardLine, ...], msgspec.Meta(max_length=len(CAPABILITIES))]
    digest: Digest


class News(Message, frozen=True):
    """What the asker lacks, and the bits of my shards, one a capability."""

    bits: Annotated[tuple[_Bits, ...], msgspec.Meta(min_length=len(CAPABILITIES), max_length=len(CAPABILITIES))]
    adverts: Annotated[tuple[SignedAdvert, ...], msgspec.Meta(max_length=ADVERTS_MAX)]


class FindRequest(Message, frozen=True):
    """Who lends what I need, in a shard or (none) anywhere? Without a device class: who is there?"""

    device_classes: Annotated[tuple[Name, ...], msgspec.Meta(max_length=CLASSES_MAX)]
    memory_mib: Uint
    slots: Uint
    price_max: Uint
    shards: Annotated[tuple[ShardLine, ...], msgspec.Meta(max_length=1)]
    point: Annotated[bytes, msgspec.Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
    count: Annotated[int, msgspec.Meta(ge=1, le=FOUND_MAX)]

    @classmethod
    def of(cls, question: Question) -> "FindRequest":
        """Return a question as it is sent."""
        need = question.need or Need(frozenset(), 0)
        return cls(
            tuple(sorted(need.device_classes)[:CLASSES_MAX]),
            need.memory_mib,
            need.slots,
            need.price_max,
            (ShardLine.of(question.shard),) if question.shard else (),
            question.point,
            question.count,
        )

    @property
    def question(self) -> Question:
        """The question that was sent."""
        classes = frozenset(self.device_classes)
        need = Need(classes, self.memory_mib, self.slots, self.price_max) if classes else None
        return Question(need, self.shards[0].shard if self.shards else None, self.point, self.count)


class PeersRequest(Message, frozen=True):
    """How many peers I want to be introduced to."""

    count: Annotated[int, msgspec.Meta(ge=1, le=INTRODUCTIONS_MAX)]


class Adverts(Message, frozen=True):
    """The answer to ``peers/1`` and ``find/1``."""

    adverts: Annotated[tuple[SignedAdvert, ...], msgspec.Meta(max_length=ADVERTS_MAX)]


class OwnerLine(Message, frozen=True):
    """The list of an owner that I have; ``seq`` 0: none."""

    owner: Key
    seq: Uint


class OwnersRequest(Message, frozen=True):
    """Whose newer lists I want."""

    known: Annotated[tuple[OwnerLine, ...], msgspec.Meta(min_length=1, max_length=OWNERS_ASKED_MAX)]


class OwnersAnswer(Message, frozen=True):
    """Lists that are newer; the asker comes again for what does not fit."""

    lists: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=REVOCATIONS_BYTES_MAX)], ...],
        msgspec.Meta(max_length=LISTS_MAX),
    ]


REQUEST_BYTES_MAX = DIGEST_MAX * 20 + ADVERT_BYTES_MAX + 128
FIND_BYTES_MAX = 1024
ANSWER_BYTES_MAX = ADVERTS_MAX * (ADVERT_BYTES_MAX + 3) + 64
OWNERS_BYTES_MAX = OWNERS_ASKED_MAX * 48 + 64
LISTS_BYTES_MAX = LISTS_MAX * (REVOCATIONS_BYTES_MAX + 3) + 64


async def ask_to_catch_up(
    network: Network, peer: PeerKey, advert: bytes, shards: Iterable[Shard], digest: Digest
) -> News:
    """Return adverts that ``digest`` lacks. Raises as ``frames.request``."""
    question = CatchUpRequest(advert, tuple(ShardLine.of(shard) for shard in shards), digest)
    return await _ask(network, peer, DIRECTORY_PROTOCOL, question, News)


async def ask_for_peers(network: Network, peer: PeerKey) -> tuple[bytes, ...]:
    """Return adverts of peers that ``peer`` dialled itself. Raises as ``frames.request``."""
    return (await _ask(network, peer, PEERS_PROTOCOL, PeersRequest(INTRODUCTIONS_MAX), Adverts)).adverts


async def ask_to_find(network: Network, peer: PeerKey, question: Question) -> tuple[bytes, ...]:
    """Return adverts of peers that suit. Raises as ``frames.request``."""
    return (await _ask(network, peer, FIND_PROTOCOL, FindRequest.of(question), Adverts)).adverts


async def ask_for_revocations(network: Network, peer: PeerKey, known: Iterable[OwnerLine]) -> tuple[bytes, ...]:
    """Return lists of revocations that are newer than the ``known``. Raises as ``frames.request``."""
    question = encode(OwnersRequest(tuple(known)))
    answer = await request(
        network, peer, OWNERS_PROTOCOL, question, size_bytes_max=LISTS_BYTES_MAX, timeout_s=TIMEOUT_S
    )
    return decode(answer, OwnersAnswer, size_bytes_max=LISTS_BYTES_MAX).lists


async def _ask(network: Network, peer: PeerKey, protocol: str, message: Message, kind: type[M]) -> M:
    answer = await request(
        network, peer, protocol, encode(message), size_bytes_max=ANSWER_BYTES_MAX, timeout_s=TIMEOUT_S
    )
    return decode(answer, kind, size_bytes_max=ANSWER_BYTES_MAX)


class Allowance:
    """How often each peer may ask: ``burst`` times at once, then ``per_s``; at most ``peers_max`` are remembered."""

    def __init__(self, burst: float, per_s: float, *, peers_max: int = 1024) -> None:
        self._burst = burst
        self._per_s = per_s
        self._peers_max = peers_max
        self._left: OrderedDict[PeerKey, tuple[float, int]] = OrderedDict()

    def spend(self, peer: PeerKey, now: Now) -> None:
        """Take note of a question. Raises ``ResourceError`` if it is one too many."""
        left, since_ns = self._left.get(peer, (self._burst, now.boottime_ns))
        left = min(self._burst, left + (now.boottime_ns - since_ns) / SECOND_NS * self._per_s)
        self._left[peer] = (left - 1 if left >= 1 else left, now.boottime_ns)
        self._left.move_to_end(peer)
        if len(self._left) > self._peers_max:
            self._left.popitem(last=False)
        if left < 1:
            raise ResourceError("a peer asks too often")
