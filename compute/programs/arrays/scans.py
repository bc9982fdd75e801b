"""Scans (cumulative sums and products) along the last axis of a matrix.

They are sequential within chunks of ``CHUNK`` elements, one thread for each; the chunks' totals are added up one after
the other, then added to the elements of the chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.emit import Body, literal
from depin_node.compute.programs.arrays.kernels import THREADS, InMemory, Text, kernel_text, mapping, wide
from depin_node.compute.programs.arrays.reductions import REDUCTIONS
from depin_node.compute.programs.generated.parameters import C_TYPES

CHUNK: Final = 4096


@dataclass(frozen=True)
class ScanTexts:
    """The kernels of a scan; ``totals`` and ``add`` only if rows have several chunks."""

    chunks: Text
    totals: Text | None
    add: Text | None
    parts: int


def scan(array: Array, in_memory: InMemory, sizes: Sequence[int]) -> ScanTexts:
    """Return the kernels of a ``scan`` along the last axis of a matrix.

    Their parameters after what they read: ``chunks`` takes the result; ``totals`` the result and the totals, an array
    of (rows, parts); ``add`` the totals and the result.
    """
    (source,) = array.inputs
    rows, length = source.shape
    body = Body(in_memory, wide=wide(*sizes, source.size))
    before = mapping(body, source, rows, length)
    identity, join = REDUCTIONS[array.attributes["reduction"]]
    assert isinstance(join, str)
    c, kind = body.index_type, C_TYPES[array.kind]
    reads = body.arguments
    start = literal(identity or 0, array.kind)
    parts = -(-length // CHUNK)
    joined = f"({kind}){join.format(a='s', b=f'@_map({reads}i, k)')}"
    chunks = kernel_text(
        body,
        [*body.declarations, f"{kind}* __restrict__ o"],
        [
            f"const {c} thread = ({c})blockIdx.x * {THREADS} + ({c})threadIdx.x;",
            f"if (thread < {rows * parts}) {{",
            f"const {c} i = thread / {parts}, first = thread % {parts} * {CHUNK};",
            f"const {c} last = first + {CHUNK} < {length} ? first + {CHUNK} : {length};",
            f"{kind} s = {start};",
            f"for ({c} k = first; k < last; ++k) {{ s = {joined}; o[i * {length} + k] = s; }}",
            "}",
        ],
        -(-rows * parts // THREADS),
        THREADS,
        before,
    )
    if parts == 1:
        return ScanTexts(chunks, None, None, parts)
    none = Body(in_memory, wide=c != "int")
    step = f"({kind}){join.format(a='s', b=f'o[i * {length} + k * {CHUNK} + {CHUNK - 1}]')}"
    totals = kernel_text(
        none,
        [f"const {kind}* __restrict__ o", f"{kind}* __restrict__ totals"],
        [
            f"const {c} i = ({c})blockIdx.x * {THREADS} + ({c})threadIdx.x;",
            f"if (i < {rows}) {{",
            f"{kind} s = {start};",
            f"for ({c} k = 0; k < {parts}; ++k) {{",
            f"    totals[i * {parts} + k] = s;",
            f"    if (k < {parts - 1}) s = {step};",
            "}",
            "}",
        ],
        -(-rows // THREADS),
        THREADS,
    )
    total = f"totals[i / {length} * {parts} + i % {length} / {CHUNK}]"
    add = kernel_text(
        none,
        [f"const {kind}* __restrict__ totals", f"{kind}* __restrict__ o"],
        [
            f"const {c} i = ({c})blockIdx.x * {THREADS} + ({c})threadIdx.x;",
            f"if (i < {rows * length}) o[i] = ({kind}){join.format(a=total, b='o[i]')};",
        ],
        -(-rows * length // THREADS),
        THREADS,
    )
    return ScanTexts(chunks, totals, add, parts)
