"""A new blob on its way into the store, chunk by chunk; its id is what comes out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from depin_node.core.errors import ResourceError
from depin_node.crypto.blob import CHUNK_BYTES, Buffer, Manifest, chunk_hash, chunks
from depin_node.p2p.blob_files import allocate, rename, write_at
from depin_node.p2p.together import together

if TYPE_CHECKING:
    from depin_node.p2p.blob_store import BlobStore

_AT_ONCE_BYTES = 32 << 20
"""Of data that are all here: hashed and written before anybody can stop it."""
_PREALLOCATED_BYTES = 32 << 20
"""Files grow by so much: writing into room that is there takes a fifth of the time."""


class BlobWriter:
    """A new blob on its way in, whose id is what comes out. ``BlobStore.writer`` makes it; unless ``finish`` is called,
    nothing stays.
    """

    def __init__(self, store: "BlobStore", path: Path, size_bytes_max: int) -> None:
        self._store = store
        self._path = path
        self._size_bytes_max = size_bytes_max
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hashes: list[bytes] = []
        self._size_bytes = 0
        self._allocated_bytes = 0
        self._has_name = False

    async def write_chunk(self, chunk: Buffer) -> None:
        """Append the next chunk: ``CHUNK_BYTES``, or fewer for the last.

        Raises:
            ResourceError: no room on disk or in the quota.
        """
        size_bytes = memoryview(chunk).nbytes
        if self._size_bytes % CHUNK_BYTES or not 0 < size_bytes <= CHUNK_BYTES:
            raise ValueError("only the last chunk of a blob may be short")
        if self._size_bytes + size_bytes > self._size_bytes_max:
            raise ResourceError(f"a blob grew beyond the {self._size_bytes_max} bytes allowed for it")
        self._store.reserve(size_bytes)
        written = False
        try:
            digest = await self._store.in_thread(lambda: self._hash_and_write(chunk))
            written = True
        finally:
            if not written:
                self._store.release(size_bytes)
        self._hashes.append(digest)
        self._size_bytes += size_bytes

    async def write_whole(self, data: memoryview) -> None:
        """Append all that the blob has, which is here: one thread writes it while another hashes it.

        Raises:
            ResourceError: no room on disk or in the quota.
        """
        for start in range(0, len(data), _AT_ONCE_BYTES):
            part = data[start : start + _AT_ONCE_BYTES]
            self._store.reserve(len(part))
            written = False
            try:
                hashes = await self._write_and_hash(part)
                written = True
            finally:
                if not written:
                    self._store.release(len(part))
            self._hashes += hashes
            self._size_bytes += len(part)

    async def _write_and_hash(self, part: memoryview) -> list[bytes]:
        hashes: list[bytes] = []
        in_thread = self._store.in_thread
        await together(
            lambda: in_thread(lambda: self._write(part)),
            lambda: in_thread(lambda: hashes.extend(map(chunk_hash, chunks(part)))),
        )
        return hashes

    def _hash_and_write(self, chunk: Buffer) -> bytes:
        digest = chunk_hash(chunk)
        self._write(chunk)
        return digest

    def _write(self, data: Buffer) -> None:
        end = self._size_bytes + memoryview(data).nbytes
        if end > self._allocated_bytes and self._size_bytes_max > CHUNK_BYTES:
            self._allocated_bytes = min(end + _PREALLOCATED_BYTES, self._size_bytes_max)
            try:
                allocate(self._fd, self._size_bytes, self._allocated_bytes)
            except OSError:  # there is no room for all that may come; for what does, there may be
                os.ftruncate(self._fd, self._size_bytes)
                self._allocated_bytes = self._size_bytes_max
        write_at(self._fd, data, self._size_bytes)

    async def finish(self, *, durable: bool = False) -> bytes:
        """Give the blob its name and return its 32-byte id.

        Raises:
            ResourceError: the disk is full.
        """
        manifest = Manifest(self._size_bytes, tuple(self._hashes))
        blob_id = manifest.blob_id()
        await self._store.in_thread(lambda: self._move(self._store.path(blob_id), durable))
        self._store.adopt(blob_id, manifest)
        self._size_bytes = 0  # the room belongs to the blob now
        return blob_id

    def _move(self, target: Path, durable: bool) -> None:
        if self._allocated_bytes:
            os.ftruncate(self._fd, self._size_bytes)
        if durable:
            os.fsync(self._fd)
        rename(self._path, target, durable)
        self._has_name = True

    def close(self) -> None:
        """Give up what is not finished."""
        os.close(self._fd)
        self._store.release(self._size_bytes)
        if not self._has_name:
            self._store.discard(self._path, self._size_bytes)
