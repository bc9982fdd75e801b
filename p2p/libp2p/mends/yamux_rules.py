"""Mends of yamux's reader: the rules of its specification, kept, and memory counted.

github.com/hashicorp/yamux, spec.md. Whoever breaks a rule loses the connection and is kept out (``guard``).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from libp2p.io.exceptions import IncompleteReadError, IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    HEADER_SIZE,
    TYPE_GO_AWAY,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    Yamux,
    YamuxStream,
)

from depin_node.core import clock
from depin_node.p2p.bucket import Bucket
from depin_node.p2p.libp2p.guard import guard_of
from depin_node.p2p.libp2p.mends.registry import FRAME_HEADER, abort, limits_of, log, patch
from depin_node.p2p.libp2p.pieces import Room
from depin_node.p2p.libp2p.terms import key_of_id

_FRAME_BYTES_MAX = 1 << 20  # of the payload; the implementations that there are send at most 64 KiB
_SEND_WINDOW_MAX = 1 << 32
_PINGS_BURST, _PINGS_PER_S = 64.0, 8.0
_FRAMES_IN_A_ROW = 64  # then others have their turn
_FLAGS = FLAG_SYN | FLAG_ACK | FLAG_FIN | FLAG_RST


class BrokenRuleError(Exception):
    """A peer's yamux is not yamux."""


@patch
def yamux_rules() -> None:
    """Fault: the receive window is not enforced: a peer may send without end into a stream that nobody reads. (200 MiB
    raise a process from 83 to 283 MB.) A frame of 16 MiB is read before anything is checked; frames for streams that
    never were, of unknown versions and types, and streams with our own numbers are taken; streams are made before they
    are counted; the debug texts of each frame are built whether or not they are shown.

    Mend: a reader of our own that keeps to the specification, counts streams before it makes them, and tells the guard
    what waits to be read. Until: py-libp2p's does (> 0.8.1).
    """
    Yamux.handle_incoming = _read_frames


class _Incoming:
    """What the session brings, one message after the other, cut into headers and payloads."""

    def __init__(self, session: Any, stalled: trio.CancelScope) -> None:
        self._session = session
        self._stalled = stalled
        self._data = memoryview(session._drain(None))  # what came with the end of the negotiation

    def holds(self, size_bytes: int) -> bool:
        """Tell whether so much is here."""
        return len(self._data) >= size_bytes

    async def header(self) -> memoryview:
        """Return the next header."""
        while len(self._data) < HEADER_SIZE:
            more = await self._session.conn.read_msg()
            self._data = memoryview(bytes(self._data) + more if self._data else more)
        return self._cut(HEADER_SIZE)

    async def piece(self, size_bytes_max: int) -> memoryview:
        """Return what is here of a payload, or comes next."""
        while not self._data:
            self._data = memoryview(await self._session.conn.read_msg())
        return self._cut(size_bytes_max)

    async def open_into(self, room: Callable[[], Room | None], size_bytes_max: int) -> int:
        """Have the next messages of a payload decrypted where they are wanted, if they are when the first is here;
        return their size, 0: the next is to be a piece."""
        if self._data or room() is None:
            return 0
        await self._session.conn.depin_fill()
        wanted = room()
        return 0 if wanted is None else wanted.open_into(self._session.conn, size_bytes_max)

    def expect(self, timeout_s: float) -> None:
        """Have all end if what is missing has not come by then; infinity: nothing is missing."""
        self._stalled.deadline = trio.current_time() + timeout_s

    def _cut(self, size_bytes: int) -> memoryview:
        cut, self._data = self._data[:size_bytes], self._data[size_bytes:]
        return cut


async def _read_frames(self: Any) -> None:
    with trio.CancelScope() as stalled:
        await _read_until_it_ends(self, _Incoming(self.secured_conn, stalled))
    if stalled.cancelled_caught:
        log.debug("connection stalled inside a frame", peer=str(self.peer_id))
    await self._cleanup_on_error()


async def _read_until_it_ends(self: Any, incoming: _Incoming) -> None:
    try:
        while not self.event_shutting_down.is_set():
            for _ in range(_FRAMES_IN_A_ROW):
                header = await incoming.header()
                version, kind, flags, stream_id, length = FRAME_HEADER.unpack(header)
                if version or kind > TYPE_GO_AWAY or flags & ~_FLAGS:
                    raise BrokenRuleError(f"a yamux frame of version {version}, type {kind}, flags {flags}")
                if kind == TYPE_GO_AWAY:
                    break
                if kind == TYPE_PING:
                    await _pinged(self, flags, length)
                else:
                    await _on_stream(self, incoming, kind, flags, stream_id, length)
            else:
                await trio.lowlevel.checkpoint()
                continue
            break
    except BrokenRuleError as error:
        log.info("peer broke yamux: closing", peer=str(self.peer_id), reason=str(error))
        if (guard := guard_of(self)) is not None:
            guard.broke(key_of_id(self.peer_id), str(error))
        abort(self)
    except (IncompleteReadError, IOException, RawConnError, OSError) as error:
        log.debug("connection ended", peer=str(self.peer_id), reason=repr(error)[:200])
    except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
        log.debug("connection ended", peer=str(self.peer_id), reason=repr(error)[:200])
    except Exception as error:  # noqa: BLE001 - the library's Noise raises what its own parts do: InvalidTag, ValueError
        log.debug("connection broke", peer=str(self.peer_id), reason=repr(error)[:200])


