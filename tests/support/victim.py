"""A node in a process of its own, for the attacker's tests: it serves what a node serves, and tells how it is.

python victim.py FOLDER     prints its address, then ends with its stdin; ``stats/1`` answers with JSON
"""

import gc
import json
import logging
import os
import sys
from pathlib import Path

import psutil
import structlog
import trio

from depin_node.crypto.identity import Identity
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.direct import DirectLimits, open_direct
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import open_mesh
from depin_node.p2p.network import NetworkLimits, Stream
from depin_node.p2p.reach.service import ReachSettings, open_reach

SEED = b"v" * 32
LIMITS = NetworkLimits(
    dial_timeout_s=2.0,
    open_timeout_s=1.0,
    stall_timeout_s=2.0,
    dead_after_s=4.0,
    handshakes_max=32,
    handshakes_per_group_max=8,
    buffered_bytes_max=24 << 20,
    buffered_per_group_bytes_max=12 << 20,
    exempt_loopback=False,  # 127.N.0.0/16 is a group of its own for each N
)


def tasks_of(task: trio.lowlevel.Task) -> int:
    """Count a task and all below it."""
    return 1 + sum(tasks_of(child) for nursery in task.child_nurseries for child in nursery.child_tasks)


async def echo(stream: Stream) -> None:
    """Send everything back."""
    while data := await stream.receive_some():
        await stream.send_all(data)


async def sleep(stream: Stream) -> None:
    """Never read."""
    await trio.sleep(4)


async def main(folder: Path) -> None:
    """Serve until stdin ends."""
    process = psutil.Process()
    root = trio.lowlevel.current_root_task()
    assert root is not None
    async with (
        open_libp2p(SEED, network_id="test", limits=LIMITS) as network,
        open_mesh(network, Identity(SEED)) as mesh,
        open_reach(network, advertise=mesh.set_addresses, settings=ReachSettings(relay_always=True)),
        open_direct(network, hosts=["127.0.0.1"], limits=DirectLimits(handshake_timeout_s=1.0)) as direct,
    ):
        store = BlobStore(folder, quota_bytes=1 << 24)
        blobs = Blobs(network, store, connect=mesh.connect, report=mesh.report, direct=direct)
        assert blobs is not None

        async def stats(stream: Stream) -> None:
            gc.collect()
            shown = {
                "rss_mib": process.memory_info().rss / (1 << 20),
                "tasks": tasks_of(root),
                "descriptors": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
                "peers": len(network.peers()),
                "connections": len(network._swarm.get_connections()),  # type: ignore[attr-defined]
                "counters": dict(network.counters()),
            }
            await stream.send_all(json.dumps(shown).encode())

        network.serve("echo/1", echo)
        network.serve("sleep/1", sleep)
        network.serve("stats/1", stats)
        print(network.addresses()[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main, Path(sys.argv[1]))
