"""The standard's manipulation and indexing functions: views, joins, and taking elements by index arrays.

Views (``reshape``, slices, ``flip``, …) cost nothing: who reads them reads their source at another place. An index
array is data, so what it selects is computed element by element; an index out of range ends the task (``TaskTrapped``).
"""

import operator
from collections.abc import Sequence
from math import prod
from types import EllipsisType
from typing import Any, Final

from depin_node.compute.programs.arrays.array import (
    Array,
    Shape,
    as_array,
    broadcast_shapes,
    constant,
    refuse_tolerant,
)
from depin_node.compute.programs.arrays.dtypes import KINDS, TraceError, promote
from depin_node.compute.programs.arrays.elementwise import astype, broadcast_to, where

PIECES_MAX: Final = 1024


def axis_of(axis: Any, ndim: int, function: str) -> int:
    """Return an axis counted from the first. Raises ``TraceError`` if there is none."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise TraceError(f"{function}: axis = {axis!r}: expected an integer") from None
    if not -ndim <= number < ndim:
        raise TraceError(f"{function}: axis {number} of an array with {ndim} axes")
    return number % ndim


def axes_of(axis: Any, ndim: int, function: str) -> tuple[int, ...]:
    """Return axes counted from the first, in order. Raises ``TraceError`` if one is missing or named twice."""
    given = axis if isinstance(axis, tuple | list) else (axis,)
    axes = tuple(axis_of(one, ndim, function) for one in given)
    if len(set(axes)) < len(axes):
        raise TraceError(f"{function}: axis = {axis!r} names an axis twice")
    return axes


def reshape(x: Array, /, shape: tuple[int, ...] | int, *, copy: bool | None = None) -> Array:
    """Return the same elements in C order in another shape; one length may be -1."""
    x = as_array(x)
    lengths = list(shape) if isinstance(shape, tuple | list) else [shape]
    if lengths.count(-1) == 1:
        known = -prod(lengths)
        lengths[lengths.index(-1)] = x.size // known if known > 0 and x.size % known == 0 else 0
    if prod(lengths) != x.size or min(lengths, default=1) < 1:
        raise TraceError(f"an array of the shape {x.shape} does not reshape to {shape}")
    if tuple(lengths) == x.shape:
        return x
    if x.op == "full":
        return Array("full", (), x.attributes, x.kind, tuple(lengths))
    while x.op == "reshape":
        x = x.inputs[0]
    return Array("reshape", (x,), {}, x.kind, tuple(lengths))


def permute_dims(x: Array, /, axes: tuple[int, ...]) -> Array:
    """Return the array with its axes in another order."""
    x = as_array(x)
    order = axes_of(tuple(axes), x.ndim, "permute_dims")
    if len(order) != x.ndim:
        raise TraceError(f"permute_dims: axes = {axes}: expected all {x.ndim} axes")
    if order == tuple(range(x.ndim)):
        return x
    return Array("permute", (x,), {"axes": order}, x.kind, tuple(x.shape[axis] for axis in order))


def matrix_transpose(x: Array, /) -> Array:
    """Return matrices with their last two axes exchanged."""
    x = as_array(x)
    if x.ndim < 2:
        raise TraceError(f"matrix_transpose takes matrices; this array has the shape {x.shape}")
    return permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def moveaxis(x: Array, source: Any, destination: Any, /) -> Array:
    """Return the array with some axes at other places."""
    x = as_array(x)
    sources, targets = axes_of(source, x.ndim, "moveaxis"), axes_of(destination, x.ndim, "moveaxis")
    if len(sources) != len(targets):
        raise TraceError(f"moveaxis: {len(sources)} axes to {len(targets)} places")
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return permute_dims(x, tuple(order))


def expand_dims(x: Array, /, *, axis: int = 0) -> Array:
    """Return the array with an axis of length 1 more."""
    x = as_array(x)
    place = axis_of(axis, x.ndim + 1, "expand_dims")
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


def squeeze(x: Array, /, axis: int | tuple[int, ...]) -> Array:
    """Return the array without some axes of length 1."""
    x = as_array(x)
    axes = axes_of(axis, x.ndim, "squeeze")
    if any(x.shape[one] != 1 for one in axes):
        raise TraceError(f"squeeze: axis = {axis} of the shape {x.shape}: only axes of length 1 can go")
    return reshape(x, tuple(length for one, length in enumerate(x.shape) if one not in axes))


def broadcast_arrays(*arrays: Array) -> list[Array]:
    """Return arrays repeated to the shape that they have together."""
    shape = broadcast_shapes(*(array.shape for array in arrays))
    return [broadcast_to(array, shape) for array in arrays]


def flip(x: Array, /, *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return the array backwards along axes; by default all."""
    x = as_array(x)
    axes = range(x.ndim) if axis is None else axes_of(axis, x.ndim, "flip")
    return _sliced(
        x,
        [length - 1 if one in axes else 0 for one, length in enumerate(x.shape)],
        [-1 if one in axes else 1 for one in range(x.ndim)],
        x.shape,
    )


