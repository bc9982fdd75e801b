"""What both networks do alike: hand out connection events, run stream handlers, judge gossip.

This is the per-peer border: whatever goes wrong while serving one peer is logged and counted here, and ends
no more than that stream or that message.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

import structlog
import trio

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.network import (
    ConnectionEvent,
    EventsLost,
    GossipHandler,
    NetworkLimits,
    PeerKey,
    Stream,
    StreamHandler,
    Verdict,
)

log = structlog.get_logger("depin_node.p2p")

COUNTERS = {
    "streams_failed": "a stream handler raised what was neither the peer's nor the connection's fault",
    "streams_broken": "a handler ended because its stream or connection did",
    "streams_violated": "a handler ended because the peer broke the protocol",
    "streams_refused": "a peer opened more streams than it may",
    "gossip_invalid": "a gossiped message broke the rules",
    "gossip_ignored": "a gossiped message was of no use: known, outdated, one too many",
    "gossip_failed": "a handler of gossip raised what was not the message's fault",
    "gossip_oversized": "a gossiped message was larger than it may be",
    "gossip_dropped": "a gossiped message found its handler's queue full (in memory only)",
    "gossip_unsent": "a neighbour took gossip more slowly than it came",
    "gossip_slowed": "a neighbour sent more gossip than it may, and was read from later",
    "events_lost": "a connection event found its reader's queue full",
    "connections_refused": "a connection was closed because there were too many, of it or in all",
    "connections_overfull": "a connection was closed because too much of it waited to be read",
    "handshakes_evicted": "a handshake was cut off because others needed its place",
    "greetings_failed": "a connection was closed because the peer is of another network or mesh, or said nothing",
    "peers_kept_out": "a peer was disconnected because it broke the rules",
    "connections_stalled": "a connection was closed because the peer took no bytes",
}


class EventHub:
    """Hands every connection event to every reader; a reader that falls behind gets ``EventsLost`` in their
    place."""

    def __init__(self, limits: NetworkLimits, counters: Counter[str]) -> None:
        self._queue_max = limits.events_queue_max
        self._counters = counters
        self._readers: list[trio.MemorySendChannel[ConnectionEvent]] = []
        self._closed = False

    def subscribe(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        """Return a new reader of what is emitted from now on."""
        send, receive = trio.open_memory_channel[ConnectionEvent](self._queue_max)
        if self._closed:
            send.close()
        else:
            self._readers.append(send)
        return receive

    def emit(self, event: ConnectionEvent) -> None:
        """Queue ``event`` for all readers, without waiting."""
        for reader in list(self._readers):
            statistics = reader.statistics()
            if statistics.open_receive_channels == 0:
                reader.close()
                self._readers.remove(reader)
                continue
            room = self._queue_max - statistics.current_buffer_used
            if room > 1 or statistics.tasks_waiting_receive:
                reader.send_nowait(event)
                continue
            self._counters["events_lost"] += 1
            if room == 1:  # the last place is kept for this notice: it stands where events are missing
                reader.send_nowait(EventsLost())

    def close(self) -> None:
        """End all channels, after what is queued."""
        self._closed = True
        for reader in self._readers:
            reader.close()
        self._readers.clear()


class StreamServer:
    """Runs the handler of each inbound stream, so many per peer."""

    def __init__(
        self,
        limits: NetworkLimits,
        counters: Counter[str],
        *,
        violated: Callable[[PeerKey, str], None] = lambda peer, reason: None,
    ) -> None:
        self._violated = violated
        self._streams_max = limits.inbound_streams_per_peer_max
        self._counters = counters
        self._running: Counter[PeerKey] = Counter()

    async def run(self, stream: Stream, handler: StreamHandler, *, is_counted: bool = True) -> None:
        """Serve one stream to its end; afterwards it is closed, or reset if the handler raised. Never
        raises. One that is not counted has a bound of its own."""
        if not is_counted:
            await self._contain(stream, handler)
            return
        if self._running[stream.peer] >= self._streams_max:
            self._counters["streams_refused"] += 1
            await stream.reset()
            return
        self._running[stream.peer] += 1
        try:
            await self._contain(stream, handler)
        finally:
            self._running[stream.peer] -= 1
            if not self._running[stream.peer]:
                del self._running[stream.peer]

    async def _contain(self, stream: Stream, handler: Callable[[Stream], Awaitable[None]]) -> None:
        try:
            await handler(stream)
        except TransportError as error:
            self._counters["streams_broken"] += 1
            log.debug("stream ended early", protocol=stream.protocol, peer=peer_id(stream.peer), reason=str(error))
        except PeerViolation as error:
            self._counters["streams_violated"] += 1
            log.warning("peer broke protocol", protocol=stream.protocol, peer=peer_id(stream.peer), reason=str(error))
            self._violated(stream.peer, str(error))
        except Exception:
            self._counters["streams_failed"] += 1
            log.exception("stream handler failed", protocol=stream.protocol, peer=peer_id(stream.peer))
        else:
            await stream.aclose()
            return
        await stream.reset()


async def judge(
    handler: GossipHandler, forwarder: PeerKey, data: bytes, *, limits: NetworkLimits, counters: Counter[str]
) -> Verdict:
    """Ask ``handler`` what is to become of a message. Never raises; an error of our own is nobody else's fault."""
    if len(data) > limits.gossip_size_bytes_max:
        counters["gossip_oversized"] += 1
        return Verdict.REJECT
    verdict = Verdict.REJECT
    try:
        verdict = await handler(forwarder, data)
    except PeerViolation as error:
        log.warning("gossip broke protocol", peer=peer_id(forwarder), reason=str(error))
    except Exception:
        counters["gossip_failed"] += 1
        log.exception("gossip handler failed", peer=peer_id(forwarder))
        return Verdict.IGNORE
    if verdict is not Verdict.ACCEPT:
        counters["gossip_invalid" if verdict is Verdict.REJECT else "gossip_ignored"] += 1
    return verdict
