"""When a peer or an address may be dialled again."""

import random

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.addresses import Address
from depin_node.p2p.dialling import HOST_FAILURES_MAX, Dialling, Purpose


def peer(number):
    return number.to_bytes(32, "big")


def at(host, number, port=4001):
    return Address("ip4", host, port, peer(number))


def dialling(trusted=()):
    return Dialling((0.25, 15.0), trusted, [], random.Random(1))


def attempts(dials, addresses, seconds):
    """Dial whenever it is allowed, and fail; return how often."""
    count = 0
    for second in range(seconds):
        for number, address in enumerate(addresses):
            allowed = dials.allowed(address.peer, [address], second * SECOND_NS)
            if allowed:
                count += 1
                dials.start(address.peer, allowed, Purpose.NEIGHBOUR)
                dials.failed(address.peer, (), second * SECOND_NS)
                assert number < len(addresses)
    return count


def test_a_victim_is_dialled_seldom_whatever_peers_are_said_to_be_there():
    assert attempts(dialling(), [at("20.30.40.50", number) for number in range(200)], 3600) <= 14


def test_a_victim_with_many_ports_is_left_alone_for_a_while():
    dials = dialling()
    lies = [at("20.30.40.50", number, port=1000 + number) for number in range(200)]
    assert attempts(dials, lies, 60) == HOST_FAILURES_MAX
    assert attempts(dialling(), [at("127.0.0.1", number, port=1000 + number) for number in range(200)], 1) == 200


def test_what_the_operator_named_is_tried_on():
    first = at("20.30.40.50", 1)
    assert attempts(dialling([first.peer]), [first], 600) > 30


def test_an_answer_ends_the_pause():
    dials = dialling()
    target = at("20.30.40.50", 1)
    attempts(dials, [target], 300)
    assert not dials.allowed(target.peer, [target], 300 * SECOND_NS)
    dials.answered(target.peer, target)
    assert dials.allowed(target.peer, [target], 300 * SECOND_NS)


def test_what_a_dial_was_for_is_known_when_it_is_answered():
    dials = dialling()
    target = at("20.30.40.50", 1)
    dials.start(target.peer, [target], Purpose.FEELER)
    assert (dials.count(Purpose.FEELER), dials.count(Purpose.ERRAND)) == (1, 0)
    assert not dials.allowed(target.peer, [target], 0)
    dials.ended(target.peer)
    assert dials.answered(target.peer, target) is Purpose.FEELER
    assert dials.answered(target.peer, target) is None