def _sliced(x: Array, starts: Sequence[int], steps: Sequence[int], shape: Shape) -> Array:
    if shape == x.shape and not any(starts) and all(step == 1 for step in steps):
        return x
    if x.op == "full":
        return Array("full", (), x.attributes, x.kind, shape)
    return Array("slice", (x,), {"starts": tuple(starts), "steps": tuple(steps)}, x.kind, shape)


def roll(x: Array, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return the array moved along axes, what falls off at one end coming in at the other."""
    x = as_array(x)
    if axis is None:
        return reshape(roll(reshape(x, (x.size,)), shift, axis=0), x.shape)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    shifts = shift if isinstance(shift, tuple | list) else (shift,) * len(axes)
    if len(axes) != len(shifts):
        raise TraceError(f"roll: {len(shifts)} shifts along {len(axes)} axes")
    total = [0] * x.ndim
    for one, by in zip(axes, shifts, strict=True):
        total[axis_of(one, x.ndim, "roll")] += operator.index(by)
    return Array("roll", (x,), {"shifts": tuple(total)}, x.kind, x.shape)


def repeat(x: Array, repeats: int, /, *, axis: int | None = None) -> Array:
    """Return the array with each element ``repeats`` times."""
    x = as_array(x)
    if not isinstance(repeats, int):
        raise TraceError("repeat: how often has to be one number that is known, for it decides the shape")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    place = axis_of(axis, x.ndim, "repeat")
    shape = tuple(n * repeats if k == place else n for k, n in enumerate(x.shape))
    return Array("repeat", (x,), {"axis": place, "count": repeats}, x.kind, shape)


def tile(x: Array, repetitions: int | tuple[int, ...], /) -> Array:
    """Return the array several times side by side along its axes."""
    x = as_array(x)
    given = tuple(repetitions) if isinstance(repetitions, tuple | list) else (repetitions,)
    times = (1,) * (x.ndim - len(given)) + given
    x = reshape(x, (1,) * (len(times) - x.ndim) + x.shape)
    return Array("tile", (x,), {}, x.kind, tuple(n * k for n, k in zip(x.shape, times, strict=True)))


def concat(arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
    """Return arrays one after the other along an axis."""
    pieces = [as_array(array) for array in arrays]
    if not 1 <= len(pieces) <= PIECES_MAX:
        raise TraceError(f"concat takes 1 to {PIECES_MAX} arrays, not {len(pieces)}")
    if axis is None:
        pieces, axis = [reshape(piece, (piece.size,)) for piece in pieces], 0
    place = axis_of(axis, pieces[0].ndim, "concat")
    kind = pieces[0].kind
    for piece in pieces[1:]:
        kind = promote(kind, piece.kind)
        if piece.ndim != pieces[0].ndim or any(
            a != b for k, (a, b) in enumerate(zip(piece.shape, pieces[0].shape, strict=True)) if k != place
        ):
            raise TraceError(f"concat: the shapes {pieces[0].shape} and {piece.shape} differ beside axis {place}")
    shape = list(pieces[0].shape)
    shape[place] = sum(piece.shape[place] for piece in pieces)
    pieces = [astype(piece, kind) for piece in pieces]
    return pieces[0] if len(pieces) == 1 else Array("concat", tuple(pieces), {"axis": place}, kind, tuple(shape))


def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Return arrays of one shape side by side along a new axis."""
    pieces = [as_array(array) for array in arrays]
    if any(piece.shape != pieces[0].shape for piece in pieces):
        raise TraceError(f"stack takes arrays of one shape, not {', '.join(str(p.shape) for p in pieces[:4])}")
    return concat([expand_dims(piece, axis=axis) for piece in pieces], axis=axis)


def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    """Return the slices of an array along an axis."""
    return tuple(moveaxis(x, axis, 0))


def _indices(indices: Any, function: str) -> Array:
    array = indices if isinstance(indices, Array) else constant(indices)
    if KINDS[array.kind] not in "iu":
        raise TraceError(f"{function} takes indices of integers, not of {array.kind}")
    refuse_tolerant(function, array)
    return array


def take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """Return the elements (or slices along ``axis``) of ``x`` at ``indices``; negative ones count from the end."""
    x, at = as_array(x), _indices(indices, "take")
    if axis is None:
        if x.ndim != 1:
            raise TraceError(f"take: say along which axis; the array has the shape {x.shape}")
        axis = 0
    place = axis_of(axis, x.ndim, "take")
    return Array("take", (x, at), {"axis": place}, x.kind, (*x.shape[:place], *at.shape, *x.shape[place + 1 :]))


def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """Return, along an axis, the elements at the places that ``indices`` has for each row."""
    x, at = as_array(x), _indices(indices, "take_along_axis")
    place = axis_of(axis, x.ndim, "take_along_axis")
    if at.ndim != x.ndim:
        raise TraceError(f"take_along_axis: an array of {x.ndim} axes, indices of {at.ndim}")
    others = broadcast_shapes(*((*array.shape[:place], 1, *array.shape[place + 1 :]) for array in (x, at)))
    x = broadcast_to(x, (*others[:place], x.shape[place], *others[place + 1 :]))
    shape = (*others[:place], at.shape[place], *others[place + 1 :])
    return Array("take_along", (x, broadcast_to(at, shape)), {"axis": place}, x.kind, shape)


def indexed(x: Array, key: Any) -> Array:
    """Return ``x[key]``: integers, slices, ``None``, ``...``, and index arrays of integers.

    Raises:
        TraceError: out of range, or a mask, which would select a number of elements that is not known.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    for one in keys:
        if isinstance(one, bool) or getattr(getattr(one, "dtype", None), "kind", "") == "b":
            raise TraceError(
                "a mask selects a number of elements that is not known before the program runs: use "
                "xp.where(mask, x, other), or xp.nonzero(mask, size=…)"
            )
    keys = [constant(one) if not isinstance(one, Array) and hasattr(one, "__array__") else one for one in keys]
    keys = [int(one.attributes["value"]) if isinstance(one, Array) and _is_number(one) else one for one in keys]
    named = sum(1 for one in keys if one is not None and one is not Ellipsis)
    dots = [place for place, one in enumerate(keys) if one is Ellipsis]
    if len(dots) > 1 or named > x.ndim:
        raise TraceError(f"{named} indices and {len(dots)} ... of an array with {x.ndim} axes")
    at = dots[0] if dots else len(keys)
    keys[at : at + 1] = [slice(None)] * (x.ndim - named)
    arrays = [one for one in keys if isinstance(one, Array)]
    basic = _basic(x, [slice(None) if isinstance(one, Array) else one for one in keys])
    return _gathered(basic, keys, arrays) if arrays else basic


def _is_number(one: Array) -> bool:
    return one.op == "full" and not one.shape and KINDS[one.kind] in "iu"


def _basic(x: Array, keys: Sequence[int | slice | EllipsisType | None]) -> Array:
    starts, steps, cut, shape = [], [], [], []
    axis = 0
    for one in keys:
        if one is None:
            shape.append(1)
            continue
        length = x.shape[axis]
        if isinstance(one, slice):
            start, stop, step = one.indices(length)
            count = len(range(start, stop, step))
            if not count:
                raise TraceError(f"{one} of {length} selects no elements: arrays in programs have some")
            starts.append(start)
            steps.append(step)
            cut.append(count)
            shape.append(count)
        else:
            number = operator.index(one)  # type: ignore[arg-type]
            if not -length <= number < length:
                raise TraceError(f"index {number} of an axis with {length} elements")
            starts.append(number % length)
            steps.append(1)
            cut.append(1)
        axis += 1
    return reshape(_sliced(x, starts, steps, tuple(cut)), tuple(shape))


def _gathered(x: Array, keys: Sequence[Any], arrays: Sequence[Array]) -> Array:
    """Take by index arrays; ``keys`` are those of ``x`` before its integers went."""
    left = [one for one in keys if isinstance(one, Array | slice) or one is None]
    places = [place for place, one in enumerate(left) if isinstance(one, Array)]
    integers = any(not isinstance(one, Array | slice) and one is not None for one in keys)
    if len(arrays) > 1 or integers:
        if places != list(range(places[0], places[0] + len(places))) or integers:
            raise TraceError(
                "index arrays have to stand side by side, without integers: take slices and integers first"
            )
        return _take_together(x, arrays, places[0])
    return take(x, arrays[0], axis=places[0])


def _take_together(x: Array, arrays: Sequence[Array], axis: int) -> Array:
    """Take along several axes at once: as along one, whose index is made of theirs."""
    lengths = x.shape[axis : axis + len(arrays)]
    together = None
    for one, length in zip(arrays, lengths, strict=True):
        own = astype(_indices(one, "indexing"), "int64")
        own = _from_start(own, length)
        together = own if together is None else together * length + own
    assert together is not None
    joined = reshape(x, (*x.shape[:axis], prod(lengths), *x.shape[axis + len(arrays) :]))
    return take(joined, together, axis=axis)


def _from_start(indices: Array, length: int) -> Array:
    """Count indices from the start; what is out of range goes far out of range, so that it is in no other row."""
    moved = where(indices < 0, indices + length, indices)
    return where((moved < 0) | (moved >= length), 2**40, moved)
