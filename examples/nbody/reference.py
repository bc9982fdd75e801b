"""The steps of ``nbody.cu`` in NumPy, in float32 and in the same order: the same bits. And a cluster to begin with."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def plummer(n: int, seed: int) -> tuple[Array, Array]:
    """Return places with masses, and velocities, both (n, 4) float32, of a star cluster in equilibrium.

    Plummer's model in units where mass, gravitational constant and length scale are 1, by Aarseth, Hénon and Wielen, *A
    comparison of numerical methods for the study of star cluster dynamics*, Astron. Astrophys. 37 (1974), appendix.
    """
    random = np.random.default_rng(seed)

    def directions() -> Array:
        vectors = random.standard_normal((n, 3))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    radius = 1 / np.sqrt(random.uniform(0.001, 0.99, n) ** (-2 / 3) - 1)
    tries = random.uniform(0, (1, 0.1), (100, n, 2))  # of density q²(1 - q²)^3.5, by rejection
    good = tries[..., 1] < tries[..., 0] ** 2 * (1 - tries[..., 0] ** 2) ** 3.5
    share = np.take_along_axis(tries[..., 0], good.argmax(0)[None], 0)[0]
    speed = share * np.sqrt(2) * (1 + radius**2) ** -0.25
    places = np.column_stack([directions() * radius[:, None], np.full(n, 1 / n)])
    velocities = np.column_stack([directions() * speed[:, None], np.zeros(n)])
    for array in (places, velocities):
        array[:, :3] -= array[:, :3].mean(0)
    return places.astype("float32"), velocities.astype("float32")


def step(at: Array, velocity: Array, kick: float, drift: float, softening2: float) -> tuple[Array, Array]:
    """Return places and velocities after one step of ``nbody.cu``."""
    force = np.zeros((3, len(at)), "float32")
    x = at[:, :3].T.copy()
    for other in at:
        d = other[:3, None] - x
        d2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + np.float32(softening2)
        force += d * (other[3] / (d2 * np.sqrt(d2)))
    velocity, at = velocity.copy(), at.copy()
    velocity[:, :3] += np.float32(kick) * force.T
    at[:, :3] += np.float32(drift) * velocity[:, :3]
    return at, velocity


def energy(at: Array, velocity: Array, softening2: float) -> float:
    """Return kinetic and potential energy together, worked out in float64."""
    x, mass = at[:, :3].astype(float), at[:, 3].astype(float)
    d2 = ((x * x).sum(1)[:, None] + (x * x).sum(1) - 2 * x @ x.T) + softening2
    pairs = np.triu(mass[:, None] * mass / np.sqrt(np.maximum(d2, softening2)), 1)
    return float((mass[:, None] * velocity[:, :3].astype(float) ** 2).sum() / 2 - pairs.sum())
