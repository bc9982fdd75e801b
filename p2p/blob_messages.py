"""``blobs/2`` on the wire: what is asked, what is answered. PROTOCOL.md, part 6, has the rules."""

import struct
from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Digest, Key, Message, Uint
from depin_node.crypto.blob import BLOB_BYTES_MAX, CHUNK_BYTES, Manifest
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, Signed
from depin_node.p2p.network import PeerKey

BLOBS_PROTOCOL = "blobs/2"
HEAD, CREDIT, WANT, CHUNK, HAVE, PROOF, OTHERS = 4, 5, 6, 7, 8, 9, 10
RAW, ZSTD = 0, 1
ROOTS_MAX = 64
OTHERS_MAX = 16
WANTED_MAX = 64
"""Chunks that one transfer may have asked for and not got."""
HAVE_MAX = 1024
"""Chunks in one ``HAVE``."""
CHUNK_COUNT_MAX = BLOB_BYTES_MAX // CHUNK_BYTES
CHUNK_HEADER = struct.Struct("<IB")
CHUNK_FRAME_BYTES_MAX = CHUNK_HEADER.size + CHUNK_BYTES


class Grant(Signed, frozen=True):
    """The owner of blobs lets the peer ``to`` fetch ``roots``, from itself or from whom it gave them to."""

    TYPE: ClassVar[str] = "grant"
    SIZE_BYTES_MAX: ClassVar[int] = ROOTS_MAX * 34 + 128
    LIFETIME_S_MAX: ClassVar[int] = 24 * 3600

    roots: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=ROOTS_MAX)]


GRANT_BYTES_MAX = Grant.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES


class BlobRequest(Message, frozen=True):
    """Which blob, and by what right.

    With a ``nonce`` (32 bytes) the asker has the blob, and wants only a proof that the holder has it too.
    """

    grant: Annotated[bytes, msgspec.Meta(max_length=GRANT_BYTES_MAX)]
    blob_id: Digest
    size_bytes_max: Uint
    wants_manifest: bool
    nonce: Annotated[bytes, msgspec.Meta(max_length=32)]


class Head(Message, frozen=True):
    """A manifest (``hashes``: 32 bytes a chunk, joined; empty if it was not asked for), and who has what.

    ``have`` has a bit for each chunk that the holder has, the lowest bit of the first byte first; empty: all.
    ``others`` fetch the blob from the holder at this time.
    """

    size: Annotated[int, msgspec.Meta(ge=0, le=BLOB_BYTES_MAX)]
    hashes: bytes
    have: bytes
    others: Annotated[tuple[Key, ...], msgspec.Meta(max_length=OTHERS_MAX)]


REQUEST_BYTES_MAX = GRANT_BYTES_MAX + 128
ASKED_BYTES_MAX = max(REQUEST_BYTES_MAX, 4 * WANTED_MAX)


def head_bytes_max(size_bytes_max: int) -> int:
    """Return the largest ``Head`` of a blob of at most so many bytes, or the largest other answer."""
    count = -(-min(size_bytes_max, BLOB_BYTES_MAX) // CHUNK_BYTES)
    return count * 32 + count // 8 + OTHERS_MAX * 34 + 64


def manifest_of(head: Head, blob_id: bytes, size_bytes_max: int) -> Manifest:
    """Return the manifest in an answer.

    Raises:
        PeerViolation: not that of the blob, or larger than it may be.
    """
    hashes = tuple(head.hashes[at : at + 32] for at in range(0, len(head.hashes), 32))
    manifest = Manifest(head.size, hashes)
    if not manifest.is_consistent() or manifest.blob_id() != blob_id:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: the manifest is not that of the blob")
    if manifest.size > size_bytes_max:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: a blob of {manifest.size} bytes, {size_bytes_max} were allowed")
    return manifest


def pack_have(here: bytearray) -> bytes:
    """Return the bits of ``here`` (one byte a chunk); empty if all are set."""
    if all(here):
        return b""
    bits = sum(1 << index for index, is_here in enumerate(here) if is_here)
    return bits.to_bytes(-(-len(here) // 8), "little")


def unpack_have(have: bytes, count: int) -> bytearray | None:
    """Return one byte a chunk; None: all are there. Raises ``PeerViolation``: bits for another number of chunks."""
    if not have:
        return None
    bits = int.from_bytes(have, "little")
    if len(have) != -(-count // 8) or bits >> count:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: what a holder has does not fit the blob")
    return bytearray(have[index >> 3] >> (index & 7) & 1 for index in range(count))


def unpack_keys(body: bytes | memoryview) -> tuple[PeerKey, ...]:
    """Return the keys of peers in a frame. Raises ``PeerViolation``: none, or too many."""
    if len(body) % 32 or not 0 < len(body) <= 32 * OTHERS_MAX:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: {len(body)} bytes are no list of peers")
    return tuple(bytes(body[at : at + 32]) for at in range(0, len(body), 32))


def pack_indices(indices: Iterable[int]) -> bytes:
    """Return chunk numbers as u32 little-endian, one after the other."""
    return b"".join(index.to_bytes(4, "little") for index in indices)


def unpack_indices(body: bytes | memoryview, count: int, count_max: int) -> list[int]:
    """Return the chunk numbers in a frame.

    Raises:
        PeerViolation: none, too many, or beyond the blob's ``count`` chunks.
    """
    size_bytes = len(body)
    if size_bytes % 4 or not 0 < size_bytes <= 4 * count_max:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: {size_bytes} bytes are no list of chunks")
    indices = [index for (index,) in struct.iter_unpack("<I", body)]
    if max(indices) >= count:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: a chunk beyond the blob's end")
    return indices
