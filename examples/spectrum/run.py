"""The seasons in 44 years of CO2 over Mauna Loa: the spectrum of the weekly record, its trend removed.

``amplitudes`` is written against the array API standard: ``trace`` records it for the mesh, and NumPy runs the very
same function for comparison. Its FFT is done by each machine's own library, whose last bits differ, so nobody can be
asked to confirm it bit for bit: it is one peer's word. ``at`` works the amplitude out at both peaks by the definition:
that becomes generated kernels, which are exact: two peers agree on every bit, and the FFT has to say the same.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
from place import DATA, Place, main  # noqa: E402 - this folder is no package

from depin_node.client import quorum, trace  # noqa: E402

PER_YEAR = 365.25 / 7
"""Samples: the record is weekly."""
LENGTH = 1 << 14
"""Of the transform: zeros are appended, for more frequencies between those of the record's length."""
CLOSE = 1e-9
"""In ppm: float64, and sums of 2,284 terms of up to 10 ppm."""


def seasonal(y: Any, trend: Any, window: Any) -> Any:
    """Return the record without its trend, tapered: (n,)."""
    xp = y.__array_namespace__()
    for k in range(trend.shape[1]):
        y = y - xp.sum(y * trend[:, k]) * trend[:, k]
    return y * window


def amplitudes(y: Any, trend: Any, window: Any) -> Any:
    """Return the amplitude at k / LENGTH cycles a sample, k = 0, …, LENGTH / 2."""
    xp = y.__array_namespace__()
    return xp.abs(xp.fft.rfft(seasonal(y, trend, window), n=LENGTH)) * 2.0 / xp.sum(window)


def at(y: Any, trend: Any, window: Any, frequencies: Any) -> Any:
    """Return the amplitude at ``frequencies`` in cycles a sample, (m,), by the definition of the transform."""
    xp = y.__array_namespace__()
    signal = seasonal(y, trend, window)
    angle = 2.0 * np.pi * xp.reshape(frequencies, (-1, 1)) * xp.arange(y.shape[0], dtype=xp.float64)
    real, imaginary = xp.sum(signal * xp.cos(angle), axis=1), xp.sum(signal * xp.sin(angle), axis=1)
    return xp.sqrt(real * real + imaginary * imaginary) * 2.0 / xp.sum(window)


def record() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the record in ppm (n,), its trend's orthonormal basis (n, 3): parabolas, and Hann's window (n,)."""
    y = np.load(DATA / "co2_weekly.npy").astype(np.float64)
    trend, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, len(y)), 3))
    return y, trend, np.hanning(len(y))


def example(place: Place) -> bool:
    """Run it, check it, print the peaks, draw the spectrum."""
    signal = record()
    spectrum = place.run(trace(amplitudes, *signal), verify=quorum(1, 1))["result"]
    cycles = np.arange(len(spectrum)) * PER_YEAR / LENGTH
    peaks = [int(np.argmax(np.where(np.abs(cycles - year) < 0.25, spectrum, 0))) for year in (1, 2)]
    exact = place.run(trace(at, *signal, np.array(peaks) / LENGTH), verify=quorum(2, 3))["result"]

    for peak, name in zip(peaks, ("a year", "half a year"), strict=True):
        print(f"{cycles[peak]:.3f} cycles a year ({name}): {spectrum[peak]:.2f} ppm")
    draw(place.output / "spectrum.png", cycles, spectrum)
    apart = float(np.max(np.abs(spectrum - amplitudes(*signal))))
    agree = float(np.max(np.abs(exact - spectrum[peaks])))
    right = max(apart, agree) < CLOSE and np.allclose(cycles[peaks], (1, 2), atol=0.01)
    return place.judge(bool(right), f"largest difference to NumPy {apart:.1e} ppm, of the FFT to the exact {agree:.1e}")


def draw(path: Path, cycles: npt.NDArray[Any], spectrum: npt.NDArray[Any]) -> None:
    """Draw the spectrum up to three cycles a year."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.12, 2.4), layout="constrained")
    axes.plot(cycles[cycles < 3], spectrum[cycles < 3], color="#3b6ea5", linewidth=1)
    axes.set(xlabel="cycles a year", ylabel="amplitude / ppm", title="CO₂ at Mauna Loa, 1958–2001, trend removed")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"wrote {path}")


if __name__ == "__main__":
    raise SystemExit(main(example, "spectrum", str(__doc__)))
