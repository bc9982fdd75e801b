"""Tracing: what is recorded, what lies in memory, what is refused and in which words; slices; the real worker."""

import array_api_compat
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traced import LIMITS, run

from depin_node.client import ReductionKernel, Spec, Split, TraceError, local, quorum, trace, xp
from depin_node.client.work import prepare_program
from depin_node.compute.programs.arrays import bind_traced
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.program import Launch, Operation
from depin_node.core.errors import TaskNoResult, TaskTrapped

X = np.random.default_rng(5).standard_normal((6, 4))


def steps(function, *arguments):
    """Return the steps of a traced function's program, by name."""
    program = bind_traced(trace(function, *arguments)).program
    return [program.kernels[s.kernel].name if isinstance(s, Launch) else s.name for s in program.steps]


# What is recorded


def test_a_chain_is_one_kernel_and_a_softmax_three():
    assert len(steps(lambda x: xp.exp(-((x - 2) ** 2)).T[::-1] * x[0, 0], X)) == 1

    def softmax(x):
        e = xp.exp(x - xp.max(x, axis=1, keepdims=True))
        return e / xp.sum(e, axis=1, keepdims=True)

    assert len(steps(softmax, X)) == 4  # e is used twice, so it is computed once


def test_equal_steps_of_a_loop_share_one_kernel_and_two_temporaries():
    def diffuse(u):
        for _ in range(20):
            u = u + 0.1 * (xp.roll(u, 1, axis=0) + xp.roll(u, -1, axis=0) - 2 * u)
        return u

    program = bind_traced(trace(diffuse, X)).program
    assert (len(program.steps), len(program.kernels), len(program.buffers)) == (20, 1, 4)
    wanted = X
    for _ in range(20):
        wanted = wanted + 0.1 * (np.roll(wanted, 1, 0) + np.roll(wanted, -1, 0) - 2 * wanted)
    np.testing.assert_allclose(run(diffuse, X)[0], wanted, rtol=1e-13)


def test_steps_that_differ_in_a_fraction_share_a_kernel():
    def decaying(x):
        for step in range(9):
            x = xp.sum(x * (step + 0.5), axis=0) / 1.1 ** (step + 1) + x
        return x

    program = bind_traced(trace(decaying, X.astype("float32"))).program
    assert (len(program.steps), len(program.kernels)) == (27, 3)
    wanted = X.astype("float32")
    for step in range(9):
        wanted = (wanted * np.float32(step + 0.5)).sum(0) / np.float32(1.1 ** (step + 1)) + wanted
    np.testing.assert_allclose(run(decaying, X.astype("float32"))[0], wanted, rtol=1e-5)


def test_what_the_results_do_not_need_is_not_computed():
    def wasteful(x):
        xp.linalg.inv(x[:4, :])
        return x + 1

    assert len(steps(wasteful, X)) == 1


def test_deep_and_wide_graphs_stay_small():
    def doubled(x):
        for shift in range(40):
            x = x * 0.5 + xp.roll(x, shift, axis=0)  # each needs the one before at two places
        return x

    def deep(x):
        for _ in range(500):
            x = xp.sin(x) + 1
        return x

    program = bind_traced(trace(doubled, X)).program
    assert len(program.steps) <= 40
    assert len(run(deep, X)) == 1
    with pytest.raises(TraceError, match="write loops over elements as whole arrays"):
        trace(lambda x: [x := x + 1 for _ in range(20_001)][-1], X)


def test_programs_of_kernels_are_exact_and_those_of_the_library_are_not():
    assert bind_traced(trace(lambda x: xp.sort(xp.exp(x)), X)).program.exact
    bound = bind_traced(trace(lambda x: x.T @ x, X))
    assert not bound.program.exact
    assert [step.name for step in bound.program.steps if isinstance(step, Operation)] == ["matmul"]


@pytest.mark.parametrize("length", [3, 40, 5000])
def test_a_sum_has_the_order_of_a_reduction_kernel(length):
    from device_programs import run_all
    from traced import DEVICE

    from depin_node.compute.programs.binding import bind

    x = np.random.default_rng(1).standard_normal((3, length)).astype("float32")
    kernel = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "total").lower((x,), axis=1)
    bound = bind(kernel.kernel, kernel.grid, kernel.block, kernel.args)
    (wanted,) = run_all(DEVICE, bound.program, *bound.inputs.values(), limits=LIMITS)
    assert run(lambda x: xp.sum(x, axis=1), x)[0].tobytes() == wanted.tobytes()


