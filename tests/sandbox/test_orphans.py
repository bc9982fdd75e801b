"""Workers whose node is killed: none is left, whatever it did at that moment."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a worker is bound to its node by prctl")
SUPPORT = Path(__file__).parent.parent / "support"
GONE_WITHIN_S = 30  # they are gone in a fifth of a second where the machine has nothing else to do
ROUNDS, TOGETHER = 4, 4

STARTING = """
import sys, trio
from depin_node.compute.sandbox.config import WorkerConfig
from depin_node.compute.sandbox.process import WorkerProcess
async def main():
    worker = WorkerProcess(WorkerConfig(environment=(("PYTHONPATH", sys.argv[1]),)))
    print(worker.pid, flush=True)
    await trio.sleep_forever()
trio.run(main)
"""


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment)


def workers_of(node):
    """Return what a node has started, while it lives: as a list that is good after its end."""
    return psutil.Process(node.pid).children()


def until(condition):
    """Wait for what another process does."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks: another process tells nobody


def kill(node):
    node.kill()
    node.communicate()


def test_nodes_that_are_killed_at_any_moment_leave_no_worker():
    rng, seen = random.Random(1), 0
    for _ in range(ROUNDS):
        nodes = [start(SUPPORT / "pool_user.py") for _ in range(TOGETHER)]
        for node in nodes:
            assert node.stdout.readline() == b"up\n"
            until(lambda node=node: workers_of(node))
        time.sleep(rng.uniform(0, 1.5))  # the moment is the point: as they start, load, run, end
        workers = [worker for node in nodes for worker in workers_of(node)]
        for node in nodes:
            kill(node)
        _, left = psutil.wait_procs(workers, timeout=GONE_WITHIN_S)
        assert not left
        seen += len(workers)
    assert seen >= ROUNDS * TOGETHER


def test_a_worker_that_is_still_importing_goes_with_its_node(tmp_path):
    """Its first library stands for a busy machine, on which imports take long."""
    began = tmp_path / "began"
    # The import must not end while the test looks: nothing but the kill ends it.
    (tmp_path / "msgspec.py").write_text(f"import time\nopen({str(began)!r}, 'w')\ntime.sleep(600)\n")
    node = start("-c", STARTING, tmp_path)
    worker = psutil.Process(int(node.stdout.readline()))
    until(began.exists)
    kill(node)
    _, left = psutil.wait_procs([worker], timeout=GONE_WITHIN_S)
    for process in left:
        process.kill()
    assert not left
