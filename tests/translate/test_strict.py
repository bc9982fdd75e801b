"""What NVRTC makes of a unit's CUDA text computes the bits of its WebAssembly: shown by the PTX interpreter."""

import os
from typing import Any

import numpy as np
import pytest
from kernel_cases import Case, cases
from ptx import Trap
from strict_host import StrictHost

from depin_node.compute.devices.gpu import nvrtc, strict
from depin_node.compute.devices.gpu.ptx import why_not_strict
from depin_node.compute.translate import CompiledKernel, compile_unit

CASES = cases()
EXACT = [case for case in CASES if case.exact]


@pytest.fixture(scope="session")
def old() -> StrictHost:
    """NVRTC 12.9 has two optimisers: this one below compute capability 10."""
    return StrictHost(strict.ARCHITECTURES[0])


@pytest.fixture(scope="session")
def new() -> StrictHost:
    return StrictHost(strict.ARCHITECTURES[-1])


@pytest.fixture(params=["old", "new"])
def gpu(request: pytest.FixtureRequest) -> StrictHost:
    found: StrictHost = request.getfixturevalue(request.param)
    return found


def bits(arrays: list[np.ndarray]) -> list[bytes]:
    """NaNs of outputs count as one: devices make them so."""
    plain = [array.copy() for array in arrays]
    for array in plain:
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan
    return [array.tobytes() for array in plain]


def compile_case(build: Any, case: Case) -> CompiledKernel:
    kernel: CompiledKernel = build(
        case.source, case.kernel or case.name, *case.options, filename=f"{case.name}.cu", _shape=case.shapes[0]
    )
    return kernel


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
def test_the_exact_corpus_gives_the_bits_of_wasm(case: Case, host, old, build) -> None:
    compare(case, host, old, build)


@pytest.mark.parametrize("case", EXACT[::3], ids=lambda case: case.name)
def test_the_other_optimiser_gives_them_too(case: Case, host, new, build) -> None:
    compare(case, host, new, build)


def compare(case: Case, host, gpu: StrictHost, build: Any) -> None:
    kernel = compile_case(build, case)
    wanted = host.run(kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)
    strict.refuse_hostile_cuda(kernel.cuda)
    got = gpu.run(kernel.cuda, 0, kernel.parameters, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)
    assert bits(got) == bits(wanted)


@pytest.mark.parametrize("case", EXACT[::5], ids=lambda case: case.name)
def test_ranges_of_blocks_give_the_whole(case: Case, old, build) -> None:
    kernel = compile_case(build, case)
    launch = kernel.parameters, case.grid, case.block
    whole = old.run(kernel.cuda, 0, *launch, case.arguments, shared_mem=case.shared_mem)
    arguments, count = list(case.arguments), int(np.prod(case.grid))
    for first in range(0, count, 2):
        part = old.run(
            kernel.cuda, 0, *launch, arguments, shared_mem=case.shared_mem, blocks=(first, min(first + 2, count))
        )
        arrays = iter(part)
        arguments = [next(arrays) if isinstance(a, np.ndarray) else a for a in arguments]
    assert bits([a for a in arguments if isinstance(a, np.ndarray)]) == bits(whole)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number].name)
def test_cubins_are_made_for_every_architecture(number: int, build) -> None:
    """Each kernel for one architecture, in turn; with DEPIN_ALL_CUBINS=1 for all of them."""
    text, chosen = strict.whole_text(compile_case(build, CASES[number]).cuda, 256), strict.ARCHITECTURES
    if "DEPIN_ALL_CUBINS" not in os.environ:
        chosen = (chosen[number % len(chosen)],)
    for architecture in chosen:
        assert nvrtc.to_cubin(text, strict.options(architecture, real=True)).startswith(b"\x7fELF")


def test_what_is_not_exact_may_not_be_strict(old, build) -> None:
    case = next(case for case in CASES if case.name == "float_atomics")
    ptx, _ = old.compile(compile_case(build, case).cuda)
    assert why_not_strict(ptx) == [
        f"atom.global.add.f{width} is not among the strict instructions" for width in (32, 64)
    ]


# ---- what C++ leaves to the compiler