def test_arguments_constants_and_results():
    table = np.arange(4.0)
    traced = trace(lambda x, y: {"x": x * table + y, "first": x, "again": x}, X, 2.5)
    bound = bind_traced(traced)
    assert [b.name for b in bound.program.buffers if b.is_output] == ["x", "first", "again"]
    with pytest.raises(TraceError, match=r"argument 0 is float32 .*; it was traced with float64"):
        bind_traced(traced, (X.astype("float32"), 1.0))
    with pytest.raises(TraceError, match="traced with 2 arrays, 1 are given"):
        bind_traced(traced, (X,))
    later = trace(lambda x: x + 1, Spec("float32", (3,)))
    with pytest.raises(TraceError, match="traced with 1 arrays, 0 are given"):
        bind_traced(later)
    assert bind_traced(later, (np.ones(3, "float32"),)).inputs


def test_one_result_in_several_shapes():
    flat, square, same, lower = run(
        lambda x: [xp.reshape(y := xp.exp(x), (-1,)), y, y, xp.linalg.inv(xp.reshape(y, (4, 6))[:, :4])], X
    )
    np.testing.assert_allclose(square, np.exp(X), rtol=1e-14)
    assert flat.tobytes() == square.tobytes() == same.tobytes()
    np.testing.assert_allclose(lower, np.linalg.inv(np.exp(X).reshape(4, 6)[:, :4]), rtol=1e-9)


def test_slices_are_put_together():
    w = np.arange(4.0)

    def of_a_slice(x, w):
        return xp.sum(x * w, axis=1), xp.max(x), xp.linalg.svdvals(x)[0]

    rows, largest, values = run(of_a_slice, Split(X), w, shards=3)
    np.testing.assert_allclose(rows, (X * w).sum(1))
    assert largest.tolist() == X.reshape(3, 8).max(1).tolist()
    np.testing.assert_allclose(values, [np.linalg.svd(X[k : k + 2])[1][0] for k in (0, 2, 4)])
    with pytest.raises(TraceError, match="does not split into 4 equal slices"):
        trace(of_a_slice, Split(X), w, shards=4)
    with pytest.raises(TraceError, match="an argument in Split for more than one"):
        trace(of_a_slice, X, w, shards=2)


def test_code_for_any_namespace_of_the_standard_runs():
    def standardise(x):
        space = array_api_compat.array_namespace(x)
        assert space.isdtype(x.dtype, "real floating")
        return (x - space.mean(x, axis=0)) / space.std(x, axis=0)

    np.testing.assert_allclose(run(standardise, X)[0], (X - X.mean(0)) / X.std(0), rtol=1e-12)
    assert xp.result_type(xp.int8, xp.uint8, 3) == np.int16
    assert xp.can_cast(xp.int8, xp.int16)
    assert not xp.can_cast(xp.int64, xp.float32)
    info = xp.__array_namespace_info__()
    assert list(info.dtypes(kind=("bool", "unsigned integer"))) == ["bool", "uint8", "uint16", "uint32", "uint64"]
    assert xp.arange(3).dtype == info.default_dtypes()["integral"]
    assert xp.ones(3).device == info.default_device()
    assert xp.__array_api_version__ == "2024.12"
    assert not info.capabilities()["data-dependent shapes"]
    with pytest.raises(TraceError, match="there is one device"):
        info.dtypes(device="cuda:0")


