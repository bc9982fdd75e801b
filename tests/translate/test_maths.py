"""Every function of the maths header against mpmath: the error in units in the last place, and the special values.

The bounds are those that CUDA documents for its own functions, or better (CUDA C++ Programming Guide, "Mathematical
Functions"); what was measured with more points is in docs/kernels.md.
"""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from ulp import KINDS, error_ulp, points

mpmath.mp.prec = 120
mpf = mpmath.mpf

Reference = Callable[..., Any]


def undefined_below(f: Reference, low: float) -> Reference:
    return lambda x: mpmath.nan if x < low else f(x)


def bounded(f: Reference, below: float, above: float) -> Reference:
    """Beyond any float, the function is what it tends to: mpmath would take its time."""
    return lambda x: mpf(below) if x < -20000 else mpf(above) if x > 20000 else f(x)


def long(f: Reference) -> Reference:
    """Reducing 1e300 modulo pi takes a thousand bits."""

    def evaluate(*x: Any) -> Any:
        with mpmath.workprec(2300):
            return f(*x)

    return evaluate


def log_like(f: Reference) -> Reference:
    return lambda x: mpmath.nan if x < 0 else -mpmath.inf if x == 0 else f(x)


def odd(f: Reference) -> Reference:
    return lambda x: f(x) if x >= 0 else -f(-x)


def power(x: Any, y: Any) -> Any:
    if y == 0 or x == 1:
        return mpf(1)
    if x < 0 and y != mpmath.floor(y):
        return mpmath.nan
    if x == 0:
        return mpf(0) if y > 0 else mpmath.inf
    exponent = y * mpmath.log(abs(x))
    size = mpf(0) if exponent < -2000 else mpmath.inf if exponent > 2000 else mpmath.exp(exponent)
    return -size if x < 0 and mpmath.fmod(abs(y), 2) == 1 else size


def gamma(x: Any) -> Any:
    if x <= 0 and x == mpmath.floor(x):
        return mpmath.inf if x == 0 else mpmath.nan
    return mpmath.inf if x > 200 else mpf(0) if x < -200 else mpmath.gamma(x)


def half_turns(f: Reference) -> Reference:
    return long(lambda x: f(x - 2 * mpmath.floor(x / 2)))


def scaled_erfc(x: Any) -> Any:
    if abs(x) < 100:
        return mpmath.exp(x * x) * mpmath.erfc(x)
    s = 1 / (2 * x * x)
    return mpmath.inf if x < 0 else (1 - s * (1 - 3 * s * (1 - 5 * s * (1 - 7 * s)))) / x / mpmath.sqrt(mpmath.pi)


def inverse_erfc(y: Any) -> Any:
    """By Halley's steps from Winitzki's approximation."""
    if not 0 < y < 2:
        return mpmath.inf if y == 0 else -mpmath.inf if y == 2 else mpmath.nan
    if y > 1:
        return -inverse_erfc(2 - y)
    log = mpmath.log(y * (2 - y))
    a = 2 / (mpmath.pi * 0.147) + log / 2
    t = mpmath.sqrt(mpmath.sqrt(a * a - log / 0.147) - a)
    for _ in range(5):
        u = (mpmath.erfc(t) - y) * mpmath.exp(t * t) * mpmath.sqrt(mpmath.pi) / 2
        t += u / (1 - t * u)
    return t


def inverse_erf(x: Any) -> Any:
    with mpmath.workprec(1300):
        return mpmath.nan if abs(x) > 1 else inverse_erfc(1 - x) if abs(x) > 1e-300 else x * mpmath.sqrt(mpmath.pi) / 2


