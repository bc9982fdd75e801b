"""The table of array operations: what ``plan`` promises is what NumPy gives; strangers' arguments are refused."""

import numpy as np
import pytest

from depin_node.compute.devices.array_operations import execute
from depin_node.compute.programs.operations import LIBRARY_BYTES, OPERATIONS, Spec, plan
from depin_node.core.errors import TaskRejected

SQUARE, TALL, WIDE, COLUMN = (2, 5, 5), (2, 7, 4), (3, 4, 7), (5, 2)
CASES = [
    ("matmul", [TALL, (4, 3)], {}),
    ("matmul", [(3, 1, 4, 6), (2, 6, 2)], {}),
    ("cholesky", [SQUARE], {"upper": 0}),
    ("cholesky", [SQUARE], {"upper": 1}),
    ("solve", [SQUARE, COLUMN], {}),
    ("inv", [SQUARE], {}),
    ("det", [SQUARE], {}),
    ("slogdet", [SQUARE], {}),
    *[("qr", [shape], {"complete": flag}) for shape in (TALL, WIDE) for flag in (0, 1)],
    *[("svd", [shape], {"full": flag}) for shape in (TALL, WIDE) for flag in (0, 1)],
    ("svdvals", [WIDE], {}),
    ("eigh", [SQUARE], {}),
    ("eigvalsh", [SQUARE], {}),
    ("pinv", [TALL], {"rtol": 1e-6}),
    *[(name, [(6, 8)], {"axes": (1,), "lengths": (11,)}) for name in ("fftn", "ifftn", "rfftn", "irfftn")],
    *[(name, [(6, 8)], {"axes": (1, 0), "lengths": (8, 5)}) for name in ("fftn", "ifftn", "rfftn", "irfftn")],
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(("name", "shapes", "attributes"), CASES)
def test_results_are_what_was_planned(name, shapes, attributes, dtype):
    if dtype not in OPERATIONS[name].dtypes:
        with pytest.raises(TaskRejected, match=f"an array is {dtype}"):
            plan(name, [Spec(dtype, shape) for shape in shapes], attributes)
        return
    random = np.random.default_rng(0)
    inputs = [
        (random.standard_normal(shape) + (1j * random.standard_normal(shape) if "c" in dtype else 0))
        for shape in shapes
    ]
    if name in ("cholesky", "eigh", "eigvalsh"):
        inputs = [a @ a.conj().swapaxes(-1, -2) + np.eye(5) for a in inputs]
    inputs = [a.astype(dtype) for a in inputs]
    before = [a.copy() for a in inputs]
    planned = plan(name, [Spec(a.dtype.name, a.shape) for a in inputs], attributes)
    direct = {
        "solve": lambda: np.linalg.solve(*inputs),
        "matmul": lambda: inputs[0] @ inputs[1],
        "cholesky": lambda: np.linalg.cholesky(inputs[0], upper=bool(attributes.get("upper"))),
        "rfftn": lambda: np.fft.rfftn(inputs[0], attributes["lengths"], attributes["axes"]),
        "irfftn": lambda: np.fft.irfftn(inputs[0], attributes["lengths"], attributes["axes"]),
        "svdvals": lambda: np.linalg.svdvals(inputs[0]),
    }
    outputs = [np.full(spec.shape, np.nan, spec.dtype) for spec in planned.results]
    execute(np, name, inputs, outputs, attributes)
    assert all(np.isfinite(output).all() for output in outputs)
    assert all((a == b).all() for a, b in zip(inputs, before, strict=True))
    assert planned.flops > 0
    assert planned.scratch_bytes >= sum(output.nbytes for output in outputs)
    if name in direct:
        found = direct[name]()
        assert (found.dtype, found.shape) == (planned.results[0].dtype, planned.results[0].shape)
        np.testing.assert_allclose(outputs[0], found, rtol=1e-3 if found.dtype.itemsize < 8 else 1e-4)


def test_memory_grows_with_the_matrices_and_holds_the_library():
    small, large = (plan("svd", [Spec("float64", (n, n))], {"full": 1}) for n in (10, 2000))
    assert small.scratch_bytes >= LIBRARY_BYTES
    assert large.scratch_bytes - small.scratch_bytes > 10 * 8 * 2000**2
    assert large.flops > 20 * 2000**3


@pytest.mark.parametrize(
    ("name", "specs", "attributes", "reason"),
    [
        ("exec", [("float32", (2, 2))], {}, "there is no array operation 'exec'; there are: matmul"),
        ("inv", [], {}, "takes 1 arrays, 0 are given"),
        ("inv", [("int32", (2, 2))], {}, "an array is int32"),
        ("matmul", [("float32", (2, 2)), ("float64", (2, 2))], {}, "convert one with astype"),
        ("matmul", [("float32", (2, 3)), ("float32", (2, 3))], {}, "3 columns do not meet 2 rows"),
        ("matmul", [("float32", (2, 2, 2)), ("float32", (3, 2, 2))], {}, "do not broadcast together"),
        ("matmul", [("float32", (3,)), ("float32", (3, 3))], {}, "takes matrices"),
        ("inv", [("float32", (2, 3))], {}, "square matrices, not 2 × 3"),
        ("inv", [("float32", (0, 0))], {}, "has no elements"),
        ("inv", [("float32", (2, 2))], {"upper": 1}, "has the attributes none; given are: upper"),
        ("svd", [("float32", (2, 2))], {"full": 2}, "expected 0 or 1"),
        ("svd", [("float32", (2, 2))], {"full": True}, "expected an integer"),
        ("pinv", [("float32", (2, 2))], {"rtol": float("nan")}, "a number from 0 to 1"),
        ("solve", [("float32", (2, 2)), ("float32", (3, 1))], {}, "2 equations, but 3 rows"),
        ("fftn", [("complex64", (4, 4))], {"axes": (0, 0), "lengths": (4, 4)}, "different axes"),
        ("fftn", [("complex64", (4, 4))], {"axes": (2,), "lengths": (4,)}, "expected 0 to 1"),
        ("fftn", [("complex64", (4, 4))], {"axes": (-1,), "lengths": (4,)}, "expected 0 to 1"),
        ("fftn", [("complex64", (4, 4))], {"axes": (0,), "lengths": (1 << 31,)}, r"below 2\*\*31"),
        ("fftn", [("complex64", (4, 4))], {"axes": (0,), "lengths": (0,)}, "positive numbers"),
        ("fftn", [("complex64", (4, 4))], {"axes": 0, "lengths": (4,)}, "expected integers"),
        ("rfftn", [("complex64", (4, 4))], {"axes": (0,), "lengths": (4,)}, "takes float32, float64"),
    ],
)
def test_what_no_operation_takes_is_refused(name, specs, attributes, reason):
    with pytest.raises(TaskRejected, match=reason):
        plan(name, [Spec(*spec) for spec in specs], attributes)
