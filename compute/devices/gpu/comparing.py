"""Comparing bytes where they are: a kernel of our own that tells whether something on the device changed."""

from typing import Any, Final

from depin_node.compute.devices.gpu.compiling import Compiled
from depin_node.compute.devices.gpu.driver import Driver

TEXT: Final = """
extern "C" __global__ void changed(const unsigned char* now, const unsigned char* before, unsigned long long size,
                                   unsigned int* found) {
  const unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
  for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    if (now[i] != (before ? before[i] : 0)) *found = 1;
  }
}
"""
_THREADS: Final = 256
_BLOCKS_PER_MULTIPROCESSOR: Final = 8


class Comparer:
    """The kernel, loaded, and the word that it answers by."""

    def __init__(self, driver: Driver, compiled: Compiled) -> None:
        self._driver = driver
        self._function: Any = driver.function(driver.load(compiled.ptx, compiled.cubin), "changed")
        self._found = driver.allocate(4)
        self._blocks_max = _BLOCKS_PER_MULTIPROCESSOR * driver.capacity().multiprocessors

    def start(self) -> None:
        """Forget what was found."""
        self._driver.clear(self._found, 4)

    def compare(self, now: int, before: int, size: int) -> None:
        """Note whether ``size`` bytes at ``now`` differ from those at ``before``, or from zeros if that is 0."""
        if size <= 0:
            return
        blocks = min(self._blocks_max, -(-size // _THREADS))
        arguments = [number.to_bytes(8, "little") for number in (now, before, size, self._found)]
        self._driver.launch(self._function, blocks, (_THREADS, 1, 1), 0, arguments)

    def has_found(self) -> bool:
        """Whether any comparison since ``start`` found a difference; waits for the device."""
        word = bytearray(4)
        self._driver.download(self._found, memoryview(word))
        return any(word)
