"""The network as the rest of the node sees it: peers by key, streams by protocol, gossip by topic.

The flow: a ``Network`` is opened with an identity and a network id, listens, and dials or is
dialled. Between connected peers either side opens streams of a protocol that the other serves. A topic
reaches every node that subscribes to it and is connected through nodes that do: each first judges a message
(its handler says ``Verdict.ACCEPT``), then it is handed on. Equal messages on a topic are one message.
``connection_events`` tells who came and went.

Two implementations stand behind this interface and pass one suite of tests: ``libp2p.host.open_libp2p`` (TCP,
Noise, yamux) and ``memory.MemoryFabric`` (for simulation, no sockets). Nothing of either shows
through here.

Protocols and topics are short names with a version, ``"peers/1"``. On the wire they become
``/depin/<network id>/peers/1``: nodes of two networks do not understand each other, and ``dial`` says so.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

import trio

from depin_node.core.errors import ResourceError, TransportError

PeerKey: TypeAlias = bytes
"""A node's 32-byte Ed25519 public key. ``addresses.peer_id`` has its text form."""


@dataclass(frozen=True)
class NetworkLimits:
    """What a network may use and how long it waits. Every wait on a peer ends by one of these."""

    dial_timeout_s: float = 10.0
    """TCP, Noise, yamux and the check of the network id together."""
    open_timeout_s: float = 10.0
    """Opening one stream: three round trips on a new protocol."""
    stall_timeout_s: float = 10.0
    """A peer that reads nothing of a stream for so long, while we have something to send, loses the stream."""
    connections_max: int = 128
    """All peers together; inbound ones above it are refused."""
    inbound_streams_per_peer_max: int = 64
    """Streams of one peer being handled at once; one above it is reset."""
    connections_per_group_max: int = 32
    """Inbound connections of one group (``groups``)."""
    handshakes_max: int = 64
    """Inbound handshakes under way, all together; one above it puts out the oldest of the group with most."""
    handshakes_per_group_max: int = 16
    arrivals_per_s: float = 8.0
    """Sockets that come in from one group; eight times as many at once."""
    streams_max: int = 2048
    """Streams that peers have opened, all together."""
    streams_per_group_max: int = 256
    streams_per_s: float = 200.0
    """Streams that one peer opens; five times as many at once."""
    requests_per_s: float = 64.0
    """Requests of one peer that are answered, of each protocol (``frames.serve_requests``); four times as many at
    once. One above it waits."""
    window_growth_bytes_max: int = 16 << 20
    """By how much the receive windows of one connection may outgrow yamux's 256 KiB each, all its streams together."""
    buffered_bytes_max: int = 256 << 20
    """What peers have sent and nobody has read yet, all together; above it the connection that holds most ends."""
    buffered_per_group_bytes_max: int = 96 << 20
    exempt_loopback: bool = True
    """Whether what counts by group and by second is not counted for peers on this machine."""
    kept_out_s: float = 60.0
    """For how long a peer that broke the rules is kept out; each time twice as long, up to a day."""
    gossip_size_bytes_max: int = 16 * 1024
    """Largest gossiped message; larger ones are refused by ``publish`` and dropped on receipt."""
    gossip_queue_max: int = 256
    """Frames of gossip that wait for one neighbour. When full, the newest is dropped: gossip repairs itself."""
    events_queue_max: int = 1024
    """Connection events that wait for one reader. See ``EventsLost``."""
    dead_after_s: float = 7.5
    """A peer from whom nothing comes for so long, pings not answered, or whose TCP takes no frame of ours, loses the
    connection."""


@dataclass(frozen=True)
class Path:
    """How a peer is connected now: the best way if there are several.

    ``address`` is where it was dialled, or where it called from; ``local_port`` the port of this machine that the
    connection uses (0: not known); ``relayed``: a relay passes it on, so that it is for control, unless ``bulk``.
    """

    address: str
    outbound: bool
    local_port: int = 0
    relayed: bool = False
    bulk: bool = True


@dataclass(frozen=True)
class Connected:
    """The first connection to ``peer`` stands, or a direct one that replaces a relayed one. ``address`` is where it was
    dialled, or where it called from."""

    peer: PeerKey
    address: str
    outbound: bool


@dataclass(frozen=True)
class Disconnected:
    """The last connection to ``peer`` is gone."""

    peer: PeerKey


@dataclass(frozen=True)
class EventsLost:
    """This reader fell ``events_queue_max`` behind and events after this point were dropped: read ``peers()``
    again."""


ConnectionEvent: TypeAlias = Connected | Disconnected | EventsLost


class UnknownProtocolError(TransportError):
    """The peer is there, but does not speak this protocol on this network. Asking it again will not help."""

    code = "unknown_protocol"


class NoDirectPathError(TransportError):
    """There is only a relay between us and this peer, and the relay is not for so many bytes. Another peer may help."""

    code = "no_direct_path"


class ListenError(ResourceError):
    """An address cannot be listened on: taken by another program, or not this machine's. Try another port."""

    code = "listen"


