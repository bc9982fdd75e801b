"""What a node has promised holds whatever happens at the same time: keys, ends, inputs, attempts that were taken."""

import numpy as np
import pytest
import trio
import trio.testing
from market_world import WASM, InlinePool, done, knows, make_job, output_of, stall, unwritable, world
from msgspec.structs import replace
from wat_programs import program

from depin_node.bootstrap.lanes import Lane
from depin_node.bootstrap.open_jobs import WRITE_AGAIN_S
from depin_node.client import ElementwiseKernel
from depin_node.client.work import prepare_launch
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs import journal as journal_module
from depin_node.core.errors import ConfigError, ResourceError

TASKS = 24
MANY = program(tasks=TASKS, n=TASKS * 64)


@pytest.fixture
def autojump_clock():
    """Simulated time, which leaps only when nothing has happened for a while: it does not see the journal's thread."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def test_one_key_is_one_job_though_the_first_is_not_written_yet(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        job, _ = await make_job(a)
        views = []

        async def submit(job):
            views.append(await a.requester.submit(job))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, job)
            nursery.start_soon(submit, replace(job, created_s=job.created_s + 1))  # the clock has gone on
        assert len({view.id for view in views}) == 1
        with pytest.raises(ConfigError, match="another job's"):
            await a.requester.submit(replace(job, tasks=job.tasks + 1, key=job.key))


async def test_who_cancels_is_told_that_it_cannot_be_written_and_it_is_once_there_is_room(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool(stall))
        await knows(a, [b])
        job, _ = await make_job(a, candidate=MANY)
        view = await a.requester.submit(job)
        identifier = bytes.fromhex(view.id)
        with unwritable(a.context.journal):
            with pytest.raises(ResourceError, match="begins again"):
                await a.requester.cancel(identifier)
            assert a.context.journal.reader.job(identifier).ended == ""
        await trio.sleep(2 * WRITE_AGAIN_S)
        assert a.context.journal.reader.job(identifier).ended == "cancelled"
        assert (await a.requester.cancel(identifier)).state == "cancelled"


async def test_a_work_that_is_opened_and_closed_at_once_costs_nobody_the_agreement(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, _ = await make_job(a, candidate=MANY)
        assert (await done(a, job)).state == "done"
        (agreement,) = b.provider._talks
        start = a.requester._start

        def start_and_cancel(event):  # before the conversation's writer has its turn
            start(event)
            a.requester._feed(e.CancelAsked(event.job_id))

        a.requester._start = start_and_cancel
        await a.requester.submit(replace(job, key="two"))
        await trio.sleep(1)
        assert list(b.provider._talks) == [agreement]


async def test_an_array_that_is_given_twice_stays_for_other_jobs(tmp_path, autojump_clock):
    add = ElementwiseKernel("float32 x, float32 y", "float32 z", "z = x + y", "add")
    x = np.ones(4096, np.float32)
    program = prepare_launch(add, args=(x, x), local=True).bound.program
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, _ = await make_job(a, candidate=program, arrays=[x, x], device_classes=("another",))
        waiting = await a.requester.submit(job)
        assert (await done(a, replace(job, key="two", device_classes=(WASM,)))).state == "done"
        assert a.requester.job(bytes.fromhex(waiting.id)).state == "queued"
        assert a.blobs.store._pins[job.inputs[0].blob] == 1


async def test_forgetting_old_jobs_takes_nothing_from_others_of_their_program(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr(journal_module, "JOBS_KEPT_MAX", 1)
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        for number in range(3):
            job, x = await make_job(a, candidate=MANY, key=f"job {number}")
            kept = await done(a, replace(job, created_s=job.created_s + number))
        b.scope.cancel()
        await trio.sleep(1)
        waiting = await a.requester.submit(replace(job, key="open", created_s=job.created_s + 3))
        a.scope.cancel()
        await trio.sleep(1)
        a = await w.start(1)
        np.testing.assert_array_equal(await output_of(a, kept, MANY), x)
        assert a.requester.job(bytes.fromhex(waiting.id)).state in ("queued", "running")


class Handing:
    """A shop whose disk is slow."""

    def __init__(self):
        self.given_back = []

    async def hand_in(self, number, attempt, task):
        await trio.sleep(1)
        return task == 1

    def give_back(self, number, items):
        self.given_back += items


@pytest.mark.parametrize(("seconds", "lost"), [(0.5, [(7, 1), (8, 2), (9, 3)]), (2.5, [(8, 2), (9, 3)]), (9, [])])
async def test_a_lane_that_is_stopped_while_it_looks_for_results_of_before_loses_none(autojump_clock, seconds, lost):
    shop = Handing()
    with trio.move_on_after(seconds) as scope:
        lane = Lane(shop, "lane", 0, InlinePool())
        assert await lane._hand_in(0, [(7, 1), (8, 2), (9, 3)]) == [(8, 2), (9, 3)]
    assert (shop.given_back, scope.cancelled_caught) == (lost, bool(lost))
