"""Tabs, audits and catches; the long version of the claim is ``make sim-trust``."""

import math
from math import e, exp
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trust_world import ADVERSARIES, Scale, World, policies

from depin_node.compute.jobs.job import Confidence
from depin_node.compute.verification import bounds
from depin_node.compute.verification.bounds import DRAWS
from depin_node.compute.verification.settlement import TAB_MAX, Ruling, Settlement, audit_key, draw_of, part_draws

POLICY = Confidence(0.999, 0.2)
RIGHT, WRONG = b"r" * 32, b"w" * 32
NEVER = DRAWS - 1


def lead_work(d, f):
    """The expected attempts until some answer leads by d: gambler's ruin, share f hostile."""
    return d * (1 - 2 * bounds.lead_error(d, f)) / (1 - 2 * f)


@given(st.floats(0, 50))
def test_lambert_w_inverts(w):
    assert bounds.lambert_w(w * exp(w)) == pytest.approx(w, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.9, 0.9999), st.floats(0.01, 0.45), st.integers(1, 20_000))
def test_rates_hold_the_bound_and_the_published_one(p, f, n):
    rate = bounds.audit_rate(p, f, n)
    assert min(1, f / (e * (1 - p) * n)) <= rate <= 1
    assert bounds.wrong_share(rate, f, n) <= (1 - p) * (1 + 1e-9)
    if rate < 1:  # no number of lies pays more, whoever is caught trying again with probability f
        best = round(1.1 / rate)
        for lies in {1, 2, n, *range(max(1, best - 3), min(n, best + 4))}:
            q = (1 - rate) ** lies
            assert f * lies * q / (n * (1 - f + f * q)) <= (1 - p) * (1 + 1e-9)


@settings(deadline=None)
@given(st.floats(0.9, 0.9999), st.floats(0.01, 0.45), st.integers(1, 20_000))
def test_audits_by_peers_hold_the_bound_though_some_deny_every_lie(p, f, n):
    audits = bounds.peer_audits(p, f, n)
    assert audits >= min(1, bounds.audit_rate(p, f, n))
    k = int(audits)
    missed = f**k * (1 - (audits - k) * (1 - f))  # of one lie: all who were asked are in league
    best = round(1.1 / -math.log(missed))
    for lies in {1, 2, n, *range(max(1, best - 3), min(n, best + 4))}:
        q = missed**lies
        assert f * lies * q / (n * (1 - f + f * q)) <= (1 - p) * (1 + 1e-9)
    assert bounds.peer_wrong_share(audits, f, n) <= (1 - p) * (1 + 1e-9)
    assert audits < lead_work(bounds.lead_for(p, f), f) or n < 3


def test_who_comes_back_is_run_again_often_enough_for_any_number_of_names():
    rng, p, f = Random(1), 0.98, 0.3
    k, wrong = bounds.late_audits(p, f), 0
    assert k == 3
    for _ in range(20_000):
        while True:  # a task is drawn anew after each catch
            if rng.random() >= f:
                break
            if all(rng.random() < f for _ in range(k)):
                wrong += 1
                break
    assert wrong / 20_000 < 1 - p


def by_peers(tasks=1000):
    return Settlement(POLICY, tasks, by_peers=True)


def test_peers_audit_as_often_as_the_length_asks_and_confirm_nothing_by_themselves():
    settlement = by_peers()
    draw = int(0.11 * DRAWS)  # 91 audits of 1,000, and a quarter more
    assert answers(settlement, b"a", range(1000), draw=draw)[-1:] == [999]
    assert settlement.due(999) == 1
    assert not settlement.audited(999, RIGHT).settled
    assert settlement.audits == 0  # nothing runs here
    short = by_peers(10)
    assert answers(short, b"a", range(10), draw=NEVER) == list(range(10))
    assert short.due(0) == int(bounds.peer_audits(POLICY.p, POLICY.f, 10)) == 2
    for task in range(10):
        assert not short.audited(task, RIGHT).settled
    more = short.close()
    assert not more.audit
    assert sorted(more.settled) == list(range(10))
    assert short.wrong_expected() <= 10 * (1 - POLICY.p)


