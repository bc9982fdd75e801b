"""The k-means of ``kmeans.cu`` in NumPy, in float32 and in the same order: the same bits."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def kmeans(pixels: Array, centre: Array, rounds_max: int) -> tuple[Array, Array, int]:
    """Return centres (k, 3) float32, labels (n,) uint8, and after how many rounds no pixel of (n, 3) uint8 moved."""
    centre, label = centre.copy(), np.zeros(len(pixels), np.uint8)
    for number in range(1, rounds_max + 1):
        d = pixels[:, None, :].astype(np.float32) - centre
        d2 = d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1] + d[..., 2] * d[..., 2]
        nearest = d2.argmin(1).astype(np.uint8)
        count = np.bincount(nearest, minlength=len(centre))
        sums = np.stack([np.bincount(nearest, pixels[:, c], len(centre)) for c in range(3)], 1)
        some = count > 0
        centre[some] = sums[some].astype(np.float32) / count[some, None].astype(np.float32)
        if np.array_equal(nearest, label):
            return centre, label, number
        label = nearest
    return centre, label, rounds_max
