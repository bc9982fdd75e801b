"""Array operations checked without a second run: a random projection of what must hold of a right result.

``matmul`` is checked as Freivalds did (*Probabilistic machines can use less running time*, 1977): C = A B if
A (B x) = C x for a random x. With x of signs ±1 an element of C that is wrong by more than what rounding explains
for its row is found with probability at least 1/2 in each round, whatever else is wrong: of the two signs of x there,
at most one hides it. ``ROUNDS`` rounds miss it with probability 2^-ROUNDS. The signs come from a secret, and are drawn
after the answer was fixed.

What rounding explains is the usual bound of a sum of n products, n u |A| |B| (Higham, *Accuracy and Stability of
Numerical Algorithms*, 2002, ch. 3), u being the unit roundoff of the answer's dtype; the check computes in at least
float64. Factorisations are checked by residual and orthogonality in the same way, against bounds of norms (ch. 9, 10,
19, 20). Fourier transforms are linear: ``ROUNDS`` sums of them with random signs are transformed here; of
fewer, each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.operations import Attribute
from depin_node.compute.verification.findings import Finding, Outcome

ROUNDS: Final = 24
"""A wrong result passes with probability 2^-24."""
Array = npt.NDArray[Any]
FAR: Final = 64.0
"""What is so many times further off than the bound is taken for a lie: the bounds leave out constants."""
_NORMWISE: Final = 16.0
"""Constants of backward-stable algorithms, beyond the dimension: LAPACK's, and growth of LU where nobody seeks it."""


def check(
    name: str,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    attributes: Mapping[str, Attribute],
    seed: bytes,
) -> Finding:
    """Check the results of one array operation.

    Args:
        name: of ``CHECKS``.
        inputs: what it was given.
        outputs: what came of it, in its order.
        attributes: as ``programs.operations`` has them.
        seed: from a secret, after the outputs were fixed.
    """
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, array in enumerate(arrays):
            if not np.isfinite(array).all():
                return Finding(Outcome.UNCHECKED, f"{name}: {kind} {index} has elements that are not finite")
    with np.errstate(all="ignore"):
        for outcome, slack in ((Outcome.RIGHT, 1.0), (Outcome.ODD, FAR)):
            why = CHECKS[name](inputs, outputs, attributes, Lot(seed, slack))
            if not why:
                return Finding(outcome, "" if slack == 1 else f"{name}: off by more than rounding should explain")
    return Finding(Outcome.WRONG, why)


class Lot:
    """Random signs from a secret, and how much more than rounding explains is allowed: ``slack`` times as much."""

    def __init__(self, seed: bytes, slack: float = 1.0) -> None:
        self._rng = np.random.default_rng(int.from_bytes(seed, "little"))
        self._slack = slack

    def signs(self, *shape: int) -> Array:
        """Return an array of -1 and 1."""
        return self._rng.integers(0, 2, shape).astype(np.float64) * 2 - 1

    def differ(self, left: Array, right: Array, allowed: Array | float) -> bool:
        """Tell whether an element is further off than is allowed."""
        return not bool((np.abs(left - right) <= self._slack * np.asarray(allowed)).all())


def unit(*arrays: Array) -> float:
    """Return the unit roundoff of the coarsest of some arrays."""
    return max(float(np.finfo(array.dtype).eps) / 2 for array in arrays)


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _matmul(inputs: Sequence[Array], outputs: Sequence[Array], _: Mapping[str, Attribute], lot: Lot) -> str:
    a, b, c = map(_wide, (inputs[0], inputs[1], outputs[0]))
    x = lot.signs(c.shape[-1], ROUNDS)
    n, u = a.shape[-1], unit(*inputs, *outputs)
    rows = np.abs(a) @ np.abs(b).sum(axis=-1, keepdims=True)  # of |A| |B|, summed as x sums
    allowed = 4 * (n + 2) * u * rows + c.shape[-1] * unit(c) * np.abs(c).sum(axis=-1, keepdims=True)
    allowed += float(np.finfo(outputs[0].dtype).tiny)
    return "matmul: the product is not the inputs'" if lot.differ(a @ (b @ x), c @ x, allowed) else ""


