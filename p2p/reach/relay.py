"""The relay, both sides of it, over the network's streams: asking for places and circuits, and giving them.

A circuit is two streams spliced by the relay: one by which its source asked for it (``relay/1``), one that the relay
opened to its target (``relayed/1``). Both ends make a connection of it (``Network.adopt``), so that the relay sees
ciphertext, and neither end can be impersonated by it. What the relay gives away is bounded by its ``RelayDesk``.
"""

from collections.abc import Callable, Hashable

import structlog
import trio

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, DepinError, PeerViolation, TransportError
from depin_node.core.wire import decode, encode
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.frames import ANSWER, ASK, REFUSE, Frame, FrameReader, exchange, request, send_frames
from depin_node.p2p.network import Network, NetworkLimits, Path, PeerKey, Stream
from depin_node.p2p.reach.desk import Circuit, RelayDesk, RelayRefused
from depin_node.p2p.reach.messages import (
    MESSAGE_BYTES_MAX,
    RELAY_PROTOCOL,
    RELAYED_PROTOCOL,
    Incoming,
    RelayQuestion,
    RelayTerms,
)

log = structlog.get_logger("depin_node.p2p")

GroupOf = Callable[[PeerKey, Path], Hashable]
_READ_BYTES = 64 * 1024


def address_of(path: Path) -> Address | None:
    """Return where a connection goes or comes from; None if the network could not tell."""
    try:
        return parse(path.address)
    except ConfigError:
        return None


def seen_at(path: Path | None) -> tuple[str, int]:
    """Return the host and port of the other end; empty and 0 if they are not known. The port counts only if the other
    end called: else it is one to call, not one that its calls leave by.
    """
    address = address_of(path) if path is not None and not path.relayed else None
    if path is None or address is None:
        return "", 0
    return address.host, 0 if path.outbound else address.port


async def reserve(network: Network, relay: PeerKey, *, timeout_s: float) -> RelayTerms:
    """Ask a connected peer to keep a place for us. Raises as ``frames.request``."""
    body = encode(RelayQuestion(b""))
    answer = await request(network, relay, RELAY_PROTOCOL, body, size_bytes_max=MESSAGE_BYTES_MAX, timeout_s=timeout_s)
    return decode(answer, RelayTerms, size_bytes_max=MESSAGE_BYTES_MAX)


async def connect_through(network: Network, target: Address, *, timeout_s: float) -> RelayTerms:
    """Connect with ``target`` by way of its relay, to which we are connected.

    Raises:
        TransportError: the relay refuses, cannot reach the target or does not answer; or the other end is not it.
        PeerViolation: the relay's answer is none.
    """
    stream = await network.open_stream(target.relay, RELAY_PROTOCOL)
    spliced = False
    try:
        reader = FrameReader(stream, size_bytes_max=MESSAGE_BYTES_MAX)
        with trio.fail_after(timeout_s):
            answer = await exchange(stream, reader, encode(RelayQuestion(target.peer)))
        terms = decode(answer, RelayTerms, size_bytes_max=MESSAGE_BYTES_MAX)
        spliced = True
    except trio.TooSlowError as error:
        raise TransportError(f"{target}: the relay did not answer within {timeout_s:g} s") from error
    finally:
        if not spliced:
            with trio.CancelScope(shield=True):
                await stream.reset()
    path = Path(str(target), outbound=True, relayed=True, bulk=terms.bulk)
    await network.adopt(stream, path, target.peer, reader.rest())
    return terms


