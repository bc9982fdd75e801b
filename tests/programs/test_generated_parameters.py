import numpy as np
import pytest

from depin_node.client import ElementwiseKernel, InOut, Out, ReductionKernel
from depin_node.client.work import prepare_launch
from depin_node.compute.programs.generated.parameters import ParameterInfo, parse_parameters, resolve_types
from depin_node.core.errors import ConfigError


@pytest.mark.parametrize(("text", "expected"), [
    ("", []),
    ("  ", []),
    ("float32 x", ["float32 x"]),
    ("T x, raw T y ,  X  z", ["T x", "raw T y", "X z"]),
    ("\n raw\tuint8 a,\n bool flag\n", ["raw uint8 a", "bool flag"]),
    ("int n, float w, f4 q", ["int64 n", "float64 w", "float32 q"]),  # NumPy's words, as in CuPy
    ("f x", ["f x"]),  # one letter is a variable, even if NumPy knows it
], ids=repr)  # fmt: skip
def test_declarations_are_read_as_cupy_reads_them(text, expected):
    assert [str(info) for info in parse_parameters(text, "in_params")] == expected


@pytest.mark.parametrize(("text", "message"), [
    ("x", r"in_params: 'x' is no declaration: expected \[raw\] TYPE NAME"),
    ("T x,", "'' is no declaration"),
    ("T x y", r"unknown keyword 'T' in 'T x y'; only raw"),
    ("_non_const T x", "declare what is written in out_params"),
    ("floaty x", "'floaty' is no type: expected one letter"),
    ("T x, X x", "two parameters are called x"),
    ("T i", "'i' is reserved"),
    ("T _x", "'_x' is reserved"),
    ("T x[3]", r"'x\[3\]' cannot be a parameter's name"),
    ("longdouble x", r"elements of type \w+ are not supported"),
    ("S10 x", "elements of type bytes80 are not supported"),
    ("cudaTextureObject_t t", "textures are not supported: pass the array as raw"),
])  # fmt: skip
def test_wrong_declarations_are_refused_with_the_way_out(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_parameters(text, "in_params")


def test_c_names_are_cupys():
    names = {"bool": "bool", "int8": "signed char", "uint16": "unsigned short", "int64": "long long", "T": "T"}
    names |= {"float16": "float16", "complex64": "complex<float>", "complex128": "complex<double>"}
    assert {t: ParameterInfo("x", t, False).c_type for t in names} == names


@pytest.mark.parametrize(("inputs", "outputs", "given", "expected"), [
    ("T x, T y", "T z", {"x": "float32", "y": "float32"}, {"x": "float32", "y": "float32", "z": "float32"}),
    ("T x, T y", "T z", {"x": "int16"}, {"x": "int16", "y": "int16", "z": "int16"}),  # y is a number
    ("X x, Y y", "Z z", {"x": "int8", "y": "bool", "z": "float64"}, {"x": "int8", "y": "bool", "z": "float64"}),
    ("float32 x", "T z", {"x": "float32", "z": "uint8"}, {"x": "float32", "z": "uint8"}),
    ("T x", "T y, int32 k", {"y": "float64"}, {"x": "float64", "y": "float64", "k": "int32"}),  # outputs decide too
    ("", "float32 z", {}, {"z": "float32"}),
])  # fmt: skip
def test_arrays_decide_the_types(inputs, outputs, given, expected):
    ins = parse_parameters(inputs, "in_params")
    outs = parse_parameters(outputs, "out_params", ins)
    assert resolve_types((*ins, *outs), len(outs), given)[0] == expected


F4, F8, I4 = (np.ones(4, dtype) for dtype in ("float32", "float64", "int32"))


def shape_of(lowered):
    """The shape of its output."""
    (out,) = (argument for argument in lowered.args if isinstance(argument, Out))
    return out.shape


@pytest.mark.parametrize(("inputs", "outputs", "args", "message"), [
    ("T x, T y", "T z", (F4, F8), "T is float32 by x and float64 by y: convert one of them, or declare two"),
    ("T x", "T z", (F4, Out("float64", 4)), "T is float64 by z and float32 by x"),  # outputs first, as in CuPy
    ("float32 x", "float32 z", (F8,), r"x is float32, its array is float64: convert it with astype\('float32'\)"),
    ("T x, Y y", "T z", (F4, 1), "nothing decides Y, the type of y: only arrays do; give an array for y"),
    ("T x", "Z z", (F4,), r"nothing decides Z, the type of z: only arrays do; give Out\(dtype, shape\) for z"),
    ("T x, T y", "T z", (F4,), r"kernel takes 2 arguments \(x, y\), or 3 with outputs \(z\); 1 were given"),
    ("T x", "T z", (F4, F4), "z is an output, which comes back as a new array: leave the outputs out, or give Out"),
    ("T x", "T z", (F4, Out("float32", 4, tile=2)), "z: which block owns what is decided here: give no tile"),
    ("T x", "T z", (InOut(F4),), "x is an input: give an array or a number, not InOut"),
    ("T x", "T z", ([1.0, 2.0],), "x: expected a NumPy array or a number, not list"),
    ("T x", "T z", (F4.astype("complex256"),), "x: elements of type complex256 are not supported"),
    ("T x, T y", "T z", (I4, 2.5), "y is int32, which cannot hold 2.5 exactly"),
    ("T x, T y", "T z", (F4, F4[:3]), r"arrays of the shapes \(4,\), \(3,\) do not broadcast together"),
    ("T x", "T z", (F4, Out("float32", 5)), r"arrays of the shapes \(4,\), \(5,\) do not broadcast"),
    ("T x", "T z", (F4, Out("float32", (3, 4))), None),  # an output may be larger: CuPy broadcasts to it
    ("T x, T y", "T z", (F4.reshape(4, 1), F4, Out("float32", 4)), r"z has the shape \(4,\), the loop \(4, 4\)"),
    ("T x", "T z", (F4[:0],), r"the result of shape \(0,\) has no elements: there is nothing to compute"),
    ("T x", "T z", (np.ones((1,) * 9),), "9 axes; arrays can have 8"),
    ("raw T x", "T z", (F4,), "no array decides the size of the loop, for all are raw: give size"),
    ("T x", "raw T z", (F4,), "nothing decides the size of z, which is raw"),
])  # fmt: skip
def test_arguments_that_do_not_fit(inputs, outputs, args, message):
    kernel = ElementwiseKernel(inputs, outputs, "")
    if message is None:
        assert shape_of(kernel.lower(args)) == (3, 4)
        return
    with pytest.raises(ConfigError, match=message):
        prepare_launch(kernel, args=args)


@pytest.mark.parametrize("inputs", ["raw float32 x, raw float32 y", "raw float32 x, float32 y"])
def test_size_is_needed_if_and_only_if_all_arrays_are_raw(inputs):
    kernel = ElementwiseKernel(inputs, "float32 z", "")
    all_raw = "raw float32 y" in inputs
    assert shape_of(kernel.lower((F4, F4 if all_raw else 7), size=2)) == (2,)
    if all_raw:
        with pytest.raises(ConfigError, match="give size"):
            kernel.lower((F4, F4))
        assert shape_of(kernel.lower((F4, F4, Out("float32", 3)))) == (3,)  # the output decides
    else:
        with pytest.raises(ConfigError, match="size is for kernels whose arrays are all raw"):
            kernel.lower((F4, F4), size=4)
    for size in (0, -1, 2.0):
        with pytest.raises(ConfigError, match="size"):
            kernel.lower((F4, F4), size=size)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "1k"}, "invalid kernel name '1k'"),
    ({"no_return": True}, "no_return is not supported: the result is what the launch gives"),
    ({"return_tuple": True}, "return_tuple is not supported"),
    ({"blocks": 3}, "blocks is not supported"),
    ({"loop_prep": None}, "loop_prep: expected text, not NoneType"),
])  # fmt: skip
def test_arguments_of_the_constructor(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ElementwiseKernel("T x", "T z", "z = x", **arguments)


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "x-y"}, "invalid kernel name 'x-y'"),
    ({"out_params": ""}, "at least one parameter in in_params, and one in out_params"),
    ({"out_params": "T a"}, "a and b are the reduced values: call the output something else"),
    ({"out_params": "raw T y"}, "raw outputs are not supported in a reduction"),
    ({"identity": float("nan")}, "identity = nan: expected C text, a number or None"),
    ({"reduce_expr": 3}, "reduce_expr: expected text, not int"),
])  # fmt: skip
def test_arguments_of_a_reduction(change, message):
    parts = {
        "in_params": "T x", "out_params": "T y", "map_expr": "x", "reduce_expr": "a + b",
        "post_map_expr": "y = a", "identity": "0",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        ReductionKernel(**(parts | change))


@pytest.mark.parametrize(("args", "options", "message"), [
    ((F4,), {"axis": 1}, "axis 1 of an array with 1 axes"),
    ((F4.reshape(2, 2),), {"axis": (0, -2)}, r"axis = \(0, -2\) names an axis twice"),
    ((F4,), {"axis": 0.5}, "axis = 0.5: expected an integer, a tuple"),
    ((3,), {}, "nothing decides T"),
    ((F4,), {"shards": 2}, r"2 shards of a result of 1 elements.*reduce x.reshape\(k, -1\) along axis 1"),
    ((F4.reshape(2, 2), Out("float32", 3)), {"axis": 1}, r"y has the shape \(3,\), the result \(2,\)"),
    ((np.ones((0, 3)),), {"axis": 1}, r"the result of shape \(0,\) has no elements"),
])  # fmt: skip
def test_reductions_that_do_not_fit(args, options, message):
    kernel = ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0")
    with pytest.raises(ConfigError, match=message):
        kernel.lower(args, **options)


def test_nothing_to_reduce_needs_an_identity():
    empty = np.ones((3, 0), "float32")
    for identity in (None, ""):
        with pytest.raises(ConfigError, match="nothing to reduce, and there is no identity"):
            ReductionKernel("T x", "T y", "x", "max(a, b)", "y = a", identity).lower((empty,), axis=1)


def test_raw_inputs_of_a_reduction_want_the_reduced_axes_first():
    kernel = ReductionKernel("T x, raw T w", "T y", "x * w[_J]", "a + b", "y = a", "0")
    x = np.ones((2, 3), "float32")
    assert kernel.lower((x, x), axis=0).args
    with pytest.raises(ConfigError, match="the reduced axes have to come first, as in CuPy"):
        kernel.lower((x, x), axis=1)
