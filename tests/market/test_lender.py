import pytest

from depin_node.compute.jobs.job import Limits
from depin_node.compute.market.lender import DURATION_S_MAX, Lender, Lending, Quote
from depin_node.compute.market.messages import DeclineCode, Offer, Terms
from depin_node.core.clock import Now

PEER = b"p" * 32
NOW = Now(10**12, 10**18)


class Holder:
    def __init__(self, lender, idle=False):
        self.lender, self.idle = lender, idle

    def is_idle(self):
        return self.idle

    def give_way(self):
        self.lender.free(self)


def offer(classes=("wasm-1",), seconds=10, memory_mib=64, output_bytes=100, price=0, duration_s=3600):
    return Offer(b"", 0, 0, Terms(classes, Limits(seconds, memory_mib), output_bytes), price, duration_s)


@pytest.fixture
def lender():
    return Lender(Lending(("wasm-1",), 2, 512, price=3, seconds_max=60, output_bytes_max=1 << 20))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (offer(classes=("cuda",), price=9), DeclineCode.UNSUPPORTED_CLASS),
        (offer(memory_mib=513, price=9), DeclineCode.MEMORY),
        (offer(seconds=61, price=9), DeclineCode.TIME),
        (offer(output_bytes=1 + (1 << 20), price=9), DeclineCode.TOO_LARGE),
        (offer(price=2), DeclineCode.PRICE),
    ],
)
def test_what_does_not_fit_is_declined_with_the_reason(lender, asked, code):
    assert lender.quote(PEER, "g", asked, NOW) is code


def test_who_may_not_and_when(lender):
    lender.banned.add(PEER)
    assert lender.quote(PEER, "g", offer(price=9), NOW) is DeclineCode.BANNED
    lender.draining = True
    assert lender.quote(b"q" * 32, "g", offer(price=9), NOW) is DeclineCode.DRAINING
    assert lender.take(Holder(lender), "g", 1) is DeclineCode.DRAINING
    lender.lending = None
    assert lender.quote(PEER, "g", offer(price=9), NOW) is DeclineCode.NOT_LENDING


def test_a_quote_promises_nothing_and_an_award_may_come_too_late(lender):
    for group in "ab":
        assert lender.quote(PEER, group, offer(price=9), NOW) == Quote("wasm-1", 256, 2, 3, DURATION_S_MAX)
    first = Holder(lender)
    assert lender.take(first, "a", 2) is None
    assert lender.slots_free() == 0
    assert lender.take(Holder(lender), "b", 2) is DeclineCode.BUSY
    assert lender.quote(PEER, "b", offer(price=9), NOW) is DeclineCode.BUSY
    lender.free(first)
    lender.free(first)
    assert lender.slots_free() == 2


def test_one_group_has_one_agreement(lender):
    lender.take(Holder(lender), "a", 1)
    assert lender.quote(b"q" * 32, "a", offer(price=9), NOW) is DeclineCode.GROUP_LIMIT
    assert lender.take(Holder(lender), "a", 1) is DeclineCode.GROUP_LIMIT
    assert isinstance(lender.quote(PEER, "b", offer(price=9), NOW), Quote)


def test_idle_agreements_give_way(lender):
    idle = Holder(lender, idle=True)
    lender.take(idle, "a", 2)
    assert lender.quote(PEER, "b", offer(price=9), NOW).slots == 2
    busy = Holder(lender)
    assert lender.take(busy, "b", 2) is None
    assert list(lender._held) == [busy]
    idle = Holder(lender, idle=True)
    lender.free(busy)
    lender.take(idle, "a", 1)
    assert lender.take(Holder(lender), "a", 2) is None  # the same group's own
    assert idle not in lender._held


def test_the_window_is_what_results_may_hold(lender):
    assert lender.quote(PEER, "g", offer(output_bytes=1 << 19, price=9), NOW).window == 4
    assert lender.quote(PEER, "g", offer(output_bytes=1 << 20, price=9), NOW).window == 2
    assert lender.quote(PEER, "g", offer(output_bytes=0, price=9), NOW).window == 256


def test_durations_end_so_that_others_get_their_turn(lender):
    assert lender.quote(PEER, "g", offer(duration_s=5, price=9), NOW).duration_s == 5
    lender.lending = Lending(("wasm-1",), 1, 512, seconds_max=3600)
    assert lender.quote(PEER, "g", offer(seconds=3600, duration_s=86_400), NOW).duration_s == 7200
