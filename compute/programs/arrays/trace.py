"""``trace``: a Python function of arrays is recorded. It runs once, here, on symbolic arrays.

What it does in Python happens while it is traced: loops are unrolled, ``if`` on shapes and options is decided. What it
does with arrays is recorded. No Python code travels.

*Cut into shards*, the function is one task's: of arguments that are ``Split`` it gets a slice along the first axis, of
the others all; what it returns for the slices is put together along the first axis again.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.arguments import borrowed, taken
from depin_node.compute.programs.arrays.array import Array, as_array
from depin_node.compute.programs.arrays.dtypes import TraceError, dtype_name
from depin_node.compute.programs.arrays.lower import Recording, lower
from depin_node.compute.programs.arrays.manipulation import reshape
from depin_node.compute.programs.kernel import Reference

RESULTS_MAX = 64


@dataclass(frozen=True)
class Spec:
    """An argument of a traced function: its dtype and shape, without values."""

    dtype: Any
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """An argument that is cut along its first axis, a slice for each task: an array, or anything of dtype and shape."""

    source: Any


@dataclass(frozen=True)
class Traced:
    """A recorded function.

    Attributes:
        name: of the function.
        parameters: the names of its arguments.
        specs: of its arguments, whole.
        split: the positions of those that are cut.
        shards: into how many slices.
        arrays: the arguments that were given with values, by position.
        results: the names of what it returns, in order: ``result``, or ``result0``, … or the keys of a mapping.
        recording: kernels and steps of one task.
    """

    name: str
    parameters: tuple[str, ...]
    specs: tuple[Spec, ...]
    split: frozenset[int]
    shards: int
    arrays: Mapping[int, "npt.NDArray[Any] | Reference"]
    results: tuple[str, ...]
    recording: Recording

    def __repr__(self) -> str:
        """Return what it is in a line: all that it holds is pages of generated CUDA."""
        named = zip(self.parameters, self.specs, strict=True)
        arguments = ", ".join(f"{name}: {spec.dtype} {spec.shape}" for name, spec in named)
        return f"<Traced {self.name}({arguments}) -> {', '.join(self.results)}; shards={self.shards}>"

    def inputs(self, arrays: Sequence[Any]) -> "list[npt.NDArray[Any] | Reference]":
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
            found = array if isinstance(array, Reference) else taken(borrowed(np.asanyarray(array)))
            if (dtype_name(found.dtype), found.shape) != (spec.dtype, spec.shape):
                raise TraceError(
                    f"{self.name}: argument {position} is {found.dtype} {found.shape}; it was traced with {spec.dtype} "
                    f"{spec.shape}: convert it, or trace again"
                )
            checked.append(found)
        return checked


def trace(function: Callable[..., Any], *arguments: Any, shards: int = 1) -> Traced:
    """Record a function written against the array API standard.

    Args:
        function: of arrays; returns an array, a tuple or a list of arrays, or a mapping of names to arrays. It gets the
            standard's functions by ``xp = x.__array_namespace__()``.
        arguments: for each a NumPy array, a number, a ``Reference``, or anything with ``dtype`` and ``shape`` (such as
            ``Spec``) if values come later; in ``Split``, if each task gets a slice of it.
        shards: tasks to cut it into, by the arguments that are ``Split``.

    Raises:
        TraceError: it asks for what cannot be recorded; says where that goes instead.
    """
    if not callable(function):
        raise TraceError(f"trace takes a function of arrays, and its arguments: trace(f, x); not {function!r:.80}")
    specs, symbols, split = [], [], set()
    arrays: dict[int, npt.NDArray[Any] | Reference] = {}
    for position, argument in enumerate(arguments):
        source = argument
        if isinstance(argument, Split):
            source = argument.source
            split.add(position)
        if not hasattr(source, "shape") or not hasattr(source, "dtype"):
            source = np.asarray(source)
        spec = Spec(dtype_name(source.dtype), tuple(int(length) for length in source.shape))
        if isinstance(source, Reference):
            arrays[position] = source
        elif isinstance(source, np.ndarray | np.generic):
            arrays[position] = taken(np.asanyarray(source))
        specs.append(spec)
        shape = _slice(spec, shards) if position in split else spec.shape
        symbols.append(Array("input", (), {"position": position}, spec.dtype, shape))
    if not isinstance(shards, int) or shards < 1 or (shards > 1 and not split):
        raise TraceError(
            f"shards = {shards!r}: expected a positive integer, and an argument in Split for more than one"
        )
    name = getattr(function, "__name__", "function")
    names, results = _results(function(*symbols), name)
    if shards > 1:
        results = [reshape(result, (1,)) if not result.ndim else result for result in results]
    return Traced(
        name if name.isidentifier() else "function",
        _parameters(function, len(specs)),
        tuple(specs),
        frozenset(split),
        shards,
        arrays,
        names,
        lower(results),
    )


def _slice(spec: Spec, shards: int) -> tuple[int, ...]:
    """Return the shape of each task's slice. Raises ``TraceError`` if slices are not equal."""
    if not spec.shape or spec.shape[0] % shards:
        raise TraceError(
            f"an array of shape {spec.shape} does not split into {shards} equal slices along its first axis: choose "
            "shards that divide it, or fill it up"
        )
    return (spec.shape[0] // shards, *spec.shape[1:])


def _parameters(function: Callable[..., Any], count: int) -> tuple[str, ...]:
    """Return the names of a function's arguments, as far as it has any."""
    try:
        found = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        found = []
    return tuple(found[position] if position < len(found) else f"argument{position}" for position in range(count))


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
