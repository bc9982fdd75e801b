"""The standard's linear algebra: products and factorisations by the device's library, the rest as generated kernels.

What the library does is tolerant (``programs/operations.py``): matmul, tensordot, matrix_power of floats, and all that
factorises. Integers are multiplied exactly, by a generated reduction; ``vecdot``, ``outer``, ``cross``, ``trace`` and
the norms of sums are generated too.
"""

from math import prod
from typing import Any, NamedTuple

import numpy as np

from depin_node.compute.programs.arrays.array import Array, as_array, as_arrays, broadcast_shapes
from depin_node.compute.programs.arrays.calls import call, floating
from depin_node.compute.programs.arrays.creation import eye
from depin_node.compute.programs.arrays.dtypes import KINDS, REAL_OF, TraceError
from depin_node.compute.programs.arrays.elementwise import apply, broadcast_to, conj, real
from depin_node.compute.programs.arrays.manipulation import (
    axes_of,
    axis_of,
    concat,
    expand_dims,
    matrix_transpose,
    moveaxis,
    permute_dims,
    reshape,
    squeeze,
)
from depin_node.compute.programs.arrays.statistics import max as max_
from depin_node.compute.programs.arrays.statistics import min as min_
from depin_node.compute.programs.arrays.statistics import sum as sum_
from depin_node.compute.programs.arrays.statistics import vecdot, vector_norm

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


class EighResult(NamedTuple):
    """Eigenvalues, ascending, and eigenvectors as columns."""

    eigenvalues: Array
    eigenvectors: Array


class QRResult(NamedTuple):
    """An orthonormal and an upper triangular factor."""

    Q: Array
    R: Array


class SlogdetResult(NamedTuple):
    """A determinant's sign and the logarithm of its size."""

    sign: Array
    logabsdet: Array


class SVDResult(NamedTuple):
    """Singular vectors as columns, singular values descending, and singular vectors as rows."""

    U: Array
    S: Array
    Vh: Array


def matmul(x1: Any, x2: Any, /) -> Array:
    """Return matrix products; a vector is a row on the left and a column on the right."""
    left, right = as_arrays(x1, x2)
    if not left.ndim or not right.ndim:
        raise TraceError("matmul takes arrays with at least one axis: multiply numbers with *")
    row, column = left.ndim == 1, right.ndim == 1
    left = expand_dims(left, axis=0) if row else left
    right = expand_dims(right, axis=1) if column else right
    if KINDS[left.kind] in "fc":
        (product,) = call("matmul", left, right)
    else:
        product = _exact_product(left, right)
    if column:
        product = squeeze(product, axis=-1)
    return squeeze(product, axis=-1 if column else -2) if row else product


def _exact_product(left: Array, right: Array) -> Array:
    if KINDS[left.kind] == "b":
        raise TraceError("matmul takes numbers; these arrays are bool: convert them with xp.astype")
    if left.shape[-1] != right.shape[-2]:
        raise TraceError(f"matmul: {left.shape} by {right.shape}: the columns do not meet the rows")
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2])
    rows = expand_dims(broadcast_to(left, (*batch, *left.shape[-2:])), axis=-2)
    columns = expand_dims(matrix_transpose(broadcast_to(right, (*batch, *right.shape[-2:]))), axis=-3)
    return sum_(rows * columns, axis=-1, dtype=left.kind)


