"""The network in memory, for tests and simulation: no sockets, any number of nodes, seeded faults.

The flow: a ``MemoryFabric`` knows every open node by its address. ``dial`` puts a ``_Link`` between two
nodes; a stream is a pair of ``_Pipe``\\ s over that link, each with a window; gossip floods over links to
nodes that subscribe, each of which judges a message once and hands it on. All delay is simulated by waiting
for a chunk's time of arrival, so that under ``trio.testing.MockClock`` hours pass in seconds. ``kill`` ends a
node as SIGKILL would, ``partition`` and ``freeze`` hold all traffic; what is held longer than
``dead_after_s`` breaks, as on the real network.

Trio runs ready tasks in random order, so that a seed fixes delays and losses, not every interleaving.
"""

import itertools
import random
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import TransportError
from depin_node.p2p import serving
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.network import (
    Connected,
    ConnectionEvent,
    Disconnected,
    GossipHandler,
    Network,
    NetworkLimits,
    Path,
    PeerKey,
    Stream,
    StreamHandler,
    UnknownProtocolError,
    Verdict,
)
from depin_node.p2p.strikes import Strikes

WINDOW_BYTES = 256 * 1024
"""Bytes one side may have sent that the other has not read: yamux's initial window."""
_SEEN_MAX = 2048
_DIAL_ROUND_TRIPS = 4
_OPEN_ROUND_TRIPS = 1.5


def _now_ns() -> int:
    return int(trio.current_time() * SECOND_NS)


