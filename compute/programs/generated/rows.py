"""Launches of elementwise kernels over large arrays, cut along the first axis instead of by blocks.

A task that is cut by blocks is given whole arrays, for a kernel may read anywhere. An elementwise kernel reads of its
arrays what belongs to its own elements, so that its tasks do with their rows: they need no more memory than for these,
and a lender is sent no others. The results are the same. What counts elements of the whole loop (``i``, ``n``,
``_ind``) or has raw arrays is cut by blocks, and so is what is small.
"""

import re
from collections.abc import Sequence
from math import prod
from typing import Any, Final

from depin_node.compute.programs.arguments import borrowed
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.generated.arguments import Argument, Arguments, broadcast, sort_arguments
from depin_node.compute.programs.generated.elementwise import ElementwiseKernel
from depin_node.compute.programs.kernel import Along, InOut
from depin_node.compute.programs.program import DTYPE_BYTES
from depin_node.compute.programs.program_arrays import check_shards

BYTES_MIN: Final = 8 << 20
"""Of the largest array: those of fewer bytes are sent whole anyway (``bootstrap/arriving.py``)."""
_WHOLE_LOOP: Final = re.compile(r"\b(i|n|_ind)\b")


def in_rows(kernel: ElementwiseKernel, args: Sequence[Any], shards: int) -> ProgramBuilder | None:
    """Return the program of a launch whose tasks are rows; None if it is not to be cut so.

    Raises:
        ConfigError: the arguments do not fit, or it cannot be cut into so many.
    """
    check_shards(shards)
    words = (kernel.operation, kernel.preamble, kernel.loop_prep, kernel.after_loop)
    if shards < 2 or any(map(_WHOLE_LOOP.search, words)):
        return None
    arguments = sort_arguments(kernel.name, kernel.in_params, kernel.out_params, args)
    shape = _shape(arguments)
    if not shape or shape[0] < shards:
        return None
    program, given = ProgramBuilder(shards=shards, along=Along(0)), list[Any]()
    for argument in arguments.inputs:
        has_rows = argument.array is not None and argument.array.ndim == len(shape) and argument.array.shape[0] > 1
        cut = Along(0) if has_rows else None
        is_number = argument.array is None
        given.append(
            argument.number if is_number else program.input(argument.info.name, borrowed(argument.array), cut=cut)
        )
    given += [program.out(argument.info.name, argument.dtype, shape) for argument in arguments.outputs]
    program.launch(kernel, args=given)
    return program


def _shape(arguments: Arguments) -> tuple[int, ...]:
    """Return the shape of a loop that can be cut into rows, or nothing."""
    everything = (*arguments.inputs, *arguments.outputs)
    if any(argument.info.raw or isinstance(argument.out, InOut) or _repeats(argument) for argument in everything):
        return ()
    shapes = arguments.looped(outputs=True)
    shape = broadcast(shapes) if shapes else ()
    is_large = any(prod(shape) * DTYPE_BYTES[argument.dtype] >= BYTES_MIN for argument in everything)
    are_like = all(argument.shape in (None, shape) for argument in arguments.outputs)
    return shape if is_large and are_like else ()


def _repeats(argument: Argument) -> bool:
    """Tell whether an array repeats its elements: it is sent once by blocks, and would be copied out here."""
    array = argument.array
    return array is not None and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))
