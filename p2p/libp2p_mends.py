"""What py-libp2p 0.8.1 needs before it may face strangers, each mend with its fault and the release it waits for.

``MENDS`` lists them by name. A mend changes a ``Plan`` (the options one host is built from) or replaces a function of
the library for the whole process; ``apply`` does either once. Each has a test in ``tests/p2p/test_libp2p_mends.py``
that shows the fault with that mend left out, and shows it gone with all of them. When a release heals a fault, its
test without the mend fails: then the mend goes.

Only this module and ``libp2p_host`` import libp2p.
"""

import contextlib
import logging
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import libp2p.host.basic_host as basic_host
import libp2p.io.trio as tcp_io
import libp2p.io.utils as io_utils
import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.network.swarm as swarm_module
import libp2p.stream_muxer.yamux.yamux as yamux_module
import libp2p.transport.tcp.tcp as tcp_module
import structlog
import trio
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from depin_node.p2p.network import NetworkLimits

log = structlog.get_logger("depin_node.p2p")

# One yamux frame (header and payload) that fits one Noise message: 65,535 − 16 bytes of tag (noise/io.py).
_FRAME_BYTES_MAX = 65_519
_PAYLOAD_BYTES_MAX = _FRAME_BYTES_MAX - yamux_module.HEADER_SIZE
_FRAME_HEADER = struct.Struct(yamux_module.YAMUX_HEADER_FORMAT)
_WINDOW_BYTES_MAX = 8 << 20
_TCP_READ_BYTES = 256 * 1024
_WINDOW_UPDATE_BYTES_MIN = 64 * 1024
_LAST_CHANCE_S = 0.5
_ANSWERS_MAX = 1024  # frames of 12 bytes


@dataclass
class Plan:
    """The options one host is built from, as a careless caller would give them; the mends change them."""

    key_pair: KeyPair
    limits: NetworkLimits
    security: dict[Any, Any] | None = None
    """Of ``new_host``; None accepts whatever libp2p does."""
    gossip: dict[str, Any] = field(default_factory=dict)
    """Of ``GossipSub``."""


Mend = Callable[[Plan], None]
MENDS: dict[str, Mend] = {}
_applied: set[str] = set()


def apply(plan: Plan, *, without: Collection[str] = ()) -> None:
    """Apply all mends but those named in ``without``, which is for tests."""
    for name, mend in MENDS.items():
        if name not in without:
            mend(plan)


def _option(mend: Mend) -> Mend:
    """Register a mend that changes the plan of one host."""
    MENDS[mend.__name__] = mend
    return mend


def _patch(mend: Callable[[], None]) -> Callable[[], None]:
    """Register a mend that changes the library, once a process."""

    def once(plan: Plan) -> None:
        if mend.__name__ not in _applied:
            _applied.add(mend.__name__)
            mend()

    MENDS[mend.__name__] = once
    return mend


def limits_of(connection: Any) -> NetworkLimits:
    """Return the limits of the host that a yamux connection belongs to."""
    limits: NetworkLimits = getattr(getattr(connection, "swarm", None), "depin_limits", NetworkLimits())
    return limits


def abort(connection: Any) -> None:
    """Close a yamux connection's socket at once, without a word to the peer; its reader then cleans up."""
    _tcp_of(connection).stream.socket.close()


def _tcp_of(connection: Any) -> Any:
    """Return the ``TrioTCPStream`` under yamux, session, Noise, its packets and the raw connection."""
    layer = connection.secured_conn
    for name in ("conn", "read_writer", "read_write_closer", "stream"):
        layer = getattr(layer, name)
    return layer


# ---------------------------------------------------------------------------------------------------------------------
# Strangers


@_option
def noise_only(plan: Plan) -> None:
    """Fault: a host without ``sec_opt`` also accepts ``/plaintext/2.0.0`` and secio: no encryption, no proof of key.

    Until: py-libp2p offers only authenticated transports by default (> 0.8.1).
    """
    plan.security = {
        NOISE_ID: NoiseTransport(plan.key_pair, noise_privkey=create_x25519_key_pair().private_key),
    }


@_patch
def handler_errors() -> None:
    """Fault: an exception in a stream handler ends the service that runs it, and with it the whole host.

    A peer gets there with garbage on any protocol whose parser raises, such as 51 bytes on ``/meshsub/1.1.0``.
    Until: py-libp2p contains handler errors (> 0.8.1).
    """
    original = Swarm.set_stream_handler

    def set_stream_handler(self: Any, handler: Any) -> None:
        async def contained(stream: Any) -> None:
            try:
                await handler(stream)
            except Exception as error:  # noqa: BLE001 - one stream's failure stays with that stream
                log.debug("libp2p stream failed", protocol=stream.get_protocol(), error=repr(error)[:200])
                await _reset_quietly(stream)

        original(self, contained)

    Swarm.set_stream_handler = set_stream_handler


