"""Nodes that do nothing: what one with eight neighbours costs, and how soon a newcomer has joined.

    .venv/bin/python benchmarks/net_idle.py

The last line is one JSON object. ``idle_core_percent``: CPU time of a node in percent of a core, over ``IDLE_S`` after
``SETTLE_S``, the median of nine; ``idle_rss_mib``: its resident memory, likewise; ``join_s``: from the start of a
process to its first peer, interpreter and imports included, the median of five.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from depin_node.client import Mesh
from depin_node.core.errors import DepinError

NETWORK = "benchmark"
NODES = 9
JOINS = 5
SETTLE_S = 30.0
IDLE_S = 30.0
READY_S = 300.0


@contextlib.contextmanager
def running(folder: Path, name: str, *args: str):
    """Run a node as long as the block runs; yields its process, which may not be up yet."""
    command = [sys.executable, "-m", "depin_node.cli.main", "start", "--json", "--data-dir", str(folder / name)]
    command += ["--network-id", NETWORK, "--listen", "/ip4/127.0.0.1/tcp/0", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def connected(folder: Path, name: str) -> int:
    """Return with how many peers a node is connected; 0 while it is not up."""
    try:
        with Mesh(folder / name) as mesh:
            return sum(peer.connected for peer in mesh.peers())
    except DepinError:
        return 0


def until(condition, what: str) -> None:
    """Wait for something, looking fifty times a second."""
    end = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {READY_S:g} s")
        time.sleep(0.02)


def main() -> None:
    """Start the nodes, let them settle, and look."""
    with tempfile.TemporaryDirectory() as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        first = stack.enter_context(running(folder, "0"))
        address = json.loads(first.stdout.readline())["addresses"][0]
        nodes = [first]
        nodes += [stack.enter_context(running(folder, str(number), "--peer", address)) for number in range(1, NODES)]
        until(lambda: connected(folder, "0") >= NODES - 1, f"{NODES - 1} neighbours")
        time.sleep(SETTLE_S)  # what is measured is a mesh that has come to rest
        processes = [psutil.Process(node.pid) for node in nodes]
        before = [sum(process.cpu_times()[:2]) for process in processes]
        time.sleep(IDLE_S)  # over which the processor time is counted
        after = [sum(process.cpu_times()[:2]) for process in processes]
        busy = [100 * (end - start) / IDLE_S for start, end in zip(before, after, strict=True)]
        resident = [process.memory_info().rss / 2**20 for process in processes]
        joins = []
        for number in range(JOINS):
            began = time.perf_counter()
            name = f"joins{number}"
            with running(folder, name, "--peer", address) as node:
                node.stdout.readline()
                until(lambda name=name: connected(folder, name) > 0, "joining")
                joins.append(time.perf_counter() - began)
    figures = {
        "idle_core_percent": statistics.median(busy),
        "idle_rss_mib": statistics.median(resident),
        "join_s": statistics.median(joins),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
