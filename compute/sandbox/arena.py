"""Files that a node and its worker share: the inputs, and the arena that large results go through."""

import mmap
import os
import tempfile
from bisect import bisect_left
from pathlib import Path

from depin_node.compute.devices.pages import LARGE_BYTES, map_shared
from depin_node.compute.sandbox.messages import PROGRESS, PROGRESS_PAGE_BYTES
from depin_node.core.errors import TaskRejected

InputSource = bytes | bytearray | memoryview | Path
"""The bytes of an input, or a file of just these bytes that will not change."""


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
    except BaseException:  # whatever it was: no descriptor is left behind; raised again
        os.close(fd)
        raise
    return fd


def open_input(source: InputSource, name: str, size: int) -> int:
    """Return the descriptor of a file with an input's bytes: the file itself, or a new one in memory.

    Raises:
        TaskRejected: it does not have the ``size`` of its array, called ``name``.
        OSError: it cannot be read, or there is no room for it.
    """
    if isinstance(source, Path):
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    else:
        fd = _copy(memoryview(source).cast("B"))
    if (found := os.fstat(fd).st_size) != size:
        os.close(fd)
        raise TaskRejected(f"input {name} has {found} bytes, its array {size}")
    return fd


def _copy(data: memoryview) -> int:
    fd = memory_file("depin-input", len(data))
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], done)
    except BaseException:  # whatever it was: no descriptor is left behind; raised again
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
        self.view = map_shared(self.fd, self.size)
        self._free = [(PROGRESS_PAGE_BYTES, self.size)]  # sorted, apart from each other

    def take(self, size: int, like: int | None = None) -> int | None:
        """Return the offset of ``size`` free bytes, or None if there is no such gap now.

        ``like``: an address that it agrees with modulo ``LARGE_BYTES`` (to whole pages), if there is such a gap.
        """
        need = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        for position, (start, stop) in enumerate(self._free):
            skip = 0 if like is None else (like - start) % LARGE_BYTES // mmap.PAGESIZE * mmap.PAGESIZE
            place = start + skip
            if stop - place >= need:
                rest = ((start, place), (place + need, stop))
                self._free[position : position + 1] = [gap for gap in rest if gap[0] < gap[1]]
                return place
        return None if like is None else self.take(size)

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
