"""From a kernel, its launch and its arguments to a program and its inputs: one launch, the simplest program."""

from collections.abc import Mapping, Sequence
from typing import Any

from depin_node.compute.programs.arguments import borrowed
from depin_node.compute.programs.builder import Bound, ProgramBuilder
from depin_node.compute.programs.kernel import Along, RawKernel

__all__ = ["Bound", "bind"]


def bind(
    kernel: RawKernel,
    grid: Any,
    block: int | Sequence[int],
    args: Sequence[Any],
    *,
    shared_mem: int = 0,
    shards: int = 1,
    along: Along | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Bound:
    """Make a program of one launch.

    Args:
        kernel: what to run; compiled if it was not yet.
        grid: blocks along x, y, z.
        block: threads of a block along x, y, z.
        args: one for each parameter: an array, ``In``, ``Out`` or ``InOut`` for a pointer, a number for a scalar, a
            sequence of numbers for a vector type.
        shared_mem: dynamic shared memory of a block in bytes.
        shards: into how many tasks it is cut.
        along: how its arrays are cut; None: its blocks are.
        constants: by name, arrays for ``__constant__`` data.

    Raises:
        ConfigError: naming the argument, what was expected and what was found.
    """
    builder = ProgramBuilder(shards=shards, along=along)
    builder.launch(
        kernel, grid, block, [borrowed(argument) for argument in args], shared_mem=shared_mem, constants=constants
    )
    return builder.build()
