"""How fast tasks go through a mesh of three processes on loopback: this one is the requester node, two lend.

    python benchmarks/mesh_tasks.py

The last line is one JSON object:

- ``join_s``: from exec of a node to its entry in the requester's directory, median of three.
- ``trivial_single_ms_p50``, ``trivial_verified_ms_p50``: one job of one trivial task at a time, from submission (signed
  and journaled) to the durable result; ``verified`` is quorum(2, 2). The task is saxpy on 1,024 floats as wasm.
- ``trivial_single_per_s``, ``trivial_verified_per_s``: a job of 2,000 trivial tasks, submission to end.
- ``map64_verified_s``: Black–Scholes on 2²⁴ options in 64 shards, inputs made in the tasks, quorum(2, 2), the results
  fetched and stored by the requester; ``map64_numpy_s``: the same options priced by NumPy in one process.
- ``idle_rss_mib``: memory of an idle node that lends nothing, with two neighbours.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import trio
from options import OPTIONS, SHARDS, draw_and_price

from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.node import Node, open_node
from depin_node.client import Along, Out, RawKernel
from depin_node.client.work import Work, prepare_launch
from depin_node.compute.jobs.job import InputRef, Job, Limits, Quorum, Results
from depin_node.core.garbage import look_rarely
from depin_node.core.local import DataDir
from depin_node.core.memory import keep_freed

KERNELS = Path(__file__).resolve().parent / "kernels"
NETWORK = "benchmark"
LENDERS = 2
TASKS = 2000
LATENCY_JOBS = 200
WARM_UP_JOBS = 20
RUNS = 5


@contextlib.contextmanager
def lending(folder: Path, name: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a node for as long as the block runs; the block starts at once."""
    command = [sys.executable, "-m", "depin_node.cli.main", "start", "--json", "--data-dir", str(folder / name)]
    command += ["--network-id", NETWORK, "--listen", "/ip4/127.0.0.1/tcp/0", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def until_known(node: Node, count: int) -> None:
    """Wait until ``count`` lenders are in the directory and connected."""
    with trio.fail_after(60):
        while sum(e.is_connected and e.advert.lending for e in node.mesh.directory.peers()) < count:
            await trio.sleep(0.005)


def trivial(tasks: int, policy: Quorum, factor: float = 2.0) -> Work:
    """Return a job of trivial tasks: each computes 1,024 floats of its own. Another ``factor`` is another program."""
    n = 1024 * tasks
    kernel = RawKernel((KERNELS / "saxpy.cu").read_text(), "saxpy")
    x, y = np.arange(n, dtype=np.float32), np.ones(n, np.float32)
    args = [x, y, Out("float32", (n,), tile=(256,)), factor, n]
    return prepare_launch(kernel, (n // 256,), (256,), args, shards=tasks, verify=policy, limits=Limits(60, 128))


def black_scholes(policy: Quorum, results: Results = Results.COME, rate: float = 0.02) -> Work:
    """Return the map of 2²⁴ options, which the tasks make themselves. Another ``rate`` of interest, other prices."""
    kernel = RawKernel((KERNELS / "black_scholes.cu").read_text(), "black_scholes")
    args = [Out("float32", (OPTIONS,), tile=(256,)), rate, 0.3, OPTIONS]
    return prepare_launch(
        kernel, (OPTIONS // 256,), (256,), args,
        shards=SHARDS, verify=policy, limits=Limits(60, 256), results=results.value,
    )  # fmt: skip


async def put(node: Node, work: Work) -> Job:
    """Store the blobs of ``work``, as the control API does, and return its job."""
    store = node.requester._context.blobs.store
    program = await store.put(work.program_bytes)
    inputs = [
        InputRef(index, await store.put(array.data), array.nbytes) for index, array in sorted(work.bound.inputs.items())
    ]
    return Job(
        "", work.name, program, len(work.program_bytes), tuple(inputs), work.bound.program.tasks, ("wasm-1",),
        work.policy, work.limits, int(time.time()), work.results,
    )  # fmt: skip


async def run(node: Node, job: Job) -> float:
    """Run ``job`` once more, under a new key, and return its seconds from submission to durable end."""
    from msgspec.structs import replace

    begin = time.perf_counter()
    view = await node.requester.submit(replace(job, key=os.urandom(16).hex()))
    view = await node.requester.wait(bytes.fromhex(view.id))
    elapsed_s = time.perf_counter() - begin
    if view.state != "done":
        raise SystemExit(f"a job did not end well: {view}")
    return elapsed_s


async def latency_ms(node: Node, policy: Quorum, jobs: int = WARM_UP_JOBS + LATENCY_JOBS) -> float:
    """Return the median of jobs of one trivial task, one after the other; the first do not count."""
    job = await put(node, trivial(1, policy))
    times = [await run(node, job) for _ in range(jobs)]
    return 1e3 * statistics.median(times[jobs // 10 :])


async def other_program_ms(node: Node, policy: Quorum, jobs: int = WARM_UP_JOBS + LATENCY_JOBS) -> float:
    """Return the median of jobs of one trivial task whose program nobody has seen, from its bytes to its end."""
    times = []
    for _ in range(jobs):
        factor = float(int.from_bytes(os.urandom(3), "big"))
        begin = time.perf_counter()
        await run(node, await put(node, trivial(1, policy, factor)))
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times[jobs // 10 :])


async def per_s(node: Node, policy: Quorum) -> float:
    """Return the median rate of jobs of 2,000 trivial tasks."""
    job = await put(node, trivial(TASKS, policy))
    times = [await run(node, job) for _ in range(1 + RUNS)]
    return TASKS / statistics.median(times[1:])


def shipped(arrays: Sequence[Any], policy: Quorum) -> Work:
    """Return the same map over options that are sent: spot, strike and years, of which each task is given its own."""
    kernel = RawKernel((KERNELS / "black_scholes_shipped.cu").read_text(), "black_scholes")
    args = [*arrays, Out("float32", (OPTIONS,)), 0.02, 0.3, "shard.rows"]
    return prepare_launch(
        kernel, "ceil(shard.rows / 256)", 256, args,
        shards=SHARDS, along=Along(0), verify=policy, limits=Limits(60, 512),
    )  # fmt: skip


def numpy_black_scholes_s() -> float:
    """Price as many options with NumPy, in one process; return the seconds."""
    begin = time.perf_counter()
    for shard in range(SHARDS):
        draw_and_price(shard)
    return time.perf_counter() - begin


async def join_s(folder: Path, node: Node, address: str) -> float:
    """Return the median time from exec of a lender to its entry in the directory."""
    times = []
    for number in range(3):
        begin = time.perf_counter()
        with lending(folder, f"join-{number}", "--lend", "--slots", "1", "--peer", address):
            await until_known(node, LENDERS + 1)
            times.append(time.perf_counter() - begin)
        with trio.fail_after(60):
            while sum(entry.is_connected for entry in node.mesh.directory.peers()) > LENDERS:
                await trio.sleep(0.02)
    return statistics.median(times)


@contextlib.asynccontextmanager
async def open_mesh(folder: Path) -> AsyncIterator[Node]:
    """Open the requester node, with two lenders of one slot each, in processes of their own."""
    config = NodeConfig(network_id=NETWORK, listen="/ip4/127.0.0.1/tcp/0", log_level="error")
    keep_freed()  # and below look_rarely(): as in a process of its own (bootstrap/process.py)
    async with open_node(config, DataDir(folder / "requester")) as node:
        (address,) = node.status().addresses
        with contextlib.ExitStack() as stack:
            for number in range(LENDERS):
                lend = ("--lend", "--slots", "1", "--peer", address)
                stack.enter_context(lending(folder, f"lender-{number}", *lend))
            await until_known(node, LENDERS)
            look_rarely()
            yield node


async def measure(only: str) -> dict[str, float]:
    """Run all that ``only`` does not exclude."""
    single, verified = Quorum(1, 1), Quorum(2, 2)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="depin-bench-") as name:
        folder = Path(name)
        async with open_mesh(folder) as node:
            (address,) = node.status().addresses
            steps = {
                "trivial_single_ms_p50": lambda: latency_ms(node, single),
                "trivial_verified_ms_p50": lambda: latency_ms(node, verified),
                "trivial_single_per_s": lambda: per_s(node, single),
                "trivial_verified_per_s": lambda: per_s(node, verified),
                "map64_verified_s": lambda: map64_s(node, verified),
                "join_s": lambda: join_s(folder, node, address),
                "idle_rss_mib": lambda: idle_rss_mib(folder, address),
            }
            for key, step in steps.items():
                if only in key:
                    found[key] = await step()
                    print(f"{key}: {found[key]:.4g}", file=sys.stderr, flush=True)
                    if key == "map64_verified_s":
                        found["map64_numpy_s"] = statistics.median(numpy_black_scholes_s() for _ in range(3))
    return found


async def map64_s(node: Node, policy: Quorum) -> float:
    """Return the median time of the map of 2²⁴ options, results fetched."""
    job = await put(node, black_scholes(policy))
    times = [await run(node, job) for _ in range(1 + RUNS)]
    return statistics.median(times[1:])


async def idle_rss_mib(folder: Path, address: str) -> float:
    """Return the memory of a node that does nothing, ten seconds after it has joined."""
    with lending(folder, "idle", "--peer", address) as process:
        await trio.sleep(10)
        return psutil.Process(process.pid).memory_info().rss / (1 << 20)


def main() -> None:
    """Print the figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a time-out ends the lenders too
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="measure what has this in its name")
    figures = trio.run(measure, parser.parse_args().only)
    print(json.dumps({key: round(value, 4 if value < 10 else 1) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
