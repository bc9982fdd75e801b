"""Programs of several steps on the wasm device, against NumPy."""

import numpy as np
import pytest
from msgspec.structs import replace
from program_host import ProgramHost

from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.programs.arrays import bind_traced, trace
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.generated import ElementwiseKernel, ReductionKernel
from depin_node.compute.programs.kernel import Along, RawKernel, RawModule, Reference
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.program import Offset
from depin_node.compute.programs.work import work
from depin_node.core.errors import ConfigError, TaskOutOfMemory, TaskTimedOut, TaskTrapped

ADD = RawKernel(
    """extern "C" __global__ void add(const float* x, float* y, float a, int n) {
           int i = blockIdx.x * blockDim.x + threadIdx.x;
           if (i < n) y[i] = x[i] + a;
       }""",
    "add",
)
GATHER = RawKernel(
    """extern "C" __global__ void gather(float* y, const float* a, float* b, const float* c) {
           int i = threadIdx.x;
           y[i] = a[i]; y[4 + i] = b[i]; y[8 + i] = c[i];
       }""",
    "gather",
)
TWICE = RawKernel('extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }', "twice")
COUNT = RawKernel(
    """extern "C" __global__ void count(int* n, int* done, int most) { n[0] += 1; if (n[0] >= most) done[0] = 1; }""",
    "count",
)
X = np.arange(1, 41, dtype="float32")


@pytest.fixture(scope="module")
def host():
    return ProgramHost()


@pytest.mark.parametrize("passes", [1, 2, 7])
def test_swapped_arrays_are_where_their_names_are(host, passes):
    steps = ProgramBuilder()
    x, y = steps.inout("x", X), steps.temp("y", "float32", X.shape)
    with steps.repeat(passes):
        steps.launch(ADD, 2, 32, (x, y, 1.0, 40))
        steps.swap(x, y)
    bound = steps.build()
    np.testing.assert_array_equal(host.run(bound)["x"], X + passes)
    assert work(bound.program) == (2 * passes, 64 * passes, 0)


def test_two_outputs_that_swap(host):
    """After an odd number of passes each name has what the other began with."""
    steps = ProgramBuilder()
    x, y = steps.inout("x", X), steps.out("y", "float32", X.shape)
    with steps.repeat(3):
        steps.launch(TWICE, 1, 40, (x,))
        steps.swap(x, y)
    found = host.run(steps.build())
    np.testing.assert_array_equal(found["y"], 4 * X)
    np.testing.assert_array_equal(found["x"], 0 * X)


def test_loops_in_loops_and_until(host):
    steps = ProgramBuilder()
    n, done = steps.out("n", "int32", 1), steps.temp("done", "int32", 1)
    x = steps.inout("x", X[:1])
    with steps.repeat(2):
        with steps.until(done, max=50):
            steps.launch(COUNT, 1, 1, (n, done, 7))
            steps.launch(TWICE, 1, 1, (x,))
        with steps.repeat(2):
            steps.launch(TWICE, 1, 1, (x,))
    found = host.run(steps.build())
    assert found["n"] == 8  # 7 passes, and one more: the flag is still set
    assert found["x"] == 2.0 ** (8 + 4)


def test_until_ends_at_its_bound(host):
    steps = ProgramBuilder()
    n, done = steps.out("n", "int32", 1), steps.temp("done", "bool", 1)
    flag = RawKernel('extern "C" __global__ void never(int* n, bool* done) { n[0] += 1; done[0] = false; }', "never")
    with steps.until(done, max=9):
        steps.launch(flag, 1, 1, (n, done))
    bound = steps.build()
    assert host.run(bound)["n"] == 9
    assert work(bound.program).steps == 9


def test_units_take_turns_over_one_memory(host):
    """Three modules with data of their own, alternating; each finds its tables and variables as they began."""
    tables = [
        RawKernel(
            f"""__constant__ int table[4] = {{{k}, {k + 1}, {k + 2}, {k + 3}}};
                extern "C" __global__ void look{k}(long long* x) {{ x[0] = x[0] * 10 + table[x[0] % 4]; }}""",
            f"look{k}",
        )
        for k in (1, 3, 5)
    ]
    steps = ProgramBuilder()
    x = steps.inout("x", np.array([2]))
    with steps.repeat(3):
        for kernel in tables:
            steps.launch(kernel, 1, 1, (x,))
    bound = steps.build()
    assert len(bound.program.units) == 3
    expected = 2
    for _ in range(3):
        for k in (1, 3, 5):
            expected = expected * 10 + k + expected % 4
    assert host.run(bound)["x"] == expected


