"""The request protocols of the directory: ``directory/1`` (catching up), ``peers/1`` (peer exchange), ``owners/1``.

Catching up: the asker sends its own advert and the digest of what it knows; the answer holds adverts that it lacks, at
most ``ADVERTS_MAX``; a full answer is followed by another request. Each side of a new connection does so, so both
know all that either knew. Peer exchange: the answer holds adverts of the teller's own neighbours that it knows can be
dialled. Adverts are signed by whom they are about, so a teller can leave out but not invent. The same holds for what
owners have revoked: the asker names owners and the ``seq`` of the list it has; the answer holds newer ones.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Annotated

import msgspec

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ResourceError
from depin_node.core.wire import Key, Message, Uint, decode, encode
from depin_node.crypto.ownership import REVOCATIONS_BYTES_MAX
from depin_node.p2p.advert import ADVERT_BYTES_MAX
from depin_node.p2p.directory import DIGEST_MAX, Digest
from depin_node.p2p.frames import request
from depin_node.p2p.network import Network, PeerKey

DIRECTORY_PROTOCOL = "directory/1"
PEERS_PROTOCOL = "peers/1"
ADVERTS_MAX = 128
INTRODUCTIONS_MAX = 16
OWNERS_PROTOCOL = "owners/1"
OWNERS_ASKED_MAX = 16
LISTS_MAX = 4
TIMEOUT_S = 5.0
"""For one question and its answer; the largest are 160 KiB."""

SignedAdvert = Annotated[bytes, msgspec.Meta(max_length=ADVERT_BYTES_MAX)]


class CatchUpRequest(Message, frozen=True):
    """Who I am, and what I know."""

    advert: SignedAdvert
    digest: Digest


class PeersRequest(Message, frozen=True):
    """How many peers I want to be introduced to."""

    count: Annotated[int, msgspec.Meta(ge=1, le=INTRODUCTIONS_MAX)]


class Adverts(Message, frozen=True):
    """The answer to both."""

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


REQUEST_BYTES_MAX = DIGEST_MAX * 20 + ADVERT_BYTES_MAX + 64
ANSWER_BYTES_MAX = ADVERTS_MAX * (ADVERT_BYTES_MAX + 3) + 64
OWNERS_BYTES_MAX = OWNERS_ASKED_MAX * 48 + 64
LISTS_BYTES_MAX = LISTS_MAX * (REVOCATIONS_BYTES_MAX + 3) + 64


async def ask_to_catch_up(network: Network, peer: PeerKey, advert: bytes, digest: Digest) -> tuple[bytes, ...]:
    """Return adverts that ``digest`` lacks. Raises as ``frames.request``."""
    return await _ask(network, peer, DIRECTORY_PROTOCOL, CatchUpRequest(advert, digest))


async def ask_for_peers(network: Network, peer: PeerKey) -> tuple[bytes, ...]:
    """Return adverts of live neighbours of ``peer``. Raises as ``frames.request``."""
    return await _ask(network, peer, PEERS_PROTOCOL, PeersRequest(INTRODUCTIONS_MAX))


async def ask_for_revocations(network: Network, peer: PeerKey, known: Iterable[OwnerLine]) -> tuple[bytes, ...]:
    """Return lists of revocations that are newer than the ``known``. Raises as ``frames.request``."""
    question = encode(OwnersRequest(tuple(known)))
    answer = await request(
        network, peer, OWNERS_PROTOCOL, question, size_bytes_max=LISTS_BYTES_MAX, timeout_s=TIMEOUT_S
    )
    return decode(answer, OwnersAnswer, size_bytes_max=LISTS_BYTES_MAX).lists


async def _ask(network: Network, peer: PeerKey, protocol: str, message: Message) -> tuple[bytes, ...]:
    answer = await request(
        network, peer, protocol, encode(message), size_bytes_max=ANSWER_BYTES_MAX, timeout_s=TIMEOUT_S
    )
    return decode(answer, Adverts, size_bytes_max=ANSWER_BYTES_MAX).adverts


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
