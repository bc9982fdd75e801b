"""A TCP hop for tests: links that dribble, hold everything, or have small buffers."""

import contextlib
from collections.abc import AsyncIterator

import trio

from depin_node.p2p.addresses import parse

SMALL_BUFFER_BYTES = 32_768  # below 16 KiB Linux's loopback itself crawls


class Proxy:
    """A TCP hop in front of a node, which may dribble, hold everything, or have small buffers."""

    def __init__(self, target: str, *, chunk_bytes: int = 65_536, small_buffers: bool = False) -> None:
        self.target = parse(target)
        self.chunk_bytes = chunk_bytes
        self.small_buffers = small_buffers
        self.flowing = trio.Event()
        self.flowing.set()
        self.address = ""

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["Proxy"]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        self.address = str(parse(f"/ip4/127.0.0.1/tcp/{port}/p2p/{str(self.target).rsplit('/', 1)[1]}"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self.hop, [listener])
            yield self
            nursery.cancel_scope.cancel()

    async def hop(self, inner: trio.SocketStream) -> None:
        outer = await trio.open_tcp_stream("127.0.0.1", self.target.port)
        if self.small_buffers:
            shrink(inner)
            shrink(outer)
        async with outer, inner, trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, inner, outer)
            await self.pump(outer, inner)
            nursery.cancel_scope.cancel()

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await self.flowing.wait()
                data = await source.receive_some(self.chunk_bytes)
                await self.flowing.wait()
                if not data:
                    await sink.send_eof()
                    return
                await sink.send_all(data)
                if self.chunk_bytes < 1000:
                    await trio.sleep(0.0003)  # let the other side read this much and no more


def shrink(stream: trio.SocketStream) -> None:
    for option in (trio.socket.SO_SNDBUF, trio.socket.SO_RCVBUF):
        stream.setsockopt(trio.socket.SOL_SOCKET, option, SMALL_BUFFER_BYTES)
