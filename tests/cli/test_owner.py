"""``depin-node owner``: from a new key to a certificate in a node's data directory, and back."""

import json

import pytest

from depin_node.bootstrap.owner_files import read_certificate, read_revocations
from depin_node.cli.main import run
from depin_node.core.clock import now
from depin_node.crypto import identity
from depin_node.crypto.ownership import Owners

NODE = identity.Identity(bytes([1]) * 32)


@pytest.fixture
def call(tmp_path, capsys):
    def call(*arguments):
        code = run(["owner", *arguments, "--data-dir", str(tmp_path)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_a_node_is_certified_and_revoked(call, tmp_path):
    code, out, _ = call("create", "--json")
    owner = json.loads(out)["owner"]
    assert code == 0
    assert tmp_path.joinpath("owner.key").stat().st_mode & 0o777 == 0o600
    peer = identity.peer_id(NODE.key)
    assert call("certify", peer, "--out", str(tmp_path / "owner.cert"), "--network-id", "lab")[0] == 0
    owners = Owners("lab", NODE.key, read_certificate(tmp_path / "owner.cert"))
    assert identity.peer_id(owners.own) == owner
    assert owners.shown(now())
    assert call("revoke", peer, "--network-id", "lab")[0] == 0
    owners.take(read_revocations(tmp_path / "owner.revoked"), now())
    assert not owners.shown(now())


def test_mistakes_say_what_to_do(call, tmp_path):
    code, _, err = call("certify", identity.peer_id(NODE.key))
    assert (code, "depin-node owner create" in err) == (2, True)
    call("create")
    code, _, err = call("create")
    assert (code, "kept" in err) == (2, True)
    code, _, err = call("certify", "nobody")
    assert (code, "not a peer id" in err or "not the peer id" in err) == (2, True)
    (tmp_path / "owner.revoked").write_text("no hex")
    code, _, err = call("revoke", identity.peer_id(NODE.key))
    assert (code, "copy it again" in err) == (2, True)