async def _reset_quietly(stream: Any) -> None:
    try:
        await stream.reset()
    except Exception as error:  # noqa: BLE001 - it is gone anyway
        log.debug("reset failed", error=repr(error)[:200])


@_patch
def pubsub_errors() -> None:
    """Fault: each gossiped message runs as a task of the pubsub service, so one that raises ends it, and the host.

    A peer gets there with a message whose ``key`` is no key (``DecodeError``); so does a sync validator that raises.
    Until: py-libp2p contains errors of single messages (> 0.8.1).
    """
    original = Pubsub.push_msg

    async def push_msg(self: Any, forwarder: Any, message: Any) -> None:
        try:
            await original(self, forwarder, message)
        except Exception as error:  # noqa: BLE001 - one message's failure stays with that message
            log.debug("gossip message failed", error=repr(error)[:200])

    Pubsub.push_msg = push_msg


@_patch
def inbound_slots() -> None:
    """Fault: an inbound slot is held until the *node* ends, so after ``max_connections − min_connections`` accepted
    connections in a node's life all further ones are refused.

    Mend: hold it until the connection ends. Until: py-libp2p does so (> 0.8.1).
    """

    async def handle(self: Any, socket: Any, listen_address: Any, failure: Any) -> None:
        raw = RawConnection(socket, False)
        try:
            connection = await self.upgrade_inbound_raw_conn(raw, listen_address)
        except Exception as error:  # noqa: BLE001 - a stranger's failed handshake
            log.debug("inbound connection failed", error=repr(error)[:200])
            await raw.close()
            return
        await connection.event_closed.wait()

    Swarm._do_handle_inbound_connection = handle


@_patch
def receive_window() -> None:
    """Fault: the receive window is not enforced: a peer may send without end into a stream that nobody reads.

    Measured: 200 MiB raise a process from 83 to 283 MB. Mend: a connection that overruns a window is closed; and a
    stream's window grows to 8 MiB instead of 16. Until: py-libp2p enforces it (> 0.8.1).
    """
    yamux_module.MAX_WINDOW_SIZE = _WINDOW_BYTES_MAX

    def get(self: Any) -> int:
        window: int = self.__dict__["recv_window"]
        return window

    def put(self: Any, value: int) -> None:
        self.__dict__["recv_window"] = value
        if value < 0:
            log.warning("peer overran its receive window", peer=str(self.conn.peer_id), bytes=-value)
            abort(self.conn)

    YamuxStream.recv_window = property(get, put)


@_patch
def root_logging() -> None:
    """Fault: ``swarm_connection`` logs by ``logging.debug(…)``, which installs a handler on the root logger, so that
    the library's warnings appear on the program's stderr.

    Until: py-libp2p uses a logger of its own there (> 0.8.1).
    """
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")


# ---------------------------------------------------------------------------------------------------------------------
# Dialling and listening


@_patch
def dial_blacklist() -> None:
    """Fault: a peer whose one tried address failed is not dialled again for 60 s, at whatever address.

    Mend: never mark; the peer directory decides whom to dial and when. Until: the cache is keyed by address (> 0.8.1).
    """
    swarm_module._NegativePeerCache.mark_failed = lambda self, peer_id: None


@_patch
def auto_dialling() -> None:
    """Fault: below half of ``high_watermark`` the host dials whoever is in its peerstore, at addresses that any peer
    may have put there.

    Until: 0 for ``min_connections`` and ``low_watermark`` switches it off (> 0.8.1).
    """

    async def maybe_connect(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    AutoConnector.maybe_connect = maybe_connect


@_patch
def identify() -> None:
    """Fault: every connected peer is asked for, or may push, its addresses and protocols, and all it says is kept,
    without a bound: a way to fill memory and to have others dialled.

    We learn addresses from signed adverts. Mend: neither ask nor answer. Until: it is an option (> 0.8.1).
    """
    BasicHost._schedule_identify = lambda self, peer_id, *, reason: None
    original = basic_host.get_default_protocols

    def only_ping(host: Any) -> Any:
        return {name: handler for name, handler in original(host).items() if "/ping/" in name}

    basic_host.get_default_protocols = only_ping


@_patch
def dial_delay() -> None:
    """Fault: a dial waits 250 ms before it returns, even when it succeeded at once (``failed_event`` never comes).

    Until: py-libp2p stops waiting on success (> 0.8.1).
    """
    swarm_module._HAPPY_EYEBALLS_DELAY = 0.02


@_patch
def exclusive_listen() -> None:
    """Fault: listeners set SO_REUSEPORT, so a second node of the same user binds the same port without an error and
    the kernel spreads connections over both.

    It is there for hole punching, which we do not do. Until: it is an option (> 0.8.1).
    """

    def set_reuse_flags(socket: Any) -> None:
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)

    tcp_module._set_reuse_flags = set_reuse_flags


