"""``blobs/1``: one blob, or the rest of one, over one stream. Both ends; who may have it is ``blobs.py``'s business.

The flow: the asker sends a ``BlobRequest`` as a frame. The holder answers with a frame: ``REFUSE`` and a code, or
``HEAD`` with the manifest (empty if not asked for). After that it sends the blob's bytes from ``first_chunk`` on,
without frames, and ends its side. The asker checks the manifest against the id, and each chunk against the manifest
while the next one comes in.

Credit: the holder sends only what it has credit for, so that other streams of the connection get through, and since a
yamux write fails after a while of a full window. The asker gives ``WINDOW_BYTES_MIN`` with its request and more (frames
of kind ``CREDIT``) as bytes arrive; its window doubles as long as a whole one passes within a few round trips
(``Window``).
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
from depin_node.p2p.blob_store import BlobMissingError, BlobStore, BlobWriter
from depin_node.p2p.frames import ASK, REFUSE, Frame, FrameReader, RequestRefusedError, send_frames
from depin_node.p2p.network import Stream

BLOBS_PROTOCOL = "blobs/1"
HEAD, CREDIT = 4, 5
WINDOW_BYTES_MIN = 512 * 1024
WINDOW_BYTES_MAX = 8 * 1024 * 1024
ROOTS_MAX = 64
_CHUNKS_WAITING_MAX = 2
_READ_BYTES = 256 * 1024
_WRITE_BYTES_MIN = 64 * 1024
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
    credit_bytes: Annotated[int, msgspec.Meta(ge=WINDOW_BYTES_MIN, le=WINDOW_BYTES_MAX)]


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
        """Note that so many bytes arrived; return how much credit to give now (0: not yet).

        A holder that sends more than it has credit for delays its own connection only: the stream's window bounds it.
        """
        self._under_way = max(0, self._under_way - size_bytes)
        self._arrived += size_bytes
        if self._since_s is None:
            self._since_s, self._arrived = now_s, 0
        elif self._arrived >= self.size_bytes:
            if now_s - self._since_s < 4 * self._round_trip_s:
                self.size_bytes = min(2 * self.size_bytes, WINDOW_BYTES_MAX)
            self._since_s, self._arrived = now_s, 0
        credit = self.size_bytes - self._under_way
        if credit < self.size_bytes // 2:
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

    async def take(self, size_bytes_max: int, timeout_s: float) -> int:
        """Wait for credit worth a write; return how much may be sent, at most ``size_bytes_max``."""
        with trio.move_on_after(timeout_s):
            while self._left < min(size_bytes_max, _WRITE_BYTES_MIN):
                if self._ended:
                    raise TransportError(f"{BLOBS_PROTOCOL}: the peer went away before the blob's end")
                self._more = trio.Event()
                await self._more.wait()
            taken = min(self._left, size_bytes_max)
            self._left -= taken
            return taken
        raise TransportError(f"{BLOBS_PROTOCOL}: the peer gave no credit for {timeout_s:g} s")


async def send_blob(
    stream: Stream, reader: FrameReader, request: BlobRequest, store: BlobStore, *, timeout_s: float
) -> None:
    """Answer ``request``, which has been found to be granted.

    Raises:
        PeerViolation: the asker breaks the protocol.
        TransportError: it is gone, or gives no credit for ``timeout_s``.
    """
    with store.pinned(request.blob_id):
        try:
            manifest = await store.manifest(request.blob_id)
        except BlobMissingError as error:  # damaged on disk
            await refuse(stream, error.code)
            return
        if manifest.size > request.size_bytes_max:
            await refuse(stream, "too_large")
            return
        head = encode(ManifestMessage(manifest.size, b"".join(manifest.hashes))) if request.wants_manifest else b""
        await send_frames(stream, [Frame(HEAD, head)])
        credit, asker_ended = _Credit(request.credit_bytes), trio.Event()

        async def send_chunks() -> None:
            for index in range(request.first_chunk, len(manifest.hashes)):
                try:
                    chunk = memoryview(await store.read_chunk(request.blob_id, index))
                except BlobMissingError as error:
                    raise TransportError(f"{BLOBS_PROTOCOL}: {error}") from error
                while chunk:
                    size_bytes = await credit.take(len(chunk), timeout_s)
                    await stream.send_all(chunk[:size_bytes])
                    chunk = chunk[size_bytes:]
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
        timeout_s: for each read.

    Raises:
        RequestRefusedError: the holder's code.
        PeerViolation: it sent something that is not this blob, or too much.
        TransportError: it is gone or too slow.
        ResourceError: our disk is full.
    """
    chunk_count_max = -(-min(incoming.size_bytes_max, BLOB_BYTES_MAX) // CHUNK_BYTES)
    reader = FrameReader(stream, size_bytes_max=chunk_count_max * 32 + 64)
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
    head = await _read_head(reader, stream, timeout_s)
    round_trip_s = min(round_trip_s, trio.current_time() - asked_s)
    if incoming.manifest is None:
        incoming.manifest = _read_manifest(head, incoming)
        incoming.writer = incoming.open_writer(incoming.manifest)
    assert incoming.writer is not None
    writer, window = incoming.writer, Window(round_trip_s)
    send_chunk, receive_chunk = trio.open_memory_channel[bytearray](_CHUNKS_WAITING_MAX)

    async def receive_chunks(left: int) -> None:
        data = reader.rest()[:left]  # less than a chunk; what comes after the blob's end is not read
        async with send_chunk:
            while left > 0:
                size_bytes, chunk = min(left, CHUNK_BYTES), bytearray()
                while len(chunk) < size_bytes:
                    data = data or await _read_bytes(stream, min(_READ_BYTES, size_bytes - len(chunk)), timeout_s)
                    chunk += data
                    credit = window.arrived(len(data), trio.current_time())
                    if credit and len(chunk) < left:
                        await send_frames(stream, [Frame(CREDIT, _CREDIT.pack(credit))])
                    data = b""
                left -= size_bytes
                await send_chunk.send(chunk)

    async def write_chunks() -> None:
        async for chunk in receive_chunk:
            await writer.write_chunk(chunk)

    left = incoming.manifest.size - writer.chunk_count * CHUNK_BYTES
    await _together(lambda: receive_chunks(left), write_chunks, ends_both=False)


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


def _read_manifest(head: bytes, incoming: Incoming) -> Manifest:
    message = decode(head, ManifestMessage, size_bytes_max=len(head))
    hashes = tuple(message.hashes[start : start + 32] for start in range(0, len(message.hashes), 32))
    manifest = Manifest(message.size, hashes)
    if not manifest.is_consistent() or manifest.blob_id() != incoming.blob_id:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: the manifest is not that of the blob")
    if manifest.size > incoming.size_bytes_max:
        raise PeerViolation(
            f"{BLOBS_PROTOCOL}: a blob of {manifest.size} bytes, {incoming.size_bytes_max} were allowed"
        )
    return manifest


async def _read_head(reader: FrameReader, stream: Stream, timeout_s: float) -> bytes:
    with trio.move_on_after(timeout_s):
        frame = await reader.read()
        if frame is None:
            raise TransportError(f"{peer_id(stream.peer)} ended the transfer before it began")
        if frame.kind == REFUSE:
            code = frame.body[:64].decode("ascii", "replace")
            raise RequestRefusedError(f"{peer_id(stream.peer)} refused the blob: {code}", code)
        if frame.kind != HEAD:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} is no answer")
        return frame.body
    raise TransportError(f"{peer_id(stream.peer)} sent nothing for {timeout_s:g} s")


async def _read_bytes(stream: Stream, size_bytes_max: int, timeout_s: float) -> bytes:
    with trio.move_on_after(timeout_s):
        data = await stream.receive_some(size_bytes_max)
        if not data:
            raise TransportError(f"{peer_id(stream.peer)} ended the transfer early")
        return data
    raise TransportError(f"{peer_id(stream.peer)} sent nothing for {timeout_s:g} s")
