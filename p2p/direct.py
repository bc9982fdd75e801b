"""The direct data channel: bulk between two peers over a TCP connection of its own, beside the mesh's.

The flow: the opener asks on a stream of ``direct/1``, which proves who both are, with a fresh key; the server answers
with its own, and both have the channel's keys (``crypto/channel.py``). Then one of them connects to the other's data
port at the host that their libp2p connection goes to, and shows token and proof; the other shows its proof. The
opener tries first; if it gets nowhere, the server does. No other address is ever connected to, so that nobody can
point a node at a third party. On the channel go frames, their bodies sealed, their headers authenticated with them.

A stranger at the data port costs a socket and 48 bytes for ``handshake_timeout_s``, among at most ``handshakes_max``
such; one above it puts out the oldest of the group that has most, so that no group keeps others out. No buffer and no
key is made before a token fits. A token is good once, and for a short while.
"""

import socket as sockets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import msgspec
import structlog
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from depin_node.core.background import background
from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.wire import Digest, Message, decode, encode
from depin_node.crypto.channel import (
    PROOF_BYTES,
    TOKEN_BYTES,
    ChannelKeys,
    Sealer,
    Unsealer,
    agree,
    choose_suite,
    is_proof,
    suites,
)
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.carrier import Carrier
from depin_node.p2p.data_channel import DirectCarrier
from depin_node.p2p.frames import ANSWER, ASK, REFUSE, Frame, FrameReader, send_frames
from depin_node.p2p.groups import group_of_host
from depin_node.p2p.network import Disconnected, Network, PeerKey, Stream
from depin_node.p2p.pacing import unpace_on_loopback
from depin_node.p2p.together import Ended, together

log = structlog.get_logger("depin_node.p2p")

DIRECT_PROTOCOL = "direct/1"
MESSAGE_BYTES_MAX = 256
_KNOCK_BYTES = TOKEN_BYTES + PROOF_BYTES
_DRAWS_MAX = 16
"""Ports that are tried where both families are to have one."""


@dataclass(frozen=True)
class DirectLimits:
    """What the data port may use."""

    channels_max: int = 64
    channels_per_peer_max: int = 8
    handshakes_max: int = 32
    handshake_timeout_s: float = 5.0
    connect_timeout_s: float = 1.5
    """For a TCP connection to a peer's data port, and its proof: firewalls drop in silence."""
    stall_timeout_s: float = 30.0
    """A peer that takes no byte for so long loses the channel."""
    threads_max: int = 8
    """At work for all channels together; they never wait for a peer."""


