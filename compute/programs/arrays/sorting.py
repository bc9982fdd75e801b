"""The standard's sorting, searching and set functions. Sorts are stable, NaNs come last in either direction.

How many elements are unique, or not zero, depends on the data, and shapes do not: these functions take ``size``, and
fill up with ``fill_value``; what is too much is left out, the first ones stay.
"""

from typing import Any, NamedTuple

from depin_node.compute.programs.arrays.array import Array, as_array, as_arrays, refuse_tolerant
from depin_node.compute.programs.arrays.creation import arange, full
from depin_node.compute.programs.arrays.dtypes import KINDS, TraceError, kind_names
from depin_node.compute.programs.arrays.elementwise import astype, not_equal, where
from depin_node.compute.programs.arrays.manipulation import axis_of, concat, moveaxis, reshape, take
from depin_node.compute.programs.arrays.statistics import cumulative_sum


def _sort(op: str, x: Any, axis: int, descending: bool) -> Array:
    x = as_array(x)
    if KINDS[x.kind] not in "iuf":
        raise TraceError(f"{op} takes {kind_names('iuf')}; this array is {x.kind}: convert it with xp.astype")
    refuse_tolerant(op, x)
    place = axis_of(axis, x.ndim, op)
    moved = moveaxis(x, place, -1)
    matrix = reshape(moved, (x.size // x.shape[place], x.shape[place]))
    kind = "int64" if op == "argsort" else x.kind
    sorted_ = Array(op, (matrix,), {"descending": bool(descending)}, kind, matrix.shape)
    return moveaxis(reshape(sorted_, moved.shape), -1, place)


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return the array sorted along an axis."""
    return _sort("sort", x, axis, descending)


def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return the places along an axis of the elements in order."""
    return _sort("argsort", x, axis, descending)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Array | None = None) -> Array:
    """Return where the elements of ``x2`` belong in the sorted ``x1``: before its equals (left) or after (right)."""
    values, wanted = as_arrays(x1, x2)
    if values.ndim != 1:
        raise TraceError(f"searchsorted: x1 has the shape {values.shape}: expected one axis")
    if KINDS[values.kind] not in "iuf":
        raise TraceError(f"searchsorted takes {kind_names('iuf')}; these arrays are {values.kind}")
    if side not in ("left", "right"):
        raise TraceError(f"searchsorted: side = {side!r}: expected 'left' or 'right'")
    refuse_tolerant("searchsorted", values, wanted)
    order: tuple[Array, ...] = ()
    if sorter is not None:
        if sorter.shape != values.shape or KINDS[sorter.kind] not in "iu":
            raise TraceError("searchsorted: sorter has to be what xp.argsort(x1) gives")
        order = (astype(sorter, "int64"),)
    return Array("search", (values, wanted, *order), {"right": side == "right"}, "int64", wanted.shape)


def _size(size: Any, function: str) -> int:
    if not isinstance(size, int) or size < 1:
        raise TraceError(
            f"{function} has as many elements as the data decide, and shapes have to be known before the program runs: "
            f"say how many there are at most, as in xp.{function}(x, size=100), and the rest is filled up"
        )
    return size


def nonzero(x: Any, /, *, size: int | None = None, fill_value: int = 0) -> tuple[Array, ...]:
    """Return where the array is not zero, in C order: an array of ``size`` indices for each axis."""
    x = as_array(x)
    count = _size(size, "nonzero")
    refuse_tolerant("nonzero", x)
    hit = reshape(x if x.kind == "bool" else not_equal(x, 0), (x.size,))
    seen = cumulative_sum(astype(hit, "int64"))
    flat = searchsorted(seen, arange(1, count + 1))
    there = flat < x.size
    found, left = [], flat
    for length in reversed(x.shape):
        found.append(where(there, left % length, fill_value))
        left = left // length
    return tuple(reversed(found))


def _firsts(x: Array, count: int) -> tuple[Array, Array]:
    """Return a sorted array's places where a new value begins, ``count`` of them, and which of them there are."""
    new = x[1:] != x[:-1] if x.size > 1 else None
    first = full((1,), True)
    begins = first if new is None else concat([first, new])
    (places,) = nonzero(begins, size=count, fill_value=x.size)
    return places, places < x.size


def unique_values(x: Any, /, *, size: int | None = None, fill_value: complex = 0) -> Array:
    """Return the different values of an array, ascending: ``size`` of them."""
    return unique_counts(x, size=size, fill_value=fill_value).values


class UniqueCounts(NamedTuple):
    """Different values, and how often each occurs."""

    values: Array
    counts: Array


def unique_counts(x: Any, /, *, size: int | None = None, fill_value: complex = 0) -> UniqueCounts:
    """Return the different values of an array, ascending, ``size`` of them, and how often each occurs."""
    x = as_array(x)
    count = _size(size, "unique_values")
    ordered = sort(reshape(x, (x.size,)))
    places, there = _firsts(ordered, count + 1)
    values = take(ordered, where(there, places, 0))
    return UniqueCounts(where(there, values, fill_value)[:-1], places[1:] - places[:-1])


class UniqueInverse(NamedTuple):
    """Different values, and for each element which of them it is."""

    values: Array
    inverse_indices: Array


def unique_inverse(x: Any, /, *, size: int | None = None, fill_value: complex = 0) -> UniqueInverse:
    """Return the different values of an array, ascending, ``size`` of them, and which of all each element is."""
    x = as_array(x)
    flat = reshape(x, (x.size,))
    order = argsort(flat)
    ordered = take(flat, order)
    values = unique_values(x, size=_size(size, "unique_inverse"), fill_value=fill_value)
    new = concat([full((1,), False), ordered[1:] != ordered[:-1]]) if x.size > 1 else full((1,), False)
    number = cumulative_sum(astype(new, "int64"))
    return UniqueInverse(values, reshape(take(number, argsort(order)), x.shape))


class UniqueAll(NamedTuple):
    """Different values, where each is first, for each element which of them it is, and how often each occurs."""

    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


def unique_all(x: Any, /, *, size: int | None = None, fill_value: complex = 0) -> UniqueAll:
    """Return what ``unique_counts`` and ``unique_inverse`` do, and the index of each value's first element.

    Of values that are not there the index is the number of elements.
    """
    x = as_array(x)
    order = argsort(reshape(x, (x.size,)))
    places, there = _firsts(take(reshape(x, (x.size,)), order), _size(size, "unique_all"))
    indices = where(there, take(order, where(there, places, 0)), x.size)
    values, counts = unique_counts(x, size=size, fill_value=fill_value)
    inverse = unique_inverse(x, size=size, fill_value=fill_value).inverse_indices
    return UniqueAll(values, indices, inverse, counts)


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Array:
    """Tell for each element of ``x1`` whether it is in ``x2``."""
    wanted, values = as_arrays(x1, x2)
    ordered = sort(reshape(values, (values.size,)))
    place = searchsorted(ordered, wanted)
    found = (place < ordered.size) & (take(ordered, where(place < ordered.size, place, 0)) == wanted)
    return ~found if invert else found
