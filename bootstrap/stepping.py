"""One task done step by step in a worker: what both ends of a dispute do (``compute/programs/walk.py``)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import trio

from depin_node.compute.devices.held import held_input
from depin_node.compute.jobs.job import Limits
from depin_node.compute.programs.program import Program, encode_program
from depin_node.compute.programs.shards import local_box, numpy_dtype, owned_boxes
from depin_node.compute.programs.walk import (
    Bytes,
    Runnable,
    after_outputs,
    first_bytes,
    first_state,
    is_walkable,
    of_task,
    one_step,
    state_names,
    step_count,
    swapped,
    until_step,
)
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.compute.sandbox.pool import InputSource, Output
from depin_node.core.errors import ConfigError, TaskError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import result_root


@dataclass(frozen=True)
class Walked:
    """A task that is walked: its own program, over what it holds of its inputs."""

    program: Program
    task: int
    whole: Program
    inputs: dict[int, Bytes]
    first: tuple[bytes, ...]
    limits: Limits

    @property
    def steps(self) -> int:
        """How many steps it does."""
        return step_count(self.whole.steps)


def walked(program: Program, task: int, paths: Mapping[int, Path], limits: Limits) -> Walked:
    """Read what a task holds of its inputs, and name its first state. Slow: for a thread.

    Raises:
        ConfigError: there is no such task, or its steps do not tell who differs (``is_walkable``).
    """
    if task >= program.tasks or not is_walkable(program, task):
        raise ConfigError("such a task cannot be walked")
    inputs: dict[int, Bytes] = {}
    for index, path in paths.items():
        buffer = program.buffers[index]
        data = np.memmap(path, numpy_dtype(buffer), "r", shape=buffer.shape)
        inputs[index] = held_input(program, buffer, task, data).tobytes()
    whole = of_task(program, task)
    return Walked(program, task, whole, inputs, first_state(whole, inputs), limits)


async def state_after(pool: AnyPool, task: Walked, step: int) -> tuple[tuple[bytes, ...], dict[int, bytes]]:
    """Do the first steps of a task; return the state after them, and the arrays that they wrote, by name.

    Raises:
        TaskError: it cannot be done here.
    """
    found = await _run(pool, partial(until_step, task.whole, step), task.inputs, task)
    state = after_outputs(task.whole, task.first, {name: output.blob_id for name, output in found.items()})
    return state, {name: bytes(output.data) for name, output in found.items()}


def needed(task: Walked, step: int, state: tuple[bytes, ...]) -> dict[int, bytes]:
    """Return which arrays of a state the next step needs, that are not known here: their blob ids by name."""
    if swapped(task.whole, step, state) is not None:
        return {}
    names = state_names(task.whole)
    wanted = {name: state[names.index(name)] for name in one_step(task.whole, step).inputs.values() if name in names}
    return {name: blob for name, blob in wanted.items() if blob != _first_of(task, name)}


async def state_behind(
    pool: AnyPool, task: Walked, step: int, state: tuple[bytes, ...], arrays: Mapping[int, Bytes]
) -> tuple[bytes, ...]:
    """Do the one step after the first ``step``, from a state; ``arrays``: what is ``needed``.

    Raises:
        TaskError: it cannot be done here.
    """
    renamed = swapped(task.whole, step, state)
    if renamed is not None:
        return renamed
    found = await _run(pool, partial(one_step, task.whole, step), arrays, task)
    return after_outputs(task.whole, state, {name: output.blob_id for name, output in found.items()})


def held_outputs(task: Walked) -> dict[int, bool]:
    """Return the outputs by name, and whether what a task holds of each is what it owns."""
    buffers = task.program.buffers
    return {name: (cut := buffers[name].cut) is None or not cut.halo for name in task.program.outputs}


def root_of_state(task: Walked, state: tuple[bytes, ...], arrays: Mapping[int, Bytes]) -> bytes:
    """Return the root of the result that arrays of a last state give; ``arrays``: the outputs with a halo."""
    names, blobs = state_names(task.whole), list[bytes]()
    for output, (name, is_same) in enumerate(held_outputs(task).items()):
        if is_same:
            blobs.append(state[names.index(name)])
            continue
        buffer = task.program.buffers[name]
        held = np.frombuffer(arrays[name], numpy_dtype(buffer)).reshape(task.whole.buffers[name].shape)
        (box,) = owned_boxes(task.program, task.task, output)
        own = held[local_box(task.program, buffer, task.task, box).slices]
        blobs.append(blob_id(np.ascontiguousarray(own).tobytes()))
    return result_root(blobs)


def _first_of(task: Walked, name: int) -> bytes:
    return task.first[state_names(task.whole).index(name)]


async def _run(
    pool: AnyPool, make: Callable[[], Runnable], arrays: Mapping[int, Bytes], task: Walked
) -> dict[int, Output]:
    """Run a program of one task alone; return its outputs by their names in the walked program."""

    def prepared() -> tuple[Runnable, bytes, dict[int, InputSource]]:
        runnable = make()
        inputs = {
            number: bytes(arrays[name] if name in arrays else first_bytes(task.whole, task.inputs, name))
            for number, name in runnable.inputs.items()
        }
        return runnable, encode_program(runnable.program), dict(inputs)

    runnable, data, inputs = await trio.to_thread.run_sync(prepared)  # thousands of steps, or large arrays
    lease = await pool.acquire("dispute")
    try:
        limits = task.limits
        await lease.load(data, inputs, seconds=limits.seconds, memory_limit_bytes=limits.memory_mib << 20)
        await lease.submit([(bytes(16), 0)])
        async for result in lease.results():
            if result.error is not None:
                raise result.error
            outputs = [Output(output.blob_id, bytes(output.data)) for output in result.outputs]
            return dict(zip(runnable.outputs, outputs, strict=True))
        raise TaskError("the worker gave no result")
    finally:
        await lease.aclose()
