"""What a task takes of a GPU's memory: more than its arrays, and known before it is allocated.

CuPy's pool limit sees arrays only. Beside them a context takes some hundreds of MiB by itself, a kernel with local
memory takes it for every thread that the device could hold at once, whether they run or not (the driver keeps the
largest so far), and a library its workspace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from depin_node.core.errors import TaskOutOfMemory

MIB: Final = 1 << 20
RESERVE_BYTES: Final = 64 * MIB
"""Left to the driver, which allocates in large pieces."""


@dataclass(frozen=True)
class Capacity:
    """What a device has: bytes of memory that are free with the context open, and how many threads it holds at once."""

    free_bytes: int
    multiprocessors: int
    threads_per_multiprocessor: int

    @property
    def threads(self) -> int:
        """How many threads it holds at once."""
        return self.multiprocessors * self.threads_per_multiprocessor


@dataclass(frozen=True)
class Footprint:
    """What one compiled kernel takes: bytes of local memory a thread, static shared memory a block, threads a block."""

    local_bytes: int
    shared_bytes: int
    threads_max: int


@dataclass(frozen=True)
class Budget:
    """Bytes that a task takes beyond the open context."""

    arrays: int
    originals: int
    scratch: int
    local: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arrays + self.originals + self.scratch + self.local


def plan_memory(
    capacity: Capacity, kernels: Sequence[Footprint], *, arrays: int, originals: int, scratch: int, limit: int
) -> Budget:
    """Return what a task takes.

    Args:
        capacity: of the device.
        kernels: those that the program launches.
        arrays: bytes of all arrays with what is between them.
        originals: bytes of copies that are kept to compare with.
        scratch: bytes that array operations need beside.
        limit: bytes that the task may take, context not counted.

    Raises:
        TaskOutOfMemory: it is more than the limit, or than the device has.
    """
    local = max((kernel.local_bytes for kernel in kernels), default=0) * capacity.threads
    budget = Budget(arrays, originals, scratch, local)
    words = f"{_mib(arrays)} for its arrays"
    words += "".join(
        f", {_mib(size)} for {what}"
        for size, what in (
            (originals, "copies to compare with"),
            (scratch, "the library's workspace"),
            (local, f"the local memory of {capacity.threads} threads"),
        )
        if size
    )
    if budget.total > limit:
        raise TaskOutOfMemory(f"a task needs {_mib(budget.total)} on this device ({words}), the limit is {_mib(limit)}")
    if budget.total + RESERVE_BYTES > capacity.free_bytes:
        raise TaskOutOfMemory(
            f"a task needs {_mib(budget.total)} on this device ({words}), of which {_mib(capacity.free_bytes)} are free"
        )
    return budget


def _mib(size: int) -> str:
    return f"{-(-size // MIB)} MiB"
