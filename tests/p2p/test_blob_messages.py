"""What goes over the wire about blobs: golden vectors, and what is refused."""

import pytest

from depin_node.core.errors import PeerViolation
from depin_node.core.wire import decode, encode
from depin_node.p2p.blob_messages import (
    OTHERS_MAX,
    BlobRequest,
    Head,
    head_bytes_max,
    pack_have,
    pack_indices,
    unpack_have,
    unpack_indices,
    unpack_keys,
)
from depin_node.p2p.direct import DirectAnswer, DirectAsk

REQUEST = BlobRequest(b"grant", b"b" * 32, 1 << 20, True, b"")
HEAD = Head(5, b"h" * 32, b"\x05", (b"k" * 32,))
GOLDEN = {
    REQUEST: "95c4056772616e74c420" + "62" * 32 + "ce00100000c3c400",
    HEAD: "9405c420" + "68" * 32 + "c4010591c420" + "6b" * 32,
    DirectAsk(b"x" * 32, b"\2\1", 4702): "93c420" + "78" * 32 + "c4020201cd125e",
    DirectAnswer(b"y" * 32, 2, 0): "93c420" + "79" * 32 + "0200",
}


@pytest.mark.parametrize(("message", "expected"), GOLDEN.items(), ids=lambda value: type(value).__name__)
def test_golden_vectors(message, expected):
    assert encode(message).hex() == expected
    assert decode(bytes.fromhex(expected), type(message), size_bytes_max=1000) == message


@pytest.mark.parametrize("here", [[1], [0, 1, 1], [1] * 8, [0] * 9, [1, 0] * 500])
def test_what_a_holder_has_is_a_bit_for_each_chunk(here):
    packed = pack_have(bytearray(here))
    assert packed == b"" if all(here) else len(packed) == -(-len(here) // 8)
    assert unpack_have(packed, len(here)) == (None if all(here) else bytearray(here))


@pytest.mark.parametrize(("have", "count"), [(b"\0\0", 8), (b"\0", 9), (b"\x08", 3), (b"\0", 0)])
def test_bits_for_another_number_of_chunks_are_refused(have, count):
    with pytest.raises(PeerViolation, match="does not fit"):
        unpack_have(have, count)


def test_chunk_numbers():
    assert pack_indices([1, 65_536]).hex() == "0100000000000100"
    assert unpack_indices(pack_indices([1, 65_536]), 65_537, 2) == [1, 65_536]
    for body, count, count_max in ((b"", 9, 9), (bytes(3), 9, 9), (bytes(12), 9, 2), (pack_indices([9]), 9, 9)):
        with pytest.raises(PeerViolation):
            unpack_indices(body, count, count_max)


@pytest.mark.parametrize("size", [0, 31, 33, 32 * (OTHERS_MAX + 1)])
def test_lists_of_peers_are_bounded(size):
    assert unpack_keys(bytes(64)) == (bytes(32), bytes(32))
    with pytest.raises(PeerViolation):
        unpack_keys(bytes(size))


def test_the_largest_answer_fits():
    count = 1 << 16
    head = Head(1 << 36, bytes(32 * count), bytes(count // 8), tuple(bytes(32) for _ in range(OTHERS_MAX)))
    assert len(encode(head)) <= head_bytes_max(1 << 36)
