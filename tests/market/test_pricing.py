"""What a task costs: the units, what others' probes are good for, and both ends under any order of events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from talk_pair import BODY, DIGEST, NAMED, PROVIDER, Pair

from depin_node.compute.market import happenings as hp
from depin_node.compute.market import messages as m
from depin_node.compute.market import provider as pm
from depin_node.compute.market.messages import EndCode, FailCode, Kind, Verdict, Want
from depin_node.compute.market.pricing import (
    CAP,
    FORGIVEN_US,
    LEAST_US,
    NOMINAL,
    PRICE_MAX_US,
    REFERENCE,
    SPEED_MAX,
    TOO_FAR,
    Prices,
    is_too_little,
    reference_speed,
    reference_us,
)
from depin_node.crypto.envelope import verify_signature

ASKED = st.integers(0, 2**40)


def test_a_reference_second_is_a_second_of_the_reference_core():
    assert reference_speed(*REFERENCE) == NOMINAL
    assert reference_us(1_000_000, NOMINAL) == 1_000_000
    twice = reference_speed(*(2 * speed for speed in REFERENCE))
    assert (twice, reference_us(500_000, twice)) == (2 * NOMINAL, 1_000_000)
    assert reference_speed(0, 1250, 2500) == NOMINAL  # nobody has measured it
    assert reference_us(2**48, SPEED_MAX) == PRICE_MAX_US


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 3))
def test_whatever_was_measured_a_speed_can_be_bid(measured):
    assert 1 <= reference_speed(*measured) <= SPEED_MAX


@given(st.lists(ASKED, min_size=2, max_size=9), ASKED)
def test_who_is_cheaper_than_most_gets_what_it_asks_and_nobody_gets_more_than_twice_the_middle(others, asked):
    prices = Prices()
    for number, other in enumerate(others):
        prices.fix(bytes([number]), other)
    usual = sorted(others)[len(others) // 2]
    price = prices.fix(b"me", asked)
    assert price == min(asked, CAP * usual)
    assert not prices.is_too_much(b"me", price)


def test_what_liars_asked_for_is_not_usual():
    prices = Prices()
    for liar in (b"a", b"b"):
        prices.fix(liar, 1000)
    assert prices.fix(b"me", 10**6) == CAP * 1000
    for liar in (b"a", b"b", b"nobody"):
        prices.forget(liar)
    assert prices.fix(b"me", 10**6) == 10**6
    assert not prices.is_too_much(b"me", 10**6)


@pytest.mark.parametrize("others", [[], [1]])
def test_nothing_is_held_against_fewer_than_two_others(others):
    prices = Prices()
    for number, other in enumerate(others):
        prices.fix(bytes([number]), other)
    assert prices.fix(b"me", 10**9) == 10**9
    assert not prices.is_too_much(b"me", 10**9)


@pytest.mark.parametrize("speed", [NOMINAL, 1000 * NOMINAL])
def test_nobody_leaves_for_what_the_machine_makes_of_a_tiny_task(speed):
    assert not is_too_little(1, LEAST_US * 9 + FORGIVEN_US, 9, speed)
    assert is_too_little(1, LEAST_US * 9 + FORGIVEN_US + 9, 9, speed)
    price_us = reference_us(LEAST_US, speed)
    assert not is_too_little(price_us, TOO_FAR * LEAST_US * 9 + FORGIVEN_US, 9, speed)
    assert is_too_little(price_us, TOO_FAR * LEAST_US * 9 + FORGIVEN_US + 9, 9, speed)


@pytest.mark.parametrize("speed", [NOMINAL, 1000 * NOMINAL])
def test_nobody_leaves_for_one_answer_that_had_to_wait_for_the_processor(speed):
    pair = Pair(speed=speed).work(1, 2, 3)
    pair.p.finished(0, NAMED, 700)
    pair.to_requester()
    pair.p.finished(1, NAMED, 200_000)
    pair.r.assign(0, 3, [4], pair.now)
    assert pair.to_provider() == [Kind.PRICE, Kind.TASKS]
    assert pair.p.tick(pair.now) == []
    pair.p.finished(2, NAMED, 200_000)
    assert pair.p.tick(pair.now)[-1] == pm.Over("price")


def judged(pair, *asked):
    for number, other in enumerate(asked):
        pair.prices.fix(bytes([number]), other)
    return pair


def test_the_first_answer_fixes_the_price_and_the_next_tasks_bring_it():
    pair = Pair(speed=2 * NOMINAL).work(1, 2)
    pair.at_s += 1
    pair.p.finished(1, NAMED, 300)
    assert pair.to_requester() == [Kind.COMMITS]
    pair.p.finished(0, NAMED, 100)
    assert pair.to_requester() == [Kind.COMMITS]
    assert [event for event in pair.heard if isinstance(event, hp.Priced)] == [hp.Priced(BODY.job, 600)]
    assert pair.to_provider() == []  # nothing more is sent for it
    pair.r.assign(0, 2, [3], pair.now)
    assert pair.to_provider() == [Kind.PRICE, Kind.TASKS]
    pair.r.assign(0, 3, [4], pair.now)
    assert pair.to_provider() == [Kind.TASKS]


@pytest.mark.parametrize(("took", "price"), [((900, 100, 300), 300), ((900, 100), 100)])
def test_of_answers_that_come_together_the_middle_one_is_the_probe(took, price):
    pair = Pair().work(*range(len(took)))
    for attempt, took_us in enumerate(took):
        pair.p.finished(attempt, NAMED, took_us)
    assert pair.to_requester() == [Kind.COMMITS]
    assert pair.heard[0] == hp.Priced(BODY.job, price)


def test_no_task_costs_more_than_its_limit_of_time_however_long_it_is_said_to_have_taken():
    pair = Pair(slots=256, speed=SPEED_MAX).work(1)
    pair.at_s += 10_000
    pair.p.finished(0, NAMED, 2**47)
    pair.to_requester()
    assert pair.heard[0] == hp.Priced(BODY.job, reference_us(BODY.terms.limits.seconds * 1_000_000, SPEED_MAX))


def test_a_work_that_ends_with_its_probe_has_its_price_in_the_receipt():
    pair = Pair().reveal()
    pair.r.release(0, Verdict.ACCEPTED, pair.now)
    pair.heard += pair.r.close_work(0, "quorum 1 of 1", pair.now)
    pair.r.send_receipt(pair.take(hp.StoreReceipt))
    assert pair.to_provider() == [Kind.RELEASE, Kind.CANCEL, Kind.RECEIPT]
    stored = pair.take(pm.StoreReceipt)
    (settled,) = verify_signature(stored.envelope, m.Receipt, "net").payload.settled
    assert settled.price_us == stored.busy_us == 55


def test_a_probe_took_no_longer_than_passed_here():
    pair = Pair(slots=1).work()
    pair.at_s += 2
    pair.p.finished(0, NAMED, 3600 * 10**6)
    pair.to_requester()
    assert pair.heard[0] == hp.Priced(BODY.job, 3_000_000)  # with a second's grace


def test_who_asks_far_more_than_others_is_paid_what_is_usual_and_leaves_by_code():
    pair = judged(Pair().work(1, 2), 100, 120, 90)
    pair.at_s += 1
    pair.p.finished(0, NAMED, 500_000)
    pair.to_requester()
    assert pair.heard[0] == hp.Priced(BODY.job, CAP * 100)
    pair.r.assign(0, 2, [3], pair.now)
    pair.to_provider()
    assert pair.p.tick(pair.now)[-1] == pm.Over("price")
    pair.to_requester()
    assert pair.heard[-1] == hp.Ended("price")


def test_who_was_dear_before_others_came_is_told_to_go():
    pair = Pair().work(1, 2)
    pair.at_s += 1
    pair.p.finished(0, NAMED, 500_000)
    pair.to_requester()
    assert not pair.r.tick(pair.now)
    judged(pair, 100, 120)
    assert pair.r.tick(pair.now) == [hp.Ended("dear")]
    assert pair.to_provider() == [Kind.END]
    assert pair.ordered[-1] == pm.Over(EndCode.PRICE.value)


class Market(RuleBasedStateMachine):
    """One conversation with whatever run times, failures and prices of others: both ends always mean the same price,
    nobody breaks a rule, and what receipts say is what was fixed."""

    def __init__(self):
        super().__init__()
        self.pair = Pair(slots=2, window_max=4).agree()
        self.pair.r.open_work(0, BODY, b"grant", lambda task: tuple(o.size_bytes for o in NAMED), self.pair.prices,
                              self.pair.now)  # fmt: skip
        self.next = 0
        self.running, self.committed, self.shown, self.price = set(), [], [], None
        self.pump()

    def pump(self):
        pair = self.pair
        while pair.to_provider() or pair.to_requester():
            pass
        for event in pair.heard:
            if isinstance(event, hp.Priced):
                assert self.price is None, "fixed twice"
                self.price = event.task_us
            elif isinstance(event, hp.Failed):
                self.running -= {attempt for attempt, _ in event.items}
            elif isinstance(event, hp.Committed):
                self.committed += [attempt for attempt, *_ in event.items]
                self.running -= set(self.committed)
            elif isinstance(event, hp.StoreReceipt):
                pair.r.send_receipt(event)
        pair.heard.clear()
        pair.ordered.clear()

    def open(self):
        return not self.pair.p.is_over() and self.pair.r._state.name == "AGREED"

    @precondition(lambda self: self.open() and len(self.pair.r._attempts) < 4 and self.next < 40)
    @rule(data=st.data())
    def send(self, data):
        room = min(4 - len(self.pair.r._attempts), 40 - self.next)
        tasks = list(range(self.next, self.next + data.draw(st.integers(1, room))))
        self.pair.r.assign(0, self.next, tasks, self.pair.now)
        self.running |= set(tasks)
        self.next += len(tasks)
        self.pump()

    @precondition(lambda self: self.open() and self.running)
    @rule(took_us=st.sampled_from([0, 7, 5000, 40_000, 10**7]), pick=st.integers(0, 99))
    def answer(self, took_us, pick):
        attempt = sorted(self.running)[pick % len(self.running)]
        self.pair.p.finished(attempt, NAMED, took_us)
        self.pump()

    @precondition(lambda self: self.open() and self.running)
    @rule(pick=st.integers(0, 99))
    def fail(self, pick):
        attempt = sorted(self.running)[pick % len(self.running)]
        self.pair.p.failed(attempt, FailCode.CRASHED, self.pair.now)
        self.pump()

    @precondition(lambda self: self.open() and self.running)
    @rule(pick=st.integers(0, 99))
    def withdraw(self, pick):
        attempt = sorted(self.running)[pick % len(self.running)]
        self.running.discard(attempt)
        self.pair.r.release(attempt, None, self.pair.now)
        self.pump()

    @precondition(lambda self: self.open() and self.committed)
    @rule(verdict=st.sampled_from([Verdict.ACCEPTED, Verdict.REJECTED, Verdict.UNUSED]))
    def settle(self, verdict):
        attempt = self.committed.pop()
        self.pair.r.ask(attempt, DIGEST, Want.ROOT, self.pair.now)
        self.pump()
        assert self.pair.r.release(attempt, verdict, self.pair.now) == []
        self.pump()

    @rule(number=st.integers(0, 5), asked=st.sampled_from([1, 5000, 40_000, 10**7]))
    def another_provider_is_probed(self, number, asked):
        self.pair.prices.fix(bytes([number]), asked)

    @precondition(lambda self: self.open())
    @rule(seconds=st.sampled_from([1, 3, 11]))
    def time_passes(self, seconds):
        for _ in range(seconds):
            self.pair.at_s += 1
            self.pair.heard += self.pair.r.tick(self.pair.now)
            self.pair.ordered += self.pair.p.tick(self.pair.now)
            ended = [event for event in self.pair.heard if isinstance(event, hp.Ended)]
            assert all(event.code in ("dear", "idle", "price", "stalled") for event in ended), ended
            self.pump()

    @invariant()
    def both_ends_mean_the_same(self):
        account, work = self.pair.p._accounts.get(0), self.pair.r._works.get(0)
        if account is not None and account.price_us is not None:
            assert account.price_us == self.price
        if work is not None:
            assert work.price_us == self.price
            assert all(settled.price_us == self.price for settled in work.dues._settled)
        assert PROVIDER.key not in self.pair.prices._asked or self.price is not None


Market.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestMarket = Market.TestCase
