"""Which programs are found out to have no defined bits; the corpus's verdicts are in tests/translate."""

import re
from pathlib import Path

import numpy as np
import pytest

from depin_node.compute.devices import trial
from depin_node.compute.devices.trial import Verdict, try_bits
from depin_node.compute.programs.binding import bind
from depin_node.compute.programs.builder import Bound, ProgramBuilder
from depin_node.compute.programs.kernel import Along, InOut, Out, RawKernel

N = 256


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))


def bound(body: str, *, shards: int = 1, before: str = "") -> Bound:
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
    "its own bytes and words": (
        "__shared__ int s[64]; int t = threadIdx.x; s[t] = i; ((char*)s)[4 * t + 1] = 1; __syncthreads();"
        "out[i] = s[t] + ((short*)s)[2 * (t ^ 1)];"
    ),
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
    "beyond an input, by its address": "out[i] = *(x + i + 200);",
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
    "a byte of another's word": (
        "__shared__ int s[64]; int t = threadIdx.x; s[t] = t; out[i] = 0 * ((char*)s)[4 * t + 6 & 255];"
    ),
    "a word of which another has a byte": (
        "__shared__ int s[64]; int t = threadIdx.x; ((char*)s)[4 * t + 2] = 0; out[i] = 0 * s[t ^ 1];"
    ),
    "a member": (
        "__shared__ float2 s[64]; int t = threadIdx.x; s[t].x = x[i]; s[t].y = s[t].x; __syncthreads();"
        "s[t].y = fminf(s[t].y, s[t ^ 1].y); out[i] = s[t].y;"
    ),
}
ARRAYS_DEFINED = {
    "a flag that many store": "if (x[i] > 0.5f) n[0] = 1;",
    "a histogram": "atomicAdd(n + (i & 3), 1);",
    "a maximum": "atomicMax(n, i);",
    "sums and differences": "if (i & 1) atomicAdd(n, 3); else atomicSub(n, 1);",
    "through an array, behind a barrier": (
        "out[i] = i; __syncthreads(); float v = out[i ^ 63]; __syncthreads(); out[i] = v;"
    ),
    "through an array, in a warp": "out[i] = i; __syncwarp(); float v = out[i ^ 1]; __syncwarp(); out[i] = v;",
    "a block's own counter": (
        "if (!t) n[b] = 0; __syncthreads(); atomicAdd(n + b, 1); __syncthreads(); out[i] = n[b];"
    ),
    "bytes side by side": "((char*)n)[i] = i;",
    "a local behind a pointer": "int v[4] = {i}; int* p = v + (i & 3); *p += 1; out[i] = v[0] + *p;",
}
ARRAYS_RACE = {
    "the last of three": "if (i == 99 || i == 155) n[5] = i == 99; if (i == 7 || i == 248) n[5] = 2;",
    "a maximum without atomics": "if (i > n[5]) n[5] = i;",
    "a neighbour's result that adds nothing": "out[i] = x[i]; n[i] = i; if (i == 5 || i == 6) out[i] += 0 * n[5];",
    "another block's result": "if (!t) n[b] = 1; if (t == 1) out[i] = 0 * n[b ^ 1];",
    "an exchange of pairs": ("n[i] = i; __syncthreads(); n[i] = t & 1 ? max(n[i], n[i ^ 1]) : min(n[i], n[i ^ 1]);"),
    "a counter that is read": "atomicAdd(n + 5, 1); out[i] = n[5] > 1000;",
    "a counter behind a barrier": "atomicAdd(n + 5, 1); __syncthreads(); if (!t) out[i] = n[5] >= 64;",
    "a counter that is set": "if (i == 128) n[5] = 0; atomicAdd(n + 5, 0);",
    "a sum and a maximum": "if (i == 8) atomicAdd(n + 5, 1); if (i == 80) atomicMax(n + 5, 0);",
    "a load by a function": "if (!t) n[5 + b] = 1; out[i] = 0 * __ldg(n + 5 + (b ^ 1));",
    "a store by a function": "__stcg(n + 5, t & 32);",
    "a byte of a word": "((char*)n)[22] = i & 64;",
    "rows of a block": "if (i < 64 && (t >> 4) < 2) n[t & 15] = t >> 4 ? 0 : n[t & 15];",
}
"""``n`` has 256 zeros. Nothing comes out otherwise in the reverse order."""
PAIR = "struct Pair { float a, b; __device__ Pair(int i) : a(i) {} };"


@pytest.mark.parametrize("name", DEFINED)
def test_defined_bits(name: str) -> None:
    assert try_bits(bound(DEFINED[name])) == Verdict(True)


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


