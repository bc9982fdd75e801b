"""The part of the corpus that is about numbers: half, complex, CuPy's headers, special functions, named roundings."""

import math
from typing import Any

import mpmath
import numpy as np
from kernel_cases import WAITS, Case

f2, f4, i4 = np.float16, np.float32, np.int32


def number_cases() -> list[Case]:
    rng = np.random.default_rng(5)
    n = 500
    h, g = rng.normal(size=n).astype(f2), rng.normal(size=n).astype(f2)
    h[3], g[4] = np.nan, np.inf
    pairs = rng.integers(-8, 8, (2, 100, 2)).astype(f2)
    signal = rng.normal(size=(3, 64)) + 1j * rng.normal(size=(3, 64))
    z = rng.normal(size=n) * 50 + 1j * rng.normal(size=n) * 50
    matrix = rng.random((13, 29), dtype=f4)
    x = rng.normal(size=n).astype(f4)
    a, b = rng.random(n), rng.random(n) * 1e-9
    v = np.concatenate([rng.uniform(0.1, 12, n - 20), np.arange(1, 21) / 2])
    numbers = rng.integers(-1000, 1000, n, dtype=i4)
    weights, values = rng.integers(-(2**31), 2**31, (64, 9)).astype(i4), rng.integers(-(2**31), 2**31, 9).astype(i4)

    def zeros(*shape: int, dtype: Any = f4) -> np.ndarray:
        return np.zeros(shape, dtype)

    return [
        Case("half_blend", [4], [128], [h, g, zeros(n, dtype=f2), 0.25, n], _half_blend),
        Case("half2_dot", [2], [64], [*pairs, zeros(2), 100], _half2_dot, shapes=WAITS),
        Case("float16_class", [4], [128], [h, zeros(n, dtype=f2), n], _float16_class),
        Case("fft_step", [3], [64], [signal], lambda s: {0: np.fft.fft(s)}, tolerance=1e-13, shapes=WAITS),
        Case("julia", [4, 6], [16, 8], [zeros(48, 64, dtype=i4), -0.75 + 0.25j, 64, 48], _julia),
        Case(
            "impedance",
            [4],
            [128],
            [z, zeros(n, dtype="c16"), zeros(n, dtype="f8"), 50.0, n],
            _impedance,
            tolerance=1e-14,
        ),
        Case(
            "strided_view",
            [2],
            [64],
            [matrix, zeros(29, 13), 13, 29],
            lambda x, o, rows, cols: {1: x.T + x.T * (np.arange(29) // 2).astype(f4)[:, None]},
        ),
        Case(
            "extremes",
            [4],
            [128],
            [x, np.array([-np.inf, np.inf], f4), np.full(1, -1e300), n],
            lambda x, e, w, n: {1: np.array([x.max(), x.min()]), 2: np.array([x.max().astype("f8") * 3])},
        ),
        Case("intervals", [4], [128], [a, b, *zeros(2, n, dtype="f8"), zeros(n), n], _intervals),
        Case("special_functions", [4], [128], [v, zeros(7, n, dtype="f8"), n], _special_functions, tolerance=2e-13),
        Case(
            "type_traits",
            [4],
            [128],
            [numbers, x, zeros(n), n],
            lambda k, y, o, n: {2: (y + f4(1)) * f4(0.5) + f4(3) + (k + 5).astype(f4) + f4(100) + f4(2000) + f4(1)},
            tolerance=1e-6,
        ),
        Case(
            "quantised",
            [2],
            [32],
            [weights, values, zeros(64, dtype=i4), 9],
            lambda w, v, s, k: {2: (w.view("i1").reshape(64, -1).astype(i4) * v.view("i1")).sum(1, dtype=i4)},
        ),
    ]


def _half_blend(x, y, o, t, n):  # type: ignore[no-untyped-def]
    with np.errstate(all="ignore"):
        return {2: (f2(t) * (y - x).astype("f8") + x.astype("f8")).astype(f2)}


def _half2_dot(x, y, sums, n):  # type: ignore[no-untyped-def]
    products = np.zeros((128, 2), f4)
    products[:100] = x.astype(f4) * y  # small integers: every sum is exact
    return {2: products.reshape(2, 64, 2).sum((1, 2))}


def _float16_class(x, o, n):  # type: ignore[no-untyped-def]
    y = (x.astype(f4) * x.astype(f4) + f4(1)).astype(f2)
    y = (y.astype(f4) / f4(3)).astype(f2)
    return {1: np.where(np.isnan(x), f2(0), np.maximum(y, f2(0.5)))}


def _julia(steps, c, width, height):  # type: ignore[no-untyped-def]
    y, x = np.mgrid[:height, :width].astype(f4)
    re, im = x * f4(0.0625) - f4(2), y * f4(0.0625) - f4(1.5)
    steps = np.zeros((height, width), i4)
    alive = np.ones_like(steps, bool)
    with np.errstate(all="ignore"):
        for _ in range(50):
            alive &= re * re + im * im < 16
            re, im = re * re - im * im + f4(c.real), re * im + im * re + f4(c.imag)
            steps += alive
    return {0: steps}


def _impedance(z, gamma, size, z0, n):  # type: ignore[no-untyped-def]
    wanted = (z - z0) / (z + z0)
    return {1: wanted, 2: abs(wanted)}


def _intervals(a, b, low, high, root, n):  # type: ignore[no-untyped-def]
    """Steps to the neighbour where NumPy's result lies on the wrong side; the root is exact or one step wide."""
    from fractions import Fraction

    def towards(exact: Fraction, up: bool) -> float:
        nearest = float(exact)
        wrong = Fraction(nearest) < exact if up else Fraction(nearest) > exact
        return math.nextafter(nearest, math.inf if up else -math.inf) if wrong else nearest

    def both(up: bool) -> np.ndarray:
        found = []
        for p, q in zip(a, b, strict=True):
            total = Fraction(towards(Fraction(float(p)) + Fraction(float(q)), up))
            found.append(towards(Fraction(towards(total * 3, up)) / 7, up))
        return np.array(found)

    s = np.sqrt(a.astype(f4))
    square, value = s.astype("f8") ** 2, a.astype(f4).astype("f8")
    above, below = np.nextafter(s, f4(np.inf)), np.nextafter(s, f4(0))
    width = np.where(square < value, above - s, np.where(square > value, s - below, f4(0)))
    return {2: both(False), 3: both(True), 4: width}


def _special_functions(x, o, n):  # type: ignore[no-untyped-def]
    f = np.vectorize(lambda g, v: float(g(v)), excluded=[0])
    gamma = f(mpmath.gamma, x)
    rest = np.vectorize(math.remainder)(x, 1.5)
    rows = [gamma, gamma, f(lambda v: mpmath.erf(v / mpmath.sqrt(2)), x), x, -2 / (np.pi * x)]
    rows += [f(lambda v: mpmath.besseli(0, v), x), 3 * x + rest + f(mpmath.sinpi, x)]
    return {1: np.array(rows)}
