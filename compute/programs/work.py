"""How much a task does at most, known before it runs: every loop has a bound, so everything has one."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from depin_node.compute.programs.memory import attributes, specs
from depin_node.compute.programs.operations import plan
from depin_node.compute.programs.program import Axis, Launch, Operation, Program, Repeat, Step, Until
from depin_node.compute.programs.slices import variants


class Work(NamedTuple):
    """Upper bounds for one task.

    Attributes:
        steps: launches, operations and swaps that are done, loops unrolled.
        threads: of all launches, each as often as it is done.
        flops: floating-point operations of all array operations, about.
    """

    steps: int
    threads: int
    flops: int

    @property
    def size(self) -> int:
        """One number for all: threads and floating-point operations."""
        return self.threads + self.flops


def unrolled(steps: tuple[Step, ...], times: int = 1) -> Iterator[tuple[Step, int]]:
    """Yield each step that is no loop, with how often it is done at most."""
    for step in steps:
        if isinstance(step, Repeat | Until):
            count = step.count if isinstance(step, Repeat) else step.max
            yield from unrolled(step.steps, times * count)
        else:
            yield step, times


def work(program: Program) -> Work:
    """Return what no task of a valid program exceeds."""
    steps = threads = flops = 0
    tasks = variants(program)
    for step, times in unrolled(program.steps):
        steps += times
        if isinstance(step, Launch):
            threads += times * _threads(program, step)
        elif isinstance(step, Operation):
            flops += times * _flops(program, step, tasks)
    return Work(steps, threads, flops)


def _threads(program: Program, launch: Launch) -> int:
    blocks = max(prod(grid) for grid in launch.grids)
    if not isinstance(program.shards, Axis):
        blocks = -(-blocks // program.tasks)
    return blocks * prod(launch.block)


def _flops(program: Program, step: Operation, tasks: tuple[int, ...]) -> int:
    return max(plan(step.name, specs(program, step.inputs, task), attributes(step)).flops for task in tasks)
