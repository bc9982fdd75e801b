"""The workers of a node: one process for each lease, never used again, and a spare that waits untouched."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import structlog
import trio

from depin_node.compute.sandbox.arena import InputSource
from depin_node.compute.sandbox.cgroup import MemoryGroups
from depin_node.compute.sandbox.config import PoolConfig, WorkerConfig
from depin_node.compute.sandbox.lease import Lease, Output, Result
from depin_node.compute.sandbox.messages import Layer
from depin_node.compute.sandbox.native import NativeCode
from depin_node.compute.sandbox.process import WorkerProcess
from depin_node.core.background import background
from depin_node.core.errors import ResourceError

__all__ = [
    "InputSource",
    "Layer",
    "Lease",
    "Output",
    "PoolConfig",
    "Result",
    "SandboxPool",
    "WorkerConfig",
    "open_pool",
]

log = structlog.get_logger("depin_node.sandbox")
START_RETRY_S: Final = 5.0


class SandboxPool:
    """See the module; made by ``open_pool``."""

    def __init__(self, config: PoolConfig, nursery: trio.Nursery) -> None:
        self.config = config
        self.maps_inputs = config.worker.device == WorkerConfig.device
        """Whether a task reads of an input's file only what it is given, when it runs."""
        self._nursery = nursery
        self._free = trio.Semaphore(config.workers_max, max_value=config.workers_max)
        self._give, self._spares = trio.open_memory_channel[WorkerProcess | ResourceError](0)
        self._device_class = ""
        self._layers: tuple[Layer, ...] = ()
        self._groups = MemoryGroups()
        self._native = NativeCode()

    async def acquire(self, name: str) -> Lease:
        """Wait for a free slot and return a lease of it; ``name`` is for the log."""
        await self._free.acquire()
        lease = Lease(self.config, self.take_worker, name, self._native)
        self._nursery.start_soon(self._drive, lease)
        return lease

    async def _drive(self, lease: Lease) -> None:
        try:
            await lease.drive()
        finally:
            self._free.release()

    async def take_worker(self) -> WorkerProcess:
        """Return the spare, as soon as there is one that lives; without spares, a new one.

        Raises:
            ResourceError: none can be started.
        """
        while True:
            if not self.config.spare:
                return await self._start()
            worker = await self._spares.receive()
            if isinstance(worker, ResourceError):
                raise worker
            if worker.alive():
                return worker
            await worker.aclose()

    async def device_class(self) -> str:
        """Return the class of the device that the workers use, as the first of them tells.

        Raises:
            ResourceError: none can be started.
        """
        if not self._device_class:
            worker = await self.take_worker()
            self._device_class = worker.device_class
            if self.config.spare:
                self._nursery.start_soon(self._lend, worker)
            else:
                await worker.aclose()
        return self._device_class

    @asynccontextmanager
    async def beside(self) -> AsyncIterator["SandboxPool"]:
        """Open a pool of one more such worker, for what is to run beside all leases."""
        async with open_pool(replace(self.config, workers_max=1, spare=False)) as pool:
            yield pool

    def withdrawn(self) -> str:
        """Return why the device is lent no more, or nothing: a processor is never lost."""
        return ""

    def layers(self) -> tuple[Layer, ...]:
        """Return what confines the workers and what does not, as the first of them told; before it, nothing."""
        return self._layers

    async def keep_spare(self) -> None:
        """Keep one worker started, for ever."""
        while True:
            try:
                worker = await self._start()
            except ResourceError as error:
                await self._report(error)
            else:
                await self._lend(worker)

    async def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self.config.worker, self._groups)
        try:
            await worker.wait_ready(self.config.worker.start_timeout_s)
        except BaseException:  # also when cancelled: no worker is left behind; raised again
            await worker.aclose()
            raise
        if not self._layers:
            self._layers = (*worker.layers, self._groups.layer)
            if missing := {layer.name: layer.detail for layer in worker.layers if not layer.active}:
                log.warning("workers are less confined than they could be", **missing)
        return worker

    async def _lend(self, worker: WorkerProcess) -> None:
        """Wait for a lease that takes it."""
        given = False
        try:
            await self._give.send(worker)
            given = True
        finally:
            if not given:
                await worker.aclose()

    async def _report(self, error: ResourceError) -> None:
        log.error("no worker process", reason=str(error))
        with trio.move_on_after(START_RETRY_S):
            while True:  # all who wait now
                await self._give.send(error)


@asynccontextmanager
async def open_pool(config: PoolConfig) -> AsyncIterator[SandboxPool]:
    """Open a pool; at its end all workers are killed."""
    async with background() as nursery:
        pool = SandboxPool(config, nursery)
        if config.spare:
            nursery.start_soon(pool.keep_spare)
        yield pool
