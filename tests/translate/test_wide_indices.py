"""Indices of 64 bits: right where they lead into the array, and the end of the task where they pass 4 GiB."""

from typing import Any

import numpy as np
import pytest
import wasmtime

FAR = {
    "affine in the thread": "size_t i = (size_t)far * f + threadIdx.x; if (i < 1ull << 40) x[i] = 1;",
    "affine without a guard": "x[(size_t)far * f + threadIdx.x] = 1;",
    "negative": "long long i = -(long long)far * f + (int)threadIdx.x; x[i] = 1;",
    "by a table": "x[(long long)far * f * (int)x[threadIdx.x]] = 1;",
    "changed on the way": "size_t i = threadIdx.x; i += (size_t)far * f; x[i] = 1;",
    "pointer moved": "float* p = x + (size_t)far * f; *p = 1;",
    "pointer stepped": "float* p = x; p += (size_t)far * f; p[threadIdx.x] = 1;",
    "in a function": "store(x, (size_t)far * f);",
    "of three floats": "((float3*)x)[(size_t)far * f].y = 1;",
}
FUNCTION = "__device__ void store(float* x, size_t i) { x[i] = 1; }\n"


@pytest.mark.parametrize("shape", ["loop", "coroutine"])
@pytest.mark.parametrize("name", FAR)
def test_an_index_beyond_4_gib_traps_and_does_not_wrap(build: Any, host: Any, name: str, shape: str) -> None:
    kernel = build(f"{FUNCTION}__global__ void k(float* x, int far, unsigned f) {{ {FAR[name]} }}", _shape=shape)
    x = np.ones(64, np.float32)
    assert host.run(kernel, [1], [32], [x, 0, 1])[0].shape == x.shape
    for elements in (1 << 30, 1 << 31, 1 << 34):  # 4 GiB, 8 GiB, 64 GiB further: each would wrap to the array itself
        with pytest.raises(wasmtime.Trap):
            host.run(kernel, [1], [32], [x, elements >> 20, 1 << 20])


@pytest.mark.parametrize("shape", ["loop", "coroutine"])
def test_places_that_lie_more_than_2_gib_apart_have_their_distance(build: Any, host: Any, shape: str) -> None:
    kernel = build(
        """__global__ void k(long long* x, unsigned far) { const char* a = (const char*)x; const char* b = a + far;
        const short* c = (const short*)x; const double3* d = (const double3*)x; const double3* e = d + far / 24;
        x[0] = b - a; x[1] = a - b; x[2] = c + far / 2 - c; x[3] = d - e; x[4] = &x[7] - x; x[5] = b > a; }""",
        _shape=shape,
    )
    for far in (3_000_000_000, 24):
        found = host.run(kernel, [1], [1], [np.zeros(8, np.int64), far])[0]
        assert found.tolist() == [far, -far, far // 2, -(far // 24), 7, 1, 0, 0]
