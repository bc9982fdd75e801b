"""Kernels without barriers whose threads go through loops together have the bits of one thread after the other."""

from typing import Any

import numpy as np
import pytest

LEAVING = """
__device__ int escape(float a, float b, int most) {
    float x = 0, y = 0;
    int count = 0;
    for (; count < most; ++count) {
        float t = x * x - y * y + a;
        y = 2 * x * y + b;
        x = t;
        if (x * x + y * y > 4.0f) break;
    }
    return count;
}
"""
DATA = "int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return; unsigned v = a[i]; float x = f[i];"
BODIES = {
    "while": "int c = 0; while (v != 1) { if (v & 1) v = 3 * v + 1; else v >>= 1; ++c; } out[i] = c;",
    "break": """int c = 0;
        for (int j = 0; j < 90; ++j) { c += j; if ((v >> (j % 32)) % 7 == 3) break; v ^= c; }
        out[i] = c + v;""",
    "continue": "int c = 0; while (v > 3) { v = v / 3; if (v & 1) continue; c += v; } out[i] = c;",
    "nested jumps": """int c = 0;
        for (int j = 0; (unsigned)j < v % 50; ++j) {
            if (v & 1) { v += j; if (v % 5 == 0) { c += 3; break; } if (v % 3) continue; c += 7; }
            else if (v % 11 == 2) { v >>= 1; continue; }
            v += c; { int d = j * c; c += d % 13; }
        }
        out[i] = c + v;""",
    "do": """int c = 0;
        do { v = v % 97 * 5 + 1; if (v == 6) continue; ++c; } while (c < 20 && v > 4);
        out[i] = c * 1000 + v;""",
    "condition with an effect": """int c = v % 40, d = 0;
        while (c-- > 0) { d += c * c; if (d > 900) break; }
        out[i] = d * 64 + c;""",
    "division that may trap": "unsigned w = n; while (v) { unsigned t = w % v; w = v; v = t; } out[i] = w;",
    "endless but for a break": """float r = x, last; int c = 0;
        for (;;) { last = r; r = 0.5f * (r + x / r); ++c; if (!(fabsf(r - last) > 1e-6f * r)) break; }
        out[i] = c * 65536 + (__float_as_int(r) & 0xffff);""",
    "never entered": "int c = 5; while (v > 5000000u) { --v; ++c; } out[i] = c;",
    "inlined": "out[i] = escape(x - 1.5f, 0.5f * x, 50);",
    "inside a loop together": """int c = 0;
        for (int j = 1; j < m; ++j) {
            unsigned w = v * j;
            while (w & 7) { w = w * 3 + j; c += 1; if (c > 500) break; }
            v += w;
        }
        out[i] = c + v;""",
    "together, with loads": """unsigned s = 0;
        for (int j = 0; j < m; ++j) { s += a[j] * v; s ^= a[(i + j) % n]; }
        out[i] = s;""",
    "loads until some leave": """unsigned s = 0;
        for (int j = v % 29; j < m; ++j) s = s * 5 + a[(i + j) % n];
        out[i] = s;""",
    "stores in a loop": "for (int j = 0; j < 3; ++j) if (v >> j & 1) out[i] = out[i] * 3 + j; else out[i] += v;",
    "streaming": "float s = 0; for (int j = i; j < n; j += 40) s += f[j] * x; out[i] = __float_as_int(s);",
    "grid stride": "out[i] = 1; for (int j = i; j < n; j += m * n) { out[j] += a[j]; }",
}


