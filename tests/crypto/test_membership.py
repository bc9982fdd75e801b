"""The pre-shared key: its file, and what is shown of it."""

import pytest

from depin_node.core.errors import ConfigError
from depin_node.crypto.membership import is_proof, load, proof

A, B = b"a" * 32, b"b" * 32


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_holds_a_key(tmp_path):
    key = load(write(tmp_path / "key", "00" * 32 + "\n"))
    assert key.hex() == "65d90beadd9ee5b29054e4449b0969d61bc0fa2c5752182ba9d30f19f76dbc87"
    assert load(write(tmp_path / "other", "01" * 32)) != key


@pytest.mark.parametrize("text", ["", "secret", "00" * 31, "00" * 33, "zz" * 32, "\xff"])
def test_anything_else_is_none(tmp_path, text):
    with pytest.raises(ConfigError, match=r"pre-shared key"):
        load(write(tmp_path / "key", text))


def test_others_must_not_read_it(tmp_path):
    with pytest.raises(ConfigError, match="chmod 600"):
        load(write(tmp_path / "key", "00" * 32, 0o640))
    with pytest.raises(ConfigError, match="openssl rand"):
        load(tmp_path / "none")


def test_a_proof_is_for_one_peer_in_one_network_by_one_key():
    key = bytes(range(32))
    shown = proof(key, "net", A, B)
    assert is_proof(shown, key, "net", A, B)
    assert not is_proof(shown, key, "net", B, A)  # so it cannot be handed back
    assert not is_proof(shown, key, "ne", A, B)
    assert not is_proof(shown, bytes(32), "net", A, B)
    assert not is_proof(shown, None, "net", A, B)
    assert not is_proof(b"", key, "net", A, B)
    assert is_proof(proof(None, "net", A, B), None, "net", A, B)
