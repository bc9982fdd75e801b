"""Running a whole program on this machine, in the same workers as on any provider, and assembling its outputs."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import trio

from depin_node.compute.programs.binding import Bound
from depin_node.compute.programs.combine import tree
from depin_node.compute.programs.kernel import Reference
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.program import Program, encode_program
from depin_node.compute.programs.shards import room_for, scatter
from depin_node.compute.sandbox.pool import InputSource, Lease, PoolConfig, SandboxPool, WorkerConfig, open_pool
from depin_node.core.errors import ConfigError

COMBINE_S: Final = 600.0
"""For merging all partial results of a job."""
BATCH: Final = 32
"""Tasks taken at a time by a worker: few, so that all end together."""

Array = npt.NDArray[Any]


async def combine(program: Program, outputs: Sequence[Array], *, seconds: float = COMBINE_S) -> list[Array]:
    """Merge the partial results of all tasks, in a worker of its own; see ``programs.combine``.

    Args:
        program: one that combines.
        outputs: its outputs, whole, in the order of ``program.outputs``; they are not changed.
        seconds: for all of it.

    Raises:
        TaskError: a kernel failed.
        ResourceError: no worker on this machine.
    """
    if program.tasks == 1:
        return [array[0] for array in outputs]
    merging = tree(program)
    bound = Bound(merging, dict(enumerate(outputs)))
    merged = await run_local(bound, seconds=seconds, memory_limit_bytes=memory_bytes(merging), workers=1)
    return [array[0] for array in merged]


def empty_outputs(program: Program, inputs: Mapping[int, Array]) -> list[Array]:
    """Return a new array for each of ``program.outputs``, for ``scatter``; in-out ones begin as their input.

    Raises:
        ResourceError: this machine's memory does not hold one.
    """
    outputs: list[Array] = [room_for(program.buffers[index]) for index in program.outputs]
    for index, output in zip(program.outputs, outputs, strict=True):
        if program.buffers[index].is_input:
            output[...] = inputs[index]
    return outputs


async def run_local(
    bound: Bound,
    *,
    seconds: float = 60.0,
    memory_limit_bytes: int = 512 << 20,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    printed: Callable[[int, bytes], None] | None = None,
) -> list[Array]:
    """Run all tasks of a program in worker processes and return its outputs, in the order of ``program.outputs``.

    Args:
        bound: the program and its inputs.
        seconds: for each task.
        memory_limit_bytes: for each task.
        workers: processes; by default one for each core, at most one for each task.
        progress: called with the numbers of tasks done and of all tasks.
        printed: called with the number of a task and what its kernels printed, whatever bytes that is, in any order.

    Raises:
        TaskError: the first task that failed, which ends the others.
        ResourceError: no worker on this machine, or no memory for an output.
        ConfigError: an input is a reference, which only its node has.
    """
    arrays = _arrays(bound)
    tasks = bound.program.tasks
    workers = min(workers or os.cpu_count() or 1, tasks)
    outputs = empty_outputs(bound.program, arrays)
    todo, done = iter(range(tasks)), count(1)
    worker = WorkerConfig(nice=0)

    async def work(pool: SandboxPool, number: int) -> None:
        lease = await pool.acquire(f"local {number}")
        try:
            data: dict[int, InputSource] = {
                index: array.reshape(-1).view(np.uint8).data for index, array in arrays.items()
            }
            await lease.load(
                encode_program(bound.program), data, seconds=seconds, memory_limit_bytes=memory_limit_bytes
            )
            await drain(lease)
        finally:
            await lease.aclose()

    async def drain(lease: Lease) -> None:
        """Keep a batch submitted until none is left to take."""
        results = lease.results()
        waiting = await _submit_next(lease, todo, BATCH)
        while waiting:
            result = await anext(results)
            waiting -= 1
            if printed and result.log:
                printed(result.task, result.log)
            if result.error:
                raise result.error
            for output, piece in enumerate(result.outputs):
                scatter(bound.program, result.task, output, piece.data, outputs[output])
            lease.release(result.attempt)
            waiting += await _submit_next(lease, todo, 1)
            if progress:
                progress(next(done), tasks)

    try:
        async with (
            open_pool(PoolConfig(worker, workers_max=workers, spare=False)) as pool,
            trio.open_nursery() as nursery,
        ):
            for number in range(workers):
                nursery.start_soon(work, pool, number)
    except BaseExceptionGroup as group:
        raise _first(group) from group
    return await combine(bound.program, outputs, seconds=seconds) if bound.program.combine else outputs


def _arrays(bound: Bound) -> dict[int, Array]:
    found = {}
    for index, array in bound.inputs.items():
        if isinstance(array, Reference):
            name = bound.program.buffers[index].name
            raise ConfigError(f"{name} is on a node: get it first (Mesh.get), or run this on the mesh")
        found[index] = array
    return found


async def _submit_next(lease: Lease, todo: Iterator[int], most: int) -> int:
    batch = [task for _, task in zip(range(most), todo, strict=False)]
    await lease.submit((task.to_bytes(16, "little"), task) for task in batch)
    return len(batch)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return an interruption if there is one in the group, else the first error."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if not isinstance(error, Exception)), leaves[0])
