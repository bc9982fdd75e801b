"""The network on libp2p: TCP, Noise, yamux. The door that the rest of the node comes in by.

The flow: ``open_libp2p`` plans a host, lets the mends change the plan and the library, and listens. ``dial`` hands
libp2p one address at a time. ``guard`` is asked before a connection or a stream is taken; each connection begins with
``hello``, and until that has shown that the peer is of our mesh nothing else is served, and nobody told of it. Streams
work on yamux itself (``stream``). Gossip is ours, over streams (``gossip_streams``).

libp2p takes a third of a second and 66 MiB to import: import this module where a host is opened, not before.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
import trio
from libp2p import new_host
from libp2p.abc import INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.peerstore import PeerStoreError
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from depin_node.core.errors import ConfigError, TransportError
from depin_node.p2p import serving
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.admission import CONNECTIONS_PER_PEER_MAX, Admission
from depin_node.p2p.gossip_streams import GOSSIP_PROTOCOL, GossipStreams
from depin_node.p2p.libp2p import mends, paths
from depin_node.p2p.libp2p.calling import Caller
from depin_node.p2p.libp2p.carrier import Carrier
from depin_node.p2p.libp2p.guard import Guard
from depin_node.p2p.libp2p.hello import HELLO, Greeter, greeting_of
from depin_node.p2p.libp2p.listening import expand, listen_address, listen_on, resolve
from depin_node.p2p.libp2p.stream import Stream
from depin_node.p2p.libp2p.terms import GONE, id_of_key, key_of_id, reason_of
from depin_node.p2p.network import (
    Connected,
    ConnectionEvent,
    Disconnected,
    GossipHandler,
    ListenError,
    Network,
    NetworkLimits,
    Path,
    PeerKey,
    StreamHandler,
    UnknownProtocolError,
)
from depin_node.p2p.network import (
    Stream as AnyStream,
)
from depin_node.p2p.pacing import unpace_on_loopback

log = structlog.get_logger("depin_node.p2p")

_CLOSE_TIMEOUT_S = 1.0


class _Notifee(INotifee):  # type: ignore[misc]
    """Tells the host which connections come and go."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    async def connected(self, network: Any, conn: Any) -> None:
        self._host.note_connected(conn)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._host.note_disconnected(conn)

    async def opened_stream(self, network: Any, stream: Any) -> None:
        pass

    async def closed_stream(self, network: Any, stream: Any) -> None:
        pass

    async def listen(self, network: Any, multiaddr: Any) -> None:
        pass

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        pass


