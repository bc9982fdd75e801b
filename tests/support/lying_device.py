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
