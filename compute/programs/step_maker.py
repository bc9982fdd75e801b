"""From what a builder wrote down to steps: kernels compiled, arguments checked, numbers worked out for every task."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from depin_node.compute.programs import arguments as a
from depin_node.compute.programs.expressions import Symbol, evaluate
from depin_node.compute.programs.generated import Lowered
from depin_node.compute.programs.generated.parameters import C_TYPES
from depin_node.compute.programs.kernel import In, InOut, Out, RawKernel, Reference, UnitSource
from depin_node.compute.programs.program import (
    SHARED_BYTES_MAX,
    Kernel,
    Launch,
    Offset,
    Parameter,
    Program,
    Scalar,
    Step,
    Swap,
    Unit,
)
from depin_node.compute.programs.program_arrays import Named, Number, Other
from depin_node.compute.programs.slices import held_shape, variants
from depin_node.compute.programs.validation import is_element_of
from depin_node.core.errors import ConfigError

if TYPE_CHECKING:
    from depin_node.compute.programs.builder import LaunchNote, ProgramBuilder


class StepMaker:
    """Makes the steps of one program, and gathers its units and kernels on the way.

    Attributes:
        units: of the program.
        sources: of each unit, where it is known.
        kernels: likewise.
        read: of each kernel, the positions of the parameters that it may read; see ``halos.py``.
        radii: of each launch, by its ``id``; likewise.
        notes: the compiler's, for the user.
    """

    def __init__(self, builder: "ProgramBuilder") -> None:
        self._builder = builder
        self.units: list[Unit] = []
        self.sources: list[UnitSource | None] = []
        self.kernels: list[Kernel] = []
        self.read: list[frozenset[int]] = []
        self.radii: dict[int, int | None] = {}
        self.notes: list[str] = []
        self._places: dict[int, int] | None = None

    def steps(self, noted: Sequence[Any]) -> tuple[Step, ...]:
        """Make steps of what was noted. Raises ``ConfigError``."""
        from depin_node.compute.programs.builder import LaunchNote, LoopNote

        made: list[Step] = []
        for note in noted:
            if isinstance(note, LoopNote):
                made.append(note.make(self.steps(note.steps)))
            elif isinstance(note, LaunchNote):
                launch = self._launch(note)
                self.radii[id(launch)] = note.radius
                made.append(launch)
            else:
                made.append(note)
        return tuple(made)

    def combine(self, noted: Sequence["LaunchNote"]) -> tuple[Launch, ...]:
        """Make the launches that merge two partial results. Raises ``ConfigError``."""
        outputs = [index for index, buffer in enumerate(self._builder.buffers) if buffer.is_output]
        self._places = {index: 2 * position for position, index in enumerate(outputs)}
        try:
            return tuple(self._launch(note) for note in noted)
        finally:
            self._places = None

    def _launch(self, step: "LaunchNote") -> Launch:
        if not isinstance(step.kernel, RawKernel):
            return self._generated(step)
        if step.grid is None or step.block is None:
            raise ConfigError(f"{step.kernel.name} is a raw kernel: give grid and block")
        refuse(f"{step.kernel.name} is a raw kernel", step.options)
        return self._raw(step.kernel, step.grid, step.block, step.args, step.shared_mem, step.constants)

    def _raw(
        self, kernel: RawKernel, grid: Any, block: Any, args: Sequence[Any], shared_mem: int, constants: Any
    ) -> Launch:
        number, parameters = self._compiled(kernel, shared_mem)
        declared = [p for p in parameters if not getattr(p, "constant_bytes", 0)]
        if len(args) != len(declared):
            names = ", ".join(p.name for p in declared)
            raise ConfigError(f"{kernel.name} takes {len(declared)} arguments ({names}), {len(args)} were given")
        pairs = list(zip(declared, args, strict=True))
        arrays = {p.name: self._argument(p, argument) for p, argument in pairs if p.pointer}  # expressions name them
        given: list[Any] = [arrays[p.name] if p.pointer else self._scalar(p, argument) for p, argument in pairs]
        hidden = parameters[len(declared) :]
        unknown = sorted(set(constants) - {p.name for p in hidden})
        if unknown:
            names = ", ".join(p.name for p in hidden) or "none"
            raise ConfigError(f"{kernel.name} has no constant {unknown[0]!r} without a value; it has: {names}")
        given += [self._constant(kernel, p, constants) for p in hidden]
        grids = self._grids(kernel, grid)
        return Launch(number, grids, a.dim3("block", block), shared_mem, tuple(given))

    def _compiled(self, kernel: RawKernel, shared_mem: int) -> tuple[int, Sequence[Any]]:
        """Return a kernel's number in the program, and its parameters."""
        if shared_mem < 0:
            raise ConfigError(f"shared_mem = {shared_mem}: expected bytes, from 0")
        compiled = kernel.compile()
        if compiled.shared_bytes + shared_mem > SHARED_BYTES_MAX:
            raise ConfigError(
                f"{kernel.name} needs {compiled.shared_bytes} + {shared_mem} bytes of shared memory, "
                f"a block has {SHARED_BYTES_MAX}"
            )
        unit = Unit(compiled.module, compiled.cuda)
        if unit not in self.units:
            self.units.append(unit)
            self.sources.append(kernel.module.source)
        parameters = tuple(Parameter(p.name, p.pointer, p.dtype, p.lanes, p.const) for p in compiled.parameters)  # type: ignore[arg-type]
        found = Kernel(kernel.name, self.units.index(unit), compiled.entry, parameters, compiled.exact)
        if found not in self.kernels:
            self.kernels.append(found)
            pointers = enumerate(compiled.parameters)
            self.read.append(frozenset(place for place, p in pointers if getattr(p, "read", True)))
            self.notes += compiled.notes
        return self.kernels.index(found), compiled.parameters

    def _argument(self, slot: a.Slot, argument: Any) -> int:
        """Return the array of a pointer; what is not one of the program's becomes one, by the parameter's name."""
        name, kind = slot.name, f"{'const ' if slot.const else ''}{slot.dtype}*"
        if self._places is not None:
            return self._partial(slot, argument, kind)
        if isinstance(argument, Named):
            named = argument
            self._builder.index(named, name)
        elif isinstance(argument, Out):
            if slot.const:
                raise ConfigError(f"{name} is {kind}, which the kernel cannot write: give an array instead of Out")
            self._fits(slot, self._builder.dtype(name, argument.dtype), kind)
            named = self._builder.out(name, argument.dtype, argument.shape, tile=argument.tile, cut=argument.cut)
        else:
            marked = isinstance(argument, InOut)
            source = argument.array if isinstance(argument, In | InOut) else argument
            if not slot.const and not marked:
                raise ConfigError(
                    f"{name} is {kind}, so the kernel may write it: give Out(dtype, shape, tile) or "
                    "InOut(array, tile), or declare the parameter const"
                )
            if slot.const and marked:
                raise ConfigError(f"{name} is {kind}, which the kernel cannot write: give the array without InOut")
            if not isinstance(source, np.ndarray | Reference):
                raise ConfigError(f"{name} is {kind}: expected a NumPy array, not {type(source).__name__}")
            self._fits(slot, np.dtype(source.dtype).name, kind)
            cut = argument.cut if isinstance(argument, In | InOut) else "default"
            named = (
                self._builder.inout(name, source, tile=argument.tile, cut=cut)
                if marked
                else self._builder.input(name, source, cut=cut)
            )
        self._fits(slot, named.dtype, kind)
        return self._builder.named[named]

    def _partial(self, slot: a.Slot, argument: Any, kind: str) -> int:
        assert self._places is not None
        named = argument.array if isinstance(argument, Other) else argument
        index = self._builder.index(named, slot.name) if isinstance(named, Named) else -1
        if index not in self._places:
            raise ConfigError(f"{slot.name}: combine takes partial arrays of this program and their .other")
        if isinstance(argument, Other) and not slot.const:
            raise ConfigError(f"{slot.name} is {kind}: what is merged is only read, declare it const")
        self._fits(slot, named.dtype, kind)
        return self._places[index] + isinstance(argument, Other)

    def _fits(self, slot: a.Slot, dtype: str, kind: str) -> None:
        if not is_element_of(dtype, slot.dtype, slot.lanes):
            way_out = f"convert it with astype('{slot.dtype}')" if slot.const else f"give it the dtype '{slot.dtype}'"
            raise ConfigError(f"{slot.name} is {kind}, its array is {dtype}: {way_out}")

    def _constant(self, kernel: RawKernel, slot: Any, constants: Mapping[str, Any]) -> int:
        """Return the array of ``__constant__`` data, one for all launches that are given the same."""
        if self._places is not None:
            raise ConfigError(
                f"{kernel.name} uses __constant__ {slot.name}: what combines takes partial arrays alone; "
                "give it a value in the source"
            )
        if slot.name not in constants:
            raise ConfigError(f"{kernel.name} uses __constant__ {slot.name}: give constants={{'{slot.name}': array}}")
        data = np.ascontiguousarray(constants[slot.name]).reshape(-1)
        data = data.view(slot.dtype) if data.dtype.names or slot.dtype == "uint8" else data
        if data.dtype.name != slot.dtype or data.nbytes != slot.constant_bytes:
            raise ConfigError(
                f"{kernel.name}: __constant__ {slot.name} is {slot.dtype} of {slot.constant_bytes} bytes, "
                f"its array {data.dtype} of {data.nbytes}"
            )
        known = self._builder.constants
        key = (slot.name, data.dtype.name, data.tobytes())  # bits: -0 is not 0, and a NaN is itself
        if key not in known:
            name, names = slot.name, {buffer.name for buffer in self._builder.buffers}
            while name in names:
                name += "_"
            known[key] = self._builder.named[self._builder.input(name, data, cut=None)]
        return known[key]

    def _scalar(self, slot: a.Slot, argument: Any) -> Scalar:
        if not isinstance(argument, str | Symbol):
            return a.scalar(slot, argument)
        values = [a.scalar(slot, value) for value in self._evaluated(f"{slot.name} is {slot.dtype}", argument)]
        if len(set(values)) == 1:
            return values[0]
        return Scalar(values[0].dtype, b"".join(value.data for value in values))

    def _grids(self, kernel: RawKernel, grid: Any) -> tuple[tuple[int, int, int], ...]:
        lengths = tuple(grid) if isinstance(grid, Sequence) and not isinstance(grid, str) else (grid,)
        if not any(isinstance(length, str | Symbol) for length in lengths):
            return (a.dim3("grid", grid),)
        columns = [
            self._evaluated(f"grid of {kernel.name}", length) if isinstance(length, str | Symbol) else [length]
            for length in lengths
        ]
        count = max(map(len, columns))
        full = [column * (count // len(column)) for column in columns]
        grids = tuple(a.dim3(f"grid of {kernel.name}", lengths) for lengths in zip(*full, strict=True))
        return grids if len(set(grids)) > 1 else grids[:1]

    def _evaluated(self, what: str, expression: "Number") -> list[int]:
        """Return the value of an expression: one, or one for each task if it depends on its slice."""
        builder, text = self._builder, str(expression)
        tasks = range(builder.shards if builder.depends(text) else 1)
        try:
            return [evaluate(text, builder.names(task)) for task in tasks]
        except ConfigError as error:
            raise ConfigError(f"{what}: {error}") from error

    # Generated kernels

    def _generated(self, step: "LaunchNote") -> Launch:
        """Lower an elementwise or reduction kernel for what tasks hold; its numbers may differ from task to task."""
        kernel = step.kernel
        assert not isinstance(kernel, RawKernel)
        if step.grid is not None or step.block is not None:
            raise ConfigError(f"{kernel.name} chooses grid and block itself")
        program = self._builder.program((Swap(0, 0),), self)
        tasks = variants(program)
        lowered = [self._lowered(kernel, step, program, task) for task in tasks]
        if any(one.kernel is not lowered[0].kernel for one in lowered):
            raise ConfigError(f"{kernel.name}: slices of {len(tasks)} sizes need different kernels: cut evenly")
        block = max(
            a.dim3("block", one.block) for one in lowered
        )  # along x alone; threads that are too many for their element do nothing
        launches = [self._raw(one.kernel, one.grid, block, one.args, 0, {}) for one in lowered]
        if len(launches) == 1:
            return launches[0]
        shapes = {self._shapes(program, task): launch for task, launch in zip(tasks, launches, strict=True)}
        each = [shapes[self._shapes(program, task)] for task in range(self._builder.shards)]
        args: list[int | Scalar | Offset] = []
        for position, first in enumerate(each[0].args):
            column = [launch.args[position] for launch in each]
            if isinstance(first, Scalar) and len(set(column)) > 1:
                data = b"".join(one.data for one in column if isinstance(one, Scalar))
                args.append(Scalar(first.dtype, data))
            else:
                args.append(first)
        grids = tuple(launch.grids[0] for launch in each)
        return Launch(each[0].kernel, grids if len(set(grids)) > 1 else grids[:1], each[0].block, 0, tuple(args))

    def _shapes(self, program: Program, task: int) -> tuple[tuple[int, ...], ...]:
        return tuple(held_shape(program, buffer, task) for buffer in program.buffers if buffer.cut is not None)

    def _lowered(self, kernel: Any, step: "LaunchNote", program: Program, task: int) -> Lowered:
        """Lower with arrays in the place of the program's, and put those back afterwards."""
        stand_ins: dict[int, Named] = {}
        kept = []

        def stand_in(argument: Any) -> Any:
            if not isinstance(argument, Named):
                return argument
            buffer = program.buffers[self._builder.index(argument, kernel.name)]
            array = np.empty(held_shape(program, buffer, task), np.dtype(buffer.dtype))
            kept.append(array)
            stand_ins[array.ctypes.data] = argument
            return array

        inputs = [stand_in(argument) for argument in step.args[: len(kernel.in_params)]]
        outputs = [InOut(stand_in(argument)) for argument in step.args[len(kernel.in_params) :]]
        if len(outputs) != len(kernel.out_params):
            names = ", ".join(info.name for info in (*kernel.in_params, *kernel.out_params))
            raise ConfigError(f"{kernel.name} as a step takes its inputs and outputs ({names})")
        lowered: Lowered = kernel.lower([*inputs, *outputs], **step.options)

        def back(argument: Any) -> Any:
            array = argument.array if isinstance(argument, InOut) else argument
            if not isinstance(array, np.ndarray):
                return argument
            if array.ctypes.data not in stand_ins or not array.flags.c_contiguous:
                raise ConfigError(
                    f"{kernel.name}: arrays of a program cannot be transposed or repeated on the way into a kernel; "
                    "reduce along the last axes"
                )
            return stand_ins[array.ctypes.data]

        return Lowered(lowered.kernel, lowered.grid, lowered.block, [back(argument) for argument in lowered.args])


_MERGES = {
    "sum": "into[i] + from[i]",
    "prod": "into[i] * from[i]",
    "min": "(from[i] < into[i] || from[i] != from[i]) ? from[i] : into[i]",
    "max": "(from[i] > into[i] || from[i] != from[i]) ? from[i] : into[i]",
}
"""NaN wins, as in NumPy."""


def merging_kernel(how: str, dtype: str) -> RawKernel:
    """Return a kernel that merges one array into another, element by element. Raises ``ConfigError``."""
    if how not in _MERGES:
        raise ConfigError(f"combine={how!r} is not known; known are: {', '.join(_MERGES)}, or a kernel")
    if dtype.startswith("complex"):
        raise ConfigError(f"combine={how!r} of {dtype} arrays is not possible: give a kernel")
    element = C_TYPES[dtype]
    include = "#include <cupy/float16.cuh>" if dtype == "float16" else ""
    code = f"""{include}
    extern "C" __global__ void merge_{how}({element}* into, const {element}* from, long long count) {{
        const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        if (i < count) into[i] = {_MERGES[how]};
    }}"""
    return RawKernel(code, f"merge_{how}", filename=f"merge_{how}.cu")


def refuse(why: str, options: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for options that are given and do not go with a kernel."""
    for option, value in options.items():
        if value is not None and value is not False:
            raise ConfigError(f"{why}: {option} does not go with it")
