"""Audits: this node runs tasks of its own jobs itself, in sandboxed workers like any provider's, and tells their roots.

The flow: ``audit`` queues a task and, if none are there, opens a pool of workers; each lane loads the program of the
job whose turn it is and runs its tasks; the scheduler hears ``Audited`` for each, with no root where this machine
could not run it. The workers go when nothing was to be audited for a while: a node that lends nothing has no others.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Job
from depin_node.compute.programs.program import Program
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.compute.sandbox.pool import InputSource, Lease, PoolConfig, WorkerConfig
from depin_node.core.errors import DepinError
from depin_node.crypto.commitment import result_root

log = structlog.get_logger("depin_node.auditor")
LANES_MAX = 4
IDLE_S = 10.0
DEVICE_CLASS = "wasm-1"
"""What a processor's worker runs."""
OpenPool = Callable[[PoolConfig], AbstractAsyncContextManager[AnyPool]]


def can_audit(job: Job, program: Program) -> bool:
    """Tell whether this node gets the same bits as any provider of a job."""
    return job.device_classes == (DEVICE_CLASS,) and program.exact


class Auditor:
    """Runs audits; ``feed`` takes what the scheduler is to hear."""

    def __init__(
        self, context: MarketContext, nursery: trio.Nursery, feed: Callable[[e.Event], None], open_pool: OpenPool
    ) -> None:
        self._context = context
        self._open_pool = open_pool
        self._nursery = nursery
        self._feed = feed
        self._queues: dict[bytes, tuple[Job, deque[int]]] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._is_open = False

    def audit(self, identifier: bytes, job: Job, task: int) -> None:
        """Run a task of an open job, soon."""
        self._queues.setdefault(identifier, (job, deque()))[1].append(task)
        self._arrived.unpark_all()
        if not self._is_open:
            self._is_open = True
            self._nursery.start_soon(self._run)

    def forget(self, identifier: bytes) -> None:
        """A job has ended: what is queued of it is of no use."""
        self._queues.pop(identifier, None)

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
            identifier = next(iter(self._queues))
            await self._run_job(pool, number, identifier)

    async def _run_job(self, pool: AnyPool, number: int, identifier: bytes) -> None:
        """Run what is queued of a job with one worker, until nothing is."""
        job, _ = self._queues[identifier]
        lease = await pool.acquire(f"audit {number}")
        task: int | None = None
        try:
            await self._load(lease, job)
            results = lease.results()
            while (task := self._next(identifier)) is not None:
                await lease.submit([(task.to_bytes(16, "little"), task)])
                result = await anext(results)
                root = b""
                if result.error is None:
                    root = result_root(output.blob_id for output in result.outputs)
                    lease.release(result.attempt)
                else:
                    log.warning("an audit failed", job=identifier.hex(), task=task, reason=str(result.error))
                self._feed(e.Audited(identifier, task, root))
        except (StopAsyncIteration, DepinError) as error:
            log.warning("a job cannot be audited here", job=identifier.hex(), reason=str(error))
            while task is not None or (task := self._next(identifier)) is not None:
                self._feed(e.Audited(identifier, task, b""))
                task = None
        finally:
            await lease.aclose()

    def _next(self, identifier: bytes) -> int | None:
        queue = self._queues.get(identifier)
        if queue is None:
            return None
        task = queue[1].popleft()
        if not queue[1]:
            del self._queues[identifier]
        return task

    async def _load(self, lease: Lease, job: Job) -> None:
        store = self._context.blobs.store
        inputs: dict[int, InputSource] = {item.buffer: Path(store.path(item.blob)) for item in job.inputs}
        await lease.load(
            await store.read(job.program),
            inputs,
            seconds=job.limits.seconds,
            memory_limit_bytes=job.limits.memory_mib << 20,
        )
