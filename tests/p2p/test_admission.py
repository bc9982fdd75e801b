"""The accounts of connections: caps hold whatever happens, honest peers find room, rule-breakers stay out longer."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.p2p.admission import (
    CONNECTIONS_PER_PEER_MAX,
    Admission,
    Refusal,
)
from depin_node.p2p.bucket import Bucket, Buckets
from depin_node.p2p.network import NetworkLimits
from depin_node.p2p.strikes import KEPT_OUT_S_MAX, STRIKES_MAX

LIMITS = NetworkLimits(
    connections_max=16,
    connections_per_group_max=4,
    handshakes_max=8,
    handshakes_per_group_max=3,
    streams_max=40,
    streams_per_group_max=20,
    inbound_streams_per_peer_max=4,
    buffered_bytes_max=1000,
    buffered_per_group_bytes_max=400,
)


def at(seconds: float) -> Now:
    return Now(int(seconds * SECOND_NS), 0)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def host(group: int, number: int = 1) -> str:
    return f"10.{group}.0.{number}"


def connect(admission: Admission, number: int, group: int, now: Now | None = None, *, peer: int | None = None):
    now = now or at(100 * number)
    refusal, _ = admission.arrived(number, host(group), now)
    return refusal or admission.proven(number, key(number if peer is None else peer), now)


def test_one_group_gets_its_share_and_leaves_room_for_others():
    admission = Admission(LIMITS)
    assert [connect(admission, n, 1) for n in range(4)] == [None] * 4
    assert connect(admission, 4, 1) is Refusal.GROUP_FULL
    assert [connect(admission, 10 + n, 2 + n) for n in range(10)] == [None] * 10
    assert connect(admission, 30, 30) is Refusal.FULL
    admission.dialled(31, host(31), key(31), at(0))  # what we dial has room of its own
    admission.ended(0)
    assert connect(admission, 32, 32) is None
    admission.ended(1)
    assert connect(admission, 33, 1) is None


def test_one_peer_gets_a_few_connections():
    admission = Admission(replace(LIMITS, connections_per_group_max=100))
    answers = [connect(admission, n, 1, peer=7) for n in range(CONNECTIONS_PER_PEER_MAX + 1)]
    assert answers == [None] * CONNECTIONS_PER_PEER_MAX + [Refusal.PEER_FULL]


def test_idle_handshakes_give_way_the_oldest_of_the_greediest_first():
    admission = Admission(LIMITS)
    for number in range(3):
        assert admission.arrived(number, host(1, number), at(number)) == (None, None)
    assert admission.arrived(3, host(1), at(3)) == (None, 0)  # a fourth of one group puts out its first
    for number in range(10, 15):
        assert admission.arrived(number, host(number), at(5)) == (None, None)
    assert admission.arrived(20, host(20), at(6)) == (None, 1)  # one above all puts out of those who have most
    assert admission.proven(20, key(20), at(6)) is None
    assert admission.proven(1, key(1), at(6)) is Refusal.NO_SUCH_CONNECTION


def test_a_group_that_keeps_coming_has_to_wait():
    admission = Admission(LIMITS)
    answers = []
    for number in range(100):
        refusal, _ = admission.arrived(number, host(1), at(0))
        admission.ended(number)
        answers.append(refusal)
    assert answers.count(None) == 64
    assert admission.arrived(200, host(2), at(0))[0] is None
    assert admission.arrived(201, host(1), at(1))[0] is None


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt_from_what_counts_by_group_and_second(where):
    admission = Admission(LIMITS)
    for number in range(14):
        assert admission.arrived(number, where, at(0))[0] is None
        assert admission.proven(number, key(number), at(0)) is None
    assert admission.arrived(20, where, at(0))[0] is None
    assert admission.proven(20, key(20), at(0)) is Refusal.FULL  # memory is memory
    assert admission.broke(key(0), at(0))
    assert admission.refuses(key(0), at(0)) is None


def test_listed_peers_are_exempt_and_only_allowed_ones_are_called():
    admission = Admission(LIMITS, listed=[key(n) for n in range(10)])
    assert [connect(admission, n, 1, at(0)) for n in range(10)] == [None] * 10
    private = Admission(LIMITS, allowed=[key(1)])
    assert private.refuses(key(1), at(0)) is None
    assert private.refuses(key(2), at(0)) is Refusal.NOT_ALLOWED


def test_streams_are_counted_by_peer_group_and_in_all():
    admission = Admission(LIMITS)
    for number in range(4):
        connect(admission, number, 1)
    connect(admission, 9, 2)
    now = at(1000)
    opened = sum(admission.stream_opened(0, n, now) is None for n in range(30))
    assert opened == 20  # 4 + 16 beside
    assert admission.stream_opened(1, 0, now) is Refusal.GROUP_FULL
    assert admission.stream_opened(9, 0, now) is None
    admission.has_streams(0, 3)
    assert admission.may_have_another(1) is None
    assert admission.stream_opened(99, 0, now) is Refusal.NO_SUCH_CONNECTION


def test_streams_have_a_rate():
    admission = Admission(LIMITS)
    connect(admission, 1, 1, at(0))
    answers = [admission.stream_opened(1, 0, at(0)) for _ in range(1100)]
    assert answers.count(Refusal.TOO_OFTEN) == 100


def test_who_makes_us_hold_most_goes_first():
    admission = Admission(LIMITS)
    for number, group in ((1, 1), (2, 1), (3, 2), (4, 3), (5, 4)):
        connect(admission, number, group)
    assert not admission.holds(1, 300)
    assert not admission.holds(3, 390)
    assert admission.holds(2, 150)
    assert admission.too_much() == [1]  # its group has 450 of 400
    admission.ended(1)
    assert not admission.holds(4, 380)
    assert admission.holds(5, 300)
    assert admission.too_much() == [3]  # 1,220 of 1,000


def test_who_breaks_rules_stays_out_twice_as_long_each_time_and_is_forgiven_in_the_end():
    admission, seconds = Admission(LIMITS), 0.0
    for kept_out_s in (60, 120, 240, 480):
        assert admission.broke(key(1), at(seconds))
        assert admission.refuses(key(1), at(seconds + kept_out_s - 1)) is Refusal.KEPT_OUT
        assert admission.refuses(key(1), at(seconds + kept_out_s)) is None
        seconds += kept_out_s
    for _ in range(20):
        admission.broke(key(1), at(seconds))
    assert admission.refuses(key(1), at(seconds + KEPT_OUT_S_MAX)) is None
    seconds += 2 * KEPT_OUT_S_MAX
    admission.broke(key(1), at(seconds))
    assert admission.refuses(key(1), at(seconds + 60)) is None


def test_lesser_faults_add_up_and_fade():
    admission = Admission(LIMITS)
    assert not any(admission.broke(key(1), at(0), weight=1) for _ in range(int(STRIKES_MAX) - 1))
    assert admission.broke(key(1), at(0), weight=1)
    assert not any(admission.broke(key(2), at(130 * n), weight=1) for n in range(100))


def test_a_bucket():
    bucket = Bucket(10, 2, at(0))
    assert bucket.spend(15, at(0)) is False
    assert bucket.wait_s(at(0)) == 2.5
    assert bucket.wait_s(at(2.5)) == 0
    assert not bucket.take(1, at(2.5))
    assert bucket.take(1, at(3))
    assert bucket.is_full(at(100))
    assert not bucket.take(10.5, at(100))
    assert bucket.take(10, at(99))  # a clock that stands still, or goes back, gives nothing and takes nothing
    many = Buckets(10, 2, count_max=5)
    for number in range(20):
        many.of(key(number), at(0)).take(10, at(0))
    assert len(many) == 5
    assert not many.of(key(19), at(0)).take(1, at(0))


numbers, groups = st.integers(0, 40), st.integers(0, 5)
events = st.lists(
    st.one_of(
        st.tuples(st.just("arrived"), numbers, groups),
        st.tuples(st.just("proven"), numbers, st.integers(0, 12)),
        st.tuples(st.just("dialled"), numbers, groups, st.integers(0, 12)),
        st.tuples(st.just("ended"), numbers),
        st.tuples(st.just("stream"), numbers, st.integers(0, 30)),
        st.tuples(st.just("holds"), numbers, st.integers(0, 600)),
        st.tuples(st.just("broke"), st.integers(0, 12)),
        st.tuples(st.just("wait"), st.floats(0, 30)),
    ),
    max_size=150,
)


@settings(deadline=None, max_examples=150)
@given(events)
def test_whatever_happens_the_caps_hold(happened):
    admission, seconds = Admission(LIMITS), 0.0
    under_way: dict[int, int] = {}
    inbound: dict[int, tuple[int, int]] = {}
    dialled: set[int] = set()

    def forget(number):
        for book in (under_way, inbound):
            book.pop(number, None)
        dialled.discard(number)

    for what, *details in happened:
        match what, *details:
            case "wait", pause:
                seconds += pause
            case "ended", number:
                admission.ended(number)
                forget(number)
            case "arrived", number, group if number not in under_way.keys() | inbound.keys() | dialled:
                refusal, evicted = admission.arrived(number, host(group), at(seconds))
                if evicted is not None:
                    assert evicted in under_way
                    forget(evicted)
                if refusal is None:
                    under_way[number] = group
            case "proven", number, peer if number in under_way:
                kept_out = admission.refuses(key(peer), at(seconds))
                refusal = admission.proven(number, key(peer), at(seconds))
                assert not (kept_out and refusal is None)
                if refusal is None:
                    inbound[number] = (under_way[number], peer)
                under_way.pop(number)
            case "dialled", number, group, peer if number not in under_way.keys() | inbound.keys() | dialled:
                admission.dialled(number, host(group), key(peer), at(seconds))
                dialled.add(number)
            case "stream", number, count:
                refusal = admission.stream_opened(number, count, at(seconds))
                assert refusal is None or isinstance(refusal, Refusal)
                assert (refusal is Refusal.NO_SUCH_CONNECTION) == (number not in inbound.keys() | dialled)
            case "holds", number, size_bytes:
                admission.holds(number, size_bytes)
                for leaving in admission.too_much():
                    admission.ended(leaving)
                    forget(leaving)
                assert admission.too_much() == []
            case "broke", peer:
                admission.broke(key(peer), at(seconds))
        assert len(under_way) <= LIMITS.handshakes_max
        assert len(inbound) <= LIMITS.connections_max - LIMITS.connections_max // 8
        for group in range(6):
            assert list(under_way.values()).count(group) <= LIMITS.handshakes_per_group_max
            assert sum(g == group for g, _ in inbound.values()) <= LIMITS.connections_per_group_max
        assert len(admission._connections) == len(under_way) + len(inbound) + len(dialled)
