import ctypes
import gc
import mmap
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from wat_programs import (
    BAD_TASKS,
    EACH,
    ENDLESS,
    GROW,
    HEAD,
    RUN,
    SPOIL_INPUT,
    UNSTARTABLE_MODULES,
    N,
    copying,
    numbers,
    program,
    wasm,
)

from depin_node.compute.devices import wasm as wasm_module
from depin_node.compute.devices import wasm_engine
from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.pages import RUNS_MAX, Pages
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.memory import memory_bytes, placements
from depin_node.compute.programs.program import Scalar
from depin_node.compute.programs.shards import result_bytes
from depin_node.compute.sandbox.arena import memory_file
from depin_node.core.errors import ResourceError, TaskError, TaskOutOfMemory, TaskRejected, TaskTimedOut, TaskTrapped

LIMITS = TaskLimits(30.0, 64 << 20)
SHORT = TaskLimits(0.3, 64 << 20)


@pytest.fixture(scope="module")
def device():
    return WasmDevice()


def of(array):
    return Input(array.reshape(-1).view("u1").data)


def in_file(array):
    """The same as a file, which the device can map."""
    fd = memory_file("test", array.nbytes)
    os.pwrite(fd, array.tobytes(), 0)
    return Input(memoryview(mmap.mmap(fd, array.nbytes, prot=mmap.PROT_READ)), fd)


def run(loaded, task, limits=LIMITS):
    """Run a task and return its results as arrays of float32."""
    sizes = [result_bytes(loaded.program, task, output) for output in range(len(loaded.program.outputs))]
    results = [memoryview(bytearray(b"\xff" * size)) for size in sizes]
    assert loaded.run(task, limits, results) > 0
    return [np.frombuffer(result, loaded.program.buffers[1].dtype) for result in results]


def load(device, candidate, x=None, y=None, limits=LIMITS):
    inputs = {0: of(numbers(candidate.buffers[0].elements, candidate.buffers[0].dtype) if x is None else x)}
    if y is not None:
        inputs[1] = of(y)
    return device.load(candidate, inputs, limits)


def test_each_task_returns_its_part(device):
    loaded = load(device, program(tasks=3))  # 16 blocks: 5, 5, 6
    parts = [run(loaded, task)[0] for task in range(3)]
    assert [len(part) for part in parts] == [320, 320, 384]
    assert (np.concatenate(parts) == numbers()).all()


@pytest.mark.parametrize(("module", "reason"), UNSTARTABLE_MODULES.values(), ids=UNSTARTABLE_MODULES)
def test_refuses_modules(device, module, reason):
    with pytest.raises(TaskRejected, match=reason):
        load(device, program(module))


@pytest.mark.parametrize(("module", "code", "reason"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_bad_tasks_end_in_coded_errors_and_harm_nothing(device, module, code, reason):
    good, bad = load(device, program()), load(device, program(module))
    with pytest.raises(TaskError, match=reason) as caught:
        run(bad, 1, SHORT)
    assert caught.value.code == code
    assert (run(good, 1)[0] == numbers()[256:512]).all()


def test_fuel_ends_a_task_that_the_watchdog_missed(device, monkeypatch):
    monkeypatch.setattr(wasm_module, "FUEL_PER_S", 1_000_000)
    with pytest.raises(TaskTimedOut, match="fuel"):
        run(load(device, program(copying(ENDLESS))), 0)


def test_a_timed_out_task_does_not_end_the_next(device):
    endless, good = load(device, program(copying(ENDLESS))), load(device, program())
    for _ in range(3):
        with pytest.raises(TaskTimedOut):
            run(endless, 0, TaskLimits(0.01, 64 << 20))
        run(good, 0)


def test_memory_is_what_the_arrays_need_and_does_not_grow(device):
    candidate = program(copying(GROW))
    run(load(device, candidate), 0)
    with pytest.raises(TaskOutOfMemory, match="the limit is"):
        load(device, candidate, limits=TaskLimits(1.0, memory_bytes(candidate) - 1))


def test_tasks_see_neither_each_others_memory_nor_spoilt_inputs(device):
    loaded = load(device, program(copying("", SPOIL_INPUT)))
    assert (run(loaded, 0)[0] == numbers()[:256]).all()
    assert (run(loaded, 0)[0] == numbers()[:256]).all()
    counts = """(i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))
                (i32.store (i32.add (local.get $y) (i32.shl (local.get $i) (i32.const 2))) (i32.load (i32.const 8)))"""
    counting = wasm(HEAD + RUN + counts + "))")
    loaded = load(device, program(counting, dtype="int32"))
    assert [run(loaded, 0)[0][0] for _ in range(3)] == [1, 1, 1]


def test_what_a_kernel_leaves_out_is_zero(device):
    assert not run(load(device, program(wasm(HEAD + RUN + "))"))), 0)[0].any()


NANS = {
    "float16": ("uint16", [0x7E00, 0xFE00, 0x7C01, 0xFFFF], 0x7E00),
    "float32": ("uint32", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], 0x7FC00000),
    "float64": ("uint64", [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF0 << 48) + 1, (1 << 64) - 1], 0x7FF8 << 48),
}


