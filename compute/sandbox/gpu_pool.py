"""The workers of one GPU: the shell around ``custody``, with the face of a ``SandboxPool``.

It starts and kills the processes that the machine asks for, tells it what becomes of them, asks the driver for the
device's health and for who holds a context, and hands workers to the one lease that has the device. A worker counts as
ready when it has said its device class, which for a GPU means: its context is open and the known answers were run. In a
worker that is spawned for a test that is all there is to do.
"""

import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import structlog
import trio

from depin_node.compute.devices.gpu import nvidia
from depin_node.compute.devices.gpu.cuda_access import ENVIRONMENT, VISIBLE
from depin_node.compute.devices.gpu.nvidia import Gpu, Health
from depin_node.compute.sandbox import custody_events as e
from depin_node.compute.sandbox.config import PoolConfig, WorkerConfig
from depin_node.compute.sandbox.custody import Custody, State
from depin_node.compute.sandbox.lease import Lease
from depin_node.compute.sandbox.messages import Layer, task_error
from depin_node.compute.sandbox.pool import SandboxPool
from depin_node.compute.sandbox.process import WorkerProcess
from depin_node.core.background import background
from depin_node.core.clock import Now, now
from depin_node.core.errors import PeerViolation, ResourceError

log = structlog.get_logger("depin_node.sandbox")
Answer = TypeVar("Answer")
TICK_S: Final = 0.1
HEALTH_S: Final = 5.0
PROBE_S: Final = 5.0
"""How long the driver may take to answer; it is asked in a thread that is left behind if it hangs."""
OVERHEAD_BYTES: Final = 4 << 30
"""What CUDA's libraries and a context may have resident on the host, mapped pages of the driver included."""
START_UP: Final = "start-up"
"""The lease under which a pool learns its device's class."""


class Probe(Protocol):
    """What is asked of the driver; both may block."""

    def health(self) -> Health:
        """Return how the device is."""
        ...

    def context_holders(self) -> frozenset[int] | None:
        """Return the processes with a context on the device; None: no answer."""
        ...


