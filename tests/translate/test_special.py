"""What the maths header has beyond functions of one number: named roundings, remainders, norms, Bessel functions."""

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from ulp import KINDS, error_ulp, points

mpf = mpmath.mpf


@pytest.fixture
def run(host: Any, build: Any) -> Any:
    """``o[k * n + i] = expression k`` over arrays x, y, z; one row for each expression."""

    def run_(expressions: list[str], result: Any, *arrays: np.ndarray) -> np.ndarray:
        names = {np.float32: "float", np.float64: "double", np.int32: "int", np.int64: "long long"}
        names |= {np.uint32: "unsigned", np.uint64: "unsigned long long"}
        declared = ", ".join(f"const {names[a.dtype.type]}* {v}" for v, a in zip("xyz", arrays, strict=False))
        lines = "".join(f"o[{k} * n + i] = {expression};" for k, expression in enumerate(expressions))
        source = f"""#include <algorithm>
            __device__ double least(double a, double b) {{ return std::min(a, b); }}
            template <class T> __device__ T quotient(T x, T y) {{ int q; remquo(x, y, &q); return q; }}
            __global__ void k({declared}, {names[result]}* o, int n) {{
                int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) {{ {lines} }} }}"""
        n = len(arrays[0])
        kernel = build(source, deadline_s=120)
        assert kernel.exact
        into = np.zeros((len(expressions), n), result)
        out: np.ndarray = host.run(kernel, [-(-n // 128)], [128], [*arrays, into, n])[-1]
        return out

    return run_


def rounded(exact: Fraction, mode: str, dtype: Any, zero: float = 0.0) -> float:
    """An exact value in a mode; ``zero``: what an exact 0 is."""
    info = np.finfo(dtype)
    if exact == 0:
        return zero
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent += (size >= Fraction(2) ** exponent) - 1
    step = Fraction(2) ** max(exponent - info.nmant, info.minexp - info.nmant)
    low = size // step
    up = size % step != 0 and {"rz": False, "ru": exact > 0, "rd": exact < 0}[mode]
    value = (low + up) * step
    if value > Fraction(float(info.max)):
        value = math.inf if up or ((mode == "ru") == (exact > 0) and mode != "rz") else Fraction(float(info.max))
    return float(value) if exact > 0 else -float(value)


MODES = ("rz", "ru", "rd")


@pytest.mark.parametrize("kind", KINDS)
def test_named_roundings(run: Any, kind: str) -> None:
    dtype, p = KINDS[kind], "f" if kind == "float" else "d"
    fma = "__fmaf" if p == "f" else "__fma"
    rng = np.random.default_rng(8)
    x = points(dtype, -50, 50, 4)
    x = x[(np.abs(x) < np.finfo(dtype).max / 8) & (x != 0)]
    y, z = rng.permutation(x), rng.permutation(x)
    n = len(x) // 3
    y[:n] = -x[:n]  # sums that are 0
    with np.errstate(over="ignore"):
        z[n : 2 * n] = (-x.astype(float) * y)[n : 2 * n].astype(dtype)
    z = np.where(np.isfinite(z), z, dtype(1))
    forms = {f"__{p}add": "x[i], y[i]", f"__{p}sub": "x[i], y[i]", f"__{p}mul": "x[i], y[i]", f"__{p}div": "x[i], y[i]"}
    forms |= {f"__{p}rcp": "x[i]", f"__{p}sqrt": f"fabs{'f' if p == 'f' else ''}(x[i])", fma: "x[i], y[i], z[i]"}
    calls = [f"{name}_{mode}({arguments})" for name, arguments in forms.items() for mode in MODES]
    got = iter(run(calls, dtype, x, y, z))
    fx, fy, fz = ([Fraction(float(v)) for v in a] for a in (x, y, z))
    for name in forms:
        for mode in MODES:
            for k, result in enumerate(next(got)):
                a, b, c = fx[k], fy[k], fz[k]
                minus_zero = -0.0 if mode == "rd" else 0.0
                if name.endswith("sqrt"):
                    below = Fraction(math.isqrt(int(abs(a) * 4**1200)), 2**1200)  # enough to round it downwards
                    exact = below + (Fraction(1, 2**1300) if below * below != abs(a) else 0)
                    wanted = rounded(exact, mode, dtype)
                elif name.endswith(("add", "sub")):
                    wanted = rounded(a + b if name.endswith("add") else a - b, mode, dtype, minus_zero)
                elif name == fma:
                    wanted = rounded(a * b + c, mode, dtype, minus_zero)
                else:
                    wanted = rounded(a * b if name.endswith("mul") else a / b if "div" in name else 1 / a, mode, dtype)
                same = (float(result), math.copysign(1, result)) == (wanted, math.copysign(1, wanted))
                assert same, (name, mode, x[k], y[k], z[k], result, wanted)


def test_conversions_with_named_roundings(run: Any) -> None:
    x = np.array([2**62 + 1, -(2**62) - 1, 2**63 - 1, -(2**63), 2**53 + 1, 16777217, -16777219, 0, 5], np.int64)
    calls = [f"__ll2float_{m}(x[i])" for m in MODES] + [f"__double2float_{m}(y[i])" for m in MODES]
    y = np.array([0.1, -0.1, 1e39, -1e39, 1e-50, -1e-50, 1.0, 0.0, 3.4028235677973366e38])
    got = iter(run(calls, np.float32, x, y))
    for mode in MODES:
        assert next(got).tolist() == [rounded(Fraction(int(v)), mode, np.float32) for v in x]
    for mode in MODES:
        assert next(got).tolist() == [rounded(Fraction(float(v)), mode, np.float32) for v in y]
    got = iter(run([f"__ll2double_{m}(x[i])" for m in MODES], np.float64, x))
    for mode in MODES:
        assert next(got).tolist() == [rounded(Fraction(int(v)), mode, np.float64) for v in x]


@pytest.mark.parametrize("kind", KINDS)
def test_remainders_neighbours_and_exponents(run: Any, kind: str) -> None:
    dtype, f = KINDS[kind], "f" if kind == "float" else ""
    x = points(dtype, -50, 50, 5)
    x = np.concatenate([x, np.arange(-12, 13, dtype=dtype) / 2])
    y = np.random.default_rng(6).permutation(x)
    x[:20] = y[:20] * dtype(1.5)
    keep = np.isfinite(x) & (y != 0)
    x, y = x[keep], y[keep]
    rest, low, after, exponent = run(
        [f"remainder{f}(x[i], y[i])", "quotient(x[i], y[i])", f"nextafter{f}(x[i], y[i])", f"ilogb{f}(x[i])"],
        dtype,
        x,
        y,
    )
    for a, b, r, q in zip(x, y, rest, low, strict=True):
        exact, divisor = Fraction(float(a)), Fraction(float(b))
        n = round(exact / divisor)  # to nearest, ties to even
        assert Fraction(float(r)) == exact - n * divisor, (a, b, r)
        assert q == (abs(n) & 7) * (1 if n >= 0 else -1) or (n == 0 and q == 0), (a, b, q, n)
    np.testing.assert_array_equal(after, np.nextafter(x, y))
    nonzero = x != 0
    np.testing.assert_array_equal(exponent[nonzero], np.frexp(x[nonzero])[1] - 1)
    with_ends = np.array([0.0, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(run([f"ilogb{f}(x[i])"], np.int32, with_ends)[0], [-(2**31), 2**31 - 1, -(2**31)])


@pytest.mark.parametrize("kind", KINDS)
def test_norms(run: Any, kind: str) -> None:
    dtype, f = KINDS[kind], "f" if kind == "float" else ""
    x = points(dtype, -50, 50, 5)
    y, z = x[::-1].copy(), np.roll(x, 7)
    names = [f"norm3d{f}(x[i], y[i], z[i])", f"norm4d{f}(x[i], y[i], z[i], x[i])", f"rhypot{f}(x[i], y[i])"]
    names += [f"rnorm3d{f}(x[i], y[i], z[i])", f"norm{f}(1, x + i)"]
    for name, row in zip(names, run(names, dtype, x, y, z), strict=True):
        for k, got in enumerate(row):
            a, b, c = (mpf(float(v[k])) for v in (x, y, z))
            square = a * a + b * b + (c * c if "3d" in name or "4d" in name else 0) + (a * a if "4d" in name else 0)
            exact = abs(a) if name.startswith(f"norm{f}(") else mpmath.sqrt(square)
            exact = exact if name.startswith("norm") else 1 / exact if exact else mpmath.inf
            assert error_ulp(float(got), exact, dtype) <= (0.51 if kind == "float" else 1.5), (name, a, b, c, got)


@pytest.mark.parametrize("kind", KINDS)
def test_bessel_functions_to_an_absolute_error(run: Any, kind: str) -> None:
    dtype, f = KINDS[kind], "f" if kind == "float" else ""
    rng = np.random.default_rng(9)
    x = np.concatenate([rng.uniform(0, 8, 80), rng.uniform(8, 100, 80), rng.uniform(100, 1e5, 40)]).astype(dtype)
    names = ["j0", "j1", "y0", "y1", "jn", "yn"]
    calls = [f"{name}{f}({'5, ' if name[1] == 'n' else ''}x[i])" for name in names]
    for name, row in zip(names, run(calls, dtype, x), strict=True):
        order = 5 if name[1] == "n" else int(name[1])
        for v, got in zip(x, row, strict=True):
            exact = (mpmath.besselj if name[0] == "j" else mpmath.bessely)(order, mpf(float(v)))
            allowed = max(abs(exact), 1) * (2e-7 if kind == "float" else 2e-15 if order < 5 else 4e-14)
            assert abs(exact - mpf(float(got))) <= allowed, (name, v, got, exact)
    ends = np.array([0.0, np.inf, np.nan, -1.0], dtype)
    got = run([f"{c}" for c in calls[:4]], dtype, ends)
    np.testing.assert_allclose(got[0][:3], [1, 0, np.nan], rtol=3e-16)
    np.testing.assert_array_equal(got[1][:3], [0, 0, np.nan])
    np.testing.assert_array_equal(got[2:], [[-np.inf, 0, np.nan, np.nan]] * 2)


def test_lgamma_of_negative_numbers_to_an_absolute_error(run: Any) -> None:
    x = np.concatenate([-np.random.default_rng(3).uniform(0, 60, 300), [-1e-300, -1e-20, -5.0, -0.5]])
    for v, got in zip(x, run(["lgamma(x[i])"], np.float64, x)[0], strict=True):
        if v == math.floor(v):
            assert got == math.inf
        else:
            exact = mpmath.log(abs(mpmath.gamma(mpf(v))))
            assert abs(got - exact) <= 4e-16 * max(abs(exact), 8), (v, got, exact)


def test_integer_dot_products(run: Any) -> None:
    rng = np.random.default_rng(5)
    x, y, z = (rng.integers(-(2**31), 2**31, 200).astype(np.int32) for _ in "xyz")
    bytes_x, bytes_y = (a.view(np.int8).reshape(-1, 4).astype(np.int64) for a in (x, y))
    halves = x.view(np.int16).reshape(-1, 2).astype(np.int64)
    got = run(
        ["__dp4a(x[i], y[i], z[i])", "__dp2a_lo(x[i], y[i], z[i])", "__dp2a_hi(x[i], y[i], z[i])"], np.int32, x, y, z
    )
    wanted = [(bytes_x * bytes_y).sum(1), (halves * bytes_y[:, :2]).sum(1), (halves * bytes_y[:, 2:]).sum(1)]
    for row, products in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(row, (products + z).astype(np.int32))
    u = [a.view(np.uint32) for a in (x, y, z)]
    unsigned = run(["__dp4a(x[i], y[i], z[i])"], np.uint32, *u)[0]
    raw = (u[0].view(np.uint8).reshape(-1, 4).astype(np.int64) * u[1].view(np.uint8).reshape(-1, 4)).sum(1)
    np.testing.assert_array_equal(unsigned, (raw + u[2]).astype(np.uint32))


def test_nan_of_any_text_is_the_one_nan(run: Any) -> None:
    x = np.zeros(3)
    got = run(['nan("")', 'nanf("7")'], np.float64, x)
    assert got.view(np.uint64).tolist() == [[0x7FF8000000000000] * 3] * 2


def test_the_c_library_under_its_own_name(run: Any) -> None:
    x, y = np.array([0.25, np.nan, 3.0]), np.array([4.0, 1.0, np.nan])
    names = ["std::sqrt(x[i])", "std::pow(x[i], 2)", "std::isnan(x[i]) + std::abs(-2)", "least(x[i], y[i])"]
    got = run(names, np.float64, x, y)
    np.testing.assert_array_equal(got[:3], [np.sqrt(x), x * x, [2, 3, 2]])
    np.testing.assert_array_equal(got[3], [0.25, np.nan, 3.0])  # b < a ? b : a, unlike fmin
