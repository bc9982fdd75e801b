"""``make bench-compute``: how fast kernels run without a GPU, beside NumPy and PoCL, each on one core.

*Our* time of a task is that of the wasm device (``compute/devices``) on a program that is loaded, as in a worker: the
inputs are files, as a lender's are, and from the first round on they are laid over the task's memory; the results,
which the last round filled, are made zeros; the kernel runs; NaNs are made canonical, and a result that is large is
where the node reads it, one that is small is copied there. PoCL copies in, runs, copies out. NumPy does the same work
on one thread. All are timed in turn, ``ROUNDS`` times after a round that does not count; a ratio is the
median over the rounds.

    KERNEL_ratio        our time over NumPy's: the whole task, as PoCL's contains its copies and NumPy's its new arrays
    KERNEL_launch_ratio of that the kernel alone, without its instance and what is done before and after
    KERNEL_pocl_ratio   PoCL's time over NumPy's; null where PoCL is missing or cannot run it (pocl_missing: why)
    pocl_geomean        geometric mean of our time over PoCL's, of the kernels that PoCL runs
    compile_s           the slowest compilation of the nine, each with an empty cache
    warm_task_ms        a trivial task in a warm worker process, there and back
    two_core_speedup    of one launch (n-body), cut by blocks over two worker processes, against one; the same bits

One launch over several cores would need a memory that instances share, which needs the threads proposal of WebAssembly
and modules built for it; providers refuse both, so a launch is cut by blocks instead.

A table goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import trio
from compute_cases import BODIES, Array, Case, cases

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.pages import LARGE_BYTES
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.devices.wasm_engine import Instances
from depin_node.compute.programs.binding import Bound, bind
from depin_node.compute.programs.generated import ReductionKernel
from depin_node.compute.programs.kernel import InOut, Out, RawKernel
from depin_node.compute.programs.memory import placements
from depin_node.compute.programs.program import encode_program
from depin_node.compute.programs.shards import result_bytes
from depin_node.compute.sandbox.arena import Arena, open_input
from depin_node.compute.sandbox.pool import Lease, PoolConfig, WorkerConfig, open_pool

ROUNDS, TRIVIAL_TASKS, TWO_CORE_BODIES = 5, 300, 4 * BODIES
POCL = Path(__file__).parent.parent / "build" / "pocl"
SAXPY = Path(__file__).parent / "kernels" / "compute" / "saxpy.cu"
FUSED = 1e-6
"""PoCL may round a * b + c once."""
LIMITS = TaskLimits(600.0, 4 << 30)


class Ours:
    """A case on the wasm device."""

    def __init__(self, device: WasmDevice, bound: Bound, folder: Path) -> None:
        self.program = bound.program
        inputs = {}
        for index, array in bound.inputs.items():
            path = folder / f"input-{index}"
            array.tofile(path)
            fd = open_input(path, "input", array.nbytes)
            os.fsync(fd)  # or the system writes it to the disk while we measure
            inputs[index] = Input(memoryview(mmap.mmap(fd, array.nbytes, prot=mmap.PROT_READ)), fd)
        self._loaded = device.load(self.program, inputs, LIMITS)
        sizes = [result_bytes(self.program, 0, output) for output in range(len(self.program.outputs))]
        addresses = [placements(self.program)[0][index] for index in self.program.outputs]
        arena = Arena(sum(sizes) + len(sizes) * LARGE_BYTES)
        self._loaded.results_in(arena.view)
        places = [arena.take(size, address) for size, address in zip(sizes, addresses, strict=True)]
        assert None not in places
        self._results = [arena.view[place : place + size] for place, size in zip(places, sizes, strict=True) if place]

    def task(self) -> float:
        """Run the one task there is; return the seconds it took."""
        start = time.perf_counter()
        self._loaded.run(0, LIMITS, self._results)
        return time.perf_counter() - start

    def outputs(self) -> list[Array]:
        """Return what the task made."""
        buffers = [self.program.buffers[index] for index in self.program.outputs]
        return [np.frombuffer(r, b.dtype).reshape(b.shape) for r, b in zip(self._results, buffers, strict=True)]


class Pocl:
    """A case on PoCL, in a process of its own."""

    def __init__(self, case: Case, bound: Bound, folder: Path) -> None:
        self._folder = folder
        self._case = {
            "name": case.name,
            "source": case.pocl_source.read_text(),
            "grid": case.grid,
            "block": case.block,
            "shared_mem": case.shared_mem,
            "arguments": list(self._arguments(case, bound)),
        }
        (folder / "case.json").write_text(json.dumps(self._case))
        cores = {"POCL_MAX_PTHREAD_COUNT": "1", "POCL_CACHE_DIR": str(folder)}
        self._child = subprocess.Popen(
            [POCL / "bin" / "python", Path(__file__).with_name("compute_pocl.py"), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | cores,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._input, self._output = self._child.stdin, self._child.stdout
        if self._output.readline() != "ready\n":
            raise RuntimeError(self._child.communicate()[1].strip().splitlines()[-1:] or "PoCL ended without a word")

    def _arguments(self, case: Case, bound: Bound) -> Iterator[dict[str, Any]]:
        """Describe the arguments; the dtypes of numbers are those that our compiler found."""
        if case.reduction is not None:
            (table,) = case.arguments
            yield self._array(0, table, out=False)
            yield {"dtype": "float32", "shape": table.shape[0], "out": True}
            yield {"scalar": table.shape[1], "dtype": "int32"}
            return
        for place, (argument, parameter) in enumerate(
            zip(case.arguments, bound.program.kernels[0].parameters, strict=True)
        ):
            if isinstance(argument, Out):
                yield {"dtype": str(argument.dtype), "shape": argument.shape, "out": True}
            elif isinstance(argument, InOut | np.ndarray):
                marked = isinstance(argument, InOut)
                yield self._array(place, argument.array if isinstance(argument, InOut) else argument, out=marked)
            else:
                yield {"scalar": argument, "dtype": parameter.dtype}

    def _array(self, place: int, array: Array, *, out: bool) -> dict[str, Any]:
        np.save(self._folder / f"{place}.npy", array)
        return {"file": f"{place}.npy", "out": out}

    def task(self) -> float:
        """Run it; return the seconds it took."""
        self._input.write("\n")
        self._input.flush()
        return float(self._output.readline())

    def outputs(self) -> list[Array]:
        """Return what the first task made."""
        return [np.load(path) for path in sorted(self._folder.glob("result*.npy"))]

    def close(self) -> None:
        """End the process."""
        self._input.close()
        self._child.wait()


def _check(case: Case, found: list[Array], wanted: Sequence[Array], whose: str, tolerance: float = 0.0) -> None:
    """Stop if the result is not NumPy's: then there is nothing to compare."""
    tolerance = max(tolerance, case.tolerance)
    for got, expected in zip(case.finish(found), wanted, strict=True):
        wrong = np.abs(got.astype("f8") - expected) > tolerance * (np.abs(expected) + 0.1 * np.abs(expected).mean())
        if wrong.mean() > (1e-2 if case.name == "mandelbrot" else 0):  # escapes at the border go by the last bit
            raise SystemExit(
                f"{case.name}: {whose} result differs from NumPy's in {wrong.sum()} of {wrong.size} places"
            )


