"""One stream of the network on libp2p: straight on yamux, with an end that is in order on both sides."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from depin_node.core.errors import TransportError
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.libp2p.mends.bulk import read_into
from depin_node.p2p.libp2p.terms import GONE, key_of_id, reason_of

if TYPE_CHECKING:
    from depin_node.p2p.libp2p.host import Host

T = TypeVar("T")

log = structlog.get_logger("depin_node.p2p")


class Stream:
    """One stream, on yamux directly; see ``network.Stream`` for its methods."""

    def __init__(self, host: "Host", net_stream: Any, protocol: str) -> None:
        self._host = host
        self._net_stream = net_stream
        self._yamux = net_stream.muxed_stream
        self.protocol = protocol
        self.peer = key_of_id(net_stream.muxed_conn.peer_id)
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``network.Stream.send_all``."""
        try:
            await self._yamux.write(data)
        except GONE as error:
            await self.reset()
            raise self._broken(error) from error
        except BaseException:  # also when cancelled: the peer may have got half a message; raised again
            await self.reset()
            raise

    async def receive_some(self, size_bytes_max: int = 65_536) -> bytes:
        """See ``network.Stream.receive_some``."""
        if self._closed:
            raise TransportError(f"{self.protocol}: the stream is closed")
        data: bytes = await self._unless_ended(self._yamux.read(size_bytes_max)) or b""
        return data

    async def receive_into(self, *buffers: memoryview) -> int:
        """See ``network.Stream.receive_into``."""
        if self._closed:
            raise TransportError(f"{self.protocol}: the stream is closed")
        return await self._unless_ended(read_into(self._yamux, *buffers)) or 0

    async def _unless_ended(self, reading: Awaitable[T]) -> T | None:
        try:
            return await reading
        except MuxedStreamEOF as error:
            if self._yamux.reset_received or self._yamux.conn.event_shutting_down.is_set():
                raise self._broken(error) from error
            return None
        except GONE as error:
            raise self._broken(error) from error

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """See ``network.Stream.receive_exactly``."""
        data = bytearray()
        while len(data) < size_bytes:
            chunk = await self.receive_some(size_bytes - len(data))
            if not chunk:
                raise TransportError(f"{self.protocol}: the stream ended after {len(data)} of {size_bytes} bytes")
            data += chunk
        return bytes(data)

    async def send_eof(self) -> None:
        """See ``network.Stream.send_eof``."""
        try:
            with trio.CancelScope(shield=True):
                await self._yamux.close()
        except GONE as error:
            raise self._broken(error) from error

    async def aclose(self) -> None:
        """See ``network.Stream.aclose``."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            try:
                await self._net_stream.close()
            except GONE as error:
                log.debug("stream closed badly", protocol=self.protocol, error=repr(error)[:200])
            if self._yamux.recv_closed:
                await self._drop()
                return
        self._host.start(self._linger)

    async def reset(self) -> None:
        """See ``network.Stream.reset``."""
        self._closed = True
        with trio.CancelScope(shield=True):
            try:
                await self._net_stream.reset()
            except GONE as error:
                log.debug("stream reset badly", protocol=self.protocol, error=repr(error)[:200])
            await self._drop()

    async def _linger(self) -> None:
        """Wait for the peer's end, dropping what it still sends; a peer that does not end is reset."""
        connection, stream_id = self._yamux.conn, self._yamux.stream_id
        with trio.move_on_after(self._host.limits.stall_timeout_s):
            while stream_id in connection.streams and not self._yamux.recv_closed:
                connection.stream_buffers[stream_id].clear()
                await connection.stream_events[stream_id].wait()
                if stream_id in connection.stream_events:  # else it has ended meanwhile, and nobody would delete that
                    connection.stream_events[stream_id] = trio.Event()
            await self._drop()
            return
        await self.reset()

    async def _drop(self) -> None:
        """Give back what nobody will read: the library would keep it for a minute."""
        connection = self._yamux.conn
        if (buffer := connection.stream_buffers.get(self._yamux.stream_id)) is not None:
            buffer.clear()
            await connection._finalize_stream(self._yamux, fully_closed=self._yamux.closed)

    def _broken(self, error: BaseException) -> TransportError:
        return TransportError(f"{self.protocol}: the stream to {peer_id(self.peer)} broke: {reason_of(error)}")
