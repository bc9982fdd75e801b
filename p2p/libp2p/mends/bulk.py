"""Mends that make each message and each byte cheap: fewer turns of the loop, system calls, waits and copies."""

import os
from typing import Any

import trio
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, SIZE_NOISE_MESSAGE_LEN, NoiseTransportReadWriter
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from depin_node.p2p.libp2p.mends.registry import is_applied, patch
from depin_node.p2p.libp2p.pieces import Buffers, Pieces, Room

_TCP_READ_BYTES = 256 * 1024
_TURN_BYTES = 512 * 1024  # so much moves before others have their turn
_LARGE_WRITE_BYTES = 64 * 1024
_COPIED_BYTES_MAX = 4096
_LAST_READ_BYTES = 4096  # a read that brings less has brought all that there was
_TAG_BYTES = 16
_NOTHING = memoryview(b"")
_SPARE_MAX = 4
_spare: list[bytearray] = []  # what large writes were sealed in: fresh memory takes as long to fill as to send


class Parts(tuple[bytes | memoryview, ...]):
    """What is written at once without being put together."""


def in_one(header: bytes, payload: memoryview) -> bytes | Parts:
    """Return both as what ``write_msg`` of ``noise_messages`` takes; a large payload is not copied for it."""
    if len(payload) <= _COPIED_BYTES_MAX or not is_applied("noise_messages"):
        return header + payload
    return Parts((header, payload))


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
def socket_turns() -> None:
    """Trio gives all others their turn at each read and write of a socket, also if the bytes are there: eight turns a
    megabyte, each of which takes as long as to decrypt 64 KiB.

    Mend: others have their turn once nothing is there, or after half a megabyte; after a small read nothing is, and it
    is not looked. A small write gives them theirs, as before: what they want to send then goes with what is sent next.
    Until: > 0.8.1 reads and writes in batches.
    """
    TrioTCPStream.read = _read_socket
    TrioTCPStream.write = _write_socket


async def _read_socket(self: Any, n: int | None = None) -> bytes:
    if n == 0:
        return b""
    socket = self.stream.socket
    async with self.read_lock:
        await trio.lowlevel.checkpoint_if_cancelled()
        size_bytes, is_empty = n or _TCP_READ_BYTES, self.__dict__.get("depin_is_empty", False)
        while True:
            try:
                if is_empty and socket.fileno() != -1:
                    self.depin_read, is_empty = 0, False
                    await trio.lowlevel.wait_readable(socket)
                data = os.read(socket.fileno(), size_bytes)
                break
            except BlockingIOError:
                is_empty = True
            except trio.ClosedResourceError:
                return b""
            except OSError as error:
                if socket.fileno() == -1:  # closed by us
                    return b""
                raise ConnectionClosedError(f"the connection broke: {error}", transport="tcp") from error
        self.depin_is_empty = 0 < len(data) < min(_LAST_READ_BYTES, size_bytes)
        self.depin_read = self.__dict__.get("depin_read", 0) + len(data)
        if self.depin_read >= _TURN_BYTES:
            self.depin_read = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data


async def _write_socket(self: Any, data: bytes | bytearray) -> None:
    socket, rest = self.stream.socket, memoryview(data)
    async with self.write_lock:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.depin_written = self.__dict__.get("depin_written", 0) + len(rest)
        while rest:
            try:
                rest = rest[os.write(socket.fileno(), rest) :]
            except BlockingIOError:
                self.depin_written = 0
                try:
                    await trio.lowlevel.wait_writable(socket)
                except trio.ClosedResourceError:
                    return  # as the library does: its reader tells of the end
            except OSError as error:
                if socket.fileno() == -1:  # closed by us
                    return
                raise ConnectionClosedError(f"the connection broke: {error}", transport="tcp") from error
        if self.depin_written >= _TURN_BYTES or len(data) < _LARGE_WRITE_BYTES:
            self.depin_written = 0
            await trio.lowlevel.cancel_shielded_checkpoint()


