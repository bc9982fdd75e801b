"""A job among real processes that are killed and frozen at seeded moments, with a liar among them and a requester that
is killed too: all results right, nobody honest named.

Three honest lenders, one that lies, one requester. ``DEPIN_CHAOS_TASKS`` makes the job longer and tries each kind of
liar, ``DEPIN_CHAOS_SEED`` strikes at other moments.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import wat_programs as wat

from depin_node.client import Limits, Mesh, quorum
from depin_node.client.work import Work
from depin_node.compute.programs.binding import Bound

pytestmark = [pytest.mark.net, pytest.mark.slow]
SUPPORT = Path(__file__).parents[1] / "support"
TASKS = int(os.environ.get("DEPIN_CHAOS_TASKS", "2000"))
SEED = int(os.environ.get("DEPIN_CHAOS_SEED", "5"))
LONG = "DEPIN_CHAOS_TASKS" in os.environ
LIARS = ["BitFlipDevice", "LyingDevice", "StaleDevice"] if LONG else ["BitFlipDevice"]
ROUNDS = 12 if LONG else 3
WAIT_S = 300


class Chaos:
    """Does something bad to an honest lender, and undoes it."""

    def __init__(self, nodes, lenders, rng):
        self.nodes, self.lenders, self.rng = nodes, lenders, rng

    def strike(self, first):
        place = self.rng.randrange(len(self.lenders))
        lender = self.lenders[place]
        if self.rng.random() < 0.5:
            lender.process.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.1, 2))  # how long it is frozen is the point
            lender.process.send_signal(signal.SIGCONT)
        else:
            lender.kill()
            lend = ("--lend", "--slots", 1, "--peer", first.address)
            self.lenders[place] = self.nodes.start(*lend, data_dir=lender.data_dir)


@pytest.mark.parametrize("device", LIARS)
def test_a_job_survives_kills_frosts_and_a_liar(nodes, device):
    rng = random.Random(f"{SEED} {device}")
    first = nodes.start()
    honest = [nodes.start("--lend", "--slots", 1, "--peer", first.address) for _ in range(3)]
    config = nodes.folder / "liar.toml"
    config.write_text(f'devices = ["lying_device:{device}"]\ndevice_path = "{SUPPORT}"\n')
    liar = nodes.start("--lend", "--slots", 1, "--peer", first.address, "--config", config)
    chaos, listen = Chaos(nodes, honest, rng), first.address.partition("/p2p/")[0]
    n = TASKS * wat.BLOCK
    with Mesh(first.data_dir) as mesh:
        bound = Bound(wat.program(tasks=TASKS, n=n), {0: wat.numbers(n)})
        job = mesh.submit(Work("chaos", bound, quorum(2, 3), Limits(30, 128)), key="chaos").job_id
    named = set()
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            with Mesh(first.data_dir) as mesh:
                named |= set(mesh.future(job).status().verification.liars)
            first.kill()
            first = nodes.start("--listen", listen, listen=None, data_dir=first.data_dir)
        chaos.strike(first)
    with Mesh(first.data_dir) as mesh:
        np.testing.assert_array_equal(mesh.future(job).result(WAIT_S), wat.numbers(n))
        view = mesh.future(job).status()
    assert view.state == "done"
    named |= set(view.verification.liars)
    assert named <= {liar.peer}, "somebody honest is said to have lied"
