"""A protocol of questions between nodes, as ``evidence/1``, ``receipts/1`` and ``jobs/1`` are: both ends of it.

Who asks too often is refused; who asks what is no question has broken the protocol, and is reported.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from depin_node.bootstrap.market import MarketContext
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Message, decode, encode
from depin_node.p2p.directory_protocol import Allowance
from depin_node.p2p.frames import request, serve_requests

TIMEOUT_S = 20.0
_Question = TypeVar("_Question", bound=Message)
_Answer = TypeVar("_Answer", bound=Message)


@dataclass(frozen=True)
class Bounds:
    """What a question and its answer may have, and how often a peer may ask: ``burst`` at once, then ``per_s``. An
    answer may take ``timeout_s``."""

    question_bytes_max: int
    answer_bytes_max: int
    burst: int
    per_s: float
    timeout_s: float = TIMEOUT_S


class Questions(Generic[_Question]):
    """One such protocol; it is served from now on.

    Args:
        context: of the node.
        protocol: its name.
        kind: the message that a question is.
        bounds: of the protocol.
        answer: returns the encoded answer to a peer's question.
    """

    def __init__(
        self,
        context: MarketContext,
        protocol: str,
        kind: type[_Question],
        bounds: Bounds,
        answer: Callable[[bytes, _Question], Awaitable[bytes]],
    ) -> None:
        self._context = context
        self._protocol = protocol
        self._kind = kind
        self._bounds = bounds
        self._answer = answer
        self._allowance = Allowance(burst=bounds.burst, per_s=bounds.per_s)
        size_bytes_max = bounds.question_bytes_max
        timeout_s = bounds.timeout_s
        serve_requests(context.network, protocol, self._serve, size_bytes_max=size_bytes_max, timeout_s=timeout_s)

    async def _serve(self, peer: bytes, body: bytes) -> bytes:
        self._allowance.spend(peer, self._context.clock())
        try:
            question = decode(body, self._kind, size_bytes_max=self._bounds.question_bytes_max)
        except PeerViolation as error:
            self._context.mesh.report(peer, error)
            raise
        return await self._answer(peer, question)

    async def ask(self, peer: bytes, question: _Question) -> bytes:
        """Return a connected peer's answer, still encoded. Raises ``TransportError``, ``PeerViolation``."""
        return await request(
            self._context.network,
            peer,
            self._protocol,
            encode(question),
            size_bytes_max=self._bounds.answer_bytes_max,
            timeout_s=self._bounds.timeout_s,
        )

    async def ask_for(self, kind: type[_Answer], peer: bytes, question: _Question) -> _Answer:
        """Return a connected peer's answer. Raises ``TransportError``, ``PeerViolation``."""
        return decode(await self.ask(peer, question), kind, size_bytes_max=self._bounds.answer_bytes_max)