def test_who_joins_after_a_catch_is_run_again_by_more_peers():
    settlement = by_peers()
    settlement.joined(b"h")
    assert answers(settlement, b"liar", [0], WRONG, draw=1) == [0]
    assert settlement.audited(0, RIGHT).caught == b"liar"
    assert answers(settlement, b"again", [0], draw=NEVER) == [0]
    assert settlement.due(0) == bounds.late_audits(POLICY.p, POLICY.f) == 4
    assert answers(settlement, b"h", [1], draw=1) == [1]
    assert settlement.due(1) == 1


@given(st.floats(0.01, 0.45), st.floats(0.6, 0.99999))
def test_a_lead_is_the_least_that_holds_its_error(f, p):
    d = bounds.lead_for(p, f)
    assert bounds.lead_error(d, f) <= 1 - p + 1e-12
    assert d == 1 or bounds.lead_error(d - 1, f) > 1 - p - 1e-9


def test_work_until_a_lead_is_the_gambler_s():
    rng, runs, total = Random(1), 4000, 0
    for _ in range(runs):
        ahead = 0
        while abs(ahead) < 3:
            ahead += -1 if rng.random() < 0.2 else 1
            total += 1
    assert lead_work(3, 0.2) == pytest.approx(total / runs, rel=0.05)


def answers(settlement, peer, tasks, root=RIGHT, draw=NEVER):
    due = []
    for task in tasks:
        due += settlement.accepted(peer, task, root, draw, is_newcomer=False).audit
    return due


def test_an_answer_is_provisional_until_all_are_settled_together():
    settlement = Settlement(POLICY, 2000)
    assert answers(settlement, b"a", range(1000)) == []
    assert answers(settlement, b"b", range(1000, 2000)) == []
    ruling = settlement.close()
    assert (sorted(ruling.settled), ruling.audit) == (list(range(2000)), ())
    assert 0 < settlement.wrong_expected() <= 2


def test_newcomers_are_audited_in_all_they_do_and_each_confirmed_answer_is_settled():
    settlement = Settlement(POLICY, 2000)
    ruling = settlement.accepted(b"n", 0, RIGHT, NEVER, is_newcomer=True)
    assert ruling.audit == (0,)
    assert settlement.audited(0, RIGHT) == Ruling(settled=(0,))


def test_a_catch_voids_what_is_not_settled_and_whoever_joins_later_is_audited_in_all():
    settlement = Settlement(POLICY, 3000)
    answers(settlement, b"liar", range(500), WRONG)
    answers(settlement, b"honest", range(500, 1000))
    assert answers(settlement, b"liar", [1000], RIGHT, draw=0) == [1000]
    assert settlement.audited(1000, RIGHT).settled == (1000,)  # confirmed: right, whoever gave it
    assert answers(settlement, b"liar", [1001], WRONG, draw=0) == [1001]
    ruling = settlement.audited(1001, RIGHT)
    assert (ruling.caught, sorted(ruling.void)) == (b"liar", [*range(500), 1001])
    assert settlement.accepted(b"honest", 0, RIGHT, NEVER, is_newcomer=False).audit == ()
    assert settlement.accepted(b"again", 1, WRONG, NEVER, is_newcomer=False).audit == (1,)


def in_parts(parts, tasks=100):
    return Settlement(Confidence(0.999, 0.2, parts), tasks, parts=parts)


