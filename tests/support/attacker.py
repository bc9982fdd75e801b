"""An attacker's tools: TCP, multistream, Noise and yamux by hand, each layer as far as the attack wants it.

A ``Attacker`` calls from an address of its own in 127.0.0.0/8, which is a group of its own to the victim. ``tcp``,
``noised``, ``muxed`` and ``greeted`` open connections up to that layer; ``Mux`` sends yamux frames as they are given.
"""

import contextlib
import os
import struct
from collections import defaultdict
from collections.abc import AsyncIterator

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.io.exceptions import IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport

from depin_node.core.wire import encode
from depin_node.crypto.identity import key_of
from depin_node.p2p.addresses import parse
from depin_node.p2p.libp2p.hello import Hello

HEADER = struct.Struct("!BBHII")
DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


def line(text: str | bytes) -> bytes:
    """Return a multistream message."""
    body = (text.encode() if isinstance(text, str) else text) + b"\n"
    size, prefix = len(body), b""
    while size >= 0x80:
        prefix += bytes([size & 0x7F | 0x80])
        size >>= 7
    return prefix + bytes([size]) + body


def frame(kind: int, body: bytes) -> bytes:
    """Return a frame of ``p2p.frames``."""
    return struct.pack("<IB", len(body), kind) + body


MULTISTREAM = line("/multistream/1.0.0")


class Mux:
    """A connection up to yamux, by hand; what the victim sends is kept by stream, up to 1 MiB each."""

    def __init__(self, secured) -> None:
        self.secured = secured
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.flags: dict[int, int] = defaultdict(int)
        self.ended = False
        self._next = -1
        self._news = trio.Event()

    async def send(self, kind: int, flags: int, stream_id: int, length: int, body: bytes = b"", *, version=0) -> None:
        """Send one frame, however wrong."""
        await self.write(HEADER.pack(version, kind, flags, stream_id, length) + body)

    async def write(self, data: bytes) -> None:
        """Send frames; a victim that has hung up is no error."""
        try:
            await self.secured.write(data)
        except (IOException, RawConnError, *GONE):
            self.ended = True
            self._tell()

    async def read(self) -> None:
        """Take in what the victim sends, until it hangs up."""
        try:
            while True:
                _, kind, flags, stream_id, length = HEADER.unpack(await self._exactly(HEADER.size))
                if kind == DATA and length:
                    data = await self._exactly(length)
                    if len(self.got[stream_id]) < 1 << 20:
                        self.got[stream_id] += data
                if kind == PING and flags & SYN:
                    await self.send(PING, ACK, 0, length)
                self.flags[stream_id] |= flags
                self._tell()
        except Exception:  # noqa: BLE001 - however it ends
            self.ended = True
            self._tell()

    async def _exactly(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            chunk = await self.secured.read(size_bytes - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def wait(self, condition, seconds: float = 5.0) -> bool:
        """Wait until ``condition`` holds or the victim hangs up; return whether it held."""
        with trio.move_on_after(seconds):
            while not condition() and not self.ended:
                await self._news.wait()
        return bool(condition())

    async def hung_up(self, seconds: float = 6.0) -> bool:
        """Wait until the victim hangs up; return whether it did."""
        with trio.move_on_after(seconds):
            while not self.ended:
                await self._news.wait()
        return self.ended

    async def open(self, protocol: str, *, wait: bool = True) -> int:
        """Open a stream of one of the victim's protocols; return its number."""
        self._next += 2
        full = protocol if protocol.startswith("/") else f"/depin/test/{protocol}"
        hello = MULTISTREAM + line(full)
        number = self._next
        await self.send(WINDOW, SYN, number, 0)
        await self.send(DATA, 0, number, len(hello), hello)
        if wait:
            await self.wait(lambda: full.encode() in self.got[number] or b"na\n" in self.got[number])
            del self.got[number][:]
        return number

    async def say(self, stream_id: int, data: bytes) -> None:
        """Send data on a stream, in frames of at most 64 KiB."""
        for start in range(0, len(data), 65_000):
            chunk = data[start : start + 65_000]
            await self.send(DATA, 0, stream_id, len(chunk), chunk)


class Attacker:
    """Calls one victim, from ``127.<group>.0.1``."""

    def __init__(self, address: str, group: int) -> None:
        self.target = parse(address)
        self.host = f"127.{group}.0.1"

    async def tcp(self, port: int | None = None) -> trio.SocketStream:
        """Open a socket, to the victim's port or another of its ports."""
        socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_STREAM)
        await socket.bind((self.host, 0))
        await socket.connect((self.target.host, port or self.target.port))
        return trio.SocketStream(socket)

    async def say(self, data: bytes) -> None:
        """Send bytes on a socket of their own, and read until the victim hangs up, for at most 4 s."""
        stream = await self.tcp()
        async with stream:
            with contextlib.suppress(*GONE), trio.move_on_after(4):
                await stream.send_all(data)
                await stream.send_eof()
                while await stream.receive_some():
                    pass

    @contextlib.asynccontextmanager
    async def negotiated(self) -> AsyncIterator[trio.SocketStream]:
        """Have a socket on which ``/noise`` is agreed."""
        stream = await self.tcp()
        async with stream:
            await stream.send_all(MULTISTREAM + line("/noise"))
            answer = b""
            while b"/noise\n" not in answer:
                answer += await stream.receive_some()
            yield stream

    @contextlib.asynccontextmanager
    async def noised(self, key_pair=None) -> AsyncIterator:
        """Have a connection on which Noise is done."""
        pair = key_pair or create_new_key_pair(os.urandom(32))
        noise = NoiseTransport(pair, noise_privkey=create_x25519_key_pair().private_key)
        async with self.negotiated() as stream:
            yield await noise.secure_outbound(RawConnection(TrioTCPStream(stream), True), ID.from_base58(self._id))

    @contextlib.asynccontextmanager
    async def muxed(self, key_pair=None) -> AsyncIterator[Mux]:
        """Have a connection on which yamux is agreed."""
        async with self.noised(key_pair) as secured, trio.open_nursery() as nursery:
            await secured.write(MULTISTREAM + line("/yamux/1.0.0"))
            answer = b""
            while b"/yamux/1.0.0\n" not in answer:
                answer += await secured.read(1)
            mux = Mux(secured)
            nursery.start_soon(mux.read)
            try:
                yield mux
            finally:
                nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def greeted(self) -> AsyncIterator[Mux]:
        """Have a connection on which hello is said."""
        async with self.muxed() as mux:
            number = await mux.open("hello/2")
            await mux.say(number, frame(1, encode(Hello(b""))))
            assert await mux.wait(lambda: len(mux.got[number]) >= 5)
            yield mux

    @property
    def _id(self) -> str:
        return str(self.target).rsplit("/", 1)[1]

    @property
    def victim(self) -> bytes:
        """The victim's key."""
        return key_of(self._id)
