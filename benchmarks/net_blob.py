"""Blobs between processes on loopback: how fast, by both carriers, and what leaves the requester when four fetch.

    .venv/bin/python benchmarks/net_blob.py

The last line is one JSON object; MB = 10⁶ bytes, medians of five fetches. ``blob256_mb_s``: 256 MiB by the data
channel, ``blob256_libp2p_mb_s`` by a stream: read, sent, hashed, verified and stored as providers store inputs, not
forced to disk. ``blob256_core_s``: CPU seconds of both processes for one such fetch by the data channel.
Two ratios of the stream's blob, medians of pairs that take turns. ``blob256_over_raw``: over a bare stream of the same
network that only counts bytes, with our mended libp2p on both sides: what it costs that the bytes are a blob.
``blob256_over_libp2p``: over the bare stream of py-libp2p as published at its best settings (``net_library.py``),
``raw_libp2p_mb_s``, which neither hashes nor stores: what our stream, all in all, is beside the library's.
``rpc_bulk_ms_p50``: a 100-byte request and its answer on an open stream of the same connection during such transfers.
``blob256_bound_mb_s``, ``blob256_libp2p_bound_mb_s``: what this machine could do at best, in the same run: two cores
that do nothing but the system calls and ciphers that no such transfer can do without, the best of five.
``fanout4_requester_bytes``: bytes that left the owner, over the blob's size, while four processes fetched it at once.

Before each fetch of one node, and each bare stream, a file of the blob's size is written beside it and deleted. On a
virtual machine memory that was not used for some seconds may be the host's again, and the first to touch it waits up to
a millisecond for each MiB, as long as the rest of the transfer takes and nothing that it could help. All that is part
of a transfer is measured: its file is new, and made, filled and named within the time. The folder is a temporary one
(``TMPDIR``), on a disk or in memory: nothing lies there long enough to be written back.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import structlog
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from net_bound import bound_mb_s

from depin_node.core.clock import now
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs, issue_grant
from depin_node.p2p.direct import open_direct
from depin_node.p2p.frames import ANSWER, Frame, FrameReader, exchange, send_frames
from depin_node.p2p.libp2p.host import open_libp2p

BLOB_BYTES = int(os.environ.get("BENCH_MIB", "256")) << 20
RUNS = 5
WRITE_BYTES = 1 << 20
LIBRARY = Path(__file__).with_name("net_library.py")
NETWORK = "bench"
HOLDER = bytes([1]) * 32
ASKERS = [bytes([number]) * 32 for number in range(2, 6)]


@asynccontextmanager
async def open_node(seed, folder, *, by="direct"):
    """Open a network and blobs over it."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(
            open_libp2p(seed, listen=["/ip4/127.0.0.1/tcp/0"], network_id=NETWORK)
        )
        direct = await stack.enter_async_context(open_direct(network, hosts=["127.0.0.1"])) if by == "direct" else None
        store = BlobStore(Path(folder), quota_bytes=2 * BLOB_BYTES)
        yield network, Blobs(network, store, connect=partial(connect, network), direct=direct)


ADDRESSES = {}


async def connect(network, peer):
    """Dial whoever was said to be somewhere."""
    if peer not in network.peers() and peer in ADDRESSES:
        await network.dial(ADDRESSES[peer])


