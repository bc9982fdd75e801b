"""Work on this machine alone: in the same sandboxed workers that lenders use, without node, peers or verification."""

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import trio

from depin_node.client.outputs import Array
from depin_node.client.work import Work, prepare_launch, prepare_program
from depin_node.compute.devices.gpu.nvidia import find_gpus
from depin_node.compute.jobs.job import Limits
from depin_node.compute.programs.arrays import Traced
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.sandbox.gpu_pool import AnyPool, DriverProbe, gpu_config, open_gpu_pool
from depin_node.compute.sandbox.local import run_local as run_in_workers
from depin_node.compute.sandbox.measuring import processor_name, speed_of
from depin_node.compute.sandbox.pool import PoolConfig, open_pool
from depin_node.core.errors import ConfigError, ResourceError
from depin_node.core.text import did_you_mean, printable
from depin_node.core.views import DeviceView


def run_local(
    work: Work,
    progress: Callable[[int, int], None] | None = None,
    printed: Callable[[str], None] | None = None,
) -> dict[str, Array]:
    """Run ``work`` and return its outputs by the names of the kernel's parameters.

    Args:
        work: prepared with ``local=True`` if its answers cannot be compared.
        progress: called with the numbers of tasks done and of all tasks.
        printed: called with each line that a kernel has printed, and its task; control characters are made harmless.

    Raises:
        TaskError: the first task that failed, which ends the others.
        ResourceError: no worker can be started, or an output is larger than memory.
    """

    def show(task: int, log: bytes) -> None:
        if printed is not None:
            for line in log.decode(errors="replace").splitlines():
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


def local_devices(remembered: Path | None = None) -> list[DeviceView]:
    """Return what this machine could lend: started, asked and measured. None of its slots is free, as none is lent.

    Args:
        remembered: a file in which speeds are kept, so that a device is measured once.

    Raises:
        ResourceError: no worker can be started.
    """

    async def ask() -> list[DeviceView]:
        async with open_pool(PoolConfig()) as pool:
            memory_mib = psutil.virtual_memory().total >> 20
            views = [await _view("cpu", pool, processor_name(), memory_mib, os.cpu_count() or 1, remembered)]
        for gpu in find_gpus().gpus:
            memory_mib = gpu.memory_bytes >> 20
            async with open_gpu_pool(gpu_config(gpu), DriverProbe(gpu)) as gpu_pool:
                try:
                    views.append(await _view(gpu.uuid, gpu_pool, gpu.name, memory_mib, 1, remembered))
                except ResourceError as error:
                    views.append(
                        DeviceView(
                            gpu.architecture, memory_mib, 0, 0, model=gpu.name, unusable=str(error), name=gpu.uuid
                        )
                    )
        return views

    return trio.run(ask)


async def _view(
    name: str, pool: AnyPool, model: str, memory_mib: int, slots: int, remembered: Path | None
) -> DeviceView:
    device_class, speed, layers = await pool.device_class(), await speed_of(pool, model, remembered), pool.layers()
    return DeviceView(
        device_class,
        memory_mib,
        slots,
        0,
        tuple(str(layer) for layer in layers if layer.active),
        tuple(str(layer) for layer in layers if not layer.active),
        model,
        speed.mflops_f32,
        speed.mflops_f64,
        speed.mbytes_s,
        name=name,
    )


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
    known = inspect.signature(prepare_launch).parameters.keys() - {"local"}
    for option in options:
        if option not in known:
            raise ConfigError(f"launch has no option {option!r}{did_you_mean(option, known)}")
    arrays = tuple(run_local(prepare_launch(kernel, grid, block, args, local=True, **options)).values())
    return arrays[0] if len(arrays) == 1 else arrays


def run(program: ProgramBuilder | Traced, *arrays: Any, limits: Limits | None = None) -> Array | tuple[Array, ...]:
    """Run a program or a traced function on this machine and return its result, a tuple if it has several.

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
