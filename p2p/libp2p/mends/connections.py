"""Mends that keep connections whole and streams flowing, in this order: later ones wrap what earlier ones put in."""

import contextlib
from typing import Any

import libp2p.io.trio as tcp_io
import libp2p.stream_muxer.yamux.yamux as yamux_module
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from depin_node.core.ticks import tick_before
from depin_node.p2p.libp2p.mends.bulk import in_one
from depin_node.p2p.libp2p.mends.registry import FRAME_HEADER, abort, limits_of, log, patch, tcp_of

_MESSAGE_BYTES_MAX = 65_519  # what one Noise message carries: 65,535 − 16 bytes of tag (noise/io.py)
_MESSAGES_AT_ONCE_MAX = 9  # two times as much is a little more than 1 MiB, a chunk of a blob
_QUICK_WRITE_S = 0.005  # what takes longer would keep others waiting: one message at a time then
_WINDOW_BYTES_MAX = 8 << 20
_LAST_CHANCE_S = 0.5
_CALLER_TICKS, _TICKS = 4, 5
_ANSWERS_MAX = 1024  # frames of 12 bytes


@patch
def window_updates() -> None:
    """Fault: every small read sends a window update of its own, which doubles the messages of a request and its answer;
    windows grow to 16 MiB for each stream, whatever their sum, and sometimes beyond.

    Mend: none until half of the window is owed; windows double as long as that is read within four round trips,
    up to 8 MiB, and all of one connection by ``window_growth_bytes_max``. Until: > 0.8.1 batches and bounds them.
    """
    YamuxStream._auto_tune_and_send_window_update = _give_window


async def _give_window(self: Any, *, bytes_read: int = 0) -> None:
    self.depin_owed = self.__dict__.get("depin_owed", 0) + bytes_read
    if self.depin_owed < self.target_recv_window // 2 or self.recv_closed:
        return
    now, growth = trio.current_time(), 0
    if now - self.epoch_start < 4 * self._effective_rtt() and self.target_recv_window < _WINDOW_BYTES_MAX:
        growth = min(self.target_recv_window, _growth_left(self.conn))
        self.target_recv_window += growth
    self.epoch_start = now
    given, self.depin_owed = self.depin_owed + growth, 0
    self.recv_window += given
    await self.send_window_update(given)


def _growth_left(connection: Any) -> int:
    grown: int = sum(
        stream.target_recv_window - yamux_module.DEFAULT_WINDOW_SIZE for stream in connection.streams.values()
    )
    return max(0, limits_of(connection).window_growth_bytes_max - grown)


@patch
def cancelled_writes() -> None:
    """Fault: a write cancelled in the middle leaves half a Noise message on the wire; the peer fails to decrypt what
    follows, and all streams of the connection die.

    Mend: once begun, a write (576 KiB at most) is done; a connection that does not take it within
    ``dead_after_s`` is closed. Until: py-libp2p shields frame writes (> 0.8.1).
    """

    async def write_frame(self: Any, data: bytes) -> None:
        timeout_s = limits_of(self).dead_after_s
        async with self._write_lock:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout_s) as writing:
                await self.secured_conn.write(data)
        if writing.cancelled_caught:
            log.info("peer takes no bytes: closing", peer=str(self.peer_id), seconds=timeout_s)
            abort(self)
            raise RawConnError(f"the peer took no bytes for {timeout_s:g} s")
        await trio.lowlevel.checkpoint_if_cancelled()

    Yamux._write_frame = write_frame


