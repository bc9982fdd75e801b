"""The shell's side of jobs that have not ended: their results, their story and their end go to the journal here.

The flow: the scheduler's ``StoreResult`` has small results journaled, large ones put into the blob store first; the
scheduler hears ``ResultsStored`` when they are durable. Of results that stay where they are (``NoteHolders``) only that
is written. Its ``JobEnded`` is written behind the last of them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import structlog
import trio

from depin_node.bootstrap.job_records import blobs_of, queued
from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.job import INLINE_BYTES_MAX, Job, JobError, JobView
from depin_node.compute.jobs.schema import StoredOutput
from depin_node.compute.programs.program import Program
from depin_node.compute.verification.rules import audit_parts
from depin_node.core.errors import ResourceError

log = structlog.get_logger("depin_node.requester")

WRITE_AGAIN_S = 1.0
STORED_S = 30.0
"""How long a result that was just accepted is waited for: the disk is slower than that only if it is broken."""


@dataclass
class OpenJob:
    """What the shell keeps of a job that has not ended."""

    job: Job
    program: Program
    parts: int = 1
    """Into how many parts each result is cut, for audits."""
    putting: int = 0
    """Results that are being put into the blob store: the job's end waits for them."""
    ended: e.JobEnded | None = None
    lines: int = 0
    fault: JobError | None = None
    writing: dict[int, object] = field(default_factory=dict)
    """By task, the result that is being put into the blob store; what is void meanwhile must not be journaled."""
    written: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)


