"""The address book: bounded, and no teller's to fill."""

import random

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.address_book import NEW_BUCKETS_PER_TELLER, NEW_MAX, SLOTS, TRIED_MAX, AddressBook
from depin_node.p2p.addresses import Address

HOUR_NS = 3600 * SECOND_NS


def address(number, host=None):
    return Address("ip4", host or f"{20 + number % 60}.{number // 60 % 256}.0.1", 4001, number.to_bytes(32, "big"))


def group(known):
    return ".".join(known.host.split(".")[:2])


def test_one_tellers_group_reaches_few_buckets_however_much_it_tells():
    book = AddressBook(b"secret")
    for number in range(20_000):
        book.heard(address(number), group(address(number)), "teller", 0)
    assert NEW_BUCKETS_PER_TELLER * SLOTS // 2 < len(book) <= NEW_BUCKETS_PER_TELLER * SLOTS
    honest = 0
    for number in range(20_000, 20_200):
        book.heard(address(number), group(address(number)), f"honest {number % 20}", 0)
        honest = sum(known.peer >= (20_000).to_bytes(32, "big") for known in book.draw(random.Random(1), NEW_MAX))
    assert honest > 100


def test_it_is_bounded():
    book, rng = AddressBook(b"secret"), random.Random(1)
    for number in range(30_000):
        book.heard(address(number), f"g{rng.random()}", f"t{rng.random()}", 0)
        if number % 3 == 0:
            book.reached(address(number), f"g{rng.random()}", 0)
    assert len(book) <= NEW_MAX + TRIED_MAX
    assert len(book.tried()) <= TRIED_MAX


def test_a_new_address_gives_way_when_it_failed_or_is_old_and_not_before():
    book = AddressBook(b"secret")
    kept = [address(number) for number in range(5000)]
    for known in kept:
        book.heard(known, group(known), "teller", 0)
    before = {known.peer for known in book.draw(random.Random(1), NEW_MAX)}
    for number in range(5000, 10_000):
        book.heard(address(number), group(address(number)), "teller", HOUR_NS)
    assert {known.peer for known in book.draw(random.Random(1), NEW_MAX)} == before
    for peer in before:
        book.failed(peer)
    for number in range(5000, 10_000):
        book.heard(address(number), group(address(number)), "teller", HOUR_NS)
    assert not {known.peer for known in book.draw(random.Random(1), NEW_MAX)} >= before


def test_a_tried_address_is_tested_before_it_gives_way():
    book = AddressBook(b"secret")
    taken = []
    for number in range(2000):
        book.reached(address(number), "one group", 0)
        if not book.is_tried(address(number).peer):
            taken.append(number)
    assert len(book.tried()) <= 4 * SLOTS
    tested = book.feeler(random.Random(1))
    assert book.is_tried(tested.peer)
    book.failed(tested.peer)
    assert not book.is_tried(tested.peer)
    other = book.feeler(random.Random(2))
    book.reached(other.address, "one group", 1)  # it is there: who wanted its place goes
    assert book.is_tried(other.peer)


def test_a_feeler_is_sent_to_new_ones_that_have_not_failed():
    book = AddressBook(b"secret")
    assert book.feeler(random.Random(1)) is None
    for number in range(10):
        book.heard(address(number), group(address(number)), "teller", 0)
    for number in range(9):
        book.failed(address(number).peer)
    known = {peer.peer for peer in book.draw(random.Random(1), 99)}
    if address(9).peer in known:  # unless one of the others had its slot
        assert book.feeler(random.Random(1)).peer == address(9).peer
    book.failed(b"nobody")


def test_tried_and_new_ones_are_drawn_with_equal_chance():
    book = AddressBook(b"secret")
    for number in range(300):
        book.heard(address(number), group(address(number)), f"teller {number}", 0)
    for number in range(5):
        book.reached(address(number), group(address(number)), 0)
    drawn = [book.draw(random.Random(seed), 1)[0].peer for seed in range(400)]
    tried = sum(book.is_tried(peer) for peer in drawn)
    assert 150 < tried < 250
