"""A relay gives away no more than it said it would."""

import pytest

from depin_node.core.clock import SECOND_NS, Now
from depin_node.p2p.reach.desk import RelayDesk, RelayLimits, RelayRefused


def at(seconds: float) -> Now:
    return Now(int(seconds * SECOND_NS), 0)


def test_places_are_bounded_in_all_and_for_each_group_and_can_be_renewed() -> None:
    desk = RelayDesk(RelayLimits(places_max=3, places_per_group_max=2))
    desk.reserve(b"a", "g", at(0))
    desk.reserve(b"b", "g", at(0))
    desk.reserve(b"a", "g", at(1))  # a renewal takes no second place
    with pytest.raises(RelayRefused, match="no_place"):
        desk.reserve(b"c", "g", at(1))
    desk.reserve(b"c", "h", at(1))
    with pytest.raises(RelayRefused, match="no_place"):
        desk.reserve(b"d", "i", at(1))
    desk.lost(b"b")
    desk.reserve(b"d", "i", at(1))


def test_a_place_that_is_not_renewed_ends() -> None:
    desk = RelayDesk(RelayLimits(place_s=10))
    desk.reserve(b"a", "g", at(0))
    desk.open(b"s", "h", b"a", at(9))
    with pytest.raises(RelayRefused, match="no_reservation"):
        desk.open(b"s", "h", b"a", at(10))


def test_circuits_are_bounded_by_peer_by_group_and_in_all() -> None:
    limits = RelayLimits(circuits_max=4, circuits_per_peer_max=2, circuits_per_group_max=3)
    desk = RelayDesk(limits)
    for target in (b"t", b"u", b"v"):
        desk.reserve(target, target, at(0))
    first = desk.open(b"s1", "g", b"t", at(0))
    desk.open(b"s1", "g", b"u", at(0))
    with pytest.raises(RelayRefused, match="too_many"):
        desk.open(b"s1", "g", b"v", at(0))  # the source has two
    desk.open(b"s2", "g", b"t", at(0))
    with pytest.raises(RelayRefused, match="too_many"):
        desk.open(b"s3", "g", b"v", at(0))  # the group has three
    with pytest.raises(RelayRefused, match="too_many"):
        desk.open(b"s4", "h", b"t", at(0))  # the target has two
    desk.open(b"s4", "h", b"v", at(0))
    with pytest.raises(RelayRefused, match="too_many"):
        desk.open(b"s5", "i", b"v", at(0))  # four in all
    desk.close(first)
    desk.open(b"s5", "i", b"v", at(0))
    with pytest.raises(RelayRefused, match="no_reservation"):
        desk.open(b"v", "v", b"v", at(0))  # to oneself


def test_bytes_and_time_of_a_circuit_end() -> None:
    desk = RelayDesk(RelayLimits(circuit_bytes_max=100, circuit_s=60))
    desk.reserve(b"t", "h", at(0))
    circuit = desk.open(b"s", "g", b"t", at(0))
    assert desk.carry(circuit, 60, at(1)) == 0
    with pytest.raises(RelayRefused, match="circuit_full"):
        desk.carry(circuit, 41, at(2))
    desk.carry(circuit, 40, at(3))
    circuit = desk.open(b"s", "g", b"t", at(3))
    with pytest.raises(RelayRefused, match="circuit_over"):
        desk.carry(circuit, 1, at(64))


def test_a_group_waits_for_its_rate_whatever_its_circuits() -> None:
    desk = RelayDesk(RelayLimits(group_bytes_s=1000.0, circuit_bytes_max=10**6))
    for target in (b"t", b"u"):
        desk.reserve(target, target, at(0))
    one, two = desk.open(b"s", "g", b"t", at(0)), desk.open(b"s2", "g", b"u", at(0))
    other = desk.open(b"o", "other", b"t", at(0))
    assert desk.carry(one, 1000, at(0)) == 0
    assert desk.carry(two, 500, at(0)) == pytest.approx(0.5)
    assert desk.carry(other, 1000, at(0)) == 0
    assert desk.carry(one, 500, at(1)) == 0  # what was owed has been paid


def test_a_relay_that_offers_bulk_counts_no_bytes() -> None:
    desk = RelayDesk(RelayLimits(bulk=True, group_bytes_s=1e18, circuit_bytes_max=1))
    desk.reserve(b"t", "h", at(0))
    circuit = desk.open(b"s", "g", b"t", at(0))
    assert desk.carry(circuit, 10**12, at(1)) == 0
