"""The corpus: each kernel with a launch, its inputs, what NumPy says, and what the compiler has to find out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CORPUS = Path(__file__).parent.parent / "translate" / "corpus"
f4, i4, u4 = np.float32, np.int32, np.uint32
erf = np.vectorize(math.erf, otypes=[float])


@dataclass
class Case:
    """``reference(*arguments)`` gives the arrays that the kernel changes, by their position among the arguments."""

    name: str
    grid: Sequence[int]
    block: Sequence[int]
    arguments: Sequence[Any]
    reference: Callable[..., dict[int, np.ndarray]]
    kernel: str = ""
    options: Sequence[str] = ()
    shared_mem: int = 0
    tolerance: float = 0.0
    shapes: Sequence[str] = ("loop", "fission", "coroutine")
    exact: bool = True
    vector: bool = False
    """Whether the loop shape's module has to have SIMD arithmetic in it."""

    @property
    def source(self) -> str:
        return (CORPUS / f"{self.name}.cu").read_text()


WAITS = ("fission", "coroutine")
DIVERGES = ("coroutine",)
"""Kernels whose threads wait in different places."""


def cases() -> list[Case]:
    from language_cases import language_cases  # they need Case
    from number_cases import number_cases

    rng = np.random.default_rng(20240731)

    def floats(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=f4)

    def ints(*shape: int, low: int = -100, high: int = 100) -> np.ndarray:
        return rng.integers(low, high, shape, dtype=i4)

    def zeros(*shape: int, dtype: Any = f4) -> np.ndarray:
        return np.zeros(shape, dtype)

    n = 1000
    x, y = floats(n), floats(n)
    a, b = floats(37, 37), floats(37, 37)
    tall = floats(1000)
    picture = rng.integers(0, 256, 5000, dtype=np.uint8)
    stock, strike, years = floats(n) * f4(95) + f4(5), floats(n) * f4(99) + f4(1), floats(n) * f4(9.75) + f4(0.25)
    bodies, terrain = floats(70, 4), floats(23, 37) * f4(50)
    grid_in, to_scan, unsorted = ints(37, 50), ints(500), rng.integers(0, 2**32, 512, dtype=np.uint64).astype(u4)
    line, carved = ints(150), floats(96)
    longs = rng.integers(-(2**60), 2**60, n)
    v3a, v3b, planes = floats(n, 3), floats(n, 3), floats(n, 2) - f4(0.5)
    planes[7] = 0
    steps, words, others = ints(n), unsorted.copy(), rng.permutation(unsorted)
    edge = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 1e20, -1e20, 2.5, -2.5, 0.4, 2147483647.0, -0.0], f4)
    wide_edge = np.array([np.nan, np.inf, -np.inf, 5e9, -1.0, 1e30, -1e30, 4294967295.0, 1e19, -9.3e18, 7.9, -7.9])
    counts = np.array([0, 1, 7, 31, 32, 33, 63, 64, 65, 100, 8, 16, 5, 2, 30, 62], i4)
    nan_x, nan_y = np.array([0, 1, np.nan, -np.inf, 2, 6], f4), np.array([0, 0, 1, np.inf, 4, -3], f4)
    rows, doubles, sixteen = ints(50, 12), rng.normal(size=n) * 2, ints(100, 16)
    pairs, ballots = ints(200), ints(150)
    rgba, mask = rng.integers(0, 256, (n, 4), dtype=np.uint8), rng.random(n) < 0.7
    gain = rng.integers(-50, 500, n, dtype=np.int16)
    hits, climbers = ints(777), ints(300)

    return [
        Case("saxpy", [8], [128], [x, y, zeros(n), 2.5, n], lambda x, y, o, a, n: {2: f4(a) * x + y}, vector=True),
        Case("matmul", [5, 5], [8, 8], [a, b, zeros(37, 37), 37], lambda a, b, c, n: {2: a @ b}, tolerance=1e-5),
        Case(
            "matmul_tiled",
            [5, 5],
            [8, 8],
            [a, b, zeros(37, 37), 37],
            lambda a, b, c, n: {2: a @ b},
            tolerance=1e-5,
            shapes=WAITS,
        ),
        Case("reduce_dynamic", [3], [64], [tall, zeros(3), 1000], _reduce_dynamic, shared_mem=256, shapes=WAITS),
        Case(
            "reduce_shuffle",
            [8],
            [128],
            [x.astype("f8"), zeros(8, dtype="f8"), zeros(8, dtype="i8"), n],
            lambda x, o, c, n: {
                1: np.append(x, np.zeros(24)).reshape(8, 128).sum(1),
                2: (np.append(x, np.zeros(24)).reshape(8, 128) > 0.5).sum(1),
            },
            tolerance=1e-12,
            shapes=WAITS,
        ),
        Case(
            "histogram",
            [4],
            [96],
            [picture, zeros(256, dtype=i4), 5000],
            lambda d, h, n: {1: np.bincount(d, minlength=256).astype(i4)},
            shapes=WAITS,
        ),
        Case(
            "black_scholes",
            [8],
            [128],
            [stock, strike, years, zeros(n), zeros(n), 0.02, 0.3, n],
            _black_scholes,
            tolerance=2e-3,
            vector=True,
        ),
        Case("mandelbrot", [5, 7], [8, 8], [zeros(50, 40, dtype=i4), 40, 50, -2.0, -1.5, 0.07, 0.06, 60], _mandelbrot),
        Case("nbody", [3], [32], [bodies, zeros(70, 4), 70, 1e-3], _nbody, tolerance=1e-4),
        Case("hillshade", [5, 3], [8, 8], [terrain, zeros(23, 37), 23, 37, 10.0], _hillshade, tolerance=1e-5),
        Case(
            "transpose",
            [4, 3],
            [16, 4],
            [grid_in, zeros(50, 37, dtype=i4), 37, 50],
            lambda x, o, r, c: {1: x.T},
            shapes=WAITS,
        ),
        Case(
            "scan",
            [4],
            [128],
            [to_scan, zeros(500, dtype=i4), 500],
            lambda x, o, n: {1: np.cumsum(np.append(x, np.zeros(12, i4)).reshape(4, 128), 1, dtype=i4).ravel()[:500]},
            shared_mem=512,
            shapes=WAITS,
        ),
        Case("bitonic", [2], [256], [unsorted], lambda d: {0: np.sort(d.reshape(2, 256), 1).ravel()}, shapes=WAITS),
        Case("early_return", [3], [64], [line, zeros(150, dtype=i4), 150], _early_return, shapes=WAITS),
        Case("divergent_barrier", [2], [64], [zeros(128, dtype=i4)], _divergent_barrier, shapes=DIVERGES),
        Case(
            "carve",
            [3],
            [32],
            [carved, zeros(96), zeros(3, dtype=i4)],
            _carve,
            shared_mem=32 * 16,
            shapes=WAITS,
            exact=False,
        ),
        Case("wide_integers", [8], [128], [longs, zeros(n, dtype="u8"), n, -5], _wide_integers),
        Case(
            "vectors",
            [8],
            [128],
            [v3a, v3b, zeros(n, 3), zeros(n), zeros(n, dtype="i8"), n],
            lambda a, b, s, d, i, n: {
                2: (a + b) * f4(2) + f4(1),
                3: (a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1]) + a[:, 2] * b[:, 2],
                4: np.arange(n) * (np.arange(n) + 1) + 2 * np.arange(n) * (2 * np.arange(n) + 1),
            },
        ),
        Case("complex_class", [8], [128], [planes, zeros(n, 2), zeros(n), n], _complex_class, tolerance=1e-5),
        Case("control", [8], [128], [steps, zeros(n, dtype=i4), n], _control),
        Case("bits", [4], [128], [words, others, zeros(512, dtype="u8"), 512], _bits),
        Case(
            "conversions",
            [1],
            [32],
            [edge, wide_edge, *(zeros(12, dtype=k) for k in ("i4", "u4", "i8", "u1", "i2")), 12],
            _conversions,
        ),
        Case("shifts", [1], [16], [ints(16), counts, zeros(16, dtype="i8"), 16], _shifts),
        Case("nan_bits", [1], [8], [nan_x, nan_y, zeros(6, dtype=i4), 6], _nan_bits),
        Case("tables", [8], [128], [x, zeros(n), n], _tables, tolerance=1e-6),
        Case(
            "recursion",
            [2],
            [32],
            [rows, zeros(50, 12, dtype=i4), zeros(50, dtype=i4), 50],
            lambda x, o, f, n: {1: np.sort(x, 1), 2: np.array([_fibonacci(r % 15) for r in range(50)], i4)},
        ),
        Case("grid3d", [3, 2, 2], [4, 3, 2], [zeros(288, dtype=u4)], _grid3d),
        Case("double_maths", [8], [128], [doubles, zeros(n, dtype="f8"), n], _double_maths, tolerance=1e-12),
        Case("private_array", [4], [32], [sixteen, zeros(100, dtype=i4), 100], _private_array),
        Case("private_scalar", [8], [128], [steps, zeros(n, dtype=i4), n], _private_scalar),
        Case("references", [4], [32], [pairs, 100], _references),
        Case("votes", [2], [80], [ballots, zeros(160, dtype=u4), 150], _votes, shapes=DIVERGES),
        Case("random", [4], [32], [zeros(100, dtype=u4), zeros(100), 0x123456789ABCDEF0, 100], _random),
        Case(
            "small_types",
            [8],
            [128],
            [rgba, mask, gain, zeros(n, dtype=np.uint8), zeros(n, dtype=bool), n],
            _small_types,
        ),
        Case(
            "by_value",
            [1],
            [16],
            [(1.5, 2.0, 3.0, 4.5), True, (0.1, 0.2), 200, (5.0, 6.0, 7.0), -(2**50), (-3, 9), zeros(11, dtype="f8")],
            lambda *_: {7: np.array([1.5, 4.5, 1, 0.1, 0.2, 200, 5, 7, -(2.0**50), -3, 9])},
        ),
        Case(
            "atomics",
            [3],
            [64],
            [hits, np.array([0, 0, 999, -999], i4), np.array([2**32 - 1, 0, 0, 0, 0], u4), zeros(2, dtype="u8"), 777],
            _atomics,
        ),
        Case(
            "cas_loop",
            [3],
            [128],
            [climbers, np.array([-999], i4), 300],
            lambda x, b, n: {1: x.max(keepdims=True)},
            exact=False,
        ),
        Case(
            "float_atomics",
            [8],
            [128],
            [x, zeros(1), zeros(1, dtype="f8"), n],
            lambda x, s, w, n: {1: x.sum(keepdims=True), 2: x.astype("f8").sum(keepdims=True)},
            tolerance=1e-5,
            exact=False,
        ),
        Case(
            "macros",
            [8],
            [128],
            [x, zeros(n), n],
            lambda x, o, n: {1: x * f4(3) + f4(np.pi) + f4(3)},
            kernel="macros",
            options=("-DSCALE=3", "-DUNUSED", "-UUNUSED", "-std=c++14"),
            tolerance=1e-6,
            vector=True,
        ),
        Case(
            "guard_overflow",
            [1],
            [64],
            [zeros(64, dtype=i4), 1 << 27, 1 << 28],
            lambda o, s, n: {0: np.where((i := _wrap(np.arange(64, dtype="i8") * s)) < n, i + 1, 0).astype(i4)},
        ),
        Case(
            "guard_modulo",
            [3],
            [64],
            [zeros(192, dtype=i4), 101],
            lambda o, n: {0: np.where((np.arange(192) % 2 == 1) & (np.arange(192) < n), np.arange(192), 0).astype(i4)},
        ),
        *language_cases(WAITS),
        *number_cases(),
    ]


