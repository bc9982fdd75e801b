"""Pointers that a kernel only stores through are told from those that it may read: see reads.py."""

import pytest

from depin_node.compute.translate import compile_kernel

HEAD = "__device__ void put(float* p, float v) { *p = v; } __device__ float get(const float* p) { return *p; }"
STORED = {
    "element": "v[i] = x[i];",
    "place": "*v = 1; *(v + i) = x[i];",
    "members": "((i & 1) ? 0 : 0, v[i] = v4.x);",
    "in a loop": "for (int k = 0; k < 3; ++k) if (x[k] > 0) { v[k] = k; }",
    "unused": "",
}
READ = {
    "element": "v[i] = v[i + 1];",
    "compound": "v[i] += x[i];",
    "increment": "v[i]++;",
    "atomic": "atomicAdd(v + i, 1.0f);",
    "copy": "float* p = v + 1; p[i] = 1;",
    "moved": "v += 3; *v = 1;",
    "function": "put(v + i, x[i]);",
    "only there": "if (get(v) > 0) v[i] = 1;",
    "reference": "float& r = v[i]; r = 1;",
}


def read(body: str) -> bool:
    head = f'{HEAD} extern "C" __global__ void k(const float* x, float4 v4, float* v) {{ int i = threadIdx.x;'
    return compile_kernel(f"{head} {body} }}", "k").parameters[2].read


@pytest.mark.parametrize("body", STORED.values(), ids=STORED)
def test_only_stored_through(body: str) -> None:
    assert not read(body)


@pytest.mark.parametrize("body", READ.values(), ids=READ)
def test_may_be_read(body: str) -> None:
    assert read(body)
