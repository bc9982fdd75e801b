"""Client and control API together, over a stand-in for the node."""

import json
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest
import trio

from depin_node.bootstrap import broken
from depin_node.bootstrap.control import application, serving
from depin_node.client.mesh import Mesh
from depin_node.core.errors import ConfigError, DepinError, ResourceError, TransportError
from depin_node.core.local import NotRunningError


@asynccontextmanager
async def talking(backend, folder):
    """Give a function that runs another one in a thread, with a ``Mesh`` whose node is ``backend``."""

    def with_mesh(work):
        with Mesh(folder) as mesh:
            return work(mesh)

    async with serving(application(backend, "token"), 0) as url:
        write_control(folder, url)
        yield lambda work: trio.to_thread.run_sync(with_mesh, work)


def write_control(folder, url):
    control = folder / "control.json"
    control.write_text(json.dumps({"url": url, "token": "token", "pid": 1}))
    control.chmod(0o600)


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


class Failing:
    """A node all of whose long answers end in ``error`` after a while."""

    def __init__(self, error):
        self.error = error

    async def blob(self, blob_id):
        for _ in range(3):
            yield b"x" * 1000
        raise self.error

    export = blob

    def output(self, job_id, buffer):
        return self.blob(job_id)

    def parts(self, job_id, *, in_order):
        return self.blob(job_id)


LONG_ANSWERS = {
    "blob": lambda control: b"".join(control.blob_parts(bytes(32))),
    "state": lambda control: b"".join(control.state("00" * 32)),
    "output": lambda control: all_of(control.output("00" * 32, 1)),
    "parts": lambda control: all_of(control.parts("00" * 32, in_order=True)),
}


def all_of(opened):
    with opened as parts:
        return b"".join(parts)


def error_of(what):
    def work(mesh):
        with pytest.raises(DepinError) as caught:
            LONG_ANSWERS[what](mesh._control)
        return caught.value

    return work


@pytest.mark.parametrize("what", LONG_ANSWERS)
@pytest.mark.parametrize("kind", [ResourceError, TransportError])
async def test_what_ends_a_long_answer_is_raised_as_what_it_is(tmp_path, what, kind):
    async with talking(Failing(kind("no room for it: raise the quota")), tmp_path) as run:
        for _ in range(2):
            error = await run(error_of(what))
            assert (type(error), str(error)) == (kind, "no room for it: raise the quota")


async def test_of_what_went_wrong_within_the_node_its_log_has_the_reason(tmp_path):
    async with talking(Failing(ValueError("secret")), tmp_path) as run:
        error = await run(error_of("output"))
        assert (type(error), str(error)) == (DepinError, "the node failed to answer; its log says why")


async def test_the_reasons_of_the_latest_broken_answers_are_kept_until_they_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(broken, "REASONS_MAX", 2)

    def work(mesh):
        def ask(path, name=""):
            return mesh._control._http.get(path, headers={"x-request-id": name})

        for name in ("a", "b", "c", "", "n" * 65):
            with pytest.raises(Exception, match="incomplete"):
                ask(f"/v1/blobs/{'00' * 32}", name)
        return [ask(f"/v1/broken/{name}").status_code for name in ("a", "b", "c", "c", "n" * 65)]

    async with talking(Failing(ResourceError("full")), tmp_path) as run:
        assert await run(work) == [404, 200, 200, 404, 404]


async def test_a_node_that_goes_away_in_the_middle_is_said_to(tmp_path):
    async def answer_and_go(stream):
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n")
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, host="127.0.0.1")
        (listener,) = await nursery.start(serve, answer_and_go, 0)
        write_control(tmp_path, f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        outer.start_soon(trio.to_thread.run_sync, sees_that_it_went_away, tmp_path)


def sees_that_it_went_away(folder):
    with Mesh(folder) as mesh, pytest.raises(NotRunningError, match="went away"):
        LONG_ANSWERS["output"](mesh._control)


async def test_a_job_file_that_cannot_be_read_is_said_to(tmp_path):
    def work(mesh):
        for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
            with pytest.raises(ConfigError, match=f"{path}: cannot be read: {reason}"):
                mesh.attach_file(path)

    async with talking(object(), tmp_path) as run:
        await run(work)
