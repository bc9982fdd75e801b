"""``ElementwiseKernel``, with the arguments of ``cupy.ElementwiseKernel``: one thread for each element of the loop.

The loop is over the shape that all arrays have together which are not raw, in C order. A block makes a tile of it
(``layout.py``); its thread t does element ``i = _first + t``:

    {loop_prep}
    if (element t is in the row) { x, y: values of inputs; z: a reference to the output's element; {operation} }
    {after_loop}

So ``continue``, ``break`` and ``return`` in the operation end that element; in CuPy a thread does several elements, and
the last two end them all. The bits of a result do not depend on how it is cut into shards.
"""

import re
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from depin_node.compute.programs.generated.arguments import Argument, Arguments, broadcast, sort_arguments
from depin_node.compute.programs.generated.layout import Axes, Blocks, compact, cut_into_blocks, merge_axes
from depin_node.compute.programs.generated.parameters import parse_parameters
from depin_node.compute.programs.generated.source import (
    Lowered,
    Signature,
    Text,
    blocks_head,
    checked_name,
    checked_text,
    declarations,
    generated_kernel,
    place,
    result_of,
)
from depin_node.compute.programs.generated.words import put_in_words
from depin_node.compute.programs.kernel import Launched, Out
from depin_node.compute.programs.program import DIMENSIONS_MAX
from depin_node.compute.programs.program_arrays import check_shards
from depin_node.core.errors import ConfigError

THREADS_MAX = 256
"""Of a block: with so few a GPU has registers for any kernel."""
ROW_MIN = 64
"""If arrays broadcast along rows at least this long, a block stays in one row, so that places need no divisions."""


class ElementwiseKernel(Launched):
    """A kernel for each element of arrays, with the arguments of ``cupy.ElementwiseKernel``.

    Args:
        in_params: ``'float32 x, T y, raw T z'``: dtypes, one-letter type variables, ``raw`` for arrays indexed by hand.
        out_params: likewise.
        operation: CUDA C for one element; may use the parameters, the index ``i`` (ptrdiff_t) and the loop's size
            ``n`` or ``_ind.size()``.
        name: of the kernel.
        reduce_dims: False keeps the loop's axes for ``_ind.get()[0]``, ….
        preamble: CUDA C before the kernel.
        no_return: refused; what is returned is the job's result.
        return_tuple: refused; one output is an array, several are a tuple.
        loop_prep: CUDA C before the loop.
        after_loop: CUDA C after the loop.
        options: ``-D``, ``-U`` and ``-std=``.

    Raises:
        ConfigError: saying which argument is wrong.
    """

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
        *,
        loop_prep: str = "",
        after_loop: str = "",
        options: Sequence[str] = (),
        **unknown: Any,
    ) -> None:
        refused = {"no_return": no_return, "return_tuple": return_tuple, **dict.fromkeys(unknown, True)}
        for argument, given in refused.items():
            if given:
                raise ConfigError(f"ElementwiseKernel: {argument} is not supported: {_WHY.get(argument, 'unknown')}")
        checked_text(operation=operation, preamble=preamble, loop_prep=loop_prep, after_loop=after_loop)
        self.name = checked_name(name, "ElementwiseKernel")
        self.in_params = parse_parameters(in_params, "in_params")
        self.out_params = parse_parameters(out_params, "out_params", self.in_params)
        if not self.out_params:
            raise ConfigError("out_params: a kernel without outputs does nothing")
        self.operation, self.preamble, self.reduce_dims = operation, preamble, bool(reduce_dims)
        self.loop_prep, self.after_loop, self.options = loop_prep, after_loop, tuple(options)

    def __repr__(self) -> str:
        return f"ElementwiseKernel({self.name!r})"

    def lower(self, args: Sequence[Any], *, size: int | None = None, shards: int = 1) -> Lowered:
        """Make a launch.

        Args:
            args: inputs, and outputs or none of them; see ``arguments.py``.
            size: of the loop; needed if, and only if, all arrays are raw.
            shards: into how many tasks the launch is to be cut.

        Raises:
            ConfigError: the arguments do not fit, or the loop cannot be cut so.
        """
        arguments = sort_arguments(self.name, self.in_params, self.out_params, args)
        shape = self._loop(arguments, size)
        blocks, axes, aligned = _plan(arguments, shape, shards, self.name)
        signature = Signature()
        order, looped = tuple(range(len(shape))), _looped(arguments)
        for argument in arguments.inputs:
            if argument.number is not None:
                signature.scalar(argument)
            else:
                assert argument.array is not None
                array = argument.array if argument.info.raw else compact(argument.array, order)
                signature.pointer(argument, array.reshape(-1))
        for argument in arguments.outputs:
            signature.pointer(argument, result_of(argument, shape, blocks, shards))
        text = self._text(signature, arguments, shape, axes, looped, aligned, blocks)
        kernel = generated_kernel(str(text), self.name, self.options, tuple(text.fragments))
        return Lowered(kernel, blocks.count, blocks.elements, tuple(signature.args))

    def _loop(self, arguments: Arguments, size: int | None) -> tuple[int, ...]:
        """Return the loop's shape."""
        shapes = arguments.looped(outputs=True)
        if size is not None:
            if shapes:
                raise ConfigError(f"{self.name}: size is for kernels whose arrays are all raw; the others decide it")
            if not isinstance(size, int | np.integer) or size < 1:
                raise ConfigError(f"{self.name}: size = {size!r}: expected a positive integer")
            shapes = [(int(size),)]
        if not shapes:
            raise ConfigError(f"{self.name}: no array decides the size of the loop, for all are raw: give size")
        shape = broadcast(shapes)
        for argument in arguments.outputs:
            if argument.out is None and argument.info.raw and size is None:
                name = argument.info.name
                raise ConfigError(
                    f"{self.name}: nothing decides the size of {name}, which is raw: give Out(dtype, shape)"
                )
            if argument.shape not in (None, shape) and not argument.info.raw:
                raise ConfigError(f"{argument.info.name} has the shape {argument.shape}, the loop {shape}")
            argument.out = argument.out or Out(argument.dtype, shape)
        if not prod(shape):
            raise ConfigError(f"{self.name}: the result of shape {shape} has no elements: there is nothing to compute")
        if len(shape) > DIMENSIONS_MAX:
            raise ConfigError(f"{self.name}: {len(shape)} axes; arrays can have {DIMENSIONS_MAX}")
        return shape

    def _text(
        self,
        signature: Signature,
        arguments: Arguments,
        shape: tuple[int, ...],
        axes: Axes,
        looped: list[Argument],
        aligned: bool,
        blocks: Blocks,
    ) -> Text:
        indexers = {"_ind": (shape, "_digit" if not self.reduce_dims or len(shape) == 1 else "")}
        words = {
            label: put_in_words(getattr(self, label), label, signature, arguments, indexers)
            for label in ("loop_prep", "operation", "after_loop")
        }
        head, body = blocks_head(signature, blocks), []
        for position, argument in enumerate(looped):
            name, c_type = argument.info.name, argument.info.c_type
            if aligned:
                start = place(signature, axes, position, name, "_first", "d")
                head.append(f"const ptrdiff_t _at_{name} = {start};")
                at = f"_at_{name} + threadIdx.x" if axes.strides[position][-1] else f"_at_{name}"
            else:
                at = place(signature, axes, position, name, "i", "d")
            head.append(f"const {c_type}* const _raw_{name} = {name};")
            body.append(f"const {c_type} {name} = _raw_{name}[{at}];")
        for argument in arguments.outputs:
            name, c_type = argument.info.name, argument.info.c_type
            if not argument.info.raw:
                head.append(f"{c_type}* const _raw_{name} = {name};")
                body.append(f"{c_type}& {name} = _raw_{name}[i];")
        body += _digits(signature, words["operation"], shape)
        taken = {argument.info.name for argument in (*arguments.inputs, *arguments.outputs)}
        if "n" not in taken and any(re.search(r"\bn\b", word) for word in words.values()):
            head.append(f"const ptrdiff_t n = {signature.number('_ind_size', prod(shape))};")
        once = re.search(r"\b(continue|break)\b", words["operation"])
        text = Text()
        text.add(declarations(arguments, self.preamble, *words.values()))
        text.user("preamble", self.preamble)
        row = signature.number("_row", blocks.row)
        indent = "\n    "
        text.add(f'extern "C" __global__ void {self.name}({indent}{signature}) {{{indent}{indent.join(head)}')
        if self.loop_prep.strip():
            text.user("loop_prep", words["loop_prep"], after=";")
        text.add(f"    if ((ptrdiff_t)_part * _per_block + threadIdx.x < {row}) {{")
        text.add(f"    const ptrdiff_t i = _first + threadIdx.x;{indent}{indent.join(body)}")
        text.user(
            "operation",
            words["operation"],
            "    do {" if once else "    {",
            ";\n    } while (0);" if once else ";\n    }",
        )
        text.add("    }")
        if self.after_loop.strip():
            text.user("after_loop", words["after_loop"], after=";")
        text.add("}")
        return text


