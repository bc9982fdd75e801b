"""Which address of a peer is dialled first."""

import pytest

from depin_node.p2p.addresses import peer_id
from depin_node.p2p.reach.ways import best_first, is_callable

PEER, RELAY = peer_id(bytes(32)), peer_id(bytes([1]) * 32)
INSIDE = f"/ip4/192.168.1.5/tcp/4701/p2p/{PEER}"
OUTER = f"/ip4/203.0.113.7/tcp/4701/p2p/{PEER}"
CIRCUIT = f"/ip4/198.51.100.1/tcp/4701/p2p/{RELAY}/p2p-circuit/p2p/{PEER}"
NAME = f"/dns/a.example/tcp/4701/p2p/{PEER}"
LOOPBACK = f"/ip4/127.0.0.1/tcp/4701/p2p/{PEER}"
UNIQUE = f"/ip6/fd00:1:2::5/tcp/4701/p2p/{PEER}"


def test_a_neighbour_is_dialled_inside_first_and_a_stranger_not_at_all_there() -> None:
    assert best_first([CIRCUIT, OUTER, INSIDE], {"192.168.9.9"}) == [INSIDE, OUTER, CIRCUIT]
    assert best_first([CIRCUIT, OUTER, INSIDE], {"10.1.1.1"}) == [OUTER, CIRCUIT]
    assert best_first([UNIQUE, CIRCUIT], {"fd00:1:2::9"}) == [UNIQUE, CIRCUIT]
    assert best_first([UNIQUE, CIRCUIT], {"fd00:9::9"}) == [CIRCUIT]


def test_the_only_address_is_tried_whatever_it_is() -> None:
    assert best_first([INSIDE], {"10.1.1.1"}) == [INSIDE]
    assert best_first([], set()) == []


def test_names_and_loopback_stay() -> None:
    assert best_first([NAME, LOOPBACK, CIRCUIT], {"127.0.0.1"}) == [NAME, LOOPBACK, CIRCUIT]


@pytest.mark.parametrize(
    ("host", "may_be"),
    [
        ("192.0.2.1", True),
        ("10.1.2.3", True),
        ("2001:db8::1", True),
        ("::ffff:192.0.2.1", True),
        ("127.1.2.3", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:7f00:1", False),
        ("0.0.0.0", False),
        ("::ffff:0.0.0.0", False),
        ("::ffff:169.254.169.254", False),
        ("ff02::1", False),
        ("2001:db8::1%lo", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_nobody_has_this_machine_called(host: str, may_be: bool) -> None:
    assert is_callable(host) is may_be
