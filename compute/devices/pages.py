"""Which pages of a range of our own memory were touched, and files mapped over it copy-on-write. Linux; else nothing.

A task's outputs are whole arrays of which it fills a part; asking the kernel which pages exist is a thousandth of the
work of reading them all. ``/proc/self/pagemap`` is described in Linux's Documentation/admin-guide/mm/pagemap.rst.
"""

import ctypes
import mmap
import os
import sys

import numpy as np

_SWAPPED_OR_PRESENT = np.uint64(3 << 62)
_FILE = np.uint64(1 << 61)
_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value
RUNS_MAX = 256


class Pages:
    """The pages of this process. Without pagemap every page counts as touched, and nothing can be mapped."""

    def __init__(self) -> None:
        self.size = mmap.PAGESIZE
        self._pagemap = -1
        self._mmap = None
        if sys.platform == "linux":
            try:
                self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # not mounted, or hidden: slower, not wrong
                self._pagemap = -1
            libc = ctypes.CDLL(None, use_errno=True)
            self._mmap = libc.mmap
            self._mmap.restype = ctypes.c_void_p
            self._mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]

    def touched(self, address: int, size: int) -> list[tuple[int, int]]:
        """Return the parts of [address, address + size) that were perhaps written, as offsets from ``address``.

        Never leaves out a byte that was written since the memory was fresh or mapped by ``map_file``; may name more.
        """
        first, last = address // self.size, -(-(address + size) // self.size)
        wanted = (last - first) * 8
        if self._pagemap < 0 or size < 16 * self.size:
            return [(0, size)]
        entries = np.frombuffer(os.pread(self._pagemap, wanted, first * 8), np.uint64)
        if entries.nbytes != wanted:
            return [(0, size)]
        written = np.zeros(len(entries) + 2, np.int8)
        written[1:-1] = ((entries & _SWAPPED_OR_PRESENT) != 0) & ((entries & _FILE) == 0)
        edges = np.flatnonzero(np.diff(written))
        if not len(edges):
            return []
        if len(edges) > 2 * RUNS_MAX:
            edges = edges[[0, -1]]
        offsets = np.clip((edges + first) * self.size - address, 0, size).tolist()
        return list(zip(offsets[::2], offsets[1::2], strict=True))

    def map_file(self, address: int, fd: int, size: int) -> bool:
        """Lay a private, copy-on-write view of a file's first ``size`` bytes over memory that we own at ``address``.

        The rest of the last page reads as zero. Writes stay in this process.

        Returns:
            Whether it was done; if not, the memory is as before.
        """
        if self._mmap is None or address % self.size:
            return False
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return bool(self._mmap(address, size, protection, mmap.MAP_PRIVATE | _MAP_FIXED, fd, 0) != _FAILED)