# name: (reference, bound for float, bound for double, range of the points that are spread evenly)
ONE: dict[str, tuple[Reference, float, float, tuple[float, float]]] = {
    "sqrt": (undefined_below(mpmath.sqrt, 0), 0.5, 0.5, (0, 100)),
    "rsqrt": (lambda x: mpmath.nan if x < 0 else mpmath.inf if x == 0 else 1 / mpmath.sqrt(x), 1.5, 1.5, (0, 100)),
    "cbrt": (odd(mpmath.cbrt), 0.51, 0.7, (-50, 50)),
    "rcbrt": (lambda x: mpmath.inf if x == 0 else odd(lambda y: 1 / mpmath.cbrt(y))(x), 0.51, 1.5, (-50, 50)),
    "exp": (bounded(mpmath.exp, 0, math.inf), 1.0, 0.9, (-100, 88)),
    "exp2": (bounded(lambda x: mpmath.power(2, x), 0, math.inf), 0.51, 0.9, (-140, 127)),
    "exp10": (bounded(lambda x: mpmath.power(10, x), 0, math.inf), 0.51, 0.9, (-40, 38)),
    "expm1": (bounded(mpmath.expm1, -1, math.inf), 0.51, 1.5, (-20, 20)),
    "log": (log_like(mpmath.log), 0.85, 0.8, (0, 10)),
    "log2": (log_like(lambda x: mpmath.log(x, 2)), 0.51, 1.0, (0, 10)),
    "log10": (log_like(mpmath.log10), 0.51, 1.0, (0, 10)),
    "log1p": (lambda x: mpmath.nan if x < -1 else -mpmath.inf if x == -1 else mpmath.log1p(x), 0.51, 1.0, (-1, 3)),
    "sin": (long(mpmath.sin), 0.51, 0.9, (-100, 100)),
    "cos": (long(mpmath.cos), 0.51, 0.9, (-100, 100)),
    "tan": (long(mpmath.tan), 0.51, 2.0, (-100, 100)),
    "asin": (lambda x: mpmath.asin(x) if abs(x) <= 1 else mpmath.nan, 0.51, 1.0, (-1, 1)),
    "acos": (lambda x: mpmath.acos(x) if abs(x) <= 1 else mpmath.nan, 0.51, 1.0, (-1, 1)),
    "atan": (mpmath.atan, 0.51, 1.2, (-10, 10)),
    "sinh": (bounded(mpmath.sinh, -math.inf, math.inf), 0.51, 2.0, (-80, 80)),
    "cosh": (bounded(mpmath.cosh, math.inf, math.inf), 0.51, 1.5, (-80, 80)),
    "tanh": (bounded(mpmath.tanh, -1, 1), 0.51, 2.2, (-5, 5)),
    "asinh": (odd(mpmath.asinh), 0.51, 2.0, (-50, 50)),
    "acosh": (undefined_below(mpmath.acosh, 1), 0.51, 2.0, (1, 50)),
    "atanh": (
        lambda x: mpmath.nan if abs(x) > 1 else odd(lambda y: mpmath.inf if y == 1 else mpmath.atanh(y))(x),
        0.51,
        2.0,
        (-1, 1),
    ),
    "erf": (bounded(mpmath.erf, -1, 1), 0.51, 1.2, (-5, 5)),
    "erfc": (bounded(mpmath.erfc, 2, 0), 0.51, 2.5, (-3, 9)),
    "sinpi": (half_turns(mpmath.sinpi), 0.51, 1.0, (-9, 9)),
    "cospi": (half_turns(mpmath.cospi), 0.51, 1.0, (-9, 9)),
    "tgamma": (gamma, 0.51, 4.0, (-40, 40)),
    "lgamma": (lambda x: mpmath.loggamma(x).real, 0.51, 3.0, (0, 40)),
    "erfcx": (scaled_erfc, 0.51, 4.0, (-5, 40)),
    "erfinv": (inverse_erf, 0.51, 2.5, (-1, 1)),
    "erfcinv": (inverse_erfc, 0.51, 3.0, (0, 2)),
    "normcdf": (lambda x: mpf(x > 0) if abs(x) > 1000 else mpmath.erfc(-x / mpmath.sqrt(2)) / 2, 0.51, 4.0, (-9, 5)),
    "normcdfinv": (lambda p: -mpmath.sqrt(2) * inverse_erfc(2 * p), 0.51, 4.0, (0, 1)),
    "cyl_bessel_i0": (lambda x: mpmath.inf if abs(x) > 1000 else mpmath.besseli(0, x), 0.51, 4.0, (-20, 20)),
    "cyl_bessel_i1": (
        lambda x: mpmath.inf * x if abs(x) > 1000 else mpmath.besseli(1, x),
        0.51,
        4.0,
        (-20, 20),
    ),
    "logb": (lambda x: mpf(mpmath.frexp(x)[1] - 1), 0, 0, (-9, 9)),
    "fabs": (abs, 0, 0, (-9, 9)),
    "floor": (mpmath.floor, 0, 0, (-9, 9)),
    "ceil": (mpmath.ceil, 0, 0, (-9, 9)),
    "trunc": (odd(mpmath.floor), 0, 0, (-9, 9)),
    "rint": (mpmath.nint, 0, 0, (-9, 9)),
    "nearbyint": (mpmath.nint, 0, 0, (-9, 9)),
    "round": (odd(lambda x: mpmath.floor(x + mpf(0.5))), 0, 0, (-9, 9)),
}
TWO: dict[str, tuple[Reference, float, float]] = {
    "pow": (power, 0.51, 0.9),
    "atan2": (mpmath.atan2, 0.51, 2.0),
    "hypot": (lambda x, y: mpmath.sqrt(x * x + y * y), 0.51, 1.0),
    "fmod": (long(lambda x, y: mpmath.nan if y == 0 else odd(lambda a: mpmath.fmod(a, abs(y)))(x)), 0, 0),
    "fdim": (lambda x, y: max(x - y, mpf(0)), 0.5, 0.5),
    "fmax": (max, 0, 0),
    "fmin": (min, 0, 0),
}


