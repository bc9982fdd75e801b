"""``RawModule``: several kernels, instances of templates, ``__constant__`` data in one source; ours and CuPy's own."""

import cupy
import numpy as np
import pytest
from kernel_host import Host

from depin_node.compute.programs.generated import adopt
from depin_node.compute.programs.kernel import RawKernel, RawModule
from depin_node.compute.translate import CompileError, Parameter
from depin_node.core.errors import ConfigError

SOURCE = """
__constant__ float weights[3];
__constant__ struct { int shift; double scale; } how;
__constant__ float fixed[2] = {0.5f, 0.25f};
namespace maths {
template <class T> __device__ T weigh(T x, int k) { return x * weights[k] + how.shift; }
template <class T, int N> __global__ void apply(const T* x, T* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = weigh(x[i], N) + fixed[1];
}
}
template <class T> __global__ void twice(T* x) { x[threadIdx.x] *= 2; }
extern "C" __global__ void ones(float* y) { y[threadIdx.x] = 1; }
"""
APPLY = "maths::apply<double, 2>"
NAMES = (APPLY, "maths::apply<float, 0>", "twice<int>")


@pytest.fixture
def module() -> RawModule:
    return RawModule(code=SOURCE, options=("-std=c++17",), name_expressions=NAMES, filename="filters.cu")


def test_functions_are_compiled_together(module: RawModule) -> None:
    kernels = [module.get_function(name) for name in ("ones", *NAMES)]
    compiled = [kernel.compile() for kernel in kernels]
    assert [(k.name, k.entry) for k in compiled] == [("ones", 0), *((n, 1 + e) for e, n in enumerate(NAMES))]
    assert len({id(kernel.module) for kernel in compiled}) == 1
    assert module.get_function("ones") is kernels[0]
    ints = np.arange(5, dtype=np.int32)
    assert (Host().run(compiled[3], [1], [5], [ints])[0] == 2 * ints).all()


def test_what_the_host_sets_are_parameters_after_the_declared_ones(module: RawModule) -> None:
    kernel = module.get_function(APPLY).compile()
    assert kernel.parameters == (
        Parameter("x", "pointer", "float64", const=True),
        Parameter("y", "pointer", "float64", read=False),
        Parameter("weights", "pointer", "float32", const=True, constant_bytes=12),
        Parameter("how", "pointer", "uint8", const=True, constant_bytes=16),
    )
    x, weights, how = np.arange(8.0), np.array([1, 2, 3], np.float32), np.array([(4, 0, 9.0)], "i4,i4,f8")
    assert (Host().run(kernel, [2], [4], [x, 0 * x, weights, how])[1] == x * 3 + 4.25).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"filters.cu: error: there is no kernel 'nothing' in the source: it has apply, ones, twice"),
        ("apply", r"filters.cu:7:\d+: error: apply is a template: name the kernel with its arguments"),
        ("twice<nothing>", r"filters.cu: error: the kernel name 'twice<nothing>': nothing is not declared"),
        ("maths::weigh<int>", r"filters.cu: error: maths::weigh<int> is not a kernel"),
        ("twice<int>;", r"filters.cu: error: 'twice<int>;' is not the name of a kernel"),
    ],
)
def test_names_that_mean_no_kernel(module: RawModule, name: str, message: str) -> None:
    module.name_expressions += () if name.isidentifier() else (name,)
    with pytest.raises(CompileError, match=message):
        module.get_function(name).compile()


def test_an_expression_has_to_be_announced(module: RawModule) -> None:
    with pytest.raises(ConfigError, match="'twice<float>' is not one of the module's name_expressions"):
        module.get_function("twice<float>")


def test_a_constant_and_a_parameter_of_one_name_are_told_apart_by_nobody() -> None:
    source = (
        "__constant__ int a;\n__device__ int f() { return a; }\n__global__ void k(int* x, int a) { x[0] = f() + a; }"
    )
    with pytest.raises(CompileError, match=r"kernel\.cu:1:1: error: a: give this __constant__ variable a name"):
        RawKernel(source, "k").compile()


def test_cupys_own_objects_are_taken() -> None:
    theirs = cupy.RawModule(code=SOURCE, options=("-std=c++17",), name_expressions=NAMES)
    ours = RawModule.of(theirs)
    assert RawModule.of(ours) is ours
    assert ours.get_function("twice<int>").compile().name == "twice<int>"
    plain = cupy.RawKernel(SOURCE, "ones", ("-std=c++17",))
    assert adopt(plain).compile().parameters == (Parameter("y", "pointer", "float32", read=False),)
    chosen = cupy.RawKernel(SOURCE, "_Z5twiceIiEvPT_")  # so ``get_function`` makes them, on a machine with a GPU
    chosen.__setstate__({**chosen.__getstate__(), "name_expressions": NAMES})
    assert adopt(chosen).compile().parameters == (Parameter("x", "pointer", "int32"),)


def test_refused_arguments() -> None:
    with pytest.raises(ConfigError, match="a compiled file runs on one kind of GPU only"):
        RawModule(path="kernel.cubin")
    for bad in (
        {"backend": "hip"},
        {"translate_cucomplex": True},
        {"enable_cooperative_groups": True},
        {"jitify": True},
    ):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RawModule(code=SOURCE, **bad)
    with pytest.raises(ConfigError, match="expected a RawModule, not int"):
        RawModule.of(3)
