"""True results of NumPy's libraries pass; results that are wrong in one element by more than rounding do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.compute.devices.array_operations import execute
from depin_node.compute.programs.operations import Spec, plan
from depin_node.compute.verification.algebraic import CHECKS, check
from depin_node.compute.verification.findings import Outcome

ATTRIBUTES = {"cholesky": {"upper": 0}, "qr": {"complete": 0}, "svd": {"full": 0}}
KINDS = ("float32", "float64", "complex64", "complex128")
RIGHT, ODD, WRONG, UNCHECKED = Outcome


def seed_of(number):
    return number.to_bytes(32, "little")


def outcome(name, inputs, outputs, attributes, seed):
    return check(name, inputs, outputs, attributes, seed_of(seed)).outcome


def problem(name, dtype, n, rng):
    """Inputs of an operation, well conditioned and not; transforms of few columns, or of more than are summed."""

    def array(*shape):
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)
        if dtype.startswith("complex"):
            values = values + 1j * rng.standard_normal(shape)
        return values.astype(dtype)

    if name == "irfftn":
        return [array(n // 2 + 1, int(rng.choice([1, 40])))]
    if "fft" in name:
        return [array(n, int(rng.choice([1, 40])))]
    a = array(n, n)
    if name in ("matmul", "solve"):
        return [a, array(n, 3)]
    if name == "cholesky":
        return [(a @ a.conj().T + n * np.abs(a).max() ** 2 * np.eye(n)).astype(dtype)]
    if name == "eigh":
        return [(a + a.conj().T).astype(dtype)]
    return [a]


def solved(name, dtype, n, rng):
    inputs = problem(name, dtype, n, rng)
    attributes = {"axes": (0,), "lengths": (n,)} if "fft" in name else ATTRIBUTES.get(name, {})
    specs = plan(name, [Spec(dtype, array.shape) for array in inputs], attributes).results
    outputs = [np.zeros(spec.shape, spec.dtype) for spec in specs]
    execute(np, name, inputs, outputs, attributes)
    return inputs, outputs, attributes


def cases():
    for name in CHECKS:
        for dtype in KINDS:
            if "fft" not in name or dtype.startswith("float" if name == "rfftn" else "complex"):
                yield name, dtype


@pytest.mark.parametrize(("name", "dtype"), list(cases()))
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(2, 40))
def test_true_results_pass_and_one_wrong_element_does_not(name, dtype, seed, n):
    rng = np.random.default_rng(seed)
    inputs, outputs, attributes = solved(name, dtype, n, rng)
    assert check(name, inputs, outputs, attributes, seed_of(seed + 1)) == (RIGHT, "")
    wrong = [output.copy() for output in outputs]
    which = int(rng.integers(len(wrong)))
    at = tuple(int(rng.integers(length)) for length in wrong[which].shape)
    wrong[which][at] += 0.5 * np.abs(wrong[which]).max() + np.abs(wrong[which][at])
    assert outcome(name, inputs, wrong, attributes, seed + 1) in (ODD, WRONG)
    wrong[which][at] = np.nan
    assert outcome(name, inputs, wrong, attributes, seed + 1) is UNCHECKED


def test_what_rounding_nearly_explains_is_nobody_s_lie():
    inputs, (right,), _ = solved("matmul", "float32", 32, np.random.default_rng(3))
    slightly, clearly = right.copy(), right.copy()
    bound = 4 * 34 * 2.0**-24 * (np.abs(inputs[0]) @ np.abs(inputs[1])).sum(axis=1).max()
    slightly[4, 1] += 8 * bound
    clearly[4, 1] += 800 * bound
    assert outcome("matmul", inputs, [slightly], {}, 1) is ODD
    assert outcome("matmul", inputs, [clearly], {}, 1) is WRONG
    assert outcome("matmul", [inputs[0] * np.float32(np.inf), inputs[1]], [right], {}, 1) is UNCHECKED


def test_each_round_finds_a_wrong_element_at_least_half_of_the_time(monkeypatch):
    monkeypatch.setattr("depin_node.compute.verification.algebraic.ROUNDS", 1)
    rng = np.random.default_rng(5)
    inputs, (right,), _ = solved("matmul", "float64", 8, rng)
    found = 0
    for seed in range(400):
        wrong = right.copy()
        wrong[2, 1] += 1e-3
        wrong[2, 2] -= 1e-3  # hides the first whenever both signs agree
        found += outcome("matmul", inputs, [wrong], {}, seed) is WRONG
    assert 160 <= found <= 240
