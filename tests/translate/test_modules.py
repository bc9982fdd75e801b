"""The modules themselves: their interface, their determinism, and how a kernel that misbehaves ends."""

from typing import Any

import numpy as np
import pytest
import wasmtime
from kernel_cases import cases

from depin_node.compute.programs.module import scan_module
from depin_node.compute.translate import CompiledKernel, CompileError, Parameter, compile_unit
from depin_node.compute.translate.abi import SHARED_DYNAMIC_BYTES_MAX, THREADS_MAX

CASES = {case.name: case for case in cases()}
MUL_F32X4 = b"\xfd\xe6\x01"


@pytest.mark.parametrize("shape", ["loop", "coroutine"])
def test_the_interface_is_that_of_the_device(build: Any, host: Any, shape: str) -> None:
    kernel = build(CASES["saxpy"].source, "saxpy", _shape=shape)
    info = scan_module(kernel.module)
    assert 5 <= info.memory_pages <= 256
    module = wasmtime.Module(host.engine, kernel.module)
    assert [(i.module, i.name) for i in module.imports] == [("env", "memory")]
    exports = {e.name: ([str(p) for p in e.type.params], [str(r) for r in e.type.results]) for e in module.exports}
    assert exports == {"argbuf": ([], ["i32"]), "run0": (["i64", "i64", *["i32"] * 7], [])}


def test_parameters_tell_what_the_caller_has_to_pass(build: Any) -> None:
    source = """struct Mixed { int a; float b; };
    typedef float real;
    namespace { enum Mode : unsigned char { A, B }; }
    __global__ void k(const real* __restrict__ in, double *const out, const float4* const four, Mixed* mixed, void* raw,
                      bool flag, long wide, float3 three, const unsigned short small, Mode mode,
                      char2* pairs, const bool* mask, int) {}"""
    assert build(source).parameters == (
        Parameter("in", "pointer", "float32", 1, True, read=False),
        Parameter("out", "pointer", "float64", 1, False, read=False),
        Parameter("four", "pointer", "float32", 4, True, read=False),
        Parameter("mixed", "pointer", "uint8", 1, False, read=False),
        Parameter("raw", "pointer", "uint8", 1, False, read=False),
        Parameter("flag", "scalar", "bool"),
        Parameter("wide", "scalar", "int64"),
        Parameter("three", "scalar", "float32", 3),
        Parameter("small", "scalar", "uint16"),
        Parameter("mode", "scalar", "uint8"),
        Parameter("pairs", "pointer", "int8", 2, False, read=False),
        Parameter("mask", "pointer", "bool", 1, True, read=False),
        Parameter("argument12", "scalar", "int32"),
    )


@pytest.mark.parametrize("name", [case.name for case in CASES.values() if case.vector])
def test_simple_kernels_become_simd(build: Any, name: str) -> None:
    case = CASES[name]
    module = build(case.source, case.kernel or name, *case.options, filename=f"{name}.cu", _shape="loop").module
    assert MUL_F32X4 in module


def test_the_same_source_gives_the_same_bytes(build: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hillshade", "votes"):
        modules = set()
        for folder in ("a", "somewhere else/deeper"):
            monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path / folder))
            modules.add(build(CASES[name].source, name, filename=f"{folder}.cu").module)
        assert len(modules) == 1


def test_static_shared_memory_is_counted(build: Any) -> None:
    assert build(CASES["matmul_tiled"].source, "matmul_tiled", _shape="coroutine").shared_bytes == 4 * (64 + 72)
    assert build(CASES["carve"].source, "carve", _shape="coroutine").shared_bytes == 0


def trap(host: Any, kernel: CompiledKernel, *launch: Any, **more: Any) -> wasmtime.TrapCode | None:
    with pytest.raises(wasmtime.Trap) as caught:
        host.run(kernel, *launch, **more)
    code = caught.value.trap_code
    assert code is None or isinstance(code, wasmtime.TrapCode)
    return code


OUT = np.zeros(64, np.int32)
KERNEL = "__global__ void k(int* out) {{ {} }}"


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 16) __syncwarp(); else __syncthreads();",
        "if (threadIdx.x & 1) __syncthreads(); else out[0] = __shfl_sync(0xffffffffu, 1, 0);",
        "if (threadIdx.x == 5) __syncwarp(0x3fu); else if (threadIdx.x == 3) __syncthreads();"
        " else while (threadIdx.x == 4) __syncthreads();",
    ],
)  # fmt: skip
def test_a_barrier_deadlock_traps(host: Any, build: Any, body: str) -> None:
    kernel = build(KERNEL.format(body))
    assert trap(host, kernel, [1], [32], [OUT]) == wasmtime.TrapCode.UNREACHABLE


