"""The shells of requester and provider with all that is under them, over the in-memory network; kernels really run."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing
from market_world import (
    WASM,
    InlineLease,
    InlinePool,
    done,
    jump,
    knows,
    lie,
    make_job,
    output_of,
    stall,
    unwritable,
    world,
)
from msgspec.structs import replace
from talk_pair import BODY
from wat_programs import TRAP, copying, program

from depin_node.bootstrap import finished
from depin_node.bootstrap.finished import FinishedResults
from depin_node.bootstrap.market import RESERVE_AGAIN_S
from depin_node.client.parts import read_parts
from depin_node.compute.jobs.job import InputRef, Limits, Quorum
from depin_node.compute.jobs.scheduler import SchedulerConfig
from depin_node.compute.market.lender import Lending
from depin_node.compute.market.messages import PROTOCOL, Kind, Offer, Terms, Verdict, WorkBody
from depin_node.compute.sandbox.pool import PoolConfig, open_pool
from depin_node.compute.sandbox.process import WorkerConfig
from depin_node.compute.trust.export import Record, verify_export, write_export
from depin_node.compute.trust.receipts import verify_receipt
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import ConfigError, NotFoundError, ResourceError, TaskCrashed, TaskTimedOut, TransportError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.envelope import sign
from depin_node.crypto.identity import Identity, peer_id
from depin_node.crypto.replay import RESERVED_AT_ONCE
from depin_node.p2p.frames import Frame, send_frames

SUPPORT = str(Path(__file__).parent.parent / "support")
TASKS = 24
MANY = program(tasks=TASKS, n=TASKS * 64)
LARGE = program(tasks=4, n=1 << 20, block=1024)  # 1 MiB a task
IMPATIENT = SchedulerConfig(suitable_s=5.0)


@pytest.fixture
def autojump_clock():
    """Simulated time, which leaps only when nothing has happened for a while: it does not see the journal's thread."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def running(peer, view, tasks_done):
    """Wait until so many tasks of a job are done."""
    while (seen := peer.requester.job(bytes.fromhex(view.id))).tasks_done < tasks_done:
        await peer.requester.changed(bytes.fromhex(view.id), seen)


async def until(condition):
    while not condition():
        await trio.sleep(0.1)