def _wrap(values: np.ndarray) -> np.ndarray:
    return values.astype("i8").astype("u8").astype(u4).view(i4).astype("i8")


def _reduce_dynamic(x: np.ndarray, out: np.ndarray, n: int) -> dict[int, np.ndarray]:
    lanes = np.zeros(192, f4)
    for start in range(0, n, 192):
        part = x[start : start + 192]
        lanes[: len(part)] += part
    s = lanes.reshape(3, 64)
    k = 32
    while k:
        s = s[:, :k] + s[:, k : 2 * k]
        k //= 2
    return {1: s[:, 0]}


def _black_scholes(s, x, t, call, put, r, v, n):  # type: ignore[no-untyped-def]
    s, x, t = (k.astype("f8") for k in (s, x, t))
    d1 = (np.log(s / x) + (r + 0.5 * v * v) * t) / (v * np.sqrt(t))
    d2 = d1 - v * np.sqrt(t)
    c1, c2, e = (0.5 * (1 + erf(d1 / np.sqrt(2)))), (0.5 * (1 + erf(d2 / np.sqrt(2)))), np.exp(-r * t)
    return {3: s * c1 - x * e * c2, 4: x * e * (1 - c2) - s * (1 - c1)}


def _mandelbrot(out, w, h, x0, y0, dx, dy, most):  # type: ignore[no-untyped-def]
    cr = (f4(x0) + np.arange(w, dtype=f4) * f4(dx))[None, :] + np.zeros((h, 1), f4)
    ci = (f4(y0) + np.arange(h, dtype=f4) * f4(dy))[:, None] + np.zeros((1, w), f4)
    zr, zi, it = np.zeros_like(cr), np.zeros_like(cr), np.zeros(cr.shape, i4)
    for _ in range(most):
        on = zr * zr + zi * zi < 4
        t = zr * zr - zi * zi + cr
        zi = np.where(on, f4(2) * zr * zi + ci, zi)
        zr = np.where(on, t, zr)
        it += on
    return {0: it}