def test_a_tab_of_parts_costs_as_many_audits_and_each_is_a_part():
    """What a settlement costs is a number of audits: of parts now."""
    key = audit_key(bytes(32))
    whole, cut = in_parts(1), in_parts(64)
    for task in range(100):
        for settlement in (whole, cut):
            draw = draw_of(key, b"job", task, b"")
            due = settlement.accepted(b"a", task, RIGHT, draw, is_newcomer=False).audit
            for number in due:
                settlement.audited(number, RIGHT)
    for settlement in (whole, cut):
        for number in settlement.close().audit:
            settlement.audited(number, RIGHT)
        assert not settlement.close().audit
    assert whole.audits > 60
    assert 0.4 < cut.audits < 4  # 91 parts of 64 a task


def test_parts_that_were_found_right_are_not_run_again_and_all_of_them_settle_an_answer():
    settlement = in_parts(4)
    assert settlement.accepted(b"n", 0, RIGHT, NEVER, is_newcomer=True).audit == (0,)
    assert settlement.parts(0) == (0, 1, 2, 3)
    assert settlement.audited(0, RIGHT).settled == (0,)
    settlement = in_parts(4, 10_000)
    draw = next(d for d in range(1, 999) if 1 <= sum(part < 0.3 * DRAWS for part in part_draws(d, 4)) < 4)
    assert not settlement.accepted(b"a", 0, RIGHT, draw, is_newcomer=False).audit
    assert settlement.close().audit == (0,)  # a tab of one: all parts at once
    assert settlement.parts(0) == (0, 1, 2, 3)
    settlement = in_parts(4, 10_000)
    for task in range(60):  # of 240 parts nearly every third is run
        settlement.accepted(b"a", task, RIGHT, draw if task == 0 else NEVER, is_newcomer=False)
    assert 0 in settlement.close().audit
    seen = set(settlement.parts(0))
    assert 0 < len(seen) < 4
    assert not settlement.audited(0, RIGHT).settled
    assert 0 not in settlement.close().audit