async def test_a_job_is_done_and_both_sides_hold_its_receipts(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, x = await make_job(a, candidate=MANY)
        view = await done(a, job)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert view.verification.agreed == TASKS

        journal = a.context.journal.reader
        await until(lambda: all(stored.countersign for stored in journal.receipts(9)))
        (stored,) = journal.receipts(9)
        (theirs,) = b.context.journal.reader.receipts(9)
        receipt = verify_receipt(stored.receipt, stored.countersign, "test").payload
        assert (theirs.receipt, theirs.countersign) == (stored.receipt, stored.countersign)
        assert (receipt.final, receipt.verified_by) == (True, "quorum 1 of 1; 1.0 groups")
        assert sorted(settled.task for settled in receipt.settled) == list(range(TASKS))
        assert {settled.verdict for settled in receipt.settled} == {Verdict.ACCEPTED}
        for node, paid in ((a, b), (b, a)):
            file = io.BytesIO()
            log = [Record(*record) for record in node.context.journal.reader.log_records()]
            head = node.context.journal.reader.log_head()
            write_export(file, node.context.identity, "test", log, head=head.link, is_whole=True, at_s=1)
            file.seek(0)
            findings = verify_export(file)
            assert findings.holds, findings.problems
            assert findings.partners[peer_id(paid.key)].accepted == TASKS
        ours, its = journal.agreements(), b.context.journal.reader.agreements()
        assert [(one[0], one[3:]) for one in ours] == [(one[0], one[3:]) for one in its]


async def test_the_blobs_of_a_work_are_fetched_together(tmp_path, autojump_clock, monkeypatch):
    async with world(tmp_path, latency_s=(0.02, 0.02)) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        served, why_not = [], a.blobs.why_not

        def noted(peer, request):
            served.append(a.blobs._serving[peer])
            return why_not(peer, request)

        monkeypatch.setattr(a.blobs, "why_not", noted)
        job, _ = await make_job(a, candidate=MANY)
        view = await done(a, job)
        assert view.state == "done", view.error
        assert served == [2, 2]  # the program and the input


async def test_a_task_may_take_as_long_as_a_lender_allows(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, x = await make_job(a, candidate=MANY, seconds=Lending.seconds_max)
        with trio.fail_after(60):
            view = await done(a, job)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()


@pytest.mark.parametrize("ends", ["never", "dies", "is used up"])
async def test_jobs_over_other_inputs_and_programs_go_on_with_the_worker_or_with_a_fresh_one(
    tmp_path, autojump_clock, ends
):
    started, went_on = [], []

    class Mortal(InlineLease):
        async def load(self, *args, **limits):
            started.append(self)
            await super().load(*args, **limits)

        async def load_inputs(self, inputs):
            if ends == "dies":
                raise TaskCrashed("the worker died")
            await super().load_inputs(inputs)

        async def load_next(self, *args, **limits):
            if ends == "dies":
                raise TaskCrashed("the worker died")
            went_on.append(ends != "is used up")
            return went_on[-1] and await super().load_next(*args, **limits)

    class Pool(InlinePool):
        async def acquire(self, name):
            return Mortal(self)

    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=Pool())
        await knows(a, [b])
        for turn, candidate in enumerate([MANY, MANY, MANY, program(tasks=2, n=TASKS * 64), MANY]):
            x = (np.arange(MANY.buffers[0].elements) * 3 + turn).astype("float32")
            job, _ = await make_job(a, key=str(turn), candidate=candidate, arrays=[x])
            view = await done(a, job)
            assert view.state == "done", view.error
            assert (await output_of(a, view, candidate) == x).all()
            assert view.verification.attempts == candidate.tasks
        assert len(started) == {"never": 1, "dies": 5, "is used up": 3}[ends]
        assert went_on == {"never": [True] * 2, "dies": [], "is used up": [False] * 2}[ends]


async def test_a_liar_is_caught_for_good(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(lie if n == 3 else None)) for n in (2, 3, 4, 5)]
        liar = lenders[1]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=Quorum(2, 3))
        view = await done(a, job)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert view.verification.liars == (peer_id(liar.key),)
        assert view.verification.disputed
        assert "caught" in {line.kind for line in a.requester.story(bytes.fromhex(view.id))}
        await until(lambda: liar.key in a.context.book.banned)  # what lost the vote is run again here
        why = a.requester.explain(bytes.fromhex(view.id))
        assert {line.peer for line in why.rejected if line.kind == "caught"} == {e.peer for e in why.evidence}
        assert sum(part.run_s for part in why.providers) > 0
        assert [(found.name, found.failing) for found in why.conditions] == [("honest", 1)]
        journal = a.context.journal.reader
        assert set(journal.bans()) == {liar.key}
        assert {peer for peer, *_ in journal.evidence()} == {liar.key}

        ran = len(liar.pool.tasks)
        job, _ = await make_job(a, key="second", candidate=MANY, policy=Quorum(2, 3))
        assert (await done(a, job)).state == "done"
        assert len(liar.pool.tasks) == ran, "a banned peer was asked again"


async def test_nothing_of_a_copier_is_accepted(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)

        async def copy(task, results):
            """Wait until the others' answer is accepted, and give it as our own."""
            await until(lambda: any(a.context.journal.reader.results(name, task, 1) for name in a.requester._open))

        lenders = [await w.start(n, pool=InlinePool(copy if n == 2 else None)) for n in (2, 3, 4)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=Quorum(2, 3), seconds=2)
        view = await done(a, job)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert lenders[0].pool.tasks  # it had its chance
        for stored in a.context.journal.reader.receipts(99):
            receipt = verify_receipt(stored.receipt, stored.countersign, "test").payload
            if receipt.to == lenders[0].key:
                assert not [settled for settled in receipt.settled if settled.verdict is Verdict.ACCEPTED]


async def test_a_killed_provider_costs_a_retry(tmp_path, autojump_clock):
    async with world(tmp_path, latency_s=(0.005, 0.02)) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3, 4)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=Quorum(2, 3))
        view = await a.requester.submit(job)
        await running(a, view, 2)
        w.fabric.kill(lenders[0].key)
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()


