"""The data types of the array API standard and how they promote (its section "Type Promotion Rules").

Within a kind the larger wins, signed and unsigned integers meet in the next larger signed one, real and complex floats
meet in complex. Nothing else mixes: an integer array and a float array do not, nor does bool with numbers; ``astype``
says what is meant. Python numbers take the type of the array that they meet, if it can hold their kind.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from math import isfinite
from typing import Any, Final

import numpy as np

from depin_node.core.errors import ConfigError

KINDS: Final = {
    "bool": "b",
    "int8": "i",
    "int16": "i",
    "int32": "i",
    "int64": "i",
    "uint8": "u",
    "uint16": "u",
    "uint32": "u",
    "uint64": "u",
    "float32": "f",
    "float64": "f",
    "complex64": "c",
    "complex128": "c",
}
"""All dtypes, each with NumPy's letter for its kind."""
BITS: Final = {name: 8 * np.dtype(name).itemsize for name in KINDS}
REAL_OF: Final = {"complex64": "float32", "complex128": "float64"}
COMPLEX_OF: Final = {"float32": "complex64", "float64": "complex128"}
_PYTHON: Final = ((bool, "b", "bool"), (int, "iufc", "int64"), (float, "fc", "float64"), (complex, "fc", "complex128"))
"""A Python type, the kinds of arrays that its numbers may meet, and its dtype where there is no array."""


class TraceError(ConfigError):
    """A traced function asks for what cannot be recorded; says what, why, and what to write instead."""


class NoAttributeError(TraceError, AttributeError):
    """A traced array lacks what NumPy's arrays have."""


def dtype_name(dtype: Any) -> str:
    """Return NumPy's name of a dtype. Raises ``TraceError`` if the standard does not have it."""
    try:
        name = str(np.dtype(dtype).name)
    except TypeError:
        name = str(dtype)
    if name not in KINDS:
        half = ": half precision is for kernels; convert with astype before" if name == "float16" else ""
        raise TraceError(f"arrays of {name} are not supported{half}; the dtypes are {', '.join(KINDS)}")
    return name


def promote(left: str, right: str) -> str:
    """Return the dtype of what two arrays make together. Raises ``TraceError`` if they do not mix."""
    if left == right:
        return left
    kinds = {KINDS[left], KINDS[right]}
    if kinds == {"f", "c"}:
        wide = "float64" in (left, right) or "complex128" in (left, right)
        return "complex128" if wide else "complex64"
    if len(kinds) == 1:
        return max(left, right, key=BITS.__getitem__)
    if kinds == {"i", "u"}:
        signed, unsigned = (left, right) if KINDS[left] == "i" else (right, left)
        bits = max(BITS[signed], 2 * BITS[unsigned])
        if bits <= 64:
            return f"int{bits}"
    raise TraceError(
        f"{left} and {right} do not mix in the array API standard: convert one, as in "
        f"xp.astype(x, xp.{_wider(left, right)})"
    )


def _wider(left: str, right: str) -> str:
    ranks = "buifc"
    return max(left, right, key=lambda name: (ranks.index(KINDS[name]), BITS[name]))


def python_dtype(number: complex) -> str:
    """Return the default dtype of a Python number."""
    return next(default for kind, _, default in _PYTHON if isinstance(number, kind))


def meet(number: complex, dtype: str) -> str:
    """Return the dtype that a Python number and an array of ``dtype`` make together.

    Raises:
        TraceError: the array's dtype cannot hold it.
    """
    kinds = next(kinds for kind, kinds, _ in _PYTHON if isinstance(number, kind))
    kind = KINDS[dtype]
    if kind not in kinds:
        raise TraceError(
            f"{number!r} does not go with an array of {dtype}: convert the array, as in "
            f"xp.astype(x, xp.{python_dtype(number)})"
        )
    if kind in "iu" and not integer_range(dtype)[0] <= number.real <= integer_range(dtype)[1]:
        raise TraceError(f"{number!r} is out of the range of {dtype}")
    return COMPLEX_OF[dtype] if kind == "f" and isinstance(number, complex) else dtype


def integer_range(kind: str) -> tuple[int, int]:
    """Return the smallest and the largest number of an integer dtype."""
    info = np.iinfo(kind)
    return int(info.min), int(info.max)


def fill_number(value: Any, kind: str) -> complex:
    """Return a number that elements of a dtype are to have; floats become integers towards zero.

    Raises:
        TraceError: the dtype cannot hold it.
    """
    number = value.item() if isinstance(value, np.generic) else value
    if not isinstance(number, bool | int | float | complex):
        raise TraceError(f"expected a number for elements of {kind}, not {type(value).__name__}")
    if isinstance(number, complex):
        fits = KINDS[kind] == "c"
    elif KINDS[kind] in "iu":
        low, high = integer_range(kind)
        fits = isfinite(number) and low <= int(number) <= high
    else:
        fits = True
    if not fits:
        raise TraceError(f"{number!r} is not possible in an array of {kind}: give another dtype")
    return number


def common_kind(dtypes: Sequence[str], numbers: Iterable[complex]) -> str:
    """Return the dtype that arrays of ``dtypes``, at least one, and Python numbers make together.

    Raises:
        TraceError: they do not mix.
    """
    kind = reduce(promote, dtypes)
    for number in numbers:
        kind = meet(number, kind)
    return kind


def kind_names(kinds: str) -> str:
    """Return kinds in words, for errors."""
    words = {"b": "bool", "i": "signed integers", "u": "unsigned integers", "f": "floats", "c": "complex"}
    return ", ".join(words[kind] for kind in kinds)
