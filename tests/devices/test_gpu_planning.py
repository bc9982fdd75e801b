"""What is decided about a GPU before one is needed: ranges of blocks, memory, the meaning of errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.compute.devices.gpu.budget import MIB, RESERVE_BYTES, Capacity, Footprint, plan_memory
from depin_node.compute.devices.gpu.faults import classify
from depin_node.compute.devices.gpu.pacing import GROWTH, QUEUE_MAX, TARGET_S, Pacer
from depin_node.core.errors import TaskCrashed, TaskOutOfMemory, TaskTimedOut, TaskTrapped

RTX_3060 = Capacity(free_bytes=11 << 30, multiprocessors=28, threads_per_multiprocessor=1536)


def run(pacer, launches, block_s):
    """Play launches (kernel, blocks) on a device where a block of a kernel takes ``block_s[kernel]``.

    Returns each range, and how long the host could not have stopped the device each time.
    """
    ranges, waits, queued_s = [], [], 0.0
    for kernel, blocks in launches:
        left = blocks
        while left:
            if pacer.must_wait(kernel):
                pacer.waited(queued_s)
                waits.append(queued_s)
                queued_s = 0.0
            now = pacer.blocks(kernel, left)
            assert 1 <= now <= left
            pacer.queued(kernel, now)
            ranges.append((kernel, now))
            queued_s += now * block_s[kernel]
            left -= now
    if not pacer.is_idle():
        pacer.waited(queued_s)
        waits.append(queued_s)
    return ranges, waits


@settings(deadline=None)  # it computes: how long a case takes says how busy the machine is
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2_000_000)), min_size=1, max_size=12),
    st.fixed_dictionaries({name: st.floats(1e-8, 1e-3) for name in "abc"}),
)
def test_every_block_runs_once_and_the_device_can_be_stopped(launches, block_s):
    pacer = Pacer(first=64)
    ranges, waits = run(pacer, launches, block_s)
    for name in "abc":
        assert sum(n for kernel, n in ranges if kernel == name) == sum(n for kernel, n in launches if kernel == name)
    bound = max(TARGET_S, *(64 * block_s[kernel] for kernel, _ in launches))
    assert max(waits) <= bound * 1.01 + 2 * max(block_s.values())
    assert pacer.is_idle()


def test_a_long_launch_settles_on_ranges_of_the_target():
    ranges, waits = run(Pacer(first=64), [("k", 10_000_000)], {"k": 1e-6})
    sizes = [blocks for _, blocks in ranges]
    assert sizes[:4] == [64, 64 * GROWTH, 64 * GROWTH**2, 64 * GROWTH**3]
    assert waits[6] == pytest.approx(TARGET_S, rel=0.01)
    assert len(ranges) < 60


def test_small_launches_in_a_loop_are_queued_together():
    ranges, waits = run(Pacer(first=64), [("k", 16)] * 1000, {"k": 1e-7})
    assert len(ranges) == 1000
    assert len(waits) < 1000 / QUEUE_MAX + 4


def test_blocks_that_become_slower_are_noticed_at_the_next_wait():
    pacer = Pacer(first=64)
    run(pacer, [("k", 100_000)], {"k": 1e-6})
    _, waits = run(pacer, [("k", 1_000_000)], {"k": 1e-4})
    assert waits[0] > TARGET_S * 50
    assert waits[1:-1] == pytest.approx([TARGET_S] * (len(waits) - 2), rel=0.01)


def test_memory_counts_local_memory_of_all_threads_and_copies():
    budget = plan_memory(
        RTX_3060,
        [Footprint(0, 0, 1024), Footprint(512, 0, 256)],
        arrays=100 * MIB,
        originals=MIB,
        scratch=0,
        limit=1 << 30,
    )
    assert budget.local == 512 * 28 * 1536
    assert budget.total == 101 * MIB + 512 * 28 * 1536


def test_what_does_not_fit_is_refused_with_its_parts():
    kernels = [Footprint(64 << 10, 0, 256)]
    with pytest.raises(TaskOutOfMemory, match=r"2688 MiB for the local memory of 43008 threads.*limit is 2048 MiB"):
        plan_memory(RTX_3060, kernels, arrays=MIB, originals=0, scratch=0, limit=2 << 30)
    with pytest.raises(TaskOutOfMemory, match="of which 11264 MiB are free"):
        plan_memory(RTX_3060, [], arrays=(11 << 30) - RESERVE_BYTES + 1, originals=0, scratch=0, limit=1 << 40)


@pytest.mark.parametrize(
    ("status", "error", "lost", "doubtful"),
    [
        (2, TaskOutOfMemory, False, False),
        (700, TaskTrapped, True, False),
        (701, TaskTrapped, False, False),
        (702, TaskTimedOut, True, False),
        (716, TaskTrapped, True, False),
        (719, TaskTrapped, True, False),
        (214, TaskCrashed, True, True),
        (999, TaskCrashed, True, True),
        (1, TaskCrashed, False, False),
        (12345, TaskCrashed, True, False),
    ],
)
def test_what_errors_mean(status, error, lost, doubtful):
    fault = classify(status, "CUDA_ERROR_X")
    assert (type(fault.error), fault.lost, fault.doubtful) == (error, lost, doubtful)
