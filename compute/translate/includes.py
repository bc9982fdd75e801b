"""Which of our headers the C++ text of a unit includes: those it calls nothing of cost up to half of a compilation.

Every text has fission.h, with it runtime.h and device.h, and in a trial races.h; coroutines.h and log.h only if it has
their main function. Of maths.h, rounding.h and special.h, which device.h includes, those are left out that the text has
no name of. A function may have overloads in several: then it needs them all, for else another would be called.
"""

import functools
import re

from depin_node.compute.translate.frontend import HEADERS

_SPECIAL = ("rounding.h", "special.h")


def includes(text: str) -> str:
    """Return the first lines of a text: the headers to include, after a macro for what is left out of device.h."""
    names = set(re.findall(r"cuda::(\w+)", text))
    mains = {"coroutines.h": "run_block", "log.h": "printf"}
    headers = ["fission.h", *(header for header, main in mains.items() if main in names)]
    lines = [f'#include "{header}"' for header in headers]
    known = _words("device.h", "runtime.h", "races.h", *headers)
    if names <= known - _words("maths.h", *_SPECIAL):
        lines.insert(0, "#define CUDA_NO_MATHS")
    elif names <= (known | _words("maths.h")) - _defined(*_SPECIAL):
        lines.insert(0, "#define CUDA_NO_SPECIAL")
    return "\n".join(lines) + "\n"


@functools.cache
def _words(*names: str) -> set[str]:
    """Return the words of headers, and the names of vector types and what makes them."""
    text = re.sub("//.*", "", "".join((HEADERS / name).read_text() for name in names))
    vectors = {f"{name}{lanes}" for name in re.findall(r"^VECTOR\(\w+, (\w+)", text, re.M) for lanes in range(1, 5)}
    return {*re.findall(r"\w+", text), *vectors, *(f"make_{name}" for name in vectors)}


@functools.cache
def _defined(*names: str) -> set[str]:
    """Return the functions that headers define, by their names or by macros with their names."""
    texts = (re.sub(r"__attribute__\(\(.*?\)\) ", "", (HEADERS / name).read_text()) for name in names)
    lines = [line for text in texts for line in text.splitlines()]
    heads = [re.match(r"\s*(?:template <.*> )?(?:INLINE|static) .*?(\w+)\(", line) for line in lines]
    made = [name for line in lines if line[:1].isupper() for name in re.findall(r"[A-Z]\w*\((\w+)", line)]
    return {head[1] for head in heads if head} | set(made)
