"""What a policy will cost, before anything runs: for ``submit --dry-run``."""

from typing import NamedTuple

from depin_node.compute.jobs.job import Confidence, Lead, Policy, Quorum
from depin_node.compute.verification.bounds import audit_rate, lead_error, wrong_share

HOSTILE_SHARE = 0.2
"""Assumed where a policy names none."""


class Forecast(NamedTuple):
    """A task's expected runs, if everybody is honest; and how sure one can be.

    ``attempts`` by providers, ``audits`` by the requester's own device; ``confidence`` is the expected share of right
    results if hostile groups hold at most ``hostile_share`` of what is drawn and act together.
    """

    attempts: float
    audits: float
    confidence: float
    hostile_share: float


def forecast(policy: Policy, tasks: int, providers: int) -> Forecast:
    """Return what a job of ``tasks`` costs with so many ``providers`` of different groups, all established."""
    f = policy.f if isinstance(policy, Confidence) else HOSTILE_SHARE
    if isinstance(policy, Quorum):
        return Forecast(policy.k, 0.0, 1 - f**policy.k, f)
    if isinstance(policy, Lead):
        return Forecast(policy.d, 0.0, 1 - lead_error(policy.d, f), f)
    if isinstance(policy, Confidence):
        n = max(1, tasks // providers)
        rate = audit_rate(policy.p, f, n)
        return Forecast(1.0, rate, 1 - wrong_share(rate, f, n), f)
    return Forecast(1.0, 0.0, 1.0, f)
