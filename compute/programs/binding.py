"""From a kernel, its launch and its arguments to a program and its inputs: the one way for Python and job files.

How arguments become bytes. Arrays have to have the parameter's dtype exactly (vector types: that of one lane). Python
numbers convert to the declared type: to integers, bool and from int to float only if that is exact; a Python float
becomes the nearest float32 or float16, as everyone means who writes 0.1, but may not overflow or be NaN. NumPy scalars
must have the declared type already: CuPy would pass their bytes as they are, and the kernel read nonsense.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.kernel import In, InOut, Out, RawKernel
from depin_node.compute.programs.program import (
    DTYPE_BYTES,
    SHARED_BYTES_MAX,
    VERSION,
    Blocks,
    Buffer,
    Kernel,
    Launch,
    Parameter,
    Program,
    Scalar,
    Unit,
)
from depin_node.compute.programs.validation import is_element_of, validate
from depin_node.core.errors import ConfigError, TaskRejected

Array = npt.NDArray[Any]


class _Slot(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def pointer(self) -> bool: ...
    @property
    def dtype(self) -> str: ...
    @property
    def lanes(self) -> int: ...
    @property
    def const(self) -> bool: ...


@dataclass(frozen=True)
class Bound:
    """A valid program, and the bytes it starts from: for each of ``program.inputs`` a C-contiguous array."""

    program: Program
    inputs: Mapping[int, Array]


def bind(
    kernel: RawKernel,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Sequence[Any],
    *,
    shared_mem: int = 0,
    shards: int = 1,
    local: bool = False,
) -> Bound:
    """Make a program of one launch.

    Args:
        kernel: what to run; compiled if it was not yet.
        grid: blocks along x, y, z.
        block: threads of a block along x, y, z.
        args: one for each parameter: an array, ``In``, ``Out`` or ``InOut`` for a pointer, a number for a scalar, a
            sequence of numbers for a vector type.
        shared_mem: dynamic shared memory of a block in bytes.
        shards: into how many tasks the blocks are cut.
        local: whether the program only runs on this machine, so that kernels that are not fit for the mesh may.

    Raises:
        ConfigError: naming the argument, what was expected and what was found.
    """
    compiled = kernel.compile()
    if compiled.local_only and not local:
        raise ConfigError(
            f"{kernel.name} gives different bits at every run, so peers' results cannot be compared; "
            f"it can run with --local only: {'; '.join(compiled.local_only)}"
        )
    slots: Sequence[_Slot] = compiled.parameters
    if len(args) != len(slots):
        names = ", ".join(slot.name for slot in slots)
        raise ConfigError(f"{kernel.name} takes {len(slots)} arguments ({names}), {len(args)} were given")
    if compiled.shared_bytes + shared_mem > SHARED_BYTES_MAX:
        raise ConfigError(
            f"{kernel.name} needs {compiled.shared_bytes} + {shared_mem} bytes of shared memory, "
            f"a block has {SHARED_BYTES_MAX}"
        )
    buffers: list[Buffer] = []
    inputs: dict[int, Array] = {}
    arguments: list[int | Scalar] = []
    for slot, argument in zip(slots, args, strict=True):
        if not slot.pointer:
            arguments.append(_scalar(slot, argument))
            continue
        buffer, array = _buffer(slot, argument)
        if array is not None:
            inputs[len(buffers)] = array
        arguments.append(len(buffers))
        buffers.append(buffer)
    program = Program(
        VERSION,
        (Unit(compiled.module, compiled.cuda),),
        (
            Kernel(
                kernel.name,
                0,
                compiled.entry,
                tuple(Parameter(s.name, s.pointer, s.dtype, s.lanes, s.const) for s in slots),  # type: ignore[arg-type]
                compiled.exact,
            ),
        ),
        tuple(buffers),
        (Launch(0, (_dim3("grid", grid),), _dim3("block", block), shared_mem, tuple(arguments)),),
        Blocks(shards),
        (),
    )
    try:
        validate(program)
    except TaskRejected as error:
        raise ConfigError(str(error)) from error
    return Bound(program, inputs)


def _dim3(what: str, value: int | Sequence[int]) -> tuple[int, int, int]:
    lengths = tuple(value) if isinstance(value, Sequence) else (value,)
    if not 1 <= len(lengths) <= 3 or not all(isinstance(n, int | np.integer) and n >= 1 for n in lengths):
        raise ConfigError(f"{what} {value!r}: expected one to three positive integers")
    x, y, z = (*(int(n) for n in lengths), 1, 1)[:3]
    return x, y, z


def _lengths(what: str, value: int | Sequence[int]) -> tuple[int, ...]:
    lengths = tuple(value) if isinstance(value, Sequence) else (value,)
    if not all(isinstance(n, int | np.integer) and n >= 1 for n in lengths):
        raise ConfigError(f"{what} {value!r}: expected positive integers")
    return tuple(int(n) for n in lengths)


def _buffer(slot: _Slot, argument: Any) -> tuple[Buffer, Array | None]:
    name, kind = slot.name, f"{'const ' if slot.const else ''}{slot.dtype}*"
    if isinstance(argument, Out):
        if slot.const:
            raise ConfigError(f"{name} is {kind}, which the kernel cannot write: give an array instead of Out")
        dtype = np.dtype(argument.dtype)
        shape, array, role = _lengths(f"{name}: shape", argument.shape), None, "out"
    else:
        marked = isinstance(argument, InOut)
        source = argument.array if isinstance(argument, In | InOut) else argument
        if not slot.const and not marked:
            raise ConfigError(
                f"{name} is {kind}, so the kernel may write it: give Out(dtype, shape, tile) or InOut(array, tile), "
                "or declare the parameter const"
            )
        if slot.const and marked:
            raise ConfigError(f"{name} is {kind}, which the kernel cannot write: give the array without InOut")
        if not isinstance(source, np.ndarray):
            raise ConfigError(f"{name} is {kind}: expected a NumPy array, not {type(source).__name__}")
        dtype, shape, role = source.dtype, source.shape, "inout" if marked else "in"
        array = source
    if not is_element_of(dtype.name, slot.dtype, slot.lanes):
        raise ConfigError(f"{name} is {kind}, its array is {dtype}: convert it with astype('{slot.dtype}')")
    if not all(shape):
        raise ConfigError(f"{name}: the array is empty {shape}")
    tile = getattr(argument, "tile", None)
    lengths = () if tile is None else _lengths(f"{name}: tile", tile)
    buffer = Buffer(name, role, dtype.name, shape, lengths, None)  # type: ignore[arg-type]
    return buffer, None if array is None else np.ascontiguousarray(array, dtype.newbyteorder("<")).reshape(shape)


def _scalar(slot: _Slot, argument: Any) -> Scalar:
    if isinstance(argument, np.ndarray | In | Out | InOut) and not (
        slot.lanes > 1 and isinstance(argument, np.ndarray)
    ):
        raise ConfigError(f"{slot.name} is {slot.dtype}, passed by value: expected a number, not an array")
    if slot.lanes > 1:
        values = list(argument) if isinstance(argument, Sequence | np.ndarray) else [argument]
        if len(values) != slot.lanes:
            raise ConfigError(f"{slot.name} is {slot.dtype}{slot.lanes}: expected {slot.lanes} numbers")
    else:
        values = [argument]
    data = b"".join(_number(slot, value) for value in values)
    return Scalar(slot.dtype, data)  # type: ignore[arg-type]


def _number(slot: _Slot, value: Any) -> bytes:
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
    if value != value or (converted.item() != value and not rounds):
        raise ConfigError(f"{slot.name} is {slot.dtype}, which cannot hold {value!r} exactly")
    assert converted.nbytes == DTYPE_BYTES[slot.dtype]
    return converted.astype(dtype.newbyteorder("<")).tobytes()
