"""Walking through a program's steps: the same on every device.

A buffer's *name* is its index in the program, its *slot* the memory that it began with. ``Swap`` exchanges the slots of
two names; nothing moves. What a device has to do itself is behind ``Executor``.
"""

from collections.abc import Sequence
from typing import Protocol

from depin_node.compute.programs.program import Launch, Operation, Repeat, Step, Swap


class Executor(Protocol):
    """What a device does for one task; ``slots`` says for each name where it is now."""

    def launch(self, step: Launch, slots: Sequence[int]) -> None:
        """Run a launch to its end, or far enough that what comes next sees its results."""

    def operation(self, step: Operation, slots: Sequence[int]) -> None:
        """Do an array operation."""

    def is_set(self, slot: int) -> bool:
        """Tell whether the one element in a slot is not zero."""

    def check(self) -> None:
        """Raise if the task's time is over; called before each step."""


def run_steps(steps: tuple[Step, ...], executor: Executor, slots: list[int]) -> None:
    """Run steps in order; ``slots`` changes with every swap, and says at the end where each name is."""
    for step in steps:
        executor.check()
        if isinstance(step, Launch):
            executor.launch(step, slots)
        elif isinstance(step, Operation):
            executor.operation(step, slots)
        elif isinstance(step, Swap):
            slots[step.a], slots[step.b] = slots[step.b], slots[step.a]
        elif isinstance(step, Repeat):
            for _ in range(step.count):
                run_steps(step.steps, executor, slots)
        else:
            for _ in range(step.max):
                run_steps(step.steps, executor, slots)
                if executor.is_set(slots[step.buffer]):
                    break
