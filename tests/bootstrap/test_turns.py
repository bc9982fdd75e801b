"""Whose attempts run next under an agreement."""

import random
from collections import Counter

import pytest

from depin_node.bootstrap.turns import TURN_S, Turns


def turns_of(*works, queued=4):
    turns = Turns()
    for work in works:
        turns.open(work)
        turns.ready(work)
        turns.add(work, [(100 * work + number, number) for number in range(queued)])
    return turns


def run(turns, seconds, queue, slots=1):
    """Have slots run attempts that are sent anew as they end; return what each work had (s), and changes of work."""
    had, changes, staying = Counter(), 0, [-1] * slots
    free_s = [0.0] * slots
    while (now_s := min(free_s)) < seconds:
        slot = free_s.index(now_s)
        work = turns.next(staying[slot])
        changes += work != staying[slot]
        staying[slot] = work
        ((attempt, task),) = turns.take(work, 1)
        free_s[slot] += queue[work]
        had[work] += queue[work]
        turns.served(work, queue[work])
        turns.add(work, [(attempt + 1_000_000, task)])
    return had, changes


def test_a_work_runs_in_the_order_in_which_its_attempts_came():
    turns = turns_of(1)
    assert turns.take(1, 3) == [(100, 0), (101, 1), (102, 2)]
    turns.put_back(1, [(101, 1), (102, 2)])
    turns.add(1, [(104, 4)])
    assert turns.take(1, 9) == [(101, 1), (102, 2), (103, 3), (104, 4)]
    assert turns.next(1) is None
    assert turns.take(1, 1) == []


def test_a_small_work_waits_for_one_attempt_of_a_large_one():
    turns = turns_of(1)
    turns.take(1, 1)
    turns.open(2)
    turns.ready(2)
    turns.add(2, [(200, 0), (201, 1)])
    turns.served(1, 7.0)
    assert turns.next(1) == 2
    turns.take(2, 2)
    assert turns.next(2) == 1


def test_a_work_whose_blobs_are_on_their_way_holds_nobody_up():
    turns = Turns()
    for work in (1, 2):
        turns.open(work)
        turns.add(work, [(work, 0)])
    assert turns.next(-1) is None
    turns.ready(2)
    assert turns.next(-1) == 2
    turns.close(2)
    assert turns.next(2) is None
    turns.ready(2)  # too late
    turns.ready(1)
    assert turns.next(2) == 1


@pytest.mark.parametrize("slots", [1, 3])
def test_works_share_the_time_of_slots_and_change_seldom(slots):
    had, changes = run(turns_of(1, 2, 3), 300, {1: 0.5, 2: 0.01, 3: 0.1}, slots)
    assert max(had.values()) - min(had.values()) < 2 * TURN_S * slots
    assert changes <= 1.1 * slots * 300 / TURN_S


def test_who_had_nothing_queued_is_owed_a_turn_at_most():
    turns = turns_of(1)
    turns.served(1, 1000.0)
    turns.open(2)
    turns.ready(2)
    turns.add(2, [(200, 0)])
    had, _ = run(turns, 100, {1: 1.0, 2: 1.0})
    assert abs(had[1] - had[2]) <= 3 * TURN_S  # not the 1,000 s that the other had before


def test_whatever_is_dropped_nothing_else_is_lost():
    rng = random.Random(1)
    turns = turns_of(1, 2, queued=20)
    dropped = {attempt for attempt in range(100, 220) if rng.random() < 0.5}
    turns.drop(dropped)
    left = [attempt for work in (1, 2) for attempt, _ in turns.take(work, 99)]
    assert left == [n for n in [*range(100, 120), *range(200, 220)] if n not in dropped]
    assert turns.next(-1) is None
    turns.add(1, [(7, 0)])
    turns.drop({7})
    assert turns.next(-1) is None
