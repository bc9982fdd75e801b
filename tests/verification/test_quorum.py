import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.compute.jobs.job import Quorum
from depin_node.compute.verification.quorum import Ballot, Phase
from depin_node.compute.verification.rules import rule_of

RIGHT, WRONG, OTHER = b"r" * 32, b"w" * 32, b"o" * 32


def ref(number):
    return bytes([number]) * 32, number


def start(ballot, *numbers):
    for number in numbers:
        ballot.started(ref(number), f"g{number}", "wasm-1")


def commit(ballot, *numbers):
    for number in numbers:
        ballot.committed(ref(number), bytes([number]) * 32)


def answer(ballot, roots):
    """Start, commit and show answers, by number."""
    start(ballot, *roots)
    commit(ballot, *roots)
    assert set(ballot.ready()) == {ref(number) for number in roots}
    for number, root in roots.items():
        ballot.revealed(ref(number), root)


def test_two_of_three_that_agree_decide():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    assert ballot.wanted() == 2
    answer(ballot, {1: RIGHT, 2: RIGHT})
    assert (ballot.decided, ballot.wanted(), ballot.dissenters()) == (RIGHT, 0, [])
    assert not ballot.is_disputed()


def test_a_dispute_asks_for_one_more_and_finds_the_dissenter():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    answer(ballot, {1: WRONG, 2: RIGHT})
    assert ballot.is_disputed()
    assert not ballot.is_undecided()
    assert ballot.wanted() == 1
    answer(ballot, {3: RIGHT})
    assert ballot.decided == RIGHT
    assert ballot.dissenters() == [ref(1)]


def test_n_answers_without_k_that_agree_are_undecided():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    answer(ballot, {1: WRONG, 2: RIGHT})
    answer(ballot, {3: OTHER})
    assert ballot.is_undecided()
    assert ballot.wanted() == 0


def test_nobody_is_asked_before_all_have_committed():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    start(ballot, 1, 2)
    commit(ballot, 1)
    assert ballot.ready() == []
    commit(ballot, 2)
    assert len(ballot.ready()) == 2
    assert ballot.ready() == []  # once


def test_nobody_starts_while_answers_are_shown():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    start(ballot, 1, 2)
    commit(ballot, 1, 2)
    ballot.ready()
    ballot.ended(ref(1), "lost", is_task_fault=False)
    assert ballot.wanted() == 0
    ballot.revealed(ref(2), RIGHT)
    assert ballot.wanted() == 1


def test_an_attempt_without_an_answer_is_replaced_and_not_counted():
    ballot = Ballot(0, rule_of(Quorum(2, 2)))
    for number in range(1, 9):
        start(ballot, number)
        ballot.ended(ref(number), "timed_out", is_task_fault=False)
        assert ballot.wanted() == 2
        assert ballot.failed_before(ref(number)[0]) == 1
    assert ballot.attempts_ended == 8
    answer(ballot, {10: RIGHT, 11: RIGHT})
    assert ballot.decided == RIGHT


def test_a_fault_is_counted_by_code_and_group():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    for group, code, expected in (("a", "trapped", 1), ("a", "trapped", 1), ("b", "timed_out", 1), ("b", "trapped", 2)):
        ballot.started(ref(1), group, "wasm-1")
        assert ballot.ended(ref(1), code, is_task_fault=True) == expected


def test_one_group_has_one_place():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    ballot.started(ref(1), "g", "wasm-1")
    assert ballot.has_group("g")
    with pytest.raises(AssertionError):
        ballot.started(ref(2), "g", "wasm-1")
    with pytest.raises(AssertionError):
        ballot.started(ref(2), "h", "another class")


def test_bytes_come_from_whoever_agrees_and_is_still_there():
    ballot = Ballot(0, rule_of(Quorum(2, 3)))
    answer(ballot, {1: WRONG, 2: RIGHT})
    answer(ballot, {3: RIGHT})
    assert ballot.uploader() == ref(2)
    ballot.unreachable(ref(2))
    assert ballot.uploader() == ref(3)
    ballot.unreachable(ref(3))
    assert ballot.uploader() is None
    assert set(ballot.reopen()) == {ref(2), ref(3)}
    assert (ballot.decided, ballot.wanted()) == (b"", 1)


@given(
    st.integers(1, 5).flatmap(lambda k: st.tuples(st.just(k), st.integers(k, 2 * k - 1))),
    st.lists(st.sampled_from([RIGHT, WRONG, OTHER]), min_size=20, max_size=20),
)
def test_what_is_decided_has_k_answers_of_at_most_n(policy, answers):
    k, n = policy
    ballot = Ballot(0, rule_of(Quorum(k, n)))
    given_so_far = []
    number = 0
    while wanted := ballot.wanted():
        fresh = {number + i + 1: answers[number + i] for i in range(wanted)}
        number += wanted
        answer(ballot, fresh)
        given_so_far += fresh.values()
    assert len(given_so_far) <= n
    best = max(given_so_far.count(root) for root in (RIGHT, WRONG, OTHER))
    if ballot.decided:
        assert given_so_far.count(ballot.decided) == k
    else:
        assert ballot.is_undecided()
        assert best < k
    assert all(run.phase is Phase.REVEALED for run in ballot.runs.values())