def _nbody(p, acc, n, eps):  # type: ignore[no-untyped-def]
    p = p.astype("f8")
    d = p[None, :, :3] - p[:, None, :3]
    s = p[None, :, 3] / np.sqrt((d * d).sum(-1) + eps) ** 3
    return {1: np.concatenate([(s[..., None] * d).sum(1), np.zeros((n, 1))], 1)}


def _hillshade(z, out, rows, cols, cell):  # type: ignore[no-untyped-def]
    e = np.pad(z.astype("f8"), 1, mode="edge")
    dx, dy = (e[1:-1, 2:] - e[1:-1, :-2]) / (2 * cell), (e[2:, 1:-1] - e[:-2, 1:-1]) / (2 * cell)
    slope, aspect = np.arctan(np.hypot(dx, dy)), np.arctan2(dy, -dx)
    zenith, azimuth = np.pi / 4, 3 * np.pi / 4
    v = np.cos(zenith) * np.cos(slope) + np.sin(zenith) * np.sin(slope) * np.cos(azimuth - aspect)
    return {1: np.maximum(v, 0) * 255}


def _early_return(x, out, n):  # type: ignore[no-untyped-def]
    return {1: np.concatenate([x[s : s + 64][::-1] for s in range(0, n, 64)])}


def _divergent_barrier(out):  # type: ignore[no-untyped-def]
    t = np.arange(64)
    a = t * 3 + (t >= 40) * 1000
    b = a[63 - t] + (t >= 40) * 5
    return {0: np.tile(b[(t + 7) % 64], 2).astype(i4)}


