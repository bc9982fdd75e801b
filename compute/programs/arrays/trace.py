"""``trace``: a Python function of arrays becomes a program. The function runs once, here, on symbolic arrays.

What it does in Python happens while it is traced: loops are unrolled, ``if`` on shapes and options is decided. What it
does with arrays is recorded. No Python code travels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.arrays.array import Array, as_array
from depin_node.compute.programs.arrays.dtypes import TraceError, dtype_name
from depin_node.compute.programs.arrays.lower import Recording, lower

RESULTS_MAX = 64


@dataclass(frozen=True)
class Spec:
    """An argument of a traced function: its dtype and shape, without values."""

    dtype: Any
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Traced:
    """A recorded function.

    Attributes:
        name: of the function.
        specs: of its arguments.
        arrays: the arguments that were given with values, by position.
        results: the names of what it returns, in order: ``result``, or ``result0``, … or the keys of a mapping.
        recording: kernels and steps.
    """

    name: str
    specs: tuple[Spec, ...]
    arrays: Mapping[int, npt.NDArray[Any]]
    results: tuple[str, ...]
    recording: Recording

    def inputs(self, arrays: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Return the arguments of a run: ``arrays``, or if there are none, those that it was traced with.

        Raises:
            TraceError: they are not as many, or not of the dtypes and shapes that it was traced with.
        """
        given = list(arrays)
        if not given and len(self.arrays) == len(self.specs):
            given = [self.arrays[position] for position in range(len(self.specs))]
        if len(given) != len(self.specs):
            raise TraceError(f"{self.name} was traced with {len(self.specs)} arrays, {len(given)} are given")
        checked = []
        for position, (array, spec) in enumerate(zip(given, self.specs, strict=True)):
            found = np.asarray(array)
            if (found.dtype.name, found.shape) != (spec.dtype, spec.shape):
                raise TraceError(
                    f"{self.name}: argument {position} is {found.dtype} {found.shape}; it was traced with {spec.dtype} "
                    f"{spec.shape}: convert it, or trace again"
                )
            checked.append(found)
        return checked


def trace(function: Callable[..., Any], *arguments: Any) -> Traced:
    """Record a function written against the array API standard.

    Args:
        function: of arrays; returns an array, a tuple or a list of arrays, or a mapping of names to arrays. It gets the
            standard's functions by ``xp = x.__array_namespace__()``.
        arguments: for each a NumPy array, a number, or anything with ``dtype`` and ``shape`` (such as ``Spec``) if
            values come later.

    Raises:
        TraceError: it asks for what cannot be recorded; says where that goes instead.
    """
    specs, arrays, symbols = [], {}, []
    for position, argument in enumerate(arguments):
        if not hasattr(argument, "shape") or not hasattr(argument, "dtype"):
            argument = np.asarray(argument)
        spec = Spec(dtype_name(argument.dtype), tuple(int(length) for length in argument.shape))
        if isinstance(argument, np.ndarray | np.generic):
            arrays[position] = np.asarray(argument)
        specs.append(spec)
        symbols.append(Array("input", (), {"position": position}, spec.dtype, spec.shape))
    returned = function(*symbols)
    name = getattr(function, "__name__", "function")
    names, results = _results(returned, name)
    return Traced(name if name.isidentifier() else "function", tuple(specs), arrays, names, lower(results))


def _results(returned: Any, name: str) -> tuple[tuple[str, ...], list[Array]]:
    if isinstance(returned, Mapping):
        names, values = tuple(map(str, returned)), list(returned.values())
    elif isinstance(returned, tuple | list):
        names, values = tuple(f"result{k}" for k in range(len(returned))), list(returned)
    else:
        names, values = ("result",), [returned]
    if not 1 <= len(values) <= RESULTS_MAX:
        raise TraceError(f"{name} returns {len(values)} arrays: expected 1 to {RESULTS_MAX}")
    for value in values:
        if not isinstance(value, Array):
            raise TraceError(f"{name} returns {type(value).__name__}: expected arrays, as made by its arguments or xp")
    return names, [as_array(value) for value in values]
