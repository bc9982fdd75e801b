"""Native code that one worker of a node has made for the others."""

import sys

import numpy as np
import pytest
import trio
from wat_programs import EACH, HEAD, RUN, numbers, program, wasm

from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.native import NativeCode
from depin_node.compute.sandbox.pool import PoolConfig, WorkerConfig, open_pool
from depin_node.core.errors import TaskRejected

linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are started with descriptors")
PLAIN = program()
MODULES = [unit.module for unit in PLAIN.units]
NOTHING = wasm(HEAD + RUN + "))")


async def first_task(pool, candidate=PLAIN):
    """What a worker of its own returns."""
    with trio.fail_after(60):
        lease = await pool.acquire("test")
        try:
            inputs = {0: numbers(candidate.buffers[0].elements).tobytes()}
            await lease.load(encode_program(candidate), inputs, seconds=30, memory_limit_bytes=64 << 20)
            await lease.submit([(bytes(16), 0)])
            result = await anext(lease.results())
            return np.frombuffer(result.outputs[0].data, "float32").copy()
        finally:
            await lease.aclose()


def opened():
    return open_pool(PoolConfig(WorkerConfig(nice=0), spare=False))


@linux
async def test_the_second_worker_runs_what_the_first_has_compiled():
    async with opened() as pool:
        assert (await first_task(pool) == numbers()[:256]).all()
        (native,) = pool._native.get(MODULES)
        assert native in WasmDevice().compile_native(MODULES)  # the same engine makes the same code
        assert (await first_task(pool) == numbers()[:256]).all()


@linux
async def test_it_is_the_kept_code_that_runs():
    async with opened() as pool:
        pool._native.put(MODULES, tuple(WasmDevice().compile_native([NOTHING])))
        assert not (await first_task(pool)).any()
        assert (await first_task(pool, program(tasks=3)))[0] == 0  # another program of the same modules


@linux
async def test_what_the_engine_does_not_take_is_compiled_again():
    async with opened() as pool:
        pool._native.put(MODULES, (b"\x7fELF of another machine",))
        assert (await first_task(pool) == numbers()[:256]).all()


@linux
async def test_a_module_that_is_refused_leaves_nothing():
    async with opened() as pool:
        bad = program(b"\0asm\1\0\0\0")
        with pytest.raises(TaskRejected):
            await first_task(pool, bad)
        assert pool._native.get([unit.module for unit in bad.units]) is None
        assert (await first_task(pool) == numbers()[:256]).all()


def test_it_is_bounded_and_drops_what_was_used_longest_ago():
    kept = NativeCode(bytes_max=10)
    kept.put([b"a"], (b"1234",))
    kept.put([b"b"], (b"1234",))
    assert kept.get([b"a"]) == (b"1234",)
    kept.put([b"c"], (b"1234",))
    assert kept.get([b"b"]) is None
    assert kept.get([b"a"]) == kept.get([b"c"]) == (b"1234",)
    kept.put([b"d"], (b"12345678901",))
    assert kept.get([b"d"]) is None


def test_what_is_there_is_not_replaced_and_goes_by_all_modules():
    kept = NativeCode()
    kept.put([b"a", b"b"], (b"1", b"2"))
    kept.put([b"a", b"b"], (b"bad", b"bad"))
    assert kept.get([b"a", b"b"]) == (b"1", b"2")
    assert kept.get([b"a"]) is None
    assert kept.get([b"ab", b""]) is None
    kept.put([b"c"], ())
    assert kept.get([b"c"]) is None


def test_the_device_takes_code_of_its_engine_only():
    device, other = WasmDevice(), WasmDevice()
    device.adopt_native(MODULES, other.compile_native(MODULES))
    assert set(device._compiled) == set(MODULES)
    other = WasmDevice()
    other.adopt_native(MODULES, [b"rubbish"])
    assert not other._compiled
    with pytest.raises(TaskRejected):
        other.compile_native([EACH.encode()])
