"""A device whose results are wrong, each worker's in its own way: for lenders that lie."""

import os

from depin_node.compute.devices.wasm import WasmDevice


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
