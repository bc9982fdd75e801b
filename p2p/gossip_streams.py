"""Gossip over streams of any network: the shell of ``gossip.Gossip``.

Each node opens one stream of ``gossip/1`` to each neighbour and only sends on it; it reads on the one that the
neighbour opened. What waits for a slow neighbour is bounded: the newest is dropped, and comes again by its id. A
neighbour that sends more than it may is read from more slowly, so that its own stream fills.
"""

import math
import random
from collections import Counter
from collections.abc import Callable

import structlog
import trio

from depin_node.core import clock
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import TransportError
from depin_node.p2p import serving
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.frames import Frame, FrameReader, send_frames
from depin_node.p2p.gossip import TOPICS, Effect, Gossip, Judge, Punish, Send
from depin_node.p2p.network import GossipHandler, Network, NetworkLimits, PeerKey, Stream, UnknownProtocolError

log = structlog.get_logger("depin_node.p2p")

GOSSIP_PROTOCOL = "gossip/1"
_REOPEN_S = (0.5, 15.0)
_GATHER_MAX = 64


class GossipStreams:
    """One node's gossip. ``run`` it in the network's nursery.

    Args:
        network: whose streams are used; this serves ``gossip/1`` on it.
        limits: sizes and queues.
        counters: of the network.
        start: starts a task that ends with the network.
        punish: disconnects a peer and keeps it out.
    """

    def __init__(
        self,
        network: Network,
        limits: NetworkLimits,
        counters: Counter[str],
        *,
        start: Callable[..., None],
        punish: Callable[[PeerKey, str], None],
    ) -> None:
        self._network = network
        self._limits = limits
        self._counters = counters
        self._start = start
        self._punish = punish
        self._machine = Gossip(limits.gossip_size_bytes_max, random.SystemRandom())
        self._handlers: dict[str, GossipHandler] = {}
        self._turns: dict[str, trio.Lock] = {}
        self._senders: dict[PeerKey, trio.MemorySendChannel[Frame]] = {}
        self._readers: dict[PeerKey, trio.CancelScope] = {}
        self._wake = trio.Event()
        self._sleeps_until_ns = math.inf
        network.serve(GOSSIP_PROTOCOL, self._read)

    async def run(self) -> None:
        """Keep the machine's time."""
        while True:
            self._wake = trio.Event()
            self._sleeps_until_ns = self._due_ns()
            wait_s = (self._sleeps_until_ns - clock.now().boottime_ns) / SECOND_NS
            with trio.move_on_after(max(0.0, wait_s)):
                await self._wake.wait()
                continue
            self._carry_out(self._machine.tick(clock.now()))

    def _due_ns(self) -> float:
        wake_ns = self._machine.wake_ns
        return math.inf if wake_ns is None else wake_ns

    def _wake_in_time(self) -> None:
        """Wake the task that keeps the time, if something is due sooner than it will wake by itself."""
        if self._due_ns() < self._sleeps_until_ns:
            self._wake.set()

    def subscribe(self, topic: str, handler: GossipHandler) -> None:
        """See ``Network.subscribe``."""
        if topic in self._handlers:
            raise ValueError(f"{topic} is subscribed already")
        self._handlers[topic] = handler
        self._turns[topic] = trio.Lock()
        self._carry_out(self._machine.subscribe(topic))

    def unsubscribe(self, topic: str) -> None:
        """See ``Network.unsubscribe``."""
        if self._handlers.pop(topic, None) is not None:
            del self._turns[topic]
            self._carry_out(self._machine.unsubscribe(topic))

    def publish(self, topic: str, data: bytes, *, by_id: bool) -> None:
        """See ``Network.publish``."""
        self._carry_out(self._machine.publish(topic, data, clock.now(), by_id=by_id))

    def joined(self, peer: PeerKey) -> None:
        """A peer is connected."""
        send, receive = trio.open_memory_channel[Frame](self._limits.gossip_queue_max)
        self._senders[peer] = send
        self._machine.joined(peer, clock.now())
        self._start(self._write, peer, send, receive)

    def left(self, peer: PeerKey) -> None:
        """A peer is no longer connected."""
        sender = self._senders.pop(peer, None)
        if sender is not None:
            sender.close()
        self._machine.left(peer)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, kind, body):
                    self._send(peer, Frame(kind, body))
                case Punish(peer, reason):
                    self._punish(peer, reason)
                case Judge():
                    raise AssertionError("a verdict is waited for by who reads")
        self._wake_in_time()

    def _send(self, peer: PeerKey, frame: Frame) -> None:
        sender = self._senders.get(peer)
        if sender is None:
            return
        try:
            sender.send_nowait(frame)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self._counters["gossip_unsent"] += 1

    async def _write(
        self, peer: PeerKey, send: trio.MemorySendChannel[Frame], frames: trio.MemoryReceiveChannel[Frame]
    ) -> None:
        """Send what waits for ``peer``, on a stream that is opened again when it breaks, until the peer is gone."""
        pause_s = _REOPEN_S[0]
        with frames:
            while self._senders.get(peer) is send:
                try:
                    stream = await self._network.open_stream(peer, GOSSIP_PROTOCOL)
                    await send_frames(stream, [Frame(TOPICS, self._machine.greeting())])
                    await self._write_all(stream, frames)
                    await stream.aclose()
                    return
                except UnknownProtocolError:
                    return  # it takes no part
                except TransportError as error:
                    log.debug("gossip stream broke", peer=peer_id(peer), reason=str(error))
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _REOPEN_S[1])

    async def _write_all(self, stream: Stream, frames: trio.MemoryReceiveChannel[Frame]) -> None:
        async for frame in frames:
            gathered = [frame]
            while len(gathered) < _GATHER_MAX:
                try:
                    gathered.append(frames.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            await send_frames(stream, gathered)

    async def _read(self, stream: Stream) -> None:
        """Serve ``gossip/1``: one stream a neighbour, the newest."""
        peer = stream.peer
        with trio.CancelScope() as scope:
            if (older := self._readers.get(peer)) is not None:
                older.cancel()
            self._readers[peer] = scope
            try:
                await self._read_all(stream)
            finally:
                if self._readers.get(peer) is scope:
                    del self._readers[peer]

    async def _read_all(self, stream: Stream) -> None:
        reader = FrameReader(stream, size_bytes_max=self._machine.frame_bytes_max)
        while (frame := await reader.read()) is not None:
            now = clock.now()
            for effect in self._machine.heard(stream.peer, frame.kind, frame.body, now):
                if isinstance(effect, Judge):
                    await self._judge(effect)
                else:
                    self._carry_out([effect])
            self._wake_in_time()
            if wait_s := self._machine.wait_s(stream.peer, now):
                self._counters["gossip_slowed"] += 1
                await trio.sleep(wait_s)

    async def _judge(self, message: Judge) -> None:
        async with self._turns[message.topic]:
            handler = self._handlers.get(message.topic)
            if handler is None:  # unsubscribed while it waited
                return
            verdict = await serving.judge(
                handler, message.peer, message.data, limits=self._limits, counters=self._counters
            )
        if message.topic in self._handlers:
            self._carry_out(self._machine.judged(message, verdict, clock.now()))
