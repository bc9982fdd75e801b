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

COPIER = """
import os, sqlite3, struct, time
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.jobs.journal import StoredResult
from depin_node.core.wire import decode

HEAD = struct.Struct("<II")

class Copier(WasmDevice):
    def __init__(self):  # before the worker is confined; the child dies with the worker's session
        super().__init__()
        read_fd, write_fd = os.pipe()
        if os.fork() == 0:
            tell(write_fd)
        os.close(write_fd)
        self.told, self.answers = os.fdopen(read_fd, "rb"), {}

    def load(self, program, inputs, limits):
        return self

    def run(self, task, limits, results):
        while task not in self.answers:  # for ever, if nobody answers before us
            number, size = HEAD.unpack(self.told.read(HEAD.size))
            self.answers[number] = self.told.read(size)
        (result,) = results
        result.cast("B")[:] = self.answers[task]
        return 1

def tell(write_fd):
    worker, told = os.getppid(), set()
    while os.getppid() == worker:
        journal = sqlite3.connect("file:{journal}?mode=ro", uri=True)
        for task, stored in journal.execute("SELECT task, outputs FROM results").fetchall():
            if task not in told:
                told.add(task)
                (output,) = decode(stored, StoredResult, size_bytes_max=1 << 20).outputs
                os.write(write_fd, HEAD.pack(task, len(output.inline)) + output.inline)
        journal.close()
        time.sleep(0.02)
    os._exit(0)
"""


def test_a_copier_gets_nothing_accepted(nodes, tmp_path):
    requester = nodes.start()
    journal = DataDir(requester.data_dir).journal
    (tmp_path / "copier.py").write_text(COPIER.replace("{journal}", str(journal)))
    config = tmp_path / "copier.toml"
    config.write_text(f'devices = ["copier:Copier"]\ndevice_path = "{tmp_path}"\n')
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
