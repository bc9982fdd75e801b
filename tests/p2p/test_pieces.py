"""What of a stream waits to be read: the same bytes as came, in any cut, and no more memory than they need."""

import random

import pytest

from depin_node.p2p.libp2p.pieces import Pieces, Room

pytestmark = pytest.mark.net


@pytest.mark.parametrize("seed", range(5))
def test_what_went_in_comes_out_however_it_is_cut(seed: int) -> None:
    rng, pieces, came, taken = random.Random(seed), Pieces(), bytearray(), bytearray()
    for _ in range(400):
        if rng.random() < 0.6:
            data = rng.randbytes(rng.choice((1, 12, 300, 4095, 4096, 65_507)))
            came += data
            pieces += memoryview(data)
        elif rng.random() < 0.5:
            taken += pieces.take(rng.choice((1, 100, 5000, 262_144)))
        else:
            buffer = bytearray(rng.choice((1, 100, 5000, 262_144)))
            taken += buffer[: pieces.take_into(memoryview(buffer))]
        assert len(pieces) == len(came) - len(taken)
    taken += pieces.take(len(pieces))
    assert (taken == came, len(pieces), pieces.take(10)) == (True, 0, b"")
    pieces += b"more"
    pieces.clear()
    assert (len(pieces), pieces.take(10)) == (0, b"")


def test_a_byte_at_a_time_takes_a_byte_each() -> None:
    pieces = Pieces()
    for _ in range(300_000):
        pieces += b"x"
    assert len(pieces._pieces) == 2


@pytest.mark.parametrize("first", [0, 1, 6, 8, 10])
def test_a_room_takes_what_fits_and_returns_the_rest(first: int) -> None:
    buffer = memoryview(bytearray(10))
    room = Room(buffer[:first], buffer[first:])
    assert (bytes(room.put(memoryview(b"abcdef"))), room.size_bytes) == (b"", 6)
    assert (bytes(room.put(memoryview(b"ghijkl"))), room.size_bytes, bytes(buffer)) == (b"kl", 10, b"abcdefghij")
    assert (bytes(room.put(memoryview(b"m"))), room.size_bytes) == (b"m", 10)
