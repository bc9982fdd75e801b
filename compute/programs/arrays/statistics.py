"""The standard's statistical and utility functions: reductions along axes, and cumulative sums.

All reduce the last axis of a matrix (``reduce``): other axes are moved there as a view. A long reduction of few results
is made in two steps, so that a GPU has work for many blocks. Where memory runs along other axes, rows are joined whole,
``ROWS`` at a time, row j with rows j + m/16, j + 2·m/16, …: neighbouring threads then read neighbouring elements. The
order of all that depends on shapes alone, so the bits are fixed.
"""

from builtins import max as max_of
from builtins import min as min_of
from math import prod
from typing import Any, Final

from depin_node.compute.programs.arrays.array import Array, as_array, refuse_tolerant
from depin_node.compute.programs.arrays.creation import arange, full
from depin_node.compute.programs.arrays.dtypes import KINDS, REAL_OF, TraceError, dtype_name, kind_names
from depin_node.compute.programs.arrays.elementwise import apply, astype, conj, not_equal, real, square, where
from depin_node.compute.programs.arrays.manipulation import (
    axes_of,
    axis_of,
    concat,
    moveaxis,
    permute_dims,
    reshape,
)

Axis = int | tuple[int, ...] | None
ROWS: Final = 16
COLUMNS_MIN: Final = 16
"""Rows at least so long are joined whole."""
_JOINS: Final = {
    "sum": "add",
    "prod": "multiply",
    "max": "maximum",
    "min": "minimum",
    "any": "logical_or",
    "all": "logical_and",
}
SPLIT_MIN: Final = 1 << 16
"""A reduction of at least so many elements is made in two steps, …"""
PARTS: Final = (1024, 512, 256, 128, 64)
"""… the first one for the first of these numbers of parts that divides it, …"""
RESULTS_MAX: Final = 64
"""… if it has at most so many results."""


