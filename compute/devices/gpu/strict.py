"""Strict CUDA: how a program's CUDA text becomes what NVRTC is given, so that a GPU computes the bits of WebAssembly.

    text of a stranger ─ refuse_hostile_cuda ─► words we know ─ whole_text ─► header + text
        ─ NVRTC, in a process of its own ─► PTX ─ ptx.why_not_strict ─► CUBIN

The text is what ``print_cuda.py`` prints, and a stranger may have changed it. NVRTC's preprocessor reads files
and its templates keep it busy for ever, so the text may contain nothing but the words and signs that the printer uses:
it can call our own header, and nothing else of what CUDA or C++ has. Everything here is plain text work: no NVRTC, no
GPU, no files but our headers.
"""

import functools
import re
from pathlib import Path
from typing import Final

from depin_node.compute.translate.abi import THREADS_MAX
from depin_node.core.errors import TaskRejected

ARCHITECTURES: Final = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities that CUBINs are tested for; PTX is made for the first."""
TEXT_BYTES_MAX: Final = 1 << 20
NESTING_MAX: Final = 2048
"""Brackets within brackets: what the printer makes of the deepest tree that the front end takes."""
WORD_CHARACTERS_MAX: Final = 64
_HEADERS: Final = Path(__file__).parents[2] / "translate" / "headers"
_INCLUDE = re.compile(r'^#include "([\w/.]+)"$', re.MULTILINE)

_KEYWORDS: Final = frozenset(
    {
        *("if", "else", "for", "do", "while", "switch", "case", "default", "break", "continue", "return"),
        *("static", "struct", "union", "alignas", "extern", "static_cast", "void", "bool", "true", "false", "nullptr"),
        *("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"),
        *("__global__", "__device__", "__shared__", "__align__", "__launch_bounds__", "__forceinline__"),
        *("CUDA_UNSET", "CUDA_UNSET_ARRAY"),
        *("b0", "gx", "gy", "gz", "shared_mem", "k", "deeper", "threadIdx", "blockIdx", "blockDim", "gridDim"),
        *("x", "y", "z", "w"),
    }
)
_OWN = re.compile(r"[a-z]\d+_\w*|R\d+|m\d+|run\d+|cuda")
_TOKEN = re.compile(
    r'\s+|(?P<string>"C")|(?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>::|[{}()\[\];,<>=+\-*/%&|^~!?:.])'
)
_FORBIDDEN = re.compile(r"%:|\?\?|//|/\*|\[\[|:\s*:\s*:")


def refuse_hostile_cuda(text: str) -> None:
    """Check a text before any compiler sees it.

    Raises:
        TaskRejected: it is too long, nested too deeply, or has a word or a sign that the printer never writes.
    """
    if len(text) > TEXT_BYTES_MAX or not text.isascii():
        raise TaskRejected(f"a CUDA text has at most {TEXT_BYTES_MAX} characters, all ASCII; this one has {len(text)}")
    found = _FORBIDDEN.search(text)
    if found:
        raise TaskRejected(f"the CUDA text contains {found[0]!r}, which is not in the language it is written in")
    at, depth, before = 0, 0, ""
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise TaskRejected(f"the CUDA text contains {text[at]!r}, which is not in the language it is written in")
        at = match.end()
        part = match[0]
        if part.isspace():
            continue
        if match["word"]:
            _check_word(part, before)
        elif match["string"] and before != "extern":
            raise TaskRejected("the CUDA text contains a string")
        elif part == "::" and before != "cuda":
            raise TaskRejected("the CUDA text names something outside of its header")
        depth += (part in "([{") - (part in ")]}")
        if depth > NESTING_MAX:
            raise TaskRejected(f"the CUDA text is nested more than {NESTING_MAX} deep")
        before = part


def _check_word(word: str, before: str) -> None:
    """Check a word by what stands before it: whatever follows ``cuda::`` is in our header, or does not exist."""
    known = before == "::" or word in _KEYWORDS or _OWN.fullmatch(word)
    if not known or len(word) > WORD_CHARACTERS_MAX:
        shown = word[:WORD_CHARACTERS_MAX]
        raise TaskRejected(f"the CUDA text contains the word {shown!r}, which is not in the language it is written in")


@functools.cache
def header() -> str:
    """Return what every text is compiled below: strict.h, device.h and all it includes, strict_threads.h."""
    return "\n".join(_expand(name) for name in ("strict.h", "device.h", "strict_threads.h"))


def _expand(name: str) -> str:
    text = (_HEADERS / name).read_text().replace("#pragma once\n", "")
    return _INCLUDE.sub(lambda match: _expand(match[1]), text)


def whole_text(cuda: str, threads_max: int = THREADS_MAX) -> str:
    """Return what NVRTC compiles.

    Args:
        cuda: of a program's unit.
        threads_max: the most threads that a block of any launch of this unit has: registers are allotted for it.

    Raises:
        TaskRejected: as ``refuse_hostile_cuda``.
    """
    refuse_hostile_cuda(cuda)
    if not 1 <= threads_max <= THREADS_MAX:
        raise TaskRejected(f"a block has 1 to {THREADS_MAX} threads, not {threads_max}")
    return f"#define DEPIN_THREADS {threads_max}\n{header()}\n{cuda}"


def options(architecture: int, *, real: bool) -> tuple[str, ...]:
    """Return NVRTC's options; nobody else's are ever added.

    Args:
        architecture: a compute capability, 75 for 7.5.
        real: for a CUBIN; else PTX.
    """
    return (
        f"--gpu-architecture={'sm' if real else 'compute'}_{architecture}",
        *("--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false"),
        *("--device-as-default-execution-space", "--std=c++20", "--disable-warnings"),
    )
