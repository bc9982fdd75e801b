"""Launches drawn from seeds, cut by blocks: each task gives what NumPy says, alone, after others, and in parts.

What is drawn: grids, and four outputs of different dtypes and tiles (smaller and larger than a page, of one axis and of
two, one of them an in-out array), how they are cut, whether only a part of each tile is written; and now and then one
store into somebody else's tile, or a trap. ``DEPIN_FUZZ_EXAMPLES`` (``make fuzz``) asks for more, and for others each
time.
"""

import os
import random
import secrets
from math import prod

import numpy as np
import pytest
from device_programs import LIMITS, load

from depin_node.client import InOut, Out, RawKernel
from depin_node.client.work import prepare_launch
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.parts import finer, part_of, parts_of
from depin_node.compute.programs.shards import gather, owned_boxes, result_bytes
from depin_node.compute.sandbox.arena import Arena
from depin_node.core.errors import TaskTrapped

MORE = int(os.environ.get("DEPIN_FUZZ_EXAMPLES", "0"))
FIRST, SEEDS = (secrets.randbits(32), 8 * MORE) if MORE else (0, 24)
TYPES = {"int32": "int", "int16": "short", "float64": "double", "uint8": "unsigned char"}
"""Of the outputs; the last one is in and out."""
PAINT = RawKernel(
    """
    struct Lie { int block, output; long long at; };
    template <class T> __device__ void paint(
        T* p, int rows, int columns, int tile_rows, int tile_columns, int b, int skip, int output, Lie lie
    ) {
        const int across = (columns + tile_columns - 1) / tile_columns;
        if (b == lie.block && output == lie.output && threadIdx.x == 0) p[lie.at] += 1;
        for (int k = threadIdx.x; k < tile_rows * tile_columns; k += blockDim.x) {
            const int r = b / across * tile_rows + k / tile_columns, c = b % across * tile_columns + k % tile_columns;
            if (r >= rows || c >= columns || k % skip != 0) continue;
            p[(long long)r * columns + c] += (r * 31 + c * 7 + b) % 101 + 1;
        }
    }
    extern "C" __global__ void four(
    """
    + ", ".join(f"{c}* p{n}, int4 s{n}" for n, c in enumerate(TYPES.values()))
    + """, int skip, int lying, int output, long long at, int trapping) {
        const int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        const Lie lie = {lying, output, at};
    """
    + "".join(f"paint(p{n}, s{n}.x, s{n}.y, s{n}.z, s{n}.w, b, skip, {n}, lie);\n" for n in range(len(TYPES)))
    + """
        if (b == trapping && threadIdx.x == blockDim.x - 1) __trap();
    }""",
    "four",
)


