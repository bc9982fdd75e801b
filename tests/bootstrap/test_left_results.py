"""Results that stay with those who computed them: fetched when wanted, computed again when nobody has them any more."""

import numpy as np
import pytest
import trio
import trio.testing
from market_world import InlinePool, jump, knows, make_job, output_of, world
from msgspec.structs import replace
from wat_programs import program

from depin_node.bootstrap import kept
from depin_node.client.parts import read_parts
from depin_node.compute.jobs.job import Quorum, Results
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import TransportError
from depin_node.crypto.blob import blob_id

TASKS = 4
LARGE = program(tasks=TASKS, n=1 << 20, block=1024)  # 1 MiB a task
SMALL = program(tasks=TASKS, n=1 << 10)


@pytest.fixture
def autojump_clock():
    """Simulated time, which leaps only when nothing has happened for a while: it does not see the journal's thread."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def done(peer, candidate=LARGE, policy=None):
    job, x = await make_job(peer, candidate=candidate, policy=policy or Quorum(2, 2))
    view = await peer.requester.submit(replace(job, results=Results.STAY))
    view = await peer.requester.wait(bytes.fromhex(view.id))
    assert view.state == "done", view.error
    parts = [blob_id(part.tobytes()) for part in x.reshape(TASKS, -1)]
    return view, x, parts


async def mesh_of(w, lenders):
    a = await w.start(1)
    peers = [await w.start(n, pool=InlinePool()) for n in range(2, 2 + lenders)]
    await knows(a, peers)
    return a, peers


async def test_they_stay_with_all_who_agree_and_are_fetched_when_wanted(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b, c) = await mesh_of(w, 2)
        view, x, parts = await done(a)
        assert not any(a.blobs.store.has(part) for part in parts)
        assert all(peer.blobs.store.has(part) for part in parts for peer in (b, c))
        assert set(a.context.journal.reader.holders(bytes.fromhex(view.id), 0)) == {b.key, c.key}
        w.fabric.kill(b.key)  # the other one has them too
        assert (await output_of(a, view, LARGE) == x).all()
        assert all(a.blobs.store.has(part) for part in parts)


async def test_once_some_stay_others_of_the_work_are_put_away_as_they_come(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b, c) = await mesh_of(w, 2)
        many, ahead = program(tasks=32, n=1 << 20, block=1024), list[kept.PutAhead]()
        put_ahead = b.provider.put_ahead

        async def put(results):
            stored = await put_ahead(results)
            ahead.extend(output for outputs in stored for output in outputs)
            return stored

        b.provider.put_ahead = put
        job, x = await make_job(a, candidate=many, policy=Quorum(2, 2))
        view = await a.requester.submit(replace(job, results=Results.STAY))
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view.error
        parts = {blob_id(part.tobytes()) for part in x.reshape(32, -1)}
        assert {output.blob for output in ahead} < parts
        assert len(ahead) >= 16
        await trio.sleep(1)
        for peer in (b, c):  # after which only what was promised is held
            assert peer.provider.keep.__self__._ahead_bytes == 0
            assert all(peer.blobs.store._pins[part] == 1 for part in parts)
        assert (await output_of(a, view, many) == x).all()


async def test_what_was_put_ahead_is_only_noted_when_it_is_to_stay(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        _, (b,) = await mesh_of(w, 1)
        results, store = b.provider.keep.__self__, b.blobs.store
        data = [memoryview(bytes([n]) * 200_000) for n in range(3)]
        ahead = await results.put_ahead([data[:2], data[2:]])
        assert [[results.view(output) for output in outputs] for outputs in ahead] == [data[:2], data[2:]]
        inodes = [store.path(output.blob).stat().st_ino for output in ahead[0]]
        assert await results.keep(b"a" * 32, ahead) == [True, True]
        for outputs in ahead:
            results.let_go(outputs)
        assert inodes == [store.path(output.blob).stat().st_ino for output in ahead[0]]
        assert all(store._pins[output.blob] == 1 for outputs in ahead for output in outputs)
        kept_blobs = {blob for _, blob, _, _ in b.context.journal.reader.kept()}
        assert kept_blobs == {output.blob for outputs in ahead for output in outputs}
        gone = await results.put_ahead([data[:1]])
        store.delete(gone[0][0].blob)
        assert await results.keep(b"a" * 32, gone) == [False]


async def test_nothing_is_put_ahead_beyond_the_share_of_strangers(tmp_path, autojump_clock, monkeypatch):
    async with world(tmp_path) as w:
        _, (b,) = await mesh_of(w, 1)
        results = b.provider.keep.__self__
        monkeypatch.setattr(kept, "SHARE", 500_000 / b.blobs.store.quota_bytes)
        data = [memoryview(bytes([n]) * 200_000) for n in range(3)]
        ahead = await results.put_ahead([[one] for one in data])
        assert [len(outputs) for outputs in ahead] == [1, 1, 0]
        assert await results.put_ahead([data[2:]]) == [[]]
        results.let_go(ahead[0])
        assert len(*await results.put_ahead([data[2:]])) == 1


async def test_small_ones_come_all_the_same(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        view, x, _ = await done(a, SMALL, Quorum(1, 1))
        w.fabric.kill(b.key)
        assert (await output_of(a, view, SMALL) == x).all()


async def test_they_outlive_a_restart_of_both_sides(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        view, x, parts = await done(a, policy=Quorum(1, 1))
        a.scope.cancel()
        b.scope.cancel()
        await trio.sleep(1)
        w.first = None
        a, (b,) = await mesh_of(w, 1)
        assert a.requester.job(bytes.fromhex(view.id)).state == "done"
        b.blobs.store.quota_bytes = 0
        with pytest.raises(Exception, match="no room"):  # what was promised does not make room for others
            b.blobs.store.reserve(1)
        assert all(b.blobs.store.has(part) for part in parts)
        assert (await output_of(a, view, LARGE) == x).all()


async def test_what_nobody_has_any_more_is_computed_again(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b, c) = await mesh_of(w, 2)
        view, x, parts = await done(a, policy=Quorum(1, 1))
        for peer in (b, c):
            peer.blobs.store.delete(parts[2])
            peer.pool.tasks.clear()
        assert (await output_of(a, view, LARGE) == x).all()
        assert b.pool.tasks + c.pool.tasks == [2]
        assert a.requester.job(bytes.fromhex(view.id)).state == "done"


async def test_what_cannot_be_computed_again_is_said(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        view, _, parts = await done(a, policy=Quorum(1, 1))
        b.blobs.store.delete(parts[0])
        for item in a.requester._records.signed(a.context.journal.reader.job(bytes.fromhex(view.id)).envelope).inputs:
            a.blobs.store.delete(item.blob)
        with pytest.raises(TransportError, match="submit it anew"):
            await output_of(a, view, LARGE)
        assert a.requester.job(bytes.fromhex(view.id)).state == "done"


async def test_a_provider_without_room_for_them_sends_them(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr(kept, "SHARE", 1e-9)
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        view, x, parts = await done(a, policy=Quorum(1, 1))
        assert all(a.blobs.store.has(part) for part in parts)
        w.fabric.kill(b.key)
        assert (await output_of(a, view, LARGE) == x).all()


async def test_a_promise_ends(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr(kept, "STAY_S", 20)
    async with world(tmp_path) as w:
        _, (b,) = await mesh_of(w, 1)
        a = await w.start(9)
        await knows(a, [b])
        _, _, parts = await done(a, policy=Quorum(1, 1))
        assert all(b.blobs.store._pins[part] for part in parts)
        await trio.sleep(20 + 2 * kept.SWEEP_S)
        assert not any(b.blobs.store._pins[part] for part in parts)
        assert b.context.journal.reader.kept() == []


@pytest.mark.parametrize("seconds", [7200, -7200], ids=["ahead", "back"])
async def test_a_wall_clock_that_is_set_changes_no_promise(tmp_path, autojump_clock, monkeypatch, seconds):
    monkeypatch.setattr(kept, "STAY_S", 30)
    monkeypatch.setattr(kept, "SWEEP_S", 2)
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        _, _, parts = await done(a, policy=Quorum(1, 1))
        jump(b.context, seconds)
        await trio.sleep(20)
        assert all(b.blobs.store._pins[part] for part in parts)
        assert len(b.context.journal.reader.kept()) == TASKS
        await trio.sleep(20)
        assert not any(b.blobs.store._pins[part] for part in parts)
        assert b.context.journal.reader.kept() == []


def test_what_a_run_before_promised_ends_by_the_time_that_was_noted_and_never_later():
    now = Now(5 * SECOND_NS, 1000 * SECOND_NS)
    ends = [kept.until_ns(until_s, now) for until_s in (1000 + 7, 900, 1000 + 2 * kept.STAY_S)]
    assert ends == [12 * SECOND_NS, -95 * SECOND_NS, (5 + kept.STAY_S) * SECOND_NS]


async def test_results_that_were_fetched_make_room_and_come_again(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        job, x = await make_job(a, candidate=LARGE, policy=Quorum(1, 1))
        view = await a.requester.submit(job)
        view = await a.requester.wait(bytes.fromhex(view.id))
        parts = [blob_id(part.tobytes()) for part in x.reshape(TASKS, -1)]
        store = a.blobs.store
        assert all(store._pins[part] for part in parts)
        assert (await output_of(a, view, LARGE) == x).all()
        await trio.sleep(1)
        assert not any(store._pins[part] for part in parts)
        assert not a.context.journal.reader.held_by(bytes.fromhex(view.id)) & set(parts)
        assert (await output_of(a, view, LARGE) == x).all()  # from the store still
        assert not any(store._pins[part] for part in parts)
        store.delete(parts[1])
        assert (await output_of(a, view, LARGE) == x).all()  # computed again
        assert b.pool.tasks.count(1) == 2


@pytest.mark.parametrize("in_order", [False, True])
async def test_results_that_made_room_come_again_task_by_task_too(tmp_path, autojump_clock, in_order):
    async with world(tmp_path) as w:
        a, (b,) = await mesh_of(w, 1)
        job, x = await make_job(a, candidate=LARGE, policy=Quorum(1, 1))
        view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
        assert (await output_of(a, view, LARGE) == x).all()
        for part in x.reshape(TASKS, -1)[1:3]:
            a.blobs.store.delete(blob_id(part.tobytes()))
        data = b"".join([part async for part in a.requester.parts(bytes.fromhex(view.id), in_order=in_order)])
        whole = np.zeros_like(x)
        for part in read_parts(LARGE, iter([data])):
            part.put_into(**{LARGE.buffers[LARGE.outputs[0]].name: whole})
        assert (whole == x).all()
        assert sorted(b.pool.tasks) == [0, 1, 1, 2, 2, 3]


async def test_a_cancelled_job_is_not_run_again_for_results_that_are_gone(tmp_path, autojump_clock):
    async def stop_at_two(task, results):
        if task >= 2:
            await trio.sleep_forever()

    async with world(tmp_path) as w:
        a = await w.start(1)
        await knows(a, [await w.start(2, pool=InlinePool(stop_at_two))])
        job, x = await make_job(a, candidate=LARGE, policy=Quorum(1, 1))
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        with trio.fail_after(60):
            while (view := a.requester.job(identifier)).tasks_done < 2:
                await a.requester.changed(identifier, view)
        await a.requester.cancel(identifier)
        a.blobs.store.delete(blob_id(x.reshape(TASKS, -1)[0].tobytes()))
        with pytest.raises(TransportError, match="cannot be run again: it is cancelled"):
            async for _ in a.requester.parts(identifier, in_order=True):
                pass
        assert a.requester.job(identifier).state == "cancelled"