def _projected(lot: Lot, left: Array, right: Array, scale: Array, n: int, u: float) -> bool:
    """Tell whether two projections differ by more than a backward-stable algorithm may; ``scale``: by matrix."""
    return lot.differ(left, right, _NORMWISE * n * u * scale[..., None, None])


def _norm(array: Array) -> Array:
    norm: Array = np.sqrt((np.abs(array) ** 2).sum(axis=(-1, -2)))
    return norm


def _adjoint(array: Array) -> Array:
    return np.conj(np.swapaxes(array, -1, -2))


def _orthogonal(q: Array, lot: Lot, u: float) -> bool:
    x = lot.signs(q.shape[-1], ROUNDS)
    return not lot.differ(
        _adjoint(q) @ (q @ x),
        np.broadcast_to(x, (*q.shape[:-2], *x.shape)),
        _NORMWISE * max(q.shape[-2:]) * u * q.shape[-1] ** 0.5,
    )


def _solve(inputs: Sequence[Array], outputs: Sequence[Array], _: Mapping[str, Attribute], lot: Lot) -> str:
    a, b, x = map(_wide, (inputs[0], inputs[1], outputs[0]))
    v = lot.signs(x.shape[-1], ROUNDS)
    scale = (_norm(a) * _norm(x) + _norm(b)) * x.shape[-1] ** 0.5
    bad = _projected(lot, a @ (x @ v), b @ v, scale, a.shape[-1], unit(*inputs, *outputs))
    return "solve: the solution leaves a residual" if bad else ""


def _inv(inputs: Sequence[Array], outputs: Sequence[Array], _: Mapping[str, Attribute], lot: Lot) -> str:
    a, x = map(_wide, (inputs[0], outputs[0]))
    v = lot.signs(a.shape[-1], ROUNDS)
    scale = _norm(a) * _norm(x) * a.shape[-1] ** 0.5
    bad = _projected(
        lot, a @ (x @ v), np.broadcast_to(v, (*a.shape[:-2], *v.shape)), scale, a.shape[-1], unit(*outputs)
    )
    return "inv: times the matrix it is not one" if bad else ""


def _cholesky(inputs: Sequence[Array], outputs: Sequence[Array], attributes: Mapping[str, Attribute], lot: Lot) -> str:
    a, factor = map(_wide, (inputs[0], outputs[0]))
    lower = _adjoint(factor) if attributes["upper"] else factor
    if np.triu(lower, 1).any() or not (np.diagonal(lower, axis1=-2, axis2=-1).real > 0).all():
        return "cholesky: the factor is not triangular with a positive diagonal"
    whole = np.tril(a) + _adjoint(np.tril(a, -1))  # what the library reads of it
    v = lot.signs(a.shape[-1], ROUNDS)
    bad = _projected(
        lot, lower @ (_adjoint(lower) @ v), whole @ v, _norm(whole) * a.shape[-1] ** 0.5, a.shape[-1], unit(*outputs)
    )
    return "cholesky: the factor's square is not the matrix" if bad else ""


def _qr(inputs: Sequence[Array], outputs: Sequence[Array], _: Mapping[str, Attribute], lot: Lot) -> str:
    a, q, r = map(_wide, (inputs[0], *outputs))
    if np.tril(r, -1).any():
        return "qr: R is not triangular"
    u = unit(*outputs)
    if not _orthogonal(q, lot, u):
        return "qr: Q is not orthogonal"
    v = lot.signs(a.shape[-1], ROUNDS)
    bad = _projected(lot, q @ (r @ v), a @ v, _norm(a) * a.shape[-1] ** 0.5, max(a.shape[-2:]), u)
    return "qr: Q R is not the matrix" if bad else ""