@patch
def noise_messages() -> None:
    """Two system calls read a Noise message, one its length, one or more its body, and one writes it; on the way it is
    copied five times. A message that comes in more than 101 TCP segments ends the connection: with segments of 536
    bytes a transfer of 1 MB dies.

    Mend: read what is there, up to 256 KiB, and cut all messages from it, where they are wanted if that is known; all
    of one write go out together.
    Until: > 0.8.1 buffers.
    """

    async def fill(self: Any) -> None:
        """Wait until a whole message is here."""
        here, more = self.__dict__.get("depin_sealed", _NOTHING), self.__dict__.get("depin_behind", _NOTHING)
        while len(here) < (end := _end_of_message(here)):
            more = more or memoryview(await self.read_writer.read_write_closer.read(_TCP_READ_BYTES))
            if not more:
                raise IncompleteReadError("connection closed", expected_bytes=end, received_bytes=len(here))
            if here:  # it began in what came before: only that one is put together
                missing = end - len(here)
                here, more = memoryview(bytes(here) + more[:missing]), more[missing:]
            else:
                here, more = more, _NOTHING
        self.depin_sealed, self.depin_behind = here, more

    async def read_msg(self: Any, prefix_encoded: bool = False) -> bytes:
        await fill(self)
        sealed = self.depin_sealed
        end = _end_of_message(sealed)
        self.depin_sealed, self.depin_behind = (
            (sealed[end:], self.depin_behind) if len(sealed) > end else (self.depin_behind, _NOTHING)
        )
        state = self.noise_state.noise_protocol.cipher_state_decrypt
        plain: bytes = state.decrypt_with_ad(None, sealed[SIZE_NOISE_MESSAGE_LEN:end])
        return plain

    def open_into(self: Any, room: memoryview) -> int:
        sealed, behind, at = self.depin_sealed, self.depin_behind, 0
        state = self.noise_state.noise_protocol.cipher_state_decrypt
        format_nonce, decrypt_into = state.cipher.format_nonce, state.cipher.cipher.decrypt_into
        while len(sealed) >= (end := _end_of_message(sealed)):
            after = at + end - SIZE_NOISE_MESSAGE_LEN - _TAG_BYTES
            if not at < after <= len(room):
                break
            decrypt_into(format_nonce(state.n), sealed[SIZE_NOISE_MESSAGE_LEN:end], None, room[at:after])
            state.n += 1
            at = after
            sealed, behind = (sealed[end:], behind) if len(sealed) > end else (behind, _NOTHING)
        self.depin_sealed, self.depin_behind = sealed, behind
        return at

    async def write_msg(self: Any, msg: bytes | Parts, prefix_encoded: bool = False) -> None:
        parts = msg if isinstance(msg, Parts) else (msg,)
        messages = sum(-(-len(part) // MAX_PLAINTEXT_LENGTH) for part in parts)
        size_bytes = sum(map(len, parts)) + messages * (SIZE_NOISE_MESSAGE_LEN + _TAG_BYTES)
        is_large = size_bytes >= _LARGE_WRITE_BYTES
        sealed = _spare.pop() if is_large and _spare else bytearray()
        if len(sealed) < size_bytes:
            sealed = bytearray(size_bytes)
        into, at, state = memoryview(sealed), 0, self.noise_state.noise_protocol.cipher_state_encrypt
        for part in parts:
            plain = memoryview(part)
            while plain:
                piece, plain = plain[:MAX_PLAINTEXT_LENGTH], plain[MAX_PLAINTEXT_LENGTH:]
                begin, end = at + SIZE_NOISE_MESSAGE_LEN, at + SIZE_NOISE_MESSAGE_LEN + len(piece) + _TAG_BYTES
                into[at:begin] = (end - begin).to_bytes(SIZE_NOISE_MESSAGE_LEN, "big")
                state.cipher.cipher.encrypt_into(state.cipher.format_nonce(state.n), piece, None, into[begin:end])
                state.n, at = state.n + 1, end
        await self.read_writer.read_write_closer.write(into[:at])
        if is_large and len(_spare) < _SPARE_MAX:
            _spare.append(sealed)

    NoiseTransportReadWriter.depin_fill = fill
    NoiseTransportReadWriter.depin_open_into = open_into
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

    Mend: keep the pieces, look whether one is there, and take it; a task that waits may say where it wants what comes.
    Until: > 0.8.1 does likewise.
    """
    make = Yamux.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self.stream_buffers = Buffers()

    Yamux.__init__ = init
    YamuxStream.read = _read


async def _read(self: Any, n: int | None = -1) -> bytes:
    await trio.lowlevel.checkpoint_if_cancelled()
    pieces = await _waited_for(self, None)
    data: bytes = pieces.take(len(pieces) if n is None or n < 0 else n)
    await _was_read(self, len(data))
    return data


async def read_into(stream: Any, *buffers: memoryview) -> int:
    """Read as many bytes of a yamux stream as ``buffers`` hold at most, and return how many; large messages are
    decrypted straight into them. When it is cancelled nothing has come: what comes wakes it. Raises as
    ``YamuxStream.read``."""
    await trio.lowlevel.checkpoint_if_cancelled()
    room = Room(*buffers)
    pieces = await _waited_for(stream, room)
    count = room.size_bytes or sum(map(pieces.take_into, buffers))
    await _was_read(stream, count)
    return count


async def _waited_for(stream: Any, room: Room | None) -> Pieces:
    """Wait until something is in ``room`` or, without one, among what waits; return what waits."""
    connection = stream.conn
    while True:
        pieces: Pieces | None = connection.stream_buffers.get(stream.stream_id)
        if pieces:
            return pieces
        if stream.reset_received:
            raise MuxedStreamReset("the stream was reset")
        if pieces is None or stream.recv_closed or connection.event_shutting_down.is_set():
            raise MuxedStreamEOF("the stream has ended")
        event = connection.stream_events[stream.stream_id]
        if not event.is_set():  # else waiting would let others fill the room first, and then be cancelled
            stream.depin_room = room
            try:
                await event.wait()
            finally:
                stream.depin_room = None
        if stream.stream_id in connection.stream_events:
            connection.stream_events[stream.stream_id] = trio.Event()
        if room is not None and room.size_bytes:
            return pieces


async def _was_read(stream: Any, size_bytes: int) -> None:
    if stream.closed and not stream.conn.stream_buffers.get(stream.stream_id):
        await stream.conn._finalize_stream(stream, fully_closed=True)
    await stream._auto_tune_and_send_window_update(bytes_read=size_bytes)
