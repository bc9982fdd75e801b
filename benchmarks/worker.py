"""A worker alone, without mesh, market or signatures: what a task costs between a node and its sandbox.

Prints one JSON line: the trivial task (saxpy on 1,024 floats) one at a time and in a stream, and 1,048,576 floats.
"""

import json
import statistics
import time
from itertools import count
from pathlib import Path

import numpy as np
import trio

from depin_node.compute.programs.binding import Bound, bind
from depin_node.compute.programs.kernel import Out, RawKernel
from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.pool import Lease, PoolConfig, WorkerConfig, open_pool

SAXPY = Path(__file__).parent / "kernels" / "saxpy.cu"
SINGLE, STREAM, WINDOW = 500, 20_000, 64
LARGE = 1 << 20


def saxpy(n: int) -> Bound:
    x = np.arange(n, dtype=np.float32)
    return bind(RawKernel(SAXPY.read_text(), "saxpy"), n // 256, 256, (x, x, Out("float32", n, 256), 2.0, n))


async def one_at_a_time(lease: Lease, names: "count[int]", tasks: int) -> float:
    """Return the median time of a task in ms, from submission to its bytes."""
    times = []
    for _ in range(tasks):
        start = time.perf_counter()
        await lease.submit([(next(names).to_bytes(16, "little"), 0)])
        result = await anext(lease.results())
        assert result.error is None
        times.append(time.perf_counter() - start)
        lease.release(result.attempt)
    return statistics.median(times) * 1e3


async def stream(lease: Lease, names: "count[int]", tasks: int) -> float:
    """Return tasks a second with a window of them in flight."""
    start = time.perf_counter()
    await lease.submit((next(names).to_bytes(16, "little"), 0) for _ in range(WINDOW))
    for done in range(tasks):
        result = await anext(lease.results())
        assert result.error is None
        lease.release(result.attempt)
        if done < tasks - WINDOW:
            await lease.submit([(next(names).to_bytes(16, "little"), 0)])
    return tasks / (time.perf_counter() - start)


async def main() -> None:
    figures = {}
    async with open_pool(PoolConfig(WorkerConfig(nice=0), spare=False)) as pool:
        for name, n in (("trivial", 1024), ("mebi", LARGE)):
            bound, names = saxpy(n), count()
            lease = await pool.acquire(name)
            inputs = {index: array.tobytes() for index, array in bound.inputs.items()}
            await lease.load(encode_program(bound.program), inputs, seconds=60, memory_limit_bytes=1 << 30)
            await one_at_a_time(lease, names, 20)
            figures[f"worker_{name}_ms_p50"] = round(await one_at_a_time(lease, names, SINGLE if n < LARGE else 100), 3)
            if n < LARGE:
                figures["worker_trivial_per_s"] = round(await stream(lease, names, STREAM))
            await lease.aclose()
    print(json.dumps(figures))


trio.run(main)
