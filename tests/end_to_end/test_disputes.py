"""A program of forty steps on real nodes: the one that slips at the seventh is named by it, and nobody else."""

import time
from pathlib import Path

import numpy as np
import pytest
import wat_programs as wat

from depin_node.client import Limits, Mesh, ProgramBuilder, RawKernel, confidence, quorum
from depin_node.client.work import Work
from depin_node.compute.programs.binding import Bound

pytestmark = pytest.mark.net
SUPPORT = Path(__file__).parents[1] / "support"
WAIT_S = 120
SOURCE = """
extern "C" __global__ void smooth(const float* u, float* v, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) v[i] = (u[i > 0 ? i - 1 : 0] + 2 * u[i] + u[i < n - 1 ? i + 1 : n - 1]) / 4;
}
"""
N, ROUNDS = 4000, 20
U = np.random.default_rng(3).random(N, dtype="float32")


def smoothing():
    steps = ProgramBuilder()
    u, v = steps.inout("u", U), steps.temp("v", "float32", U.shape)
    with steps.repeat(ROUNDS):
        steps.launch(RawKernel(SOURCE, "smooth"), -(-N // 64), 64, (u, v, N))
        steps.swap(u, v)
    return steps


def smoothed():
    u = U
    for _ in range(ROUNDS):
        padded = np.pad(u, 1, "edge")
        u = (padded[:-2] + 2 * u + padded[2:]) / 4
    return u


def configured(nodes, name, text):
    config = nodes.folder / f"{name}.toml"
    config.write_text(text)
    return "--config", config


def device(nodes, name):
    return configured(nodes, name, f'devices = ["lying_device:{name}"]\ndevice_path = "{SUPPORT}"\n')


def told(job, kind):
    return [line.detail for line in job.story() if line.kind == kind]


def test_a_liar_is_named_by_the_first_step_that_it_did_wrongly(nodes):
    first = nodes.start()
    lend = ("--lend", "--slots", 1, "--peer", first.address)
    lenders = [nodes.spawn(*lend, *device(nodes, "SlippingDevice")), nodes.spawn(*lend)]
    liar, honest = [node.wait_ready().peer for node in lenders]
    with Mesh(first.data_dir) as mesh:
        job = mesh.run(smoothing(), verify=quorum(2, 3))
        ends_s = time.monotonic() + WAIT_S
        while not told(job, "walks"):  # those two differ: whoever comes later decides nothing
            assert time.monotonic() < ends_s
            time.sleep(0.05)  # between two looks at what is waited for
        third = nodes.start(*lend).peer
        np.testing.assert_array_equal(job.result(WAIT_S), smoothed())
        assert told(job, "caught") == [f"it did step 7 of {2 * ROUNDS} wrongly"]
        assert job.status().verification.liars == (liar,)
    assert liar not in (honest, third)


def test_peers_audit_for_a_node_that_does_not_itself(nodes):
    """Accomplices are one in five: some of its wrong answers are given to others, who say something else."""
    first = nodes.start(*configured(nodes, "small", "audits_here = false\n"))
    lend = ("--lend", "--slots", 1, "--peer", first.address)
    lenders = [nodes.spawn(*lend, *device(nodes, "ColludingDevice")), *[nodes.spawn(*lend) for _ in range(4)]]
    liar, *_ = [node.wait_ready().peer for node in lenders]
    tasks = 120
    n = tasks * wat.BLOCK
    with Mesh(first.data_dir) as mesh:
        bound = Bound(wat.program(tasks=tasks, n=n), {0: wat.numbers(n)})
        job = mesh.submit(Work("peers", bound, confidence(0.98, 0.2), Limits(3, 128)))
        np.testing.assert_array_equal(job.result(WAIT_S), wat.numbers(n))
        checked = job.status().verification
    assert set(checked.liars) <= {liar}
    assert (checked.audits, checked.provisional) == (0, 0)
    assert checked.attempts > tasks
