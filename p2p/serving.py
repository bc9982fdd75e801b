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
)

log = structlog.get_logger("depin_node.p2p")

COUNTERS = {
    "streams_failed": "a stream handler raised what was neither the peer's nor the connection's fault",
    "streams_broken": "a handler ended because its stream or connection did",
    "streams_violated": "a handler ended because the peer broke the protocol",
    "streams_refused": "a peer opened more streams than it may",
    "gossip_invalid": "a handler judged a gossiped message invalid, or raised",
    "gossip_oversized": "a gossiped message was larger than it may be",
    "gossip_dropped": "a gossiped message found its handler's queue full",
    "events_lost": "a connection event found its reader's queue full",
    "connections_refused": "a connection was closed because there were too many",
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

    def __init__(self, limits: NetworkLimits, counters: Counter[str]) -> None:
        self._streams_max = limits.inbound_streams_per_peer_max
        self._counters = counters
        self._running: Counter[PeerKey] = Counter()

    async def run(self, stream: Stream, handler: StreamHandler) -> None:
        """Serve one stream to its end; afterwards it is closed, or reset if the handler raised. Never
        raises."""
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
        except Exception:
            self._counters["streams_failed"] += 1
            log.exception("stream handler failed", protocol=stream.protocol, peer=peer_id(stream.peer))
        else:
            await stream.aclose()
            return
        await stream.reset()


async def judge(
    handler: GossipHandler, author: PeerKey, data: bytes, *, limits: NetworkLimits, counters: Counter[str]
) -> bool:
    """Ask ``handler`` whether a message may be passed on. Raising and oversize mean no. Never raises."""
    if len(data) > limits.gossip_size_bytes_max:
        counters["gossip_oversized"] += 1
        return False
    try:
        if await handler(author, data):
            return True
    except PeerViolation as error:
        log.warning("gossip broke protocol", peer=peer_id(author), reason=str(error))
    except Exception:
        log.exception("gossip handler failed", peer=peer_id(author))
    counters["gossip_invalid"] += 1
    return False
