"""A cluster of 2,048 stars under their own gravity, for 200 steps that stay on the device.

One launch is one step; ``swap`` makes the new places the old ones. The first five steps are held against NumPy bit for
bit, all of them against the conservation of energy.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from place import Place, difference, main  # noqa: E402 - these folders are
from reference import energy, plummer, step  # noqa: E402 - no packages

from depin_node.client import ProgramBuilder, RawModule  # noqa: E402

STARS, STEPS, EARLY = 2048, 200, 5
TIME = 1 / 64
"""Of one step; a star takes about 8 to cross the cluster."""
SOFTENING2 = 0.05**2
ENERGY_DRIFT_MAX = 1e-3


def program(places: npt.NDArray[Any], velocities: npt.NDArray[Any]) -> ProgramBuilder:
    """Return the steps: half a kick, then drifts and kicks in turn, and half a kick again."""
    module = RawModule(code=(HERE / "nbody.cu").read_text(), filename="nbody.cu")
    one, keep = module.get_function("step"), module.get_function("keep")
    steps = ProgramBuilder()
    at, velocity = steps.inout("at", places), steps.inout("velocity", velocities)
    following, early = steps.temp("next", at.dtype, at.shape), steps.out("early", at.dtype, at.shape)

    def advance(kick: float, drift: float) -> None:
        steps.launch(one, STARS // 128, 128, (at, velocity, following, STARS, kick, drift, SOFTENING2))
        steps.swap(at, following)

    advance(TIME / 2, TIME)
    with steps.repeat(EARLY - 1):
        advance(TIME, TIME)
    steps.launch(keep, STARS // 128, 128, (at, early, STARS))
    with steps.repeat(STEPS - EARLY):
        advance(TIME, TIME)
    advance(TIME / 2, 0)
    return steps


def example(place: Place) -> bool:
    """Run it, check it, draw the cluster before and after."""
    places, velocities = plummer(STARS, seed=1)
    found = place.run(program(places, velocities))

    at, velocity = places, velocities
    for number in range(EARLY):
        at, velocity = step(at, velocity, TIME if number else TIME / 2, TIME, SOFTENING2)
    before = energy(places, velocities, SOFTENING2)
    after = energy(found["at"], found["velocity"], SOFTENING2)
    drift = abs(after / before - 1)
    print(f"energy {before:.6f} before, {after:.6f} after {STEPS} steps")
    place.picture("nbody.png", np.hstack([drawn(places), drawn(found["at"])]))
    right = bool(np.array_equal(found["early"], at)) and drift < ENERGY_DRIFT_MAX
    return place.judge(right, f"{EARLY} steps: {difference(found['early'], at)}; energy kept to {drift:.1e}")


def drawn(at: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return how many stars one sees in each of 256 × 256 places, as (256, 256, 3) uint8."""
    counts, _, _ = np.histogram2d(at[:, 1], at[:, 0], 256, ((-3, 3), (-3, 3)))
    light = np.sqrt(np.minimum(counts / 3, 1))
    return (light[..., None] * (255, 235, 190)).astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main(example, "nbody", str(__doc__)))
