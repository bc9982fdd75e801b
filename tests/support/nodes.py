"""Real node processes on loopback for tests: started with free ports, awaited by their ready line, ended for sure."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

START_S = 180.0
STOP_S = 30.0


def depin_node(*args: object, env: dict[str, str] | None = None, timeout_s: float = 120.0, **options: Any):
    """Run ``depin-node ARGS`` to its end and return the completed process, output as text."""
    return subprocess.run(
        command(*args), env=environment(env), capture_output=True, text=True, timeout=timeout_s, **options
    )


def command(*args: object) -> list[str]:
    """Return the argument list of ``depin-node ARGS`` with this interpreter."""
    return [sys.executable, "-c", "from depin_node.cli.main import main; main()", *map(str, args)]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return our environment without what configures a node, and with ``extra``."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DEPIN_")} | (extra or {})


@dataclass
class NodeProcess:
    """A running node. ``ready`` is its ready line."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    stderr: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where others join it."""
        return self.ready["addresses"][0]

    @property
    def peer(self) -> str:
        """Its peer id."""
        return self.ready["peer"]

    def log(self) -> str:
        """Return what it logged to its file."""
        file = self.data_dir / "logs" / "node.log"
        return file.read_text() if file.exists() else ""

    def wait_ready(self) -> "NodeProcess":
        """Wait for the ready line; fail with stderr if the process ends without one."""
        line = _first_line(self.process, START_S)
        if not line:
            self.kill()
            raise AssertionError(f"the node did not start: {self.stderr.read_text()}")
        self.ready = json.loads(line)
        return self

    def run(self, *args: object, **options: Any):
        """Run a command against this node."""
        return depin_node(*args, "--data-dir", self.data_dir, **options)

    def json(self, *args: object) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it in order and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)


class Nodes:
    """Starts nodes, each in a folder of its own, and ends all that still run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[NodeProcess] = []

    def spawn(
        self,
        *args: object,
        listen: str | None = "/ip4/127.0.0.1/tcp/0",
        data_dir: Path | None = None,
        env: dict[str, str] | None = None,
        lie: str | None = None,
    ) -> NodeProcess:
        """Start ``depin-node start`` without waiting for it. With ``listen=None`` ``args`` must say where it listens:
        by default that is every interface, and no test may talk beyond this machine. ``lie``: see ``lying_node.py``.
        """
        assert listen or "--listen" in args
        home = self.folder / f"node-{len(self.started)}"
        home.mkdir(mode=0o700)
        data_dir = data_dir or home / "data"
        listening = ("--listen", listen) if listen else ()
        line = command("start", "--json", "--data-dir", data_dir, *listening, *args)
        if lie is not None:
            line = [sys.executable, str(Path(__file__).with_name("lying_node.py")), lie, *line[3:]]
        with open(home / "stderr", "wb") as stderr:
            process = subprocess.Popen(
                line,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(env),
            )
        node = NodeProcess(process, data_dir, home / "stderr")
        self.started.append(node)
        return node

    def start(self, *args: object, **options: Any) -> NodeProcess:
        """Start a node and wait until it is up."""
        return self.spawn(*args, **options).wait_ready()

    def mesh(self, lenders: int, *args: object) -> list[NodeProcess]:
        """Start a node that lends nothing and ``lenders`` that join it and lend one slot each; ``args`` go to all."""
        first = self.start(*args)
        lending = [self.spawn("--lend", "--slots", 1, "--peer", first.address, *args) for _ in range(lenders)]
        return [first, *(node.wait_ready() for node in lending)]


@contextlib.contextmanager
def running_nodes(folder: Path) -> Iterator[Nodes]:
    """Give a ``Nodes``; afterwards nothing that it started runs, and no worker of theirs either."""
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        for node in nodes.started:
            node.kill()
            node.process.stdout.close()
    left = workers_left({node.process.pid for node in nodes.started})
    for worker in left:
        worker.kill()
    assert not left, f"workers outlive their nodes: {left}"


def workers_left(nodes: set[int]) -> list[psutil.Process]:
    """Return the workers that are still there when the nodes with these process ids have ended: after a while, none."""
    words = tuple(f'{{"parent": {pid},' for pid in nodes)
    workers = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[-1].startswith(words)]
    return psutil.wait_procs(workers, timeout=STOP_S)[1]


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=timeout_s)
    except queue.Empty:
        return b""