async def test_a_provider_that_stalls_or_freezes_is_given_up(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(stall if n == 2 else None)) for n in (2, 3, 4, 5)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY, policy=Quorum(2, 3), seconds=3)
        view = await a.requester.submit(job)
        await running(a, view, 1)
        w.fabric.freeze(lenders[1].key)
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()


async def test_large_results_lie_in_the_blob_store(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=LARGE, policy=Quorum(2, 2))
        view = await done(a, job)
        assert view.state == "done", view.error
        assert (await output_of(a, view, LARGE) == x).all()
        assert a.blobs.store.has(blob_id(x[: 1 << 18].tobytes()))


async def test_workers_are_real_processes_too(tmp_path):
    async with world(tmp_path) as w, open_pool(PoolConfig(WorkerConfig(nice=0), workers_max=2)) as pool:
        a = await w.start(1)
        b = await w.start(2, pool=pool, lending=Lending("wasm-1", 2, 1024))
        await knows(a, [b])
        for key, candidate in (("many", MANY), ("large", LARGE), ("again", MANY)):
            job, x = await make_job(a, key=key, candidate=candidate)
            view = await done(a, job)
            assert view.state == "done", view.error
            assert (await output_of(a, view, candidate) == x).all()


@pytest.mark.parametrize("mood", ["crash:3", "die at load"])
async def test_a_worker_that_dies_costs_a_retry_elsewhere(tmp_path, mood):
    candidate = program(copying(), source=mood, tasks=8, n=8 * 64)
    moody = WorkerConfig("moody_device:MoodyDevice", (SUPPORT,), nice=0)
    async with world(tmp_path) as w, open_pool(PoolConfig(moody)) as pool:
        a = await w.start(1)
        await knows(a, [await w.start(2, pool=pool)])
        job, _ = await make_job(a, candidate=candidate)
        view = await a.requester.submit(job)
        await until(lambda: a.requester.job(bytes.fromhex(view.id)).attempts_failed)
        await w.start(3, pool=InlinePool())
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view.error
        failed = {line.detail for line in a.requester.story(bytes.fromhex(view.id)) if line.kind == "attempt_failed"}
        assert failed == {"crashed"}


async def test_a_fault_of_the_node_ends_one_agreement_and_not_the_node(tmp_path, autojump_clock, monkeypatch):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (2, 3)]
        await knows(a, lenders)

        async def broken(name):
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(lenders[0].pool, "acquire", broken)
        job, _ = await make_job(a, candidate=MANY)
        view = await done(a, job)
        assert view.state == "done", view.error
        monkeypatch.undo()
        job, _ = await make_job(a, key="both", candidate=MANY, policy=Quorum(2, 2))
        assert (await done(a, job)).state == "done"


async def test_a_kernel_that_traps_fails_its_job_and_the_next_one_runs(tmp_path):
    async with world(tmp_path) as w, open_pool(PoolConfig(WorkerConfig(nice=0))) as pool:
        a = await w.start(1)
        b = await w.start(2, pool=pool)
        await knows(a, [b])
        job, _ = await make_job(a, key="bad", candidate=program(copying(before=TRAP)))
        view = await done(a, job)
        assert (view.state, view.error.code) == ("failed", "trapped")
        job, _ = await make_job(a, key="good")
        assert (await done(a, job)).state == "done"


async def test_a_cancelled_job_ends_and_frees_its_providers(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool(stall))
        await knows(a, [b])
        job, _ = await make_job(a)
        view = await a.requester.submit(job)
        await until(lambda: b.pool.tasks)
        view = await a.requester.cancel(bytes.fromhex(view.id))
        assert view.state == "cancelled"
        assert (await a.requester.cancel(bytes.fromhex(view.id))).state == "cancelled"
        await until(lambda: not any(talk.open_attempts() for talk in b.provider._talks))
        with pytest.raises(ConfigError, match="is not done"):
            await output_of(a, view)


