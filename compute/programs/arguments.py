"""How arguments become bytes: arrays, numbers and lengths as a program has them, or an error that helps.

Arrays have to have the parameter's dtype exactly (vector types: that of one lane). Python numbers convert to the
declared type: to integers, bool and from int to float only if that is exact; a Python float becomes the nearest float32
or float16, as everyone means who writes 0.1, but may not overflow. NumPy scalars must have the declared type
already: CuPy would pass their bytes as they are, and the kernel read nonsense.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.kernel import In, InOut, Out
from depin_node.compute.programs.program import DTYPE_BYTES, Scalar
from depin_node.core.errors import ConfigError

Array = npt.NDArray[Any]


class Slot(Protocol):
    """A kernel's parameter, as the compiler and as the program have it."""

    @property
    def name(self) -> str:
        """As in the source."""

    @property
    def pointer(self) -> bool:
        """Whether it is an array."""

    @property
    def dtype(self) -> str:
        """NumPy's name of the element, or of one lane of it."""

    @property
    def lanes(self) -> int:
        """1, or the lanes of a vector type."""

    @property
    def const(self) -> bool:
        """Of a pointer: nothing is written through it."""


def taken(array: Array) -> Array:
    """Return what an array holds now, in C order and little-endian: a copy, but of one that nobody may write to.

    Who fills one array again and again means what is in it when it is given, as with CuPy, which copies it then.

    Raises:
        ConfigError: it is masked, and would be taken without its mask.
    """
    if hasattr(array, "mask"):  # only they have one; naming their class would import their module
        raise ConfigError(
            "a masked array would lose its mask: give array.filled(…), and the mask as an array of its own"
        )
    found = np.array(array, array.dtype.newbyteorder("<"), order="C", copy=array.flags.writeable or None)
    found.flags.writeable = False
    return found


def unchanging(argument: Any) -> Any:
    """Return an argument of a launch with the array in it, if there is one, as it is now; see ``taken``."""
    if isinstance(argument, In | InOut) and isinstance(argument.array, np.ndarray):
        return replace(argument, array=taken(argument.array))
    return taken(argument) if isinstance(argument, np.ndarray) else argument


def borrowed(argument: Any) -> Any:
    """Return an argument with its array as one that nobody may write to: for what is made a program at once."""
    marked = isinstance(argument, In | InOut)
    array = argument.array if marked else argument
    if not isinstance(array, np.ndarray):
        return argument
    view = array.view()
    view.flags.writeable = False
    return replace(argument, array=view) if marked else view


def dim3(what: str, value: int | Sequence[int]) -> tuple[int, int, int]:
    """Return a grid or block as x, y, z. Raises ``ConfigError``."""
    found = tuple(value) if isinstance(value, Sequence) else (value,)
    if not 1 <= len(found) <= 3 or not all(isinstance(n, int | np.integer) and n >= 1 for n in found):
        raise ConfigError(f"{what} {value!r}: expected one to three positive integers")
    x, y, z = (*(int(n) for n in found), 1, 1)[:3]
    return x, y, z


def lengths(what: str, value: int | Sequence[int]) -> tuple[int, ...]:
    """Return a shape or tile as a tuple. Raises ``ConfigError``."""
    found = tuple(value) if isinstance(value, Sequence) else (value,)
    if not all(isinstance(n, int | np.integer) and n >= 1 for n in found):
        raise ConfigError(f"{what} {value!r}: expected positive integers")
    return tuple(int(n) for n in found)


def scalar(slot: Slot, argument: Any) -> Scalar:
    """Return what a parameter by value is given. Raises ``ConfigError``."""
    if isinstance(argument, np.ndarray | In | Out | InOut) and not (
        slot.lanes > 1 and isinstance(argument, np.ndarray)
    ):
        raise ConfigError(f"{slot.name} is {slot.dtype}, passed by value: expected a number, not an array")
    if slot.lanes > 1 and isinstance(argument, np.void | np.ndarray) and argument.dtype.names:
        data, size = argument.tobytes(), DTYPE_BYTES[slot.dtype] * slot.lanes
        if len(data) != size:
            raise ConfigError(f"{slot.name} is a struct of {size} bytes, not {len(data)}: numpy.dtype(…, align=True)?")
        return Scalar(slot.dtype, data)  # type: ignore[arg-type]
    if slot.lanes > 1:
        values = list(argument) if isinstance(argument, Sequence | np.ndarray) else [argument]
        if len(values) != slot.lanes:
            raise ConfigError(f"{slot.name} is {slot.dtype}{slot.lanes}: expected {slot.lanes} numbers")
    elif slot.dtype.startswith("complex") and isinstance(argument, list | tuple):  # TOML has no complex numbers
        if len(argument) != 2 or not all(type(part) in (int, float) for part in argument):
            raise ConfigError(f"{slot.name} is {slot.dtype}: expected a number or [real, imaginary], not {argument!r}")
        values = [complex(*argument)]
    else:
        values = [argument]
    data = b"".join(_number(slot, value) for value in values)
    return Scalar(slot.dtype, data)  # type: ignore[arg-type]


def _number(slot: Slot, value: Any) -> bytes:
    dtype = np.dtype(slot.dtype)
    if isinstance(value, np.generic):
        if value.dtype != dtype:
            raise ConfigError(
                f"{slot.name} is {slot.dtype}, not {value.dtype}: give a Python number, or numpy.{slot.dtype}({value})"
            )
        return bytes(value.astype(dtype.newbyteorder("<")).tobytes())
    if not isinstance(value, bool | int | float | complex) or (isinstance(value, complex) and dtype.kind != "c"):
        raise ConfigError(f"{slot.name} is {slot.dtype}: expected a number, not {type(value).__name__}")
    try:
        with np.errstate(over="raise", under="ignore"):
            converted = np.array(value, dtype)
    except (OverflowError, FloatingPointError, ValueError):
        raise ConfigError(f"{slot.name} is {slot.dtype}, which cannot hold {value!r}") from None
    rounds = dtype.kind in "fc" and isinstance(value, float | complex)
    if converted.item() != value and not rounds:
        raise ConfigError(f"{slot.name} is {slot.dtype}, which cannot hold {value!r} exactly")
    assert converted.nbytes == DTYPE_BYTES[slot.dtype]
    return converted.astype(dtype.newbyteorder("<")).tobytes()
