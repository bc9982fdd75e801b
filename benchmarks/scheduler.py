"""How fast the scheduler machine is, alone: no conversations, no journal, providers that answer at once.

    python benchmarks/scheduler.py

The last line is one JSON object:

- ``scheduler_events_per_s``: events taken a second of processor time: 20,000 tasks, 8 providers, quorum(2, 3); the
  median of three. ``…_single``: quorum(1, 1).
- ``scheduler_us_per_task_N``: processor time for a task with N providers engaged, their engagement and the job's end
  included: 5,000 tasks, quorum(2, 3).
- ``scheduler_bytes_per_finished_task``: growth of memory between 5,000 and 45,000 finished tasks of one job.
"""

import json
import statistics
import sys
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from instant_mesh import InstantMesh

from depin_node.compute.jobs.job import Quorum
from depin_node.compute.jobs.scheduler import SchedulerConfig

TASKS, TASKS_OF_MANY = 20_000, 5_000
RUNS = 3
MARKS = (5_000, 45_000)
PROVIDERS = (8, 32, 100, 320, 1000)


def seconds(policy: Quorum, providers: int, tasks: int = TASKS) -> tuple[float, int]:
    """Return the processor time of a job, and how many events the machine took for it."""
    mesh = InstantMesh(providers=providers, config=SchedulerConfig(providers_max=providers))
    mesh.submit(tasks, policy)
    begin = time.process_time()
    mesh.run()
    took_s = time.process_time() - begin
    if [ended.state for ended in mesh.ended.values()] != ["done"]:
        raise SystemExit("the job did not end well")
    return took_s, mesh.events


def events_per_s(policy: Quorum) -> float:
    """Return the median of several runs."""
    runs = [seconds(policy, 8) for _ in range(RUNS)]
    return statistics.median(events / took_s for took_s, events in runs)


def bytes_per_finished_task() -> float:
    """Return by how much memory grows with each task that is over."""
    mesh = InstantMesh(providers=8)
    mesh.submit(50_000, Quorum(1, 1))
    held: dict[int, int] = {}

    def look(mesh: InstantMesh) -> None:
        finished = sum(progress.stored for progress in mesh.scheduler._board.jobs.values())
        for mark in MARKS:
            if finished >= mark and mark not in held:
                held[mark] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    mesh.run(on_event=look)
    tracemalloc.stop()
    return (held[MARKS[1]] - held[MARKS[0]]) / (MARKS[1] - MARKS[0])


def main() -> None:
    """Print the figures."""
    figures: dict[str, float] = {
        "scheduler_events_per_s": round(events_per_s(Quorum(2, 3))),
        "scheduler_events_per_s_single": round(events_per_s(Quorum(1, 1))),
    }
    for providers in PROVIDERS:
        took_s, _ = seconds(Quorum(2, 3), providers, TASKS_OF_MANY)
        figures[f"scheduler_us_per_task_{providers}"] = round(1e6 * took_s / TASKS_OF_MANY, 1)
    figures["scheduler_bytes_per_finished_task"] = round(bytes_per_finished_task(), 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
