"""Files into a real node and out of it: as they are, sealed, sealed for somebody else."""

import json
import os

import pytest
from nodes import depin_node

from depin_node.core.local import DataDir
from depin_node.crypto import identity as identities
from depin_node.crypto.identity import Identity, peer_id

pytestmark = pytest.mark.net


def test_files_go_in_and_come_out_opened_only_by_whom_they_are_sealed_for(tmp_path, nodes):
    source, target = tmp_path / "file.bin", tmp_path / "out.bin"
    source.write_bytes(data := os.urandom((3 << 20) + 77))
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    node = nodes.start()

    def run(*args, code=0):
        done = depin_node("blob", *args, "--data-dir", node.data_dir, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    for file in (source, empty):
        plain = run("put", file)["id"]
        run("get", plain, "-o", target)
        assert target.read_bytes() == file.read_bytes()
    other = peer_id(Identity.generate().key)
    for_us = run("put", source, "--seal-for", node.peer, "--seal-for", other)
    assert for_us["sealed_for"] == [node.peer, other]
    assert run("get", for_us["id"], "-o", target)["size_bytes"] == len(data)
    assert target.read_bytes() == data
    for_other = run("put", source, "--seal-for", other)["id"]
    target.unlink()
    assert "other peers" in run("get", for_other, "-o", target, code=2)
    assert not target.exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    run("get", for_other, "-o", target, "--as-it-is")
    assert data[:100] not in target.read_bytes()
    assert "no blob id" in run("get", "5f", "-o", target, code=2)
    assert "not on this node" in run("get", "00" * 32, "-o", target, code=1)
    assert "peer id" in run("put", source, "--seal-for", "nobody", code=2)
    stored = {path.name for path in DataDir(node.data_dir).blobs.iterdir()}
    assert {plain, for_us["id"], for_other} <= stored
    assert identities.load(DataDir(node.data_dir).identity).seed.hex() not in node.log()
