"""The fission shape gives the coroutine shape's bits, takes what it should and leaves the rest.

Kernels that hypothesis draws are in test_drawn_kernels.py.
"""

from typing import Any

import numpy as np
import pytest
import wasmtime
from kernel_cases import cases

CASES = {case.name: case for case in cases()}
HEAD = 'extern "C" __global__ void k(int* out) {{ int t = threadIdx.x; __shared__ int s[1024]; {} }}'


TAKEN = {
    "a barrier in a loop": """
        for (int k = 0; k < 4; ++k) { s[t] = t + k; __syncthreads(); out[t] += s[63 - t]; __syncthreads(); }""",
    "a loop that shared memory ends": """
        int n = 0;
        do { __syncthreads(); if (t == 0) s[0] = n < 5; __syncthreads(); n += 1; } while (s[0]);
        out[t] = n;""",
    "one warp alone": "if (t / 32 == 1) out[t] = __shfl_xor_sync(~0u, t, 1);",
    "one warp alone, found out by shifting": "int w = t >> 5; if (w == 1) out[t] = __ballot_sync(~0u, t & 1);",
    "a vote that ends a loop": "int n = t; while (__any_sync(~0u, n > 0)) --n; out[t] = n;",
    "a return before a barrier": "if (t % 3 == 1) return; s[t] = t; __syncthreads(); out[t] = s[t / 3 * 3];",
    "results of atomics": "s[t] = 0; __syncthreads(); out[t] = atomicAdd(&s[0], t) + atomicExch(&s[1], t);",
    "float atomics": """
        float* f = (float*)s; atomicAdd(f, 0.1f * t); __syncthreads(); out[t] = (int)(f[0] * 1e6f);""",
    "atomics that do not commute": """
        atomicAdd(&s[0], t * 37 % 11); atomicMax(&s[0], 70); __syncthreads(); out[t] = s[0];""",
    "a private array over a barrier": """
        int q[3] = {t, 5, 7}; int* p = q + t % 3; __syncthreads(); *p += 9; out[t] = q[0] + q[1];""",
    "what comes before a wait is read before it": """
        s[t] = t; __syncthreads();
        int a = t / 32 * 32, v = s[a + (t + 1) % 32] + __shfl_sync(~0u, 1, 0);
        s[t] = 100 + v; out[t] = s[t];""",
    "a stride that begins at a variable, after a loop of all": """
        int me = t, y = 64 * threadIdx.y;
        for (int c = 0; c < 4; ++c) s[y + me] = c;
        for (int i = me; i < 200; i += 64) s[y + me] += i;
        __syncthreads(); out[me] = s[me / 2];""",
}


@pytest.mark.parametrize("block", [(64,), (32, 2), (50,), (16, 3)])
@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN)
def test_takes(host: Any, build: Any, body: str, block: tuple[int, ...]) -> None:
    source, out = HEAD.format(body), [np.zeros(64, np.int32)]
    fast, slow = build(source), build(source, _shape="coroutine")
    assert fast.shape == "fission"
    assert host.run(fast, [2], block, out)[0].tobytes() == host.run(slow, [2], block, out)[0].tobytes()


LEFT = {
    "a barrier under a condition": "if (t < 40) { __syncthreads(); out[t] = s[1]; } else __syncthreads();",
    "a shuffle under a condition": "if (t % 32 < 16) out[t] = __shfl_xor_sync(0xffff, t, 1);",
    "a barrier in a loop of its own length": "for (int k = 0; k < t; ++k) __syncthreads();",
    "results of atomics on both sides of a warp function": """
        out[t] = atomicAdd(&s[0], 1); __syncwarp(); out[t] += atomicAdd(&s[0], 2);""",
    "printf before and after a return": 'printf("a"); if (t == 3) return; printf("b"); __syncthreads();',
    "a loop that lanes leave": "for (int k = 0; k < 9; ++k) { if (k == t) break; __syncwarp(); }",
}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_leaves_to_coroutines(build: Any, body: str) -> None:
    assert build(HEAD.format(body)).shape == "coroutine"


def test_a_warp_that_does_not_go_one_way_traps_as_its_deadlock_would(host: Any, build: Any) -> None:
    source = HEAD.format("if (t / 32 == 0) { s[t] = __shfl_xor_sync(~0u, t, 1); } __syncthreads(); out[t] = s[t];")
    assert build(source).shape == "fission"
    for shape in ("fission", "coroutine"):  # rows of 48: the second warp has threads of both kinds
        with pytest.raises(wasmtime.Trap):
            host.run(build(source, _shape=shape), [1], [48, 2], [np.zeros(64, np.int32)])


