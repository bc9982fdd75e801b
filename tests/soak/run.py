"""``make soak``: a mesh at work for long, while nodes come, go, are killed and frozen, and strangers talk rubbish.

    python tests/soak/run.py [--seconds 1200] [--nodes 5] [--seed N]

Two nodes are left alone: the requester, and one lender. Their memory, tasks and descriptors are written down every few
seconds; the last line is one JSON object with the figures, and the exit code 1 if something grew or a result was wrong.
"""

import argparse
import contextlib
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

import numpy as np  # noqa: E402
import wat_programs as wat  # noqa: E402

from depin_node.client import Limits, Mesh, quorum  # noqa: E402
from depin_node.client.work import Work  # noqa: E402
from depin_node.compute.programs.binding import Bound  # noqa: E402
from depin_node.core.errors import DepinError  # noqa: E402

RUBBISH = (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000, b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\xaa" * 300, b"")
TASKS = 16
GROWTH_MAX = {"rss_mib": (1.10, 12.0), "tasks": (1.0, 25.0), "descriptors": (1.0, 15.0), "threads": (1.0, 8.0)}
"""Of each figure: the factor, and what may come on top, from the second quarter of the time to the last."""


class Node:
    """One node process."""

    def __init__(self, folder: Path, number: int, first: str) -> None:
        self.folder, self.first, self.listen = folder / f"node-{number}", first, "/ip4/127.0.0.1/tcp/0"
        self.folder.mkdir(mode=0o700)
        self.lend = "lend" if first != "-" else "-"
        self.asking = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Start the process and wait until it is up; it keeps its port."""
        command = [sys.executable, HERE / "node.py", self.folder / "data", self.first, self.lend, self.listen]
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "stderr", "ab"),  # noqa: SIM115 - the process has it
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError((self.folder / "stderr").read_text()[-2000:])
        self.address = json.loads(line)["address"]
        self.listen = self.address.partition("/p2p/")[0]

    def figures(self) -> dict[str, float]:
        """Ask how it is."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.asking:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            shown: dict[str, float] = json.loads(self.process.stdout.readline())
            return shown

    def end(self, *, orderly: bool) -> None:
        """End the process."""
        if orderly and self.process.stdin is not None:
            self.process.stdin.close()
        else:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()


class Soak:
    """The mesh, its work and its troubles."""

    def __init__(self, folder: Path, nodes: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counts = dict.fromkeys(("killed", "left", "frozen", "rubbish", "jobs", "wrong", "failed", "blobs"), 0)
        requester = Node(folder, 0, "-")
        self.nodes = [requester, *(Node(folder, n, requester.address) for n in range(1, nodes))]
        self.steady = {"requester": requester, "lender": self.nodes[1]}
        self.samples: dict[str, list[dict[str, float]]] = {name: [] for name in self.steady}
        self.over = threading.Event()
        self.error = ""

    def run(self, seconds: float) -> dict[str, Any]:
        """Go on for so long; return the figures."""
        parts = [threading.Thread(target=self._guarded, args=(part,)) for part in (self._work, self._trouble)]
        for part in parts:
            part.start()
        begin = time.monotonic()
        while time.monotonic() - begin < seconds and not self.error:
            self.over.wait(min(5.0, seconds / 30))
            for name, node in self.steady.items():
                self.samples[name].append(node.figures())
        self.over.set()
        for part in parts:
            part.join(120)
        for node in self.nodes:
            node.end(orderly=True)
        return {"seconds": round(time.monotonic() - begin), **self.counts, **self._growth(), "error": self.error}

    def _guarded(self, part: Any) -> None:
        try:
            part()
        except Exception as error:  # raised again; the other threads have to end too
            self.error = f"{type(error).__name__}: {error}"
            self.over.set()
            raise

    def _work(self) -> None:
        """Submit one job after the other, each with an input of its own, and look at the results."""
        n = TASKS * wat.BLOCK
        with Mesh(self.nodes[0].folder / "data") as mesh:
            while not self.over.is_set():
                number = self.counts["jobs"] + self.counts["failed"]
                given = wat.numbers(n) + np.float32(number % 1000)
                reference = mesh.put(given)
                self.counts["blobs"] += 1
                bound = Bound(wat.program(tasks=TASKS, n=n), {0: given})
                try:
                    result = mesh.submit(Work(f"soak-{number}", bound, quorum(1, 1), Limits(10, 128))).result(60)
                except (DepinError, TimeoutError):  # every lender may be gone or frozen for a while
                    self.counts["failed"] += 1
                    continue
                self.counts["jobs"] += 1
                self.counts["wrong"] += not np.array_equal(result, given)
                self.counts["wrong"] += not np.array_equal(mesh.get(reference), given)

    def _trouble(self) -> None:
        """Kill, stop, freeze and bother nodes; the steady ones are only bothered."""
        while not self.over.wait(self.chance.uniform(0.5, 3.0)):
            node = self.chance.choice(self.nodes[2:])
            match self.chance.randrange(5):
                case 0 | 1:
                    orderly = self.chance.random() < 0.5
                    node.end(orderly=orderly)
                    self.counts["left" if orderly else "killed"] += 1
                    self.over.wait(self.chance.uniform(0, 4))
                    node.begin()
                case 2:
                    node.process.send_signal(signal.SIGSTOP)
                    self.counts["frozen"] += 1
                    self.over.wait(self.chance.choice((1.0, 4.0, 12.0)))
                    node.process.send_signal(signal.SIGCONT)
                case _:
                    self._rubbish(self.chance.choice(list(self.steady.values())))

    def _rubbish(self, node: Node) -> None:
        port = int(node.listen.rsplit("/", 1)[1])
        for _ in range(5):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as stranger:
                stranger.sendall(self.chance.choice(RUBBISH))
                self.counts["rubbish"] += 1

    def _growth(self) -> dict[str, Any]:
        """Compare the second quarter of the samples with the last: the first is for warming up."""
        shown: dict[str, Any] = {"grew": []}
        for name, samples in self.samples.items():
            quarter = max(1, len(samples) // 4)
            for figure, (factor, more) in GROWTH_MAX.items():
                early = statistics.median(sample[figure] for sample in samples[quarter : 2 * quarter] or samples)
                late = statistics.median(sample[figure] for sample in samples[-quarter:])
                shown[f"{name}_{figure}"] = [early, late]
                if late > early * factor + more:
                    shown["grew"].append(f"{name}_{figure}")
        return shown


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="depin-soak-") as folder:
        soak = Soak(Path(folder), options.nodes, options.seed)
        try:
            figures = soak.run(options.seconds)
        finally:
            for node in soak.nodes:
                node.process.kill()
    fine = not (figures["grew"] or figures["error"] or figures["wrong"]) and figures["jobs"] > 0
    print(json.dumps({"soak": "ok" if fine else "failed", "seed": options.seed, **figures}))
    sys.exit(not fine)


if __name__ == "__main__":
    main()
