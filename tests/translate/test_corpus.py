"""Every kernel of the corpus gives NumPy's answer, in every shape that can take it, with the same bits."""

import numpy as np
import pytest
from kernel_cases import DIVERGES, Case, cases

from depin_node.compute.translate import compile_unit

CASES = cases()


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    wanted = np.asarray(wanted)
    if tolerance:
        wide = "c16" if got.dtype.kind == "c" else "f8"
        np.testing.assert_allclose(got.astype(wide), wanted.astype(wide), rtol=tolerance, atol=tolerance)
    else:
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def outputs(case: Case, arrays: list[np.ndarray]) -> dict[int, np.ndarray]:
    """Number the arrays by their place among the arguments."""
    places = [k for k, argument in enumerate(case.arguments) if isinstance(argument, np.ndarray)]
    return dict(zip(places, arrays, strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_numpy_in_every_shape(case: Case, host, build) -> None:
    wanted = case.reference(*case.arguments)
    bits = []
    for shape in case.shapes:
        kernel = build(case.source, case.kernel or case.name, *case.options, filename=f"{case.name}.cu", _shape=shape)
        arrays = host.run(kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)
        got = outputs(case, arrays)
        for place, expected in wanted.items():
            close(got[place].reshape(np.shape(expected)), expected, case.tolerance)
        for place, array in got.items():
            if place not in wanted:
                np.testing.assert_array_equal(array, case.arguments[place])
        bits.append([array.tobytes() for array in arrays])
        assert kernel.shape == shape
        assert kernel.exact is case.exact, kernel.notes
    assert all(other == bits[0] for other in bits)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_launch_cut_into_block_ranges_gives_the_same(case: Case, host, build) -> None:
    kernel = build(
        case.source, case.kernel or case.name, *case.options, filename=f"{case.name}.cu", _shape=case.shapes[0]
    )
    whole = host.run(kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)
    blocks = int(np.prod(case.grid))
    arguments = list(case.arguments)
    for start in range(0, blocks, 3):
        blocks_of_task = (start, min(start + 3, blocks))
        parts = host.run(kernel, case.grid, case.block, arguments, shared_mem=case.shared_mem, blocks=blocks_of_task)
        for place, array in outputs(case, parts).items():
            arguments[place] = array
    assert [a.tobytes() for a in arguments if isinstance(a, np.ndarray)] == [a.tobytes() for a in whole]


def test_synchronising_kernels_take_no_loop_shape(build) -> None:
    waiting = [case for case in CASES if "loop" not in case.shapes]
    assert len(waiting) >= 10
    for case in [*waiting[:3], next(case for case in waiting if case.shapes == DIVERGES)]:
        assert build(case.source, case.name).shape == case.shapes[0]


@pytest.mark.parametrize("case", [case for case in CASES if case.exact], ids=lambda case: case.name)
def test_an_exact_kernel_does_not_notice_the_trial(case: Case, host, build) -> None:
    name = case.kernel or case.name
    kernel = build(case.source, name, *case.options)
    trial = compile_unit(case.source, (name,), tuple(case.options), trial=True).kernels[0]
    assert trial.module != kernel.module
    plain, other = (
        host.run(k, case.grid, case.block, case.arguments, shared_mem=case.shared_mem) for k in (kernel, trial)
    )
    assert [array.tobytes() for array in plain] == [array.tobytes() for array in other]
