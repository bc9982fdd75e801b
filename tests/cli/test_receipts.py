"""``depin-node receipts``, on a data directory whose node does not run: as on another machine."""

import json

import pytest
from ledgers import NETWORK, Keeper

from depin_node.cli.main import run
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.statements import put_countersign, put_entry, put_receipt
from depin_node.compute.market.messages import Countersign, Meters, Receipt, Settled, Verdict, digest
from depin_node.crypto.identity import peer_id


@pytest.fixture
def home(tmp_path):
    """A node that has lent once and borrowed twice; nobody confirmed the last."""
    a, b = Keeper(1), Keeper(2)
    home = tmp_path / "a"
    home.mkdir()
    (home / "identity").write_text(a.identity.seed.hex() + "\n")
    (home / "identity").chmod(0o600)
    (home / "config.toml").write_text(f'network_id = "{NETWORK}"\n')
    journal = Journal(home / "journal.sqlite")
    settled = (Settled(0, 0, b"c" * 32, b"o" * 32, Verdict.ACCEPTED, 2_000_000),)
    for job, (giver, taker) in enumerate(((a, b), (b, a), (b, a))):
        fields = (b"a" * 32, 0, bytes([job]) * 32, b"i" * 32, "wasm-1", settled, 0, True, "quorum 1 of 1")
        receipt, asked = taker.entry(Receipt, giver.key, *fields)
        countersign, given = giver.entry(Countersign, taker.key, digest(receipt), Meters(2_000_000, 0, 0, ""))
        name, role = digest(receipt), "provider" if giver is a else "requester"
        kept = countersign if giver is a else None
        journal.apply([put_receipt(name, role, b.key, bytes([job]) * 32, receipt, kept, 1)])
        journal.apply([put_entry(given if giver is a else asked, name, role)])
        if job == 1:
            journal.apply([put_countersign(name, countersign)])
    journal.close()
    return home


def test_export_and_verify(home, tmp_path, capsys):
    file = tmp_path / "receipts.depin"
    assert run(["receipts", "export", str(file), "--data-dir", str(home)]) == 0
    assert "3 receipts" in capsys.readouterr().out
    assert run(["receipts", "verify", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "2 signed by both, 1 by the requester only" in shown
    assert "all of it holds" in shown
    assert run(["receipts", "verify", str(file), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    (partner,) = findings["partners"].values()
    assert (partner["gave_us"], partner["got_us"], findings["problems"]) == (2_000_000, 2_000_000, [])
    assert findings["owner"] == peer_id(Keeper(1).key)


def test_what_was_changed_is_said(home, tmp_path, capsys):
    file = tmp_path / "receipts.depin"
    run(["receipts", "export", str(file), "--data-dir", str(home)])
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)
    assert run(["receipts", "verify", str(file)]) == 4
    output = capsys.readouterr()
    assert "entry 0: receipt: the signature is not the sender's" in output.err
    assert "the file was changed after it was sealed" in output.err
    assert "not all of it holds" in output.out
    file.write_bytes(b"nothing")
    assert run(["receipts", "verify", str(file)]) == 2


def test_exports_of_one_job_and_what_cannot_be_exported(home, tmp_path, capsys):
    file = tmp_path / "part.depin"
    assert run(["receipts", "export", str(file), "--job", "01", "--data-dir", str(home)]) == 0
    assert run(["receipts", "verify", str(file)]) == 0
    output = capsys.readouterr().out
    assert "1 receipts in" in output
    assert "a part of the log" in output
    assert run(["receipts", "export", str(file), "--data-dir", str(home)]) == 2  # it exists
    assert run(["receipts", "export", str(tmp_path / "x"), "--job", "07" * 32, "--data-dir", str(home)]) == 1
    assert "there are no receipts of a job '0707" in capsys.readouterr().err
    assert run(["receipts", "export", str(tmp_path / "x"), "--job", "0", "--data-dir", str(home)]) == 2
    assert "0 is the beginning of 3 jobs' ids" in capsys.readouterr().err
    assert run(["receipts", "export", str(tmp_path / "x"), "--data-dir", str(tmp_path / "nobody")]) == 2
    assert not (tmp_path / "x").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