def arguments(n: int) -> list[Any]:
    rng = np.random.default_rng(n)
    numbers = rng.integers(1, 4000, n, dtype=np.uint32)
    floats = rng.random(n, dtype=np.float32) * np.float32(3)
    floats[n // 2] = np.nan
    floats[n // 3] = 0
    return [numbers, floats, np.zeros(n, np.int32), n, 17]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_lanes_in_lock_step_do_what_each_does_alone(body: str, host: Any, build: Any) -> None:
    source = (
        f"{LEAVING}__global__ void k(const unsigned* a, const float* f, int* out, int n, int m) {{ {DATA} {body} }}"
    )
    natural, plain = build(source), build(source, _shape="loop")
    assert (natural.shape, plain.shape) == ("fission", "loop")
    for n, block in ((320, (64,)), (300, (64,)), (100, (25,)), (200, (8, 1))):
        grid = (-(-n // block[0]),)
        alone, together = (host.run(kernel, grid, block, arguments(n)) for kernel in (plain, natural))
        assert [array.tobytes() for array in together] == [array.tobytes() for array in alone]


@pytest.mark.parametrize(
    "body",
    [
        "out[i] = v;",
        "for (int j = 0; j < 5; ++j) atomicExch(&out[j], i);",
        "if (v & 1) for (int j = 0; j < m; ++j) out[i] += j;",
    ],
    ids=["no loop", "order shows", "a loop that some never see"],
)
def test_what_gains_nothing_stays_a_plain_loop(body: str, build: Any) -> None:
    source = f"__global__ void k(const unsigned* a, const float* f, int* out, int n, int m) {{ {DATA} {body} }}"
    assert build(source).shape == "loop"


def test_a_long_calculation_in_several_loops_has_the_bits_of_one(host: Any, build: Any) -> None:
    body = """float y = expf(x) + logf(x + 1) / (x + 2), z = sqrtf(y) / (1 + y);
        if (v & 1) z = expf(-z) / y;
        y += z; out[i] = __float_as_int(y);"""
    source = f"__global__ void k(const unsigned* a, const float* f, int* out, int n, int m) {{ {DATA} {body} }}"
    natural, plain = build(source), build(source, _shape="loop")
    assert (natural.shape, plain.shape) == ("loop", "loop")
    assert natural.module != plain.module
    for n, block in ((320, 64), (300, 128), (100, 25)):
        alone, spread = (host.run(kernel, (-(-n // block),), (block,), arguments(n)) for kernel in (plain, natural))
        assert [array.tobytes() for array in spread] == [array.tobytes() for array in alone]


FUNCTIONS = """
__device__ float bell(float d) { float t = expf(-0.5f * d * d); return d > 1.0f ? 1.0f - t : t; }
__device__ float early(float d) { if (d > 1.0f) return expf(-d); return logf(d + 2.0f); }
__device__ float grown(float& d) { d += 1.0f; return logf(d); }
"""
STRIPS = {
    "nested, beside what changes": "float w = x; w = w * expf(-logf(w + expf(-w))); w += expf(w++) + w; y = w;",
    "functions": "y = x * bell(x) - f[i] * bell(x - 1.0f) + early(x);",
    "a reference": "float w = x; y = w * grown(w) - w;",
    "not for all": "y = v & 1 ? exp(x) : log(x); if (x > 1.0f && expf(x) > 4.0f) y = __logf(y) - __expf(-x);",
    "not of the lane's own": "y = expf(0.01f * m) * x + expf(0.01f * threadIdx.x) + logf(i);",
    "an address": "float w = expf(x), *p = &w; *p += 1.0f; y = *p * expf(f[i] = -x);",
    "any value": "y = expf(x * 1e38f - 50.0f) + expf(50.0f - x * 60.0f) + logf(x - 1.0f) - logf(x * 1e-38f);",
}


@pytest.mark.parametrize("body", STRIPS.values(), ids=STRIPS)
def test_functions_for_whole_strips_give_each_lane_its_own(body: str, host: Any, build: Any) -> None:
    names = "__global__ void k(const unsigned* a, float* f, int* out, int n, int m)"
    source = f"{FUNCTIONS}{names} {{ {DATA} float y = 0; {body} out[i] = __float_as_int(y); }}"
    natural, plain = build(source), build(source, _shape="loop")
    assert natural.module != plain.module
    for n, block in ((320, 64), (300, 128)):
        alone, strips = (host.run(kernel, (-(-n // block),), (block,), arguments(n)) for kernel in (plain, natural))
        assert [array.tobytes() for array in strips] == [array.tobytes() for array in alone]


def test_rows_of_a_block_with_several_are_whole_or_run_plainly(host: Any, build: Any) -> None:
    source = """__global__ void k(const float* z, float* out, int w, int h) {
        int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
        if (x >= w || y >= h) return;
        float s = 0;
        for (int dy = -2; dy <= 2; ++dy)
            for (int dx = -2; dx <= 2; ++dx) {
                int u = x + dx, v = y + dy;
                if (u >= 0 && u < w && v >= 0 && v < h) s += z[v * w + u] * (dx * dy + 1);
            }
        out[y * w + x] = s;
    }"""
    z = np.random.default_rng(1).random((45, 70), dtype=np.float32)
    natural, plain = build(source), build(source, _shape="loop")
    runs = [host.run(kernel, (5, 6), (16, 8), [z, np.zeros_like(z), 70, 45])[1] for kernel in (natural, plain)]
    assert natural.shape == "fission"
    assert runs[0].tobytes() == runs[1].tobytes()
    assert runs[0].any()
