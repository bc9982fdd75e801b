"""Answers of tolerant programs, and of different device classes, compared as numbers.

Two honest answers may differ in their last bits, so there is no hash to vote on: rounding first and hashing then would
part honest answers that lie on either side of a rounding border. Instead each answer is a *candidate*, and the answers
that are close to it are counted. Closeness is not transitive: a is close to b and b to c, but a not to c. So nothing is
grouped; the candidate with the most support wins, the first of those that are equal.

Close means, for each element, |a - b| <= relative · max(|a|, |b|) + absolute · (the largest finite |element| of
either), the second for what cancels. NaN is close to NaN only, an infinity to the same one; integers and booleans are
equal or not.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from depin_node.compute.verification.rules import Rule

Array = npt.NDArray[Any]


class Tolerance(NamedTuple):
    """How far two elements may be apart."""

    relative: float
    absolute: float


TOLERANCES: Final = {
    "float16": Tolerance(2.0**-7, 2.0**-10),
    "float32": Tolerance(2.0**-14, 2.0**-18),
    "float64": Tolerance(2.0**-40, 2.0**-46),
    "complex64": Tolerance(2.0**-14, 2.0**-18),
    "complex128": Tolerance(2.0**-40, 2.0**-46),
}
"""By dtype: some thousand units in the last place of an element, and some ten of the largest one."""


def close(a: Array, b: Array, tolerance: Tolerance | None = None) -> bool:
    """Tell whether two arrays are the same but for rounding.

    Args:
        a: of any shape and dtype.
        b: of the same, or they are not.
        tolerance: instead of that of the dtype.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    parts = ((a.real, b.real), (a.imag, b.imag)) if a.dtype.kind == "c" else ((a, b),)
    limits = tolerance or TOLERANCES[a.dtype.name]
    return all(_close(x.astype(np.float64), y.astype(np.float64), limits) for x, y in parts)


def _close(a: Array, b: Array, limits: Tolerance) -> bool:
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    a, b = a[finite], b[finite]
    if not a.size:
        return True
    larger = np.maximum(np.abs(a), np.abs(b))
    with np.errstate(over="ignore"):
        apart = np.abs(a - b)
    return bool((apart <= limits.relative * larger + limits.absolute * larger.max()).all())


def support(answers: Sequence[Sequence[Array]]) -> list[int]:
    """Return for each answer, its arrays in the program's order, how many are close to it; itself is one."""
    near = [[len(a) == len(b) and all(map(close, a, b)) for b in answers] for a in answers]
    return [sum(row) for row in near]


def decide(answers: Sequence[Sequence[Array]], rule: Rule) -> int | None:
    """Return the index of the answer that a rule accepts, or None.

    What it has to lead are the answers that are not close to it.
    """
    counts = support(answers)
    if not counts:
        return None
    best = max(range(len(counts)), key=lambda index: (counts[index], -index))
    others = [counts[index] for index, answer in enumerate(answers) if not all(map(close, answers[best], answer))]
    return best if rule.accepts(counts[best], max(others, default=0)) else None