LEFT_OPEN = {
    "operands from left to right": """
        __device__ int next(int* s) { return *s = *s * 1103515245 + 12345; }
        __device__ int mixed(int a, int b, int c) { return a * 100 + b * 10 - c; }
        __global__ void k(int* x) { int s = x[0]; x[1] = next(&s) - next(&s) * 3; x[2] = mixed(next(&s), s, next(&s));
            x[3] = (next(&s) >> 3) << (next(&s) & 7); x[4] = s + next(&s); x[5] = next(&s) < next(&s);
            int i = 5; x[i += 1] += next(&s); x[7] = mixed(s, s += 2, s); x[8] = x[0] / (next(&s) | 1); }""",
    "references keep their place": """
        __device__ int bump(int& a) { return a += 3; }
        __device__ int& pick(int& a, int& b, int c) { return c & 1 ? a : b; }
        __device__ int both(int& a, int b) { a += b; return a * 7; }
        __global__ void k(int* x) { int a = x[0], b = x[1]; pick(a, b, bump(a)) += 100; x[2] = a; x[3] = b;
            x[4] = both(a, bump(a)); x[5] = both(x[1], x[1]++) + x[1]; }""",
    "signed overflow wraps": """
        __global__ void k(int* x) { int big = 2147483647 - x[0]; int grown = big + 1 + x[0];
            x[1] = grown > big; x[2] = grown; x[3] = big * 65537; x[4] = -grown; x[5] = big - -5; big++; x[6] = big;
            long long w = 9223372036854775807ll; w += x[7] + 1; x[8] = (int)(w >> 32); short s = 32767; s++; x[9] = s;
            int n = 0; for (int i = 2147483640; i > 0 && n < 20; ++i) ++n; x[10] = n;
            signed char c = -128; c--; x[11] = c;
            x[12] = ++grown * grown--; }""",
    "divisions": """
        __global__ void k(int* x) { int least = -2147483647 - 1 + x[0], one = x[0] - 1; x[1] = least % one;
            x[2] = 7 / (one * 2) * 100 + -7 % 3; unsigned u = least; x[3] = u / 3u;
            long long w = least; x[4] = w / one >> 4; x[5] = 100; x[5] /= one - 6; x[6] = 77; x[6] %= 10 + x[0];
            x[7] = 1000 / 7; unsigned char c = 200; c /= 3; x[8] = c; }""",
    "shifts beyond the width": """
        __global__ void k(int* x) { int n = x[0] + 40; unsigned u = 0x80000001u; x[1] = 1 << n; x[2] = -5 >> n;
            x[3] = u >> n; long long w = -3; x[4] = (int)(w >> (n + 60)); x[5] = 3; x[5] <<= n;
            x[6] = (int)(u << 33 >> 1); }""",
    "what nobody has written is zero": """
        struct P { int a, b[3]; };
        __global__ void k(int* x) { __shared__ int s[40]; __shared__ unsigned char c[7]; extern __shared__ int d[];
            int l[4]; P p; int v; int t = threadIdx.x;
            x[t] = s[t] + s[t + 8] + c[t % 7] + d[t] + l[t & 3] + p.a + p.b[2] + v + t; }""",
    "the least and the largest": """
        __global__ void k(int* x) { float z = x[0], n = -z, q = z / z; double d = n, e = z; float f[8];
            f[0] = z > n ? z : n; f[1] = n > z ? n : z; f[2] = z < n ? z : n; f[3] = fmaxf(n, z); f[4] = fminf(z, n);
            f[5] = q > z ? q : z; f[6] = z < q ? z : q; f[7] = fmaxf(q, n);
            for (int k = 0; k < 8; ++k) x[k] = __float_as_int(f[k]);
            x[8] = (int)(__double_as_longlong(d > e ? d : e) >> 32);
            x[9] = (int)(__double_as_longlong(fmax(d, e)) >> 32);
            x[10] = (int)copysign(3.0, q); x[11] = (int)copysignf(4.0f, -q); }""",
    "printf prints nothing, and does what its arguments do": """
        __global__ void k(int* x) { int n = 3; x[1] = printf("%d %d %s\\n", ++n, 7, "text");
            x[2] = n; printf("again\\n"); }""",
    "tables": """
        enum { A = -3 }; struct P { int a; float b; unsigned char c[2]; };
        __constant__ int t[6] = {-1, A * 5, 1 << 4, (int)-2.75f, 7 / -2, ~9};
        __constant__ float f[4] = {-1.5f, INFINITY, 1 / 3.0, 5};
        __constant__ P p[2] = {{-7, 0.5f, {1, 2}}, {-8, -INFINITY}};
        __global__ void k(int* x) { int t_ = threadIdx.x % 6, b = t_ & 1; const int* q = t;
            x[threadIdx.x] = q[t_] * 100 + (int)(f[t_ & 3] * 3) + p[b].a + (int)p[b].b + p[b].c[1]; }""",
    "switch": """
        __global__ void k(int* x) { int t = threadIdx.x, r = 0; switch (x[t] + t) { case 0: r = 5; break;
            case 1: r = 7; case 2: r += 9; break; case 3: r = 1; break; case 4: r = 11; break;
            case 5: r = t * 3; break; case 6: r = 2; default: r -= 4; } x[t] = r; }""",
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OPEN)
def test_what_cpp_leaves_open_is_as_in_wasm(name: str, host, gpu, build) -> None:
    kernel = build(LEFT_OPEN[name])
    x = np.zeros(16, np.int32)
    threads = 16 if "threadIdx" in LEFT_OPEN[name] else 1
    wanted = host.run(kernel, [1], [threads], [x], shared_mem=64)
    got = gpu.run(kernel.cuda, 0, kernel.parameters, [1], [threads], [x], shared_mem=64)
    assert got[0].tolist() == wanted[0].tolist()
    assert wanted[0].any()


