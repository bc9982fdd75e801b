"""What a policy asks of one task's answers: how many attempts, and when an answer is accepted.

All policies are one family. An answer is accepted once ``agree`` providers of different groups gave it and it leads any
other by ``lead``; attempts are started until that is so, or must become so if those that are out agree, but never more
than ``most`` are counted. What comes after an answer was accepted (audits, settlement) is ``settlement.py``.

| policy | agree | lead | most |
|---|---|---|---|
| ``quorum(k, n)`` | k | 0: more than half of n is k | n |
| ``lead(d)`` | d | d | as many as it takes, within ``ATTEMPTS_MAX`` |
| ``confidence(p, f)``, audits on this node | 1 | 0 | 1 |
| the same, audits by peers | 1 | 0 | 1: those that run it again have a ballot of their own (``audit_by``) |
| the same where nobody can audit, or an audit is contradicted | as ``lead(lead_for(p, f))`` |
| algebraic | 1 | 0 | 1: the check is what accepts it |
| the same where the numbers allow no check | 2 | 0 | 3 |
"""

from collections.abc import Sequence
from typing import NamedTuple

from depin_node.compute.jobs.job import Algebraic, Confidence, Lead, Policy, Quorum, Results
from depin_node.compute.programs.parts import parts_of
from depin_node.compute.programs.program import Program
from depin_node.compute.verification.bounds import lead_for

ATTEMPTS_MAX = 45
"""Answers that one task may have: three times the longest lead. Honest answers in the majority need fewer."""


OWN_CLASS = "wasm-1"
"""What every node's processor runs."""


def runs_here(device_classes: Sequence[str], *, is_exact: bool, has_tolerances: bool) -> bool:
    """Tell whether a requester's own node gets the same bits as any provider, or numbers that can be compared."""
    if has_tolerances:
        return OWN_CLASS in device_classes
    return is_exact and tuple(device_classes) == (OWN_CLASS,)


def audit_parts(policy: Policy, results: Results, program: Program) -> int:
    """Return into how many parts each result is cut for audits. Parts are compared with the result's bytes: whole
    results are audited where these stay away, or where bits are not what counts."""
    if not isinstance(policy, Confidence) or results is Results.STAY or not program.exact:
        return 1
    return parts_of(program, policy.parts)


def peers_run(device_classes: Sequence[str], *, is_exact: bool, has_tolerances: bool) -> bool:
    """Tell whether any provider of a job's device class gets the same bits as any other."""
    return is_exact and len(device_classes) == 1 and not has_tolerances


class Rule(NamedTuple):
    """When an answer is accepted."""

    agree: int
    lead: int
    most: int

    def wanted(self, best: int, second: int, pending: int, counted: int) -> int:
        """Return how many attempts to start now.

        Args:
            best: how many gave the answer that is given most.
            second: how many gave the next one.
            pending: attempts whose answer is not known yet.
            counted: all of them: known and pending.
        """
        missing = max(self.agree - best, self.lead - (best - second)) - pending
        return max(0, min(missing, self.most - counted))

    def accepts(self, best: int, second: int) -> bool:
        """Tell whether the answer that is given most is accepted."""
        return best >= self.agree and best - second >= self.lead


SINGLE = Rule(1, 0, 1)


def audit_by(peers: int) -> Rule:
    """Return the rule of an answer that so many peers run again: all of them have to agree with it."""
    return Rule(1 + peers, 1 + peers, 1 + peers)


UNCHECKED = Rule(2, 0, 3)


def leading(d: int) -> Rule:
    """Return the rule of ``lead(d)``."""
    return Rule(d, d, ATTEMPTS_MAX)


def rule_of(policy: Policy, *, replicated: bool = False) -> Rule:
    """Return what a policy asks of a task; ``replicated``: its answer is not one that could be audited or checked."""
    if isinstance(policy, Quorum):
        return Rule(policy.k, 0, policy.n)
    if isinstance(policy, Lead):
        return leading(policy.d)
    if isinstance(policy, Confidence) and replicated:
        return leading(lead_for(policy.p, policy.f))
    return UNCHECKED if replicated and isinstance(policy, Algebraic) else SINGLE
