from math import prod

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wat_programs import program

from depin_node.compute.programs.parts import finer, part_of, parts_of
from depin_node.compute.programs.program import Blocks
from depin_node.compute.programs.shards import (
    first_owned,
    gather,
    owned_boxes,
    result_bytes,
    result_bytes_max,
    result_sizes,
    scatter,
    task_blocks,
)
from depin_node.compute.programs.validation import validate


@st.composite
def tiled(draw):
    """A program whose output has 1 to 4 axes, tiled, with a grid that fits, cut anyhow."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    tile = tuple(draw(st.integers(1, length)) for length in shape)
    counts = [-(-length // step) for length, step in zip(shape, tile, strict=True)]
    long = [count for count in reversed(counts) if count > 1]
    spare = draw(st.integers(0, 3))
    grid = (*long, 1, 1, 1)[:3] if len(long) <= 3 and draw(st.booleans()) else (prod(counts) + spare, 1, 1)
    base = program()
    candidate = msgspec.structs.replace(
        base,
        buffers=(base.buffers[0], msgspec.structs.replace(base.buffers[1], shape=shape, tile=tile)),
        steps=(msgspec.structs.replace(base.launch, grids=(grid,)),),
        shards=Blocks(draw(st.integers(1, prod(grid)))),
    )
    validate(candidate)
    return candidate


def owner_of_each(candidate):
    """The task that owns each element, by the tile rule as the documentation says it, one element at a time."""
    buffer = candidate.buffers[1]
    counts = [-(-length // step) for length, step in zip(buffer.shape, buffer.tile, strict=True)]
    block_task = {}
    for task in range(candidate.tasks):
        for block in range(*task_blocks(candidate, task)):
            assert block not in block_task
            block_task[block] = task
    assert len(block_task) == candidate.launch.blocks(0)
    owners = np.empty(buffer.shape, int)
    for index in np.ndindex(*buffer.shape):
        number = 0
        for position, step, count in zip(index, buffer.tile, counts, strict=True):
            number = number * count + position // step
        owners[index] = block_task[number]
    return owners


@given(tiled())
def test_every_element_has_one_owner_and_finds_its_place_again(candidate):
    owners = owner_of_each(candidate)
    buffer = candidate.buffers[1]
    whole = np.arange(1, buffer.elements + 1, dtype="float32").reshape(buffer.shape)
    assembled = np.zeros_like(whole)
    for task in range(candidate.tasks):
        boxes = owned_boxes(candidate, task, 0)
        assert len(boxes) <= max(2 * len(buffer.shape) - 1, 1)
        if len(buffer.shape) == 1 and buffer.tile and boxes:
            assert first_owned(candidate, 0)(task) == boxes[0].start[0]
        mine = np.zeros(buffer.shape, bool)
        for box in boxes:
            assert not mine[box.slices].any()
            mine[box.slices] = True
        assert (mine == (owners == task)).all()
        result = np.empty(result_bytes(candidate, task, 0) // 4, "float32")
        gather(candidate, task, 0, whole, result)
        scatter(candidate, task, 0, result.tobytes(), assembled)
    assert (assembled == whole).all()


@given(tiled(), st.integers(1, 9), st.data())
def test_the_parts_of_a_task_are_tasks_of_a_finer_program(candidate, wanted, data):
    parts, task = parts_of(candidate, wanted), data.draw(st.integers(0, candidate.tasks - 1))
    assert 1 <= parts <= wanted
    cut = finer(candidate, parts)
    first, last = task_blocks(candidate, task)
    blocks = [task_blocks(cut, task * parts + part) for part in range(parts)]
    assert [first, *(b for _, b in blocks[:-1])] == [a for a, _ in blocks]
    assert blocks[-1][1] == last
    buffer = candidate.buffers[1]
    whole = np.arange(1, buffer.elements + 1, dtype="float32").reshape(buffer.shape)
    result = np.empty(result_bytes(candidate, task, 0) // 4, "float32")
    gather(candidate, task, 0, whole, result)
    for part in range(parts):
        alone = np.empty(result_bytes(cut, task * parts + part, 0) // 4, "float32")
        gather(cut, task * parts + part, 0, whole, alone)
        assert part_of(candidate, task, parts, part, [result.tobytes()]) == [alone.tobytes()]


def test_the_canonical_layout_is_head_slabs_tail():
    base = program()
    candidate = msgspec.structs.replace(
        base,
        buffers=(base.buffers[0], msgspec.structs.replace(base.buffers[1], shape=(4, 5), tile=(1, 2))),
        steps=(msgspec.structs.replace(base.launch, grids=((3, 4, 1),)),),
        shards=Blocks(2),
    )
    validate(candidate)
    whole = np.arange(20, dtype="float32").reshape(4, 5)
    first, second = (np.empty(result_bytes(candidate, task, 0) // 4, "float32") for task in (0, 1))
    gather(candidate, 0, 0, whole, first)
    gather(candidate, 1, 0, whole, second)
    assert first.tolist() == list(range(10))
    assert second.tolist() == list(range(10, 20))
    three = msgspec.structs.replace(candidate, shards=Blocks(8))  # 12 blocks: 1, 2, 1, 2, …
    assert [tuple(box) for box in owned_boxes(three, 1, 0)] == [((0, 2), (1, 5))]
    seven = msgspec.structs.replace(candidate, shards=Blocks(7))
    assert [tuple(box) for box in owned_boxes(seven, 3, 0)] == [((1, 4), (2, 5))]
    assert [tuple(box) for box in owned_boxes(seven, 6, 0)] == [((3, 2), (4, 5))]
    uneven = msgspec.structs.replace(candidate, steps=(msgspec.structs.replace(base.launch, grids=((3, 4, 1),)),))
    uneven = msgspec.structs.replace(uneven, shards=Blocks(5))  # blocks 2, 3 | 4 …: across a row's end
    assert task_blocks(uneven, 1) == (2, 4)
    assert [tuple(box) for box in owned_boxes(uneven, 1, 0)] == [((0, 4), (1, 5)), ((1, 0), (2, 2))]


def test_a_result_of_another_size_or_array_is_refused():
    candidate = program()
    whole = np.zeros(1024, "float32")
    with pytest.raises(ValueError, match="expected 1024"):
        scatter(candidate, 0, 0, bytes(1020), whole)
    with pytest.raises(ValueError, match="not float64"):
        scatter(candidate, 0, 0, bytes(1024), whole.astype("float64"))
    with pytest.raises(IndexError):
        task_blocks(candidate, 4)


@given(tiled())
def test_the_sizes_of_all_results_at_once_are_those_of_each(candidate):
    sizes = result_sizes(candidate)
    for task in range(candidate.tasks):
        expected = tuple(result_bytes(candidate, task, output) for output in range(len(candidate.outputs)))
        assert sizes(task) == expected
        assert sum(expected) <= result_bytes_max(candidate)
