"""Devices that the demo's and the tests' bad lenders run on: one that lies, one that never finishes in time.

They are wrappers around the real device, outside the package. A node runs on one of them only if its own
configuration says so (``devices``, ``device_path``).
"""

import time
from collections.abc import Mapping, Sequence

from depin_node.compute.devices.device import Input, Loaded, TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.program import Program

SLOW_S = 30.0


class LyingDevice(WasmDevice):
    """Computes, and then changes one bit of every result."""

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> Loaded:
        """See ``Device``."""
        return _Lying(super().load(program, inputs, limits))


class _Lying:
    def __init__(self, honest: Loaded) -> None:
        self._honest = honest

    def run(self, task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        fuel = self._honest.run(task, limits, results)
        for result in results:
            if result.nbytes:
                result.cast("B")[result.nbytes // 2] ^= 1
        return fuel


class SlowDevice(WasmDevice):
    """Answers rightly, but only after ``SLOW_S``: long enough to be killed with work in its hands."""

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> Loaded:
        """See ``Device``."""
        return _Slow(super().load(program, inputs, limits))


class _Slow:
    def __init__(self, honest: Loaded) -> None:
        self._honest = honest

    def run(self, task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        time.sleep(SLOW_S)  # this is its fault: it is slow
        return self._honest.run(task, limits, results)