ADD_SMALL = RawKernel(
    """__constant__ float w[4];
       extern "C" __global__ void add_small(float* y, const float* x, int n) {
           if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x] + w[threadIdx.x % 4] * w[3];
       }""",
    "add_small",
)
W = np.array([1, 2, 3, 4], "float32")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_constant_is_no_array_of_the_program_that_begins_as_it_does(host, shards):
    steps = ProgramBuilder(shards=shards, along=Along(0))
    w, y = steps.inout("w", W), steps.out("y", "float32", 4)
    for _ in range(2):
        steps.launch(ADD_SMALL, 1, 4, (w, w, steps.shard.rows), constants={"w": W})
        steps.launch(ADD_SMALL, 1, 4, (y, w, steps.shard.rows), constants={"w": W})
    found, each = host.run(steps.build()), np.resize(W[: 4 // shards], 4)
    np.testing.assert_array_equal(found["w"], W + 8 * each)
    np.testing.assert_array_equal(found["y"], W + 12 * each)


def test_a_constant_is_what_it_was_at_the_launch(host):
    steps, constant = ProgramBuilder(), np.zeros(4, "float32")
    constant[3] = 1
    outputs, minus = [steps.out(f"y{n}", "float32", 4) for n in range(3)], np.full(4, -0.0, "float32")
    x = steps.input("x", minus)
    for y, first in zip(outputs, (0.0, -0.0, 5.0), strict=True):
        constant[0] = first
        steps.launch(ADD_SMALL, 1, 4, (y, x, 4), constants={"w": constant})
    found = host.run(steps.build())
    assert [np.signbit(found[f"y{n}"][0]) for n in range(3)] == [False, True, False]
    assert [found[f"y{n}"][0] for n in range(3)] == [0, 0, 5]


def test_an_array_is_what_it_was_when_it_was_given(host):
    steps, filled = ProgramBuilder(), np.empty(4, "float32")
    y, inputs = steps.out("y", "float32", 12), []
    filled[:] = 1
    inputs.append(steps.input("one", filled))
    filled[:] = 2
    inputs.append(steps.inout("two", filled))
    filled[:] = 3
    steps.launch(GATHER, 1, 4, (y, *inputs, filled))
    filled[:] = 4
    traced = trace(lambda x: x + filled, filled)
    filled[:] = 5
    bound = steps.build()
    np.testing.assert_array_equal(host.run(bound)["y"], np.repeat([1, 2, 3], 4))
    assert [array.tolist() for array in bind_traced(traced).inputs.values()] == 2 * [[4, 4, 4, 4]]


def test_what_combines_has_no_constants():
    steps = ProgramBuilder(shards=2, along=Along(0))
    x, part = steps.input("x", W), steps.partial("part", "float32", 4)
    steps.launch(ADD_SMALL, 1, 4, (part, x, steps.shard.rows), constants={"w": W})
    steps.combine(ADD_SMALL, 1, 4, (part, part.other, 4))
    with pytest.raises(ConfigError, match="uses __constant__ w: what combines takes partial arrays alone"):
        steps.build()


def test_kernels_of_one_module_are_one_unit(host):
    module = RawModule(
        code="""template <class T> __global__ void scale(T* x, T a) { x[threadIdx.x] *= a; }
                __constant__ float offsets[3];
                extern "C" __global__ void shift(float* x) { x[threadIdx.x] += offsets[threadIdx.x % 3]; }""",
        name_expressions=["scale<float>"],
    )
    steps = ProgramBuilder()
    x, offsets = steps.inout("x", X), np.array([0.5, 1, 2], "float32")
    steps.launch(module.get_function("scale<float>"), 1, 40, (x, 3.0))
    for _ in range(2):
        steps.launch(module.get_function("shift"), 1, 40, (x,), constants={"offsets": offsets})
    bound = steps.build()
    assert (len(bound.program.units), [b.name for b in bound.program.buffers]) == (1, ["x", "offsets"])
    np.testing.assert_array_equal(host.run(bound)["x"], 3 * X + 2 * np.resize(offsets, 40))
    missing = ProgramBuilder()
    missing.launch(module.get_function("shift"), 1, 40, (missing.inout("x", X),))
    with pytest.raises(ConfigError, match=r"constants=\{'offsets': array\}"):
        missing.build()


def test_generated_kernels_and_library_operations_are_steps(host):
    a = np.random.default_rng(2).random((9, 5), dtype="float32")
    square = ElementwiseKernel("T x, T c", "T y", "y = x * x + c", "square")
    total = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "total")
    steps = ProgramBuilder()
    x, y = steps.input("x", a), steps.temp("y", "float32", a.shape)
    s = steps.out("s", "float32", 9)
    steps.launch(square, args=(x, 1.5, y))
    steps.launch(total, args=(y, s), axis=1)
    bound = steps.build()
    assert bound.program.exact
    np.testing.assert_allclose(host.run(bound)["s"], (a * a + 1.5).sum(1), 1e-6)

    gram = steps.out("gram", "float32", (5, 5))
    transposed = steps.input("t", np.ascontiguousarray(a.T))
    steps.operation("matmul", [transposed, x], [gram])
    bound = steps.build()
    assert not bound.program.exact
    np.testing.assert_allclose(host.run(bound)["gram"], a.T @ a, 1e-5)
    assert work(bound.program).flops == 2 * 5 * 5 * 9


def test_a_pointer_may_begin_within_an_array(host):
    steps = ProgramBuilder()
    x = steps.inout("x", X)
    steps.launch(TWICE, 1, 8, (x,))
    bound = steps.build()
    shifted = replace(bound.program.launch, args=(Offset(0, 16),))
    bound = type(bound)(replace(bound.program, steps=(bound.program.launch, shifted)), bound.inputs)
    expected = X.copy()
    expected[:8] *= 2
    expected[16:24] *= 2
    np.testing.assert_array_equal(host.run(bound)["x"], expected)


def test_deadline_fuel_and_memory_hold_for_the_whole_task(host):
    slow = ProgramBuilder()
    x = slow.inout("x", X)
    with slow.repeat(1 << 23):
        slow.launch(TWICE, 1, 40, (x,))
    with pytest.raises(TaskTimedOut):
        host.run(slow.build(), TaskLimits(0.2, 1 << 30))
    idle = ProgramBuilder()
    x, y = idle.inout("x", X), idle.out("y", "float32", X.shape)
    idle.launch(ADD, 2, 32, (x, y, 1.0, 40))
    with idle.repeat(1 << 23):
        idle.swap(x, y)
    with pytest.raises(TaskTimedOut):
        host.run(idle.build(), TaskLimits(0.2, 1 << 30))
    bound = idle.build()
    with pytest.raises(TaskOutOfMemory):
        host.load(bound, TaskLimits(1.0, memory_bytes(bound.program) - 1))


def test_writing_between_arrays_fails_in_any_step(host):
    stray = RawKernel('extern "C" __global__ void stray(float* x) { x[1030] = 1; }', "stray")
    steps = ProgramBuilder()
    x, y = steps.inout("x", X), steps.temp("y", "float32", 40)
    steps.launch(stray, 1, 1, (y,))
    steps.launch(ADD, 2, 32, (y, x, 1.0, 40))
    with pytest.raises(TaskTrapped, match="between its arrays"):
        host.run(steps.build())


def mistake(build, **options):
    steps = ProgramBuilder(**options)
    build(steps)
    return steps.build()


def _twice(steps, x):
    steps.launch(TWICE, 1, 40, (x,))


def _transposed(s):
    rows = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "columns")
    s.launch(rows, args=(s.input("x", X.reshape(5, 8)), s.out("y", "float32", 8)), axis=0)