@contextmanager
def _launches() -> Iterator[list[float]]:
    """Collect the seconds of every launch of a kernel."""
    seconds: list[float] = []
    call = Instances.call

    def timed(instances: Instances, name: str, *arguments: Any) -> None:
        start = time.perf_counter()
        call(instances, name, *arguments)
        if name.startswith("run"):
            seconds.append(time.perf_counter() - start)

    Instances.call = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        Instances.call = call  # type: ignore[method-assign]


def _bind(case: Case) -> Bound:
    if isinstance(case.kernel, ReductionKernel):
        launch = case.kernel.lower(case.arguments, axis=1)
        return bind(launch.kernel, launch.grid, launch.block, launch.args)
    return bind(case.kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)


def _compile(case: Case) -> float:
    """Return the seconds from source to module, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="depin-bench-") as folder:
        os.environ["DEPIN_CACHE_DIR"] = folder
        start = time.perf_counter()
        _bind(case)
        return time.perf_counter() - start


def _measure(case: Case, device: WasmDevice, figures: dict[str, Any]) -> float | None:
    """Add a case's ratios to the figures; return our time over PoCL's, if that runs it."""
    bound = _bind(case)
    pocl, why = None, ""
    with tempfile.TemporaryDirectory(prefix="depin-bench-") as folder:
        ours = Ours(device, bound, Path(folder))
        if not (POCL / ".installed").exists():
            why = "PoCL is not installed"
        elif not case.pocl_source.exists():
            why = "PoCL 3.0 has no shuffles (cl_khr_subgroup_shuffle)"
        else:
            try:
                pocl = Pocl(case, bound, Path(folder))
            except RuntimeError as error:
                why = f"PoCL failed: {error}"
        rounds: list[tuple[float, float, float, float]] = []
        for _ in range(1 + ROUNDS):
            with _launches() as launches:
                ours_s = ours.task()
            start = time.perf_counter()
            wanted = case.reference()
            rounds.append((ours_s, time.perf_counter() - start, pocl.task() if pocl else 0.0, launches[-1]))
        _check(case, ours.outputs(), wanted, "our")
        if pocl is not None:
            _check(case, pocl.outputs(), wanted, "PoCL's", FUSED)
            pocl.close()

    def ratio(above: int, below: int) -> float:
        return statistics.median(times[above] / times[below] for times in rounds[1:])

    figures[f"{case.name}_ratio"] = round(ratio(0, 1), 3)
    figures[f"{case.name}_launch_ratio"] = round(ratio(3, 1), 3)
    figures[f"{case.name}_pocl_ratio"] = round(ratio(2, 1), 3) if pocl else None
    milliseconds = [statistics.median(column) * 1e3 for column in zip(*rounds[1:], strict=True)]
    _row(
        case.name,
        *(f"{milliseconds[k]:.2f}" if milliseconds[k] else "-" for k in (0, 3, 1, 2)),
        *(f"{figures[f'{case.name}_{which}']}" for which in ("ratio", "launch_ratio", "pocl_ratio")),
        why,
    )
    if why:
        figures["pocl_missing"] = f"{figures.get('pocl_missing', '')}{case.name}: {why}. "
    return ratio(0, 2) if pocl else None


def _row(*cells: str) -> None:
    print(
        "  ".join(f"{cell:>{16 if place == 0 else 12}}" for place, cell in enumerate(cells)),
        file=sys.stderr,
        flush=True,
    )


async def _submit(lease: Lease, task: int, names: "count[int]") -> bytes:
    """Run a task in a worker and return its output's bytes."""
    await lease.submit([(next(names).to_bytes(16, "little"), task)])
    result = await anext(lease.results())
    if result.error is not None:
        raise SystemExit(f"a worker failed: {result.error}")
    data = b"".join(bytes(output.data) for output in result.outputs)
    lease.release(result.attempt)
    return data


