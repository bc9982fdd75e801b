"""Sealed blobs: who can read them, and what happens to who changes them."""

import os

import pytest

from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES
from depin_node.crypto.identity import Identity
from depin_node.crypto.sealing import (
    HEAD_BYTES_MAX,
    SEALED_CHUNK_BYTES,
    is_sealed,
    open_sealed,
    recipients_of,
    seal,
    sealed_bytes,
)

ALICE, BOB, EVE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
SIZES = [0, 1, 5000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 5]


def sealed(data, *recipients):
    return b"".join(seal([data], [identity.key for identity in recipients]))


def opened(data, identity, step=700_000):
    return b"".join(open_sealed((data[at : at + step] for at in range(0, len(data), step)), identity))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [999_983, 1 << 30])
def test_each_recipient_can_read_it(size, step):
    data = os.urandom(size)
    for_two = sealed(data, ALICE, BOB)
    assert len(for_two) == sealed_bytes(size, 2)
    assert is_sealed(for_two)
    assert recipients_of(for_two[:HEAD_BYTES_MAX]) == tuple(sorted((ALICE.key, BOB.key)))
    for identity in (ALICE, BOB):
        assert opened(for_two, identity, step) == data
    assert size < 20 or data not in for_two


def test_pieces_of_any_length_give_the_same_plaintext():
    data = os.urandom(2 * CHUNK_BYTES + 77)
    pieces = [data[:1], data[1:CHUNK_BYTES], data[CHUNK_BYTES:-3], b"", data[-3:]]
    assert opened(b"".join(seal(pieces, [BOB.key])), BOB, 1000) == data


def test_nobody_else_can():
    with pytest.raises(PeerViolation, match="other peers"):
        opened(sealed(b"secret", ALICE), EVE)


def test_who_puts_itself_among_the_recipients_reads_nothing():
    data = bytearray(sealed(b"secret", ALICE))
    data[10:42] = EVE.key
    with pytest.raises(PeerViolation, match="damaged"):
        opened(data, EVE)
    other = sealed(b"mine", ALICE, EVE)  # a recipient cannot give its own list to somebody else's chunks
    mixed = other[: len(other) - 4 - 17] + bytes(sealed(b"secret", ALICE, EVE)[-6 - 17 :])
    with pytest.raises(PeerViolation, match="damaged"):
        opened(mixed, EVE)


LONG = sealed(bytes(3 * CHUNK_BYTES + 5), ALICE, BOB)
HEAD = len(LONG) - (3 * SEALED_CHUNK_BYTES + 5 + 17)
CHANGES = {
    "a bit of the list": LONG[:300] + b"\0" + LONG[301:] if LONG[300] else LONG[:300] + b"\1" + LONG[301:],
    "another recipient's wrapped key": LONG[:130] + bytes(10) + LONG[140:],
    "a bit of a chunk": LONG[:-1000] + bytes([LONG[-1000] ^ 1]) + LONG[-999:],
    "the last chunk gone": LONG[: -(5 + 17)],
    "the last byte gone": LONG[:-1],
    "more after the end": LONG + bytes(100),
    "two chunks in each other's place": LONG[:HEAD]
    + LONG[HEAD + SEALED_CHUNK_BYTES : HEAD + 2 * SEALED_CHUNK_BYTES]
    + LONG[HEAD : HEAD + SEALED_CHUNK_BYTES]
    + LONG[HEAD + 2 * SEALED_CHUNK_BYTES :],
    "a chunk left out": LONG[:HEAD] + LONG[HEAD + SEALED_CHUNK_BYTES :],
    "nothing": b"",
    "only the magic": LONG[:8],
    "half a head": LONG[:100],
    "another magic": b"x" + LONG[1:],
    "no recipients": LONG[:8] + bytes(2) + LONG[10:],
    "more recipients than there may be": LONG[:8] + b"\xff\xff" + LONG[10:],
}


@pytest.mark.parametrize("data", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_refused(data):
    assert opened(LONG, BOB) == bytes(3 * CHUNK_BYTES + 5)
    with pytest.raises(PeerViolation):
        opened(data, BOB)


@pytest.mark.parametrize(
    "recipients", [[], [bytes([1]) * 32] * 0, [os.urandom(32) for _ in range(65)], [b"short"], [b"\xff" * 32]]
)
def test_recipients_that_make_no_sense_are_refused(recipients):
    with pytest.raises(ConfigError):
        list(seal([b"x"], recipients))


def test_a_recipient_named_twice_counts_once():
    assert recipients_of(sealed(b"", ALICE, ALICE)) == (ALICE.key,)
