"""Which pages of a range of our own memory were touched, and pages put there without copying. Linux; else nothing.

A task's outputs are whole arrays of which it fills a part; asking the kernel which pages exist is a thousandth of the
work of reading them all. ``/proc/self/pagemap`` is described in Linux's Documentation/admin-guide/mm/pagemap.rst; from
6.7 on it names the ranges that hold pages (``PAGEMAP_SCAN``), before that it has to be read page by page.

Files are mapped over memory copy-on-write, which is how a task gets its inputs. Pages that another process shares with
us change places with pages of ours, page tables and all (``lend``), which is how it fills its results: a new mapping
would cost a fault for each page.
"""

import ctypes
import mmap
import os
import struct
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

if sys.platform != "win32":
    import fcntl
    import resource

_ENTRY_BYTES = 8
_WRITTEN = bytes(flags & 0xC0 != 0 and flags & 0x20 == 0 for flags in range(256))
"""From an entry's highest byte: present (bit 63) or swapped (62), and no page of a file (61)."""
PAGEMAP_SCAN = 0xC0606610
"""``_IOWR('f', 16, struct pm_scan_arg)`` of linux/fs.h, where the next five come from too."""
_SCAN = struct.Struct("=12Q")
"""``size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask,
return_mask``"""
_WALK_END = 4
_FILE, _PRESENT, _SWAPPED, _ZERO_PAGE = 1 << 2, 1 << 3, 1 << 4, 1 << 5
_REGION_FIELDS = 3
"""``start, end, categories`` of ``struct page_region``."""
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_MADV_DONTNEED, _MADV_HUGEPAGE = 4, 14
_MREMAP_FLAGS = 1 | 2 | 4
"""``MREMAP_MAYMOVE``, ``MREMAP_FIXED`` and ``MREMAP_DONTUNMAP``: the old place stays mapped, with no page in it."""
_FAILED = ctypes.c_void_p(-1).value
RUNS_MAX = 256
LARGE_BYTES: Final = 2 << 20
"""What one page of page tables tells of, where pages have 4 KiB: so much moves at once between places that agree modulo
this, as linear memory, which begins at a multiple of it, and ``map_shared`` let them."""

_libc: Any = None
if sys.platform == "linux" and sys.byteorder == "little":
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _libc.mremap.restype = ctypes.c_void_p
    _libc.mremap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_int, ctypes.c_void_p]
    _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def map_shared(fd: int, size: int) -> memoryview:
    """Return a file's first ``size`` bytes, for reading and writing; they begin at a multiple of ``LARGE_BYTES``.

    Raises:
        OSError: there is no room for them.
    """
    if _libc is None:
        return memoryview(mmap.mmap(fd, size))
    how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    room = mmap.mmap(-1, size + LARGE_BYTES, flags=how)  # for Python's mmap cannot be told where
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    first = -start % LARGE_BYTES
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if _libc.mmap(start + first, size, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, 0) != start + first:
        raise OSError(ctypes.get_errno(), "a file cannot be mapped")
    return memoryview(room)[first : first + size]


