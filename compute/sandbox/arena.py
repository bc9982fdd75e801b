"""A file in memory that a worker writes large results into and the node reads them from."""

import mmap
import os
import tempfile
from bisect import bisect_left

from depin_node.compute.sandbox.messages import PROGRESS, PROGRESS_PAGE_BYTES


def memory_file(name: str, size: int) -> int:
    """Return the descriptor of a new file of ``size`` zeros that has no name and, where possible, no disk.

    Raises:
        OSError: no descriptor or no space.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:
        fd, path = tempfile.mkstemp(prefix=name)
        os.unlink(path)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Arena:
    """First-fit allocation of whole pages after the progress page; memory is taken when written, and kept for reuse.

    Who makes it closes ``fd``; what was handed out stays readable as long as somebody holds it.
    """

    def __init__(self, capacity_bytes: int) -> None:
        pages = -(-capacity_bytes // mmap.PAGESIZE)
        self.size = PROGRESS_PAGE_BYTES + pages * mmap.PAGESIZE
        self.fd = memory_file("depin-arena", self.size)
        self.view = memoryview(mmap.mmap(self.fd, self.size))
        self._free = [(PROGRESS_PAGE_BYTES, self.size)]  # sorted, apart from each other

    def take(self, size: int) -> int | None:
        """Return the offset of ``size`` free bytes, or None if there is no such gap now."""
        need = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        for position, (start, stop) in enumerate(self._free):
            if stop - start >= need:
                self._free[position : position + 1] = [(start + need, stop)] if stop - start > need else []
                return start
        return None

    def give_back(self, start: int, size: int) -> None:
        """Free what ``take(size)`` returned."""
        stop = start + -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        position = bisect_left(self._free, (start, stop))
        if position < len(self._free) and self._free[position][0] == stop:
            stop = self._free.pop(position)[1]
        if position and self._free[position - 1][1] == start:
            position -= 1
            start = self._free.pop(position)[0]
        self._free.insert(position, (start, stop))

    def progress(self) -> tuple[int, int]:
        """Return how many tasks the worker has started and finished since it loaded."""
        started, finished = PROGRESS.unpack_from(self.view)
        return started, finished

    def reset_progress(self) -> None:
        """Begin again with a new worker."""
        PROGRESS.pack_into(self.view, 0, 0, 0)
