"""The hill-shading of ``hillshade.cu`` in NumPy: what the mesh's answer is compared with."""

import numpy as np
import numpy.typing as npt


def hillshade(
    z: npt.NDArray[np.int16], dx: float, dy: float, east: float, north: float, up: float
) -> npt.NDArray[np.float64]:
    """Return the brightness, 0 to 1, (rows, cols) float64, of heights ``z`` (rows, cols) in m; see ``hillshade.cu``."""
    padded = np.pad(z.astype(np.float64), 1, mode="edge")
    rows, cols = z.shape

    def at(row: int, col: int) -> npt.NDArray[np.float64]:
        return padded[1 + row : 1 + row + rows, 1 + col : 1 + col + cols]

    p = ((at(-1, 1) + 2 * at(0, 1) + at(1, 1)) - (at(-1, -1) + 2 * at(0, -1) + at(1, -1))) / (8 * dx)
    q = ((at(-1, -1) + 2 * at(-1, 0) + at(-1, 1)) - (at(1, -1) + 2 * at(1, 0) + at(1, 1))) / (8 * dy)
    return np.maximum((up - east * p - north * q) / np.sqrt(1 + p * p + q * q), 0.0)
