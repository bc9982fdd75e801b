from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wat_programs import copying

from depin_node.compute.programs.generated.layout import compact, cut_into_blocks, merge_axes
from depin_node.compute.programs.program import (
    Blocks,
    Buffer,
    Kernel,
    Launch,
    Parameter,
    Program,
    Unit,
)
from depin_node.compute.programs.shards import owned_boxes
from depin_node.compute.programs.validation import validate

SHAPES = st.lists(st.integers(1, 6), max_size=4).map(tuple)


@settings(deadline=None)
@given(SHAPES, st.integers(1, 40), st.data())
def test_a_block_begins_where_its_tile_does(shape, elements_max, data):
    """``_first`` and ``_row`` of source.py against the tile rule, block by block."""
    axis_min = data.draw(st.integers(0, len(shape) - 1)) if shape else 0
    blocks = cut_into_blocks(shape, elements_max, axis_min=axis_min)
    assert blocks.elements <= elements_max
    owned = np.full(shape, -1)
    for block, box in enumerate(_tiles(shape, blocks)):
        owned[box] = block
    order = owned.reshape(-1)
    for block in range(blocks.count):
        row, part = divmod(block, blocks.parts)
        first = row * blocks.row + part * blocks.elements
        mine = [first + t for t in range(blocks.elements) if part * blocks.elements + t < blocks.row]
        assert np.flatnonzero(order == block).tolist() == mine


def _tiles(shape, blocks):
    """The box of each block, by the rule of program.py itself."""
    program = Program(
        2,
        (Unit(copying(), ""),),
        (Kernel("k", 0, 0, (Parameter("z", True, "uint8", 1, False),), True),),
        (Buffer("z", "out", "uint8", shape, blocks.tile, None),),
        (Launch(0, ((blocks.count, 1, 1),), (1, 1, 1), 0, (0,)),),
        Blocks(blocks.count),
        (),
    )
    if shape:
        validate(program)
    for task in range(blocks.count):
        (box,) = owned_boxes(program, task, 0)
        yield box.slices


@settings(deadline=None)
@given(SHAPES, st.data())
def test_places_are_those_of_broadcasting(shape, data):
    """Digit times stride, summed, is where NumPy's broadcasting finds the element."""
    split = data.draw(st.integers(0, len(shape)))
    shapes = [
        tuple(length if keep else 1 for length, keep in zip(shape, keeps, strict=True))
        for keeps in data.draw(st.lists(st.tuples(*[st.booleans()] * len(shape)), min_size=1, max_size=3))
    ]
    outer, inner = merge_axes(shape, shapes, split)
    assert prod(outer.lengths) * prod(inner.lengths) == prod(shape)
    for number, own in enumerate(shapes):
        expected = np.broadcast_to(np.arange(prod(own)).reshape(own), shape).reshape(-1)
        for index in range(prod(shape)):
            o, r = divmod(index, prod(inner.lengths))
            assert _place(outer, number, o) + _place(inner, number, r) == expected[index]


def _place(axes, array, index):
    factor = axes.factor(array)
    place = sum(
        index // axes.inner(axis) % axes.lengths[axis] * stride for axis, stride in enumerate(axes.strides[array])
    )
    assert factor is None or factor * index == place
    return place


@pytest.mark.parametrize(("array", "order", "shape"), [
    (np.broadcast_to(np.arange(3), (4, 3)), (0, 1), (1, 3)),  # what only repeats is not sent
    (np.broadcast_to(np.arange(3)[:, None], (3, 5)), (1, 0), (1, 3)),
    (np.arange(6).reshape(2, 3).T, (0, 1), (3, 2)),
    (np.arange(3), (2, 0, 1), (3, 1, 1)),
])  # fmt: skip
def test_views_are_sent_without_what_repeats(array, order, shape):
    sent = compact(array, order)
    assert sent.shape == shape
    full = np.broadcast_to(array, (1,) * (len(order) - array.ndim) + array.shape).transpose(order)
    assert (np.broadcast_to(sent, full.shape) == full).all()
