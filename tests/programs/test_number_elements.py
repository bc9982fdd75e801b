"""Half and complex numbers on the whole way: arguments, programs, a worker, results with one NaN."""

import numpy as np
import pytest

from depin_node.client import Out
from depin_node.client.local import launch
from depin_node.compute.programs.kernel import RawKernel
from depin_node.core.errors import ConfigError

ROTATE = RawKernel(
    """#include <cupy/complex.cuh>
    extern "C" __global__ void rotate(const complex<float>* x, complex<float>* o, complex<double> by, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) o[i] = complex<double>(x[i]) * by; }""",
    "rotate",
)
PAIRS = RawKernel(
    """#include <cuComplex.h>
    extern "C" __global__ void pairs(const float2* x, cuFloatComplex* o, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) o[i] = cuConjf(x[i]); }""",
    "pairs",
)
ROOT = RawKernel(
    """#include <cuda_fp16.h>
    extern "C" __global__ void root(const half* x, half* o, half by, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) o[i] = hsqrt(x[i]) * by; }""",
    "root",
)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DEPIN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def test_complex_numbers():
    x = np.array([1 + 2j, -3j, np.nan, complex(np.inf, 1)], "complex64")
    got = launch(ROTATE, 1, 32, (x, Out("complex64", 4), 0.5j, 4))
    np.testing.assert_array_equal(got[:2], x[:2] * np.complex64(0.5j))
    parts = got.view("float32")
    assert set(parts[np.isnan(parts)].view("uint32").tolist()) == {0x7FC00000}


def test_an_array_of_complex_numbers_is_one_of_pairs():
    x = np.array([1 + 2j, -3j, 4], "complex64")
    got = launch(PAIRS, 1, 32, (x, Out("complex64", 3), 3))
    assert got.dtype == "complex64"
    np.testing.assert_array_equal(got, x.conj())
    flat = launch(PAIRS, 1, 32, (x.view("float32"), Out("float32", 6), 3))
    np.testing.assert_array_equal(flat.view("complex64"), x.conj())
    with pytest.raises(ConfigError, match=r"x is const float32\*, its array is complex128"):
        launch(PAIRS, 1, 32, (x.astype("complex128"), Out("complex64", 3), 3))


def test_half_numbers():
    x = np.array([4, 2, -1, np.inf], "float16")
    got = launch(ROOT, 1, 32, (x, Out("float16", 4), 0.5, 4))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, np.sqrt(x) * np.float16(0.5))
    assert got.view("uint16")[2] == 0x7E00
    with pytest.raises(ConfigError, match="by is float16: expected a number, not complex"):
        launch(ROOT, 1, 32, (x, Out("float16", 4), 1j, 4))
