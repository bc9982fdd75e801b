"""Client and control API together, over a stand-in for the node."""

import json
from contextlib import asynccontextmanager

import numpy as np
import trio

from depin_node.bootstrap.control import application, serving
from depin_node.client.mesh import Mesh


@asynccontextmanager
async def talking(backend, folder):
    """Give a function that runs another one in a thread, with a ``Mesh`` whose node is ``backend``."""

    def with_mesh(work):
        with Mesh(folder) as mesh:
            return work(mesh)

    async with serving(application(backend, "token"), 0) as url:
        control = folder / "control.json"
        control.write_text(json.dumps({"url": url, "token": "token", "pid": 1}))
        control.chmod(0o600)
        yield lambda work: trio.to_thread.run_sync(with_mesh, work)


class Store:
    """The part of a node that keeps what clients bring."""

    def __init__(self):
        self.kept = []

    def has_blob(self, blob_id, *, for_an_hour):
        self.kept.append(("asked", for_an_hour))
        return False

    async def put_blob(self, blob_id, chunks, *, for_an_hour):
        assert b"".join([chunk async for chunk in chunks])
        self.kept.append(("put", for_an_hour))


async def test_what_is_put_is_to_stay_for_an_hour_and_what_is_uploaded_for_a_job_is_not(tmp_path):
    store, x = Store(), np.ones(4, np.float32)
    (tmp_path / "x").write_bytes(b"x")

    def work(mesh):
        mesh._control.put_blob(x.data)  # as `submit` does
        mesh._control.put_blob(x.data)
        mesh.put(x)
        mesh.put(x)  # from now on for an hour
        mesh.put_file(tmp_path / "x")

    async with talking(store, tmp_path) as run:
        await run(work)
    assert store.kept == [(what, stays) for stays in (False, True, True, True) for what in ("asked", "put")]
