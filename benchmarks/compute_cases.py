"""The nine kernels of ``make bench-compute``: their launches, and the same work in NumPy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depin_node.compute.programs.generated import ReductionKernel
from depin_node.compute.programs.kernel import InOut, Out, RawKernel

SOURCES = Path(__file__).parent / "kernels" / "compute"
ELEMENTS, OPTIONS, PIXELS, ITERATIONS, BODIES, WIDTH, ROWS = 16 << 20, 4 << 20, 1024, 256, 4096, 512, 4096
f4 = np.float32
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One kernel.

    Attributes:
        name: also that of its sources.
        grid: blocks along x, y, z; none of a generated kernel.
        block: threads of a block.
        arguments: as ``depin_node`` and, with ``Out`` and ``InOut``, PoCL get them.
        reference: the same in NumPy; a tuple of arrays.
        finish: what is left to do with the kernel's outputs, in the time of both.
        tolerance: relative; 0: equal.
        shared_mem: dynamic shared memory of a block in bytes.
        reduction: instead of a source, a kernel that reduces its argument along axis 1.
    """

    name: str
    grid: Sequence[int]
    block: Sequence[int]
    arguments: Sequence[Any]
    reference: Callable[[], tuple[Array, ...]]
    finish: Callable[[list[Array]], tuple[Array, ...]] = tuple
    tolerance: float = 0.0
    shared_mem: int = 0
    reduction: ReductionKernel | None = None

    @property
    def kernel(self) -> RawKernel | ReductionKernel:
        """A new kernel, which nobody has compiled."""
        return self.reduction or RawKernel((SOURCES / f"{self.name}.cu").read_text(), self.name)

    @property
    def pocl_source(self) -> Path:
        """The kernel in OpenCL C; there need not be one."""
        return SOURCES / f"{self.name}.cl"


def cases() -> list[Case]:
    """Return all nine, with their data."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> npt.NDArray[np.float32]:
        return rng.random(shape, dtype=f4)

    x, y, a, b = floats(ELEMENTS), floats(ELEMENTS), floats(WIDTH, WIDTH), floats(WIDTH, WIDTH)
    stock, strike, years = (
        floats(OPTIONS) * f4(95) + f4(5),
        floats(OPTIONS) * f4(99) + f4(1),
        floats(OPTIONS) * f4(9.75),
    )
    years += f4(0.25)
    bodies, table = floats(BODIES, 4), x.reshape(ROWS, -1)
    picture = rng.integers(0, 256, ELEMENTS, dtype=np.uint8)
    prices = Out("float32", OPTIONS, 256)
    step = 3 / PIXELS
    tile = (16, 16)
    summed: dict[str, Any] = {"finish": lambda parts: (parts[0].sum(keepdims=True),), "tolerance": 1e-4}
    largest = ReductionKernel("T x", "T y", "x", "max(a, b)", "y = a", -math.inf, "row_max")
    return [
        Case(
            "saxpy",
            (ELEMENTS // 256,),
            (256,),
            (x, y, Out("float32", ELEMENTS, 256), 2.5, ELEMENTS),
            lambda: (f4(2.5) * x + y,),
        ),
        Case(
            "black_scholes",
            (OPTIONS // 256,),
            (256,),
            (stock, strike, years, prices, prices, 0.02, 0.3, OPTIONS),
            lambda: _black_scholes(stock, strike, years),
            tolerance=1e-3,
        ),
        Case(
            "mandelbrot",
            (PIXELS // 16, PIXELS // 16),
            (16, 16),
            (Out("int32", (PIXELS, PIXELS), tile), PIXELS, PIXELS, -2.0, -1.5, step, step, ITERATIONS),
            _mandelbrot,
            tolerance=1e-2,
        ),
        Case(
            "nbody",
            (BODIES // 128,),
            (128,),
            (bodies, Out("float32", (BODIES, 4), (128, 4)), BODIES, 1e-3),
            lambda: _nbody(bodies),
            tolerance=1e-3,
            shared_mem=128 * 16,
        ),
        Case(
            "block_reduce",
            (256,),
            (256,),
            (x, Out("float32", 256, 1), ELEMENTS),
            lambda: (x.sum(keepdims=True),),
            shared_mem=1024,
            **summed,
        ),
        Case(
            "tiled_matmul",
            (WIDTH // 16, WIDTH // 16),
            (16, 16),
            (a, b, Out("float32", (WIDTH, WIDTH), tile), WIDTH),
            lambda: (a @ b,),
            tolerance=1e-4,
        ),
        Case(
            "shuffle_reduce",
            (256,),
            (256,),
            (x, Out("float32", 256, 1), ELEMENTS),
            lambda: (x.sum(keepdims=True),),
            **summed,
        ),
        Case(
            "histogram",
            (128,),
            (256,),
            (picture, InOut(np.zeros(256, np.int32)), ELEMENTS),
            lambda: (np.bincount(picture, minlength=256).astype(np.int32),),
        ),
        Case("row_max", (ROWS,), (256,), (table,), lambda: (table.max(1),), shared_mem=1024, reduction=largest),
    ]


def _black_scholes(stock: Array, strike: Array, years: Array) -> tuple[Array, ...]:
    rate, volatility, one, half = f4(0.02), f4(0.3), f4(1), f4(0.5)

    def normal(d: Array) -> Array:
        k = one / (one + f4(0.2316419) * np.abs(d))
        tail = f4(1.781477937) + k * (f4(-1.821255978) + k * f4(1.330274429))
        c = f4(0.3989422804) * np.exp(-half * d * d) * (k * (f4(0.31938153) + k * (f4(-0.356563782) + k * tail)))
        return np.where(d > 0, one - c, c)

    root = np.sqrt(years)
    d1 = (np.log(stock / strike) + (rate + half * volatility * volatility) * years) / (volatility * root)
    d2 = d1 - volatility * root
    c1, c2, discount = normal(d1), normal(d2), np.exp(-rate * years)
    return stock * c1 - strike * discount * c2, strike * discount * (one - c2) - stock * (one - c1)


def _mandelbrot() -> tuple[Array, ...]:
    step = f4(3 / PIXELS)
    places = np.arange(PIXELS, dtype=f4) * step
    c = ((f4(-2) + places)[None, :] + 1j * (f4(-1.5) + places)[:, None]).astype(np.complex64).ravel()
    z, count, inside = np.zeros_like(c), np.zeros(c.size, np.int32), np.arange(c.size)
    for _ in range(ITERATIONS):
        w = z[inside]
        w = w * w + c[inside]
        z[inside] = w
        count[inside] += 1
        inside = inside[w.real * w.real + w.imag * w.imag < 4]
        if not inside.size:
            break
    return (count.reshape(PIXELS, PIXELS),)


def _nbody(bodies: Array) -> tuple[Array, ...]:
    out = np.zeros_like(bodies)
    for first in range(0, BODIES, 256):
        d = bodies[None, :, :3] - bodies[first : first + 256, None, :3]
        inverse = 1 / np.sqrt((d * d).sum(-1) + f4(1e-3))
        s = bodies[None, :, 3] * inverse * inverse * inverse
        out[first : first + 256, :3] = (s[..., None] * d).sum(1)
    return (out,)
