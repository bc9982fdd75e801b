"""``ReductionKernel``, with the arguments of ``cupy.ReductionKernel``, and the order in which it adds up.

One element of the result is made of the m elements that ``axis`` reduces, in C order, by L *lanes*; L is the
largest power of two up to m / 4 and 256, at least 1, so it depends on m alone. With v[j] the mapped elements and + the
reduction:

    s[t] = (((identity + v[t]) + v[t + L]) + v[t + 2·L]) + …     for each lane t
    for h = L/2, L/4, … 1:   s[t] = s[t] + s[t + h]              for each t < h
    result = post_map(s[0])

This order is part of the program, so the bits are the same however it is cut into shards, and on every device. Without
an identity (None) a lane begins with v[t]; CuPy begins with zero, which is wrong for a maximum of negative numbers.

A block of at most 256 threads makes neighbouring elements, their lanes as threads with a tree in shared memory. Where
there is no GPU (``__DEPIN__``) the first lane does the work of all, in the same order: compilers turn that into SIMD,
and nobody waits. ``-DDEPIN_THREADS`` asks for the threads there too, to compare.

A full reduction is one element, so one block and one task: it runs on one machine. To spread it over many, reduce
``x.reshape(k, -1)`` with ``axis=1`` in k shards, and the k results in a second launch.
"""

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from depin_node.compute.programs.generated.arguments import Argument, Arguments, broadcast, sort_arguments
from depin_node.compute.programs.generated.layout import Axes, Blocks, compact, cut_into_blocks, merge_axes
from depin_node.compute.programs.generated.parameters import C_TYPES, parse_parameters
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

LANES_MAX = 256
INDEX_MAX = 2**31 - 1
"""Indices have 32 bits where sums with them stay below it too: wider ones are checked at every use (``ranges.py``)."""
_PLACES = {"_J": "IndexT", "_i": "ptrdiff_t", "_j": "ptrdiff_t"}
"""CuPy's names, which map_expr may use: which of its m elements this is, of which result, and the two as one index."""


