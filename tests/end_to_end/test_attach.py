"""A requester is killed in the middle of a job; another node of its owner goes on; the first one comes back.

Each task is settled once: what was settled when the copy was made has the same root at both, and no receipt of the
second node is about it. The first node, back, ends the job with the code that says where it is.
"""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import wat_programs as wat
from nodes import depin_node

from depin_node.client import Limits, Mesh, quorum
from depin_node.client.work import Work
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.market.messages import Receipt
from depin_node.compute.programs.binding import Bound
from depin_node.core.local import DataDir
from depin_node.crypto.envelope import verify_signature

pytestmark = [pytest.mark.net, pytest.mark.slow]
SUPPORT = Path(__file__).parents[1] / "support"
TASKS = 600
WAIT_S = 240


def owned(nodes, tmp_path, count):
    """Return arguments of ``Nodes.start`` for nodes that have one owner."""
    key = tmp_path / "owner.key"
    started = []
    for number in range(count):
        folder = tmp_path / f"owned-{number}"
        peer = depin("init", "--data-dir", folder)["peer"]
        if not key.exists():
            depin("owner", "create", "--owner-key", key)
        depin("owner", "certify", "--owner-key", key, "--out", folder / "owner.cert", peer)
        started.append(folder)
    return started


def depin(*args):
    done = depin_node(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def until(what, limit_s=WAIT_S):
    """Poll a command of another process, which has nothing to wait on; return what it said."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.2)  # between two looks at another process
    raise AssertionError("it did not come about")


def roots(journal, job):
    records = Journal(journal)
    try:
        return {task: root for task, root, _ in records.results(job, 0, TASKS)}
    finally:
        records.close()


def test_a_fellow_goes_on_where_a_killed_requester_was(nodes, tmp_path):
    here, there = owned(nodes, tmp_path, 2)
    first = nodes.start(data_dir=here)
    second = nodes.start("--peer", first.address, data_dir=there)
    config = nodes.folder / "slow.toml"  # so that there is something left to take over
    config.write_text(f'devices = ["lying_device:SlowDevice"]\ndevice_path = "{SUPPORT}"\n')
    for _ in range(2):
        nodes.start("--lend", "--slots", 1, "--peer", first.address, "--peer", second.address, "--config", config)
    listen, n = first.address.partition("/p2p/")[0], TASKS * wat.BLOCK
    with Mesh(first.data_dir) as mesh:
        bound = Bound(wat.program(tasks=TASKS, n=n), {0: wat.numbers(n)})
        job = mesh.submit(Work("handed", bound, quorum(2, 2), Limits(30, 128)), key="handed").job_id
    with Mesh(second.data_dir) as mesh:
        until(lambda: [copy for copy in mesh.copies() if copy.id == job and copy.tasks_settled > 50])
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        copied = roots(DataDir(second.data_dir).journal, bytes.fromhex(job))
        future = mesh.attach(job[:12])
        assert future.job_id == job
        back = nodes.start("--listen", listen, listen=None, data_dir=first.data_dir)
        np.testing.assert_array_equal(future.result(WAIT_S), wat.numbers(n))
        view = future.status()
    assert (view.state, view.tasks_done) == ("done", TASKS)
    with Mesh(back.data_dir) as mesh:
        ended = until(lambda: (view := mesh.future(job).status()).error and view)
    assert (ended.state, ended.error.code) == ("taken_over", "taken_over")
    assert second.peer in ended.error.message
    back.stop()
    second.stop()
    finally_here, finally_there = (roots(DataDir(folder).journal, bytes.fromhex(job)) for folder in (here, there))
    assert copied.items() <= finally_there.items()
    assert copied.items() <= finally_here.items()
    assert sorted(finally_there) == list(range(TASKS))
    assert not set(copied) & receipted(there, job)


def test_a_node_goes_on_from_a_file(nodes, tmp_path):
    """The two never meet: what one has is carried to the other in a file."""
    here, there = owned(nodes, tmp_path, 2)
    first = nodes.start(data_dir=here)
    lender = nodes.start("--lend", "--slots", 1, "--peer", first.address)
    n, file = 8 * wat.BLOCK, tmp_path / "carried.job"
    with Mesh(first.data_dir) as mesh:
        bound = Bound(wat.program(tasks=8, n=n), {0: wat.numbers(n)})
        job = mesh.submit(Work("carried", bound, quorum(2, 2), Limits(30, 128))).job_id  # one lender is not enough
    assert depin("job", "export", job[:12], file, "--data-dir", first.data_dir)["bytes"] == file.stat().st_size
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = nodes.start("--peer", lender.address, data_dir=there)
    assert depin("job", "attach", file, "--data-dir", second.data_dir)["id"] == job
    nodes.start("--lend", "--slots", 1, "--peer", lender.address)
    with Mesh(second.data_dir) as mesh:
        np.testing.assert_array_equal(mesh.future(job).result(WAIT_S), wat.numbers(n))


def receipted(folder, job):
    """Return the tasks that a node has signed receipts for."""
    records = Journal(DataDir(folder).journal)
    try:
        receipts = [
            verify_signature(row.receipt, Receipt, "depin").payload for row in records.receipts_of(bytes.fromhex(job))
        ]
        return {settled.task for receipt in receipts for settled in receipt.settled}
    finally:
        records.close()
