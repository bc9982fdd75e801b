"""Jobs among real processes that are killed, frozen and out of disk at seeded moments, with a liar among them and a
requester that is killed too: all results right, each proven liar named, nobody honest.

Three honest lenders, one that cheats (two, if they are in league), one requester. In ``make test`` one mesh meets every
kind of cheat in turn, each with a short job and one fault. ``DEPIN_CHAOS_TASKS`` has a mesh and a long job with many
faults for each kind (``make chaos``), ``DEPIN_CHAOS_SEED`` strikes at other moments.
"""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import wat_programs as wat
from copier import copier_config
from market_world import tolerant

from depin_node.client import Limits, Mesh, quorum
from depin_node.client.work import Work
from depin_node.compute.jobs.job import Quorum
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.programs.binding import Bound
from depin_node.compute.verification.comparing import TOLERANCES
from depin_node.core.local import DataDir
from depin_node.crypto.identity import peer_id

pytestmark = [pytest.mark.net, pytest.mark.slow]
SUPPORT = Path(__file__).parents[1] / "support"
LONG = "DEPIN_CHAOS_TASKS" in os.environ
TASKS = int(os.environ.get("DEPIN_CHAOS_TASKS", "64"))
SEED = int(os.environ.get("DEPIN_CHAOS_SEED", "5"))
ROUNDS = 12
JOBS_MAX = 8
WAIT_S = 300
TWO_OF_THREE = quorum(2, 3)
DISK_MIB = 64


@dataclass(frozen=True)
class Kind:
    """A way to cheat. ``devices``: of those who do, one each; or ``lie``: see ``lying_node.py``. ``honest``: the device
    of one more honest lender. ``is_named``: it proves itself by what it answers; else it only loses its time."""

    devices: tuple[str, ...] = ()
    lie: str = ""
    honest: str = ""
    is_named: bool = True
    policy: Quorum = TWO_OF_THREE
    is_numeric: bool = False


KINDS = {
    "copier": Kind(("copier",), is_named=False),  # first: it copies from the journal, where no other job is yet
    "bit flips": Kind(("BitFlipDevice",)),
    "constant": Kind(("ConstantDevice",)),
    "stale": Kind(("StaleDevice",)),
    "colluders": Kind(("ColludingDevice",) * 2, policy=quorum(3, 5)),  # two in league are a quorum of two
    "slow": Kind(("SluggishDevice",), is_named=False),
    "reveals": Kind(lie="reveals"),
    "vanishes": Kind(lie="vanishes", is_named=False),
    # Four groups are more than either class has: answers of both are compared as numbers.
    "numbers": Kind(("FarDevice",), honest="OtherClassDevice", policy=quorum(4, 7), is_numeric=True, is_named=False),
}
FAULTS = ["kill", "freeze", "requester", "fill"]


