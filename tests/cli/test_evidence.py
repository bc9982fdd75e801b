"""``depin-node evidence``, on a data directory whose node does not run."""

import json

import pytest
from ledgers import Keeper

from depin_node.cli.main import run
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.statements import put_case
from depin_node.compute.market.messages import Commit, Commits
from depin_node.compute.trust.evidence import TwoResults, encode_case, verify_case
from depin_node.crypto.envelope import sign
from depin_node.crypto.identity import peer_id

LIAR = Keeper(2)


@pytest.fixture
def home(tmp_path):
    first, second = (
        sign(LIAR.identity, "net", Commits(b"r" * 32, 1, 1, b"a" * 32, b"w" * 32, (Commit(5, 7, root * 32, 1),), ()))
        for root in (b"1", b"2")
    )
    data = encode_case("net", LIAR.key, TwoResults(first, second))
    (tmp_path / "a").mkdir()
    journal = Journal(tmp_path / "a" / "journal.sqlite")
    journal.apply([put_case(verify_case(data), data, b"", 1_800_000_000)])
    journal.close()
    return tmp_path / "a"


def test_list_export_verify(home, tmp_path, capsys):
    assert run(["evidence", "list", "--json", "--data-dir", str(home)]) == 0
    (case,) = json.loads(capsys.readouterr().out)
    assert (case["accused"], case["kind"], case["told_by"]) == (peer_id(LIAR.key), "two_results", "")
    file = tmp_path / "lie.depin"
    assert run(["evidence", "export", case["id"][:8], str(file), "--data-dir", str(home)]) == 0
    assert run(["evidence", "export", case["accused"], str(file), "--data-dir", str(home)]) == 2  # it exists
    assert run(["evidence", "export", "zz", str(tmp_path / "x"), "--data-dir", str(home)]) == 1
    capsys.readouterr()
    assert run(["evidence", "verify", str(file)]) == 0
    assert f"proven: {peer_id(LIAR.key)}" in capsys.readouterr().out
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)
    assert run(["evidence", "verify", str(file)]) == 4
    assert "proves nothing" in capsys.readouterr().out
    assert run(["evidence", "list", "--data-dir", str(tmp_path / "nobody")]) == 0
    assert "no evidence" in capsys.readouterr().out
