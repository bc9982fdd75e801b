"""Launches of elementwise and reduction kernels over large arrays, cut along the first axis instead of by blocks.

A task that is cut by blocks is given whole arrays, for a kernel may read anywhere. An elementwise kernel reads of its
arrays what belongs to its own elements, and one that reduces the last axes what belongs to its own rows, so that their
tasks do with these: they need no more memory than for them, and a lender is sent no others. The bits are the same.
What counts elements of the whole loop, or could (``i``, ``n``, ``_ind`` and their like, threads and blocks, names that
the preprocessor makes), or has raw arrays is cut by blocks, and so is what is small.
"""

import re
from collections.abc import Sequence
from math import prod
from typing import Any, Final

from depin_node.compute.programs.arguments import borrowed
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.generated.arguments import Argument, Arguments, broadcast, sort_arguments
from depin_node.compute.programs.generated.elementwise import ElementwiseKernel
from depin_node.compute.programs.generated.reduction import ReductionKernel, reduced_axes
from depin_node.compute.programs.kernel import Along, InOut
from depin_node.compute.programs.program import DTYPE_BYTES
from depin_node.compute.programs.program_arrays import check_shards

Axis = int | Sequence[int] | None
BYTES_MIN: Final = 8 << 20
"""Of the largest array: those of fewer bytes are sent whole anyway (``bootstrap/arriving.py``)."""
_WHOLE_LOOP: Final = re.compile(
    r"\b(i|n|_(?!_|J\b)\w*|threadIdx|blockIdx|blockDim|gridDim|warpSize|__shared__|atomic\w*"
    r"|__(sync|shfl|ballot|any|all|activemask|match|reduce)\w*)\b|##|%:%:|\w\\\r?\n\w"
)


def in_rows(
    kernel: ElementwiseKernel | ReductionKernel,
    args: Sequence[Any],
    shards: int,
    *,
    axis: Axis = None,
    keepdims: bool = False,
) -> ProgramBuilder | None:
    """Return the program of a launch whose tasks are rows; None if it is not to be cut so. ``axis``, ``keepdims``: of
    a reduction.

    Raises:
        ConfigError: the arguments do not fit, or it cannot be cut into so many.
    """
    check_shards(shards)
    if shards < 2 or kernel.options or any(map(_WHOLE_LOOP.search, _words(kernel))):
        return None
    arguments = sort_arguments(kernel.name, kernel.in_params, kernel.out_params, args)
    shape = _shape(kernel, arguments)
    if not shape or shape[0] < shards:
        return None
    result, options = shape, dict[str, Any]()
    if isinstance(kernel, ReductionKernel):
        reduced = reduced_axes(axis, len(shape), kernel.name)
        if 0 in reduced or reduced != tuple(range(len(shape) - len(reduced), len(shape))):
            return None
        result = (*shape[: len(shape) - len(reduced)], *(1,) * (len(reduced) if keepdims else 0))
        options = {"axis": reduced, "keepdims": keepdims}
    if any(argument.shape not in (None, result) for argument in arguments.outputs):
        return None
    program = ProgramBuilder(shards=shards, along=Along(0))
    given = [_given(program, argument, len(shape)) for argument in arguments.inputs]
    given += [program.out(argument.info.name, argument.dtype, result) for argument in arguments.outputs]
    program.launch(kernel, args=given, **options)
    return program


def _words(kernel: ElementwiseKernel | ReductionKernel) -> tuple[str, ...]:
    if isinstance(kernel, ReductionKernel):
        return kernel.map_expr, kernel.reduce_expr, kernel.post_map_expr, kernel.preamble
    return kernel.operation, kernel.preamble, kernel.loop_prep, kernel.after_loop


def _given(program: ProgramBuilder, argument: Argument, axes: int) -> Any:
    if argument.array is None:
        return argument.number
    has_rows = argument.array.ndim == axes and argument.array.shape[0] > 1
    return program.input(argument.info.name, borrowed(argument.array), cut=Along(0) if has_rows else None)


def _shape(kernel: ElementwiseKernel | ReductionKernel, arguments: Arguments) -> tuple[int, ...]:
    """Return the shape of a loop that can be cut into rows, or nothing."""
    everything = (*arguments.inputs, *arguments.outputs)
    if any(argument.info.raw or isinstance(argument.out, InOut) or _repeats(argument) for argument in everything):
        return ()
    shapes = arguments.looped(outputs=isinstance(kernel, ElementwiseKernel))
    shape = broadcast(shapes) if shapes else ()
    is_large = any(prod(shape) * DTYPE_BYTES[argument.dtype] >= BYTES_MIN for argument in everything)
    return shape if is_large else ()


def _repeats(argument: Argument) -> bool:
    """Tell whether an array repeats its elements: it is sent once by blocks, and would be copied out here."""
    array = argument.array
    return array is not None and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))
