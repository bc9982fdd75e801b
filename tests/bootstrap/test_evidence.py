"""Evidence on its way through a mesh of nodes, over the in-memory network."""

import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from ledgers import Keeper
from market_world import WASM, InlinePool, knows, lie, make_job, output_of, world
from msgspec.structs import replace
from wat_programs import copying, numbers, program

from depin_node.bootstrap import evidence as shell
from depin_node.bootstrap.evidence import PROTOCOL, Ask, Line, Lines, Notice, Pull, Question
from depin_node.compute.jobs.job import InputRef, Limits, Quorum
from depin_node.compute.jobs.statements import put_case
from depin_node.compute.market.messages import (
    Award,
    Bid,
    Commit,
    Commits,
    Reveal,
    Reveals,
    Terms,
    WorkBody,
    agreement_id,
    attempt_bytes,
    digest,
    work_id,
)
from depin_node.compute.programs.program import encode_program
from depin_node.compute.trust.evidence import Proven, TwoResults, WrongResult, case_digest, encode_case
from depin_node.core.wire import decode, encode
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import Answer, commit
from depin_node.crypto.envelope import sign
from depin_node.crypto.identity import Identity, peer_id
from depin_node.p2p.frames import request

NETWORK = "test"
MANY = program(tasks=24, n=24 * 64)


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.05)


async def until(condition):
    while not condition():
        await trio.sleep(0.1)


def say(identity, kind, *fields, to=b"r" * 32):
    return sign(identity, NETWORK, kind(to, 100, 1, *fields))


def two_answers(number):
    """Proof that node ``number`` lied."""
    identity = Identity(number.to_bytes(32, "big"))
    first, second = (
        say(identity, Commits, b"a" * 32, b"w" * 32, (Commit(5, 7, root * 32, 12),), ()) for root in (b"1", b"2")
    )
    return TwoResults(first, second)


async def ask(node, peer, what):
    await node.mesh.connect(peer.key)
    body = encode(Question(what))
    return await request(node.context.network, peer.key, PROTOCOL, body, size_bytes_max=1 << 20, timeout_s=5)


