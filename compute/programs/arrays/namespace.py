"""The namespace that ``x.__array_namespace__()`` gives while a function is traced: the array API standard, 2024.12.

Beyond the standard: ``random``, and ``size`` of functions whose shapes would depend on data (``nonzero``,
``unique_…``). Not there: ``unique_all``, ``from_dlpack`` and all that needs values.
"""

from math import e, inf, nan, pi
from typing import Any

import numpy as np

from depin_node.compute.programs.arrays import fft, linalg, random
from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from depin_node.compute.programs.arrays.dtypes import KINDS, TraceError, dtype_name, meet, promote
from depin_node.compute.programs.arrays.elementwise import (
    abs,  # noqa: A004 - the standard's names
    acos,
    acosh,
    add,
    asin,
    asinh,
    astype,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    broadcast_to,
    ceil,
    clip,
    conj,
    copysign,
    cos,
    cosh,
    divide,
    equal,
    exp,
    expm1,
    floor,
    floor_divide,
    greater,
    greater_equal,
    hypot,
    imag,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    negative,
    nextafter,
    not_equal,
    positive,
    pow,  # noqa: A004
    real,
    reciprocal,
    remainder,
    round,  # noqa: A004
    sign,
    signbit,
    sin,
    sinh,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    trunc,
    where,
)
from depin_node.compute.programs.arrays.linalg import matmul, matrix_transpose, tensordot, vecdot
from depin_node.compute.programs.arrays.manipulation import (
    broadcast_arrays,
    concat,
    expand_dims,
    flip,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    take,
    take_along_axis,
    tile,
    unstack,
)
from depin_node.compute.programs.arrays.sorting import (
    argsort,
    isin,
    nonzero,
    searchsorted,
    sort,
    unique_counts,
    unique_inverse,
    unique_values,
)
from depin_node.compute.programs.arrays.statistics import (
    all,  # noqa: A004
    any,  # noqa: A004
    argmax,
    argmin,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    diff,
    max,  # noqa: A004
    mean,
    min,  # noqa: A004
    std,
    sum,  # noqa: A004
    var,
)
from depin_node.compute.programs.arrays.statistics import product as prod

newaxis = None
bool = np.dtype("bool")  # noqa: A001
int8, int16, int32, int64 = (np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64))
float32, float64, complex64, complex128 = map(np.dtype, ("float32", "float64", "complex64", "complex128"))

__array_api_version__ = "2024.12"

__all__ = [
    "__array_api_version__",
    "abs",
    "acos",
    "acosh",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asarray",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "bool",
    "broadcast_arrays",
    "broadcast_to",
    "can_cast",
    "ceil",
    "clip",
    "complex64",
    "complex128",
    "concat",
    "conj",
    "copysign",
    "cos",
    "cosh",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "divide",
    "e",
    "empty",
    "empty_like",
    "equal",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "fft",
    "finfo",
    "flip",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "full",
    "full_like",
    "greater",
    "greater_equal",
    "hypot",
    "iinfo",
    "imag",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "isdtype",
    "isfinite",
    "isin",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "linalg",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "matmul",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "meshgrid",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "nan",
    "negative",
    "newaxis",
    "nextafter",
    "nonzero",
    "not_equal",
    "ones",
    "ones_like",
    "permute_dims",
    "pi",
    "positive",
    "pow",
    "prod",
    "random",
    "real",
    "reciprocal",
    "remainder",
    "repeat",
    "reshape",
    "result_type",
    "roll",
    "round",
    "searchsorted",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sort",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "tril",
    "triu",
    "trunc",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "unstack",
    "var",
    "vecdot",
    "where",
    "zeros",
    "zeros_like",
]

_CLASSES = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, Array) else dtype_name(value)


def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """Return the dtype that arrays, dtypes and Python numbers make together."""
    numbers = [x for x in arrays_and_dtypes if isinstance(x, int | float | complex)]
    kinds = [_kind(x) for x in arrays_and_dtypes if not isinstance(x, int | float | complex)]
    if not kinds:
        raise TraceError("result_type takes at least one array or dtype")
    kind = kinds[0]
    for other in kinds[1:]:
        kind = promote(kind, other)
    for number in numbers:
        kind = meet(number, kind)
    return np.dtype(kind)


def can_cast(from_: Any, to: Any, /) -> Any:
    """Tell whether a dtype (or an array's) becomes another by promotion alone."""
    try:
        return promote(_kind(from_), _kind(to)) == _kind(to)
    except TraceError:
        return False


def isdtype(dtype: Any, kind: Any) -> Any:
    """Tell whether a dtype is another, or of a class of the standard such as ``real floating``."""
    if isinstance(kind, tuple):
        return any_of(isdtype(dtype, one) for one in kind)
    if isinstance(kind, str) and kind in _CLASSES:
        return KINDS[dtype_name(dtype)] in _CLASSES[kind]
    return dtype_name(dtype) == dtype_name(kind)


def any_of(truths: Any) -> Any:
    """Python's ``any``, whose name the standard takes."""
    return True in list(truths)


def finfo(type: Any, /) -> Any:  # noqa: A002 - the standard's name
    """Return the limits of a float dtype, as NumPy does."""
    return np.finfo(_kind(type))


def iinfo(type: Any, /) -> Any:  # noqa: A002 - the standard's name
    """Return the limits of an integer dtype, as NumPy does."""
    return np.iinfo(_kind(type))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise TraceError(_MISSING.get(name, f"xp.{name} is not in the array API standard, or not recorded yet"))


_MISSING = {
    "from_dlpack": "from_dlpack needs an array with values: give it to trace as an argument",
    "unique_all": "unique_all has as many elements as the data decide: use xp.unique_counts(x, size=…)",
}