class _Signal:
    """Wakes all who wait for a change of state."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class _Link:
    """One connection between two nodes, with its delay and its streams."""

    def __init__(self, a: "_Node", b: "_Node", latency_s: float) -> None:
        self.ends = (a, b)
        self.latency_s = latency_s
        self.broken: str | None = None
        self.ended = trio.Event()
        self.cut = False
        self.changed = _Signal()
        self.streams: set[_MemoryStream] = set()

    def other(self, node: "_Node") -> "_Node":
        return self.ends[1] if node is self.ends[0] else self.ends[0]

    async def travel(self, trips: float) -> None:
        """Wait as long as ``trips`` one-way trips take, and as long as the link is cut."""
        await trio.sleep(self.latency_s * trips)
        while self.cut and not self.broken:
            await self.changed.wait()
        if self.broken:
            raise TransportError(self.broken)

    def set_cut(self, cut: bool) -> None:
        if cut != self.cut and not self.broken:
            self.cut = cut
            self.changed.notify()
            self.notify_streams()
            if cut:
                for end in self.ends:
                    end._start(self._break_when_long_cut, min(e.limits.dead_after_s for e in self.ends))

    async def _break_when_long_cut(self, after_s: float) -> None:
        with trio.move_on_after(after_s):
            while self.cut and not self.broken:
                await self.changed.wait()
            return
        self.break_("the connection is dead: the peer answers no ping")

    def break_(self, reason: str) -> None:
        """Drop the link for both ends, at once."""
        if self.broken:
            return
        self.broken = reason
        self.ended.set()
        for stream in list(self.streams):
            stream.break_(reason)
        for end in self.ends:
            end._forget(self)
        self.changed.notify()

    def notify_streams(self) -> None:
        for stream in self.streams:
            stream.inbound.changed.notify()


class _Pipe:
    """One direction of a stream: chunks with their times of arrival, at most ``WINDOW_BYTES`` of them."""

    def __init__(self, link: _Link) -> None:
        self.link = link
        self.chunks: deque[tuple[float, bytes]] = deque()  # an empty chunk is the end
        self.size_bytes = 0
        self.broken: str | None = None
        self.ended = False
        self.changed = _Signal()

    def break_(self, reason: str) -> None:
        if not self.broken:
            self.broken = reason
            self.changed.notify()

    def put(self, data: bytes) -> None:
        self.chunks.append((trio.current_time() + self.link.latency_s, data))
        self.size_bytes += len(data)
        self.changed.notify()

    async def send_all(self, data: memoryview, stall_timeout_s: float) -> None:
        if self.ended:
            raise TransportError("the stream is closed for sending")
        while True:
            if self.broken:
                raise TransportError(self.broken)
            room = WINDOW_BYTES - self.size_bytes
            if room > 0 and len(data):
                self.put(bytes(data[:room]))
                data = data[room:]
            if not len(data):
                break
            with trio.move_on_after(stall_timeout_s) as stalled:
                while self.size_bytes >= WINDOW_BYTES and not self.broken:
                    await self.changed.wait()
            if stalled.cancelled_caught:
                raise TransportError(f"the peer read nothing for {stall_timeout_s:g} s")
        await trio.lowlevel.checkpoint()

    async def receive_some(self, size_bytes_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken:
                raise TransportError(self.broken)
            if not self.chunks or self.link.cut:
                await self.changed.wait()
                continue
            arrival, data = self.chunks[0]
            if arrival > trio.current_time():
                with trio.move_on_at(arrival):
                    await self.changed.wait()
                continue
            if not data:
                return b""  # stays at the head: reading again ends again
            if len(data) > size_bytes_max:
                self.chunks[0] = (arrival, data[size_bytes_max:])
                data = data[:size_bytes_max]
            else:
                self.chunks.popleft()
            self.size_bytes -= len(data)
            self.changed.notify()
            return data


class _MemoryStream:
    """One end of a stream."""

    def __init__(self, protocol: str, peer: PeerKey, inbound: _Pipe, outbound: _Pipe, stall_timeout_s: float) -> None:
        self.protocol = protocol
        self.peer = peer
        self.inbound = inbound
        self.outbound = outbound
        self._stall_timeout_s = stall_timeout_s
        self._link = inbound.link
        self._link.streams.add(self)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        done = False
        try:
            await self.outbound.send_all(memoryview(data).cast("B"), self._stall_timeout_s)
            done = True
        finally:
            if not done:
                self.break_("the stream was reset in the middle of a message")

    async def receive_some(self, size_bytes_max: int = 65_536) -> bytes:
        return await self.inbound.receive_some(size_bytes_max)

    async def receive_exactly(self, size_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < size_bytes:
            chunk = await self.receive_some(size_bytes - len(data))
            if not chunk:
                raise TransportError(f"the stream ended after {len(data)} of {size_bytes} bytes")
            data += chunk
        return bytes(data)

    async def send_eof(self) -> None:
        if not self.outbound.ended and not self.outbound.broken:
            self.outbound.ended = True
            self.outbound.put(b"")
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self.send_eof()
        # What the peer still sends is dropped: nobody will read it.
        self.inbound.break_("the stream is closed")
        self._link.streams.discard(self)

    async def reset(self) -> None:
        self.break_("the stream was reset")
        await trio.lowlevel.checkpoint()

    def break_(self, reason: str) -> None:
        self.inbound.break_(reason)
        self.outbound.break_(reason)
        self._link.streams.discard(self)


@dataclass(frozen=True)
class _Gossip:
    """One published message; equal ones are one."""

    topic: str
    data: bytes


class _Topic:
    """One subscription: its queue and the task that judges, takes and passes on, one message at a time."""

    def __init__(self, node: "_Node", handler: GossipHandler) -> None:
        self._node = node
        self._handler = handler
        self._scope = trio.CancelScope()
        self._send, self._receive = trio.open_memory_channel[tuple[float, _Link, _Gossip]](node.limits.gossip_queue_max)

    def offer(self, arrival: float, link: _Link, message: _Gossip) -> bool:
        try:
            self._send.send_nowait((arrival, link, message))
        except (trio.WouldBlock, trio.BrokenResourceError):
            self._node._counters["gossip_dropped"] += 1
            return False
        return True

    def close(self) -> None:
        self._scope.cancel()

    async def run(self) -> None:
        with self._scope, self._receive:
            await self._take_all()

    async def _take_all(self) -> None:
        async for arrival, link, message in self._receive:
            if arrival > trio.current_time():
                await trio.sleep_until(arrival)
            node = self._node
            forwarder = link.other(node).key
            if Verdict.ACCEPT is await serving.judge(
                self._handler, forwarder, message.data, limits=node.limits, counters=node._counters
            ):
                node._spread(message, came_by=link)


class _Node:
    """One node of a ``MemoryFabric``; see ``network.Network`` for its methods."""

    def __init__(
        self, fabric: "MemoryFabric", address: Address, network_id: str, limits: NetworkLimits, nursery: trio.Nursery
    ) -> None:
        self.key = address.peer
        self.network_id = network_id
        self.limits = limits
        self._fabric = fabric
        self._address = address
        self._nursery = nursery
        self.is_private = False
        """Whether nobody can dial it, as behind a NAT; it can dial others, and be reached through a relay."""
        self._links: dict[PeerKey, _Link] = {}
        self._paths: dict[PeerKey, Path] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._topics: dict[str, _Topic] = {}
        self._seen: OrderedDict[_Gossip, None] = OrderedDict()
        self._counters: Counter[str] = Counter()
        self._events = serving.EventHub(limits, self._counters)
        self._strikes = Strikes(limits.kept_out_s)
        self._server = serving.StreamServer(limits, self._counters, violated=self.report)
        self._open = True

    def addresses(self) -> list[str]:
        return [str(self._address)]

    def peers(self) -> frozenset[PeerKey]:
        return frozenset(self._links)

    def counters(self) -> Mapping[str, int]:
        return dict(self._counters)

    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        return self._events.subscribe()

    def path(self, peer: PeerKey) -> Path | None:
        return self._paths.get(peer)

    async def probe(self, address: str) -> None:
        target = parse(address)
        other = self._fabric._at(target)
        await trio.lowlevel.checkpoint()
        if other is None or other.key != target.peer or other.is_private:
            raise TransportError(f"{address}: cannot be called")

    async def adopt(self, stream: Stream, path: Path, peer: PeerKey, head: bytes = b"") -> trio.Event:
        """Here a circuit carries nothing but its own end: the two nodes are linked past it. The source makes the link;
        the target waits for it, and both drop it when the stream ends.
        """
        other = next((node for node in self._fabric._nodes.values() if node.key == peer), None)
        try:
            with trio.fail_after(self.limits.dial_timeout_s):
                await stream.send_all(self.key)
                if other is None or (head + await stream.receive_exactly(32 - len(head))) != peer:
                    raise TransportError(f"{peer_id(peer)} was to be there, and another peer is")
        except (trio.TooSlowError, TransportError) as error:
            await stream.reset()
            raise TransportError(f"{peer_id(peer)}: cannot be connected: {error}") from error
        if path.outbound:
            link = _Link(self, other, self._fabric._latency())
            self._remember(link, path)
            other._remember(
                link, Path(f"{path.address.rpartition('/p2p/')[0]}/p2p/{peer_id(self.key)}", False, 0, True)
            )
        while peer not in self._links:  # noqa: ASYNC110 - until the source has made it
            await trio.sleep(0.001)
        link = self._links[peer]
        self._start(self._follow, stream, link)
        return link.ended

    async def _follow(self, stream: Stream, link: _Link) -> None:
        async with trio.open_nursery() as nursery:

            async def drop_link() -> None:
                with suppress(TransportError):
                    await stream.receive_some()
                link.break_("the circuit is over")
                nursery.cancel_scope.cancel()

            nursery.start_soon(drop_link)
            await link.ended.wait()
            await stream.reset()
            nursery.cancel_scope.cancel()

    async def punch(self, peer: PeerKey, host: str, port: int, *, local_port: int, outbound: bool) -> None:
        await trio.lowlevel.checkpoint()
        raise TransportError("no holes are punched in memory")

    async def dial(self, address: str) -> PeerKey:
        target = parse(address)
        await trio.lowlevel.checkpoint()
        if target.peer == self.key:
            raise TransportError(f"{address} is this node itself")
        if target.peer in self._links:
            return target.peer
        if self._keeps_out(target.peer):
            raise TransportError(f"{address} is not called: it broke the rules and is kept out for a while")
        if target.relay:
            raise TransportError(f"{address} is that of a relay: only ``reach.Reach`` asks it for a circuit")
        with trio.move_on_after(self.limits.dial_timeout_s):
            return await self._connect(target)
        raise TransportError(f"{address}: no answer within {self.limits.dial_timeout_s:g} s")

    async def _connect(self, target: Address) -> PeerKey:
        other = self._fabric._at(target)
        if other is None or other.is_private:
            raise TransportError(f"{target}: connection refused: nobody listens there")
        link = _Link(self, other, self._fabric._latency())
        link.cut = self._fabric._is_cut(self, other)
        if link.cut:
            await trio.sleep_forever()
        await link.travel(_DIAL_ROUND_TRIPS * 2)
        if target.peer in self._links:  # both dialled at once
            return target.peer
        if not other._open or other.key != target.peer:
            raise TransportError(f"{target}: the node there is not {peer_id(target.peer)}")
        if other.network_id != self.network_id:
            raise TransportError(
                f"{target} is of another network than {self.network_id!r}: give both nodes the same network id"
            )
        if other._keeps_out(self.key):
            other._counters["connections_refused"] += 1
            raise TransportError(f"{target}: the peer hung up")
        if len(other._links) >= other.limits.connections_max:
            other._counters["connections_refused"] += 1
            raise TransportError(f"{target}: the peer has no place for another connection")
        if len(self._links) >= self.limits.connections_max:
            raise TransportError(f"no place for another connection: {len(self._links)} are open")
        self._remember(link, Path(str(other._address), outbound=True))
        other._remember(link, Path(str(self._address), outbound=False))
        link.set_cut(self._fabric._is_cut(self, other))  # a partition may have come while it was dialled
        return target.peer

    async def open_stream(self, peer: PeerKey, protocol: str) -> "_MemoryStream":
        await trio.lowlevel.checkpoint()
        link = self._links.get(peer)
        if link is None:
            raise TransportError(f"not connected to {peer_id(peer)}")
        with trio.move_on_after(self.limits.open_timeout_s):
            await link.travel(_OPEN_ROUND_TRIPS * 2)
            other = link.other(self)
            handler = other._handlers.get(protocol)
            if handler is None:
                raise UnknownProtocolError(f"{peer_id(peer)} does not serve {protocol} on network {self.network_id!r}")
            there, back = _Pipe(link), _Pipe(link)
            theirs = _MemoryStream(protocol, self.key, there, back, other.limits.stall_timeout_s)
            other._start(other._server.run, theirs, handler)
            return _MemoryStream(protocol, peer, back, there, self.limits.stall_timeout_s)
        raise TransportError(f"{peer_id(peer)} did not open {protocol} within {self.limits.open_timeout_s:g} s")

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        if protocol in self._handlers:
            raise ValueError(f"{protocol} is served already")
        self._handlers[protocol] = handler

    async def publish(self, topic: str, data: bytes, *, by_id: bool = False) -> None:
        if len(data) > self.limits.gossip_size_bytes_max:
            raise ValueError(f"{len(data)} bytes are too many to gossip: at most {self.limits.gossip_size_bytes_max}")
        message = _Gossip(topic, bytes(data))
        if message not in self._seen:
            self._mark_seen(message)
            self._spread(message, came_by=None)
        await trio.lowlevel.checkpoint()

    def subscribe(self, topic: str, handler: GossipHandler) -> None:
        if topic in self._topics:
            raise ValueError(f"{topic} is subscribed already")
        self._topics[topic] = subscription = _Topic(self, handler)
        self._start(subscription.run)

    async def unsubscribe(self, topic: str) -> None:
        subscription = self._topics.pop(topic, None)
        if subscription is not None:
            subscription.close()
        await trio.lowlevel.checkpoint()

    async def disconnect(self, peer: PeerKey) -> None:
        link = self._links.get(peer)
        if link is not None:
            link.break_("the connection was closed")
        await trio.lowlevel.checkpoint()

    def report(self, peer: PeerKey, reason: str) -> None:
        if self._strikes.broke(peer, _now_ns(), weight=1):
            self._counters["peers_kept_out"] += 1
            if peer in self._links:
                self._links[peer].break_("the peer hung up")

    # What the fabric and the other nodes call.

    def _keeps_out(self, peer: PeerKey) -> bool:
        return self._strikes.keeps_out(peer, _now_ns())

    def _start(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        if self._open:
            self._nursery.start_soon(function, *arguments)

    def _remember(self, link: _Link, path: Path) -> None:
        other = link.other(self)
        self._links[other.key] = link
        self._paths[other.key] = path
        self._events.emit(Connected(other.key, path.address, path.outbound))

    def _forget(self, link: _Link) -> None:
        other = link.other(self)
        if self._links.get(other.key) is link:
            del self._links[other.key]
            del self._paths[other.key]
            self._events.emit(Disconnected(other.key))

    def _mark_seen(self, message: _Gossip) -> None:
        self._seen[message] = None
        if len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)

    def _spread(self, message: _Gossip, *, came_by: _Link | None) -> None:
        for link in self._links.values():
            if link is not came_by and not link.cut and not self._fabric._loses():
                link.other(self)._take(link, message)

    def _take(self, link: _Link, message: _Gossip) -> None:
        topic = self._topics.get(message.topic)
        if topic is None or message in self._seen:
            return
        if topic.offer(trio.current_time() + link.latency_s, link, message):
            self._mark_seen(message)

    def _close(self, reason: str) -> None:
        self._open = False
        for link in list(self._links.values()):
            link.break_(reason)
        self._events.close()


class MemoryFabric:
    """All nodes of a simulation, and what goes wrong between them.

    Args:
        seed: of every random choice made here.
        latency_s: bounds of a link's one-way delay, drawn once a link.
        gossip_loss: probability that one hop of one gossiped message is lost.
    """

    def __init__(self, seed: int = 0, *, latency_s: tuple[float, float] = (0.0, 0.0), gossip_loss: float = 0.0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._latency_s = latency_s
        self._gossip_loss = gossip_loss
        self._nodes: dict[tuple[str, int], _Node] = {}
        self._numbers = itertools.count(1)
        self._groups: dict[PeerKey, int] = {}
        self._frozen: set[PeerKey] = set()

    @asynccontextmanager
    async def open(
        self,
        key: PeerKey,
        *,
        network_id: str = "test",
        limits: NetworkLimits | None = None,
        host: str | None = None,
        is_private: bool = False,
    ) -> AsyncIterator[Network]:
        """Open a node. ``host`` is its IPv4 address, by default one of its own in 10.0.0.0/8. Nobody can dial a node
        that ``is_private``, as if it were behind a NAT.

        If the node is killed, the block inside is cancelled and left without an error.
        """
        number = next(self._numbers)
        if host is None:
            host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        address = Address("ip4", host, 1024 + number % 60_000, key)
        failed: Exception | None = None
        async with trio.open_nursery() as nursery:
            node = _Node(self, address, network_id, limits or NetworkLimits(), nursery)
            node.is_private = is_private
            self._nodes[address.host, address.port] = node
            try:
                yield node
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
            finally:
                self._nodes.pop((address.host, address.port), None)
                node._close("the peer closed the connection")
                nursery.cancel_scope.cancel()
        if failed is not None:  # here, where no nursery wraps it in a group
            raise failed

    def kill(self, key: PeerKey) -> None:
        """End a node as SIGKILL would: its connections drop, its tasks are cancelled, it says nothing
        more."""
        for node in [node for node in self._nodes.values() if node.key == key]:
            node._close("the connection was reset")
            node._nursery.cancel_scope.cancel()

    def partition(self, *groups: Iterable[PeerKey]) -> None:
        """Let traffic pass only within each group; nodes that are in none form one more. Replaces the last
        partition."""
        self._groups = {key: index for index, group in enumerate(groups, 1) for key in group}
        self._apply_cuts()

    def heal(self) -> None:
        """End the partition."""
        self.partition()

    def freeze(self, key: PeerKey) -> None:
        """Let nothing pass to or from a node, as if its process were stopped."""
        self._frozen.add(key)
        self._apply_cuts()

    def thaw(self, key: PeerKey) -> None:
        """End ``freeze``."""
        self._frozen.discard(key)
        self._apply_cuts()

    def _apply_cuts(self) -> None:
        for node in list(self._nodes.values()):
            for link in list(node._links.values()):
                link.set_cut(self._is_cut(*link.ends))

    def _is_cut(self, a: _Node, b: _Node) -> bool:
        frozen = not self._frozen.isdisjoint((a.key, b.key))
        return frozen or self._groups.get(a.key, 0) != self._groups.get(b.key, 0)

    def _at(self, address: Address) -> _Node | None:
        return self._nodes.get((address.host, address.port))

    def _latency(self) -> float:
        return self._random.uniform(*self._latency_s)

    def _loses(self) -> bool:
        return self._gossip_loss > 0 and self._random.random() < self._gossip_loss