class Host:
    """The network; see ``network.Network`` for its public methods."""

    def __init__(
        self,
        host: Any,
        network_id: str,
        limits: NetworkLimits,
        nursery: trio.Nursery,
        admission: Admission,
        *,
        pre_shared_key: bytes | None,
        allowed: Collection[PeerKey] | None,
    ) -> None:
        self.id = host.get_id()
        self.key = key_of_id(self.id)
        self.network_id = network_id
        self.limits = limits
        self.count: Counter[str] = Counter()
        self._host = host
        self._swarm = host.get_network()
        self._nursery = nursery
        self._open = True
        self._listened: list[str] = []
        self._peers: set[PeerKey] = set()
        self._events = serving.EventHub(limits, self.count)
        self._guard = Guard(admission, self.count)
        self._guard.use_for(self._swarm)
        self._server = serving.StreamServer(limits, self.count, violated=self.report)
        self._caller = Caller()
        self._caller.use_for(self._swarm)
        self._swarm.register_notifee(_Notifee(self))
        self.multiselect = host.multiselect_client
        self._greeter = Greeter(self, pre_shared_key, allowed)
        self._host.set_stream_handler(self._full_protocol(HELLO), self._answer_hello)
        self._gossip = GossipStreams(self, limits, self.count, start=self.start, punish=self.punish)
        self.start(self._gossip.run)

    def addresses(self) -> list[str]:
        """See ``network.Network.addresses``."""
        listened = [str(address) for address in self._host.get_transport_addrs()]
        with suppress(OSError):  # no descriptor is left to look at the interfaces, perhaps: they are as they were
            self._listened = [str(parse(f"{address}/p2p/{self.id}")) for plain in listened for address in expand(plain)]
        return list(self._listened)

    def peers(self) -> frozenset[PeerKey]:
        """See ``network.Network.peers``."""
        return frozenset(self._peers)

    def counters(self) -> Mapping[str, int]:
        """See ``network.Network.counters``."""
        return dict(self.count)

    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        """See ``network.Network.connection_events``."""
        return self._events.subscribe()

    async def dial(self, address: str) -> PeerKey:
        """See ``network.Network.dial``."""
        target = parse(address)
        await trio.lowlevel.checkpoint()
        if target.peer == self.key:
            raise TransportError(f"{address} is this node itself")
        if target.peer in self._peers:
            return target.peer
        self._guard.check(target.peer)
        if target.relay:
            raise TransportError(f"{address} is that of a relay: only ``reach.Reach`` asks it for a circuit")
        with trio.move_on_after(self.limits.dial_timeout_s):
            await self._connect(target)
            await self._greeted(target.peer)
            return target.peer
        raise TransportError(f"{address}: no answer within {self.limits.dial_timeout_s:g} s")

    async def _connect(self, target: Address) -> None:
        identity, store = id_of_key(target.peer), self._swarm.peerstore
        error: Exception | None = None
        found = await resolve(target)
        for number, plain in enumerate(found):
            with _share_of(len(found) - number) as share:
                try:
                    store.add_addrs(identity, [Multiaddr(plain)], 60)
                    await self._swarm.dial_peer(identity)
                    return
                except (*GONE, ValueError) as failed:
                    error = failed
                finally:
                    with suppress(PeerStoreError):  # another dial of the same peer has done it
                        store.clear_peerdata(identity)  # it holds what is dialled now, nothing else
            if share.cancelled_caught:
                error = TimeoutError(f"no answer from {plain}")
        raise TransportError(f"{target}: cannot connect: {reason_of(error)}") from error

    async def _greeted(self, peer: PeerKey) -> None:
        """Wait until the newest connection with ``peer`` has been greeted. Raises ``TransportError``."""
        connections = self._swarm.get_connections(id_of_key(peer))
        if not connections:
            raise TransportError(f"{peer_id(peer)} hung up at once")
        greeting = greeting_of(connections[-1].muxed_conn)
        await greeting.done.wait()
        if greeting.error is not None:
            raise greeting.error

    async def _answer_hello(self, net_stream: Any) -> None:
        async def answer(stream: AnyStream) -> None:
            await self._greeter.answer(stream, net_stream.muxed_conn)

        await self._server.run(Stream(self, net_stream, HELLO), answer, is_counted=False)

    def path(self, peer: PeerKey) -> Path | None:
        """See ``network.Network.path``."""
        connection = paths.best(self._connections(peer))
        return paths.path_of(connection) if connection is not None else None

    async def probe(self, address: str) -> None:
        """See ``network.Network.probe``."""
        with trio.move_on_after(self.limits.dial_timeout_s):
            await paths.probe(self._swarm, address)
            return
        raise TransportError(f"{address}: no answer within {self.limits.dial_timeout_s:g} s")

    async def adopt(self, stream: AnyStream, path: Path, peer: PeerKey, head: bytes = b"") -> trio.Event:
        """See ``network.Network.adopt``."""
        carrier = Carrier(self, stream, head, bulk=path.bulk)
        adopted = False
        try:
            with trio.move_on_after(self.limits.dial_timeout_s):
                await paths.adopt(self._swarm, carrier, path, peer)
                await self._greeted(peer)
                adopted = True
        finally:
            if not adopted:
                carrier.abort()
        if not adopted:
            raise TransportError(f"{path.address}: no answer within {self.limits.dial_timeout_s:g} s")
        return carrier.ended

    async def punch(self, peer: PeerKey, host: str, port: int, *, local_port: int, outbound: bool) -> None:
        """See ``network.Network.punch``."""
        with trio.move_on_after(self.limits.dial_timeout_s):
            await paths.meet(self._swarm, peer, host, port, local_port=local_port, outbound=outbound)
            await self._greeted(peer)
            return
        raise TransportError(f"{host}:{port} and we did not meet within {self.limits.dial_timeout_s:g} s")

    async def open_stream(self, peer: PeerKey, protocol: str) -> Stream:
        """See ``network.Network.open_stream``."""
        await trio.lowlevel.checkpoint()
        if not self._connections(peer):
            raise TransportError(f"not connected to {peer_id(peer)}")
        with trio.move_on_after(self.limits.open_timeout_s):
            try:
                net_stream = await self._host.new_stream(id_of_key(peer), [self._full_protocol(protocol)])
            except StreamFailure as error:
                if "not supported" in reason_of(error):
                    raise UnknownProtocolError(
                        f"{peer_id(peer)} does not serve {protocol} on network {self.network_id!r}"
                    ) from error
                raise TransportError(f"{peer_id(peer)} did not open {protocol}: {reason_of(error)}") from error
            except GONE as error:
                raise TransportError(f"{peer_id(peer)} did not open {protocol}: {reason_of(error)}") from error
            return Stream(self, net_stream, protocol)
        raise TransportError(f"{peer_id(peer)} did not open {protocol} within {self.limits.open_timeout_s:g} s")

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """See ``network.Network.serve``."""
        full = self._full_protocol(protocol)
        if full in self._host.get_mux().handlers:
            raise ValueError(f"{protocol} is served already")

        async def run(net_stream: Any) -> None:
            stream, greeting = Stream(self, net_stream, protocol), greeting_of(net_stream.muxed_conn)
            with trio.move_on_after(self.limits.open_timeout_s):
                await greeting.done.wait()
            if not greeting.succeeded:
                self.count["streams_refused"] += 1
                await stream.reset()
                return
            await self._server.run(stream, handler, is_counted=protocol != GOSSIP_PROTOCOL)  # one a peer: the newest

        self._host.set_stream_handler(full, run)

    async def publish(self, topic: str, data: bytes, *, by_id: bool = False) -> None:
        """See ``network.Network.publish``."""
        if len(data) > self.limits.gossip_size_bytes_max:
            raise ValueError(f"{len(data)} bytes are too many to gossip: at most {self.limits.gossip_size_bytes_max}")
        await trio.lowlevel.checkpoint()
        self._gossip.publish(topic, bytes(data), by_id=by_id)

    def subscribe(self, topic: str, handler: GossipHandler) -> None:
        """See ``network.Network.subscribe``."""
        self._gossip.subscribe(topic, handler)

    async def unsubscribe(self, topic: str) -> None:
        """See ``network.Network.unsubscribe``."""
        await trio.lowlevel.checkpoint()
        self._gossip.unsubscribe(topic)

    async def disconnect(self, peer: PeerKey) -> None:
        """See ``network.Network.disconnect``."""
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections(id_of_key(peer)):
                nursery.start_soon(_close, connection)

    def report(self, peer: PeerKey, reason: str) -> None:
        """See ``network.Network.report``."""
        self._guard.broke(peer, reason, weight=1)

    # What the parts above call.

    def start(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Run a task that ends with this network."""
        if self._open:
            self._nursery.start_soon(function, *arguments)

    def punish(self, peer: PeerKey, reason: str) -> None:
        """Disconnect a peer that broke the rules, and keep it out for a while."""
        self._guard.broke(peer, reason)

    def note_connected(self, connection: Any) -> None:
        """A connection stands; whether the peer belongs to our mesh is to be seen."""
        if not paths.is_relayed(connection):
            unpace_on_loopback(mends.tcp_of(connection.muxed_conn).stream.socket)
        self.start(self._greeter.greet, connection)

    def note_greeted(self, muxed: Any) -> bool:
        """The peer belongs to our mesh. Its first connection is an event, and so is a direct one after relayed ones.

        Of two connections in the same direction the newer counts: the older belongs to a peer that crashed or moved,
        and only looks alive; a relayed one gives way to any. (Two of opposite directions are a simultaneous dial: both
        stay.)

        Returns:
            Whether the connection is in the books yet.
        """
        peer = key_of_id(muxed.peer_id)
        connection = next((c for c in self._swarm.get_connections(muxed.peer_id) if c.muxed_conn is muxed), None)
        if connection is None:
            return False
        others = [other for other in self._connections(peer) if other is not connection]
        replaces = not paths.is_relayed(connection) and bool(others) and all(map(paths.is_relayed, others))
        older = [other for other in others if paths.gives_way(other, to=connection)]
        for other in older:
            self._swarm.remove_conn(other)  # now: closing takes a while, and streams must not be opened on it
            mends.abort(other.muxed_conn)
        if self._open and (older or peer not in self._peers):
            self._gossip.left(peer)
            self._gossip.joined(peer)
        if self._open and (peer not in self._peers or replaces):
            self._peers.add(peer)
            path = paths.path_of(connection)
            self._events.emit(Connected(peer, path.address, path.outbound))
        return True

    def note_disconnected(self, connection: Any) -> None:
        """A connection is gone; the last of its peer is an event."""
        peer = key_of_id(connection.muxed_conn.peer_id)
        gone = f"{peer_id(peer)} hung up without a hello: it may be of another network than {self.network_id!r}"
        greeting_of(connection.muxed_conn).fail(TransportError(gone))
        if peer in self._peers and not self._connections(peer):
            self._peers.discard(peer)
            self._gossip.left(peer)
            self._events.emit(Disconnected(peer))

    def _connections(self, peer: PeerKey) -> list[Any]:
        """Return the connections with ``peer`` that have been greeted, oldest first."""
        connections = self._swarm.get_connections(id_of_key(peer))
        return [connection for connection in connections if greeting_of(connection.muxed_conn).succeeded]

    async def close(self) -> None:
        """Say goodbye to all peers at once; libp2p itself would take 0.2 s for each."""
        self._open = False
        self._events.close()
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(_close, connection)

    def _full_protocol(self, name: str) -> TProtocol:
        return TProtocol(f"/depin/{self.network_id}/{name}")


def _share_of(tries: int) -> trio.CancelScope:
    """Return the scope of the next of ``tries`` that have the rest of the time between them: where nothing answers, as
    at an IPv6 address without a way there, none is left for the others.
    """
    left_s = trio.current_effective_deadline() - trio.current_time()
    return trio.move_on_after(max(0.0, left_s) / tries)


async def _close(connection: Any) -> None:
    with trio.move_on_after(_CLOSE_TIMEOUT_S):
        await connection.close()
    # Too slow, or it had been begun by a task of libp2p's that was cancelled meanwhile: then close() does nothing.
    mends.abort(connection.muxed_conn)


class _ToOurLog(logging.Handler):
    """Takes the library's warnings, which peers can cause at will, into our debug log."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("libp2p", source=record.name, message=record.getMessage()[:500])


@asynccontextmanager
async def open_libp2p(
    identity_seed: bytes,
    *,
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    network_id: str,
    limits: NetworkLimits | None = None,
    listed: Collection[PeerKey] = (),
    allowed: Collection[PeerKey] | None = None,
    pre_shared_key: bytes | None = None,
    without_mends: Collection[str] = (),
) -> AsyncIterator[Network]:
    """Open a node on the real network; leaving the block closes it.

    Args:
        identity_seed: the 32-byte Ed25519 seed; ``Network.key`` is the same key that PyNaCl derives from it.
        listen: multiaddrs without ``/p2p/…``; port 0 takes a free one. All must succeed.
        network_id: the mesh to take part in: letters, digits, ``-``, ``_`` and ``.``, at most 64.
        limits: what it may use and how long it waits.
        listed: peers that are exempt from what counts by group and by second, by the operator's word.
        allowed: if not None, the only peers that may connect, or are connected to.
        pre_shared_key: what every node of a private mesh holds (``crypto.membership.load``).
        without_mends: names of ``mends.MENDS`` to leave out, for their tests.

    Raises:
        ConfigError: a listen address or the network id is malformed.
        ListenError: an address is taken or not this machine's.
    """
    limits = limits or NetworkLimits()
    if not 0 < len(network_id) <= 64 or not network_id.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(f"{network_id[:80]!r} is no network id: use letters, digits, '-', '_' and '.', at most 64")
    _quiet_libp2p()
    plan = mends.Plan(create_new_key_pair(identity_seed), limits)
    mends.apply(plan, without=without_mends)
    addresses = [listen_address(text) for text in listen]
    host = new_host(
        key_pair=plan.key_pair,
        sec_opt=plan.security,
        muxer_opt={TProtocol(YAMUX_ID): Yamux},
        listen_addrs=addresses,
        connection_config=_connection_config(limits),
        disable_identify_address_discovery=True,
    )
    swarm = host.get_network()
    swarm.depin_limits = limits
    swarm.retry_config = RetryConfig(max_retries=0)  # whether and when to try again is the caller's to say
    failed: Exception | None = None
    async with host.run(listen_addrs=[]):
        try:
            for address in addresses:
                await listen_on(swarm, address)
            async with trio.open_nursery() as nursery:
                admission = Admission(limits, listed=listed, allowed=allowed)
                network = Host(
                    host, network_id, limits, nursery, admission, pre_shared_key=pre_shared_key, allowed=allowed
                )
                try:
                    yield network
                except Exception as error:  # noqa: BLE001 - raised below
                    failed = error
                finally:
                    with trio.CancelScope(shield=True):
                        await network.close()
                    nursery.cancel_scope.cancel()
        except ListenError as error:
            failed = error
    if failed is not None:  # here, where no nursery of libp2p's wraps it in a group
        raise failed


def _quiet_libp2p() -> None:
    logger = logging.getLogger("libp2p")
    logger.propagate = False
    if not any(isinstance(handler, _ToOurLog) for handler in logger.handlers):
        logger.addHandler(_ToOurLog())


def _connection_config(limits: NetworkLimits) -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=limits.connections_max,
        high_watermark=limits.connections_max,
        max_connections_per_peer=CONNECTIONS_PER_PEER_MAX,  # as we admit: else the library drops one of them
        min_connections=0,  # 0: no dialling of whoever is in the peerstore
        low_watermark=0,
        inbound_upgrade_timeout=limits.dial_timeout_s,
        outbound_upgrade_timeout=limits.dial_timeout_s,
    )
