"""The shells of requester and provider with all that is under them, over the in-memory network; kernels really run."""

import pytest
import trio.testing
from market_world import InlinePool, knows, lie, make_job, output_of, world

from depin_node.compute.jobs.job import Quorum


@pytest.fixture
def autojump_clock():
    # Jumps only when nothing has happened for a while: the journal's thread is not seen by the clock.
    return trio.testing.MockClock(autojump_threshold=0.02)


async def test_a_job_is_done(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, x = await make_job(a)
        view = await a.requester.submit(job)
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view
        assert (await output_of(a, view) == x).all()


async def test_a_liar_is_caught_and_the_job_is_done(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(lie if n == 3 else None)) for n in (2, 3, 4, 5)]
        await knows(a, lenders)
        job, x = await make_job(a, policy=Quorum(2, 3))
        view = await a.requester.submit(job)
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view
        assert (await output_of(a, view) == x).all()