class Stream(Protocol):
    """A two-way byte stream to one peer. One task may send while another receives; not two of the same.

    All methods raise ``TransportError`` when the stream was reset, the connection died or the peer stalled.
    Receiving may be cancelled at any time without loss. Sending should not be: a cancelled ``send_all``
    resets the stream, since the peer may have got half a message (other streams of the connection live on).
    """

    @property
    def peer(self) -> PeerKey:
        """Who is at the other end: proven by the handshake."""

    @property
    def protocol(self) -> str:
        """The short name it was opened for."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all of ``data`` to the peer's receive window or wait for room, at most ``stall_timeout_s`` at
        a time.

        Raises:
            TransportError: the peer read nothing for ``stall_timeout_s``, or the stream or connection ended.
        """

    async def receive_some(self, size_bytes_max: int = 65_536) -> bytes:
        """Return 1 to ``size_bytes_max`` bytes, or ``b""`` when the peer has ended its side in order.

        Waits without a deadline: the caller sets its own with ``trio.fail_after``.
        """

    async def receive_into(self, *buffers: memoryview) -> int:
        """Read into ``buffers``, one after the other, what comes, at most all that they hold; return how many bytes, 0
        when the peer has ended its side in order. As ``receive_some``.
        """

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes``. Raises ``TransportError`` if the stream ends before."""

    async def send_eof(self) -> None:
        """End our side: the peer reads ``b""`` after what was sent. Receiving goes on."""

    async def aclose(self) -> None:
        """End both sides in order: what was sent arrives. Never raises; closing twice is fine."""

    async def reset(self) -> None:
        """Drop the stream at once: the peer's next operation raises ``TransportError``. Never raises."""


StreamHandler: TypeAlias = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream. Afterwards the stream is closed; if it raised, it is reset, logged and
counted."""


class Verdict(Enum):
    """What is to become of a gossiped message."""

    ACCEPT = "accept"
    """Good and new: it is passed on."""
    IGNORE = "ignore"
    """Of no use, and nobody's fault: known, outdated, one too many. It goes no further."""
    REJECT = "reject"
    """Against the rules: whoever handed it on should have seen that, since everybody judges before passing on."""


GossipHandler: TypeAlias = Callable[[PeerKey, bytes], Awaitable[Verdict]]
"""Judges and takes one message: ``(who handed it to us, data) -> verdict``. Raising ``PeerViolation`` means
``REJECT``. Who wrote a message, its content says and proves."""


class Network(Protocol):
    """One node's access to the mesh."""

    @property
    def key(self) -> PeerKey:
        """Our own key."""

    @property
    def network_id(self) -> str:
        """The mesh this node belongs to."""

    @property
    def limits(self) -> NetworkLimits:
        """What it may use and how long it waits."""

    def addresses(self) -> list[str]:
        """Return the dialable multiaddrs, each ending in ``/p2p/<our id>``; never a wildcard such as
        0.0.0.0."""

    def peers(self) -> frozenset[PeerKey]:
        """Return who is connected now."""

    async def dial(self, address: str) -> PeerKey:
        """Connect to one multiaddr that ends in ``/p2p/<id>``, or return at once if that peer is connected.

        Raises:
            ConfigError: not an address of the kind ``addresses.parse`` takes.
            TransportError: unreachable, not the peer it should be, of another network, or slower than
                ``dial_timeout_s``.
        """

    def path(self, peer: PeerKey) -> Path | None:
        """Return how ``peer`` is connected, or None if it is not."""

    async def probe(self, address: str) -> None:
        """Call ``address`` anew, make sure that the peer it names is there, and hang up: whether it can be called.

        Raises:
            ConfigError: not an address, or one of a relay.
            TransportError: unreachable, or not the peer it should be.
        """

    async def adopt(self, stream: Stream, path: Path, peer: PeerKey, head: bytes = b"") -> trio.Event:
        """Make ``stream``, which a relay has spliced through to ``peer``, a connection with it: Noise and yamux. Return
        what will be set when the connection ends.

        Args:
            stream: used by the network from here on, whatever happens.
            path: how it came about; ``outbound``: we asked for it.
            peer: who must be at the other end.
            head: bytes of the stream that were read already.

        Raises:
            TransportError: the other end is not ``peer``, or took longer than ``dial_timeout_s``.
        """

    async def punch(self, peer: PeerKey, host: str, port: int, *, local_port: int, outbound: bool) -> None:
        """Connect with ``peer`` anew, although it is connected by way of a relay.

        ``local_port`` 0: it can be called at ``host`` and ``port``. Else it calls us at the same moment, and the two
        calls meet: ours leaves from ``local_port`` to where the peer's network lets its own out. ``outbound``: we begin
        the handshake; the other end must not.

        Raises:
            TransportError: the two did not meet within ``dial_timeout_s``.
        """

    async def open_stream(self, peer: PeerKey, protocol: str) -> Stream:
        """Open a stream to a connected peer.

        Raises:
            UnknownProtocolError: the peer does not serve ``protocol``.
            TransportError: not connected, or slower than ``open_timeout_s``.
        """

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Let peers open streams of ``protocol``; each runs ``handler`` in a task of its own."""

    async def publish(self, topic: str, data: bytes, *, by_id: bool = False) -> None:
        """Gossip ``data`` to all who subscribe, unless it has been about before. No promise of delivery; our own
        handler is not run. ``by_id``: most have it, so neighbours are told that we have it, and ask if they lack it.

        Raises:
            ValueError: longer than ``gossip_size_bytes_max``.
        """

    def subscribe(self, topic: str, handler: GossipHandler) -> None:
        """Take part in ``topic``. One handler a topic, one message at a time, each message once."""

    async def unsubscribe(self, topic: str) -> None:
        """Take part no longer: the handler is not run again, and nothing of ``topic`` is passed on. Never raises."""

    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        """Return a new channel of what happens from now on. The channel ends when the network closes."""

    async def disconnect(self, peer: PeerKey) -> None:
        """Close every connection to ``peer``. Never raises."""

    def report(self, peer: PeerKey, reason: str) -> None:
        """Count a breach of some protocol against ``peer``: enough of them disconnect it and keep it out (``strikes``).
        A handler of ``serve`` that raises ``PeerViolation`` is reported so. Never raises.
        """

    def counters(self) -> Mapping[str, int]:
        """Return how often each of ``serving.COUNTERS`` happened since the network opened."""
