"""The policies' names as users write them; docs/verification.md says what each promises and costs."""

from depin_node.compute.jobs.job import AGREED_AUDITS, Algebraic, Confidence, Lead, Quorum


def quorum(k: int, n: int, *, audits: float | None = None) -> Quorum:
    """Accept a result that ``k`` of at most ``n`` answers agree on, from different groups.

    Args:
        k: how many have to agree; more than half of ``n``.
        n: how many are asked at most.
        audits: the share of agreed results that your node runs once more; by default one in 512, none if k is 1.
    """
    return Quorum(k, n, (AGREED_AUDITS if k > 1 else 0.0) if audits is None else audits)


def lead(d: int, *, audits: float = AGREED_AUDITS) -> Lead:
    """Accept the answer that ``d`` more groups gave than any other; ``audits`` as for ``quorum``."""
    return Lead(d, audits)


def confidence(p: float, f: float, *, parts: int = 1) -> Confidence:
    """Expect at most a share 1 - ``p`` of wrong results, if hostile groups hold at most the share ``f``.

    Args:
        p: the share that is to be right, in the expectation.
        f: the hostile share of what is drawn.
        parts: count, and audit, so many parts of each result by themselves: for few large tasks cut by blocks.
    """
    return Confidence(p, f, parts)


def algebraic() -> Algebraic:
    """Accept what a check here proves of the result of one array operation, without a second run."""
    return Algebraic()
