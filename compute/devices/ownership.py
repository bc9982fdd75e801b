"""What a task must leave as it was: everything outside its own part of its outputs.

A kernel can write anywhere in its memory. What it leaves outside its tiles is never taken, so this is no defence; it
tells the author of a kernel whose tiles do not say what it does, instead of returning zeros in silence.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.program import Buffer
from depin_node.compute.programs.shards import Box, contiguous_start

Bytes = npt.NDArray[np.uint8]


class Foreign(NamedTuple):
    """A part of linear memory that a task must leave as it was: zeros, or ``original`` from address ``base`` on."""

    start: int
    stop: int
    base: int
    original: Bytes | None
    name: str

    def is_unchanged(self, memory: Bytes, start: int, stop: int) -> bool:
        """Whether the bytes from ``start`` to ``stop`` are what they were."""
        if self.original is None:
            return not memory[start:stop].max()
        return np.array_equal(memory[start:stop], self.original[start - self.base : stop - self.base])


def put_back(
    buffer: Buffer, item_bytes: int, boxes: Sequence[Box], whole: npt.NDArray[Any], original: Bytes | None
) -> list[tuple[int, int]]:
    """Return the byte ranges of an output that must be unchanged.

    Boxes that are contiguous in memory are left out of them; what is owned but scattered is put back to what it was.
    """
    ranges, start = [], 0
    for box in boxes:
        first = contiguous_start(box, buffer.shape)
        if first is None:
            whole[box.slices] = 0 if original is None else original.view(whole.dtype).reshape(buffer.shape)[box.slices]
        else:
            ranges.append((start, first * item_bytes))
            start = (first + box.elements) * item_bytes
    ranges.append((start, buffer.size_bytes))
    return [(low, high) for low, high in ranges if low < high]