@pytest.mark.parametrize("dtype", NANS)
def test_nans_come_out_canonical_and_nothing_else_changes(device, dtype):
    bits, nans, canonical = NANS[dtype]
    size = np.dtype(dtype).itemsize
    each = EACH.replace("(i32.const 2)", f"(i32.const {size.bit_length() - 1})")
    each = {2: each.replace("i32.load", "i32.load16_u").replace("i32.store", "i32.store16"), 4: each}.get(
        size, each.replace("(i32.load", "(i64.load").replace("(i32.store", "(i64.store")
    )
    x = numbers(N, dtype)
    x[:4] = [np.inf, -np.inf, -0.0, 0.0]
    x.view(bits)[[7, 11, 300, 1023]] = nans
    loaded = load(device, program(wasm(HEAD + RUN + each + "))"), dtype=dtype, tasks=1), x)
    expected = x.view(bits).copy()
    expected[[7, 11, 300, 1023]] = canonical
    assert (run(loaded, 0)[0].view(bits) == expected).all()


def test_integers_keep_their_bits(device):
    x = np.full(N, 0xFFC00001, "uint32")
    assert (run(load(device, program(dtype="uint32"), x), 0)[0] == x[:256]).all()


def test_scalars_and_launch_reach_the_kernel(device):
    """s0 is a double in the third slot; the launch's numbers are the last parameters of run."""
    body = """(i32.store (local.get $y) (local.get $gx)) (i32.store offset=4 (local.get $y) (local.get $bx))
              (i64.store offset=8 (local.get $y) (i64.load (i32.const 1040)))
              (i32.store offset=16 (local.get $y) (i32.wrap_i64 (local.get $b1)))"""
    scalar = Scalar("float64", np.float64(1.5).tobytes())
    loaded = load(device, program(wasm(HEAD + RUN + body + "))"), dtype="int32", scalars=(scalar,)))
    result = run(loaded, 0)[0]
    assert result[[0, 1, 4]].tolist() == [16, 64, 4]
    assert result[2:4].view("float64")[0] == 1.5


