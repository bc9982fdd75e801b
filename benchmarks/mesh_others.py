"""Ray or Dask, set up for two cores on this machine and kept warm; run by ``mesh.py`` in a venv of their own.

    python mesh_others.py ray|dask

Reads a figure's name a line, answers with its number. Two workers of one core each; no dashboard, no logs to the
driver. Tasks are what either is documented for: remote functions, unverified, in long-lived Python processes. What
could make them slower is left out: a trivial task takes a number and makes its own floats; options are priced in pieces
that the cache holds; inputs that travel are handed over as arrays, which Ray shares and Dask scatters directly.

All runs in a network namespace of its own where the system has them: there is nothing but loopback.
"""

import ctypes
import fcntl
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 1
WORKERS = 2
LATENCY_TASKS, RATE_TASKS = 100, 2000


def only_loopback() -> None:
    """Leave the machine's network for an empty one with a loopback of its own; no harm if that cannot be."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NET) and libc.unshare(_NEW_USER | _NEW_NET):
        print("no network namespace: the listening sockets are on this machine's own", file=sys.stderr)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sH14x", b"lo", 0)
        _, flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


class RayTasks:
    """The same calls for Ray."""

    def __init__(self) -> None:
        os.environ |= {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "120",
        }
        import ray

        ray.init(
            num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error",
            object_store_memory=2 << 30,
        )  # fmt: skip
        self._ray = ray
        self._remote: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start one task."""
        if function not in self._remote:
            self._remote[function] = self._ray.remote(function)
        return self._remote[function].remote(*arguments)

    def submit_all(self, function: Callable[..., Any], tasks: Sequence[Any]) -> list[Any]:
        """Start a task for each number."""
        return [self.submit(function, task) for task in tasks]

    def shipped(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The caller's arrays are copied into shared memory once, which the workers map."""
        return [self.submit(function, *task) for task in tasks]

    def wait(self, futures: list[Any]) -> None:
        """Wait until all have ended; their results stay where they are."""
        self._ray.wait(futures, num_returns=len(futures), fetch_local=False)

    def get(self, futures: list[Any]) -> list[Any]:
        """Return the results."""
        return self._ray.get(futures)


class DaskTasks:
    """The same calls for Dask."""

    def __init__(self) -> None:
        import dask
        import distributed

        dask.config.set(
            {
                "distributed.worker.profile.enabled": False,
                "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1
                << 30,  # by default memory goes back at once
            }
        )
        cluster = distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None,
        )  # fmt: skip
        self._wait, self._client = distributed.wait, distributed.Client(cluster)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start one task."""
        return self._client.submit(function, *arguments, pure=False)

    def submit_all(self, function: Callable[..., Any], tasks: Sequence[Any]) -> list[Any]:
        """Start a task for each number."""
        return self._client.map(function, tasks, pure=False)

    def shipped(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The arrays go to the workers directly, not through the scheduler."""
        placed = [self._client.scatter(list(arrays), hash=False, direct=True) for arrays in zip(*tasks, strict=True)]
        return self._client.map(function, *placed, pure=False)

    def wait(self, futures: list[Any]) -> None:
        """Wait until all have ended; their results stay where they are."""
        self._wait(futures)

    def get(self, futures: list[Any]) -> list[Any]:
        """Return the results."""
        return self._client.gather(futures, direct=True)


def figures(tasks: RayTasks | DaskTasks) -> dict[str, Callable[[], float]]:
    """Return how each figure is measured once."""
    import numpy as np
    import options

    arrays = options.draw(0, options.OPTIONS)
    rounds = iter(range(1 << 30))

    def elapsed(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def shipped() -> float:
        for array in arrays:  # nothing is known from the last round
            array[:: options.SHARD] = 20 + next(rounds) % 7
        slices = [
            tuple(array[k : k + options.SHARD] for array in arrays) for k in range(0, options.OPTIONS, options.SHARD)
        ]
        out: list[Any] = []
        seconds = elapsed(lambda: out.extend(tasks.get(tasks.shipped(options.price, slices))))
        assert np.array_equal(out[-1], options.price(*slices[-1]))
        return seconds

    def latency() -> float:
        times = []
        for task in range(LATENCY_TASKS):
            begin = time.perf_counter()
            tasks.get([tasks.submit(options.trivial, task)])
            times.append(time.perf_counter() - begin)
        return 1e3 * statistics.median(times)

    def rate() -> float:
        return RATE_TASKS / elapsed(lambda: tasks.get(tasks.submit_all(options.trivial, range(RATE_TASKS))))

    def map64() -> float:
        return elapsed(lambda: tasks.wait(tasks.submit_all(options.draw_and_price, range(options.SHARDS))))

    return {"trivial_ms_p50": latency, "trivial_per_s": rate, "map64_s": map64, "map64_shipped_s": shipped}


def main() -> None:
    """Serve until stdin ends."""
    only_loopback()
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = here
    sys.path.insert(0, here)
    answers, sys.stdout = sys.stdout, sys.stderr  # what either prints is not an answer
    known = figures({"ray": RayTasks, "dask": DaskTasks}[sys.argv[1]]())
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(known[line.strip()](), file=answers, flush=True)


if __name__ == "__main__":
    main()
