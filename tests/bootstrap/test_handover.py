"""Jobs that change hands between nodes of one owner: what is copied, who may ask, and that the higher epoch goes on."""

from contextlib import aclosing

import pytest
import trio
import trio.testing
from market_world import NETWORK, InlinePool, World, clock, knows, make_job, output_of, unwritable, world
from msgspec.structs import replace
from wat_programs import program

from depin_node.bootstrap import job_states
from depin_node.bootstrap.handover import COPY_S, NotAFellowError
from depin_node.compute.jobs import copies, statements
from depin_node.compute.jobs.handover import JOBS_MAX, JobState, Question, Working, bits, has_bit
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.scheduler import SchedulerConfig
from depin_node.compute.jobs.schema import StoredOutput
from depin_node.compute.market.messages import Receipt
from depin_node.core.errors import ConfigError, NotFoundError, PeerViolation, TransportError
from depin_node.crypto.envelope import sign, verify_signature
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import revoke

OWNER, OTHER = Identity(b"o" * 32), Identity(b"x" * 32)
TASKS = 24
MANY = program(tasks=TASKS, n=TASKS * 64)
LARGE = program(tasks=6, n=6 << 15, block=1024)  # 128 KiB a task: results are blobs


@pytest.fixture
def autojump_clock():
    """As in ``test_requester_provider``: the journal's thread is not seen by trio's own."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def pause(task, results):
    await trio.sleep(0.5)


async def started(w: World, *, owners=(OWNER, OWNER), candidate=MANY, config=None):
    """Two nodes, a lender, and a job of the first that both know some results of."""
    a, b = [await w.start(number, owner=owner, config=config) for number, owner in enumerate(owners, 1)]
    lender = await w.start(3, pool=InlinePool(pause))
    await knows(a, [b, lender])
    await knows(b, [a, lender])
    job, x = await make_job(a, candidate=candidate)
    view = await a.requester.submit(job)
    return a, b, bytes.fromhex(view.id), x


async def copied(node, least):
    """Return the view of a copy that has so many results; nothing but time brings them."""
    while not (views := [view for view in node.handover.copies() if view.tasks_settled >= least]):
        await trio.sleep(0.2)
    return views[0]


@pytest.mark.parametrize("candidate", [MANY, LARGE], ids=["few bytes", "blobs"])
async def test_a_fellow_goes_on_and_the_first_node_ends_the_job(tmp_path, autojump_clock, candidate):
    async with world(tmp_path) as w:
        a, b, job, x = await started(w, candidate=candidate)
        view = await copied(b, 2)
        assert (view.name, view.epoch, view.tasks_total) == ("copy", 0, candidate.tasks)
        before = copies.settled_tasks(b.context.journal.reader, job, 0, candidate.tasks)
        await b.handover.attach(job)
        ended = a.requester.job(job)
        assert (ended.state, ended.error.code) == ("taken_over", "taken_over")
        done = await b.requester.wait(job)
        assert done.state == "done", done.error
        assert (await output_of(b, done, candidate) == x).all()
        assert not b.handover.copies()
        assert copies.epoch_of(b.context.journal.reader, job)[0] == 1
        receipted = {
            settled.task
            for stored in b.context.journal.reader.receipts_of(job)
            for settled in verify_signature(stored.receipt, Receipt, NETWORK).payload.settled
        }
        assert not receipted & set(before), "what was settled was run again"
        assert await b.handover.attach(job) == done  # again is harmless


async def test_who_lost_a_vote_gets_no_more_of_a_job_that_changes_hands_and_is_not_banned(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        await copied(b, 2)
        loser = b"l" * 32
        await a.context.journal.write([statements.put_catch(loser, job)])
        await b.handover.attach(job)
        assert b.context.journal.reader.caught(job) == {loser}
        assert not b.context.journal.reader.bans()
        assert not b.context.book.banned


async def written(node, job):
    return [part async for part in node.handover.export(job)]


async def attach_file(node, data, step=1000):
    async def parts():
        for at in range(0, len(data), step):
            yield data[at : at + step]
            await trio.lowlevel.checkpoint()

    async with aclosing(parts()) as given:
        return await node.handover.attach_file(given)


@pytest.mark.parametrize("candidate", [MANY, LARGE], ids=["few bytes", "blobs"])
async def test_a_node_that_never_met_the_first_one_goes_on_from_a_file(tmp_path, autojump_clock, candidate):
    async with world(tmp_path) as w:
        a, b, job, x = await started(w, candidate=candidate)
        while sum(a.context.journal.reader.done(job, candidate.tasks)) < 3:
            await trio.sleep(0.2)
        data = b"".join(await written(a, job))
        settled = copies.settled_tasks(a.context.journal.reader, job, 0, candidate.tasks)
        w.fabric.kill(a.key)
        a.scope.cancel()
        w.first = b.context.network.addresses()[0]
        c = await w.start(9, owner=OWNER)
        await attach_file(c, data)
        done = await c.requester.wait(job)
        assert done.state == "done", done.error
        assert (await output_of(c, done, candidate) == x).all()
        assert copies.epoch_of(c.context.journal.reader, job)[0] == 1
        receipted = {
            settled.task
            for stored in c.context.journal.reader.receipts_of(job)
            for settled in verify_signature(stored.receipt, Receipt, NETWORK).payload.settled
        }
        assert not receipted & set(settled), "what was settled was run again"
        assert await attach_file(c, data) == done  # again is harmless


async def test_a_result_with_more_blobs_than_fit_beside_the_inputs_is_told_too(tmp_path, autojump_clock, monkeypatch):
    """As 62 inputs with results of two outputs would be, or one input and 63 outputs: one grant does not hold all."""
    monkeypatch.setattr(job_states, "BLOBS_MAX", 2)  # the program and the input
    async with world(tmp_path) as w:
        a, b, job, x = await started(w, candidate=LARGE)
        await copied(b, 2)
        states = 0
        async with aclosing(a.handover.export(job)) as parts:
            async for part in parts:
                states += part[:1] == b"\x02"
                assert states <= LARGE.tasks, "the file has no end"
        w.fabric.kill(a.key)
        await b.handover.attach(job)
        done = await b.requester.wait(job)
        assert (await output_of(b, done, LARGE) == x).all()


async def test_a_fellow_that_only_says_that_it_has_more_is_not_asked_for_ever(tmp_path, autojump_clock, monkeypatch):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        part = a.handover._states.part

        def more(peer, asked):
            state = verify_signature(part(peer, asked), JobState, NETWORK).payload
            return sign(a.context.identity, NETWORK, replace(state, results=(), more=True))

        monkeypatch.setattr(a.handover._states, "part", more)
        with pytest.raises(TransportError, match="said nothing of it"):
            await b.handover._copy(a.key, job)


async def test_a_job_file_is_believed_for_its_signatures_only(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, _, job, _ = await started(w)
        data = b"".join(await written(a, job))
        stranger = await w.start(9, owner=OTHER)
        with pytest.raises(ConfigError, match="not by a node of this one's owner"):
            await attach_file(stranger, data)
        c = await w.start(8, owner=OWNER)
        for cut in (5, 40, len(data) // 2, len(data) - 1):
            with pytest.raises(ConfigError, match=r"ends early|is no file|damaged"):
                await attach_file(c, data[:cut])
        spoiled = bytearray(data)
        spoiled[-100] ^= 1
        with pytest.raises(ConfigError, match="damaged"):
            await attach_file(c, bytes(spoiled))
        assert c.context.journal.reader.job(job) is None
        with pytest.raises(NotFoundError):
            await written(a, b"?" * 32)
        nobody = await w.start(7)
        with pytest.raises(ConfigError, match="no certificate"):
            await written(nobody, job)


async def test_a_node_that_was_killed_learns_of_it_before_it_goes_on(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, x = await started(w)
        await copied(b, 2)
        w.fabric.kill(a.key)
        a.scope.cancel()
        await b.handover.attach(job)
        w.first = b.context.network.addresses()[0]
        back = await w.start(1, owner=OWNER)
        ended = back.requester.job(job)
        assert (ended.state, ended.error.code) == ("taken_over", "taken_over")
        done = await b.requester.wait(job)
        assert (await output_of(b, done, MANY) == x).all()


@pytest.mark.parametrize("ends", [False, True], ids=["open", "done"])
async def test_a_node_that_took_over_many_jobs_since_still_says_which_one_it_has(tmp_path, autojump_clock, ends):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        await copied(b, 2)
        w.fabric.kill(a.key)
        a.scope.cancel()
        await b.handover.attach(job)
        others = [copies.put_epoch(bytes([number]) * 32, 1, a.key, 0) for number in range(JOBS_MAX)]
        await b.context.journal.write(others)
        if ends:
            await b.requester.wait(job)
        w.first = b.context.network.addresses()[0]
        back = await w.start(1, owner=OWNER)
        assert back.requester.job(job).state == "taken_over"


async def test_a_node_killed_while_it_takes_a_job_over_goes_on_with_it(tmp_path, autojump_clock):
    """The fellow has ended the job by then: nobody else would."""
    async with world(tmp_path) as w:
        a, b, job, x = await started(w)
        await copied(b, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.handover.attach, job)
            ended = await a.requester.wait(job)
            nursery.cancel_scope.cancel()
        assert ended.state == "taken_over"
        assert b.context.journal.reader.job(job) is None, "it has gone on already: kill it earlier"
        w.fabric.kill(b.key)
        b.scope.cancel()
        back = await w.start(2, owner=OWNER)
        await knows(a, [back])
        while back.context.journal.reader.job(job) is None:
            await trio.sleep(0.2)
        done = await back.requester.wait(job)
        assert done.state == "done", done.error
        assert (await output_of(back, done, MANY) == x).all()


async def test_a_job_that_waits_for_its_turn_is_handed_over_too(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, first, _ = await started(w, config=SchedulerConfig(jobs_max=1))
        job, _ = await make_job(a, candidate=MANY, key="second")
        second = bytes.fromhex((await a.requester.submit(job)).id)
        while second not in {bytes.fromhex(view.id) for view in b.handover.copies()}:
            await trio.sleep(0.2)
        with trio.fail_after(60):
            await b.handover.attach(second)
        assert a.requester.job(second).state == "taken_over"
        assert a.requester.job(first).state == "running"


async def test_of_two_that_take_a_job_over_at_once_one_goes_on(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, x = await started(w)
        c = await w.start(4, owner=OWNER)
        await knows(c, [a, b])
        await copied(b, 1)
        await copied(c, 1)
        w.fabric.kill(a.key)
        for node in (b, c):
            await node.handover.attach(job)
        ends = [await node.requester.wait(job) for node in (b, c)]
        winner = max((b, c), key=lambda node: node.key)
        assert {view.state for view in ends} == {"done", "taken_over"}
        done = winner.requester.job(job)
        assert done.state == "done", done.error
        assert (await output_of(winner, done, MANY) == x).all()


async def test_a_copy_goes_when_its_job_has_ended(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        await copied(b, 1)
        await a.requester.wait(job)
        while b.handover.copies():
            await trio.sleep(0.2)
        assert not any(b.context.journal.reader.done(job, TASKS))
        with pytest.raises(NotFoundError):
            await b.handover.attach(job)


async def test_what_was_copied_is_not_copied_again_and_makes_room_when_the_job_has_ended(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w, candidate=program(tasks=TASKS, n=TASKS << 15, block=1024))
        await copied(b, 2)
        await trio.sleep(2 * COPY_S)
        held = b.context.journal.reader.held_by(job)
        assert {b.blobs.store._pins[blob] for blob in held} == {1}
        await a.requester.cancel(job)
        while b.handover.copies():
            await trio.sleep(0.2)
        assert not any(b.blobs.store._pins[blob] for blob in held)


async def test_a_full_disk_costs_a_copy_its_news_and_not_the_node(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        await copied(b, 1)
        with unwritable(b.context.journal):
            await a.requester.cancel(job)
            await trio.sleep(3 * COPY_S)
            assert b.handover.copies()
        while b.handover.copies():  # it goes when there is room
            await trio.sleep(0.2)


@pytest.mark.parametrize("owners", [(OWNER, OTHER), (OWNER, None), (None, None)], ids=["other", "none", "neither"])
async def test_nobody_but_a_fellow_is_told_anything(tmp_path, autojump_clock, owners):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w, owners=owners)
        with pytest.raises(NotAFellowError):
            await a.handover._answer(b.key, Question(Working()))
        with pytest.raises(TransportError, match="not_a_fellow"):
            await b.handover._ask(a.key, Working())
        await a.requester.wait(job)
        assert not b.handover.copies()


async def test_a_revoked_node_neither_hands_over_nor_takes(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        await copied(b, 1)
        w.fabric.kill(a.key)
        b.mesh.revoke(revoke(OWNER, NETWORK, [a.key], None, now=clock()))
        with pytest.raises(ConfigError, match="no certificate"):
            await b.handover.attach(job)


async def test_a_state_of_another_job_or_by_somebody_else_is_a_violation(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, job, _ = await started(w)
        envelope = a.context.journal.reader.job(job).envelope
        now_s = clock().wall_ns // 10**9

        def state(identity, name, signed=envelope):
            fields = (b.key, now_s + 30, 1 << 60, name, signed, 0, 0, (), (), False, b"")
            return sign(identity, NETWORK, JobState(*fields))

        first = a.context.identity
        for wrong in (state(first, b"?" * 32), state(OTHER, job), state(first, job, b"damaged")):
            with pytest.raises(PeerViolation):
                await b.handover._take(a.key, job, wrong)
        assert not b.handover.copies()


def test_what_is_provisional_is_not_told(tmp_path):
    journal = Journal(tmp_path / "journal.db")
    job, output = b"j" * 32, [StoredOutput(b"1", None)]
    journal.apply([statements.put_result(job, task, b"r" * 32, output) for task in range(5)])
    journal.apply([statements.put_tab(job, task, b"p" * 32, 7) for task in (1, 2, 3)])
    journal.apply([statements.settle(job, [2], confirmed=True)])
    assert copies.settled_tasks(journal, job, 0, 5) == [0, 2, 4]
    assert copies.settled_tasks(journal, job, 1, 2) == [2]
    journal.close()


def test_bits_name_tasks():
    tasks = bytearray([1, 0, 0, 1, 0, 0, 0, 0, 0, 1])
    packed = bits(tasks)
    assert packed == b"\x09\x02"
    assert [has_bit(packed, number) for number in range(12)] == [*map(bool, tasks), False, False]
