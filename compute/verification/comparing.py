"""Answers of tolerant programs, and of different device classes, compared as numbers.

Two honest answers may differ in their last bits, so there is no hash to vote on: rounding first and hashing then would
part honest answers that lie on either side of a rounding border. Instead each answer is a *candidate*, and the answers
that are close to it are counted (``quorum.py``). Closeness is not transitive: a is close to b and b to c, but a not to
c. So nothing is grouped; the candidate with the most support wins, the first of those that are equal.

Close means, for each element, |a - b| <= relative · max(|a|, |b|) + absolute · (the largest finite |element| of
either), the second for what cancels. NaN is close to NaN only, an infinity to the same one; integers and booleans are
equal or not. The job states both numbers for each output (``Tolerance``), and whoever answers signs that too.

What is not close is a dispute, and no lie: rounding adds up, and a comparison or a cast turns a last bit into another
number. *Far* is what no rounding explains: a floating-point element, finite in both answers, that is ``FAR`` times
as far off as is allowed. Integers, infinities and NaNs are never far.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from depin_node.compute.jobs.job import Tolerance
from depin_node.compute.verification.findings import Nearness

Array = npt.NDArray[Any]
TOLERANCES: Final = {
    "float16": Tolerance(2.0**-7, 2.0**-10),
    "float32": Tolerance(2.0**-14, 2.0**-18),
    "float64": Tolerance(2.0**-40, 2.0**-46),
    "complex64": Tolerance(2.0**-14, 2.0**-18),
    "complex128": Tolerance(2.0**-40, 2.0**-46),
}
"""By dtype, where a job states nothing else: some thousand units in the last place of an element, and some ten of the
largest one."""
EQUAL: Final = Tolerance(0.0, 0.0)
FAR: Final = 1024.0
PIECE_ELEMENTS: Final = 1 << 18
"""Arrays are compared in pieces, so that what is made of them stays small."""


def default_tolerance(dtype: str) -> Tolerance:
    """Return how far elements of a dtype may be apart unless a job says otherwise."""
    return TOLERANCES.get(dtype, EQUAL)


def nearness(
    answers: Mapping[bytes, Sequence[Array]],
    tolerances: Sequence[Tolerance],
    may_differ: Callable[[bytes, bytes], bool] = lambda a, b: True,
) -> Nearness:
    """Compare answers with each other.

    Args:
        answers: by root, the arrays of an answer, in the program's order.
        tolerances: one for each array.
        may_differ: tells of two roots whether rounding may part them: not if both are of one class and the program is
            exact.
    """
    close, far = set[tuple[bytes, bytes]](), set[tuple[bytes, bytes]]()
    for a, b in combinations(answers, 2):
        pairs = list(zip(answers[a], answers[b], tolerances, strict=True))
        if not may_differ(a, b):
            far |= {(a, b), (b, a)}
        elif all(close_arrays(x, y, limits) for x, y, limits in pairs):
            close |= {(a, b), (b, a)}
        elif any(far_arrays(x, y, limits) for x, y, limits in pairs):
            far |= {(a, b), (b, a)}
    return Nearness(frozenset(close), frozenset(far))


def close_arrays(a: Array, b: Array, limits: Tolerance) -> bool:
    """Tell whether two arrays of one shape are the same but for rounding."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    largest = _largest(a, b)
    return all(
        np.array_equal(x[~finite], y[~finite], equal_nan=True) and _within(x[finite], y[finite], limits, largest)
        for x, y, finite in _pieces(a, b)
    )


def far_arrays(a: Array, b: Array, limits: Tolerance) -> bool:
    """Tell whether two arrays of one shape and dtype differ by more than rounding explains."""
    if a.dtype.kind not in "fc":
        return False
    largest = _largest(a, b)
    return not all(_within(x[finite], y[finite], limits, largest, FAR) for x, y, finite in _pieces(a, b))


def _within(a: Array, b: Array, limits: Tolerance, largest: float, times: float = 1.0) -> bool:
    """Tell whether no element is further off than ``times`` what is allowed; where equal none is, whatever that is."""
    with np.errstate(over="ignore"):
        allowed = times * (limits.relative * np.maximum(np.abs(a), np.abs(b)) + limits.absolute * largest)
        return bool((np.abs(a - b) <= allowed).all())


def _pieces(a: Array, b: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Yield both as float64, real parts and imaginary ones, and where both are finite; piece by piece."""
    a, b = _parts(a), _parts(b)
    for at in range(0, a.size, PIECE_ELEMENTS):
        x, y = (array[at : at + PIECE_ELEMENTS].astype(np.float64) for array in (a, b))
        yield x, y, np.isfinite(x) & np.isfinite(y)


def _parts(array: Array) -> Array:
    """Return an array of floats as one dimension, a complex element as two."""
    flat = array.reshape(-1)
    return flat.view(f"<f{flat.itemsize // 2}") if flat.dtype.kind == "c" else flat


def _largest(*arrays: Array) -> float:
    """Return the largest finite |element|; 0 if there is none."""
    largest = 0.0
    for array in map(_parts, arrays):
        for at in range(0, array.size, PIECE_ELEMENTS):
            piece = np.abs(array[at : at + PIECE_ELEMENTS].astype(np.float64))
            largest = max(largest, float(piece.max(initial=0.0, where=np.isfinite(piece))))
    return largest
