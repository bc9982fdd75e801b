"""``blobs/1``: one blob, or the rest of one, over one stream. Both ends; who may have it is ``blobs.py``'s business.

The flow: the asker sends a ``BlobRequest``. The holder answers with ``REFUSE`` and a code, or with the manifest (if
asked for), then the chunks from ``first_chunk`` on, in pieces of ``PIECE_BYTES``, and ends its side. The asker checks
the manifest against the id and each chunk against the manifest, while the next chunk comes in.

Credit: the holder sends only what it has credit for, since a yamux write fails after five seconds of a full window and
since other streams of the connection have to get through. The asker gives ``WINDOW_BYTES_MIN`` with its request and
more as pieces arrive; its window doubles as long as a whole one passes within a few round trips (``Window``).
"""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import trio

from depin_node.core.errors import DepinError, PeerViolation, TransportError
from depin_node.core.wire import Digest, Message, Uint, decode, encode
from depin_node.crypto.blob import BLOB_BYTES_MAX, CHUNK_BYTES, Manifest
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, Signed
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_store import BlobStore, BlobWriter
from depin_node.p2p.frames import ASK, REFUSE, Frame, FrameReader, RequestRefusedError, send_frames
from depin_node.p2p.network import Stream

BLOBS_PROTOCOL = "blobs/1"
MANIFEST, PIECE, CREDIT = 4, 5, 6
PIECE_BYTES = 256 * 1024
WINDOW_BYTES_MIN = 512 * 1024
WINDOW_BYTES_MAX = 8 * 1024 * 1024
ROOTS_MAX = 64
_CHUNKS_WAITING_MAX = 2
_CREDIT = struct.Struct("<I")


class Grant(Signed, frozen=True):
    """The owner of blobs lets the peer ``to`` fetch ``roots``, from itself or from whom it gave them to."""

    TYPE: ClassVar[str] = "grant"
    SIZE_BYTES_MAX: ClassVar[int] = ROOTS_MAX * 34 + 128
    LIFETIME_S_MAX: ClassVar[int] = 24 * 3600

    roots: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=ROOTS_MAX)]


GRANT_BYTES_MAX = Grant.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES


