import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import trio
from msgspec.structs import replace
from wat_programs import BAD_TASKS, copying, numbers, program

from depin_node.client.outputs import Outputs
from depin_node.compute.programs.binding import Bound, bind
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.jobfile import load_job
from depin_node.compute.programs.kernel import Along, InOut, Out, RawKernel, Reference
from depin_node.compute.sandbox.local import empty_outputs, run_local
from depin_node.core.errors import ConfigError, ResourceError, TaskOutOfMemory, TaskTimedOut, TaskTrapped

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "hillshade"
PATIENCE_S = 60.0


def reference():
    spec = importlib.util.spec_from_file_location("hillshade_reference", EXAMPLE / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.hillshade


async def test_the_example_runs_and_is_right():
    job = load_job(EXAMPLE / "hillshade.toml")
    seen = []
    with trio.fail_after(PATIENCE_S):
        (shade,) = await run_local(job.bind(), progress=lambda done, tasks: seen.append((done, tasks)))
    scalars = [job.args[name] for name in ("dx", "dy", "east", "north", "up")]
    assert np.abs(shade - reference()(np.load(EXAMPLE / "dem.npy"), *scalars)).max() < 1e-6
    assert seen == [(done, 24) for done in range(1, 25)]


async def test_any_cut_gives_the_same_bytes():
    kernel = RawKernel(
        """extern "C" __global__ void scale(float* y, const float* x, float a, int n) {
               int i = blockIdx.x * blockDim.x + threadIdx.x;
               if (i < n) y[i] = y[i] + a * x[i] / (x[i] - 3.0f);
           }""",
        "scale",
    )
    n = 100_003
    x, y = numbers(n), numbers(n)[::-1]
    found = set()
    with trio.fail_after(PATIENCE_S):
        for shards in (1, 7, 391):
            bound = bind(kernel, 391, 256, (InOut(y, 256), x, 0.1, n), shards=shards)
            (result,) = await run_local(bound)
            found.add(result.tobytes())
    assert len(found) == 1
    with np.errstate(divide="ignore"):
        assert np.allclose(result, y + np.float32(0.1) * x / (x - 3), rtol=1e-6)
    assert (y == numbers(n)[::-1]).all()


async def test_several_outputs_come_in_the_order_of_the_parameters():
    kernel = RawKernel(
        """extern "C" __global__ void split(int* low, double* high, const int* x) {
               int i = blockIdx.x * blockDim.x + threadIdx.x;
               low[i] = x[i] & 15; high[i] = x[i] >> 4;
           }""",
        "split",
    )
    x = np.arange(4096, dtype="int32")
    with trio.fail_after(PATIENCE_S):
        bound = bind(kernel, 64, 64, (Out("int32", 4096, 64), Out("float64", (64, 64), (1, 64)), x), shards=5)
        low, high = await run_local(bound, workers=1)
    assert (low == x & 15).all()
    assert (high == (x >> 4).reshape(64, 64)).all()


@pytest.mark.parametrize(("name", "kind"), [
    ("trap", TaskTrapped), ("endless loop", TaskTimedOut), ("another's tile", TaskTrapped)
])  # fmt: skip
async def test_a_task_that_fails_ends_the_run_with_its_error(name, kind):
    with trio.fail_after(PATIENCE_S), pytest.raises(kind):
        await run_local(Bound(program(BAD_TASKS[name][0]), {0: numbers()}), seconds=0.3)


async def test_limits_hold_here_too():
    with trio.fail_after(PATIENCE_S), pytest.raises(TaskOutOfMemory):
        await run_local(Bound(program(), {0: numbers()}), memory_limit_bytes=1 << 16)


def test_a_result_that_no_memory_holds_is_said_to_be_too_large():
    candidate = program()
    x, y = candidate.buffers
    large = replace(candidate, buffers=(x, replace(y, shape=(1 << 48,))))  # beyond what can be addressed
    for make in (lambda: empty_outputs(large, {0: numbers()}), lambda: Outputs(large)):
        with pytest.raises(ResourceError, match=r"1,073,741,824 MiB, which the memory .* does not hold: .*in_order"):
            make()


async def test_cancelling_leaves_no_process():
    bound = Bound(program(copying("(loop $forever (br $forever))")), {0: numbers()})
    with trio.move_on_after(1.0) as scope:
        await run_local(bound)
    assert scope.cancelled_caught
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if children.exists():
        names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()]
        assert not [name for name in names if b"compute.sandbox.start" in name]


async def test_what_kernels_print_is_given_out_also_by_the_one_that_failed():
    kernel = RawKernel(
        """__global__ void talk(int* y) {
               if (threadIdx.x == 0) printf("block %d\\n", blockIdx.x);
               y[blockIdx.x * blockDim.x + threadIdx.x] = 1;
               if (blockIdx.x == 3) { printf("about to fail\\n"); assert(threadIdx.x != 0); }
           }""",
        "talk",
    )
    told: dict[int, bytes] = {}
    with trio.fail_after(PATIENCE_S), pytest.raises(TaskTrapped):
        await run_local(bind(kernel, 4, 32, (Out("int32", 128, 32),), shards=4), workers=1, printed=told.__setitem__)
    assert told == {0: b"block 0\n", 1: b"block 1\n", 2: b"block 2\n", 3: b"block 3\nabout to fail\n"}


async def test_slices_are_run_and_merged_in_workers():
    """Sums of float, whose order shows: the same bits from one worker and from several."""
    kernel = RawKernel(
        """extern "C" __global__ void total(const float* x, float* s, int n) {
               for (int i = 0; i < n; ++i) s[0] += x[i];
           }""",
        "total",
    )
    x = np.random.default_rng(6).random(10_007, dtype="float32")

    def build(array):
        steps = ProgramBuilder(shards=37, along=Along(0))
        part = steps.partial("part", "float32", 1)
        steps.launch(kernel, 1, 1, (steps.input("x", array), part, steps.shard.rows))
        steps.combine("sum")
        return steps.build()

    with trio.fail_after(PATIENCE_S):
        found = [(await run_local(build(x), workers=workers))[0] for workers in (1, 2)]
    assert found[0].tobytes() == found[1].tobytes()
    parts = [sequential(x[k * 10_007 // 37 : (k + 1) * 10_007 // 37]) for k in range(37)]
    stride = 1
    while stride < 37:
        for into in range(0, 37 - stride, 2 * stride):
            parts[into] += parts[into + stride]
        stride *= 2
    assert found[0] == parts[0]
    with pytest.raises(ConfigError, match="x is on a node: get it first"):
        await run_local(build(Reference(bytes(32), "float32", (10_007,))))


def sequential(values):
    return np.add.accumulate(values)[-1]  # one after the other: add.reduce would go pairwise
