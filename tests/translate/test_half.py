"""Half precision: every conversion and operation of cuda_fp16.h against NumPy, all 65,536 halves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

ALL = np.arange(65536, dtype=np.uint16).view(np.float16)
f2 = np.float16


def canonical(x: np.ndarray) -> np.ndarray:
    x = np.array(x, f2)
    x[np.isnan(x)] = np.nan
    return x.view(np.uint16)


@pytest.fixture
def apply(host: Any, build: Any) -> Callable[..., np.ndarray]:
    """Run ``o[i] = expression`` over arrays x, y, z; of several expressions, one row each, in one kernel."""

    def run(expressions: str | Sequence[str], result: Any, *arrays: np.ndarray) -> np.ndarray:
        names = {np.float16: "half", np.float32: "float", np.float64: "double", np.int32: "int", np.int64: "long long"}
        names |= {np.uint16: "unsigned short", np.bool_: "bool", np.uint32: "unsigned", np.int16: "short"}
        names[np.uint64] = "unsigned long long"
        declared = ", ".join(f"const {names[a.dtype.type]}* {v}" for v, a in zip("xyz", arrays, strict=False))
        several = [expressions] if isinstance(expressions, str) else expressions
        lines = "".join(f"o[{place} * n + i] = {expression};" for place, expression in enumerate(several))
        source = f"""#include <cuda_fp16.h>
            __global__ void k({declared}, {names[result]}* o, int n) {{
                int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) {{ {lines} }} }}"""
        n = len(arrays[0])
        into = np.zeros((len(several), n), result)
        out: np.ndarray = host.run(build(source), [-(-n // 256)], [256], [*arrays, into, n])[-1]
        return out[0] if isinstance(expressions, str) else out

    return run


def test_every_half_becomes_its_float(apply: Any) -> None:
    out = apply("x[i]", np.float32, ALL)
    wanted = ALL.astype(np.float32)
    wanted[np.isnan(wanted)] = np.nan
    np.testing.assert_array_equal(out.view(np.uint32), wanted.view(np.uint32))


def doubles() -> np.ndarray:
    """Halves, the middles between them, both a little more and less, and anything."""
    finite = np.sort(ALL[np.isfinite(ALL)]).astype(np.float64)
    middles = np.append((finite[1:] + finite[:-1]) / 2, [65519.999, 65520.0, 65536.0, 1e300, -1e300, 1e-30])
    rng = np.random.default_rng(1)
    near = np.concatenate([np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
    other = rng.uniform(-70000, 70000, 5000) * np.exp2(rng.uniform(-45, 0, 5000))
    return np.concatenate([finite, middles, near, other, [np.inf, -np.inf, np.nan, 0.0, -0.0]])


def test_to_nearest(apply: Any) -> None:
    x = doubles()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(apply("x[i]", f2, x).view(np.uint16), canonical(x))  # NumPy rounds once
        x = x.astype(np.float32)
        np.testing.assert_array_equal(apply("__float2half_rn(x[i])", f2, x).view(np.uint16), canonical(x))


def test_directed_roundings(apply: Any) -> None:
    with np.errstate(over="ignore"):
        x = doubles().astype(np.float32)
        x = x[np.isfinite(x)]
        near = x.astype(f2)
        below = np.where(near.astype(np.float32) > x, np.nextafter(near, f2(-np.inf)), near)
        above = np.where(near.astype(np.float32) < x, np.nextafter(near, f2(np.inf)), near)
    modes = {"rd": below, "ru": above, "rz": np.where(x < 0, above, below)}
    for got, wanted in zip(apply([f"__float2half_{m}(x[i])" for m in modes], f2, x), modes.values(), strict=True):
        tiny = wanted == 0  # whose sign is that of what was rounded
        np.testing.assert_array_equal(np.signbit(got[tiny]), np.signbit(x[tiny]))
        np.testing.assert_array_equal(got, wanted)


def test_integers(apply: Any) -> None:
    x = np.concatenate([np.arange(-70000, 70000, 7), [2**31 - 1, -(2**31), 2049, 2051, 65519, 65520]]).astype(np.int32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(apply("x[i]", f2, x), x.astype(f2))
        np.testing.assert_array_equal(
            apply("__ll2half_rn(x[i])", f2, x.astype(np.int64) << 20), (x * 2.0**20).astype(f2)
        )
    assert apply("__int2half_rz(x[i])", f2, np.array([2049, -2051, 70000], np.int32)).tolist() == [2048, -2050, 65504]
    h = np.array([0.5, 1.5, -2.5, 40000, -40000, np.nan, np.inf, -7.75], f2)
    assert apply("__half2short_rn(x[i])", np.int16, h).tolist() == [0, 2, -2, 32767, -32768, 0, 32767, -8]
    assert apply("__half2ushort_rz(x[i])", np.uint16, h).tolist() == [0, 1, 0, 40000, 0, 0, 65535, 0]
    assert apply("__half2int_ru(x[i])", np.int32, h[:5]).tolist() == [1, 2, -2, 40000, -40000]
    assert apply("__half2ll_rd(x[i])", np.int64, h[:5]).tolist() == [0, 1, -3, 40000, -40000]
    assert apply("(int)x[i]", np.int32, h[:5]).tolist() == [0, 1, -2, 40000, -40000]


def pairs(n: int = 60000) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    return tuple(rng.permutation(ALL)[:n] for _ in range(3))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "x[i] + y[i]": lambda x, y: x + y,
    "x[i] - y[i]": lambda x, y: x - y,
    "__hmul(x[i], y[i])": lambda x, y: x * y,
    "x[i] / y[i]": lambda x, y: x / y,
    "hsqrt(x[i])": lambda x, y: np.sqrt(x),
    "-x[i]": lambda x, y: -x,
    "__habs(x[i])": lambda x, y: np.abs(x),
    "__hmax(x[i], y[i])": np.fmax,
    "__hmin_nan(x[i], y[i])": np.minimum,
    "hfloor(x[i])": lambda x, y: np.floor(x),
    "hrint(x[i])": lambda x, y: np.rint(x),
    "__hadd_sat(x[i], y[i])": lambda x, y: np.where(np.isnan(x + y), f2(0), np.clip(x + y, f2(0), f2(1))),
    "__high2half(__lowhigh2highlow(__hmul2(__halves2half2(x[i], y[i]), __half2half2(y[i]))))": lambda x, y: x * y,
}


def test_arithmetic_is_rounded_once(apply: Any) -> None:
    x, y, _ = pairs()
    for expression, got in zip(OPERATIONS, apply(list(OPERATIONS), f2, x, y), strict=True):
        with np.errstate(all="ignore"):
            wanted = OPERATIONS[expression](x, y)
        zeros = (wanted == 0) & (got == 0)  # of fmax and clip NumPy leaves the sign open
        if "max" in expression or "min" in expression or "sat" in expression:
            got, wanted = got[~zeros], wanted[~zeros]
        np.testing.assert_array_equal(got.view(np.uint16), canonical(wanted), err_msg=expression)


def test_fma_is_rounded_once(apply: Any) -> None:
    x, y, z = pairs()
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble) * y + z  # 22 + 11 bits over 80: exact where the result is finite
        wanted = wide.astype(np.float64).astype(f2)
    np.testing.assert_array_equal(apply("__hfma(x[i], y[i], z[i])", f2, x, y, z).view(np.uint16), canonical(wanted))


COMPARISONS: dict[str, Callable[..., Any]] = {
    "x[i] < y[i]": np.less,
    "x[i] == y[i]": np.equal,
    "x[i] != y[i]": np.not_equal,
    "__hge(x[i], y[i])": np.greater_equal,
    "__hgtu(x[i], y[i])": lambda x, y: ~(x <= y),
    "__hne(x[i], y[i])": lambda x, y: (x < y) | (x > y),
    "__hisnan(x[i])": lambda x, y: np.isnan(x),
    "__hble2(__half2half2(x[i]), __halves2half2(y[i], y[i]))": np.less_equal,
}


def test_comparisons(apply: Any) -> None:
    x, y, _ = pairs()
    x, y = np.append(x, ALL[:100]), np.append(y, ALL[:100])
    for expression, got in zip(COMPARISONS, apply(list(COMPARISONS), np.bool_, x, y), strict=True):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(got, COMPARISONS[expression](x, y), err_msg=expression)


def test_maths_is_within_a_rounding(apply: Any) -> None:
    names = ["exp", "exp2", "log", "log2", "log10", "sin", "cos", "tanh", "rsqrt"]
    for name, got in zip(names, apply([f"h{name}(x[i])" for name in names], f2, ALL), strict=True):
        with np.errstate(all="ignore"):
            x = ALL.astype(np.float64)
            wanted = 1 / np.sqrt(x) if name == "rsqrt" else getattr(np, name)(x)
            nearest = wanted.astype(f2)
            other = np.nextafter(nearest, np.where(nearest.astype(float) < wanted, f2(np.inf), f2(-np.inf)))
        same = (got == nearest) | (np.isnan(got) & np.isnan(nearest))
        assert same.mean() > 0.999, name
        assert (same | (got == other)).all(), name


def test_everything_that_is_declared_translates(build: Any) -> None:
    unary = "sqrt rsqrt rcp exp exp2 exp10 log log2 log10 sin cos tanh floor ceil trunc rint"
    lines = [f"a = h{name}(a); p = h2{name}(p);" for name in unary.split()]
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu"):
        lines.append(f"b += __h{name}(a, a) + __hb{name}2(p, p); p = __h{name}2(p, p);")
    for name in ("add", "sub", "mul"):
        lines.append(f"a = __h{name}(a, a); a = __h{name}_sat(a, a); p = __h{name}2(p, p); p = __h{name}2_sat(p, p);")
    lines += [f"p {op}= p; p = p {op} p; a {op}= a;" for op in "+-*/"]
    lines += ["a++; ++a; a--; --a; p = -p; a = +a; b += p == p; b += p < p; a = 3; a = 2.5; a = 1.5f; if (a) b++;"]
    lines += ["p = __floats2half2_rn(1, 2); p = __float22half2_rn(__half22float2(p)); a = __low2half(p);"]
    lines += ["p = __hfma2(p, p, p); p = __hfma2_relu(p, p, p); a = __hfma_sat(a, a, a); a = __hfma_relu(a, a, a);"]
    lines += [
        "p = __lows2half2(p, p); p = __highs2half2(p, __low2half2(p)); a = __ushort_as_half(__half_as_ushort(a));"
    ]
    lines += ["a = __ull2half_ru(7ull); a = __ushort2half_rd(7); b += __half2ull_rn(a); b += __high2float(p);"]
    lines += [
        "p = make_half2(a, __short_as_half(__half_as_short(a))); p = __hmax2(p, __hmin2_nan(p, p)); a = __ldg(x);"
    ]
    lines += ["b += __hisinf(a); p = __hneg2(__habs2(p)); a = CUDART_INF_FP16; p = __h2div(p, p); p = __hisnan2(p);"]
    text = "\n".join(lines)
    build(f"""#include <cuda_fp16.h>
        __global__ void k(half* x, half2* y, int* o) {{ half a = x[0]; half2 p = y[0]; int b = 0;\n{text}
            x[0] = a; y[0] = p; o[0] = b; }}""")


def test_atomics_have_no_order_and_shuffles_wait(host: Any, build: Any) -> None:
    kernel = build("""#include <cuda_fp16.h>
        __global__ void k(half* sum, __half2* both, half* shuffled) {
            half mine = (float)threadIdx.x;
            half2 other = __shfl_sync(0xffffffffu, both[0], 3);
            shuffled[threadIdx.x] = __shfl_xor_sync(0xffffffffu, mine, 1) + __low2half(other);
            atomicAdd(sum, __float2half(0.5f)); atomicAdd(both + 1, __floats2half2_rn(1.0f, 2.0f)); }""")
    assert not kernel.exact
    assert any("line 6: atomicAdd on half: the order of threads" in note for note in kernel.notes)
    arrays = [np.zeros(1, f2), np.array([5, 6, 0, 0], f2), np.zeros(32, f2)]
    total, both, shuffled = host.run(kernel, [1], [32], arrays)
    assert total.tolist() == [16]
    assert both.tolist() == [5, 6, 32, 64]
    np.testing.assert_array_equal(shuffled, (np.arange(32) ^ 1) + 5)


def test_cupys_float16(host: Any, build: Any) -> None:
    kernel = build("""#include <cupy/float16.cuh>
        __global__ void k(const float16* x, const float16* y, float16* o, int n) {
            int i = threadIdx.x; if (i >= n) return;
            float16 a = x[i] * 2 + y[i]; a += 1; o[i] = a;
            o[n + i] = max(x[i], y[i]); o[2 * n + i] = nextafter(x[i], y[i]);
            o[3 * n + i] = isnan(x[i]) + 2 * isinf(x[i]) + 4 * signbit(x[i]); o[4 * n + i] = copysign(x[i], y[i]); }""")
    assert [p.dtype for p in kernel.parameters] == ["float16"] * 3 + ["int32"]
    x = np.array([1, -1, 0.1, 65504, 1e-7, 0, -0.5, np.inf], f2)
    y = np.array([2, -2, 0.3, 1, -1, -1, 8, 3], f2)
    out = host.run(kernel, [1], [32], [x, y, np.zeros((5, 8), f2), 8])[2]
    with np.errstate(over="ignore"):
        first = (x.astype("f4") * 2 + y).astype(f2)
        np.testing.assert_array_equal(out[0], (first.astype("f4") + 1).astype(f2))
    np.testing.assert_array_equal(out[1], np.maximum(x, y))
    np.testing.assert_array_equal(out[2][:7], np.nextafter(x, y)[:7])
    np.testing.assert_array_equal(out[3], [0, 4, 0, 0, 0, 0, 4, 2])
    np.testing.assert_array_equal(out[4], np.copysign(x, y))
