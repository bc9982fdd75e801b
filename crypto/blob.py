"""The ids of blobs: ``BLAKE3(label ‖ size ‖ the BLAKE3 of each 1 MiB chunk)``.

A receiver asks for the manifest first, checks it against the id, and can then verify each chunk as it arrives, from
whichever peer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

_LABEL = b"depin/blob/v1\0"
CHUNK_BYTES = 1 << 20
BLOB_BYTES_MAX = 1 << 36

Buffer = bytes | bytearray | memoryview


def chunk_hash(chunk: Buffer) -> bytes:
    """Return the 32-byte hash of one chunk."""
    return blake3(chunk).digest()


def chunks(data: Buffer) -> Iterator[memoryview]:
    """Cut ``data`` into chunks of ``CHUNK_BYTES``, the last one shorter; empty data has none."""
    view = memoryview(data).cast("B")
    for start in range(0, len(view), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]


@dataclass(frozen=True)
class Manifest:
    """A blob's size in bytes and the hashes of its chunks, in order."""

    size: int
    hashes: tuple[bytes, ...]

    def blob_id(self) -> bytes:
        """Return the 32-byte id."""
        return blake3(_LABEL + self.size.to_bytes(8, "little") + b"".join(self.hashes)).digest()

    def is_consistent(self) -> bool:
        """Tell whether the number and length of the hashes fit the size."""
        count = -(-self.size // CHUNK_BYTES)
        return (
            0 <= self.size <= BLOB_BYTES_MAX
            and len(self.hashes) == count
            and all(len(digest) == 32 for digest in self.hashes)
        )


def manifest(data: Buffer) -> Manifest:
    """Hash ``data``, any contiguous buffer."""
    return Manifest(memoryview(data).nbytes, tuple(chunk_hash(chunk) for chunk in chunks(data)))


def blob_id(data: Buffer) -> bytes:
    """Return the 32-byte id of ``data``, any contiguous buffer."""
    view = memoryview(data).cast("B")  # of whatever elements it was: BLAKE3 takes bytes only
    size = len(view)
    if size > CHUNK_BYTES:
        return manifest(view).blob_id()
    return blake3(_LABEL + size.to_bytes(8, "little") + (blake3(view).digest() if size else b"")).digest()