async def test_what_runs_is_stopped_within_a_second_of_a_cancellation(tmp_path, autojump_clock):
    runs = []

    async def stall_at_first(task, results):
        runs.append(task)
        if len(runs) == 1:
            await trio.sleep_forever()

    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool(stall_at_first))  # one slot
        await knows(a, [b])
        job, _ = await make_job(a)
        view = await a.requester.submit(job)
        await until(lambda: runs)
        next_job, x = await make_job(a, key="next")
        waiting = await a.requester.submit(next_job)
        began = trio.current_time()
        await a.requester.cancel(bytes.fromhex(view.id))
        view = await a.requester.wait(bytes.fromhex(waiting.id))
        assert view.state == "done"
        assert trio.current_time() - began < 1
        assert (await output_of(a, view) == x).all()


async def test_nobody_and_no_agreement_fail_with_the_reasons(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1, config=IMPATIENT)
        await w.start(2)
        small = await w.start(3, pool=InlinePool(), lending=Lending("wasm-1", 1, 16))
        dear = await w.start(4, pool=InlinePool(), lending=Lending("wasm-1", 1, 1024, seconds_max=5))
        await knows(a, [small, dear])
        job, _ = await make_job(a)
        view = await done(a, job)
        assert (view.state, view.error.code) == ("failed", "nobody_suitable")
        assert "1 declined (time)" in view.error.message
        assert "1 known node: too little memory" in view.error.message
        assert "1 known node: not lending" in view.error.message


async def test_answers_that_never_agree_fail_the_verification(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)

        def liar(number):
            async def lie_differently(task, results):
                results[0][0] ^= number

            return lie_differently

        lenders = [await w.start(n, pool=InlinePool(liar(n))) for n in (2, 3, 4)]
        await knows(a, lenders)
        job, _ = await make_job(a, policy=Quorum(2, 3))
        view = await done(a, job)
        assert (view.state, view.error.code) == ("failed", "verification")


async def test_the_same_key_is_the_same_job_and_no_other(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, _ = await make_job(a)
        first = await done(a, job)
        ran = len(b.pool.tasks)
        again = await done(a, replace(job, created_s=job.created_s + 99))
        assert again == first
        assert len(b.pool.tasks) == ran
        with pytest.raises(ConfigError, match="another job's"):
            await a.requester.submit(replace(job, name="other"))
        assert [view.id for view in a.requester.jobs(9)] == [first.id]
        with pytest.raises(NotFoundError):
            a.requester.job(bytes(32))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda job: {"program": bytes(32)}, "put the program and the inputs first"),
        (lambda job: {"tasks": 5}, "its program has 4"),
        (lambda job: {"program_bytes": 5}, "another size"),
        (lambda job: {"inputs": ()}, "for other buffers"),
        (lambda job: {"inputs": (InputRef(0, job.program, job.program_bytes),)}, "its shape says 4096"),
        (lambda job: {"program": job.inputs[0].blob}, "the program is refused"),
    ],
)
async def test_a_job_that_does_not_fit_is_refused_at_once(tmp_path, autojump_clock, change, why):
    async with world(tmp_path) as w:
        a = await w.start(1)
        job, _ = await make_job(a)
        with pytest.raises(ConfigError, match=why):
            await a.requester.submit(replace(job, **change(job)))
        assert a.requester.jobs(9) == []


