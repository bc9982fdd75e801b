"""A device whose results are wrong, each worker's in its own way: for lenders that lie."""

import os
import time

import numpy as np

from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.walk import step_count


class LyingDevice(WasmDevice):
    """Runs each task, and then changes the first byte of its first result by a number of this process."""

    def load(self, program, inputs, limits):
        return Lying(super().load(program, inputs, limits))


class Lying:
    def __init__(self, honest):
        self.honest = honest

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        results[0][0] = (results[0][0] + 1 + os.getpid() % 255) % 256
        return fuel


class BitFlipDevice(WasmDevice):
    """Changes one bit of one answer in three."""

    def load(self, program, inputs, limits):
        return BitFlip(super().load(program, inputs, limits))


class BitFlip:
    def __init__(self, honest):
        self.honest = honest

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        if task % 3 == 0:
            results[0][task % len(results[0])] ^= 1 << task % 8
        return fuel


class StaleDevice(WasmDevice):
    """Does the first task it gets, and gives that answer to all others."""

    def load(self, program, inputs, limits):
        return Stale(super().load(program, inputs, limits))


class Stale:
    def __init__(self, honest):
        self.honest, self.first = honest, None

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        if self.first is None:
            self.first = [bytes(result) for result in results]
        for result, old in zip(results, self.first, strict=True):
            result[:] = old
        return fuel


class ConstantDevice(WasmDevice):
    """Answers everything with zeros, in the time that it takes: else its measured speed would price it out at once."""

    def load(self, program, inputs, limits):
        return Constant(super().load(program, inputs, limits))


class Constant:
    def __init__(self, honest):
        self.honest = honest

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        for result in results:
            result[:] = bytes(len(result))
        return fuel


class ColludingDevice(WasmDevice):
    """Wrong in every second task, and just so wherever it runs: for lenders in league."""

    def load(self, program, inputs, limits):
        return Colluding(super().load(program, inputs, limits))


class Colluding:
    def __init__(self, honest):
        self.honest = honest

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        if task % 2:
            results[0][0] ^= 0xA5
        return fuel


class SlowDevice(WasmDevice):
    """Right, and so slow that jobs of many tasks can be watched."""

    PAUSE_S = 0.01

    def load(self, program, inputs, limits):
        return Slow(super().load(program, inputs, limits), self.PAUSE_S)


class SluggishDevice(SlowDevice):
    """Right, and so slow that others do its tasks once more."""

    PAUSE_S = 2.0


class Slow:
    def __init__(self, honest, pause_s):
        self.honest, self.pause_s = honest, pause_s

    def run(self, task, limits, results):
        time.sleep(self.pause_s)  # being slow is what this device is for
        return self.honest.run(task, limits, results)


class SlippingDevice(WasmDevice):
    """Does every program right up to its sixth step, and has one bit wrong from the seventh on."""

    STEP = 7

    def load(self, program, inputs, limits):
        return Slipping(super().load(program, inputs, limits), step_count(program.steps) >= self.STEP)


class Slipping:
    def __init__(self, honest, slips):
        self.honest, self.slips = honest, slips

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        if self.slips:
            results[0][5] ^= 4
        return fuel


class OtherClassDevice(SlowDevice):
    """Right but for the last bit of each number, as another maker's processor may be: of a class of its own."""

    device_class = "other-1"
    FACTOR = np.float32(1 + 2.0**-23)

    def load(self, program, inputs, limits):
        return Scaling(super().load(program, inputs, limits), self.FACTOR)


class FarDevice(OtherClassDevice):
    """Of that class, and off by so much that no rounding explains it."""

    FACTOR = np.float32(3)


class Scaling:
    def __init__(self, honest, factor):
        self.honest, self.factor = honest, factor

    def run(self, task, limits, results):
        fuel = self.honest.run(task, limits, results)
        numbers = np.frombuffer(results[0], np.float32)
        numbers *= self.factor
        return fuel
