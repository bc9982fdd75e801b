"""``confidence`` in nodes: provisional answers, audits by the requester, catches, receipts, restarts."""

from collections import Counter

import numpy as np
import pytest
import trio
import trio.testing
from market_world import WASM, InlinePool, knows, lie, make_job, output_of, world
from msgspec.structs import replace
from wat_programs import program

from depin_node.bootstrap.auditor import LANES_MAX
from depin_node.client.parts import read_parts
from depin_node.compute.jobs.job import Confidence, Quorum
from depin_node.compute.jobs.panels import KeptPanels
from depin_node.compute.market.messages import Verdict
from depin_node.compute.trust.book import ESTABLISHED_ANSWERS
from depin_node.compute.trust.receipts import verify_receipt
from depin_node.core.errors import TaskTimedOut
from depin_node.core.views import NO_TASK
from depin_node.crypto.identity import peer_id

TASKS = 120
MANY = program(tasks=TASKS, n=TASKS * 64)
POLICY = Confidence(0.98, 0.2)


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.05)


async def until(condition):
    while not condition():
        await trio.sleep(0.1)


def verdicts(peer, lender):
    """What the receipts for a lender say last of each task that it answered."""
    said = {}
    for stored in reversed(peer.context.journal.reader.receipts(999)):
        receipt = verify_receipt(stored.receipt, stored.countersign, "test").payload
        if receipt.to == lender.key:
            said.update({settled.attempt: settled.verdict for settled in receipt.settled})
    return list(said.values())


async def test_a_job_is_done_when_all_is_settled(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=POLICY)
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        checked = view.verification
        assert (checked.agreed, checked.provisional, checked.attempts) == (TASKS, 0, TASKS)
        assert 0.98 <= checked.confidence <= 1
        assert checked.audits == len(w.audits.tasks) < TASKS
        assert a.context.journal.reader.tabs(bytes.fromhex(view.id)) == []
        await until(lambda: all(stored.countersign for stored in a.context.journal.reader.receipts(99)))
        audited = 0
        for lender in lenders:
            assert set(verdicts(a, lender)) == {Verdict.ACCEPTED}
            standing = a.context.book.standing(lender.key, "wasm-1", a.context.clock())
            first = min(ESTABLISHED_ANSWERS, len(verdicts(a, lender)))  # the other may be quicker
            assert standing.verified >= first
            audited += first
        assert checked.audits >= audited


