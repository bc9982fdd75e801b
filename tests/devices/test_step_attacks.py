"""Programs of steps that a stranger wrote to keep a lender busy: refused before they run, or ended by their limits."""

from math import prod

import pytest
from device_programs import LIMITS, N, buffer, load, make, numbers, run_all, run_task, saxpy, scalar
from wat_programs import HEAD, copying
from wat_programs import program as wat_program

from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.module import MODULE_BYTES_MAX, scan_module
from depin_node.compute.programs.program import Attribute, Operation, Repeat, Swap, Until, encode_program
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.programs.work import work
from depin_node.core.errors import TaskOutOfMemory, TaskRejected, TaskTimedOut

LITTLE = TaskLimits(0.3, 1 << 30)
SMOOTH = ("smooth", (-(-N // 64),), (64,), [0, 1, scalar(N)])
ARRAYS = (buffer("a", "inout", N), buffer("b", "temp", N))


@pytest.fixture(scope="module")
def device():
    return WasmDevice()


SMOOTHING = (SMOOTH, Swap(0, 1))


@pytest.mark.parametrize(
    ("times", "more"),
    [(1 << 23, ()), (1 << 22, SMOOTHING), (1 << 13, (Repeat(500, SMOOTHING),))],
    ids=["little each time", "more each time", "loop"],
)
def test_endless_steps_end_in_time_and_the_next_task_runs(device, times, more):
    """What they wait for is half of nothing, and stays it."""
    program = make(
        [*SMOOTHING, Until(2, times, (("halve", (1,), (1,), [2, 3, 4]), *more))],
        *ARRAYS,
        buffer("value", "inout", 1, "int32"),
        buffer("done", "temp", 1, "int32"),
        buffer("rounds", "temp", 1, "int32"),
    )
    loaded = load(device, program, numbers(), numbers(1, "int32") * 0, limits=LITTLE)
    with pytest.raises(TaskTimedOut, match=r"within 0\.3 s|fuel for 0\.3 s"):
        run_task(loaded, 0, LITTLE)
    run_all(device, saxpy(), numbers())


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_loops_in_loops_are_counted_before_they_run(depth):
    step = SMOOTH
    for _ in range(depth):
        step = Repeat(1 << 24 if depth < 8 else 16, (step,))
    with pytest.raises(TaskRejected, match="a task does up to"):
        make([step], *ARRAYS)


def test_the_bound_of_steps_is_told_as_work():
    program = make([Repeat(1 << 12, (Repeat(1 << 11, SMOOTHING),))], *ARRAYS)
    assert work(program).steps == 1 << 24
    assert work(program).size >= N << 23


@pytest.mark.parametrize(
    ("name", "outputs", "attributes"),
    [
        ("svd", ((20_000, 8), (8,), (8, 8)), (Attribute("full", 0),)),
        ("qr", ((20_000, 8), (8, 8)), (Attribute("complete", 0),)),
    ],
)
def test_what_a_library_would_take_is_counted_before_it_is_asked(device, name, outputs, attributes):
    def program(rows, columns):
        shapes = [tuple(columns if n == 8 else rows for n in shape) for shape in outputs]
        results = [buffer(f"r{i}", "out", shape, "float64") for i, shape in enumerate(shapes)]
        found = make(
            [Operation(name, (0,), tuple(range(1, len(shapes) + 1)), attributes)],
            buffer("a", "in", (rows, columns), "float64"),
            *results,
        )
        return decode_program(encode_program(found))

    large = program(3000, 2000)
    assert memory_bytes(large) > 200 << 20
    with pytest.raises(TaskOutOfMemory, match="the limit is 128 MiB"):
        load(device, large, numbers(6_000_000, "float64"), limits=TaskLimits(LIMITS.seconds, 128 << 20))
    with pytest.raises(TaskRejected, match="MiB fit"):
        program(30_000, 20_000)


def test_a_huge_grid_ends_in_time(device):
    grid = (2**31 - 1, 65535, 65535)
    arguments = [scalar(2, "float32"), 0, 1, scalar(N)]
    program = make([("saxpy", grid, (64,), arguments)], buffer("x", "in", N), buffer("y", "out", N))
    assert work(program).size == 64 * prod(grid)
    with pytest.raises(TaskTimedOut):
        run_task(load(device, program, numbers(), limits=LITTLE), 0, LITTLE)


def test_a_module_at_the_cap_runs(device):
    """Its data fill it; a byte more is refused."""

    def module(size):
        return copying(
            extra=f'(data (i32.const 1000000) "{"x" * size}")', head=HEAD.replace("(memory 2)", "(memory 100)")
        )

    size = MODULE_BYTES_MAX - len(module(1 << 21)) + (1 << 21)
    found = module(size)
    assert len(found) == MODULE_BYTES_MAX
    (y,) = run_all(device, wat_program(found), numbers(1024))
    assert (y == numbers(1024)).all()
    with pytest.raises(TaskRejected, match="bytes, at most"):
        scan_module(module(size + 1))
