"""Who owns what: each element of each output belongs to one task.

Which block owns what (the *tile rule*, for programs cut by blocks): ``tile`` cuts an output into
``ceil(shape[k] / tile[k])`` tiles along each axis k; the last ones may be smaller. Tiles are numbered in C order (last
axis fastest), blocks as CUDA does (x fastest). Block number b owns tile number b; blocks beyond the last tile own
nothing. So a block (x, y) of a 2-D grid owns tile (y, x) of a 2-D output. Where both have two long axes or more, their
lengths have to be the same; where one of them has a single long axis, the numbers are all that counts.

Which slice owns what (programs cut along an axis): a task owns the rows of an output that its table says, and the halo
of an output is its own scratch.
"""

from itertools import pairwise
from math import prod

from depin_node.compute.programs.program import DTYPE_BYTES, Axis, Blocks, Buffer, Launch, Program
from depin_node.compute.programs.shards import tile_counts
from depin_node.core.errors import TaskRejected


def validate_tables(program: Program, shards: Axis) -> None:
    """Check the tables by which arrays are cut. Raises ``TaskRejected``."""
    for table in shards.tables:
        if len(table) != shards.count + 1 or table[0] != 0:
            raise TaskRejected(f"a table of {shards.count} tasks has {shards.count + 1} numbers, the first one 0")
        if any(stop <= start for start, stop in pairwise(table)):
            raise TaskRejected("a task owns no row: the numbers of a table ascend")
    used = {buffer.cut.table for buffer in program.buffers if buffer.cut is not None}
    if used != set(range(len(shards.tables))):
        raise TaskRejected(f"{len(shards.tables)} tables, the arrays name {sorted(used)}")


def validate_cut(program: Program, buffer: Buffer) -> None:
    """Check how one array is cut, if it is. Raises ``TaskRejected``."""
    cut = buffer.cut
    if cut is None:
        return
    if not isinstance(program.shards, Axis):
        raise TaskRejected(f"{buffer.name} is cut along an axis, the program by blocks")
    if cut.axis >= len(buffer.shape):
        raise TaskRejected(f"{buffer.name} is cut along axis {cut.axis} and has {len(buffer.shape)}")
    length, table = buffer.shape[cut.axis], program.shards.tables[cut.table]
    if table[-1] != length:
        raise TaskRejected(f"{buffer.name} has {length} rows, its table ends at {table[-1]}")
    most = length - 1 if cut.edge == "reflect" else length
    if cut.halo > most:
        raise TaskRejected(f"{buffer.name} has {length} rows: a halo of {cut.halo} is more than {cut.edge} can fill")
    if len(cut.fill) != (DTYPE_BYTES[buffer.dtype] if cut.edge == "constant" else 0):
        raise TaskRejected(f"{buffer.name}: the fill of edge {cut.edge} has {len(cut.fill)} bytes")


def validate_ownership(program: Program, buffer: Buffer) -> None:
    """Check that each element of an output has one owner. Raises ``TaskRejected``."""
    if buffer.tile and not buffer.is_output:
        raise TaskRejected(f"{buffer.role} array {buffer.name} has a tile: only outputs have owners")
    if isinstance(program.shards, Blocks):
        _validate_tile(program, buffer)
    elif buffer.tile:
        raise TaskRejected(f"output {buffer.name} has a tile, the program is cut along an axis")
    elif buffer.is_output and buffer.cut is None and program.tasks > 1:
        raise TaskRejected(f"output {buffer.name} is not cut, so {program.tasks} tasks would own it")


def _validate_tile(program: Program, buffer: Buffer) -> None:
    launch = program.steps[0]
    if len(program.steps) > 1 or not isinstance(launch, Launch):
        if program.tasks > 1:
            raise TaskRejected(
                "a program of several steps cannot be cut by blocks, which would have to wait for each other: "
                "cut its arrays along an axis, or use one shard"
            )
        if buffer.tile:
            raise TaskRejected(f"output {buffer.name} has a tile, which is for a single launch")
        return
    if program.tasks > launch.blocks(0):
        raise TaskRejected(f"{program.tasks} shards of {launch.blocks(0)} blocks: a shard has at least one block")
    if program.tasks > 1 and buffer.role == "temp":
        raise TaskRejected(f"temp array {buffer.name}: shards of one launch share no memory, use one shard")
    if not buffer.tile:
        if program.tasks > 1 and buffer.is_output:
            raise TaskRejected(
                f"output {buffer.name} has no tile, so its one owner needs the whole launch: "
                "say which part a block owns (tile), or use one shard"
            )
        return
    if len(buffer.tile) != len(buffer.shape):
        raise TaskRejected(f"output {buffer.name}: tile {buffer.tile} and shape {buffer.shape} differ in dimensions")
    if any(step > length for step, length in zip(buffer.tile, buffer.shape, strict=True)):
        raise TaskRejected(f"output {buffer.name}: tile {buffer.tile} is larger than its shape {buffer.shape}")
    counts, grid = tile_counts(buffer), launch.grid(0)
    if prod(counts) > prod(grid):
        raise TaskRejected(
            f"output {buffer.name}: {prod(counts)} tiles of {buffer.tile}, but only {prod(grid)} blocks to own them"
        )
    long_tiles = [count for count in counts if count > 1]
    long_grid = [length for length in reversed(grid) if length > 1]
    if len(long_tiles) > 1 and len(long_grid) > 1 and long_tiles != long_grid:
        raise TaskRejected(
            f"output {buffer.name}: its tiles form a grid of {counts}, the launch one of {grid[::-1]} (z, y, x)"
        )