async def test_a_sleeper_is_caught_and_all_that_was_not_settled_of_it_runs_again(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        answered = []

        async def sleep_then_lie(task, results):
            answered.append(task)
            if len(answered) > 12:
                await lie(task, results)

        sleeper = await w.start(2, pool=InlinePool(sleep_then_lie))

        async def let_it_lie(task, results):
            await until(lambda: len(answered) > 24)

        honest = await w.start(3, pool=InlinePool(let_it_lie))
        await knows(a, [sleeper, honest])
        job, x = await make_job(a, candidate=MANY, policy=Confidence(0.999, 0.2))  # so sure that no seed misses it
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert view.verification.liars == (peer_id(sleeper.key),)
        assert set(a.context.journal.reader.bans()) == {sleeper.key}
        kinds = [line.kind for line in a.requester.story(bytes.fromhex(view.id))]
        assert "void" in kinds
        assert "caught" in kinds
        assert Verdict.PROVISIONAL not in verdicts(a, honest)
        # What it signed, and the task run again, convince others too.
        await until(lambda: sleeper.key in dict(a.context.journal.reader.case_names()))


@pytest.mark.parametrize("in_order", [False, True])
async def test_a_part_that_is_void_comes_again(tmp_path, autojump_clock, in_order):
    """Who takes results as they come is told which are provisional, and has the right ones in the end."""
    async with world(tmp_path) as w:
        a = await w.start(1)
        taken = trio.Event()  # a wrong one, by who reads

        async def wait_and_lie(task, results):
            await lie(task, results)
            if task > 3:
                await taken.wait()

        liar = await w.start(2, pool=InlinePool(wait_and_lie))
        a.context.book.verified(liar.key, WASM, ESTABLISHED_ANSWERS, by_established=True, now=a.context.clock())
        await knows(a, [liar])
        job, x = await make_job(a, candidate=MANY, policy=Confidence(0.999, 0.2))
        w.audits.behaviour = lambda task, results: taken.wait()
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        data = bytearray()

        async def read():
            async for part in a.requester.parts(identifier, in_order=in_order):
                data.extend(part)
                if part == NO_TASK.to_bytes(4, "little") and len(data) > 3 * 256:
                    taken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await until(lambda: liar.key in a.context.book.banned)
            await w.start(3, pool=InlinePool())
        parts = list(read_parts(MANY, iter([bytes(data)])))
        whole, (name,) = np.zeros_like(x), {name for part in parts for name in part.outputs}
        for part in parts:
            part.put_into(**{name: whole})
        assert (whole == x).all()
        times = Counter(part.task for part in parts)
        assert set(times) == set(range(TASKS))
        assert set(times.values()) == {1, 2}
        assert all(part.is_provisional for part in parts[: times.total() - TASKS])


@pytest.mark.parametrize("lies", [False, True])
async def test_single_blocks_are_audited_where_parts_count(tmp_path, autojump_clock, lies):
    """Few large tasks: audited whole, each would be run again; in parts, a fraction of that."""
    large = program(tasks=40, n=40 * 16 * 64)

    async def lie_in_some_blocks(task, results):
        for block in range(1, 16, 2) if lies else ():  # so many that one is found, whichever are audited
            results[0][block * 64 * 4] ^= 1

    async with world(tmp_path) as w:
        a = await w.start(1)
        liar = await w.start(2, pool=InlinePool(lie_in_some_blocks))
        lenders = [liar, *[await w.start(n, pool=InlinePool()) for n in (3, 4)]]
        await knows(a, lenders)
        for peer in lenders:  # else all they do is audited
            a.context.book.verified(peer.key, "wasm-1", 8, by_established=True, now=a.context.clock())
        job, x = await make_job(a, candidate=large, policy=Confidence(0.999 if lies else 0.99, 0.2, 16))
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        # Some were void before their turn; and where the last of a task's parts differs, the whole is run besides.
        wholes = LANES_MAX if lies else 0
        assert view.verification.audits >= (len(w.audits.tasks) - wholes) / 16 - 1e-9
        assert max(w.audits.tasks) >= 40  # of the finer program
        if lies:
            assert view.verification.liars == (peer_id(liar.key),)
            assert (await output_of(a, view, large) == x).all()
            await until(lambda: liar.key in dict(a.context.journal.reader.case_names()))
        else:
            assert view.verification.audits < 6
            assert view.verification.confidence >= 0.99


async def test_blocks_that_fill_each_others_tiles_accuse_nobody(tmp_path, autojump_clock):
    """One task is right as a whole, and of a part of its blocks alone not all that they own is filled."""
    whole = program(tasks=1, n=32 * 64)
    x, y = whole.buffers
    wrong_tiles = replace(whole, buffers=(x, replace(y, tile=(128,))))  # by blocks of 64
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3)]
        await knows(a, lenders)
        job, data = await make_job(a, candidate=wrong_tiles, policy=Confidence(0.99, 0.2, 16))
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, wrong_tiles) == data).all()
        assert view.verification.liars == ()
        assert a.context.journal.reader.bans() == {}
        assert w.audits.tasks == [0, 0]  # a part, then the task


async def test_peers_audit_where_this_node_does_not(tmp_path, autojump_clock):
    """A sleeper among five: others run some of its answers again, more are asked when they differ, and all of it that
    was not settled runs again. Nothing runs here."""
    async with world(tmp_path) as w:
        a = await w.start(1, audits_here=False)
        answered = []

        async def sleep_then_lie(task, results):
            answered.append(task)
            if len(answered) > 8:
                await lie(task, results)

        pools = [InlinePool(sleep_then_lie), *[InlinePool() for _ in range(4)]]
        lenders = [await w.start(n, pool=pool) for n, pool in enumerate(pools, 2)]
        await knows(a, lenders)
        for peer in lenders:
            a.context.book.verified(peer.key, "wasm-1", 8, by_established=True, now=a.context.clock())
        job, x = await make_job(a, candidate=MANY, policy=POLICY)
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        checked = view.verification
        assert w.audits.tasks == []
        assert (checked.audits, checked.provisional) == (0, 0)
        assert TASKS < checked.attempts < 2.5 * TASKS  # a lead of three takes five
        assert checked.confidence >= 0.98
        assert set(checked.liars) <= {peer_id(lenders[0].key)}
        if len(answered) > 24:  # of many lies one is found
            assert checked.liars
        assert {lender.key for lender in lenders[1:]}.isdisjoint(a.context.book.banned)
        await until(lambda: all(stored.countersign for stored in a.context.journal.reader.receipts(999)))
        assert Verdict.PROVISIONAL not in verdicts(a, lenders[1])


