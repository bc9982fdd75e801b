"""A small mesh of real node processes on loopback, for the demo and for ``run_all.py``.

``spawn`` starts a node, ``ready`` waits for it, ``wait_for_lenders`` until a requester is connected to all that lend.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from depin_node.client import Mesh

NETWORK = "demo"
START_S = 60.0
STOP_S = 15.0


class MeshFailed(Exception):
    """A node did not come up, or was not found."""


def spawn(folder: Path, name: str, *args: str, config: str = "") -> subprocess.Popen[str]:
    """Start a node with the data directory ``folder / name`` and the given ``config.toml``; do not wait for it."""
    data_dir = folder / name
    data_dir.mkdir(mode=0o700)
    if config:
        (data_dir / "config.toml").write_text(config)
    command = [sys.executable, "-m", "depin_node.cli.main", "start", "--json", "--data-dir", str(data_dir)]
    command += ["--network-id", NETWORK, "--listen", "/ip4/127.0.0.1/tcp/0", *args]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DEPIN_")}
    with (data_dir / "stderr").open("w") as stderr:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)


def ready(folder: Path, name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a node's ready line. Raises ``MeshFailed``."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_S)
    line = process.stdout.readline() if readable else ""
    if not line:
        raise MeshFailed(f"{name} did not start: {(folder / name / 'stderr').read_text()[-2000:]}")
    facts: dict[str, Any] = json.loads(line)
    return facts


@contextlib.contextmanager
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Give a list of processes; none of them outlives the block."""
    processes: list[subprocess.Popen[str]] = []
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_lenders(mesh: Mesh, peers: Sequence[str]) -> None:
    """Wait until the requester knows all of these lenders and is connected to them. Raises ``MeshFailed``."""
    deadline = time.monotonic() + START_S
    while True:
        known = {peer.peer for peer in mesh.peers() if peer.lending and peer.connected and peer.devices}
        if set(peers) <= known:
            return
        if time.monotonic() > deadline:
            raise MeshFailed(f"only {len(known)} of {len(peers)} lenders were found in {START_S:.0f} s")
        time.sleep(0.05)  # the control API is asked again: it has no event for this


@contextlib.contextmanager
def running(folder: Path, lenders: int) -> Iterator[Path]:
    """Start a requester and ``lenders`` that lend one slot each; give the requester's data directory.

    Raises:
        MeshFailed: one did not come up, or was not found.
    """
    with ended() as processes:
        processes.append(spawn(folder, "requester"))
        address = ready(folder, "requester", processes[0])["addresses"][0]
        names = [f"lender-{number}" for number in range(lenders)]
        for name in names:
            processes.append(spawn(folder, name, "--lend", "--slots", "1", "--peer", address))
        peers = [ready(folder, name, process)["peer"] for name, process in zip(names, processes[1:], strict=True)]
        with Mesh(folder / "requester") as mesh:
            wait_for_lenders(mesh, peers)
        yield folder / "requester"
