"""From a recorded function to a program and its inputs, as ``programs/binding.py`` does it for a launch.

The kernels are compiled together, ``ENTRIES_MAX`` in a unit. Results come first among the arrays, so that they come
back in the order in which the function returns them; then arguments, by their names; then constants and temporaries.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from depin_node.compute.programs.arrays.lower import Called, Launched, Recording, Slot, kernel_name
from depin_node.compute.programs.arrays.trace import Traced
from depin_node.compute.programs.binding import Bound
from depin_node.compute.programs.program import (
    BUFFERS_MAX,
    ENTRIES_MAX,
    KERNELS_MAX,
    VERSION,
    Attribute,
    Axis,
    Blocks,
    Buffer,
    Cut,
    Kernel,
    Launch,
    Operation,
    Parameter,
    Program,
    Scalar,
    Step,
    Unit,
)
from depin_node.compute.programs.validation import validate
from depin_node.core.errors import ConfigError, TaskRejected

if TYPE_CHECKING:
    from depin_node.compute.translate import CompiledKernel
    from depin_node.compute.translate.compiler import CompiledUnit

UNITS_KEPT = 64


def bind_traced(traced: Traced, arrays: Sequence[Any] = ()) -> Bound:
    """Make a program of a recorded function.

    Args:
        traced: what ``trace`` gave.
        arrays: its arguments, whole; none: those that it was traced with.

    Raises:
        ConfigError: arguments do not fit, or the whole is too large for a program.
    """
    recording, values = traced.recording, traced.inputs(arrays)
    units = _compile(recording)
    kernels = [kernel for unit in units for kernel in unit.kernels]
    names, places = _Names(), dict[Slot, int]()
    buffers: list[Buffer] = []
    inputs: dict[int, Any] = {}
    tables: list[tuple[int, ...]] = []

    def add(slot: Slot, name: str, role: str, value: Any = None, *, split: bool = False) -> None:
        shape = (slot.shape[0] * traced.shards, *slot.shape[1:]) if split else slot.shape
        cut = Cut(0, _table(tables, shape[0], traced.shards), 0, "none", b"") if split else None
        places[slot] = len(buffers)
        if value is not None:
            inputs[len(buffers)] = value
        buffers.append(Buffer(names.free(name), role, slot.kind, shape, (), cut))  # type: ignore[arg-type]

    for name, slot in zip(traced.results, recording.results, strict=True):
        add(slot, name, "out", split=traced.shards > 1)
    for position, slot in sorted(recording.inputs.items()):
        if slot in recording.slots:
            split = traced.shards > 1 and position in traced.split
            add(slot, traced.parameters[position], "in", values[position], split=split)
    for slot in recording.slots:
        if slot not in places:
            constant = slot.role == "constant"
            add(slot, "constant" if constant else "temporary", "in" if constant else "temp", slot.data)
    if len(buffers) > BUFFERS_MAX or len(kernels) > KERNELS_MAX:
        raise ConfigError(
            f"{traced.name} takes {len(buffers)} arrays and {len(kernels)} kernels; a program has at most "
            f"{BUFFERS_MAX} and {KERNELS_MAX}: make two jobs of it, or write loops over elements as whole arrays"
        )
    program = Program(
        VERSION,
        tuple(Unit(unit.module, unit.cuda) for unit in units),
        tuple(
            Kernel(
                kernel.name,
                number // ENTRIES_MAX,
                kernel.entry,
                tuple(Parameter(p.name, p.pointer, p.dtype, p.lanes, p.const) for p in kernel.parameters),  # type: ignore[arg-type]
                kernel.exact,
            )
            for number, kernel in enumerate(kernels)
        ),
        tuple(buffers),
        tuple(_step(step, kernels, places) for step in recording.steps),
        Axis(traced.shards, tuple(tables)) if traced.shards > 1 else Blocks(1),
        (),
    )
    try:
        validate(program)
    except TaskRejected as error:
        raise ConfigError(str(error)) from error
    return Bound(program, inputs)


class _Names:
    """Names of arrays, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = {"shard"}

    def free(self, name: str) -> str:
        """Return ``name``, with a number if it is taken."""
        found, number = name, 1
        while found in self._taken:
            found, number = f"{name}{number}", number + 1
        self._taken.add(found)
        return found


def _table(tables: list[tuple[int, ...]], length: int, shards: int) -> int:
    """Return the number of the table that cuts ``length`` rows into equal slices."""
    table = tuple(task * (length // shards) for task in range(shards + 1))
    if table not in tables:
        tables.append(table)
    return tables.index(table)


def _compile(recording: Recording) -> "list[CompiledUnit]":
    total = len(recording.texts)
    parts = [(first, min(first + ENTRIES_MAX, total)) for first in range(0, total, ENTRIES_MAX)]
    return [_compiled(recording.source(*part), tuple(map(kernel_name, range(*part)))) for part in parts]


@lru_cache(maxsize=UNITS_KEPT)
def _compiled(source: str, names: tuple[str, ...]) -> "CompiledUnit":
    from depin_node.compute.translate.compiler import compile_unit

    return compile_unit(source, names, filename="arrays.cu")


def _step(step: Launched | Called, kernels: "Sequence[CompiledKernel]", places: dict[Slot, int]) -> Step:
    if isinstance(step, Called):
        attributes = tuple(Attribute(name, step.attributes[name]) for name in sorted(step.attributes))
        inputs, outputs = (tuple(places[slot] for slot in slots) for slots in (step.inputs, step.outputs))
        return Operation(step.name, inputs, outputs, attributes)
    args: list[int | Scalar] = []
    for argument, parameter in zip(step.args, kernels[step.kernel].parameters, strict=True):
        if isinstance(argument, Slot):
            args.append(places[argument])
        else:
            data = np.array(argument, parameter.dtype).astype(np.dtype(parameter.dtype).newbyteorder("<")).tobytes()
            args.append(Scalar(parameter.dtype, data))  # type: ignore[arg-type]
    return Launch(step.kernel, ((step.grid, 1, 1),), (step.block, 1, 1), 0, tuple(args))
