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


def quote(slots, devices=(0,), device_class="wasm-1"):
    return Quote(device_class, 256, slots, 3, DURATION_S_MAX, devices)


@pytest.fixture
def lender():
    return Lender([Lending("wasm-1", 2, 512, price=3, seconds_max=60, output_bytes_max=1 << 20)])


@pytest.fixture
def machine():
    """A processor of two slots and three GPUs, the last one a smaller."""
    return Lender(
        [Lending("wasm-1", 2, 512), *(Lending("strict-1", 1, memory_mib) for memory_mib in (8192, 8192, 4096))]
    )


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
    assert lender.take(Holder(lender), "g", quote(1)) is DeclineCode.DRAINING
    lender.withdraw(0)
    assert lender.quote(PEER, "g", offer(price=9), NOW) is DeclineCode.NOT_LENDING


def test_a_quote_promises_nothing_and_an_award_may_come_too_late(lender):
    for group in "ab":
        assert lender.quote(PEER, group, offer(price=9), NOW) == quote(2)
    first = Holder(lender)
    assert lender.take(first, "a", quote(2)) == {0: 2}
    assert lender.slots_free(0) == 0
    assert lender.take(Holder(lender), "b", quote(2)) is DeclineCode.BUSY
    assert lender.quote(PEER, "b", offer(price=9), NOW) is DeclineCode.BUSY
    lender.free(first)
    lender.free(first)
    assert lender.slots_free(0) == 2


def test_one_group_has_one_agreement(lender):
    lender.take(Holder(lender), "a", quote(1))
    assert lender.quote(b"q" * 32, "a", offer(price=9), NOW) is DeclineCode.GROUP_LIMIT
    assert lender.take(Holder(lender), "a", quote(1)) is DeclineCode.GROUP_LIMIT
    assert isinstance(lender.quote(PEER, "b", offer(price=9), NOW), Quote)


def test_idle_agreements_give_way(lender):
    idle = Holder(lender, idle=True)
    lender.take(idle, "a", quote(2))
    assert lender.quote(PEER, "b", offer(price=9), NOW).slots == 2
    busy = Holder(lender)
    assert lender.take(busy, "b", quote(2)) == {0: 2}
    assert list(lender._held) == [busy]
    idle = Holder(lender, idle=True)
    lender.free(busy)
    lender.take(idle, "a", quote(1))
    assert lender.take(Holder(lender), "a", quote(2)) == {0: 2}  # the same group's own
    assert idle not in lender._held


def test_an_agreement_is_about_one_class_and_has_all_devices_of_it_that_fit(machine):
    assert machine.quote(PEER, "a", offer(), NOW) == Quote("wasm-1", 256, 2, 0, DURATION_S_MAX, (0,))
    large = machine.quote(PEER, "a", offer(("strict-1",), memory_mib=8000), NOW)
    assert (large.slots, large.devices) == (2, (1, 2))
    any_size = machine.quote(PEER, "a", offer(("strict-1",)), NOW)
    assert (any_size.slots, any_size.devices) == (3, (1, 2, 3))
    assert machine.take(Holder(machine), "a", large) == {1: 1, 2: 1}
    assert [machine.slots_free(device) for device in range(4)] == [2, 0, 0, 1]
    assert machine.quote(b"q" * 32, "a", offer(("strict-1",)), NOW) is DeclineCode.GROUP_LIMIT
    assert machine.quote(b"q" * 32, "a", offer(), NOW).device_class == "wasm-1"  # of another class it may have one
    either = offer(("strict-1", "wasm-1"))
    assert machine.quote(b"q" * 32, "b", either, NOW).device_class == "wasm-1"  # in the order of the configuration
    assert machine.take(Holder(machine), "b", machine.quote(PEER, "b", offer(), NOW)) == {0: 2}
    assert machine.quote(b"q" * 32, "c", either, NOW).devices == (1, 2, 3)
    assert machine.quote(b"q" * 32, "c", either, NOW).slots == 1
    assert machine.quote(b"q" * 32, "c", offer(("strict-1",), memory_mib=8000), NOW) is DeclineCode.BUSY


def test_a_lost_device_is_withdrawn_alone(machine):
    quoted = machine.quote(PEER, "a", offer(("strict-1",)), NOW)
    machine.withdraw(2)
    assert machine.take(Holder(machine), "a", quoted) is DeclineCode.BUSY  # less is there than was bid
    quoted = machine.quote(PEER, "a", offer(("strict-1",)), NOW)
    assert (quoted.slots, quoted.devices) == (2, (1, 3))
    holder = Holder(machine)
    assert machine.take(holder, "a", quoted) == {1: 1, 3: 1}
    machine.withdraw(1)
    assert machine.devices() == [0, 3]
    assert (machine.slots(), machine.slots_free(1), machine.slots_free(3)) == (3, 0, 0)
    machine.free(holder)
    assert (machine.slots_free(1), machine.slots_free(3)) == (0, 1)
    machine.withdraw(3)
    assert machine.quote(PEER, "a", offer(("strict-1",)), NOW) is DeclineCode.UNSUPPORTED_CLASS
    assert isinstance(machine.quote(PEER, "a", offer(), NOW), Quote)


def test_the_window_is_what_results_may_hold(lender):
    assert lender.quote(PEER, "g", offer(output_bytes=1 << 19, price=9), NOW).window == 4
    assert lender.quote(PEER, "g", offer(output_bytes=1 << 20, price=9), NOW).window == 2
    assert lender.quote(PEER, "g", offer(output_bytes=0, price=9), NOW).window == 256


def test_durations_end_so_that_others_get_their_turn(lender):
    assert lender.quote(PEER, "g", offer(duration_s=5, price=9), NOW).duration_s == 5
    lender.lent = [Lending("wasm-1", 1, 512, seconds_max=3600)]
    assert lender.quote(PEER, "g", offer(seconds=3600, duration_s=86_400), NOW).duration_s == 7200