def over_an_array(body: str, n: int = N) -> Bound:
    head = 'extern "C" __global__ void k(const float* x, float* out, int* n) { int t = threadIdx.x, b = blockIdx.x,'
    code = f"{head} i = b * blockDim.x + t; {body} }}"
    x = np.linspace(0, 1, n, dtype=np.float32)
    return bind(RawKernel(code, "k"), n // 64, 64, [x, Out("float32", n), InOut(np.zeros(n, np.int32))])


@pytest.mark.parametrize("name", ARRAYS_DEFINED)
def test_what_is_in_order_in_arrays(name: str) -> None:
    assert try_bits(over_an_array(ARRAYS_DEFINED[name])) == Verdict(True)


@pytest.mark.parametrize("name", ARRAYS_RACE)
def test_races_in_arrays_are_seen_and_told_whatever_comes_out(name: str) -> None:
    program = over_an_array(ARRAYS_RACE[name])
    assert program.program.exact
    verdict = try_bits(program)
    assert not verdict.exact
    assert re.search(r"two threads touch element \d+ of what the task holds of n in task 0,.*no wait", verdict.note)


def test_of_a_large_launch_the_last_blocks_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = (over_an_array(f"if ({which}) n[5] = b;", n=16 * N) for which in ("b < 2", "b > 61"))
    assert not try_bits(first).exact
    monkeypatch.setattr(trial, "FUEL_MAX", 1)
    assert try_bits(first, fresh=True) == Verdict(True)
    assert not try_bits(last).exact


def test_launches_follow_each_other() -> None:
    """What one launch leaves, the next may read and change; so may one of a module that comes in between."""
    code = 'extern "C" __global__ void k(int* n, int by) { n[threadIdx.x] += n[threadIdx.x ^ by] * 0 + 1; }'
    steps = ProgramBuilder()
    n = steps.inout("n", np.zeros(64, np.int32))
    other = RawKernel('extern "C" __global__ void set(int* n) { n[0] = threadIdx.x * 0; }', "set")
    with steps.repeat(3):
        steps.launch(RawKernel(code, "k"), 1, 64, (n, 0))
        steps.launch(other, 1, 64, (n,))
    assert try_bits(steps.build()) == Verdict(True)
    with steps.repeat(100):  # two are tried
        steps.launch(RawKernel(code, "k"), 1, 64, (n, 1))
    assert "touch element" in try_bits(steps.build(), fresh=True).note


@pytest.mark.parametrize(("index", "task"), [("i + 1", 3), ("i - 5", 0)])
def test_of_several_tasks_those_are_tried_where_arrays_end(index: str, task: int) -> None:
    verdict = try_bits(bound(f"out[i] = x[{index}];", shards=4))
    assert not verdict.exact
    assert f"in task {task}, k, line 3: x[" in verdict.note


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("out[i] = x[i + 200];", "k, line 3: x[455] is outside x, which has 256 elements there"),
        ("out[i] = x[i + 1024];", "k, line 3: x[1279] is outside x"),
        ("out[i] = x[i - 1] * 0;", "k, line 3: x[-1] is outside x"),
        ("out[i] = ((const float4*)x)[i].x;", "k, line 3: x[255] is outside x, which has 64 elements there"),
        ("const float* p = x; out[i] = get(p, i * 2LL);", "get, line 1: x[510] is outside x"),
    ],
)
def test_elements_that_an_array_does_not_have_are_named(tmp_path: Path, body: str, place: str) -> None:
    """Whatever lies there, and whether it counts: another array, or zeros."""
    get = "__device__ float get(const float* p, long long i) { return p[i]; }"
    verdict = try_bits(bound(body, before=get))
    assert (verdict.exact, verdict.lasts) == (False, False)
    assert verdict.note.startswith(f"its bits are not defined: in task 0, {place}")
    assert not list(tmp_path.glob("trials/*.json")), "longer arrays may be meant"


@pytest.mark.parametrize(
    "body",
    [
        "out[i] = ((const float4*)x)[i / 4].y;",
        "const float* end = &x[256]; out[i] = end[-1 - i];",
        "x += i; out[i] = x[-i];",
        "const float* p = x - 5; out[i] = p[i + 5];",
        "__shared__ float s[64]; s[threadIdx.x] = x[i]; float l[4] = {x[i]}; out[i] = s[threadIdx.x] + l[0];",
    ],
)
def test_elements_that_are_there_are_not_taken_for_others(body: str) -> None:
    assert try_bits(bound(body)) == Verdict(True)


def test_a_slice_has_the_elements_that_a_task_holds() -> None:
    code = 'extern "C" __global__ void k(const float* x, float* out, int n) { int i = threadIdx.x; out[i] = x[i%s]; }'
    x = np.arange(64, dtype=np.float32)
    for shift, is_there in (("", True), (" + 1", False)):
        args = [x, Out("float32", 64), 16]
        cut = bind(RawKernel(code % shift, "k"), 1, 16, args, shards=4, along=Along(0))
        assert try_bits(cut).exact is is_there


def test_that_a_task_fails_is_not_kept(tmp_path: Path) -> None:
    code = 'extern "C" __global__ void k(const int* at, float* out) { out[at[0]] = 1; }'

    def writing(where: int) -> Bound:
        return bind(RawKernel(code, "k"), 1, 1, [np.full(1, where, np.int32), Out("float32", 4, tile=4)])

    failed = try_bits(writing(1 << 28))
    assert not failed.tried
    assert failed.fails.startswith("task 0 fails: the kernel trapped")
    assert not list(tmp_path.glob("trials/*.json"))
    assert try_bits(writing(2)) == Verdict(True)


def test_an_answer_is_kept_unless_a_fresh_one_is_wanted(tmp_path: Path) -> None:
    program = bound(DEFINED["each its own"])
    assert try_bits(program).exact
    (kept,) = tmp_path.glob("trials/*.json")
    kept.write_text('[false, "as kept", true]')
    assert try_bits(program) == Verdict(False, "as kept")
    assert try_bits(program, fresh=True) == Verdict(True)
    kept.write_text("damaged")
    assert try_bits(program) == Verdict(True)


def test_what_ends_without_a_result_is_not_tried() -> None:
    verdict = try_bits(bound("while (x[0] == 0) out[i] += 1;"), seconds=0.1)
    assert verdict.exact
    assert "not tried" in verdict.note
    assert "did not end" in verdict.note
    assert not verdict.tried
    assert not verdict.fails  # it may end elsewhere
    assert verdict.holds_for("wasm-1")  # which gives equal modules equal bits, defined or not
    assert not verdict.holds_for("strict-1")
    assert not verdict.holds_for("cuda:sm_90:nvrtc-12.8:x")
