"""A driver without a GPU: memory is a NumPy array, and kernels are interpreted from their PTX (``ptx``).

So all of ``devices.gpu.cuda`` runs here for real: compilation by NVRTC, the checks, ranges of blocks, steps, guards.
What is not shown is that CuPy and hardware do what this does. Faults can be put in: see ``fail``.
"""

import numpy as np
from ptx import parse
from ptx.machine import GUARD, STACK, Frame, Launch, Memory, PtxError

from depin_node.compute.devices.gpu.budget import Capacity, Footprint
from depin_node.compute.devices.gpu.driver import DriverError

BASE = GUARD
"""Where the interpreter puts what it is given first."""
LAUNCH_FAILED, ILLEGAL_ADDRESS = (719, "CUDA_ERROR_LAUNCH_FAILED"), (700, "CUDA_ERROR_ILLEGAL_ADDRESS")


class PtxDriver:
    """See ``devices.gpu.driver.Driver``. ``launches`` keeps (name, blocks) of each; memory begins as garbage."""

    architecture = 75
    xp = np

    def __init__(self, size=1 << 20):
        self.memory = np.full(size, 0xEE, np.uint8)
        self.free_at, self.launches, self.calls = 0, [], []
        self.fail = None
        """A function of (call, number of calls of that name), which raises to make the call fail."""

    def _called(self, name):
        self.calls.append(name)
        if self.fail is not None:
            self.fail(name, self.calls.count(name))

    def capacity(self):
        return Capacity(1 << 30, 1, 1024)

    def load(self, ptx, cubin):
        assert cubin.startswith(b"\x7fELF")
        return parse(ptx)

    def function(self, module, name):
        return module, name

    def footprint(self, function):
        return Footprint(0, 0, 1024)

    def allocate(self, size):
        address = BASE + self.free_at
        self.free_at += -(-size // 256) * 256
        if self.free_at > len(self.memory):
            raise DriverError(2, "CUDA_ERROR_OUT_OF_MEMORY")
        return address

    def free(self, address):
        self.free_at = min(self.free_at, address - BASE)

    def _at(self, address, size):
        assert BASE <= address <= address + size <= BASE + len(self.memory)
        return self.memory[address - BASE : address - BASE + size]

    def clear(self, address, size):
        self._at(address, size)[:] = 0

    def upload(self, address, data):
        self._called("upload")
        self._at(address, data.nbytes)[:] = data

    def download(self, address, into):
        self._called("download")
        np.frombuffer(into, np.uint8)[:] = self._at(address, into.nbytes)

    def wait(self):
        self._called("wait")

    def array(self, address, dtype, shape):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._at(address, size).view(dtype).reshape(shape)

    def launch(self, function, blocks, block, shared_mem, arguments):
        self._called("launch")
        module, name = function
        self.launches.append((name, blocks))
        try:
            self._interpret(module, name, blocks, block, shared_mem, arguments)
        except PtxError as error:
            raise DriverError(*(ILLEGAL_ADDRESS if "outside" in str(error) else LAUNCH_FAILED)) from error

    def _interpret(self, module, name, blocks, block, shared_mem, arguments):
        function = module.functions[name]
        shared = [v for v in (*module.variables, *function.variables) if v.space == "shared"]
        fixed = [v for v in module.variables if v.space in ("global", "const")]
        lanes = blocks * (-(-int(np.prod(block)) // 32) * 32)
        size = len(self.memory) + 4 * GUARD + lanes * (STACK + 2 * GUARD) + sum(2 * GUARD + v.size for v in fixed)
        memory = Memory(size + blocks * sum(2 * GUARD + (v.size or shared_mem) for v in shared))
        assert memory.take(len(self.memory)) == BASE
        memory.bytes[BASE : BASE + len(self.memory)] = self.memory
        memory.owned[(BASE + self.free_at) // 16 : (BASE + len(self.memory)) // 16] = False  # not allocated
        addresses = {}
        for variable in fixed:
            at = addresses[variable.name] = memory.take(variable.size)
            memory.bytes[at : at + len(variable.data)] = np.frombuffer(variable.data, np.uint8)
        launch = Launch(module, memory, blocks, block, addresses)
        launch.share(shared, shared_mem)
        launch.stack[:] = [memory.take(STACK) for _ in range(lanes)]
        threads = np.arange(len(launch.block_of))
        given = {}
        for parameter, value in zip(function.parameters, arguments, strict=True):
            assert len(value) == parameter.size
            given[parameter.name] = np.broadcast_to(np.frombuffer(value, np.uint8), (len(threads), len(value)))
        with np.errstate(all="ignore"):
            Frame(launch, function, threads, given, launch.exists).run()
        self.memory[:] = memory.bytes[BASE : BASE + len(self.memory)]
