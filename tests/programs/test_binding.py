from types import SimpleNamespace

import numpy as np
import pytest
from wat_programs import copying

from depin_node.compute.programs.binding import bind
from depin_node.compute.programs.kernel import In, InOut, Out, RawKernel
from depin_node.compute.programs.program import Parameter, Scalar, encode_program
from depin_node.compute.programs.validation import decode_program
from depin_node.core.errors import ConfigError


class Compiled(RawKernel):
    """A kernel whose compiler has run already: these tests are about what comes after it."""

    def __init__(self, *parameters, shared_bytes=0):
        super().__init__("// source", "kernel", ("-DA=1",))
        self.result = SimpleNamespace(
            parameters=parameters,
            module=copying(),
            cuda="// cuda",
            entry=0,
            exact=True,
            shared_bytes=shared_bytes,
            notes=(),
        )

    def compile(self):
        return self.result


X, Y = Parameter("x", True, "float32", 1, True), Parameter("y", True, "float32", 1, False)
SAXPY = Compiled(X, Y, Parameter("a", False, "float32", 1, False), Parameter("n", False, "int32", 1, False))
ARRAY = np.arange(1024, dtype="float32")
OUT = Out("float32", 1024, 64)


def saxpy(*args, **options):
    return bind(SAXPY, 16, 64, args or (ARRAY, OUT, 2.0, 1024), **options)


def test_a_launch_becomes_a_program():
    bound = saxpy(shards=4, shared_mem=128)
    program = bound.program
    assert decode_program(encode_program(program)) == program
    assert (program.launch.grid(0), program.launch.block, program.launch.shared_mem) == ((16, 1, 1), (64, 1, 1), 128)
    assert program.launch.args[:2] == (0, 1)
    assert program.launch.args[2:] == (
        Scalar("float32", np.float32(2).tobytes()),
        Scalar("int32", np.int32(1024).tobytes()),
    )
    assert [(b.name, b.role, b.shape, b.tile) for b in program.buffers] == [
        ("x", "in", (1024,), ()),
        ("y", "out", (1024,), (64,)),
    ]
    assert program.units[0].cuda == "// cuda"
    assert list(bound.inputs) == [0]
    assert (bound.inputs[0] == ARRAY).all()


def test_a_masked_array_does_not_lose_its_mask_in_silence():
    masked = np.ma.MaskedArray(ARRAY, ARRAY > 3)
    for array in (masked, In(masked)):
        with pytest.raises(ConfigError, match=r"would lose its mask: give array.filled"):
            saxpy(array, OUT, 1.0, 1024)


def test_in_out_arrays_are_inputs_and_outputs():
    bound = saxpy(In(ARRAY), InOut(ARRAY + 1, 64), 2.0, 1024)
    assert bound.program.buffers[1].role == "inout"
    assert (bound.inputs[1] == ARRAY + 1).all()


@pytest.mark.parametrize("array", [
    ARRAY[::-1],
    np.asfortranarray(ARRAY.reshape(32, 32)),
    ARRAY.astype(">f4"),
    np.broadcast_to(np.float32(3), (8, 128)),
], ids=["reversed", "fortran", "big-endian", "broadcast"])  # fmt: skip
def test_arrays_of_any_layout_arrive_in_c_order_and_little_endian(array):
    found = saxpy(array, OUT, 1.0, 1).inputs[0]
    assert found.flags.c_contiguous
    assert found.dtype.str in ("<f4", "=f4")
    assert found.shape == array.shape
    assert (found == array).all()


@pytest.mark.parametrize(("dtype", "value", "expected"), [
    ("int32", -5, -5),
    ("int32", 3.0, 3),
    ("int32", True, 1),
    ("uint8", 255, 255),
    ("int64", 2**62 + 1, 2**62 + 1),
    ("uint64", 2**64 - 1, 2**64 - 1),
    ("float32", 0.1, np.float32(0.1)),
    ("float32", 2**24, 2**24),
    ("float64", 0.1, 0.1),
    ("float16", 1e-9, 0.0),
    ("float32", float("inf"), np.inf),
    ("float32", float("nan"), np.nan),
    ("complex64", complex(0, float("nan")), complex(0, float("nan"))),
    ("complex64", [1, -0.5], 1 - 0.5j),
    ("bool", True, True),
    ("float32", np.float32(0.1), np.float32(0.1)),
    ("int32", np.int32(7), 7),
])  # fmt: skip
def test_scalars_take_the_declared_type(dtype, value, expected):
    scalar = bind(Compiled(Y, Parameter("s", False, dtype, 1, False)), 16, 64, (OUT, value)).program.launch.args[1]
    np.testing.assert_equal(np.frombuffer(scalar.data, dtype)[0], np.dtype(dtype).type(expected))