def _carve(x, out, counts):  # type: ignore[no-untyped-def]
    v = x.reshape(3, 32)
    return {1: ((v[:, ::-1].astype("f8") * 2).astype(f4) + v).ravel(), 2: (v > 0.5).sum(1).astype(i4)}


def _wide_integers(x, out, n, shift):  # type: ignore[no-untyped-def]
    with np.errstate(over="ignore"):
        v = x * np.int64(3000000007) + shift
        u = v.view("u8") >> np.uint64(7)
        u ^= np.uint64(8 * 1000 + 16 * 10 + 8)
        u += np.where(v < 0, -1, 1).astype("i8").view("u8") + np.arange(n, dtype="u8")
        return {1: u ^ np.uint64((1 << 40) + (2**64 - 4) // 3)}


def _complex_class(z, out, norms, n):  # type: ignore[no-untyped-def]
    c = (z[:, 0] + 1j * z[:, 1]).astype("c16")
    total, power = 1 + c + c**2 + c**3, c**4
    return {1: np.stack([total.real, total.imag], 1), 2: np.abs(power * power) ** 2}


def _control(x, out, n):  # type: ignore[no-untyped-def]
    results = []
    for v in x.tolist():
        r = v - int(v / 3) * 3
        total, j = 0, 0
        if r == 0:
            total = 10 + (v & 7)
        elif r == 1:
            total = v & 7
        else:
            total = -1
        p, q = 0, v & 15
        while p < q:
            if p != 2:
                if p + q > 40:
                    break
                total += p * q
            p, q = p + 1, q - 1
        while True:
            total ^= j
            j += 3
            if j >= (v & 31):
                break
        while True:
            j -= 1
            if j < 0:
                break
            total += j & 1
        for e in (3, 1, 4, 1, 5):
            total = total * 2 + e
        total += 7 if v > 0 else 6
        total += 201
        while not (total > 0 or j > 50):
            total, j = total + 1000, j + 1
        results.append(total + 1)
    return {1: np.array(results, i4)}


def _signed(v: int, width: int = 32) -> int:
    v &= (1 << width) - 1
    return v - (1 << width) if v >> (width - 1) else v


def _bits(x, y, out, n):  # type: ignore[no-untyped-def]
    results, m32, m64 = [], 2**32 - 1, 2**64 - 1
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        w, sa, sb = a << 32 | b, _signed(a), _signed(b)
        nw = ~w & m64
        h = a.bit_count() + w.bit_count()
        ffs = lambda v: (v & -v).bit_length()  # noqa: E731
        h = h * 31 + (32 - a.bit_length()) + (64 - w.bit_length()) + ffs(b) + ffs(w)
        h = h * 31 + int(f"{a:032b}"[::-1], 2) + int(f"{w:064b}"[::-1], 2)
        h = h * 31 + ((sa * sb >> 32) & m32) + (a * b >> 32)
        h = h * 31 + (w * nw >> 64) + ((_signed(w, 64) * _signed(nw + 12345, 64) >> 64) & m64)
        selector, bytes_ = 0x5140 ^ (a & 0x7777), w_bytes(a, b)
        perm = 0
        for k in range(4):
            c = selector >> (4 * k) & 15
            byte = bytes_[c & 7]
            perm |= (byte if c < 8 else 255 * (byte >> 7)) << (8 * k)
        both = b << 32 | a
        h = h * 31 + perm + ((both << (a & 31)) >> 32 & m32) + (both >> (b & 31) & m32)
        h = h * 31 + (abs(a - b) + 5 & m32) + (a + b >> 1) + (a + b + 1 >> 1) + ((sa + sb >> 1) & m32)
        m24 = (a & 0xFFFFFF) * (b & 0xFFFFFF) & m32
        h = h * 31 + m24 + min(a, b) + (max(sa, sb) & m32) + abs(sb)
        results.append(h & m64)
    return {2: np.array(results, "u8")}


def w_bytes(a: int, b: int) -> bytes:
    return (b << 32 | a).to_bytes(8, "little")


def _saturate(v: float, low: int, high: int) -> int:
    return 0 if np.isnan(v) else max(low, min(high, int(v) if np.isfinite(v) else (high if v > 0 else low)))


def _conversions(x, d, *_):  # type: ignore[no-untyped-def]
    n = len(x)
    a = [_saturate(v, -(2**31), 2**31 - 1) for v in x.tolist()]
    b = [_saturate(v, 0, 2**32 - 1) for v in d.tolist()]
    c = [_signed(_saturate(v, -(2**63), 2**63 - 1) + 2 + 2 - 2, 64) for v in d.tolist()]
    e = [(((i + 250) * 3 << 1) - 7) & 255 for i in range(n)]
    f = [_signed(-(_signed(i * 12345, 16) >> 2) | 1, 16) for i in range(n)]
    scaled = [-(2**31) if v > 1e9 else 25 for v in x.tolist()]  # 10 * 2.55 = 25, 25.75 = 25
    b = [(v + int(w != 0) + (0x100 if np.isnan(w) else 0)) & (2**32 - 1) for v, w in zip(b, x.tolist(), strict=True)]
    a = [_signed(v ^ s) for v, s in zip(a, scaled, strict=True)]
    kinds = ("i4", "u4", "i8", "u1", "i2")
    return {2 + k: np.array(v, kinds[k]) for k, v in enumerate((a, b, c, e, f))}


def _shifts(x, by, out, n):  # type: ignore[no-untyped-def]
    results = []
    for v, s in zip(x.tolist(), by.tolist(), strict=True):
        u = v & (2**32 - 1)
        left, uleft = _signed(v << s) if s < 32 else 0, (u << s) & (2**32 - 1) if s < 32 else 0
        wide = _signed(v << s, 64) if s < 64 else 0
        results.append(
            _signed(
                left * 3 + (v >> min(s, 31)) * 5 + uleft * 7 + (u >> s) * 11 + wide * 13 + (v >> min(s, 63)) * 17, 64
            )
        )
    return {2: np.array(results, "i8")}


def _nan_bits(x, y, out, n):  # type: ignore[no-untyped-def]
    with np.errstate(invalid="ignore", divide="ignore"):
        q = x / y
    bits = lambda v: np.where(np.isnan(v), 0x7FC00000, v.view(i4)).astype("i8")  # noqa: E731
    high = np.where(np.isnan(q), 0x7FF80000, ((-q).astype("f8").view("i8") >> 32).astype(i4)).astype("i8")
    union = bits(-q) ^ ((bits(-q) >> 16) & 0xFFFF)
    return {2: _wrap(bits(-q) * 3 + union * 5 + bits(q) * 7 + bits(-q) * 11 + high).astype(i4)}


def _tables(x, out, n):  # type: ignore[no-untyped-def]
    p, i = np.pad(x, 2), np.arange(n)
    s = sum(f4(w) * p[k : k + n] for k, w in enumerate((0.0625, 0.25, 0.375, 0.25, 0.0625)))
    extra = np.array([0.5, 0.25, 0.125])[i % 3] + np.array([[1, 2], [3, 4]])[i & 1, i // 2 & 1]
    return {1: s * 1.5 + extra + 16 + np.array([7, 11, 13])[i % 3] + np.array([2, 4])[i & 1]}


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)


def _grid3d(out):  # type: ignore[no-untyped-def]
    return {0: (np.arange(12)[:, None] * 10000 + np.arange(24)[None, :] * 10 + 1).ravel().astype(u4)}


def _double_maths(v, out, n):  # type: ignore[no-untyped-def]
    s, c = np.sin(v), np.cos(v)
    m, e = np.frexp(v)
    part, whole = np.modf(v)
    r = (
        np.exp(-v * v)
        + np.log1p(np.abs(v))
        + (np.abs(v) + 0.1) ** 1.7
        + np.arctan2(s, c)
        + np.tanh(v)
        + erf(v)
        + np.cbrt(v)
    )
    r += v * s + c + m * e + part - whole + np.fmod(v, 0.7) + np.hypot(v, 2.0) + np.maximum(v, 0)
    return {1: r + np.ldexp(s, 3) + np.sqrt(np.abs(v))}


def _private_array(x, out, n):  # type: ignore[no-untyped-def]
    results = []
    for row in x & 7:
        bins = np.bincount(row, weights=np.arange(16), minlength=8).astype(int)
        results.append(bins.argmax() * 1000 + bins.max())
    return {1: np.array(results, i4)}


def _private_scalar(x, out, n):  # type: ignore[no-untyped-def]
    results = []
    for i, v in enumerate(x.tolist()):
        slot, a, b = [10, 20, 30, 40], i, -i
        slot[v & 3] += i
        if v & 16:
            a += 5
        else:
            b += 5
        results.append(slot[v >> 2 & 3] + a * 3 + b)
    return {1: np.array(results, i4)}


def _references(x, n):  # type: ignore[no-untyped-def]
    rows = []
    for p, q in x.reshape(-1, 2).tolist():
        low, high = min(p, q), max(p, q)
        divisor = low | 1
        quotient = abs(high) // abs(divisor) * (1 if (high < 0) == (divisor < 0) else -1)
        rows.append([low ^ (high - quotient * divisor), high + max(quotient + 1, 5)])
    return {0: np.array(rows, i4).ravel()}


def _votes(x, out, n):  # type: ignore[no-untyped-def]
    m32, results = 2**32 - 1, []
    values = [*x.tolist(), *[-1] * (160 - n)]
    for block in (values[:80], values[80:]):
        odd, any17, all100 = sum(v & 1 for v in block), 17 in block, all(v < 100 for v in block)
        for start in range(0, 80, 32):
            warp = block[start : start + 32]
            lanes = len(warp)
            mask = sum((v > 0) << k for k, v in enumerate(warp))
            for lane, v in enumerate(warp):
                own = lambda source: warp[source] if source < lanes else v  # noqa: B023, E731
                h = mask * 31 + any(w > 90 for w in warp) * 2 + all(w >= 0 for w in warp)
                h = h * 31 + odd + any17 * 1000 + all100 * 2000
                h = h * 31 + own((lane & ~7) | 3)
                h = h * 31 + (warp[lane - 2] if lane >= 2 else v)
                h = h * 31 + (own(lane + 5) if (lane & 15) + 5 < 16 else v)
                h = h * 31 + own(lane ^ 9)
                if lane < 16:
                    h += own(lane ^ 1) * 7
                results.append(h & m32)
    return {1: np.array(results, u4)}


def _philox(c: list[int], k: list[int]) -> list[int]:
    m32 = 2**32 - 1
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & m32, (p0 >> 32) ^ c[3] ^ k[1], p0 & m32]
        k = [(k[0] + 0x9E3779B9) & m32, (k[1] + 0xBB67AE85) & m32]
    return c


def _random(raw, pi, seed, n):  # type: ignore[no-untyped-def]
    raws, pis = [], []
    for i in range(n):
        inside = 0
        for k in range(32):
            r = _philox([i, k, 0, 0], [seed & (2**32 - 1), seed >> 32])
            x, y = f4(r[0]) * f4(2.3283064e-10), f4(r[1]) * f4(2.3283064e-10)
            inside += bool(x * x + y * y < 1)
            if k == 7:
                raws.append(r[3] ^ ((0x7FFFFF00 + i + 1000) & (2**32 - 1)))
        pis.append(inside / 8)
    return {0: np.array(raws, u4), 1: np.array(pis, f4)}


def _small_types(rgba, mask, gain, grey, bright, n):  # type: ignore[no-untyped-def]
    c = rgba.astype(int)
    v = c[:, 0] * 77 + c[:, 1] * 150 + c[:, 2] * 29 >> 8
    v = np.where(mask, np.trunc(v * gain.astype(int) / 256).astype(int), v)
    return {3: np.clip(v, 0, 255).astype(np.uint8), 4: (v > 128) & mask}


def _atomics(x, first, second, third, n):  # type: ignore[no-untyped-def]
    ands, ors, xors = 2**32 - 1, 0, 0
    inc = dec = 0
    for v in x.tolist():
        ands &= ~(1 << (v & 31))
        ors |= 1 << (v & 15)
        xors ^= v & (2**32 - 1)
        inc = 0 if inc >= 6 else inc + 1
        dec = 9 if dec == 0 or dec > 9 else dec - 1
    signed = np.array([x.sum(), -x.sum(), x.min(), x.max()], i4)
    squares = sum((v & (2**64 - 1)) * v for v in x.tolist()) & (2**64 - 1)
    return {
        1: signed,
        2: np.array([ands & (2**32 - 1), ors, xors, inc, dec], u4),
        3: np.array([squares, (x & 0xFFFF).max()], "u8"),
    }
