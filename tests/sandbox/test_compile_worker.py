"""NVRTC in its confined process: what it gives, and what hostile texts get out of it. Runs without a GPU."""

import sys

import pytest

from depin_node.compute.devices.gpu.compiling import CompileLimits, Compiler
from depin_node.core.errors import TaskCrashed, TaskRejected, TaskTimedOut

pytest.importorskip("nvidia.cuda_nvrtc", reason="NVRTC is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
OPTIONS = ("--gpu-architecture=sm_75", "--std=c++17")
ADD = 'extern "C" __global__ void add(float* x) { x[threadIdx.x] += 1.0f; }'
HALVES = "template <int N, int M> struct A { static const int v = A<N - 1, 2 * M>::v + A<N - 1, 2 * M + 1>::v; };"
BOMB = f"{HALVES} template <int M> struct A<0, M> {{ static const int v = 1; }}; __device__ int x = A<24, 0>::v;"


@pytest.fixture(scope="module")
def compiler():
    found = Compiler()
    found.wait_ready(60)
    yield found
    found.close()


def test_a_text_becomes_ptx_and_cubin_behind_all_layers(compiler):
    made = compiler.compile(ADD, OPTIONS)
    assert ".visible .entry add(" in made.ptx
    assert made.cubin.startswith(b"\x7fELF")
    assert "landlock" in compiler.layers
    assert "seccomp" in compiler.layers


@pytest.mark.parametrize(
    ("text", "reason"),
    {
        "syntax": ("__global__ void f( {", "error"),
        "include": ('#include "/etc/passwd"', "not permitted|cannot open"),
        "include of a device": ("#include </proc/self/environ>", "not permitted|cannot open"),
        "embed": ('const char a[] = {\n#embed "/etc/hostname"\n};', "error"),
        "include by digraph": ('%:include "/etc/passwd"', "not permitted|cannot open"),
        "a NUL": ("int a;\0int b;", "null|NUL|not compile"),
        "assembly that ptxas refuses": ('__global__ void f() { asm("nonsense;"); }', "not compile"),
    }.values(),
)
def test_a_bad_text_is_refused_with_the_reason_and_the_next_one_is_taken(compiler, text, reason):
    with pytest.raises(TaskRejected, match="(?i)" + reason) as caught:
        compiler.compile(text, OPTIONS)
    assert "root:" not in str(caught.value)
    assert compiler.compile(ADD, OPTIONS).cubin


def test_a_text_that_is_too_long_is_refused(compiler):
    with pytest.raises(TaskRejected, match="at most"):
        compiler.compile("/" * (5 << 20), OPTIONS)


def test_a_bomb_ends_at_the_deadline():
    compiler = Compiler(CompileLimits(seconds=0.5))
    compiler.wait_ready(60)
    with pytest.raises(TaskTimedOut):
        compiler.compile(BOMB, OPTIONS)
    with pytest.raises(TaskCrashed, match="before this text"):
        compiler.compile(ADD, OPTIONS)


def test_a_bomb_ends_at_the_memory_limit():
    compiler = Compiler(CompileLimits(seconds=60, memory_bytes=320 << 20))
    compiler.wait_ready(60)
    with pytest.raises((TaskRejected, TaskCrashed), match="memory"):  # NVRTC says so, or dies
        compiler.compile(BOMB, OPTIONS)
    compiler.close()
