"""Frames against every way a stream can cut them, and sizes that lie."""

import itertools
import random
import time

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.p2p.frames import Frame, FrameReader, exchange, send_frames, serve_requests
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.network import Network, NetworkLimits


class Pieces:
    """A stream that hands out given pieces, however much is asked for."""

    peer = bytes(32)
    protocol = "test/1"

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.sent: list[bytes] = []

    async def receive_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        if len(piece) > len(buffer):
            self.pieces.insert(0, piece[len(buffer) :])
        buffer[: len(piece)] = piece[: len(buffer)]
        return min(len(piece), len(buffer))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(bytes(data))


BULK = 7


async def read_all(pieces: list[bytes], size_bytes_max: int = 1000) -> list[Frame]:
    """Read all frames, those of a kind as bulk."""
    frames: list[Frame] = []
    bulk = {BULK: lambda body: frames.append(Frame(BULK, bytes(body)))}
    reader = FrameReader(Pieces(pieces), size_bytes_max=size_bytes_max, bulk=bulk)  # type: ignore[arg-type]
    while frame := await reader.read():
        frames.append(frame)
    return frames


@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from((0, BULK, 255)),
            st.one_of(st.binary(max_size=300), st.integers(0, 60_000).map(lambda n: random.Random(n).randbytes(n))),
        ).map(lambda f: Frame(*f)),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 300_000), max_size=12),
)
@settings(max_examples=100, deadline=None)
def test_frames_survive_any_cutting(frames: list[Frame], cuts: list[int]) -> None:
    async def run() -> None:
        out = Pieces([])
        await send_frames(out, frames)  # type: ignore[arg-type]
        data = b"".join(out.sent)
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        assert await read_all([data[a:b] for a, b in itertools.pairwise(edges)], 60_000) == frames

    trio.run(run)


async def test_the_bytes_of_a_frame_are_pinned() -> None:
    out = Pieces([])
    await send_frames(out, [Frame(7, b"abc"), Frame(255, b"")])  # type: ignore[arg-type]
    assert out.sent == [b"\x03\0\0\0\x07abc\0\0\0\0\xff"]  # both in one write


async def test_large_frames_leave_in_writes_of_their_own() -> None:
    out = Pieces([])
    frames = [Frame(1, bytes(200_000)) for _ in range(5)]
    await send_frames(out, frames)  # type: ignore[arg-type]
    assert len(out.sent) == 3
    assert await read_all(out.sent, size_bytes_max=200_000) == frames


@pytest.mark.parametrize("size_bytes", [1001, 2**31, 2**32 - 1])
async def test_a_frame_that_is_too_long_is_a_violation_at_once(size_bytes: int) -> None:
    with pytest.raises(PeerViolation, match=f"{size_bytes} bytes, more than the 1000 allowed"):
        await read_all([size_bytes.to_bytes(4, "little") + b"\x01"])


@pytest.mark.parametrize("data", [b"\x01", b"\x01\0\0\0", b"\x01\0\0\0\x05", b"\x02\0\0\0\x05a"])
async def test_an_end_inside_a_frame_is_an_error(data: bytes) -> None:
    with pytest.raises(TransportError, match="ended inside a frame"):
        await read_all([data])


async def test_a_cancelled_read_loses_nothing() -> None:
    send, receive = trio.open_memory_channel[bytes](10)

    class Slow(Pieces):
        async def receive_into(self, buffer: memoryview) -> int:
            piece = await receive.receive()
            buffer[: len(piece)] = piece
            return len(piece)

    reader = FrameReader(Slow([]), size_bytes_max=10)  # type: ignore[arg-type]
    for piece in (b"\x03\0", b"\0\0\x07a", b"b"):
        send.send_nowait(piece)
        with trio.move_on_after(0.01):
            await reader.read()
    send.send_nowait(b"c")
    assert await reader.read() == (7, b"abc")


async def test_who_asks_too_often_has_to_wait_and_others_do_not() -> None:
    fabric, limits = MemoryFabric(), NetworkLimits(requests_per_s=20.0)

    async def handler(peer: bytes, body: bytes) -> bytes:
        return body

    async def ask(network: Network, peer: bytes, count: int) -> float:
        begin = time.monotonic()
        stream = await network.open_stream(peer, "echo/1")
        reader = FrameReader(stream, size_bytes_max=100)
        for _ in range(count):
            assert await exchange(stream, reader, b"x") == b"x"
        return time.monotonic() - begin

    async with (
        fabric.open(bytes([1]) * 32, limits=limits) as server,
        fabric.open(bytes([2]) * 32) as greedy,
        fabric.open(bytes([3]) * 32) as modest,
    ):
        serve_requests(server, "echo/1", handler, size_bytes_max=100, timeout_s=10)
        await greedy.dial(server.addresses()[0])
        await modest.dial(server.addresses()[0])
        assert await ask(greedy, server.key, 100) >= 0.9  # 80 at once, then 20 a second
        with trio.fail_after(5):
            await ask(modest, server.key, 10)
