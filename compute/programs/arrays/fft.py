"""The standard's Fourier transforms, by the device's library; frequencies and shifts are generated.

Float inputs of the complex transforms are taken as complex numbers. ``norm``: ``backward`` divides the inverse by n,
``forward`` the transform, ``ortho`` both by the root of n; the operation itself is ``backward``, the rest a factor.
"""

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any, Final

from depin_node.compute.programs.arrays.array import Array, as_array
from depin_node.compute.programs.arrays.calls import as_complex, call, floating
from depin_node.compute.programs.arrays.creation import arange
from depin_node.compute.programs.arrays.dtypes import TraceError, dtype_name
from depin_node.compute.programs.arrays.elementwise import astype, conj, where
from depin_node.compute.programs.arrays.manipulation import axes_of, roll

_INVERSE: Final = {"ifftn", "irfftn"}


def _transform(name: str, x: Array, lengths: Any, axes: Any, norm: str) -> Array:
    if norm not in ("backward", "ortho", "forward"):
        raise TraceError(f"norm = {norm!r}: expected 'backward', 'ortho' or 'forward'")
    if axes is None:
        axes = tuple(range(x.ndim))[-len(lengths) :] if lengths is not None else tuple(range(x.ndim))
    along = axes_of(axes, x.ndim, name)
    own = [x.shape[axis] for axis in along]
    if name == "irfftn" and own:
        own[-1] = 2 * (own[-1] - 1)
    sizes = tuple(own if lengths is None else lengths)
    (result,) = call(name, x, axes=along, lengths=sizes)
    count = prod(sizes)
    factor = {"backward": 1.0, "ortho": 1 / sqrt(count), "forward": 1.0 / count}[norm]
    if name in _INVERSE:
        factor = {"backward": 1.0, "ortho": sqrt(count), "forward": float(count)}[norm]
    return result if factor == 1.0 else result * factor


def fftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Array:
    """Return the transform over axes, by default all."""
    return _transform("fftn", as_complex(x, "fftn"), s, axes, norm)


def ifftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Array:
    """Return the inverse transform over axes, by default all."""
    return _transform("ifftn", as_complex(x, "ifftn"), s, axes, norm)


def rfftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Array:
    """Return the transform of real numbers: half of it, along the last of the axes."""
    return _transform("rfftn", floating(x, "rfftn"), s, axes, norm)


def irfftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Array:
    """Return the real numbers of half a transform."""
    return _transform("irfftn", as_complex(x, "irfftn"), s, axes, norm)


def _one(name: str, x: Array, n: int | None, axis: int, norm: str) -> Array:
    return _transform(name, x, None if n is None else (n,), (axis,), norm)


def fft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Return the transform along an axis."""
    return _one("fftn", as_complex(x, "fft"), n, axis, norm)


def ifft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Return the inverse transform along an axis."""
    return _one("ifftn", as_complex(x, "ifft"), n, axis, norm)


def rfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Return half the transform of real numbers along an axis."""
    return _one("rfftn", floating(x, "rfft"), n, axis, norm)


def irfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Return the real numbers of half a transform along an axis."""
    return _one("irfftn", as_complex(x, "irfft"), n, axis, norm)


def fft2(x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str = "backward") -> Array:
    """Return the transform over two axes."""
    return _transform("fftn", as_complex(x, "fft2"), s, axes, norm)


def ifft2(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str = "backward"
) -> Array:
    """Return the inverse transform over two axes."""
    return _transform("ifftn", as_complex(x, "ifft2"), s, axes, norm)


_SWAPPED: Final = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def hfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Return the real transform of a Hermitian signal of which half is given."""
    return _one("irfftn", conj(as_complex(x, "hfft")), n, axis, _SWAPPED.get(norm, norm))


def ihfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """Return half the Hermitian signal of a real transform."""
    return conj(_one("rfftn", floating(x, "ihfft"), n, axis, _SWAPPED.get(norm, norm)))


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Array:
    """Return the frequencies of a transform of ``n`` samples, ``d`` apart."""
    place = arange(n)
    signed = where(place < (n + 1) // 2, place, place - n)
    return astype(signed, "float64" if dtype is None else dtype_name(dtype)) / float(n * d)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Array:
    """Return the frequencies of half a transform of ``n`` real samples, ``d`` apart."""
    return astype(arange(n // 2 + 1), "float64" if dtype is None else dtype_name(dtype)) / float(n * d)


def fftshift(x: Any, /, *, axes: int | Sequence[int] | None = None) -> Array:
    """Return the array with frequency zero in the middle."""
    x = as_array(x)
    along = tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim, "fftshift")
    return roll(x, tuple(x.shape[axis] // 2 for axis in along), axis=along)


def ifftshift(x: Any, /, *, axes: int | Sequence[int] | None = None) -> Array:
    """Return the array with frequency zero at the start again."""
    x = as_array(x)
    along = tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim, "ifftshift")
    return roll(x, tuple(-(x.shape[axis] // 2) for axis in along), axis=along)
