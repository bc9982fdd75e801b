"""The memory that a node and its worker share for large results: where they lie in it."""

import ctypes
import mmap
import random
import sys

from depin_node.compute.devices.pages import LARGE_BYTES, map_shared
from depin_node.compute.sandbox.arena import Arena
from depin_node.compute.sandbox.messages import PROGRESS_PAGE_BYTES

PAGE = mmap.PAGESIZE


def begin(view):
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_both_sides_map_it_where_large_pages_begin():
    arena = Arena(3 * PAGE)
    other = map_shared(arena.fd, arena.size)
    if sys.platform == "linux":  # elsewhere the system chooses
        assert begin(arena.view) % LARGE_BYTES == begin(other) % LARGE_BYTES == 0
    assert len(other) == arena.size == len(arena.view)
    arena.view[-1], other[PAGE] = 7, 9
    assert (other[-1], arena.view[PAGE]) == (7, 9)


def test_a_place_agrees_with_an_address_where_there_is_room():
    arena = Arena(4 * LARGE_BYTES)
    like = 5 * LARGE_BYTES + 3 * PAGE + 17
    first, second = (arena.take(LARGE_BYTES, like) for _ in range(2))
    assert first == 3 * PAGE
    assert second == first + LARGE_BYTES
    assert arena.take(2 * PAGE) == PROGRESS_PAGE_BYTES, "what lies before it is not lost"
    assert arena.take(2 * LARGE_BYTES - 2 * PAGE, like + PAGE) == second + LARGE_BYTES, "no gap of that kind: anywhere"
    assert arena.take(PAGE) is None


def test_places_never_overlap_and_all_is_one_gap_in_the_end():
    draw, room = random.Random(7), 8 * LARGE_BYTES
    arena, held = Arena(room), dict[int, int]()
    for _ in range(2000):
        if held and draw.random() < 0.5:
            place = draw.choice(sorted(held))
            arena.give_back(place, held.pop(place))
            continue
        size, like = draw.randrange(1, 2 * LARGE_BYTES), draw.choice([None, draw.randrange(1 << 32)])
        place = arena.take(size, like)
        if place is not None:
            assert place % PAGE == 0
            assert PROGRESS_PAGE_BYTES <= place <= arena.size - size
            assert all(place + size <= other or other + held[other] <= place for other in held)
            held[place] = size
    for place, size in held.items():
        arena.give_back(place, size)
    assert arena.take(room) == PROGRESS_PAGE_BYTES
