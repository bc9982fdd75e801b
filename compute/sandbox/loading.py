"""What a worker is given before tasks: a program, its limits, and the files that node and worker share for it.

``prepare`` reads a program and opens the files; ``Loading`` has them until it is closed, and knows where in the arena
the results of a task go.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import Final

import trio

from depin_node.compute.devices.pages import LARGE_BYTES
from depin_node.compute.programs.memory import memory_bytes, placements
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import result_bytes_max, result_sizes, result_start
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.programs.work import work
from depin_node.compute.sandbox import messages as m
from depin_node.compute.sandbox.arena import Arena, InputSource, open_input
from depin_node.compute.sandbox.config import PoolConfig
from depin_node.core.errors import ResourceError, TaskOutOfMemory, TaskRejected

DATA_BEYOND_BYTES: Final = 1 << 30
"""A worker may allocate so much more than it may have resident: so mostly the watch ends it, and names the cause."""


class Loading:
    """See the module. ``resident_bytes_max`` is what its worker may have in memory, shared pages included."""

    def __init__(self, program: Program, arena: Arena, message: m.Load, resident_bytes_max: int) -> None:
        self.program, self.arena, self.message = program, arena, message
        self.resident_bytes_max = resident_bytes_max
        self.modules = tuple(unit.module for unit in program.units)
        self.sizes_of = result_sizes(program)
        self._addresses = placements(program)[0]
        self._inputs: list[int] = []

    @property
    def fds(self) -> list[int]:
        """The files that go with ``message``: the arena, then ``input_fds``."""
        return [self.arena.fd, *self._inputs]

    @property
    def input_fds(self) -> list[int]:
        """The files of the inputs, in the order of the program."""
        return self._inputs

    def take_inputs(self, inputs: Mapping[int, InputSource]) -> None:
        """Open the files of other inputs, by buffer index, and close those of before.

        Raises:
            TaskRejected: one is missing, or does not have the size of its array.
            ResourceError: no room or no descriptor.
        """
        self._close_inputs()
        try:
            for index in self.program.inputs:
                buffer = self.program.buffers[index]
                if index not in inputs:
                    raise TaskRejected(f"input {buffer.name} is missing")
                self._inputs.append(open_input(inputs[index], buffer.name, buffer.size_bytes))
        except OSError as error:
            raise ResourceError(f"no room for the inputs: {error}") from error

    def take_places(self, task: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return where the outputs of a task go, which have these sizes in bytes; None if there is no room now."""
        if sum(sizes) < m.ARENA_BYTES_MIN:
            return (m.INLINE,) * len(sizes)
        places: list[int] = []
        for output, size in enumerate(sizes):
            like = self._result_address(task, output) if size >= LARGE_BYTES else None
            place = self.arena.take(size, like) if size else m.INLINE
            if place is None:
                self.give_back(places, sizes)
                return None
            places.append(place)
        return tuple(places)

    def give_back(self, places: "tuple[int, ...] | list[int]", sizes: tuple[int, ...]) -> None:
        """Free what ``take_places`` returned, or the beginning of it."""
        for place, size in zip(places, sizes, strict=False):
            if place != m.INLINE:
                self.arena.give_back(place, size)

    def _result_address(self, task: int, output: int) -> int | None:
        """Return where a result is made in linear memory: a place that is alike takes turns with it more cheaply."""
        start = result_start(self.program, task, output)
        return None if start is None else self._addresses[self.program.outputs[output]] + start

    def close(self) -> None:
        """Close the files; what lies in the arena stays readable as long as somebody holds it."""
        os.close(self.arena.fd)
        self._close_inputs()

    def _close_inputs(self) -> None:
        while self._inputs:
            os.close(self._inputs.pop())


async def prepare(
    config: PoolConfig,
    program: bytes | memoryview,
    inputs: Mapping[int, InputSource],
    *,
    seconds: float,
    memory_limit_bytes: int,
) -> Loading:
    """Read a program in its canonical bytes and open what a worker needs for it; see ``Lease.load``.

    Raises:
        TaskError: the program is refused, or nothing of it can run within the limits.
        ResourceError: it is too much work for this node, or there is no memory for it.
    """
    decoded, need, size = await trio.to_thread.run_sync(_read, program)
    if need > memory_limit_bytes:
        raise TaskOutOfMemory(f"a task needs {need >> 20} MiB for its arrays, the limit is {memory_limit_bytes >> 20}")
    if size > config.work_max:
        raise ResourceError(f"a task is of {size:,} threads and operations, this node takes {config.work_max:,}")
    largest = result_bytes_max(decoded)
    aligned = largest + (len(decoded.outputs) * LARGE_BYTES if largest >= LARGE_BYTES else 0)
    capacity = 0 if largest < m.ARENA_BYTES_MIN else max(config.arena_bytes, 2 * aligned)
    shared = sum(decoded.buffers[index].size_bytes for index in decoded.inputs) + capacity
    resident_bytes_max = need + 2 * shared + config.overhead_bytes
    try:
        arena = Arena(capacity)
    except OSError as error:
        raise ResourceError(f"no room for results: {error}") from error
    data_bytes = resident_bytes_max + DATA_BEYOND_BYTES
    message = m.Load(bytes(program), decoded.inputs, arena.size, float(seconds), memory_limit_bytes, data_bytes, ())
    with contextlib.ExitStack() as undo:
        loading = Loading(decoded, arena, message, resident_bytes_max)
        undo.callback(loading.close)
        loading.take_inputs(inputs)
        undo.pop_all()
    return loading


def _read(program: bytes | memoryview) -> tuple[Program, int, int]:
    """Return a program, its memory and its work. In a thread: a stranger's can take seconds to check."""
    decoded = decode_program(program)
    return decoded, memory_bytes(decoded), work(decoded).size
