"""Reductions along the last axis of a matrix: one result for each row.

Their order is that of ``generated/reduction.py``, a function of the row's length alone, and so are their two forms:
threads with a tree in shared memory, and without a GPU one thread that does the work of all lanes.
"""

from collections.abc import Sequence
from typing import Final

from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.dtypes import KINDS
from depin_node.compute.programs.arrays.emit import Body, literal
from depin_node.compute.programs.arrays.kernels import THREADS, InMemory, Text, kernel_text, mapping, wide
from depin_node.compute.programs.arrays.words import WORDS
from depin_node.compute.programs.generated.parameters import C_TYPES

LANES_MAX: Final = 256
REDUCTIONS: Final[dict[str, tuple[float | None, str | dict[str, str]]]] = {
    "sum": (0, "({a} + {b})"),
    "prod": (1, "({a} * {b})"),
    "any": (False, "({a} || {b})"),
    "all": (True, "({a} && {b})"),
    "max": (None, WORDS["maximum"].texts),
    "min": (None, WORDS["minimum"].texts),
}
"""What a reduction begins with (None: its first elements), and how it joins two values."""


def reduction(array: Array, in_memory: InMemory, sizes: Sequence[int]) -> Text:
    """Return the kernel of a ``reduce`` of the last axis of a matrix."""
    (source,) = array.inputs
    rows, count = source.shape
    lanes = 1 << max(0, min(count // 4, LANES_MAX).bit_length() - 1)
    body = Body(in_memory, wide=wide(*sizes, source.size))
    before = mapping(body, source, rows, count)
    c, name = body.index_type, array.attributes["reduction"]
    reads = body.arguments
    call = f"@_map({reads}i, {{k}})"
    kind = C_TYPES[array.kind]
    identity, joins = REDUCTIONS[name]
    if isinstance(joins, str):
        join = f"({kind}){joins}"
    else:
        text = next(text for kinds, text in joins.items() if KINDS[source.kind] in kinds)
        join = f"({kind}){text.replace('{0}', '{a}').replace('{1}', '{b}')}"
    start = call if identity is None else f"({kind}){literal(identity, source.kind)}"
    first = lanes if identity is None else 0
    members = THREADS // lanes if lanes > 1 else THREADS
    parameters = [*body.declarations, f"{kind}* __restrict__ o"]
    if lanes == 1:
        lines = [
            f"const {c} i = ({c})blockIdx.x * {members} + ({c})threadIdx.x;",
            f"if (i < {rows}) {{",
            f"{kind} s = {start.format(k='0')};",
            f"for ({c} k = {first}; k < {count}; ++k) s = {join.format(a='s', b=call.format(k='k'))};",
            "o[i] = s;",
            "}",
        ]
        return kernel_text(body, parameters, lines, -(-rows // members), members, before)
    lines = _lanes(kind, c, rows, count, lanes, members, start, first, call, join)
    return kernel_text(body, parameters, lines, -(-rows // members), members * lanes, before)


def _lanes(
    kind: str,
    c: str,
    rows: int,
    count: int,
    lanes: int,
    members: int,
    start: str,
    first: int,
    call: str,
    join: str,
) -> list[str]:
    """Return the lines of a reduction by several lanes."""
    whole = count - (count - first) % lanes if count >= first else first
    return [
        f"const int lane = threadIdx.x % {lanes}, member = threadIdx.x / {lanes};",
        f"const {c} i = ({c})blockIdx.x * {members} + member;",
        f"const bool mine = i < {rows};",
        f"{c} k = {first};",
        "#if defined(__DEPIN__) && !defined(DEPIN_THREADS)",
        "if (lane != 0 || !mine) return;",
        f"{kind} s[{lanes}];",
        f"for (int t = 0; t < {lanes}; ++t) s[t] = {start.format(k='t')};",
        f"for (; k < {whole}; k += {lanes})",
        f"    for (int t = 0; t < {lanes}; ++t) s[t] = {join.format(a='s[t]', b=call.format(k='(k + t)'))};",
        f"for (int t = 0; k + t < {count}; ++t) s[t] = {join.format(a='s[t]', b=call.format(k='(k + t)'))};",
        f"for (int half = {lanes // 2}; half > 0; half /= 2)",
        f"    for (int t = 0; t < half; ++t) s[t] = {join.format(a='s[t]', b='s[t + half]')};",
        "o[i] = s[0];",
        "#else",
        f"__shared__ {kind} shared[{members * lanes}];",
        f"{kind}* const own = shared + member * {lanes};",
        "if (mine) {",
        f"    {kind} s = {start.format(k='lane')};",
        f"    for (; k + lane < {count}; k += {lanes}) s = {join.format(a='s', b=call.format(k='(k + lane)'))};",
        "    own[lane] = s;",
        "}",
        "__syncthreads();",
        f"for (int half = {lanes // 2}; half > 0; half /= 2) {{",
        f"    if (mine && lane < half) own[lane] = {join.format(a='own[lane]', b='own[lane + half]')};",
        "    __syncthreads();",
        "}",
        "if (mine && lane == 0) o[i] = own[0];",
        "#endif",
    ]
