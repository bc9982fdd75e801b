"""Memory is kept from task to task, and results are filled in place: no task may see what another left."""

import ctypes
import mmap
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given as given_
from hypothesis import strategies as st
from kept_memory import given
from msgspec.structs import replace
from wat_programs import HEAD, RUN, copying, numbers, program, wasm

from depin_node.client import Along, ProgramBuilder, RawKernel, local
from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.held import TIMED_BYTES_MIN, Zeros
from depin_node.compute.devices.pages import RUNS_MAX, Pages
from depin_node.compute.devices.task_arrays import _cut_at
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.devices.wasm_engine import TASKS_MAX
from depin_node.compute.programs.memory import placements
from depin_node.compute.programs.program import Axis, Cut
from depin_node.compute.programs.shards import result_bytes
from depin_node.compute.sandbox.arena import Arena
from depin_node.core.errors import TaskTrapped

LIMITS = TaskLimits(60.0, 64 << 20)
MIB = 1 << 20
LOOK = """
    (local.set $seen (i64.extend_i32_u (global.get $count)))
    (loop $next
      (if (i32.or (i32.lt_u (local.get $at) (i32.const 1024)) (i32.ge_u (local.get $at) (i32.const 2048)))
        (then (local.set $seen (i64.add (i64.mul (local.get $seen) (i64.const 0x100000001b3))
                                        (i64.load (local.get $at))))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.shl (memory.size) (i32.const 16)))))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (memory.fill (i32.const 0) (i32.const 1) (i32.const 1024))
    (memory.fill (i32.const 2048) (i32.const 2) (i32.const 129024))
    (local.set $at (i32.add (local.get $y) (i32.shl (local.get $i) (i32.const 2))))
    (memory.fill (local.get $x) (i32.const 3) (i32.const {bytes}))
    (memory.fill (local.get $at) (i32.const 4) (i32.shl (i32.sub (local.get $end) (local.get $i)) (i32.const 2)))
    (i64.store (local.get $at) (local.get $seen))))
"""
"""Makes one number of all memory but the arguments, then spoils all that a task may write: its own part, its input, its
part of the output, a global."""


@pytest.fixture(scope="module")
def device():
    return WasmDevice()


class InArena:
    """Runs tasks with results in an arena, each between pages that must stay as they are."""

    def __init__(self, loaded, room=8 * MIB):
        self.loaded, self.arena = loaded, Arena(room)
        self._all = np.frombuffer(self.arena.view, np.uint8)
        loaded.results_in(self.arena.view)

    def __call__(self, task, pages=1, like=None):
        self._all[:] = 0xAB
        before = self.arena.take(pages * mmap.PAGESIZE)
        size = result_bytes(self.loaded.program, task, 0)
        place = self.arena.take(size, like)
        try:
            self.loaded.run(task, LIMITS, [self.arena.view[place : place + size]])
        finally:
            assert (self._all[:place] == 0xAB).all()
            assert (self._all[place + size :] == 0xAB).all()
        result = bytes(self.arena.view[place : place + size])
        self.arena.give_back(place, size)
        self.arena.give_back(before, pages * mmap.PAGESIZE)
        return result


def outside_arena(loaded):
    def run(task):
        result = bytearray(result_bytes(loaded.program, task, 0))
        loaded.run(task, LIMITS, [memoryview(result)])
        return bytes(result)

    return run


@pytest.mark.parametrize("mapped", [False, True], ids=["copied", "mapped"])
@pytest.mark.parametrize("where", [outside_arena, InArena])
@pytest.mark.parametrize(("n", "tasks", "rounds"), [(1024, 4, TASKS_MAX), (1 << 18, 1, 3), (1 << 20, 4, 4)])
def test_every_task_finds_what_the_first_one_found(device, n, tasks, rounds, where, mapped):
    start = RUN.replace("(local $y i32)", "(local $y i32) (local $at i32) (local $seen i64)")
    look = wasm(HEAD + "(global $count (mut i32) (i32.const 5))" + start + LOOK.format(bytes=4 * n))
    x = given(numbers(n, "uint32"), mapped=mapped)
    candidate = program(look, n=n, tasks=tasks, dtype="uint32")
    fresh = [outside_arena(device.load(candidate, {0: x}, LIMITS))(task) for task in range(tasks)]
    assert len({result[:8] for result in fresh}) == 1, "what is seen does not depend on the task"
    run = where(device.load(candidate, {0: x}, LIMITS))
    for _ in range(rounds):
        assert [run(task) for task in range(tasks)] == fresh


OFFSETS = (0, 32 << 10, 52 << 10, 92 << 10, (92 << 10) + 64, (112 << 10) + 64, (150 << 10) + 192)
"""In elements of 4 bytes: slices of whole pages, of pages and a rest, tiny, and from within a page on."""


