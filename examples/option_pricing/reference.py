"""The prices of ``asian.cu`` in NumPy, of the same random numbers; and the European call's in closed form."""

from math import erf, exp, log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def philox(counter: list[Array], key: tuple[int, int]) -> list[Array]:
    """Return the four words, uint32 in uint64, of Philox4x32-10 for counters of four such words."""
    x0, x1, x2, x3 = counter
    for number in range(10):
        k0, k1 = (np.uint64((word + number * weyl) & 0xFFFFFFFF) for word, weyl in zip(key, _WEYL, strict=True))
        first, second = x0 * _MULTIPLIERS[0], x2 * _MULTIPLIERS[1]
        x0, x1 = (second >> _HALF) ^ x1 ^ k0, second & _LOW
        x2, x3 = (first >> _HALF) ^ x3 ^ k1, first & _LOW
    return [x0, x1, x2, x3]


_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def payoffs(paths: int, seed: int, fours: int, spot: float, strike: float, rate: float, volatility: float) -> Array:
    """Return what the Asian and the European call pay on each path, (2, paths) float64, as of today."""
    dt = 1 / (4 * fours)
    growth, shake = (rate - volatility**2 / 2) * dt, volatility * sqrt(dt)
    path, zero = np.arange(paths, dtype=np.uint64), np.zeros(paths, np.uint64)
    way, total = np.zeros(paths), np.zeros(paths)
    for four in range(fours):
        words = philox([path, zero + np.uint64(four), zero, zero], (seed, 0))
        for first, second in (words[:2], words[2:]):
            radius, angle = np.sqrt(-2 * np.log((first + 0.5) / 2**32)), second * (2 * np.pi / 2**32)
            for normal in (radius * np.cos(angle), radius * np.sin(angle)):
                way += growth + shake * normal
                total += np.exp(way)
    last = np.stack([spot * total / (4 * fours), spot * np.exp(way)])
    return exp(-rate) * np.maximum(last - strike, 0)


def black_scholes(spot: float, strike: float, rate: float, volatility: float) -> float:
    """Return the value of a European call of one year (Black and Scholes, 1973)."""
    d1 = (log(spot / strike) + rate + volatility**2 / 2) / volatility
    cumulative = [(1 + erf(d / sqrt(2))) / 2 for d in (d1, d1 - volatility)]
    return spot * cumulative[0] - strike * exp(-rate) * cumulative[1]
