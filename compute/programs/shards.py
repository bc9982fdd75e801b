"""The tasks of a program: which blocks each runs, which elements of each output it owns, and how results are laid out.

A task of a program that is cut along an axis owns its rows of each output: one *box*. Of a launch cut by blocks,
task i of n runs blocks [i·B // n, (i+1)·B // n) of the launch's B, in CUDA's order (x fastest). By the tile rule
(``owners.py``) it owns the tiles with those numbers. A range of numbers in a grid of tiles is cut into boxes: a
ragged head, the whole slabs, a ragged tail, each ragged part cut again along the next axis; at most 2·d - 1 boxes for
d axes, one for one axis. A task's result for an output is its boxes one after the other, each in C order, clipped to
the array, little-endian: the *canonical layout*. Its size is known beforehand.

This module imports no NumPy at the top: nodes that only schedule need none.
"""

from collections.abc import Callable, Iterator
from math import prod
from mmap import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

from depin_node.compute.programs.program import DTYPE_BYTES, Buffer, Cut, Program
from depin_node.compute.programs.slices import held_shape, owned_bytes_max, rows
from depin_node.core.errors import ResourceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.generic[Any]]


class Box(NamedTuple):
    """A rectangular part of an array: elements ``start`` (included) to ``stop`` (excluded) along each axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its length along each axis."""
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def elements(self) -> int:
        """The number of elements in it."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """What selects it from the array."""
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))


def task_blocks(program: Program, task: int) -> tuple[int, int]:
    """Return the blocks [b0, b1) that ``task`` runs of a program cut by blocks, never none."""
    if not 0 <= task < program.tasks:
        raise IndexError(f"task {task} of {program.tasks}")
    blocks = program.launch.blocks(0)
    return task * blocks // program.tasks, (task + 1) * blocks // program.tasks


def owned_boxes(program: Program, task: int, output: int) -> tuple[Box, ...]:
    """Return what ``task`` owns of its ``output`` (a position in ``program.outputs``), in the canonical order."""
    buffer = program.buffers[program.outputs[output]]
    if buffer.cut is not None:
        return (_slice(program, buffer, buffer.cut, task),)
    if not buffer.tile:  # then there is one task
        return (Box((0,) * len(buffer.shape), buffer.shape),)
    counts, tile = tile_counts(buffer), buffer.tile
    first, last = task_blocks(program, task)
    tiles = prod(counts)
    if len(counts) == 1:  # by far the most frequent, and the same as below
        start, stop = min(first * tile[0], buffer.shape[0]), min(last * tile[0], buffer.shape[0])
        return (Box((start,), (stop,)),) if start < stop else ()
    return tuple(
        Box(
            tuple(start * step for start, step in zip(box.start, tile, strict=True)),
            tuple(min(stop * step, length) for stop, step, length in zip(box.stop, tile, buffer.shape, strict=True)),
        )
        for box in _cut(min(first, tiles), min(last, tiles), counts)
    )


def first_owned(program: Program, output: int) -> Callable[[int], int] | None:
    """Return what gives the first element that a task owns of an output that is one row of tiles; None: it is not.

    All that the task owns follows it.
    """
    buffer = program.buffers[program.outputs[output]]
    if len(buffer.shape) != 1 or not buffer.tile or buffer.cut is not None:
        return None
    blocks, tasks, tile, length = program.launch.blocks(0), program.tasks, buffer.tile[0], buffer.shape[0]
    return lambda task: min(task * blocks // tasks * tile, length)


def local_box(program: Program, buffer: Buffer, task: int, box: Box) -> Box:
    """Return a box of the whole array as one of what the task holds of it."""
    cut = buffer.cut
    if cut is None:
        return box
    first = rows(program, cut, buffer.shape[cut.axis], task).first
    shift = [0] * len(buffer.shape)
    shift[cut.axis] = first
    return Box(
        tuple(start - by for start, by in zip(box.start, shift, strict=True)),
        tuple(stop - by for stop, by in zip(box.stop, shift, strict=True)),
    )


def contiguous_start(box: Box, shape: tuple[int, ...]) -> int | None:
    """Return the C-order number of a box's first element if its elements follow each other in memory, else None."""
    number, cut = 0, False
    for start, stop, length in zip(box.start, box.stop, shape, strict=True):
        if cut and stop - start < length:
            return None
        cut = cut or stop - start > 1
        number = number * length + start
    return number