HARD = {
    "float": [16367173 * 2.0**72, 5.9449204e32, 2.4364624e13, 1.9957792e7, 6.11667e10, 2.5386734e18],
    "double": [6381956970095103 * 2.0**797, 9.788524622846142e225, 1.3620736337320517e119, 1.0939938026067178e84],
}
"""Close to multiples of pi/2, where reducing an argument needs the most digits."""


@pytest.fixture(scope="module")
def evaluate(host: Any) -> Callable[[str, str, list[np.ndarray]], np.ndarray]:
    """All functions of a type and arity in one module, chosen by number."""
    from depin_node.compute.translate import compile_kernel

    tables = {1: list(ONE), 2: [*TWO, "copysign"]}
    modules = {}
    for kind in KINDS:
        for arity, names in tables.items():
            suffix = "f" if kind == "float" else ""
            arguments = ", ".join(f"{v}[i]" for v in "xy"[:arity])
            cases = "\n".join(f"case {n}: o[i] = {name}{suffix}({arguments}); break;" for n, name in enumerate(names))
            source = f"""__global__ void k(const {kind}* x, const {kind}* y, {kind}* o, int n, int f) {{
                int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return; switch (f) {{ {cases} }} }}"""
            modules[kind, arity] = compile_kernel(source, "k", deadline_s=120)

    def run(name: str, kind: str, values: list[np.ndarray]) -> np.ndarray:
        n, arity = len(values[0]), len(values)
        arguments = [values[0], values[-1], np.zeros(n, KINDS[kind]), n, tables[arity].index(name)]
        result: np.ndarray = host.run(modules[kind, arity], [-(-n // 128)], [128], arguments)[2]
        return result

    return run


def worst(got: np.ndarray, inputs: list[np.ndarray], reference: Reference, dtype: type) -> tuple[float, Any]:
    errors = []
    for result, *arguments in zip(got, *inputs, strict=True):
        wanted = reference(*(mpf(float(v)) for v in arguments))
        errors.append((error_ulp(float(result), wanted, dtype), arguments, float(result), wanted))
    return max((e[0], e[1:]) for e in errors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ONE)
def test_error_of_functions_of_one_argument(evaluate: Any, name: str, kind: str) -> None:
    reference, *bounds, (low, high) = ONE[name]
    x = points(KINDS[kind], low, high, seed=len(name))
    if name == "lgamma":
        x = x[x > 0]  # below, test_special.py
    x = np.concatenate([x[x != 0], np.array(HARD.get(kind, ()), KINDS[kind])])  # zeros have a test of their own
    error, where = worst(evaluate(name, kind, [x]), [x], reference, KINDS[kind])
    assert error <= bounds[kind == "double"], where


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TWO)
def test_error_of_functions_of_two_arguments(evaluate: Any, name: str, kind: str) -> None:
    reference, *bounds = TWO[name]
    x = points(KINDS[kind], -50, 50, seed=1)
    y = np.random.default_rng(2).permutation(points(KINDS[kind], -50, 50, seed=3))
    n = min(len(x), len(y))
    keep = (x[:n] != 0) & (y[:n] != 0)  # the signs of zeros are tested below
    x, y = x[:n][keep], y[:n][keep]
    error, where = worst(evaluate(name, kind, [x, y]), [x, y], reference, KINDS[kind])
    assert error <= bounds[kind == "double"], where


NUMPY = {"rsqrt": lambda x: 1 / np.sqrt(x), "rcbrt": lambda x: 1 / np.cbrt(x), "asin": np.arcsin, "acos": np.arccos}
NUMPY |= {"atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "nearbyint": np.rint}
NUMPY |= {
    "exp10": lambda x: np.power(10.0, x),
    "pow": np.power,
    "atan2": np.arctan2,
    "fdim": lambda x, y: np.maximum(x - y, 0),
}
NUMPY |= {
    "fmax": np.fmax,
    "fmin": np.fmin,
    "round": np.trunc,
    "erf": np.vectorize(math.erf),
    "erfc": np.vectorize(math.erfc),
}


INF, NAN = math.inf, math.nan
AT_THE_ENDS = {
    "sinpi": [0.0, -0.0, NAN, NAN, NAN],
    "cospi": [1, 1, NAN, NAN, NAN],
    "tgamma": [INF, -INF, INF, NAN, NAN],
    "lgamma": [INF, INF, INF, INF, NAN],
    "erfcx": [1, 1, 0, INF, NAN],
    "erfinv": [0.0, -0.0, NAN, NAN, NAN],
    "erfcinv": [INF, INF, NAN, NAN, NAN],
    "normcdf": [0.5, 0.5, 1, 0, NAN],
    "normcdfinv": [-INF, -INF, NAN, NAN, NAN],
    "cyl_bessel_i0": [1, 1, INF, INF, NAN],
    "cyl_bessel_i1": [0.0, -0.0, INF, -INF, NAN],
    "logb": [-INF, -INF, INF, INF, NAN],
}
"""At 0, -0, infinity, minus infinity and NaN, where NumPy has no such function."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ONE)
def test_zeros_infinities_and_nans(evaluate: Any, name: str, kind: str) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], KINDS[kind])
    got = evaluate(name, kind, [x])
    with np.errstate(all="ignore"):
        known = AT_THE_ENDS.get(name)
        wanted = np.array(known) if known else (NUMPY.get(name) or getattr(np, name))(x.astype(float))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(wanted[zeros]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*TWO, "copysign"])
def test_special_pairs(evaluate: Any, name: str, kind: str) -> None:
    special = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 3.0, -3.0, np.inf, -np.inf, np.nan]
    x, y = (a.ravel().astype(KINDS[kind]) for a in np.meshgrid(special, special))
    if name in ("fmax", "fmin", "fdim"):  # NumPy leaves the sign of zeros and fdim's infinities open
        keep = ~((x == 0) & (y == 0)) & ~(np.isinf(x) & (x == y))
        x, y = x[keep], y[keep]
    got = evaluate(name, kind, [x, y])
    with np.errstate(all="ignore"):
        wanted = (NUMPY.get(name) or getattr(np, name))(x.astype(float), y.astype(float))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(wanted[zeros]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fmax", "fmin"])
def test_the_bits_of_extremes(evaluate: Any, name: str, kind: str) -> None:
    """One NaN is ignored; of zeros -0 is the smaller."""
    smallest = np.finfo(KINDS[kind]).smallest_subnormal
    special = [0.0, -0.0, 1.0, -1.0, smallest, -smallest, np.inf, -np.inf, np.nan, -np.nan]
    x, y = (a.ravel().astype(KINDS[kind]) for a in np.meshgrid(special, special))
    larger = (x > y) | ((x == y) & np.signbit(y))
    wanted = np.where(np.isnan(y) | (~np.isnan(x) & (larger == (name == "fmax"))), x, y)
    got = evaluate(name, kind, [x, y])
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(got), ~number)
    bits = f"u{wanted.itemsize}"
    np.testing.assert_array_equal(got[number].view(bits), wanted[number].view(bits))


def exact_fma(a: float, b: float, c: float, dtype: type) -> float:
    """Correctly rounded, by mpmath's exact arithmetic and one rounding."""
    exact = mpmath.fadd(mpmath.fmul(mpf(a), mpf(b), exact=True), mpf(c), exact=True)
    if dtype is np.float64:
        bits, smallest = 53, -1074
    else:
        bits, smallest = 24, -149
    if exact == 0:
        return float(dtype(a) * dtype(b) + dtype(c))
    exponent = mpmath.frexp(exact)[1]
    step = mpf(2) ** max(exponent - bits, smallest)
    rounded = mpmath.nint(exact / step) * step
    return float(rounded) if abs(rounded) <= float(np.finfo(dtype).max) else math.copysign(math.inf, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_fma_rounds_once(host: Any, build: Any, kind: str) -> None:
    dtype, suffix = KINDS[kind], "f" if kind == "float" else ""
    source = f"""__global__ void k(const {kind}* a, const {kind}* b, const {kind}* c, {kind}* o, int n) {{
        int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) o[i] = fma{suffix}(a[i], b[i], c[i]); }}"""
    rng = np.random.default_rng(5)
    n = 3000
    a, b = (
        np.ldexp(rng.uniform(0.5, 1, n), rng.integers(-30, 30, n)).astype(dtype) * rng.choice([-1, 1], n).astype(dtype)
        for _ in "ab"
    )
    c = np.ldexp(-a.astype(float) * b, rng.integers(-70, 70, n)).astype(dtype)  # near the product, or far from it
    c[: n // 3] = (-a.astype(float) * b).astype(dtype)[: n // 3]  # what is left is what rounding lost
    half = np.finfo(dtype).eps / 2
    ties = np.array(
        [[1 + half * 2, 1 + half * 4, half], [1 + half * 2, 1 - half, -half], [1.5, half, 1.0], [half, half, 1.0]]
    )
    tiny = float(np.finfo(dtype).smallest_subnormal)
    edges = np.array([[tiny, 0.5, 0], [tiny, 0.5, tiny], [tiny * 3, 0.5, 0], [float(np.finfo(dtype).tiny), 0.75, tiny]])
    large = float(np.finfo(dtype).max)
    edges2 = np.array([[large, 2, -large], [large, 1, large], [large, 1 + half * 2, -large], [0, 5, -0.0], [2, 3, -6]])
    extra = np.concatenate([ties, edges, edges2]).astype(dtype)
    a, b, c = (np.concatenate([v, extra[:, k]]) for k, v in enumerate((a, b, c)))
    got = host.run(build(source), [-(-len(a) // 128)], [128], [a, b, c, np.zeros_like(a), len(a)])[3]
    with np.errstate(all="ignore"):
        wanted = np.array([exact_fma(*map(float, v), dtype) for v in zip(a, b, c, strict=True)])
    np.testing.assert_array_equal(got.astype(float), wanted)
    special = np.array([[np.inf, 0, 1], [np.inf, 1, -np.inf], [np.nan, 1, 1], [np.inf, 2, 3], [1, 2, -np.inf]], dtype)
    a, b, c = (special[:, k].copy() for k in range(3))
    got = host.run(build(source), [1], [8], [a, b, c, np.zeros_like(a), 5])[3]
    np.testing.assert_array_equal(got, [np.nan, np.nan, np.nan, np.inf, -np.inf])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_numbers(host: Any, build: Any, kind: str) -> None:
    dtype, f = KINDS[kind], "f" if kind == "float" else ""
    source = f"""__global__ void k(const {kind}* x, {kind}* o, int* e, int n) {{
        int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return;
        o[i] = frexp{f}(x[i], &e[i]); o[n + i] = modf{f}(x[i], &o[2 * n + i]);
        o[3 * n + i] = ldexp{f}(x[i], i * 7 % 300 - 150);
        o[4 * n + i] = isnan(x[i]) + 2 * isinf(x[i]) + 4 * isfinite(x[i]) + 8 * signbit(x[i]);
    }}"""
    x = np.concatenate([points(dtype, -50, 50, 3), np.array([np.inf, -np.inf, np.nan], dtype)])
    n = len(x)
    out, exponents = host.run(
        build(source), [-(-n // 128)], [128], [x, np.zeros(5 * n, dtype), np.zeros(n, np.int32), n]
    )[1:]
    out = out.reshape(5, n)
    with np.errstate(all="ignore"):
        mantissa, e = np.frexp(x)
        part, whole = np.modf(x)
        scaled = np.ldexp(x, np.arange(n) * 7 % 300 - 150)
    finite = np.isfinite(x)
    for got, wanted in zip(out[:4], (mantissa, part, whole, scaled), strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(exponents[finite], e[finite])
    sign = np.signbit(x) & ~np.isnan(x)
    np.testing.assert_array_equal(out[4], np.isnan(x) + 2 * np.isinf(x) + 4 * np.isfinite(x) + 8 * sign)


def test_simd_and_scalar_code_give_the_same_bits(host: Any, build: Any) -> None:
    one = [
        "expf",
        "logf",
        "sinf",
        "cosf",
        "tanf",
        "exp2f",
        "log2f",
        "atanf",
        "asinf",
        "tanhf",
        "cbrtf",
        "erff",
        "rsqrtf",
        "log1pf",
    ]
    lines = "".join(f"o[{k} * n + i] = {name}(x[i]);" for k, name in enumerate(one))
    lines += (
        f"o[{len(one)} * n + i] = powf(x[i], y[i]) + fmaxf(x[i], y[i]) + fmaf(x[i], y[i], x[i]) + atan2f(x[i], y[i]);"
    )
    source = f"""__global__ void k(const float* x, const float* y, float* o, int n) {{
        int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) {{ {lines} }} }}"""
    x = points(np.float32, -20, 20, 9)
    y = np.random.default_rng(1).permutation(x)
    n = len(x)
    runs = []
    for shape in ("loop", "coroutine"):
        kernel = build(source, _shape=shape)
        out = host.run(kernel, [-(-n // 64)], [64], [x, y, np.zeros((len(one) + 1) * n, np.float32), n])[2]
        out[np.isnan(out)] = np.nan  # as the device does
        runs.append(out.view(np.uint32))
    np.testing.assert_array_equal(runs[0], runs[1])