class DriverProbe:
    """Asks NVIDIA's driver."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def health(self) -> Health:
        """See ``Probe``."""
        return nvidia.health(self._gpu)

    def context_holders(self) -> frozenset[int] | None:
        """See ``Probe``."""
        return nvidia.context_holders(self._gpu)


def gpu_config(gpu: Gpu) -> PoolConfig:
    """Return how the workers of a GPU are started: each sees this one, and shares no cache with anybody."""
    worker = WorkerConfig("depin_node.compute.devices.gpu.cupy:CupyDevice", (), ((VISIBLE, gpu.uuid), *ENVIRONMENT))
    return PoolConfig(worker, workers_max=1, spare=False, overhead_bytes=OVERHEAD_BYTES)


class GpuWorker(WorkerProcess):
    """A worker process that tells the pool what its lease sees."""

    def __init__(
        self, config: WorkerConfig, began: Callable[[int, float], object], ended: Callable[[int], object]
    ) -> None:
        super().__init__(config)
        self._began, self._ended = began, ended
        self._attempt = 0

    def saw(self, progress: tuple[int, int], seconds: float) -> None:
        """See ``WorkerProcess``. Attempts that came and went between two looks are not told, but for the last one."""
        started, finished = progress
        if finished >= self._attempt > 0:
            self._ended(self._attempt)
            self._attempt = 0
        if started > finished and started != self._attempt:
            self._attempt = started
            self._began(started, seconds)


class GpuPool:
    """See the module; made by ``open_gpu_pool``."""

    def __init__(
        self, config: PoolConfig, probe: Probe, nursery: trio.Nursery, limits: e.CustodyLimits, clock: Callable[[], Now]
    ) -> None:
        self.config, self.custody = config, Custody(limits)
        self.maps_inputs = False  # they go to the device whole, before tasks
        self._probe, self._nursery, self._clock = probe, nursery, clock
        self._changed = trio.lowlevel.ParkingLot()
        self._worker: GpuWorker | None = None
        self._offered: GpuWorker | None = None  # ready, and not taken by its lease yet
        self._before: frozenset[int] = frozenset()  # who had a context before the present worker
        self._alarms_ns: list[int] = []
        self._device_class = ""
        self._layers: tuple[Layer, ...] = ()

    # The face of a pool

    async def acquire(self, name: str) -> Lease:
        """Wait until the device is free and return a lease of it; ``name`` is for the log.

        Raises:
            ResourceError: the device was withdrawn.
        """
        await self._take(name)
        lease = Lease(self.config, self.take_worker, name)
        self._nursery.start_soon(self._drive, lease, name)
        return lease

    async def take_worker(self) -> WorkerProcess:
        """Return the next worker of the lease that has the device.

        Raises:
            ResourceError: the device was withdrawn.
        """
        while self._offered is None:
            self._require_device()
            await self._changed.park()
        worker, self._offered = self._offered, None
        return worker

    async def device_class(self) -> str:
        """Return the class that the device's known answers earned when it was first used.

        Raises:
            ResourceError: the device was withdrawn, or never came to an answer.
        """
        if not self._device_class:
            await self._take(START_UP)
            try:
                await self.take_worker()
            finally:
                self._tell(e.Returned(START_UP))
        return self._device_class

    @asynccontextmanager
    async def beside(self) -> "AsyncIterator[GpuPool]":
        """Refuse: a GPU has one agreement at a time."""
        raise ResourceError("a GPU does nothing beside its agreement")
        yield self

    def withdrawn(self) -> str:
        """Return why the device is lent no more, or nothing."""
        return self.custody.reason if self.custody.state is State.WITHDRAWN else ""

    def layers(self) -> tuple[Layer, ...]:
        """Return what confines the workers and what does not, as the first of them told; before it, nothing."""
        return self._layers

    async def _take(self, name: str) -> None:
        while True:
            if any(effect == e.Grant(name) for effect in self._tell(e.Wanted(name))):
                return
            self._require_device()
            await self._changed.park()

    def _require_device(self) -> None:
        if self.custody.state is State.WITHDRAWN:
            raise ResourceError(f"the GPU was withdrawn: {self.custody.reason}")

    async def _drive(self, lease: Lease, name: str) -> None:
        try:
            await lease.drive()
        finally:
            self._note_death()
            self._tell(e.Returned(name))

    # The machine's effects

    def _tell(self, event: e.Event) -> list[e.Effect]:
        effects = self.custody.handle(event, self._clock())
        for effect in effects:
            match effect:
                case e.Spawn():
                    self._nursery.start_soon(self._spawn, effect.test)
                case e.Kill():
                    if self._worker is not None:
                        self._worker.kill()
                case e.Fail():
                    if self._worker is not None:
                        self._worker.verdict = task_error(effect.code, effect.reason)
                case e.Look():
                    self._nursery.start_soon(self._look)
                case e.WakeAt():
                    heapq.heappush(self._alarms_ns, effect.boottime_ns)
                case e.Withdraw():
                    log.error("a GPU is lent no more until the node starts again", reason=effect.reason)
                case e.Revoke():
                    log.warning("an agreement loses its GPU", lease=effect.lease, reason=effect.reason)
                case e.Grant() | e.Refuse() | e.Available():
                    pass
        self._changed.unpark_all()
        return effects

    async def _spawn(self, test: bool) -> None:
        """Start a worker, offer or judge it, and stay until it is gone."""
        self._before = await self._ask(self._probe.context_holders) or frozenset()
        try:
            worker = self._worker = GpuWorker(
                self.config.worker,
                lambda attempt, seconds: self._tell(e.Began(attempt, seconds)),
                lambda attempt: self._tell(e.Ended(attempt, context_lost=False)),
            )
        except ResourceError as error:
            self._tell(e.Exited(str(error)))
            return
        reason = ""
        try:
            try:
                await worker.wait_ready(self.config.worker.start_timeout_s)
                self._judge(worker, test)
            except (ResourceError, PeerViolation) as error:
                reason = str(error)
                worker.kill()
            while worker.alive():  # noqa: ASYNC110 - there is no event for it
                await trio.sleep(TICK_S)
        finally:
            self._offered = None if self._offered is worker else self._offered
            await worker.aclose()
        self._note_death(reason)

    def _note_death(self, reason: str = "") -> None:
        """Tell of the present worker's end once; before its lease is returned, so that a crash counts as one."""
        if self._worker is not None and not self._worker.alive():
            worker, self._worker = self._worker, None
            self._tell(e.Exited(reason or worker.describe_end()))

    def _judge(self, worker: GpuWorker, test: bool) -> None:
        """A worker stands: its device class tells what the known answers say."""
        self._layers = self._layers or worker.layers
        self._device_class = self._device_class or worker.device_class
        as_before = worker.device_class == self._device_class
        changed = f"its answers make it {worker.device_class}, no longer {self._device_class}"
        if test:
            self._tell(e.Tested(as_before, "" if as_before else changed))
        elif not as_before:
            self._tell(e.Doubted(changed))
        else:
            self._tell(e.Ready())
            self._offered = worker
            self._changed.unpark_all()

    # Asking the driver

    async def _look(self) -> None:
        holders = await self._ask(self._probe.context_holders)
        if holders is not None:
            self._tell(e.Contexts(held=bool(holders - self._before)))

    async def _ask(self, question: Callable[[], frozenset[int] | None]) -> frozenset[int] | None:
        with trio.move_on_after(PROBE_S):
            return await _in_thread(question)
        return None

    async def watch(self) -> None:
        """Keep time for the machine, for ever."""
        while True:
            await trio.sleep(TICK_S)
            now_ns, due = self._clock().boottime_ns, False
            while self._alarms_ns and self._alarms_ns[0] <= now_ns:
                heapq.heappop(self._alarms_ns)
                due = True
            if due:
                self._tell(e.Tick())

    async def watch_health(self) -> None:
        """Ask how the device is, for ever."""
        hot = False
        while True:
            found = None
            with trio.move_on_after(PROBE_S):
                found = await _in_thread(self._probe.health)
            if found is not None and found.broken:
                self._tell(e.Broken(found.broken))
                return
            if found is not None and found.hot != hot:
                hot = found.hot
                self._tell(e.Heat(hot))
            await trio.sleep(HEALTH_S)


async def _in_thread(question: Callable[[], Answer]) -> Answer:
    """Ask in a thread, which is left behind if the wait ends first."""
    answer: Answer = await trio.to_thread.run_sync(question, abandon_on_cancel=True)  # type: ignore[call-arg]
    return answer


AnyPool = SandboxPool | GpuPool
"""What an agreement's workers come from."""


@asynccontextmanager
async def open_gpu_pool(
    config: PoolConfig, probe: Probe, *, limits: e.CustodyLimits | None = None, clock: Callable[[], Now] = now
) -> AsyncIterator[GpuPool]:
    """Lend one GPU as long as the block runs; at its end all workers are killed."""
    async with background() as nursery:
        pool = GpuPool(config, probe, nursery, limits or e.CustodyLimits(), clock)
        nursery.start_soon(pool.watch)
        nursery.start_soon(pool.watch_health)
        yield pool
