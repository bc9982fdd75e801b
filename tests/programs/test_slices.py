"""Arrays cut along an axis: every cut gives what the whole gives, by NumPy; what cannot be right is refused."""

import itertools

import numpy as np
import pytest
from msgspec.structs import replace
from program_host import ProgramHost

from depin_node.compute.devices.held import held_input
from depin_node.compute.programs import slices
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.combine import tree
from depin_node.compute.programs.generated import ElementwiseKernel, ReductionKernel
from depin_node.compute.programs.kernel import Along, RawKernel
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.program import Axis, Buffer, Cut
from depin_node.compute.programs.shards import result_bytes_max, result_sizes
from depin_node.compute.programs.slices import (
    CONSTANT,
    VARIANTS_MAX,
    byte_ranges,
    held_shape,
    is_in_rows,
    rows,
    source_row,
)
from depin_node.compute.programs.validation import validate
from depin_node.core.errors import ConfigError, TaskRejected

U = np.random.default_rng(3).random((23, 17)).astype("float32")
PADDED = {"clamp": "edge", "wrap": "wrap", "reflect": "reflect", "constant": "constant"}
SUM5 = RawKernel(
    """extern "C" __global__ void sum5(const float* u, float* v, int rows, int cols, int halo) {
           // v has a row for each of u's but the outermost halo ones on either side; halo columns stay zero
           int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
           if (x >= cols || y >= rows) return;
           float s = 0;
           for (int k = -halo; k <= halo; ++k) s += u[(y + halo + k) * cols + x];
           v[y * cols + x] = s;
       }""",
    "sum5",
)
COPY_BYTE = RawKernel("""extern "C" __global__ void copy(const unsigned char* x, float* y) { y[0] = x[0]; }""", "copy")
COPY = RawKernel("""extern "C" __global__ void copy(const float* x, float* y) { y[0] = x[0]; }""", "copy")
SMOOTH = RawKernel(
    """extern "C" __global__ void smooth(const float* u, float* v, int rows, int cols) {
           // all rows of v but the first and the last; those are beyond what the task can know
           int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
           if (x >= cols || y < 1 || y >= rows - 1) return;
           int left = x > 0 ? x - 1 : 0, right = x + 1 < cols ? x + 1 : x;
           v[y * cols + x] = (u[(y - 1) * cols + x] + u[(y + 1) * cols + x] + u[y * cols + left] + u[y * cols + right]
                              + 4 * u[y * cols + x]) / 8;
       }""",
    "smooth",
)


@pytest.fixture(scope="module")
def host():
    return ProgramHost()


def window_sums(u, halo, edge):
    padded = np.pad(u, ((halo, halo), (0, 0)), PADDED[edge], **({"constant_values": 2.5} if edge == "constant" else {}))
    total = np.zeros_like(u)
    for k in range(2 * halo + 1):
        total += padded[k : k + len(u)]
    return total


