"""The text of a kernel with its launch, and elementwise kernels: one thread for each element.

Where the index is needed axis by axis and rows are long, a block keeps to one row, so that places along it need no
divisions. Reductions, scans and sorts (in modules of their own) read their input by a function, ``mapping``: what is
computed on the way to it needs no memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.emit import WIDE_MIN, Body
from depin_node.compute.programs.arrays.indices import VIEWS, Index, source_index
from depin_node.compute.programs.generated.parameters import C_TYPES

THREADS: Final = 256
"""Of a block."""
ROW_MIN: Final = 64
"""Rows at least so long keep their blocks to themselves, where places along them need digits."""
InMemory = Callable[[Array], bool]


@dataclass(frozen=True)
class Text:
    """A kernel without a name, and its launch.

    Attributes:
        code: ``@`` stands for its name.
        reads: the arrays behind its first parameters, in order.
        scalars: the numbers behind those that follow.
        helpers: names of ``words.HELPERS`` that it calls.
        grid: blocks along x.
        block: threads along x.
    """

    code: str
    reads: tuple[Array, ...]
    scalars: tuple[float, ...]
    helpers: frozenset[str]
    grid: int
    block: int


def wide(*sizes: int) -> bool:
    """Whether arrays of these sizes need indices of 64 bits."""
    return max(sizes) >= WIDE_MIN // 2


def _value(body: Body, array: Array, index: Index) -> str:
    """Return the value of ``array``, which is computed here even though it will lie in memory."""
    if array.op in VIEWS:
        return body.value(array.inputs[0], source_index(array, index, body.let))
    return body.computed(array, index)


def elementwise(
    array: Array, in_memory: InMemory, sizes: Sequence[int], *, into: tuple[Array, int] | None = None
) -> Text:
    """Return the kernel that computes every element of an array.

    Args:
        array: what to compute.
        in_memory: tells which arrays lie in memory.
        sizes: of the arrays it may read.
        into: an array to write it into, as a part of it along this axis; the kernel takes the offset as its last
            parameter. By default its own.
    """
    shape = array.shape
    body = Body(in_memory, wide=wide(array.size, *sizes, into[0].size if into else 0))
    number = _elementwise(body, array, Index(shape, body.let, flat=lambda: "i"), into)
    long = [axis for axis, length in enumerate(shape) if length > 1]
    last = shape[long[-1]] if long else 1
    c, kind = body.index_type, C_TYPES[array.kind]
    if body.uses_digits and len(long) > 1 and last >= ROW_MIN:
        body = Body(in_memory, wide=body.index_type != "int")
        threads = min(THREADS, -(-last // 32) * 32)
        parts = -(-last // threads)
        outer = tuple(1 if axis == long[-1] else length for axis, length in enumerate(shape))

        def digits() -> list[str]:
            rows = list(Index(outer, body.let, flat=lambda: "r").digits)
            rows[long[-1]] = "c"
            return rows

        number = _elementwise(body, array, Index(shape, body.let, flat=lambda: "i", digits=digits), into)
        head = [
            f"const {c} r = ({c})(blockIdx.x / {parts}u);",
            f"const {c} c = ({c})(blockIdx.x % {parts}u * {threads}u + threadIdx.x);",
            f"if (c < {last}) {{",
            f"const {c} i = r * {last} + c;",
        ]
        grid = prod(outer) * parts
    else:
        threads = THREADS
        grid = -(-array.size // threads)
        head = [f"const {c} i = ({c})blockIdx.x * {threads} + ({c})threadIdx.x;", f"if (i < {array.size}) {{"]
    parameters = [*body.declarations, f"{kind}* __restrict__ o", *([f"const {c} offset"] if into else ())]
    return kernel_text(body, parameters, [*head, *body.lines, number, "}"], grid, threads)


def _elementwise(body: Body, array: Array, index: Index, into: tuple[Array, int] | None) -> str:
    value = _value(body, array, index) if into is None else body.value(array, index)
    if into is None:
        return f"o[i] = ({C_TYPES[array.kind]})({value});"
    whole, axis = into
    if prod(whole.shape[:axis]) == 1:
        return f"o[i + offset * {prod(whole.shape[axis + 1 :])}] = {value};"
    digits = list(index.digits)
    digits[axis] = f"({digits[axis]} + offset)"
    place = Index(whole.shape, body.let, digits=digits.copy).flat
    return f"o[{place}] = {value};"


def kernel_text(
    body: Body, parameters: Sequence[str], lines: Sequence[str], grid: int, block: int, before: str = ""
) -> Text:
    """Return a kernel of parameters and lines, with ``before`` in front of it."""
    inner = "\n    ".join(lines)
    code = f'{before}extern "C" __global__ void @({", ".join(parameters)}) {{\n    {inner}\n}}\n'
    scalars = tuple(value for _, value in body.scalars)
    return Text(code, tuple(body.reads), scalars, frozenset(body.helpers), grid, block)


def mapping(body: Body, array: Array, rows: int, length: int) -> str:
    """Return the function ``@_map`` that gives element k of row i of an array, seen as a matrix."""
    index = Index((rows, length), body.let, flat=lambda: f"(i * {length} + k)", digits=["i", "k"].copy)
    matrix = Array("reshape", (array,), {}, array.kind, (rows, length))
    value = body.value(matrix, index)
    c, lines = body.index_type, "\n    ".join(body.lines)
    parameters = ", ".join([*body.declarations, f"const {c} i", f"const {c} k"])
    function = "static __device__ __forceinline__"
    kind = C_TYPES[array.kind]
    return f"{function} {kind} @_map({parameters}) {{\n    {lines}\n    return {value};\n}}\n"
