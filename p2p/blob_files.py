"""What is done to the files of blobs (``blob_store.py``), in threads."""

import ctypes
import errno
import mmap
import os
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Condition

import trio

from depin_node.crypto.blob import BLOB_BYTES_MAX, CHUNK_BYTES, Buffer, Manifest, chunk_hash

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MANIFEST_SUFFIX = ".manifest"
_ID_DIGITS = 64
_SIZE_BYTES = 8
_MANIFEST_BYTES_MAX = _SIZE_BYTES + BLOB_BYTES_MAX // CHUNK_BYTES * 32
ALLOCATED_BYTES_MIN = 128 << 10
"""Small blobs that are this large have their room found beforehand: writing 1 MiB takes a fifth less, then."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_LIBC = ctypes.CDLL(None)
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
"""Linux only: elsewhere nobody can tell whether a read would wait for the disk."""


def id_of(name: str) -> bytes | None:
    """Return the blob id that a file is named by; None: it is not ours."""
    if len(name) != _ID_DIGITS:
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None


def manifest_path(path: Path) -> Path:
    """Return where the manifest of a partial blob is."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


def open_partial(path: Path, manifest: Manifest) -> tuple[int, bool]:
    """Return the open file, and whether there is nothing in it yet."""
    is_new, goes_on = not path.exists(), len(manifest.hashes) > 1  # of a single chunk nothing can be half here
    if is_new and goes_on:
        save_manifest(manifest_path(path), manifest)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if goes_on:
            os.ftruncate(fd, manifest.size)
            allocate(fd, 0, manifest.size)
    except BaseException:  # whatever it was: the descriptor is let go; raised again
        os.close(fd)
        raise
    return fd, is_new


def open_sparse(path: Path, size_bytes: int, *, is_new: bool) -> int:
    """Return the open file, which has holes where nothing was written. Raises ``FileNotFoundError`` if it is not new
    and gone."""
    with ExitStack() as undo:
        fd = os.open(path, os.O_RDWR | (os.O_CREAT if is_new else 0) | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        undo.callback(os.close, fd)
        os.ftruncate(fd, size_bytes)
        undo.pop_all()
    return fd


def allocate(fd: int, start: int, end: int) -> None:
    """Have the file system find the room beforehand, where it can."""
    if end > start and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, start, end - start)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise


def punch(fd: int, start: int, size_bytes: int) -> bool:
    """Give the room of a part of a file back: it reads as zeros then. False: it cannot be done here.

    ``fallocate`` of Linux, which Python has no name for (include/uapi/linux/falloc.h). Up to a millisecond for 1 MiB.
    """
    fallocate = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)
    if fallocate is None:
        return False
    offset, length = ctypes.c_int64(start), ctypes.c_int64(size_bytes)
    result: int = fallocate(ctypes.c_int(fd), ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE), offset, length)
    return result == 0


def rename(path: Path, target: Path, durable: bool) -> None:
    """Give a file its name; ``durable``: the name is on disk when this returns."""
    os.replace(path, target)
    if durable:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_into(path: Path, offset: int, into: Buffer, may_wait: bool) -> int:
    """Read a chunk, or what there is of one, and return its size.

    Raises:
        BlockingIOError: the chunk is not in memory, and it may not wait for the disk.
    """
    view, fd = memoryview(into)[:CHUNK_BYTES], os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if may_wait:
            return os.preadv(fd, [view], offset)
        if _NOWAIT is None:
            raise BlockingIOError
        count = os.preadv(fd, [view], offset, _NOWAIT)
        if count < min(len(view), os.fstat(fd).st_size - offset):
            raise BlockingIOError
        return count
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # a file system that cannot tell
            raise BlockingIOError from error
        raise
    finally:
        os.close(fd)


def map_file(path: Path) -> memoryview:
    """Map a file into memory, read-only."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_some(path: Path, offset: int, size_bytes: int) -> bytes:
    """Return up to so many bytes of a file."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size_bytes, offset)


def hash_file(path: Path) -> Manifest:
    """Return the manifest of what is in a file."""
    hashes, size_bytes = [], 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            hashes.append(chunk_hash(chunk))
            size_bytes += len(chunk)
    return Manifest(size_bytes, tuple(hashes))


class Remover:
    """Deletes files in a thread, one after the other."""

    def __init__(self) -> None:
        self._waiting: deque[Path] = deque()
        self._is_at_work = False
        self._changed = Condition()

    def remove(self, path: Path) -> None:
        """Have a file deleted soon; missing is fine."""
        with self._changed:
            self._waiting.append(path)
            if self._is_at_work:
                return
            self._is_at_work = True
        trio.lowlevel.start_thread_soon(self._work, lambda _: None)

    def finish(self) -> None:
        """In a thread: wait until all is deleted."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_at_work)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._is_at_work = False
                    self._changed.notify_all()
                    return
                path = self._waiting.popleft()
            with suppress(OSError):  # it is gone; or it stays until the store is opened again
                path.unlink()


def write_at(fd: int, data: Buffer, offset: int) -> None:
    """Write all of ``data`` at ``offset``."""
    view = memoryview(data).cast("B")
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def write_small(path: Path, target: Path, data: Buffer, durable: bool) -> None:
    """Write a blob of one chunk to ``path``, and give it its name."""
    with ExitStack() as undo:  # nothing half is left behind; what has its name is not looked for any more
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(path.unlink, missing_ok=True)
        try:
            if memoryview(data).nbytes >= ALLOCATED_BYTES_MIN:
                allocate(fd, 0, memoryview(data).nbytes)
            write_at(fd, data, 0)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        rename(path, target, durable)
        undo.pop_all()


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest beside its partial blob; a torn one is found when it is read."""
    path.write_bytes(manifest.size.to_bytes(_SIZE_BYTES, "little") + b"".join(manifest.hashes))


def load_manifest(path: Path, blob_id: bytes) -> Manifest | None:
    """Read a manifest; None if it is not there, or not that of the blob."""
    try:
        with path.open("rb") as file:
            data = file.read(_MANIFEST_BYTES_MAX + 1)
    except OSError:
        return None
    hashes = tuple(data[at : at + 32] for at in range(_SIZE_BYTES, len(data), 32))
    manifest = Manifest(int.from_bytes(data[:_SIZE_BYTES], "little"), hashes)
    return manifest if manifest.is_consistent() and manifest.blob_id() == blob_id else None
