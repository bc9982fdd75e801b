"""How many blocks to launch at a time, so that a GPU can be asked to stop about every quarter of a second.

A launch that runs cannot be called back. So it is cut into ranges of blocks, and the host waits for the device when
what it has queued is expected to take ``TARGET_S``. What a block of a kernel takes is measured: the first range of a
kernel is a few blocks by themselves, and between two waits no more than ``GROWTH`` times as many are queued as between
two waits before. Small launches in a loop are queued many at a time. A prediction that was wrong is mended at the next
wait; a single block that takes long is not to be cut further.

Pure numbers: no clock, no device.
"""

from dataclasses import dataclass, field
from typing import Final

TARGET_S: Final = 0.25
GROWTH: Final = 8
QUEUE_MAX: Final = 256
"""Launches in the device's queue: the driver's holds about 1,024, and blocks when it is full."""
_LEAST_S: Final = 1e-10
"""For a block: whatever a clock says, a device does not run more than ten in a nanosecond."""


@dataclass
class Pacer:
    """Cuts launches of kernels, by any hashable name, into ranges.

    ``first`` is the number of blocks of a kernel's first range: about as many as the device runs at once.
    """

    first: int
    _seconds: dict[object, float] = field(default_factory=dict)
    _largest: dict[object, int] = field(default_factory=dict)
    _queue: list[tuple[object, int]] = field(default_factory=list)

    def must_wait(self, kernel: object) -> bool:
        """Whether to wait for the device before the next range of ``kernel`` is queued."""
        if not self._queue:
            return False
        return (
            kernel not in self._seconds
            or any(queued not in self._seconds for queued, _ in self._queue)
            or len(self._queue) >= QUEUE_MAX
            or self._room(kernel) < 1
        )

    def blocks(self, kernel: object, left: int) -> int:
        """Return how many of the ``left`` blocks to queue now: at least one."""
        if kernel not in self._seconds:
            return min(left, self.first)
        return max(1, min(left, self._room(kernel)))

    def _room(self, kernel: object) -> int:
        """Return how many blocks of a kernel that was measured may still be queued before the next wait."""
        grown = self._largest[kernel] * GROWTH - sum(blocks for queued, blocks in self._queue if queued == kernel)
        return min(grown, int(min((TARGET_S - self._expected()) / self._seconds[kernel], 2**31)))

    def queued(self, kernel: object, blocks: int) -> None:
        """A range was queued."""
        self._queue.append((kernel, blocks))

    def waited(self, seconds: float) -> None:
        """All that was queued is done; it took ``seconds``."""
        expected = self._expected()
        known = all(kernel in self._seconds for kernel, _ in self._queue)
        for kernel in {kernel for kernel, _ in self._queue}:
            blocks = sum(count for queued, count in self._queue if queued == kernel)
            self._largest[kernel] = max(self._largest.get(kernel, 0), blocks)
            if known:
                self._seconds[kernel] *= seconds / max(expected, 1e-12)
            else:  # then it was alone
                self._seconds[kernel] = seconds / blocks
            self._seconds[kernel] = max(self._seconds[kernel], _LEAST_S)
        self._queue.clear()

    def is_idle(self) -> bool:
        """Whether nothing is queued."""
        return not self._queue

    def _expected(self) -> float:
        return sum(self._seconds.get(kernel, 0.0) * blocks for kernel, blocks in self._queue)
