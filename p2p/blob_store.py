"""Blobs on disk: a folder of files, each named by the blob id that its bytes hash to.

The flow: bytes go into a file under ``partial/``, chunk by chunk, hashed on the way; the whole file then moves to its
name, so that a name always stands for a whole blob. Blobs that peers send are there under their ids
(``blob_partial.py``) and stay until they are whole or their room is needed; what else ``partial/`` holds at start is
from a crash, and deleted.
A file that was there at start is verified when it is first used: a power cut may have left a name without its bytes.
With ``durable=True`` bytes and name are on disk before the call returns; that is for what was promised to somebody.

Room: all files together stay within the quota, partial ones at the size that they will have. To make room, partial
blobs that nobody fetches go first, then sparse ones that nobody uses (``blob_sparse.py``), then the blob not used for
longest, never one that is pinned or being read; in the end chunks that came for tasks which have ended. Pins live in
memory: whoever needs a blob over a restart pins it again before it stores others.

File work runs in threads; the index is changed by the trio thread only.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import trio
from blake3 import blake3

from depin_node.core.errors import DepinError, ResourceError
from depin_node.crypto.blob import CHUNK_BYTES, Buffer, Manifest, chunk_hash, chunks
from depin_node.p2p.blob_files import (
    NO_SPACE,
    Remover,
    hash_file,
    id_of,
    map_file,
    read_into,
    read_some,
    write_small,
)
from depin_node.p2p.blob_partial import PartialBlobs
from depin_node.p2p.blob_sparse import SparseBlobs
from depin_node.p2p.blob_writer import BlobWriter

T = TypeVar("T")

_THREADS_MAX = 4
_MANIFESTS_MAX = 4096
_PROVED_AT_ONCE = 64
_DELETED_AT_ONCE_BYTES = 8 << 20
"""In less than a millisecond, where the kernel takes up to half a second for 1 GiB that is in memory."""
_HASHES_MAX = 1 << 18
"""Chunk hashes kept in memory, all manifests together: 256 GiB of blobs, 8 MiB of hashes."""


class ChunkReader(Protocol):
    """Reads chunks of one blob; ``BlobStore.chunk_reader`` makes it."""

    def __call__(self, index: int, into: Buffer, may_wait: bool = True) -> int:
        """Read a chunk into ``into``, in any thread, and return its size.

        Raises:
            BlobMissingError: the blob is gone.
            BlockingIOError: the chunk is not in memory, and it may not wait for the disk.
        """


class BlobMissingError(DepinError):
    """The store does not hold this blob (or no longer, or damaged)."""

    code = "not_found"


@dataclass
class _Held:
    size_bytes: int
    is_verified: bool


class BlobStore:
    """A bounded store of blobs under ``folder``.

    Args:
        folder: made if missing, mode 0700.
        quota_bytes: all blobs and those on their way in together.

    Raises:
        ResourceError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, quota_bytes: int) -> None:
        self.folder = folder
        self.quota_bytes = quota_bytes
        self.used_bytes = 0
        self._partial = folder / "partial"
        self._held: OrderedDict[bytes, _Held] = OrderedDict()  # the longest unused first
        self._pins: Counter[bytes] = Counter()
        self._manifests: OrderedDict[bytes, Manifest] = OrderedDict()
        self._hash_count = 0
        self._threads = trio.CapacityLimiter(_THREADS_MAX)
        self._next_partial = 0
        self._remover = Remover()
        self.partials = PartialBlobs(self, self._partial)
        self.sparse = SparseBlobs(self)
        try:
            self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.used_bytes += self.partials.find()
            for stat, blob_id in sorted(self._found(), key=lambda found: found[0].st_mtime_ns):
                self._held[blob_id] = _Held(stat.st_size, is_verified=False)
                self.used_bytes += stat.st_size
        except OSError as error:
            raise ResourceError(f"{folder}: blobs cannot be kept here: {error}") from error

    def _found(self) -> Iterator[tuple[os.stat_result, bytes]]:
        for file in os.scandir(self.folder):
            blob_id = id_of(file.name)
            if blob_id is not None and file.is_file(follow_symlinks=False):
                yield file.stat(follow_symlinks=False), blob_id

    # Asking

    def __len__(self) -> int:
        return len(self._held)

    def has(self, blob_id: bytes) -> bool:
        """Tell whether the blob is here."""
        return blob_id in self._held

    def size_bytes(self, blob_id: bytes) -> int:
        """Return a blob's size. Raises ``BlobMissingError``."""
        return self._get(blob_id).size_bytes

    def path(self, blob_id: bytes) -> Path:
        """Return where the blob is, or would be; ``verify`` and ``pin`` it before its file is read."""
        return self.folder / blob_id.hex()

    @asynccontextmanager
    async def open(self, blob_id: bytes) -> AsyncIterator[memoryview]:
        """Map a blob into memory, read-only; it is pinned as long as the block runs.

        The mapping lasts as long as something refers to it, even after the block and after the blob is deleted.

        Raises:
            BlobMissingError: not here, or damaged on disk (it is deleted then).
        """
        with self.pinned(blob_id):
            await self.verify(blob_id)
            yield await self._from_file(blob_id, lambda: map_file(self.path(blob_id)))

    async def read(self, blob_id: bytes) -> bytes:
        """Return a blob's bytes. Raises ``BlobMissingError``."""
        async with self.open(blob_id) as view:
            return bytes(view)

    async def read_chunk(self, blob_id: bytes, index: int) -> bytes:
        """Return one chunk. Raises ``BlobMissingError``."""
        await self.verify(blob_id)
        return await self._from_file(blob_id, lambda: read_some(self.path(blob_id), index * CHUNK_BYTES, CHUNK_BYTES))

    def chunk_reader(self, blob_id: bytes) -> ChunkReader:
        """Return what reads a blob's chunks; of a partial blob those that have arrived.

        The blob has been verified, and is pinned or being fetched.
        """
        paths = (self.path(blob_id), self.partials.path(blob_id), self.path(blob_id))  # it may move meanwhile

        def read(index: int, into: Buffer, may_wait: bool = True) -> int:
            for path in paths:
                try:
                    return read_into(path, index * CHUNK_BYTES, into, may_wait)
                except FileNotFoundError:
                    continue
            raise BlobMissingError(f"blob {blob_id.hex()} is not here any more")

        return read

    async def prove(self, blob_id: bytes, nonce: bytes) -> bytes:
        """Return what only who has the blob's bytes can: their BLAKE3 keyed with ``nonce`` (32 bytes).

        Raises:
            BlobMissingError: not here.
        """
        await self.verify(blob_id)
        with self.pinned(blob_id):
            hasher, reader, buffer = blake3(key=nonce), self.chunk_reader(blob_id), bytearray(CHUNK_BYTES)

            def add(first: int) -> None:
                for index in range(first, min(first + _PROVED_AT_ONCE, count)):
                    hasher.update(memoryview(buffer)[: reader(index, buffer)])

            count = -(-self.size_bytes(blob_id) // CHUNK_BYTES)
            for first in range(0, count, _PROVED_AT_ONCE):
                await self.in_thread(lambda at=first: add(at))  # type: ignore[misc]
            return hasher.digest()

    async def manifest(self, blob_id: bytes) -> Manifest:
        """Return the blob's manifest. Raises ``BlobMissingError``."""
        self._get(blob_id)
        cached = self._manifests.get(blob_id)
        if cached is not None:
            self._manifests.move_to_end(blob_id)
            return cached
        with self.pinned(blob_id):
            manifest = await self._from_file(blob_id, lambda: hash_file(self.path(blob_id)))
        if manifest.blob_id() != blob_id:
            self._forget(blob_id)
            raise BlobMissingError(f"blob {blob_id.hex()} was damaged on disk and is deleted")
        self._get(blob_id).is_verified = True
        self._remember(blob_id, manifest)
        return manifest

    def is_whole(self, blob_id: bytes) -> bool:
        """Tell whether this process has seen that the blob is whole; it counts as used now."""
        held = self._held.get(blob_id)
        if held is None or not held.is_verified:
            return False
        self._held.move_to_end(blob_id)
        return True

    async def verify(self, blob_id: bytes) -> None:
        """Make sure that the blob is whole, by hashing it unless this process has; it counts as used now.

        Raises:
            BlobMissingError: not here, or damaged on disk (it is deleted then).
        """
        held = self._get(blob_id)
        self._held.move_to_end(blob_id)
        if not held.is_verified:
            await self.manifest(blob_id)
            await self.in_thread(lambda: os.utime(self.path(blob_id)))  # the order of use outlives this process

    async def _from_file(self, blob_id: bytes, function: Callable[[], T]) -> T:
        try:
            return await self.in_thread(function)
        except FileNotFoundError as error:
            self._forget(blob_id)
            raise BlobMissingError(f"blob {blob_id.hex()} is not here: its file was deleted") from error

    def _get(self, blob_id: bytes) -> _Held:
        held = self._held.get(blob_id)
        if held is None:
            raise BlobMissingError(f"blob {blob_id.hex()} is not here")
        return held

    # Storing

    async def put(self, data: Buffer, *, durable: bool = False) -> bytes:
        """Store ``data`` and return its 32-byte id.

        Raises:
            ResourceError: no room on disk or in the quota; the store is as before.
        """
        (blob_id,) = await self.put_all([data], durable=durable)
        return blob_id

    async def put_all(self, items: Sequence[Buffer], *, durable: bool = False) -> list[bytes]:
        """Store each of ``items`` and return their ids, 32 bytes each; those of one chunk go to a thread together.

        Raises:
            ResourceError: no room on disk or in the quota; some may be stored.
        """
        views = [memoryview(item).cast("B") for item in items]
        small = [view for view in views if 0 < len(view) <= CHUNK_BYTES]
        with ExitStack() as pins:  # none of them makes room for another
            small_ids, ids = iter(await self._put_small(small, durable, pins) if small else ()), list[bytes]()
            for view in views:
                is_small = 0 < len(view) <= CHUNK_BYTES
                ids.append(next(small_ids) if is_small else await self._put_large(view, durable))
                pins.enter_context(self.pinned(ids[-1]))
            return ids

    async def _put_large(self, data: memoryview, durable: bool) -> bytes:
        with self.writer(size_bytes_max=len(data)) as writer:
            await writer.write_whole(data)
            return await writer.finish(durable=durable)

    async def _put_small(self, items: list[memoryview], durable: bool, pins: ExitStack) -> list[bytes]:
        """Store blobs of one chunk. What is here already is not written again, unless it has to be ``durable``."""
        self.reserve(size_bytes := sum(map(len, items)))
        paths, manifests, written = [self.new_path() for _ in items], list[Manifest](), list[Manifest]()

        def write() -> None:
            for path, item in zip(paths, items, strict=True):
                manifest = Manifest(len(item), (chunk_hash(item),))
                held, target = self._held.get(manifest.blob_id()), self.path(manifest.blob_id())
                if durable or held is None or not held.is_verified or not target.exists():
                    write_small(path, target, item, durable)
                    written.append(manifest)
                manifests.append(manifest)

        try:
            await self.in_thread(write)
        finally:
            self.release(size_bytes - sum(manifest.size for manifest in written))
            for manifest in written:
                self.adopt(manifest.blob_id(), manifest)
        ids = [manifest.blob_id() for manifest in manifests]
        for blob_id in ids:
            pins.enter_context(self.pinned(blob_id))
        gone = [item for blob_id, item in zip(ids, items, strict=True) if not self.is_whole(blob_id)]
        if gone:  # they were here, and were dropped meanwhile
            await self._put_small(gone, durable, pins)
        return ids

    async def put_stream(self, pieces: AsyncIterable[Buffer], *, size_bytes_max: int, durable: bool = False) -> bytes:
        """Store what ``pieces`` yields (of any length each) and return its 32-byte id.

        Raises:
            ResourceError: more than ``size_bytes_max``, or no room.
        """
        with self.writer(size_bytes_max=size_bytes_max) as writer:
            waiting = bytearray()
            async for piece in pieces:
                for part in chunks(piece):
                    waiting += part
                    if len(waiting) >= CHUNK_BYTES:
                        await writer.write_chunk(waiting[:CHUNK_BYTES])
                        del waiting[:CHUNK_BYTES]
            if waiting:
                await writer.write_chunk(waiting)
            return await writer.finish(durable=durable)

    @contextmanager
    def writer(self, *, size_bytes_max: int) -> Iterator[BlobWriter]:
        """Open a place for a new blob; it is given up at the end of the block unless it was finished.

        Raises:
            ResourceError: no file can be made.
        """
        with self.disk_errors():
            writer = BlobWriter(self, self.new_path(), size_bytes_max)
        try:
            yield writer
        finally:
            writer.close()

    def new_path(self) -> Path:
        """Return a new name for what has no id yet; what has such a name at start is deleted."""
        self._next_partial += 1
        return self._partial / str(self._next_partial)

    # Room

    def delete(self, blob_id: bytes) -> None:
        """Delete a blob, pinned or not; those who have it open go on reading. Missing is fine."""
        self._forget(blob_id)

    def pin(self, blob_id: bytes) -> None:
        """Keep a blob from being dropped to make room; as often as it is pinned it has to be unpinned."""
        self._pins[blob_id] += 1

    def unpin(self, blob_id: bytes) -> None:
        """Undo one ``pin``."""
        self._pins[blob_id] -= 1
        if self._pins[blob_id] <= 0:
            del self._pins[blob_id]

    @contextmanager
    def pinned(self, blob_id: bytes) -> Iterator[None]:
        """Pin a blob as long as the block runs."""
        self.pin(blob_id)
        try:
            yield
        finally:
            self.unpin(blob_id)

    def discard(self, path: Path, size_bytes: int) -> None:
        """Delete a file, a large one soon; its name is free when this returns. Missing is fine."""
        if size_bytes <= _DELETED_AT_ONCE_BYTES:
            path.unlink(missing_ok=True)
            return
        doomed = self.new_path()
        with suppress(FileNotFoundError):
            path.replace(doomed)
            self._remover.remove(doomed)

    def reserve(self, size_bytes: int) -> None:
        """Count ``size_bytes`` as used, dropping blobs to make room. Raises ``ResourceError``."""
        while len(self.partials) and self.used_bytes + size_bytes > self.quota_bytes:
            self.partials.drop_oldest()
        while len(self.sparse) and self.used_bytes + size_bytes > self.quota_bytes:
            self.sparse.drop_oldest()
        over = self.used_bytes + size_bytes - self.quota_bytes
        if over > 0:
            droppable = [blob_id for blob_id in self._held if not self._pins[blob_id]]
            for blob_id in droppable:
                if over <= 0:
                    break
                over -= self._held[blob_id].size_bytes
                self._forget(blob_id)
        while over > 0 and self.sparse.give_up_chunk():
            over = self.used_bytes + size_bytes - self.quota_bytes
        if over > 0:
            raise ResourceError(
                f"{self.folder}: no room for another {size_bytes} bytes: {self.used_bytes} of {self.quota_bytes} are in"
                " use by jobs; wait for some to end, delete finished ones, or raise the disk quota"
            )
        self.used_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Undo ``reserve``."""
        self.used_bytes -= size_bytes

    def adopt(self, blob_id: bytes, manifest: Manifest) -> None:
        """Note that a file whose room was reserved has got its name."""
        old = self._held.get(blob_id)
        if old is not None:
            self.used_bytes -= old.size_bytes
        self._held[blob_id] = _Held(manifest.size, is_verified=True)
        self._held.move_to_end(blob_id)
        self._remember(blob_id, manifest)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run file work in a thread, once what was dropped to make room is gone.

        Raises:
            ResourceError: the disk is full.
        """

        def run() -> T:
            self._remover.finish()
            return function()

        with self.disk_errors():
            return await trio.to_thread.run_sync(run, limiter=self._threads)

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Raise ``ResourceError`` where the disk is full."""
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE:
                raise ResourceError(f"{self.folder}: the disk is full ({error.strerror}); free some space") from error
            raise

    # Bookkeeping

    def _remember(self, blob_id: bytes, manifest: Manifest) -> None:
        self._drop_manifest(blob_id)
        self._manifests[blob_id] = manifest
        self._hash_count += len(manifest.hashes)
        while len(self._manifests) > 1 and (self._hash_count > _HASHES_MAX or len(self._manifests) > _MANIFESTS_MAX):
            self._drop_manifest(next(iter(self._manifests)))

    def _drop_manifest(self, blob_id: bytes) -> None:
        manifest = self._manifests.pop(blob_id, None)
        if manifest is not None:
            self._hash_count -= len(manifest.hashes)

    def _forget(self, blob_id: bytes) -> None:
        held = self._held.pop(blob_id, None)
        if held is not None:
            self.used_bytes -= held.size_bytes
            self._drop_manifest(blob_id)
            self.discard(self.path(blob_id), held.size_bytes)
