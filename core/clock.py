"""The two clocks, read only by shells and handed to machines as a value."""

import time
from typing import NamedTuple

SECOND_NS = 1_000_000_000


class Now(NamedTuple):
    """One reading of both clocks, in ns.

    Durations and deadlines use ``boottime_ns``, which no one can set and which counts through suspend; ``wall_ns``
    (since the Unix epoch) goes only into what other machines or people read.
    """

    boottime_ns: int
    wall_ns: int


def now() -> Now:
    """Read both clocks."""
    boottime_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Now(time.clock_gettime_ns(boottime_clock), time.time_ns())
