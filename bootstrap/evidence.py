"""Evidence on its way through the mesh: ``evidence/1``, and what this node keeps.

The flow: on a new connection either side asks the other what it holds that we lack (digest and accused), and pulls
what concerns somebody we know. Each case is verified before it is believed: then its accused is banned here, the case
is journalled, and a notice goes to the neighbours, who do the same. Whoever hands out what proves nothing has broken
the protocol, and pays for it as for any violation; so nobody passes on what it has not verified.

Bounded: one case for each accused, ``CASES_MAX`` in all, a question a second from each peer, one work at a time run
again for evidence of wrong results.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.questions import Bounds, Questions
from depin_node.compute.jobs import statements
from depin_node.compute.market.happenings import Evidence as Answered
from depin_node.compute.market.messages import WorkBody
from depin_node.compute.sandbox.again import root_of
from depin_node.compute.trust.evidence import (
    CASE_BYTES_MAX,
    Case,
    NotHereError,
    Proof,
    Proven,
    RightResultError,
    WrongResult,
    case_digest,
    encode_case,
    verify_case,
)
from depin_node.compute.trust.evidence_messages import (
    KNOWN_MAX,
    LINES_MAX,
    PROTOCOL,
    Ask,
    Line,
    Lines,
    Notice,
    Pull,
    Question,
)
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import DepinError, NotFoundError, PeerViolation, TransportError
from depin_node.core.wire import decode, encode
from depin_node.crypto.identity import peer_id
from depin_node.p2p.blob_store import BlobMissingError

log = structlog.get_logger("depin_node.evidence")

CASES_MAX = 4096
AGAIN_S = 60.0
"""How often a neighbour is asked once more: an accused may have become known to us since."""
TRIED_AT_ONCE_MAX = 8
RUN_BYTES_MAX = 64 << 20
"""Program and inputs of a task that is run again for the sake of evidence."""
BlobsHere = Callable[[Iterable[bytes]], Awaitable[tuple[bytes, ...]]]
_BOUNDS = Bounds(question_bytes_max=16 * 1024, answer_bytes_max=CASE_BYTES_MAX + 64, burst=64, per_s=1.0)


class Evidence:
    """A node's cases; ``run`` exchanges them."""

    def __init__(self, context: MarketContext, nursery: trio.Nursery) -> None:
        self._context = context
        self._nursery = nursery
        self._held: dict[bytes, bytes] = dict(context.journal.reader.case_names())  # accused: digest
        self._checking = trio.Semaphore(1)
        self._pulling: set[bytes] = set()
        self._trying: set[bytes] = set()
        self._questions = Questions(context, PROTOCOL, Question, _BOUNDS, self._answer)

    # Our own.

    def found(self, accused: bytes, proof: Proof) -> None:
        """Keep and pass on what this node has caught somebody with."""
        network = self._context.network.network_id
        try:
            data = encode_case(network, accused, proof)
            proven = verify_case(data, network)
        except (PeerViolation, ValueError) as error:
            log.error("evidence of our own does not hold", peer=peer_id(accused), reason=str(error))
            return
        self._believe(data, proven, told_by=b"")

    def outvoted(self, peer: bytes, answer: Answered) -> None:
        """Find out whether an answer that lost a vote is a lie: by running the task again here, if it is small."""
        if answer.body is not None and peer not in self._held and len(self._trying) < TRIED_AT_ONCE_MAX:
            self._trying.add(peer)
            self._nursery.start_soon(self._try_again, peer, answer, answer.body)

    async def _try_again(self, peer: bytes, answer: Answered, body: WorkBody) -> None:
        agreement = self._context.journal.reader.agreement(answer.agreement, "requester")
        network = self._context.network.network_id
        try:
            if agreement is None:
                return
            proof = WrongResult(
                *agreement, answer.number, body, answer.commits, answer.reveals, answer.attempt, blobs=()
            )
            try:
                data = encode_case(network, peer, proof)
                async with self._checking:
                    proven = await verify_with_execution(data, network, self._blobs)
                self._believe(data, proven, told_by=b"")
            except RightResultError:
                log.error("an answer lost a vote and is right: who outvoted it agree on a lie", peer=peer_id(peer))
            except (PeerViolation, ValueError) as error:
                log.info("an answer that lost a vote cannot be judged here", peer=peer_id(peer), reason=str(error))
            self._context.journal.write_soon([statements.judged(peer, body.job, answer.task)])
        finally:
            self._trying.discard(peer)

    async def _blobs(self, names: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return those blobs that are here, unless they are large, or go while they are read."""
        store = self._context.blobs.store
        here = [name for name in names if store.has(name)]
        if sum(store.size_bytes(name) for name in here) > RUN_BYTES_MAX:
            return ()
        try:
            return tuple([await store.read(name) for name in here])
        except BlobMissingError:
            return ()

    def _believe(self, data: bytes, proven: Proven, told_by: bytes) -> None:
        if proven.accused in self._held or len(self._held) >= CASES_MAX:
            return
        self._held[proven.accused] = proven.digest
        now_s = self._context.clock().wall_ns // SECOND_NS
        writes = [statements.put_case(proven, data, told_by, now_s)]
        if self._context.book.caught(proven.accused, proven.reason):
            writes.append(statements.put_ban(proven.accused, proven.reason, now_s))
        self._context.journal.write_soon(writes)
        log.warning("a peer is banned: it was proven to lie", peer=peer_id(proven.accused), reason=proven.reason)
        line = Line(proven.digest, proven.accused)
        for neighbour in self._context.network.peers():
            if neighbour not in (told_by, proven.accused):
                self._nursery.start_soon(self._tell, neighbour, line)

    async def _tell(self, neighbour: bytes, line: Line) -> None:
        try:
            await self._questions.ask(neighbour, Question(Notice(line)))
        except DepinError as error:
            log.debug("a notice did not arrive", peer=peer_id(neighbour), reason=str(error))

    # What peers ask.

    async def _answer(self, peer: bytes, asked: Question) -> bytes:
        question = asked.what
        if isinstance(question, Pull):
            data = self._context.journal.reader.case(question.digest)
            if data is None:
                raise NotFoundError("no such case")
            return data
        if isinstance(question, Notice):
            if self._concerns_us(question.line):
                self._nursery.start_soon(self._pull, peer, [question.line])
            return encode(Lines(()))
        known = set(question.known)
        lines = [Line(digest, accused) for accused, digest in self._held.items() if digest[:8] not in known]
        return encode(Lines(tuple(lines[-LINES_MAX:])))

    # What we ask.

    async def run(self) -> None:
        """Ask whoever connects, and from time to time a neighbour, for ever."""
        for accused, answer in self._context.journal.reader.unjudged(TRIED_AT_ONCE_MAX):
            self.outvoted(accused, answer)  # what a restart came between
        self._nursery.start_soon(self._keep_asking)
        async for tell in self._context.mesh.watch():
            if tell.what in ("joined", "connected"):
                self._nursery.start_soon(self._catch_up, tell.peer)

    async def _keep_asking(self) -> None:
        while True:
            await trio.sleep(AGAIN_S)
            neighbours = sorted(self._context.network.peers())
            if neighbours:
                await self._catch_up(self._context.rng.choice(neighbours))

    async def _catch_up(self, peer: bytes) -> None:
        known = tuple(digest[:8] for digest in list(self._held.values())[-KNOWN_MAX:])
        try:
            lines = (await self._questions.ask_for(Lines, peer, Question(Ask(known)))).lines
        except PeerViolation as error:
            self._context.mesh.report(peer, error)
        except TransportError as error:
            log.debug("a peer did not tell its evidence", peer=peer_id(peer), reason=str(error))
        else:
            await self._pull(peer, [line for line in lines if self._concerns_us(line)])

    def _concerns_us(self, line: Line) -> bool:
        """Tell whether we know the accused, and hold nothing about it: else strangers could fill our disk."""
        context = self._context
        known = line.accused != context.identity.key and context.mesh.directory.get(line.accused) is not None
        return known and line.accused not in self._held and line.digest not in self._pulling

    async def _pull(self, peer: bytes, lines: Iterable[Line]) -> None:
        for line in lines:
            if not self._concerns_us(line):
                continue  # somebody else was faster
            self._pulling.add(line.digest)
            try:
                data = await self._questions.ask(peer, Question(Pull(line.digest)))
                await self._judge(peer, line, data)
            except PeerViolation as error:
                self._context.mesh.report(peer, error)
                return
            except TransportError as error:
                log.debug("evidence could not be had", peer=peer_id(peer), reason=str(error))
                return
            finally:
                self._pulling.discard(line.digest)

    async def _judge(self, peer: bytes, line: Line, data: bytes) -> None:
        """Verify a case, and believe it then. Raises ``PeerViolation`` if it proves nothing."""
        if case_digest(data) != line.digest:
            raise PeerViolation("evidence: other bytes than were named")
        try:
            async with self._checking:
                proven = await verify_with_execution(data, self._context.network.network_id, self._blobs)
        except NotHereError:
            log.info("evidence that cannot be checked here is not believed", peer=peer_id(line.accused))
            return
        if proven.accused != line.accused:
            raise PeerViolation("evidence: about somebody else than was named")
        self._believe(data, proven, told_by=peer)


async def verify_with_execution(data: bytes, network: str | None, blobs: BlobsHere | None = None) -> Proven:
    """Check a case, running its work again on this machine if that is what it takes.

    Args:
        data: the case.
        network: of this node; None takes the one that the case names.
        blobs: returns the program and inputs that are here, beside what the case carries.

    Raises:
        PeerViolation: it proves nothing. NotHereError: it cannot be told here.
    """
    try:
        return await trio.to_thread.run_sync(verify_case, data, network)
    except NotHereError as error:
        task = error.task
    case = decode(data, Case, size_bytes_max=CASE_BYTES_MAX)
    assert isinstance(case.proof, WrongResult)
    body, carried = case.proof.body, case.proof.blobs
    here = await blobs({body.program, *(item.blob for item in body.inputs)}) if blobs is not None else ()
    root = await root_of(body, task, carried + here)
    return verify_case(data, network, lambda body, task, blobs: root)


@asynccontextmanager
async def open_evidence(context: MarketContext) -> AsyncIterator[Evidence]:
    """Exchange evidence with peers as long as the block runs; ``context.caught`` is where our own comes in."""
    async with trio.open_nursery() as nursery:
        evidence = Evidence(context, nursery)
        context.caught = evidence.found
        context.outvoted = evidence.outvoted
        nursery.start_soon(evidence.run)
        yield evidence
        nursery.cancel_scope.cancel()
