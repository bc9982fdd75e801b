"""Complex numbers: CuPy's complex<T> and cuComplex.h against mpmath, special values against C99's Annex G."""

import cmath
from typing import Any

import mpmath
import numpy as np
import pytest

FUNCTIONS = ["exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh"]
FUNCTIONS += ["asin", "acos", "atan", "asinh", "acosh", "atanh", "log10"]
BOUNDS = {np.complex64: 0.6, np.complex128: 4.0}
"""In ulps of the larger part; each part alone may lose more where the other one dominates."""


def points(dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(11)
    n = 150
    near = rng.uniform(-3, 3, n) + 1j * rng.uniform(-3, 3, n)
    scales = np.exp2(rng.uniform(-30, 5, (2, n))) * rng.choice([-1, 1], (2, n))
    ring = np.exp(1j * rng.uniform(-np.pi, np.pi, n)) * (1 + np.exp2(rng.uniform(-20, -3, n)) * rng.choice([-1, 1], n))
    marks = [1, -1, 1j, -1j, 2, -2, 0.5j, 1e-10 + 1j, 1 + 1e-10j, -1 - 1e-10j, 30 + 2j, -40 + 1j, 1e5j, 1e10 - 3j]
    return np.concatenate([near, scales[0] + 1j * scales[1], ring, marks]).astype(dtype)


@pytest.fixture(scope="module")
def functions(host: Any) -> Any:
    from depin_node.compute.translate import compile_kernel

    kernels = {}
    for dtype, kind in ((np.complex64, "float"), (np.complex128, "double")):
        lines = "\n".join(f"case {k}: o[i] = {name}(x[i]); break;" for k, name in enumerate(FUNCTIONS))
        source = f"""#include <cupy/complex.cuh>
            __global__ void k(const complex<{kind}>* x, complex<{kind}>* o, int n, int f) {{
                int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return; switch (f) {{ {lines} }} }}"""
        kernels[dtype] = compile_kernel(source, "k", deadline_s=120)

    def run(name: str, x: np.ndarray) -> np.ndarray:
        arguments = [x, np.zeros_like(x), len(x), FUNCTIONS.index(name)]
        out: np.ndarray = host.run(kernels[x.dtype.type], [-(-len(x) // 64)], [64], arguments)[1]
        return out

    return run


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error(functions: Any, name: str, dtype: Any) -> None:
    x = points(dtype)
    got = functions(name, x)
    worst, info = (0.0, None), np.finfo(dtype)
    with mpmath.workprec(200):
        for z, w in zip(x, got, strict=True):
            exact = getattr(mpmath, name)(mpmath.mpc(complex(z)))
            if z.imag == 0 and name in ("asin", "acos", "acosh", "atanh") and abs(exact.imag):
                exact = mpmath.mpc(exact.real, abs(exact.imag) * (-1 if name == "acos" else 1))  # on the cut, above it
            if z.real == 0 and name in ("asinh", "atan") and abs(z.imag) > 1:
                exact = mpmath.mpc(abs(exact.real), exact.imag)
            size = max(abs(exact.real), abs(exact.imag))
            if size > float(info.max):
                continue
            ulp = max(mpmath.mpf(2) ** (mpmath.frexp(size)[1] - 1 - info.nmant), float(info.smallest_subnormal))
            error = max(abs(exact.real - float(w.real)), abs(exact.imag - float(w.imag))) / ulp
            worst = max(worst, (float(error), (complex(z), complex(w))), key=lambda item: item[0])
    assert worst[0] <= BOUNDS[dtype], worst


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]


EXACTLY = FUNCTIONS[:9]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(functions: Any, name: str) -> None:
    """As Python's cmath, which follows Annex G; of tanh at zeros and NaN we follow its correction (DR 471)."""
    x = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL])
    open_ = 0
    for z, w in zip(x.tolist(), functions(name, x).tolist(), strict=True):
        try:
            wanted = getattr(cmath, name)(complex(z))
        except (ValueError, OverflowError):
            open_ += 1
            continue
        for got, part in ((w.real, wanted.real), (w.imag, wanted.imag)):
            if np.isnan(part):
                assert cmath.isnan(got) or name not in EXACTLY or (name in ("tan", "tanh") and got == 0), (
                    z,
                    w,
                    wanted,
                )
            else:
                assert abs(got - part) < 1e-12 or got == part or not cmath.isfinite(z), (z, w, wanted)
    assert open_ < 30


@pytest.mark.parametrize("dtype", BOUNDS)
def test_operators(host: Any, build: Any, dtype: Any) -> None:
    kind = "float" if dtype is np.complex64 else "double"
    lines = """x[i] + y[i]|x[i] - y[i]|x[i] * y[i]|x[i] / y[i]|x[i] * R(2)|R(3) * x[i]|x[i] / R(2)|R(1) / x[i]
        |2 + x[i]|x[i] - 1|-x[i]|conj(x[i])|proj(x[i])|pow(x[i], y[i])|pow(x[i], R(2))|pow(x[i], 3)
        |C(abs(x[i]), arg(x[i]))|C(norm(x[i]), x[i].real())|C(imag(x[i]), real(y[i]))|polar(R(2), y[i].real())
        |C(x[i] == y[i], x[i] != y[i])
        |C(x[i] < y[i], x[i] >= y[i])|max(x[i], y[i])|log1p(x[i])|log2(x[i])|expm1(x[i])|changed(x[i], y[i])"""
    expressions = [line.strip() for line in lines.split("|")]
    text = "".join(f"o[{k} * n + i] = {line};" for k, line in enumerate(expressions))
    kernel = build(f"""#include <cupy/complex.cuh>
        typedef {kind} R; typedef complex<R> C;
        __device__ C changed(C z, const C& w) {{ z += w; z -= R(1); z *= w; z /= 2; z.imag(z.imag() + 1);
            C a[2] = {{z, w}}; thrust::complex<double> wide = a[0]; a[1] = R(3); return C(wide) + a[1]; }}
        __global__ void k(const C* x, const C* y, C* o, int n) {{
            int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) {{ {text} }} }}""")
    rng = np.random.default_rng(2)
    x, y = ((rng.normal(size=100) + 1j * rng.normal(size=100)).astype(dtype) for _ in "xy")
    y[7] = x[7]
    got = host.run(kernel, [2], [64], [x, y, np.zeros((len(expressions), 100), dtype), 100])[2]
    less = (x.real < y.real) | ((x.real == y.real) & (x.imag < y.imag))
    wanted = [x + y, x - y, x * y, x / y, x * 2, 3 * x, x / 2, 1 / x, 2 + x, x - 1, -x, x.conj(), x]
    wanted += [x**y, x**2, x**3, abs(x) + 1j * np.angle(x), abs(x) ** 2 + 1j * x.real, x.imag + 1j * y.real]
    wanted += [2 * np.exp(1j * y.real), (x == y) + 1j * (x != y), less + 1j * ~less, np.maximum(x, y)]
    wanted += [np.log1p(x), np.log2(x), np.expm1(x), (x + y - 1) * y / 2 + 1j + 3]
    for expression, a, b in zip(expressions, got, wanted, strict=True):
        tolerance = 2e-5 if dtype is np.complex64 else 1e-13
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=expression)
    assert [p.dtype for p in kernel.parameters] == [np.dtype(dtype).name] * 3 + ["int32"]


