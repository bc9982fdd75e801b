"""Jobs that another node of the same owner can go on with: ``jobs/1`` between fellows, and ``job attach``.

The flow: every ``COPY_S`` a node with an owner's certificate asks a few of its fellows what they work on, and copies
what it lacks of each job: what is settled, with the bytes, and nothing that is provisional, which it would run again.
When its user attaches to such a job, the fellow is told to end it, if it is there; what is settled by then is copied;
then the job goes on here, one epoch later. A node that comes back asks its fellows before it goes on with its jobs,
and is told by who has taken one over: the higher epoch goes on, the other ends its job, with a code that says where.

What this cannot do: hold back a node that is alive and reaches none of its fellows. Then both go on, with equal
results; providers that both engage are paid by both.

Only fellows are asked or answered; a copy is bounded like a job of our own, and there are ``JOBS_MAX`` of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
import trio

from depin_node.bootstrap.job_files import JobFiles
from depin_node.bootstrap.job_records import queued
from depin_node.bootstrap.job_states import JobStates
from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.questions import Bounds, Questions
from depin_node.bootstrap.requester import Requester
from depin_node.compute.jobs import copies, statements
from depin_node.compute.jobs.copies import StoredCopy
from depin_node.compute.jobs.handover import (
    HAVE_BYTES_MAX,
    JOBS_MAX,
    PROTOCOL,
    JobState,
    Line,
    Lines,
    More,
    Question,
    Taken,
    Working,
    bits,
)
from depin_node.compute.jobs.job import TASKS_MAX, Job, JobError, JobView, SignedJob
from depin_node.core.errors import ConfigError, DepinError, NotFoundError, PeerViolation, ResourceError, TransportError
from depin_node.core.views import CopyView
from depin_node.core.wire import decode, encode
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, read_kept
from depin_node.crypto.identity import peer_id
from depin_node.crypto.ownership import read_certificate
from depin_node.p2p.frames import RequestRefusedError

log = structlog.get_logger("depin_node.handover")

COPY_S = 2.0
FELLOWS_MAX = 4
"""Each node keeps copies for so many of its fellows: those whose keys follow its own."""
FIRST_S = 5.0
"""A node that has open jobs waits so long, at its start, for a fellow to ask."""
FETCH_TIMEOUT_S = 300.0
INPUT_BYTES_MAX = 4 << 30
"""A job with larger inputs is not copied."""
TAKEN_OVER = "taken_over"
_BOUNDS = Bounds(
    question_bytes_max=8 * 1024,
    answer_bytes_max=JobState.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES,
    burst=256,
    per_s=20.0,
)


class NotAFellowError(DepinError):
    """Only nodes of one owner are told of each other's jobs."""

    code = "not_a_fellow"


