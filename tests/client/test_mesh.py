"""The SDK against real nodes: one requester, three lenders. Most kernels are in WebAssembly text."""

import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import wat_programs as wat

from depin_node.client import JobFailed, Limits, Mesh, NobodySuitable, Out, RawKernel, quorum
from depin_node.client.work import Work
from depin_node.compute.programs.binding import Bound
from depin_node.core.errors import ConfigError, NotFoundError, ResourceError, TransportError

pytestmark = pytest.mark.net
WAIT_S = 120


@pytest.fixture(scope="module")
def running(module_nodes):
    return module_nodes.mesh(3, "--config", config_with(module_nodes.folder, "[waits]\nsuitable = 3\n"))


@pytest.fixture
def mesh(running):
    with Mesh(running[0].data_dir) as mesh:
        yield mesh


def config_with(folder, text):
    file = folder / "config.toml"
    file.write_text(text)
    return file


def copying(module=None, *, tasks=4, n=wat.N, k=2, of=3, seconds=30, memory_mib=64, name="copy", **options):
    numbers = wat.numbers(n, options.get("dtype", "float32"))
    bound = Bound(wat.program(module, tasks=tasks, n=n, **options), {0: numbers})
    return Work(name, bound, quorum(k, of), Limits(seconds, memory_mib))


@pytest.mark.parametrize(("tasks", "k", "of"), [(1, 1, 1), (4, 1, 1), (1, 2, 3), (16, 2, 3), (5, 3, 3)])
def test_a_job_is_done_and_its_result_is_right(mesh, tasks, k, of):
    future = mesh.submit(copying(tasks=tasks, k=k, of=of))
    np.testing.assert_array_equal(future.result(WAIT_S), wat.numbers())
    view = future.status()
    assert (view.state, view.tasks_done, view.verification.agreed) == ("done", tasks, tasks)
    assert future.done()
    assert not future.cancel()


def test_results_can_be_taken_as_they_come(mesh):
    future = mesh.submit(copying(tasks=16, k=2, of=3))
    whole = np.zeros_like(wat.numbers())
    (name,) = future.outputs(WAIT_S)
    for part in future.as_completed():
        part.put_into(**{name: whole})
    np.testing.assert_array_equal(whole, wat.numbers())
    assert [part.task for part in mesh.submit(copying(tasks=16, k=2, of=3))] == list(range(16))


def test_results_of_many_sizes_come_whole(mesh):
    n = 1 << 20  # 1 MiB a task: through the blob store, not the journal
    future = mesh.submit(copying(n=n, tasks=4, k=1, of=1))
    np.testing.assert_array_equal(future.result(WAIT_S), wat.numbers(n))


def test_the_same_key_is_the_same_job_and_another_job_may_not_have_it(mesh):
    work = copying(tasks=1, k=1, of=1)
    first = mesh.submit(work, key="once")
    assert mesh.submit(work, key="once").job_id == first.job_id
    first.wait(WAIT_S)
    assert mesh.submit(work, key="once").job_id == first.job_id
    with pytest.raises(ConfigError, match="the key 'once' is another job's"):
        mesh.submit(copying(tasks=2, k=1, of=1), key="once")


def test_a_future_is_found_again_by_the_beginning_of_its_id(mesh):
    future = mesh.submit(copying(tasks=1, k=1, of=1))
    again = mesh.future(future.job_id[:16])
    np.testing.assert_array_equal(again.result(WAIT_S), wat.numbers())  # it has to ask for the program
    assert list(again.outputs()) == ["y"]
    assert again.job_id in [view.id for view in mesh.jobs()]
    for wrong, error in (("0" * 64, NotFoundError), ("zzzzzz", NotFoundError), ("ab", ConfigError)):
        with pytest.raises(error):
            mesh.future(wrong)


def test_views_tell_how_it_goes_and_the_story_who_did_it(mesh, running):
    future = mesh.submit(copying(tasks=16))
    views = list(future.views(WAIT_S))
    assert views[-1].state == "done"
    assert [view.tasks_done for view in views] == sorted(view.tasks_done for view in views)
    assert {provider.peer for provider in views[-1].providers} <= {node.peer for node in running[1:]}


