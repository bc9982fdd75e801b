"""Audits: this node runs tasks of its own jobs itself, in sandboxed workers like any provider's, and tells their roots.

The flow: ``audit`` queues a task and, if none are there, opens a pool of workers; each lane loads the program of the
job whose turn it is and runs its tasks; the scheduler hears ``Audited`` for each, with no root where this machine
could not run it. Where parts of results are audited, the lane loads the finer program that they are tasks of
(``programs/parts.py``), and what each gives is compared with its place in the stored answer. One that differs accuses
nobody yet: the task is run whole, as its provider ran it, for the blocks of a kernel may fill each other's tiles. Where
the bits are not defined, what is not equal is compared with the stored answer as numbers. The workers go when nothing
was to be audited for a while: a node that lends nothing has no others.
"""

import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import structlog
import trio

from depin_node.bootstrap.judge import compare
from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.open_jobs import OpenJob
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Job
from depin_node.compute.programs.parts import finer, part_of
from depin_node.compute.programs.program import Program, encode_program
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.compute.sandbox.pool import InputSource, Lease, PoolConfig, Result, WorkerConfig
from depin_node.compute.verification.rules import OWN_CLASS, runs_here
from depin_node.core.errors import DepinError
from depin_node.crypto.commitment import result_root

log = structlog.get_logger("depin_node.auditor")
LANES_MAX = 4
IDLE_S = 10.0
Queue = tuple[bytes, bool]
"""A job, and whether parts of its tasks are run: one worker has the program for one of these."""
OpenPool = Callable[[PoolConfig], AbstractAsyncContextManager[AnyPool]]


Stored = Callable[[bytes, int, bytes], Awaitable[list[bytes] | None]]
"""Returns the outputs of an accepted answer, by job, task and root."""


def can_audit(job: Job, program: Program) -> bool:
    """Tell whether this node gets the same bits as any provider of a job, or numbers that can be compared."""
    return runs_here(job.device_classes, is_exact=program.exact, has_tolerances=bool(job.tolerances))