class Handover:
    """See the module. ``requester`` is set once it is open."""

    def __init__(self, context: MarketContext) -> None:
        self._context = context
        self._requester: Requester | None = None
        self._refused: set[bytes] = set()
        """Jobs that were too large to copy, or could not be."""
        self._resumed = frozenset[bytes]()
        """Jobs that were open when this node started."""
        self._asked: dict[bytes, set[bytes]] = {}
        """Which of them a fellow was asked for by name."""
        self._attaching = trio.Lock()
        self._states = JobStates(context)
        self._files = JobFiles(context, self._states)
        self._questions = Questions(context, PROTOCOL, Question, _BOUNDS, self._answer)

    # What fellows ask.

    async def _answer(self, peer: bytes, asked: Question) -> bytes:
        if not self._context.mesh.is_fellow(peer):
            raise NotAFellowError("ask who has your owner's certificate")
        question = asked.what
        if isinstance(question, Taken):
            await self._yield(peer, Line(question.job, question.epoch, True))
        elif isinstance(question, More):
            return self._states.part(peer, question)
        return encode(self._lines())

    def _lines(self) -> Lines:
        reader = self._context.journal.reader
        changed = dict(copies.taken_over(reader, JOBS_MAX))
        working = [stored.id for stored in reader.open_jobs()][:JOBS_MAX] if self._requester is not None else []
        lines = [Line(job, copies.epoch_of(reader, job)[0], True) for job in working]
        return Lines((*lines, *(Line(job, epoch, False) for job, epoch in changed.items() if job not in working)))

    async def _yield(self, peer: bytes, line: Line) -> None:
        """A fellow goes on with a job: end it here, if that is news. Of two that took it over at once, the one with the
        higher key goes on."""
        context, job, epoch = self._context, line.job, line.epoch
        reader = context.journal.reader
        stored, ours = reader.job(job), copies.epoch_of(reader, job)[0]
        is_tie = epoch == ours > 0 and line.open and stored is not None and not stored.ended
        if stored is None or not (epoch > ours or (is_tie and peer > context.identity.key)):
            return
        error = JobError(
            TAKEN_OVER,
            f"node {peer_id(peer)} of the same owner has taken this job over: see it there, with the same id",
        )
        log.warning("a fellow has taken a job over", job=job.hex(), peer=peer_id(peer))
        if self._requester is not None:
            await self._requester.hand_over(job, error)
        elif not stored.ended:
            known = read_kept(stored.envelope, SignedJob, context.network.network_id).job
            view = msgspec.structs.replace(queued(job, known), state="taken_over", error=error)
            await context.journal.write([statements.end_job(job, "taken_over", view)])
        # Last: a node that is killed in between has to find it news again, or it would go on with the job.
        await context.journal.write([copies.put_epoch(job, epoch, peer, 0)])

    # What we ask of fellows.

    async def _ask(self, peer: bytes, what: Working | More | Taken) -> bytes:
        await self._context.mesh.connect(peer)
        return await self._questions.ask(peer, Question(what))

    def _fellows(self) -> list[bytes]:
        mesh, own = self._context.mesh, self._context.identity.key
        if mesh.owners.own is None:
            return []
        keys = sorted(entry.key for entry in mesh.directory.peers() if mesh.is_fellow(entry.key))
        return ([key for key in keys if key > own] + [key for key in keys if key < own])[:FELLOWS_MAX]

    async def before_resuming(self) -> None:
        """Ask the fellows, before this node goes on with its jobs, whether one of them has taken a job over."""
        self._resumed = frozenset(stored.id for stored in self._context.journal.reader.open_jobs())
        if self._context.mesh.owners.own is None or not self._resumed:
            return
        heard = self._context.mesh.watch()
        with trio.move_on_after(FIRST_S):
            if await self._hears_a_fellow():
                return
            async for tell in heard:
                if tell.what in ("discovered", "connected", "joined") and await self._hears_a_fellow():
                    return

    async def _hears_a_fellow(self) -> bool:
        return bool([peer for peer in self._fellows() if await self._listen(peer)])

    async def _listen(self, peer: bytes) -> Lines | None:
        """Ask a fellow what it works on, and yield what it has taken over; None if it does not answer."""
        try:
            lines = decode(await self._ask(peer, Working()), Lines, size_bytes_max=_BOUNDS.answer_bytes_max)
            for line in lines.jobs:
                await self._yield(peer, line)
            await self._ask_by_job(peer, {line.job for line in lines.jobs})
        except PeerViolation as error:
            self._context.mesh.report(peer, error)
        except TransportError as error:
            log.debug("a fellow does not answer", peer=peer_id(peer), reason=str(error))
        else:
            return lines
        return None

    async def _ask_by_job(self, peer: bytes, told: set[bytes]) -> None:
        """Ask a fellow, once, for each job that this node came back with and that it has not told of: it may have taken
        it over many jobs ago."""
        for job in self._resumed - told - self._asked.setdefault(peer, set()):
            stored = self._context.journal.reader.job(job)
            if stored is not None and not stored.ended:
                try:
                    envelope = await self._ask(peer, More(job, TASKS_MAX - 1, b"\1"))  # the epoch, and no results
                    state, _ = self._states.told(peer, job, envelope)
                    await self._yield(peer, Line(job, state.epoch, False))
                except RequestRefusedError as error:
                    if error.refusal != NotFoundError.code:
                        raise
            self._asked[peer].add(job)

    @asynccontextmanager
    async def running(self, requester: Requester) -> AsyncIterator[None]:
        """Keep copies of what fellows work on, as long as the block runs."""
        self._requester = requester
        async with trio.open_nursery() as nursery:
            if self._context.mesh.owners.own is not None:  # else there are no fellows
                nursery.start_soon(self._keep_copying)
            yield
            nursery.cancel_scope.cancel()

    async def _keep_copying(self) -> None:
        await self._go_on_with_claims()
        while True:
            await trio.sleep(COPY_S)
            for peer in self._fellows():
                try:
                    lines = await self._listen(peer)
                    if lines is not None:
                        await self._copy_from(peer, lines)
                except ResourceError as error:
                    log.error("what a fellow says cannot be written down", peer=peer_id(peer), reason=str(error))

    async def _copy_from(self, peer: bytes, lines: Lines) -> None:
        context = self._context
        known = {copy.job: copy for copy in copies.copies(context.journal.reader) if copy.worker == peer}
        working = [line.job for line in lines.jobs if line.open and line.job not in self._refused]
        for job in set(known) - {line.job for line in lines.jobs if line.open}:
            if not self._claimed(known[job]):
                await self._drop(job)
        for job in working[:JOBS_MAX]:
            if self._mine(job):
                continue
            try:
                await self._copy(peer, job)
            except PeerViolation as error:
                context.mesh.report(peer, error)
            except DepinError as error:
                log.warning("a fellow's job is not copied", job=job.hex(), peer=peer_id(peer), reason=str(error))
                if not isinstance(error, TransportError):
                    self._refused.add(job)

    def _claimed(self, copy: StoredCopy) -> bool:
        """Tell whether this node has said that it goes on with a job, and was killed before it did."""
        epoch, other = copies.epoch_of(self._context.journal.reader, copy.job)
        return 0 < epoch >= copy.epoch and other == copy.worker

    async def _go_on_with_claims(self) -> None:
        """Who worked on these jobs may have ended them: nobody else goes on."""
        for copy in copies.copies(self._context.journal.reader):
            if self._claimed(copy):
                try:
                    await self.attach(copy.job)
                except DepinError as error:
                    log.error("a fellow's job cannot go on here", job=copy.job.hex(), reason=str(error))

    def _signed(self, copy: StoredCopy) -> Job:
        return read_kept(copy.envelope, SignedJob, self._context.network.network_id).job

    def _mine(self, job: bytes) -> bool:
        return self._context.journal.reader.job(job) is not None

    async def _copy(self, peer: bytes, job: bytes) -> None:
        """Copy what is new of a fellow's job.

        Raises:
            PeerViolation: what it says cannot be. TransportError: it does not say all. ConfigError, ResourceError:
                the job is too large to copy, or there is no room.
        """
        reader, last = self._context.journal.reader, None
        known, first = copies.copy_of(reader, job), 0
        tasks = self._signed(known).tasks if known else 0
        while True:
            done = reader.done(job, tasks) if tasks else bytearray()
            question = More(job, first, bits(done[first : first + 8 * HAVE_BYTES_MAX]))
            if question == last:
                raise TransportError("the fellow has more of the job, and said nothing of it")
            last = question
            tasks, more = await self._take(peer, job, await self._ask(peer, question))
            if not more:
                first += 8 * HAVE_BYTES_MAX
                if first >= tasks:
                    return

    async def _take(self, peer: bytes, job: bytes, envelope: bytes) -> tuple[int, bool]:
        """Store a part of a job's state; return how many tasks the job has, and whether more follows."""
        context = self._context
        state, asked = self._states.told(peer, job, envelope)
        known = copies.copy_of(context.journal.reader, job)
        if known is not None and known.epoch > state.epoch:
            return asked.tasks, False  # who has it now says more
        entry = context.mesh.directory.get(peer)
        if entry is None or entry.certificate is None:
            raise TransportError("the fellow is not known any more")
        await self._fetch(peer, asked, state, is_first=known is None)
        await self._states.keep(peer, entry.certificate.data, asked, state)
        return asked.tasks, state.more

    async def _fetch(self, peer: bytes, job: Job, state: JobState, *, is_first: bool) -> None:
        """Get the blobs that a part of a state names: pinned from now on."""
        sizes = {job.program: job.program_bytes} | {item.blob: item.size_bytes for item in job.inputs}
        if sum(sizes.values()) > INPUT_BYTES_MAX:
            raise ConfigError(f"its inputs have {sum(sizes.values()) >> 20} MiB, {INPUT_BYTES_MAX >> 20} are copied")
        if not is_first:
            sizes = {}
        pinned: list[bytes] = []
        try:
            await self._fetch_all(peer, sizes, state.grant, pinned)
            sizes = await self._states.outputs(job, state)
            for blob in (*pinned, *self._context.journal.reader.held_by(state.job)):
                sizes.pop(blob, None)  # of another task that has the same result, say
            await self._fetch_all(peer, sizes, state.grant, pinned)
        except DepinError:
            for blob in pinned:
                self._context.blobs.store.unpin(blob)
            raise

    async def _fetch_all(self, peer: bytes, sizes: dict[bytes, int], grant: bytes, pinned: list[bytes]) -> None:
        blobs = self._context.blobs
        for blob, size_bytes in sizes.items():
            blobs.store.pin(blob)
            pinned.append(blob)
            await blobs.fetch(blob, [peer], grant, size_bytes_max=size_bytes, timeout_s=FETCH_TIMEOUT_S, durable=True)

    async def _drop(self, job: bytes) -> None:
        """A fellow's job has ended, or is another's now."""
        context = self._context
        if not self._mine(job):
            held = context.journal.reader.held_by(job)
            await context.journal.write(copies.drop_copy(job))
            for blob in held:
                context.blobs.store.unpin(blob)

    def _was_fellow(self, copy: StoredCopy) -> bool:
        """Tell whether who worked on a job has a certificate of our owner: it may be long gone."""
        context = self._context
        try:
            certificate = read_certificate(copy.certificate, context.network.network_id, copy.worker)
        except PeerViolation:
            return False
        return context.mesh.owners.is_fellow(certificate, context.clock())

    # What the user asks.

    def export(self, job: bytes) -> AsyncIterator[bytes]:
        """Yield a job's state as a file. Raises as ``JobFiles.written``."""
        return self._files.written(job)

    async def attach_file(self, parts: AsyncIterator[bytes]) -> JobView:
        """Take a job's state from a file, and go on with it here. Raises as ``JobFiles.read``, and as ``attach``."""
        return await self.attach(await self._files.read(parts))

    def copies(self) -> list[CopyView]:
        """Return the jobs of fellows that this node could go on with."""
        context = self._context
        views = []
        for copy in copies.copies(context.journal.reader):
            job = self._signed(copy)
            done = sum(context.journal.reader.done(copy.job, job.tasks))
            views.append(
                CopyView(copy.job.hex(), job.name, peer_id(copy.worker), job.tasks, done, copy.epoch, float(copy.at_s))
            )
        return views

    async def attach(self, job: bytes) -> JobView:
        """Go on with a fellow's job here; the fellow ends it, if it is there.

        Raises:
            NotFoundError: there is no copy of it. ConfigError: it is no fellow's any more, or does not run here.
            ResourceError: the journal cannot be written.
        """
        assert self._requester is not None
        async with self._attaching:
            context = self._context
            reader = context.journal.reader
            if reader.job(job) is not None:
                return self._requester.job(job)
            copy = copies.copy_of(reader, job)
            if copy is None:
                raise NotFoundError(
                    f"there is no copy of job {job.hex()} here: nodes with the same owner's certificate keep them,"
                    " of jobs that have not ended; see: depin-node job attach"
                )
            if not self._was_fellow(copy):
                raise ConfigError(
                    f"{peer_id(copy.worker)}, which worked on it, shows no certificate of this node's owner any more"
                )
            epoch = copy.epoch + 1
            await self._requester.check(copy)
            # First: a node that is killed once the fellow has ended the job has to know that it goes on here.
            await context.journal.write([copies.put_epoch(job, epoch, copy.worker, copy.spent_us)])
            try:
                await self._ask(copy.worker, Taken(job, epoch))
                await self._copy(copy.worker, job)
            except TransportError as error:
                log.info("the node that worked on it is not there", peer=peer_id(copy.worker), reason=str(error))
            copy = copies.copy_of(reader, job) or copy
            log.info("a fellow's job goes on here", job=job.hex(), peer=peer_id(copy.worker))
            return await self._requester.take_over(copy, epoch)


async def open_handover(context: MarketContext) -> Handover:
    """Answer fellows, and learn of them which of this node's jobs are theirs by now, before it goes on with them."""
    handover = Handover(context)
    await handover.before_resuming()
    return handover
