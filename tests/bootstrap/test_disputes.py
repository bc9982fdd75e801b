"""Disputes in nodes: two providers differ, and the first step that one of them did wrongly names it."""

import threading

import numpy as np
import pytest
import trio
import trio.testing
from device_programs import numbers, run_all, smoothing
from market_world import InlineLease, InlinePool, knows, make_job, stall, world

from depin_node.bootstrap.testimony import ANSWER_BYTES_MAX
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.jobs.job import Quorum
from depin_node.compute.programs.walk import step_count
from depin_node.compute.verification.walk_messages import PROTOCOL, StateAt
from depin_node.core.errors import ResourceError, TransportError
from depin_node.core.wire import encode
from depin_node.p2p.frames import request

ROUNDS = 10


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.05)


class Slipping(InlinePool):
    """Does everything right until a step, and from there on one bit is wrong; ``refuses``: is silent when asked."""

    def __init__(self, step, *, refuses=False):
        super().__init__()
        self.step, self.refuses = step, refuses
        self.asked = []

    async def acquire(self, name):
        if name == "dispute" and self.refuses:
            await trio.sleep_forever()
        return SlippingLease(self)


class SlippingLease(InlineLease):
    async def load(self, data, inputs, **limits):
        await super().load(data, inputs, **limits)
        done = step_count(self._program.steps)
        self._pool.asked.append(done)

        async def slip(task, results):
            if done >= self._pool.step:
                results[0][5] ^= 4

        self._pool.behaviour = slip


async def disputed(w, pools, later, policy):
    """Have a job done by some lenders, and by others that come when those have differed."""
    a = await w.start(1)
    lenders = [await w.start(number, pool=pool) for number, pool in enumerate(pools, 2)]
    await knows(a, lenders)
    x = numbers()
    job, _ = await make_job(a, candidate=smoothing(ROUNDS), policy=policy, arrays=[x])
    identifier = bytes.fromhex((await a.requester.submit(job)).id)
    while not any(line.kind == "walks" for line in a.requester.story(identifier)):
        await trio.sleep(0.1)
    for number, pool in enumerate(later, 2 + len(pools)):
        lenders.append(await w.start(number, pool=pool))
    view = await a.requester.wait(identifier)
    assert view.state == "done", view.error
    data = b"".join([part async for part in a.requester.output(identifier, 0)])
    (right,) = run_all(WasmDevice(), smoothing(ROUNDS), x)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), right)
    return a, [lender.key for lender in lenders], a.requester.story(identifier)


async def test_a_strangers_program_is_read_where_nobody_waits(tmp_path, autojump_clock, readers):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lender = await w.start(2, pool=InlinePool(stall))
        await knows(a, [lender])
        job, _ = await make_job(a, candidate=smoothing(ROUNDS), policy=Quorum(1, 1), arrays=[numbers()])
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        while not lender.pool.tasks:
            await trio.sleep(0.1)
        readers.clear()
        for task, step in ((job.tasks, 3), (0, 2 * ROUNDS + 1)):  # neither is there: no worker is asked
            question = encode(StateAt(identifier, task, step, False))
            with pytest.raises(TransportError, match="config"):
                await request(
                    a.context.network, lender.key, PROTOCOL, question, size_bytes_max=ANSWER_BYTES_MAX, timeout_s=60
                )
        assert len(readers) == 2
        assert threading.main_thread() not in readers


def told(story, kind):
    return [line.detail for line in story if line.kind == kind]


@pytest.mark.parametrize("step", [1, 7, 20])
async def test_who_did_a_step_wrongly_is_named_by_it(tmp_path, autojump_clock, step):
    async with world(tmp_path) as w:
        liar = Slipping(step)
        a, keys, story = await disputed(w, [liar, InlinePool()], [InlinePool()], Quorum(2, 3))
        assert a.context.book.banned == {keys[0]}
        assert told(story, "caught") == [f"it did step {step} of {2 * ROUNDS} wrongly"]
        assert len(liar.asked) <= 2 + 6  # its attempt, a state a round, one more to be fetched
        assert told(story, "walked") == []
        while keys[0] not in dict(a.context.journal.reader.case_names()):  # what it signed convinces others too
            await trio.sleep(0.1)


async def test_accomplices_outnumber_nobody_where_steps_tell(tmp_path, autojump_clock):
    """Three answers, two of them wrong and the same: a vote would go on to ban the honest one."""
    async with world(tmp_path) as w:
        pools = [Slipping(3), Slipping(3), InlinePool()]
        a, keys, story = await disputed(w, pools, [InlinePool(), InlinePool()], Quorum(3, 5))
        assert a.context.book.banned == set(keys[:2])
        assert told(story, "caught") == 2 * [f"it did step 3 of {2 * ROUNDS} wrongly"]


async def test_a_dispute_that_no_worker_of_ours_can_tell_is_given_up_and_ends_nobody(tmp_path, autojump_clock):
    class NoWorker(InlinePool):
        async def acquire(self, name):
            if name == "dispute":
                raise ResourceError("no worker can be started")
            return await super().acquire(name)

    async with world(tmp_path) as w:
        w.audits = NoWorker()
        _, _, story = await disputed(w, [Slipping(7), InlinePool()], [InlinePool()], Quorum(2, 3))
        assert ["could not be walked" in line for line in told(story, "walked")] == [True]


async def test_who_does_not_say_its_steps_is_outvoted_as_before(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        liar = Slipping(3, refuses=True)
        a, keys, story = await disputed(w, [liar, InlinePool()], [InlinePool()], Quorum(2, 3))
        while keys[0] not in a.context.book.banned:  # what lost the vote is run again here first
            await trio.sleep(0.1)
        assert a.context.book.banned == {keys[0]}
        assert ["could not be walked" in line for line in told(story, "walked")] == [True]
        assert told(story, "caught") == ["its answer differs from the one that the others agree on"]
