"""Reading NVRTC's PTX: whether it computes what the text says, bit for bit, and whether its entries are those expected.

PTX names the rounding of each instruction. Strict is a kernel whose every floating-point instruction is one that IEEE
754 defines, rounded to nearest (``.rn``) with denormals, and none fused but where the source calls ``fma``: our header
writes that as inline assembly, which NVRTC marks in its output. What is not in the tables below is not strict.

Sources: PTX ISA 8.8, "Floating Point Instructions", "Data Movement and Conversion Instructions".
"""

import re
from collections.abc import Sequence
from typing import Final

from depin_node.compute.translate.abi import Slot, slot_bytes
from depin_node.core.errors import TaskRejected

REASONS_MAX: Final = 10
LAUNCH_BYTES: Final = (8, 4, 4, 4, 4)
"""Of b0, gx, gy, gz, shared_mem: print_cuda.py."""

_FLOAT: Final = r"f(?:32|64)"
_INTEGER: Final = r"[bus](?:8|16|32|64)"
_STRICT = re.compile(
    "|".join(
        (
            rf"(?:add|sub|mul|div|rcp|sqrt)\.rn\.{_FLOAT}",
            rf"(?:min|max|abs|neg|mov|selp|copysign)\.{_FLOAT}",
            rf"setp\.\w+\.(?:{_FLOAT}|{_INTEGER})",
            rf"cvt\.(?:rn|r[zmpn]i)\.{_FLOAT}\.(?:{_FLOAT}|{_INTEGER})",
            r"cvt\.f64\.f32",
            rf"cvt\.rzi\.{_INTEGER}\.{_FLOAT}",
            rf"cvt\.{_INTEGER}\.{_INTEGER}",
            rf"(?:add|sub|div|rem|neg|abs|min|max|and|or|xor|not|shl|shr|mov|selp|popc|clz|brev|sad)\.{_INTEGER}",
            rf"bfind(?:\.shiftamt)?\.{_INTEGER}",
            rf"(?:mul|mad)\.(?:lo|hi|wide)\.{_INTEGER}",
            rf"(?:bfe|bfi)\.{_INTEGER}",
            r"(?:and|or|xor|not|mov)\.pred",
            r"prmt\.b32",
            r"shf\.[lr]\.(?:wrap|clamp)\.b32",
            r"dp[24]a(?:\.lo|\.hi)?\.[us]32\.[us]32",
            r"cvta(?:\.to)?\.(?:global|shared|local|const)\.u64",
            rf"ld(?:\.volatile)?(?:\.global|\.shared|\.local|\.const|\.param)?(?:\.nc)?(?:\.v[24])?\.(?:{_FLOAT}|{_INTEGER})",
            rf"st(?:\.volatile)?(?:\.global|\.shared|\.local|\.param)?(?:\.v[24])?\.(?:{_FLOAT}|{_INTEGER})",
            r"bra(?:\.uni)?|brx\.idx(?:\.uni)?|ret(?:\.uni)?|exit|trap|call(?:\.uni)?",
            r"barrier\.sync|bar\.warp\.sync|bar\.red\.(?:popc\.u32|and\.pred|or\.pred)",
            r"shfl\.sync\.idx\.b32|vote\.sync\.(?:ballot\.b32|any\.pred|all\.pred)",
            rf"(?:atom|red)(?:\.global|\.shared)?\.(?:add|min|max|and|or|xor|inc|dec|exch|cas)\.{_INTEGER}",
            r"membar\.(?:cta|gl|sys)|fence\.\w+\.\w+",
        )
    )
)
_ASKED: Final = re.compile(rf"fma\.rn\.{_FLOAT}")
"""In inline assembly only."""
_LINE = re.compile(r"^(?:@!?%\w+\s+)?([a-z][\w.]*)")
_SKIP = re.compile(r"^(?:$|\.|[()]|[$\w]+:$|[\w$]+,?$)")
"""Directives, labels, and what stands around a call, a line for each word."""
_SPECIAL = re.compile(r"%(?!(?:p|rs?|rd|fd?|SPL?|n?tid\.[xyz]|n?ctaid\.[xyz]|laneid)\d*\b)[\w.]+")
"""Registers other than a thread's own and its place: clocks, processor ids."""
_ENTRY = re.compile(r"^\.visible \.entry (\w+)\(([^)]*)\)", re.MULTILINE)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.[busf](\d+)\s+(?:\.ptr\s+(?:\.\w+\s+)??(?:\.align\s+\d+\s+)?)?\w+(?:\[(\d+)\])?"
)


def why_not_strict(ptx: str) -> list[str]:
    """Return why a PTX text is not strict, at most ten reasons; none: it is."""
    reasons, asked = dict[str, None](), False
    for line in ptx.splitlines():
        if "// begin inline asm" in line:
            asked = True
        elif "// end inline asm" in line:
            asked = False
        for statement in line.partition("//")[0].split(";"):
            text = statement.strip(" \t{}")
            if _SKIP.match(text):
                continue
            match = _LINE.match(text)
            word = match[1] if match else text[:40]
            special = _SPECIAL.search(text)
            if special:
                word = special[0]
            elif _STRICT.fullmatch(word) or (asked and _ASKED.fullmatch(word)):
                continue
            fused = _ASKED.fullmatch(word) is not None
            why = "is fused, and the source does not call fma" if fused else "is not among the strict instructions"
            reasons[f"{word} {why}"] = None
            if len(reasons) == REASONS_MAX:
                return list(reasons)
    return list(reasons)


def entry_bytes(ptx: str) -> dict[str, tuple[int, ...]]:
    """Return the entries of a PTX text, each with the size of every parameter in bytes."""
    return {
        name: tuple(int(bits) // 8 * int(count or 1) for bits, count in _PARAMETER.findall(parameters))
        for name, parameters in _ENTRY.findall(ptx)
    }


def check_entry(ptx: str, entry: int, parameters: Sequence[Slot]) -> str:
    """Check that the kernel ``entry`` of a unit takes what the program will pass; return its name.

    A launch copies as many bytes as the kernel declares: one that declares more would read the worker's own memory.

    Raises:
        TaskRejected: there is no such entry, or its parameters are others.
    """
    name = f"run{entry}"
    expected = (*LAUNCH_BYTES, *(slot_bytes(parameter) for parameter in parameters))
    found = entry_bytes(ptx).get(name)
    if found != expected:
        raise TaskRejected(f"the CUDA text's {name} takes parameters of {found} bytes, the program passes {expected}")
    return name
