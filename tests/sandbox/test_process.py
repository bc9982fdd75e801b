"""What the node's end of a worker's pipes does at their limits."""

import pytest
import trio
import trio.testing

from depin_node.compute.sandbox import messages as m
from depin_node.compute.sandbox.config import WorkerConfig
from depin_node.compute.sandbox.process import PIPE_BYTES, WorkerProcess

pytestmark = pytest.mark.net  # real processes


async def test_a_message_larger_than_the_pipe_arrives_and_a_closed_worker_is_gone():
    worker = WorkerProcess(WorkerConfig())
    with trio.fail_after(60):
        await worker.wait_ready(60)
        await worker.send(m.Compile((bytes(4 * PIPE_BYTES),), 1 << 33))
        assert isinstance(await worker.receive(), m.Refused)  # it has read all of it, and that is no module
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_sees_the_end, worker)
            await trio.testing.wait_all_tasks_blocked()
            await worker.aclose()
        await _sees_the_end(worker)
        with pytest.raises(trio.BrokenResourceError):
            await worker.send(m.Inputs())


async def _sees_the_end(worker):
    assert await worker.receive() is None