def test_lanes_outside_the_mask_are_not_waited_for(host: Any, build: Any) -> None:
    body = "int t = threadIdx.x; if (t < 8) out[t] = __shfl_xor_sync(0xffu, t, 7); __syncthreads(); out[8] = 1;"
    out = host.run(build(KERNEL.format(body)), [1], [32], [OUT])[0]
    assert out[:9].tolist() == [7, 6, 5, 4, 3, 2, 1, 0, 1]


def test_recursion_too_deep_traps(host: Any, build: Any) -> None:
    source = "__device__ int f(int n) { return n == 0 ? 0 : 1 + f(n - 1) * 3 % 7; }\n"
    source += "__global__ void k(int* out, int n) { out[0] = f(n); }"
    for shape in ("loop", "coroutine"):
        kernel = build(source, _shape=shape)
        host.run(kernel, [1], [4], [OUT, 500])
        assert trap(host, kernel, [1], [4], [OUT, 1000]) == wasmtime.TrapCode.UNREACHABLE


def test_recursion_with_barriers_is_bounded_by_the_arena(host: Any, build: Any) -> None:
    source = """__device__ int f(int n, const int* x) {
        int a[64]; for (int i = 0; i < 64; ++i) a[i] = x[i] + n; __syncthreads();
        int r = n ? f(n - 1, x) : 0; __syncthreads(); for (int i = 0; i < 64; ++i) r ^= a[(i + r) & 63]; return r; }
    __global__ void k(int* out, int n) { out[threadIdx.x] = f(n, out); }"""
    kernel = build(source)
    host.run(kernel, [1], [64], [OUT, 5])
    assert trap(host, kernel, [1], [64], [OUT, 500]) == wasmtime.TrapCode.UNREACHABLE


def test_a_full_stack_traps(host: Any, build: Any) -> None:
    source = """__device__ int f(int n) {
        int a[1000]; for (int i = 0; i < 1000; ++i) a[i] = n ^ i; return n ? f(n - 1) + a[n * 7 % 1000] : a[3]; }
    __global__ void k(int* out, int n) { out[0] = f(n); }"""
    kernel = build(source)
    host.run(kernel, [1], [1], [OUT, 20])
    assert trap(host, kernel, [1], [1], [OUT, 400]) == wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS


def test_loops_without_end_stay(host: Any, build: Any) -> None:
    for body in ("while (true) {}", "for (;;) ;", "while (out[0] == 0) {}", "int i = 0; while (1) ++i;"):
        with pytest.raises(wasmtime.Trap) as caught:
            host.run(build(KERNEL.format(body)), [1], [1], [OUT], fuel=10**6)
        assert caught.value.trap_code == wasmtime.TrapCode.OUT_OF_FUEL


def test_far_out_of_bounds_traps(host: Any, build: Any) -> None:
    kernel = build("__global__ void k(int* out, long i) { out[i] = 1; }")
    assert trap(host, kernel, [1], [1], [OUT, 1 << 28]) == wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS


def test_trap_and_assert(host: Any, build: Any) -> None:
    kernel = build("__global__ void k(int* out, int n) { assert(n > 0); if (n > 5) __trap(); out[0] = n; }")
    assert host.run(kernel, [1], [1], [OUT, 3])[0][0] == 3
    for n in (0, 6):
        assert trap(host, kernel, [1], [1], [OUT, n]) == wasmtime.TrapCode.UNREACHABLE


@pytest.mark.parametrize(
    ("grid", "block", "more"),
    [
        ((1,), (THREADS_MAX + 1,), {}),
        ((1,), (33, 32), {}),
        ((1,), (0,), {}),
        ((1,), (1 << 16, 1 << 16), {}),
        ((0,), (1,), {}),
        ((1, 1 << 16), (1,), {}),
        ((4,), (1,), {"blocks": (0, 5)}),
        ((4,), (1,), {"blocks": (3, 2)}),
        ((4,), (1,), {"blocks": (-1, 2)}),
        ((1,), (1,), {"shared_mem": SHARED_DYNAMIC_BYTES_MAX + 1}),
    ],
)
@pytest.mark.parametrize("shape", ["loop", "coroutine"])
def test_a_launch_out_of_bounds_traps(host: Any, build: Any, grid: Any, block: Any, more: Any, shape: str) -> None:
    kernel = build(KERNEL.format("out[0] = 1;"), _shape=shape)
    assert trap(host, kernel, grid, block, [OUT], **more) == wasmtime.TrapCode.UNREACHABLE


