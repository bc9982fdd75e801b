"""``Array``: what stands for an array while a function is traced. It knows its dtype and shape, and how it is made.

Arrays form a graph: each holds the name of an operation, the arrays that it takes and numbers that belong to it. They
never change, and there is no list of what was called: what the results of a function do not need is not computed.

*Tolerant* is an array that depends on an operation of the device's library (``Node.tolerant``): its values are known
within a tolerance only, so nothing discrete may be decided by them (``refuse_tolerant``).
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Final

import numpy as np

from depin_node.compute.programs.arguments import taken
from depin_node.compute.programs.arrays.dtypes import (
    NoAttributeError,
    TraceError,
    common_kind,
    dtype_name,
    meet,
    python_dtype,
)
from depin_node.compute.programs.arrays.operators import Operators, functions
from depin_node.compute.programs.program import DIMENSIONS_MAX
from depin_node.core.text import did_you_mean

DEVICE: Final = "program"
"""The one device that there is: whichever will run the program."""
ITERATION_MAX: Final = 1024
Shape = tuple[int, ...]


class Array(Operators):
    """A symbolic array with the attributes and operators of the array API standard.

    Attributes:
        op: what makes it, a name of ``emit.py`` or ``lower.py``.
        inputs: the arrays it is made of.
        attributes: the numbers that belong to it.
        kind: its dtype, by NumPy's name.
        shape: its lengths, all of them known.
        tolerant: see the module.
    """

    __slots__ = ("attributes", "inputs", "kind", "op", "shape", "tolerant")

    def __init__(
        self,
        op: str,
        inputs: tuple["Array", ...],
        attributes: Mapping[str, Any],
        kind: str,
        shape: Shape,
        *,
        tolerant: bool = False,
    ) -> None:
        if not all(length > 0 for length in shape):
            raise TraceError(f"{op}: the result of shape {shape} has no elements: arrays in programs have some")
        if len(shape) > DIMENSIONS_MAX:
            raise TraceError(f"{op}: the result has {len(shape)} axes; arrays can have {DIMENSIONS_MAX}")
        self.op, self.inputs, self.attributes, self.kind, self.shape = op, inputs, attributes, kind, shape
        self.tolerant: bool = tolerant or any(array.tolerant for array in inputs)

    def __repr__(self) -> str:
        return f"<traced {self.kind} {self.shape} by {self.op}>"

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype."""
        return np.dtype(self.kind)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def device(self) -> str:
        """Where it is: on the device that will run the program."""
        return DEVICE

    @property
    def T(self) -> "Array":  # noqa: N802 - the standard's name
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise TraceError(f"T is of matrices; this array has {self.ndim} axes: use xp.permute_dims")
        return self.mT

    @property
    def mT(self) -> "Array":  # noqa: N802 - the standard's name
        """The transpose of a stack of matrices."""
        transposed: Array = functions().matrix_transpose(self)
        return transposed

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """Return the functions of the standard."""
        if api_version not in (None, "2022.12", "2023.12", "2024.12"):
            raise TraceError(f"version {api_version!r} of the array API standard is not known; 2024.12 is")
        return functions()

    def to_device(self, device: Any, /, *, stream: Any = None) -> "Array":
        """Return itself: a program runs on one device."""
        if device != self.device or stream is not None:
            raise TraceError(f"there is one device, {self.device!r}: not {device!r}")
        return self

    def __getattr__(self, name: str) -> Any:
        """Refuse NumPy's methods, which arrays of the standard do not have; ``hasattr`` says so."""
        if name.startswith("__"):
            raise AttributeError(name)
        if name in functions().__all__:
            raise NoAttributeError(
                f"a traced array has no {name!r}, which is a function in the array API standard: write"
                f" xp = x.__array_namespace__() and xp.{name}(x)"
            )
        known = (known for known in (*dir(Array), *functions().__all__) if not known.startswith("_"))
        raise NoAttributeError(
            f"a traced array has no {name!r}{did_you_mean(name, known)}; docs/arrays.md has what it has"
        )

    def __getitem__(self, key: Any) -> "Array":
        from depin_node.compute.programs.arrays.manipulation import indexed

        return indexed(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TraceError(
            "traced arrays do not change: make a new one, as with xp.where(condition, value, x) or xp.concat"
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TraceError("an array without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator["Array"]:
        if len(self) > ITERATION_MAX:
            raise TraceError(f"a loop over {len(self)} rows is recorded row by row: at most {ITERATION_MAX}; use axes")
        return iter([self[row] for row in range(len(self))])

    def __bool__(self) -> bool:
        raise TraceError(
            "Python cannot branch on a traced array, whose values are not known before the program runs (if, while, "
            "and, or, not, in): use xp.where(condition, a, b), or & | ~ on bool arrays"
        )

    def _no_number(self, what: str) -> TraceError:
        return TraceError(f"a traced array has no value yet, so it cannot become {what}: keep it an array")

    def __int__(self) -> int:
        raise self._no_number("a Python int")

    def __float__(self) -> float:
        raise self._no_number("a Python float")

    def __complex__(self) -> complex:
        raise self._no_number("a Python complex")

    def __index__(self) -> int:
        raise self._no_number("an index or a length; index with xp.take")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._no_number("a NumPy array; use the functions of x.__array_namespace__() instead of NumPy's")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> "Array":
        """Take the operators of NumPy arrays and numbers with this one on the right; refuse NumPy's functions."""
        function = _OPERATORS.get(ufunc.__name__) if method == "__call__" and len(inputs) == 2 else None
        if function is None:
            raise TraceError(f"numpy.{ufunc.__name__} does not record: write xp = x.__array_namespace__() and use xp")
        left, right = (_constant(value) for value in inputs)
        return getattr(functions(), function)(left, right)  # type: ignore[no-any-return]

    def __array_function__(self, function: Any, *_: Any) -> Any:
        """Refuse NumPy's functions."""
        raise TraceError(f"numpy.{function.__name__} does not record: write xp = x.__array_namespace__() and use xp")


_OPERATORS: Final = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "divide": "divide",
    "true_divide": "divide",
    "floor_divide": "floor_divide",
    "remainder": "remainder",
    "power": "pow",
    "matmul": "matmul",
    "bitwise_and": "bitwise_and",
    "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor",
    "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift",
    "equal": "equal",
    "not_equal": "not_equal",
    "less": "less",
    "less_equal": "less_equal",
    "greater": "greater",
    "greater_equal": "greater_equal",
}
"""NumPy's functions behind its operators, and the standard's names."""


def _constant(value: Any) -> Any:
    return constant(value) if isinstance(value, np.ndarray | np.generic) else value


def constant(value: Any, dtype: Any = None) -> Array:
    """Return an array of known values: a number, or a NumPy array, which becomes an input of the program."""
    array = np.asarray(value, None if dtype is None else dtype_name(dtype))
    kind = dtype_name(array.dtype)
    if not array.ndim:
        return Array("full", (), {"value": array.item()}, kind, ())
    return Array("constant", (), {"array": taken(array)}, kind, array.shape)


def as_array(value: Any, beside: str | None = None) -> Array:
    """Return an operand as an array; a Python number takes the type that it has ``beside`` an array of that dtype."""
    if isinstance(value, Array):
        return value
    if isinstance(value, bool | int | float | complex) and not isinstance(value, np.generic):
        kind = python_dtype(value) if beside is None else meet(value, beside)
        return Array("full", (), {"value": value}, kind, ())
    if isinstance(value, np.ndarray | np.generic):
        return constant(value)
    raise TraceError(f"expected an array or a number, not {type(value).__name__}")


def as_arrays(*values: Any) -> tuple[Array, ...]:
    """Return operands as arrays of one dtype, promoted as the standard says; at least one has to be an array."""
    operands = [_constant(value) for value in values]
    dtypes = [operand.kind for operand in operands if isinstance(operand, Array)]
    if not dtypes:
        raise TraceError("all operands are Python numbers: make one an array with xp.asarray")
    numbers = [operand for operand in operands if isinstance(operand, int | float | complex)]
    kind = common_kind(dtypes, numbers)
    return tuple(functions().astype(as_array(value, kind), kind, copy=False) for value in operands)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the shape that arrays have together. Raises ``TraceError`` if they do not go together."""
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise TraceError(f"arrays of the shapes {', '.join(map(str, shapes))} do not broadcast together") from None


def refuse_tolerant(function: str, *arrays: Array) -> None:
    """Refuse to decide something discrete by numbers that are known within a tolerance only.

    Raises:
        TraceError: one of ``arrays`` is tolerant.
    """
    if any(array.tolerant for array in arrays):
        raise TraceError(
            f"{function} decides by the result of matmul, a factorisation or an FFT, whose last bits differ from "
            "machine to machine, so peers might decide differently: make two jobs, the first up to that result, the "
            "second with the accepted result as its input"
        )