@patch
def blocked_readers() -> None:
    """Fault: the task that reads a connection also writes the answers to pings and new streams, and waits its turn to.
    With bulk both ways and full TCP buffers each side's reader waits for its writer, which waits for the other side's
    reader: nothing moves any more, and the connection is lost.

    Mend: the reader queues its answers for a task of their own; a peer that asks faster than it takes the answers
    loses the connection. Until: py-libp2p's reader does not write (> 0.8.1).
    """
    run, write = Yamux._handle_incoming_with_ready_signal, Yamux._write_frame

    async def handle_incoming(self: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        answers, waiting = trio.open_memory_channel[bytes](_ANSWERS_MAX)
        self.depin_answers = answers
        self.depin_reader = trio.lowlevel.current_task()
        self._nursery.start_soon(send_answers, self, waiting)
        with answers:
            await run(self, task_status=task_status)

    async def send_answers(self: Any, waiting: trio.MemoryReceiveChannel[bytes]) -> None:
        with waiting, contextlib.suppress(RawConnError, ConnectionClosedError):
            async for frame in waiting:
                await write(self, frame)

    async def write_frame(self: Any, data: bytes) -> None:
        if trio.lowlevel.current_task() is not self.__dict__.get("depin_reader"):
            await write(self, data)
            return
        try:
            self.depin_answers.send_nowait(data)
        except (trio.WouldBlock, trio.BrokenResourceError) as error:
            log.info("peer takes no answers: closing", peer=str(self.peer_id))
            abort(self)
            raise RawConnError("the peer took no answers") from error

    Yamux._handle_incoming_with_ready_signal = handle_incoming
    Yamux._write_frame = write_frame


@patch
def slow_readers() -> None:
    """Fault: a write fails after 5 s without window, polling every 10 ms until then: slow readers break writers.

    Mend: wait for the window, without polling, ``stall_timeout_s`` at a time; and cut frames so that one fills one
    Noise message (measured: 267 → 400 MB/s), or a few as long as the peer takes them quickly. Until: the wait is
    configurable (> 0.8.1).
    """
    # A change of these two is what a waiting writer waits for; they are set in many places of the library.
    for name in ("send_window", "closed"):
        setattr(YamuxStream, name, _watched(name))

    async def write(self: Any, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            await _wait_for_window(self)
            burst = self.conn.__dict__.get("depin_burst", 1)
            payload = rest[: min(self.send_window, burst * _MESSAGE_BYTES_MAX)]
            self.send_window -= len(payload)
            header = FRAME_HEADER.pack(0, yamux_module.TYPE_DATA, 0, self.stream_id, len(payload))
            rest = rest[len(payload) :]
            began_s = trio.current_time()
            await self.conn._write_frame(in_one(header, payload))
            quick = trio.current_time() - began_s < _QUICK_WRITE_S
            self.conn.depin_burst = min(2 * burst, _MESSAGES_AT_ONCE_MAX) if quick else 1

    YamuxStream.write = write


def _watched(name: str) -> property:
    def get(self: Any) -> Any:
        return self.__dict__[name]

    def put(self: Any, value: Any) -> None:
        self.__dict__[name] = value
        waiting = self.__dict__.get("depin_waiting")
        if waiting is not None:
            waiting.set()

    return property(get, put)


async def _wait_for_window(stream: Any) -> None:
    timeout_s = limits_of(stream.conn).stall_timeout_s
    while True:
        if stream.closed or stream.send_closed:
            raise MuxedStreamError("the stream is closed for sending")
        if stream.send_window > 0:
            return
        stream.depin_waiting = trio.Event()
        with trio.move_on_after(timeout_s) as stalled:
            await stream.depin_waiting.wait()
        if stalled.cancelled_caught:
            raise MuxedStreamError(f"the peer read nothing for {timeout_s:g} s")


@patch
def cancelled_reads() -> None:
    """Fault: a read that is cancelled while it tells the peer of new window loses the bytes it has already taken.

    Mend: shield the update (its write is bounded). Until: py-libp2p updates before it takes the bytes (> 0.8.1).
    """
    original = YamuxStream.send_window_update

    async def update(self: Any, increment: int, skip_lock: bool = False) -> None:
        with trio.CancelScope(shield=True):
            await original(self, increment, skip_lock)

    YamuxStream.send_window_update = update


@patch
def frozen_peers() -> None:
    """Fault: a peer that is stopped or cut off is never noticed (more than 42 s, then we stopped waiting). The
    library's own health monitoring pings one connection after the other, 3 s for each that is dead, and takes a slow
    link for a dead one.

    Mend: yamux's ping, which only measures time, closes a connection on which nothing at all arrives after it, within
    ``dead_after_s``, each on its own. After the first, a ping is sent only when nothing has arrived for a while: the
    end that called asks a little sooner, and what it asks tells the other as much. All connections of a process ask at
    the ticks of one clock: a node at rest is woken for all of them at once, which costs little more than for one.
    Until: py-libp2p has keep-alives (> 0.8.1).
    """
    read = tcp_io.TrioTCPStream.read

    async def noted_read(self: Any, n: int | None = None) -> bytes:
        data: bytes = await read(self, n)
        self.depin_heard_s = trio.current_time()
        return data

    async def ping_forever(self: Any) -> None:
        period_s = (limits_of(self).dead_after_s - _LAST_CHANCE_S) / 2
        tick_s = period_s / _TICKS
        quiet_s = _CALLER_TICKS * tick_s if self.is_initiator else period_s
        socket = tcp_of(self)
        while not self.event_shutting_down.is_set():
            self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
            self._ping_event = trio.Event()
            ping = FRAME_HEADER.pack(0, yamux_module.TYPE_PING, yamux_module.FLAG_SYN, 0, self._ping_id)
            self._ping_sent_time = trio.current_time()  # now: the answer may be here before the write returns
            try:
                await self._write_frame(ping)
            except (RawConnError, ConnectionClosedError):
                return
            # If our own process stood still meanwhile, the answer is there, not yet read: hence the last chance.
            for wait_s in (period_s, _LAST_CHANCE_S):
                with trio.move_on_after(wait_s):
                    await self._ping_event.wait()
                if self._ping_event.is_set() or _heard_s(socket) >= self._ping_sent_time:
                    break
            else:
                log.info("peer is silent: closing", peer=str(self.peer_id))
                abort(self)
                return
            while (due_s := tick_before(_heard_s(socket) + quiet_s, tick_s)) > trio.current_time():
                with trio.move_on_at(due_s):
                    await self.event_shutting_down.wait()
                    return

    tcp_io.TrioTCPStream.read = noted_read
    Yamux._measure_rtt_loop = ping_forever


def _heard_s(socket: Any) -> float:
    heard_s: float = socket.__dict__.get("depin_heard_s", 0.0)
    return heard_s
