"""Programs of several steps, as Python writes them: named arrays, launches, loops, and what is cut how.

::

    steps = ProgramBuilder()
    u = steps.inout("u", initial)
    v = steps.temp("v", u.dtype, u.shape)
    with steps.repeat(100):
        steps.launch(diffuse, grid, block, (u, v, rows, cols))
        steps.swap(u, v)

What is said is only written down; ``build`` compiles the kernels (those of one module together), works the expressions
out for every task, and makes the program, with the inputs it starts from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from depin_node.compute.programs import arguments as a
from depin_node.compute.programs.arguments import Array
from depin_node.compute.programs.expressions import Shard, Symbol, Value, evaluate, shard
from depin_node.compute.programs.generated import Kernel as AnyKernel
from depin_node.compute.programs.generated import adopt
from depin_node.compute.programs.halos import check_halos
from depin_node.compute.programs.kernel import Along, Cutting, Reference, UnitSource
from depin_node.compute.programs.program import (
    DTYPE_BYTES,
    HALO_MAX,
    SLICES_MAX,
    VERSION,
    Attribute,
    Axis,
    Blocks,
    Buffer,
    Cut,
    Launch,
    Operation,
    Parameter,
    Program,
    Repeat,
    Step,
    Swap,
    Until,
)
from depin_node.compute.programs.step_maker import StepMaker, merging_kernel
from depin_node.compute.programs.validation import validate
from depin_node.core.errors import ConfigError, TaskRejected

Number = int | str | Symbol
"""An integer, or an expression of one."""
EDGES = ("clamp", "wrap", "reflect", "constant", "none")


@dataclass(frozen=True)
class Bound:
    """A valid program, and what it starts from: for each of ``program.inputs`` a C-contiguous array or a reference.

    ``sources``: what each of the program's units was compiled from, where that is known.
    """

    program: Program
    inputs: Mapping[int, Array | Reference]
    sources: Sequence[UnitSource | None] = ()


@dataclass(frozen=True, eq=False)
class Named:
    """An array of a program: what steps are given. ``shape`` is that of the whole, however it is cut."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def other(self) -> "Other":
        """In ``combine``: the other task's row of a partial result, which is merged into this one's."""
        return Other(self)


@dataclass(frozen=True)
class Other:
    """See ``Named.other``."""

    array: Named


@dataclass(eq=False)
class LaunchNote:
    """A launch as it was written."""

    kernel: AnyKernel
    grid: Any
    block: Any
    args: Sequence[Any]
    shared_mem: int
    radius: int | None
    constants: Mapping[str, Any]
    options: Mapping[str, Any]


@dataclass(eq=False)
class LoopNote:
    """A loop as it was written."""

    make: Callable[[tuple[Step, ...]], Step]
    steps: list[Any] = field(default_factory=list)


