"""What recurs happens together, at multiples of its period."""

import trio
from trio.testing import MockClock

from depin_node.core.ticks import sleep_to_tick, tick_before


def test_the_tick_before_a_time_is_a_multiple_up_to_it():
    assert tick_before(7.9, 2.5) == 7.5
    assert tick_before(7.5, 2.5) == 7.5


async def test_tasks_that_begin_at_different_times_are_woken_together(autojump_clock: MockClock):
    began_s, woken_s = trio.current_time(), set()

    async def recur(first_s: float, period_s: float, times: int) -> None:
        await trio.sleep(first_s)
        for _ in range(times):
            await sleep_to_tick(period_s)
            woken_s.add(round(trio.current_time(), 3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recur, 0.3, 2.0, 6)
        nursery.start_soon(recur, 1.1, 2.0, 6)
        nursery.start_soon(recur, 1.7, 4.0, 3)
    assert len(woken_s) <= 7
    assert all(time_s % 2 == 0 for time_s in woken_s)
    assert 10 <= trio.current_time() - began_s <= 14
