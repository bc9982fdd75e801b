"""What carries the frames of ``blobs/2`` between two peers: a stream of the mesh, or a channel of its own.

Both are behind one interface, ``Carrier``, and pass one suite of tests. A carrier is used by one task that sends and
one that receives. Frames are those of ``frames.py``. ``StreamCarrier`` is here, ``direct.py`` has the other.

Credit: bulk on a stream shares its connection with everything else between the two peers, and a yamux write fails after
a while of a full window. So a holder sends chunks only as it has credit for: ``WINDOW_BYTES_MIN`` at first, and more
(frames of kind ``CREDIT``, u32) as bytes arrive. The asker's window doubles as long as a whole one passes within a few
round trips; all transfers from one peer share it (``Window``).
"""

import struct
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

import trio

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.crypto.blob import Buffer
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_messages import CHUNK, CHUNK_FRAME_BYTES_MAX, CREDIT
from depin_node.p2p.frames import Frame
from depin_node.p2p.network import PeerKey, Stream
from depin_node.p2p.together import together

FRAME_HEADER = struct.Struct("<IB")
WINDOW_BYTES_MIN = 512 * 1024
WINDOW_BYTES_MAX = 8 * 1024 * 1024
_WRITE_BYTES_MIN = WINDOW_BYTES_MIN // 2  # as much credit is given at least when all that was sent has come
_SMALL_BYTES = 16 * 1024  # room for what comes before the first chunk
_WAITING_MAX = 2  # chunks, for the thread that takes them
_PATIENCE_S = 0.01
_STRETCH = 64  # chunks
_CREDIT = struct.Struct("<I")


Take = Callable[[memoryview], None]
"""Takes the body of a chunk, in a thread; the body is gone when it returns."""

Make = Callable[[bool], bytearray | memoryview | None]
"""Makes the body of the next large frame, behind room for a ``FRAME_HEADER``, when the one before has gone; None: there
is none. Called with False, on the trio thread, it raises ``BlockingIOError`` if that would take a while: it is called
again, with True, in a thread."""


class Carrier(Protocol):
    """Frames to and from one peer.

    All methods raise ``TransportError`` when the carrier broke or the peer stalled. After sending or receiving was
    cancelled a carrier is of no use any more.
    """

    peer: PeerKey
    depth: int
    """Chunks to ask for ahead."""

    async def send(self, kind: int, body: Buffer) -> None:
        """Send a small frame."""

    async def send_bulk(self, kind: int, make: Make) -> None:
        """Send large frames until ``make`` has no more; what it raises comes out, and nothing of that frame is sent."""

    async def receive(self, size_bytes_max: int, timeout_s: float, take: Take | None = None) -> Frame | None:
        """Return the next frame; None: the peer ended in order.

        Args:
            size_bytes_max: of a frame that is returned.
            timeout_s: how long nothing may come.
            take: gets the chunks that come before that frame, in threads, perhaps two at a time and not quite in their
                order; what it raises comes out. Without it chunks are frames like others.

        Raises:
            PeerViolation: a frame is larger than it may be; nothing of it is read.
            TransportError: not a byte came for ``timeout_s``.
        """

    async def aclose(self) -> None:
        """End in order: what was sent arrives. Never raises."""

    async def reset(self) -> None:
        """Drop it at once. Never raises."""


