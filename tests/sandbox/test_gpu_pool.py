"""The shell around a GPU's custody, with real worker processes; the device and its driver are made up."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from wat_programs import numbers, program

from depin_node.compute.devices.gpu.nvidia import Gpu, Health, find_gpus
from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.config import PoolConfig, WorkerConfig
from depin_node.compute.sandbox.custody import State
from depin_node.compute.sandbox.custody_events import CustodyLimits
from depin_node.compute.sandbox.gpu_pool import gpu_config, open_gpu_pool
from depin_node.core.errors import ResourceError, TaskCrashed, TaskTimedOut, TaskTrapped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are confined as on Linux")
SUPPORT = str(Path(__file__).parent.parent / "support")
LIMITS = CustodyLimits(grace_s=0.1, context_s=0.5, look_s=0.05)
PATIENCE_S = 60.0


class Driver:
    """What the driver says; ``stays``: contexts are not given back."""

    def __init__(self):
        self.now, self.holders, self.stays = Health("", False), frozenset({1}), False

    def health(self):
        return self.now

    def context_holders(self):
        return self.holders | ({4711} if self.stays else frozenset())


@asynccontextmanager
async def gpu(driver, class_file=None):
    worker = WorkerConfig("moody_device:MoodyDevice", (SUPPORT,), nice=0)
    if class_file is not None:
        worker = WorkerConfig(
            "moody_device:FickleDevice", (SUPPORT,), (("FICKLE_CLASS_FILE", str(class_file)),), nice=0
        )
    with trio.fail_after(PATIENCE_S):
        async with open_gpu_pool(PoolConfig(worker, spare=False), driver, limits=LIMITS) as pool:
            yield pool


async def until(pool, state):
    while pool.custody.state is not state:
        await pool._changed.park()


async def results_of(pool, mood, tasks, seconds=30.0):
    """Run tasks under one agreement; return the error of each, or the process that it ran in."""
    lease = await pool.acquire("test")
    candidate = encode_program(program(source=mood))
    await lease.load(candidate, {0: numbers().tobytes()}, seconds=seconds, memory_limit_bytes=1 << 26)
    await lease.submit((task.to_bytes(16, "little"), task) for task in tasks)
    found = {}
    results = lease.results()
    for _ in tasks:
        result = await anext(results)
        found[result.task] = result.error or int(np.frombuffer(result.outputs[0].data, np.float32)[0])
    await lease.aclose()
    return found


async def test_agreements_have_the_device_one_after_the_other_each_with_its_own_process():
    async with gpu(Driver()) as pool:
        assert await pool.device_class() == "moody"
        assert pool.layers()
        seen, running = [], []

        async def agreement():
            lease = await pool.acquire("test")
            running.append(lease)
            assert len(running) == 1
            candidate = encode_program(program(source="none"))
            await lease.load(candidate, {0: numbers().tobytes()}, seconds=30, memory_limit_bytes=1 << 26)
            await lease.submit([(bytes(16), 0)])
            result = await anext(lease.results())
            seen.append(int(np.frombuffer(result.outputs[0].data, np.float32)[0]))
            running.remove(lease)
            await lease.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(agreement)
        assert len(set(seen)) == 3
        await until(pool, State.FREE)


@pytest.mark.parametrize(
    ("mood", "error", "reason"),
    [
        ("crash:1", TaskCrashed, "signal SIGSEGV"),
        ("exit:1", TaskCrashed, "exit code 7"),
        ("hang:1", TaskTimedOut, "did not end within 0.3 s"),
        ("lose_context:1", TaskTrapped, "outside its memory"),
    ],
)
async def test_a_fault_costs_one_attempt_and_a_process(mood, error, reason):
    async with gpu(Driver()) as pool:
        found = await results_of(pool, mood, [0, 1, 2, 3], seconds=0.3)
        assert type(found[1]) is error
        assert reason in str(found[1])
        assert found[2] == found[3]  # of the process after it
        await until(pool, State.FREE)


async def test_a_context_that_stays_takes_the_device_with_it():
    driver = Driver()
    async with gpu(driver) as pool:
        await results_of(pool, "none", [0])
        await until(pool, State.FREE)
        lease = await pool.acquire("second")
        await pool.take_worker()
        driver.stays = True
        await lease.aclose()
        await until(pool, State.WITHDRAWN)
        with pytest.raises(ResourceError, match="a context stayed"):
            await pool.acquire("third")


async def test_crash_after_crash_the_known_answers_decide(tmp_path):
    class_file = tmp_path / "class"
    class_file.write_text("strict-1")
    async with gpu(Driver(), class_file) as pool:
        assert await pool.device_class() == "strict-1"
        for _ in range(LIMITS.crashes_max):
            assert isinstance((await results_of(pool, "crash:0", [0]))[0], TaskCrashed)
        await until(pool, State.FREE)  # it was suspect, and gave the answers
        assert isinstance((await results_of(pool, "none", [0]))[0], int)
        class_file.write_text("cuda:sm_86:nvrtc-12.9:0")
        with pytest.raises(ResourceError, match="no longer strict-1"):
            await results_of(pool, "none", [0])
        await until(pool, State.WITHDRAWN)


async def test_a_device_that_breaks_ends_its_agreement():
    driver = Driver()
    async with gpu(driver) as pool:
        lease = await pool.acquire("test")
        driver.now = Health("the driver has lost it", False)
        await until(pool, State.WITHDRAWN)
        with pytest.raises(ResourceError, match="the driver has lost it"):
            await lease.load(
                encode_program(program(source="none")), {0: numbers().tobytes()}, seconds=1, memory_limit_bytes=1 << 26
            )
        await lease.aclose()


async def test_a_gpu_that_the_worker_does_not_find_is_withdrawn_with_the_reason():
    """The real worker, with CuPy, on a machine without a GPU."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if find_gpus().gpus:
        pytest.skip("there is a GPU here")
    gone = Gpu("GPU-1", "any", 1 << 30, (8, 6), "550", (12, 4), 0, None)
    with trio.fail_after(PATIENCE_S):
        async with open_gpu_pool(gpu_config(gone), Driver(), limits=LIMITS) as pool:
            with pytest.raises(ResourceError, match="there is no GPU GPU-1: no NVIDIA driver"):
                await pool.device_class()
