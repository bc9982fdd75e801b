"""Which programs are found out to have no defined bits; the corpus's verdicts are in tests/translate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depin_node.compute.devices.trial import try_bits
from depin_node.compute.programs.binding import bind
from depin_node.compute.programs.builder import Bound
from depin_node.compute.programs.kernel import Out, RawKernel

N = 256


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))


def bound(body: str, args: Sequence[Any] = (), *, shards: int = 1, before: str = "") -> Bound:
    head = 'extern "C" __global__ void k(const float* x, float* out) { int i = blockIdx.x * blockDim.x + threadIdx.x;'
    code = f"{before}\n{head}\n{body} }}"
    x = np.linspace(0, 1, N, dtype=np.float32)
    return bind(RawKernel(code, "k"), N // 64, 64, [x, Out("float32", N, tile=64)], shards=shards)


DEFINED = {
    "each its own": "out[i] = x[i] * 2;",
    "through shared memory": (
        "__shared__ float s[64]; s[threadIdx.x] = x[i]; __syncthreads(); out[i] = s[63 - threadIdx.x];"
    ),
    "by shuffles": "float v = x[i]; for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d); out[i] = v;",
    "integer atomics": (
        "__shared__ int n; if (!threadIdx.x) n = 0; __syncthreads(); atomicAdd(&n, i); __syncthreads(); out[i] = n;"
    ),
    "an exchange with barriers": (
        "__shared__ float s[64]; int t = threadIdx.x; s[t] = x[i]; __syncthreads(); float a = s[t], b = s[t ^ 1];"
        "__syncthreads(); s[t] = t & 1 ? fmaxf(a, b) : fminf(a, b); __syncthreads(); out[i] = s[63 - t];"
    ),
    "an exchange in a warp": (
        "__shared__ float s[64]; int t = threadIdx.x; s[t] = x[i]; __syncwarp(); float b = s[t ^ 1]; __syncwarp();"
        "s[t] += b; __syncwarp(); out[i] = s[t ^ 2];"
    ),
    "each its own bytes": "__shared__ char s[64]; s[threadIdx.x] = i; out[i] = s[threadIdx.x];",
    "all store the same": "__shared__ int n; n = blockIdx.x; __syncthreads(); out[i] = n;",
    "a warp reads what all wrote": (
        "__shared__ float s[64]; int t = threadIdx.x; s[t] = x[i]; __syncthreads(); float a = t < 32 ? s[t + 32] : 0;"
        "__syncthreads(); s[t] = a; out[i] = s[t];"
    ),
    "set before use": "float v; if (i % 2) v = 1; else v = 2; out[i] = v;",
}
UNDEFINED = {
    "a neighbour's result": "out[i] = x[i]; if (threadIdx.x) out[i] += out[i - 1];",
    "shared memory without a barrier": (
        "__shared__ float s[64]; s[threadIdx.x] = x[i]; out[i] = s[(threadIdx.x + 1) % 64];"
    ),
    "a race of blocks": "out[threadIdx.x + (blockIdx.x & ~1) * 64] = blockIdx.x; ",
    "a local that nobody set": "float v; if (i < 3) v = 1; out[i] = v;",
    "a member that no constructor sets": "Pair p(i); out[i] = p.b;",
    "shared memory that nobody wrote": "__shared__ float s[64]; out[i] = s[threadIdx.x];",
    "beyond an input": "out[i] = x[i + 200];",
}
RACES = {
    "an exchange of pairs that are in order": (
        "__shared__ float s[64]; int t = threadIdx.x; s[t] = x[i]; __syncthreads();"
        "s[t] = t & 1 ? fmaxf(s[t], s[t ^ 1]) : fminf(s[t], s[t ^ 1]); __syncthreads(); out[i] = s[t];"
    ),
    "the smaller of a pair": (
        "__shared__ float s[64]; int t = threadIdx.x; s[t] = x[i]; __syncthreads(); s[t] = fminf(s[t], s[t ^ 1]);"
        "out[i] = s[t];"
    ),
    "through a pointer": (
        "__shared__ float s[64]; float* p = s + threadIdx.x; *p = x[i]; __syncthreads();"
        "float& q = p[threadIdx.x & 1 ? -1 : 1]; *p = fmaxf(*p, q); __syncthreads(); out[i] = *p;"
    ),
    "warps behind a wait of one": (
        "__shared__ float s[64]; int t = threadIdx.x; s[t] = 1 + x[i] * 0; __syncthreads();"
        "s[t] = 2; __syncwarp(); s[t ^ 32] *= 1; s[t ^ 32] += 0 * t; __syncthreads(); out[i] = s[t];"
    ),
    "a member": (
        "__shared__ float2 s[64]; int t = threadIdx.x; s[t].x = x[i]; s[t].y = s[t].x; __syncthreads();"
        "s[t].y = fminf(s[t].y, s[t ^ 1].y); out[i] = s[t].y;"
    ),
}
PAIR = "struct Pair { float a, b; __device__ Pair(int i) : a(i) {} };"


@pytest.mark.parametrize("name", DEFINED)
def test_defined_bits(name: str) -> None:
    assert try_bits(bound(DEFINED[name])) == (True, "", True)


@pytest.mark.parametrize("name", UNDEFINED)
def test_undefined_bits(name: str) -> None:
    program = bound(UNDEFINED[name], before=PAIR)
    assert program.program.exact  # the compiler alone does not see it
    verdict = try_bits(program)
    assert not verdict.exact
    assert "elements of out" in verdict.note or "with no wait between" in verdict.note


@pytest.mark.parametrize("name", RACES)
def test_races_that_decide_alike_in_both_orders(name: str) -> None:
    program = bound(RACES[name], before=PAIR)
    assert program.program.exact
    verdict = try_bits(program)
    assert not verdict.exact
    assert "with no wait between" in verdict.note


def test_an_answer_is_kept_unless_a_fresh_one_is_wanted(tmp_path: Path) -> None:
    program = bound(DEFINED["each its own"])
    assert try_bits(program).exact
    (kept,) = tmp_path.glob("trials/*.json")
    kept.write_text('[false, "as kept", true]')
    assert try_bits(program) == (False, "as kept", True)
    assert try_bits(program, fresh=True) == (True, "", True)
    kept.write_text("damaged")
    assert try_bits(program) == (True, "", True)


def test_what_ends_without_a_result_is_not_tried() -> None:
    verdict = try_bits(bound("while (x[0] == 0) out[i] += 1;"), seconds=0.1)
    assert verdict.exact
    assert "not tried" in verdict.note
    assert "did not end" in verdict.note
    assert not verdict.tried
    assert verdict.holds_for("wasm-1")  # which gives equal modules equal bits, defined or not
    assert not verdict.holds_for("strict-1")
    assert not verdict.holds_for("cuda:sm_90:nvrtc-12.8:x")
