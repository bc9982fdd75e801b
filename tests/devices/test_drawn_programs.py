"""Programs drawn from seeds: a task gives the same bits after any others in kept memory as it gives in fresh memory.

What is drawn: roles, dtypes and sizes of arrays (also those that are mapped or lent), cuts, halos and edges, loops and
swaps, launches of two modules that take turns, printed lines, data of launches; then which tasks run in what order.
``DEPIN_FUZZ_EXAMPLES`` (``make fuzz``) asks for more, and for others each time.
"""

import contextlib
import os
import random
import secrets

import numpy as np
import pytest
from kept_memory import given

from depin_node.client import Along, ProgramBuilder, RawModule
from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.shards import result_bytes
from depin_node.compute.sandbox.arena import Arena

MORE = int(os.environ.get("DEPIN_FUZZ_EXAMPLES", "0"))
FIRST, SEEDS = (secrets.randbits(32), 8 * MORE) if MORE else (0, 64)
LIMITS = TaskLimits(60.0, 256 << 20)
C = {"int32": "int", "float64": "double", "uint8": "unsigned char"}
MIX = RawModule(
    code="""template <class T> __global__ void mix(T* a, const T* b, int n, int m, int by) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        for (; i < n; i += gridDim.x * blockDim.x) a[i] = a[i] + b[(long long)i * by % m] + 1;
    }""",
    name_expressions=[f"mix<{name}>" for name in C.values()],
)
CHANGE = RawModule(
    code="""#include <stdio.h>
    __constant__ int w[5];
    template <class T> __global__ void change(T* a, int n, int by) {
        __shared__ T s[64];
        int i = (blockIdx.x * blockDim.x + threadIdx.x) * by, t = threadIdx.x;
        s[t] = i < n ? a[i] : T(0);
        __syncthreads();
        if (i < n) a[i] = a[i] * 2 + s[63 - t] + w[i % 5];
        if (i == 0) printf("%d of %d\\n", (int)a[0], n);
    }
    template <class T> __global__ void tick(int* done, T* a, int n, int most) {
        if (threadIdx.x == 0) *done = (a[n / 2] += 1) > most;
    }""",
    name_expressions=[f"{kernel}<{name}>" for kernel in ("change", "tick") for name in C.values()],
)
KERNELS = {name: module.get_function(name) for module in (MIX, CHANGE) for name in module.name_expressions}
"""All of them, so that each program has the same two modules, compiled once."""
SIZES = (1, 300, 4096, 5000, 16384, 40_000, 1 << 17, 1 << 19)