UNARY = st.sampled_from([xp.exp, xp.sin, xp.abs, xp.negative, xp.square, xp.floor, xp.tanh])
VIEWS = st.sampled_from(
    [
        (lambda x: xp.flip(x, axis=0), lambda x: np.flip(x, 0)),
        (lambda x: xp.reshape(x.T, x.shape), lambda x: x.T.reshape(x.shape)),
        (lambda x: xp.roll(x, 3), lambda x: np.roll(x, 3)),
        (lambda x: x - xp.mean(x, axis=1, keepdims=True), lambda x: x - x.mean(1, keepdims=True)),
        (lambda x: xp.sort(x, axis=0), lambda x: np.sort(x, 0)),
        (lambda x: xp.concat([x[3:, :], x[:3, :]]), lambda x: np.concatenate([x[3:], x[:3]])),
        (lambda x: xp.where(x > 0, x, x[::-1, ::-1]), lambda x: np.where(x > 0, x, x[::-1, ::-1])),
        (lambda x: xp.cumulative_sum(x, axis=1), lambda x: np.cumsum(x, 1)),
        (lambda x: xp.take(x, xp.asarray([5, 0, 0, 2, 1, 3]), axis=0), lambda x: x[[5, 0, 0, 2, 1, 3]]),
        (lambda x: xp.clip(x, -2, 2) * x[:1, :], lambda x: np.clip(x, -2, 2) * x[:1]),
    ]
)
EXPRESSIONS = st.lists(st.one_of(UNARY.map(lambda f: (f, getattr(np, f.__name__))), VIEWS), min_size=3, max_size=9)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(EXPRESSIONS, st.booleans())
def test_expressions_give_what_numpy_gives(functions, shared):
    ours = theirs = None

    def through(position, x):
        y = x
        for pair in functions:
            z = pair[position](y)
            y = z + y if shared and pair[position].__name__ != "<lambda>" else z
            y = xp.clip(y, -9, 9) if position == 0 else np.clip(y, -9, 9)
        return y

    ours, theirs = run(lambda x: through(0, x), X)[0], through(1, X)
    near = np.isclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert near.mean() > 0.95 if any(f[1] is np.floor for f in functions) else near.all()


# What is refused


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x if x[0, 0] > 0 else -x, "Python cannot branch on a traced array"),
        (lambda x: x[0] and x[1], r"use xp.where\(condition, a, b\)"),
        (lambda x: x * float(x[0, 0]), "a traced array has no value yet"),
        (lambda x: [1, 2][x[0, 0]], "cannot become an index"),
        (lambda x: x.sum(), r"no 'sum', which is a function .*: write xp = x.__array_namespace__\(\) and xp.sum\(x\)"),
        (lambda x: x.flaten(), "a traced array has no 'flaten'; docs/arrays.md"),
        (lambda x: x.shpae, "a traced array has no 'shpae'; did you mean 'shape'"),
        (lambda x: np.exp(x), "numpy.exp does not record"),
        (lambda x: np.concatenate([x, x]), "numpy.concatenate does not record"),
        (lambda x: np.asarray(x), "cannot become a NumPy array"),
        (lambda x: x[x > 0], "a mask selects a number of elements that is not known"),
        (lambda x: xp.nonzero(x), "say how many there are at most"),
        (lambda x: xp.unique_values(x), "say how many there are at most"),
        (lambda x: xp.unique_all(x), "as many elements as the data decide"),
        (lambda x: xp.einsum("ij->i", x), "xp.einsum is not in the array API standard"),
        (lambda x: x.__setitem__(0, 1.0), "traced arrays do not change"),
        (lambda x: x + xp.asarray([1, 2, 3, 4]), "float64 and int64 do not mix"),
        (lambda x: x & 1, "does not go with|takes bool"),
        (lambda x: xp.astype(x, "float16"), "half precision is for kernels"),
        (lambda x: x + xp.ones((5,)), "do not broadcast together"),
        (lambda x: x[:, 4], "index 4 of an axis with 4 elements"),
        (lambda x: x[3:3], "selects no elements"),
        (lambda x: xp.repeat(x, -1, axis=0), "has no elements"),
        (lambda x: xp.eye(3, 0), "expected positive integers"),
        (lambda x: xp.reshape(x, (5, 5)), "does not reshape"),
        (lambda x: xp.sum(x, axis=2), "axis 2 of an array with 2 axes"),
        (lambda x: xp.sum(x, axis=(0, 0)), "names an axis twice"),
        (lambda x: x @ x, "4 columns do not meet 6 rows"),
        (lambda x: xp.linalg.inv(x), "square matrices, not 6 × 4"),
        (lambda x: xp.full((2,), 100, dtype=xp.int8) + x, "do not mix"),
        (lambda x: xp.asarray([1], dtype=xp.int8) * 300, "out of the range of int8"),
        (lambda x: "text", "returns str: expected arrays"),
        (lambda x: [], "returns 0 arrays"),
        (lambda x: list(xp.zeros((2000,))), "at most 1024; use axes"),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_what_to_write_instead(function, reason):
    with pytest.raises(TraceError, match=reason):
        trace(function, X)


