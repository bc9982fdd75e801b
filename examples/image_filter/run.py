"""A photograph made smooth where it nearly is, and left sharp where it is sharp: three passes of a bilateral filter.

The image is cut into six slices of rows. A pass looks four rows around itself, and slices do not see each other's new
rows: so each brings a halo of twelve, enough for three passes. Rows beyond the image are mirrored (``edge="reflect"``).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from place import DATA, Place, difference, main  # noqa: E402 - these folders are
from reference import bilateral, weights  # noqa: E402 - no packages

from depin_node.client import Along, ProgramBuilder, RawKernel  # noqa: E402

RADIUS, PASSES, SLICES = 4, 3, 6
HALO = RADIUS * PASSES
NEAR, LIKE = 2.5, 40.0


def program(image: npt.NDArray[np.uint8], tables: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> ProgramBuilder:
    """Return the steps of a slice."""
    kernel = RawKernel((HERE / "bilateral.cu").read_text(), "bilateral", filename="bilateral.cu")
    steps = ProgramBuilder(shards=SLICES, along=Along(axis=0, halo=HALO, edge="reflect"))
    photograph, after = steps.inout("image", image), steps.temp("after", image.dtype, image.shape)
    rows, cols = steps.shard.rows + 2 * HALO, image.shape[1]
    constants = {"near_weight": tables[0], "like_weight": tables[1]}
    with steps.repeat(PASSES):
        grid = (-(-cols // 16), -(-rows // 16))
        steps.launch(kernel, grid, (16, 16), (photograph, after, rows, cols), radius=RADIUS, constants=constants)
        steps.swap(photograph, after)
    return steps


def example(place: Place) -> bool:
    """Run it, check it, show the photograph before and after."""
    photograph, tables = np.load(DATA / "hopper.npy"), weights(RADIUS, NEAR, LIKE)
    found = place.run(program(photograph, tables))["image"]

    expected = photograph
    for _ in range(PASSES):
        expected = bilateral(expected, *tables)
    place.picture("image_filter.png", np.hstack([photograph, found]))
    return place.judge(bool(np.array_equal(found, expected)), difference(found, expected))


if __name__ == "__main__":
    raise SystemExit(main(example, "image_filter", str(__doc__)))