async def test_a_proven_liar_is_banned_by_all_who_know_it_and_for_good(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr(shell, "AGAIN_S", 3.0)  # a minute of six nodes' timers takes the test another
    async with world(tmp_path) as w:
        nodes = [await w.start(number) for number in range(1, 6)]
        finder, liar = nodes[0], nodes[4]
        for node in nodes[:4]:
            await knows(node, [other for other in nodes if other is not node])
        finder.context.caught(liar.key, two_answers(5))
        await until(lambda: all(liar.key in node.context.book.banned for node in nodes[:4]))
        assert liar.key not in liar.context.book.banned
        await until(lambda: all(node.context.journal.reader.cases() for node in nodes[:4]))
        (kept,) = nodes[2].context.journal.reader.cases()
        assert (kept.accused, kept.kind) == (liar.key, "two_results")
        assert nodes[2].context.journal.reader.bans() == {liar.key: kept.reason}
        late = await w.start(6)  # it hears of it when it connects, once it knows whom it is about
        await until(lambda: liar.key in late.context.book.banned)
        assert all(not node.mesh.counters().get("violated") for node in nodes)


async def test_forged_evidence_costs_who_hands_it_out(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b, victim = [await w.start(number) for number in (1, 2, 3)]
        await knows(a, [b, victim])
        forged = encode_case(NETWORK, victim.key, two_answers(9))  # signed by somebody else

        proven = Proven(victim.key, "two_results", "", case_digest(forged))  # so it says
        await b.context.journal.write([put_case(proven, forged, b"", 1)])
        await ask(b, a, Notice(Line(case_digest(forged), victim.key)))
        await until(lambda: a.mesh.counters().get("violated"))
        assert not a.context.book.banned
        assert not a.context.journal.reader.cases()


async def test_what_does_not_concern_us_is_not_fetched(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, b = [await w.start(number) for number in (1, 2)]
        await knows(a, [b])
        stranger = Identity((9).to_bytes(32, "big")).key
        b.context.caught(stranger, two_answers(9))
        await until(lambda: b.context.journal.reader.cases())
        lines = decode(await ask(a, b, Ask(())), Lines, size_bytes_max=1 << 20).lines
        assert [line.accused for line in lines] == [stranger]
        assert decode(await ask(a, b, Ask((lines[0].digest[:8],))), Lines, size_bytes_max=1 << 20).lines == ()
        await a.evidence._catch_up(b.key)
        assert not a.context.journal.reader.cases()
        data = await ask(a, b, Pull(lines[0].digest))
        assert case_digest(data) == lines[0].digest


def wrong_result(number, root_shown, copy=None, data=None, x=None):
    """What node ``number`` signed for task 1 of a program that copies; ``data`` and ``x`` in place of its bytes and its
    input's."""
    copy = copy or program()
    data = encode_program(copy) if data is None else data
    x = numbers(copy.buffers[0].elements).tobytes() if x is None else x
    identity = Identity(number.to_bytes(32, "big"))
    requester = Keeper(1).identity
    bid = say(identity, Bid, b"o" * 32, WASM, 4, 2, 0, 60, 1000)
    award = say(requester, Award, digest(bid), to=identity.key)
    agreement = agreement_id(bid, award)
    inputs = (InputRef(0, blob_id(x), len(x)),)
    terms = Terms((WASM,), Limits(10, 64), 1 << 20)
    body = WorkBody(b"j" * 32, blob_id(data), len(data), inputs, copy.tasks, terms)
    work = work_id(agreement, 0, body)
    commitment = commit(Answer(NETWORK, work, 1, attempt_bytes(0), identity.key), root_shown, b"s" * 32)
    commits = say(identity, Commits, agreement, work, (Commit(0, 1, commitment, 1),), ())
    reveals = say(identity, Reveals, agreement, (Reveal(0, root_shown, b"s" * 32, (), b""),))
    return WrongResult(bid, award, 0, body, commits, reveals, 0, (data, x))


SHOWS_A_NAN = """(f32.store (i32.add (local.get $y) (i32.const 1024))
    (f32.add (f32.const nan:0x412345) (f32.const 1)))"""
"""Into the first element that task 1 owns: a NaN with a payload, which processors keep; the canonical one has none."""


async def test_a_wrong_result_is_shown_by_running_it_again(readers):
    proof = wrong_result(7, b"?" * 32)
    accused = Identity((7).to_bytes(32, "big")).key
    proven = await shell.verify_with_execution(encode_case(NETWORK, accused, proof), NETWORK)
    assert (proven.accused, proven.kind) == (accused, "wrong_result")
    right = await shell.root_of(proof.body, 1, proof.blobs)
    assert right != await shell.root_of(proof.body, 0, proof.blobs)
    honest = encode_case(NETWORK, accused, wrong_result(7, right))
    with pytest.raises(shell.PeerViolation, match="the result is right"):
        await shell.verify_with_execution(honest, NETWORK)
    nans = program(copying(after=SHOWS_A_NAN), dtype="int32")
    by_hand = wrong_result(7, b"?" * 32, nans)
    with pytest.raises(shell.NotHereError):  # another processor may honestly have made anything of it
        await shell.verify_with_execution(encode_case(NETWORK, accused, by_hand), NETWORK)
    bare = encode_case(NETWORK, accused, replace(proof, blobs=()))
    with pytest.raises(shell.NotHereError):
        await shell.verify_with_execution(bare, NETWORK)
    assert readers
    assert threading.main_thread() not in readers


UNFIT = {
    "a short input": {"x": bytes(4092)},
    "no input": {"x": b""},
    "no program": {"data": b"no program"},
    "a task that the program does not have": {"copy": program(tasks=1)},
}


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=UNFIT)
async def test_a_case_about_work_that_a_worker_refuses_is_not_believed_and_ends_nobody(tmp_path, monkeypatch, unfit):
    """Who has the keys of both sides can have anything signed."""
    async with world(tmp_path) as w:
        a, b, victim = [await w.start(number) for number in (1, 2, 3)]
        await knows(a, [b, victim])
        data = encode_case(NETWORK, victim.key, wrong_result(3, b"?" * 32, **unfit))
        proven = Proven(victim.key, "wrong_result", "", case_digest(data))
        await b.context.journal.write([put_case(proven, data, b"", 1)])
        judged = trio.Event()
        judge = a.evidence._judge

        async def note(*case):
            await judge(*case)
            judged.set()

        monkeypatch.setattr(a.evidence, "_judge", note)
        await ask(b, a, Notice(Line(case_digest(data), victim.key)))
        await judged.wait()
        assert not a.context.book.banned


async def test_an_answer_that_lost_a_vote_is_run_again_and_proven_wrong(tmp_path):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(lie if n == 3 else None)) for n in (2, 3, 4)]
        await knows(a, lenders)
        job, _ = await make_job(a, policy=Quorum(2, 3), candidate=MANY)
        view = await a.requester.submit(job)
        assert (await a.requester.wait(bytes.fromhex(view.id))).state == "done"
        await until(lambda: a.context.journal.reader.cases())
        (case,) = a.context.journal.reader.cases()
        assert (case.accused, case.kind) == (lenders[1].key, "wrong_result")
        # who has run the job has the program and the inputs, and so can see it too
        proven = await shell.verify_with_execution(case.data, NETWORK, lenders[0].evidence._blobs)
        assert proven.accused == lenders[1].key
        with pytest.raises(shell.NotHereError):
            await shell.verify_with_execution(case.data, NETWORK)