@pytest.mark.parametrize(
    "decide",
    [
        lambda y: y > 0,
        lambda y: xp.where(y > 0, y, 0.0),
        lambda y: xp.argmax(y),
        lambda y: xp.sort(y),
        lambda y: xp.floor(y),
        lambda y: y // 2,
        lambda y: xp.sign(y),
        lambda y: xp.astype(y, xp.int32),
        lambda y: xp.count_nonzero(y),
        lambda y: xp.searchsorted(xp.arange(3.0), y),
        lambda y: xp.isfinite(y),
        lambda y: xp.linalg.vector_norm(y, ord=0),
    ],
)
@pytest.mark.parametrize(
    "library", [lambda x: x.T @ x, lambda x: xp.abs(xp.fft.fft(x)), lambda x: xp.linalg.svdvals(x)]
)
def test_nothing_discrete_is_decided_by_a_tolerant_result(library, decide):
    with pytest.raises(TraceError, match="make two jobs, the first up to that result"):
        trace(lambda x: decide(xp.exp(library(x)) + 1), X)


def test_a_rank_is_two_jobs_and_a_maximum_is_none():
    with pytest.raises(TraceError, match=r"the first for xp\.linalg\.svdvals"):
        trace(xp.linalg.matrix_rank, X)
    assert trace(lambda x: xp.max(xp.clip(x.T @ x, 0, 1)), X).recording.steps


# The real worker


def test_a_traced_program_runs_in_the_sandbox():
    def both(x):
        gram = x.T @ x
        return {"order": xp.argsort(x, axis=0), "inverse": xp.linalg.inv(gram), "spectrum": xp.abs(xp.fft.rfft(x))}

    traced = trace(both, X)
    order, inverse, spectrum = local.run(traced)
    np.testing.assert_array_equal(order, np.argsort(X, axis=0, kind="stable"))
    np.testing.assert_allclose(inverse, np.linalg.inv(X.T @ X), rtol=1e-9)
    np.testing.assert_allclose(spectrum, abs(np.fft.rfft(X)), rtol=1e-12)
    work = prepare_program(traced, verify=quorum(2, 3))
    assert not work.bound.program.exact
    assert len(work.tolerances) == 3  # answers are compared as numbers


def test_numbers_without_a_result_end_the_task_with_their_own_code():
    with pytest.raises(TaskNoResult, match="inv: Singular matrix") as caught:
        run(lambda x: xp.linalg.inv(x), np.ones((3, 3)))
    assert caught.value.code == "no_result"
    with pytest.raises(TaskNoResult, match="cholesky: Matrix is not positive definite"):
        run(lambda x: xp.linalg.cholesky(x), -np.eye(3))
    with pytest.raises(TaskNoResult, match="svdvals: SVD did not converge"):
        run(lambda x: xp.linalg.svdvals(x), np.full((3, 3), np.nan))
    with pytest.raises(TaskTrapped):
        run(lambda x, i: x[i], X, np.array([2, 6]))


def test_the_memory_of_operations_is_enough_and_is_a_limit():
    a = np.random.default_rng(0).standard_normal((300, 300))

    def heavy(a):
        return xp.linalg.svd(a).S, xp.linalg.inv(a), xp.linalg.eigh(a).eigenvalues, xp.linalg.pinv(a), xp.fft.fft(a)

    work = prepare_program(trace(heavy, a), local=True)
    assert work.limits.memory_mib <= -(-memory_bytes(work.bound.program) >> 20) + 1
    assert len(local.run(trace(heavy, a), limits=work.limits)) == 5


def test_what_is_recorded_is_told_in_a_line():
    traced = trace(lambda a, b: a + 2 * b, np.zeros((3, 4), np.float32), np.zeros(4, np.float32))
    assert repr(traced) == "<Traced function(a: float32 (3, 4), b: float32 (4,)) -> result; shards=1>"
