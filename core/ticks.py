"""Times at which what recurs happens together: a process at rest is woken once for all, not for each by itself.

To wake costs more than what is done then: the caches are cold. So what is due every few seconds, to the second or not,
happens at whole multiples of its period on the clock of the process.
"""

import trio


def tick_before(time_s: float, tick_s: float) -> float:
    """Return the last tick up to a time of trio's clock, in s."""
    return time_s // tick_s * tick_s


async def sleep_to_tick(period_s: float) -> None:
    """Sleep until the next multiple of ``period_s``: for so long, or less the first time."""
    await trio.sleep_until(tick_before(trio.current_time(), period_s) + period_s)
