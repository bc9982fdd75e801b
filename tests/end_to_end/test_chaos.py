"""A job among real processes that are killed, frozen and out of disk at seeded moments, with a liar among them and a
requester that is killed too: all results right, each proven liar named, nobody honest.

Three honest lenders, one that cheats (two, if they are in league), one requester. In ``make test`` few strikes and two
kinds of cheats; ``DEPIN_CHAOS_TASKS`` makes the job longer and tries every kind (``make chaos``), ``DEPIN_CHAOS_SEED``
strikes at other moments.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import wat_programs as wat
from copier import copier_config

from depin_node.client import Limits, Mesh, quorum
from depin_node.client.work import Work
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.programs.binding import Bound
from depin_node.core.local import DataDir
from depin_node.crypto.identity import peer_id

pytestmark = [pytest.mark.net, pytest.mark.slow]
SUPPORT = Path(__file__).parents[1] / "support"
LONG = "DEPIN_CHAOS_TASKS" in os.environ
TASKS = int(os.environ.get("DEPIN_CHAOS_TASKS", "600"))
SEED = int(os.environ.get("DEPIN_CHAOS_SEED", "5"))
DEVICES = {
    "bit flips": "BitFlipDevice",
    "constant": "ConstantDevice",
    "stale": "StaleDevice",
    "colluders": "ColludingDevice",
    "slow": "SluggishDevice",
}
NAMED = {"bit flips", "constant", "stale", "colluders", "reveals"}
"""Cheats that prove themselves by what they answer; the others only lose their time."""
KINDS = [*DEVICES, "copier", "reveals", "vanishes"] if LONG else ["bit flips", "reveals"]
ROUNDS = 12 if LONG else 3
WAIT_S = 300
DISK_MIB = 64


class Chaos:
    """Does something bad to an honest lender, and undoes it."""

    def __init__(self, nodes, lenders, rng, disk):
        self.nodes, self.lenders, self.rng, self.disk = nodes, lenders, rng, disk

    def strike(self, first):
        what = self.rng.choice(["freeze", "kill", "fill"] if self.disk else ["freeze", "kill"])
        place = self.rng.randrange(len(self.lenders))
        lender = self.lenders[place]
        if what == "freeze":
            lender.process.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.1, 2))  # how long it is frozen is the point
            lender.process.send_signal(signal.SIGCONT)
        elif what == "kill":
            lender.kill()
            lend = ("--lend", "--slots", 1, "--peer", first.address, "--config", self.nodes.folder / "SlowDevice.toml")
            self.lenders[place] = self.nodes.start(*lend, data_dir=lender.data_dir)
        else:
            filler = fill(self.disk)
            time.sleep(self.rng.uniform(0.1, 2))  # how long its disk is full is the point, too
            filler.unlink()


def fill(folder):
    filler = folder / "filler"
    # No space left is what it is for.
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    return filler


@contextlib.contextmanager
def small_disk(folder):
    """Give a folder on a small file system of its own; None where that takes rights that we do not have."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], capture_output=True, check=False
    )
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def configured(nodes, device):
    config = nodes.folder / f"{device}.toml"
    config.write_text(f'devices = ["lying_device:{device}"]\ndevice_path = "{SUPPORT}"\n')
    return config


def cheats(nodes, kind, first):
    """Start who cheats; return their peer ids."""
    lend = ("--lend", "--slots", 1, "--peer", first.address)
    if kind in DEVICES:
        config = configured(nodes, DEVICES[kind])
        started = [nodes.spawn(*lend, "--config", config) for _ in range(2 if kind == "colluders" else 1)]
    elif kind == "copier":
        started = [nodes.spawn(*lend, "--config", copier_config(nodes.folder, DataDir(first.data_dir).journal))]
    else:
        started = [nodes.spawn(*lend, lie=kind)]
    return {node.wait_ready().peer for node in started}


def banned(journal):
    """Return whom a requester has found out, before a restart or after."""
    records = Journal(journal)
    try:
        return {peer_id(key) for key in records.bans()}
    finally:
        records.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_survives_kills_frosts_full_disks_and_a_cheat(nodes, kind):
    rng = random.Random(f"{SEED} {kind}")
    honest_config = configured(nodes, "SlowDevice")
    with small_disk(nodes.folder / "disk") as disk:
        first = nodes.start()
        lend = ("--lend", "--slots", 1, "--peer", first.address, "--config", honest_config)
        homes = [disk / "data" if disk else None, None, None]
        honest = [nodes.spawn(*lend, data_dir=home) for home in homes]
        honest = [node.wait_ready() for node in honest]
        honest_peers = {node.peer for node in honest}
        liars = cheats(nodes, kind, first)
        chaos, listen = Chaos(nodes, honest, rng, disk), first.address.partition("/p2p/")[0]
        n = TASKS * wat.BLOCK
        policy = quorum(3, 5) if kind == "colluders" else quorum(2, 3)  # two in league are a quorum of two
        with Mesh(first.data_dir) as mesh:
            bound = Bound(wat.program(tasks=TASKS, n=n), {0: wat.numbers(n)})
            job = mesh.submit(Work("chaos", bound, policy, Limits(3, 128)), key="chaos").job_id
        for number in range(ROUNDS):
            if number == ROUNDS // 2:
                first.kill()
                first = nodes.start("--listen", listen, listen=None, data_dir=first.data_dir)
            chaos.strike(first)
        with Mesh(first.data_dir) as mesh:
            np.testing.assert_array_equal(mesh.future(job).result(WAIT_S), wat.numbers(n))
            view = mesh.future(job).status()
        for node in nodes.started:
            node.kill()  # before their disk goes
        named = banned(DataDir(first.data_dir).journal) | set(view.verification.liars)
    assert view.state == "done"
    assert not named & honest_peers, "somebody honest is said to have lied"
    assert named == (liars if kind in NAMED else set())