class World:
    """A requester and three honest lenders, the first of them on a small disk; what is done to them."""

    def __init__(self, nodes, seed, disk):
        self.nodes, self.rng, self.disk = nodes, random.Random(seed), disk
        self.first = nodes.start()
        self.listen = self.first.address.partition("/p2p/")[0]
        started = [self.spawn("SlowDevice", data_dir=home) for home in (disk / "data" if disk else None, None, None)]
        self.honest = [node.wait_ready() for node in started]
        self.starting = []
        self.honest_peers = {node.peer for node in started}

    def spawn(self, device="", **options):
        """Start a lender, with a device of ours."""
        config = self.nodes.folder / f"{device}.toml"
        if device == "copier":
            config = copier_config(self.nodes.folder, DataDir(self.first.data_dir).journal)
        elif device:
            config.write_text(f'devices = ["lying_device:{device}"]\ndevice_path = "{SUPPORT}"\n')
        lend = ("--lend", "--slots", 1, "--peer", self.first.address)
        return self.nodes.spawn(*lend, *(("--config", config) if device else ()), **options)

    def cheats(self, kind):
        """Start who cheats, and who else is wanted; return the nodes of each."""
        liars = [self.spawn(device) for device in kind.devices] or [self.spawn(lie=kind.lie)]
        honest = [self.spawn(kind.honest)] if kind.honest else []
        self.starting += liars + honest
        self.wait_ready()
        self.honest_peers |= {node.peer for node in honest}
        with Mesh(self.first.data_dir) as mesh:
            deadline = time.monotonic() + WAIT_S
            while not {node.peer for node in liars + honest} <= {p.peer for p in mesh.peers() if p.lending}:
                assert time.monotonic() < deadline
        return liars, honest

    def wait_ready(self):
        """Wait for the lenders that were started."""
        while self.starting:
            self.starting.pop().wait_ready()

    def submit(self, name, kind):
        """Submit a job; return its id, and what is to come out."""
        n = TASKS * wat.BLOCK
        program, x, more = wat.program(tasks=TASKS, n=n), wat.numbers(n), {}
        if kind.is_numeric:
            program = tolerant(program)
            more = {"device_classes": ("wasm-1", "other-1"), "tolerances": (TOLERANCES["float32"],)}
        with Mesh(self.first.data_dir) as mesh:
            work = Work(name, Bound(program, {0: x}), kind.policy, Limits(3, 128), **more)
            return mesh.submit(work, key=name).job_id, x

    def strike(self, fault):
        """Do something bad, and undo it."""
        self.wait_ready()
        place = self.rng.randrange(len(self.honest))
        lender = self.honest[place]
        if fault == "requester":
            self.first.kill()
            self.first = self.nodes.start("--listen", self.listen, listen=None, data_dir=self.first.data_dir)
        elif fault == "kill":
            lender.kill()
            self.honest[place] = self.spawn("SlowDevice", data_dir=lender.data_dir)
            self.starting.append(self.honest[place])
        elif fault == "fill" and self.disk:
            filler = fill(self.disk)
            time.sleep(self.rng.uniform(0.1, 2))  # how long its disk is full is the point
            filler.unlink()
        else:
            lender.process.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.1, 2))  # how long it is frozen is the point, too
            lender.process.send_signal(signal.SIGCONT)

    def see_done(self, job, x, liars, kind):
        """Wait for a job; its results are right, and nobody honest is named. Tell whether who cheats had its chance."""
        with Mesh(self.first.data_dir) as mesh:
            result, view = mesh.future(job).result(WAIT_S), mesh.future(job).status()
        if kind.is_numeric:
            np.testing.assert_allclose(result, x, rtol=2.0**-14)
        else:
            np.testing.assert_array_equal(result, x)
        assert view.state == "done"
        peers = {node.peer for node in liars}
        named = set(view.verification.liars)
        assert not named & self.honest_peers, "somebody honest is said to have lied"
        assert named <= peers
        return peers <= {part.peer for part in view.providers}

    def names(self, liars):
        """Tell whether the requester has found all of them out."""
        with Mesh(self.first.data_dir) as mesh:
            return {node.peer for node in liars} <= {view.peer for view in mesh.peers() if view.banned}

    def banned(self):
        """End all nodes; return whom the requester had found out, before a restart or after."""
        for node in self.nodes.started:
            node.kill()  # before their disk goes
        records = Journal(DataDir(self.first.data_dir).journal)
        try:
            return {peer_id(key) for key in records.bans()}
        finally:
            records.close()


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


@pytest.mark.skipif(LONG, reason="the long ones, asked for by DEPIN_CHAOS_TASKS, meet each kind for longer")
def test_jobs_survive_each_kind_of_cheat_and_of_fault(nodes):
    with small_disk(nodes.folder / "disk") as disk:
        world, liars_named = World(nodes, SEED, disk), set()
        for (name, kind), fault in zip(KINDS.items(), itertools.cycle(FAULTS), strict=False):
            liars, honest = world.cheats(kind)
            for number in range(JOBS_MAX):  # one that is asked for little may not have lied yet
                job, x = world.submit(f"{name} {number}", kind)
                if number == 0:
                    world.strike(fault)
                took_part = world.see_done(job, x, liars, kind)
                if world.names(liars) if kind.is_named else took_part:
                    break  # a short job may have ended before who cheats had any of it
            assert kind.is_named or took_part
            for node in liars + honest:
                node.kill()
            liars_named |= {node.peer for node in liars if kind.is_named}
        assert world.banned() == liars_named


@pytest.mark.skipif(not LONG, reason="takes many minutes: make chaos runs it")
@pytest.mark.parametrize("name", KINDS)
def test_a_long_job_survives_many_faults_and_a_cheat(nodes, name):
    kind = KINDS[name]
    with small_disk(nodes.folder / "disk") as disk:
        world = World(nodes, f"{SEED} {name}", disk)
        liars, _ = world.cheats(kind)
        job, x = world.submit(name, kind)
        for number in range(ROUNDS):
            if number == ROUNDS // 2:
                world.strike("requester")
            world.strike(world.rng.choice(["kill", "freeze", "fill"]))
        took_part = world.see_done(job, x, liars, kind)
        assert kind.is_named or took_part
        deadline = time.monotonic() + WAIT_S
        while kind.is_named and not world.names(liars):  # what lost a vote is run again first
            assert time.monotonic() < deadline
            time.sleep(0.5)  # between two looks at another process
        assert world.banned() == ({node.peer for node in liars} if kind.is_named else set())
