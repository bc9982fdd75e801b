"""The filter of ``bilateral.cu`` in NumPy, in float32 and in the same order: the same bits."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def weights(radius: int, near: float, like: float) -> tuple[Array, Array]:
    """Return the weights by distance, (2·radius + 1,)², and by difference in colour, (766,), both float32.

    Args:
        radius: in pixels.
        near: the standard deviation of the distance, in pixels.
        like: of the difference in colour, summed over red, green and blue, each 0 to 255.
    """
    along = np.arange(-radius, radius + 1)
    by_distance = np.exp(-(along[:, None] ** 2 + along**2) / (2 * near**2))
    by_colour = np.exp(-(np.arange(766) ** 2) / (2 * like**2))
    return by_distance.astype(np.float32), by_colour.astype(np.float32)


def bilateral(image: Array, by_distance: Array, by_colour: Array) -> Array:
    """Return ``image``, (rows, cols, 3) uint8, filtered; beyond its edges it is mirrored."""
    radius, (rows, cols, _) = len(by_distance) // 2, image.shape
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), "reflect")
    total, colour = np.zeros((rows, cols, 1), np.float32), np.zeros(image.shape, np.float32)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            other = padded[dy : dy + rows, dx : dx + cols]
            apart = np.abs(other.astype(np.int32) - image).sum(-1, keepdims=True)
            weight = by_distance[dy, dx] * by_colour[apart]
            total += weight
            colour += weight * other
    return (colour / total + np.float32(0.5)).astype(np.uint8)
