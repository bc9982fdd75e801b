"""Mends that make each message and each byte cheap: fewer turns of the loop, system calls, waits and copies."""

from collections import deque
from typing import Any

import trio
from libp2p.io.exceptions import IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, SIZE_NOISE_MESSAGE_LEN, NoiseTransportReadWriter
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from depin_node.p2p.libp2p.mends.registry import patch

_TCP_READ_BYTES = 256 * 1024
_LARGE_PIECE_BYTES = 4096
_TAG_BYTES = 16
_NOTHING = memoryview(b"")


@patch
def free_locks() -> None:
    """Each write takes two locks and each read one. Trio gives all others their turn whenever a lock is taken, also a
    free one, so that a message waits for two turns of the loop before it is written.

    Mend: a free lock is taken at once; the write itself gives others their turn. Until: > 0.8.1 takes one lock.
    """
    make_socket, make_muxer = TrioTCPStream.__init__, Yamux.__init__

    def init_socket(self: Any, *arguments: Any, **options: Any) -> None:
        make_socket(self, *arguments, **options)
        self.read_lock, self.write_lock = _FreeLock(), _FreeLock()

    def init_muxer(self: Any, *arguments: Any, **options: Any) -> None:
        make_muxer(self, *arguments, **options)
        self._write_lock = _FreeLock()

    TrioTCPStream.__init__ = init_socket
    Yamux.__init__ = init_muxer


class _FreeLock:
    """A lock that is taken at once if it is free, else in the order of those who wait."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def acquire(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


@patch
def noise_messages() -> None:
    """Two system calls read a Noise message, one its length, one or more its body, and one writes it; on the way it is
    copied five times. A message that comes in more than 101 TCP segments ends the connection: with segments of 536
    bytes a transfer of 1 MB dies.

    Mend: read what is there, up to 256 KiB, and cut all messages from it; all of one write go out together.
    Until: > 0.8.1 buffers.
    """

    async def read_msg(self: Any, prefix_encoded: bool = False) -> bytes:
        here, more = self.__dict__.get("depin_sealed", _NOTHING), _NOTHING
        while len(here) < (end := _end_of_message(here)):
            more = more or memoryview(await self.read_writer.read_write_closer.read(_TCP_READ_BYTES))
            if not more:
                raise IncompleteReadError("connection closed", expected_bytes=end, received_bytes=len(here))
            if here:  # it began in what came before: only that one is put together
                missing = end - len(here)
                here, more = memoryview(bytes(here) + more[:missing]), more[missing:]
            else:
                here, more = more, _NOTHING
        self.depin_sealed = here[end:] or more
        state = self.noise_state.noise_protocol.cipher_state_decrypt
        plain: bytes = state.decrypt_with_ad(None, here[SIZE_NOISE_MESSAGE_LEN:end])
        return plain

    async def write_msg(self: Any, msg: bytes, prefix_encoded: bool = False) -> None:
        plain, at = memoryview(msg), 0
        messages = -(-len(plain) // MAX_PLAINTEXT_LENGTH)
        sealed = bytearray(len(plain) + messages * (SIZE_NOISE_MESSAGE_LEN + _TAG_BYTES))
        into, state = memoryview(sealed), self.noise_state.noise_protocol.cipher_state_encrypt
        while plain:
            piece, plain = plain[:MAX_PLAINTEXT_LENGTH], plain[MAX_PLAINTEXT_LENGTH:]
            begin, end = at + SIZE_NOISE_MESSAGE_LEN, at + SIZE_NOISE_MESSAGE_LEN + len(piece) + _TAG_BYTES
            into[at:begin] = (end - begin).to_bytes(SIZE_NOISE_MESSAGE_LEN, "big")
            state.cipher.cipher.encrypt_into(state.cipher.format_nonce(state.n), piece, None, into[begin:end])
            state.n, at = state.n + 1, end
        await self.read_writer.read_write_closer.write(sealed)

    NoiseTransportReadWriter.read_msg = read_msg
    NoiseTransportReadWriter.write_msg = write_msg


def _end_of_message(sealed: memoryview) -> int:
    """Return where the Noise message ends that ``sealed`` begins with; behind its length if that is not there yet."""
    end: int = SIZE_NOISE_MESSAGE_LEN + int.from_bytes(sealed[:SIZE_NOISE_MESSAGE_LEN], "big")
    return end


@patch
def stream_reads() -> None:
    """Each read of a stream takes the lock of all streams of its connection, builds debug texts that nobody sees, and
    copies twice; what waits to be read is one ``bytearray``, which moves all that it holds again and again.

    Mend: keep the pieces, look whether one is there, and take it. Until: > 0.8.1 does likewise.
    """
    make = Yamux.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self.stream_buffers = _Buffers()

    Yamux.__init__ = init
    YamuxStream.read = _read


async def _read(self: Any, n: int | None = -1) -> bytes:
    connection = self.conn
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        pieces = connection.stream_buffers.get(self.stream_id)
        if pieces:
            data: bytes = pieces.take(len(pieces) if n is None or n < 0 else n)
            if self.closed and not pieces:
                await connection._finalize_stream(self, fully_closed=True)
            await self._auto_tune_and_send_window_update(bytes_read=len(data))
            return data
        if self.reset_received:
            raise MuxedStreamReset("the stream was reset")
        if pieces is None or self.recv_closed or connection.event_shutting_down.is_set():
            raise MuxedStreamEOF("the stream has ended")
        await connection.stream_events[self.stream_id].wait()
        if self.stream_id in connection.stream_events:
            connection.stream_events[self.stream_id] = trio.Event()


class Pieces:
    """What of a stream waits to be read: large pieces as they came, small ones put together."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._at = 0  # so much of the first is taken
        self._size_bytes = 0

    def __len__(self) -> int:
        return self._size_bytes

    def __iadd__(self, data: bytes | memoryview) -> "Pieces":
        self.extend(data)
        return self

    def extend(self, data: bytes | memoryview) -> None:
        """Put so many bytes at the end."""
        last = self._pieces[-1] if self._pieces else None
        if len(data) >= _LARGE_PIECE_BYTES:
            is_most = isinstance(data, memoryview) and 2 * len(data) >= len(data.obj)  # type: ignore[arg-type]
            self._pieces.append(data if is_most else bytes(data))  # no small part keeps a large message in memory
        elif isinstance(last, bytearray) and len(last) < _TCP_READ_BYTES:
            last += data
        else:
            self._pieces.append(bytearray(data))
        self._size_bytes += len(data)

    def clear(self) -> None:
        """Drop all."""
        self._pieces.clear()
        self._at = self._size_bytes = 0

    def take(self, size_bytes_max: int) -> bytes:
        """Remove up to so many bytes from the front, and return them."""
        left = min(size_bytes_max, self._size_bytes)
        self._size_bytes -= left
        parts = []
        while left:
            first = self._pieces[0]
            part = memoryview(first)[self._at : self._at + left]
            parts.append(part)
            left -= len(part)
            self._at += len(part)
            if self._at == len(first):
                self._pieces.popleft()
                self._at = 0
        return b"".join(parts)


class _Buffers(dict[int, Pieces]):
    """Of a connection's streams, by number; the library puts in a ``bytearray`` for each."""

    def __setitem__(self, stream_id: int, buffer: object) -> None:
        super().__setitem__(stream_id, Pieces())