@pytest.mark.parametrize("halo", [0, 1024])
@pytest.mark.parametrize("edge", ["none", "clamp", "wrap"])
def test_rows_that_are_mapped_are_those_that_are_copied(device, halo, edge):
    start = RUN.replace("(local $y i32)", "(local $y i32) (local $at i32) (local $seen i64)")
    look = wasm(HEAD + "(global $count (mut i32) (i32.const 5))" + start + LOOK.format(bytes=256))
    n, tasks = OFFSETS[-1], len(OFFSETS) - 1
    base = program(look, n=n, dtype="uint32")
    launch = replace(base.steps[0], grids=tuple(((b - a) // 64, 1, 1) for a, b in pairwise(OFFSETS)))
    cuts = Cut(0, 0, halo, edge, b""), Cut(0, 0, 0, "none", b"")
    buffers = tuple(replace(buffer, tile=(), cut=cut) for buffer, cut in zip(base.buffers, cuts, strict=True))
    candidate = replace(base, shards=Axis(tasks, (OFFSETS,)), buffers=buffers, steps=(launch,))
    x = numbers(n, "uint32")
    fresh = [outside_arena(device.load(candidate, {0: given(x, mapped=False)}, LIMITS))(task) for task in range(tasks)]
    laid, map_file = [], device.pages.map_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.pages, "map_file", lambda *a: laid.append(a[2]) or map_file(*a))
        kept = outside_arena(device.load(candidate, {0: given(x, mapped=True)}, LIMITS))
        order = [0, 0, 1, 2, 3, 2, 4, 5, 0, 5, 1, 4, 3, 0]
        assert [kept(task) for task in order] == [fresh[task] for task in order]
    assert laid or not device.pages.can_tell
    assert all(size % mmap.PAGESIZE == 0 for size in laid)


@pytest.mark.parametrize("tasks", [1, 3, 4, 5])
@pytest.mark.parametrize("n", [1 << 20, (1 << 20) + 64 * 9])
def test_results_filled_in_place_are_those_that_are_copied(device, n, tasks):
    x = numbers(n, "float32")
    x.view("uint32")[::777] = 0xFFC00001  # NaNs that are not canonical
    candidate = program(n=n, tasks=tasks)
    copied, placed = (device.load(candidate, {0: given(x, mapped=True)}, LIMITS) for _ in range(2))
    expected = [outside_arena(copied)(task) for task in range(tasks)]
    run = InArena(placed)
    results = candidate.outputs[0]
    for pages, like in ((1, None), (2, None), (1, placements(candidate)[0][results]), (1, None)):  # elsewhere, and back
        assert [run(task, pages, like) for task in range(tasks)] == expected
    found = np.frombuffer(b"".join(expected), "uint32").copy()
    assert (found[::777] == 0x7FC00000).all()
    x.view("uint32")[::777] = 0x7FC00000
    assert (found == x.view("uint32")).all()


@pytest.mark.skipif(sys.platform != "linux", reason="pages are lent on Linux only")
def test_large_results_are_lent_and_come_back_after_a_trap(device, monkeypatch):
    lent, back = [], []
    lend, take_back = device.pages.lend, device.pages.take_back
    monkeypatch.setattr(device.pages, "lend", lambda *a: lent.append(a) or lend(*a))
    monkeypatch.setattr(device.pages, "take_back", lambda *a: back.append(a) or take_back(*a))
    n = 1 << 20
    run = InArena(device.load(program(n=n), {0: given(numbers(n), mapped=True)}, LIMITS))
    assert run(1) == numbers(n)[n // 4 : n // 2].tobytes()
    assert [size for _, _, size in lent] == [n]
    assert back == lent
    trapping = InArena(
        device.load(program(copying("", "(unreachable)"), n=n), {0: given(numbers(n), mapped=True)}, LIMITS)
    )
    for _ in range(3):
        with pytest.raises(TaskTrapped):
            trapping(1)
    assert len(lent) == 4
    assert back == lent
    elsewhere = "(i32.store (local.get $y) (i32.const 1))"
    straying = InArena(device.load(program(copying("", elsewhere), n=n), {0: given(numbers(n), mapped=True)}, LIMITS))
    with pytest.raises(TaskTrapped, match="to y outside the tiles"):
        straying(1)
    assert len(straying(0)) == n  # where it may write


def test_without_the_system_calls_results_are_copied_and_memory_is_new(monkeypatch):
    device = WasmDevice()
    monkeypatch.setattr(device.pages, "_mremap", lambda *a: ctypes.c_void_p(-1).value)
    n = 1 << 20
    run = InArena(device.load(program(n=n), {0: given(numbers(n), mapped=True)}, LIMITS))
    assert run(1) == run(1) == numbers(n)[n // 4 : n // 2].tobytes()
    monkeypatch.setattr(device.pages, "_pagemap", -1)
    assert not device.pages.can_tell
    assert run(2) == run(2) == numbers(n)[n // 2 : 3 * n // 4].tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="pages are lent on Linux only")
def test_lent_pages_change_places_and_what_was_lent_is_zeros_after():
    pages, page = Pages(), mmap.PAGESIZE
    shared, own = mmap.mmap(-1, 8 * page), mmap.mmap(-1, 8 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    one, two = (np.frombuffer(memory, np.uint8) for memory in (shared, own))
    one[:], two[:] = 1, 2
    places = one.ctypes.data + page, two.ctypes.data + 3 * page
    assert not pages.lend(places[0] + 1, places[1], page)
    assert not pages.lend(places[0], places[1], page - 1)
    assert pages.lend(*places, 2 * page)
    assert two.reshape(8, page).max(axis=1).tolist() == [2, 2, 2, 1, 1, 2, 2, 2]
    two[3 * page : 5 * page] = 7
    pages.take_back(*places, 2 * page)
    assert one.reshape(8, page).max(axis=1).tolist() == [1, 7, 7, 1, 1, 1, 1, 1]
    assert two.reshape(8, page).max(axis=1).tolist() == [2, 2, 2, 0, 0, 2, 2, 2]
    assert pages.forget(places[1] - page, page)
    assert two.reshape(8, page).max(axis=1).tolist() == [2, 2, 0, 0, 0, 2, 2, 2]
    two[3 * page] = 9
    assert one.max() == 7


def test_large_arrays_are_made_zeros_in_either_way_and_both_are_timed():
    zeros, whole = Zeros(), np.ones(TIMED_BYTES_MIN + 8, np.uint8)
    for size in (8, TIMED_BYTES_MIN, TIMED_BYTES_MIN + 8) * 40:
        array = whole[:size]
        array[:] = 7
        zeros.make(array, fresh=False)
        assert not array.any()
    assert all(0 < best_s < 1 for best_s in zeros._best_s)


@given_(
    st.lists(st.tuples(st.integers(0, 63), st.integers(1, 9)), max_size=8), st.lists(st.integers(0, 63), max_size=4)
)
def test_written_pages_are_found_whichever_way_the_system_is_asked(written, read):
    page, count = mmap.PAGESIZE, 64
    own = np.frombuffer(mmap.mmap(-1, count * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    expected = np.zeros(count, bool)
    for first, length in written:
        expected[first : first + length] = True
    for number in read:
        assert own[number * page] == 0
    own.reshape(count, page)[expected, 5] = 1
    scanning, reading = Pages(), Pages()
    assert scanning.can_tell or sys.platform != "linux"
    reading._scans = False  # as on a kernel before 6.7
    for pages in (scanning, reading):
        found = np.zeros(count * page, bool)
        for low, high in pages.touched(own.ctypes.data + 1, count * page - 1):
            found[low + 1 : high + 1] = True
        seen = found.reshape(count, page).any(axis=1)
        assert seen[expected].all()
        if pages.can_tell:  # elsewhere every page counts as written
            assert not seen[~expected & ~np.isin(np.arange(count), read)].any()


def test_more_ranges_than_are_kept_leave_out_no_page():
    page, count = mmap.PAGESIZE, 4 * RUNS_MAX
    own = np.frombuffer(mmap.mmap(-1, count * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    own.reshape(count, page)[::2, 0] = 1
    runs = Pages().touched(own.ctypes.data, count * page)
    assert len(runs) <= RUNS_MAX + 1
    found = np.zeros(count, bool)
    for low, high in runs:
        found[low // page : high // page] = True
    assert found[::2].all()


@given_(st.integers(0, 40), st.integers(0, 40), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=4))
def test_a_range_is_cut_where_marks_begin_and_end(low, size, marks):
    marked, behind = [], 0
    for gap, length in marks:
        marked.append((behind + gap, behind + gap + length))
        behind = marked[-1][1]
    parts = list(_cut_at(low, low + size, marked))
    found = {at: is_marked for first, last, is_marked in parts for at in range(first, last)}
    assert sum(last - first for first, last, _ in parts) == len(found), "no part twice, none empty"
    assert found == {at: any(a <= at < b for a, b in marked) for at in range(low, low + size)}


ADD = """extern "C" __global__ void add(float* sum, const float* w, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) { sum[i] += w[i]; y[i] = sum[i]; }
}"""
COUNT = """extern "C" __global__ void count(int* h, const int* v, const float* w, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&h[v[i]], (int)w[i]);
}"""


@pytest.mark.parametrize("role", ["temp", "out", "partial"])
def test_what_lies_below_an_input_that_is_mapped_is_zeros_for_each_task(role):
    n, tasks = 1 << 15, 8
    steps = ProgramBuilder(shards=tasks, along=Along(axis=0))
    rows = steps.shard.rows
    grid, ones = (-(-rows // 256),), np.ones(n, np.float32)
    if role == "partial":
        below, v = steps.partial("h", "int32", (1,)), steps.input("v", np.zeros(n, np.int32))
        w = steps.input("w", ones, cut=None)
        steps.launch(RawKernel(COUNT, "count"), grid, (256,), (below, v, w, rows))
    else:
        below, w = getattr(steps, role)("sum", "float32", (n,)), steps.input("w", ones, cut=None)
        y = steps.out("y", "float32", (n,))
        steps.launch(RawKernel(ADD, "add"), grid, (256,), (below, w, y, rows))
    found = local.run(steps)
    found = found["y"] if isinstance(found, dict) else found
    assert (np.asarray(found) == (n // tasks if role == "partial" else 1)).all()
