"""What a task holds of an array that is cut along an axis: which rows, of what shape, and what lies beyond the ends.

Task i owns the rows [start, stop) of the cut axis that its table names. It *holds* [start - halo, stop + halo); the
rows of these that lie beyond the array's ends are filled by the edge rule (``program.Cut``), or left away where that is
``none``. A kernel is given the held rows only, from the first one on.

This module imports no NumPy: nodes that only schedule need none.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

from depin_node.compute.programs.program import DTYPE_BYTES, Axis, Buffer, Cut, Program
from depin_node.core.errors import TaskRejected

VARIANTS_MAX = 32
CONSTANT = -1
"""A row that is not the array's, but ``fill``."""


class Rows(NamedTuple):
    """Rows of a cut axis, as numbers of the whole array: a task owns [start, stop) and holds [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def rows(program: Program, cut: Cut, length: int, task: int) -> Rows:
    """Return a task's rows of an axis of this length."""
    assert isinstance(program.shards, Axis)
    table = program.shards.tables[cut.table]
    start, stop = table[task], table[task + 1]
    first, last = start - cut.halo, stop + cut.halo
    if cut.edge == "none":
        first, last = max(first, 0), min(last, length)
    return Rows(start, stop, first, last)


def held_shape(program: Program, buffer: Buffer, task: int) -> tuple[int, ...]:
    """Return the shape of what a task holds of a buffer: the array a kernel or operation sees."""
    cut = buffer.cut
    if cut is None:
        return buffer.shape
    found = rows(program, cut, buffer.shape[cut.axis], task)
    return (*buffer.shape[: cut.axis], found.last - found.first, *buffer.shape[cut.axis + 1 :])


def held_bytes(program: Program, buffer: Buffer, task: int) -> int:
    """Return the size of what a task holds of a buffer."""
    return prod(held_shape(program, buffer, task)) * DTYPE_BYTES[buffer.dtype]


def held_bytes_max(program: Program, buffer: Buffer) -> int:
    """Return what no task's ``held_bytes`` exceed."""
    cut = buffer.cut
    if cut is None:
        return buffer.size_bytes
    owned, length = owned_bytes_max(program, buffer), buffer.shape[cut.axis]
    held = owned + 2 * cut.halo * (buffer.size_bytes // length)
    return min(held, buffer.size_bytes) if cut.edge == "none" else held


def owned_bytes_max(program: Program, buffer: Buffer) -> int:
    """Return the size of the largest part of a buffer that a task owns, for a buffer that is cut."""
    assert isinstance(program.shards, Axis)
    assert buffer.cut is not None
    table = program.shards.tables[buffer.cut.table]
    return max(stop - start for start, stop in pairwise(table)) * (buffer.size_bytes // buffer.shape[buffer.cut.axis])


def source_row(row: int, length: int, edge: str) -> int:
    """Return which row of the array stands at ``row``, which may lie beyond its ends; or ``CONSTANT``."""
    if 0 <= row < length:
        return row
    if edge == "clamp":
        return 0 if row < 0 else length - 1
    if edge == "wrap":
        return row % length
    if edge == "reflect":
        return -row if row < 0 else 2 * (length - 1) - row
    return CONSTANT


def beyond(found: Rows, length: int) -> Iterator[int]:
    """Yield the rows that a task holds and the array has not."""
    yield from range(found.first, min(0, found.last))
    yield from range(max(length, found.first), found.last)


def is_in_rows(buffer: Buffer) -> bool:
    """Tell whether what a task holds of an array lies together in its bytes: it is cut along its first axis."""
    return buffer.cut is not None and prod(buffer.shape[: buffer.cut.axis]) == 1


def byte_ranges(program: Program, buffer: Buffer, task: int) -> list[tuple[int, int]]:
    """Return which bytes, from and to, of a whole array that ``is_in_rows`` a task is given."""
    assert buffer.cut is not None
    length = buffer.shape[buffer.cut.axis]
    row_bytes = buffer.size_bytes // length
    found = rows(program, buffer.cut, length, task)
    inside = (max(found.first, 0), min(found.last, length))
    ranges = [inside]
    for first, last in _filling(found, length, buffer.cut.edge):
        ranges += [(first, min(last, inside[0])), (max(first, inside[1]), last)]
    return [(first * row_bytes, last * row_bytes) for first, last in ranges if first < last]


def _filling(found: Rows, length: int, edge: str) -> Iterator[tuple[int, int]]:
    """Yield which of the array's rows fill those beyond its ends, as ``source_row`` says of each."""
    before, after = -min(found.first, 0), max(found.last - length, 0)
    if edge == "clamp":
        yield 0, min(before, 1)
        yield length - min(after, 1), length
    elif edge == "wrap":
        yield length - before, length
        yield 0, after
    elif edge == "reflect":
        yield 1, before + 1
        yield length - 1 - after, length - 1


def variants(program: Program) -> tuple[int, ...]:
    """Return tasks such that each task holds arrays of the same shapes as one of them.

    Raises:
        TaskRejected: there are more than ``VARIANTS_MAX``.
    """
    if not isinstance(program.shards, Axis):
        return (0,)
    columns: dict[tuple[int, int, int], list[int]] = {}
    for buffer in program.buffers:
        if (cut := buffer.cut) is None:
            continue
        table, length = program.shards.tables[cut.table], buffer.shape[cut.axis]
        if cut.edge != "none" or not cut.halo:
            if (cut.table, 0, 0) not in columns:
                columns[cut.table, 0, 0] = [stop - start for start, stop in pairwise(table)]
        elif (cut.table, cut.halo, length) not in columns:
            ends = [min(stop + cut.halo, length) - max(start - cut.halo, 0) for start, stop in pairwise(table)]
            columns[cut.table, cut.halo, length] = ends
        if len(columns) > VARIANTS_MAX:
            raise TaskRejected(f"arrays are cut in more than {VARIANTS_MAX} ways")
    tasks = dict(zip(zip(*columns.values(), strict=True), range(program.tasks), strict=False))
    if len(tasks) > VARIANTS_MAX:
        raise TaskRejected(f"tasks hold slices of more than {VARIANTS_MAX} different shapes: cut evenly")
    return tuple(sorted(tasks.values())) or (0,)