def _loop(s):
    with s.repeat(3):
        pass


def _late(s):
    with s.repeat(1 << 20), s.repeat(1 << 20):
        _twice(s, s.inout("x", X))


MISTAKES = {
    "no steps": (lambda s: s.inout("x", X), "no steps"),
    "empty loop": (_loop, "loop without steps"),
    "too many passes": (_late, "at most 16777216 are allowed"),
    "unused array": (lambda s: (_twice(s, s.inout("x", X)), s.input("z", X)), "z is not an argument of any step"),
    "twice a name": (lambda s: (s.input("x", X), s.input("x", X)), "each once"),
    "called shard": (lambda s: s.input("shard", X), "not 'shard'"),
    "empty": (lambda s: s.input("x", X[:0]), "empty"),
    "list": (lambda s: s.input("x", [1.0]), "expected a NumPy array or a reference, not list"),
    "objects": (lambda s: s.input("x", np.array([None])), "object are not possible"),
    "dtype": (lambda s: s.temp("x", "float31", 3), "'float31' is no dtype"),
    "written input": (
        lambda s: (_twice(s, s.input("x", X)), _twice(s, s.inout("y", X))),
        "x is not const: its array must be Out or InOut",
    ),
    "another's array": (lambda s: _twice(s, ProgramBuilder().inout("x", X)), "x is no array of this program"),
    "wrong dtype": (lambda s: _twice(s, s.inout("x", X.astype("float64"))), r"float32\*, its array is float64"),
    "only read": (
        lambda s: s.launch(ADD, 2, 32, (s.inout("x", X), s.out("y", "float32", 40), 1.0, 40)),
        "x is never written",
    ),
    "arguments": (lambda s: s.launch(TWICE, 1, 1, ()), r"twice takes 1 arguments \(x\), 0 were given"),
    "no grid": (lambda s: s.launch(TWICE, args=(s.inout("x", X),)), "give grid and block"),
    "axis of a raw kernel": (lambda s: s.launch(TWICE, 1, 1, (s.inout("x", X),), axis=1), "axis does not go with it"),
    "no kernel": (lambda s: s.launch(len, 1, 1), "expected a RawKernel"),
    "constant": (lambda s: s.launch(TWICE, 1, 1, (s.inout("x", X),), constants={"c": X}), "no constant 'c'"),
    "swap with an input": (lambda s: (x := s.inout("x", X), _twice(s, x), s.swap(x, s.input("y", X))), "inputs stay"),
    "swap of shapes": (lambda s: (x := s.inout("x", X), _twice(s, x), s.swap(x, s.temp("y", "int8", 4))), "differ in"),
    "swap with itself": (lambda s: (x := s.inout("x", X), _twice(s, x), s.swap(x, x)), "names x twice"),
    "repeat": (lambda s: s.repeat(0).__enter__(), "expected a positive integer"),
    "expression": (lambda s: s.launch(TWICE, "n + 1", 8, (s.inout("x", X),)), "grid of twice: .*'n' is not known"),
    "slice of no slices": (lambda s: s.launch(TWICE, s.shard.rows, 8, (s.inout("x", X),)), "'shard' is not known"),
    "transposed": (_transposed, "reduce along the last axes"),
    "operation": (lambda s: s.operation("matmull", [], [s.out("y", "float32", 3)]), "there is no array operation"),
    "operation's shapes": (
        lambda s: s.operation("matmul", [s.input("x", X.reshape(5, 8))] * 2, [s.out("y", "float32", 3)]),
        "8 columns do not meet 5 rows",
    ),
    "operation's result": (
        lambda s: s.operation("det", [s.input("x", X[:4].reshape(2, 2))], [s.out("y", "float32", 2)]),
        r"det gives float32 \(\); its arrays are float32 \(2,\)",
    ),
    "combine without partial": (lambda s: (_twice(s, s.inout("x", X)), s.combine("sum")), "is not partial"),
    "combine how": (lambda s: (_twice(s, s.inout("x", X)), s.combine("mean")), "'mean' is not known; known are: sum"),
    "partial by blocks": (lambda s: s.partial("x", "float32", 3), "give along=", {"shards": 2}),
    "several steps by blocks": (lambda s: (x := s.inout("x", X), _twice(s, x), _twice(s, x)), "cut its arrays along",
                                {"shards": 2}),
    "no shards": (lambda s: None, "expected a positive integer", {"shards": 0}),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_before_anything_is_sent(case):
    build, reason, *options = case
    with pytest.raises(ConfigError, match=reason):
        mistake(build, **(options[0] if options else {}))


def test_a_reference_is_an_input_like_an_array():
    steps = ProgramBuilder()
    reference = Reference(bytes(32), "float32", (40,))
    y = steps.out("y", "float32", 40)
    steps.launch(ADD, 2, 32, (steps.input("x", reference), y, 1.0, 40))
    bound = steps.build()
    assert (bound.inputs[1], reference.nbytes) == (reference, 160)
