"""Modules that say that they store canonical NaNs do so, in every shape; modules that could store others do not."""

import numpy as np
import pytest

from depin_node.compute.programs.module import scan_module
from depin_node.compute.translate import compile_kernel

N = 96
NANS = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32)
HEAD = "#include <cstring>\n#include <cupy/complex.cuh>\n"
HEAD += "__device__ void put(float* p, float v) { *p = v; }\nstruct P { float a; float b[3]; };"
AT = "int i = blockIdx.x * blockDim.x + threadIdx.x;"
SAYS = {
    "plain": ("float", "y[i] = x[i];"),
    "compound": ("float", "y[i] = 1.0f; y[i] += x[i];"),
    "function": ("float", "put(y + i, x[i]);"),
    "reference": ("float", "float& r = y[i]; r = x[i];"),
    "pointer": ("float", "float* p = y; p += i; *p = x[i]; p[0] *= 1.0f;"),
    "chosen": ("float", "(i % 2 ? y[i] : y[i]) = x[i];"),
    "vector": ("float4", "y[i] = x[i];"),
    "member": ("float4", "y[i] = x[i]; y[i].z = x[i].w;"),
    "struct": ("P", "y[i] = x[i];"),
    "element": ("P", "for (int k = 0; k < 3; ++k) y[i].b[k] = x[i].b[k]; y[i].a = x[i].a;"),
    "complex": ("complex<float>", "y[i] = x[i];"),
    "loop": ("float", "float s = 0; for (int k = 0; k < i; ++k) s += x[k]; y[i] = i % 3 ? s : x[i];"),
    "shuffle": ("float", "y[i] = __shfl_xor_sync(~0u, x[i], 1);"),
    "barrier": ("float", "y[i] = x[i]; __syncthreads(); y[i] = i ? y[i] : x[i];"),
}
SAYS_NOT = {
    "integer": "((int*)y)[i] = ((const int*)x)[i];",
    "bits": "*(int*)&y[i] = __float_as_int(x[i]);",
    "atomic": "atomicExch(y + i, x[i]);",
    "increment": "y[i]++;",
    "shared": "__shared__ float s[32]; s[threadIdx.x] = x[i]; y[i] = s[threadIdx.x];",
    "local array": "float s[4]; s[i & 3] = x[i]; y[i] = s[i & 3];",
    "out": "sincosf(x[i], y + i, y + i);",
    "mixed struct": "struct M { int n; float v; }; ((M*)y)[i / 2] = ((const M*)x)[i / 2];",
    "copy": "memcpy(y + i, x + i, 4);",
}


def translate(type_, body, shape=None):
    source = f'{HEAD}\nextern "C" __global__ void k(const {type_}* x, {type_}* y) {{ {AT} {body} }}'
    return compile_kernel(source, "k", _shape=shape)


def strange(count):
    x = np.arange(count, dtype=np.float32) - 7
    x.view(np.uint32)[::3] = np.resize(NANS, len(x[::3]))
    return x


@pytest.mark.parametrize("shape", [None, "coroutine"])
@pytest.mark.parametrize(("type_", "body"), SAYS.values(), ids=SAYS)
def test_what_says_so_stores_no_other_nan(host, type_, body, shape):
    kernel = translate(type_, body, shape)
    assert scan_module(kernel.module).canonical
    x = strange(N * 4)
    for threads in (32, 20):  # full strips, and others
        blocks = N // 32 if threads == 32 else 1
        y = host.run(kernel, (blocks,), (threads,), [x, np.zeros_like(x)])[1]
        nans = np.isnan(y)
        assert nans.any()
        assert set(y.view(np.uint32)[nans]) == {0x7FC00000}


@pytest.mark.parametrize("body", SAYS_NOT.values(), ids=SAYS_NOT)
def test_what_might_store_others_does_not_say_so(body):
    assert not scan_module(translate("float", body).module).canonical


def test_a_unit_says_so_only_if_all_of_its_kernels_can():
    from depin_node.compute.translate.compiler import compile_unit

    source = 'extern "C" __global__ void a(float* y) { y[threadIdx.x] = 1; }\n'
    source += 'extern "C" __global__ void b(int* y) { y[threadIdx.x] = 1; }'
    assert scan_module(compile_unit(source, ("a",)).module).canonical
    assert not scan_module(compile_unit(source, ("a", "b")).module).canonical
