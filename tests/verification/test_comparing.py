"""Numbers are compared within a tolerance, counted per candidate; what rounding cannot explain is told apart."""

import numpy as np
import pytest

from depin_node.compute.jobs.job import Lead, Quorum, Tolerance
from depin_node.compute.verification.comparing import (
    PIECE_ELEMENTS,
    TOLERANCES,
    close_arrays,
    default_tolerance,
    far_arrays,
    nearness,
)
from depin_node.compute.verification.findings import Nearness
from depin_node.compute.verification.quorum import Ballot
from depin_node.compute.verification.rules import rule_of

LIMITS = TOLERANCES["float32"]
A, B, C, D = (name * 32 for name in (b"a", b"b", b"c", b"d"))


def near(*pairs):
    return frozenset((one, other) for a, b in pairs for one, other in ((a, b), (b, a)))


def test_rounding_borders_do_not_part_honest_answers_and_closeness_is_not_transitive():
    a = np.array([1.0, -2.0, 0.0], np.float32)
    answers = {A: [a], B: [a * np.float32(1 + 5e-5)], C: [a * np.float32(1 + 1e-4)], D: [a * np.float32(1.2)]}
    found = nearness(answers, [LIMITS])
    assert found.close == near((A, B), (B, C))
    assert found.far == near((A, D), (B, D), (C, D))


def test_what_is_exact_in_one_class_is_not_close_in_it():
    a = np.array([1.0], np.float32)
    answers = {A: [a], B: [np.nextafter(a, np.float32(2))], C: [np.nextafter(a, np.float32(0))]}
    classes = {A: "wasm-1", B: "wasm-1", C: "cuda"}
    found = nearness(answers, [LIMITS], lambda x, y: classes[x] != classes[y])
    assert found == Nearness(near((A, C), (B, C)), near((A, B)))


@pytest.mark.parametrize(
    ("left", "right", "is_close", "is_far"),
    [
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], True, False),
        ([np.nan, np.inf, 1.0], [0.0, np.inf, 1.0], False, False),
        ([np.nan, np.inf, 1.0], [np.nan, -np.inf, 1.0], False, False),
        ([1.0, 1e-30], [1.0, -1e-30], True, False),  # what cancels is held to the largest
        ([1.0, 0.0], [1.0, 0.5], False, True),
        ([1 + 0j, 1j], [1 + 1e-14j, 1j], True, False),
        ([1 + 0j, 1j], [1 + 0j, 1 + 1j], False, True),
        ([1, 2], [1, 2], True, False),
        ([1, 2], [1, 2000], False, False),  # a cast makes another integer of a last bit
    ],
)
def test_close_and_far(left, right, is_close, is_far):
    a, b = np.array(left), np.array(right)
    limits = default_tolerance(a.dtype.name)
    assert (close_arrays(a, b, limits), far_arrays(a, b, limits)) == (is_close, is_far)
    assert (close_arrays(b, a, limits), far_arrays(b, a, limits)) == (is_close, is_far)


def test_large_arrays_are_compared_to_the_last_element_against_the_largest_of_all():
    a = np.zeros(PIECE_ELEMENTS + 7, np.float32)
    a[0] = 1000
    b = a.copy()
    b[-1] = 1e-3
    assert close_arrays(a, b, LIMITS)
    b[-1] = 1.0
    assert not close_arrays(a, b, LIMITS)
    assert not close_arrays(a, a[:-1], LIMITS)
    assert not close_arrays(a, a.astype(np.float64), LIMITS)
    assert close_arrays(a, b, Tolerance(0.0, 0.01))


def ballot_of(policy, roots):
    ballot = Ballot(0, rule_of(policy), is_numeric=True)
    answer(ballot, roots, 0)
    return ballot


def answer(ballot, roots, first):
    refs = [(bytes([number]) * 32, number) for number in range(first, first + len(roots))]
    for ref in refs:
        ballot.started(ref, f"g{ref[1]}", "wasm-1")
        ballot.committed(ref, ref[0])
    assert set(ballot.ready()) == set(refs)
    for ref, root in zip(refs, roots, strict=True):
        ballot.revealed(ref, root)


def test_equal_answers_need_no_comparison():
    ballot = ballot_of(Quorum(2, 3), [A, A])
    assert ballot.decided == A
    assert ballot.uncompared() == []


def test_different_answers_are_compared_before_anything_else_and_the_first_of_the_best_is_taken():
    ballot = ballot_of(Quorum(2, 3), [A, B])
    assert ballot.uncompared() == [A, B]
    assert (ballot.decided, ballot.wanted(), ballot.is_undecided()) == (b"", 0, False)
    ballot.compared([A, B], Nearness(near((A, B))))
    assert (ballot.decided, ballot.dissenters(), ballot.is_disputed()) == (A, [], False)


def test_the_candidate_with_most_support_wins_and_dissenters_may_be_near_or_far():
    ballot = ballot_of(Quorum(3, 5), [A, B, D])
    ballot.compared([A, B, D], Nearness(near((A, B)), near((A, D), (B, D))))
    assert (ballot.decided, ballot.wanted()) == (b"", 1)
    answer(ballot, [C], 3)
    ballot.compared([A, B, C, D], Nearness(near((A, B), (B, C)), near((A, D), (B, D), (C, D))))
    assert ballot.decided == B  # A and C are not close to each other, but both to B
    assert [number for _, number in ballot.dissenters()] == [2]
    assert ballot.is_far(D)
    assert not ballot.is_far(A)


def test_a_lead_is_over_what_is_not_close():
    ballot = ballot_of(Lead(2), [A, B])
    ballot.compared([A, B], Nearness())
    assert ballot.wanted() == 2
    answer(ballot, [C, C], 2)
    ballot.compared([A, B, C], Nearness(near((A, C))))
    assert ballot.decided == A
    assert [number for _, number in ballot.dissenters()] == [1]
