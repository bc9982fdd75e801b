"""What a policy will cost, before anything runs: for ``submit --dry-run``; and what it is worth, afterwards."""

from typing import NamedTuple

from depin_node.compute.jobs.job import Confidence, Lead, Policy, Quorum
from depin_node.compute.verification.algebraic import ROUNDS
from depin_node.compute.verification.bounds import (
    audit_rate,
    lead_error,
    lead_for,
    peer_audits,
    peer_wrong_share,
    wrong_share,
)

HOSTILE_SHARE = 0.2
"""Assumed where a policy names none."""


class Forecast(NamedTuple):
    """A task's expected runs, if everybody is honest; and how sure one can be.

    ``attempts`` by providers, ``audits`` by the requester's own device, which spends a share ``checks`` of a task's
    work on looking at its result; ``confidence`` is the expected share of right results if hostile groups hold at most
    ``hostile_share`` of what is drawn and act together.
    """

    attempts: float
    audits: float
    checks: float
    confidence: float
    hostile_share: float


def forecast(
    policy: Policy,
    tasks: int,
    providers: int,
    *,
    runs_here: bool = True,
    peers_run: bool = False,
    check_share: float = 0.0,
    parts: int = 1,
) -> Forecast:
    """Return what a job costs.

    Args:
        policy: of the job.
        tasks: of the job.
        providers: of different groups, all established.
        runs_here: whether the requester's node can run the tasks itself.
        peers_run: whether, if it cannot, other peers of the provider's class get the same bits.
        parts: into how many each result can be cut, if the policy counts parts.
        check_share: which share of a task's work a check of its result is.
    """
    f = policy.f if isinstance(policy, Confidence) else HOSTILE_SHARE
    confidence = certainty(policy)
    if isinstance(policy, Quorum):
        return Forecast(policy.k, policy.audits * runs_here, 0.0, confidence, f)
    if isinstance(policy, Lead):
        return Forecast(policy.d, policy.audits * runs_here, 0.0, confidence, f)
    if not isinstance(policy, Confidence):
        return Forecast(1.0, 0.0, check_share, confidence, f)
    if not runs_here and peers_run:
        n = max(1, tasks // providers)
        audits = peer_audits(policy.p, f, n)
        return Forecast(1.0 + audits, 0.0, 0.0, 1 - peer_wrong_share(audits, f, n), f)
    if not runs_here:
        d = lead_for(policy.p, f)
        return Forecast(d, 0.0, 0.0, 1 - lead_error(d, f), f)
    n = max(1, tasks // providers) * parts
    rate = audit_rate(policy.p, f, n)
    return Forecast(1.0, rate, 0.0, 1 - wrong_share(rate, f, n), f)


def certainty(policy: Policy) -> float:
    """Return the expected share of right results where no run of a job says more about it."""
    if isinstance(policy, Quorum):
        return 1 - HOSTILE_SHARE**policy.k
    if isinstance(policy, Lead):
        return 1 - lead_error(policy.d, HOSTILE_SHARE)
    return policy.p if isinstance(policy, Confidence) else 1 - 2.0**-ROUNDS
