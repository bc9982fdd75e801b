"""How often to audit, and how sure one can be: the arithmetic of the policies. Derived in docs/verification.md.

The game: a provider hands in n answers whose acceptance is provisional; each is audited with probability a, drawn from
a secret after the answer was fixed; one that is found wrong voids all n. A liar that lies m times is settled with
probability (1 - a)^m, and its *hazard* is h = -ln(1 - a): it expects m e^(-hm) wrong settled answers, at most 1/(e h).
Whoever was caught may come back under another name. If a share f of all draws is hostile, the share of wrong answers
among the settled is, by renewal and reward, at most

    max over x of  f x e^-x / (1 - f + f e^-x) / (h n)  =  W(f / (e (1 - f))) / (h n)

with x = h m and Lambert's W. For that to be at most 1 - p the hazard must be at least W(f / (e (1 - f))) / ((1 - p) n).
"""

from math import ceil, e, exp, expm1, log

MARGIN = 1.13
"""So much more is audited than the bound asks: an expectation that is met exactly is missed half of the time."""
DRAWS = 1 << 64
"""A draw is a number in [0, DRAWS), uniform to who does not know the secret."""


def lambert_w(x: float) -> float:
    """Return the solution w >= 0 of w e^w = x, for x >= 0 (Corless et al., 1996), to a relative 1e-15.

    Newton's method in w - x e^-w: convex and increasing there, so that it converges from the right of the root.
    """
    w = log(1 + x)
    for _ in range(32):
        rest = w - x * exp(-w)
        step = rest / (1 + x * exp(-w))
        w -= step
        if abs(step) <= 1e-15 * (1 + w):
            break
    return w


def hazard(p: float, f: float, n: int) -> float:
    """Return the hazard of a lie in a settlement of ``n`` answers that holds the share of wrong ones to 1 - p."""
    return MARGIN * lambert_w(f / (e * (1 - f))) / ((1 - p) * n)


def audit_rate(p: float, f: float, n: int) -> float:
    """Return the share of ``n`` answers to be audited by the requester itself before they are settled.

    Never below f / (e (1 - p) n), the bound for liars that do not come back; 1 where that exceeds 1: each answer is
    then computed twice.
    """
    return min(1.0, max(-expm1(-hazard(p, f, n)), f / (e * (1 - p) * n)))


def peer_audits(p: float, f: float, n: int) -> float:
    """Return how many peers each of ``n`` answers is to be run by again, on the average, before they are settled.

    The peers are drawn by lot, of other groups; a share f of them is in league with the liar and denies the lie, so
    that k of them all do with probability f^k. An answer that one more peer runs with probability r is not found out
    with f^k (1 - r (1 - f)), and its hazard is the negative logarithm of that. Never below f / (e (1 - p) n (1 - f)),
    as far as that is no more than one.
    """
    needed = _whole_lies(p, f, n)
    each = -log(f)
    k = int(needed / each)
    more = -expm1(k * each - needed) / (1 - f)
    return max(k + min(1.0, max(0.0, more)), min(1.0, f / (e * (1 - p) * n * (1 - f))))


def late_audits(p: float, f: float) -> int:
    """Return how many peers run each answer again of who joined after somebody was caught.

    Such a liar may try again under new names for ever, so that no length of a tab helps: each answer by itself has to
    be right. A task is drawn anew after each catch, and is wrong in the end with f q / (1 - f + f q), q = f^k.
    """
    k = 1
    while f ** (k + 1) / (1 - f + f ** (k + 1)) > 1 - p:
        k += 1
    return k


def _whole_lies(p: float, f: float, n: int) -> float:
    """Return the hazard that is needed: of ``hazard`` and, where that is for less than one lie, what holds one lie.

    Lies are counted in whole ones: at a hazard above 1 + W(f / (e (1 - f))) more than one lie pays less than one.
    """
    needed, one = hazard(p, f, n), 1 + lambert_w(f / (e * (1 - f)))
    if needed <= one:
        return needed
    share = (1 - p) / MARGIN * n
    # f q / ((1 - f + f q) n) = (1 - p) / MARGIN, solved for q = e^-h
    return max(one, -log(share * (1 - f) / (f * (1 - share)))) if share < f else one


def peer_wrong_share(audits: float, f: float, n: int) -> float:
    """Return the largest expected share of wrong answers among settled ones: inverse of ``peer_audits``."""
    k = int(audits)
    q = f**k * (1 - (audits - k) * (1 - f))
    h, one = -log(q), 1 + lambert_w(f / (e * (1 - f)))
    if h <= 0:
        return f
    return min(f, lambert_w(f / (e * (1 - f))) / (h * n) if h <= one else f * q / ((1 - f + f * q) * n))


def threshold(rate: float) -> int:
    """Return the number below which a draw means an audit."""
    return min(DRAWS, ceil(rate * DRAWS))


def wrong_share(rate: float, f: float, n: int) -> float:
    """Return the largest expected share of wrong answers among settled ones at an audit rate: inverse of
    ``audit_rate``."""
    if rate >= 1:
        return 0.0
    if rate <= 0:
        return f
    return min(f, lambert_w(f / (e * (1 - f))) / (-log(1 - rate) * n))


def lead_error(d: int, f: float) -> float:
    """Return the probability that an answer that leads by ``d`` is wrong, if all hostile answers are the same.

    Brun, Edwards, Bang and Medvidovic, *Smart Redundancy for Distributed Computation*, ICDCS 2011.
    """
    return 1 / (1 + ((1 - f) / f) ** d) if f > 0 else 0.0


def lead_for(p: float, f: float) -> int:
    """Return the least lead whose error is at most 1 - p."""
    if f <= 0:
        return 1
    d = max(1, ceil(log(p / (1 - p)) / log((1 - f) / f) - 1e-9))
    return d if lead_error(d, f) <= 1 - p else d + 1