@pytest.mark.parametrize(("dtype", "value", "reason"), [
    ("int32", 2**31, "cannot hold 2147483648"),
    ("uint32", -1, "cannot hold -1"),
    ("int32", 2.5, "cannot hold 2.5 exactly"),
    ("int32", float("nan"), "cannot hold nan"),
    ("int32", float("inf"), "cannot hold inf"),
    ("float32", 2**24 + 1, "cannot hold 16777217 exactly"),
    ("float32", 1e39, "cannot hold 1e\\+39"),
    ("float16", 70000.0, "cannot hold 70000.0"),
    ("bool", float("nan"), "cannot hold nan"),
    ("float32", 10**400, "cannot hold"),
    ("bool", 2, "cannot hold 2 exactly"),
    ("complex64", [1, 2, 3], "or .real, imaginary"),
    ("complex64", [1, True], "or .real, imaginary"),
    ("complex64", [1e39, 0], "cannot hold"),
    ("float32", np.float64(0.5), "not float64: give a Python number, or numpy.float32"),
    ("int32", np.int64(5), "not int64"),
    ("int32", "m", "m. is not known here"),
    ("int32", None, "expected a number, not NoneType"),
    ("int32", 1j, "expected a number, not complex"),
    ("int32", ARRAY, "expected a number, not an array"),
    ("int32", OUT, "expected a number, not an array"),
])  # fmt: skip
def test_scalars_that_do_not_fit_are_refused(dtype, value, reason):
    with pytest.raises(ConfigError, match=f"s is {dtype}.*{reason}"):
        bind(Compiled(Y, Parameter("s", False, dtype, 1, False)), 16, 64, (OUT, value))


def test_vector_scalars():
    kernel = Compiled(Y, Parameter("v", False, "float32", 4, False))
    scalar = bind(kernel, 16, 64, (OUT, (1, 2.5, 3, 4))).program.launch.args[1]
    assert np.frombuffer(scalar.data, "float32").tolist() == [1, 2.5, 3, 4]
    assert bind(kernel, 16, 64, (OUT, np.array([1, 2.5, 3, 4], "float32"))).program.launch.args[1] == scalar
    for bad in ((1, 2, 3), 1.0):
        with pytest.raises(ConfigError, match="expected 4 numbers"):
            bind(kernel, 16, 64, (OUT, bad))


@pytest.mark.parametrize(("args", "reason"), [
    ((ARRAY, OUT, 2.0), r"takes 4 arguments \(x, y, a, n\), 3 were given"),
    ((ARRAY.astype("float64"), OUT, 2.0, 1), r"x is const float32\*, its array is float64: convert it with astype"),
    ((ARRAY.tolist(), OUT, 2.0, 1), "expected a NumPy array, not list"),
    ((OUT, OUT, 2.0, 1), "cannot write: give an array instead of Out"),
    ((InOut(ARRAY), OUT, 2.0, 1), "cannot write: give the array without InOut"),
    ((ARRAY, ARRAY, 2.0, 1), r"y is float32\*, so the kernel may write it: give Out"),
    ((ARRAY, In(ARRAY), 2.0, 1), "so the kernel may write it"),
    ((ARRAY, Out("int32", 1024, 64), 2.0, 1), "its array is int32"),
    ((ARRAY, Out("float99", 1024, 64), 2.0, 1), "'float99' is no dtype"),
    ((ARRAY, Out("float32", (0, 4), 64), 2.0, 1), "expected positive integers"),
    ((ARRAY, Out("float32", 1024, 0), 2.0, 1), "expected positive integers"),
    ((ARRAY, Out("float32", 2**33, 64), 2.0, 1), "y of shape .8589934592,.: an array has at most 8 axes"),
    ((ARRAY, Out("float32", (1,) * 9, 64), 2.0, 1), "at most 8 axes"),
    ((ARRAY, Out("float32", 1024, (64, 1)), 2.0, 1), "differ in dimensions"),
    ((ARRAY, Out("float32", 1024, 32), 2.0, 1), "32 tiles of"),
    ((ARRAY[:0], OUT, 2.0, 1), "empty"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused_by_name(args, reason):
    with pytest.raises(ConfigError, match=reason):
        saxpy(*args)


@pytest.mark.parametrize(("grid", "block", "shards", "reason"), [
    ((), 64, 1, "grid .*one to three positive integers"),
    ((1, 2, 3, 4), 64, 1, "one to three"),
    (0, 64, 1, "one to three positive"),
    (16.0, 64, 1, "one to three positive"),
    (16, 2048, 1, "larger than CUDA's"),
    (16, 64, 17, "at least one block"),
    (16, 64, 4, "no tile"),
])  # fmt: skip
def test_launches_that_do_not_fit_are_refused(grid, block, shards, reason):
    with pytest.raises((ConfigError, TypeError), match=reason):
        bind(SAXPY, grid, block, (ARRAY, Out("float32", 1024), 2.0, 1), shards=shards)


def test_static_and_dynamic_shared_memory_count_together():
    with pytest.raises(ConfigError, match="40000 \\+ 10000 bytes"):
        bind(Compiled(Y, shared_bytes=40000), 16, 64, (OUT,), shared_mem=10000)
    with pytest.raises(ConfigError, match="shared_mem = -1: expected bytes"):
        bind(Compiled(Y), 16, 64, (OUT,), shared_mem=-1)


def test_cupys_arguments():
    kernel = RawKernel("code", "name", ("-DX",), "nvcc", False)
    assert (kernel.code, kernel.name, kernel.options) == ("code", "name", ("-DX",))
    assert RawKernel.of(kernel) is kernel
    cupys = SimpleNamespace(code="code", name="name", options=("-DX",))
    assert RawKernel.of(cupys).options == ("-DX",)
    for bad in (
        {"backend": "hip"},
        {"translate_cucomplex": True},
        {"enable_cooperative_groups": True},
        {"jitify": True},
    ):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RawKernel("code", "name", **bad)
    with pytest.raises(ConfigError, match="expected a RawKernel, not int"):
        RawKernel.of(3)
