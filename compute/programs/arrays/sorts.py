"""Stable sorts along the last axis of a matrix, of keys alone or of keys with their places. NaNs come last.

Runs of ``RUN`` elements are sorted by insertion, then merged in pairs, one launch for each doubling. A thread writes
``MERGED`` elements of a merge, and finds where they begin by a binary search along a diagonal (Odeh, Green, Mwassi,
Shmueli, Birk: *Merge Path*, 2012).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.dtypes import KINDS
from depin_node.compute.programs.arrays.emit import Body
from depin_node.compute.programs.arrays.kernels import THREADS, InMemory, Text, kernel_text, mapping, wide
from depin_node.compute.programs.generated.parameters import C_TYPES

RUN: Final = 32
MERGED: Final = 64


@dataclass(frozen=True)
class SortTexts:
    """The kernels of a sort: ``runs`` once, then ``merge`` for each of ``widths``."""

    runs: Text
    merge: Text
    widths: tuple[int, ...]


def sort(array: Array, in_memory: InMemory, sizes: Sequence[int]) -> SortTexts:
    """Return the kernels of a ``sort`` or ``argsort`` along the last axis of a matrix.

    Their parameters after what they read: ``runs`` takes the keys (and, of an argsort, the places) to write; ``merge``
    keys to read and to write (and places to read and to write), and the width of the runs.
    """
    (source,) = array.inputs
    rows, length = source.shape
    body = Body(in_memory, wide=wide(*sizes, source.size))
    c, kind, places = body.index_type, C_TYPES[source.kind], array.op == "argsort"
    reads_from = mapping(body, source, rows, length)
    sign = ">" if array.attributes["descending"] else "<"
    nan = " || (b != b && a == a)" if KINDS[source.kind] == "f" else ""
    before = f"static __device__ __forceinline__ bool @_before({kind} a, {kind} b) {{ return a {sign} b{nan}; }}\n"
    reads = body.arguments
    runs_in_row = -(-length // RUN)

    def also(text: str) -> str:
        return text if places else ""

    runs = kernel_text(
        body,
        [*body.declarations, f"{kind}* __restrict__ o", *(["long long* __restrict__ at"] if places else ())],
        [
            f"const {c} thread = ({c})blockIdx.x * {THREADS} + ({c})threadIdx.x;",
            f"if (thread < {rows * runs_in_row}) {{",
            f"const {c} i = thread / {runs_in_row}, first = thread % {runs_in_row} * {RUN};",
            f"const {c} last = first + {RUN} < {length} ? first + {RUN} : {length};",
            f"for ({c} k = first; k < last; ++k) {{",
            f"    const {kind} x = @_map({reads}i, k);",
            f"    {c} j = i * {length} + k;",
            f"    for (; j > i * {length} + first && @_before(x, o[j - 1]); --j) {{",
            f"        o[j] = o[j - 1];{also(' at[j] = at[j - 1];')}",
            "    }",
            f"    o[j] = x;{also(' at[j] = k;')}",
            "}",
            "}",
        ],
        -(-rows * runs_in_row // THREADS),
        THREADS,
        reads_from + before,
    )
    parts = -(-length // MERGED)
    none = Body(in_memory, wide=c != "int")
    parameters = [f"const {kind}* __restrict__ p", f"{kind}* __restrict__ o"]
    if places:
        parameters += ["const long long* __restrict__ from", "long long* __restrict__ at"]
    merge = kernel_text(
        none,
        [*parameters, f"const {c} width"],
        [
            f"const {c} thread = ({c})blockIdx.x * {THREADS} + ({c})threadIdx.x;",
            f"if (thread < {rows * parts}) {{",
            f"const {c} i = thread / {parts} * {length}, begin = thread % {parts} * {MERGED};",
            f"const {c} pair = begin - begin % (2 * width), done = begin - pair;",
            f"const {c} middle = pair + width < {length} ? pair + width : {length};",
            f"const {c} end = pair + 2 * width < {length} ? pair + 2 * width : {length};",
            f"const {c} a = i + pair, b = i + middle, a_count = middle - pair, b_count = end - middle;",
            f"{c} low = done > b_count ? done - b_count : 0, high = done < a_count ? done : a_count;",
            "while (low < high) {",
            f"    const {c} half = (low + high) / 2;",
            "    if (@_before(p[b + done - 1 - half], p[a + half])) high = half; else low = half + 1;",
            "}",
            f"{c} x = low, y = done - low;",
            f"const {c} stop = begin + {MERGED} < end ? begin + {MERGED} : end;",
            f"for ({c} k = begin; k < stop; ++k) {{",
            "    const bool left = y >= b_count || (x < a_count && !@_before(p[b + y], p[a + x]));",
            f"    const {c} found = left ? a + x : b + y;",
            f"    o[i + k] = p[found];{also(' at[i + k] = from[found];')}",
            "    x += left ? 1 : 0;",
            "    y += left ? 0 : 1;",
            "}",
            "}",
        ],
        -(-rows * parts // THREADS),
        THREADS,
        before,
    )
    widths: list[int] = []
    while RUN << len(widths) < length:
        widths.append(RUN << len(widths))
    return SortTexts(runs, merge, tuple(widths))
