import os

import pytest
from nacl.signing import VerifyKey

from depin_node.core.errors import ConfigError
from depin_node.crypto.identity import Identity, create, key_of, load, load_or_create, peer_id


def test_the_file_is_private_and_holds_the_same_identity(tmp_path):
    path = tmp_path / "deep" / "identity"
    made = create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path) == made
    assert load_or_create(path) == made
    assert [p.name for p in path.parent.iterdir()] == ["identity"]  # no temporary file is left


def test_create_never_replaces_an_identity(tmp_path):
    path = tmp_path / "identity"
    made = create(path)
    with pytest.raises(FileExistsError):
        create(path)
    assert load(path) == made


@pytest.mark.parametrize("content", [b"", b"abc", b"zz" * 32, b"ab" * 31, b"ab" * 33, b"\xff\xfe" * 20])
def test_a_damaged_identity_is_refused_with_the_way_out(tmp_path, content):
    path = tmp_path / "identity"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"identity"):
        load_or_create(path)
    assert path.read_bytes() == content  # and left alone


def test_an_identity_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "identity"
    create(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(path)


def test_a_missing_identity_names_the_command(tmp_path):
    with pytest.raises(ConfigError, match="depin-node init"):
        load(tmp_path / "identity")


def test_a_signature_is_plain_ed25519():
    identity = Identity(bytes(range(32)))
    assert VerifyKey(identity.key).verify(b"x", identity.sign(b"x")) == b"x"


def test_peer_ids_are_libp2ps():
    identity = Identity(bytes(range(32)))
    # Computed with py-libp2p 0.8.1: ID.from_pubkey(create_new_key_pair(bytes(range(32))).public_key)
    assert peer_id(identity.key) == "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
    assert key_of(peer_id(identity.key)) == identity.key


@pytest.mark.parametrize("text", ["", "0OIl", "12D3KooW", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "é"])
def test_other_peer_ids_are_refused(text):
    with pytest.raises(ConfigError):
        key_of(text)


def test_the_seed_is_not_shown():
    identity = Identity(os.urandom(32))
    assert identity.seed.hex() not in repr(identity)
    assert repr(identity.seed) not in repr(identity)