async def test_a_job_goes_on_after_a_restart_and_repeats_only_what_was_lost(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        job, x = await make_job(a, candidate=LARGE)
        runs = []

        async def note(task, results):
            runs.append(task)
            if len(runs) == 3:
                await trio.sleep_forever()

        b = await w.start(2, pool=InlinePool(note))
        await knows(a, [b])
        view = await a.requester.submit(job)
        identifier = bytes.fromhex(view.id)
        await running(a, view, 2)
        a.scope.cancel()
        await trio.sleep(1)
        (tmp_path / "1" / "blobs" / blob_id(x[: 1 << 18].tobytes()).hex()).unlink()  # as after a power cut

        runs.clear()
        runs.extend([-1] * 9)
        w.first = b.context.network.addresses()[0]
        a = await w.start(1)
        view = await a.requester.wait(identifier)
        assert view.state == "done", view.error
        assert (await output_of(a, view, LARGE) == x).all()
        assert sorted(runs[9:]) == [0, 2, 3]


async def test_a_program_that_a_power_cut_damaged_ends_its_job_and_not_the_node(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        job, _ = await make_job(a)
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        file = Path(a.blobs.store.path(job.program))
        a.scope.cancel()
        await trio.sleep(1)
        file.write_bytes(bytes(file.stat().st_size))
        w.first = None
        view = (await w.start(1)).requester.job(identifier)
        assert (view.state, view.error.code) == ("failed", "resource")
        assert "damaged" in view.error.message


async def test_a_full_disk_fails_the_job_and_says_so(tmp_path, autojump_clock, monkeypatch):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, _ = await make_job(a, candidate=LARGE)

        async def full(data, *, durable=False):
            raise ResourceError("the disk is full; free some space")

        monkeypatch.setattr(a.blobs.store, "put", full)
        view = await done(a, job)
        assert (view.state, view.error.code) == ("failed", "resource")
        monkeypatch.undo()
        job, _ = await make_job(a, key="good", candidate=LARGE)
        assert (await done(a, job)).state == "done"


# What strangers may try on market/1.


def terms():
    return Terms(("wasm-1",), Limits(10, 64), 100)


def offer(identity, to, network="test", seq=1, expires_s=1_800_000_020):
    return Frame(Kind.OFFER, sign(identity, network, Offer(to, expires_s, seq, terms(), 0, 60)))


MALLORY, OTHER = Identity(b"m" * 32), Identity(b"o" * 32)
HOSTILE = {
    "garbage": lambda to: [Frame(Kind.OFFER, os.urandom(300))],
    "unknown kind": lambda to: [Frame(200, b"")],
    "empty": lambda to: [Frame(Kind.OFFER, b"")],
    "oversized": lambda to: [Frame(Kind.OFFER, bytes(70_000))],
    "a provider's message": lambda to: [Frame(Kind.BID, b"")],
    "expired": lambda to: [offer(MALLORY, to, expires_s=1_799_990_000)],
    "valid for too long": lambda to: [offer(MALLORY, to, expires_s=1_800_009_999)],
    "misaddressed": lambda to: [offer(MALLORY, OTHER.key)],
    "foreign network": lambda to: [offer(MALLORY, to, network="elsewhere")],
    "another's": lambda to: [offer(OTHER, to)],
    "replayed": lambda to: [offer(MALLORY, to, seq=5)] * 2,
    "tasks without an agreement": lambda to: [Frame(Kind.RELEASE, b"\x91\x91\x00")],
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_message_costs_its_sender_the_stream_and_nobody_else(tmp_path, autojump_clock, name):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        async with w.fabric.open(MALLORY.key, host="10.66.0.1") as network:
            await network.dial(b.context.network.addresses()[0])
            stream = await network.open_stream(b.key, PROTOCOL)
            await send_frames(stream, HOSTILE[name](b.key))
            with pytest.raises(TransportError):
                await stream.receive_exactly(1 << 20)
            job, _ = await make_job(a)
            assert (await done(a, job)).state == "done"
        assert b.context.network.counters()["streams_violated"] == 1


async def test_conversations_are_bounded(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        b = await w.start(2, pool=InlinePool())
        async with w.fabric.open(MALLORY.key, host="10.66.0.1") as network:
            await network.dial(b.context.network.addresses()[0])
            streams = [await network.open_stream(b.key, PROTOCOL) for _ in range(9)]
            await trio.sleep(1)
            assert len(b.provider._talks) == 4  # all strangers are one group
            refused = 0
            for stream in streams:
                with trio.move_on_after(1):
                    try:
                        await stream.receive_some()
                    except TransportError:
                        refused += 1
            assert refused == 5


async def test_an_idle_agreement_gives_way_to_another_requester(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lender = await w.start(2, pool=InlinePool())
        c = await w.start(3)
        await knows(a, [lender])
        await knows(c, [lender])
        job, _ = await make_job(a)
        assert (await done(a, job)).state == "done"
        assert lender.provider.lender.slots_free(0) == 0  # kept for the next job
        job, _ = await make_job(c)
        begin = trio.current_time()
        assert (await done(c, job)).state == "done"
        assert trio.current_time() - begin < 5


async def test_strangers_get_the_share_that_is_left_for_them_and_are_told(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1, config=IMPATIENT)
        b = await w.start(2, pool=InlinePool(), unpaid_share=0.0)
        await knows(a, [b])
        job, _ = await make_job(a, candidate=MANY)
        view = await done(a, job)
        assert view.error.code == "nobody_suitable"
        assert "declined (credit)" in view.error.message


async def test_a_module_that_compiles_for_long_uses_up_the_share_of_strangers(tmp_path, autojump_clock):
    class SlowLease(InlineLease):
        async def load(self, *args, **limits):
            await trio.sleep(30)
            raise TaskTimedOut("compiling the module took more than 30 s")

    class SlowPool(InlinePool):
        async def acquire(self, name):
            return SlowLease(self)

    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=SlowPool(), unpaid_share=0.001)
        await knows(a, [b])
        left_us = b.context.credit.left_us(b.context.clock())
        job, _ = await make_job(a, candidate=MANY)
        view = await done(a, job)
        assert view.error.code == "timed_out"
        assert b.context.credit.left_us(b.context.clock()) <= left_us - 29_000_000


async def test_both_sides_count_what_was_done(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool())
        await knows(a, [b])
        job, _ = await make_job(a, candidate=MANY)
        await done(a, job)
        await until(lambda: a.context.credit.accounts(a.context.clock()))
        ((_, got),) = a.context.credit.accounts(a.context.clock())
        await until(lambda: b.context.journal.reader.balances() == [(a.key, got.received_us, 0)])
        await until(lambda: a.context.journal.reader.balances() == [(b.key, 0, got.received_us)])
        await until(lambda: [gave.given_us for _, gave in b.context.credit.accounts(b.context.clock())])
        ((_, gave),) = b.context.credit.accounts(b.context.clock())
        assert gave.given_us == got.received_us > 0
        assert gave.unsigned_us == 0


async def parts_of(peer, identifier, *, in_order=False):
    """Collect the parts of a job while it runs, as the SDK does."""
    data = bytearray()
    async for part in peer.requester.parts(identifier, in_order=in_order):
        data += part
    return list(read_parts(MANY, iter([bytes(data)])))


@pytest.mark.parametrize("in_order", [False, True])
async def test_results_come_while_others_still_run(tmp_path, autojump_clock, in_order):
    gate = trio.Event()

    async def wait_at_five(task, results):
        if task == 5:
            await gate.wait()

    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(wait_at_five)) for n in (2, 3)]
        await knows(a, lenders)
        job, x = await make_job(a, candidate=MANY)
        view = await a.requester.submit(job)
        identifier, seen, reader = bytes.fromhex(view.id), [], bytearray()

        async def read():
            async for part in a.requester.parts(identifier, in_order=in_order):
                reader.extend(part)
                if part.startswith(b"\xff" * 4):  # all before it is whole
                    seen[:] = [found.task for found in read_parts(MANY, iter([bytes(reader)]))]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await until(lambda: len(seen) >= 5)
            assert 5 not in seen
            gate.set()
        seen = [found.task for found in read_parts(MANY, iter([bytes(reader)]))]
        assert sorted(seen) == list(range(TASKS))
        assert not in_order or seen == list(range(TASKS))
        whole = np.zeros_like(x)
        for part in await parts_of(a, identifier, in_order=in_order):  # the same once more, when it is done
            part.put_into(**{MANY.buffers[MANY.outputs[0]].name: whole})
        assert (whole == x).all()


async def test_what_a_cancelled_job_had_can_still_be_read(tmp_path, autojump_clock):
    async def stop_at_ten(task, results):
        if task >= 10:
            await trio.sleep_forever()

    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool(stop_at_ten))
        await knows(a, [b])
        job, _ = await make_job(a, candidate=MANY)
        view = await a.requester.submit(job)
        await until(lambda: a.requester.job(bytes.fromhex(view.id)).tasks_done == 10)
        await a.requester.cancel(bytes.fromhex(view.id))
        assert [part.task for part in await parts_of(a, bytes.fromhex(view.id), in_order=True)] == list(range(10))


@pytest.mark.parametrize("ends", ["in order", "killed"])
@pytest.mark.parametrize("many", [MANY, LARGE])
async def test_a_restarted_provider_hands_in_what_it_had_finished(tmp_path, autojump_clock, ends, many):
    gate = trio.Event()

    async def wait(task, results):
        await gate.wait()

    async with world(tmp_path) as w:
        a = await w.start(1)
        b = await w.start(2, pool=InlinePool(duration_ns=2 * SECOND_NS))
        c = await w.start(3, pool=InlinePool(wait))
        await knows(a, [b, c])
        job, x = await make_job(a, candidate=many, policy=Quorum(2, 2))
        view = await a.requester.submit(job)
        names = b.context.journal.reader.finished_names
        await until(lambda: names(0) and len(names(0)) == len(b.pool.tasks))
        had = set(b.pool.tasks)
        if ends == "killed":
            w.fabric.kill(b.key)
        b.scope.cancel()
        await trio.sleep(1)
        again = await w.start(2, pool=InlinePool(duration_ns=2 * SECOND_NS))
        await knows(a, [again])
        gate.set()
        view = await a.requester.wait(bytes.fromhex(view.id))
        assert view.state == "done", view.error
        assert (await output_of(a, view, many) == x).all()
        assert not had & set(again.pool.tasks)
        assert had | set(again.pool.tasks) == set(range(many.tasks))
        await until(lambda: not again.context.journal.reader.finished_names(0))  # taken: nothing is kept


async def test_finished_work_that_nobody_takes_makes_room(tmp_path, autojump_clock, monkeypatch):
    for name, value in (("KEPT_MAX", 8), ("KEPT_S", 20), ("SWEEP_S", 2)):
        monkeypatch.setattr(finished, name, value)
    async with world(tmp_path) as w:
        b = await w.start(2, pool=InlinePool())
        kept = b.provider.remember.__self__

        def remember(task, size_bytes=8):
            return kept.remember(b"r" * 32, BODY, task, [memoryview(bytes(size_bytes))], 2_000_000, b"")

        assert remember(0, 1 << 20)  # a blob
        assert all(remember(task) for task in range(1, 8))
        assert remember(8) is None
        await trio.sleep(1)
        jump(b.context, 24 * 3600)
        await trio.sleep(9)
        assert remember(8) is None
        assert len(b.context.journal.reader.finished_names(0)) == 8
        await trio.sleep(15)
        assert not b.context.journal.reader.finished_names(0)
        assert remember(8) is not None


def test_what_is_kept_for_one_requester_is_not_found_by_another_or_for_other_work():
    limits = Limits(60, 64)
    body = WorkBody(b"j" * 32, b"p" * 32, 9, (InputRef(0, b"i" * 32, 4),), 8, Terms((WASM,), limits, 100))
    bodies = [
        body,
        replace(body, job=b"k" * 32),
        replace(body, program=b"q" * 32),
        replace(body, inputs=(InputRef(0, b"h" * 32, 4),)),
        replace(body, terms=replace(body.terms, limits=Limits(61, 64))),
    ]
    names = {
        FinishedResults.name(owner, some, task)
        for owner in (b"a" * 32, b"b" * 32)
        for some in bodies
        for task in (0, 1)
    }
    assert len(names) == 2 * len(bodies) * 2


async def test_who_was_seldom_there_is_asked_after_others(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1, config=SchedulerConfig(providers_max=2))
        lenders = [await w.start(number, pool=InlinePool()) for number in range(2, 6)]
        await knows(a, lenders)
        for lender in lenders[1:3]:
            a.context.book.let_down(lender.key, WASM, a.context.clock())
        job, _ = await make_job(a, policy=Quorum(2, 3), candidate=MANY)
        view = await done(a, job)
        assert view.state == "done", view.error
        assert [bool(lender.pool.tasks) for lender in lenders] == [True, False, False, True]


async def test_numbers_that_cannot_be_reserved_are_asked_for_again(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        pen = a.context.pen
        with unwritable(a.context.journal):
            last = [pen.next_seq() for _ in range(RESERVED_AT_ONCE // 2 + 1)][-1]
            await trio.sleep(3 * RESERVE_AGAIN_S)
        await trio.sleep(3 * RESERVE_AGAIN_S)
        assert a.context.journal.reader.number("sequence") > last + RESERVED_AT_ONCE // 2
        for _ in range(RESERVED_AT_ONCE - 1):  # more than were left
            pen.next_seq()
