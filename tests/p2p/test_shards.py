"""Shards: who is in which, and how they grow and shrink with the mesh."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from depin_node.crypto.identity import Identity
from depin_node.p2p.advert import DeviceOffer
from depin_node.p2p.shards import BITS_MAX, SHARD_MAX, SHARD_MIN_SHARE, Shard, Sharding, capabilities_of, place_of

SHARD_MIN = int(SHARD_MIN_SHARE * SHARD_MAX)
KEY = Identity(bytes([1]) * 32).key
PLACE = place_of(KEY)


def test_every_place_is_in_one_shard_of_each_size():
    assert Shard("cpu", 0, 0).has_place(PLACE)
    for bits in (1, 3, 16):
        inside = [prefix for prefix in range(1 << min(bits, 10)) if Shard("cpu", bits, prefix).has_place(PLACE)]
        assert len(inside) == (1 if bits <= 10 else len(inside))
        assert Shard("cpu", bits, PLACE >> (64 - bits)).has_place(PLACE)


def test_capabilities_are_what_is_lent():
    wasm, cuda = DeviceOffer("wasm-1", 1, 1, 1), DeviceOffer("cuda:sm_90:nvrtc-12.4:x", 1, 1, 1)
    assert capabilities_of(True, [wasm]) == ("cpu",)
    assert capabilities_of(True, [cuda, wasm]) == ("cpu", "gpu")
    assert capabilities_of(False, [wasm]) == ("idle",)
    assert capabilities_of(True, []) == ("idle",)


def test_a_shard_is_halved_and_doubled_with_room_between():
    sharding = Sharding(KEY)
    assert not sharding.resize(Counter(cpu=SHARD_MAX))
    assert sharding.resize(Counter(cpu=SHARD_MAX + 1))
    assert sharding.bits == (0, 1, 0)
    assert sharding.own("cpu") == Shard("cpu", 1, PLACE >> 63)
    half = (SHARD_MAX + 1) // 2
    assert half > SHARD_MIN  # who halved it does not double it at once
    assert not sharding.resize(Counter(cpu=half))
    assert not sharding.resize(Counter(cpu=SHARD_MIN))
    assert sharding.resize(Counter(cpu=SHARD_MIN - 1))
    assert sharding.bits == (0, 0, 0)
    assert 2 * (SHARD_MIN - 1) <= SHARD_MAX  # and the other way round


def test_a_mesh_that_grows_quickly_is_halved_as_often_as_it_takes():
    sharding = Sharding(KEY)
    assert sharding.resize(Counter(cpu=8 * SHARD_MAX, idle=8 * SHARD_MAX + 1), is_newcomer=True)
    assert sharding.bits == (4, 3, 0)
    for bits in (0, 0, 0):
        sharding.told((bits, bits, bits))
    assert not sharding.resize(Counter(cpu=SHARD_MAX, idle=SHARD_MAX), is_newcomer=True)  # who tells is behind
    assert sharding.resize(Counter(cpu=SHARD_MIN - 1, idle=SHARD_MAX), is_newcomer=True)
    assert sharding.bits == (4, 0, 0)


def test_near_a_border_the_next_shard_is_followed_too():
    sharding = Sharding(KEY)
    sharding.resize(Counter(cpu=SHARD_MAX - 1))
    assert Shard("cpu", 1, PLACE >> 63).topic in sharding.topics()
    sharding.resize(Counter(cpu=SHARD_MAX + 1))
    sharding.resize(Counter(cpu=SHARD_MIN + 1))
    assert Shard("cpu", 0, 0).topic in sharding.topics()
    sharding.resize(Counter(cpu=140, idle=10, gpu=0))
    assert len(sharding.topics()) == 3


def test_a_newcomer_begins_with_what_most_tell_and_then_trusts_its_own_count():
    sharding = Sharding(KEY)
    for bits in (5, 5, 16, 5, 0):
        sharding.told((0, bits, 0))
    assert sharding.resize(Counter(), is_newcomer=True)
    assert sharding.bits == (0, 5, 0)
    for _ in range(3):
        for _ in range(9):
            sharding.told((0, 16, 0))
        assert not sharding.resize(Counter(cpu=100))  # whatever all of them say
    assert sharding.bits == (0, 5, 0)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, BITS_MAX)), max_size=40))
def test_whatever_is_counted_and_told_bits_stay_in_bounds_and_topics_few(steps):
    sharding = Sharding(KEY)
    for count, told in steps:
        sharding.told((told, told, told))
        sharding.resize(Counter(cpu=count, idle=count // 2))
        assert all(0 <= bits <= BITS_MAX for bits in sharding.bits)
        assert 3 <= len(sharding.topics()) <= 9
        assert all(shard.has_place(PLACE) for shard in sharding.followed())
