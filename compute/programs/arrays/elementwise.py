"""The standard's elementwise functions, ``where`` and conversions: which dtypes they take, and what comes out.

Each is a line of ``words.WORDS``. Operands promote and broadcast as the standard says; at least one has to be an array.
"""

from collections.abc import Callable
from typing import Any, Final

from depin_node.compute.programs.arrays.array import (
    Array,
    as_array,
    as_arrays,
    broadcast_shapes,
    refuse_tolerant,
)
from depin_node.compute.programs.arrays.dtypes import KINDS, REAL_OF, TraceError, dtype_name, fill_number, kind_names
from depin_node.compute.programs.arrays.words import WORDS

_WHOLE: Final = frozenset({"ceil", "floor", "trunc", "round"})


def apply(name: str, *operands: Any) -> Array:
    """Return an elementwise function of arrays and numbers.

    Raises:
        TraceError: it does not take their dtypes or shapes, or would decide by a tolerant operand.
    """
    word = WORDS[name]
    arrays = as_arrays(*operands)
    kind = KINDS[arrays[0].kind]
    if name in _WHOLE and kind in "iu":
        return arrays[0]
    if name in ("isnan", "isinf", "isfinite") and kind in "iu":
        return full_like(arrays[0], name == "isfinite", "bool")
    if not any(kind in kinds for kinds in word.texts):
        taken = kind_names("".join(word.texts))
        raise TraceError(f"{name} takes {taken}; this array is {arrays[0].kind}: convert it with xp.astype")
    if word.discrete and not _continues(name, kind, arrays):
        refuse_tolerant(name, *arrays)
    dtype = {"same": arrays[0].kind, "bool": "bool", "real": REAL_OF.get(arrays[0].kind, arrays[0].kind)}[word.result]
    shape = broadcast_shapes(*(array.shape for array in arrays))
    return Array(name, tuple(broadcast_to(array, shape) for array in arrays), {}, dtype, shape)


def _continues(name: str, kind: str, arrays: tuple[Array, ...]) -> bool:
    """Whether a function that jumps does not for these operands. The sign of a complex number is its direction."""
    return name == "sign" and kind == "c"


def broadcast_to(x: Array, /, shape: tuple[int, ...]) -> Array:
    """Return ``x`` repeated to ``shape``."""
    x = as_array(x)
    shape = tuple(shape)
    if x.shape == shape:
        return x
    if broadcast_shapes(x.shape, shape) != shape:
        raise TraceError(f"an array of the shape {x.shape} does not broadcast to {shape}")
    if x.op == "full":
        return Array("full", (), x.attributes, x.kind, shape)
    return Array("broadcast", (x,), {}, x.kind, shape)


def full_like(x: Array, /, fill_value: complex, dtype: Any = None, *, device: Any = None) -> Array:
    """Return an array of one number, with the shape and by default the dtype of ``x``."""
    kind = x.kind if dtype is None else dtype_name(dtype)
    return Array("full", (), {"value": fill_number(fill_value, kind)}, kind, x.shape)


