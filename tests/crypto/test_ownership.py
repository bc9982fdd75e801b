"""Certificates of owners, and taking them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import (
    CERTIFICATE_BYTES_MAX,
    OWNERS_MAX,
    REVOCATIONS_BYTES_MAX,
    REVOCATIONS_MAX,
    Owners,
    certify,
    read_certificate,
    revoke,
)

OWNER, OTHER = Identity(bytes([7]) * 32), Identity(bytes([8]) * 32)
NODE, FELLOW, STRANGER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
WALL_S = 1_800_000_000
DAY_S = 86_400


def at(seconds):
    return Now(seconds * SECOND_NS, (WALL_S + seconds) * SECOND_NS)


def certificate(node, *, owner=OWNER, network="net", seconds=0, days=30):
    return certify(owner, network, node.key, now=at(seconds), days=days)


def owners(node=NODE, **certified):
    return Owners("net", node.key, certificate(node, **certified))


def read(node, **certified):
    return read_certificate(certificate(node, **certified), "net", node.key)


def test_golden_vectors():
    assert certificate(NODE).hex() == GOLDEN_CERTIFICATE
    assert revoke(OWNER, "net", [FELLOW.key], None, now=at(5)).hex() == GOLDEN_LIST


GOLDEN_CERTIFICATE = (
    "93c420ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22cc440e770090ff0520f3c5ff03e68c0"
    "e08b2ab6604600fdab65a54a51438f56cb2c739409d4176248553ebfb46a425d4297884924e7db3e80ef34f0e6ecf3857076"
    "06c43193c4208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5cce6b715f00cf000665172898"
    "8000"
)
GOLDEN_LIST = (
    "93c420ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22cc440bf1244b4fe8f25cd7202cf1876"
    "53d3bdf51f4a5dc420d6fd1b225fc8c1f2b19e00f005d8ad4669b5afacbfa11616c7a1029a1ac6e7ca1229e421f8f8a9c9c3"
    "00c43e94c400ce6d592a05cf0006651728e4cb409192c4208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df6"
    "0f5b8fc9b394cf0006651728e4cb40"
)


def test_nodes_of_one_owner_are_fellows_and_others_are_not():
    ours = owners()
    assert ours.own == OWNER.key
    assert ours.is_fellow(read(FELLOW), at(1))
    assert not ours.is_fellow(read(STRANGER, owner=OTHER), at(1))
    assert not ours.is_fellow(None, at(1))
    assert not Owners("net", NODE.key).is_fellow(read(FELLOW), at(1))


def test_a_certificate_is_for_one_node_on_one_network():
    with pytest.raises(PeerViolation, match="another node"):
        read_certificate(certificate(FELLOW), "net", NODE.key)
    with pytest.raises(PeerViolation, match="signature"):
        read_certificate(certificate(NODE), "other", NODE.key)
    with pytest.raises(PeerViolation, match="own owner"):
        read_certificate(certificate(NODE, owner=NODE), "net", NODE.key)
    with pytest.raises(ConfigError, match="depin-node owner certify"):
        Owners("net", NODE.key, certificate(FELLOW))


def test_it_ends_by_its_expiry_ours_or_theirs():
    ours = owners(days=30)
    short = read(FELLOW, days=1)
    assert ours.is_fellow(short, at(DAY_S - 1))
    assert not ours.is_fellow(short, at(DAY_S))
    long = read(FELLOW, days=400)
    assert ours.shown(at(30 * DAY_S - 1)) == ours.certificate
    assert ours.is_fellow(long, at(30 * DAY_S - 1))
    assert not ours.is_fellow(long, at(30 * DAY_S))
    assert ours.shown(at(30 * DAY_S)) == b""
    for days in (0, 401):
        with pytest.raises(ConfigError, match="1 to 400"):
            certificate(NODE, days=days)


def test_it_is_taken_back_and_given_anew():
    ours = owners()
    assert ours.take(revoke(OWNER, "net", [FELLOW.key, NODE.key], None, now=at(10)), at(10)) == OWNER.key
    assert not ours.is_fellow(read(FELLOW), at(11))
    assert ours.shown(at(11)) == b""
    again = Owners("net", NODE.key, certificate(NODE, seconds=20))
    again.take(ours.list_of(OWNER.key), at(20))
    assert again.is_fellow(read(FELLOW, seconds=20), at(21))


def test_another_owners_list_takes_nothing_back():
    ours = owners()
    assert ours.take(revoke(OTHER, "net", [FELLOW.key], None, now=at(10)), at(10)) == OTHER.key
    assert ours.is_fellow(read(FELLOW), at(11))


def test_lists_grow_and_an_older_one_changes_nothing():
    ours = owners()
    first = revoke(OWNER, "net", [STRANGER.key], None, now=at(10))
    second = revoke(OWNER, "net", [FELLOW.key], first, now=at(5))  # the owner's clock was set back
    assert ours.take(second, at(10)) == OWNER.key
    assert ours.take(first, at(10)) is None
    assert ours.take(second, at(10)) is None
    assert ours.list_of(OWNER.key) == second
    assert ours.seq_of(OWNER.key) == ours.seq_of(OWNER.key) > 0
    assert not ours.is_fellow(read(FELLOW), at(11))
    assert not ours.is_fellow(read(STRANGER), at(11))
    third = revoke(OWNER, "net", [], second, now=at(401 * DAY_S))  # all that was revoked has expired by itself
    assert len(third) < len(first)


def test_a_list_is_bounded_and_so_is_what_is_remembered():
    keys = [number.to_bytes(32, "big") for number in range(REVOCATIONS_MAX)]
    full = revoke(OWNER, "net", keys, None, now=at(0))
    assert len(full) <= REVOCATIONS_BYTES_MAX
    with pytest.raises(ConfigError, match="make a new owner key"):
        revoke(OWNER, "net", [bytes([255]) * 32], full, now=at(1))
    ours = owners()
    ours.take(full, at(0))
    for number in range(OWNERS_MAX + 5):
        ours.take(revoke(Identity(number.to_bytes(32, "little")), "net", [NODE.key], None, now=at(0)), at(0))
    assert len(ours._lists) == OWNERS_MAX
    assert ours.list_of(OWNER.key) == full  # that of our own owner stays


def test_a_list_follows_only_the_same_owners():
    with pytest.raises(ConfigError, match="another owner's"):
        revoke(OWNER, "net", [], revoke(OTHER, "net", [], None, now=at(0)), now=at(1))
    with pytest.raises(ConfigError, match="damaged"):
        revoke(OWNER, "net", [], b"\x90", now=at(1))


@given(st.data())
def test_no_changed_byte_goes_through(data):
    raw = bytearray(certificate(NODE))
    assert len(raw) <= CERTIFICATE_BYTES_MAX
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerViolation):
        read_certificate(bytes(raw), "net", NODE.key)
    listed = bytearray(revoke(OWNER, "net", [FELLOW.key], None, now=at(0)))
    listed[data.draw(st.integers(0, len(listed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerViolation):
        owners().take(bytes(listed), at(0))