@settings(deadline=None, max_examples=200)
@given(st.floats(0.9, 0.9999), st.floats(0.01, 0.45), st.integers(1, 400), st.integers(2, 64))
def test_whatever_share_of_each_result_is_wrong_the_share_of_wrong_parts_is_bounded(p, f, n, parts):
    """A liar that makes ``wrong`` parts of ``lies`` results wrong: each part is audited by itself."""
    rate = bounds.audit_rate(p, f, n * parts)
    for wrong in {1, 2, parts // 2 or 1, parts}:
        for lies in {1, 2, n, *(max(1, min(n, round(x / (rate * wrong)))) for x in (0.5, 1.0, 1.1))}:
            q = (1 - rate) ** (wrong * lies)
            assert f * wrong * lies * q / (n * parts * (1 - f + f * q)) <= (1 - p) * (1 + 1e-9)


def test_a_short_tab_is_audited_more():
    short, long = Settlement(POLICY, 100), Settlement(POLICY, 5000)
    draw = int(0.05 * DRAWS)
    answers(short, b"a", range(100), draw=draw)
    answers(long, b"a", range(5000), draw=draw)
    assert len(short.close().audit) + short.audits > 0
    assert long.close().audit == ()
    assert long.audits == 0


def test_a_full_tab_is_settled_by_itself():
    settlement = Settlement(POLICY, 10 * TAB_MAX)
    settled = ()
    for task in range(TAB_MAX):
        settled += settlement.accepted(b"a", task, RIGHT, NEVER, is_newcomer=False).settled
    assert len(settled) == TAB_MAX
    assert settlement.accepted(b"a", TAB_MAX, RIGHT, NEVER, is_newcomer=False).settled == ()


def test_an_audit_that_cannot_be_made_takes_the_answer_off():
    settlement = Settlement(POLICY, 10)
    assert answers(settlement, b"a", [0], draw=0) == [0]
    assert settlement.withdraw(0) == Ruling(void=(0,))
    assert settlement.audited(0, RIGHT) == Ruling()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_answer_is_settled_once_or_void_whatever_happens(data):
    """A story of answers, audits in any order, catches and restarts: nothing is lost, nothing settled wrongly twice."""
    tasks = data.draw(st.integers(1, 40))
    parts = data.draw(st.sampled_from([1, 1, 3]))
    policy = Confidence(data.draw(st.sampled_from([0.9, 0.99])), data.draw(st.sampled_from([0.05, 0.3])), parts)
    settlement, key = Settlement(policy, tasks, parts=parts), audit_key(bytes(32))
    waiting, auditing, settled, journal, catches = list(range(tasks)), [], set(), {}, 0
    liars = data.draw(st.sets(st.integers(0, 3), max_size=2))

    def follow(ruling):
        nonlocal catches
        auditing.extend(ruling.audit)
        assert not settled & set(ruling.settled), "settled twice"
        assert not settled & set(ruling.void), "settled is for good"
        settled.update(ruling.settled)
        if ruling.caught:
            catches += 1
            assert ruling.caught[0] in liars
        waiting.extend(ruling.void)
        for task in ruling.void:
            journal.pop(task)

    for _ in range(400):
        if len(settled) == tasks:
            break
        move = data.draw(st.sampled_from(["answer", "audit", "audit", "restart", "close"]))
        if move == "answer" and waiting:
            task, who = waiting.pop(), data.draw(st.integers(0, 3))
            root = WRONG if who in liars else RIGHT
            draw = draw_of(key, b"job", task, bytes([who]))
            newcomer = data.draw(st.booleans())
            journal[task] = (bytes([who]), root, 0 if newcomer else draw)
            follow(settlement.accepted(bytes([who]), task, root, draw, is_newcomer=newcomer))
        elif move == "audit" and auditing:
            task = auditing.pop(data.draw(st.integers(0, len(auditing) - 1)))
            provider = settlement.provider(task)
            follow(settlement.audited(task, RIGHT))
            assert parts > 1 or provider is None or task in settled or journal.get(task) is None
        elif move == "restart":
            settlement, auditing = Settlement(policy, tasks, catches=catches, parts=parts), []
            for task, (peer, root, draw) in journal.items():
                settlement.restored(peer, task, root, draw, is_confirmed=task in settled)
            follow(settlement.resume())
        elif move == "close" and not waiting:
            follow(settlement.close())
    else:
        while len(settled) < tasks:  # what is left ends when everybody is honest
            liars = liars if auditing else set()
            while auditing:
                follow(settlement.audited(auditing.pop(), RIGHT))
            while waiting:
                task = waiting.pop()
                journal[task] = (b"\x09", RIGHT, NEVER)
                follow(settlement.accepted(b"\x09", task, RIGHT, NEVER, is_newcomer=False))
            follow(settlement.close())
    assert len(settled) == tasks


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_the_claim_in_small(adversary):
    """One requester, two seeds; the bound is of an expectation, so three standard errors are given."""
    scale, runs = Scale(requesters=1, tasks=20_000), 2
    outcomes = [World(scale, 0.2, adversary, seed).run(policies()["confidence(0.999, 0.2)"]) for seed in range(runs)]
    wrong = sum(outcome.wrong for outcome in outcomes) / (runs * scale.tasks)
    assert wrong <= 0.001 + 3 * 0.0008 / runs**0.5
    assert sum(outcome.work for outcome in outcomes) / (runs * scale.tasks) <= 1.4
    assert sum(outcome.honest_caught for outcome in outcomes) == 0


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_audits_by_peers_in_small(adversary):
    """Accomplices deny each other's lies when they are the ones who are asked."""
    scale, runs = Scale(requesters=1, tasks=20_000), 2
    outcomes = [World(scale, 0.2, adversary, seed).run(policies()["confidence by peers"]) for seed in range(runs)]
    wrong = sum(outcome.wrong for outcome in outcomes) / (runs * scale.tasks)
    assert wrong <= 0.001 + 3 * 0.0008 / runs**0.5
    assert sum(outcome.work for outcome in outcomes) / (runs * scale.tasks) <= 3.5
    assert sum(outcome.honest_caught for outcome in outcomes) == 0