async def test_evidence_whose_input_goes_meanwhile_cannot_be_told_here(tmp_path):
    async with world(tmp_path) as w:
        a = await w.start(1)
        proof, accused = wrong_result(7, b"?" * 32), Identity((7).to_bytes(32, "big")).key
        _, gone = [await a.blobs.store.put(blob) for blob in proof.blobs]
        data = encode_case(NETWORK, accused, replace(proof, blobs=()))
        assert (await shell.verify_with_execution(data, NETWORK, a.evidence._blobs)).accused == accused
        Path(a.blobs.store.path(gone)).unlink()
        with pytest.raises(shell.NotHereError):
            await shell.verify_with_execution(data, NETWORK, a.evidence._blobs)


async def test_what_a_restart_came_between_is_judged_after_it(tmp_path):
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(lie if n == 3 else None)) for n in (2, 3, 4)]
        await knows(a, lenders)
        a.context.outvoted = lambda peer, evidence: None  # it dies before it has run anything again
        job, _ = await make_job(a, policy=Quorum(2, 3), candidate=MANY)
        view = await a.requester.submit(job)
        assert (await a.requester.wait(bytes.fromhex(view.id))).state == "done"
        await until(lambda: a.context.journal.reader.caught(bytes.fromhex(view.id)))
        assert not a.context.journal.reader.bans()
        a.scope.cancel()
        await trio.sleep(1)
        w.first = lenders[0].context.network.addresses()[0]
        a = await w.start(1)
        await until(lambda: a.context.journal.reader.cases())
        assert set(a.context.journal.reader.bans()) == {lenders[1].key}
        assert not a.context.journal.reader.unjudged(9)


async def test_whom_accomplices_outvote_is_right_after_all_and_they_are_caught(tmp_path):
    """Whatever somebody was outvoted for is run here, before the job is done."""
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(lie if n < 4 else None)) for n in (2, 3, 4)]
        liars, honest = lenders[:2], lenders[2]
        await knows(a, lenders)
        job, x = await make_job(a, policy=Quorum(2, 3, 2.0**-40), candidate=MANY)  # nothing else is audited
        name = bytes.fromhex((await a.requester.submit(job)).id)
        await until(lambda: a.context.book.banned)
        lenders.append(await w.start(5, pool=InlinePool()))
        view = await a.requester.wait(name)
        assert view.state == "done", view.error
        assert (await output_of(a, view, MANY) == x).all()
        assert "cleared" in [line.kind for line in a.requester.story(name)]
        assert set(view.verification.liars) == {peer_id(liar.key) for liar in liars}
        assert honest.key not in a.context.journal.reader.caught(name)
        assert {peer for peer, *_ in a.context.journal.reader.evidence()} == {liar.key for liar in liars}
        await until(lambda: not a.evidence._trying)
        assert set(a.context.journal.reader.bans()) == a.context.book.banned == {liar.key for liar in liars}
        assert {case.accused for case in a.context.journal.reader.cases()} == a.context.book.banned


async def test_an_honest_node_that_accomplices_outvote_is_not_banned(tmp_path):
    """Also where nothing is audited: what lost the vote is run again, and found right."""
    async with world(tmp_path) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(lie if n < 4 else None)) for n in (2, 3, 4)]
        honest = lenders[2]
        await knows(a, lenders)
        outvoted = []
        asked = a.context.outvoted
        a.context.outvoted = lambda peer, evidence: outvoted.append(peer) or asked(peer, evidence)
        job, _ = await make_job(a, policy=Quorum(2, 3, 0.0), candidate=MANY)
        view = await a.requester.submit(job)
        await a.requester.wait(bytes.fromhex(view.id))
        assert set(outvoted) == {honest.key}
        await until(lambda: not a.evidence._trying)
        assert a.context.journal.reader.caught(bytes.fromhex(view.id)) == {honest.key}
        assert not a.context.journal.reader.bans()
        assert honest.key not in a.context.book.banned
        assert not a.context.journal.reader.cases()
