"""Which argument is what: arrays, numbers, outputs; their types, and the shape they have together.

Inputs are NumPy arrays (``In`` may be said), Python or NumPy numbers. Outputs may be left out, all of them: then they
are new arrays of the loop's shape. Given ones follow the inputs: ``Out(dtype, shape)``, or ``InOut(array)`` if the
kernel also reads what was there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.generated.parameters import ParameterInfo, dtype_name, resolve_types
from depin_node.compute.programs.kernel import In, InOut, Out
from depin_node.core.errors import ConfigError

Array = npt.NDArray[Any]


@dataclass
class Argument:
    """A parameter with what it is given: one of ``array`` (an input), ``number`` (an input), ``out``; or nothing."""

    info: ParameterInfo
    output: bool
    array: Array | None = None
    number: bool | int | float | complex | None = None
    out: Out | InOut | None = None
    dtype: str = ""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the array given; None for numbers and outputs that were left out."""
        if isinstance(self.out, Out):
            shape = self.out.shape
            return tuple(int(n) for n in shape) if isinstance(shape, Sequence) else (int(shape),)
        array = self.out.array if isinstance(self.out, InOut) else self.array
        return None if array is None else tuple(array.shape)


@dataclass(frozen=True)
class Arguments:
    """All arguments, and the dtypes of the type variables."""

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    variables: dict[str, str]

    def looped(self, *, outputs: bool) -> list[tuple[int, ...]]:
        """Return the shapes that broadcast together: those of arrays that are not raw."""
        given = (*self.inputs, *(self.outputs if outputs else ()))
        return [a.shape for a in given if not a.info.raw and a.shape is not None]


def sort_arguments(
    kernel: str, inputs: Sequence[ParameterInfo], outputs: Sequence[ParameterInfo], args: Sequence[Any]
) -> Arguments:
    """Tell the arguments apart and decide their types.

    Raises:
        ConfigError: too many or few, of a kind that their parameter cannot take, or of types that do not fit.
    """
    parameters = (*inputs, *outputs)
    if len(args) not in (len(inputs), len(parameters)):
        names = ", ".join(info.name for info in inputs) or "none"
        more = ", ".join(info.name for info in outputs)
        raise ConfigError(
            f"{kernel} takes {len(inputs)} arguments ({names}), or {len(parameters)} with outputs ({more}); "
            f"{len(args)} were given"
        )
    sorted_ = [_input(info, given) for info, given in zip(inputs, args, strict=False)]
    if len(args) == len(parameters):
        sorted_ += [_output(info, given) for info, given in zip(outputs, args[len(inputs) :], strict=True)]
    else:
        sorted_ += [Argument(info, True) for info in outputs]
    given = {}
    for argument in sorted_:
        if argument.array is not None:
            given[argument.info.name] = dtype_name(argument.array.dtype, argument.info.name)
        elif argument.out is not None:
            dtype = argument.out.dtype if isinstance(argument.out, Out) else argument.out.array.dtype
            given[argument.info.name] = dtype_name(dtype, argument.info.name)
    dtypes, variables = resolve_types(parameters, len(outputs), given)
    for argument in sorted_:
        argument.dtype = dtypes[argument.info.name]
    return Arguments(tuple(sorted_[: len(inputs)]), tuple(sorted_[len(inputs) :]), variables)


def _input(info: ParameterInfo, given: Any) -> Argument:
    if isinstance(given, Out | InOut):
        raise ConfigError(f"{info.name} is an input: give an array or a number, not {type(given).__name__}")
    value = given.array if isinstance(given, In) else given
    if isinstance(value, np.ndarray):
        return Argument(info, False, array=value)
    if isinstance(value, np.generic):
        value = value.item()  # it converts to the type that arrays decide, as in CuPy
    if not isinstance(value, bool | int | float | complex):
        raise ConfigError(f"{info.name}: expected a NumPy array or a number, not {type(given).__name__}")
    return Argument(info, False, number=value)


def _output(info: ParameterInfo, given: Any) -> Argument:
    if not isinstance(given, Out | InOut):
        raise ConfigError(
            f"{info.name} is an output, which comes back as a new array: leave the outputs out, "
            f"or give Out(dtype, shape) or InOut(array), not {type(given).__name__}"
        )
    if given.tile is not None:
        raise ConfigError(f"{info.name}: which block owns what is decided here: give no tile")
    if isinstance(given, InOut) and not isinstance(given.array, np.ndarray):
        raise ConfigError(f"{info.name}: InOut takes a NumPy array, not {type(given.array).__name__}")
    return Argument(info, True, out=given)


def broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape that arrays have together, by NumPy's rules.

    Raises:
        ConfigError: they do not go together, or have no elements.
    """
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ConfigError(f"arrays of the shapes {', '.join(map(str, shapes))} do not broadcast together") from None