class Pages:
    """The pages of this process. Without pagemap every page counts as touched, and nothing can be mapped."""

    def __init__(self) -> None:
        self.size = mmap.PAGESIZE
        self._pagemap = -1
        self._mmap: Any = None
        self._mremap: Any = None
        self._madvise: Any = None
        self._faults: Callable[[], int] = lambda: -1
        self._scans, self._scan = False, bytearray(_SCAN.size)
        self._regions = (ctypes.c_uint64 * (RUNS_MAX * _REGION_FIELDS))()
        if _libc is not None:
            try:
                self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._pagemap)
                self._scans = True
            except OSError:  # not mounted, or hidden: slower, not wrong
                self._pagemap = -1
            self._mmap, self._mremap, self._madvise = _libc.mmap, _libc.mremap, _libc.madvise
            self._faults = _thread_faults

    @property
    def can_tell(self) -> bool:
        """Whether ``touched`` knows more than that everything perhaps was."""
        return self._pagemap >= 0

    def touched(self, address: int, size: int) -> list[tuple[int, int]]:
        """Return the parts of [address, address + size) that were perhaps written, as offsets from ``address``.

        Never leaves out a byte that was written since the memory was fresh or mapped by ``map_file``; may name more.
        """
        first, last = address // self.size, -(-(address + size) // self.size)
        if self._pagemap < 0:
            return [(0, size)]
        if self._scans and (found := self._scanned(first * self.size, last * self.size)) is not None:
            return [(max(0, low - address), min(size, high - address)) for low, high in found]
        entries = os.pread(self._pagemap, (last - first) * _ENTRY_BYTES, first * _ENTRY_BYTES)
        if len(entries) != (last - first) * _ENTRY_BYTES:
            return [(0, size)]
        written = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_WRITTEN)
        runs: list[tuple[int, int]] = []
        start = written.find(1)
        while start >= 0:
            stop = written.find(0, start) if len(runs) < RUNS_MAX else written.rfind(1) + 1
            stop = stop if stop >= 0 else len(written)
            runs.append(
                (max(0, (first + start) * self.size - address), min(size, (first + stop) * self.size - address))
            )
            start = written.find(1, stop)
        return runs

    def _scanned(self, start: int, stop: int) -> list[tuple[int, int]] | None:
        """Return the ranges of addresses that hold pages of no file; None: more than ``RUNS_MAX``, or nobody tells."""
        never, any_of = _FILE | _ZERO_PAGE, _PRESENT | _SWAPPED
        regions = ctypes.addressof(self._regions)
        _SCAN.pack_into(
            self._scan, 0, _SCAN.size, 0, start, stop, 0, regions, RUNS_MAX, 0, never, never, any_of, any_of
        )
        try:
            count = fcntl.ioctl(self._pagemap, PAGEMAP_SCAN, self._scan)
        except OSError:  # an older kernel
            self._scans = False
            return None
        if _SCAN.unpack(self._scan)[_WALK_END] < stop:
            return None
        found = self._regions[: count * _REGION_FIELDS]
        return list(zip(found[::_REGION_FIELDS], found[1::_REGION_FIELDS], strict=True))

    def faults(self) -> int:
        """Return how often this thread had to be given a page so far; -1: unknown.

        The first write to a page of a file that is mapped copy-on-write is such a fault.
        """
        return self._faults()

    def map_file(self, address: int, fd: int, size: int, offset: int = 0) -> bool:
        """Lay a private, copy-on-write view of ``size`` bytes of a file over memory that we own at ``address``.

        Writes stay in this process. The rest of the last page reads as the file does there, beyond its end as zero.

        Returns:
            Whether it was done; if not, the memory is as before.
        """
        if self._mmap is None or (address | offset) % self.size:
            return False
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return bool(self._mmap(address, size, protection, mmap.MAP_PRIVATE | _MAP_FIXED, fd, offset) != _FAILED)

    def forget(self, address: int, size: int) -> bool:
        """Give whole pages back: private memory reads as zeros then, what ``map_file`` laid there as the file.

        Returns:
            Whether it was done; if not, some of them may be as before.
        """
        return self._madvise is not None and self._madvise(address, size, _MADV_DONTNEED) == 0

    def lend(self, shared: int, address: int, size: int) -> bool:
        """Have the pages of a shared mapping, which begin at ``shared``, at ``address`` instead, until ``take_back``.

        Args:
            shared: where they are; nobody must look there before they are back.
            address: memory that we own, private and with nothing in it that is still wanted.
            size: in bytes; all three are multiples of ``size`` of a page.

        Returns:
            Whether it was done; if not, all is as before.
        """
        if self._mremap is None or (shared | address | size) % self.size:
            return False
        if self._mremap(shared, size, size, _MREMAP_FLAGS, address) == address:
            return True
        self.make_private(address, size)  # it may be gone already, to make room
        return False

    def take_back(self, shared: int, address: int, size: int) -> None:
        """Undo ``lend``; what was lent is private memory then, and zeros.

        Raises:
            OSError: it cannot be undone, and this process must not go on with that memory.
        """
        assert self._mremap is not None
        assert self._mmap is not None
        if self._mremap(address, size, size, _MREMAP_FLAGS, shared) != shared:
            raise OSError(ctypes.get_errno(), "lent pages do not come back")
        self.make_private(address, size)

    def make_private(self, address: int, size: int) -> None:
        """Put private memory that reads as zeros in the place of what was mapped there.

        Raises:
            OSError: it cannot be done, and this process must not go on with that memory.
        """
        assert self._mmap is not None
        protection, how = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if self._mmap(address, size, protection, how | _MAP_FIXED | _MAP_NORESERVE, -1, 0) != address:
            raise OSError(ctypes.get_errno(), "no private memory where pages were mapped")

    def use_large(self, address: int, size: int) -> None:
        """Advise the system to give fresh memory in large pages: filling it then costs a fault for each 2 MiB."""
        if self._madvise is not None:
            first, last = -(-address // self.size) * self.size, (address + size) // self.size * self.size
            self._madvise(first, max(last - first, 0), _MADV_HUGEPAGE)  # refused: slower, not wrong


def _thread_faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_minflt + usage.ru_majflt
