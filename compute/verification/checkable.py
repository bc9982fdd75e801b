"""Which programs an algebraic check can judge, and the arrays that a check is given.

Those that are one array operation of ``algebraic.CHECKS``, from input arrays to outputs, whole or cut along an axis
without halo. Whatever else a program does would have to be run again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from depin_node.compute.devices.held import held_input
from depin_node.compute.programs.memory import attributes, specs
from depin_node.compute.programs.operations import plan
from depin_node.compute.programs.program import Operation, Program
from depin_node.compute.programs.shards import numpy_dtype
from depin_node.compute.programs.slices import held_shape, variants
from depin_node.compute.verification.algebraic import CHECKS, ROUNDS, check
from depin_node.compute.verification.findings import Finding

Array = npt.NDArray[Any]


def operation_of(program: Program) -> Operation | None:
    """Return the operation that a check of its result accepts the whole program by, or None."""
    (step, *more) = program.steps
    if more or not isinstance(step, Operation) or step.name not in CHECKS or program.combine:
        return None
    if any(program.buffers[index].role != "in" for index in step.inputs) or step.outputs != program.outputs:
        return None
    if any(buffer.cut is not None and buffer.cut.halo for buffer in program.buffers):
        return None
    return step


def check_share(program: Program) -> float:
    """Return about which share of a task's work a check of it is."""
    step = operation_of(program)
    assert step is not None
    elements = flops = 0
    for task in variants(program):
        named = (*step.inputs, *step.outputs)
        elements += sum(int(np.prod(spec.shape)) for spec in specs(program, named, task))
        flops += plan(step.name, specs(program, step.inputs, task), attributes(step)).flops
    return 2 * ROUNDS * elements / flops


def output_arrays(program: Program, outputs: Sequence[bytes | bytearray]) -> list[Array]:
    """Return a task's results as arrays of one dimension, in the canonical layout."""
    dtypes = [numpy_dtype(program.buffers[index]) for index in program.outputs]
    return [np.frombuffer(data, dtype) for data, dtype in zip(outputs, dtypes, strict=True)]


def check_task(
    program: Program,
    task: int,
    inputs: Mapping[int, Array],
    outputs: Sequence[bytes | bytearray],
    seed: bytes,
) -> Finding:
    """Check a task's result.

    Args:
        program: one that has an ``operation_of``.
        task: its index.
        inputs: by buffer, the whole arrays.
        outputs: what a provider says that came of it.
        seed: of the random numbers; nobody may have known it before the outputs were fixed.
    """
    step = operation_of(program)
    if step is None:
        raise ValueError("no check judges this program")
    arrays = [held_input(program, program.buffers[index], task, inputs[index]) for index in step.inputs]
    shapes = [held_shape(program, program.buffers[index], task) for index in step.outputs]
    found = [array.reshape(shape) for array, shape in zip(output_arrays(program, outputs), shapes, strict=True)]
    return check(step.name, arrays, found, attributes(step), seed)
