import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio
import trio.testing
from wat_programs import BAD_TASKS, EACH, ENDLESS, UNSTARTABLE_MODULES, copying, numbers, program

from depin_node.compute.devices.pages import LARGE_BYTES
from depin_node.compute.programs.memory import memory_bytes, placements
from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.lease import LOADS_MAX
from depin_node.compute.sandbox.pool import PoolConfig, WorkerConfig, open_pool
from depin_node.core.errors import ResourceError, TaskCrashed, TaskError, TaskOutOfMemory, TaskRejected, TaskTimedOut
from depin_node.crypto.blob import blob_id

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc")
SUPPORT = str(Path(__file__).parent.parent / "support")
WASM = WorkerConfig(nice=0)
MOODY = WorkerConfig("moody_device:MoodyDevice", (SUPPORT,), nice=0)
PATIENCE_S = 60.0
MEMORY = 64 << 20


def attempt(number):
    return number.to_bytes(16, "little")


@asynccontextmanager
async def leased(worker=WASM, spare=False, **settings):
    """A lease of a pool that ends with the test; a test that hangs fails."""
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(worker, spare=spare, **settings)) as pool:
            lease = await pool.acquire("test")
            try:
                yield lease
            finally:
                await lease.aclose()


async def load(lease, candidate, x=None, *, seconds=30.0, memory=MEMORY):
    x = numbers(candidate.buffers[0].elements) if x is None else x
    await lease.load(encode_program(candidate), {0: x.tobytes()}, seconds=seconds, memory_limit_bytes=memory)


async def take(lease, count):
    results = lease.results()
    return {result.task: result for result in [await anext(results) for _ in range(count)]}


def floats(result):
    return np.frombuffer(result.outputs[0].data, "float32")


async def test_tasks_come_back_with_the_ids_of_their_bytes():
    async with leased() as lease:
        await load(lease, program())
        await lease.submit((attempt(task), task) for task in range(4))
        found = await take(lease, 4)
        for task, result in found.items():
            assert result.error is None
            assert (floats(result) == numbers()[task * 256 : task * 256 + 256]).all()
            assert result.outputs[0].blob_id == blob_id(result.outputs[0].data)
            assert result.fuel > 0
            assert result.duration_ns > 0


