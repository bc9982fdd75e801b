"""How arrays lie under a loop, and how a result is cut into the tiles that blocks own.

*Under the loop.* Inputs are sent contiguous and without repetition: a view is copied on the submitting side, and an
axis along which an array is broadcast is not sent at all. So the place of an array's element i is a sum over the
loop's axes of digit times stride, with stride 0 where it is broadcast. Neighbouring axes that broadcast alike count as
one.

*Tiles.* A block makes a contiguous run of the result in C order. By the tile rule (``owners.py``) that run has to be a
box: whole along the last axes, cut along one, single along the first. If the cuts leave no ragged end inside the array,
or there is only one row of them, block b begins at b times its elements; else at its row's begin plus its part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

INDEX_32_MAX = 2**31
"""Loops shorter than this compute places in 32 bits."""


@dataclass(frozen=True)
class Axes:
    """The axes of a loop, merged: their lengths, and for each array its strides along them, in elements."""

    lengths: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def inner(self, axis: int) -> int:
        """Return how many elements one step along ``axis`` passes."""
        return prod(self.lengths[axis + 1 :])

    def factor(self, array: int) -> int | None:
        """Return c if the array's place is c times the index, for all indices; else None."""
        strides = self.strides[array]
        factor = strides[-1] if strides else 0
        return factor if all(s == factor * self.inner(axis) for axis, s in enumerate(strides)) else None


def merge_axes(shape: Sequence[int], arrays: Sequence[Sequence[int]], split: int = 0) -> tuple[Axes, Axes]:
    """Merge the axes of a loop.

    Args:
        shape: of the loop.
        arrays: the shape of each array, of as many axes; 1 where it is broadcast.
        split: axes before and from this one are not merged with each other.

    Returns:
        The axes before ``split`` and those from it on; strides span both.
    """
    lengths: list[int] = []
    kinds: list[tuple[bool, ...]] = []
    first = 0
    for axis, length in enumerate(shape):
        if axis == split:
            first = len(lengths)
        if length == 1:
            continue
        kind = tuple(array[axis] != 1 for array in arrays)
        if len(lengths) > first and kinds[-1] == kind:
            lengths[-1] *= length
        else:
            lengths.append(length)
            kinds.append(kind)
    if split >= len(shape):
        first = len(lengths)
    strides = []
    for array in range(len(arrays)):
        step, own = 1, [0] * len(lengths)
        for axis in reversed(range(len(lengths))):
            if kinds[axis][array]:
                own[axis], step = step, step * lengths[axis]
        strides.append(own)
    return (
        Axes(tuple(lengths[:first]), tuple(tuple(own[:first]) for own in strides)),
        Axes(tuple(lengths[first:]), tuple(tuple(own[first:]) for own in strides)),
    )


def compact(array: Array, order: Sequence[int]) -> Array:
    """Return an array with ``len(order)`` axes in that order, and length 1 where it only repeats itself."""
    array = array.reshape((1,) * (len(order) - array.ndim) + array.shape) if array.ndim < len(order) else array
    once = tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)
    return array[once].transpose(order)


@dataclass(frozen=True)
class Blocks:
    """How blocks share a result.

    Attributes:
        tile: of one block.
        elements: in it, of which the last ones may lie beyond the end of a row.
        row: elements from one ragged end to the next.
        parts: blocks of a row.
        count: of all blocks.
    """

    tile: tuple[int, ...]
    elements: int
    row: int
    parts: int
    count: int


def cut_into_blocks(shape: Sequence[int], elements_max: int, *, axis_min: int = 0) -> Blocks:
    """Cut a result of ``shape`` into tiles of at most ``elements_max`` elements, along ``axis_min`` or a later axis."""
    total = prod(shape)
    if not shape:
        return Blocks((), 1, 1, 1, 1)
    axis = next(k for k in range(axis_min, len(shape)) if prod(shape[k + 1 :]) <= elements_max)
    inner, length = prod(shape[axis + 1 :]), shape[axis]
    parts = -(-length // min(length, elements_max // inner))
    parts = next((n for n in range(parts, 2 * parts) if length % n == 0), parts)  # rather no ragged end
    step = -(-length // parts)
    parts = -(-length // step)
    count, elements, row = prod(shape[:axis]) * parts, step * inner, length * inner
    if count == parts or length % step == 0:
        row, parts = total, count
    return Blocks((*(1,) * axis, step, *shape[axis + 1 :]), elements, row, parts, count)
