"""Partners look at each other's logs; who was restored from a backup gets its receipts back, and is no forker."""

import io
import shutil

import pytest
import trio
import trio.testing
from ledgers import Keeper
from market_world import InlinePool, knows, make_job, world

from depin_node.bootstrap import receipts as shell
from depin_node.bootstrap.receipts import PROTOCOL, Fetch, Fetched, Listed, Listing, Question, Shown, Since
from depin_node.compute.trust.export import Record, verify_export, write_export
from depin_node.compute.trust.heads import Run
from depin_node.core.wire import decode, encode
from depin_node.crypto.envelope import verify_signature
from depin_node.p2p.frames import request


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.05)


async def until(condition):
    while not condition():
        await trio.sleep(0.1)


async def deal(a, b, key):
    """Have ``b`` do a job for ``a``, until both hold its receipt."""
    await knows(a, [b])
    job, _ = await make_job(a, key=key)
    before = len(held(a, b))
    view = await a.requester.submit(job)
    assert (await a.requester.wait(bytes.fromhex(view.id))).state == "done"
    await until(lambda: len(held(a, b)) > before and all(item.countersign for item in held(a, b)))
    await trio.sleep(2 * shell.LOOK_S)


def held(node, other):
    return [item for item in node.context.journal.reader.receipts(99) if item.peer == other.key]


def checked(node):
    reader, file = node.context.journal.reader, io.BytesIO()
    records = [Record(receipt, countersign or b"") for receipt, countersign in reader.log_records()]
    write_export(file, node.context.identity, "test", records, head=reader.log_head().link, is_whole=True, at_s=1)
    file.seek(0)
    return verify_export(file)


async def ask(node, peer, what, kind):
    await node.mesh.connect(peer.key)
    body = encode(Question(what))
    answer = await request(node.context.network, peer.key, PROTOCOL, body, size_bytes_max=1 << 20, timeout_s=5)
    return decode(answer, kind, size_bytes_max=1 << 20)


async def test_partners_see_how_each_others_logs_go_on(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b = await w.start(1), await w.start(2, pool=InlinePool())
        for key in ("one", "two", "three"):
            await deal(a, b, key)
        for node, other in ((a, b), (b, a)):
            witness = node.logs.witness(other.key)
            assert witness.branches == 0
            assert len(witness._links) >= 2  # what was signed since the last look is seen at the next
            assert node.context.journal.reader.runs(other.key)
            assert not node.context.book.banned
        shown = await ask(b, a, Since(()), Shown)
        run = verify_signature(shown.run, Run, "test")
        assert (run.sender, run.payload.first, len(run.payload.steps)) == (a.key, 0, 3)
        last = await ask(b, a, Since((a.context.pen.log.stored.link,)), Shown)
        assert not verify_signature(last.run, Run, "test").payload.steps


async def test_a_node_restored_from_a_backup_gets_its_receipts_back(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await deal(a, b, "one")
        b.scope.cancel()
        await trio.sleep(5)
        shutil.copytree(tmp_path / "2", tmp_path / "backup")
        b = await w.start(2, pool=InlinePool())
        await deal(a, b, "two")
        await deal(a, b, "three")
        before = {item.id for item in held(b, a)}
        b.scope.cancel()
        await trio.sleep(5)
        shutil.rmtree(tmp_path / "2")
        shutil.copytree(tmp_path / "backup", tmp_path / "2")
        b = await w.start(2, pool=InlinePool())
        assert len(held(b, a)) == 1
        await deal(a, b, "four")
        await until(lambda: {item.id for item in held(b, a)} >= before)
        await deal(a, b, "five")
        assert len(held(b, a)) == len(held(a, b)) == 5
        ((_, gave),) = b.context.credit.accounts(b.context.clock())
        ((_, got),) = a.context.credit.accounts(a.context.clock())
        assert gave.given_us == got.received_us
        assert b.context.journal.reader.balances() == [(a.key, gave.given_us, 0)]
        assert not a.context.book.banned
        assert not b.context.book.banned
        assert a.logs.witness(b.key).branches == 1
        for node in (a, b):
            findings = checked(node)
            assert findings.holds, findings.problems
        assert checked(b).branches == 1


async def test_what_was_signed_last_before_a_backup_was_restored_comes_back_too(tmp_path, autojump_clock):
    """Partners look again after they have dealt: nobody has to deal twice for a receipt to be missed."""
    async with world(tmp_path) as w:
        a, b = await w.start(1), await w.start(2, pool=InlinePool())
        shutil.copytree(tmp_path / "2", tmp_path / "backup")
        await deal(a, b, "one")
        b.scope.cancel()
        await trio.sleep(5)
        shutil.rmtree(tmp_path / "2")
        shutil.copytree(tmp_path / "backup", tmp_path / "2")
        b = await w.start(2, pool=InlinePool())
        assert held(b, a) == []
        await deal(a, b, "two")
        await until(lambda: len(held(b, a)) == 2)
        assert not a.context.book.banned


async def test_a_partner_hands_out_only_what_is_between_the_two(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, c = await w.start(1), await w.start(2, pool=InlinePool()), await w.start(3)
        await deal(a, b, "one")
        await knows(c, [a])
        (stored,) = held(a, b)
        assert (await ask(c, a, Listing(0), Listed)).receipts == ()
        assert (await ask(c, a, Fetch((stored.id,)), Fetched)).records == ()
        assert (await ask(b, a, Listing(0), Listed)).receipts == (stored.id,)
        (record,) = (await ask(b, a, Fetch((stored.id,)), Fetched)).records
        assert (record.receipt, record.countersign) == (stored.receipt, stored.countersign)


async def test_a_forker_is_caught_when_partners_compare(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b = await w.start(1), await w.start(2)
        await knows(a, [b])
        one, other = Keeper(7, "test"), Keeper(7, "test")
        other.seq += 50
        for node, keeper in ((a, one), (b, other)):
            for _ in range(3):
                Keeper(8, "test").pay(keeper)
            assert keeper.shown_to(node.logs.witness(keeper.key)) is None
        await a.mesh.connect(b.key)
        a.context.look(b.key)
        await until(lambda: one.key in a.context.book.banned)
        (case,) = a.context.journal.reader.cases()
        assert (case.accused, case.kind) == (one.key, "fork")
