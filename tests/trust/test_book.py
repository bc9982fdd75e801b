import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.compute.trust.book import (
    ESTABLISHED_ANSWERS,
    EVERY_CLASS,
    HALF_LIFE_S,
    KNOWN_MAX,
    WEIGHT_MAX,
    Book,
)
from depin_node.core.clock import SECOND_NS, Now

A, B = b"a" * 32, b"b" * 32


def at(seconds, wall_s=1_000_000):
    return Now(int(seconds * SECOND_NS), int((wall_s + seconds) * SECOND_NS))


def test_a_lie_bans_once_and_for_good():
    book = Book({A: "lied before"})
    assert not book.caught(A, "again")
    assert book.caught(B, "lied")
    assert book.banned == {A, B}
    assert book.reasons[A] == "lied before"
    book.verified(B, "wasm-1", 10**6, by_established=True, now=at(0))
    assert B in book.banned


def test_only_established_company_makes_established():
    book = Book({})
    book.verified(A, "wasm-1", 10 * ESTABLISHED_ANSWERS, by_established=False, now=at(0))
    standing = book.standing(A, "wasm-1", at(0))
    assert (standing.is_newcomer, standing.verified) == (True, 0)
    assert standing.availability > 0.9  # it was there, and no more
    book.verified(A, "wasm-1", ESTABLISHED_ANSWERS - 1, by_established=True, now=at(0))
    assert book.standing(A, "wasm-1", at(0)).is_newcomer
    book.verified(A, "wasm-1", 1, by_established=True, now=at(0))
    assert not book.standing(A, "wasm-1", at(0)).is_newcomer
    assert book.standing(A, "cuda", at(0)).is_newcomer  # another device is another matter
    assert not Book({}, listed=[A]).standing(A, "cuda", at(0)).is_newcomer


def test_availability_forgets_and_trust_does_not():
    book = Book({})
    book.verified(A, "wasm-1", 100, by_established=True, now=at(0))
    for _ in range(100):
        book.let_down(A, "wasm-1", at(0))
    assert book.standing(A, "wasm-1", at(0)).availability == pytest.approx(0.5)
    book.verified(A, "wasm-1", 100, by_established=True, now=at(4 * HALF_LIFE_S))
    standing = book.standing(A, "wasm-1", at(4 * HALF_LIFE_S))
    assert standing.availability > 0.9
    assert standing.verified == 200
    assert book.standing(A, "wasm-1", at(400 * HALF_LIFE_S)).availability == pytest.approx(0.5)


def test_a_long_record_does_not_hide_a_failure():
    book = Book({})
    book.verified(A, "wasm-1", 10**6, by_established=True, now=at(0))
    for _ in range(int(WEIGHT_MAX)):
        book.let_down(A, "wasm-1", at(1))
    assert book.standing(A, "wasm-1", at(1)).availability < 0.5


def test_unreachable_counts_for_every_device():
    book = Book({})
    book.let_down(A, EVERY_CLASS, at(0))
    assert book.standing(A, "wasm-1", at(0)).availability == pytest.approx(1 / 3)


def test_who_lets_us_down_is_so_with_all_its_devices():
    book, classes = Book({}), ("wasm-1", "cuda")
    assert not book.lets_down(A, classes, at(0))
    book.let_down(A, "wasm-1", at(0))
    assert book.lets_down(A, ("wasm-1",), at(0))
    assert not book.lets_down(A, classes, at(0))  # it may bid the other
    book.let_down(A, "cuda", at(0))
    assert book.lets_down(A, classes, at(0))
    book.verified(A, "cuda", 1, by_established=False, now=at(0))
    assert not book.lets_down(A, classes, at(0))


def test_it_is_bounded_but_for_bans():
    book = Book({})
    book.caught(A, "lied")
    for number in range(KNOWN_MAX + 10):
        book.let_down(number.to_bytes(4, "big"), "", at(0))
    assert len(book._records) == KNOWN_MAX
    assert A in book.banned


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B]), st.sampled_from(["wasm-1", ""]), st.integers(0, 50), st.booleans(), st.booleans()
        ),
        max_size=40,
    ),
    st.sets(st.integers(0, 40)),
    st.integers(0, 30 * 86_400),
)
def test_a_restart_loses_nothing(events, restarts, away_s):
    """The same events with and without restarts, whose boot clock begins anew, come to the same standing."""
    whole, rows, wall_s, booted_s = Book({}), {}, 0.0, 0.0
    parts = Book({})
    for number, (peer, device_class, answers, right, established) in enumerate(events):
        if number in restarts:
            rows |= {(row.peer, row.device_class): row for row in parts.changes(at(wall_s - booted_s, booted_s))}
            wall_s += away_s
            booted_s = wall_s
            parts = Book({}, rows.values(), now=at(0, booted_s))
        wall_s += 60
        for book, now in ((whole, at(wall_s, 0)), (parts, at(wall_s - booted_s, booted_s))):
            if right:
                book.verified(peer, device_class, answers, by_established=established, now=now)
            else:
                book.let_down(peer, device_class, now)
    for peer in (A, B):
        one = whole.standing(peer, "wasm-1", at(wall_s, 0))
        other = parts.standing(peer, "wasm-1", at(wall_s - booted_s, booted_s))
        assert other.verified == one.verified
        assert other.observed == pytest.approx(one.observed, rel=1e-3, abs=1e-6)
        assert other.availability == pytest.approx(one.availability, rel=1e-3)