async def _pinged(self: Any, flags: int, value: int) -> None:
    if flags & FLAG_ACK:
        if value == self._ping_id:
            rtt_s = trio.current_time() - self._ping_sent_time
            self._rtt = (self._rtt + rtt_s) / 2 if self._rtt else rtt_s
            self._ping_event.set()
        return
    now = clock.now()
    pings = self.__dict__.setdefault("depin_pings", Bucket(_PINGS_BURST, _PINGS_PER_S, now))
    if not pings.take(1, now):
        raise BrokenRuleError("too many pings")
    await self._write_frame(FRAME_HEADER.pack(0, TYPE_PING, FLAG_ACK, 0, value))


async def _on_stream(self: Any, incoming: _Incoming, kind: int, flags: int, stream_id: int, length: int) -> None:
    if flags & FLAG_SYN:
        await _opened(self, flags, stream_id)
    stream = self.streams.get(stream_id)
    if stream is None and not _has_been(self, stream_id):
        raise BrokenRuleError(f"a frame for the stream {stream_id}, which nobody opened")
    if kind == TYPE_WINDOW_UPDATE:
        if stream is not None and length:
            stream.send_window += length
            if stream.send_window > _SEND_WINDOW_MAX:
                raise BrokenRuleError("a send window of more than 4 GiB")
    elif length:
        await _received(self, incoming, stream, length)
    if stream is not None and flags & (FLAG_FIN | FLAG_RST):
        _ended(self, stream, flags)


async def _opened(self: Any, flags: int, stream_id: int) -> None:
    is_theirs = stream_id % 2 == (0 if self.is_initiator_value else 1)
    if not stream_id or not is_theirs or stream_id in self.streams:
        raise BrokenRuleError(f"a new stream with the number {stream_id}")
    self.depin_highest = max(stream_id, self.__dict__.get("depin_highest", 0))
    guard = guard_of(self)
    if guard is not None and not guard.opens(self):
        await self._write_frame(FRAME_HEADER.pack(0, TYPE_WINDOW_UPDATE, FLAG_RST, stream_id, 0))
        return
    stream = YamuxStream(stream_id, self, False)
    self.streams[stream_id] = stream
    self.stream_buffers[stream_id] = bytearray()
    self.stream_events[stream_id] = trio.Event()
    await self._write_frame(FRAME_HEADER.pack(0, TYPE_WINDOW_UPDATE, FLAG_ACK, stream_id, 0))
    await self.new_stream_send_channel.send(stream)


def _has_been(self: Any, stream_id: int) -> bool:
    """Tell whether a stream of this number was ever opened: frames may cross with its reset."""
    if stream_id % 2 == (1 if self.is_initiator_value else 0):
        return bool(0 < stream_id < self.next_stream_id)
    return bool(0 < stream_id <= self.__dict__.get("depin_highest", 0))


async def _received(self: Any, incoming: _Incoming, stream: Any, length: int) -> None:
    if length > (_FRAME_BYTES_MAX if stream is None else min(_FRAME_BYTES_MAX, stream.recv_window)):
        raise BrokenRuleError(f"a frame of {length} bytes, more than the window")
    if stream is not None:
        stream.recv_window -= length
    is_whole = incoming.holds(length)
    if not is_whole:
        incoming.expect(limits_of(self).stall_timeout_s)
    while length:
        if count := await incoming.open_into(partial(_room_for, self, stream), length):
            length -= count
            self.stream_events[stream.stream_id].set()
            continue
        piece = await incoming.piece(length)
        length -= len(piece)
        _keep(self, stream, piece)
    if not is_whole:
        incoming.expect(math.inf)


def _is_read(self: Any, stream: Any) -> bool:
    """Tell whether somebody may still read the stream: it may be reset at any time, also within a frame."""
    return stream is not None and stream.stream_id in self.stream_buffers and not stream.recv_closed


def _room_for(self: Any, stream: Any) -> Room | None:
    """Return where a task waits for what comes next; once the room is full all goes to the buffer."""
    room: Room | None = stream.__dict__.get("depin_room") if _is_read(self, stream) else None
    return room


def _keep(self: Any, stream: Any, piece: memoryview) -> None:
    if not _is_read(self, stream):
        return
    if (room := _room_for(self, stream)) is not None:
        piece = room.put(piece)
    if piece:
        self.stream_buffers[stream.stream_id].extend(piece)
    self.stream_events[stream.stream_id].set()
    if (guard := guard_of(self)) is not None:
        guard.received(self, len(piece))


def _ended(self: Any, stream: Any, flags: int) -> None:
    stream.recv_closed = True
    if flags & FLAG_RST:
        stream.reset_received = True
        stream.send_closed = True
        self.stream_buffers.get(stream.stream_id, bytearray()).clear()
    stream.closed = stream.closed or stream.send_closed
    if (event := self.stream_events.get(stream.stream_id)) is not None:
        event.set()
    if stream.closed:
        self._finalize_stream_locked(stream, fully_closed=True)