@pytest.mark.parametrize("edge", PADDED)
@pytest.mark.parametrize(("shards", "halo"), [(1, 2), (3, 2), (23, 5), (4, 22)])
def test_edges_are_numpys(host, edge, shards, halo):
    steps = ProgramBuilder(shards=shards, along=Along(0, halo, edge, 2.5 if edge == "constant" else 0))
    u, v = steps.input("u", U), steps.out("v", "float32", U.shape)
    rows = steps.shard.rows
    steps.launch(SUM5, (2, -(-rows // 8)), (16, 8), (u, v, rows, 17, halo))
    bound = steps.build()
    np.testing.assert_array_equal(host.run(bound)["v"], window_sums(U, halo, edge))
    program = bound.program
    assert held_shape(program, program.buffers[0], 0) == (23 // shards + 2 * halo, 17)
    assert result_sizes(program)(shards - 1) == (-(-23 // shards) * 17 * 4,)
    assert result_bytes_max(program) == max(sum(result_sizes(program)(task)) for task in range(shards))


def smoothed(u, steps, edge):
    for _ in range(steps):
        padded = np.pad(np.pad(u, ((1, 1), (0, 0)), PADDED[edge]), ((0, 0), (1, 1)), "edge")
        inner = padded[1:-1, 1:-1]
        u = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + 4 * inner) / 8
    return u


def many_steps(shards, halo, edge, count, radius=1):
    steps = ProgramBuilder(shards=shards, along=Along(0, halo, edge))
    u, v = steps.inout("u", U), steps.temp("v", "float32", U.shape)
    with steps.repeat(count):
        rows = steps.shard.rows + 2 * halo
        steps.launch(SMOOTH, (2, -(-rows // 8)), (16, 8), (u, v, rows, 17), radius=radius)
        steps.swap(u, v)
    return steps.build()


@pytest.mark.parametrize("edge", ["clamp", "wrap", "reflect", "constant"])
@pytest.mark.parametrize("shards", [1, 4, 23])
def test_stencils_of_many_steps_are_right(host, edge, shards):
    found = host.run(many_steps(shards, 5, edge, 5))["u"]
    np.testing.assert_allclose(found, smoothed(U, 5, edge), 1e-6)
    np.testing.assert_array_equal(found, host.run(many_steps(2, 7, edge, 5))["u"])


@pytest.mark.parametrize(("halo", "count", "radius"), [(4, 5, 1), (9, 5, 2), (1, 2, None), (5, 1 << 20, 1)])
def test_a_halo_that_does_not_last_is_refused(halo, count, radius):
    with pytest.raises(ConfigError, match=r"of the halo of u, \d+ rows, only \d+ are right by now.*steps times radius"):
        many_steps(3, halo, "clamp", count, radius)


def red_black(shards, halo, count=3, radius=1):
    """Each pass changes every other row in place, after the rows beside it: two passes are one step."""
    kernel = RawKernel(
        """extern "C" __global__ void relax(float* u, int first, int rows, int colour) {
               int y = blockIdx.x * blockDim.x + threadIdx.x;
               if (y < 1 || y >= rows - 1 || (y + first) % 2 != colour) return;
               for (int x = 0; x < 17; ++x) u[y * 17 + x] = (u[(y - 1) * 17 + x] + u[(y + 1) * 17 + x]) / 2;
           }""",
        "relax",
    )
    steps = ProgramBuilder(shards=shards, along=Along(0, halo))
    u = steps.inout("u", U)
    steps.define("first", f"max(shard.start - {halo}, 0)")
    steps.define("held", f"min(shard.stop + {halo}, u.shape[0]) - first")
    with steps.repeat(count):
        for colour in (0, 1):
            steps.launch(kernel, 1, 32, (u, "first", "held", colour), radius=radius)
    return steps.build()


def test_what_is_changed_in_place_wears_its_halo_down(host):
    np.testing.assert_array_equal(host.run(red_black(4, 6))["u"], host.run(red_black(1, 6))["u"])
    for halo, radius in ((5, 1), (1, 1), (11, 2), (6, None)):
        with pytest.raises(ConfigError, match=r"relax.*of the halo of u"):
            red_black(4, halo, radius=radius)


def test_what_is_only_stored_to_keeps_its_halo():
    """``v`` is made anew of ``u`` each time, whatever it was."""
    steps = ProgramBuilder(shards=3, along=Along(0, 2, "clamp"))
    u, v, w = steps.input("u", U), steps.temp("v", "float32", U.shape), steps.out("w", "float32", U.shape)
    add = RawKernel(
        'extern "C" __global__ void add(const float* v, float* w) { w[threadIdx.x] += v[threadIdx.x + 2 * 17]; }', "add"
    )
    with steps.repeat(5):
        steps.launch(SMOOTH, 1, 1, (u, v, 1, 17), radius=1)
        steps.launch(add, 1, 17, (v, w), radius=1)
    steps.build()


def test_without_an_edge_the_outer_tasks_hold_fewer_rows(host):
    kernel = RawKernel(
        """extern "C" __global__ void diff(const float* u, float* v, int first, int own, int rows, int cols) {
               // v[i] = u[i + 1] - u[i], and zero in the array's last row; u begins at row `first`
               int x = blockIdx.x * blockDim.x + threadIdx.x;
               for (int y = 0; y < own && x < cols; ++y) {
                   int at = y + (first > 0);
                   v[y * cols + x] = at + 1 < rows ? u[(at + 1) * cols + x] - u[at * cols + x] : 0;
               }
           }""",
        "diff",
    )
    for shards in (1, 5, 23):
        steps = ProgramBuilder(shards=shards, along=Along(0, 1))
        u, v = steps.input("u", U), steps.out("v", "float32", U.shape)
        steps.define("first", "max(shard.start - 1, 0)")
        steps.define("held", "min(shard.stop + 1, u.shape[0]) - first")
        steps.launch(kernel, 1, 32, (u, v, steps.shard.start, steps.shard.rows, "held", 17))
        expected = np.append(U[1:] - U[:-1], np.zeros((1, 17), "float32"), 0)
        np.testing.assert_array_equal(host.run(steps.build())["v"], expected)


@pytest.mark.parametrize("shards", [1, 2, 17])
def test_another_axis_and_arrays_that_are_whole(host, shards):
    steps = ProgramBuilder(shards=shards, along=Along(1))
    w = np.arange(23, dtype="float32")
    u, v = steps.input("u", U), steps.out("v", "float32", U.shape)
    weights = steps.input("w", w, cut=None)
    kernel = RawKernel(
        """extern "C" __global__ void weigh(const float* u, const float* w, float* v, int cols) {
               int x = threadIdx.x, y = blockIdx.x;
               if (x < cols) v[y * cols + x] = w[y] * u[y * cols + x];
           }""",
        "weigh",
    )
    steps.launch(kernel, 23, 32, (u, weights, v, "shard.rows"))
    bound = steps.build()
    np.testing.assert_array_equal(host.run(bound)["v"], w[:, None] * U)
    assert len(bound.program.launch.args[3].data) in (4, 4 * shards)


def test_memory_and_results_follow_the_slice():
    def size(shards):
        steps = ProgramBuilder(shards=shards, along=Along(0, 1, "clamp"))
        big = np.zeros((4096, 1024), "float32")
        u, v = steps.input("u", big), steps.out("v", "float32", big.shape)
        steps.launch(SUM5, (1, 1), (1, 1), (u, v, 1, 1024, 1))
        return memory_bytes(steps.build().program)

    assert size(1) > 32 << 20
    assert size(64) < 2 << 20


@pytest.mark.parametrize("shards", [1, 4, 7])
def test_generated_kernels_take_slices(host, shards):
    square = ElementwiseKernel("T x, T c", "T y", "y = x * x + c", "square")
    total = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "total")
    steps = ProgramBuilder(shards=shards, along=Along(0))
    u, v, s = steps.input("u", U), steps.temp("v", "float32", U.shape), steps.out("s", "float32", 23)
    steps.launch(square, args=(u, 1.5, v))
    steps.launch(total, args=(v, s), axis=1)
    np.testing.assert_allclose(host.run(steps.build())["s"], (U * U + 1.5).sum(1), 1e-6)


HISTOGRAM = RawKernel(
    """extern "C" __global__ void histogram(const unsigned char* x, int* counts, int n) {
           int i = blockIdx.x * blockDim.x + threadIdx.x;
           if (i < n) atomicAdd(counts + x[i], 1);
       }""",
    "histogram",
)
BYTES = np.random.default_rng(4).integers(0, 8, 1001, "uint8")


def histogram(shards, how):
    steps = ProgramBuilder(shards=shards, along=Along(0))
    x, counts = steps.input("x", BYTES), steps.partial("counts", "int32", 8)
    steps.launch(HISTOGRAM, "ceil(shard.rows / 64)", 64, (x, counts, steps.shard.rows))
    steps.combine(how)
    return steps.build()


@pytest.mark.parametrize("how", ["sum", "prod", "min", "max"])
def test_partial_results_in_half_precision_are_merged(host, how):
    code = """#include <cuda_fp16.h>
              extern "C" __global__ void put(__half* y, const __half* x) { y[threadIdx.x] = x[threadIdx.x]; }"""
    given = np.array([[1, 2, 0.5], [3, np.nan, 0.25], [-4, 1, 600], [0.1, 2, 7]], "float16")
    steps = ProgramBuilder(shards=4, along=Along(0))
    x, y = steps.input("x", given), steps.partial("y", "float16", 3)
    steps.launch(RawKernel(code, "put"), 1, 3, (y, x))
    steps.combine(how)
    bound = steps.build()
    partial = host.run(bound)["y"]
    (one, two, three, four), merge = given, getattr(np, {"sum": "add", "prod": "multiply"}.get(how, f"{how}imum"))
    merged = host.run(type(bound)(tree(bound.program), {0: partial}))["y"][0]
    np.testing.assert_array_equal(merged, merge(merge(one, two), merge(three, four)))


@pytest.mark.parametrize("how", ["sum", "prod", "min", "max"])
@pytest.mark.parametrize("shards", [2, 5, 8])
def test_partial_results_are_merged(host, how, shards):
    bound = histogram(shards, how)
    partial = host.run(bound)["counts"]
    parts = [
        np.bincount(BYTES[k * 1001 // shards : (k + 1) * 1001 // shards], minlength=8).astype("int32")
        for k in range(shards)
    ]
    np.testing.assert_array_equal(partial, parts)
    merged = host.run(type(bound)(tree(bound.program), {0: partial}))["counts"][0]
    expected = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}[how].reduce(
        parts, dtype="int32"
    )
    np.testing.assert_array_equal(merged, expected)


def test_the_tree_is_the_documented_one(host):
    """A merge that does not associate shows its order: ((0 1) (2 3)) (4 5) (6), read from row 0."""
    steps = ProgramBuilder(shards=7, along=Along(0))
    x, part = steps.input("x", np.arange(1, 8)), steps.partial("part", "int64", 1)
    copy = RawKernel('extern "C" __global__ void copy(const long long* x, long long* y) { y[0] = x[0]; }', "copy")
    merge = RawKernel(
        'extern "C" __global__ void merge(long long* a, const long long* b) { a[0] = 3 * a[0] - b[0]; }', "merge"
    )
    steps.launch(copy, 1, 1, (x, part))
    steps.combine(merge, 1, 1, (part, part.other))
    bound = steps.build()

    def m(a, b):
        return 3 * a - b

    merged = host.run(type(bound)(tree(bound.program), {0: host.run(bound)["part"]}))["part"][0]
    assert merged == m(m(m(1, 2), m(3, 4)), m(m(5, 6), 7))


def cut(**options):
    return ProgramBuilder(**{"shards": 3, "along": Along(0), **options})


def _whole(s):
    u = s.input("u", U)
    s.launch(SUM5, 1, 1, (u, s.out("v", "float32", U.shape, cut=None), 1, 1, 0))
    s.build()


def _uneven(s):
    """A reduction along the cut axis has as many lanes as its length wants: slices of 7 and 8 rows differ."""
    total = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "total")
    s.launch(total, args=(s.input("u", np.zeros(23, "float32")), s.partial("t", "float32", ())), keepdims=True)
    s.build()


MISTAKES = {
    "axis": (lambda: cut(along=Along(2)).input("u", U), "has no axis 2"),
    "rows": (lambda: cut(shards=24).input("u", U), "23 rows, which are fewer than 24 shards"),
    "lengths": (lambda: (s := cut(), s.input("u", U), s.temp("v", "int8", 22)), "22 rows .* the arrays before it 23"),
    "edge": (lambda: cut(along=Along(0, 1, "mirror")).input("u", U), "edge 'mirror' is not known"),
    "halo": (lambda: cut(along=Along(0, -1)).input("u", U), "halo = -1"),
    "fill": (lambda: cut(along=Along(0, 1, "constant", "x")).input("u", U), "fill is float32"),
    "whole output": (lambda: _whole(cut()), "output v is not cut, so 3 tasks would own it"),
    "nothing cut": (lambda: cut().build(), "no steps"),
    "reflected too far": (lambda: many_steps(1, 23, "reflect", 1), "a halo of 23 is more than reflect can fill"),
    "slices": (lambda: cut(shards=1 << 17), "at most 65536 slices"),
    "cut of no cut": (lambda: ProgramBuilder().input("u", U, cut=Along(0)), "give along= there"),
    "radius": (lambda: (s := cut(), s.launch(SUM5, 1, 1, (s.input("u", U),), radius=-1)), "radius = -1"),
    "lanes": (lambda: _uneven(cut()), "need different kernels: cut evenly"),
}


@pytest.mark.parametrize(("build", "reason"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told(build, reason):
    with pytest.raises(ConfigError, match=reason):
        build()


def test_slices_of_too_many_shapes_are_refused():
    bound = histogram(40, "sum")
    table = tuple(task * (task + 1) // 2 for task in range(41))
    buffers = (replace(bound.program.buffers[0], shape=(820,)), bound.program.buffers[1])
    tables = tuple(table if one[-1] == 1001 else one for one in bound.program.shards.tables)
    program = replace(bound.program, buffers=buffers, shards=replace(bound.program.shards, tables=tables))
    with pytest.raises(TaskRejected, match=f"more than {VARIANTS_MAX} different shapes"):
        validate(program)


@pytest.mark.parametrize("edge", [*PADDED, "none"])
@pytest.mark.parametrize(
    ("shape", "axis", "halo"), [((23, 17), 0, 0), ((23, 17), 0, 3), ((1, 23, 5), 1, 2), ((9,), 0, 2)]
)
def test_a_task_is_given_nothing_but_its_byte_ranges(shape, axis, halo, edge):
    whole = np.random.default_rng(1).random(shape).astype("float32")
    steps = ProgramBuilder(shards=4, along=Along(axis, halo, edge))
    x, y = steps.input("x", whole), steps.out("y", "float32", shape, cut=Along(axis))
    steps.launch(COPY, 1, 1, (x, y))
    program = steps.build().program
    buffer = program.buffers[0]
    assert is_in_rows(buffer)
    for task in range(4):
        ranges = byte_ranges(program, buffer, task)
        partly = np.full(whole.nbytes, 255, np.uint8)
        for start, end in ranges:
            partly[start:end] = whole.reshape(-1).view(np.uint8)[start:end]
        found = held_input(program, buffer, task, partly.view("float32").reshape(shape))
        np.testing.assert_array_equal(found, held_input(program, buffer, task, whole))
        read = sum(end - start for start, end in ranges)
        assert read <= min(whole.nbytes, found.nbytes)


def test_columns_do_not_lie_together():
    steps = ProgramBuilder(shards=2, along=Along(1))
    x, y = steps.input("x", U), steps.out("y", "float32", U.shape)
    steps.launch(COPY, 1, 1, (x, y))
    steps.input("w", U, cut=None)
    assert not any(map(is_in_rows, steps.buffers))


@pytest.mark.parametrize("edge", [*PADDED, "none"])
def test_the_ranges_name_the_rows_that_stand_where_the_array_ends_and_no_others(edge):
    for length, halo in itertools.product(range(2, 8), range(7)):
        if halo > length - (edge == "reflect"):
            continue
        steps = ProgramBuilder(shards=2, along=Along(0, halo, edge))
        x, y = steps.input("x", np.zeros(length, "uint8")), steps.out("y", "float32", (length,), cut=Along(0))
        steps.launch(COPY_BYTE, 1, 1, (x, y))
        program = steps.build().program
        for task in range(2):
            found = rows(program, program.buffers[0].cut, length, task)
            wanted = {source_row(row, length, edge) for row in range(found.first, found.last)} - {CONSTANT}
            ranges = byte_ranges(program, program.buffers[0], task)
            assert {row for start, end in ranges for row in range(start, end)} == wanted
            assert ranges[0] == (max(found.first, 0), min(found.last, length))


def test_ranges_of_a_large_halo_are_found_at_once(monkeypatch):
    """A stranger's program may have one of a million rows; its ranges are asked for on the thread that serves peers."""
    monkeypatch.setattr(slices, "beyond", None)
    cut = Cut(0, 0, 1 << 20, "clamp", b"")
    buffer = Buffer("x", "in", "float32", (1 << 21,), (), cut)
    program = replace(sliced_program(), shards=Axis(64, (tuple(range(0, (1 << 21) + 1, 1 << 15)),)))
    assert byte_ranges(program, buffer, 0) == [(0, 4 * ((1 << 15) + (1 << 20)))]


def sliced_program():
    steps = ProgramBuilder(shards=2, along=Along(0))
    x, y = steps.input("x", np.zeros(4, "float32")), steps.out("y", "float32", (4,))
    steps.launch(COPY, 1, 1, (x, y))
    return steps.build().program
