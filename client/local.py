"""Work on this machine alone: in the same sandboxed workers that lenders use, without node, peers or verification."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import trio

from depin_node.client.outputs import Array
from depin_node.client.work import Work, prepare_launch, prepare_program
from depin_node.compute.jobs.job import Limits
from depin_node.compute.programs.arrays import Traced
from depin_node.compute.sandbox.local import run_local as run_in_workers
from depin_node.compute.sandbox.pool import PoolConfig, open_pool
from depin_node.core.text import printable
from depin_node.core.views import DeviceView


def run_local(
    work: Work,
    progress: Callable[[int, int], None] | None = None,
    printed: Callable[[str], None] | None = None,
) -> dict[str, Array]:
    """Run ``work`` and return its outputs by the names of the kernel's parameters.

    Args:
        work: prepared with ``local=True`` if it may not go to peers.
        progress: called with the numbers of tasks done and of all tasks.
        printed: called with each line that a kernel has printed, and its task; control characters are made harmless.

    Raises:
        TaskError: the first task that failed, which ends the others.
        ResourceError: no worker can be started.
    """

    def show(task: int, log: bytes) -> None:
        for line in log.decode(errors="replace").splitlines() if printed else ():
            printed(f"task {task}: {printable(line)}")

    async def run() -> list[Array]:
        limits = work.limits
        return await run_in_workers(
            work.bound,
            seconds=limits.seconds,
            memory_limit_bytes=limits.memory_mib << 20,
            progress=progress,
            printed=show,
        )

    arrays = trio.run(run)
    program = work.bound.program
    return {program.buffers[index].name: array for index, array in zip(program.outputs, arrays, strict=True)}


def local_devices() -> list[DeviceView]:
    """Return what this machine could lend: started and asked, not guessed. None of its slots is free, as none is lent.

    Raises:
        ResourceError: no worker can be started.
    """

    async def ask() -> DeviceView:
        async with open_pool(PoolConfig()) as pool:
            device_class, layers = await pool.device_class(), pool.layers()
        return DeviceView(
            device_class,
            psutil.virtual_memory().total >> 20,
            os.cpu_count() or 1,
            0,
            tuple(str(layer) for layer in layers if layer.active),
            tuple(str(layer) for layer in layers if not layer.active),
        )

    return [trio.run(ask)]


def launch(
    kernel: Any,
    grid: int | Sequence[int] | None = None,
    block: int | Sequence[int] | None = None,
    args: Sequence[Any] = (),
    **options: Any,
) -> Array | tuple[Array, ...]:
    """Launch a kernel on this machine and return its output, a tuple if it has several.

    Args:
        kernel: as for ``Mesh.launch``.
        grid: likewise.
        block: likewise.
        args: likewise.
        options: likewise: ``shared_mem``, ``size``, ``axis``, ``keepdims``, ``shards``, ``limits``.

    Raises:
        ConfigError: kernel, arguments or cut are wrong; says where.
        TaskError: a task failed.
        ResourceError: no worker can be started.
    """
    arrays = tuple(run_local(prepare_launch(kernel, grid, block, args, local=True, **options)).values())
    return arrays[0] if len(arrays) == 1 else arrays


def run(program: Traced, *arrays: Any, limits: Limits | None = None) -> Array | tuple[Array, ...]:
    """Run a traced function on this machine and return its result, a tuple if it has several.

    Args:
        program: as for ``Mesh.run``.
        arrays: likewise.
        limits: likewise.

    Raises:
        ConfigError: the arrays do not fit; says why.
        TaskError: a task failed.
        ResourceError: no worker can be started.
    """
    results = tuple(run_local(prepare_program(program, arrays, limits=limits, local=True)).values())
    return results[0] if len(results) == 1 else results
