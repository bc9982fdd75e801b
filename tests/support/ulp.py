"""Points to try a function of floats at, and how far a result is from the exact one."""

import math
from typing import Any

import mpmath
import numpy as np

mpmath.mp.prec = 120
mpf = mpmath.mpf
POINTS = 100
KINDS = {"float": np.float32, "double": np.float64}
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    3.0,
    -3.0,
    2.5,
    1e-30,
    -1e-30,
    22.0,
    0.84375,
    1.25,
    1e6,
    1e22,
    -1e22,
    3.4e38,
]


def points(dtype: type, low: float, high: float, seed: int) -> np.ndarray:
    """Any bits, evenly spread, near zero, powers: and values where functions change their way."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 2**64, POINTS, dtype=np.uint64)
    any_bits = (
        raw.view(np.float64) if dtype is np.float64 else (raw >> np.uint64(32)).astype(np.uint32).view(np.float32)
    )
    even = rng.uniform(low, high, POINTS)
    scales = np.exp2(rng.uniform(-25, 8, POINTS // 2)) * rng.choice([-1, 1], POINTS // 2)
    parts = [any_bits[np.isfinite(any_bits)], even.astype(dtype), scales.astype(dtype), np.array(SPECIAL, dtype)]
    edges = [np.finfo(dtype).max, np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal * 5]
    return np.concatenate([*parts, np.array([*edges, *(-e for e in edges)], dtype)])


def error_ulp(got: float, wanted: Any, dtype: type) -> float:
    """The error in ulps of the result's type; infinite where one is special and the other is not."""
    info = np.finfo(dtype)
    if mpmath.isnan(wanted) or math.isnan(got):
        return 0.0 if mpmath.isnan(wanted) and math.isnan(got) else math.inf
    largest = mpf(float(info.max))
    if abs(wanted) >= largest * (1 + mpf(2) ** -(info.nmant + 2)):  # rounds to infinity
        return 0.0 if math.isinf(got) and (got > 0) == (wanted > 0) else math.inf
    if math.isinf(got):
        return math.inf
    exponent = mpmath.frexp(wanted)[1] - 1 if wanted else -5000
    ulp = max(mpf(2) ** (exponent - info.nmant), mpf(float(info.smallest_subnormal)))
    return float(abs(mpf(got) - wanted) / ulp)
