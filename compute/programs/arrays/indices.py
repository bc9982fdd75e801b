"""Where an element is: the index of an array in C text, as one number in C order or as a digit for each axis.

A kernel's threads have one index; every array that it reads is reached from there by views. A view turns the index of
its result into that of its source: only numbers change, nothing is copied. Digits cost divisions, so an index keeps
both forms and makes either when it is asked for; what needs no digits never computes any.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from depin_node.compute.programs.arrays.array import Array, Shape

Let = Callable[[str], str]
"""Declares an integer and returns its name; the same text again is the same name."""


class Index:
    """The place of one element of an array of ``shape``. ``is_number``: its digits cost divisions."""

    def __init__(
        self,
        shape: Shape,
        let: Let,
        *,
        flat: Callable[[], str] | None = None,
        digits: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.shape, self._let = shape, let
        self._make_flat, self._make_digits = flat or self._to_flat, digits or self._to_digits
        self.is_number = digits is None
        self._flat: str | None = None
        self._digits: tuple[str, ...] | None = None

    @property
    def flat(self) -> str:
        """The element's number in C order: a name, a number or an expression in parentheses."""
        if self._flat is None:
            self._flat = self._make_flat()
        return self._flat

    @property
    def digits(self) -> tuple[str, ...]:
        """Its place along each axis, likewise."""
        if self._digits is None:
            self._digits = tuple(self._make_digits())
        return self._digits

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this place from others of the same array."""
        return (self._flat,) if self._flat is not None else self.digits

    def _to_flat(self) -> str:
        terms = []
        for axis, digit in enumerate(self.digits):
            inner = prod(self.shape[axis + 1 :])
            if self.shape[axis] > 1 and digit != "0":
                terms.append(digit if inner == 1 else f"{digit} * {inner}")
        if len(terms) == 1 and "*" not in terms[0]:
            return terms[0]
        return f"({' + '.join(terms)})" if terms else "0"

    def _to_digits(self) -> tuple[str, ...]:
        return split(self.flat, self.shape, self._let)


def split(flat: str, shape: Shape, let: Let) -> tuple[str, ...]:
    """Return the digits of a number."""
    long = [axis for axis, length in enumerate(shape) if length > 1]
    digits = ["0"] * len(shape)
    for axis in long:
        inner = prod(shape[axis + 1 :])
        text = flat if inner == 1 else f"{flat} / {inner}u"
        digits[axis] = let(f"{text} % {shape[axis]}u" if axis != long[0] else text) if len(long) > 1 else flat
    return tuple(digits)


def source_index(view: Array, index: Index, let: Let) -> Index:
    """Return where the element of ``view`` at ``index`` is in what it views."""
    shape = view.inputs[0].shape
    return _VIEWS[view.op](shape, view.attributes, index, let)


def _reshape(shape: Shape, _: Any, index: Index, let: Let) -> Index:
    def digits() -> Sequence[str]:
        return split(index.flat, shape, let) if index.is_number else _regroup(index, shape, let)

    return Index(shape, let, flat=lambda: index.flat, digits=digits)


def _regroup(index: Index, shape: Shape, let: Let) -> list[str]:
    """Return the digits of a reshaped index: axes are joined and cut only where the two shapes differ."""
    digits = ["0"] * len(shape)
    ours = [axis for axis, length in enumerate(shape) if length > 1]
    theirs = [axis for axis, length in enumerate(index.shape) if length > 1]
    while ours:
        group, other = [ours.pop(0)], [theirs.pop(0)]
        while (size := prod(shape[axis] for axis in group)) != (own := prod(index.shape[axis] for axis in other)):
            if size < own:
                group.append(ours.pop(0))
            else:
                other.append(theirs.pop(0))
        joined = Index(tuple(index.shape[k] for k in other), let, digits=[index.digits[k] for k in other].copy)
        for axis, digit in zip(group, split(joined.flat, tuple(shape[k] for k in group), let), strict=True):
            digits[axis] = digit
    return digits


def _permute(shape: Shape, attributes: Any, index: Index, let: Let) -> Index:
    axes: tuple[int, ...] = attributes["axes"]
    return Index(shape, let, digits=lambda: [index.digits[axes.index(axis)] for axis in range(len(shape))])


def _slice(shape: Shape, attributes: Any, index: Index, let: Let) -> Index:
    def digit(axis: int) -> str:
        start, step, own = attributes["starts"][axis], attributes["steps"][axis], index.digits[axis]
        if own == "0":
            return str(start)
        if step == 1:
            return f"({own} + {start})" if start else own
        return f"({start} + {own} * {step})" if step > 0 else f"({start} - {own} * {-step})"

    return Index(shape, let, digits=lambda: [digit(axis) for axis in range(len(shape))])


def _broadcast(shape: Shape, _: Any, index: Index, let: Let) -> Index:
    extra = len(index.shape) - len(shape)
    if not any(n > 1 for n in shape):
        return Index(shape, let, flat=lambda: "0", digits=lambda: ["0"] * len(shape))
    if index.shape[extra:] == shape and prod(index.shape[:extra]) == 1:
        return Index(shape, let, flat=lambda: index.flat, digits=lambda: index.digits[extra:])
    return Index(
        shape, let, digits=lambda: [d if n > 1 else "0" for n, d in zip(shape, index.digits[extra:], strict=True)]
    )


def _roll(shape: Shape, attributes: Any, index: Index, let: Let) -> Index:
    def digit(axis: int) -> str:
        own, shift = index.digits[axis], attributes["shifts"][axis] % shape[axis]
        return let(f"{own} < {shift} ? {own} + {shape[axis] - shift} : {own} - {shift}") if shift else own

    return Index(shape, let, digits=lambda: [digit(axis) for axis in range(len(shape))])


def _repeat(shape: Shape, attributes: Any, index: Index, let: Let) -> Index:
    axis, count = attributes["axis"], attributes["count"]
    return Index(
        shape, let, digits=lambda: [let(f"{d} / {count}u") if k == axis else d for k, d in enumerate(index.digits)]
    )


def _tile(shape: Shape, _: Any, index: Index, let: Let) -> Index:
    def digit(axis: int) -> str:
        own = index.digits[axis]
        if shape[axis] == 1:
            return "0"
        return own if index.shape[axis] == shape[axis] else let(f"{own} % {shape[axis]}u")

    return Index(shape, let, digits=lambda: [digit(axis) for axis in range(len(shape))])


_VIEWS = {
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "broadcast": _broadcast,
    "roll": _roll,
    "repeat": _repeat,
    "tile": _tile,
}
VIEWS = frozenset(_VIEWS)
"""Operations that only say where elements are."""