async def test_large_results_come_through_the_arena_and_are_reused_when_released():
    n = 1 << 20
    async with leased(arena_bytes=3 << 20) as lease:
        await load(lease, program(n=n, tasks=4), memory=1 << 30)  # 1 MiB a task: three at a time
        async with trio.open_nursery() as nursery:

            async def submit():
                await lease.submit((attempt(i), i % 4) for i in range(24))

            nursery.start_soon(submit)
            results = lease.results()
            held = []
            for _ in range(24):
                held.append(await anext(results))
                if len(held) == 3:
                    for result in held:  # all three at once: none overwrote another
                        part = numbers(n)[result.task * (n // 4) : (result.task + 1) * (n // 4)]
                        assert (floats(result) == part).all()
                        assert result.outputs[0].blob_id == blob_id(result.outputs[0].data)
                    for result in held:
                        lease.release(result.attempt)
                    held = []


async def test_a_large_result_lies_where_its_pages_move_a_page_table_at_a_time():
    n, tasks = 3 << 19, 2
    async with leased(arena_bytes=0) as lease:
        candidate = program(n=n, tasks=tasks)
        await load(lease, candidate, memory=1 << 30)
        await lease.submit((attempt(task), task) for task in range(tasks))
        for task in range(tasks):
            result = await anext(lease.results())
            made = placements(candidate)[0][candidate.outputs[0]] + task * 4 * n // tasks
            assert np.frombuffer(result.outputs[0].data, np.uint8).ctypes.data % LARGE_BYTES == made % LARGE_BYTES
            assert (floats(result) == numbers(n)[task * n // tasks : (task + 1) * n // tasks]).all()


async def test_the_window_holds_submission_back_until_results_are_released():
    async with leased(window=8) as lease:
        await load(lease, program())
        submitted = []

        async def submit():
            for i in range(40):
                await lease.submit([(attempt(i), i % 4)])
                submitted.append(i)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            results = lease.results()
            for i in range(40):
                result = await anext(results)
                assert len(submitted) <= i + 8
                lease.release(result.attempt)


async def test_an_attempt_is_submitted_once():
    async with leased() as lease:
        await load(lease, program())
        with pytest.raises(ValueError, match="once"):
            await lease.submit([(attempt(1), 0), (attempt(1), 1)])
        with pytest.raises(IndexError):
            await lease.submit([(attempt(2), 4)])


async def test_inputs_may_be_files(tmp_path):
    x = numbers(1 << 16)
    file = tmp_path / "blob"
    file.write_bytes(x.tobytes())
    async with leased() as lease:
        await lease.load(encode_program(program(n=1 << 16)), {0: file}, seconds=30, memory_limit_bytes=MEMORY)
        await lease.submit([(attempt(0), 3)])
        assert (floats((await take(lease, 1))[3]) == x[-(1 << 14) :]).all()
    assert file.read_bytes() == x.tobytes()


async def test_every_bad_task_ends_in_its_code_and_a_good_one_runs_after_it():
    for module, code, reason in BAD_TASKS.values():
        async with leased() as lease:
            await load(lease, program(module), seconds=0.3)
            await lease.submit([(attempt(0), 1)])
            error = (await take(lease, 1))[1].error
            assert error.code == code
            assert reason in str(error)
            assert len(str(error)) <= 1000
    async with leased() as lease:
        await load(lease, program())
        await lease.submit([(attempt(0), 1)])
        assert (await take(lease, 1))[1].error is None


async def test_bad_and_good_tasks_share_a_worker():
    """Task 1 alone divides by zero; before and after it all is well, without a new worker."""
    before = """(if (i64.eq (local.get $b0) (i64.const 4))
                 (then (drop (i32.div_s (i32.const 1) (i32.const 0)))))"""
    async with leased() as lease:
        await load(lease, program(copying(before)))
        await lease.submit((attempt(i), i % 4) for i in range(12))
        results = lease.results()
        codes = [(r.task, r.error.code if r.error else "") for r in [await anext(results) for _ in range(12)]]
        assert codes == [(i % 4, "trapped" if i % 4 == 1 else "") for i in range(12)]


@pytest.mark.parametrize("name", ["no exports", "argbuf loops", "data outside"])
async def test_a_refused_module_is_refused_by_load(name):
    module, reason = UNSTARTABLE_MODULES[name]
    async with leased() as lease:
        with pytest.raises(TaskRejected, match=reason):
            await load(lease, program(module))


async def test_limits_and_inputs_are_checked_before_a_worker_is_used():
    candidate = program()
    async with leased() as lease:
        with pytest.raises(TaskOutOfMemory, match="the limit is"):
            await load(lease, candidate, memory=memory_bytes(candidate) - 1)
    async with leased(work_max=255) as lease:
        with pytest.raises(ResourceError, match="a task is of 256 threads and operations, this node takes 255"):
            await load(lease, candidate)
    async with leased() as lease:
        with pytest.raises(TaskRejected, match="x is missing"):
            await lease.load(encode_program(candidate), {}, seconds=1, memory_limit_bytes=MEMORY)
    async with leased() as lease:
        with pytest.raises(TaskRejected, match="x has 100 bytes"):
            await lease.load(encode_program(candidate), {0: bytes(100)}, seconds=1, memory_limit_bytes=MEMORY)
    async with leased() as lease:
        with pytest.raises(TaskRejected, match="cannot be read"):
            await lease.load(b"garbage", {}, seconds=1, memory_limit_bytes=MEMORY)


@pytest.mark.parametrize(("mood", "kind", "reason"), [
    ("crash:2", TaskCrashed, "SIGSEGV"),
    ("exit:2", TaskCrashed, "exit code 7"),
    ("raise_error:2", TaskCrashed, "exit code 1"),
    ("hang:2", TaskTimedOut, "stood still"),
    ("stop:2", TaskTimedOut, "stood still"),
    ("spin:2", TaskCrashed, "SIGXCPU"),
    ("hog:2", TaskOutOfMemory, "MiB resident"),
])  # fmt: skip
async def test_a_worker_that_dies_costs_one_attempt(mood, kind, reason):
    grace = 0.2 if mood.startswith(("hang", "stop")) else 30.0
    async with leased(MOODY, grace_s=grace, overhead_bytes=300 << 20) as lease:
        await load(lease, program(source=mood, tasks=8), seconds=0.3)
        await lease.submit((attempt(task), task) for task in range(8))
        found = await take(lease, 8)
        assert [task for task, result in found.items() if result.error] == [2]
        assert isinstance(found[2].error, kind)
        assert reason in str(found[2].error)
        await lease.submit([(attempt(9), 2), (attempt(10), 1)])
        again = await take(lease, 2)
        assert isinstance(again[2].error, kind)
        assert again[1].error is None


async def test_a_worker_that_talks_nonsense_is_given_up():
    """Which task is to blame depends on how soon the nonsense is read; every attempt ends all the same."""
    async with leased(MOODY) as lease:
        await load(lease, program(source="babble:2"))
        await lease.submit((attempt(task), task) for task in range(4))
        found = await take(lease, 4)
        assert any(isinstance(result.error, TaskCrashed) for result in found.values())


async def test_what_a_worker_writes_to_stderr_is_bounded(capsys):
    async with leased(MOODY) as lease:
        await load(lease, program(source="complain:0"))
        await lease.submit([(attempt(0), 0)])
        assert isinstance((await take(lease, 1))[0].error, TaskCrashed)
    logged = "".join(capsys.readouterr())
    assert "complaint 0" in logged
    assert len(logged) < 200_000
    assert "\x1b[31mcomplaint" not in logged


async def test_a_worker_that_dies_while_loading_is_an_error():
    async with leased(MOODY) as lease:
        with pytest.raises(TaskCrashed, match="exit code 3"):
            await load(lease, program(source="die at load"))
        with pytest.raises(TaskError):
            await lease.submit([(attempt(0), 0)])
    async with leased(MOODY, load_timeout_s=0.3) as lease:
        with pytest.raises(TaskTimedOut, match="compiling"):
            await load(lease, program(source="hang at load"))


async def test_a_worker_inherits_nothing():
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    os.environ["DEPIN_SECRET"] = "x"
    try:
        async with leased(MOODY) as lease:
            with pytest.raises(TaskRejected) as caught:
                await load(lease, program(source="spy"))
    finally:
        os.close(secret)
        del os.environ["DEPIN_SECRET"]
    found = json.loads(str(caught.value))
    null, nameless = "character 1:3 1", "file 0:0 0"
    assert set(found["descriptors"]) == {null, nameless, "pipe 0:0 1", "socket 0:0 1"}
    assert set(found["environment"]) <= {"LANG", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE", "OPENBLAS_NUM_THREADS"}
    assert found["cwd"] == "/"
    assert found["leads its session"]
    assert found["CORE"] == found["FSIZE"] == [0, 0]
    assert found["NOFILE"] == [256, 256]
    assert found["modules"] == []


async def test_workers_are_nice_by_configuration():
    async with leased(WorkerConfig("moody_device:MoodyDevice", (SUPPORT,), nice=5)) as lease:
        with pytest.raises(TaskRejected) as caught:
            await load(lease, program(source="spy"))
    assert json.loads(str(caught.value))["niceness"] == os.nice(0) + 5


async def test_a_worker_serves_one_lease_and_ends_with_it():
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(MOODY, workers_max=2)) as pool:
            pids = []
            for _ in range(3):
                lease = await pool.acquire("test")
                await load(lease, program())
                await lease.submit([(attempt(0), 0)])
                pids.append(int(floats((await take(lease, 1))[0])[0]))
                await lease.aclose()
                assert not psutil.pid_exists(pids[-1])
            assert len(set(pids)) == 3
    assert not [child for child in psutil.Process().children() if "compute.sandbox.start" in " ".join(child.cmdline())]


async def test_no_more_leases_than_workers():
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(MOODY, workers_max=1)) as pool:
            first = await pool.acquire("first")
            with trio.move_on_after(0.05) as scope:
                await pool.acquire("second")
            assert scope.cancelled_caught
            await first.aclose()
            await (await pool.acquire("second")).aclose()


async def test_a_device_that_does_not_exist_is_told():
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(WorkerConfig("no_such_module:Device"))) as pool:
            with pytest.raises(ResourceError, match="No module named 'no_such_module'"):
                await pool.device_class()
            lease = await pool.acquire("test")
            with pytest.raises(ResourceError, match="ended as it started"):
                await load(lease, program())


async def test_closing_a_lease_ends_who_reads_and_who_submits():
    async with leased(window=4) as lease:
        await load(lease, program())
        seen = []

        async def read():
            async for result in lease.results():
                seen.append(result.task)

        async def submit():
            with pytest.raises(ResourceError, match="closed"):
                await lease.submit((attempt(i), i % 4) for i in range(100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(submit)
            while len(seen) < 4:  # nothing is released, so no more than the window comes
                await trio.testing.wait_all_tasks_blocked(0.01)
            await lease.aclose()
        assert sorted(seen) == [0, 1, 2, 3]


def workers():
    return [c for c in psutil.Process().children() if "compute.sandbox.start" in " ".join(c.cmdline())]


@pytest.mark.parametrize("elements", [1 << 10, 1 << 16], ids=["copied", "mapped"])
async def test_a_worker_goes_on_over_other_inputs(elements, tmp_path):
    candidate, seen = program(tasks=4, n=elements), []
    async with leased() as lease:
        await load(lease, candidate)
        (before,) = workers()
        for turn in range(3):
            path = tmp_path / str(turn)
            path.write_bytes((numbers(elements) + turn).tobytes())
            await lease.load_inputs({0: path})
            await lease.submit((attempt(4 * turn + task), task) for task in range(4))
            for task, result in sorted((await take(lease, 4)).items()):
                seen.append(
                    (floats(result) == (numbers(elements) + turn)[task * elements // 4 :][: elements // 4]).all()
                )
                lease.release(result.attempt)
        assert seen == [True] * 12
        assert workers() == [before]


def twice(n=1024):
    """Return a program whose module is another one: it copies twice."""
    return program(copying(EACH + "(local.set $i (i32.const 0))"), tasks=1, n=n)


async def go_on(lease, candidate, *, seconds=30.0, memory=MEMORY):
    x = numbers(candidate.buffers[0].elements)
    return await lease.load_next(
        encode_program(candidate), {0: x.tobytes()}, seconds=seconds, memory_limit_bytes=memory
    )


async def compiled(pool, candidate):
    """Have a program's modules compiled by a worker that has seen nothing else."""
    lease = await pool.acquire("compiles")
    await load(lease, candidate)
    await lease.aclose()


async def test_a_worker_goes_on_with_other_programs_small_and_large():
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(WASM, spare=False)) as pool:
            await compiled(pool, twice())
            lease = await pool.acquire("test")
            await load(lease, program(n=1 << 18))
            (before,) = workers()
            candidates = [program(), program(n=1 << 18, tasks=1), twice(), program(n=1 << 16, tasks=2), twice()]
            for turn, candidate in enumerate(candidates):
                assert await go_on(lease, candidate)
                await lease.submit((attempt(8 * turn + task), task) for task in range(candidate.tasks))
                found = await take(lease, candidate.tasks)
                whole = np.concatenate([floats(result) for _, result in sorted(found.items())])
                assert (whole == numbers(candidate.buffers[0].elements)).all()
                for result in found.values():
                    lease.release(result.attempt)
            assert workers() == [before]
            await lease.aclose()


async def test_a_worker_takes_no_program_that_only_a_fresh_one_may():
    async with leased() as lease:
        await load(lease, program())
        (before,) = workers()
        assert not await go_on(lease, twice())  # nobody who has run something compiles for others
        assert not await go_on(lease, program(n=1 << 24), memory=1 << 30)  # it is bound to less memory
        await lease.submit([(attempt(0), 0)])
        with pytest.raises(ValueError, match="before"):
            await go_on(lease, program())
        (result,) = (await take(lease, 1)).values()
        assert (floats(result) == numbers()[:256]).all()
        lease.release(result.attempt)
        with pytest.raises(TaskOutOfMemory):
            await go_on(lease, program(), memory=1 << 10)
        descriptors = before.num_fds()
        for _ in range(LOADS_MAX - 1):
            assert await go_on(lease, program())
        assert before.num_fds() == descriptors
        assert not await go_on(lease, program())
        assert workers() == [before]


async def test_a_closed_lease_loads_nothing():
    async with leased() as lease:
        await lease.aclose()
        with pytest.raises(ResourceError, match="closed"):
            await load(lease, program())


async def test_a_worker_that_dies_over_another_program_is_replaced_and_the_watch_is_over_the_new_limits():
    async with leased() as lease:
        await load(lease, program())
        assert await go_on(lease, program(tasks=2))
        (worker,) = workers()
        worker.kill()
        while lease.goes_on:
            await trio.sleep(0.001)
        assert not await go_on(lease, program())  # its worker is gone, and the next has the program of last
        await lease.submit([(attempt(0), 1)])
        (result,) = (await take(lease, 1)).values()
        assert (floats(result) == numbers()[512:]).all()
        lease.release(result.attempt)
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(WASM, spare=False)) as pool:
            endless = program(copying(ENDLESS))
            await compiled(pool, endless)
            lease = await pool.acquire("test")
            await load(lease, program())
            assert await go_on(lease, endless, seconds=0.2)
            await lease.submit([(attempt(0), 0)])
            assert isinstance((await take(lease, 1))[0].error, TaskTimedOut)
            await lease.aclose()


async def test_other_inputs_are_taken_between_tasks_by_a_worker_that_can():
    async with leased() as lease:
        assert not lease.goes_on
        await load(lease, program())
        assert lease.goes_on
        await lease.submit([(attempt(0), 0)])
        with pytest.raises(ValueError, match="before"):
            await lease.load_inputs({0: numbers().tobytes()})
    async with leased(MOODY) as lease:
        await load(lease, program())
        assert not lease.goes_on


async def test_a_worker_that_ends_between_tasks_is_replaced_with_the_inputs_of_last():
    async with leased() as lease:
        await load(lease, program())
        await lease.load_inputs({0: (numbers() + 5).tobytes()})
        (worker,) = workers()
        worker.kill()
        await lease.submit([(attempt(0), 0)])
        assert (floats((await take(lease, 1))[0]) == (numbers() + 5)[:256]).all()


async def test_inputs_of_the_wrong_size_end_the_lease():
    async with leased() as lease:
        await load(lease, program())
        with pytest.raises(TaskRejected):
            await lease.load_inputs({0: numbers().tobytes()[:-4]})
