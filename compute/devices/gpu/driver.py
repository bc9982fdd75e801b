"""What is needed of a GPU's driver to run programs: ``cupy.CupyDriver``, and in tests an interpreter of PTX.

Addresses are plain numbers of the device's memory. Everything may return before the device has done it; ``wait`` waits.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from depin_node.compute.devices.gpu.budget import Capacity, Footprint


class DriverError(Exception):
    """A call failed: CUDA's number and name for it."""

    def __init__(self, status: int, name: str) -> None:
        super().__init__(f"{name} ({status})")
        self.status, self.name = status, name


class Driver(Protocol):
    """One device, one context; every call may raise ``DriverError``."""

    architecture: int
    """Compute capability: 86 for sm_86."""
    xp: Any
    """The array module for ``array_operations``."""

    def capacity(self) -> Capacity:
        """Return what the device has, with the context open."""
        ...

    def load(self, ptx: str, cubin: bytes) -> Any:
        """Load a compiled unit: the CUBIN, which was made of this PTX."""
        ...

    def function(self, module: Any, name: str) -> Any:
        """Return a kernel of a loaded unit."""
        ...

    def footprint(self, function: Any) -> Footprint:
        """Return what a kernel takes."""
        ...

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes, a multiple of 256. What they hold is not said."""
        ...

    def free(self, address: int) -> None:
        """Give back what ``allocate`` returned."""
        ...

    def clear(self, address: int, size: int) -> None:
        """Set bytes to zero."""
        ...

    def upload(self, address: int, data: memoryview) -> None:
        """Copy from the host; ``data`` may change after it returns."""
        ...

    def download(self, address: int, into: memoryview) -> None:
        """Copy to the host, and wait for it."""
        ...

    def launch(
        self, function: Any, blocks: int, block: tuple[int, int, int], shared_mem: int, arguments: Sequence[bytes]
    ) -> None:
        """Launch a row of blocks; an argument is the bytes of a parameter."""
        ...

    def wait(self) -> None:
        """Wait until the device has done everything; an error of what ran appears here."""
        ...

    def array(self, address: int, dtype: str, shape: tuple[int, ...]) -> Any:
        """Return memory of the device as an array of ``xp``, without a copy."""
        ...
