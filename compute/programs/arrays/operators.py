"""Python's operators on symbolic arrays: each is a function of the standard."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depin_node.compute.programs.arrays.array import Array


def functions() -> Any:
    """Return the module of the standard's functions, which are made of arrays and so import this one."""
    from depin_node.compute.programs.arrays import namespace

    return namespace


def _unary(name: str) -> "Callable[[Any], Array]":
    def operator(self: Any) -> "Array":
        result: Array = getattr(functions(), name)(self)
        return result

    return operator


def _binary(name: str) -> "Callable[[Any, Any], Array]":
    def operator(self: Any, other: Any) -> "Array":
        result: Array = getattr(functions(), name)(self, other)
        return result

    return operator


def _reflected(name: str) -> "Callable[[Any, Any], Array]":
    def operator(self: Any, other: Any) -> "Array":
        result: Array = getattr(functions(), name)(other, self)
        return result

    return operator


class Operators:
    """The operators, also with a number or a NumPy array on the left."""

    __slots__ = ()
    __hash__ = object.__hash__

    __eq__ = _binary("equal")  # type: ignore[assignment]
    __ne__ = _binary("not_equal")  # type: ignore[assignment]
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _binary("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _binary("divide"), _reflected("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _reflected("floor_divide")
    __mod__, __rmod__ = _binary("remainder"), _reflected("remainder")
    __pow__, __rpow__ = _binary("pow"), _reflected("pow")
    __matmul__, __rmatmul__ = _binary("matmul"), _reflected("matmul")
    __and__, __rand__ = _binary("bitwise_and"), _reflected("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or"), _reflected("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor"), _reflected("bitwise_xor")
    __lshift__, __rlshift__ = _binary("bitwise_left_shift"), _reflected("bitwise_left_shift")
    __rshift__, __rrshift__ = _binary("bitwise_right_shift"), _reflected("bitwise_right_shift")
    __neg__, __pos__, __abs__ = _unary("negative"), _unary("positive"), _unary("abs")
    __invert__ = _unary("bitwise_invert")
