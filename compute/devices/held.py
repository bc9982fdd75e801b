"""A task's part of an array, in NumPy: what it holds of an input, and its results in their canonical form."""

import ctypes
import time
from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from depin_node.compute.devices.ownership import Bytes
from depin_node.compute.programs.program import Buffer, Program
from depin_node.compute.programs.shards import numpy_dtype
from depin_node.compute.programs.slices import CONSTANT, beyond, held_shape, rows, source_row

Array = npt.NDArray[Any]
PIECE_ELEMENTS = 32 << 10
"""Results are taken in pieces that the cache still holds when they are searched for NaNs."""
TIMED_BYTES_MIN, TIMED_AGAIN = 4 << 20, 64

Place = tuple[slice | list[int], ...]


class Edge(NamedTuple):
    """Rows of what a task holds that lie beyond its array's ends: ``targets`` repeat ``sources``, or are ``fill``."""

    targets: Place
    sources: Place | None
    fill: Any


def held_input(program: Program, buffer: Buffer, task: int, whole: Array) -> Array:
    """Return what a task holds of an input: all of it, or its rows; those beyond its ends only where they wrap."""
    if buffer.cut is None:
        return whole
    held = np.zeros(held_shape(program, buffer, task), whole.dtype)
    lay_rows(program, buffer, task, whole, held)
    return held


def lay_rows(program: Program, buffer: Buffer, task: int, whole: Array, held: Array) -> None:
    """Copy the rows that a task holds of an array that is cut; those beyond its ends only where they wrap."""
    cut = buffer.cut
    assert cut is not None
    found, length = rows(program, cut, buffer.shape[cut.axis], task), buffer.shape[cut.axis]
    low, high = max(found.first, 0), min(found.last, length)
    held[_along(cut.axis, slice(low - found.first, high - found.first))] = whole[_along(cut.axis, slice(low, high))]
    if cut.edge == "wrap":
        outside = list(beyond(found, length))
        sources = [source_row(row, length, "wrap") for row in outside]
        held[_along(cut.axis, [row - found.first for row in outside])] = whole[_along(cut.axis, sources)]


def held_edge(program: Program, buffer: Buffer, task: int) -> Edge | None:
    """Return which rows have to follow the edge rule whenever the array was written; None: none."""
    cut = buffer.cut
    if cut is None or cut.edge in ("none", "wrap"):
        return None
    found, length = rows(program, cut, buffer.shape[cut.axis], task), buffer.shape[cut.axis]
    outside = list(beyond(found, length))
    if not outside:
        return None
    targets = _along(cut.axis, [row - found.first for row in outside])
    sources = [source_row(row, length, cut.edge) for row in outside]
    if CONSTANT in sources:
        return Edge(targets, None, np.frombuffer(cut.fill, numpy_dtype(buffer))[0])
    return Edge(targets, _along(cut.axis, [row - found.first for row in sources]), None)


def _along(axis: int, rows: slice | list[int]) -> Place:
    return (*(slice(None),) * axis, rows)


def canonical_nans(result: Array) -> None:
    """Make every NaN NumPy's own, positive and quiet: 7e00, 7fc00000, 7ff8000000000000. Complex ones part by part."""
    if result.dtype.kind == "c":
        result = result.view(f"<f{result.itemsize // 2}")
    if result.dtype.kind == "f" and result.size and np.isnan(result.min()):  # which it is if any is
        result[np.isnan(result)] = np.nan


class Zeros:
    """Makes large arrays zeros in the faster of two ways, whichever that is on this processor: both are timed.

    Setting them takes half as long on some; on others reading them first, which fetches ahead, saves a tenth.
    """

    def __init__(self) -> None:
        self._best_s = [inf, inf]  # for a byte, by way
        self._made = 0

    def make(self, array: Bytes, *, fresh: bool) -> None:
        """Make whole words zeros; ``fresh``: perhaps there are no pages yet, and reading costs a fault for each."""
        if fresh or array.nbytes < TIMED_BYTES_MIN:
            _set(array)
            return
        slower, faster = sorted((0, 1), key=self._best_s.__getitem__, reverse=True)
        reads_first = slower if self._made < 2 or self._made % TIMED_AGAIN == 0 else faster
        start_s = time.perf_counter()
        if reads_first:
            words = array.view(np.uint64)
            np.bitwise_and(words, 0, out=words)
        else:
            _set(array)
        spent_s = (time.perf_counter() - start_s) / array.nbytes
        self._best_s[reads_first] = min(self._best_s[reads_first], spent_s)
        self._made += 1


def _set(array: Bytes) -> None:
    ctypes.memset(array.ctypes.data, 0, array.nbytes)  # NumPy's own loop is no faster than reading first


def take(result: Array, source: Array, *, look: bool) -> None:
    """Copy an array of any layout into a flat one, with canonical NaNs, which to ``look`` for may be needless."""
    flat = source.reshape(-1) if source.flags.c_contiguous else None
    if flat is None:
        result.reshape(source.shape)[...] = source
    for start in range(0, result.size, PIECE_ELEMENTS):
        piece = result[start : start + PIECE_ELEMENTS]
        if flat is not None:
            piece[...] = flat[start : start + PIECE_ELEMENTS]
        if look:
            canonical_nans(piece)