def result_start(program: Program, task: int, output: int) -> int | None:
    """Return at which byte of what a task holds of an output its result begins; None: it is not one piece there."""
    buffer, boxes = program.buffers[program.outputs[output]], owned_boxes(program, task, output)
    if len(boxes) != 1:
        return None
    first = contiguous_start(local_box(program, buffer, task, boxes[0]), held_shape(program, buffer, task))
    return None if first is None else first * DTYPE_BYTES[buffer.dtype]


def tile_counts(buffer: Buffer) -> tuple[int, ...]:
    """Return how many tiles an output has along each axis; an empty ``tile`` is one tile."""
    tile = buffer.tile or buffer.shape
    return tuple(-(-length // step) for length, step in zip(buffer.shape, tile, strict=True))


def _slice(program: Program, buffer: Buffer, cut: Cut, task: int) -> Box:
    if not 0 <= task < program.tasks:
        raise IndexError(f"task {task} of {program.tasks}")
    axis = cut.axis
    found = rows(program, cut, buffer.shape[axis], task)
    before, after = (0,) * axis, (0,) * (len(buffer.shape) - axis - 1)
    stop = (*buffer.shape[:axis], found.stop, *buffer.shape[axis + 1 :])
    return Box((*before, found.start, *after), stop)


def _cut(first: int, last: int, counts: tuple[int, ...]) -> Iterator[Box]:
    """Cut the range [first, last) of C-order numbers in a grid of ``counts`` into boxes."""
    if first >= last:
        return
    if not counts:
        yield Box((), ())
        return
    inner = counts[1:]
    size = prod(inner)
    row, row_end = -(-first // size), last // size  # the whole rows
    if row > row_end:  # within one row
        yield from _prefixed(row_end, first - row_end * size, last - row_end * size, inner)
        return
    if first < row * size:
        yield from _prefixed(row - 1, first - (row - 1) * size, size, inner)
    if row < row_end:
        yield Box((row,) + (0,) * len(inner), (row_end, *inner))
    if row_end * size < last:
        yield from _prefixed(row_end, 0, last - row_end * size, inner)


def _prefixed(row: int, first: int, last: int, inner: tuple[int, ...]) -> Iterator[Box]:
    for box in _cut(first, last, inner):
        yield Box((row, *box.start), (row + 1, *box.stop))


def result_bytes(program: Program, task: int, output: int) -> int:
    """Return the size of the result of ``task`` for ``output``; 0 where it owns nothing."""
    buffer = program.buffers[program.outputs[output]]
    return sum(box.elements for box in owned_boxes(program, task, output)) * DTYPE_BYTES[buffer.dtype]


def result_sizes(program: Program) -> Callable[[int], tuple[int, ...]]:
    """Return what gives ``result_bytes`` of all outputs of a task at once, cheaply where all tiles are whole."""
    outputs = range(len(program.outputs))
    if any(not program.buffers[index].tile for index in program.outputs):
        return lambda task: tuple(result_bytes(program, task, output) for output in outputs)
    blocks, tasks = program.launch.blocks(0), program.tasks
    whole: list[tuple[int, int] | None] = []  # number and bytes of the tiles, for each output
    for index in program.outputs:
        buffer = program.buffers[index]
        is_whole = all(length % step == 0 for length, step in zip(buffer.shape, buffer.tile, strict=True))
        tile_bytes = prod(buffer.tile) * DTYPE_BYTES[buffer.dtype]
        whole.append((prod(tile_counts(buffer)), tile_bytes) if is_whole else None)

    def sizes(task: int) -> tuple[int, ...]:
        first, last = task * blocks // tasks, (task + 1) * blocks // tasks
        return tuple(
            result_bytes(program, task, output) if tiles is None else _count(first, last, tiles[0]) * tiles[1]
            for output, tiles in enumerate(whole)
        )

    return sizes


def result_bytes_max(program: Program) -> int:
    """Return what no task's results exceed, all outputs together."""
    total = 0
    for index in program.outputs:
        buffer = program.buffers[index]
        if buffer.cut is not None:
            total += owned_bytes_max(program, buffer)
        elif buffer.tile:
            blocks = -(-program.launch.blocks(0) // program.tasks)
            total += min(blocks * prod(buffer.tile) * DTYPE_BYTES[buffer.dtype], buffer.size_bytes)
        else:
            total += buffer.size_bytes
    return total


def _count(first: int, last: int, tiles: int) -> int:
    """Return how many of the blocks [first, last) own one of so many tiles."""
    return max(0, min(last, tiles) - first)


def gather(program: Program, task: int, output: int, whole: "Array", into: "Array") -> None:
    """Copy what ``task`` owns of ``whole``, the output's array, into ``into`` (1-D, same dtype, canonical layout)."""
    at = 0
    for box in owned_boxes(program, task, output):
        into[at : at + box.elements].reshape(box.shape)[...] = whole[box.slices]
        at += box.elements


def scatter(program: Program, task: int, output: int, data: bytes | bytearray | memoryview, into: "Array") -> None:
    """Copy a task's result into its place in ``into``, the output's whole array.

    Raises:
        ValueError: ``data`` is not the size of this result, or ``into`` not of the output's shape and dtype.
    """
    import numpy as np

    buffer = program.buffers[program.outputs[output]]
    if into.shape != buffer.shape or into.dtype != numpy_dtype(buffer):
        raise ValueError(f"{buffer.name} is {buffer.dtype} {buffer.shape}, not {into.dtype} {into.shape}")
    if memoryview(data).nbytes != result_bytes(program, task, output):
        raise ValueError(f"a result of {memoryview(data).nbytes} bytes, expected {result_bytes(program, task, output)}")
    flat = np.frombuffer(data, numpy_dtype(buffer))
    at = 0
    for box in owned_boxes(program, task, output):
        into[box.slices] = flat[at : at + box.elements].reshape(box.shape)
        at += box.elements


def scatter_bytes(program: Program, task: int, output: int, data: bytes, into: bytearray | mmap) -> None:
    """Copy a task's result into its place in ``into``, the bytes of the output's whole array."""
    import numpy as np

    buffer = program.buffers[program.outputs[output]]
    scatter(program, task, output, data, np.frombuffer(into, numpy_dtype(buffer)).reshape(buffer.shape))


def follow_each_other(program: Program, index: int) -> bool:
    """Whether the results of all tasks for a buffer, one after the other, are the whole array in C order."""
    buffer = program.buffers[index]
    cut_first = buffer.cut is not None and buffer.cut.axis == 0
    return program.tasks == 1 or cut_first or len(buffer.shape) == 1


def numpy_dtype(buffer: Buffer) -> "np.dtype[Any]":
    """Return the buffer's little-endian NumPy dtype."""
    import numpy as np

    return np.dtype(buffer.dtype).newbyteorder("<")


def room_for(buffer: Buffer) -> "Array":
    """Return a new array of zeros for all of an output.

    Raises:
        ResourceError: this machine's memory does not hold it.
    """
    import numpy as np

    try:
        return np.zeros(buffer.shape, numpy_dtype(buffer))
    except MemoryError:
        raise ResourceError(
            f"{buffer.name} has {buffer.size_bytes >> 20:,} MiB, which the memory of this machine does not hold: run it"
            " on the mesh, and read what single tasks return (Future.in_order) or leave it on the node as an input of"
            " other jobs (Future.ref)"
        ) from None
