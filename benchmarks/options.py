"""The options of map64 in NumPy: what Ray, Dask and the one process price, in pieces that the cache holds."""

from typing import Any

import numpy as np
import numpy.typing as npt

OPTIONS, SHARDS = 1 << 24, 64
SHARD = OPTIONS // SHARDS
PIECE = 16 << 10
Array = npt.NDArray[np.float32]
f4 = np.float32
_TERMS = ((10, 100), (10, 100), (0.1, 2))


def draw(seed: int, count: int) -> tuple[Array, Array, Array]:
    """Return spot, strike and years of ``count`` options."""
    random = np.random.default_rng(seed)
    spot, strike, years = (f4(low) + random.random(count, f4) * f4(high - low) for low, high in _TERMS)
    return spot, strike, years


def price(spot: Array, strike: Array, years: Array) -> Array:
    """Return what European calls are worth (Black and Scholes, 1973): the kernel's arithmetic."""
    one, half, rate, volatility = f4(1), f4(0.5), f4(0.02), f4(0.3)

    def normal_cdf(d: Any) -> Any:  # Abramowitz and Stegun (1964), 26.2.17
        k = one / (one + f4(0.2316419) * np.abs(d))
        poly = f4(1.330274429)
        for factor in (-1.821255978, 1.781477937, -0.356563782, 0.31938153):
            poly = poly * k + f4(factor)
        tail = f4(0.39894228) * np.exp(-half * d * d) * k * poly
        return np.where(d > 0, one - tail, tail)

    out = np.empty_like(spot)
    for start in range(0, len(spot), PIECE):
        s, x, t = (array[start : start + PIECE] for array in (spot, strike, years))
        root = np.sqrt(t)
        d1 = (np.log(s / x) + (rate + half * volatility * volatility) * t) / (volatility * root)
        out[start : start + PIECE] = s * normal_cdf(d1) - x * np.exp(-rate * t) * normal_cdf(d1 - volatility * root)
    return out


def draw_and_price(shard: int) -> Array:
    """Return the prices of a shard whose options nobody sent; piece by piece, so that they stay in the cache."""
    pieces = (draw(shard * SHARD + start, PIECE) for start in range(0, SHARD, PIECE))
    return np.concatenate([price(*piece) for piece in pieces])


def trivial(task: int) -> Array:
    """Return the saxpy of 1,024 floats of the task's own."""
    x = np.arange(1024 * task, 1024 * (task + 1), dtype=f4)
    return f4(2) * x + f4(1)
