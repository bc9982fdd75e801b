"""The known-answer set: kernels, inputs and the hash of what WebAssembly made of them, shipped with the package.

A GPU that gives the same hashes for all of it, at start-up, is of the class ``strict-1``. The set covers every strict
arithmetic instruction and every function of the maths header over random bits (denormals, infinities and NaNs among
them) and over ordinary numbers, conversions, integer functions, shuffles, votes, barriers, shared memory and integer
atomics. It cannot show that all inputs agree; it shows that a device, its driver and its compiler are of the kind that
does. ``known_answers.json`` is made by ``tests/support/make_known_answers.py``, which also says what is in it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

_FILE: Final = Path(__file__).with_suffix(".json")
_LABEL: Final = b"depin/known-answers/v1\0"


class Array(msgspec.Struct, tag="array", frozen=True, forbid_unknown_fields=True):
    """An array argument, which the kernel may write.

    Attributes:
        dtype: NumPy's name.
        count: of elements.
        fill: zeros; bits: random bits, the first of a float array being the special values; near: floats in [-8, 8).
        seed: of the random kinds.
    """

    dtype: str
    count: int
    fill: Literal["zeros", "bits", "near"]
    seed: str = ""


class Value(msgspec.Struct, tag="value", frozen=True, forbid_unknown_fields=True):
    """A scalar argument."""

    dtype: str
    value: int | float


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One parameter of a kernel, as ``translate.abi`` wants to know it."""

    name: str
    pointer: bool
    dtype: str
    lanes: int


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One launch of ``run<entry>``; ``digest``: of all its arrays afterwards, hexadecimal."""

    entry: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_mem: int
    parameters: tuple[Parameter, ...]
    arguments: tuple[Array | Value, ...]
    digest: str


class KnownAnswers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole set: one CUDA text and its launches."""

    cuda: str
    cases: tuple[Case, ...]


def known_answers() -> KnownAnswers:
    """Return the shipped set."""
    return msgspec.json.decode(_FILE.read_bytes(), type=KnownAnswers)


def make_argument(argument: Array | Value) -> Any:
    """Return an argument: a new array, or a number. The same on every machine, whatever its NumPy."""
    if isinstance(argument, Value):
        return argument.value
    dtype = np.dtype(argument.dtype).newbyteorder("<")
    if argument.fill == "zeros":
        return np.zeros(argument.count, dtype)
    size = argument.count * dtype.itemsize
    raw = np.frombuffer(blake3(_LABEL + argument.seed.encode()).digest(length=size), f"<u{dtype.itemsize}")
    if argument.fill == "near":
        digits = 24 if dtype.itemsize == 4 else 53
        return (raw >> (8 * dtype.itemsize - digits)).astype(dtype) * dtype.type(2.0 ** (4 - digits)) - dtype.type(8)
    values = raw.copy().view(dtype)
    if dtype.kind == "f":
        special = _special(dtype)
        values[: len(special)] = special
    return values


def _special(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    info = np.finfo(dtype)
    numbers = [0.0, 1.0, 0.5, 2.0, 3.0, np.pi, info.tiny, info.smallest_subnormal, info.max, info.eps, np.inf]
    numbers += [2.0**24, 2.0**31, 2.0**32, 2.0**63, 2.0**64, 2.0**31 - 128.0, 2.5, 1e-3, 88.5, 709.5]
    return np.array([*numbers, np.nan, *(-number for number in numbers)], dtype)


def digest(arrays: Sequence[npt.NDArray[Any]]) -> str:
    """Return the hash of what a launch left in its arrays, in the order of the arguments; NaNs count as one."""
    whole = blake3(_LABEL)
    for array in arrays:
        plain = array.astype(array.dtype.newbyteorder("<"))
        if plain.dtype.kind == "f":
            plain[np.isnan(plain)] = np.nan
        whole.update(plain.tobytes())
    return whole.hexdigest()
