"""Messages over a stream: frames, and requests with one answer.

A frame is ``length of body, u32 little-endian ‖ kind, u8 ‖ body``. A request is a frame of kind ``ASK``; its
answer is one of kind ``ANSWER``, or ``REFUSE`` with an error code as body. A stream carries any number of
requests, one after the other.
"""

import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

import trio

from depin_node.core import clock
from depin_node.core.errors import DepinError, PeerViolation, TransportError
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.bucket import Buckets
from depin_node.p2p.network import Network, PeerKey, Stream

RequestHandler = Callable[[PeerKey, bytes], Awaitable[bytes]]

_HEADER = struct.Struct("<IB")
FRAME_HEADER_BYTES = _HEADER.size
_READ_BYTES = 16 * 1024
_BULK_READ_BYTES = 320 * 1024  # more than is sent in one write
_WRITE_BYTES = 256 * 1024  # what waits is gathered into writes of about this size
_CODE_BYTES_MAX = 64

ASK, ANSWER, REFUSE = 1, 2, 3


class Frame(NamedTuple):
    """One message: a kind that its protocol defines, and a body."""

    kind: int
    body: bytes


class RequestRefusedError(TransportError):
    """The peer answered a request with an error code instead: ``refusal``."""

    code = "refused"

    def __init__(self, message: str, refusal: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class FrameReader:
    """Reads frames from a stream; at most one frame and one read's worth of bytes are held.

    Args:
        stream: where from.
        size_bytes_max: of a body.
        bulk: kinds of frames that are not returned, and what takes the bodies of those: each is gone when it returns.
    """

    def __init__(
        self, stream: Stream, *, size_bytes_max: int, bulk: Mapping[int, Callable[[memoryview], None]] | None = None
    ) -> None:
        self._stream = stream
        self._size_bytes_max = size_bytes_max
        self._bulk = bulk or {}
        self._buffer = memoryview(b"")
        self._start = self._end = 0  # what has come of the frames to come

    async def read(self) -> Frame | None:
        """Return the next frame, or None when the peer ended its side between two frames. May be cancelled.

        Raises:
            PeerViolation: a frame announces more than ``size_bytes_max``; nothing of it is read.
            TransportError: the stream was reset, or ended inside a frame.
        """
        while await self._fill(_HEADER.size, _READ_BYTES):
            size_bytes, kind = _HEADER.unpack_from(self._buffer, self._start)
            if size_bytes > self._size_bytes_max:
                raise PeerViolation(
                    f"{self._stream.protocol}: a frame of {size_bytes} bytes,"
                    f" more than the {self._size_bytes_max} allowed"
                )
            frame_bytes, take = _HEADER.size + size_bytes, self._bulk.get(kind)
            await self._fill(frame_bytes, _READ_BYTES if take is None else _BULK_READ_BYTES)
            body = self._buffer[self._start + _HEADER.size : self._start + frame_bytes]
            self._start += frame_bytes
            if take is None:
                return Frame(kind, bytes(body))
            take(body)
        return None

    def rest(self) -> bytes:
        """Return what was read beyond the last frame, for protocols that go on without frames."""
        rest = bytes(self._buffer[self._start : self._end])
        self._start = self._end
        return rest

    async def _fill(self, size_bytes: int, read_bytes: int) -> bool:
        """Have so much here, in one piece; read ``read_bytes`` at a time. False: the stream has ended before."""
        while (here := self._end - self._start) < size_bytes:
            room, half = len(self._buffer), len(self._buffer) // 2
            if room < read_bytes or room - self._start < size_bytes or (self._start and room - self._end < half):
                self._make_room(here, max(size_bytes, read_bytes))
            count = await self._stream.receive_into(self._buffer[self._end :])
            if not count:
                if here:
                    raise TransportError(f"{self._stream.protocol}: the stream ended inside a frame")
                return False
            self._end += count
        return True

    def _make_room(self, here: int, size_bytes: int) -> None:
        """Have what is here at the beginning, of a buffer of so many bytes at least."""
        old, rest = self._buffer, self._buffer[self._start : self._end]
        if len(old) < size_bytes:
            self._buffer = memoryview(bytearray(size_bytes))
        self._buffer[:here] = rest
        self._start, self._end = 0, here


def put_frame(into: memoryview, kind: int, *parts: bytes | memoryview) -> int:
    """Write a frame whose body is ``parts`` to the beginning of ``into``; return its size in bytes."""
    at = _HEADER.size
    for part in parts:
        into[at : at + len(part)] = part
        at += len(part)
    _HEADER.pack_into(into, 0, at - _HEADER.size, kind)
    return at


async def send_frames(stream: Stream, frames: Iterable[Frame]) -> None:
    """Send frames, gathered into few writes."""
    waiting = bytearray()
    for frame in frames:
        waiting += _HEADER.pack(len(frame.body), frame.kind)
        waiting += frame.body
        if len(waiting) >= _WRITE_BYTES:
            await stream.send_all(waiting)
            waiting = bytearray()
    if waiting:
        await stream.send_all(waiting)


async def request(
    network: Network, peer: PeerKey, protocol: str, body: bytes, *, size_bytes_max: int, timeout_s: float
) -> bytes:
    """Ask a connected peer one thing, on a stream of its own, and return the answer.

    Raises:
        RequestRefusedError: the peer answered with an error code.
        PeerViolation: the answer is longer than ``size_bytes_max``, or no answer at all.
        TransportError: the stream broke, or all of it together took longer than ``timeout_s``.
    """
    stream: Stream | None = None
    try:
        with trio.fail_after(timeout_s):
            stream = await network.open_stream(peer, protocol)
            answer = await exchange(stream, FrameReader(stream, size_bytes_max=size_bytes_max), body)
            await stream.aclose()
            return answer
    except trio.TooSlowError as error:
        raise TransportError(f"{peer_id(peer)} did not answer {protocol} within {timeout_s:g} s") from error
    except BaseException:  # also when cancelled: half an exchange is of no use to either end; raised again
        if stream is not None:
            with trio.CancelScope(shield=True):
                await stream.reset()
        raise


async def exchange(stream: Stream, reader: FrameReader, body: bytes) -> bytes:
    """Send one request and return its answer, without a deadline of its own; see ``request`` for the
    errors."""
    await send_frames(stream, [Frame(ASK, body)])
    frame = await reader.read()
    if frame is None:
        raise TransportError(f"{peer_id(stream.peer)} ended {stream.protocol} without an answer")
    if frame.kind == ANSWER:
        return frame.body
    if frame.kind != REFUSE or len(frame.body) > _CODE_BYTES_MAX:
        raise PeerViolation(f"{stream.protocol}: a frame of kind {frame.kind} is no answer")
    refusal = frame.body.decode("ascii", "replace")
    raise RequestRefusedError(f"{peer_id(stream.peer)} refused {stream.protocol}: {refusal}", refusal)


def serve_requests(
    network: Network, protocol: str, handler: RequestHandler, *, size_bytes_max: int, timeout_s: float
) -> None:
    """Answer requests of ``protocol`` by ``handler(peer, body) -> answer``.

    An error that ``handler`` raises goes to the peer as its code, never as its text. A request longer than
    ``size_bytes_max``, and a stream on which nothing is asked for ``timeout_s``, ends the stream; a handler
    that takes longer is cancelled. Who asks more than ``requests_per_s`` has to wait.
    """

    per_s = network.limits.requests_per_s
    allowances = Buckets(4 * per_s, per_s)

    async def serve(stream: Stream) -> None:
        reader = FrameReader(stream, size_bytes_max=size_bytes_max)
        while True:
            frame: Frame | None = None
            with trio.move_on_after(timeout_s):
                frame = await reader.read()
            if frame is None:
                return
            if frame.kind != ASK:
                raise PeerViolation(f"{protocol}: a frame of kind {frame.kind} is no request")
            allowance = allowances.of(stream.peer, clock.now())
            allowance.spend(1, clock.now())
            if wait_s := allowance.wait_s(clock.now()):
                await trio.sleep(wait_s)  # nor is anything read meanwhile: the asker's own pipe fills
            await send_frames(stream, [await _answer(handler, stream.peer, frame.body, timeout_s)])

    network.serve(protocol, serve)


async def _answer(handler: RequestHandler, peer: PeerKey, body: bytes, timeout_s: float) -> Frame:
    try:
        with trio.fail_after(timeout_s):
            return Frame(ANSWER, await handler(peer, body))
    except trio.TooSlowError:
        return Frame(REFUSE, b"timed_out")
    except DepinError as error:
        return Frame(REFUSE, error.code.encode()[:_CODE_BYTES_MAX])