def _kept(x: Array, axis: Axis, function: str) -> tuple[Array, tuple[int, ...]]:
    """Return the array as a matrix whose last axis is to be reduced, and the axes that this is made of."""
    axes = tuple(range(x.ndim)) if axis is None else axes_of(axis, x.ndim, function)
    kept = [one for one in range(x.ndim) if one not in axes]
    count = prod(x.shape[one] for one in axes)
    return reshape(permute_dims(x, (*kept, *sorted(axes))), (x.size // count, count)), axes


def _reduce(name: str, x: Array, axis: Axis, keepdims: bool, function: str) -> Array:
    matrix, axes = _kept(x, axis, function)
    shape = tuple(1 if one in axes else n for one, n in enumerate(x.shape) if keepdims or one not in axes)
    first, last = (min_of(axes), max_of(axes) + 1) if axes else (0, 0)
    columns = prod(x.shape[last:])
    if len(axes) == last - first > 0 and columns >= COLUMNS_MIN and x.op not in ("permute", "full"):
        return reshape(_join_rows(name, reshape(x, (prod(x.shape[:first]), matrix.shape[1], columns))), shape)
    rows, count = matrix.shape
    parts = next((n for n in PARTS if count % n == 0), 0)
    if parts and count >= SPLIT_MIN and rows <= RESULTS_MAX:
        inner = reshape(matrix, (rows * parts, count // parts))
        matrix = reshape(Array("reduce", (inner,), {"reduction": name}, x.kind, (rows * parts,)), (rows, parts))
    return reshape(Array("reduce", (matrix,), {"reduction": name}, x.kind, (rows,)), shape)


def _join_rows(name: str, x: Array) -> Array:
    """Reduce the middle one of three axes."""
    groups, count, columns = x.shape
    rest = count % ROWS if count > ROWS else count
    joined = None
    if count > rest:
        shape = (groups, ROWS, (count - rest) // ROWS, columns)
        parts = reshape(x[:, : count - rest, :], shape)
        step = parts[:, 0, :, :]
        for row in range(1, ROWS):
            step = apply(_JOINS[name], step, parts[:, row, :, :])
        joined = _join_rows(name, step)
    for row in range(count - rest, count):
        joined = x[:, row, :] if joined is None else apply(_JOINS[name], joined, x[:, row, :])
    assert joined is not None
    return joined


def _checked(x: Any, kinds: str, function: str) -> Array:
    array = as_array(x)
    if KINDS[array.kind] not in kinds:
        raise TraceError(f"{function} takes {kind_names(kinds)}; this array is {array.kind}: convert it with xp.astype")
    return array


def _summed(x: Any, dtype: Any, function: str) -> Array:
    """Return an array in the dtype that sums and products of it have: integers at least 64 bits."""
    x = _checked(x, "iufc", function)
    wide = {"i": "int64", "u": "uint64"}.get(KINDS[x.kind], x.kind)
    return astype(x, wide if dtype is None else dtype_name(dtype))


def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Return sums along axes."""
    return _reduce("sum", _summed(x, dtype, "sum"), axis, keepdims, "sum")


def product(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Return products along axes."""
    return _reduce("prod", _summed(x, dtype, "prod"), axis, keepdims, "prod")


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Return the largest elements along axes; NaN if there is one."""
    return _reduce("max", _checked(x, "iuf", "max"), axis, keepdims, "max")


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Return the smallest elements along axes; NaN if there is one."""
    return _reduce("min", _checked(x, "iuf", "min"), axis, keepdims, "min")


def _count(x: Array, axis: Axis) -> int:
    return x.size if axis is None else prod(x.shape[one] for one in axes_of(axis, x.ndim, "axis"))


def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return means along axes."""
    x = _checked(x, "fc", "mean")
    return sum(x, axis=axis, keepdims=keepdims) / _count(x, axis)


def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """Return variances along axes: of the differences from the mean, in two passes."""
    x = _checked(x, "f", "var")
    degrees = _count(x, axis) - correction
    if degrees <= 0:
        raise TraceError(
            f"var: {_count(x, axis)} elements less a correction of {correction} leave nothing to divide by"
        )
    return sum(square(x - mean(x, axis=axis, keepdims=True)), axis=axis, keepdims=keepdims) / float(degrees)


def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """Return standard deviations along axes."""
    return apply("sqrt", var(x, axis=axis, correction=correction, keepdims=keepdims))


def _truth(x: Any, function: str) -> Array:
    x = as_array(x)
    refuse_tolerant(function, x)
    return x if x.kind == "bool" else not_equal(x, 0)


def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Tell whether some element along axes is not zero."""
    return _reduce("any", _truth(x, "any"), axis, keepdims, "any")


def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Tell whether no element along axes is zero."""
    return _reduce("all", _truth(x, "all"), axis, keepdims, "all")


def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return how many elements along axes are not zero."""
    return sum(astype(_truth(x, "count_nonzero"), "int64"), axis=axis, keepdims=keepdims)


def _search(name: str, x: Any, axis: int | None, keepdims: bool) -> Array:
    """Return the first place of the largest or smallest element: the smallest place where it stands."""
    x = _checked(x, "iuf", name)
    refuse_tolerant(name, x)
    if axis is None:
        found = _search(name, reshape(x, (x.size,)), 0, False)
        return reshape(found, (1,) * x.ndim) if keepdims else found
    place = axis_of(axis, x.ndim, name)
    wanted = (max if name == "argmax" else min)(x, axis=place, keepdims=True)
    hit = x == wanted
    if KINDS[x.kind] == "f":
        hit = hit | (apply("isnan", x) & apply("isnan", wanted))
    length = x.shape[place]
    places = arange(length, dtype="int32" if length < 2**31 else "int64")
    places = reshape(places, (length, *(1,) * (x.ndim - place - 1)))
    return astype(min(where(hit, places, length), axis=place, keepdims=keepdims), "int64")


def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the places of the largest elements along an axis: the first, or that of the first NaN."""
    return _search("argmax", x, axis, keepdims)


def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the places of the smallest elements along an axis: the first, or that of the first NaN."""
    return _search("argmin", x, axis, keepdims)


def _scan(name: str, x: Any, axis: int | None, dtype: Any, include_initial: bool, function: str) -> Array:
    x = _summed(x, dtype, function)
    if axis is None:
        if x.ndim != 1:
            raise TraceError(f"{function}: say along which axis; the array has the shape {x.shape}")
        axis = 0
    place = axis_of(axis, x.ndim, function)
    moved = moveaxis(x, place, -1)
    length = x.shape[place]
    matrix = reshape(moved, (x.size // length, length))
    result = moveaxis(
        reshape(Array("scan", (matrix,), {"reduction": name}, x.kind, matrix.shape), moved.shape), -1, place
    )
    if not include_initial:
        return result
    first = list(x.shape)
    first[place] = 1
    return concat([full(tuple(first), int(name == "prod"), dtype=x.kind), result], axis=place)


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Array:
    """Return the sums of all elements up to each, along an axis."""
    return _scan("sum", x, axis, dtype, include_initial, "cumulative_sum")


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Array:
    """Return the products of all elements up to each, along an axis."""
    return _scan("prod", x, axis, dtype, include_initial, "cumulative_prod")


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Array | None = None, append: Array | None = None) -> Array:
    """Return the differences of neighbours along an axis, ``n`` times."""
    array = as_array(x)
    place = axis_of(axis, array.ndim, "diff")
    array = concat([a for a in (prepend, array, append) if a is not None], axis=place)
    before = (slice(None),) * place
    for _ in range(n):
        array = array[(*before, slice(1, None))] - array[(*before, slice(None, -1))]
    return array


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Return dot products along an axis, the first operand conjugated; exact, as a sum of products, in their dtype."""
    product = conj(x1) * x2
    return sum(product, axis=axis, dtype=product.dtype)


def vector_norm(x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Array:  # noqa: A002
    """Return vector norms along axes: of the order 1, 2, another number, ±infinity, or 0 (how many are not zero)."""
    x = _checked(x, "fc", "vector_norm")
    size = apply("abs", x)
    if ord in (float("inf"), float("-inf")):
        return (max if ord > 0 else min)(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return astype(count_nonzero(x, axis=axis, keepdims=keepdims), REAL_OF.get(x.kind, x.kind))
    if ord == 1:
        return sum(size, axis=axis, keepdims=keepdims)
    if ord == 2:
        return apply("sqrt", sum(real(conj(x) * x), axis=axis, keepdims=keepdims))
    return sum(size ** float(ord), axis=axis, keepdims=keepdims) ** (1 / float(ord))