def tensordot(x1: Any, x2: Any, /, *, axes: int | tuple[Any, Any] = 2) -> Array:
    """Return the sums of products over axes of both."""
    left, right = as_arrays(x1, x2)
    if isinstance(axes, int):
        ours, theirs = tuple(range(left.ndim - axes, left.ndim)), tuple(range(axes))
    else:
        ours, theirs = (axes_of(a, x.ndim, "tensordot") for a, x in zip(axes, (left, right), strict=True))
    if [left.shape[k] for k in ours] != [right.shape[k] for k in theirs]:
        raise TraceError(f"tensordot: {left.shape} and {right.shape} differ along the axes {axes}")
    kept = [k for k in range(left.ndim) if k not in ours], [k for k in range(right.ndim) if k not in theirs]
    count = prod(left.shape[k] for k in ours)
    rows = reshape(permute_dims(left, (*kept[0], *ours)), (left.size // count, count))
    columns = reshape(permute_dims(right, (*theirs, *kept[1])), (count, right.size // count))
    shape = (*(left.shape[k] for k in kept[0]), *(right.shape[k] for k in kept[1]))
    return reshape(matmul(rows, columns), shape)


def outer(x1: Any, x2: Any, /) -> Array:
    """Return all products of two vectors' elements."""
    left, right = as_array(x1), as_array(x2)
    if left.ndim != 1 or right.ndim != 1:
        raise TraceError(f"outer takes vectors, not the shapes {left.shape} and {right.shape}")
    return expand_dims(left, axis=1) * right


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Return cross products of vectors of three."""
    left, right = as_arrays(x1, x2)
    shape = broadcast_shapes(left.shape, right.shape)
    place = axis_of(axis, len(shape), "cross")
    if shape[place] != 3:
        raise TraceError(f"cross: axis {axis} has {shape[place]} elements: expected 3")
    a, b = (moveaxis(broadcast_to(x, shape), place, 0) for x in (left, right))
    parts = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    return moveaxis(concat([expand_dims(part, axis=0) for part in parts], axis=0), 0, place)


def diagonal(x: Any, /, *, offset: int = 0) -> Array:
    """Return diagonals of matrices, as a view."""
    x = _matrices(x, "diagonal")
    *batch, rows, columns = x.shape
    row, column = (0, offset) if offset >= 0 else (-offset, 0)
    length = min(rows - row, columns - column)
    if length < 1:
        raise TraceError(f"diagonal {offset} of {rows} × {columns} has no elements: arrays in programs have some")
    flat = reshape(x, (*batch, rows * columns))
    start = row * columns + column
    return flat[(..., slice(start, start + (length - 1) * (columns + 1) + 1, columns + 1))]


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Array:
    """Return the sums of diagonals."""
    return sum_(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def _matrices(x: Any, function: str) -> Array:
    array = as_array(x)
    if array.ndim < 2:
        raise TraceError(f"{function} takes matrices; this array has the shape {array.shape}")
    return array


def cholesky(x: Any, /, *, upper: bool = False) -> Array:
    """Return triangular factors of positive definite matrices; ends the task if one is not."""
    return call("cholesky", floating(x, "cholesky"), upper=int(upper))[0]


def solve(x1: Any, x2: Any, /) -> Array:
    """Return the solutions of linear systems; ends the task if one is singular. ``x2`` is a vector or matrices."""
    a, b = as_arrays(floating(x1, "solve"), floating(x2, "solve"))
    if b.ndim == 1:
        return squeeze(call("solve", a, expand_dims(b, axis=1))[0], axis=-1)
    return call("solve", a, b)[0]


def inv(x: Any, /) -> Array:
    """Return inverses; ends the task if a matrix is singular."""
    return call("inv", floating(x, "inv"))[0]


def det(x: Any, /) -> Array:
    """Return determinants."""
    return call("det", floating(x, "det"))[0]


def slogdet(x: Any, /) -> SlogdetResult:
    """Return determinants as sign and logarithm."""
    return SlogdetResult(*call("slogdet", floating(x, "slogdet")))


def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """Return QR factors, ``reduced`` or ``complete``."""
    if mode not in ("reduced", "complete"):
        raise TraceError(f"qr: mode = {mode!r}: expected 'reduced' or 'complete'")
    return QRResult(*call("qr", floating(x, "qr"), complete=int(mode == "complete")))


def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """Return singular value decompositions."""
    return SVDResult(*call("svd", floating(x, "svd"), full=int(full_matrices)))


def svdvals(x: Any, /) -> Array:
    """Return singular values, descending."""
    return call("svdvals", floating(x, "svdvals"))[0]


def eigh(x: Any, /) -> EighResult:
    """Return eigenvalues and eigenvectors of symmetric or Hermitian matrices, of which the lower half is read."""
    return EighResult(*call("eigh", floating(x, "eigh")))


def eigvalsh(x: Any, /) -> Array:
    """Return eigenvalues of symmetric or Hermitian matrices, ascending."""
    return call("eigvalsh", floating(x, "eigvalsh"))[0]


def pinv(x: Any, /, *, rtol: float | None = None) -> Array:
    """Return pseudo-inverses; singular values up to ``rtol`` times the largest count as zero."""
    x = _matrices(floating(x, "pinv"), "pinv")
    if rtol is None:
        rtol = max(x.shape[-2:]) * float(np.finfo(REAL_OF.get(x.kind, x.kind)).eps)
    return call("pinv", x, rtol=float(rtol))[0]


def matrix_rank(x: Any, /, *, rtol: Any = None) -> Array:
    """Refused: a rank is decided by singular values that are known within a tolerance only."""
    raise TraceError(
        "matrix_rank counts by singular values, whose last bits differ from machine to machine, so peers might count "
        "differently: make two jobs, the first for xp.linalg.svdvals(x), the second counts in the accepted result"
    )


def matrix_power(x: Any, n: int, /) -> Array:
    """Return the matrix product of ``n`` times ``x``, of its inverse if ``n`` is negative."""
    power = _matrices(x, "matrix_power")
    if n == 0:
        return broadcast_to(eye(power.shape[-1], dtype=power.kind), power.shape)
    if n < 0:
        power, n = inv(power), -n
    result: Array | None = None
    while n > 1 or result is None:
        if n & 1:
            result = power if result is None else matmul(result, power)
        n >>= 1
        power = matmul(power, power) if n else power
    return matmul(result, power) if n else result


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:  # noqa: A002 - the standard's name
    """Return matrix norms: 'fro', 'nuc', ±1, ±2 or ±infinity; 2, -2 and 'nuc' by singular values."""
    x = _matrices(floating(x, "matrix_norm"), "matrix_norm")
    if ord == "fro":
        return apply("sqrt", sum_(real(conj(x) * x), axis=(-2, -1), keepdims=keepdims))
    if ord in (1, -1, float("inf"), float("-inf")):
        sums = sum_(apply("abs", x), axis=-2 if abs(ord) == 1 else -1, keepdims=True)
        result = (max_ if ord > 0 else min_)(sums, axis=(-2, -1), keepdims=True)
    elif ord in (2, -2, "nuc"):
        values = svdvals(x)
        picked = sum_(values, axis=-1) if ord == "nuc" else values[(..., 0 if ord == 2 else -1)]
        result = expand_dims(expand_dims(picked, axis=-1), axis=-1)
    else:
        raise TraceError(f"matrix_norm: ord = {ord!r}: expected 'fro', 'nuc', 1, -1, 2, -2 or infinities")
    return result if keepdims else squeeze(result, axis=(-2, -1))
