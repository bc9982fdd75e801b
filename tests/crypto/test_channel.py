"""The keys of data channels, and what a frame that was tampered with does."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from depin_node.core.errors import PeerViolation
from depin_node.crypto import channel
from depin_node.crypto.channel import AES_128_GCM, CHACHA20_POLY1305, Sealer, Unsealer, agree, choose_suite, suites

OPENER, SERVER = (X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
TRANSCRIPT = [b"net", b"o" * 32, b"s" * 32, b"asked", b"answered"]


def public(key):
    return key.public_key().public_bytes_raw()


def sealed(sealer, body, header=b"head"):
    out = bytearray(len(body) + channel.TAG_BYTES)
    sealer.seal(header, body, out)
    return out


def opened(unseal, data, header=b"head"):
    out = bytearray(len(data) - channel.TAG_BYTES)
    unseal(header, data, out)
    return bytes(out)


def test_both_ends_agree_on_the_keys():
    assert agree(OPENER, public(SERVER), TRANSCRIPT) == agree(SERVER, public(OPENER), TRANSCRIPT)


@pytest.mark.parametrize("index", range(len(TRANSCRIPT)))
def test_every_part_of_the_transcript_changes_every_key(index):
    changed = [part + b"x" if at == index else part for at, part in enumerate(TRANSCRIPT)]
    ours, theirs = agree(OPENER, public(SERVER), TRANSCRIPT), agree(SERVER, public(OPENER), changed)
    for name in ("token", "opener_proof", "server_proof", "opener_key", "server_key"):
        assert getattr(ours, name) != getattr(theirs, name)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_points_that_give_everybody_the_same_secret_are_refused(point):
    with pytest.raises(PeerViolation, match="no key"):
        agree(OPENER, point, TRANSCRIPT)


@pytest.mark.parametrize("suite", [CHACHA20_POLY1305, AES_128_GCM])
def test_frames_open_in_order_and_only_as_they_were_sealed(suite):
    sealer, unsealer = Sealer(suite, b"k" * 32), Unsealer(suite, b"k" * 32)
    first, second, third = (sealed(sealer, body) for body in (b"one", b"two", b"three"))
    assert opened(unsealer.next(), first) == b"one"
    with pytest.raises(PeerViolation):  # repeated
        opened(unsealer.next(), first)
    later = unsealer.next()
    for damaged in (bytes([third[0] ^ 1]) + third[1:], third[:-1] + bytes([third[-1] ^ 1]), second):
        with pytest.raises(PeerViolation):
            opened(later, damaged)
    with pytest.raises(PeerViolation):
        opened(later, third, header=b"haed")
    assert opened(later, third) == b"three"


def test_what_one_side_sent_cannot_be_sent_back_to_it():
    keys = agree(OPENER, public(SERVER), TRANSCRIPT)
    with pytest.raises(PeerViolation):
        opened(Unsealer(AES_128_GCM, keys.server_key).next(), sealed(Sealer(AES_128_GCM, keys.opener_key), b"body"))


def test_keys_are_replaced(monkeypatch):
    monkeypatch.setattr(channel, "REKEY_FRAMES", 4)
    sealer, unsealer, stale = (make(AES_128_GCM, b"k" * 32) for make in (Sealer, Unsealer, Unsealer))
    for number in range(10):
        frame = sealed(sealer, bytes([number]))
        assert opened(unsealer.next(), frame) == bytes([number])
    monkeypatch.setattr(channel, "REKEY_FRAMES", 1 << 15)
    for _ in range(9):
        stale.next()
    with pytest.raises(PeerViolation):
        opened(stale.next(), frame)


def test_a_cipher_that_both_know_is_chosen():
    assert sorted(suites()) == [CHACHA20_POLY1305, AES_128_GCM]
    assert choose_suite(bytes([9, AES_128_GCM, CHACHA20_POLY1305])) == AES_128_GCM
    with pytest.raises(PeerViolation):
        choose_suite(b"\7\x08")
