"""What a long job leaves in memory: ``python benchmarks/memory.py``, a requester and two lenders, tasks run by both.

Real nodes and their journals. Resident bytes of each process are read when so many tasks are done; a node allocates
caches and pools at first, so that what counts is how it grows from there on. The last line is one flat JSON object;
``…_bytes_per_task`` is the growth from the first look to the last. Each provider is read without its worker.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support")]

import wat_programs as wat  # noqa: E402
from nodes import NodeProcess, running_nodes  # noqa: E402

from depin_node.client import Limits, Mesh, quorum  # noqa: E402
from depin_node.client.work import Work  # noqa: E402
from depin_node.compute.programs.binding import Bound  # noqa: E402

LOOKS = (0.1, 0.5, 1.0)
"""At which shares of the job memory is read."""
WAIT_S = 3600.0


def resident_mb(node: NodeProcess) -> float:
    """Return what a node has resident, without its workers, in 10^6 bytes."""
    return float(psutil.Process(node.process.pid).memory_info().rss / 1e6)


def measure(nodes: list[NodeProcess], tasks: int) -> dict[str, float]:
    """Have one job done, and look at memory on the way."""
    found: dict[str, Any] = {"tasks": tasks}
    names = ["requester", *(f"provider_{number}" for number in range(1, len(nodes)))]
    n = tasks * wat.BLOCK
    began = time.monotonic()
    with Mesh(nodes[0].data_dir) as mesh:
        bound = Bound(wat.program(tasks=tasks, n=n), {0: wat.numbers(n)})
        future = mesh.submit(Work("memory", bound, quorum(2, 2), Limits(10, 128)))
        for share in LOOKS:
            while (view := future.status()).tasks_done < share * tasks:
                assert view.state in ("queued", "running", "done"), view.error
                assert time.monotonic() < began + WAIT_S
                time.sleep(0.2)  # between two looks at a process of its own
            for name, node in zip(names, nodes, strict=True):
                found[f"{name}_mb_at_{round(share * tasks)}"] = round(resident_mb(node), 1)
    found["seconds"] = round(time.monotonic() - began, 1)
    first, last = (round(share * tasks) for share in (LOOKS[0], LOOKS[-1]))
    for name in names:
        grown = (found[f"{name}_mb_at_{last}"] - found[f"{name}_mb_at_{first}"]) * 1e6
        found[f"{name}_bytes_per_task"] = round(grown / (last - first), 1)
    return found


def main() -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_nodes(Path(folder)) as started:
        found = measure(started.mesh(lenders=2), options.tasks)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
