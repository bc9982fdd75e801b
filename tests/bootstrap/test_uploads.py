"""What a client brings to its node, and how long it stays."""

import pytest
import trio
import trio.testing
from market_world import InlinePool, knows, make_job, world

from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.operator import PUT_KEPT_S, UPLOAD_KEPT_S, UPLOADS_KEPT_MAX, Operator, Uploads
from depin_node.core.local import DataDir
from depin_node.p2p.blob_store import BlobStore


@pytest.fixture
def autojump_clock():
    """Simulated time, which leaps only when nothing has happened for a while: it does not see the journal's thread."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def test_what_was_put_stays_for_an_hour_whatever_jobs_use_it(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        await knows(a, [await w.start(2, pool=InlinePool())])
        operator = Operator(NodeConfig(), DataDir(tmp_path), (), a.context, None, None, a.requester, a.handover, None)
        store = a.blobs.store
        for jobs in (1, 2):
            job, _ = await make_job(a, key=str(jobs))
            put = job.inputs[0].blob
            assert operator.has_blob(put, for_an_hour=True)
            for blob in (job.program, put):  # as `submit` asks
                assert operator.has_blob(blob, for_an_hour=False)
            view = await a.requester.wait(bytes.fromhex((await operator.submit(job)).id))
            assert view.state == "done", view.error
            await trio.sleep(1)
            assert store._pins[put] == 1
            assert store._pins[job.program] == jobs  # which hold it for who asks for their outputs


async def test_uploads_are_let_go_when_their_time_is_over_and_beyond_so_many(tmp_path, autojump_clock):
    store = BlobStore(tmp_path / "blobs", quota_bytes=1 << 20)
    uploads, put, other, last = Uploads(store), b"p" * 32, b"o" * 32, b"l" * 32
    uploads.keep(put, for_an_hour=True)
    uploads.keep(other, for_an_hour=False)
    await trio.sleep(UPLOAD_KEPT_S + 1)
    uploads.keep(last, for_an_hour=False)
    assert (store._pins[put], store._pins[other]) == (1, 0)
    await trio.sleep(PUT_KEPT_S - UPLOAD_KEPT_S)
    uploads.keep(last, for_an_hour=False)
    assert (store._pins[put], store._pins[last]) == (0, 1)
    for number in range(UPLOADS_KEPT_MAX):
        uploads.keep(number.to_bytes(32, "big"), for_an_hour=True)
    assert (store._pins[last], store._pins[bytes(32)]) == (0, 1)