class ReductionKernel(Launched):
    """A kernel that reduces arrays along axes, with the arguments of ``cupy.ReductionKernel``.

    Args:
        in_params: as of ``ElementwiseKernel``.
        out_params: likewise.
        map_expr: a C expression of the inputs: what is reduced.
        reduce_expr: of ``a`` and ``b``, both ``reduce_type``: their reduction.
        post_map_expr: of ``a``, the reduced value; assigns the outputs.
        identity: C text or a number that a reduction begins with; None: with the first elements.
        name: of the kernel.
        reduce_type: C type of ``a`` and ``b``; by default that of the first output.
        reduce_dims: without effect: it is CuPy's way to be faster.
        preamble: CUDA C before the kernel.
        options: ``-D``, ``-U`` and ``-std=``.

    Raises:
        ConfigError: saying which argument is wrong.
    """

    def __init__(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: str | int | float | None,
        name: str = "reduce_kernel",
        reduce_type: str | None = None,
        reduce_dims: bool = True,
        preamble: str = "",
        options: Sequence[str] = (),
    ) -> None:
        checked_text(map_expr=map_expr, reduce_expr=reduce_expr, post_map_expr=post_map_expr, preamble=preamble)
        self.name = checked_name(name, "ReductionKernel")
        self.in_params = parse_parameters(in_params, "in_params")
        self.out_params = parse_parameters(out_params, "out_params", self.in_params)
        if not self.in_params or not self.out_params:
            raise ConfigError("a reduction needs at least one parameter in in_params, and one in out_params")
        if any(info.name in ("a", "b") for info in self.out_params):
            raise ConfigError("out_params: a and b are the reduced values: call the output something else")
        if any(info.raw for info in self.out_params):
            raise ConfigError("out_params: raw outputs are not supported in a reduction: its axes decide their shape")
        self.map_expr, self.reduce_expr, self.post_map_expr = map_expr, reduce_expr, post_map_expr
        self.identity = "" if identity is None else _literal(identity)
        self.reduce_type = self.out_params[0].c_type if reduce_type is None else reduce_type
        checked_text(reduce_type=self.reduce_type)
        self.reduce_dims, self.preamble, self.options = bool(reduce_dims), preamble, tuple(options)

    def __repr__(self) -> str:
        return f"ReductionKernel({self.name!r})"

    def lower(
        self,
        args: Sequence[Any],
        *,
        axis: int | Sequence[int] | None = None,
        keepdims: bool = False,
        shards: int = 1,
    ) -> Lowered:
        """Make a launch.

        Args:
            args: inputs, and outputs or none of them; see ``arguments.py``.
            axis: to reduce along; None: all.
            keepdims: leave the reduced axes in the result, with length 1.
            shards: into how many tasks the launch is to be cut.

        Raises:
            ConfigError: the arguments do not fit, or the result cannot be cut so.
        """
        arguments = sort_arguments(self.name, self.in_params, self.out_params, args)
        shapes = arguments.looped(outputs=False)
        if not shapes:
            raise ConfigError(f"{self.name}: no array decides what is reduced: give one that is not raw")
        shape = broadcast(shapes)
        reduced = reduced_axes(axis, len(shape), self.name)
        kept = tuple(k for k in range(len(shape)) if k not in reduced)
        if any(a.info.raw and a.array is not None for a in arguments.inputs) and reduced != tuple(range(len(reduced))):
            raise ConfigError(f"{self.name}: with a raw input the reduced axes have to come first, as in CuPy: 0, 1, …")
        result = tuple(1 if k in reduced else shape[k] for k in range(len(shape)) if keepdims or k in kept)
        self._check(arguments, shape, result, shards)
        count, size = prod(shape[k] for k in reduced), prod(result)
        lanes = _lanes(count)
        blocks = cut_into_blocks(result, max(1, min(LANES_MAX // lanes, size // shards)))
        signature = Signature()
        looped = [a for a in arguments.inputs if a.array is not None and not a.info.raw]
        arrays = [compact(a.array, (*kept, *reduced)) for a in looped if a.array is not None]
        for argument in arguments.inputs:
            if argument.number is not None:
                signature.scalar(argument)
            elif argument.info.raw:
                assert argument.array is not None
                signature.pointer(argument, argument.array.reshape(-1))
            else:
                array = arrays[looped.index(argument)]
                signature.pointer(argument, array.reshape(-1) if array.size else np.zeros(1, array.dtype))
        for argument in arguments.outputs:
            argument.out = argument.out or Out(argument.dtype, result)
            signature.pointer(argument, result_of(argument, result, blocks, shards))
        axes = merge_axes([shape[k] for k in (*kept, *reduced)], [array.shape for array in arrays], len(kept))
        text = Text()
        calls = self._functions(text, signature, arguments, shape, result)
        text.add(
            _kernel(
                self.name,
                signature,
                looped,
                arguments,
                axes,
                blocks,
                calls,
                _Order(lanes, count, self.identity, self.reduce_type in {*C_TYPES.values(), *arguments.variables}),
            )
        )
        kernel = generated_kernel(str(text), self.name, self.options, tuple(text.fragments))
        return Lowered(kernel, blocks.count, blocks.elements * lanes, tuple(signature.args))

    def _check(self, arguments: Arguments, shape: tuple[int, ...], result: tuple[int, ...], shards: int) -> None:
        if len(shape) > DIMENSIONS_MAX:
            raise ConfigError(f"{self.name}: {len(shape)} axes; arrays can have {DIMENSIONS_MAX}")
        if not prod(result):
            raise ConfigError(f"{self.name}: the result of shape {result} has no elements: there is nothing to compute")
        if not prod(shape) and not self.identity:
            raise ConfigError(f"{self.name}: an array of shape {shape} has nothing to reduce, and there is no identity")
        for argument in arguments.outputs:
            if argument.shape not in (None, result):
                raise ConfigError(f"{argument.info.name} has the shape {argument.shape}, the result {result}")
        check_shards(shards)
        if shards > prod(result):
            raise ConfigError(
                f"{self.name}: {shards} shards of a result of {prod(result)} elements: a shard makes at least one. "
                "To spread a full reduction, reduce x.reshape(k, -1) along axis 1, then the k results"
            )

    def _functions(
        self, text: Text, signature: Signature, arguments: Arguments, shape: tuple[int, ...], result: tuple[int, ...]
    ) -> "_Calls":
        """Write the user's expressions as the functions ``_map``, ``_reduce`` and ``_post``."""
        indexers = {"_in_ind": (shape, ""), "_out_ind": (result, "")}
        map_expr, reduce_expr, post_map_expr = (
            put_in_words(getattr(self, label), label, signature, arguments, indexers)
            for label in ("map_expr", "reduce_expr", "post_map_expr")
        )
        elements, shared = [], {}
        for argument in arguments.inputs:
            name, c_type = argument.info.name, argument.info.c_type
            if argument.number is not None:
                shared[name] = f"const {c_type} {name}"
            elif argument.info.raw:
                shared[name] = f"const {c_type}* const {name}"
            else:
                elements.append(f"const {c_type} {name}")
        shared |= {name: f"const {c_type} {name}" for name, c_type in signature.numbers.items()}
        places = {name: kind for name, kind in _PLACES.items() if re.search(rf"\b{name}\b", map_expr)}
        if "_j" in places:
            signature.number("_results", prod(result))
        others = {name: declaration for name, declaration in shared.items() if name not in ("a", "b")}
        outputs = [f"{a.info.c_type}& {a.info.name}" for a in arguments.outputs]
        function, join = "__device__ __forceinline__", ", ".join
        fragments = (self.preamble, self.reduce_type, map_expr, reduce_expr, post_map_expr, self.identity)
        text.add(declarations(arguments, *fragments))
        text.add(f"typedef {'int' if prod(shape) // prod(result) <= INDEX_MAX else 'long long'} IndexT;")
        text.user("preamble", self.preamble)
        text.user("reduce_type", self.reduce_type, "typedef", "_type_reduce;")
        declared = join([*elements, *shared.values(), *(f"const {kind} {name}" for name, kind in places.items())])
        text.add(f"{function} _type_reduce _map({declared}) {{")
        text.user("map_expr", map_expr, "return static_cast<_type_reduce>(", ");\n}")
        declared = join(["const _type_reduce a", "const _type_reduce b", *others.values()])
        text.add(f"{function} _type_reduce _reduce({declared}) {{")
        text.user("reduce_expr", reduce_expr, "return (", ");\n}")
        text.add(
            f"{function} void _post({join(['_type_reduce a', *others.values(), *outputs, 'const ptrdiff_t _i'])}) {{"
        )
        text.user("post_map_expr", post_map_expr, after=";\n}")
        return _Calls(tuple(shared), tuple(places), tuple(others))


@dataclass(frozen=True)
class _Calls:
    """What the user's functions take beside their operands: names of the kernel's parameters, and places."""

    map: tuple[str, ...]
    places: tuple[str, ...]
    others: tuple[str, ...]

    def mapped(self, loads: Sequence[str], index: str) -> str:
        """Return the call that maps the element ``index`` of a reduction."""
        values = {"_J": f"(IndexT)({index})", "_i": "_i", "_j": f"(ptrdiff_t)({index}) * _results + _i"}
        return f"_map({', '.join([*loads, *self.map, *(values[name] for name in self.places)])})"

    def reduced(self, left: str, right: str) -> str:
        """Return the call that reduces two values to one."""
        return f"_reduce({', '.join([left, right, *self.others])})"


class _Order(NamedTuple):
    """What the order of a reduction depends on."""

    lanes: int
    elements: int
    identity: str
    plain: bool
    """The type of what is reduced is a number's."""


def _kernel(
    name: str,
    signature: Signature,
    looped: Sequence[Argument],
    arguments: Arguments,
    axes: tuple[Axes, Axes],
    blocks: Blocks,
    calls: _Calls,
    order: _Order,
) -> str:
    """Return the kernel: the order of the module's docstring, by the lanes in turn and by threads."""
    lanes, index_type = order.lanes, "int" if order.elements <= INDEX_MAX - LANES_MAX else "long long"
    m = signature.number("_count", order.elements, index_type)
    head = blocks_head(signature, blocks, lanes)
    row = signature.number("_row", blocks.row)
    inner = {a.info.name: place(signature, axes[1], k, a.info.name, "@", "r") for k, a in enumerate(looped)}
    starts = [
        f"const {a.info.c_type}* const _{n}_row = {n} + {place(signature, axes[0], k, n, '_i', 'o')};"
        for k, (n, a) in enumerate(zip(inner, looped, strict=True))
    ]

    def mapped(index: str) -> str:
        return calls.mapped([f"_{n}_row[{at.replace('@', index)}]" for n, at in inner.items()], index)

    def start(lane: str) -> str:
        return f"_type_reduce({order.identity})" if order.identity else mapped(lane)

    def array(where: str, name: str, length: int) -> str:
        if order.plain:
            return f"{where}_type_reduce {name}[{length}];"
        return (  # objects with constructors cannot be shared, nor begin as anything
            f"{where}__align__(16) char {name}_bytes[{length} * sizeof(_type_reduce)];\n"
            f"    _type_reduce* const {name} = reinterpret_cast<_type_reduce*>({name}_bytes);"
        )

    outputs = [f"{a.info.name}[_i]" for a in arguments.outputs]
    post = f"_post({', '.join(['@', *calls.others, *outputs, '_i'])});"
    first = 0 if order.identity else lanes
    body = "\n    ".join([*head, "const ptrdiff_t _i = _first + _member;", *starts])
    return f"""
extern "C" __global__ void {name}(
    {signature}) {{
    const int _lane = threadIdx.x % {lanes}, _member = threadIdx.x / {lanes};
    {body}
    const bool _mine = (ptrdiff_t)_part * _per_block + _member < {row};
    {index_type} _k = {first};
#if defined(__DEPIN__) && !defined(DEPIN_THREADS)
    if (_lane != 0 || !_mine) return;
    {array("", "_s", lanes)}
    for (int _t = 0; _t < {lanes}; ++_t) _s[_t] = {start("_t")};
    for (; _k <= {m} - {lanes}; _k += {lanes})
        for (int _t = 0; _t < {lanes}; ++_t) _s[_t] = {calls.reduced("_s[_t]", mapped("(_k + _t)"))};
    for (int _t = 0; _t < {m} - _k; ++_t) _s[_t] = {calls.reduced("_s[_t]", mapped("(_k + _t)"))};
    for (int _half = {lanes} / 2; _half > 0; _half /= 2)
        for (int _t = 0; _t < _half; ++_t) _s[_t] = {calls.reduced("_s[_t]", "_s[_t + _half]")};
    {post.replace("@", "_s[0]")}
#else
    {array("__shared__ ", "_shared", LANES_MAX)}
    _type_reduce* const _own = _shared + _member * {lanes};
    if (_mine) {{
        _type_reduce _v = {start("_lane")};
        for (; _k < {m} - _lane; _k += {lanes}) _v = {calls.reduced("_v", mapped("(_k + _lane)"))};
        _own[_lane] = _v;
    }}
    __syncthreads();
    for (int _half = {lanes} / 2; _half > 0; _half /= 2) {{
        if (_mine && _lane < _half) _own[_lane] = {calls.reduced("_own[_lane]", "_own[_lane + _half]")};
        __syncthreads();
    }}
    if (_mine && _lane == 0) {post.replace("@", "_own[0]")}
#endif
}}"""


def _lanes(count: int) -> int:
    """Return how many lanes reduce ``count`` elements."""
    return 1 << max(0, min(count // 4, LANES_MAX).bit_length() - 1)


def reduced_axes(axis: int | Sequence[int] | None, ndim: int, name: str) -> tuple[int, ...]:
    """Return the axes to reduce, ascending. Raises ``ConfigError``: there is none such."""
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    try:
        found = [operator.index(k) for k in given]
    except TypeError:
        raise ConfigError(f"{name}: axis = {axis!r}: expected an integer, a tuple of integers or None") from None
    for k in found:
        if not -ndim <= k < ndim:
            raise ConfigError(f"{name}: axis {k} of an array with {ndim} axes")
    unique = sorted({k % ndim for k in found})
    if len(unique) < len(found):
        raise ConfigError(f"{name}: axis = {axis!r} names an axis twice")
    return tuple(unique)


def _literal(identity: str | int | float) -> str:
    """Return an identity as C text."""
    if isinstance(identity, str):
        return identity.strip()
    if isinstance(identity, bool):
        return str(identity).lower()
    if not isinstance(identity, int | float) or identity != identity:
        raise ConfigError(f"identity = {identity!r}: expected C text, a number or None")
    return str(identity) if math.isfinite(identity) else ("INFINITY" if identity > 0 else "-INFINITY")