class Window:
    """How much bulk may be under way from one peer over its connection, grown to fit the path: the asker's side.

    Twice the window whenever a whole one arrived within four round trips: then waiting for credit, not the path, set
    the pace.
    """

    def __init__(self, round_trip_s: float) -> None:
        self.size_bytes = WINDOW_BYTES_MIN
        self.round_trip_s = round_trip_s
        self.transfers = 0
        self._since_s: float | None = None
        self._arrived = 0

    def arrived(self, size_bytes: int, now_s: float) -> None:
        """Note that so many bytes arrived."""
        self._arrived += size_bytes
        if self._since_s is None:
            self._since_s, self._arrived = now_s, 0
        elif self._arrived >= self.size_bytes:
            if now_s - self._since_s < 4 * self.round_trip_s:
                self.size_bytes = min(2 * self.size_bytes, WINDOW_BYTES_MAX)
            self._since_s, self._arrived = now_s, 0

    def share_bytes(self) -> int:
        """Return what each transfer may have under way."""
        return max(WINDOW_BYTES_MIN, self.size_bytes // max(1, self.transfers))


class StreamCarrier:
    """A stream of the mesh: works wherever two peers are connected.

    Args:
        stream: freshly opened.
        timeout_s: how long credit is waited for.
        window: the asker's, shared by its transfers from this peer; the holder has none.
    """

    depth = 8

    def __init__(self, stream: Stream, *, timeout_s: float, window: Window | None = None) -> None:
        self.peer = stream.peer
        self._stream = stream
        self._timeout_s = timeout_s
        self._window = window
        if window is not None:
            window.transfers += 1
        self._turn = trio.Lock()
        self._buffer = memoryview(bytearray(_SMALL_BYTES))  # begins with the next frame, as far as it has come
        self._filled_bytes = 0
        self._spare: list[memoryview] = []  # buffers, used again
        self._credit = WINDOW_BYTES_MIN  # as holder: what we may send
        self._more_credit = trio.Event()
        self._under_way = WINDOW_BYTES_MIN  # as asker: credit given and not used
        self._credit_due = trio.Event()
        self._is_receiving = False
        self._is_over = False

    async def send(self, kind: int, body: Buffer) -> None:
        """See ``Carrier``."""
        async with self._turn:
            await self._stream.send_all(FRAME_HEADER.pack(len(body), kind) + body)

    async def send_bulk(self, kind: int, make: Make) -> None:
        """See ``Carrier``."""
        while (made := await _made(make)) is not None:
            frame = memoryview(made)
            FRAME_HEADER.pack_into(frame, 0, len(frame) - FRAME_HEADER.size, kind)
            async with self._turn:
                head_bytes = FRAME_HEADER.size  # without credit
                while frame:
                    piece = frame[: head_bytes + await self._take_credit(len(frame) - head_bytes)]
                    await self._stream.send_all(piece)
                    frame, head_bytes = frame[len(piece) :], 0

    async def _take_credit(self, size_bytes_max: int) -> int:
        """Wait for credit worth a write; return how much may be sent."""
        with trio.move_on_after(self._timeout_s):
            while self._credit < min(size_bytes_max, _WRITE_BYTES_MIN):
                if self._is_over:
                    raise TransportError(f"{peer_id(self.peer)} went away in the middle of a transfer")
                self._more_credit = trio.Event()
                await self._more_credit.wait()
            taken = min(self._credit, size_bytes_max)
            self._credit -= taken
            return taken
        raise TransportError(f"{peer_id(self.peer)} gave no credit for {self._timeout_s:g} s")

    async def receive(self, size_bytes_max: int, timeout_s: float, take: Take | None = None) -> Frame | None:
        """See ``Carrier``. Frames of credit are kept here."""
        if self._window is None:
            return await self._read_frame(size_bytes_max, timeout_s, None)
        frame: Frame | None = None
        taking = None if take is None else _Taking(take, self._spare)
        self._is_receiving = True

        async def read() -> None:
            nonlocal frame
            frame = await self._read_frame(size_bytes_max, timeout_s, taking)
            self._is_receiving = False  # and no task is cancelled: half a frame of credit would end the stream
            self._credit_due.set()
            if taking is not None:
                taking.end()

        threads = [] if taking is None else [taking.run, taking.wake_when_cancelled]
        await together(read, self._give_credit, *threads)
        return frame

    async def _read_frame(self, size_bytes_max: int, timeout_s: float, taking: "_Taking | None") -> Frame | None:
        while await self._fill(FRAME_HEADER.size, timeout_s):
            size_bytes, kind = FRAME_HEADER.unpack_from(self._buffer)
            is_taken = kind == CHUNK and taking is not None
            allowed = max(size_bytes_max, CHUNK_FRAME_BYTES_MAX) if is_taken else size_bytes_max
            if size_bytes > allowed:
                raise PeerViolation(f"a frame of {size_bytes} bytes, more than the {allowed} allowed")
            end = FRAME_HEADER.size + size_bytes
            if kind == CHUNK:
                chunk = await self._receive_chunk(end, timeout_s)
                if taking is None:
                    return Frame(kind, bytes(chunk))
                await taking.put(chunk)
                continue
            await self._fill(end, timeout_s)
            body = bytes(self._buffer[FRAME_HEADER.size : end])
            self._go_on_in(self._buffer, end)
            if kind != CREDIT:
                return Frame(kind, body)
            self._add_credit(body)
        self._end()
        return None

    async def _receive_chunk(self, end: int, timeout_s: float) -> memoryview:
        """Read a frame of bulk up to its ``end``, and behind it what has come of the next, probably as large a one."""
        if len(self._buffer) < end:
            self._go_on_in(self._room(end), 0)
        frame, arrived = self._buffer, FRAME_HEADER.size
        behind = self._room(max(end, self._filled_bytes - end))
        excess = frame[end : self._filled_bytes]
        behind[: len(excess)] = excess
        while True:
            before, arrived = arrived, min(self._filled_bytes, end)
            self._note_arrived(arrived - before)
            if arrived == end:
                self._buffer, self._filled_bytes = behind, self._filled_bytes - end
                return frame[FRAME_HEADER.size : end]
            if not await self._read(timeout_s, frame[arrived:end], behind):
                raise TransportError(f"{peer_id(self.peer)} ended the transfer early")

    async def _fill(self, size_bytes: int, timeout_s: float) -> bool:
        """Read until so much is in the buffer; False: the peer has ended before the first byte."""
        if len(self._buffer) < size_bytes:
            self._go_on_in(self._room(size_bytes), 0)
        while self._filled_bytes < size_bytes:
            if not await self._read(timeout_s, self._buffer[self._filled_bytes :]):
                if self._filled_bytes:
                    raise TransportError(f"{peer_id(self.peer)} ended the transfer inside a frame")
                return False
        return True

    async def _read(self, timeout_s: float, *buffers: memoryview) -> int:
        with trio.move_on_after(timeout_s):
            count = await self._stream.receive_into(*buffers)
            self._filled_bytes += count
            return count
        raise TransportError(f"{peer_id(self.peer)} sent nothing for {timeout_s:g} s")

    def _room(self, size_bytes: int) -> memoryview:
        """Return a buffer of that size."""
        spare = self._spare.pop() if self._spare else memoryview(b"")
        return (spare if len(spare) >= size_bytes else memoryview(bytearray(size_bytes)))[:size_bytes]

    def _go_on_in(self, buffer: memoryview, start: int) -> None:
        """Go on in ``buffer`` with what has come behind ``start``."""
        rest = self._buffer[start : self._filled_bytes]
        buffer[: len(rest)] = rest
        self._buffer, self._filled_bytes = buffer, len(rest)

    def _end(self) -> None:
        self._is_over = True
        self._more_credit.set()

    # Credit

    def _add_credit(self, body: bytes) -> None:
        if self._window is not None or len(body) != _CREDIT.size:
            raise PeerViolation("a frame of credit that is none")
        self._credit += _CREDIT.unpack(body)[0]
        if self._credit > WINDOW_BYTES_MAX:
            raise PeerViolation(f"more credit than {WINDOW_BYTES_MAX} bytes")
        self._more_credit.set()

    def _note_arrived(self, size_bytes: int) -> None:
        """Note bulk that came. Who sends more than it has credit for delays its own connection only."""
        if self._window is None:
            return
        self._window.arrived(size_bytes, trio.current_time())
        self._under_way = max(0, self._under_way - size_bytes)
        if self._owed_credit():
            self._credit_due.set()

    def _owed_credit(self) -> int:
        """Return how much credit is to be given now: none before half of what may be under way has come."""
        if self._window is None:
            return 0
        share = self._window.share_bytes()
        credit = share - self._under_way
        return credit if credit >= share // 2 else 0

    async def _give_credit(self) -> None:
        """Give credit for what arrives, beside the task that reads it: what came while that one waited for a write
        would be copied once more."""
        while self._is_receiving:
            if credit := self._owed_credit():
                self._under_way += credit
                await self.send(CREDIT, _CREDIT.pack(credit))
            else:
                self._credit_due = trio.Event()
                await self._credit_due.wait()

    async def aclose(self) -> None:
        """See ``Carrier``."""
        self._leave()
        await self._stream.aclose()

    async def reset(self) -> None:
        """See ``Carrier``."""
        self._leave()
        await self._stream.reset()

    def _leave(self) -> None:
        if self._window is not None:
            self._window.transfers -= 1
            self._window = None


class _Taking:
    """Chunks on their way to the thread that takes them.

    To go to a thread and back takes as long as to hash a chunk. So it stays for the next one, for ``_PATIENCE_S``: a
    peer that is slower than that keeps no thread. After ``_STRETCH`` chunks others may have its place.
    """

    def __init__(self, take: Take, spare: list[memoryview]) -> None:
        self._take = take
        self._spare = spare
        self._chunks: SimpleQueue[memoryview | None] = SimpleQueue()
        self._is_full = False
        self._changed, self._over = trio.Event(), trio.Event()
        self._trio = trio.lowlevel.current_trio_token()

    async def put(self, chunk: memoryview) -> None:
        """Hand over a chunk, once fewer than ``_WAITING_MAX`` wait."""
        self._is_full = True  # before it is looked: else the thread might take the last one in between, and not tell
        while self._chunks.qsize() >= _WAITING_MAX:
            await self._changed.wait()
        self._is_full = False
        self._chunks.put(chunk)
        self._notify()

    def end(self) -> None:
        """No more come."""
        self._chunks.put(None)
        self._notify()

    async def run(self) -> None:
        """Have chunks taken until the end; what ``take`` raises comes out."""
        is_over = False
        while not is_over:
            while self._chunks.empty():
                await self._changed.wait()
            is_over = await trio.to_thread.run_sync(self._work)
        self._over.set()

    async def wake_when_cancelled(self) -> None:
        """Until ``run`` has ended: if it is cancelled, let the thread wait for no chunk that nobody wants."""
        try:
            await self._over.wait()
        finally:
            self._chunks.put(None)

    def _work(self) -> bool:
        """In a thread: take chunks; return whether that was the last."""
        with suppress(Empty):
            for _ in range(_STRETCH):
                trio.from_thread.check_cancelled()
                chunk = self._chunks.get(timeout=_PATIENCE_S)
                if chunk is None:
                    return True
                self._take(chunk)
                self._spare.append(memoryview(chunk.obj))
                if self._is_full:
                    self._trio.run_sync_soon(self._notify, idempotent=True)
        return False

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _made(make: Make) -> bytearray | memoryview | None:
    try:
        return make(False)
    except BlockingIOError:
        return await trio.to_thread.run_sync(make, True)
