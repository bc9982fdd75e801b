"""Whole arrays out of what the tasks of a program returned."""

from typing import Any

import numpy.typing as npt
import trio

from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import result_bytes, room_for, scatter
from depin_node.compute.sandbox.local import combine

Array = npt.NDArray[Any]


class Outputs:
    """The outputs of ``program``, being filled: each task owns its part of each.

    Raises:
        ResourceError: this machine's memory does not hold one.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._buffers = [program.buffers[index] for index in program.outputs]
        self._arrays = [room_for(buffer) for buffer in self._buffers]

    def put(self, task: int, output: int, data: bytes | bytearray | memoryview) -> None:
        """Put what ``task`` returned for ``output`` (a position in ``program.outputs``) in its place."""
        scatter(self._program, task, output, data, self._arrays[output])

    def sizes(self, output: int) -> list[int]:
        """Return the size in bytes of each task's part of ``output``."""
        return [result_bytes(self._program, task, output) for task in range(self._program.tasks)]

    def combine(self) -> None:
        """Merge partial results, if the program says so, in a worker on this machine.

        Raises:
            TaskError: a kernel failed. ResourceError: no worker can be started.
        """
        if self._program.combine:
            self._arrays = trio.run(combine, self._program, self._arrays)

    def named(self) -> dict[str, Array]:
        """Return the arrays by their names."""
        return {buffer.name: array for buffer, array in zip(self._buffers, self._arrays, strict=True)}

    def value(self) -> Array | tuple[Array, ...]:
        """Return the array of a single output, or a tuple of all."""
        return self._arrays[0] if len(self._arrays) == 1 else tuple(self._arrays)
