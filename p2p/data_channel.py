"""Sealed frames over one TCP connection of their own: the carrier of a direct data channel (``direct.py`` opens them).

The flow: small frames are sealed and opened where they are asked for, on the trio thread. Large ones never come near
it: a thread makes, seals and sends one after the other; up to ``_TAKERS`` threads take turns to read one, and open,
check and store what they read while the next one reads. With trio in between, for each chunk, half of the processor
time went there.

A thread never waits for a peer: when the socket has had nothing for ``_PATIENCE_MS`` it returns, and trio waits. So a
slow peer holds no thread, and ``threads_max`` of them serve all channels of a node; each gives up its place after
``_STRETCH`` frames.
"""

import select
import socket as sockets
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Lock
from typing import NamedTuple, TypeVar

import trio

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.crypto.blob import Buffer
from depin_node.crypto.channel import TAG_BYTES, Sealer, Unsealer
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_messages import CHUNK, CHUNK_FRAME_BYTES_MAX
from depin_node.p2p.carrier import FRAME_HEADER, Make, Take
from depin_node.p2p.frames import Frame
from depin_node.p2p.network import PeerKey
from depin_node.p2p.together import together

T = TypeVar("T")

_TAKERS = 2
_PATIENCE_MS = 2
_STRETCH = 64
_WAKE_BYTES_MAX = 512 * 1024


class _Sealed(NamedTuple):
    """A frame that is here, not opened."""

    kind: int
    size_bytes: int
    buffer: bytearray
    """Body and tag, and perhaps more."""
    unseal: Callable[[Buffer], None]
    """Writes the body into its argument."""