def test_a_timeout_ends_the_waiting_and_not_the_job(mesh):
    future = mesh.submit(copying(n=64 * wat.BLOCK, tasks=64, k=3, of=3))
    with pytest.raises(TimeoutError, match="it goes on"):
        future.result(timeout=0.001)
    np.testing.assert_array_equal(future.result(WAIT_S), wat.numbers(64 * wat.BLOCK))


def test_a_job_can_be_cancelled(mesh):
    future = mesh.submit(copying(wat.copying(wat.ENDLESS), tasks=1, k=1, of=1, seconds=600))
    assert future.cancel()
    assert future.status().state == "cancelled"
    with pytest.raises(JobFailed, match="cancelled"):
        future.result(WAIT_S)


@pytest.mark.parametrize("kind", ["trap", "endless loop", "far write", "another's tile", "division by zero"])
def test_a_kernel_that_fails_everywhere_fails_the_job_and_a_good_one_still_runs(mesh, kind):
    module, code, _ = wat.BAD_TASKS[kind]
    future = mesh.submit(copying(module, tasks=4, seconds=1))
    with pytest.raises(JobFailed, match=r"independent providers say so|attempts ended") as caught:
        future.result(WAIT_S)
    assert caught.value.code in (code, "fuel")
    np.testing.assert_array_equal(mesh.submit(copying(tasks=2)).result(WAIT_S), wat.numbers())


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (copying(memory_mib=4096, k=1, of=1), "too little memory"),
        (copying(k=4, of=4), "4 providers"),
        (copying(seconds=80_000, k=1, of=1), "declined (time)"),
        (replace(copying(k=1, of=1), device_classes=("strict-1",)), "of class strict-1"),
    ],
)
def test_nobody_suitable_tells_the_reasons(mesh, work, reason, caplog):
    with pytest.raises(NobodySuitable) as caught:
        mesh.submit(work).result(WAIT_S)
    assert caught.value.code == "nobody_suitable"
    assert reason in str(caught.value)
    waited = [record.getMessage() for record in caplog.records if record.name == "depin_node.client"]
    if "declined" not in reason:  # those who declined were known to fit
        assert len(waited) == 1, waited
        assert "known peers fit" in waited[0]
    deadline = time.monotonic() + WAIT_S  # who declined is not asked again for a while
    while mesh.submit(copying(tasks=2)).wait(WAIT_S).state != "done":
        assert time.monotonic() < deadline


def test_what_the_trial_finds_is_logged_once(mesh, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))
    beyond = RawKernel('extern "C" __global__ void k(const int* x, int* y) { y[threadIdx.x] = x[threadIdx.x]; }', "k")
    x = np.arange(32, dtype=np.int32)
    for _ in range(2):
        mesh.launch(beyond, 1, 64, (x, Out("int32", (64,))), verify=quorum(1, 1)).wait(WAIT_S)
    said = [record.getMessage() for record in caplog.records if "x[63] is outside x" in record.getMessage()]
    assert said[0].startswith("its bits are not defined"), said
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"deadline_s": 0.5}, "deadline_s: Expected `int`, got `float`; it is 0.5"),
        ({"budget_s": -1}, "budget_s: Expected `int` >= 0; it is -1"),
    ],
)
def test_a_bound_that_no_job_can_have_is_named(mesh, options, says):
    with pytest.raises(ConfigError) as caught:
        mesh.submit(replace(copying(), **options))
    assert str(caught.value) == says
    with pytest.raises(ConfigError) as caught:
        mesh.submit(copying(), key="k" * 65)
    assert "key: Expected `str` of length <= 64" in str(caught.value)


def test_both_sides_hold_the_signed_receipt(mesh, running):
    future = mesh.submit(copying(tasks=4))
    assert future.wait(WAIT_S).state == "done"
    deadline = time.monotonic() + WAIT_S  # receipts are confirmed after the job is done
    while True:
        ours = [receipt for receipt in mesh.receipts() if receipt.job == future.job_id]
        if ours and all("provider" in receipt.signed_by for receipt in ours):
            break
        assert time.monotonic() < deadline, ours
    theirs = []
    for node in running[1:]:
        with Mesh(node.data_dir) as lender:
            theirs += [receipt for receipt in lender.receipts() if receipt.job == future.job_id]
    assert {receipt.id for receipt in theirs} == {receipt.id for receipt in ours}
    assert {receipt.role for receipt in ours} == {"requester"}
    assert {receipt.role for receipt in theirs} == {"provider"}
    assert sum(receipt.tasks_accepted for receipt in ours) >= 4 * 2