class DirectAsk(Message, frozen=True):
    """The opener's fresh key, the ciphers it has, best first, and its data port (0: it cannot be connected to)."""

    key: Digest
    suites: Annotated[bytes, msgspec.Meta(min_length=1, max_length=8)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class DirectAnswer(Message, frozen=True):
    """The server's fresh key, the cipher it chose, and its data port (0: it cannot be connected to)."""

    key: Digest
    suite: Annotated[int, msgspec.Meta(ge=1, le=255)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]


@dataclass
class _Expected:
    """A channel that a peer may connect for."""

    keys: ChannelKeys
    is_opener: bool
    socket: trio.socket.SocketType | None = None
    arrived: trio.Event = field(default_factory=trio.Event)
    is_wanted: bool = True

    def take(self) -> trio.socket.SocketType | None:
        """Return the connection that came, if one did; any other is unwanted."""
        self.is_wanted = False
        return self.socket


class DirectChannels:
    """A node's data port; ``open_direct`` makes it."""

    def __init__(
        self,
        network: Network,
        host_of: Callable[[PeerKey], str | None],
        port: int,
        limits: DirectLimits,
        nursery: trio.Nursery,
    ) -> None:
        self.port = port
        self.counters: Counter[str] = Counter()
        self._network = network
        self._host_of = host_of
        self._limits = limits
        self._nursery = nursery
        self._expected: dict[bytes, _Expected] = {}
        self._open: dict[PeerKey, set[DirectCarrier]] = {}
        self._opening: Counter[PeerKey] = Counter()
        self._knocking: dict[trio.CancelScope, str] = {}
        """Handshakes under way, the oldest first, and the group of who knocks."""
        self._threads = trio.CapacityLimiter(limits.threads_max)
        self._serve_carrier: Callable[[Carrier], Awaitable[None]] | None = None
        network.serve(DIRECT_PROTOCOL, self._serve)

    def serve(self, handler: Callable[[Carrier], Awaitable[None]]) -> None:
        """Run ``handler`` for each channel that a peer opens."""
        self._serve_carrier = handler

    # Opening

    async def open(self, peer: PeerKey) -> DirectCarrier:
        """Open a channel to a connected peer.

        Raises:
            TransportError: the peer offers none, or neither can reach the other.
            PeerViolation: it broke the protocol.
        """
        if not self.has_room(peer):
            raise TransportError("too many data channels are open")
        self._opening[peer] += 1
        stream: Stream | None = None
        carrier: DirectCarrier | None = None
        done = False
        try:
            stream = await self._network.open_stream(peer, DIRECT_PROTOCOL)
            carrier = await self._open_on(stream)
            await stream.aclose()
            done = True
            return carrier
        finally:
            self._opening[peer] -= 1
            if not done:
                if carrier is not None:
                    carrier.close()
                if stream is not None:
                    await stream.reset()

    async def _open_on(self, stream: Stream) -> DirectCarrier:
        peer, reader, timeout_s = stream.peer, FrameReader(stream, size_bytes_max=MESSAGE_BYTES_MAX), self._timeout_s
        private = X25519PrivateKey.generate()
        asked = encode(DirectAsk(private.public_key().public_bytes_raw(), suites(), self.port))
        await send_frames(stream, [Frame(ASK, asked)])
        answered = await _answer(reader, stream, timeout_s)
        answer = decode(answered, DirectAnswer, size_bytes_max=MESSAGE_BYTES_MAX)
        if choose_suite(bytes([answer.suite])) not in suites():
            raise PeerViolation(f"{DIRECT_PROTOCOL}: a cipher that was not offered")
        keys = agree(private, answer.key, self._transcript(self._network.key, peer, asked, answered))
        sock = await self._knock(peer, answer.port, keys, is_opener=True)
        if sock is None:
            with self._expecting(keys, is_opener=True) as expected:
                await send_frames(stream, [Frame(ASK, b"")])
                await _answer(reader, stream, 2 * timeout_s)
                with trio.move_on_after(timeout_s):
                    await expected.arrived.wait()
                sock = expected.take()
        if sock is None:
            raise TransportError(f"{peer_id(peer)} cannot be reached by a data channel, nor reach us")
        return self._carrier(peer, sock, answer.suite, keys.opener_key, keys.server_key)

    # Serving

    async def _serve(self, stream: Stream) -> None:
        """Agree on a channel with a peer that asks, and serve it."""
        peer, reader, timeout_s = stream.peer, FrameReader(stream, size_bytes_max=MESSAGE_BYTES_MAX), self._timeout_s
        asked = await _asked(reader, timeout_s)
        if asked is None:
            return
        if self._serve_carrier is None or not self.has_room(peer):
            await send_frames(stream, [Frame(REFUSE, b"busy")])
            return
        ask = decode(asked, DirectAsk, size_bytes_max=MESSAGE_BYTES_MAX)
        suite = choose_suite(ask.suites)
        private = X25519PrivateKey.generate()
        answered = encode(DirectAnswer(private.public_key().public_bytes_raw(), suite, self.port))
        keys = agree(private, ask.key, self._transcript(peer, self._network.key, asked, answered))
        self._opening[peer] += 1
        try:
            with self._expecting(keys, is_opener=False) as expected:
                await send_frames(stream, [Frame(ANSWER, answered)])
                sock = await self._reached(stream, reader, expected, ask.port) or expected.take()
        finally:
            self._opening[peer] -= 1
        if sock is not None:
            carrier = self._carrier(peer, sock, suite, keys.server_key, keys.opener_key)
            self._nursery.start_soon(self._serve_contained, carrier)

    async def _reached(
        self, stream: Stream, reader: FrameReader, expected: _Expected, port: int
    ) -> trio.socket.SocketType | None:
        """Wait until the opener has connected, or asks that we do; return the connection of the latter."""
        found: trio.socket.SocketType | None = None

        async def be_asked() -> None:
            nonlocal found
            if await _asked(reader, 2 * self._timeout_s) is not None:
                found = await self._knock(stream.peer, port, expected.keys, is_opener=False)
                kind, body = (REFUSE, b"unreachable") if found is None else (ANSWER, b"")
                await send_frames(stream, [Frame(kind, body)])
                raise Ended

        async def be_called() -> None:
            with trio.move_on_after(3 * self._timeout_s):
                await expected.arrived.wait()
            raise Ended

        try:
            await together(be_asked, be_called)
        except TransportError:
            if expected.socket is None and found is None:  # the opener has gone
                raise
        return found

    async def _serve_contained(self, carrier: DirectCarrier) -> None:
        assert self._serve_carrier is not None
        try:
            await self._serve_carrier(carrier)
        except (TransportError, PeerViolation) as error:
            log.debug("a data channel ended", peer=peer_id(carrier.peer), reason=str(error))
        except Exception:  # the per-peer border, as in serving.py
            self.counters["channels_failed"] += 1
            log.exception("serving a data channel failed", peer=peer_id(carrier.peer))
        finally:
            await carrier.reset()

    # The data port

    async def accept(self, listener: trio.SocketListener) -> None:
        """Take connections, for ever."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # the peer is gone already, or no descriptor is left
                log.debug("the data port refused a connection", reason=str(error))
                await trio.sleep(0.05)
                continue
            try:
                group = group_of_host(stream.socket.getpeername()[0])
            except OSError:  # gone already
                stream.socket.close()
                continue
            if len(self._knocking) >= self._limits.handshakes_max:
                self._put_one_out()
            scope = trio.move_on_after(self._timeout_s)
            self._knocking[scope] = group
            self._nursery.start_soon(self._greet, stream.socket, scope)

    def _put_one_out(self) -> None:
        self.counters["handshakes_evicted"] += 1
        ((largest, _),) = Counter(self._knocking.values()).most_common(1)
        oldest = next(scope for scope, group in self._knocking.items() if group == largest)
        del self._knocking[oldest]
        oldest.cancel()

    async def _greet(self, sock: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        """Let in who shows a token that is waited for, with its proof."""
        let_in = False
        try:
            with scope:
                knock = await _exactly(sock, _KNOCK_BYTES)
                expected = self._expected.pop(knock[:TOKEN_BYTES], None)
                if expected is None:
                    self.counters["handshakes_unknown"] += 1
                    return
                keys = expected.keys
                theirs, ours = keys.opener_proof, keys.server_proof
                if expected.is_opener:
                    theirs, ours = ours, theirs
                if not is_proof(knock[TOKEN_BYTES:], theirs):
                    self.counters["handshakes_unknown"] += 1
                    return
                await sock.send(ours)
                if expected.is_wanted:
                    expected.socket, let_in = sock, True
                    expected.arrived.set()
        except OSError as error:
            log.debug("a handshake at the data port broke", reason=str(error))
        finally:
            self._knocking.pop(scope, None)
            if not let_in:
                sock.close()

    async def _knock(
        self, peer: PeerKey, port: int, keys: ChannelKeys, *, is_opener: bool
    ) -> trio.socket.SocketType | None:
        """Connect to a peer's data port and show our proof; None: it cannot be reached."""
        host = self._host_of(peer)
        if not port or host is None:
            return None
        ours, theirs = keys.opener_proof, keys.server_proof
        if not is_opener:
            ours, theirs = theirs, ours
        family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
        sock: trio.socket.SocketType | None = None
        let_in = False
        try:
            sock = trio.socket.socket(family, sockets.SOCK_STREAM)
            with trio.move_on_after(self._limits.connect_timeout_s):
                await sock.connect((host, port))
                await sock.send(keys.token + ours)
                let_in = is_proof(await _exactly(sock, PROOF_BYTES), theirs)
        except OSError as error:
            log.debug("a peer's data port cannot be reached", peer=peer_id(peer), reason=str(error))
        finally:
            if sock is not None and not let_in:
                sock.close()
        return sock if let_in else None

    # Bookkeeping

    @property
    def _timeout_s(self) -> float:
        return self._limits.handshake_timeout_s

    def has_room(self, peer: PeerKey) -> bool:
        """Tell whether one more channel with a peer may be open."""
        count = sum(len(carriers) for carriers in self._open.values()) + self._opening.total()
        own = len(self._open.get(peer, ())) + self._opening[peer]
        return count < self._limits.channels_max and own < self._limits.channels_per_peer_max

    @contextmanager
    def _expecting(self, keys: ChannelKeys, *, is_opener: bool) -> Iterator[_Expected]:
        """Let the peer connect as long as the block runs; a connection that is not taken in it is closed."""
        self._expected[keys.token] = expected = _Expected(keys, is_opener)
        try:
            yield expected
        finally:
            self._expected.pop(keys.token, None)
            if expected.is_wanted and (unwanted := expected.take()) is not None:
                unwanted.close()

    def close(self) -> None:
        """Close all channels."""
        for carriers in list(self._open.values()):
            for carrier in list(carriers):
                carrier.close()

    def _transcript(self, opener: PeerKey, server: PeerKey, asked: bytes, answered: bytes) -> list[bytes]:
        return [self._network.network_id.encode(), opener, server, asked, answered]

    def _carrier(
        self, peer: PeerKey, sock: trio.socket.SocketType, suite: int, ours: bytes, theirs: bytes
    ) -> DirectCarrier:
        plain = sockets.socket(fileno=sock.detach())
        plain.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)  # frames are sent at once
        unpace_on_loopback(plain)
        plain.setblocking(False)
        timeout_s = self._limits.stall_timeout_s
        carrier = DirectCarrier(peer, plain, Sealer(suite, ours), Unsealer(suite, theirs), timeout_s, self._threads)
        self._open.setdefault(peer, set()).add(carrier)
        self._nursery.start_soon(self._forget_when_over, carrier)
        if peer not in self._network.peers():  # since the keys were agreed on: nobody will tell us of it any more
            carrier.close()
            raise TransportError(f"{peer_id(peer)} is not connected any more")
        self.counters["channels"] += 1
        return carrier

    async def _forget_when_over(self, carrier: DirectCarrier) -> None:
        await carrier.ended.wait()
        carriers = self._open[carrier.peer]
        carriers.discard(carrier)
        if not carriers:
            del self._open[carrier.peer]

    async def follow_connections(self) -> None:
        """Close the channels of peers that are disconnected: who is kept out of the mesh is kept out here."""
        async for event in self._network.connection_events():
            gone = [event.peer] if isinstance(event, Disconnected) else []
            if not isinstance(event, Disconnected):
                gone = [peer for peer in self._open if peer not in self._network.peers()]
            for peer in gone:
                for carrier in list(self._open.get(peer, ())):
                    carrier.close()