class OpenJobs:
    """The open jobs by id, as far as the journal is concerned.

    Args:
        context: of the node.
        nursery: where large results are written.
        feed: takes what the scheduler is to hear.
        view: how the scheduler sees a job.
        over: is called when a job's end is durable, or cannot be made so.
    """

    def __init__(
        self,
        context: MarketContext,
        nursery: trio.Nursery,
        feed: Callable[[e.Event], None],
        view: Callable[[bytes], JobView | None],
        over: Callable[[bytes, JobView], None],
    ) -> None:
        self._context = context
        self._nursery = nursery
        self._feed = feed
        self._scheduled = view
        self._over = over
        self._jobs: dict[bytes, OpenJob] = {}
        self.unwritten: dict[bytes, ResourceError] = {}
        """Jobs whose end is not in the journal, and why; none of them is open."""

    def __contains__(self, identifier: bytes) -> bool:
        """Tell whether a job is open: its end is not durable yet."""
        return identifier in self._jobs

    def __getitem__(self, identifier: bytes) -> OpenJob:
        """Return an open job."""
        return self._jobs[identifier]

    def __len__(self) -> int:
        """Return how many jobs are open."""
        return len(self._jobs)

    def __iter__(self) -> Iterator[bytes]:
        """Return the ids of the open jobs."""
        return iter(self._jobs)

    def add(self, identifier: bytes, job: Job, program: Program) -> None:
        """Note a job that begins, or goes on."""
        parts = 1 if job.tolerances else audit_parts(job.policy, job.results, program)
        self._jobs[identifier] = OpenJob(job, program, parts)

    def view(self, identifier: bytes) -> JobView:
        """Return how an open job stands."""
        return self._scheduled(identifier) or queued(identifier, self._jobs[identifier].job)

    def note(self, note: e.Note) -> bool:
        """Write a line of a job's story; tell whether there was room for it."""
        opened = self._jobs.get(note.job_id)
        if opened is None or opened.lines >= statements.EVENTS_KEPT_MAX:
            return False
        opened.lines += 1
        self._context.journal.write_lazily([statements.put_event(note.job_id, note.event)])
        return True

    # Results.

    def store(self, effect: e.StoreResult) -> None:
        """Have a task's result on disk; then tell the scheduler."""
        if sum(len(output) for output in effect.outputs) > INLINE_BYTES_MAX:
            self._jobs[effect.job_id].putting += 1
            self._jobs[effect.job_id].writing[effect.task] = effect
            self._nursery.start_soon(self._store_large, effect)
            return
        outputs = [StoredOutput(bytes(output), None) for output in effect.outputs]
        self._journal_result(effect, outputs, ())

    async def _store_large(self, effect: e.StoreResult) -> None:
        opened = self._jobs[effect.job_id]
        try:
            blobs = [await self._put_pinned(output) for output in effect.outputs]
        except ResourceError as error:
            self._stored(effect.job_id, error)
        else:
            if opened.writing.get(effect.task) is effect:
                del opened.writing[effect.task]
                self._journal_result(effect, [StoredOutput(b"", blob) for blob in blobs], blobs)
            else:  # void: its bytes stay until the store needs the room
                self._stored(effect.job_id, None)
                for blob in blobs:
                    self._context.blobs.store.unpin(blob)
        opened.putting -= 1
        self._end_if_put(effect.job_id)

    async def _put_pinned(self, output: bytearray) -> bytes:
        blob = await self._context.blobs.store.put(output)
        self._context.blobs.store.pin(blob)
        return blob

    async def result(self, identifier: bytes, task: int, root: bytes) -> list[bytes] | None:
        """Wait until a task's result with this root is on disk, and return its outputs; None if its job is over."""
        store, reader = self._context.blobs.store, self._context.journal.reader
        with trio.move_on_after(STORED_S):
            while identifier in self._jobs:
                for _, stored, outputs in reader.results(identifier, task, 1):
                    if stored == root:
                        return [await store.read(o.blob) if o.blob is not None else o.inline for o in outputs]
                await self._jobs[identifier].written.park()
        return None

    def note_agreed(self, effect: e.NotePanel | e.NoteAudit) -> None:
        """Have on disk who agrees, and what of it is to be audited: before the results, and never after them."""
        if isinstance(effect, e.NotePanel):
            write = statements.put_panel(effect.job_id, effect.number, effect.peers)
        elif effect.is_open:
            write = statements.put_audit(effect.job_id, effect.task, effect.device_class)
        else:
            write = statements.drop_audit(effect.job_id, effect.task)
        self._context.journal.write_soon([write])

    def settle(self, effect: e.Settle) -> None:
        """Note that results are for good."""
        self._context.journal.write_soon([statements.settle(effect.job_id, effect.tasks, confirmed=effect.confirmed)])

    def void(self, effect: e.Void) -> None:
        """Forget results that are believed no more."""
        for task in effect.tasks:
            self._jobs[effect.job_id].writing.pop(task, None)
        self._context.journal.write_soon(statements.drop_results(effect.job_id, effect.tasks))

    def _journal_result(self, effect: e.StoreResult, outputs: list[StoredOutput], blobs: Iterable[bytes]) -> None:
        result = statements.put_result(effect.job_id, effect.task, effect.root, outputs, effect.panel)
        writes = [result, *_tab(effect)]
        if effect.log:
            writes.append(statements.put_log(effect.job_id, effect.task, effect.log))
        if blobs:
            writes.append(statements.hold(effect.job_id, blobs))
        self._context.journal.write_soon(writes, lambda error: self._stored(effect.job_id, error))

    def note_holders(self, effect: e.NoteHolders) -> None:
        """Have on disk who keeps a task's result; then tell the scheduler."""
        outputs = [StoredOutput(b"", blob) for blob in effect.blobs]
        writes = [
            statements.put_result(effect.job_id, effect.task, effect.root, outputs, effect.panel),
            statements.put_holders(effect.job_id, effect.task, effect.holders),
            *_tab(effect),
        ]
        if effect.log:
            writes.append(statements.put_log(effect.job_id, effect.task, effect.log))
        self._context.journal.write_soon(writes, lambda error: self._stored(effect.job_id, error))

    def _stored(self, identifier: bytes, error: ResourceError | None) -> None:
        opened = self._jobs[identifier]
        opened.written.unpark_all()
        if error is None:
            self._feed(e.ResultsStored(identifier, 1))
        elif opened.fault is None:
            log.error("a result cannot be stored", job=identifier.hex(), reason=str(error))
            opened.fault = JobError(error.code, str(error))
            self._feed(e.StoringFailed(identifier, opened.fault))

    # Ends.

    def end(self, effect: e.JobEnded) -> None:
        """Write a job's end behind its last result.

        Small results are queued in the journal already when the end is decided: both then share a transaction. Large
        ones are files first, so the end waits for them.
        """
        self._jobs[effect.job_id].ended = effect
        self._end_if_put(effect.job_id)

    def _end_if_put(self, identifier: bytes) -> None:
        opened = self._jobs[identifier]
        if opened.ended is None or opened.putting:
            return
        ended, opened.ended = opened.ended, None
        view = self.view(identifier)
        if view.state != ended.state:  # it never got its turn
            view = msgspec.structs.replace(view, state=ended.state, error=ended.error)
        if ended.state == "done":  # what is not stored yet is by then, or it is no end
            view = msgspec.structs.replace(view, tasks_done=view.tasks_total)
        self._write_end(identifier, opened, view)

    def _write_end(self, identifier: bytes, opened: OpenJob, view: JobView) -> None:
        if opened.fault is not None:
            view = msgspec.structs.replace(view, state="failed", error=opened.fault)
        inputs = [blob for blob in blobs_of(opened.job) if blob != opened.job.program]  # that stays, with the results

        def note(error: ResourceError | None) -> None:
            if opened.fault is not None and view.state == "done":  # a result before it could not be stored
                self._write_end(identifier, opened, self.view(identifier))
                return
            if error is not None:
                log.error("the end of a job cannot be stored", job=identifier.hex(), reason=str(error))
                self.unwritten[identifier] = error
                self._nursery.start_soon(self._write_later, identifier, writes)
            for blob in inputs:
                self._context.blobs.store.unpin(blob)
            del self._jobs[identifier]
            self._over(identifier, view)

        writes = [
            statements.end_job(identifier, view.state, view, results=opened.job.tasks if view.state == "done" else 0),
            statements.let_go(identifier, inputs),
            *statements.drop_panels(identifier),
        ]
        if view.state == "done":  # else what is provisional is never for good: a fellow that goes on is not shown it
            writes.append(statements.drop_tabs(identifier))
        self._context.journal.write_soon(writes, note)

    async def _write_later(self, identifier: bytes, writes: list[statements.Statement]) -> None:
        """Write a job's end once there is room: until then a restart goes on with it."""
        while identifier in self.unwritten:
            await trio.sleep(WRITE_AGAIN_S)
            with suppress(ResourceError):
                await self._context.journal.write(writes)
                del self.unwritten[identifier]


def _tab(effect: e.StoreResult | e.NoteHolders) -> list[statements.Statement]:
    return [] if effect.tab is None else [statements.put_tab(effect.job_id, effect.task, *effect.tab)]