def test_the_node_refuses_what_does_not_fit_together(mesh):
    work = copying(tasks=2)
    control = mesh._control
    program = control.put_blob(work.program_bytes)
    data = control.put_blob(work.bound.inputs[0].data)
    from depin_node.compute.jobs.job import InputRef, Job

    good = Job(
        key="fits",
        name="x",
        program=program,
        program_bytes=len(work.program_bytes),
        inputs=(InputRef(0, data, wat.N * 4),),
        tasks=2,
        device_classes=("wasm-1",),
        policy=quorum(1, 1),
        limits=Limits(10, 64),
        created_s=1,
    )
    import msgspec

    for change, message in (
        ({"tasks": 3}, "the job says 3 tasks, its program has 2"),
        ({"program": bytes(32)}, "upload the program"),
        ({"program": data}, "the program is refused"),
        ({"program_bytes": 1}, "another size"),
        ({"inputs": ()}, "other buffers"),
        ({"inputs": (InputRef(0, program, wat.N * 4),)}, "bytes, its shape says"),
    ):
        with pytest.raises(ConfigError, match=message):
            control.submit(msgspec.structs.replace(good, **change))


def test_what_the_node_has_dropped_is_uploaded_again(nodes):
    node = nodes.start("--disk-mib", 5)
    n = 1 << 20  # inputs of 4 MiB: there is room for one
    with Mesh(node.data_dir) as mesh:
        works = [copying(n=n, k=1, of=1), copying(n=n, k=1, of=1, dtype="int32")]
        for work in [*works, *works]:
            assert mesh.submit(work).cancel()  # its input may go now
        waiting = mesh.submit(works[0])
        with pytest.raises(ResourceError, match="raise the disk quota"):
            mesh.submit(works[1])
        assert waiting.cancel()
        assert mesh.submit(works[1]).cancel()


def test_a_reader_that_stalls_cannot_keep_a_node_from_ending(nodes):
    config = config_with(nodes.folder, "[waits]\nshutdown = 2\n")
    first, _ = nodes.mesh(1, "--config", config)
    with Mesh(first.data_dir) as mesh:
        future = mesh.submit(copying(n=4 << 20, tasks=4, k=1, of=1))
        assert future.wait(WAIT_S).state == "done"
        with mesh._control.output(future.job_id, 1) as parts:
            assert next(parts)
            assert first.stop() == 1
    assert "not stopped in time: ending at once" in first.log()


def test_a_mesh_without_a_node_says_so(tmp_path):
    with pytest.raises(TransportError, match="depin-node start"):
        Mesh(tmp_path)


def test_a_requester_that_is_killed_goes_on_where_it_was(nodes):
    first, *_ = nodes.mesh(2)
    with Mesh(first.data_dir) as mesh:
        future = mesh.submit(copying(n=64 * wat.BLOCK, tasks=64, k=2, of=2), key="survivor")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    again = nodes.start("--listen", first.address.partition("/p2p/")[0], listen=None, data_dir=first.data_dir)
    with Mesh(again.data_dir) as mesh:
        np.testing.assert_array_equal(mesh.future(future.job_id).result(WAIT_S), wat.numbers(64 * wat.BLOCK))


def test_a_lender_that_is_killed_costs_a_retry_and_not_the_job(nodes):
    first, *lenders = nodes.mesh(3)
    with Mesh(first.data_dir) as mesh:
        future = mesh.submit(copying(n=1000 * wat.BLOCK, tasks=1000, k=2, of=3))
        for view in future.views(WAIT_S):
            if view.tasks_done and lenders[0].process.poll() is None:
                lenders[0].kill()
        assert lenders[0].process.poll() is not None
        np.testing.assert_array_equal(future.result(WAIT_S), wat.numbers(1000 * wat.BLOCK))
