"""Launches over large arrays, cut into rows: the same bits as by blocks, in real workers."""

import numpy as np
import pytest

from depin_node.client import ElementwiseKernel, In, InOut, Out, ReductionKernel, confidence
from depin_node.client.local import launch
from depin_node.client.work import prepare_launch
from depin_node.compute.programs.generated import rows
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.program import Axis, Blocks

RNG = np.random.default_rng(9)
X, Y = RNG.random((2, 37, 129), dtype="float32")
RGB = RNG.random((50, 40, 3), dtype="float32")
V = RNG.random(129, dtype="float32")
LINE = RNG.random(1001)
SCALE = ElementwiseKernel("T x, T y, float32 c", "T z", "z = c * x + y", "scale")
DOUBLE = ElementwiseKernel("T x", "T z", "z = 2 * x", "twice")
BOTH = ElementwiseKernel("T x, T y", "T sum, float64 ratio", "sum = x + y; ratio = (double)x / (y + 1)", "both")


NORM = ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "norm")
DOT = ReductionKernel("T x, T w, float32 c", "T y", "c * x * w", "a + b", "y = a", "0", "dot")
WHICH = ReductionKernel(
    "T x", "int64 y", "_J * (x > 0.9f)", "max(a, b)", "y = a", "0", "which", reduce_type="long long"
)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(rows, "BYTES_MIN", 1)


def by_numpy(kernel, args):
    given = [argument.array if isinstance(argument, In) else argument for argument in args]
    if kernel is SCALE:
        return (np.float32(given[2]) * given[0] + given[1],)
    if kernel is DOUBLE:
        return (2 * given[0],)
    return given[0] + given[1], given[0].astype("float64") / (given[1] + np.float32(1))


@pytest.mark.parametrize("shards", [2, 7])
@pytest.mark.parametrize(("kernel", "args"), [
    (SCALE, (X, Y, 3)),
    (SCALE, (X, V, 0.5)),  # one row for all
    (SCALE, (X, In(Y[:1]), 2)),
    (SCALE, (X, Y[:, :1], 2)),  # a number for each row
    (SCALE, (RGB, RGB[0], 1)),
    (SCALE, (X.T, Y.T, 3)),
    (SCALE, (X[::-1, ::2], Y[:, 1::2][:, :64].repeat(2, 1)[:, :65], 3)),
    (DOUBLE, (LINE,)),
    (BOTH, (X, Y)),
])  # fmt: skip
def test_rows_give_what_blocks_give(kernel, args, shards, everything_is_large, monkeypatch):
    work = prepare_launch(kernel, args=args, shards=shards, local=True)
    assert isinstance(work.bound.program.shards, Axis)
    in_rows = launch(kernel, args=args, shards=shards)
    monkeypatch.setattr(rows, "BYTES_MIN", 1 << 40)
    assert isinstance(prepare_launch(kernel, args=args, shards=shards, local=True).bound.program.shards, Blocks)
    by_blocks = launch(kernel, args=args, shards=shards)
    expected = by_numpy(kernel, args)
    if len(expected) == 1:
        in_rows, by_blocks = (in_rows,), (by_blocks,)
    for row, block, number in zip(in_rows, by_blocks, expected, strict=True):
        assert row.dtype == block.dtype
        np.testing.assert_array_equal(row, block)
        np.testing.assert_allclose(row, number, rtol=1e-6)


@pytest.mark.parametrize(("kernel", "args", "options"), [
    (ElementwiseKernel("T x", "T z", "z = x + i", "index"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x / n", "length"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x / _ind.size()", "size"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x + II", "named", options=("-DII=i",)), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x + blockIdx.x", "block"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x + _first", "first"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x + (&x - _raw_x)", "place"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = x + P(_fir, st)", "pasted", preamble="#define P(a, b) a ## b"), (X,), {}),
    (ElementwiseKernel("T x", "T z", "z = __shfl_sync(~0u, x, 0)", "lanes"), (X,), {}),
    (ElementwiseKernel("T x, raw T y", "T z", "z = x + y[0]", "indexed"), (X, Y), {}),
    (ElementwiseKernel("raw T y", "raw T z", "z[i] = y[i]", "copied"), (V, Out("float32", (129,))), {"size": 129}),
    (SCALE, (X, Y, 3), {"verify": confidence(0.999, 0.2, parts=4)}),  # parts are of tasks cut by blocks
    (SCALE, (X[:5], Y[:5], 3), {"shards": 6}),  # fewer rows than shards
    (DOUBLE, (np.broadcast_to(V, (37, 129)),), {}),  # sent once by blocks
    (DOUBLE, (X, InOut(Y.copy())), {}),
])  # fmt: skip
def test_what_is_not_to_be_cut_so_is_cut_by_blocks(kernel, args, options, everything_is_large):
    work = prepare_launch(kernel, args=args, **{"shards": 4, **options})
    assert isinstance(work.bound.program.shards, Blocks)


def test_small_arrays_are_cut_by_blocks():
    assert isinstance(prepare_launch(SCALE, args=(X, Y, 3), shards=4).bound.program.shards, Blocks)


def test_a_task_needs_memory_for_its_rows_only():
    large = np.zeros((1 << 12, 1 << 12), "float32")
    program = prepare_launch(DOUBLE, args=(large,), shards=64, local=True).bound.program
    assert isinstance(program.shards, Axis)
    assert memory_bytes(program) < large.nbytes // 16


@pytest.mark.parametrize("shards", [2, 9])
@pytest.mark.parametrize(("kernel", "args", "options"), [
    (NORM, (X,), {"axis": 1}),
    (NORM, (X,), {"axis": -1, "keepdims": True}),
    (NORM, (RGB,), {"axis": 2}),
    (NORM, (RGB,), {"axis": (1, 2)}),
    (NORM, (RGB,), {"axis": (2, 1), "keepdims": True}),
    (DOT, (X, V, 2), {"axis": 1}),
    (WHICH, (X,), {"axis": 1}),
])  # fmt: skip
def test_reduced_rows_have_the_bits_that_blocks_give(kernel, args, options, shards, everything_is_large, monkeypatch):
    work = prepare_launch(kernel, args=args, shards=shards, local=True, **options)
    assert isinstance(work.bound.program.shards, Axis)
    in_rows = launch(kernel, args=args, shards=shards, **options)
    monkeypatch.setattr(rows, "BYTES_MIN", 1 << 40)
    by_blocks = launch(kernel, args=args, shards=shards, **options)
    assert (in_rows.dtype, in_rows.shape) == (by_blocks.dtype, by_blocks.shape)
    np.testing.assert_array_equal(in_rows, by_blocks)


@pytest.mark.parametrize(("kernel", "args", "options"), [
    (NORM, (X,), {"axis": 0}),
    (NORM, (RGB,), {"axis": 1}),  # not the last: it is sent transposed
    (ReductionKernel("T x", "T y", "x * _i", "a + b", "y = a", "0", "weighed"), (X,), {"axis": 1}),
    (ReductionKernel("T x", "T y", "x", "a + b", "y = a / _in_ind.size()", "0", "mean"), (X,), {"axis": 1}),
])  # fmt: skip
def test_other_reductions_are_cut_by_blocks(kernel, args, options, everything_is_large):
    work = prepare_launch(kernel, args=args, shards=4, local=True, **options)
    assert isinstance(work.bound.program.shards, Blocks)
