"""The standard's creation functions: arrays that are functions of their index, or known when the program is made."""

from math import ceil, isfinite
from typing import Any

import numpy as np

from depin_node.compute.programs.arrays.array import Array, Shape, as_array, constant
from depin_node.compute.programs.arrays.dtypes import KINDS, TraceError, dtype_name, fill_number, python_dtype
from depin_node.compute.programs.arrays.elementwise import astype, full_like, where
from depin_node.compute.programs.arrays.manipulation import broadcast_arrays, expand_dims, reshape

__all__ = [
    "arange",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]


def _shape(shape: int | tuple[int, ...]) -> Shape:
    lengths = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(length, int) and not isinstance(length, bool) and length > 0 for length in lengths):
        raise TraceError(f"shape = {shape!r}: expected positive integers, known when the function is traced")
    return lengths


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Array:
    """Return numbers, nested lists of numbers or a NumPy array as an array that the program carries as an input."""
    if isinstance(obj, Array):
        return obj if dtype is None else astype(obj, dtype)
    return constant(obj, dtype)


def full(shape: int | tuple[int, ...], fill_value: complex, *, dtype: Any = None, device: Any = None) -> Array:
    """Return an array of one number."""
    if isinstance(fill_value, Array):
        raise TraceError("full takes a number that is known: use xp.broadcast_to(x, shape) for an array's")
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, np.generic) else python_dtype(fill_value)
    kind = dtype_name(dtype)
    return Array("full", (), {"value": fill_number(fill_value, kind)}, kind, _shape(shape))


def zeros(shape: int | tuple[int, ...], *, dtype: Any = "float64", device: Any = None) -> Array:
    """Return zeros."""
    return full(shape, 0, dtype=dtype or "float64")


def ones(shape: int | tuple[int, ...], *, dtype: Any = "float64", device: Any = None) -> Array:
    """Return ones."""
    return full(shape, 1, dtype=dtype or "float64")


def empty(shape: int | tuple[int, ...], *, dtype: Any = "float64", device: Any = None) -> Array:
    """Return zeros: nothing in a program is left undefined."""
    return zeros(shape, dtype=dtype)


def zeros_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Return zeros, with the shape and by default the dtype of ``x``."""
    return full_like(x, 0, dtype)


def ones_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Return ones, with the shape and by default the dtype of ``x``."""
    return full_like(x, 1, dtype)


def empty_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Return zeros, with the shape and by default the dtype of ``x``."""
    return full_like(x, 0, dtype)


def arange(
    start: float, /, stop: float | None = None, step: float = 1, *, dtype: Any = None, device: Any = None
) -> Array:
    """Return start, start + step, … as far as they are before ``stop``."""
    if stop is None:
        start, stop = 0, start
    for number in (start, stop, step):
        if not isinstance(number, int | float) or not isfinite(number):
            raise TraceError(f"arange takes numbers that are known, not {number!r}")
    if not step:
        raise TraceError("arange: step is 0")
    whole = all(isinstance(number, int) for number in (start, stop, step))
    kind = ("int64" if whole else "float64") if dtype is None else dtype_name(dtype)
    length = -((start - stop) // step) if whole else ceil((stop - start) / step)
    if length < 1:
        raise TraceError(f"arange({start}, {stop}, {step}) has no elements: arrays in programs have some")
    for number in (start, start + (length - 1) * step):
        fill_number(number, kind)
    return Array("arange", (), {"start": start, "step": step}, _number_kind(kind, "arange"), (int(length),))


def _number_kind(kind: str, function: str) -> str:
    if KINDS[kind] in "bc":
        raise TraceError(f"{function} makes real numbers, not {kind}: convert with xp.astype")
    return kind


def linspace(
    start: float, stop: float, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Array:
    """Return ``num`` numbers in even steps from ``start`` to ``stop``, the last one included or not."""
    kind = _number_kind("float64" if dtype is None else dtype_name(dtype), "linspace")
    (length,) = _shape(num)
    steps = length - 1 if endpoint else length
    step = (stop - start) / steps if steps else 0.0
    last = stop if endpoint and length > 1 else None
    return Array("linspace", (), {"start": start, "step": step, "last": last}, kind, (length,))


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Array:
    """Return ones on diagonal ``k`` and zeros elsewhere."""
    kind = "float64" if dtype is None else dtype_name(dtype)
    return Array("eye", (), {"k": int(k)}, kind, _shape((n_rows, n_rows if n_cols is None else n_cols)))


def _triangle(x: Array, k: int, *, lower: bool) -> Array:
    x = as_array(x)
    if x.ndim < 2:
        raise TraceError(f"tril and triu take matrices; this array has the shape {x.shape}")
    rows, columns = expand_dims(arange(x.shape[-2]), axis=1), arange(x.shape[-1])
    mask = columns - rows <= k if lower else columns - rows >= k
    return where(mask, x, full_like(x, 0))


def tril(x: Array, /, *, k: int = 0) -> Array:
    """Return matrices with zeros above diagonal ``k``."""
    return _triangle(x, k, lower=True)


def triu(x: Array, /, *, k: int = 0) -> Array:
    """Return matrices with zeros below diagonal ``k``."""
    return _triangle(x, k, lower=False)


def meshgrid(*arrays: Array, indexing: str = "xy") -> list[Array]:
    """Return the coordinates of a grid, from those along its axes."""
    if indexing not in ("xy", "ij"):
        raise TraceError(f"meshgrid: indexing = {indexing!r}: expected 'xy' or 'ij'")
    order = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        order[:2] = [1, 0]
    shaped = []
    for axis, array in zip(order, arrays, strict=True):
        shape = [1] * len(arrays)
        shape[axis] = array.size
        shaped.append(reshape(array, tuple(shape)))
    return broadcast_arrays(*shaped)