# ---------------------------------------------------------------------------------------------------------------------
# Speed (before what follows: ``frozen_peers`` wraps the read that ``buffered_reads`` puts in)


@_patch
def buffered_reads() -> None:
    """Two system calls for each Noise message: one for its length, one or more for its body.

    Mend: read what is there, up to 256 KiB, and cut from it (measured: 400 → 567 MB/s). Until: > 0.8.1 buffers.
    """

    async def read(self: Any, n: int | None = None) -> bytes:
        if n == 0:
            return b""
        waiting = self.__dict__.setdefault("depin_waiting", bytearray())
        if not waiting:
            try:
                data = await self.stream.receive_some(_TCP_READ_BYTES)
            except trio.BrokenResourceError as error:
                raise ConnectionClosedError(f"connection reset: {error}", transport="tcp") from error
            except trio.ClosedResourceError:
                return b""
            if n is None or len(data) <= n:
                return bytes(data)
            waiting += data
        size_bytes = len(waiting) if n is None else n
        taken = bytes(waiting[:size_bytes])
        del waiting[:size_bytes]
        return taken

    tcp_io.TrioTCPStream.read = read


@_patch
def window_updates() -> None:
    """Every small read sends a window update of its own, which doubles the messages of a request and its answer.

    Mend: none until 64 KiB are owed, a quarter of the smallest window. Until: > 0.8.1 batches them.
    """
    original = YamuxStream._auto_tune_and_send_window_update

    async def update(self: Any, *, bytes_read: int = 0) -> None:
        owed = self.__dict__.get("depin_owed", 0) + bytes_read
        self.depin_owed = owed if owed < _WINDOW_UPDATE_BYTES_MIN else 0
        if not self.depin_owed:
            await original(self, bytes_read=owed)

    YamuxStream._auto_tune_and_send_window_update = update


# ---------------------------------------------------------------------------------------------------------------------
# Connections that stay whole


@_patch
def short_reads() -> None:
    """Fault: ``read_exactly`` gives up after 101 partial reads, so small TCP segments end a connection.

    Measured: with segments of 536 bytes a 1 MB transfer dies. The code object is replaced because other modules have
    imported the function by name. Until: it loops until the end (> 0.8.1).
    """

    async def read_exactly(reader, n, retry_count=0):  # type: ignore[no-untyped-def]
        data = await reader.read(n)
        if len(data) == n:
            return data
        buffer = bytearray(data)
        while len(buffer) < n:
            if not data:
                raise IncompleteReadError(
                    f"connection closed after {len(buffer)} of {n} bytes",
                    expected_bytes=n,
                    received_bytes=len(buffer),
                )
            data = await reader.read(n - len(buffer))
            buffer += data
        return bytes(buffer)

    io_utils.read_exactly.__code__ = read_exactly.__code__


