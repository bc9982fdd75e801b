"""What nodes ask each other over streams (``directory_protocol.py``), on behalf of the discovery machine: both ends.

Each question is a task of its own, under a deadline; what comes back, or what a peer tells with its question, goes to
the machine. Who breaks the protocol is reported. Parts of ``Mesh``.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import structlog

from depin_node.core.clock import Now
from depin_node.core.errors import PeerViolation, TransportError
from depin_node.core.wire import Message, decode, encode
from depin_node.p2p import directory_protocol as protocol
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.directory import Digest
from depin_node.p2p.discovery import Discovery
from depin_node.p2p.discovery_events import Event, Found, Introduced, Question, Told
from depin_node.p2p.frames import serve_requests
from depin_node.p2p.network import Network, PeerKey
from depin_node.p2p.shards import Shard

if TYPE_CHECKING:
    from random import Random

A = TypeVar("A")
M = TypeVar("M", bound=Message)

Handle = Callable[[Event], object]
Report = Callable[[PeerKey, PeerViolation], None]

log = structlog.get_logger("depin_node.p2p")

CATCH_UP_ROUNDS_MAX = 40  # a full directory takes 32


class Asking:
    """What this node asks peers. ``advert`` returns its own."""

    def __init__(
        self,
        network: Network,
        discovery: Discovery,
        advert: Callable[[], bytes],
        handle: Handle,
        report: Report,
        clock: Callable[[], Now],
        rng: "Random",
    ) -> None:
        self._network = network
        self._discovery = discovery
        self._directory = discovery.directory
        self._owners = discovery.directory.owners
        self._advert = advert
        self._handle = handle
        self._report = report
        self._clock = clock
        self._rng = rng
        self._catching_up: set[PeerKey] = set()

    async def peers(self, peer: PeerKey) -> None:
        """Ask for live peers."""
        adverts = await self._answer_of(peer, protocol.ask_for_peers(self._network, peer), ())
        self._handle(Told(peer, adverts, are_live=True))

    async def find(self, peer: PeerKey, search: int, question: Question) -> None:
        """Put a question of a search."""
        adverts = await self._answer_of(peer, protocol.ask_to_find(self._network, peer, question), ())
        self._handle(Found(peer, search, adverts))

    async def catch_up(self, peer: PeerKey) -> None:
        """Tell our advert and what we know, until the peer knows no more than we do."""
        if peer in self._catching_up:
            return
        self._catching_up.add(peer)
        try:
            for _ in range(CATCH_UP_ROUNDS_MAX):
                shards = self._discovery.sharding.followed()
                digest = self._directory.digest(shards)
                news = await self._news_of(peer, shards, digest)
                self._handle(Told(peer, news.adverts, bits=news.bits))
                if len(news.adverts) < protocol.ADVERTS_MAX or self._directory.digest(shards) == digest:
                    break
            await self._ask_for_revocations(peer)
        finally:
            self._catching_up.discard(peer)

    async def introduce(self, peer: PeerKey) -> None:
        """Tell our advert, whatever comes back."""
        shards = self._discovery.sharding.followed()
        await self._news_of(peer, shards, self._directory.digest(shards))

    async def _news_of(self, peer: PeerKey, shards: Sequence[Shard], digest: Digest) -> protocol.News:
        nothing = protocol.News(self._discovery.sharding.bits, ())
        question = protocol.ask_to_catch_up(self._network, peer, self._advert(), shards, digest)
        return await self._answer_of(peer, question, nothing)

    async def _ask_for_revocations(self, peer: PeerKey) -> None:
        """Ask for what our own owner has revoked, and some of the others we met."""
        met = self._directory.owners_met()
        if len(met) > protocol.OWNERS_ASKED_MAX:
            met = [met[0], *self._rng.sample(met[1:], protocol.OWNERS_ASKED_MAX - 1)]
        if not met:
            return
        known = [protocol.OwnerLine(owner, self._owners.seq_of(owner)) for owner in met]
        for data in await self._answer_of(peer, protocol.ask_for_revocations(self._network, peer, known), ()):
            try:
                self._directory.revoked(data, self._clock())
            except PeerViolation as error:
                self._report(peer, error)
                return

    async def _answer_of(self, peer: PeerKey, question: Awaitable[A], otherwise: A) -> A:
        try:
            return await question
        except PeerViolation as error:
            self._report(peer, error)
        except TransportError as error:
            log.debug("a question went unanswered", peer=peer_id(peer), reason=str(error))
        return otherwise


class Answering:
    """What peers ask this node."""

    def __init__(self, discovery: Discovery, handle: Handle, report: Report, clock: Callable[[], Now]) -> None:
        self._discovery = discovery
        self._owners = discovery.directory.owners
        self._handle = handle
        self._report = report
        self._clock = clock
        self._allowance = protocol.Allowance(burst=CATCH_UP_ROUNDS_MAX, per_s=2.0)

    def serve(self, network: Network) -> None:
        """Answer from now on."""
        for name, handler in (
            (protocol.DIRECTORY_PROTOCOL, self._on_catch_up),
            (protocol.PEERS_PROTOCOL, self._on_peers),
            (protocol.FIND_PROTOCOL, self._on_find),
            (protocol.OWNERS_PROTOCOL, self._on_owners),
        ):
            serve_requests(
                network, name, handler, size_bytes_max=protocol.REQUEST_BYTES_MAX, timeout_s=protocol.TIMEOUT_S
            )

    async def _on_catch_up(self, peer: PeerKey, body: bytes) -> bytes:
        message = self._question(peer, body, protocol.CatchUpRequest, protocol.REQUEST_BYTES_MAX)
        self._handle(Introduced(peer, message.advert))
        shards = [line.shard for line in message.shards]
        news = self._discovery.news_for(message.digest, shards, protocol.ADVERTS_MAX)
        return encode(protocol.News(self._discovery.sharding.bits, tuple(news)))

    async def _on_find(self, peer: PeerKey, body: bytes) -> bytes:
        message = self._question(peer, body, protocol.FindRequest, protocol.FIND_BYTES_MAX)
        return encode(protocol.Adverts(tuple(self._discovery.answers(peer, message.question))))

    async def _on_peers(self, peer: PeerKey, body: bytes) -> bytes:
        message = self._question(peer, body, protocol.PeersRequest, protocol.REQUEST_BYTES_MAX)
        return encode(protocol.Adverts(tuple(self._discovery.introductions(peer, message.count))))

    async def _on_owners(self, peer: PeerKey, body: bytes) -> bytes:
        message = self._question(peer, body, protocol.OwnersRequest, protocol.OWNERS_BYTES_MAX)
        newer = [
            self._owners.list_of(line.owner) for line in message.known if self._owners.seq_of(line.owner) > line.seq
        ]
        return encode(protocol.OwnersAnswer(tuple(data for data in newer if data)[: protocol.LISTS_MAX]))

    def _question(self, peer: PeerKey, body: bytes, kind: type[M], size_bytes_max: int) -> M:
        self._allowance.spend(peer, self._clock())
        try:
            return decode(body, kind, size_bytes_max=size_bytes_max)
        except PeerViolation as error:
            self._report(peer, error)
            raise
