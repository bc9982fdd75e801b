"""The requester's shell: feeds the scheduler and one machine for each provider, and carries out their
effects.

The flow: ``submit`` checks a job, signs it, hands it to the scheduler and returns when the journal has it.
The scheduler's ``Ask`` starts a conversation in a task of its own; what is heard there goes back to the
scheduler, whose effects go to the conversations, the journal and whoever watches. All of that happens in one
thread without waiting: only frames, files and the journal are waited for, each in its own task. Jobs that the
journal has open are resumed.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog
import trio

from depin_node.bootstrap.job_records import JobRecords, blobs_of, queued
from depin_node.bootstrap.market import TICK_S, Conversation, MarketContext, open_conversation_stream
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs import journal as statements
from depin_node.compute.jobs.job import (
    Job,
    JobError,
    JobView,
    SignedJob,
    job_id,
)
from depin_node.compute.jobs.journal import StoredJob, StoredOutput
from depin_node.compute.jobs.patience import ORDERLY
from depin_node.compute.jobs.recruiting import DURATION_S
from depin_node.compute.jobs.scheduler import Scheduler, SchedulerConfig
from depin_node.compute.market import happenings as market
from depin_node.compute.market.messages import LOG_BYTES_MAX, TASK_FAULTS, WorkBody
from depin_node.compute.market.requester import ProvenLie, RequesterTalk
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import result_bytes_max, result_sizes
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, NotFoundError, PeerViolation, ResourceError, TransportError
from depin_node.core.text import printable
from depin_node.core.views import LogsView, TaskLog
from depin_node.crypto.envelope import NOBODY, sign
from depin_node.crypto.identity import peer_id
from depin_node.p2p.blobs import issue_grant
from depin_node.p2p.directory import Need
from depin_node.p2p.frames import Frame

log = structlog.get_logger("depin_node.requester")

INLINE_BYTES_MAX = 64 * 1024
"""Results of a task up to this size live in the journal, larger ones in the blob store."""
CONNECT_TIMEOUT_S = 20.0
CANDIDATES_MAX = 128
CANDIDATES_S = 1.0
NEWS_S = 0.1
GRANT_S = 2 * DURATION_S
"""Grants are used again for the next job under the same agreement, and so outlive it."""
GRANTS_KEPT_MAX = 64
ENDED_KEPT_MAX = 256
EVIDENCE_KEPT_MAX = 4096
VIEW_INTERVAL_S = 0.1
"""A watcher of a running job is told at most so often; of its end at once."""
_TO_STORE = (market.StoreAgreement, market.StoreReceipt, market.StoreCountersign)
_END_STATES = frozenset({"done", "failed", "cancelled"})


@dataclass
class _OpenJob:
    """What the shell keeps of a job that has not ended."""

    job: Job
    program: Program
    storing: int = 0
    ended: e.JobEnded | None = None
    lines: int = 0
    fault: JobError | None = None


@dataclass(eq=False)
class _Partner:
    """One conversation."""

    talk: RequesterTalk
    clock: Callable[[], Now]
    conversation: Conversation | None = None
    receipts_open: int = 0
    grants: dict[tuple[bytes, ...], bytes] = field(default_factory=dict)

    def wake(self) -> None:
        if self.conversation is not None:
            self.conversation.wake()

    def award_stored(self, error: ResourceError | None) -> None:
        """Send the award; without the journal there is none, and the provider is let go in time."""
        if error is None:
            self.talk.stored(self.clock())
            self.wake()

    def receipt_stored(self, receipt: market.StoreReceipt, error: ResourceError | None) -> None:
        """Send a receipt that is stored."""
        if error is None:
            self.talk.send_receipt(receipt)
            self.wake()
        else:
            self.receipts_open -= 1


class Requester:
    """A node's jobs; ``open_requester`` makes it."""

    def __init__(self, context: MarketContext, config: SchedulerConfig, nursery: trio.Nursery) -> None:
        self._context = context
        self._config = config
        self._nursery = nursery
        self._scheduler = Scheduler(config, context.rng, context.secret(), context.book.banned)
        self._open: dict[bytes, _OpenJob] = {}
        self._ended: dict[bytes, JobView] = {}
        self._partners: dict[bytes, _Partner] = {}
        self._changed: dict[bytes, trio.lowlevel.ParkingLot] = {}
        self._records = JobRecords(context)
        self._evidence: dict[tuple[bytes, int], market.Evidence] = {}
        self._candidates_wanted = trio.Event()

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
        program = await self._records.check(job)
        identifier = job_id(context.identity.key, job)
        if identifier in self._open:
            return self.job(identifier)  # its key is being written
        expires_s = now.wall_ns // SECOND_NS + SignedJob.LIFETIME_S_MAX
        signed = SignedJob(NOBODY, expires_s, context.pen.next_seq(), job)
        envelope = sign(context.identity, context.network.network_id, signed)
        blobs = blobs_of(job)
        for blob in blobs:
            context.blobs.store.pin(blob)
        # The scheduler may begin while the disk confirms: what it writes comes after this in the journal.
        written, failure = trio.Event(), list[ResourceError | None]()

        def note(error: ResourceError | None) -> None:
            failure.append(error)
            written.set()

        context.journal.write_soon(
            [
                statements.put_job(identifier, job.key, envelope, job.created_s),
                statements.hold(identifier, blobs),
            ],
            note,
        )
        self._start(identifier, job, program, bytearray(job.tasks))
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
        while self.job(identifier) == seen and seen.state not in _END_STATES:
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

    async def cancel(self, identifier: bytes) -> JobView:
        """Stop a job; one that has ended stays as it is. Raises ``NotFoundError``."""
        self.job(identifier)
        if identifier in self._open:
            self._feed(e.CancelAsked(identifier))
        return await self.wait(identifier)

    async def output(self, identifier: bytes, buffer: int) -> AsyncIterator[bytes]:
        """Yield what the tasks returned for a buffer, in task order; see ``programs.shards`` for the layout.

        Raises:
            NotFoundError: no such job. ConfigError: it is not done, or the buffer is no output of it.
        """
        if self.job(identifier).state != "done":
            raise ConfigError(f"job {identifier.hex()} is not done: only then it has its outputs")
        async for part in self._records.output(identifier, buffer):
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

    # Views.

    def _open_view(self, identifier: bytes) -> JobView | None:
        if identifier not in self._open:
            return None
        view = self._scheduler.view(identifier) or queued(identifier, self._open[identifier].job)
        if view.state in _END_STATES:  # decided, but only true when the journal has it: until then it can be lost
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

    def _start(self, identifier: bytes, job: Job, program: Program, done: bytearray) -> None:
        sizes = result_sizes(program)
        self._open[identifier] = _OpenJob(job, program)
        self._feed(e.Submitted(identifier, job, done, sizes, result_bytes_max(program)))
        if not self._scheduler.knows_candidates():
            self._candidates_wanted.set()

    def _feed(self, event: e.Event) -> None:
        now = self._context.clock()
        for effect in self._scheduler.handle(event, now):
            self._carry_out(effect, now)
        if isinstance(event, e.ResultsStored):
            self._tell(event.job_id)

    def _carry_out(self, effect: e.Effect, now: Now) -> None:
        """Do one thing that the scheduler wants."""
        if isinstance(effect, e.StoreResult):
            self._store_result(effect)
        elif isinstance(effect, e.Note):
            self._note(effect)
        elif isinstance(effect, e.JobEnded):
            self._job_ended(effect)
        elif isinstance(effect, e.Caught):
            self._caught(effect)
        elif isinstance(effect, e.Ask):
            self._partners[effect.peer] = _Partner(RequesterTalk(self._context.pen, effect.peer), self._context.clock)
            self._nursery.start_soon(self._converse, effect)
        elif (partner := self._partners.get(effect.peer)) is not None:
            self._tell_partner(partner, effect, now)
            partner.wake()

    def _tell_partner(self, partner: _Partner, effect: e.TalkEffect, now: Now) -> None:
        """Hand an effect to a conversation's machine; those that come for every task are looked for first."""
        talk = partner.talk
        if isinstance(effect, e.AskReveal):
            talk.ask(effect.attempt, effect.set_digest, effect.want, now)
        elif isinstance(effect, e.ReleaseAttempt):
            self._take(partner, talk.release(effect.attempt, effect.verdict, now))
        elif isinstance(effect, e.Assign):
            talk.assign(effect.work, effect.first_attempt, effect.tasks, now)
        elif isinstance(effect, e.AskUpload):
            talk.ask_upload(effect.attempt, now)
        elif isinstance(effect, e.OpenWork):
            self._open_work(partner, effect)
        elif isinstance(effect, e.CloseWork):
            self._take(partner, talk.close_work(effect.work, effect.verified_by, now))
        else:
            talk.end(effect.code)
            self._part(partner)

    def _open_work(self, partner: _Partner, effect: e.OpenWork) -> None:
        context, opened = self._context, self._open[effect.job_id]
        job, now = opened.job, context.clock()
        progress_terms = self._scheduler.terms(effect.job_id)
        body = WorkBody(effect.job_id, job.program, job.program_bytes, job.inputs, job.tasks, progress_terms)
        roots = tuple(blobs_of(job))
        grant = partner.grants.get(roots)
        if grant is None:
            grant = issue_grant(
                context.identity,
                context.network.network_id,
                effect.peer,
                roots,
                seq=context.pen.next_seq(),
                now=now,
                lifetime_s=GRANT_S,
            )
            if len(partner.grants) >= GRANTS_KEPT_MAX:
                partner.grants.clear()
            partner.grants[roots] = grant
        partner.talk.open_work(effect.work, body, grant, self._scheduler.sizes(effect.job_id), now)

    def _note(self, note: e.Note) -> None:
        opened = self._open.get(note.job_id)
        if opened is not None and opened.lines < statements.EVENTS_KEPT_MAX:
            opened.lines += 1
            self._context.journal.write_lazily([statements.put_event(note.job_id, note.event)])
            self._tell(note.job_id)

    def _caught(self, effect: e.Caught) -> None:
        partner = self._partners.get(effect.peer)
        evidence = partner.talk.evidence(effect.attempt) if partner is not None else None
        evidence = evidence or self._evidence.get((effect.peer, effect.attempt))
        if evidence is not None:
            self._ban(effect.peer, effect.job_id, effect.task, "its answer lost against a quorum", evidence)

    def _keep_evidence(self, talk: RequesterTalk) -> None:
        """A conversation is over, but what was shown in it still counts in ballots."""
        for attempt in talk.shown():
            evidence = talk.evidence(attempt)
            if evidence is not None:
                self._evidence[(talk.peer, attempt)] = evidence
        while len(self._evidence) > EVIDENCE_KEPT_MAX:
            del self._evidence[next(iter(self._evidence))]

    def _ban(self, peer: bytes, job: bytes, task: int, reason: str, evidence: market.Evidence) -> None:
        now_s = self._context.clock().wall_ns // SECOND_NS
        writes = [statements.put_evidence(peer, job, task, reason, evidence, now_s)]
        if self._context.book.caught(peer, reason):
            writes.append(statements.put_ban(peer, reason, now_s))
        self._context.journal.write_soon(writes)

    # Results.

    def _store_result(self, effect: e.StoreResult) -> None:
        opened = self._open[effect.job_id]
        opened.storing += 1
        if sum(len(output) for output in effect.outputs) > INLINE_BYTES_MAX:
            self._nursery.start_soon(self._store_large, effect)
            return
        outputs = [StoredOutput(bytes(output), None) for output in effect.outputs]
        self._journal_result(effect, outputs, ())

    async def _store_large(self, effect: e.StoreResult) -> None:
        store = self._context.blobs.store
        blobs = []
        try:
            for output in effect.outputs:
                blob = await store.put(output)
                store.pin(blob)
                blobs.append(blob)
        except ResourceError as error:
            self._stored(effect.job_id, error)
            return
        self._journal_result(effect, [StoredOutput(b"", blob) for blob in blobs], blobs)

    def _journal_result(self, effect: e.StoreResult, outputs: list[StoredOutput], blobs: Iterable[bytes]) -> None:
        writes = [statements.put_result(effect.job_id, effect.task, effect.root, outputs)]
        if effect.log:
            writes.append(statements.put_log(effect.job_id, effect.task, effect.log))
        if blobs:
            writes.append(statements.hold(effect.job_id, blobs))
        self._context.journal.write_soon(writes, lambda error: self._stored(effect.job_id, error))

    def _stored(self, identifier: bytes, error: ResourceError | None) -> None:
        opened = self._open[identifier]
        opened.storing -= 1
        if error is None:
            self._feed(e.ResultsStored(identifier, 1))
        elif opened.fault is None:
            log.error("a result cannot be stored", job=identifier.hex(), reason=str(error))
            opened.fault = JobError(error.code, str(error))
            self._feed(e.StoringFailed(identifier, opened.fault))
        self._end_if_stored(identifier)

    def _job_ended(self, effect: e.JobEnded) -> None:
        self._open[effect.job_id].ended = effect
        self._end_if_stored(effect.job_id, soon=True)

    def _end_if_stored(self, identifier: bytes, *, soon: bool = False) -> None:
        """Write a job's end behind its last result.

        Small results are queued in the journal already when the end is decided (``soon``): both then share a
        transaction. Large ones are files first, so the end waits for them.
        """
        opened = self._open[identifier]
        if opened.ended is None or opened.storing:
            return
        ended, opened.ended = opened.ended, None
        self._write_end(identifier, opened, ended)

    def _write_end(self, identifier: bytes, opened: _OpenJob, ended: e.JobEnded) -> None:
        view = self._scheduler.view(identifier) or queued(identifier, opened.job)
        if view.state != ended.state:  # it never got its turn
            view = msgspec.structs.replace(view, state=ended.state)
        if opened.fault is not None:
            view = msgspec.structs.replace(view, state="failed", error=opened.fault)
        inputs = [item.blob for item in opened.job.inputs]

        def note(error: ResourceError | None) -> None:
            if error is not None:
                log.error("the end of a job cannot be stored", job=identifier.hex(), reason=str(error))
            for blob in inputs:
                self._context.blobs.store.unpin(blob)
            self._scheduler.forget(identifier)
            del self._open[identifier]
            self._ended[identifier] = view
            while len(self._ended) > ENDED_KEPT_MAX:
                del self._ended[next(iter(self._ended))]
            self._tell(identifier)

        writes = [statements.end_job(identifier, view.state, view), statements.let_go(identifier, inputs)]
        self._context.journal.write_soon(writes, note)

    # Conversations.

    async def _converse(self, ask: e.Ask) -> None:
        """Talk to one provider until either side ends it; whatever goes wrong stays here."""
        partner = self._partners[ask.peer]
        code = "unreachable"
        try:
            with self._context.mesh.in_use(ask.peer):
                stream = await open_conversation_stream(self._context, ask.peer, CONNECT_TIMEOUT_S)
                code = "lost"
                clock = self._context.clock
                partner.conversation = Conversation(stream, partner.talk, clock)
                partner.talk.propose(ask.terms, ask.price_max, ask.duration_s, clock())
                await partner.conversation.run(
                    lambda frame: self._receive(partner, frame), lambda: not partner.receipts_open
                )
        except TransportError as error:
            log.info("a provider was lost", peer=peer_id(ask.peer), reason=str(error))
        except PeerViolation as error:
            code = error.code
            self._context.mesh.report(ask.peer, error)
            if isinstance(error, ProvenLie):
                self._ban(ask.peer, b"", error.evidence.task, str(error), error.evidence)
        except Exception:  # the per-peer border: a fault met with one peer costs that conversation, and is logged
            code = "fault"
            log.exception("a conversation failed", peer=peer_id(ask.peer))
        finally:
            self._keep_evidence(partner.talk)
            if self._partners.get(ask.peer) is partner:
                self._let_down(partner, code)
                self._feed(e.Gone(ask.peer, code))
                self._partners.pop(ask.peer, None)

    def _receive(self, partner: _Partner, frame: Frame) -> None:
        self._take(partner, partner.talk.receive(frame.kind, frame.body, self._context.clock()))

    def _take(self, partner: _Partner, happened: list[market.Event]) -> None:
        """Do what a conversation's machine asks for, and tell the scheduler the rest."""
        peer, journal = partner.talk.peer, self._context.journal
        for event in happened:
            if self._partners.get(peer) is partner and not isinstance(event, _TO_STORE):
                self._feed(e.Heard(peer, event))
                if isinstance(event, market.Failed):
                    for _, code in event.items:
                        if code not in TASK_FAULTS:
                            self._let_down(partner, code.value)
                elif isinstance(event, market.Ended | market.Declined):
                    if isinstance(event, market.Ended) and event.code not in ORDERLY:
                        self._let_down(partner, event.code)
                    self._part(partner)
                continue
            now_s = self._context.clock().wall_ns // SECOND_NS
            if isinstance(event, market.StoreAgreement):
                writes = [
                    statements.put_agreement(event.agreement, "requester", peer, event.bid, event.award, now_s),
                    statements.put_floor(peer, "market", event.seq),
                ]
                journal.write_soon(writes, partner.award_stored)
            elif isinstance(event, market.StoreReceipt):
                partner.receipts_open += 1
                write = statements.put_receipt(event.receipt, "requester", peer, event.job, event.envelope, None, now_s)
                journal.write_lazily([write], partial(partner.receipt_stored, event))
            elif isinstance(event, market.StoreCountersign):
                partner.receipts_open -= 1
                journal.write_lazily([statements.put_countersign(event.receipt, event.envelope)])

    def _let_down(self, partner: _Partner, code: str) -> None:
        """Note that a provider was not there when it was needed."""
        self._context.book.let_down(partner.talk.peer, partner.talk.device_class, code, self._context.clock())

    def _part(self, partner: _Partner) -> None:
        """The conversation is over, and the scheduler knows."""
        self._keep_evidence(partner.talk)
        if self._partners.get(partner.talk.peer) is partner:
            del self._partners[partner.talk.peer]
        if partner.conversation is not None:
            partner.conversation.wake()
            partner.conversation.stop()

    # Time.

    async def resume(self) -> None:
        """Go on with the jobs that the journal has open."""
        for stored in self._context.journal.reader.open_jobs():
            await self._resume(stored)

    async def run(self) -> None:
        """Look at deadlines and candidates, for ever."""
        looked = float("-inf")
        while True:
            self._candidates_wanted = trio.Event()
            if trio.current_time() >= looked + CANDIDATES_S:
                looked = trio.current_time()
                self._look_for_candidates()
            now = self._context.clock()
            for partner in list(self._partners.values()):
                self._take(partner, partner.talk.tick(now))
            self._feed(e.Tick())
            with trio.move_on_after(TICK_S):
                await self._candidates_wanted.wait()
                looked = float("-inf")

    async def watch_mesh(self) -> None:
        """Look for candidates soon after somebody new is heard of, while a job is open."""
        heard = self._context.mesh.watch()
        async for tell in heard:
            if tell.what in ("discovered", "connected", "joined") and self._scheduler.needs() is not None:
                self._candidates_wanted.set()
                await trio.sleep(NEWS_S)  # what comes meanwhile is seen at the next look

    def _look_for_candidates(self) -> None:
        needs = self._scheduler.needs()
        if needs is None:
            return
        need = Need(*needs)
        mesh = self._context.mesh
        banned = self._context.book.banned
        entries = mesh.candidates(need, CANDIDATES_MAX, self._context.rng, exclude=banned)
        items = tuple(
            e.Candidate(
                entry.key,
                entry.group,
                tuple(device.device_class for device in entry.advert.devices),
                max(device.memory_mib for device in entry.advert.devices),
                entry.advert.price,
            )
            for entry in entries
        )
        self._feed(e.Candidates(items, mesh.directory.why_nobody(need, exclude=banned)))

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
            await context.journal.write([statements.drop_result(stored.id, task) for task in lost])
            for task in lost:
                done[task] = 0
        log.info("a job goes on", job=stored.id.hex(), done=sum(done), tasks=job.tasks, lost=len(lost))
        self._start(stored.id, job, program, done)


@asynccontextmanager
async def open_requester(context: MarketContext, config: SchedulerConfig | None = None) -> AsyncIterator[Requester]:
    """Have jobs done as long as the block runs; those that are open then go on when the node runs again."""
    store = context.blobs.store
    for blob in context.journal.reader.prune():
        store.delete(blob)
    for blob in context.journal.reader.held():
        store.pin(blob)
    async with trio.open_nursery() as nursery:
        requester = Requester(context, config or SchedulerConfig(), nursery)
        nursery.start_soon(requester.watch_mesh)
        await requester.resume()
        nursery.start_soon(requester.run)
        yield requester
        nursery.cancel_scope.cancel()