class Auditor:
    """Runs audits; ``feed`` takes what the scheduler is to hear."""

    def __init__(
        self,
        context: MarketContext,
        nursery: trio.Nursery,
        feed: Callable[[e.Event], None],
        open_pool: OpenPool,
        stored: Stored,
    ) -> None:
        self._context = context
        self._stored = stored
        self._open_pool = open_pool
        self._nursery = nursery
        self._feed = feed
        self._queues: dict[Queue, tuple[OpenJob, deque[e.Audit]]] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._is_open = False
        self._wanted: dict[tuple[bytes, int], bytes] = {}  # by job and task, the root of the answer that is audited
        self._waiting: dict[tuple[bytes, int], trio.CancelScope] = {}  # for the bytes of an answer

    def audit(self, audit: e.Audit, opened: OpenJob) -> None:
        """Run a task of an open job, soon."""
        self._wanted[audit.job_id, audit.task] = audit.root
        self._queues.setdefault((audit.job_id, bool(audit.parts)), (opened, deque()))[1].append(audit)
        self._arrived.unpark()  # one lane for each, since each starts a worker
        if not self._is_open:
            self._is_open = True
            self._nursery.start_soon(self._run)

    def forget(self, identifier: bytes) -> None:
        """A job has ended: what is queued of it is of no use."""
        for in_parts in (False, True):
            self._queues.pop((identifier, in_parts), None)
        for job, task in [name for name in self._wanted if name[0] == identifier]:
            del self._wanted[job, task]

    def void(self, effect: e.Void) -> None:
        """Answers are void: nobody waits for what becomes of their audits."""
        for task in effect.tasks:
            self._wanted.pop((effect.job_id, task), None)
            if (waiting := self._waiting.get((effect.job_id, task))) is not None:
                waiting.cancel()

    async def _run(self) -> None:
        lanes = min(LANES_MAX, os.cpu_count() or 1)
        try:
            config = PoolConfig(WorkerConfig(), workers_max=lanes, spare=False)
            async with self._open_pool(config) as pool, trio.open_nursery() as nursery:
                for number in range(lanes):
                    nursery.start_soon(self._lane, pool, number)
        finally:
            self._is_open = False
        if self._queues:  # something came while the pool closed
            self._is_open = True
            self._nursery.start_soon(self._run)

    async def _lane(self, pool: AnyPool, number: int) -> None:
        while True:
            with trio.move_on_after(IDLE_S) as scope:
                while not self._queues:
                    await self._arrived.park()
            if scope.cancelled_caught:
                return
            await self._run_queue(pool, number, next(iter(self._queues)))

    async def _run_queue(self, pool: AnyPool, number: int, queue: Queue) -> None:
        """Run what is queued of a job with one worker, until nothing is."""
        opened, _ = self._queues[queue]
        audit = self._next(queue)
        if audit is None:
            return
        try:
            lease = await pool.acquire(f"audit {number}")
            try:
                await self._load(lease, opened, in_parts=queue[1])
                results = lease.results()
                while audit is not None:
                    run = self._run_parts if audit.parts else self._run_whole
                    heard = await run(lease, results, audit, opened)
                    if heard is not None:
                        self._tell(heard)
                    elif self._is_wanted(audit):
                        self.audit(msgspec.structs.replace(audit, parts=()), opened)
                    audit = self._next(queue)
            finally:
                await lease.aclose()
        except (StopAsyncIteration, DepinError) as error:
            log.warning("a job cannot be audited here", job=queue[0].hex(), reason=str(error))
            while audit is not None:
                self._feed(e.Audited(audit.job_id, audit.task, audit.root, b""))
                audit = self._next(queue)

    def _tell(self, heard: e.Audited) -> None:
        if self._wanted.get((heard.job_id, heard.task)) == heard.answer:
            del self._wanted[heard.job_id, heard.task]
        self._feed(heard)

    async def _run_whole(
        self, lease: Lease, results: AsyncIterator[Result], audit: e.Audit, opened: OpenJob
    ) -> e.Audited:
        result = await self._result_of(lease, results, audit, audit.task)
        if result is None:
            return e.Audited(audit.job_id, audit.task, audit.root, b"")
        heard = await self._judged(audit, opened, result)
        lease.release(result.attempt)
        return heard

    async def _run_parts(
        self, lease: Lease, results: AsyncIterator[Result], audit: e.Audit, opened: OpenJob
    ) -> e.Audited | None:
        """Run parts of a task; None: one is not what is in the answer, and the whole has to tell."""
        stored = await self._bytes_of(audit)
        if stored is None:
            return e.Audited(audit.job_id, audit.task, audit.root, b"")
        for part in audit.parts:
            result = await self._result_of(lease, results, audit, audit.task * opened.parts + part)
            if result is None:
                return None
            ours = [bytes(output.data) for output in result.outputs]
            lease.release(result.attempt)
            if ours != part_of(opened.program, audit.task, opened.parts, part, stored):
                return None
        return e.Audited(audit.job_id, audit.task, audit.root, audit.root)

    async def _result_of(
        self, lease: Lease, results: AsyncIterator[Result], audit: e.Audit, number: int
    ) -> Result | None:
        """Run one task of what the lease has loaded; None if it gave no result."""
        await lease.submit([(number.to_bytes(16, "little"), number)])
        result = await anext(results)
        if result.error is None:
            return result
        log.warning("an audit failed", job=audit.job_id.hex(), task=audit.task, reason=str(result.error))
        return None

    async def _bytes_of(self, audit: e.Audit) -> list[bytes] | None:
        """Wait for the bytes of an answer; None if it is void, or its job over."""
        if not self._is_wanted(audit):
            return None
        stored = None
        with trio.CancelScope() as self._waiting[audit.job_id, audit.task]:
            stored = await self._stored(audit.job_id, audit.task, audit.root)
        del self._waiting[audit.job_id, audit.task]
        return stored

    async def _judged(self, audit: e.Audit, opened: OpenJob, result: Result) -> e.Audited:
        """Tell what our own result of a task says of the answer."""
        root = result_root(output.blob_id for output in result.outputs)
        bits = opened.program.exact and audit.device_class == OWN_CLASS
        if root == audit.root or bits or not opened.job.tolerances:
            return e.Audited(audit.job_id, audit.task, audit.root, root)
        stored = await self._bytes_of(audit)
        if stored is None:
            return e.Audited(audit.job_id, audit.task, audit.root, b"")
        ours = [bytes(output.data) for output in result.outputs]
        theirs, here = frozenset([audit.device_class]), frozenset([""])  # another's class, whichever ours is
        shown = e.Shown(audit.root, theirs, stored), e.Shown(root, here, ours)
        found = await trio.to_thread.run_sync(compare, opened.program, opened.job, shown)
        pair = (audit.root, root)
        ours_or_as_good = audit.root if pair in found.close else root
        return e.Audited(audit.job_id, audit.task, audit.root, ours_or_as_good, pair in found.far)

    def _next(self, queue: Queue) -> e.Audit | None:
        while (queued := self._queues.get(queue)) is not None:
            audit = queued[1].popleft()
            if not queued[1]:
                del self._queues[queue]
            if self._is_wanted(audit):
                return audit
        return None

    def _is_wanted(self, audit: e.Audit) -> bool:
        return self._wanted.get((audit.job_id, audit.task)) == audit.root

    async def _load(self, lease: Lease, opened: OpenJob, *, in_parts: bool) -> None:
        store, job = self._context.blobs.store, opened.job
        inputs: dict[int, InputSource] = {item.buffer: Path(store.path(item.blob)) for item in job.inputs}
        await lease.load(
            encode_program(finer(opened.program, opened.parts)) if in_parts else await store.read(job.program),
            inputs,
            seconds=job.limits.seconds,
            memory_limit_bytes=job.limits.memory_mib << 20,
        )