async def hold(by: str) -> None:
    """Store a blob, print where it is, serve it until stdin ends, and print what left this node."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_node(HOLDER, folder, by=by) as (network, blobs):

            async def stream_raw(stream):
                """Send as many bytes as are asked for."""
                left = int.from_bytes(await stream.receive_exactly(8), "little")
                data = memoryview(bytes(WRITE_BYTES))
                while left:
                    await stream.send_all(data[: min(left, WRITE_BYTES)])
                    left -= min(left, WRITE_BYTES)

            async def echo(stream):
                """Answer every frame with its own body."""
                reader = FrameReader(stream, size_bytes_max=65_536)
                while frame := await reader.read():
                    await send_frames(stream, [Frame(ANSWER, frame.body)])

            network.serve("raw/1", stream_raw)
            network.serve("echo/1", echo)
            blob_id = await blobs.store.put(os.urandom(BLOB_BYTES))
            grants = [
                issue_grant(
                    Identity(HOLDER), NETWORK, Identity(seed).key, [blob_id], seq=1, now=now(), lifetime_s=3600
                ).hex()
                for seed in ASKERS
            ]
            print(json.dumps([network.addresses()[0], blob_id.hex(), grants]), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
            print(blobs.sent_bytes, flush=True)


async def raw_mb_s(network, peer) -> float:
    """Receive as many bytes by a bare stream; return MB/s."""
    stream = await network.open_stream(peer, "raw/1")
    began, left = time.perf_counter(), BLOB_BYTES
    await stream.send_all(BLOB_BYTES.to_bytes(8, "little"))
    while left:
        left -= len(await stream.receive_some(256 * 1024))
    took_s = time.perf_counter() - began
    await stream.aclose()
    return BLOB_BYTES / took_s / 1e6


async def library_mb_s(library: subprocess.Popen) -> float:
    """Have as many bytes go between two processes that use the library as published; return MB/s."""
    library.stdin.write(f"{BLOB_BYTES}\n")
    library.stdin.flush()
    return float(await trio.to_thread.run_sync(library.stdout.readline))


async def touch_memory(store) -> None:
    """Have as much memory at hand as a fetch takes, by a file as large; what was deleted before is gone then too."""
    path = store.folder / "touched"
    await store.in_thread(lambda: path.write_bytes(bytes(BLOB_BYTES)))
    path.unlink()


async def ask_on(network, peer, times: list[float]) -> None:
    """Ask one thing after the other until cancelled, and note how long each took."""
    stream = await network.open_stream(peer, "echo/1")
    reader = FrameReader(stream, size_bytes_max=65_536)
    while True:
        began = time.perf_counter()
        await exchange(stream, reader, bytes(100))
        times.append((time.perf_counter() - began) * 1e3)
        await trio.sleep(0.01)


async def ask(
    address: str, blob_id: bytes, grant: bytes, by: str, holder: psutil.Process, library: subprocess.Popen | None
) -> tuple[list[float], ...]:
    """Fetch the blob ``RUNS`` times; return rates, CPU seconds, ms of requests, rates of our bare stream and theirs."""
    rates, core_s, times, raw, theirs = [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        async with open_node(ASKERS[0], folder, by=by) as (network, blobs):
            peer = await network.dial(address)
            for _ in range(RUNS):
                if library:
                    await touch_memory(blobs.store)
                    theirs.append(await library_mb_s(library))
                    await touch_memory(blobs.store)
                    raw.append(await raw_mb_s(network, peer))
                await touch_memory(blobs.store)
                busy, start = cpu_s(holder), time.perf_counter()
                await blobs.fetch(blob_id, [peer], grant, size_bytes_max=BLOB_BYTES, timeout_s=120)
                rates.append(BLOB_BYTES / (time.perf_counter() - start) / 1e6)
                core_s.append(cpu_s(holder) - busy)
                blobs.store.delete(blob_id)
            async with trio.open_nursery() as nursery:
                if library:
                    nursery.start_soon(ask_on, network, peer, times)
                    for _ in range(2):
                        await blobs.fetch(blob_id, [peer], grant, size_bytes_max=BLOB_BYTES, timeout_s=120)
                        blobs.store.delete(blob_id)
                nursery.cancel_scope.cancel()
    return rates, core_s, times, raw, theirs


def cpu_s(other: psutil.Process) -> float:
    """Return the CPU seconds of this process and another."""
    times = other.cpu_times()
    if os.environ.get("BENCH_CPU"):
        mine = os.times()
        print("cpu us/ss", mine.user, mine.system, times.user, times.system, file=sys.stderr)
    return time.process_time() + times.user + times.system


async def fetch_together(number: int) -> None:
    """Be one of four: say where we are, hear where all are, fetch."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_node(ASKERS[number], folder) as (network, blobs):
            print(network.addresses()[0], flush=True)
            told = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
            for address in told["addresses"]:
                ADDRESSES[parse(address).peer] = address
            holder = await network.dial(told["holder"])
            blob_id, grant = bytes.fromhex(told["blob"]), bytes.fromhex(told["grants"][number])
            print("ready", flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
            start = time.perf_counter()
            await blobs.fetch(blob_id, [holder], grant, size_bytes_max=BLOB_BYTES, timeout_s=300)
            print(time.perf_counter() - start, flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)  # others may still want of us


def start(*arguments: str, script: str | Path = __file__) -> subprocess.Popen:
    """Start another process, of this script if no other is named."""
    command = [sys.executable, script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> str:
    """End it in order; return what it still said."""
    process.stdin.close()
    said = process.stdout.read()
    process.wait(30)
    return said


def measure(by: str) -> tuple[list[float], ...]:
    """Run holder and asker; for the stream the library's as well."""
    holder, library = start("hold", by), start("ask", script=LIBRARY) if by != "direct" else None
    address, blob_id, grants = json.loads(holder.stdout.readline())
    try:
        if library:
            library.stdout.readline()  # connected
        blob, grant = bytes.fromhex(blob_id), bytes.fromhex(grants[0])
        return trio.run(partial(ask, address, blob, grant, by, psutil.Process(holder.pid), library))
    finally:
        for process in filter(None, (holder, library)):
            end(process)


def fan_out() -> tuple[float, float]:
    """Have four processes fetch at once; return bytes that left the owner over the blob's, and seconds."""
    holder = start("hold", "direct")
    address, blob_id, grants = json.loads(holder.stdout.readline())
    askers = [start("together", str(number)) for number in range(len(ASKERS))]
    addresses = [asker.stdout.readline().strip() for asker in askers]
    told = json.dumps({"addresses": addresses, "holder": address, "blob": blob_id, "grants": grants})
    for line in (told, "go"):
        for asker in askers:
            asker.stdin.write(line + "\n")
            asker.stdin.flush()
        if line is told:
            for asker in askers:
                asker.stdout.readline()
    took_s = max(float(asker.stdout.readline()) for asker in askers)
    for asker in askers:
        end(asker)
    return int(end(holder)) / BLOB_BYTES, took_s


def main() -> None:
    """Run all and print the result."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if sys.argv[1:2] == ["hold"]:
        trio.run(hold, sys.argv[2])
        return
    if sys.argv[1:2] == ["together"]:
        trio.run(fetch_together, int(sys.argv[2]))
        return
    print("data channel, stream, four at once", file=sys.stderr, flush=True)
    direct, core_s, *_ = measure("direct")
    print(direct, core_s, file=sys.stderr, flush=True)
    stream, _, times, raw, theirs = measure("stream")
    print(stream, raw, theirs, file=sys.stderr, flush=True)
    bound = max(bound_mb_s(cipher, 1 << 18) for cipher in (AESGCM(bytes(16)), ChaCha20Poly1305(bytes(32))) * RUNS)
    libp2p_bound = max(bound_mb_s(ChaCha20Poly1305(bytes(32)), 1 << 16) for _ in range(RUNS))
    fanned_out, took_s = fan_out()
    figures = {
        "blob256_mb_s": statistics.median(direct),
        "blob256_core_s": statistics.median(core_s),
        "blob256_bound_mb_s": bound,
        "blob256_libp2p_mb_s": statistics.median(stream),
        "blob256_libp2p_bound_mb_s": libp2p_bound,
        "blob256_over_raw": statistics.median(ours / bare for ours, bare in zip(stream, raw, strict=True)),
        "raw_libp2p_mb_s": statistics.median(theirs),
        "blob256_over_libp2p": statistics.median(ours / bare for ours, bare in zip(stream, theirs, strict=True)),
        "rpc_bulk_ms_p50": statistics.median(times),
        "fanout4_requester_bytes": fanned_out,
        "fanout4_s": took_s,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
