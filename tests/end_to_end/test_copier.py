"""A copier on a real mesh: it waits until the others have shown their answers, and then gives theirs as its own.

It is as strong as it can be: it reads the accepted results out of the requester's own journal. A confined worker
cannot, but confinement protects the lender and binds nobody who lends: this one has a process outside, which tells the
worker what it found. Its answers come after the commit set is sealed, or not within the task's time; either way
nothing of it is accepted.
"""

import time

import numpy as np
import pytest
import wat_programs as wat
from copier import copier_config

from depin_node.client import Limits, Mesh, quorum
from depin_node.client.work import Work
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.market.messages import Receipt, Verdict
from depin_node.compute.programs.binding import Bound
from depin_node.core.local import DataDir
from depin_node.crypto.envelope import verify_signature
from depin_node.crypto.identity import peer_id

pytestmark = [pytest.mark.net, pytest.mark.slow]
TASKS = 6
WAIT_S = 120


def test_a_copier_gets_nothing_accepted(nodes, tmp_path):
    requester = nodes.start()
    journal = DataDir(requester.data_dir).journal
    config = copier_config(tmp_path, journal)
    join = ("--lend", "--slots", 1, "--peer", requester.address)
    lenders = [nodes.spawn(*join), nodes.spawn(*join), nodes.spawn(*join, "--config", config)]
    *_, copier = (node.wait_ready() for node in lenders)
    with Mesh(requester.data_dir) as mesh:
        deadline = time.monotonic() + WAIT_S
        while sum(peer.lending and peer.connected for peer in mesh.peers()) < 3:
            assert time.monotonic() < deadline
        bound = Bound(wat.program(tasks=TASKS, n=TASKS * wat.BLOCK), {0: wat.numbers(TASKS * wat.BLOCK)})
        future = mesh.submit(Work("copied", bound, quorum(2, 3), Limits(2, 64)))
        np.testing.assert_array_equal(future.result(WAIT_S), wat.numbers(TASKS * wat.BLOCK))
        asked = {part.peer for part in future.status().providers}
    assert copier.peer in asked  # it had its chance
    requester.stop()
    records = Journal(journal)
    try:
        for stored in records.receipts_of(bytes.fromhex(future.job_id)):
            receipt = verify_signature(stored.receipt, Receipt, "depin").payload
            if peer_id(receipt.to) == copier.peer:
                assert not [s for s in receipt.settled if s.verdict is Verdict.ACCEPTED]
    finally:
        records.close()
