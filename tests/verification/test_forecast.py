"""What each policy is said to cost and to be worth, before and without a run."""

import pytest

from depin_node.compute.jobs.job import Algebraic, Confidence, Lead, Quorum
from depin_node.compute.verification.bounds import lead_for
from depin_node.compute.verification.forecast import certainty, forecast
from depin_node.compute.verification.rules import runs_here

SURE = Confidence(0.999, 0.2)


@pytest.mark.parametrize(
    ("policy", "here", "attempts", "audits"),
    [
        (Quorum(2, 3), True, 2, 0),
        (Quorum(2, 3, 0.01), True, 2, 0.01),
        (Quorum(2, 3, 0.01), False, 2, 0),
        (Lead(3, 0.5), True, 3, 0.5),
        (SURE, True, 1, pytest.approx(0.0911, abs=1e-4)),
        (SURE, False, lead_for(0.999, 0.2), 0),  # what cannot be audited is replicated
        (Algebraic(), False, 1, 0),
    ],
)
def test_what_a_policy_costs(policy, here, attempts, audits):
    found = forecast(policy, 20_000, 20, runs_here=here)
    assert (found.attempts, found.audits) == (attempts, audits)


def test_what_a_policy_is_worth():
    assert certainty(Quorum(1, 1)) == 0.8
    assert certainty(Quorum(2, 3)) == pytest.approx(0.96)
    assert certainty(Lead(2)) == pytest.approx(16 / 17)
    assert certainty(Algebraic()) == 1 - 2.0**-24
    assert forecast(SURE, 20_000, 20).confidence >= 0.999
    assert forecast(Algebraic(), 1, 1, check_share=0.05).checks == 0.05


def test_which_tasks_a_requester_s_own_node_can_run():
    assert runs_here(("wasm-1",), is_exact=True, has_tolerances=False)
    assert not runs_here(("wasm-1",), is_exact=False, has_tolerances=False)
    assert not runs_here(("wasm-1", "cuda"), is_exact=True, has_tolerances=False)
    assert runs_here(("wasm-1", "cuda"), is_exact=True, has_tolerances=True)
    assert not runs_here(("cuda",), is_exact=False, has_tolerances=True)
