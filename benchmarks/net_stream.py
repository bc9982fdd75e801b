"""How fast two nodes move bytes and answer requests over the network, in two processes on loopback.

    python benchmarks/net_stream.py [--mib 256] [--requests 2000]

The last line is one JSON object: ``raw_stream256_mb_s`` (MB = 10⁶ bytes, from the first byte sent to the receiver's
word that it has all), ``rpc_ms_p50`` and ``rpc_ms_p99`` (a 100-byte request and its answer on an open stream).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import trio

from depin_node.p2p.frames import ANSWER, Frame, FrameReader, exchange, send_frames
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.network import Network, Stream

NETWORK_ID = "benchmark"
SIZE_BYTES = 8  # of the announced length
WRITE_BYTES = 1 << 20


async def sink(stream: Stream) -> None:
    """Read as many bytes as the first eight announce, then say so."""
    left = int.from_bytes(await stream.receive_exactly(SIZE_BYTES), "little")
    while left:
        chunk = await stream.receive_some(min(left, WRITE_BYTES))
        if not chunk:
            return
        left -= len(chunk)
    await stream.send_all(b"k")


async def echo(stream: Stream) -> None:
    """Answer every frame with its own body."""
    reader = FrameReader(stream, size_bytes_max=65_536)
    while frame := await reader.read():
        await send_frames(stream, [Frame(ANSWER, frame.body)])


async def serve() -> None:
    """Be the receiving process: print the address, end when stdin does."""
    async with open_libp2p(b"r" * 32, network_id=NETWORK_ID) as network:
        network.serve("sink/1", sink)
        network.serve("echo/1", echo)
        print(network.addresses()[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


async def stream_mb_s(network: Network, peer: bytes, size_bytes: int) -> float:
    """Send ``size_bytes`` and return MB/s."""
    stream = await network.open_stream(peer, "sink/1")
    data = memoryview(bytes(range(256)) * (WRITE_BYTES // 256))
    begin = time.perf_counter()
    await stream.send_all(size_bytes.to_bytes(SIZE_BYTES, "little"))
    for start in range(0, size_bytes, WRITE_BYTES):
        await stream.send_all(data[: min(WRITE_BYTES, size_bytes - start)])
    await stream.receive_exactly(1)
    elapsed_s = time.perf_counter() - begin
    await stream.aclose()
    return size_bytes / 1e6 / elapsed_s


async def request_ms(network: Network, peer: bytes, count: int) -> list[float]:
    """Return the times of ``count`` requests, one after the other."""
    stream = await network.open_stream(peer, "echo/1")
    reader = FrameReader(stream, size_bytes_max=65_536)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        await exchange(stream, reader, bytes(100))
        times.append((time.perf_counter() - begin) * 1e3)
    await stream.aclose()
    return times


async def measure(address: str, size_bytes: int, requests: int) -> dict[str, float]:
    """Be the sending process."""
    async with open_libp2p(b"s" * 32, network_id=NETWORK_ID) as network:
        begin = time.perf_counter()
        peer = await network.dial(address)
        dial_ms = (time.perf_counter() - begin) * 1e3
        await request_ms(network, peer, 100)  # warm
        times = await request_ms(network, peer, requests)
        rate = statistics.median([await stream_mb_s(network, peer, size_bytes) for _ in range(3)])
    return {
        "raw_stream256_mb_s": round(rate, 1),
        "rpc_ms_p50": round(statistics.median(times), 3),
        "rpc_ms_p99": round(statistics.quantiles(times, n=100)[98], 3),
        "dial_ms": round(dial_ms, 1),
    }


def main() -> None:
    """Start the other process and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve)
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdin is not None
        assert receiver.stdout is not None
        address = receiver.stdout.readline().strip()
        figures = trio.run(measure, address, arguments.mib << 20, arguments.requests)
        receiver.stdin.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
