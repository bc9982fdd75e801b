"""Fetch a 256 MiB blob from another process over libp2p on loopback: hashed, verified and stored at both ends.

    .venv/bin/python benchmarks/net_blob.py

prints one JSON object, ``{"blob256_mb_s": …}``: the median of five fetches, MB = 10⁶ bytes. Blobs are stored as
providers store inputs: verified and moved into place, not forced to disk.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from depin_node.core.clock import now
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs, issue_grant
from depin_node.p2p.libp2p.host import open_libp2p

BLOB_BYTES = 256 << 20
RUNS = 5
NETWORK = "bench"
SEEDS = {"holder": bytes([1]) * 32, "asker": bytes([2]) * 32}


def open_network(name: str):
    """Open the node called ``name``."""
    return open_libp2p(SEEDS[name], listen=["/ip4/127.0.0.1/tcp/0"], network_id=NETWORK)


async def hold() -> None:
    """Store a blob, print where it is, and serve it until stdin ends."""
    asker = Identity(SEEDS["asker"]).key
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder), quota_bytes=2 * BLOB_BYTES)
        async with open_network("holder") as network:
            Blobs(network, store)
            blob_id = await store.put(os.urandom(BLOB_BYTES))
            grant = issue_grant(Identity(SEEDS["holder"]), NETWORK, asker, [blob_id], seq=1, now=now(), lifetime_s=600)
            print(json.dumps([network.addresses()[0], blob_id.hex(), grant.hex()]), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)


async def ask(address: str, blob_id: bytes, grant: bytes) -> float:
    """Fetch the blob ``RUNS`` times; return the median rate in MB/s."""
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder), quota_bytes=2 * BLOB_BYTES)
        async with open_network("asker") as network:
            blobs = Blobs(network, store)
            await network.dial(address)
            for _ in range(RUNS):
                start = time.perf_counter()
                await blobs.fetch(blob_id, [parse(address).peer], grant, size_bytes_max=BLOB_BYTES, timeout_s=120)
                rates.append(BLOB_BYTES / (time.perf_counter() - start) / 1e6)
                store.delete(blob_id)
    return statistics.median(rates)


def main() -> None:
    """Run both processes and print the result."""
    if sys.argv[1:] == ["hold"]:
        trio.run(hold)
        return
    holder = subprocess.Popen(
        [sys.executable, __file__, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        address, blob_id, grant = json.loads(holder.stdout.readline())
        rate = trio.run(partial(ask, address, bytes.fromhex(blob_id), bytes.fromhex(grant)))
    finally:
        holder.stdin.close()
        holder.wait(30)
    print(json.dumps({"blob256_mb_s": round(rate, 1)}))


if __name__ == "__main__":
    main()
