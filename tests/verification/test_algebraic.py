"""True results of NumPy's libraries pass; results that are wrong in one element by more than rounding do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.compute.devices.array_operations import execute
from depin_node.compute.programs.operations import Spec, plan
from depin_node.compute.verification.algebraic import CHECKS, check, check_sorted
from depin_node.compute.verification.comparing import close, decide, support
from depin_node.compute.verification.rules import Rule

ATTRIBUTES = {
    "cholesky": {"upper": 0},
    "qr": {"complete": 0},
    "svd": {"full": 0},
    "fftn": {"axes": (0,), "lengths": (24,)},
    "ifftn": {"axes": (0,), "lengths": (24,)},
}
KINDS = ("float32", "float64", "complex64", "complex128")


def problem(name, dtype, n, rng):
    """Inputs of an operation, well conditioned and not."""

    def array(*shape):
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)
        if dtype.startswith("complex"):
            values = values + 1j * rng.standard_normal(shape)
        return values.astype(dtype)

    a = array(n, n)
    if name in ("matmul", "solve"):
        return [a, array(n, 3)]
    if name == "cholesky":
        return [(a @ a.conj().T + n * np.abs(a).max() ** 2 * np.eye(n)).astype(dtype)]
    if name == "eigh":
        return [(a + a.conj().T).astype(dtype)]
    return [a[:, 0] if name in ("fftn", "ifftn") else a]


def solved(name, dtype, n, rng):
    inputs = problem(name, dtype, n, rng)
    attributes = ATTRIBUTES.get(name, {}) | ({"lengths": (n,)} if "fft" in name else {})
    specs = plan(name, [Spec(dtype, array.shape) for array in inputs], attributes).results
    outputs = [np.zeros(spec.shape, spec.dtype) for spec in specs]
    execute(np, name, inputs, outputs, attributes)
    return inputs, outputs, attributes


def cases():
    for name in CHECKS:
        for dtype in KINDS:
            if "fft" not in name or dtype.startswith("complex"):
                yield name, dtype


@pytest.mark.parametrize(("name", "dtype"), list(cases()))
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(2, 40))
def test_true_results_pass_and_one_wrong_element_does_not(name, dtype, seed, n):
    rng = np.random.default_rng(seed)
    inputs, outputs, attributes = solved(name, dtype, n, rng)
    assert check(name, inputs, outputs, attributes, np.random.default_rng(seed + 1)) == ""
    wrong = [output.copy() for output in outputs]
    which = int(rng.integers(len(wrong)))
    at = tuple(int(rng.integers(length)) for length in wrong[which].shape)
    wrong[which][at] += 0.5 * np.abs(wrong[which]).max() + np.abs(wrong[which][at])
    assert check(name, inputs, wrong, attributes, np.random.default_rng(seed + 1))
    wrong[which][at] = np.nan
    assert check(name, inputs, wrong, attributes, np.random.default_rng(seed + 1))


def test_each_round_finds_a_wrong_element_at_least_half_of_the_time(monkeypatch):
    monkeypatch.setattr("depin_node.compute.verification.algebraic.ROUNDS", 1)
    rng = np.random.default_rng(5)
    inputs, (right,), _ = solved("matmul", "float64", 8, rng)
    found = 0
    for seed in range(400):
        wrong = right.copy()
        wrong[2, 1] += 1e-3
        wrong[2, 2] -= 1e-3  # hides the first whenever both signs agree
        found += bool(check("matmul", inputs, [wrong], {}, np.random.default_rng(seed)))
    assert 160 <= found <= 240


@given(st.lists(st.integers(-50, 50), max_size=60), st.randoms(use_true_random=False))
def test_sorting_is_checked_by_order_and_multiset(values, random):
    given_, rng = np.array(values, np.float32), np.random.default_rng(1)
    answer = np.sort(given_)
    assert check_sorted(given_, answer, rng) == ""
    if len(set(values)) > 1:
        assert check_sorted(given_, answer[::-1].copy(), rng)
        other = answer.copy()
        other[0] -= 1
        assert check_sorted(given_, other, rng)


def test_rounding_borders_do_not_part_honest_answers_and_closeness_is_not_transitive():
    a = np.array([1.0, -2.0, 0.0], np.float32)
    near, far = a * np.float32(1 + 5e-5), a * np.float32(1 + 1e-4)
    assert close(a, near)
    assert close(near, far)
    assert not close(a, far)
    assert support([[a], [near], [far]]) == [2, 3, 2]
    assert decide([[a], [near], [far]], Rule(3, 0, 3)) == 1
    assert decide([[a], [far]], Rule(2, 0, 3)) is None
    assert decide([[a], [a], [far]], Rule(2, 0, 3)) == 0


def test_what_is_no_number_agrees_with_itself_only():
    a = np.array([np.nan, np.inf, 1.0])
    assert close(a, a.copy())
    assert not close(a, np.array([0.0, np.inf, 1.0]))
    assert not close(a, np.array([np.nan, -np.inf, 1.0]))
    assert not close(np.array([1, 2]), np.array([1, 3]))
    assert not close(np.zeros(2), np.zeros(3))
    assert not close(np.zeros(2), np.zeros(2, np.float32))
