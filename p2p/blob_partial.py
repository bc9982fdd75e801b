"""Blobs of which some chunks are here: they may come in any order, from anybody, and be served on at once.

The flow: ``PartialBlobs.open`` opens the file, as large as the blob will be, beside its manifest. Each chunk is checked
against the manifest before it is written. When all are there, ``finish`` gives the file its name. What is not finished
stays on disk, also over a crash: nothing on disk says which chunks are good, they are all hashed again when the blob is
wanted again, so that a power cut cannot leave a wrong one behind.
"""

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES, Buffer, Manifest, chunk_hash
from depin_node.p2p.blob_files import (
    MANIFEST_SUFFIX,
    id_of,
    load_manifest,
    manifest_path,
    open_partial,
    rename,
    write_at,
)

T = TypeVar("T")

_HASHED_AT_ONCE = 64
_LEFT_MAX = 256
"""Blobs kept that nobody fetches."""


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


class Store(Protocol):
    """What blobs that are not whole need of their store."""

    def new_path(self) -> Path:
        """Return a name for a new file."""

    def path(self, blob_id: bytes) -> Path:
        """Return where a whole blob is."""

    def has(self, blob_id: bytes) -> bool:
        """Tell whether a whole blob is here."""

    def reserve(self, size_bytes: int) -> None:
        """Count bytes as used. Raises ``ResourceError``."""

    def release(self, size_bytes: int) -> None:
        """Undo ``reserve``."""

    def adopt(self, blob_id: bytes, manifest: Manifest) -> None:
        """Note that a file whose room was reserved has got its name."""

    def discard(self, path: Path, size_bytes: int) -> None:
        """Delete a file."""

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run file work in a thread."""

    def disk_errors(self) -> AbstractContextManager[None]:
        """Raise ``ResourceError`` where the disk is full."""


class PartialBlob:
    """One blob on its way in; ``PartialBlobs`` makes it with all chunks ``wanted``, ``SparseBlobs`` with none.

    ``needless`` has one byte a chunk: 1 if it is here, or not wanted.
    """

    def __init__(
        self, store: Store, blob_id: bytes, manifest: Manifest, path: Path, fd: int, *, wanted: bool = True
    ) -> None:
        count = len(manifest.hashes)
        self.blob_id = blob_id
        self.manifest = manifest
        self.path = path
        self.arrivals = Arrivals(count)
        self.needless = bytearray(count) if wanted else bytearray(b"\1" * count)
        self.has_name = False
        """Whether it is whole, and the store's."""
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

        def move() -> None:
            if durable:
                os.fsync(self._fd)
            rename(self.path, self._store.path(self.blob_id), durable)

        await self._store.in_thread(move)
        self._store.adopt(self.blob_id, self.manifest)
        self.has_name = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class PartialBlobs:
    """Those of a store, each a file in ``folder``, named by the blob's id. ``BlobStore`` has one of these."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._left: OrderedDict[bytes, int] = OrderedDict()  # sizes; the longest unused first
        self._open: dict[bytes, PartialBlob] = {}

    def find(self) -> int:
        """Find those that can go on, the newest ones, and return their size; delete what else a crash has left here."""
        found: list[tuple[int, bytes, int]] = []
        for file in list(self._folder.iterdir()):
            blob_id = id_of(file.name.removesuffix(MANIFEST_SUFFIX))
            if blob_id is None:
                file.unlink()
            elif file.name.endswith(MANIFEST_SUFFIX):
                manifest = load_manifest(file, blob_id)
                if manifest is not None and file.with_suffix("").exists():
                    found.append((file.stat().st_mtime_ns, blob_id, manifest.size))
        self._left.update((blob_id, size_bytes) for _, blob_id, size_bytes in sorted(found)[-_LEFT_MAX:])
        for file in list(self._folder.iterdir()):
            if id_of(file.name.removesuffix(MANIFEST_SUFFIX)) not in self._left:
                file.unlink()
        return sum(self._left.values())

    def __len__(self) -> int:
        """Return how many nobody fetches."""
        return len(self._left)

    def drop_oldest(self) -> None:
        """Delete what was not fetched for longest."""
        self._drop(next(iter(self._left)))

    def path(self, blob_id: bytes) -> Path:
        """Return where a blob is, or would be."""
        return self._folder / blob_id.hex()

    @asynccontextmanager
    async def open(self, blob_id: bytes, manifest: Manifest) -> AsyncIterator[PartialBlob]:
        """Open a blob that peers send, with what an earlier try has left of it; one at a time for each blob.

        What is not finished stays for the next try, unless no chunk of it came.

        Raises:
            ResourceError: no room on disk or in the quota.
        """
        store, path = self._store, self.path(blob_id)
        if self._left.pop(blob_id, None) is None:
            store.reserve(manifest.size)  # all of it now: else two half blobs could wait for each other's room
        partial: PartialBlob | None = None
        try:
            fd, is_new = await store.in_thread(lambda: open_partial(path, manifest))
            partial = self._open[blob_id] = PartialBlob(store, blob_id, manifest, path, fd)
            if not is_new:
                await partial.find_chunks()
            yield partial
        finally:
            self._open.pop(blob_id, None)
            if partial is not None:
                partial.close()
            if partial is not None and partial.has_name:  # the room belongs to the blob now
                manifest_path(path).unlink(missing_ok=True)
            else:
                self._left[blob_id] = manifest.size
                if store.has(blob_id) or partial is None or not partial.arrivals.order:
                    self._drop(blob_id)
            while len(self) > _LEFT_MAX:
                self.drop_oldest()

    async def left(self, blob_id: bytes) -> Manifest | None:
        """Return the manifest of a blob of which an earlier try has left something."""
        if blob_id not in self._left:
            return None
        return await self._store.in_thread(lambda: load_manifest(manifest_path(self.path(blob_id)), blob_id))

    def coming(self, blob_id: bytes) -> PartialBlob | None:
        """Return a blob that is being fetched."""
        return self._open.get(blob_id)

    def _drop(self, blob_id: bytes) -> None:
        size_bytes, path = self._left.pop(blob_id), self.path(blob_id)
        self._store.release(size_bytes)
        manifest_path(path).unlink(missing_ok=True)
        self._store.discard(path, size_bytes)
