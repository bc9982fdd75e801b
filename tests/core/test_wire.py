import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Digest, Message, Name, Uint, decode, encode


class Inner(Message, frozen=True):
    digest: Digest
    ratio: float


class Outer(Message, frozen=True):
    name: Name
    count: Uint
    items: list[Inner]


inner = st.builds(Inner, st.binary(min_size=32, max_size=32), st.floats(allow_nan=False))
outer = st.builds(Outer, st.text(min_size=1, max_size=64), st.integers(0, 2**63 - 1), st.lists(inner, max_size=5))
VALUE = Outer("saxpy", 300, [Inner(bytes(32), 0.5)])


@given(outer)
def test_what_is_encoded_is_decoded_to_the_same(value):
    assert decode(encode(value), Outer, size_bytes_max=1 << 20) == value


@given(outer)
def test_the_encoding_is_the_shortest_in_messagepack_as_another_library_writes_it(value):
    assert encode(value) == msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)))


def test_golden_vector():
    assert encode(VALUE).hex() == "93a57361787079cd012c9192c420" + "00" * 32 + "cb3fe0000000000000"


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_canonical(data):
    try:
        value = decode(data, Outer, size_bytes_max=1 << 20)
    except PeerViolation:
        return
    assert encode(value) == data


@given(st.data())
def test_flipped_bytes_are_refused_or_canonical(data):
    raw = bytearray(encode(VALUE))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        value = decode(raw, Outer, size_bytes_max=1 << 20)
    except PeerViolation:
        return
    assert encode(value) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        encode(VALUE) + b"\0",
        msgpack.packb(["saxpy", 300]),
        msgpack.packb(["saxpy", 300, [], 0]),
        msgpack.packb(["saxpy", -1, []]),
        msgpack.packb(["", 1, []]),
        msgpack.packb(["x" * 65, 1, []]),
        msgpack.packb(["saxpy", 1.0, []]),
        msgpack.packb(["saxpy", True, []]),
        msgpack.packb({"name": "saxpy", "count": 1, "items": []}),
        msgpack.packb([b"saxpy", 1, []]),
        b"\x93\xa5saxpy\xcd\x00\x01\x90",  # 1 in three bytes
        b"\x93\xa1\xff\x01\x90",  # not UTF-8
        b"\x93\xa5saxpy\x01\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\x91" * 5000,
        msgpack.packb(["saxpy", 1, [[bytes(32), 1]]]),  # an integer where a float64 belongs
        msgpack.packb(msgpack.ExtType(5, b"x")),
    ],
)
def test_malformed_bytes_are_violations(raw):
    with pytest.raises(PeerViolation):
        decode(raw, Outer, size_bytes_max=1 << 20)


def test_oversized_bytes_are_not_looked_at():
    with pytest.raises(PeerViolation, match="more than the 4 allowed"):
        decode(encode(VALUE), Outer, size_bytes_max=4)