@pytest.mark.parametrize("name", ["matmul_tiled", "reduce_shuffle", "reduce_dynamic", "scan"])
def test_takes_less_fuel_than_coroutines(host: Any, build: Any, name: str) -> None:
    case, fuel = CASES[name], []
    for shape in ("fission", "coroutine"):
        kernel = build(case.source, case.kernel or case.name, _shape=shape)
        host.run(kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)
        fuel.append(host.fuel_used)
    assert fuel[0] < fuel[1] / 2


REFERENCES = {
    "to an element, over a loop": "int& r = out[t]; int v = t; for (int k = 0; k < 5; ++k) v = v * 3 + k; r = v;",
    "changed in a loop": "int& r = out[t]; for (int k = 0; k < 5; ++k) r = r * 3 + t;",
    "changed in a loop of its own length": "int& r = out[t]; for (int k = 0; k < t % 7; ++k) r += k; r -= t;",
    "to one of two": """
        int a[2] = {t, 5}; int& r = t % 2 ? out[t] : a[1]; int v = 0; for (int k = 0; k < 5; ++k) v += k * t;
        r = v; out[t] += a[1];""",
    "to a place that is loaded": """
        s[t] = 63 - t; int& r = out[s[t]]; int v = 1; for (int k = 0; k < 5; ++k) v = v * 3 + t; r = v;""",
    "to a variable": "int v = t; int& r = v; for (int k = 0; k < 5; ++k) r = r * 3 + k; out[t] = v;",
    "to a place that then moves on": """
        int i = t; int& r = out[i]; for (int k = 0; k < 3; ++k) { i = (i + 7) % 64; r += i; }""",
    "of a reference": "int& q = out[t]; int& r = q; for (int k = 0; k < 5; ++k) { q += k; r = r * 3 + 1; }",
    "to a member": """
        struct { int a, b; } p = {t, 2}; int& r = p.b; for (int k = 0; k < 5; ++k) r = r * 3 + p.a; out[t] = p.b;""",
    "a value that was read before it changed": """
        int& r = out[t]; int old = r; r = old * 2; for (int k = 0; k < 3; ++k) r += old;
        for (int k = 0; k < t % 4; ++k) r += old;""",
    "read by another name before it changed": """
        const int& c = out[t]; int old = c; out[t] = 1; for (int k = 0; k < 3; ++k) out[t] += old;
        for (int k = 0; k < t % 4; ++k) out[t] += old;""",
    "an index that is one": """
        int i = t % 64; int& w = i; int& r = out[w]; w = 63 - w; for (int k = 0; k < 5; ++k) r = r * 3 + k + t;
        for (int k = 0; k < 5; ++k) r = r * 3 + k;""",
    "to a pointer's place that then moves": """
        int* p = out + t; int& r = *p; p = out; for (int k = 0; k < 5; ++k) r = r * 3 + k + t;""",
    "to a copy of another type": """
        short h = 5; const int& c = h; h = 9; int v = 0; for (int k = 0; k < 4; ++k) v += c;
        for (int k = 0; k < t % 4; ++k) v += c; out[t] = v;""",
    "made anew in a loop": """
        for (int k = 0; k < 3; ++k) { int& r = out[t]; for (int q = 0; q < t % 5; ++q) r += q + k; r *= 3; }""",
    "the same in all threads": """
        int& r = s[3]; if (t == 0) r = 4; __syncthreads(); for (int k = 0; k < 3; ++k) out[t] += r * k;
        __syncthreads(); if (t == 0) r += 2; __syncthreads(); out[t] += r;""",
}


@pytest.mark.parametrize("barrier", ["", "__syncthreads();"], ids=["alone", "after a barrier"])
@pytest.mark.parametrize("body", REFERENCES.values(), ids=REFERENCES)
def test_references(host: Any, build: Any, body: str, barrier: str) -> None:
    """They are no values: what is assigned to one goes where it refers to, and it refers to that for good."""
    source, out = HEAD.format(barrier + body), [np.arange(64, dtype=np.int32)]
    fast, slow = build(source), build(source, _shape="coroutine")
    for blocks in ([64], [48]):
        assert host.run(fast, [1], blocks, out)[0].tobytes() == host.run(slow, [1], blocks, out)[0].tobytes()
