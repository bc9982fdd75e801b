"""Runs programs on a device in this process, task by task in any order, and puts their results together."""

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.program import encode_program
from depin_node.compute.programs.shards import result_bytes, scatter
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.sandbox.local import empty_outputs

LIMITS = TaskLimits(60.0, 1 << 30)


class ProgramHost:
    """One device; what it is given has travelled as bytes."""

    def __init__(self):
        self.device = WasmDevice()

    def load(self, bound, limits=LIMITS):
        program = decode_program(encode_program(bound.program))
        inputs = {index: Input(array.reshape(-1).view("u1").data) for index, array in bound.inputs.items()}
        return self.device.load(program, inputs, limits)

    def run(self, bound, limits=LIMITS):
        """Return the outputs by name; the tasks run last one first, on one loaded program."""
        loaded = self.load(bound, limits)
        program = loaded.program
        outputs = empty_outputs(program, bound.inputs)
        for task in reversed(range(program.tasks)):
            sizes = [result_bytes(program, task, output) for output in range(len(outputs))]
            results = [memoryview(bytearray(b"\xff" * size)) for size in sizes]
            loaded.run(task, limits, results)
            for output, result in enumerate(results):
                scatter(program, task, output, result, outputs[output])
        return dict(zip((program.buffers[index].name for index in program.outputs), outputs, strict=True))
