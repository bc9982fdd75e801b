"""One kernel on PoCL, for ``compute.py``: run by the Python of a venv that has pyopencl and PoCL, and nothing of ours.

``compute_pocl.py FOLDER`` reads FOLDER/case.json, runs the kernel once, saves its outputs there and prints ``ready``.
For each line on stdin it then does the task again, one copy in and one out, and prints the seconds that took.
"""

import json
import sys
import time
from math import prod
from pathlib import Path

import numpy as np
import pyopencl as cl

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
context = cl.Context(cl.get_platforms()[0].get_devices())
queue = cl.CommandQueue(context)
kernel = getattr(cl.Program(context, case["source"]).build(), case["name"])
arguments, inputs, outputs = [], [], []
for given in case["arguments"]:
    if "scalar" in given:
        arguments.append(np.dtype(given["dtype"]).type(given["scalar"]))
        continue
    host = np.load(folder / given["file"]) if "file" in given else np.zeros(given["shape"], given["dtype"])
    buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, host.nbytes)
    arguments.append(buffer)
    if "file" in given:
        inputs.append((buffer, host))
    if given["out"]:
        outputs.append((buffer, np.zeros_like(host)))
if case["shared_mem"]:
    arguments.append(cl.LocalMemory(case["shared_mem"]))
size = [grid * block for grid, block in zip(case["grid"], case["block"], strict=True)]
assert prod(case["block"]) <= context.devices[0].max_work_group_size


def task() -> float:
    start = time.perf_counter()
    for buffer, host in inputs:
        cl.enqueue_copy(queue, buffer, host, is_blocking=False)
    kernel(queue, size, case["block"], *arguments)
    for buffer, host in outputs:
        cl.enqueue_copy(queue, host, buffer, is_blocking=False)
    queue.finish()
    return time.perf_counter() - start


task()
for place, (_, host) in enumerate(outputs):
    np.save(folder / f"result{place}.npy", host)
print("ready", flush=True)
for _ in sys.stdin:
    print(task(), flush=True)