class Drawn:
    """A launch, its outputs as they are right, and who stores where it may not or traps (block -1: nobody)."""

    def __init__(self, seed):
        self.draw = draw = random.Random(seed)
        grid = draw.choice([(draw.randint(1, 40),), (draw.randint(2, 8), draw.randint(2, 8)), (2, 3, 4)])
        self.blocks = prod(grid)
        self.skip = draw.choice((1, 1, 2, 3))
        outputs = [self.output(grid) for _ in TYPES]
        self.wholes = [np.zeros(shape, dtype) for (shape, _), dtype in zip(outputs, TYPES, strict=True)]
        self.wholes[-1] += np.random.default_rng(seed).integers(0, 9, self.wholes[-1].shape, "uint8")
        args = []
        for whole, (shape, tile) in zip(self.wholes, outputs, strict=True):
            is_inout = whole is self.wholes[-1]
            args.append(InOut(whole.copy(), tile) if is_inout else Out(whole.dtype, shape, tile))
            args.append(((1,) * (2 - len(shape)) + shape) + ((1,) * (2 - len(tile)) + tile))
            self.paint(whole, tile)
        self.liar, self.lied = (draw.randrange(self.blocks), draw.randrange(4)) if draw.random() < 0.4 else (-1, 0)
        self.at = draw.randrange(self.wholes[self.lied].size)
        self.trapping = draw.randrange(self.blocks) if draw.random() < 0.1 else -1
        args += [self.skip, self.liar, self.lied, self.at, self.trapping]
        shards = min(self.blocks, draw.choice((1, 2, 3, self.blocks, max(1, self.blocks // 2))))
        block = draw.choice((1, 32, 100))
        self.bound = prepare_launch(PAINT, grid, block, args, shards=shards, local=True).bound

    def output(self, grid):
        """Return a shape and a tile, of which there are no more than blocks."""
        draw = self.draw
        if len(grid) == 2 and draw.random() < 0.5:  # tile (y, x) is block (x, y)'s
            tile = draw.choice((1, 3, 40)), draw.choice((2, 16, 300))
            return tuple(n * step - draw.randint(0, step - 1) for n, step in zip(grid[::-1], tile, strict=True)), tile
        length = draw.choice((1, 64, 1000, 4096, 5000, 70_000, 200_000))
        step = -(-length // draw.randint(1, self.blocks))
        columns = draw.choice((0, 0, 1, 16))
        return ((length, columns), (step, columns)) if columns else ((length,), (step,))

    def paint(self, whole, tile):
        """Do in NumPy what the kernel does."""
        p, (rows, columns) = whole.reshape((1,) * (2 - whole.ndim) + whole.shape), ((1,) * (2 - len(tile)) + tile)
        r, c = np.indices(p.shape)
        k = r % rows * columns + c % columns
        b = r // rows * -(-p.shape[1] // columns) + c // columns
        p += np.where(k % self.skip == 0, (r * 31 + c * 7 + b) % 101 + 1, 0).astype(p.dtype)

    def fails(self, program, task):
        """Tell whether a task has to fail."""
        own = range(task * self.blocks // program.tasks, (task + 1) * self.blocks // program.tasks)
        place = np.unravel_index(self.at, self.wholes[self.lied].shape)
        boxes = owned_boxes(program, task, self.lied)
        is_own = any(all(a <= at < b for a, at, b in zip(box.start, place, box.stop, strict=True)) for box in boxes)
        return self.trapping in own or (self.liar in own and not is_own)

    def expected(self, program, task):
        """Return the results of a task; None where a store into another block's tile changes them."""
        if task * self.blocks // program.tasks <= self.liar < (task + 1) * self.blocks // program.tasks:
            return None
        results = []
        for output, whole in enumerate(self.wholes):
            results.append(np.empty(result_bytes(program, task, output) // whole.itemsize, whole.dtype))
            gather(program, task, output, whole, results[-1])
        return [result.tobytes() for result in results]


@pytest.fixture(scope="module")
def arena():
    return Arena(64 << 20)


def run(loaded, task, arena):
    """Run a task with results that begin as garbage, some of them where pages can be lent."""
    sizes = [result_bytes(loaded.program, task, output) for output in range(len(TYPES))]
    places = [arena.take(size) for size in sizes]
    views = [arena.view[at : at + size] for at, size in zip(places, sizes, strict=True)]
    try:
        for view in views:
            np.frombuffer(view, np.uint8)[:] = 0xAB
        loaded.run(task, LIMITS, views)
        return [bytes(view) for view in views]
    finally:
        for at, size in zip(places, sizes, strict=True):
            arena.give_back(at, size)


@pytest.fixture(scope="module")
def device():
    device = WasmDevice()
    device.compile_native([PAINT.compile().module])
    return device


@pytest.mark.parametrize("number", range(SEEDS))
def test_a_task_gives_its_tiles_alone_after_others_and_in_parts(device, arena, number):
    drawn, found = Drawn(FIRST + number), {}
    program, inputs = drawn.bound.program, drawn.bound.inputs.values()
    parts = parts_of(program, drawn.draw.randint(2, 5))
    for cut in (program, finer(program, parts)):
        loaded = load(device, cut, *inputs, limits=LIMITS)
        loaded.results_in(arena.view)
        for task in drawn.draw.choices(range(cut.tasks), k=8):
            if drawn.fails(cut, task):
                with pytest.raises(TaskTrapped):
                    run(loaded, task, arena)
                continue
            results, expected = run(loaded, task, arena), drawn.expected(cut, task)
            assert found.setdefault((cut, task), results) == results, FIRST + number
            assert expected in (None, results), FIRST + number
            whole = found.get((program, task // parts))
            if cut is not program and whole is not None and drawn.expected(program, task // parts):
                assert part_of(program, task // parts, parts, task % parts, whole) == results, FIRST + number
