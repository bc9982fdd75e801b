"""A blob of which some chunks are here: they may come in any order, from anybody, and be served on at once.

The flow: ``BlobStore.partial`` opens the file, as large as the blob will be, beside its manifest. Each chunk is checked
against the manifest before it is written. When all are there, ``finish`` gives the file its name. What is not finished
stays on disk, also over a crash: nothing on disk says which chunks are good, they are all hashed again when the blob is
wanted again, so that a power cut cannot leave a wrong one behind.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES, Buffer, Manifest, chunk_hash
from depin_node.p2p.blob_files import write_at

T = TypeVar("T")

_HASHED_AT_ONCE = 64


class Arrivals:
    """The chunks that are here, in the order in which they came; whoever serves them follows it by position."""

    def __init__(self, chunk_count: int) -> None:
        self.here = bytearray(chunk_count)
        """One byte a chunk: 1 if it is here."""
        self.order: list[int] = []
        self.total = 0
        """How many have come, with those that are not here any more."""
        self.listeners: set[Callable[[], None]] = set()
        """Called whenever a chunk has come."""

    def add(self, index: int) -> None:
        """A chunk was checked and written."""
        self.here[index] = 1
        self.order.append(index)
        self.total += 1
        for listener in self.listeners:
            listener()

    def forget(self, index: int) -> None:
        """A chunk is not here any more."""
        self.here[index] = 0
        self.order.remove(index)


class Keeper(Protocol):
    """What a partial blob needs of its store."""

    def reserve(self, size_bytes: int) -> None:
        """Count bytes as used. Raises ``ResourceError``."""

    def release(self, size_bytes: int) -> None:
        """Undo ``reserve``."""

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run file work in a thread."""

    def disk_errors(self) -> AbstractContextManager[None]:
        """Raise ``ResourceError`` where the disk is full."""

    async def keep(self, partial: "PartialBlob", *, durable: bool) -> None:
        """Give a whole blob its name."""


class PartialBlob:
    """One blob on its way in; ``BlobStore.partial`` makes it with all chunks ``wanted``, ``SparseBlobs`` with none.

    ``needless`` has one byte a chunk: 1 if it is here, or not wanted.
    """

    def __init__(
        self, store: Keeper, blob_id: bytes, manifest: Manifest, path: Path, fd: int, *, wanted: bool = True
    ) -> None:
        count = len(manifest.hashes)
        self.blob_id = blob_id
        self.manifest = manifest
        self.path = path
        self.arrivals = Arrivals(count)
        self.needless = bytearray(count) if wanted else bytearray(b"\1" * count)
        self._missing = count if wanted else 0
        self._store = store
        self._fd = fd

    @property
    def is_complete(self) -> bool:
        """Whether all chunks that are wanted are here."""
        return not self._missing

    @property
    def is_whole(self) -> bool:
        """Whether all chunks are here."""
        return len(self.arrivals.order) == len(self.manifest.hashes)

    def size_of(self, index: int) -> int:
        """Return the size of a chunk in bytes."""
        return min(CHUNK_BYTES, self.manifest.size - index * CHUNK_BYTES)

    def write(self, index: int, chunk: Buffer) -> None:
        """Check a chunk and write it, in a thread; ``arrived`` has to be told.

        Raises:
            PeerViolation: not the chunk that the manifest names; nothing was written.
            ResourceError: the disk is full.
        """
        if chunk_hash(chunk) != self.manifest.hashes[index]:
            raise PeerViolation(f"chunk {index} is not the one that the blob's manifest names")
        with self._store.disk_errors():
            write_at(self._fd, chunk, index * CHUNK_BYTES)

    def arrived(self, index: int) -> bool:
        """Note that a chunk has been written; return whether it is new."""
        is_new = not self.arrivals.here[index]
        if is_new:
            self._missing -= not self.needless[index]
            self.needless[index] = 1
            self.arrivals.add(index)
        return is_new

    async def find_chunks(self) -> None:
        """Hash what a broken fetch has left, and note the chunks that are good."""
        count = len(self.manifest.hashes)
        for first in range(0, count, _HASHED_AT_ONCE):
            good = await self._store.in_thread(lambda at=first: self._good(at, min(at + _HASHED_AT_ONCE, count)))  # type: ignore[misc]
            for index in good:
                self.arrived(index)

    def _good(self, first: int, end: int) -> list[int]:
        hashes = self.manifest.hashes
        return [
            index
            for index in range(first, end)
            if chunk_hash(os.pread(self._fd, CHUNK_BYTES, index * CHUNK_BYTES)) == hashes[index]
        ]

    async def finish(self, *, durable: bool = False) -> None:
        """Give the blob its name; all its chunks are here.

        Raises:
            ResourceError: the disk is full.
        """
        assert self.is_whole
        if durable:
            await self._store.in_thread(lambda: os.fsync(self._fd))
        await self._store.keep(self, durable=durable)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