@_patch
def cancelled_writes() -> None:
    """Fault: a write cancelled in the middle leaves half a Noise message on the wire; the peer fails to decrypt what
    follows, and all streams of the connection die.

    Mend: once begun, a frame (64 KiB at most) is written whole; a connection that does not take it within
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
        await trio.lowlevel.checkpoint()

    Yamux._write_frame = write_frame


@_patch
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


@_patch
def slow_readers() -> None:
    """Fault: a write fails after 5 s without window, polling every 10 ms until then: slow readers break writers.

    Mend: wait for the window, without polling, ``stall_timeout_s`` at a time; and cut frames so that one fits one
    Noise message (measured: 267 → 400 MB/s). Until: the wait is configurable (> 0.8.1).
    """
    # A change of these two is what a waiting writer waits for; they are set in many places of the library.
    for name in ("send_window", "closed"):
        setattr(YamuxStream, name, _watched(name))

    async def write(self: Any, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while len(rest):
            await _wait_for_window(self)
            size_bytes = min(self.send_window, _PAYLOAD_BYTES_MAX, len(rest))
            self.send_window -= size_bytes
            header = _FRAME_HEADER.pack(0, yamux_module.TYPE_DATA, 0, self.stream_id, size_bytes)
            await self.conn._write_frame(b"".join((header, rest[:size_bytes])))
            rest = rest[size_bytes:]

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


@_patch
def cancelled_reads() -> None:
    """Fault: a read that is cancelled while it tells the peer of new window loses the bytes it has already taken.

    Mend: shield the update (its write is bounded). Until: py-libp2p updates before it takes the bytes (> 0.8.1).
    """
    original = YamuxStream._auto_tune_and_send_window_update

    async def update(self: Any, *, bytes_read: int = 0) -> None:
        with trio.CancelScope(shield=True):
            await original(self, bytes_read=bytes_read)

    YamuxStream._auto_tune_and_send_window_update = update


@_patch
def frozen_peers() -> None:
    """Fault: a peer that is stopped or cut off is never noticed (more than 42 s, then we stopped waiting). The
    library's own health monitoring pings one connection after the other, 3 s for each that is dead, and takes a slow
    link for a dead one.

    Mend: yamux's ping, which only measures time, closes a connection on which nothing at all arrives after it, within
    ``dead_after_s``, each on its own. Until: py-libp2p has keep-alives (> 0.8.1).
    """
    read = tcp_io.TrioTCPStream.read

    async def noted_read(self: Any, n: int | None = None) -> bytes:
        data: bytes = await read(self, n)
        self.depin_heard_s = trio.current_time()
        return data

    async def ping_forever(self: Any) -> None:
        period_s = (limits_of(self).dead_after_s - _LAST_CHANCE_S) / 2
        socket = _tcp_of(self)
        while not self.event_shutting_down.is_set():
            self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
            self._ping_event = trio.Event()
            ping = _FRAME_HEADER.pack(0, yamux_module.TYPE_PING, yamux_module.FLAG_SYN, 0, self._ping_id)
            try:
                await self._write_frame(ping)
            except (RawConnError, ConnectionClosedError):
                return
            self._ping_sent_time = trio.current_time()
            # If our own process stood still meanwhile, the answer is there, not yet read: hence the last chance.
            for wait_s in (period_s, _LAST_CHANCE_S):
                with trio.move_on_after(wait_s):
                    await self._ping_event.wait()
                alive = self._ping_event.is_set() or socket.__dict__.get("depin_heard_s", 0) >= self._ping_sent_time
                if alive:
                    break
            else:
                log.info("peer is silent: closing", peer=str(self.peer_id))
                abort(self)
                return
            with trio.move_on_after(period_s):
                await self.event_shutting_down.wait()

    tcp_io.TrioTCPStream.read = noted_read
    Yamux._measure_rtt_loop = ping_forever


# ---------------------------------------------------------------------------------------------------------------------
# Gossip


@_option
def adaptive_gossip(plan: Plan) -> None:
    """Fault: ``adaptive_gossip_enabled`` (default) stretches the heartbeat to 30–60 s when the mesh is small or young:
    repair slows and memory grows (83 → 140 MB in 230 s at 100 messages/s of 1 kB; flat when off).

    Until: poor health shortens the interval, as its comment says (> 0.8.1).
    """
    plan.gossip["adaptive_gossip_enabled"] = False


@_option
def gossip_rate(plan: Plan) -> None:
    """Fault: more than 10 messages a second by one forwarder on one topic, our own included, are dropped in silence.

    Until: it can be switched off (> 0.8.1). Messages are bounded by ``gossip_queue_max`` instead.
    """
    plan.gossip["max_messages_per_topic_per_second"] = 1e9


@_patch
def ghost_peer() -> None:
    """Fault: when a peer comes back while its old connection still looks alive (it crashed, or moved), pubsub keeps
    the old stream and never takes the peer back: no gossip between the two (none in 22 s; mended: 0.5 s).

    Mend: of two connections of one peer in the same direction the newer counts; the older is closed, and pubsub
    registers the peer anew. (Two of opposite directions are a simultaneous dial: both stay.) So nobody may open a
    second connection on purpose. Until: pubsub follows the live connection (> 0.8.1).
    """
    original = Pubsub._handle_new_peer

    async def handle_new_peer(self: Any, peer_id: Any) -> None:
        swarm = self.host.get_network()
        connections = swarm.get_connections(peer_id)
        older = [c for c in connections[:-1] if c.direction == connections[-1].direction]
        for connection in older:
            swarm.remove_conn(connection)  # now: closing takes a while, and streams must not be opened on it
            abort(connection.muxed_conn)
        if older:
            self._handle_dead_peer(peer_id)  # which schedules the registration on what is left
            return
        registering = self.__dict__.setdefault("depin_registering", set())
        if peer_id not in registering:  # two connections at once would leave an orphaned sender behind
            registering.add(peer_id)
            try:
                await original(self, peer_id)
            finally:
                registering.discard(peer_id)

    Pubsub._handle_new_peer = handle_new_peer