@pytest.mark.parametrize("give", [of, in_file], ids=["copied", "mapped"])
@pytest.mark.parametrize("n", [N, 1 << 20, (1 << 20) + 7])
def test_in_out_arrays_keep_what_others_own(device, give, n):
    """Large arrays are mapped and compared by touched pages; the answers are the same as for small ones."""
    x, y = numbers(n), -numbers(n)
    candidate = program(role="inout", n=n, tasks=5)
    tail = n % 64  # the last block reads and writes past the array's end, so leave its task out there
    loaded = device.load(candidate, {0: give(x), 1: give(y)}, LIMITS)
    for task in range(4 if tail else 5):
        blocks = candidate.launch.blocks(0)
        first, last = task * blocks // 5 * 64, min((task + 1) * blocks // 5 * 64, n)
        assert (run(loaded, task)[0] == x[first:last]).all()
    elsewhere = "(i32.store (i32.add (local.get $y) (i32.const {})) (i32.const 1))"
    for place in (0, 4 * (n // 2), 4 * (n - 1)):
        bad = program(copying("", elsewhere.format(place)), role="inout", n=n, tasks=5)
        loaded = device.load(bad, {0: give(x), 1: give(y)}, LIMITS)
        task = 1 if place != 4 * (n // 2) else 0
        with pytest.raises(TaskError, match="to y outside"):
            run(loaded, task)


@pytest.mark.parametrize("n", [N, 1 << 22])
def test_stray_writes_into_outputs_are_seen_at_any_size(device, n):
    for place in (0, 4 * (n // 2) + 4, 4 * (n - 1)):
        stray = f"(i32.store8 (i32.add (local.get $y) (i32.const {place})) (i32.const 1))"
        loaded = load(device, program(copying("", stray), n=n, tasks=64 if n > N else 16))
        with pytest.raises(TaskError, match="to y outside"):
            run(loaded, 1)


def test_touched_pages_of_sparse_memory():
    pages, page = Pages(), mmap.PAGESIZE
    memory = mmap.mmap(-1, 1000 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if hasattr(memory, "madvise") and hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    for number in (3, 4, 500, 999):
        memory[number * page] = 1
    found = pages.touched(address + 100, 999 * page)
    touched = np.zeros(1000 * page, bool)
    for start, stop in found:
        touched[100 + start : 100 + stop] = True
    assert all(touched[number * page] for number in (3, 4, 500))
    assert touched.sum() <= 4 * page or pages._pagemap < 0
    for number in range(0, 1000, 2):
        memory[number * page] = 1
    assert len(pages.touched(address, 1000 * page)) <= RUNS_MAX + 1


def test_placements_are_where_the_kernel_finds_its_arrays(device):
    body = "(i32.store (local.get $y) (local.get $x)) (i32.store offset=4 (local.get $y) (local.get $y))"
    candidate = program(wasm(HEAD + RUN + body + "))"), dtype="int32")
    assert tuple(run(load(device, candidate), 0)[0][:2]) == placements(candidate)[0]


LOG = HEAD + '(func (export "log") (result i32) (i32.const 2048))'
PRINT = "(i32.store (i32.const 2048) (i32.const 3)) (i32.store (i32.const 2052) (i32.const 0x0a0b1b41))"


def test_what_a_task_printed_is_kept_with_its_bytes_and_bounded(device):
    loaded = load(device, program(copying(PRINT, head=LOG)))
    run(loaded, 0)
    assert loaded.log == b"A\x1b\x0b"
    trapping = load(device, program(copying(PRINT, "(unreachable)", head=LOG)))
    with pytest.raises(TaskTrapped):
        run(trapping, 0)
    assert trapping.log == b"A\x1b\x0b"
    lying = load(device, program(copying("(i32.store (i32.const 2048) (i32.const -1))", head=LOG)))
    run(lying, 0)
    assert len(lying.log) == 16 << 10
    with pytest.raises(TaskRejected, match="log is not aligned or not within its own memory"):
        load(device, program(copying(head=LOG.replace("const 2048", "const 131000"))))


@pytest.mark.parametrize("version", ["36.0.0", "49.0.3"])
def test_an_engine_with_known_holes_is_refused(version):
    with pytest.raises(ResourceError, match=r"GHSA-.*pip install 'wasmtime>=50\.0\.1'"):
        wasm_engine.require_safe_version(version)


@pytest.mark.parametrize("version", ["50.0.1", "51.0.0", "100.0"])
def test_an_engine_without_is_taken(version):
    wasm_engine.require_safe_version(version)


# The descriptor is that of /proc/self/pagemap: elsewhere there is none that could stay.
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_device_that_is_gone_leaves_neither_thread_nor_descriptor():
    def pagemaps():
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return sum(link.exists() and link.readlink().name == "pagemap" for link in links)

    others, before = set(threading.enumerate()), pagemaps()
    device = WasmDevice()
    device.watchdog.arm(60)
    (thread,) = set(threading.enumerate()) - others
    assert pagemaps() == before + 1
    del device
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
    assert pagemaps() == before
