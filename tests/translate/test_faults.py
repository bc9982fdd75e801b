"""A fault in a pass of the translator: the kernel takes a slower shape, or its author is told whose fault it is."""

import numpy as np
import pytest

from depin_node.compute.translate import backend, compiler, shapes
from depin_node.compute.translate.compiler import compile_kernel
from depin_node.compute.translate.errors import CompileError
from depin_node.core.errors import ResourceError

HEAD = (
    'extern "C" __global__ void k(const float* x, float* out, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x;'
)
WAITING = HEAD + "__shared__ float s[64]; s[threadIdx.x] = x[i]; __syncthreads(); out[i] = s[63 - threadIdx.x]; }"
LOOPING = HEAD + "if (i < n) { float v = 0; for (int j = 0; j <= i % 7; ++j) v += x[j]; out[i] = v; } }"
PASSES = {
    "front end": (compiler, "parse"),
    "lowering": (compiler, "Lowering"),
    "semantic pass": (compiler, "analyse"),
    "shapes": (shapes, "print_coroutine"),
    "back end": (compiler, "print_unit"),
    "CUDA text": (compiler, "print_cuda"),
}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))


def fail_in(monkeypatch, module, name, error):
    def failing(*_args, **_options):
        raise error

    monkeypatch.setattr(module, name, failing)


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError(), AttributeError("no y")], ids=repr)
@pytest.mark.parametrize(("name", "place"), PASSES.items(), ids=PASSES)
def test_a_fault_is_an_error_that_says_whose_it_is(monkeypatch, name, place, error):
    fail_in(monkeypatch, *place, error)
    if name == "shapes":
        fail_in(monkeypatch, shapes, "print_fission", error)
    with pytest.raises(CompileError, match=rf"failed in its {name} .*a fault of depin-node") as caught:
        compile_kernel(WAITING, "k", filename="k.cu")
    assert caught.value.code == "compile"
    assert str(caught.value).startswith("k.cu: error: ")


@pytest.mark.parametrize(
    ("source", "shape", "name"),
    [
        (WAITING, "fission", "print_fission"),
        (WAITING, "fission", "Plan"),
        (WAITING, "fission", "BlockPrinter"),
        (LOOPING, "fission", "_block_of_strips"),
        (LOOPING, "fission", "find_guard"),
        (LOOPING, "fission", "find_ranges"),
        (LOOPING, "fission", "_guard_functions"),
    ],
)
def test_a_fault_in_a_fast_shape_costs_only_speed(monkeypatch, host, source, shape, name):
    x = np.linspace(0, 1, 128, dtype=np.float32)
    arguments = ([2], [64], [x, np.zeros_like(x), 120])
    fast = compile_kernel(source, "k")
    assert fast.shape == shape
    wanted = host.run(fast, *arguments)[1]
    monkeypatch.setenv("DEPIN_CACHE_DIR", "/nonexistent")
    fail_in(monkeypatch, shapes, name, IndexError("gone"))
    slow = compile_kernel(source, "k")
    assert slow.shape == "coroutine"
    assert slow.exact == fast.exact
    assert host.run(slow, *arguments)[1].tobytes() == wanted.tobytes()


def test_a_disk_that_is_full_is_told_as_that(monkeypatch):
    fail_in(monkeypatch, backend.Toolchain, "run", OSError(28, "No space left on device"))
    with pytest.raises(ResourceError, match=r"temporary files: .*No space left"):
        compile_kernel(WAITING, "k")