def test_every_way_to_divide_by_zero_ends_the_task(gpu, build) -> None:
    for text in ("1 / x[0]", "1 % x[0]", "(-2147483647 - 1) / (x[0] - 1)", "x[1] /= x[0]", "1ull / (unsigned)x[0]"):
        kernel = build(f"__global__ void k(int* x) {{ x[1] = {text}; }}")
        with pytest.raises(Trap):
            gpu.run(kernel.cuda, 0, kernel.parameters, [1], [1], [np.zeros(2, np.int32)])


def test_lanes_that_do_not_take_part_are_not_read(host, gpu, build) -> None:
    kernel = build("""
        __global__ void k(int* x, int n) {
            int t = threadIdx.x, v = t * 3 + 1;
            if (t >= n) return;
            unsigned mask = (1u << (n & 31)) - 1;
            x[t] = __shfl_down_sync(mask, v, 4) + __shfl_sync(mask, v, 20) * 100;
            x[t] += __shfl_xor_sync(mask, v, 16) * 10000;
            x[t] += __shfl_up_sync(0xffffffffu, v, 2) + (__ballot_sync(0xffffffffu, v & 2) & 0xff);
        }""")
    x = np.zeros(32, np.int32)
    for threads in (32, 13):
        wanted = host.run(kernel, [1], [threads], [x, 11])[0]
        assert gpu.run(kernel.cuda, 0, kernel.parameters, [1], [threads], [x, 11])[0].tolist() == wanted.tolist()


def test_a_unit_has_an_entry_for_each_kernel(host, gpu) -> None:
    code = """
        __shared__ int box[8];
        __device__ int twice(int a) { return 2 * a; }
        __global__ void first(int* x) { int t = threadIdx.x; box[t] = x[t]; __syncthreads(); x[t] = box[7 - t]; }
        __global__ void second(int* x, float y) { x[threadIdx.x] = twice((int)y) + box[threadIdx.x]; }"""
    unit, x = compile_unit(code, ["second", "first"]), np.arange(8, dtype=np.int32)
    for kernel, arguments in zip(unit.kernels, ([x, 3.5], [x]), strict=True):
        wanted = host.run(kernel, [1], [8], arguments)
        got = gpu.run(unit.cuda, kernel.entry, kernel.parameters, [1], [8], arguments)
        assert bits(got) == bits(wanted)
