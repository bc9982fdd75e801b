"""Inputs that are cut along their first axis: a lender gets of them what its own tasks are given. Workers are real."""

from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import numpy as np
import pytest
import trio
from device_programs import cut_stencil
from market_world import NETWORK, WASM, InlinePool, clock, knows, make_job, world
from msgspec.structs import replace

from depin_node.bootstrap.arriving import PARTS_BYTES_MIN, chunks_of, part_bytes
from depin_node.bootstrap.lanes import Work
from depin_node.compute.jobs.job import InputRef, Quorum
from depin_node.compute.market.lender import Lending
from depin_node.compute.market.messages import Terms, WorkBody
from depin_node.compute.market.orders import Prepare
from depin_node.compute.programs.shards import owned_boxes, result_bytes
from depin_node.compute.sandbox.pool import PoolConfig, open_pool
from depin_node.compute.sandbox.process import WorkerConfig
from depin_node.core.errors import TransportError
from depin_node.crypto.blob import CHUNK_BYTES, blob_id
from depin_node.p2p.blobs import issue_grant

TASKS, ROWS, COLUMNS = 16, 4096, 1024
PAD = {"clamp": "edge", "wrap": "wrap", "reflect": "reflect", "constant": "constant"}


def sums(x, edge):
    """Return what ``cut_stencil`` computes."""
    filled = {"constant_values": 7} if edge == "constant" else {}
    padded = np.pad(x, ((1, 1), (0, 0)), mode=PAD[edge], **filled)
    return padded[:-2] + padded[1:-1] + padded[2:]


@asynccontextmanager
async def lenders(folder, count):
    """A requester and lenders, each with a worker of its own."""
    async with world(folder) as w, AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(open_pool(PoolConfig(WorkerConfig(nice=0), workers_max=1)))
            for _ in range(count)
        ]
        requester = await w.start(1)
        made = [
            await w.start(number, pool=pool, lending=Lending("wasm-1", 1, 1024)) for number, pool in enumerate(pools, 2)
        ]
        await knows(requester, made)
        yield requester, made


def stencil(edge="clamp"):
    rng = np.random.default_rng(1)
    return cut_stencil(edge, TASKS, ROWS, COLUMNS), rng.random((ROWS, COLUMNS), np.float32)


async def run(requester, candidate, x, edge="clamp", **more):
    """Run a job over ``x``, and check what comes out."""
    job, _ = await make_job(requester, candidate=candidate, arrays=[x], **more)
    view = await requester.requester.submit(job)
    view = await requester.requester.wait(bytes.fromhex(view.id))
    assert view.state == "done", view.error
    data = b"".join([part async for part in requester.requester.output(bytes.fromhex(view.id), 1)])
    out, at = np.zeros_like(x), 0
    for task in range(TASKS):
        (box,) = owned_boxes(candidate, task, 0)
        size = result_bytes(candidate, task, 0)
        out[box.slices] = np.frombuffer(data[at : at + size], np.float32).reshape(box.shape)
        at += size
    np.testing.assert_array_equal(out, sums(x, edge))
    return view


async def closed(lenders):
    """Wait until no lender has a work open any more."""
    with trio.fail_after(10):
        while any(lender.blobs._parts for lender in lenders):
            await trio.sleep(0.01)


@pytest.mark.parametrize("edge", PAD)
async def test_each_lender_gets_the_rows_of_its_tasks(tmp_path, edge):
    candidate, x = stencil(edge)
    assert x.nbytes >= PARTS_BYTES_MIN
    async with lenders(tmp_path, 2) as (requester, both):
        await run(requester, candidate, x, edge)
        assert requester.blobs.sent_bytes < x.nbytes + 2 * TASKS * CHUNK_BYTES + 100_000
        await closed(both)
        assert all(0 < lender.blobs.store.used_bytes < x.nbytes + 100_000 for lender in both)


async def test_by_two_each_chunk_leaves_once_for_each(tmp_path):
    candidate, x = stencil()
    async with lenders(tmp_path, 2) as (requester, both):
        await run(requester, candidate, x, policy=Quorum(2, 2))
        assert requester.blobs.sent_bytes < 2 * x.nbytes + 100_000
        await closed(both)
        assert all(lender.blobs.is_at_hand(blob_id(x.tobytes()), requester.key) for lender in both)


@pytest.mark.parametrize("count", [1, 3])
async def test_an_array_larger_than_a_lenders_quota(tmp_path, count):
    """Rows of tasks that have ended make room; so one lender can do it all."""
    candidate, x = stencil()
    async with lenders(tmp_path, count) as (requester, some):
        for lender in some:
            lender.blobs.store.quota_bytes = 12 << 20
        await run(requester, candidate, x)
        assert requester.blobs.sent_bytes < (count + 0.5) * x.nbytes  # nobody threw away what it needed