async def _asked(reader: FrameReader, timeout_s: float) -> bytes | None:
    with trio.move_on_after(timeout_s):
        frame = await reader.read()
        if frame is not None and frame.kind != ASK:
            raise PeerViolation(f"{DIRECT_PROTOCOL}: a frame of kind {frame.kind} is no request")
        return None if frame is None else frame.body
    return None


async def _answer(reader: FrameReader, stream: Stream, timeout_s: float) -> bytes:
    with trio.move_on_after(timeout_s):
        frame = await reader.read()
        if frame is None or frame.kind == REFUSE:
            raise TransportError(f"{peer_id(stream.peer)} opens no data channel")
        if frame.kind != ANSWER:
            raise PeerViolation(f"{DIRECT_PROTOCOL}: a frame of kind {frame.kind} is no answer")
        return frame.body
    raise TransportError(f"{peer_id(stream.peer)} did not answer {DIRECT_PROTOCOL} within {timeout_s:g} s")


async def _exactly(sock: trio.socket.SocketType, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        more = await sock.recv(size_bytes - len(data))
        if not more:
            raise OSError("the peer hung up")
        data += more
    return data


def host_of_path(network: Network, peer: PeerKey) -> str | None:
    """Return the IP address that a peer's connection goes to; None: there is none, or only by way of a relay."""
    path = network.path(peer)
    if path is None or path.relayed:
        return None
    _, kind, host, *_ = [*path.address.split("/"), "", "", ""]
    return host if kind in ("ip4", "ip6") else None


@asynccontextmanager
async def open_direct(
    network: Network,
    *,
    hosts: Sequence[str],
    port: int = 0,
    host_of: Callable[[PeerKey], str | None] | None = None,
    limits: DirectLimits | None = None,
) -> AsyncIterator[DirectChannels]:
    """Open the data port as long as the block runs.

    Args:
        network: ``direct/1`` is served on it.
        hosts: the addresses to listen at, at one port; ``0.0.0.0`` and ``::`` for all of a family.
        port: 0 takes a free one; peers are told.
        host_of: where a connected peer is; where its connection goes unless given.
        limits: bounds.

    Raises:
        ResourceError: the port cannot be listened on.
    """
    listeners = await _listen(hosts, port)
    actual = listeners[0].socket.getsockname()[1]
    async with background() as nursery:
        find = host_of or partial(host_of_path, network)
        channels = DirectChannels(network, find, actual, limits or DirectLimits(), nursery)
        for listener in listeners:
            nursery.start_soon(channels.accept, listener)
        nursery.start_soon(channels.follow_connections)
        try:
            yield channels
        finally:
            nursery.cancel_scope.cancel()
            channels.close()
            for listener in listeners:
                listener.socket.close()


async def _listen(hosts: Sequence[str], port: int) -> list[trio.SocketListener]:
    """Listen at all of ``hosts`` at one port; if it is ours to draw, draw again where another program has it at one of
    them. Raises ``ResourceError``."""
    for _ in range(0 if port else _DRAWS_MAX - 1):
        with suppress(ResourceError):
            return await _listen_at(hosts, 0)
    return await _listen_at(hosts, port)


async def _listen_at(hosts: Sequence[str], port: int) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    advice = "choose another, or 0" if port else "choose another host, or off"
    for host in hosts:
        try:
            listeners += (await trio.open_tcp_listeners(port, host=host))[:1]
        except OSError as error:
            for listener in listeners:
                listener.socket.close()
            raise ResourceError(
                f"data_listen: cannot listen on {host} port {port}: {error.strerror or error}; {advice}"
            ) from error
        port = listeners[0].socket.getsockname()[1]  # peers are told one
    return listeners
