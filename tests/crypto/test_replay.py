import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.clock import Now
from depin_node.core.errors import PeerViolation
from depin_node.crypto.replay import RESERVED_AT_ONCE, ReplayGuard, Sequence

NOW = Now(0, 1_800_000_000 * 10**9)
A, B = b"a" * 32, b"b" * 32


def reserve(sequence):
    wanted = sequence.wanted()
    sequence.reserve(wanted)
    return wanted


def test_a_sequence_never_repeats_even_when_killed_at_any_moment():
    stored, last = 0, -1
    for _ in range(5):  # each turn: start, reserve, use some, be killed
        sequence = Sequence(stored, NOW)
        stored = reserve(sequence)
        for _ in range(40_000):
            if sequence.wanted() is not None:
                stored = reserve(sequence)
            number = sequence.next()
            assert number > last
            last = number


def test_a_sequence_says_when_it_wants_to_be_reserved_again():
    calls = []
    sequence = Sequence(0, NOW, lambda: calls.append(reserve(sequence)))
    first = reserve(sequence) - RESERVED_AT_ONCE
    assert [sequence.next() for _ in range(3 * RESERVED_AT_ONCE)] == list(range(first, first + 3 * RESERVED_AT_ONCE))
    assert len(calls) == 5  # each time half is used up, and one more
    assert None not in calls


def test_a_sequence_needs_its_reservation():
    with pytest.raises(RuntimeError):
        Sequence(0, NOW).next()


def test_a_lost_journal_does_not_fall_behind():
    before = Sequence(0, NOW)
    reserve(before)
    used = [before.next() for _ in range(10)]
    later = Sequence(0, Now(0, NOW.wall_ns + 10**9))
    reserve(later)
    assert later.next() > max(used)


@given(st.lists(st.integers(0, 50)))
def test_only_growing_numbers_pass(numbers):
    guard = ReplayGuard({})
    highest = -1
    for number in numbers:
        if number > highest:
            guard.accept(A, "market", number)
            highest = number
        else:
            with pytest.raises(PeerViolation, match="replayed"):
                guard.accept(A, "market", number)


def test_senders_and_channels_are_apart_and_the_floor_is_kept():
    guard = ReplayGuard({(A, "market"): 9})
    with pytest.raises(PeerViolation):
        guard.accept(A, "market", 9)
    guard.accept(A, "grants", 9)
    guard.accept(B, "market", 1)


def test_the_guard_is_bounded():
    guard = ReplayGuard({}, senders_max=2)
    for sender in (A, B, b"c" * 32):
        guard.accept(sender, "market", 1)
    guard.accept(A, "market", 1)  # was pushed out
    with pytest.raises(PeerViolation):
        guard.accept(b"c" * 32, "market", 1)
