"""One task of an exact program, step by step: programs that go as far as a given step, or do just one.

A dispute is walked (``verification/dispute.py``) over *states*: what each array of a task that is no input holds, by
name, after so many steps. A state is told as the blob ids of these arrays, in the program's order. So that any device
can give one, the first ``n`` steps are a program of their own (``until_step``), with these arrays as outputs; and so is
one step from a state (``one_step``), with arrays as inputs. Both run in a worker like any other program.

Steps are counted as they are done: a ``repeat`` is unrolled, an ``until`` is one step, and so is a ``swap``. The arrays
are those that the task holds: a task cut along an axis becomes a program of one task over its rows, its halo included.
Rows that an edge rule fills again after each step cannot be said in such a program, nor an exchange of two arrays that
no step before it has written: a task that has some is not walked.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from depin_node.compute.programs.program import (
    DTYPE_BYTES,
    Blocks,
    Buffer,
    Launch,
    Offset,
    Program,
    Repeat,
    Scalar,
    Step,
    Swap,
    Until,
    flattened,
)
from depin_node.compute.programs.slices import beyond, held_shape, rows
from depin_node.crypto.blob import blob_id

Bytes = bytes | bytearray | memoryview


class Runnable(NamedTuple):
    """A program of one task, and which arrays of the walked one its own are. ``inputs``: the names whose bytes it is
    given; ``outputs``: those it gives, in its order; both are names of the walked program."""

    program: Program
    inputs: dict[int, int]
    """By buffer of ``program``."""
    outputs: tuple[int, ...]


def is_walkable(program: Program, task: int) -> bool:
    """Tell whether a task can be walked: its bits are defined, it has several steps, each part of it is a program."""
    if not program.exact or step_count(program.steps) < 2 or not _swaps_follow_writes(program, program.steps, set()):
        return False
    for buffer in program.buffers:
        if buffer.cut is not None and buffer.cut.edge not in ("none", "wrap"):
            length = buffer.shape[buffer.cut.axis]
            if any(True for _ in beyond(rows(program, buffer.cut, length, task), length)):
                return False
    return True


def _swaps_follow_writes(program: Program, steps: Sequence[Step], written: set[int]) -> bool:
    """Tell whether one of two arrays that are swapped was written before; add to ``written`` what steps write.

    An ``until`` is one step, and so a program of its own.
    """
    for step in steps:
        if isinstance(step, Launch):
            written |= _written_by(program, step)
        elif isinstance(step, Swap):
            if not written & {step.a, step.b}:
                return False
            written |= {step.a, step.b}
        elif isinstance(step, Repeat):
            if not _swaps_follow_writes(program, step.steps, written):
                return False
        else:
            assert isinstance(step, Until)  # exact programs have no operations
            within = set[int]()
            if not _swaps_follow_writes(program, step.steps, within):
                return False
            written |= within
    return True


def _written_by(program: Program, launch: Launch) -> set[int]:
    pairs = zip(launch.args, program.kernels[launch.kernel].parameters, strict=True)
    return {
        argument.buffer if isinstance(argument, Offset) else argument
        for argument, parameter in pairs
        if not isinstance(argument, Scalar) and not parameter.const
    }


def step_count(steps: Sequence[Step]) -> int:
    """Return how many steps are done."""
    return sum(step.count * step_count(step.steps) if isinstance(step, Repeat) else 1 for step in steps)


def first_steps(steps: Sequence[Step], count: int) -> tuple[Step, ...]:
    """Return steps that do the first ``count`` of what ``steps`` do."""
    found: list[Step] = []
    for step in steps:
        size = step_count((step,))
        if count <= 0:
            break
        if size <= count:
            found.append(step)
        elif isinstance(step, Repeat):
            times, rest = divmod(count, step_count(step.steps))
            if times:
                found.append(Repeat(times, step.steps))
            found += first_steps(step.steps, rest)
        count -= size
    return tuple(found)


def step_at(steps: Sequence[Step], number: int) -> Step:
    """Return the step that is done after the first ``number``."""
    for step in steps:
        size = step_count((step,))
        if number < size:
            return step_at(step.steps, number % step_count(step.steps)) if isinstance(step, Repeat) else step
        number -= size
    raise IndexError("there is no such step")


def state_names(program: Program) -> tuple[int, ...]:
    """Return the arrays that make a state: all but the inputs."""
    return tuple(index for index, buffer in enumerate(program.buffers) if buffer.role != "in")


def of_task(program: Program, task: int) -> Program:
    """Return the program of one task that does what ``task`` does, over the arrays that it holds."""
    kernels = program.kernels

    def argument(launch: Launch, position: int) -> int | Scalar | Offset:
        given, parameter = launch.args[position], kernels[launch.kernel].parameters[position]
        if not isinstance(given, Scalar):
            return given
        return Scalar(given.dtype, given.of(task, DTYPE_BYTES[parameter.dtype] * parameter.lanes))

    def step(one: Step) -> Step:
        if isinstance(one, Repeat | Until):
            return msgspec.structs.replace(one, steps=tuple(map(step, one.steps)))
        if not isinstance(one, Launch):
            return one
        args = tuple(argument(one, position) for position in range(len(one.args)))
        return msgspec.structs.replace(one, grids=(one.grid(task),), args=args)

    buffers = tuple(
        Buffer(buffer.name, buffer.role, buffer.dtype, held_shape(program, buffer, task), (), None)
        for buffer in program.buffers
    )
    steps = tuple(map(step, program.steps))
    return Program(program.version, program.units, kernels, buffers, steps, Blocks(1), ())


def until_step(whole: Program, count: int) -> Runnable:
    """Return the program of the first ``count`` steps of a task (``of_task``), from its inputs and zeros.

    Arrays that it does not write are not among its outputs: they are what they were.
    """
    steps = first_steps(whole.steps, count)
    given = {index for index, buffer in enumerate(whole.buffers) if buffer.is_input}
    return _runnable(whole, steps, given)


def one_step(whole: Program, number: int) -> Runnable:
    """Return the program of the step after the first ``number``, from a state and the inputs."""
    return _runnable(whole, (step_at(whole.steps, number),), set(range(len(whole.buffers))))


def swapped(whole: Program, number: int, state: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """Return the state after a step that only exchanges names, or None if it does more."""
    step = step_at(whole.steps, number)
    if not isinstance(step, Swap):
        return None
    names, after = state_names(whole), list(state)
    a, b = names.index(step.a), names.index(step.b)
    after[a], after[b] = after[b], after[a]
    return tuple(after)


def after_outputs(whole: Program, before: Sequence[bytes], found: Mapping[int, bytes]) -> tuple[bytes, ...]:
    """Return the state that follows ``before`` if the arrays named in ``found`` have become that."""
    return tuple(found.get(name, old) for name, old in zip(state_names(whole), before, strict=True))


def first_bytes(whole: Program, inputs: Mapping[int, Bytes], name: int) -> Bytes:
    """Return what an array holds before the first step. ``inputs``: what the task holds of its inputs, by name."""
    buffer = whole.buffers[name]
    return inputs[name] if buffer.is_input else bytes(buffer.size_bytes)


def first_state(whole: Program, inputs: Mapping[int, Bytes]) -> tuple[bytes, ...]:
    """Return the state before the first step; ``inputs`` as above."""
    return tuple(blob_id(first_bytes(whole, inputs, name)) for name in state_names(whole))


def _runnable(whole: Program, steps: tuple[Step, ...], given: set[int]) -> Runnable:
    """Make a program of some steps: of the arrays that they name, those that they write are its outputs."""
    flat = list(flattened(steps))
    named, written = _named(whole, flat)
    numbers = {name: number for number, name in enumerate(sorted(named))}
    kernels = sorted({step.kernel for step in flat if isinstance(step, Launch)})
    units = sorted({whole.kernels[kernel].unit for kernel in kernels})

    def role(name: int) -> str:
        if name not in written:
            return "in"
        return "inout" if name in given else "out"

    def renamed(step: Step) -> Step:
        if isinstance(step, Launch):
            args = tuple(_renamed(argument, numbers) for argument in step.args)
            return msgspec.structs.replace(step, kernel=kernels.index(step.kernel), args=args)
        if isinstance(step, Swap):
            return Swap(numbers[step.a], numbers[step.b])
        if isinstance(step, Until):
            inner = tuple(map(renamed, step.steps))
            return msgspec.structs.replace(step, buffer=numbers[step.buffer], steps=inner)
        assert isinstance(step, Repeat)  # exact programs have no operations
        return msgspec.structs.replace(step, steps=tuple(map(renamed, step.steps)))

    program = Program(
        whole.version,
        tuple(whole.units[unit] for unit in units),
        tuple(
            msgspec.structs.replace(whole.kernels[kernel], unit=units.index(whole.kernels[kernel].unit))
            for kernel in kernels
        ),
        tuple(msgspec.structs.replace(whole.buffers[name], role=role(name)) for name in numbers),
        tuple(map(renamed, steps)),
        Blocks(1),
        (),
    )
    inputs = {number: name for name, number in numbers.items() if program.buffers[number].is_input}
    return Runnable(program, inputs, tuple(name for name in numbers if name in written))


def _renamed(argument: int | Scalar | Offset, numbers: Mapping[int, int]) -> int | Scalar | Offset:
    if isinstance(argument, Scalar):
        return argument
    if isinstance(argument, Offset):
        return Offset(numbers[argument.buffer], argument.elements)
    return numbers[argument]


def _named(whole: Program, flat: Sequence[Step]) -> tuple[set[int], set[int]]:
    """Return the arrays that steps name, and those that they write; arrays that are swapped share that."""
    named, written, swaps = set[int](), set[int](), list[tuple[int, int]]()
    for step in flat:
        if isinstance(step, Launch):
            named |= {a.buffer if isinstance(a, Offset) else a for a in step.args if not isinstance(a, Scalar)}
            written |= _written_by(whole, step)
        elif isinstance(step, Swap):
            named |= {step.a, step.b}
            swaps.append((step.a, step.b))
        elif isinstance(step, Until):
            named.add(step.buffer)
    for _ in swaps:  # each pass joins at least one more of a chain
        for a, b in swaps:
            if written & {a, b}:
                written |= {a, b}
    return named, written
