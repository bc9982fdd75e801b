"""Random numbers as functions of a key: the same key and shape are the same numbers, on every machine.

Element i of an array is made of the words of Philox4x32-10 for the key and the counter (i, stream): counter-based, so
there is no state and no order (Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3*, SC 2011). The
same key gives the same numbers again: use ``split`` for more keys. Not for secrets.

A key is an integer of 64 bits, or an array of one ``uint64`` (an input, say, so that one program serves many keys).

- ``bits``: word 0 (uint32), or words 1 and 0 (uint64).
- ``uniform``: the upper 24 or 53 bits of it, divided by 2^24 or 2^53: in [0, 1), all of the same distance. Stretched to
  [low, high), what would round to ``high`` is the number before it.
- ``normal``: Box and Muller's cosine, of uniform numbers from words 1 and 0, and 3 and 2: of (0, 1] and of [0, 1).
- ``integers``: the upper half of the product of 64 bits and the range: uneven by at most range / 2^64.
"""

from math import pi
from typing import Any, Final

import numpy as np

from depin_node.compute.programs.arrays.array import Array, as_array, constant
from depin_node.compute.programs.arrays.creation import _shape
from depin_node.compute.programs.arrays.dtypes import KINDS, TraceError, dtype_name
from depin_node.compute.programs.arrays.elementwise import apply, astype, minimum, nextafter
from depin_node.compute.programs.arrays.manipulation import reshape

NUMBERS, KEYS = 0, 1
"""Streams: of numbers, and of keys."""
RANGE_MAX: Final = 1 << 32

Key = int | Array
Shape = int | tuple[int, ...]


def _key(key: Any) -> Array:
    if isinstance(key, int) and not isinstance(key, bool):
        if not 0 <= key < 2**64:
            raise TraceError(f"key = {key}: expected an integer from 0 to 2**64 - 1")
        return constant(key, "uint64")
    if isinstance(key, Array) and key.kind == "uint64" and key.size == 1:
        return reshape(key, ())
    raise TraceError("key: expected an integer, or an array of one uint64, such as xp.random.split gives")


def _words(key: Any, shape: Any, kind: str, word: int = 0, stream: int = NUMBERS) -> Array:
    return Array("random", (_key(key),), {"word": word, "stream": stream}, kind, _shape(shape))


def split(key: Key, num: int = 2) -> tuple[Array, ...]:
    """Return more keys, made of one."""
    keys = _words(key, (num,), "uint64", stream=KEYS)
    return tuple(keys[k] for k in range(num))


def bits(key: Key, shape: Shape, *, dtype: Any = "uint32") -> Array:
    """Return random bits as ``uint32`` or ``uint64``."""
    kind = dtype_name(dtype)
    if kind not in ("uint32", "uint64"):
        raise TraceError(f"bits makes uint32 or uint64, not {kind}")
    return _words(key, shape, kind)


def _float(dtype: Any, function: str) -> str:
    kind = dtype_name(dtype)
    if KINDS[kind] != "f":
        raise TraceError(f"{function} makes float32 or float64, not {kind}")
    return kind


def _fraction(key: Any, shape: Any, kind: str, word: int) -> Array:
    """Return numbers in [0, 1)."""
    if kind == "float32" and word == 0:
        upper = apply("bitwise_right_shift", _words(key, shape, "uint32", word), 8)
        return astype(upper, kind) * 2.0**-24
    upper = apply("bitwise_right_shift", _words(key, shape, "uint64", word), 11)
    return astype(upper, "float64") * 2.0**-53


def uniform(
    key: Key, shape: Shape, *, low: float | Array = 0.0, high: float | Array = 1.0, dtype: Any = "float64"
) -> Array:
    """Return numbers spread evenly over [low, high)."""
    kind = _float(dtype, "uniform")
    fraction = _fraction(key, shape, kind, 0)
    if isinstance(low, Array) or isinstance(high, Array):
        return minimum(fraction * (high - low) + low, nextafter(high, low))
    if (low, high) == (0, 1):
        return fraction
    with np.errstate(over="ignore"):
        first, end, span = np.array([low, high, high - low], kind)
    if not first < end or not np.isfinite(span):
        raise TraceError(f"uniform: {low} to {high} as {kind}: expected low < high, and a finite difference")
    return minimum(fraction * float(span) + float(first), float(np.nextafter(end, first)))


def normal(key: Key, shape: Shape, *, loc: float = 0.0, scale: float = 1.0, dtype: Any = "float64") -> Array:
    """Return normally distributed numbers of mean ``loc`` and standard deviation ``scale``."""
    kind = _float(dtype, "normal")
    radius = astype(1.0 - _fraction(key, shape, "float64", 0), kind)
    angle = astype(_fraction(key, shape, "float64", 2), kind)
    number = apply("sqrt", -2.0 * apply("log", radius)) * apply("cos", angle * (2 * pi))
    return number if (loc, scale) == (0, 1) else number * scale + loc


def integers(key: Key, low: int, high: int, shape: Shape, *, dtype: Any = "int64") -> Array:
    """Return integers spread evenly over low, …, high - 1; at most 2^32 of them."""
    kind = dtype_name(dtype)
    if KINDS[kind] not in "iu" or not 0 < high - low <= RANGE_MAX:
        raise TraceError(f"integers: {low} to {high} as {kind}: expected 1 to 2**32 integers")
    for end in (low, high - 1):
        as_array(end, kind)
    span = high - low
    upper = apply("bitwise_right_shift", words := _words(key, shape, "uint64"), 32)
    lower = apply("bitwise_and", words, 0xFFFFFFFF)
    product = apply("bitwise_right_shift", upper * span + apply("bitwise_right_shift", lower * span, 32), 32)
    return astype(product + low % 2**64, kind)  # modulo 2^64, as conversions between integers are