class ProgramBuilder:
    """A program being written.

    Args:
        shards: tasks to cut it into: a range of blocks each, for a single launch; slices, with ``along``.
        along: how its arrays are cut, where they do not say it themselves; an ``out`` array has no halo by default.

    Raises:
        ConfigError: the cut is wrong.
    """

    shard: Shard = shard
    """The numbers of a task's slice, for grids and scalars."""

    def __init__(self, *, shards: int = 1, along: Along | None = None) -> None:
        if not isinstance(shards, int | np.integer) or shards < 1:
            raise ConfigError(f"shards = {shards!r}: expected a positive integer")
        if along is not None and shards > SLICES_MAX:
            raise ConfigError(f"shards = {shards}: at most {SLICES_MAX} slices are possible")
        self.shards, self._along = int(shards), along
        self.buffers: list[Buffer] = []
        self.named: dict[Named, int] = {}
        self.inputs: dict[int, Array | Reference] = {}
        self._tables: list[tuple[int, ...]] = []
        self._length = 0
        self._defined: dict[str, Number] = {}
        self._steps: list[Any] = []
        self._combine: list[LaunchNote] = []
        self._nested: list[list[Any]] = [self._steps]
        self.notes: tuple[str, ...] = ()

    # Arrays

    def input(self, name: str, array: Any, *, cut: Cutting = "default") -> Named:
        """Add an array that steps read: a NumPy array or a ``Reference``. Raises ``ConfigError``."""
        return self._array(name, "in", array, None, cut)

    def inout(self, name: str, array: Any, *, tile: Any = None, cut: Cutting = "default") -> Named:
        """Add an array that begins as ``array``, changes, and is a result. Raises ``ConfigError``."""
        return self._array(name, "inout", array, tile, cut)

    def out(self, name: str, dtype: Any, shape: Any, *, tile: Any = None, cut: Cutting = "default") -> Named:
        """Add an array that begins as zeros and is a result. Raises ``ConfigError``."""
        return self._zeros(name, "out", dtype, shape, tile, cut)

    def temp(self, name: str, dtype: Any, shape: Any, *, cut: Cutting = "default") -> Named:
        """Add an array of each task's own that begins as zeros and goes with it. Raises ``ConfigError``."""
        return self._zeros(name, "temp", dtype, shape, None, cut)

    def partial(self, name: str, dtype: Any, shape: Any) -> Named:
        """Add a result of ``shape`` that each task has one of; the whole has the tasks as its first axis."""
        shape = a.lengths(f"{name}: shape", shape)
        dtype = self._dtype(name, dtype)
        cut = None
        if self._along is not None:
            cut = Cut(0, self._table(tuple(range(self.shards + 1))), 0, "none", b"")
        elif self.shards > 1:
            raise ConfigError(f"{name}: partial results are for programs that are cut along an axis: give along=")
        return self._add(Buffer(name, "out", dtype, (self.shards, *shape), (), cut))

    def define(self, name: str, value: Number) -> None:
        """Let expressions call an integer, or an expression of what is known, by a name."""
        self._defined[name] = value

    def _array(self, name: str, role: str, array: Any, tile: Any, cut: Cutting) -> Named:
        if not isinstance(array, np.ndarray | Reference):
            raise ConfigError(f"{name}: expected a NumPy array or a reference, not {type(array).__name__}")
        dtype, shape = self._dtype(name, array.dtype), tuple(array.shape)
        if not all(shape):
            raise ConfigError(f"{name}: the array is empty {shape}")
        tiles = () if tile is None else a.lengths(f"{name}: tile", tile)
        buffer = Buffer(name, role, dtype, shape, tiles, self._cut(name, role, dtype, shape, cut))  # type: ignore[arg-type]
        named = self._add(buffer)
        if isinstance(array, np.ndarray):
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(shape)
        self.inputs[self.named[named]] = array
        return named

    def _zeros(self, name: str, role: str, dtype: Any, shape: Any, tile: Any, cut: Cutting) -> Named:
        shape = a.lengths(f"{name}: shape", shape)
        tiles = () if tile is None else a.lengths(f"{name}: tile", tile)
        dtype = self._dtype(name, dtype)
        return self._add(Buffer(name, role, dtype, shape, tiles, self._cut(name, role, dtype, shape, cut)))  # type: ignore[arg-type]

    def _dtype(self, name: str, dtype: Any) -> str:
        try:
            found = np.dtype(dtype)
        except TypeError:
            raise ConfigError(f"{name}: {dtype!r} is no dtype") from None
        if found.name not in DTYPE_BYTES:
            raise ConfigError(f"{name}: arrays of {found} are not possible; possible are: {', '.join(DTYPE_BYTES)}")
        return str(found.name)

    def _add(self, buffer: Buffer) -> Named:
        names = {other.name for other in self.buffers}
        if not isinstance(buffer.name, str) or not buffer.name or buffer.name in names | {"shard"}:
            raise ConfigError(f"an array is called {buffer.name!r}: names are texts, each once, and not 'shard'")
        named = Named(buffer.name, buffer.dtype, buffer.shape)
        self.named[named] = len(self.buffers)
        self.buffers.append(buffer)
        return named

    def _cut(self, name: str, role: str, dtype: str, shape: tuple[int, ...], cut: Cutting) -> Cut | None:
        if self._along is None:
            if isinstance(cut, Along):
                raise ConfigError(f"{name} is cut along an axis, the program is not: give along= there")
            return None
        if cut == "default":
            cut = Along(self._along.axis) if role == "out" else self._along
        if cut is None:
            return None
        assert isinstance(cut, Along)
        if cut.edge not in EDGES:
            raise ConfigError(f"{name}: edge {cut.edge!r} is not known; known are: {', '.join(EDGES)}")
        if not 0 <= cut.axis < len(shape):
            raise ConfigError(
                f"{name} of shape {shape} has no axis {cut.axis} for a cut: cut=None (whole = true) gives it whole"
            )
        length = shape[cut.axis]
        if not self._length:
            if length < self.shards:
                raise ConfigError(f"{name} has {length} rows, which are fewer than {self.shards} shards")
            self._length = length
        if length != self._length:
            raise ConfigError(
                f"{name} has {length} rows along axis {cut.axis}, the arrays before it {self._length}: "
                "all that are cut have equally many; cut=None (whole = true) gives one whole"
            )
        if not 0 <= cut.halo <= HALO_MAX:
            raise ConfigError(f"{name}: halo = {cut.halo}: expected 0 to {HALO_MAX}")
        table = self._table(tuple(task * length // self.shards for task in range(self.shards + 1)))
        fill = b""
        if cut.edge == "constant":
            fill = a.scalar(Parameter("fill", False, dtype, 1, False), cut.fill).data  # type: ignore[arg-type]
        return Cut(cut.axis, table, cut.halo, cut.edge, fill)  # type: ignore[arg-type]

    def _table(self, table: tuple[int, ...]) -> int:
        if table not in self._tables:
            self._tables.append(table)
        return self._tables.index(table)

    # Steps

    def launch(
        self,
        kernel: Any,
        grid: Any = None,
        block: Any = None,
        args: Sequence[Any] = (),
        *,
        shared_mem: int = 0,
        radius: int | None = None,
        constants: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Add a launch; the arguments are those of ``Mesh.launch``, and

        Args:
            kernel: of any kind; elementwise and reduction kernels need their outputs among ``args``.
            grid: integers or expressions; see ``expressions.py``.
            block: integers.
            args: arrays of this program for pointers; numbers or expressions for the rest.
            shared_mem: in bytes.
            radius: how many rows around its own a thread reads of arrays that have a halo; by default all of it.
            constants: by name, arrays for ``__constant__`` data.
            options: ``size``, ``axis`` and ``keepdims`` of elementwise and reduction kernels.

        Raises:
            ConfigError: it is no kernel.
        """
        ours = adopt(kernel)
        self._nested[-1].append(
            LaunchNote(ours, grid, block, tuple(args), shared_mem, radius, dict(constants or {}), options)
        )

    def operation(self, name: str, inputs: Sequence[Named], outputs: Sequence[Named], **attributes: Any) -> None:
        """Add an operation of the device's library; ``operations.py`` has their table."""
        for array in (*inputs, *outputs):
            if self.buffers[self.index(array, name)].cut is not None and self._halo(array):
                raise ConfigError(f"{name}: {array.name} has a halo, whose rows an array operation cannot tell apart")
        found = tuple(Attribute(key, attributes[key]) for key in sorted(attributes))
        indices = [tuple(self.index(array, name) for array in arrays) for arrays in (inputs, outputs)]
        self._nested[-1].append(Operation(name, indices[0], indices[1], found))

    def swap(self, first: Named, second: Named) -> None:
        """Exchange the names of two arrays: nothing is copied."""
        self._nested[-1].append(Swap(self.index(first, "swap"), self.index(second, "swap")))

    @contextmanager
    def repeat(self, count: int) -> Iterator[None]:
        """Do the steps of the ``with`` block ``count`` times."""
        if not isinstance(count, int | np.integer) or count < 1:
            raise ConfigError(f"repeat({count!r}): expected a positive integer")
        with self._loop(lambda steps: Repeat(int(count), steps)):
            yield

    @contextmanager
    def until(self, flag: Named, *, max: int) -> Iterator[None]:  # noqa: A002 - the word of the program
        """Do the steps of the ``with`` block until ``flag``, one integer, is not zero after them.

        They are done once at least, and ``max`` times at most.

        Where a program is cut into slices, each task looks at its own flag.
        """
        if not isinstance(max, int | np.integer) or max < 1:
            raise ConfigError(f"until(max={max!r}): expected a positive integer")
        index = self.index(flag, "until")
        with self._loop(lambda steps: Until(index, int(max), steps)):
            yield

    @contextmanager
    def _loop(self, make: Callable[[tuple[Step, ...]], Step]) -> Iterator[None]:
        loop = LoopNote(make)
        self._nested[-1].append(loop)
        self._nested.append(loop.steps)
        try:
            yield
        finally:
            self._nested.pop()
        if not loop.steps:
            raise ConfigError("a loop without steps")

    def index(self, array: Any, what: str) -> int:
        """Return the number of an array of this program. Raises ``ConfigError``."""
        if array not in self.named:
            shown = array.name if isinstance(array, Named) else repr(array)
            raise ConfigError(f"{what}: {shown} is no array of this program")
        return self.named[array]

    def _halo(self, array: Named) -> int:
        cut = self.buffers[self.named[array]].cut
        return cut.halo if cut is not None else 0

    def combine(
        self,
        how: Any,
        grid: Any = None,
        block: Any = None,
        args: Sequence[Any] = (),
        *,
        shared_mem: int = 0,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        """Merge the partial results of all tasks into one, where the result is fetched: pairwise, in a fixed tree.

        Args:
            how: ``"sum"``, ``"prod"``, ``"min"`` or ``"max"`` of all partial results; or a raw kernel that merges two.
            grid: of the kernel.
            block: likewise.
            args: likewise: a ``partial`` array is the one that is merged into (``T*``), its ``.other`` the one that is
                merged (``const T*``).
            shared_mem: likewise.
            constants: likewise.

        Raises:
            ConfigError: it is neither.
        """
        if not isinstance(how, str):
            ours = adopt(how)
            self._combine.append(LaunchNote(ours, grid, block, args, shared_mem, None, dict(constants or {}), {}))
            return
        for index, buffer in enumerate(self.buffers):
            if buffer.is_output:
                named = next(known for known, number in self.named.items() if number == index)
                count = prod(buffer.shape[1:])
                kernel = merging_kernel(how, buffer.dtype)
                args = (named, named.other, count)
                self._combine.append(LaunchNote(kernel, -(-count // 256), 256, args, 0, None, {}, {}))

    # The program

    def build(self) -> Bound:
        """Compile the kernels and make the program.

        Raises:
            ConfigError: saying which array, kernel or argument is wrong, and how.
        """
        maker = StepMaker(self)
        steps = maker.steps(self._steps)
        combine = maker.combine(self._combine)
        if not steps:
            raise ConfigError("the program has no steps")
        program = self.program(steps, maker, combine)
        try:
            validate(program)
        except TaskRejected as error:
            raise ConfigError(str(error)) from error
        check_halos(program, maker.radii)
        self.notes = tuple(maker.notes)
        return Bound(program, dict(self.inputs), tuple(maker.sources))

    def program(self, steps: tuple[Step, ...], maker: StepMaker, combine: tuple[Launch, ...] = ()) -> Program:
        """Return the program so far, with other steps."""
        shards: Blocks | Axis = Blocks(self.shards)
        if self._along is not None:
            if not self._tables:
                raise ConfigError("no array is cut: a program that is cut along an axis has at least one")
            shards = Axis(self.shards, tuple(self._tables))
        units, kernels = tuple(maker.units), tuple(maker.kernels)
        return Program(VERSION, units, kernels, tuple(self.buffers), steps, shards, combine)

    def depends(self, text: str) -> bool:
        """Tell whether an expression may differ from task to task."""
        names = {"shard"}
        for name, value in self._defined.items():
            if any(known in str(value) for known in names):
                names.add(name)
        return self._along is not None and any(name in text for name in names)

    def names(self, task: int) -> dict[str, Value]:
        """Return what expressions may name, for a task."""
        names: dict[str, Value] = {buffer.name: buffer.shape for buffer in self.buffers}
        if self._along is not None:
            count, length = self.shards, self._length
            start, stop = task * length // count, (task + 1) * length // count
            names["shard"] = {"start": start, "stop": stop, "rows": stop - start, "index": task, "count": count}
        for name, value in self._defined.items():
            names[name] = value if isinstance(value, int) else evaluate(str(value), names)
        return names