def test_division_does_not_overflow_and_shared_memory_holds_complex_numbers(host: Any, build: Any) -> None:
    kernel = build("""#include <thrust/complex.h>
        __global__ void k(const thrust::complex<float>* x, thrust::complex<float>* o) {
            __shared__ complex<float> s[32];
            s[threadIdx.x] = x[threadIdx.x]; __syncthreads();
            o[threadIdx.x] = s[31 - threadIdx.x] / s[threadIdx.x]; }""")
    x = (np.linspace(1, 4, 32) * np.array([1e30, 1e-30] * 16) * (1 + 1j)).astype(np.complex64)
    out = host.run(kernel, [1], [32], [x, np.zeros_like(x)])[1]
    with np.errstate(over="ignore"):
        wanted = (x[::-1].astype(complex) / x).astype(np.complex64)
    np.testing.assert_allclose(out.real, wanted.real, rtol=1e-5)


def test_cucomplex(host: Any, build: Any) -> None:
    kernel = build("""#include <cuComplex.h>
        __global__ void k(const cuFloatComplex* x, const cuDoubleComplex* y, cuDoubleComplex* o, int n) {
            int i = threadIdx.x; if (i >= n) return;
            cuDoubleComplex a = cuComplexFloatToDouble(cuCmulf(x[i], cuConjf(x[i])));
            o[i] = cuCadd(a, cuCdiv(y[i], make_cuDoubleComplex(cuCabs(y[i]), 1.0)));
            o[n + i] = cuCfma(y[i], a, cuCsub(y[i], a));
            o[2 * n + i] = make_cuDoubleComplex(cuCrealf(make_cuComplex(2.0f, 3.0f)), cuCimag(y[i])); }""")
    assert [(p.dtype, p.lanes) for p in kernel.parameters[:3]] == [("float32", 2), ("float64", 2), ("float64", 2)]
    rng = np.random.default_rng(4)
    x = (rng.normal(size=20) + 1j * rng.normal(size=20)).astype(np.complex64)
    y = rng.normal(size=20) + 1j * rng.normal(size=20)
    out = host.run(kernel, [1], [32], [x, y, np.zeros((3, 20), complex), 20])[2]
    a = (abs(x) ** 2).astype(complex)
    np.testing.assert_allclose(out, [a + y / (abs(y) + 1j), y * a + (y - a), 2 + 1j * y.imag], rtol=1e-5, atol=1e-6)
    bridged = build("""#include <cupy/cuComplex_bridge.h>
        __global__ void k(cuFloatComplex* x) { x[0] = cuCmulf(x[0], make_cuFloatComplex(0.0f, cuCabsf(x[0]))); }""")
    assert host.run(bridged, [1], [1], [np.array([3 + 4j], np.complex64)])[0].tolist() == [-20 + 15j]
