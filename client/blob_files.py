"""Files as blobs of the node, sealed for certain peers or not.

Sealing and opening happen in this process: the node's store only ever has the sealed form. The key that opens is the
node's own, read from its data directory.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.text import printable
from depin_node.crypto import identity as identities
from depin_node.crypto import sealing
from depin_node.crypto.blob import CHUNK_BYTES

if TYPE_CHECKING:
    from depin_node.client.api import Control


def put_file(control: "Control", path: Path, seal_for: Sequence[bytes]) -> bytes:
    """Put a file, of any size, into the node, and return the id of the blob.

    Args:
        control: the node.
        path: the file.
        seal_for: keys of the peers that alone can read it; empty: it is put as it is.

    Raises:
        ConfigError: the file cannot be read, or a peer cannot be sealed for.
        ResourceError: the node has no room.
    """
    try:
        with path.open("rb") as file:
            if not seal_for:
                return _put(control, file)
            with tempfile.TemporaryFile() as sealed:
                for part in sealing.seal(_chunks(file), seal_for):
                    sealed.write(part)
                sealed.flush()
                return _put(control, sealed)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _put(control: "Control", file: IO[bytes]) -> bytes:
    if os.fstat(file.fileno()).st_size == 0:
        return control.put_blob(b"", for_an_hour=True)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        return control.put_blob(view, for_an_hour=True)


def get_file(control: "Control", blob_id: str, path: Path, *, as_it_is: bool = False) -> int:
    """Write a blob of the node to a file, opened if it is sealed for this node; return the file's size in bytes.

    Nothing is left at ``path`` unless all of it was right.

    Raises:
        NotFoundError: the node does not have it.
        ConfigError: no blob id; or it is sealed for other peers, or damaged; or the file cannot be written.
    """
    digest = _digest(blob_id)
    parts = control.blob_parts(digest)
    first = next(parts, b"")
    while len(first) < len(sealing.MAGIC) and (more := next(parts, b"")):
        first += more
    whole = _chain(first, parts)
    if sealing.is_sealed(first) and not as_it_is:
        whole = sealing.open_sealed(whole, identities.load(control.data_dir.identity))
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                size_bytes = sum(file.write(part) for part in whole)
                file.flush()
                os.replace(file.name, path)
            except BaseException:  # whatever it was: nothing half is left behind; raised again
                os.unlink(file.name)
                raise
    except PeerViolation as error:
        raise ConfigError(f"blob {blob_id}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
    return size_bytes


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _digest(blob_id: str) -> bytes:
    try:
        digest = bytes.fromhex(blob_id)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ConfigError(f"{printable(blob_id, length_max=80)!r} is no blob id: it has 64 hex digits")
    return digest