class RelayServer:
    """Gives places and circuits.

    Args:
        network: its ``relay/1`` is served from here on.
        desk: what is given away.
        group_of: by which peers are counted.
        clock: of the node.
        timeout_s: for a question, and for a target to take a circuit.
    """

    def __init__(
        self, network: Network, desk: RelayDesk, group_of: GroupOf, clock: Callable[[], Now], timeout_s: float
    ) -> None:
        self.desk = desk
        self.is_open = False
        """Whether this node serves now: one that cannot be called is of no use as a relay."""
        self._network = network
        self._group_of = group_of
        self._clock = clock
        self._timeout_s = timeout_s
        network.serve(RELAY_PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        reader = FrameReader(stream, size_bytes_max=MESSAGE_BYTES_MAX)
        frame: Frame | None = None
        with trio.move_on_after(self._timeout_s):
            frame = await reader.read()
        if frame is None:
            return
        if frame.kind != ASK:
            raise PeerViolation(f"{RELAY_PROTOCOL}: a frame of kind {frame.kind} is no request")
        question = decode(frame.body, RelayQuestion, size_bytes_max=MESSAGE_BYTES_MAX)
        if question.target and len(question.target) != 32:
            raise PeerViolation(f"{RELAY_PROTOCOL}: a target of {len(question.target)} bytes is no key")
        try:
            path = self._network.path(stream.peer)
            if not self.is_open:
                raise RelayRefused("not_serving")
            if path is None or path.relayed:
                raise RelayRefused("relayed")
            group = self._group_of(stream.peer, path)
            if not question.target:
                self.desk.reserve(stream.peer, group, self._clock())
                await send_frames(stream, [Frame(ANSWER, encode(self._terms("", 0)))])
                return
            circuit = self.desk.open(stream.peer, group, question.target, self._clock())
        except RelayRefused as refused:
            await send_frames(stream, [Frame(REFUSE, refused.code.encode())])
            return
        try:
            await self._connect(circuit, path, stream, reader)
        finally:
            self.desk.close(circuit)

    def _terms(self, host: str, port: int) -> RelayTerms:
        limits = self.desk.limits
        return RelayTerms(limits.place_s, limits.circuit_s, limits.circuit_bytes_max, limits.bulk, host, port)

    async def _connect(self, circuit: Circuit, path: Path, near: Stream, near_reader: FrameReader) -> None:
        """Have the target take the circuit, tell the source, and carry bytes until it is over."""
        far: Stream | None = None
        try:
            incoming = Incoming(circuit.source, self.desk.limits.bulk, *seen_at(path))
            try:
                far = await self._network.open_stream(circuit.target, RELAYED_PROTOCOL)
                far_reader = FrameReader(far, size_bytes_max=MESSAGE_BYTES_MAX)
                with trio.fail_after(self._timeout_s):
                    await exchange(far, far_reader, encode(incoming))
            except (trio.TooSlowError, PeerViolation, TransportError) as error:
                log.debug("no circuit", target=peer_id(circuit.target), reason=str(error))
                await send_frames(near, [Frame(REFUSE, b"target_unreachable")])
                return
            terms = self._terms(*seen_at(self._network.path(circuit.target)))
            await send_frames(near, [Frame(ANSWER, encode(terms))])
            await self._carry(circuit, near, near_reader.rest(), far, far_reader.rest())
        finally:
            if far is not None:
                with trio.CancelScope(shield=True):
                    await far.reset()  # what had to arrive has: both sides have ended, or the circuit is broken

    async def _carry(self, circuit: Circuit, near: Stream, near_head: bytes, far: Stream, far_head: bytes) -> None:
        over: DepinError | None = TransportError("the circuit is over")

        async def pump(source: Stream, head: bytes, sink: Stream) -> None:
            nonlocal over
            try:
                data = head or await source.receive_some(_READ_BYTES)
                while data:
                    await trio.sleep(self.desk.carry(circuit, len(data), self._clock()))
                    await sink.send_all(data)
                    data = await source.receive_some(_READ_BYTES)
                await sink.send_eof()
            except DepinError as error:
                over = error
                pumps.cancel_scope.cancel()

        left_s = (circuit.ends_ns - self._clock().boottime_ns) / SECOND_NS
        with trio.move_on_after(max(0.0, left_s)):
            async with trio.open_nursery() as pumps:
                pumps.start_soon(pump, near, near_head, far)
                pumps.start_soon(pump, far, far_head, near)
            if not pumps.cancel_scope.cancelled_caught:
                over = None
        if over is not None:
            raise TransportError(f"circuit ended: {over}") from over


def serve_relayed(
    network: Network, accepts: Callable[[PeerKey], bool], took: Callable[[PeerKey, PeerKey, Incoming], None]
) -> None:
    """Take the circuits that our relays bring.

    Args:
        network: its ``relayed/1`` is served from here on.
        accepts: whether a peer is one of our relays.
        took: told the relay, the source and what the relay said of it, once they are connected.
    """
    limits: NetworkLimits = network.limits

    async def serve(stream: Stream) -> None:
        reader = FrameReader(stream, size_bytes_max=MESSAGE_BYTES_MAX)
        frame: Frame | None = None
        with trio.move_on_after(limits.open_timeout_s):
            frame = await reader.read()
        if frame is None:
            return
        incoming = decode(frame.body, Incoming, size_bytes_max=MESSAGE_BYTES_MAX)
        way, path = network.path(stream.peer), network.path(incoming.source)
        if not accepts(stream.peer) or way is None or way.relayed:
            await send_frames(stream, [Frame(REFUSE, b"not_my_relay")])
            return
        if incoming.source == network.key or (path is not None and not path.relayed):
            await send_frames(stream, [Frame(REFUSE, b"connected")])
            return
        relay = address_of(way)
        if relay is None:
            raise TransportError("the way to the relay is gone")
        await send_frames(stream, [Frame(ANSWER, b"")])
        address = str(Address(relay.kind, relay.host, relay.port, incoming.source, stream.peer))
        circuit = Path(address, outbound=False, relayed=True, bulk=incoming.bulk)
        ended = await network.adopt(stream, circuit, incoming.source, reader.rest())
        took(stream.peer, incoming.source, incoming)
        await ended.wait()  # the stream is this handler's: when it returns, the network closes it

    network.serve(RELAYED_PROTOCOL, serve)