async def test_rows_wait_for_room_and_for_those_of_one_task_there_has_to_be_some(tmp_path):
    """A task is given up to three chunks, its own rows and one on each side: with room for less it cannot run."""
    candidate, x = stencil()
    async with lenders(tmp_path, 1) as (requester, (lender,)):
        store = lender.blobs.store
        store.quota_bytes = store.used_bytes + 3 * CHUNK_BYTES + 100_000
        await run(requester, candidate, x)
        await closed([lender])
        store.sparse.drop_oldest()
        store.quota_bytes = store.used_bytes + 2 * CHUNK_BYTES + 100_000
        job, _ = await make_job(requester, candidate=candidate, arrays=[x + 1], key="another")
        identifier = bytes.fromhex((await requester.requester.submit(job)).id)
        with trio.fail_after(20):
            while not any(event.detail == "resource" for event in requester.requester.story(identifier)):
                await trio.sleep(0.05)
        await requester.requester.cancel(identifier)


async def test_a_worker_sees_what_comes_after_it_was_loaded(tmp_path):
    """The next job over the same array goes on in the same worker, over the same file, or over another one if that was
    dropped to make room."""
    candidate, x = stencil()
    async with lenders(tmp_path, 2) as (requester, both):
        for number in range(4):
            await run(requester, candidate, x, key=str(number))
            if number % 2:
                await closed(both)
                for lender in both:
                    while len(lender.blobs.store.sparse):
                        lender.blobs.store.sparse.drop_oldest()


async def test_a_dispute_is_about_rows_that_have_come(tmp_path):
    """A lender that is asked about a task which it was not given gets its rows first: else it would say what zeros
    give."""
    candidate, x = stencil()
    async with lenders(tmp_path, 2) as (requester, both):
        job, _ = await make_job(requester, candidate=candidate, arrays=[x])
        view = await requester.requester.submit(job)
        identifier = bytes.fromhex(view.id)
        lender, task = both[0], 5

        async def rows_of(task):
            while lender.provider is None or not any(
                shop.work_of(identifier) for _, shop in lender.provider._talks.values()
            ):
                await trio.sleep(0.001)
            async with lender.provider.work_for(requester.key, identifier, task) as (_, inputs):
                return np.memmap(inputs[0], np.float32, "r", shape=x.shape)

        with trio.fail_after(30):
            held = await rows_of(task)
        rows = slice(task * ROWS // TASKS - 1, (task + 1) * ROWS // TASKS + 1)
        np.testing.assert_array_equal(held[rows], x[rows])
        await requester.requester.wait(identifier)


@pytest.mark.parametrize(
    ("more", "outcome"), [(4, nullcontext()), (-4, pytest.raises(TransportError, match="too_large"))]
)
async def test_a_blob_that_is_named_with_two_sizes_comes_whole_or_not_at_all(tmp_path, more, outcome):
    """A requester that lies: of what is not as its program says no rows are known, so nothing is mapped by them."""
    candidate, x = stencil()
    async with lenders(tmp_path, 1) as (requester, (lender,)):
        job, _ = await make_job(requester, candidate=candidate, arrays=[x])
        (true,) = job.inputs
        inputs = (true, replace(true, size_bytes=x.nbytes + more))
        body = WorkBody(
            bytes(32), job.program, job.program_bytes, inputs, job.tasks, Terms((WASM,), job.limits, x.nbytes)
        )
        grant = issue_grant(
            requester.context.identity,
            NETWORK,
            lender.key,
            [job.program, true.blob],
            seq=1,
            now=clock(),
            lifetime_s=600,
        )
        with outcome:
            async with lender.provider.fetched(
                requester.key, Prepare(1, body, grant), Work(body), in_parts=True
            ) as given:
                assert not given.parts
                assert lender.blobs.store.has(true.blob)
        assert len(lender.blobs.store.sparse) == 0


async def test_who_cannot_use_parts_gets_all(tmp_path):
    candidate, x = stencil()
    async with world(tmp_path) as w:
        requester = await w.start(1)
        lender = await w.start(2, pool=InlinePool())
        await knows(requester, [lender])
        await run(requester, candidate, x)
        assert len(lender.blobs.store.sparse) == 0


def test_chunks_are_named_once():
    assert chunks_of([(0, 1), (CHUNK_BYTES - 1, CHUNK_BYTES + 1), (5 * CHUNK_BYTES, 6 * CHUNK_BYTES)]) == [0, 1, 5]


def test_what_travels_for_a_task_is_counted_where_it_comes_in_parts():
    candidate, x = stencil()
    (given,) = [InputRef(0, bytes(32), x.nbytes)]
    assert part_bytes(candidate, [given]) == x.nbytes // TASKS
    assert part_bytes(candidate, [replace(given, size_bytes=x.nbytes - 4)]) == 0  # not as the program says
    assert part_bytes(candidate, [replace(given, buffer=99)]) == 0
    small = cut_stencil("clamp", TASKS, 64, COLUMNS)
    assert part_bytes(small, [InputRef(0, bytes(32), 64 * COLUMNS * 4)]) == 0
