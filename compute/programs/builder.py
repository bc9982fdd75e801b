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

from depin_node.compute.programs.arguments import Array, unchanging
from depin_node.compute.programs.generated import Kernel as AnyKernel
from depin_node.compute.programs.generated import adopt
from depin_node.compute.programs.halos import check_halos
from depin_node.compute.programs.kernel import Along, Reference, UnitSource
from depin_node.compute.programs.program import (
    VERSION,
    Attribute,
    Axis,
    Blocks,
    Launch,
    Operation,
    Program,
    Repeat,
    Step,
    Swap,
    Until,
)
from depin_node.compute.programs.program_arrays import Named, ProgramArrays
from depin_node.compute.programs.step_maker import StepMaker, merging_kernel
from depin_node.compute.programs.validation import validate
from depin_node.core.errors import ConfigError, TaskRejected


@dataclass(frozen=True)
class Bound:
    """A valid program, and what it starts from: for each of ``program.inputs`` a C-contiguous array or a reference.

    ``sources``: what each of the program's units was compiled from, where that is known.
    """

    program: Program
    inputs: Mapping[int, Array | Reference]
    sources: Sequence[UnitSource | None] = ()


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


class ProgramBuilder(ProgramArrays):
    """A program being written.

    Args:
        shards: tasks to cut it into: a range of blocks each, for a single launch; slices, with ``along``.
        along: how its arrays are cut, where they do not say it themselves; an ``out`` array has no halo by default.

    Raises:
        ConfigError: the cut is wrong.
    """

    def __init__(self, *, shards: int = 1, along: Along | None = None) -> None:
        super().__init__(shards=shards, along=along)
        self._steps: list[Any] = []
        self._combine: list[LaunchNote] = []
        self._nested: list[list[Any]] = [self._steps]
        self.constants: dict[tuple[str, str, bytes], int] = {}
        self.notes: tuple[str, ...] = ()

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
            ConfigError: it is no kernel, or a radius is none.
        """
        ours = adopt(kernel)
        if radius is not None and (not isinstance(radius, int | np.integer) or radius < 0):
            raise ConfigError(f"radius = {radius!r}: expected an integer from 0")
        given = {name: np.array(value) for name, value in (constants or {}).items()}  # as CuPy copies them: now
        noted = tuple([unchanging(argument) for argument in args])
        self._nested[-1].append(LaunchNote(ours, grid, block, noted, shared_mem, radius, given, options))

    def operation(self, name: str, inputs: Sequence[Named], outputs: Sequence[Named], **attributes: Any) -> None:
        """Add an operation of the device's library; ``operations.py`` has their table."""
        for array in (*inputs, *outputs):
            if self.buffers[self.index(array, name)].cut is not None and self.halo(array):
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

    def combine(
        self,
        how: Any,
        grid: Any = None,
        block: Any = None,
        args: Sequence[Any] = (),
        *,
        shared_mem: int = 0,
    ) -> None:
        """Merge the partial results of all tasks into one, where the result is fetched: pairwise, in a fixed tree.

        Args:
            how: ``"sum"``, ``"prod"``, ``"min"`` or ``"max"`` of all partial results; or a raw kernel that merges two.
            grid: of the kernel.
            block: likewise.
            args: likewise: a ``partial`` array is the one that is merged into (``T*``), its ``.other`` the one that is
                merged (``const T*``).
            shared_mem: likewise.

        Raises:
            ConfigError: it is neither.
        """
        if not isinstance(how, str):
            ours = adopt(how)
            self._combine.append(LaunchNote(ours, grid, block, args, shared_mem, None, {}, {}))
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
        check_halos(program, maker.radii, maker.read)
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