def astype(x: Array, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Array:
    """Return ``x`` converted. Floats become integers towards zero, and at the ends of the range what lies beyond."""
    x, kind = as_array(x), dtype_name(dtype)
    if x.kind == kind:
        return x
    source, target = KINDS[x.kind], KINDS[kind]
    if source == "c" and target != "c":
        raise TraceError(f"a complex array does not become {kind}: take xp.real(x), xp.imag(x) or xp.abs(x) of it")
    if source in "fc" and target in "biu":
        refuse_tolerant(f"astype({kind})", x)
    if x.op == "full" and source != "f" and target != "b":
        return Array("full", (), {"value": _converted(x.attributes["value"], kind)}, kind, x.shape)
    return Array("astype", (x,), {}, kind, x.shape)


def _converted(value: Any, kind: str) -> Any:
    """Return a bool or an integer as the dtype has it."""
    import numpy as np

    return np.asarray(value).astype(kind).item()


def where(condition: Any, x1: Any, x2: Any, /) -> Array:
    """Return ``x1`` where ``condition`` is true, else ``x2``."""
    condition = as_array(condition)
    if condition.kind != "bool":
        raise TraceError(f"where takes a condition of bools, not of {condition.kind}: compare, as in x != 0")
    one, other = as_arrays(x1, x2)
    shape = broadcast_shapes(condition.shape, one.shape, other.shape)
    operands = tuple(broadcast_to(array, shape) for array in (condition, one, other))
    return Array("where", operands, {}, one.kind, shape)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Array:  # noqa: A002 - the standard's names
    """Return ``x`` with what is below ``min`` or above ``max`` put there; bounds do not change its dtype."""
    array = as_array(x)
    for bound, name in ((min, "maximum"), (max, "minimum")):
        if bound is None:
            continue
        if isinstance(bound, Array) and bound.kind != array.kind:
            raise TraceError(f"clip: the array is {array.kind}, a bound {bound.kind}: convert the bound with xp.astype")
        array = apply(name, array, bound)
    return array


def real(x: Any, /) -> Array:
    """Return the real parts of complex numbers."""
    return _of_numbers("real", x)


def imag(x: Any, /) -> Array:
    """Return the imaginary parts of complex numbers."""
    return apply("imag", x)


def conj(x: Any, /) -> Array:
    """Return the conjugates of complex numbers; real numbers stay."""
    return _of_numbers("conj", x)


def _of_numbers(name: str, x: Any) -> Array:
    array = as_array(x)
    return apply(name, array) if KINDS[array.kind] == "c" else array


def positive(x: Any, /) -> Array:
    """Return numbers as they are."""
    array = as_array(x)
    if array.kind == "bool":
        raise TraceError("positive takes numbers; this array is bool: convert it with xp.astype")
    return array


def _unary(name: str) -> Callable[[Any], Array]:
    def function(x: Any, /) -> Array:
        return apply(name, x)

    _document(function, name)
    return function


def _binary(name: str) -> Callable[[Any, Any], Array]:
    def function(x1: Any, x2: Any, /) -> Array:
        return apply(name, x1, x2)

    _document(function, name)
    return function


def _document(function: Any, name: str) -> None:
    kinds = "".join(WORDS[name].texts)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Return the standard's ``{name}``, element by element; takes {kind_names(kinds)}."


abs = _unary("abs")  # noqa: A001 - the standard's names
acos, acosh, asin, asinh, atan, atanh = map(_unary, ("acos", "acosh", "asin", "asinh", "atan", "atanh"))
cos, cosh, sin, sinh, tan, tanh = map(_unary, ("cos", "cosh", "sin", "sinh", "tan", "tanh"))
exp, expm1, log, log1p, log2, log10 = map(_unary, ("exp", "expm1", "log", "log1p", "log2", "log10"))
ceil, floor, trunc, sqrt, square = map(_unary, ("ceil", "floor", "trunc", "sqrt", "square"))
round = _unary("round")  # noqa: A001
negative, reciprocal, sign, signbit = map(_unary, ("negative", "reciprocal", "sign", "signbit"))
isfinite, isinf, isnan, logical_not = map(_unary, ("isfinite", "isinf", "isnan", "logical_not"))
bitwise_invert = _unary("bitwise_invert")
add, subtract, multiply, divide = map(_binary, ("add", "subtract", "multiply", "divide"))
floor_divide, remainder = map(_binary, ("floor_divide", "remainder"))
pow = _binary("pow")  # noqa: A001
atan2, copysign, hypot, logaddexp, nextafter = map(_binary, ("atan2", "copysign", "hypot", "logaddexp", "nextafter"))
maximum, minimum = map(_binary, ("maximum", "minimum"))
equal, not_equal, less, less_equal = map(_binary, ("equal", "not_equal", "less", "less_equal"))
greater, greater_equal = map(_binary, ("greater", "greater_equal"))
logical_and, logical_or, logical_xor = map(_binary, ("logical_and", "logical_or", "logical_xor"))
bitwise_and, bitwise_or, bitwise_xor = map(_binary, ("bitwise_and", "bitwise_or", "bitwise_xor"))
bitwise_left_shift, bitwise_right_shift = map(_binary, ("bitwise_left_shift", "bitwise_right_shift"))
