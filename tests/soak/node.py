"""A node of the soak: the real one, in a process that also says how it is when asked.

python node.py DATA_DIR FIRST_PEER|- lend|-     prints its ready line; answers each line of stdin with its figures
"""

import gc
import json
import os
import sys
from pathlib import Path

import psutil
import trio

from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.node import open_node
from depin_node.core.local import DataDir


def tasks_of(task: trio.lowlevel.Task) -> int:
    """Count a task and all below it."""
    return 1 + sum(tasks_of(child) for nursery in task.child_nurseries for child in nursery.child_tasks)


def figures() -> dict[str, float]:
    """Return what must not grow."""
    gc.collect()
    process, root = psutil.Process(), trio.lowlevel.current_root_task()
    assert root is not None
    return {
        "rss_mib": round(process.memory_info().rss / (1 << 20), 1),
        "tasks": tasks_of(root),
        "descriptors": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else process.num_fds(),
        "threads": process.num_threads(),
    }


async def main(folder: str, first: str, lend: str, listen: str) -> None:
    """Run until stdin ends."""
    config = NodeConfig(
        listen=listen,
        first_peers=() if first == "-" else (first,),
        lend=lend == "lend",
        slots=1 if lend == "lend" else 0,
        log_level="warning",
    )
    async with open_node(config, DataDir(Path(folder))) as node:
        print(json.dumps({"address": node.mesh.network.addresses()[0]}), flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(figures()), flush=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