class BlobRequest(Message, frozen=True):
    """Which blob, by what right, from which chunk on, and how many bytes may come before more credit."""

    grant: Annotated[bytes, msgspec.Meta(max_length=GRANT_BYTES_MAX)]
    blob_id: Digest
    size_bytes_max: Uint
    wants_manifest: bool
    first_chunk: Annotated[int, msgspec.Meta(ge=0, le=BLOB_BYTES_MAX // CHUNK_BYTES)]
    credit_bytes: Annotated[int, msgspec.Meta(ge=PIECE_BYTES, le=WINDOW_BYTES_MAX)]


class ManifestMessage(Message, frozen=True):
    """A manifest; ``hashes`` are 32 bytes a chunk, joined."""

    size: Annotated[int, msgspec.Meta(ge=0, le=BLOB_BYTES_MAX)]
    hashes: bytes


REQUEST_BYTES_MAX = GRANT_BYTES_MAX + 128


class Window:
    """How much may be under way, grown to fit the path: the asker's side.

    Twice the window whenever a whole one arrived within four round trips: then waiting for credit, not the path, set
    the pace.
    """

    def __init__(self, round_trip_s: float) -> None:
        self.size_bytes = WINDOW_BYTES_MIN
        self._round_trip_s = round_trip_s
        self._under_way = WINDOW_BYTES_MIN
        self._since_s: float | None = None
        self._arrived = 0

    def arrived(self, size_bytes: int, now_s: float) -> int:
        """Note that a piece arrived; return how much credit to give now (0: not yet).

        Raises:
            PeerViolation: the holder sent more than it had credit for.
        """
        self._under_way -= size_bytes
        if self._under_way < 0:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: more bytes than there was credit for")
        self._arrived += size_bytes
        if self._since_s is None:
            self._since_s, self._arrived = now_s, 0
        elif self._arrived >= self.size_bytes:
            if now_s - self._since_s < 4 * self._round_trip_s:
                self.size_bytes = min(2 * self.size_bytes, WINDOW_BYTES_MAX)
            self._since_s, self._arrived = now_s, 0
        credit = self.size_bytes - self._under_way
        if credit < self.size_bytes // 4:
            return 0
        self._under_way += credit
        return credit


# The holder's side


class _Credit:
    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._more = trio.Event()
        self._ended = False

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._more.set()

    def add(self, size_bytes: int) -> None:
        self._left += size_bytes
        if self._left > WINDOW_BYTES_MAX:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: more credit than {WINDOW_BYTES_MAX} bytes")
        self._more.set()

    async def take(self, size_bytes: int, timeout_s: float) -> None:
        with trio.move_on_after(timeout_s):
            while self._left < size_bytes:
                if self._ended:
                    raise TransportError(f"{BLOBS_PROTOCOL}: the peer went away before the blob's end")
                self._more = trio.Event()
                await self._more.wait()
            self._left -= size_bytes
            return
        raise TransportError(f"{BLOBS_PROTOCOL}: the peer gave no credit for {timeout_s:g} s")


async def send_blob(
    stream: Stream, reader: FrameReader, request: BlobRequest, store: BlobStore, *, timeout_s: float
) -> None:
    """Answer ``request``, which has been found to be granted.

    Raises:
        BlobMissingError: it is not here any more.
        PeerViolation: the asker breaks the protocol.
        TransportError: it is gone, or gives no credit for ``timeout_s``.
    """
    with store.pinned(request.blob_id):
        manifest = await store.manifest(request.blob_id)
        if manifest.size > request.size_bytes_max:
            await refuse(stream, "too_large")
            return
        if request.wants_manifest:
            body = encode(ManifestMessage(manifest.size, b"".join(manifest.hashes)))
            await send_frames(stream, [Frame(MANIFEST, body)])
        credit, asker_ended = _Credit(request.credit_bytes), trio.Event()

        async def send_chunks() -> None:
            for index in range(request.first_chunk, len(manifest.hashes)):
                chunk = memoryview(await store.read_chunk(request.blob_id, index))
                for start in range(0, len(chunk), PIECE_BYTES):
                    piece = chunk[start : start + PIECE_BYTES]
                    await credit.take(len(piece), timeout_s)
                    await send_frames(stream, [Frame(PIECE, bytes(piece))])
            await stream.send_eof()
            with trio.move_on_after(timeout_s):  # closing now could break the asker's last credit, and with it the rest
                await asker_ended.wait()

        async def take_credit() -> None:
            while (frame := await reader.read()) is not None:
                if frame.kind != CREDIT or len(frame.body) != _CREDIT.size:
                    raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} is no credit")
                credit.add(_CREDIT.unpack(frame.body)[0])
            asker_ended.set()
            credit.end()

        await _together(send_chunks, take_credit, ends_both=True)


async def refuse(stream: Stream, code: str) -> None:
    """Tell the asker why not."""
    await send_frames(stream, [Frame(REFUSE, code.encode())])


# The asker's side


@dataclass
class Incoming:
    """A blob on its way in, perhaps from one holder after another."""

    blob_id: bytes
    grant: bytes
    size_bytes_max: int
    open_writer: Callable[[Manifest], BlobWriter]
    manifest: Manifest | None = None
    writer: BlobWriter | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are written."""
        return (
            self.manifest is not None
            and self.writer is not None
            and self.writer.chunk_count == len(self.manifest.hashes)
        )


async def receive_blob(stream: Stream, incoming: Incoming, *, round_trip_s: float, timeout_s: float) -> None:
    """Get what is missing of ``incoming``. Whatever is raised, the chunks written so far are good.

    Args:
        stream: freshly opened; left to the caller.
        incoming: gets its manifest and its chunks.
        round_trip_s: an estimate.
        timeout_s: for each frame.

    Raises:
        RequestRefusedError: the holder's code.
        PeerViolation: it sent something that is not this blob, or too much.
        TransportError: it is gone or too slow.
        ResourceError: our disk is full.
    """
    chunk_count_max = -(-min(incoming.size_bytes_max, BLOB_BYTES_MAX) // CHUNK_BYTES)
    reader = FrameReader(stream, size_bytes_max=max(PIECE_BYTES, chunk_count_max * 32 + 32))
    request = BlobRequest(
        grant=incoming.grant,
        blob_id=incoming.blob_id,
        size_bytes_max=incoming.size_bytes_max,
        wants_manifest=incoming.manifest is None,
        first_chunk=incoming.writer.chunk_count if incoming.writer else 0,
        credit_bytes=WINDOW_BYTES_MIN,
    )
    asked_s = trio.current_time()
    await send_frames(stream, [Frame(ASK, encode(request))])
    if incoming.manifest is None:
        frame = await _read(reader, stream, timeout_s)
        round_trip_s = min(round_trip_s, trio.current_time() - asked_s)
        incoming.manifest = _read_manifest(frame, incoming)
        incoming.writer = incoming.open_writer(incoming.manifest)
    assert incoming.writer is not None
    writer, window = incoming.writer, Window(round_trip_s)
    left = incoming.manifest.size - writer.chunk_count * CHUNK_BYTES
    send_chunk, receive_chunk = trio.open_memory_channel[bytearray](_CHUNKS_WAITING_MAX)

    async def receive_pieces() -> None:
        nonlocal left
        chunk = bytearray()
        async with send_chunk:
            while left > 0:
                frame = await _read(reader, stream, timeout_s)
                left -= len(frame.body)
                chunk += frame.body
                if frame.kind != PIECE or not frame.body or left < 0 or len(chunk) > CHUNK_BYTES:
                    raise PeerViolation(f"{BLOBS_PROTOCOL}: not the next piece of the blob")
                credit = window.arrived(len(frame.body), trio.current_time())
                if len(chunk) == CHUNK_BYTES or left == 0:
                    await send_chunk.send(chunk)
                    chunk = bytearray()
                if credit and left > 0:
                    await send_frames(stream, [Frame(CREDIT, _CREDIT.pack(credit))])

    async def write_chunks() -> None:
        async for chunk in receive_chunk:
            await writer.write_chunk(chunk)

    await _together(receive_pieces, write_chunks, ends_both=False)


async def _together(
    first: Callable[[], Awaitable[None]], second: Callable[[], Awaitable[None]], *, ends_both: bool
) -> None:
    """Run both; raise the error of the one that failed first as it is, not in a group.

    When the second fails, the first is cancelled. When the first has ended, in whatever way, the second is cancelled
    if ``ends_both``; else it ends by itself.
    """
    errors: list[DepinError] = []
    async with trio.open_nursery() as nursery:

        async def run(task: Callable[[], Awaitable[None]]) -> None:
            try:
                await task()
            except DepinError as error:
                errors.append(error)
                if task is second:
                    nursery.cancel_scope.cancel()
            if task is first and ends_both:
                nursery.cancel_scope.cancel()

        nursery.start_soon(run, first)
        nursery.start_soon(run, second)
    if errors:
        raise errors[0]


def _read_manifest(frame: Frame, incoming: Incoming) -> Manifest:
    if frame.kind != MANIFEST:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} is no manifest")
    message = decode(frame.body, ManifestMessage, size_bytes_max=len(frame.body))
    hashes = tuple(message.hashes[start : start + 32] for start in range(0, len(message.hashes), 32))
    manifest = Manifest(message.size, hashes)
    if not manifest.is_consistent() or manifest.blob_id() != incoming.blob_id:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: the manifest is not that of the blob")
    if manifest.size > incoming.size_bytes_max:
        raise PeerViolation(
            f"{BLOBS_PROTOCOL}: a blob of {manifest.size} bytes, {incoming.size_bytes_max} were allowed"
        )
    return manifest


async def _read(reader: FrameReader, stream: Stream, timeout_s: float) -> Frame:
    with trio.move_on_after(timeout_s):
        frame = await reader.read()
        if frame is None:
            raise TransportError(f"{peer_id(stream.peer)} ended the transfer early")
        if frame.kind == REFUSE:
            code = frame.body[:64].decode("ascii", "replace")
            raise RequestRefusedError(f"{peer_id(stream.peer)} refused the blob: {code}", code)
        return frame
    raise TransportError(f"{peer_id(stream.peer)} sent nothing for {timeout_s:g} s")