class Drawn:
    """A program: ``arrays`` are tuples of a named array, how many elements a task holds, and whether it may change."""

    def __init__(self, seed):
        self.draw = draw = random.Random(seed)
        shards, self.halo, self.edge = (
            draw.randint(1, 5),
            draw.choice((0, 0, 2)),
            draw.choice(("clamp", "wrap", "none")),
        )
        self.columns = draw.choice((1, 16))
        self.rows = max(shards, 3, draw.choice(SIZES) // self.columns)
        self.steps = ProgramBuilder(shards=shards, along=Along(0, self.halo, self.edge))
        self.arrays = []
        roles = draw.choices(("in", "whole", "out", "temp", "own", "inout", "partial"), k=draw.randint(1, 5))
        for number, role in enumerate(draw.sample([*roles, draw.choice(("out", "inout"))], len(roles) + 1)):
            self.add(f"a{number}", role, draw.choice(tuple(C)))
        for array in self.arrays:
            self.change(array) if array[2] else self.mix(draw.choice([a for a in self.arrays if a[2]]), array)
        self.some(draw.randint(1, 4), 0)

    def add(self, name, role, dtype):
        """Add an array: of rows that are cut, or whole or one for each task."""
        steps, size = self.steps, self.draw.choice(SIZES)
        shape = (size,) if role in ("whole", "own", "partial") else (self.rows, self.columns)
        data = np.random.default_rng(size).integers(0, 9, shape).astype(dtype)
        halo, low, high = (0 if role == "out" else self.halo), "shard.start", "shard.stop"
        if halo and self.edge == "none":
            low, high = f"max({low} - {halo}, 0)", f"min({high} + {halo}, {self.rows})"
        elif halo:
            high = f"{high} + {2 * halo}"
        held = size if len(shape) == 1 else f"({high} - {low}) * {self.columns}"
        array = {
            "in": lambda: steps.input(name, data),
            "whole": lambda: steps.input(name, data, cut=None),
            "inout": lambda: steps.inout(name, data),
            "out": lambda: steps.out(name, dtype, shape),
            "temp": lambda: steps.temp(name, dtype, shape),
            "own": lambda: steps.temp(name, dtype, shape, cut=None),
            "partial": lambda: steps.partial(name, dtype, shape),
        }[role]()
        self.arrays.append((array, held, role not in ("in", "whole")))

    def some(self, count, depth):
        for _ in range(count):
            what, array = self.draw.random(), self.draw.choice([a for a in self.arrays if a[2]])
            like = [a for a in self.arrays if a[2] and a is not array and self.cut(a) == self.cut(array)]
            if what < 0.15 and depth < 2:
                with self.steps.repeat(self.draw.randint(1, 3)):
                    self.some(2, depth + 1)
            elif what < 0.3 and depth < 2:
                done = self.steps.temp(f"done{len(self.steps.buffers)}", "int32", 1, cut=None)
                with self.steps.until(done, max=4):
                    self.some(1, depth + 1)
                    self.launch("tick", array, 1, (done, array[0], array[1], self.draw.randint(0, 9)))
            elif what < 0.45 and like:
                self.steps.swap(array[0], self.draw.choice(like)[0])
            elif what < 0.6:
                self.change(array)
            else:
                self.mix(array, self.draw.choice(self.arrays))

    def cut(self, array):
        buffer = self.steps.buffers[self.steps.named[array[0]]]
        return buffer.dtype, buffer.shape, buffer.cut

    def mix(self, array, other):
        """Add elements of another array, or change it where there is none of its dtype."""
        if other[0].dtype != array[0].dtype and not other[2]:
            zeros = (self.steps.temp(f"t{len(self.steps.buffers)}", other[0].dtype, 999, cut=None), 999, True)
            self.mix(zeros, other)
        elif other[0].dtype != array[0].dtype or other is array:
            self.change(array)
        else:
            args = (array[0], other[0], array[1], other[1], self.draw.choice((1, 7, 1023)))
            self.launch("mix", array, self.draw.choice((1, f"ceil({array[1]} / 64)")), args)

    def change(self, array):
        by, w = self.draw.choice((1, 1, 513, 5000)), np.arange(5, dtype="int32") + self.draw.randint(0, 2)
        args = (array[0], array[1], by)
        self.launch("change", array, f"ceil({array[1]} / {64 * by})", args, constants={"w": w})

    def launch(self, name, array, grid, args, **options):
        self.steps.launch(KERNELS[f"{name}<{C[array[0].dtype]}>"], grid, 64, args, radius=0, **options)


@pytest.fixture(scope="module")
def device():
    device = WasmDevice()
    device.compile_native(list({kernel.compile().module for kernel in KERNELS.values()}))
    return device


@pytest.fixture(scope="module")
def arena():
    arena = Arena(64 << 20)
    np.frombuffer(arena.view, np.uint8)[:] = 0xAB
    return arena


def fresh(loaded, task):
    """Return a task's results and what it printed."""
    results = [bytearray(result_bytes(loaded.program, task, n)) for n in range(len(loaded.program.outputs))]
    loaded.run(task, LIMITS, [memoryview(result) for result in results])
    return [bytes(result) for result in results], loaded.log


def in_arena(loaded, task, arena):
    """Return the same, with results where pages can be lent."""
    sizes = [result_bytes(loaded.program, task, n) for n in range(len(loaded.program.outputs))]
    places = [arena.take(size) for size in sizes]
    loaded.run(task, LIMITS, [arena.view[at : at + size] for at, size in zip(places, sizes, strict=True)])
    results = [bytes(arena.view[at : at + size]) for at, size in zip(places, sizes, strict=True)]
    for at, size in zip(places, sizes, strict=True):
        arena.give_back(at, size)
    return results, loaded.log


@pytest.mark.parametrize("number", range(SEEDS))
def test_a_task_gives_what_it_gives_in_fresh_memory(device, arena, number):
    seed = FIRST + number
    drawn = Drawn(seed)
    bound, draw = drawn.steps.build(), drawn.draw
    program = bound.program
    with contextlib.ExitStack() as files:

        def load(mapped):
            inputs = {n: given(array, mapped=mapped and draw.random() < 0.8) for n, array in bound.inputs.items()}
            for each in inputs.values():
                if each.fd >= 0:
                    files.callback(os.close, each.fd)
            return device.load(program, inputs, LIMITS)

        expected = [fresh(load(False), task) for task in range(program.tasks)]
        kept = load(True)
        kept.results_in(arena.view)
        for task in draw.choices(range(program.tasks), k=8):
            found = in_arena(kept, task, arena) if draw.random() < 0.8 else fresh(kept, task)
            assert found == expected[task], seed