def test_the_largest_launches_are_allowed(host: Any, build: Any) -> None:
    kernel = build(
        "__global__ void k(long* out) { if (threadIdx.z == 63) out[0] = blockIdx.x + (long)gridDim.x * blockIdx.y; }"
    )
    last = (2**31 - 1) * 65535
    out = host.run(kernel, [2**31 - 1, 65535], [4, 4, 64], [np.zeros(1, np.int64)], blocks=(last - 1, last))[0]
    assert out[0] == last - 1


def test_shared_memory_starts_as_zeros_in_every_block(host: Any, build: Any) -> None:
    source = """__global__ void k(int* out, int n) {
        __shared__ int a[8]; extern __shared__ int b[]; int never[3];
        out[blockIdx.x] = a[3] + b[n - 1] + never[n % 3];
        a[3] = b[n - 1] = never[n % 3] = 77;
    }"""
    for shape in ("loop", "coroutine"):
        out = host.run(build(source, _shape=shape), [5], [1], [OUT, 12288], shared_mem=49152)[0]
        assert not out.any()


def test_notes_say_why_a_kernel_is_not_exact(build: Any) -> None:
    def notes(body: str, before: str = "") -> tuple[str, ...]:
        kernel = build(f"{before}__global__ void k(float* x, int* n) {{\n{body}\n}}")
        assert kernel.exact is not bool(kernel.notes)
        return kernel.notes

    line = "line 2: "
    assert notes("atomicAdd(n, 1); atomicMax(n, 2);") == ()
    order = "the order of threads is not defined, and rounding depends on it"
    assert notes("atomicAdd(x, 1.0f);") == (f"{line}atomicAdd on float: {order}",)
    assert notes("n[1] = atomicAdd(n, 1);") == (
        f"{line}the result of atomicAdd is used: it depends on the order of threads",
    )
    assert notes("atomicExch(n, 1);") == (f"{line}the effect of atomicExch depends on the order of threads",)
    assert notes("__threadfence();")[0].startswith(f"{line}__threadfence suggests")
    assert notes("int* p = (int*)x; n[0] = p[0];")[0].startswith(f"{line}floats are read as another type")
    assert notes("n[0] = *(int*)&x[1] + __float_as_int(x[2]);") == ()
    assert f"{line}atomicCAS on memory that holds floats: {order}" in notes("atomicCAS((int*)x, 0, 1);")
    union = "union U { float f; int i; };\n"
    assert notes("U u; u.f = x[0]; n[0] = u.i;", union) == ()
    assert notes("U u; u.f = x[0]; u.f += 1; n[0] = u.i;", union)[0].startswith("line 3: a float in a union is changed")
    assert notes("U u; float* p = &u.f; *p = 1; n[0] = u.i;", union)[0].startswith(
        "line 3: the address of a float in a"
    )
    two = "extern __shared__ float a[];\nextern __shared__ int b[];\n"
    assert "several types" in notes("a[0] = x[0]; n[0] = b[0];", two)[0]


def test_kernels_of_one_unit_share_a_module_and_may_have_different_shapes(host: Any) -> None:
    source = """struct S { int a, b; };
    __constant__ int table[] = {3, 5, 7};
    __device__ int twice(int x) { S s = {x, x}; return s.a + s.b + table[1]; }
    __device__ int last(int x) { __shared__ int all[64]; all[threadIdx.x] = x; __syncthreads(); return all[63]; }
    __global__ void plain(const int* x, int* y) { int i = blockIdx.x * 64 + threadIdx.x; y[i] = twice(x[i]); }
    __global__ void waits(const int* x, int* y, int z) {
      int i = blockIdx.x * 64 + threadIdx.x; y[i] = twice(last(x[i])) + z; }
    __global__ void unused(float** x) {}"""
    unit = compile_unit(source, ("waits", "plain"))
    waits, plain = unit.kernels
    assert [(k.name, k.entry, len(k.parameters), k.shared_bytes) for k in unit.kernels] == [
        ("waits", 0, 3, 256),
        ("plain", 1, 2, 0),
    ]
    assert plain.shape == "loop" != waits.shape
    assert plain.module is waits.module is unit.module
    x = np.arange(128, dtype=np.int32)
    assert (host.run(plain, [2], [64], [x, 0 * x])[1] == 2 * x + 5).all()
    assert (host.run(waits, [2], [64], [x, 0 * x, 9])[1] == np.repeat([2 * 63 + 14, 2 * 127 + 14], 64)).all()
    again = compile_unit(source, ("waits", "plain"))
    assert again == unit
    for names in ((), ("plain", "plain"), ("plain",) * 65):
        with pytest.raises(CompileError, match="a unit has 1 to 64 kernels, each of another name"):
            compile_unit(source, names)
