"""Each thread has several elements, next to each other: what it reads of them is what it has written, in its own order.

Loops over threads are vectorised; accesses of one thread to its elements are then accesses with a stride, which LLVM
may gather (``GENERATE`` in ``backend.py`` has why it does not).
"""

import numpy as np
import pytest

from depin_node.client import InOut, RawKernel
from depin_node.client.local import launch

COUNT = 256


def one_of_four(i, x, o, q):
    a = o[4 * i]
    o[4 * i + x[i]] = 1000
    q[i] = a * 3 + o[4 * i + 1] * 5 + o[4 * i + 2] * 7 + o[4 * i + 3]


def one_of_two(i, x, o, q):
    a = o[2 * i]
    o[2 * i + (x[i] & 1)] = 1000
    q[i] = a * 3 + o[2 * i + 1]


def stores(i, x, o, q):
    o[4 * i] = 1
    o[4 * i + x[i]] = 7
    o[4 * i + 1 : 4 * i + 4] = 2, 3, 4
    q[i] = x[i]


def structs(i, x, o, q):
    u = o[4 * i]
    o[4 * i + x[i]] = 77
    q[i] = u + o[4 * i + 1] * 2 + o[4 * i + 2] * 3 + o[4 * i + 3] * 5


def shared(i, x, o, q):
    s = [1, 2, 3, 4]
    s[x[i]] = 1000
    q[i] = 1 * 3 + s[1] * 5 + s[2] * 7 + s[3]


def words(i, x, o, q):
    row = o[i : i + 1].view(np.uint8)
    row[:] = row[[2, 3, 0, 1]]
    o[i] ^= 0x01010101
    row[1] ^= row[3]


BODIES = {
    one_of_four: """int a = o[4 * i]; o[4 * i + x[i]] = 1000; int b = o[4 * i + 1], c = o[4 * i + 2], d = o[4 * i + 3];
        q[i] = a * 3 + b * 5 + c * 7 + d;""",
    one_of_two: "int a = o[2 * i]; o[2 * i + (x[i] & 1)] = 1000; int b = o[2 * i + 1]; q[i] = a * 3 + b;",
    stores: "o[4*i] = 1; o[4*i + x[i]] = 7; o[4*i + 1] = 2; o[4*i + 2] = 3; o[4*i + 3] = 4; q[i] = x[i];",
    structs: """int4* p = (int4*)o; int u = p[i].x; ((int*)p)[4 * i + x[i]] = 77;
        q[i] = u + p[i].y * 2 + p[i].z * 3 + p[i].w * 5;""",
    shared: """__shared__ int s[256]; int t = threadIdx.x; s[4*t] = 1; s[4*t + 1] = 2; s[4*t + 2] = 3; s[4*t + 3] = 4;
        __syncthreads(); int a = s[4*t]; s[4*t + x[i]] = 1000; int b = s[4*t + 1], c = s[4*t + 2], d = s[4*t + 3];
        q[i] = a * 3 + b * 5 + c * 7 + d;""",
    words: """unsigned char* p = (unsigned char*)(o + i); unsigned char a = p[0], b = p[1];
        p[0] = p[2]; p[1] = p[3]; p[2] = a; p[3] = b;
        unsigned* w = (unsigned*)p; *w = *w ^ 0x01010101u; p[1] ^= p[3];""",
}


@pytest.mark.parametrize("guard", ["", "if (i >= n) return;"], ids=["whole", "guarded"])
@pytest.mark.parametrize("expected", BODIES, ids=lambda function: function.__name__)
def test_a_thread_sees_its_own_stores(expected, guard):
    kernel = RawKernel(
        'extern "C" __global__ void k(const int* x, int* o, int* q, int n) {'
        f" int i = blockIdx.x * blockDim.x + threadIdx.x; {guard} {BODIES[expected]} }}",
        "k",
    )
    rng = np.random.default_rng(1)
    x, o, q = rng.integers(0, 4, COUNT, np.int32), rng.integers(0, 99, 4 * COUNT, np.int32), np.zeros(COUNT, np.int32)
    got = launch(kernel, (4,), (64,), (x, InOut(o), InOut(q), COUNT))
    for i in range(COUNT):
        expected(i, x, o, q)
    np.testing.assert_array_equal(got[0], o)
    np.testing.assert_array_equal(got[1], q)
