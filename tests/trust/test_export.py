import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import NETWORK, Keeper

from depin_node.compute.market.messages import Verdict
from depin_node.compute.trust.export import Record, verify_export, write_export
from depin_node.core.errors import ConfigError
from depin_node.core.wire import encode
from depin_node.crypto.identity import peer_id


def exported(keeper, records=None, **changes):
    file = io.BytesIO()
    fields = {"head": keeper.log.stored.link, "is_whole": True, "at_s": 1_800_000_000} | changes
    write_export(file, keeper.identity, NETWORK, records if records is not None else keeper.records, **fields)
    return file.getvalue()


def check(data):
    return verify_export(io.BytesIO(data))


@pytest.fixture
def three():
    """A lends to B and C, and borrows from C; B has not confirmed the second receipt."""
    a, b, c = Keeper(1), Keeper(2), Keeper(3)
    b.pay(a, (Verdict.ACCEPTED, Verdict.REJECTED))
    a.pay(c, (Verdict.UNUSED, Verdict.PROVISIONAL, Verdict.VOID))
    a.pay(b, confirmed=False)
    c.pay(a)
    return a, b, c


def test_what_holds(three):
    a, b, c = three
    findings = check(exported(a))
    assert findings.holds
    assert (findings.network, findings.owner, findings.is_whole) == (NETWORK, peer_id(a.key), True)
    assert (findings.receipts, findings.confirmed, findings.unconfirmed) == (4, 3, 1)
    assert (findings.epochs, findings.branches) == (1, 0)
    with_b, with_c = findings.partners[peer_id(b.key)], findings.partners[peer_id(c.key)]
    assert (with_b.gave_us, with_b.got_us, with_b.accepted, with_b.refused) == (1000, 0, 1, 1)
    assert (with_c.gave_us, with_c.got_us, with_c.accepted, with_c.refused, with_c.open) == (1000, 1000, 2, 1, 1)
    for other in (b, c):
        assert check(exported(other)).holds


def test_every_bit_flip_is_found():
    a, b = Keeper(1), Keeper(2)
    b.pay(a)
    data = exported(a)
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            try:
                assert not check(bytes(changed)).holds, (at, bit)
            except ConfigError:
                assert at < 64  # no export any more: only in the line that says so


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_cut_added_or_moved_is_found(data):
    a, b, c = Keeper(1), Keeper(2), Keeper(3)
    for number in range(data.draw(st.integers(2, 6))):
        (b, c)[number % 2].pay(a) if number % 3 else a.pay(c)
    whole = exported(a)
    change = data.draw(st.sampled_from(["drop", "swap", "twice", "cut", "behind", "resealed without the last"]))
    records = list(a.records)
    at = data.draw(st.integers(0, len(records) - 2))
    if change == "cut":
        assert not check(whole[: data.draw(st.integers(len(b"depin-receipts/1 net\n"), len(whole) - 1))]).holds
        return
    if change == "behind":
        assert not check(whole + b"\0").holds
        return
    if change == "drop":
        del records[at]
    elif change == "swap":
        records[at], records[at + 1] = records[at + 1], records[at]
    elif change == "twice":
        records.insert(at, records[at])
    else:
        records.pop()
    assert not check(exported(a, records)).holds  # although its owner has sealed it


def test_receipts_of_others_and_of_other_networks_do_not_pass(three):
    a, b, c = three
    b.pay(c)
    foreign = exported(a, [*a.records, b.records[-1]])
    assert "between two others" in " ".join(check(foreign).problems)
    forged = exported(a, [Record(a.records[0].receipt, a.records[1].countersign), *a.records[1:]])
    assert "entry 0: the countersignature is of another receipt" in check(forged).problems
    other = exported(a).replace(b"depin-receipts/1 net\n", b"depin-receipts/1 nut\n")
    assert len(check(other).problems) == 5  # each receipt, and the seal
    with pytest.raises(ConfigError, match="no export"):
        check(b"%PDF-1.4\n")


def test_a_fork_of_a_partner_shows():
    a, b = Keeper(1), Keeper(2)
    b.pay(a)
    backup = b.log
    forked = Keeper(2)
    forked.seq, forked.log.epoch = b.seq + 100, backup.epoch  # the same start, written twice
    b.pay(a)
    forked.pay(a)
    problems = check(exported(a)).problems
    assert [problem for problem in problems if "two entries for one place of its log" in problem]


def test_a_node_restored_from_a_backup_shows_a_branch_and_no_fault():
    a, b = Keeper(1), Keeper(2)
    b.pay(a)
    backup = a.backup()
    b.pay(a)
    lost = a.records[-1]
    a.restore(backup)
    b.pay(a)
    findings = check(exported(a))
    assert findings.holds
    assert (findings.epochs, findings.branches) == (2, 0)
    partner = check(exported(b))
    assert partner.holds  # b has both branches, and sees no fork
    a.records.insert(1, lost)  # what b gave back
    findings = check(exported(a))
    assert findings.holds
    assert findings.branches == 1


def test_a_part_says_that_it_is_one(three):
    a = three[0]
    findings = check(exported(a, a.records[1:2], is_whole=False))
    assert findings.holds
    assert not findings.is_whole


def test_an_export_of_nothing_and_its_bytes():
    a = Keeper(1)
    data = exported(a)
    assert data.startswith(b"depin-receipts/1 net\n\0\0\0\0")
    assert check(data).holds
    assert encode(Record(b"r", b"")) == b"\x92\xc4\x01r\xc4\x00"
