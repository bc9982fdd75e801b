"""``make bench-mesh``: the mesh beside Ray and Dask, on this machine, in one run, in turn.

Three systems wait side by side, each with two workers of one core: ours (a requester node in this process, two lenders
in sandboxed processes of their own, everything signed, journaled and durable), Ray and Dask (``mesh_others.py``, in a
venv of their own; unverified). Each figure is measured ``ROUNDS`` times after a round that does not count, the systems
one after the other in every round; what is printed are medians, and on stderr the medians of the ratios of the rounds.

    trivial_*_ms_p50    one task at a time, saxpy on 1,024 floats, start to result; single: quorum(1, 1), verified:
                        quorum(2, 2)
    trivial_other_program_ms_p50   ours, single, with other numbers in the program each time, so that no lender has it
    trivial_*_per_s     2,000 of them at once
    map64_verified_s    64 tasks price 2²⁴ options that they make themselves, by two each; results stay where they are,
                        as references, with all three; map64_numpy_s: one process that prices as many. Ours prices at
                        another rate of interest each time: another program, and no result is in a store already
    map64_shipped_s     the options are sent (192 MiB, new ones each time) and the prices come back; ours by two as well
    map64_single_s, map64_shipped_single_s    ours with one run of each task, as the others do it
    scheduler_events_per_s   the scheduler machine alone, in processor time: 20,000 tasks, quorum(2, 3), 8 providers
    providers_N_us_per_task  the same for N providers in simulation

Before each of the maps, of whichever system, a file is written and deleted that is as large as all that ours takes when
the options are sent: the options three times (requester and both lenders store them), the prices three times. On a
virtual machine memory that was not used for some seconds may be the host's again, and the first to touch it waits up to
two milliseconds for each MiB: longer than the whole job takes, and nothing that either system could help. All that is
part of a job is measured: its files are new, and made, filled and named within the time.

What Ray or Dask would take is null where they cannot be installed. The last line is one flat JSON object.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import mesh_tasks as ours
import trio
from options import OPTIONS, SHARD, draw

from depin_node.bootstrap.node import Node
from depin_node.compute.jobs.job import Quorum, Results

HERE = Path(__file__).resolve().parent
OTHERS = HERE.parent / "build" / "mesh-others" / "bin" / "python"
ROUNDS, LATENCY_JOBS, SIMULATED_TASKS = 5, 100, 20_000
SINGLE, VERIFIED = Quorum(1, 1), Quorum(2, 2)
RATIOS = (
    ("trivial_single_per_s", "ray_trivial_per_s"),
    ("trivial_verified_per_s", "ray_trivial_per_s"),
    ("trivial_verified_per_s", "dask_trivial_per_s"),
    ("map64_single_s", "map64_ray_s"),
    ("map64_verified_s", "map64_ray_s"),
    ("map64_verified_s", "map64_dask_s"),
    ("map64_verified_s", "map64_numpy_s"),
    ("map64_shipped_single_s", "map64_shipped_dask_s"),
    ("map64_shipped_s", "map64_shipped_dask_s"),
)
TOUCHED_BYTES = 3 * (3 + 1) * 4 * OPTIONS
"""What a map whose options are sent takes: three arrays and one of results, float32, in three places."""
Step = Callable[[], Awaitable[float]]


class Other:
    """Ray or Dask in its process."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self._process = subprocess.Popen(
            [OTHERS, HERE / "mesh_others.py", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        stack.callback(self._close)
        if self._answer() != "ready":
            raise SystemExit(f"{name} does not start: {OTHERS} {HERE / 'mesh_others.py'} {name} tells why")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _ask(self, figure: str) -> float:
        assert self._process.stdin is not None
        print(figure, file=self._process.stdin, flush=True)
        return float(self._answer() or "nan")

    def step(self, figure: str) -> Step:
        """Return how a figure is measured once."""
        return lambda: trio.to_thread.run_sync(self._ask, figure)


class Shipped:
    """The map whose options travel: new ones for every job."""

    def __init__(self, node: Node) -> None:
        self._node, self._arrays, self._rounds = node, draw(0, OPTIONS), 0

    async def measure(self, policy: Quorum) -> float:
        """Return the seconds from arrays in memory to prices that are stored."""
        self._rounds += 1
        for array in self._arrays:
            array[::SHARD] = 20 + self._rounds  # nothing is known from the last round
        work = ours.shipped(self._arrays, policy)
        begin = time.perf_counter()
        await ours.run(self._node, await ours.put(self._node, work))
        return time.perf_counter() - begin


def touch_memory(folder: Path) -> None:
    """Have memory at hand: see the module."""
    path, piece = folder / "touched", bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(0, TOUCHED_BYTES, len(piece)):
            file.write(piece)
    path.unlink()


def with_memory(folder: Path, step: Step) -> Step:
    """Return a step that begins with memory at hand."""

    async def run() -> float:
        await trio.to_thread.run_sync(touch_memory, folder)
        return await step()

    return run


def steps_of(node: Node, folder: Path, ray: Other | None, dask: Other | None) -> list[dict[str, Step]]:
    """Return what is measured: figures that belong together, each by its name."""

    def latency(policy: Quorum) -> Step:
        return lambda: ours.latency_ms(node, policy, LATENCY_JOBS)

    async def rate(policy: Quorum) -> float:
        return ours.TASKS / await ours.run(node, await ours.put(node, ours.trivial(ours.TASKS, policy)))

    async def map64(policy: Quorum) -> float:
        work = ours.black_scholes(policy, Results.STAY, next(rates))
        return await ours.run(node, await ours.put(node, work))

    ship, rates = Shipped(node).measure, iter(0.02 + number / 10_000 for number in range(1000))
    groups: list[dict[str, Step]] = [
        {
            "trivial_single_ms_p50": latency(SINGLE),
            "trivial_verified_ms_p50": latency(VERIFIED),
            "trivial_other_program_ms_p50": lambda: ours.other_program_ms(node, SINGLE, LATENCY_JOBS),
        },
        {"trivial_single_per_s": lambda: rate(SINGLE), "trivial_verified_per_s": lambda: rate(VERIFIED)},
        {"map64_single_s": lambda: map64(SINGLE), "map64_verified_s": lambda: map64(VERIFIED)},
        {"map64_shipped_single_s": lambda: ship(SINGLE), "map64_shipped_s": lambda: ship(VERIFIED)},
    ]
    for other, name in ((ray, "ray"), (dask, "dask")):
        if other is not None:
            groups[0][f"{name}_trivial_ms_p50"] = other.step("trivial_ms_p50")
            groups[1][f"{name}_trivial_per_s"] = other.step("trivial_per_s")
            groups[2][f"map64_{name}_s"] = other.step("map64_s")
    if dask is not None:  # Ray's workers map the caller's memory: nothing travels
        groups[3]["map64_shipped_dask_s"] = dask.step("map64_shipped_s")
    groups[2]["map64_numpy_s"] = lambda: trio.to_thread.run_sync(ours.numpy_black_scholes_s)
    return groups[:2] + [{key: with_memory(folder, step) for key, step in group.items()} for group in groups[2:]]


async def measure(only: str, rounds: int) -> dict[str, list[float]]:
    """Return every round's figures, but those of the first round."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="depin-bench-") as folder, ExitStack() as stack:
        ray, dask = (Other(name, stack) if OTHERS.exists() else None for name in ("ray", "dask"))
        async with ours.open_mesh(Path(folder)) as node:
            for group in steps_of(node, Path(folder), ray, dask):
                steps = {key: step for key, step in group.items() if only in key}
                for number in range(1 + rounds):
                    for key, step in steps.items():
                        value = await step()
                        if number:
                            found.setdefault(key, []).append(value)
                for key in steps:
                    print(f"{key:>26} {_show(found[key])}", file=sys.stderr, flush=True)
    return found


def simulate() -> dict[str, float]:
    """Return the figures of the scheduler machine, from providers that answer at once."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from instant_mesh import InstantMesh

    found: dict[str, float] = {}
    for providers in (8, 10, 100, 1000):
        mesh = InstantMesh(providers=providers)
        mesh.submit(SIMULATED_TASKS, Quorum(2, 3))
        begin = time.process_time()
        mesh.run()
        elapsed_s = time.process_time() - begin
        if [ended.state for ended in mesh.ended.values()] != ["done"]:
            raise SystemExit("the simulated job did not end well")
        if providers == 8:
            found["scheduler_events_per_s"] = mesh.events / elapsed_s
        else:
            found[f"providers_{providers}_us_per_task"] = 1e6 * elapsed_s / SIMULATED_TASKS
    return found


def _show(values: list[float]) -> str:
    return f"{statistics.median(values):10.4g}   ({min(values):.4g} to {max(values):.4g})"


def main() -> None:
    """Print the figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a time-out ends the other processes too
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="measure what has this in its name")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    rounds = trio.run(measure, options.only, options.rounds)
    figures: dict[str, float | None] = {key: statistics.median(values) for key, values in rounds.items()}
    for key in (below for _, below in RATIOS):
        if options.only in key:
            figures.setdefault(key, None)
    for above, below in RATIOS:
        if above in rounds and below in rounds:
            ratios = [a / b for a, b in zip(rounds[above], rounds[below], strict=True)]
            print(f"{above} / {below}: {_show(ratios)}", file=sys.stderr)
    if not options.only:
        figures |= simulate()
    print(
        json.dumps({k: v if v is None or math.isnan(v) else round(v, 4 if v < 10 else 1) for k, v in figures.items()})
    )


if __name__ == "__main__":
    main()
