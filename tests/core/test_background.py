"""Tasks beside a block: whose errors are whose."""

import pytest
import trio
import trio.testing

from depin_node.core.background import background


async def test_tasks_end_with_the_block():
    ended = []

    async def stay():
        try:
            await trio.sleep_forever()
        finally:
            ended.append("task")

    async with background() as nursery:
        nursery.start_soon(stay)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == ["task"]


async def beside(task, block):
    async with background() as nursery:
        nursery.start_soon(task)
        await block()


@pytest.mark.parametrize("error", [KeyError("why"), StopAsyncIteration(), ExceptionGroup("of its own", [OSError()])])
async def test_what_the_block_raises_leaves_as_it_is(error):
    async def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        await beside(trio.sleep_forever, fail)
    assert caught.value is error


async def test_what_a_task_raises_ends_the_block():
    async def fail():
        raise KeyError("why")

    with pytest.raises(ExceptionGroup) as caught:
        await beside(fail, trio.sleep_forever)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