class DirectCarrier:
    """A ``Carrier`` over one TCP connection.

    Args:
        peer: who is at the other end.
        sock: connected, not blocking.
        sealer: of what goes out.
        unsealer: of what comes in.
        timeout_s: a peer that takes no byte for so long loses the channel.
        threads: how many may be at work for all channels.
    """

    depth = 16

    def __init__(
        self,
        peer: PeerKey,
        sock: sockets.socket,
        sealer: Sealer,
        unsealer: Unsealer,
        timeout_s: float,
        threads: trio.CapacityLimiter,
    ) -> None:
        self.peer = peer
        self.ended = trio.Event()
        self._socket = sock
        self._timeout_s = timeout_s
        self._threads = threads
        self._at_work = 0
        # What goes out. Its task has the turn.
        self._turn = trio.Lock()
        self._sealer = sealer
        self._out = bytearray()
        self._unsent = memoryview(b"")
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        # What comes in. Who reads holds the lock, unless no thread is at work.
        self._reading = Lock()
        self._unsealer = unsealer
        self._header = bytearray(FRAME_HEADER.size)
        self._body: bytearray | None = None
        self._got = 0
        self._next: _Sealed | None = None
        self._spare: list[bytearray] = []
        self._plain: list[bytearray] = []
        """Of threads that took chunks, for those that will."""
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._wakes_at_bytes = 1

    # Sending

    async def send(self, kind: int, body: Buffer) -> None:
        """See ``Carrier``."""
        async with self._turn:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._seal(kind, body)
            await self._sent(lambda: _at_once(self._flush))

    async def send_bulk(self, kind: int, make: Make) -> None:
        """See ``Carrier``."""
        async with self._turn:
            await self._sent(lambda: self._in_thread(lambda: self._send_some(kind, make)))

    async def _sent(self, send: Callable[[], Awaitable[bool]]) -> None:
        """Have ``send`` called until it says that all is sent, whenever the socket takes more."""
        try:
            while not await send():
                await self._wait(trio.lowlevel.wait_writable, self._timeout_s, "took")
        except trio.ClosedResourceError as error:
            raise self._broken(error) from error
        finally:
            if self._unsent:  # half a frame: nothing can follow
                self.close()

    def _send_some(self, kind: int, make: Make) -> bool:
        """In a thread: send what there is; False: come again when the socket takes more, or others had a turn."""
        for _ in range(_STRETCH):
            trio.from_thread.check_cancelled()
            while not self._flush():
                if not self._writable.poll(_PATIENCE_MS):
                    return False
            body = make(True)
            if body is None:
                return True
            self._seal(kind, memoryview(body)[FRAME_HEADER.size :])
        return False

    def _flush(self) -> bool:
        """Send what the socket takes of what is sealed; return whether that is all."""
        while self._unsent:
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except BlockingIOError:
                return False
            except OSError as error:
                raise self._broken(error) from error
        return True

    def _seal(self, kind: int, body: Buffer) -> None:
        size_bytes = len(body)
        end = FRAME_HEADER.size + size_bytes + TAG_BYTES
        if len(self._out) < end:
            self._out = bytearray(end)
        out, header = memoryview(self._out)[:end], FRAME_HEADER.pack(size_bytes, kind)
        out[: FRAME_HEADER.size] = header
        self._sealer.seal(header, body, out[FRAME_HEADER.size :])
        self._unsent = out

    # Receiving

    async def receive(self, size_bytes_max: int, timeout_s: float, take: Take | None = None) -> Frame | None:
        """See ``Carrier``."""
        read = partial(self._read, size_bytes_max, chunks=take is not None)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            while True:
                sealed, self._next = self._next or read(), None
                if sealed is None:
                    await self._wait(trio.lowlevel.wait_readable, timeout_s, "sent")
                elif sealed.kind == CHUNK and take is not None:
                    await self._take_chunks(sealed, read, take)
                else:
                    body = bytearray(sealed.size_bytes)
                    self._open(sealed, body)
                    return Frame(sealed.kind, bytes(body))
        except _EndedError:
            return None
        except trio.ClosedResourceError as error:
            raise self._broken(error) from error

    async def _take_chunks(self, first: _Sealed, read: Callable[[], _Sealed | None], take: Take) -> None:
        """Have threads take chunks as long as they come quickly; what came instead is in ``_next``."""
        over = False

        def work(sealed: _Sealed | None) -> None:
            nonlocal over
            plain = self._plain.pop() if self._plain else bytearray()
            try:
                for _ in range(_STRETCH):
                    trio.from_thread.check_cancelled()
                    if sealed is None:
                        with self._reading:
                            sealed = None if over else self._read_soon(read)
                            if sealed is None or sealed.kind != CHUNK:
                                over, self._next = True, self._next or sealed
                                return
                    if len(plain) < sealed.size_bytes:
                        plain = bytearray(sealed.size_bytes)
                    body = memoryview(plain)[: sealed.size_bytes]
                    self._open(sealed, body)
                    take(body)
                    sealed = None
            except _EndedError:  # who reads next finds it too
                return
            finally:
                over = True
                self._plain.append(plain)

        async def run(sealed: _Sealed | None) -> None:
            await self._in_thread(lambda: work(sealed))

        await together(partial(run, first), *[partial(run, None)] * (_TAKERS - 1))

    def _read_soon(self, read: Callable[[], _Sealed | None]) -> _Sealed | None:
        """In a thread: return the next frame; None: it takes a while."""
        while (sealed := read()) is None:
            if not self._readable.poll(_PATIENCE_MS):
                return None
        return sealed

    def _read(self, size_bytes_max: int, *, chunks: bool) -> _Sealed | None:
        """Read what is here of the next frame, and return it if that is all; None: wait for more, and call again.

        Raises:
            _EndedError: the peer ended between two frames.
            PeerViolation: the frame is too long.
        """
        if self._body is None:
            if not self._fill(self._header):
                return None
            size_bytes, kind = FRAME_HEADER.unpack(self._header)
            allowed = max(size_bytes_max, CHUNK_FRAME_BYTES_MAX) if chunks and kind == CHUNK else size_bytes_max
            if size_bytes > allowed:
                raise PeerViolation(f"a frame of {size_bytes} bytes, more than the {allowed} allowed")
            spare = self._spare.pop() if self._spare else bytearray()
            end = size_bytes + TAG_BYTES
            self._body, self._got = spare if len(spare) >= end else bytearray(end), 0
        size_bytes, kind = FRAME_HEADER.unpack(self._header)
        if not self._fill(memoryview(self._body)[: size_bytes + TAG_BYTES]):
            return None
        body, header = self._body, bytes(self._header)
        self._body, self._got = None, 0
        unseal, sealed = self._unsealer.next(), memoryview(body)[: size_bytes + TAG_BYTES]
        return _Sealed(kind, size_bytes, body, lambda into: unseal(header, sealed, into))

    def _fill(self, buffer: bytearray | memoryview) -> bool:
        """Read what is here into ``buffer``, behind what has come before; return whether it is full."""
        view = memoryview(buffer)
        while self._got < len(view):
            try:
                count = self._socket.recv_into(view[self._got :])
            except BlockingIOError:
                self._wake_at(min(len(view) - self._got, _WAKE_BYTES_MAX))
                return False
            except OSError as error:
                raise self._broken(error) from error
            if count == 0:
                if self.ended.is_set() or self._body is not None or self._got:
                    raise TransportError(f"{peer_id(self.peer)} ended the data channel inside a frame")
                raise _EndedError
            self._got += count
        return True

    def _open(self, sealed: _Sealed, into: Buffer) -> None:
        sealed.unseal(into)
        if len(self._spare) <= _TAKERS:
            self._spare.append(sealed.buffer)

    def _wake_at(self, size_bytes: int) -> None:
        """Be woken when so much can be read at once, not for each packet."""
        if size_bytes != self._wakes_at_bytes:
            self._wakes_at_bytes = size_bytes
            self._socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVLOWAT, size_bytes)

    # Both

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Run ``function`` in a thread; the socket stays this one's as long as it runs."""
        self._at_work += 1
        try:
            return await trio.to_thread.run_sync(function, limiter=self._threads)
        finally:
            self._at_work -= 1
            if self.ended.is_set() and not self._at_work:
                self._socket.close()

    async def _wait(self, until_ready: Callable[[int], Awaitable[None]], timeout_s: float, what: str) -> None:
        if self.ended.is_set():  # since it was found not to be ready
            raise TransportError(f"the data channel to {peer_id(self.peer)} was closed")
        with trio.move_on_after(timeout_s):
            await until_ready(self._socket.fileno())
            return
        raise TransportError(f"{peer_id(self.peer)} {what} nothing for {timeout_s:g} s")

    def _broken(self, error: BaseException) -> TransportError:
        return TransportError(f"the data channel to {peer_id(self.peer)} broke: {error}")

    async def aclose(self) -> None:
        """See ``Carrier``."""
        self.close()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def reset(self) -> None:
        """See ``Carrier``."""
        self.close()
        await trio.lowlevel.checkpoint_if_cancelled()

    def close(self) -> None:
        """Close the connection; while threads are at work it is shut down first, and they find that it is."""
        if self.ended.is_set():
            return
        self.ended.set()
        trio.lowlevel.notify_closing(self._socket.fileno())
        if not self._at_work:
            self._socket.close()
            return
        try:
            self._socket.shutdown(sockets.SHUT_RDWR)
        except OSError:  # the peer was first
            return


class _EndedError(Exception):
    """The peer ended the channel between two frames."""


async def _at_once(function: Callable[[], T]) -> T:
    return function()
