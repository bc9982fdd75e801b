"""Connections and streams of the network in memory (``memory.py``): delay, windows, cuts and breaks.

A ``Link`` is one connection between two nodes; a stream is a pair of ``Pipe``\\ s over it, each with a window. Delay
is simulated by waiting for a chunk's time of arrival; what a cut link holds for longer than ``dead_after_s`` breaks it,
as on the real network.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import trio

from depin_node.core.errors import TransportError
from depin_node.p2p.network import NetworkLimits, PeerKey

WINDOW_BYTES = 256 * 1024
"""Bytes one side may have sent that the other has not read: yamux's initial window."""


class End(Protocol):
    """What a link needs of the node at its end."""

    key: PeerKey
    limits: NetworkLimits

    def start(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Run ``function`` as long as the node is open."""

    def forget(self, link: "Link[Any]") -> None:
        """The link is broken."""


class _Signal:
    """Wakes all who wait for a change of state."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


N = TypeVar("N", bound=End)


class Link(Generic[N]):
    """One connection between two nodes, with its delay and its streams."""

    def __init__(self, a: N, b: N, latency_s: float) -> None:
        self.ends = (a, b)
        self.latency_s = latency_s
        self.broken: str | None = None
        self.ended = trio.Event()
        self.cut = False
        self.changed = _Signal()
        self.streams: set[MemoryStream] = set()

    def other(self, node: N) -> N:
        """Return the node at the other end."""
        return self.ends[1] if node is self.ends[0] else self.ends[0]

    async def travel(self, trips: float) -> None:
        """Wait as long as ``trips`` one-way trips take, and as long as the link is cut."""
        await trio.sleep(self.latency_s * trips)
        while self.cut and not self.broken:
            await self.changed.wait()
        if self.broken:
            raise TransportError(self.broken)

    def set_cut(self, cut: bool) -> None:
        """Hold all traffic, or let it pass again."""
        if cut != self.cut and not self.broken:
            self.cut = cut
            self.changed.notify()
            self.notify_streams()
            if cut:
                for end in self.ends:
                    end.start(self._break_when_long_cut, min(e.limits.dead_after_s for e in self.ends))

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
            end.forget(self)
        self.changed.notify()

    def notify_streams(self) -> None:
        """Wake who reads: the link was cut, or is whole again."""
        for stream in self.streams:
            stream.inbound.changed.notify()


class Pipe:
    """One direction of a stream: chunks with their times of arrival, at most ``WINDOW_BYTES`` of them."""

    def __init__(self, link: Link[Any]) -> None:
        self.link = link
        self.chunks: deque[tuple[float, bytes]] = deque()  # an empty chunk is the end
        self.size_bytes = 0
        self.broken: str | None = None
        self.ended = False
        self.changed = _Signal()

    def break_(self, reason: str) -> None:
        """End it for both ends, at once."""
        if not self.broken:
            self.broken = reason
            self.changed.notify()

    def put(self, data: bytes) -> None:
        """Send a chunk on its way; an empty one is the end."""
        self.chunks.append((trio.current_time() + self.link.latency_s, data))
        self.size_bytes += len(data)
        self.changed.notify()

    async def send_all(self, data: memoryview, stall_timeout_s: float) -> None:
        """Send, as the window allows."""
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
        """Return what has arrived; nothing at the end."""
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


class MemoryStream:
    """One end of a stream; see ``network.Stream`` for its methods."""

    def __init__(self, protocol: str, peer: PeerKey, inbound: Pipe, outbound: Pipe, stall_timeout_s: float) -> None:
        self.protocol = protocol
        self.peer = peer
        self.inbound = inbound
        self.outbound = outbound
        self._stall_timeout_s = stall_timeout_s
        self._link = inbound.link
        self._link.streams.add(self)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``network.Stream.send_all``."""
        done = False
        try:
            await self.outbound.send_all(memoryview(data).cast("B"), self._stall_timeout_s)
            done = True
        finally:
            if not done:
                self.break_("the stream was reset in the middle of a message")

    async def receive_some(self, size_bytes_max: int = 65_536) -> bytes:
        """See ``network.Stream.receive_some``."""
        return await self.inbound.receive_some(size_bytes_max)

    async def receive_into(self, *buffers: memoryview) -> int:
        """See ``network.Stream.receive_into``."""
        data = await self.receive_some(sum(map(len, buffers)))
        rest = memoryview(data)
        for buffer in buffers:
            count = min(len(buffer), len(rest))
            buffer[:count], rest = rest[:count], rest[count:]
        return len(data)

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """See ``network.Stream.receive_exactly``."""
        data = bytearray()
        while len(data) < size_bytes:
            chunk = await self.receive_some(size_bytes - len(data))
            if not chunk:
                raise TransportError(f"the stream ended after {len(data)} of {size_bytes} bytes")
            data += chunk
        return bytes(data)

    async def send_eof(self) -> None:
        """See ``network.Stream.send_eof``."""
        if not self.outbound.ended and not self.outbound.broken:
            self.outbound.ended = True
            self.outbound.put(b"")
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """See ``network.Stream.aclose``."""
        await self.send_eof()
        # What the peer still sends is dropped: nobody will read it.
        self.inbound.break_("the stream is closed")
        self._link.streams.discard(self)

    async def reset(self) -> None:
        """See ``network.Stream.reset``."""
        self.break_("the stream was reset")
        await trio.lowlevel.checkpoint()

    def break_(self, reason: str) -> None:
        """End both directions, at once."""
        self.inbound.break_(reason)
        self.outbound.break_(reason)
        self._link.streams.discard(self)
