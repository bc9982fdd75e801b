"""What the standard has to ask about arrays: dtypes, their limits, and what this namespace can do."""

from typing import Any

import numpy as np

from depin_node.compute.programs.arrays.array import DEVICE, Array
from depin_node.compute.programs.arrays.dtypes import KINDS, TraceError, common_kind, dtype_name, promote
from depin_node.compute.programs.program import DIMENSIONS_MAX

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
    return np.dtype(common_kind(kinds, numbers))


def can_cast(from_: Any, to: Any, /) -> bool:
    """Tell whether a dtype (or an array's) becomes another by promotion alone."""
    try:
        return promote(_kind(from_), _kind(to)) == _kind(to)
    except TraceError:
        return False


def isdtype(dtype: Any, kind: Any) -> bool:
    """Tell whether a dtype is another, or of a class of the standard such as ``real floating``."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, str) and kind in _CLASSES:
        return KINDS[dtype_name(dtype)] in _CLASSES[kind]
    return dtype_name(dtype) == dtype_name(kind)


def finfo(type: Any, /) -> Any:  # noqa: A002 - the standard's name
    """Return the limits of a float dtype, as NumPy does."""
    return np.finfo(_kind(type))


def iinfo(type: Any, /) -> Any:  # noqa: A002 - the standard's name
    """Return the limits of an integer dtype, as NumPy does."""
    return np.iinfo(_kind(type))


class _Info:
    """See ``__array_namespace_info__``."""

    def capabilities(self) -> dict[str, Any]:
        """Return what depends on the library: shapes are known while tracing, so none depends on data."""
        return {"boolean indexing": False, "data-dependent shapes": False, "max dimensions": DIMENSIONS_MAX}

    def default_device(self) -> str:
        """Return the device of new arrays."""
        return DEVICE

    def devices(self) -> list[Any]:
        """Return all devices."""
        return [DEVICE]

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """Return the dtypes of new arrays for which none is said."""
        _check_device(device)
        names = {"real floating": "float64", "complex floating": "complex128", "integral": "int64", "indexing": "int64"}
        return {use: np.dtype(name) for use, name in names.items()}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, Any]:
        """Return the dtypes by name; of a class such as ``integral``, or of several."""
        _check_device(device)
        return {name: np.dtype(name) for name in KINDS if kind is None or isdtype(name, kind)}


def __array_namespace_info__() -> _Info:  # noqa: N807 - the standard's name
    """Return what tells about the namespace."""
    return _Info()


def _check_device(device: Any) -> None:
    if device not in (None, DEVICE):
        raise TraceError(f"there is one device, {DEVICE!r}: not {device!r}")
