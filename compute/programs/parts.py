"""Parts of a task cut by blocks, as tasks of a finer program: what an audit of single blocks runs.

Task i of n runs the blocks [i·B // n, (i + 1)·B // n) of a launch's B. The same program cut into n·m tasks has the same
kernels, arrays and owners, and its tasks i·m … i·m + m - 1 run exactly those blocks: since (i·m)·B // (n·m) = i·B // n.
They are the m *parts* of task i, and what they own together is what it owns.
"""

from collections.abc import Sequence
from math import prod

import msgspec

from depin_node.compute.programs.program import DTYPE_BYTES, TASKS_MAX, Blocks, Launch, Program
from depin_node.compute.programs.shards import owned_boxes


def parts_of(program: Program, wanted: int) -> int:
    """Return into how many parts each task can be cut, ``wanted`` at most; 1 where it is not one launch, cut by
    blocks."""
    is_launch = len(program.steps) == 1 and isinstance(program.steps[0], Launch)
    if (
        not is_launch
        or not isinstance(program.shards, Blocks)
        or any(not program.buffers[index].tile for index in program.outputs)
    ):
        return 1
    return max(1, min(wanted, program.launch.blocks(0) // program.tasks, TASKS_MAX // program.tasks))


def finer(program: Program, parts: int) -> Program:
    """Return the program whose task ``task * parts + part`` is a part of ``task``."""
    return msgspec.structs.replace(program, shards=Blocks(program.tasks * parts))


def part_of(program: Program, task: int, parts: int, part: int, outputs: Sequence[bytes]) -> list[bytes]:
    """Return what a part owns of a task's result, in the layout of the finer program's own results.

    Args:
        program: of the task.
        task: its index.
        parts: into how many it is cut.
        part: which of them.
        outputs: the task's result: one for each of the program's outputs.
    """
    cut = finer(program, parts)
    return [_part(program, cut, task, task * parts + part, output, data) for output, data in enumerate(outputs)]


def _part(program: Program, cut: Program, task: int, part: int, output: int, data: bytes) -> bytes:
    import numpy as np

    item_bytes = DTYPE_BYTES[program.buffers[program.outputs[output]].dtype]
    into = bytearray(sum(box.elements for box in owned_boxes(cut, part, output)) * item_bytes)
    whole, mine = np.frombuffer(data, f"V{item_bytes}"), np.frombuffer(into, f"V{item_bytes}")
    to = 0
    for box in owned_boxes(cut, part, output):
        at = 0
        for held in owned_boxes(program, task, output):  # each element of the part lies in one of them
            start = tuple(map(max, box.start, held.start))
            shape = tuple(stop - first for first, stop in zip(start, map(min, box.stop, held.stop), strict=True))
            if all(length > 0 for length in shape):
                there = tuple(slice(a - b, a - b + n) for a, b, n in zip(start, held.start, shape, strict=True))
                here = tuple(slice(a - b, a - b + n) for a, b, n in zip(start, box.start, shape, strict=True))
                source = whole[at : at + held.elements].reshape(held.shape)
                mine[to : to + box.elements].reshape(box.shape)[here] = source[there]
            at += prod(held.shape)
        to += box.elements
    return bytes(into)
