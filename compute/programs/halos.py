"""Whether a program's halos last: each launch that looks at neighbouring rows makes less of them right.

A task holds ``halo`` rows of its neighbours on either side. A launch that reads them within ``radius`` rows makes all
but the outermost ``radius`` of what it writes as its neighbours do; what is further out is stale. So each array that is
cut has a *margin*, how many rows beyond the task's own are right: the halo at first, and after a launch the least
margin of what it read, less its radius. Where that falls below zero, the task's own rows would be wrong. A halo of
steps times radius is enough for any number of steps. What a kernel changes in place it reads too; where all that it
does with a pointer is to store through it (``translate/reads.py``), it does not.

This is checked where a program is built, from what its author says of the kernels; nodes have no need to.
"""

from collections.abc import Mapping, Sequence, Set

from depin_node.compute.programs.program import Launch, Offset, Operation, Program, Repeat, Scalar, Step, Swap
from depin_node.core.errors import ConfigError


def check_halos(program: Program, radii: Mapping[int, int | None], read: Sequence[Set[int]]) -> None:
    """Follow the margins through all steps.

    Args:
        program: a valid one.
        radii: for each launch, by its ``id``, how many rows around its own a thread reads; None: the whole halo.
        read: for each kernel, the positions of the arguments that it may read.

    Raises:
        ConfigError: a halo is used up; says by which kernel, and what would be enough.
    """
    halos = [buffer.cut.halo if buffer.cut is not None else None for buffer in program.buffers]
    if any(halos):
        _Margins(program, radii, read, halos).steps(program.steps)


class _Margins:
    def __init__(
        self,
        program: Program,
        radii: Mapping[int, int | None],
        read: Sequence[Set[int]],
        halos: list[int | None],
    ) -> None:
        self._program, self._radii, self._read, self._halos = program, radii, read, halos
        self._margins = list(halos)

    def steps(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if isinstance(step, Launch):
                self._launch(step)
            elif isinstance(step, Swap):
                margins = self._margins
                margins[step.a], margins[step.b] = margins[step.b], margins[step.a]
            elif not isinstance(step, Operation):
                self._loop(step.count if isinstance(step, Repeat) else step.max, step.steps)

    def _loop(self, count: int, steps: tuple[Step, ...]) -> None:
        seen = set()
        for _ in range(count):
            self.steps(steps)
            if tuple(self._margins) in seen:
                return  # margins only fall: from here on nothing changes any more
            seen.add(tuple(self._margins))

    def _launch(self, launch: Launch) -> None:
        kernel = self._program.kernels[launch.kernel]
        read: list[int] = []
        written: list[int] = []
        for position, (argument, parameter) in enumerate(zip(launch.args, kernel.parameters, strict=True)):
            if not isinstance(argument, Scalar):
                index = argument.buffer if isinstance(argument, Offset) else argument
                if position in self._read[launch.kernel]:
                    read.append(index)
                if not parameter.const:
                    written.append(index)
        radius = self._radii.get(id(launch))
        margin: int | None = None
        for index in read:
            held, halo = self._margins[index], self._halos[index]
            if held is None or halo is None:
                continue
            left = held - (halo if radius is None or not halo else radius)
            if left < 0:
                name, said = self._program.buffers[index].name, "" if radius is None else f" of radius {radius}"
                raise ConfigError(
                    f"{kernel.name}{said}: of the halo of {name}, {halo} rows, only {held} are right by now: earlier "
                    "launches have used the others up. Say radius= where a launch reads less than the whole halo, and "
                    "give a halo of at least steps times radius"
                )
            margin = left if margin is None else min(margin, left)
        if margin is None:
            return
        for index in written:
            held, halo = self._margins[index], self._halos[index]
            if held is not None and halo is not None:
                self._margins[index] = min(held, halo, margin)
