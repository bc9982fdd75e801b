"""The machine that shares out chunks, in simulated meshes: no time passes but what is written here."""

import random

import pytest

from depin_node.p2p.swarm import OVERDUE_S, PATIENCE_S_MAX, PATIENCE_S_MIN, Swarm

OWNER, ME, OTHER, THIRD = (bytes([number]) * 32 for number in range(4))


def swarm(count, *holders, me=ME, seed=0):
    made = Swarm(me, bytearray(count), random.Random(seed))
    for holder in holders:
        made.join(holder, None)
    return made


def arrive(made, holder, index, now_s):
    made._here[index] = 1
    made.arrived(index, now_s)
    made.sent(holder, index)


def drain(made, holder, now_s=0.0):
    taken = []
    while (index := made.take(holder, now_s)) is not None:
        taken.append(index)
    return taken


def test_one_holder_is_asked_for_everything_once():
    made = swarm(10, OWNER)
    assert drain(made, OWNER) == list(range(10))
    assert made.owed(OWNER) == 10


def test_two_whole_holders_are_never_asked_for_the_same():
    made = swarm(11, OWNER, OTHER)
    taken = [made.take(holder, 0.0) for _ in range(5) for holder in (OWNER, OTHER)]
    assert len(set(taken)) == 10
    assert None not in taken


def test_what_is_here_is_not_asked_for():
    here = bytearray([1, 0, 1, 0])
    made = Swarm(ME, here, random.Random(0))
    made.join(OWNER, None)
    assert drain(made, OWNER) == [1, 3]


def test_a_holder_of_some_is_asked_for_those_and_for_what_it_gets():
    made = swarm(8)
    made.join(OTHER, bytearray([0, 1, 0, 0, 0, 0, 1, 0]))
    assert sorted(drain(made, OTHER)) == [1, 6]
    made.has(OTHER, [3, 4])
    assert drain(made, OTHER) == [3, 4]
    assert drain(made, OTHER) == []


def test_who_fetch_together_ask_the_owner_for_different_chunks():
    shares = []
    for me, other in ((ME, OTHER), (OTHER, ME)):
        made = swarm(10, OWNER, me=me)
        made.wants(other)
        shares.append(drain(made, OWNER))
    assert sorted(shares[0] + shares[1]) == list(range(10))


def test_others_shares_are_asked_for_only_when_nothing_comes():
    made = swarm(4, OWNER)
    made.wants(OTHER)
    assert len(drain(made, OWNER, 0.0)) == 2
    assert drain(made, OWNER, PATIENCE_S_MIN / 2) == []
    assert len(drain(made, OWNER, PATIENCE_S_MIN)) == 1
    assert len(drain(made, OWNER, 2.1 * PATIENCE_S_MIN)) == 1


def test_more_and_more_of_others_shares_is_asked_for_until_a_peer_brings_something():
    made = swarm(1000, OWNER)
    made.join(OTHER, bytearray(1000))
    now_s, counts = 0.0, []
    drain(made, OWNER, now_s)
    for _ in range(5):
        now_s += 1.01 * PATIENCE_S_MIN
        counts.append(len(drain(made, OWNER, now_s)))
    assert counts == [1, 2, 4, 8, 16]
    made.has(OTHER, [max(index for index in range(1000) if index not in made._asked)])
    arrive(made, OTHER, made.take(OTHER, now_s), now_s)
    assert len(drain(made, OWNER, now_s + 10)) == 1


def test_patience_grows_with_the_time_that_chunks_take_but_not_without_end():
    made = swarm(100, OWNER)
    made.wants(OTHER)
    assert made.patience_s == PATIENCE_S_MIN
    for step in range(40):
        index = made.take(OWNER, step * 5.0)
        if index is not None:
            arrive(made, OWNER, index, step * 5.0 + 5.0)
    assert made.patience_s == PATIENCE_S_MAX


def test_what_a_holder_that_leaves_owes_is_asked_of_others():
    made = swarm(6, OWNER, OTHER)
    lost = [made.take(OTHER, 0.0) for _ in range(3)]
    kept = drain(made, OWNER, 0.0)
    assert sorted(lost + kept) == list(range(6))
    made.leave(OTHER)
    assert sorted(drain(made, OWNER, 0.0)) == sorted(lost)


def test_an_overdue_chunk_is_asked_of_another_holder_too_and_no_more():
    made = swarm(4, OWNER, OTHER, THIRD)
    stalled = made.take(OTHER, 0.0)
    for index in drain(made, OWNER, 0.0):
        arrive(made, OWNER, index, 0.0)
    assert drain(made, OWNER, OVERDUE_S / 2) == []
    assert drain(made, OWNER, OVERDUE_S + 0.1) == [stalled]
    assert drain(made, THIRD, OVERDUE_S + 0.1) == []


def test_a_holder_that_becomes_whole_wants_nothing_any_more():
    made = swarm(4, OWNER)
    made.join(OTHER, bytearray(4))
    assert len(drain(made, OWNER)) == 2
    made.has(OTHER, range(4))
    assert len(drain(made, OTHER)) == 2


def simulate(seed, fetchers, count, *, silent=0, depth=4):
    """All fetch from one owner and each other, a chunk a step and link; return chunks sent by the owner, and steps."""
    rng = random.Random(seed)
    keys = [bytes([number + 10]) * 32 for number in range(fetchers)]
    here = {key: bytearray(count) for key in keys}
    swarms = {}
    for key in keys[silent:]:
        swarms[key] = Swarm(key, here[key], random.Random(rng.random()))
        swarms[key].join(OWNER, None)
    for key in keys[silent:]:
        for other in keys:
            if other != key:
                swarms[key].join(other, bytearray(count))
    from_owner = steps = 0
    while not all(all(here[key]) for key in swarms):
        steps += 1
        now_s = steps * 0.01
        assert steps < 100 * count
        for key in rng.sample(list(swarms), len(swarms)):
            made = swarms[key]
            for holder in (OWNER, *(other for other in keys if other != key)):
                while made.owed(holder) < depth and made.take(holder, now_s) is not None:
                    pass
                owed = made._holders[holder].owes
                if owed and (holder == OWNER or holder in swarms):
                    index = next(iter(owed))
                    from_owner += holder == OWNER
                    arrive(made, holder, index, now_s)
                    for other in swarms:
                        if other != key:
                            swarms[other].has(key, [index])
    return from_owner, steps


@pytest.mark.parametrize("fetchers", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(5))
def test_a_blob_leaves_its_owner_about_once_however_many_fetch_it(seed, fetchers):
    from_owner, _ = simulate(seed, fetchers, 128)
    assert from_owner <= 1.2 * 128


@pytest.mark.parametrize("seed", range(5))
def test_peers_that_bring_nothing_cost_some_time_and_no_more(seed):
    _, alone = simulate(seed, 1, 128)
    from_owner, steps = simulate(seed, 4, 128, silent=3)
    assert from_owner == 128
    assert steps <= 10 * alone