async def test_who_contradicts_what_is_right_is_found_out_too(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1, audits_here=False)
        pools = [InlinePool(lie), *[InlinePool() for _ in range(4)]]
        lenders = [await w.start(n, pool=pool) for n, pool in enumerate(pools, 2)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=POLICY)
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert view.verification.liars == (peer_id(lenders[0].key),)
        await until(lambda: set(a.context.journal.reader.bans()) == {lenders[0].key})  # its answer is run again here
        assert w.audits.tasks == []


async def test_audits_by_peers_go_on_after_a_restart(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1, audits_here=False)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3, 4)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=POLICY)
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        reader = a.context.journal.reader
        await until(lambda: sum(reader.done(identifier, TASKS)) > TASKS // 2)
        a.scope.cancel()
        await trio.sleep(1)
        w.first = lenders[0].context.network.addresses()[0]
        a = await w.start(1, audits_here=False)
        await knows(a, lenders)
        view = await a.requester.wait(identifier)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert w.audits.tasks == []


async def test_what_this_node_cannot_run_is_replicated(tmp_path, autojump_clock):
    async with world(tmp_path) as w:

        async def out_of_time(task, results):
            raise TaskTimedOut("too slow here")

        w.audits.behaviour = out_of_time
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3, 4, 5)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=program(), policy=POLICY)
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert view.state == "done", view.error
        assert (await output_of(a, view) == x).all()
        assert view.verification.groups >= 3  # lead_for(0.98, 0.2)


async def test_draws_outlive_a_restart(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3)]
        await knows(a, lenders)

        hold = trio.Event()

        async def wait(task, results):
            await hold.wait()

        w.audits.behaviour = wait
        job, x = await make_job(a, candidate=MANY, policy=POLICY)
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        await until(lambda: len(a.context.journal.reader.tabs(identifier)) == 16)  # newcomers wait for their audits
        before = {kept.task: kept for kept in a.context.journal.reader.tabs(identifier)}
        a.scope.cancel()
        await trio.sleep(1)
        hold.set()
        w.audits.tasks.clear()
        w.first = lenders[0].context.network.addresses()[0]
        a = await w.start(1)
        await knows(a, lenders)
        view = await a.requester.wait(identifier)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert set(before) <= set(w.audits.tasks)
        assert sorted(set(w.audits.tasks)) == sorted(w.audits.tasks)  # each once


async def test_who_agreed_and_what_is_to_be_audited_outlive_a_restart(tmp_path, autojump_clock):
    """Accomplices agree on everything; their requester is restarted before its first audit is over."""
    async with world(tmp_path) as w:
        a = await w.start(1)
        liars = [await w.start(n, pool=InlinePool(lie)) for n in (2, 3)]
        await knows(a, liars)
        hold = trio.Event()

        async def wait(task, results):
            await hold.wait()

        w.audits.behaviour = wait
        candidate = program(tasks=32, n=32 * 64)
        job, x = await make_job(a, candidate=candidate, policy=Quorum(2, 3, 0.2))
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        reader = a.context.journal.reader
        await until(lambda: sum(reader.done(identifier, 32)) == 32)
        before = reader.panels(identifier)
        assert [set(peers) for _, peers in before.members] == [{liar.key for liar in liars}]
        assert len(before.of) == 32
        assert 0 < len(before.audits) < 32
        a.scope.cancel()
        await trio.sleep(1)
        hold.set()
        w.audits.tasks.clear()
        w.first = liars[0].context.network.addresses()[0]
        lenders = [await w.start(n, pool=InlinePool()) for n in (4, 5)]
        a = await w.start(1)
        await knows(a, lenders)
        view = await a.requester.wait(identifier)
        assert view.state == "done", view.error
        assert (await output_of(a, view, candidate) == x).all()
        assert set(view.verification.liars) == {peer_id(liar.key) for liar in liars}
        assert w.audits.tasks[0] in {task for task, *_ in before.audits}
        assert a.context.journal.reader.panels(identifier) == KeptPanels()