async def _load(lease: Lease, bound: Bound) -> None:
    inputs = {index: memoryview(array).cast("B") for index, array in bound.inputs.items()}
    await lease.load(encode_program(bound.program), inputs, seconds=LIMITS.seconds, memory_limit_bytes=1 << 30)


async def _warm_task_ms() -> float:
    """Return the median time of a trivial task: saxpy on 1,024 floats."""
    x, names, times = np.ones(1024, np.float32), count(), []
    arguments = (x, x, Out("float32", 1024, 256), 2.0, 1024)
    bound = bind(RawKernel(SAXPY.read_text(), "saxpy"), 4, 256, arguments)
    async with open_pool(PoolConfig(WorkerConfig(nice=0), spare=False)) as pool:
        lease = await pool.acquire("trivial")
        await _load(lease, bound)
        for _ in range(TRIVIAL_TASKS):
            start = time.perf_counter()
            await _submit(lease, 0, names)
            times.append(time.perf_counter() - start)
        await lease.aclose()
    return statistics.median(times[TRIVIAL_TASKS // 10 :]) * 1e3


async def _two_core_speedup(case: Case) -> float:
    """Return by how much one launch is faster if its blocks are cut over two workers."""
    bodies = np.random.default_rng(1).random((TWO_CORE_BODIES, 4), dtype=np.float32)
    arguments = (bodies, Out("float32", bodies.shape, (128, 4)), len(bodies), 1e-3)
    kernel = case.kernel
    assert isinstance(kernel, RawKernel)
    whole, halves = (
        bind(kernel, len(bodies) // 128, 128, arguments, shared_mem=case.shared_mem, shards=shards) for shards in (1, 2)
    )
    names, ratios = count(), []
    parts: dict[int, bytes] = {}

    async def half(lease: Lease, task: int) -> None:
        parts[task] = await _submit(lease, task, names)

    async with open_pool(PoolConfig(WorkerConfig(nice=0), workers_max=3, spare=False)) as pool:
        leases = [await pool.acquire(f"bench-{k}") for k in range(3)]
        for lease, bound in zip(leases, (whole, halves, halves), strict=True):
            await _load(lease, bound)
        for _ in range(1 + ROUNDS):
            start = time.perf_counter()
            expected = await _submit(leases[0], 0, names)
            alone = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for task in (0, 1):
                    nursery.start_soon(half, leases[1 + task], task)
            ratios.append((alone - start) / (time.perf_counter() - alone))
            if parts[0] + parts[1] != expected:
                raise SystemExit("two cores gave other bits than one")
        for lease in leases:
            await lease.aclose()
    return statistics.median(ratios[1:])


def main() -> None:
    """Measure everything."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when NumPy is imported
        raise SystemExit("run it by `make bench-compute`, which limits NumPy to one thread")
    todo = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="KERNEL", choices=[case.name for case in todo], help="this kernel alone")
    only = parser.parse_args().only
    figures: dict[str, Any] = {}
    todo = [case for case in todo if only in (None, case.name)]
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    compile_s = max(_compile(case) for case in todo)
    with tempfile.TemporaryDirectory(prefix="depin-bench-") as folder:
        os.environ["DEPIN_CACHE_DIR"] = folder
        device = WasmDevice()
        _row("", "task ms", "kernel ms", "NumPy ms", "PoCL ms", "ratio", "launch", "PoCL")
        against = [ratio for case in todo if (ratio := _measure(case, device, figures)) is not None]
        figures["pocl_geomean"] = round(statistics.geometric_mean(against), 3) if against else None
        figures["compile_s"] = round(compile_s, 3)
        if cores:
            os.sched_setaffinity(0, cores)
        if only is None:
            figures["warm_task_ms"] = round(trio.run(_warm_task_ms), 3)
            nbody = next(case for case in todo if case.name == "nbody")
            figures["two_core_speedup"] = round(trio.run(_two_core_speedup, nbody), 3)
            figures["two_core_by"] = "one launch cut by blocks over two worker processes"
    for name in ("pocl_geomean", "compile_s", "warm_task_ms", "two_core_speedup"):
        if name in figures:
            _row(name, str(figures[name]))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
