"""Elementwise and reduction kernels against NumPy, compiled and run in real workers."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from kernel_host import Host

from depin_node.client import ElementwiseKernel, In, InOut, Out, ReductionKernel
from depin_node.client.local import launch
from depin_node.client.work import prepare_launch
from depin_node.compute.translate import CompileError
from depin_node.compute.verification.comparing import TOLERANCES
from depin_node.core.errors import ConfigError, TaskTrapped


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DEPIN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@dataclass
class Case:
    """A launch, what it should give (an array or several) and how near: 0 is exactly, dtype included."""

    id: str
    kernel: Any
    args: tuple
    expected: Any
    rtol: float = 0.0
    options: dict = field(default_factory=dict)


random = np.random.default_rng(7)
X, Y = random.random((2, 37, 129), dtype="float32")
D = random.random((5, 6, 7))
K = random.integers(-1000, 1000, (13, 11), "int32")
K3 = random.integers(-1000, 1000, (13, 11, 3), "int32")
AXES = [(None, False), (None, True), (0, False), (1, True), (-1, False), ((0, 2), True), ((1, 0), False)]
V = random.random(129, dtype="float32")
RGB = random.random((50, 40, 3), dtype="float32")
BYTES = random.integers(0, 256, 1000, "uint8")
Z = (random.normal(size=(9, 37)) + 1j * random.normal(size=(9, 37))).astype("complex64")
H = random.normal(size=(9, 37)).astype("float16")
ROTATE = ElementwiseKernel("T x, T y", "T z", "z = x * y + conj(x)", "rotate")
NORM = ReductionKernel("complex64 x", "float32 y", "norm(x)", "a + b", "y = sqrt(a)", "0", "norm_", reduce_type="float")
HALVE = ElementwiseKernel("T x, float16 y", "T z", "z = x / 2 + y", "halve")
ADD = ElementwiseKernel("T x, T y", "T z", "z = x + y", "add")
SUM = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "sum_")
L2 = ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "l2norm")
MAX = ReductionKernel("T x", "T y", "x", "a > b ? a : b", "y = a", None, "max_")
DOT = ReductionKernel("T x, T w", "T y", "x * w", "a + b", "y = a", "0", "dot")
BEST = """
struct best {
    float value; int place;
    __device__ best() : value(0), place(-1) {}
    __device__ best(float v, int k) : value(v), place(k) {}
};
__device__ best better(const best& a, const best& b) {
    if (a.place < 0 || b.place < 0) return a.place < 0 ? b : a;
    return b.value > a.value || (b.value == a.value && b.place < a.place) ? b : a;
}
"""


def pairs(x):
    """The sum of a reduction of few elements, in the documented order."""
    lanes = 1 << max(0, min(x.size // 4, 256).bit_length() - 1)
    s = np.zeros(lanes, x.dtype)
    for j, value in enumerate(x):
        s[j % lanes] += value
    while lanes > 1:
        lanes //= 2
        s = s[:lanes] + s[lanes:]
    return s[0]


def steps(x):
    """Return what ``a loop that lanes leave`` counts."""
    k, z = abs(int(x)), 0
    while k > 1:
        z += k % 7 != 3
        k //= 2
    return z


STEPS = np.vectorize(steps, otypes=["int32"])(K)
CASES = [
    # ---- CuPy's user guide
    Case("complex", ROTATE, (Z, 0.5 - 2j), Z * np.complex64(0.5 - 2j) + Z.conj(), 1e-6),
    Case("complex norm", NORM, (Z,), np.linalg.norm(Z.astype(complex)).astype("float32"), 1e-5, {"axis": None}),
    Case("half", HALVE, (H, H[0]), (H.astype("f4") / 2 + H[0]).astype("float16")),
    Case("half sum", SUM, (np.arange(64, dtype="float16"),), np.float16(2016)),
    Case("squared_diff", ElementwiseKernel(
        "float32 x, float32 y", "float32 z", "z = (x - y) * (x - y)", "squared_diff"), (X, Y), (X - Y) ** 2),
    Case("generic statements", ElementwiseKernel("T x, T y", "T z", "T diff = x - y; z = diff * diff;", "generic"),
         (D, D[::-1]), (D - D[::-1]) ** 2),
    Case("three types", ElementwiseKernel("X x, Y y", "Z z", "z = (x - y) * (x - y)", "super_generic"),
         (X[:13, :11], K, Out("float64", K.shape)), ((X[:13, :11] - K.astype("float32")) ** 2).astype("float64")),
    Case("add_reverse", ElementwiseKernel("T x, raw T y", "T z", "z = x + y[_ind.size() - i - 1]", "add_reverse"),
         (V, V), V + V[::-1]),
    Case("l2norm rows", L2, (X,), np.sqrt((X * X).sum(1)), 1e-6, {"axis": 1}),
    Case("a loop", ElementwiseKernel(
        "T x, int32 y", "T z, int32 w", "T v = x; for (int k = 0; k < 3; ++k) v = v * 2 + x; z = v; w = y;", "loop"),
         (X[:13, :11], K), (X[:13, :11] * 15, K), 1e-6),
    Case("a loop that lanes leave", ElementwiseKernel(
        "int32 x", "int32 z", "z = 0; for (int k = x < 0 ? -x : x; k > 1; k /= 2) { if (k % 7 == 3) continue; ++z; }",
        "steps"),
         (K,), STEPS),
    # ---- broadcasting and views
    Case("row broadcast", ADD, (X, V), X + V),
    Case("column broadcast", ADD, (X, X[:, :1]), X + X[:, :1]),
    Case("outer", ADD, (V, V[:, None]), V + V[:, None]),
    Case("short rows", ADD, (RGB, np.float32([1, 2, 3])), RGB + np.float32([1, 2, 3])),
    Case("three axes, mixed", ADD, (D[:, :1, :], D[:1, :, :1]), D[:, :1, :] + D[:1, :, :1]),
    Case("transposed and reversed", ADD, (K.T, K.T[::-1, ::-1]), K.T + K.T[::-1, ::-1]),
    Case("strided", ADD, (X[::3, 1::2], Y[::3, 1::2]), X[::3, 1::2] + Y[::3, 1::2]),
    Case("repeated", ADD, (np.broadcast_to(V, (9, 129)), In(X[:9])), V + X[:9]),
    Case("zero axes", ADD, (np.array(2.5), np.array(3.5)), np.array(6.0)),
    Case("one row of a prime length", ADD, (np.arange(65537), 1), np.arange(65537) + 1, options={"shards": 5}),
    # ---- numbers, types
    Case("a Python number", ADD, (X, 0.1), X + np.float32(0.1)),
    Case("a NumPy number converts", ADD, (K, np.int64(3)), K + np.int32(3)),
    Case("small integers wrap", ElementwiseKernel("T x, T y", "T z", "z = x * y", "wrap"),
         (BYTES, BYTES[::-1]), BYTES * BYTES[::-1]),
    Case("bool out", ElementwiseKernel("T x, T y", "bool z", "z = x < y", "less"), (X, Y), X < Y),
    Case("bool in", ElementwiseKernel("bool c, T x, T y", "T z", "z = c ? x : y", "where"), (X > 0.5, X, Y),
         np.where(X > 0.5, X, Y)),
    Case("64 bits", ElementwiseKernel("uint64 x", "uint64 z", "z = x * 6364136223846793005ull + i", "lcg"),
         (np.arange(99, dtype="uint64"),),
         np.arange(99, dtype="uint64") * np.uint64(6364136223846793005) + np.arange(99, dtype="uint64")),
    Case("maths", ElementwiseKernel("T x", "T z", "z = exp(-x * x) * sqrt(x) / (1 + x)", "maths"), (D,),
         np.exp(-D * D) * np.sqrt(D) / (1 + D), 1e-14),
    # ---- raw, several outputs, fragments
    Case("all raw", ElementwiseKernel("raw T x, raw T y", "raw T z", "z[i] = x[i] + y[i]", "all_raw"),
         (V, V), V + V, options={"size": 129}),
    Case("all raw, cut", ElementwiseKernel("raw T x", "raw T z", "z[i] = x[i / 2]", "twice"),
         (V,), V.repeat(2), options={"size": 258, "shards": 7}),
    Case("raw neighbours", ElementwiseKernel("raw T x", "T z", "z = x[i + 1 < n ? i + 1 : 0] - x[i]", "roll"),
         (V,), np.roll(V, -1) - V, options={"size": 129}),
    Case("members of raw arrays", ElementwiseKernel(
        "raw T x", "T z", "z = x[i % x.shape()[1] * x.shape()[0] % x.size()] + x.ndim + x.strides()[0]", "members"),
        (K,), K.reshape(-1)[np.arange(20) % 11 * 13 % 143] + 2 + 44, options={"size": 20}),
    Case("a raw view", ElementwiseKernel("raw T x", "T z", "z = x[i]", "view"), (K.T,), K.T.reshape(-1),
         options={"size": K.size}),
    Case("digits", ElementwiseKernel("T x", "int32 z", "z = _ind.get()[0] * 100 + _ind.get()[1]", "digits", False),
         (X,), (np.arange(37)[:, None] * 100 + np.arange(129)).astype("int32")),
    Case("two outputs", ElementwiseKernel("T x, T y", "T low, T high", "low = min(x, y); high = max(x, y)", "sort2"),
         (K, K[::-1]), (np.minimum(K, K[::-1]), np.maximum(K, K[::-1])), options={"shards": 4}),
    Case("in and out", ElementwiseKernel("T x", "T z", "z += x", "accumulate"), (X, InOut(Y)), X + Y,
         options={"shards": 9}),
    Case("preamble, loop_prep, after_loop", ElementwiseKernel(
        "T x", "T z, raw int32 ends", "z = twice(x) + c", "fragments",
        preamble="template <typename U> __device__ U twice(U v) { return 2 * v; } // U",
        loop_prep="const T c = 3;", after_loop="if (threadIdx.x == 0) ends[blockIdx.x] = blockDim.x"),
        (np.arange(512, dtype="float32"), Out("float32", 512), Out("int32", 2)),
        (np.arange(512, dtype="float32") * 2 + 3, np.full(2, 256, "int32"))),
    Case("continue", ElementwiseKernel("T x", "T z", "if (x < 0) continue; z = x", "relu"), (K,), np.maximum(K, 0)),
    Case("options", ElementwiseKernel("T x", "T z", "z = x * SCALE", "scaled", options=("-DSCALE=4",)), (K,), K * 4),
    Case("a histogram into a raw array", ElementwiseKernel(
        "uint8 x", "raw int32 h", "atomicAdd(&h[x], 1)", "histogram"), (BYTES, Out("int32", 256)),
        np.bincount(BYTES, minlength=256).astype("int32")),
    # ---- reductions
    *[Case(f"sum of integers, axis {axis}, keepdims {keep}", SUM, (K3,), K3.sum(axis, dtype="int32", keepdims=keep),
           options={"axis": axis, "keepdims": keep})
      for axis, keep in AXES],
    Case("the documented order, few", SUM, (V[:41],), np.array(pairs(V[:41]))),
    Case("the documented order, many", SUM, (X.reshape(-1),), np.array(pairs(X.reshape(-1)))),
    Case("max of negatives, no identity", MAX, (X - 9,), (X - 9).max(1), options={"axis": 1, "shards": 8}),
    Case("max of one", MAX, (X[:, :1] - 9,), X[:, 0] - 9, options={"axis": 1}),
    Case("identity of nothing", SUM, (np.ones((3, 0)),), np.zeros(3), options={"axis": 1}),
    Case("infinite identity", ReductionKernel("T x", "T y", "x", "min(a, b)", "y = a", float("inf"), "least"),
         (X,), X.min(0), options={"axis": 0}),
    Case("weights broadcast", DOT, (X, V), (X * V).sum(1), 1e-5, {"axis": 1}),
    Case("weights broadcast, other axis", DOT, (X, V), (X * V).sum(0), 1e-5, {"axis": 0}),
    Case("interleaved broadcast", DOT, (D, D[:, :1]), (D * D[:, :1]).sum((0, 1)), 1e-14, {"axis": (0, 1)}),
    Case("a view", SUM, (K.T[::-1, ::2],), K.T[::-1, ::2].sum(1, dtype="int32"), options={"axis": 1}),
    Case("a number in all expressions", ReductionKernel(
        "T x, T p", "T y", "x + p", "a + b + p", "y = a * p", "0", "numbers"), (K, 0), np.array(0, "int32")),
    Case("names a and b in map_expr", ReductionKernel("T a, T b", "T y", "a * b", "a + b", "y = a", "0", "named"),
         (K, K), np.array((K * K).sum(dtype="int32"))),
    Case("wider reduce_type", ReductionKernel("T x", "int64 y", "x", "a + b", "y = a", "0", "wide", "long long"),
         (np.full(300, 2**31 - 1, "int32"),), np.array(300 * (2**31 - 1))),
    Case("all true", ReductionKernel("T x", "bool y", "x > 0", "a && b", "y = a", True, "all_"), (K,), (K > 0).all(0),
         options={"axis": 0}),
    Case("mean and size", ReductionKernel(
        "T x", "float64 y", "x", "a + b", "y = a / (_in_ind.size() / _out_ind.size())", "0", "mean"),
        (K.astype("int64"),), K.mean(1), 1e-15, {"axis": 1}),
    Case("argmax with a struct", ReductionKernel(
        "float32 x", "int64 k, float32 v", "best(x, _J)", "better(a, b)", "k = a.place, v = a.value", None, "argmax",
        "best", preamble=BEST), (X,), (X.argmax(1), X.max(1)), options={"axis": 1}),
    Case("a raw input, axes at the head", ReductionKernel(
        "T x, raw T w", "T y", "x * w[_j]", "a + b", "y = a", "0", "weighted"), (K, K), (K * K).sum(0, dtype="int32"),
        options={"axis": 0}),
]  # fmt: skip


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=[re.sub(r"\W+", "-", case.id) for case in cases])


@named(CASES)
def test_as_numpy(case):
    found = launch(case.kernel, args=case.args, **case.options)
    for ours, theirs in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, case.expected)), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if case.rtol:
            np.testing.assert_allclose(ours, theirs, case.rtol)
        else:
            np.testing.assert_array_equal(ours, theirs)


TREES = [case for case in CASES if isinstance(case.kernel, ReductionKernel) and case.id != "identity of nothing"]


@named(TREES)
def test_threads_reduce_in_the_same_order_as_one_thread_does(case):
    """What a GPU runs, here with coroutines for threads, gives the bits of what runs without one."""
    options = {name: value for name, value in case.options.items() if name != "shards"}
    found = []
    for define in ((), ("-DDEPIN_THREADS",)):
        kernel = ReductionKernel(
            *(", ".join(map(str, infos)) for infos in (case.kernel.in_params, case.kernel.out_params)),
            case.kernel.map_expr, case.kernel.reduce_expr, case.kernel.post_map_expr, case.kernel.identity,
            case.kernel.name, case.kernel.reduce_type, preamble=case.kernel.preamble, options=define,
        )  # fmt: skip
        launched = kernel.lower(case.args, **options)
        compiled = launched.kernel.compile()
        assert (compiled.shape == "loop") != bool(define)
        args = [np.zeros(a.shape, a.dtype) if isinstance(a, Out) else a for a in launched.args]
        outputs = [a is not b for a, b in zip(args, launched.args, strict=True)]
        pointers = [out for out, a in zip(outputs, args, strict=True) if isinstance(a, np.ndarray)]
        after = Host().run(compiled, (launched.grid,), (launched.block,), args)
        found.append([a.tobytes() for a, out in zip(after, pointers, strict=True) if out])
    assert found[0] == found[1]


def test_the_bits_do_not_depend_on_the_shards():
    x = random.random((61, 1000), dtype="float32")
    for kernel, args, options in ((L2, (x,), {"axis": 1}), (ADD, (x, x[:, :1]), {}), (DOT, (x, x[0]), {"axis": 1})):
        results = {launch(kernel, args=args, shards=shards, **options).tobytes() for shards in (1, 7)}
        assert len(results) == 1


def test_one_compilation_serves_all_sizes():
    kernels = {id(ADD.lower((X[:n], V)).kernel) for n in (5, 17, 37)}
    kernels |= {id(ADD.lower((X[:, :n], V[:n]), shards=3).kernel) for n in (100, 129)}
    assert len(kernels) == 1


def test_kernels_are_exact_and_their_notes_name_the_fragment():
    assert prepare_launch(L2, args=(X,), axis=1).bound.program.exact
    kernel = ElementwiseKernel("float32 x", "raw float32 s", "float v = x;\natomicAdd(&s[0], v);", "unordered")
    work = prepare_launch(kernel, args=(V, Out("float32", 1)))
    assert not work.bound.program.exact
    assert work.tolerances == (TOLERANCES["float32"],)
    assert re.search(r"compared as numbers \(.*operation, line 2: atomicAdd on float.*: s within", work.notes[-1])


@pytest.mark.parametrize(("kernel", "message"), [
    (ElementwiseKernel("T x", "T z", "T q = x;\nz = wrong + q", "k"), r"^k, operation:2:5: error: wrong is not decl"),
    (ElementwiseKernel("T x", "T z", "z = f(x)", "k", preamble="\n\n__device__ int f(int x) { return y; }"),
     r"^k, preamble:3:\d+: error: y is not declared"),
    (ElementwiseKernel("T x", "T z", "z = x", "k", loop_prep="q = 1"), r"^k, loop_prep:1:1: error: q is not"),
    (ReductionKernel("T x", "T y", "x", "a + q", "y = a", "0", "r"), r"^r, reduce_expr:1:5: error: q is not decl"),
    (ReductionKernel("T x", "T y", "x", "a + b", "y = q", "0", "r"), r"^r, post_map_expr:1:5: error: q is not decl"),
    (ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "r", "quad"), r"^r, reduce_type:1:1: error: quad"),
])  # fmt: skip
def test_compile_errors_are_told_in_the_users_words(kernel, message):
    with pytest.raises(CompileError, match=message):
        prepare_launch(kernel, args=(V,))


@pytest.mark.parametrize(("operation", "message"), [
    ("z = y[_ind.get()]", r"operation: 'y\[_ind.get\(\)\]': a raw array takes one index here"),
    ("z = y[{0, 1}]", "a raw array takes one index here"),
    ("z = y.begin()[0]", r"'y.begin\(\)\[0\]' is not supported: of a raw array there are size\(\), ndim"),
    ("z = y.shape()[2]", "there are 1 axes"),
    ("z = _ind.get()[1]", "there are 1 axes"),
    ("_ind.set(3)", r"'_ind.set' is not supported: of _ind there are size\(\), ndim and get"),
])  # fmt: skip
def test_what_cupys_objects_have_and_ours_have_not_is_refused_by_name(operation, message):
    with pytest.raises(ConfigError, match=message):
        ElementwiseKernel("T x, raw T y", "T z", operation).lower((V, V))


def test_digits_need_the_axes_to_be_kept():
    with pytest.raises(ConfigError, match=r"'_ind.get\(\)\[1\]' is not supported: of _ind there are size\(\) and ndim"):
        ElementwiseKernel("T x", "T z", "z = _ind.get()[1]").lower((X,))


def test_a_raw_output_of_another_shape_cannot_be_cut_and_one_of_the_loops_is_checked():
    with pytest.raises(ConfigError, match=r"z is raw and has the shape.*so it cannot be cut: use one shard"):
        ElementwiseKernel("T x", "raw T z", "z[i / 2] = x").lower((V, Out("float32", 65)), shards=2)
    kernel = ElementwiseKernel("T x", "raw T z", "z[n - 1 - i] = x", "others")
    np.testing.assert_array_equal(launch(kernel, args=(V, Out("float32", 129))), V[::-1])
    with pytest.raises(TaskTrapped):
        launch(kernel, args=(V, Out("float32", 129)), shards=3)


@pytest.mark.parametrize(("kernel", "options", "message"), [
    (ADD, {"grid": 1}, "add is an elementwise kernel: grid does not go with it"),
    (ADD, {"axis": 0}, "axis does not go with it"),
    (ADD, {"shared_mem": 4}, "shared_mem does not go with it"),
    (SUM, {"size": 3}, "sum_ is a reduction kernel: size does not go with it"),
    (ADD, {"shards": 130}, "add: 130 shards of 129 elements: a shard has at least one"),
])  # fmt: skip
def test_options_of_the_other_kinds_are_refused(kernel, options, message):
    args = (V, V) if kernel is ADD else (V,)
    with pytest.raises(ConfigError, match=message):
        prepare_launch(kernel, args=args, **options)


def test_cupys_own_objects_are_taken_as_they_are():
    cupy = pytest.importorskip("cupy")
    theirs = cupy.ElementwiseKernel("T x, raw float32 y", "T z", "z = x + y[q]", "k", loop_prep="const int q = 2;")
    np.testing.assert_array_equal(launch(theirs, args=(V, V)), V + V[2])
    theirs = cupy.ReductionKernel("T x", "float64 y", "x", "a + b", "y = a", "0", "r")
    np.testing.assert_allclose(launch(theirs, args=(X,), axis=1), X.sum(1, dtype="float64"), 1e-15)
    with pytest.raises(ConfigError, match="no_return is not supported"):
        launch(cupy.ElementwiseKernel("T x", "T z", "z = x", no_return=True), args=(V,))


def test_what_is_no_kernel_is_refused():
    with pytest.raises(ConfigError, match="expected a RawKernel, ElementwiseKernel or ReductionKernel, ours or CuPy's"):
        launch(print, args=(V,))