def _svd(inputs: Sequence[Array], outputs: Sequence[Array], _: Mapping[str, Attribute], lot: Lot) -> str:
    a, left, values, right = map(_wide, (inputs[0], *outputs))
    if (values < 0).any() or (np.diff(values, axis=-1) > 0).any():
        return "svd: the singular values are not in descending order"
    u, k = unit(*outputs), values.shape[-1]
    if not _orthogonal(left, lot, u) or not _orthogonal(_adjoint(right), lot, u):
        return "svd: a factor is not orthogonal"
    v = lot.signs(a.shape[-1], ROUNDS)
    product = left[..., :k] @ (values[..., None] * (right[..., :k, :] @ v))
    bad = _projected(lot, product, a @ v, _norm(a) * a.shape[-1] ** 0.5, max(a.shape[-2:]), u)
    return "svd: the factors' product is not the matrix" if bad else ""


def _eigh(inputs: Sequence[Array], outputs: Sequence[Array], _: Mapping[str, Attribute], lot: Lot) -> str:
    a, values, vectors = map(_wide, (inputs[0], *outputs))
    if (np.diff(values, axis=-1) < 0).any():
        return "eigh: the eigenvalues are not in ascending order"
    u = unit(*outputs)
    if not _orthogonal(vectors, lot, u):
        return "eigh: the eigenvectors are not orthogonal"
    whole = np.tril(a) + _adjoint(np.tril(a, -1))
    v = lot.signs(a.shape[-1], ROUNDS)
    product = vectors @ (values[..., None] * (_adjoint(vectors) @ v))
    bad = _projected(lot, product, whole @ v, _norm(whole) * a.shape[-1] ** 0.5, a.shape[-1], u)
    return "eigh: the factors' product is not the matrix" if bad else ""


def _transform(name: str) -> "_Check":
    function = getattr(np.fft, name)

    def check_transform(
        inputs: Sequence[Array], outputs: Sequence[Array], attributes: Mapping[str, Attribute], lot: Lot
    ) -> str:
        axes, lengths = attributes["axes"], attributes["lengths"]
        assert isinstance(axes, tuple)
        assert isinstance(lengths, tuple)
        x, y = (_batches(_wide(array), axes) for array in (inputs[0], outputs[0]))
        u, count, scale = unit(*inputs, *outputs), float(np.prod(lengths)), float(np.sqrt((np.abs(x) ** 2).sum()))
        scale *= count**-0.5 if name.startswith("i") else count**0.5
        if len(x) > ROUNDS:
            signs = lot.signs(ROUNDS, len(x))
            scale *= len(x) ** 0.5
            x, y = (np.tensordot(signs, array, 1) for array in (x, y))
        wanted = function(x, s=lengths, axes=range(1, x.ndim))
        bad = lot.differ(y, wanted, _NORMWISE * (1 + np.log2(count)) * u * scale)
        return f"{name}: the transform is not the input's" if bad else ""

    return check_transform


def _batches(array: Array, axes: tuple[int, ...]) -> Array:
    """Return an array with the transformed axes last, in their order, and all others as one before them."""
    axes = tuple(axis % array.ndim for axis in axes)
    moved = np.moveaxis(array, axes, range(array.ndim - len(axes), array.ndim))
    return moved.reshape(-1, *moved.shape[array.ndim - len(axes) :])


_Check = Callable[[Sequence[Array], Sequence[Array], Mapping[str, Attribute], Lot], str]
CHECKS: Final[Mapping[str, _Check]] = {
    "matmul": _matmul,
    "solve": _solve,
    "inv": _inv,
    "cholesky": _cholesky,
    "qr": _qr,
    "svd": _svd,
    "eigh": _eigh,
    **{name: _transform(name) for name in ("fftn", "ifftn", "rfftn", "irfftn")},
}
"""By name, the operations that can be checked. svdvals, eigvalsh, det, slogdet, pinv give nothing cheap to check."""
