"""SIGKILL to a requester among real processes, at seeded moments of its job, and a restart each time.

Twelve times: a restart takes seconds. ``tests/bootstrap/test_kills.py`` kills a smaller world fifty times.

Nothing is lost: results that were stored are there after every restart, unchanged, and the job ends with the right
answer. Nothing accepted is run again: no receipt under an agreement made later names a task that was stored before.
"""

import random
import signal
import time

import numpy as np
import pytest
import wat_programs as wat

from depin_node.client import Limits, Mesh, quorum
from depin_node.client.work import Work
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.market.messages import Receipt
from depin_node.compute.programs.binding import Bound
from depin_node.core.local import DataDir
from depin_node.crypto.envelope import verify_signature

pytestmark = [pytest.mark.net, pytest.mark.slow]
SEED = 20261123
KILLS = 12
LIFE_S_MAX = 1.5
TASKS = 4_000
WAIT_S = 240


def stored(journal, job_id):
    """Return the roots of all stored results, and the agreements made so far."""
    records = Journal(journal)
    try:
        roots = {task: root for task, root, _ in records.results(job_id, 0, TASKS)}
        return roots, {agreement for agreement, role, *_ in records.agreements() if role == "requester"}
    finally:
        records.close()


def test_a_job_survives_the_kills_of_its_requester(nodes):
    rng = random.Random(SEED)
    n = TASKS * wat.BLOCK
    first, *_ = nodes.mesh(2)
    journal, listen = DataDir(first.data_dir).journal, first.address.partition("/p2p/")[0]
    with Mesh(first.data_dir) as mesh:
        bound = Bound(wat.program(tasks=TASKS, n=n), {0: wat.numbers(n)})
        job = mesh.submit(Work("killed", bound, quorum(2, 2), Limits(30, 128)), key="killed").job_id
    history = []
    node = first
    for _ in range(KILLS):
        time.sleep(rng.uniform(0, LIFE_S_MAX))  # the moment is the point, not something to wait for
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
        history.append(stored(journal, bytes.fromhex(job)))
        node = nodes.start("--listen", listen, listen=None, data_dir=first.data_dir)
    with Mesh(first.data_dir) as mesh:
        np.testing.assert_array_equal(mesh.future(job).result(WAIT_S), wat.numbers(n))
    node.stop()
    roots, _ = stored(journal, bytes.fromhex(job))
    assert sorted(roots) == list(range(TASKS))
    tasks_of = tasks_by_agreement(journal, bytes.fromhex(job))
    assert any(roots_then for roots_then, _ in history), "no result was stored before a kill: kill later"
    for roots_then, agreements_then in history:
        assert roots_then.items() <= roots.items()
        for agreement, tasks in tasks_of.items():
            if agreement not in agreements_then:
                assert not tasks & roots_then.keys()


def tasks_by_agreement(journal, job_id):
    """Return which tasks the receipts of each agreement name."""
    records = Journal(journal)
    try:
        tasks = {}
        for item in records.receipts_of(job_id):
            receipt = verify_signature(item.receipt, Receipt, "depin").payload
            tasks.setdefault(receipt.agreement, set()).update(settled.task for settled in receipt.settled)
        return tasks
    finally:
        records.close()