_WHY = {
    "no_return": "the result is what the launch gives",
    "return_tuple": "one output comes back as an array, several as a tuple",
    "unknown": "it is no argument of this kernel",
}


def _looped(arguments: Arguments) -> list[Argument]:
    return [a for a in arguments.inputs if a.array is not None and not a.info.raw]


def _plan(arguments: Arguments, shape: tuple[int, ...], shards: int, name: str) -> tuple[Blocks, Axes, bool]:
    """Return the blocks, the merged axes, and whether a block keeps to one row of the last of them."""
    order = tuple(range(len(shape)))
    _, axes = merge_axes(shape, [compact(a.array, order).shape for a in _looped(arguments) if a.array is not None])
    size = prod(shape)
    check_shards(shards)
    if shards > size:
        raise ConfigError(f"{name}: {shards} shards of {size} elements: a shard has at least one")
    elements_max = min(THREADS_MAX, size // shards)
    broadcasts = any(axes.factor(position) is None for position in range(len(axes.strides)))
    if not broadcasts or axes.lengths[-1] < ROW_MIN:
        return cut_into_blocks(shape, elements_max), axes, False
    axis_min = next(axis for axis in order if prod(shape[axis:]) == axes.lengths[-1])
    return cut_into_blocks(shape, elements_max, axis_min=axis_min), axes, True


def _digits(signature: Signature, text: str, shape: tuple[int, ...]) -> list[str]:
    """Return the declarations of those digits of the index that the text uses."""
    lines = []
    for axis in range(len(shape)):
        if re.search(rf"\b_digit{axis}\b", text):
            digit = f"i / {signature.number(f'_inner{axis}', prod(shape[axis + 1 :]))}"
            if axis:
                digit += f" % {signature.number(f'_length{axis}', shape[axis])}"
            lines.append(f"const ptrdiff_t _digit{axis} = {digit};")
    return lines
