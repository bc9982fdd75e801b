"""Merging the partial results of tasks into one, where the requester is: always the same tree, so always the same bits.

Each output of a program that combines is *partial*: of n tasks each owns one row of its first axis. ``combine`` is some
launches that merge the rows of one task into those of another: in their arguments, buffer 2·p is the row of output p
that is merged into (read and written), buffer 2·p + 1 the row that is merged (read only).

The tree, for n rows: for a stride of 1, 2, 4, … below n, and rows i = 0, 2·stride, 4·stride, …, row i + stride is
merged into row i if there is one. Row 0 is the result. The order in which results arrive does not matter: it begins
when all are there.
"""

from collections.abc import Iterator
from math import prod

from msgspec.structs import replace

from depin_node.compute.programs.program import Axis, Blocks, Buffer, Launch, Offset, Program, Scalar
from depin_node.core.errors import TaskRejected

MERGES_MAX = 4096
"""Launches of one tree."""


def pair(program: Program) -> Program:
    """Return what one merge is, as a program of its own: what it may do is what that may.

    Raises:
        TaskRejected: the outputs are not partial, or there are too many tasks.
    """
    buffers = []
    for row in _rows(program):
        buffers += [row, replace(row, name=f"{row.name[:250]} from", role="in")]
    if (program.tasks - 1) * len(program.combine) > MERGES_MAX:
        raise TaskRejected(
            f"{program.tasks} tasks cannot be combined: at most {MERGES_MAX // len(program.combine) + 1}"
        )
    return _with(program, tuple(buffers), program.combine)


def tree(program: Program) -> Program:
    """Return the program of one task that merges all rows, in place: its arrays are the outputs, whole."""
    rows, tasks = _rows(program), program.tasks
    steps = [
        _placed(launch, rows, into, into + stride)
        for into, stride in _merges(tasks)
        for launch in program.combine
    ]  # fmt: skip
    buffers = tuple(replace(row, shape=(tasks, *row.shape)) for row in rows)
    return _with(program, buffers, tuple(steps))


def _merges(tasks: int) -> Iterator[tuple[int, int]]:
    stride = 1
    while stride < tasks:
        for into in range(0, tasks - stride, 2 * stride):
            yield into, stride
        stride *= 2


def _rows(program: Program) -> list[Buffer]:
    """Return one task's row of each output."""
    rows = []
    for index in program.outputs:
        buffer, cut = program.buffers[index], program.buffers[index].cut
        single = tuple(range(program.tasks + 1))
        shards = program.shards
        if cut is None or cut.axis or not isinstance(shards, Axis) or shards.tables[cut.table] != single:
            raise TaskRejected(f"output {buffer.name} is not partial, with a row for each task: it cannot be combined")
        rows.append(Buffer(buffer.name, "inout", buffer.dtype, buffer.shape[1:], (), None))
    return rows


def _with(program: Program, buffers: tuple[Buffer, ...], steps: tuple[Launch, ...]) -> Program:
    """Return a program of these steps, with the kernels and units that they use and no others."""
    if any(launch.kernel >= len(program.kernels) for launch in steps):
        raise TaskRejected(f"combine names a kernel that is not there: there are {len(program.kernels)}")
    kernels = sorted({launch.kernel for launch in steps})
    units = sorted({program.kernels[kernel].unit for kernel in kernels})
    if any(unit >= len(program.units) for unit in units):
        raise TaskRejected("combine names a kernel of a unit that is not there")
    return Program(
        program.version,
        tuple(program.units[unit] for unit in units),
        tuple(replace(program.kernels[k], unit=units.index(program.kernels[k].unit)) for k in kernels),
        buffers,
        tuple(replace(launch, kernel=kernels.index(launch.kernel)) for launch in steps),
        Blocks(1),
        (),
    )


def _placed(launch: Launch, rows: list[Buffer], into: int, merged: int) -> Launch:
    """Return a launch of ``combine`` for two rows."""

    def place(argument: int | Scalar | Offset) -> Scalar | Offset:
        if isinstance(argument, Scalar):
            return argument
        index, elements = (argument.buffer, argument.elements) if isinstance(argument, Offset) else (argument, 0)
        output, is_merged = divmod(index, 2)
        row = merged if is_merged else into
        return Offset(output, row * prod(rows[output].shape) + elements)

    return replace(launch, args=tuple(place(argument) for argument in launch.args))


def combined(program: Program, position: int) -> Buffer:
    """Return output number ``position`` of ``program.outputs`` as its user sees it."""
    buffer = program.buffers[program.outputs[position]]
    return replace(buffer, shape=buffer.shape[1:], cut=None) if program.combine else buffer
