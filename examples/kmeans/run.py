"""A photograph in the eight colours that stand for it best: k-means until no pixel changes its colour any more.

``until`` looks at a number that the device itself sets, so how many rounds it takes is not known before.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from place import DATA, Place, difference, main  # noqa: E402 - these folders are
from reference import kmeans  # noqa: E402 - no packages

from depin_node.client import ProgramBuilder, RawModule  # noqa: E402

COLOURS, ROUNDS_MAX = 8, 200


def first_centres(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the colours of the pixels at evenly spread ranks of brightness."""
    ranks = (np.arange(COLOURS) * 2 + 1) * len(pixels) // (2 * COLOURS)
    return pixels[np.argsort(pixels.sum(1), kind="stable")[ranks]].astype(np.float32)


def program(pixels: npt.NDArray[np.uint8]) -> ProgramBuilder:
    """Return the steps: assign and update, until no pixel moves."""
    module = RawModule(code=(HERE / "kmeans.cu").read_text(), filename="kmeans.cu")
    assign, update = module.get_function("assign"), module.get_function("update")
    steps, n = ProgramBuilder(), len(pixels)
    photograph, centre = steps.input("pixels", pixels), steps.inout("centre", first_centres(pixels))
    label, rounds = steps.out("label", "uint8", n), steps.out("rounds", "int32", 1)
    sums, moved = steps.temp("sums", "uint32", (COLOURS, 4)), steps.temp("moved", "int32", 1)
    done = steps.temp("done", "int32", 1)
    with steps.until(done, max=ROUNDS_MAX):
        steps.launch(assign, -(-n // 256), 256, (photograph, label, centre, sums, moved, n))
        steps.launch(update, 1, COLOURS, (centre, sums, moved, rounds, done))
    return steps


def example(place: Place) -> bool:
    """Run it, check it, paint the photograph in its colours."""
    photograph = np.load(DATA / "hopper.npy")
    pixels = photograph.reshape(-1, 3)
    found = place.run(program(pixels))

    centre, label, rounds = kmeans(pixels, first_centres(pixels), ROUNDS_MAX)
    for k in np.argsort(-np.bincount(label)):
        red, green, blue = found["centre"][k].round().astype(int)
        print(f"#{red:02x}{green:02x}{blue:02x}  {np.mean(found['label'] == k):6.1%} of the pixels")
    painted = found["centre"].round().astype(np.uint8)[found["label"]].reshape(photograph.shape)
    place.picture("kmeans.png", np.hstack([photograph, painted]))
    right = np.array_equal(found["centre"], centre) and np.array_equal(found["label"], label)
    after = int(found["rounds"][0])
    text = f"centres: {difference(found['centre'], centre)}; at rest after {after} rounds"
    return place.judge(right and after == rounds < ROUNDS_MAX, text)


if __name__ == "__main__":
    raise SystemExit(main(example, "kmeans", str(__doc__)))
