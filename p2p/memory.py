"""The network in memory, for tests and simulation: no sockets, any number of nodes, seeded faults.

The flow: a ``MemoryFabric`` knows every open node by its address. ``dial`` puts a ``Link`` between two nodes, over
which streams go (``memory_links.py``); gossip floods over links to nodes that subscribe, each of which judges a message
once and hands it on. All delay is simulated, so that under ``trio.testing.MockClock`` hours pass in seconds. ``kill``
ends a node as SIGKILL would, ``partition`` and ``freeze`` hold all traffic.

Trio runs ready tasks in random order, so that a seed fixes delays and losses, not every interleaving.
"""

import itertools
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from depin_node.core.background import background
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import TransportError
from depin_node.p2p import serving
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.memory_links import Link, MemoryStream, Pipe
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

_SEEN_MAX = 2048
_DIAL_ROUND_TRIPS = 4
_OPEN_ROUND_TRIPS = 1.5


def _now_ns() -> int:
    return int(trio.current_time() * SECOND_NS)


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
        self._send, self._receive = trio.open_memory_channel[tuple[float, Link["_Node"], _Gossip]](
            node.limits.gossip_queue_max
        )

    def offer(self, arrival: float, link: Link["_Node"], message: _Gossip) -> bool:
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
        self._links: dict[PeerKey, Link[_Node]] = {}
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
            link = Link(self, other, self._fabric._latency())
            self._remember(link, path)
            other._remember(
                link, Path(f"{path.address.rpartition('/p2p/')[0]}/p2p/{peer_id(self.key)}", False, 0, True)
            )
        while peer not in self._links:  # noqa: ASYNC110 - until the source has made it
            await trio.sleep(0.001)
        link = self._links[peer]
        self.start(self._follow, stream, link)
        return link.ended

    async def _follow(self, stream: Stream, link: Link["_Node"]) -> None:
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
        link = Link(self, other, self._fabric._latency())
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

    async def open_stream(self, peer: PeerKey, protocol: str) -> "MemoryStream":
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
            there, back = Pipe(link), Pipe(link)
            theirs = MemoryStream(protocol, self.key, there, back, other.limits.stall_timeout_s)
            other.start(other._server.run, theirs, handler)
            return MemoryStream(protocol, peer, back, there, self.limits.stall_timeout_s)
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
        self.start(subscription.run)

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

    def start(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        if self._open:
            self._nursery.start_soon(function, *arguments)

    def _remember(self, link: Link["_Node"], path: Path) -> None:
        other = link.other(self)
        self._links[other.key] = link
        self._paths[other.key] = path
        self._events.emit(Connected(other.key, path.address, path.outbound))

    def forget(self, link: Link["_Node"]) -> None:
        other = link.other(self)
        if self._links.get(other.key) is link:
            del self._links[other.key]
            del self._paths[other.key]
            self._events.emit(Disconnected(other.key))

    def _mark_seen(self, message: _Gossip) -> None:
        self._seen[message] = None
        if len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)

    def _spread(self, message: _Gossip, *, came_by: Link["_Node"] | None) -> None:
        for link in self._links.values():
            if link is not came_by and not link.cut and not self._fabric._loses():
                link.other(self)._take(link, message)

    def _take(self, link: Link["_Node"], message: _Gossip) -> None:
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
        async with background() as nursery:
            node = _Node(self, address, network_id, limits or NetworkLimits(), nursery)
            node.is_private = is_private
            self._nodes[address.host, address.port] = node
            try:
                yield node
            finally:
                self._nodes.pop((address.host, address.port), None)
                node._close("the peer closed the connection")

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
