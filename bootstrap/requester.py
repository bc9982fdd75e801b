"""The requester's shell: feeds the scheduler, and has its effects carried out.

The flow: ``submit`` checks a job, signs it, hands it to the scheduler and returns when the journal has it.
The scheduler's effects go to providers (``conversations``), to the journal (``open_jobs``) and to whoever
watches; what comes of them goes back to the scheduler. All of that happens in one thread without waiting: only
frames, files and the journal are waited for, each in its own task. Jobs that the journal has open are resumed.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import structlog
import trio

from depin_node.bootstrap.arriving import part_bytes
from depin_node.bootstrap.auditor import Auditor, OpenPool, can_audit
from depin_node.bootstrap.conversations import Conversations
from depin_node.bootstrap.disputes import Disputes, can_walk
from depin_node.bootstrap.explaining import explained
from depin_node.bootstrap.job_records import JobRecords, blobs_of, queued
from depin_node.bootstrap.judge import Judge
from depin_node.bootstrap.market import RESTING_TICK_S, TICK_S, MarketContext
from depin_node.bootstrap.open_jobs import OpenJobs
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.copies import StoredCopy, end_copy, put_epoch, spent_us
from depin_node.compute.jobs.explain import ExplainView
from depin_node.compute.jobs.job import (
    END_STATES,
    Job,
    JobError,
    JobView,
    Results,
    SignedJob,
    job_id,
)
from depin_node.compute.jobs.scheduler import Scheduler, SchedulerConfig
from depin_node.compute.jobs.schema import StoredJob
from depin_node.compute.market.messages import LOG_BYTES_MAX, Terms
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import result_bytes_max, result_sizes
from depin_node.compute.sandbox.pool import open_pool
from depin_node.compute.trust.book import ESTABLISHED_ANSWERS
from depin_node.compute.verification.rules import peers_run
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, NotFoundError, ResourceError, TransportError
from depin_node.core.text import printable
from depin_node.core.views import LogsView, TaskLog
from depin_node.crypto.envelope import NOBODY, sign
from depin_node.p2p.directory import Entry, Need

log = structlog.get_logger("depin_node.requester")

CANDIDATES_MAX = 128
CANDIDATES_S = 1.0
NEWS_S = 0.1
ENDED_KEPT_MAX = 256
PARTS_QUIET_S = 10.0
"""A reader of parts is told at least so often that the job goes on."""
JOBS_OPEN_MAX = 1024
"""Worked on and queued together; who wants more is told to wait."""
VIEW_INTERVAL_S = 0.1
"""A watcher of a running job is told at most so often; of its end at once."""


class Requester:
    """A node's jobs; ``open_requester`` makes it."""

    def __init__(
        self,
        context: MarketContext,
        config: SchedulerConfig,
        nursery: trio.Nursery,
        audit_pool: OpenPool,
        *,
        audits_here: bool = True,
    ) -> None:
        self._audits_here = audits_here
        self._context = context
        self._config = config
        self._scheduler = Scheduler(config, context.rng, context.secret(), context.book.banned, self._missing)
        self._open = OpenJobs(context, nursery, self._feed, self._scheduler.view, self._over)
        self._auditor = Auditor(context, nursery, self._feed, audit_pool, self._open.result)
        self._judge = Judge(context, nursery, self._open, self._feed)
        self._disputes = Disputes(context, nursery, self._open, self._feed, audit_pool)
        self._conversations = Conversations(context, nursery, self._feed, self._work_of)
        self._does = self._effects()
        self._ended: dict[bytes, JobView] = {}
        self._changed: dict[bytes, trio.lowlevel.ParkingLot] = {}
        self._writing: dict[str, trio.Event] = {}
        """By key, the jobs that are on their way into the journal."""
        self._records = JobRecords(context, self._compute_again)
        self._wake = trio.Event()
        self._looked_s = float("-inf")
        self._rests = False

    # What the node's user asks.

    async def submit(self, job: Job) -> JobView:
        """Take responsibility for ``job``; when this returns, it is in the journal. The same key again is the
        same job.

        Raises:
            ConfigError: its blobs are not here, or do not fit the program; or the key is another job's.
            ResourceError: the journal cannot be written.
        """
        known = self._context.journal.reader.job_by_key(job.key)
        if known is not None:
            return self._same(job, known)
        context, now = self._context, self._context.clock()
        if len(self._open) >= JOBS_OPEN_MAX:
            raise ResourceError(f"{JOBS_OPEN_MAX} jobs are open on this node: wait for some to end, or cancel them")
        program = await self._records.check(job)
        identifier = job_id(context.identity.key, job)
        while (writing := self._writing.get(job.key)) is not None:
            await writing.wait()
            known = context.journal.reader.job_by_key(job.key)
            if known is not None:
                return self._same(job, known)
        if identifier in self._open:
            return self.job(identifier)  # it could not be written, and ends
        expires_s = now.wall_ns // SECOND_NS + SignedJob.LIFETIME_S_MAX
        signed = SignedJob(NOBODY, expires_s, context.pen.next_seq(), job)
        envelope = sign(context.identity, context.network.network_id, signed)
        blobs = blobs_of(job)
        for blob in blobs:
            context.blobs.store.pin(blob)
        # The scheduler may begin while the disk confirms: what it writes comes after this in the journal.
        written, failure = trio.Event(), list[ResourceError | None]()
        self._writing[job.key] = written

        def note(error: ResourceError | None) -> None:
            failure.append(error)
            written.set()
            del self._writing[job.key]

        context.journal.write_soon(
            [
                statements.put_job(identifier, job.key, envelope, job.created_s),
                statements.hold(identifier, blobs),
            ],
            note,
        )
        self._start(self._opened(identifier, job, program, bytearray(job.tasks)))
        await written.wait()
        if failure[0] is not None:
            self._feed(e.CancelAsked(identifier))
            raise failure[0]
        return self.job(identifier)

    def jobs(self, limit: int) -> list[JobView]:
        """Return the newest jobs."""
        return [self._view(stored) for stored in self._context.journal.reader.jobs(limit)]

    def job(self, identifier: bytes) -> JobView:
        """Return how a job stands. Raises ``NotFoundError``."""
        view = self._ended.get(identifier) or self._open_view(identifier)
        if view is not None:
            return view
        stored = self._context.journal.reader.job(identifier)
        if stored is None:
            raise NotFoundError(f"there is no job {identifier.hex()} on this node; see: depin-node job list")
        return self._view(stored)

    def story(self, identifier: bytes) -> list[e.JobEvent]:
        """Return what happened to a job, line by line."""
        return self._context.journal.reader.events(identifier)

    def explain(self, identifier: bytes) -> ExplainView:
        """Return why a job is as it is. Raises ``NotFoundError``."""
        view, stored = self.job(identifier), self._context.journal.reader.job(identifier)
        job = self._open[identifier].job if identifier in self._open else None
        if job is None:
            assert stored is not None
            job = self._records.signed(stored.envelope)
        return explained(self._context, job, view, self.story(identifier), self._config.price_max)

    def logs(self, identifier: bytes) -> LogsView:
        """Return what the accepted tasks of a job have printed so far."""
        logs, is_full = self._context.journal.reader.logs(identifier)
        return LogsView(
            tuple(
                TaskLog(task, printable(log.decode(errors="replace"), keep="\n\t"), len(log) >= LOG_BYTES_MAX)
                for task, log in logs
            ),
            is_full,
        )

    async def changed(self, identifier: bytes, seen: JobView) -> None:
        """Wait until the job's view may differ from ``seen``: not more often than ten times a second before
        its end."""
        while self.job(identifier) == seen and seen.state not in END_STATES:
            await self._changed.setdefault(identifier, trio.lowlevel.ParkingLot()).park()
        with trio.move_on_after(VIEW_INTERVAL_S):
            while identifier in self._open:
                await self._changed.setdefault(identifier, trio.lowlevel.ParkingLot()).park()

    async def wait(self, identifier: bytes) -> JobView:
        """Wait until a job has ended. Raises ``NotFoundError``."""
        self.job(identifier)
        while identifier in self._open:
            await self._changed.setdefault(identifier, trio.lowlevel.ParkingLot()).park()
        return self.job(identifier)

    async def _durable_end(self, identifier: bytes) -> JobView:
        view, error = await self.wait(identifier), self._open.unwritten.get(identifier)
        if error is not None:
            raise ResourceError(
                f"the job has stopped, but begins again if the node is restarted before that is written: {error}"
            )
        return view

    async def cancel(self, identifier: bytes) -> JobView:
        """Stop a job; one that has ended stays as it is.

        Raises:
            NotFoundError: no such job. ResourceError: it is stopped, and the journal cannot be written.
        """
        self.job(identifier)
        if identifier in self._open:
            self._feed(e.CancelAsked(identifier))
        return await self._durable_end(identifier)

    async def output(self, identifier: bytes, buffer: int) -> AsyncIterator[bytes]:
        """Yield what the tasks returned for a buffer, in task order; see ``programs.shards`` for the layout.

        Raises:
            NotFoundError: no such job. ConfigError: it is not done, or the buffer is no output of it.
        """
        if self.job(identifier).state != "done":
            raise ConfigError(f"job {identifier.hex()} is not done: only then it has its outputs")
        async for part in self._records.output(identifier, buffer):
            yield part

    async def parts(self, identifier: bytes, *, in_order: bool) -> AsyncIterator[bytes]:
        """Yield what tasks returned as it is accepted, until the job has ended; see ``JobRecords.parts``.

        Raises:
            NotFoundError: no such job. ConfigError: its results stay with providers.
        """
        self.job(identifier)
        stored = self._context.journal.reader.job(identifier)
        job = self._open[identifier].job if identifier in self._open else None
        if job is None:
            assert stored is not None
            job = self._records.signed(stored.envelope)
        if job.results is not Results.COME:
            raise ConfigError(f"the results of job {identifier.hex()} stay with its providers: wait until it is done")

        async def more() -> bool:
            with trio.move_on_after(PARTS_QUIET_S):
                if identifier in self._open:
                    await self._changed.setdefault(identifier, trio.lowlevel.ParkingLot()).park()
            return identifier in self._open

        async for part in self._records.parts(identifier, job, in_order=in_order, more=more):
            yield part

    async def assemble(self, identifier: bytes, buffer: int) -> bytes:
        """Put an output together as one blob and return its id.

        Raises:
            NotFoundError: no such job. ConfigError: it is not done, or the buffer is no output of it.
            ResourceError: no room.
        """
        if self.job(identifier).state != "done":
            raise ConfigError(f"job {identifier.hex()} is not done: only then it has its outputs")
        return await self._records.assemble(identifier, buffer)

    def _same(self, job: Job, known: StoredJob) -> JobView:
        earlier = self._records.signed(known.envelope)
        if msgspec.structs.replace(job, created_s=earlier.created_s) != earlier:
            raise ConfigError(f"the key {job.key!r} is another job's ({known.id.hex()}): a key names one job")
        return self.job(known.id)

    # Jobs that change hands (bootstrap/handover.py).

    def is_open(self, identifier: bytes) -> bool:
        """Tell whether a job is worked on here."""
        return identifier in self._open

    async def hand_over(self, identifier: bytes, error: JobError) -> None:
        """End a job that a fellow goes on with, and wait until that is durable.

        Raises:
            ResourceError: it is stopped, and the journal cannot be written.
        """
        if identifier in self._open:
            self._feed(e.HandedOver(identifier, error))
            await self._durable_end(identifier)

    async def check(self, copy: StoredCopy) -> None:
        """See that a fellow's job can go on here. Raises ``ConfigError``: its program or an input is not here."""
        await self._records.check(self._records.signed(copy.envelope))

    async def take_over(self, copy: StoredCopy, epoch: int) -> JobView:
        """Go on with a fellow's job, which was checked, where its copy ends, in a later epoch.

        Raises:
            ResourceError: the journal cannot be written.
        """
        context, job = self._context, self._records.signed(copy.envelope)
        await context.journal.write(
            [
                # Its key is its requester's, and may be one of our own jobs' too.
                statements.put_job(copy.job, f"taken over: {copy.job.hex()}", copy.envelope, job.created_s),
                put_epoch(copy.job, epoch, copy.worker, copy.spent_us),
                end_copy(copy.job),
            ]
        )
        await self._resume(StoredJob(copy.job, copy.envelope, "", None))
        return self.job(copy.job)

    # Views.

    def _open_view(self, identifier: bytes) -> JobView | None:
        if identifier not in self._open:
            return None
        view = self._open.view(identifier)
        if view.state in END_STATES:  # decided, but only true when the journal has it: until then it can be lost
            view = msgspec.structs.replace(view, state="running", finished_s=None, error=None)
        return view

    def _view(self, stored: StoredJob) -> JobView:
        view = self._open_view(stored.id) or self._ended.get(stored.id) or stored.view
        return view or queued(stored.id, self._records.signed(stored.envelope))

    def _tell(self, identifier: bytes) -> None:
        lot = self._changed.get(identifier)
        if lot is not None:
            lot.unpark_all()
            if identifier not in self._open:
                del self._changed[identifier]

    # The machine and its effects.

    def _opened(self, identifier: bytes, job: Job, program: Program, done: bytearray) -> e.Submitted:
        """Note a job that is worked on from now; return what the scheduler is to hear of it, as if it was new."""
        self._open.add(identifier, job, program)
        return e.Submitted(
            identifier,
            job,
            done,
            result_sizes(program),
            result_bytes_max(program),
            can_audit=self._audits_here and can_audit(job, program),
            by_peers=peers_run(job.device_classes, is_exact=program.exact, has_tolerances=bool(job.tolerances)),
            parts=self._open[identifier].parts,
            can_walk=can_walk(job, program),
            part_bytes=part_bytes(program, job.inputs),
        )

    def _start(self, event: e.Submitted) -> None:
        self._feed(event)
        if not self._scheduler.knows_candidates():
            self._look_now()
        elif self._rests:
            self._wake.set()

    def _look_now(self) -> None:
        """Have ``run`` look for candidates at once."""
        self._looked_s = float("-inf")
        self._wake.set()

    def _feed(self, event: e.Event) -> None:
        now = self._context.clock()
        effects = self._scheduler.handle(event, now)
        for effect in effects:
            self._does.get(type(effect), self._conversations.tell)(effect, now)
        if effects and self._rests:
            self._wake.set()
        if isinstance(event, e.ResultsStored):
            self._tell(event.job_id)
        elif isinstance(event, e.Candidates):  # who waits for a job hears whether enough are known
            for identifier in list(self._changed):
                self._tell(identifier)

    def _effects(self) -> dict[type, Callable[[Any, Now], None]]:
        """Return what does the things that the scheduler wants, by their type; all others are said to a provider."""
        return {
            e.StoreResult: lambda effect, now: self._open.store(effect),
            e.NoteHolders: lambda effect, now: self._open.note_holders(effect),
            e.Note: lambda effect, now: self._note(effect),
            e.Verified: self._verified,
            e.Audit: lambda effect, now: self._auditor.audit(effect, self._open[effect.job_id]),
            e.Compare: lambda effect, now: self._judge.take(effect),
            e.Check: lambda effect, now: self._judge.take(effect),
            e.NotePanel: lambda effect, now: self._open.note_agreed(effect),
            e.NoteAudit: lambda effect, now: self._open.note_agreed(effect),
            e.Walk: lambda effect, now: self._disputes.walk(effect),
            e.Settle: lambda effect, now: self._settle(effect),
            e.Void: lambda effect, now: self._void(effect),
            e.Ban: self._ban,
            e.JobEnded: lambda effect, now: self._end(effect),
            e.Caught: lambda effect, now: self._conversations.caught(effect),
            e.Cleared: lambda effect, now: self._clear(effect),
            e.Ask: lambda effect, now: self._conversations.ask(effect),
        }

    def _note(self, effect: e.Note) -> None:
        if self._open.note(effect):
            self._tell(effect.job_id)

    def _verified(self, effect: e.Verified, now: Now) -> None:
        self._context.book.verified(
            effect.peer, effect.device_class, effect.answers, by_established=effect.by_established, now=now
        )

    def _settle(self, effect: e.Settle) -> None:
        self._open.settle(effect)
        self._tell(effect.job_id)

    def _void(self, effect: e.Void) -> None:
        self._open.void(effect)
        self._auditor.void(effect)

    def _end(self, effect: e.JobEnded) -> None:
        self._auditor.forget(effect.job_id)
        self._conversations.forget(effect.job_id)
        self._open.end(effect)

    def _ban(self, effect: e.Ban, now: Now) -> None:
        now_s = now.wall_ns // SECOND_NS
        self._conversations.contradicted(effect)
        self._context.book.caught(effect.peer, effect.reason)
        self._context.journal.write_soon(
            [
                statements.put_catch(effect.peer, effect.job_id),
                statements.put_ban(effect.peer, effect.reason, now_s),
            ]
        )

    def _clear(self, effect: e.Cleared) -> None:
        self._context.journal.write_soon(statements.drop_catch(effect.peer, effect.job_id))

    def _missing(self, peer: bytes, device_class: str, now: Now) -> int:
        """Return how many answers of a peer must still be found right before it is established."""
        standing = self._context.book.standing(peer, device_class, now)
        return max(1, ESTABLISHED_ANSWERS - standing.verified) if standing.is_newcomer else 0

    def _work_of(self, identifier: bytes) -> tuple[Job, Terms, e.OutputSizes]:
        return self._open[identifier].job, self._scheduler.terms(identifier), self._scheduler.sizes(identifier)

    def _over(self, identifier: bytes, view: JobView) -> None:
        """A job's end is durable."""
        self._scheduler.forget(identifier)
        self._ended[identifier] = view
        while len(self._ended) > ENDED_KEPT_MAX:
            del self._ended[next(iter(self._ended))]
        self._tell(identifier)

    # Time.

    async def resume(self) -> None:
        """Go on with the jobs that the journal has open."""
        for stored in self._context.journal.reader.open_jobs():
            await self._resume(stored)

    async def run(self) -> None:
        """Look at deadlines and candidates, for ever; seldom while there is no job and no conversation."""
        while True:
            self._wake = trio.Event()
            if trio.current_time() >= self._looked_s + CANDIDATES_S:
                self._looked_s = trio.current_time()
                self._look_for_candidates()
            now = self._context.clock()
            self._conversations.tick(now)
            self._feed(e.Tick())
            self._rests = self._scheduler.needs() is None and not len(self._conversations)
            with trio.move_on_after(RESTING_TICK_S if self._rests else TICK_S):
                await self._wake.wait()

    async def watch_mesh(self) -> None:
        """Look for candidates soon after somebody new is heard of, while a job is open."""
        heard = self._context.mesh.watch()
        async for tell in heard:
            if tell.what in ("discovered", "connected", "joined") and self._scheduler.needs() is not None:
                self._look_now()
                await trio.sleep(NEWS_S)  # what comes meanwhile is seen at the next look

    def _look_for_candidates(self) -> None:
        needs = self._scheduler.needs()
        if needs is None:
            return
        need = Need(*needs)
        mesh = self._context.mesh
        banned = self._context.book.banned
        entries = mesh.candidates(need, CANDIDATES_MAX, self._context.rng, exclude=banned)
        entries.sort(key=partial(self._lets_down, classes=need.device_classes))
        items = tuple(
            e.Candidate(
                entry.key,
                entry.group,
                tuple((device.device_class, device.memory_mib) for device in entry.advert.devices),
                entry.advert.price,
                mesh.is_fellow(entry.key) and not self._context.book.is_listed(entry.key),
            )
            for entry in entries
        )
        self._feed(e.Candidates(items, mesh.directory.why_nobody(need, exclude=banned)))

    def _lets_down(self, entry: Entry, classes: frozenset[str]) -> bool:
        """Tell whether a peer is asked after others, for it was seldom there when it was needed."""
        names = {device.device_class for device in entry.advert.devices} & classes
        return self._context.book.lets_down(entry.key, names, self._context.clock())

    async def _resume(self, stored: StoredJob) -> None:
        """Go on with a job from before a restart: what was accepted stays accepted."""
        context = self._context
        job = self._records.signed(stored.envelope)
        try:
            program = await self._records.check(job)
        except ConfigError as error:
            fault = JobError("resource", f"the job cannot go on: {error}")
            view = msgspec.structs.replace(queued(stored.id, job), state="failed", error=fault)
            await context.journal.write([statements.end_job(stored.id, "failed", view)])
            return
        done = context.journal.reader.done(stored.id, job.tasks)
        lost = list(self._records.without_bytes(stored.id, job.tasks))
        if lost:
            await context.journal.write(statements.drop_results(stored.id, lost))
            for task in lost:
                done[task] = 0
        log.info("a job goes on", job=stored.id.hex(), done=sum(done), tasks=job.tasks, lost=len(lost))
        reader = context.journal.reader
        self._start(
            msgspec.structs.replace(
                self._opened(stored.id, job, program, done),
                kept=tuple(reader.tabs(stored.id)),
                caught=reader.caught(stored.id),
                spent_us=spent_us(reader, stored.id),
                panels=reader.panels(stored.id),
            )
        )

    async def _compute_again(self, identifier: bytes, tasks: list[int]) -> None:
        """Have results computed anew whose holders are gone, and wait for them.

        Raises:
            TransportError: they cannot be had any more.
        """
        gone = "the peers that kept results of this job are gone"
        try:
            if identifier not in self._open:
                await self._reopen(identifier, tasks)
        except ConfigError as error:
            raise TransportError(f"{gone}, and it cannot be run again: {error}; submit it anew") from error
        view = await self.wait(identifier)
        if view.state != "done":
            raise TransportError(f"{gone}, and running it again {view.error.message if view.error else view.state}")

    async def _reopen(self, identifier: bytes, tasks: list[int]) -> None:
        """Go on with a job that was done, for the sake of some results. Raises ``ConfigError`` if it cannot run."""
        context = self._context
        stored = context.journal.reader.job(identifier)
        assert stored is not None
        if (state := self.job(identifier).state) != "done":
            raise ConfigError(f"it is {state}")
        job = self._records.signed(stored.envelope)
        await self._records.check(job)
        log.info("results are computed again", job=identifier.hex(), tasks=len(tasks))
        blobs = blobs_of(job)
        for blob in blobs:
            context.blobs.store.pin(blob)
        self._ended.pop(identifier, None)
        writes = [*statements.drop_results(identifier, tasks), statements.reopen_job(identifier)]
        await context.journal.write([*writes, statements.hold(identifier, blobs)])
        await self._resume(StoredJob(identifier, stored.envelope, "", None))


@asynccontextmanager
async def open_requester(
    context: MarketContext,
    config: SchedulerConfig | None = None,
    audit_pool: OpenPool = open_pool,
    *,
    audits_here: bool = True,
) -> AsyncIterator[Requester]:
    """Have jobs done as long as the block runs; those that are open then go on when the node runs again.

    ``audit_pool`` opens the workers that audits run in; without ``audits_here`` peers run them.
    """
    context.journal.reader.prune()
    for blob in context.journal.reader.held():
        context.blobs.store.pin(blob)
    async with trio.open_nursery() as nursery:
        requester = Requester(context, config or SchedulerConfig(), nursery, audit_pool, audits_here=audits_here)
        nursery.start_soon(requester.watch_mesh)
        await requester.resume()
        nursery.start_soon(requester.run)
        yield requester
        nursery.cancel_scope.cancel()
