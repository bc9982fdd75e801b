"""Programs for every device, of one source: what they compute, what they may not do, and how to run their tasks."""

import functools
from pathlib import Path

import numpy as np

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.programs.program import (
    VERSION,
    Axis,
    Blocks,
    Buffer,
    Cut,
    Kernel,
    Launch,
    Operation,
    Parameter,
    Program,
    Repeat,
    Scalar,
    Swap,
    Unit,
    Until,
)
from depin_node.compute.programs.shards import numpy_dtype, result_bytes, scatter
from depin_node.compute.programs.validation import validate
from depin_node.compute.translate import compile_unit

SOURCE = Path(__file__).with_name("device_programs.cu").read_text()
NAMES = (
    *("saxpy", "add_to", "spread", "reverse", "smooth", "three", "halve", "nans", "beside", "beyond", "far", "divide"),
    *("histogram", "last_block", "sum_all"),
)
LIMITS = TaskLimits(60.0, 1 << 30)
N = 1000


@functools.cache
def unit():
    return compile_unit(SOURCE, NAMES)


def make(steps, *buffers, shards=None):
    """Return a valid program; a step names its kernel, in place of its number."""
    compiled = {kernel.name: kernel for kernel in unit().kernels}
    used: list[str] = []

    def number(step):
        if isinstance(step, Repeat):
            return Repeat(step.count, tuple(map(number, step.steps)))
        if isinstance(step, Until):
            return Until(step.buffer, step.max, tuple(map(number, step.steps)))
        if not isinstance(step, tuple):
            return step
        name, grid, block, arguments, *shared = step
        if name not in used:
            used.append(name)
        grids = tuple((*grid, 1, 1)[:3] for grid in (grid if isinstance(grid[0], tuple) else (grid,)))
        return Launch(used.index(name), grids, (*block, 1, 1)[:3], *(shared or [0]), tuple(arguments))

    numbered = tuple(map(number, steps))
    kernels = tuple(
        Kernel(
            name,
            0,
            compiled[name].entry,
            tuple(Parameter(p.name, p.pointer, p.dtype, p.lanes, p.const) for p in compiled[name].parameters),
            compiled[name].exact,
        )
        for name in used
    )
    units = (Unit(unit().module, unit().cuda),) if used else ()
    program = Program(VERSION, units, kernels, buffers, numbered, shards or Blocks(1), ())
    validate(program)
    return program


def buffer(name, role, shape, dtype="float32", tile=(), cut=None):
    return Buffer(name, role, dtype, shape if isinstance(shape, tuple) else (shape,), tile, cut)


def scalar(value, dtype="int32"):
    return Scalar(dtype, np.array(value, dtype).tobytes())


def numbers(n=N, dtype="float32"):
    return (np.arange(n) % 97 - 40).astype(dtype)


def load(device, program, *inputs, limits=LIMITS):
    given = dict(zip(program.inputs, inputs, strict=True))
    return device.load(
        program, {index: Input(memoryview(a.reshape(-1).view(np.uint8))) for index, a in given.items()}, limits
    )


def run_task(loaded, task, limits=LIMITS):
    """Run a task; its results begin as garbage."""
    outputs = range(len(loaded.program.outputs))
    results = [memoryview(bytearray(b"\xa5" * result_bytes(loaded.program, task, output))) for output in outputs]
    loaded.run(task, limits, results)
    return results


def run_all(device, program, *inputs, limits=LIMITS):
    """Run all tasks, the last one first; return the outputs."""
    loaded = load(device, program, *inputs, limits=limits)
    wholes = [np.zeros(program.buffers[index].shape, numpy_dtype(program.buffers[index])) for index in program.outputs]
    for task in reversed(range(program.tasks)):
        for output, result in enumerate(run_task(loaded, task)):
            scatter(program, task, output, result, wholes[output])
    return wholes


def saxpy(tasks=3, n=N):
    return make(
        [("saxpy", (-(-n // 64),), (64,), [scalar(2, "float32"), 0, 1, scalar(n)])],
        buffer("x", "in", n),
        buffer("y", "out", n, tile=(64,)),
        shards=Blocks(tasks),
    )


def one_launch(name, *, tasks=2, role="out", n=N, block=64, dtype="float32"):
    """A kernel (const T* x, T* y, int n), a tile of ``block`` elements for each block."""
    return make(
        [(name, (-(-n // block),), (block,), [0, 1, scalar(n)])],
        buffer("x", "in", n, dtype),
        buffer("y", role, n, dtype, tile=(block,)),
        shards=Blocks(tasks),
    )


def smoothing(rounds=5, n=N):
    """Several rounds between two arrays that take turns."""
    grid = (-(-n // 64),)
    return make(
        [Repeat(rounds, (("smooth", grid, (64,), [0, 1, scalar(n)]), Swap(0, 1)))],
        buffer("a", "inout", n),
        buffer("b", "temp", n),
    )


def halving():
    return make(
        [Until(1, 100, (("halve", (1,), (1,), [0, 1, 2]),))],
        buffer("value", "inout", 1, "int32"),
        buffer("done", "temp", 1, "int32"),
        buffer("rounds", "out", 1, "int32"),
    )


def cut_stencil(edge, tasks=3, rows=10, columns=7):
    """y[r] = x[r - 1] + x[r] + x[r + 1], by rows."""
    offsets = tuple(rows * task // tasks for task in range(tasks + 1))
    held = np.diff(offsets)
    fill = np.float32(7).tobytes() if edge == "constant" else b""
    own = Scalar("int32", held.astype("int32").tobytes())
    grids = tuple((int(-(-(count * columns) // 32)),) for count in held)
    return make(
        [("three", grids, (32,), [0, 1, own, scalar(columns)])],
        buffer("x", "in", (rows, columns), cut=Cut(0, 0, 1, edge, fill)),
        buffer("y", "out", (rows, columns), cut=Cut(0, 0, 0, "none", b"")),
        shards=Axis(tasks, (offsets,)),
    )


def product(m=4, k=5, n=3):
    return make(
        [Operation("matmul", (0, 1), (2,), ())],
        buffer("a", "in", (m, k)),
        buffer("b", "in", (k, n)),
        buffer("c", "out", (m, n)),
    )
