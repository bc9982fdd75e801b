"""Answers compared as numbers, and checked without a second run, in nodes: what is accepted, and who is banned."""

from types import SimpleNamespace

import numpy as np
import pytest
import trio
import trio.testing
from market_world import InlinePool, knows, lie, make_job, output_of, rounding, tolerant, world
from wat_programs import program

from depin_node.bootstrap.judge import compare
from depin_node.compute.jobs.events import Shown
from depin_node.compute.jobs.job import Algebraic, Confidence, Lead, Quorum, Tolerance
from depin_node.compute.market.lender import Lending
from depin_node.compute.programs.program import Blocks, Buffer, Operation, Program
from depin_node.compute.verification.comparing import TOLERANCES
from depin_node.core.errors import ConfigError
from depin_node.crypto.identity import peer_id

LIMITS = (TOLERANCES["float32"],)
TOLERANT = tolerant(program())
ULP, BEYOND = 1 + 2.0**-23, 1 + 2.0**-10  # of 2^-14 that are allowed


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.05)


async def run(w, policy, behaviours, candidate=TOLERANT, *, lendings=(), **more):
    """Have a job done by providers that behave so; return the requester, its view, the job and the providers."""
    a = await w.start(1)
    lenders = []
    for number, behaviour in enumerate(behaviours):
        lending = lendings[number] if lendings else None
        lenders.append(await w.start(number + 2, pool=InlinePool(behaviour), lending=lending))
    await knows(a, lenders)
    job, x = await make_job(a, candidate=candidate, policy=policy, **{"tolerances": LIMITS, **more})
    view = await a.requester.wait(bytes.fromhex((await a.requester.submit(job)).id))
    return a, view, x, lenders


def kinds(a, view):
    return [line.kind for line in a.requester.story(bytes.fromhex(view.id))]


@pytest.mark.parametrize("policy", [Quorum(2, 3), Quorum(3, 5), Lead(2)], ids=["quorum", "all", "lead"])
async def test_honest_answers_that_differ_in_their_last_bits_agree(tmp_path, autojump_clock, policy):
    async with world(tmp_path) as w:
        a, view, x, _ = await run(w, policy, [None, rounding(ULP), rounding(1 / ULP)])
        assert view.state == "done", view.error
        assert (view.verification.disputed, view.verification.liars) == (0, ())
        np.testing.assert_allclose(await output_of(a, view, TOLERANT), x, rtol=2.0**-22)
        assert a.context.book.banned == set()
        assert {provider.state for provider in view.providers} == {"finished"}


async def test_who_is_beyond_the_tolerance_is_not_asked_again_and_not_banned(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, view, x, lenders = await run(w, Quorum(2, 3), [None, rounding(ULP), rounding(BEYOND), rounding(1 / ULP)])
        assert view.state == "done", view.error
        np.testing.assert_allclose(await output_of(a, view, TOLERANT), x, rtol=2.0**-22)
        assert view.verification.liars == ()
        assert a.context.book.banned == set()
        assert a.context.journal.reader.bans() == {}
        states = {provider.peer: provider.state for provider in view.providers}
        if view.verification.disputed:  # it took part
            assert states[peer_id(lenders[2].key)] == "barred"
            assert "barred" in kinds(a, view)


async def test_what_no_rounding_explains_is_a_lie(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a, view, x, lenders = await run(w, Quorum(3, 5), [None, rounding(ULP), rounding(3), rounding(1 / ULP)])
        assert view.state == "done", view.error
        np.testing.assert_allclose(await output_of(a, view, TOLERANT), x, rtol=2.0**-22)
        assert set(a.context.book.banned) <= {lenders[2].key}
        assert view.verification.liars == (peer_id(lenders[2].key),) * bool(view.verification.disputed)


async def test_the_tolerance_is_what_the_job_says(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        loose = {"tolerances": (Tolerance(2.0**-8, 0.0),)}
        _, view, _, _ = await run(w, Quorum(3, 3), [None, rounding(BEYOND), rounding(1 / BEYOND)], **loose)
        assert view.state == "done", view.error
        assert view.verification.disputed == 0


async def test_two_device_classes_do_one_job_that_neither_could_alone(tmp_path, autojump_clock):
    classes = ("wasm-1", "cuda:sm_89:nvrtc-12.9.0:x")
    exact = program(tasks=8)
    lendings = [Lending(name, slots=1, memory_mib=1024) for name in classes]
    async with world(tmp_path) as w:
        a, view, x, _ = await run(
            w, Quorum(2, 3), [None, rounding(ULP)], exact, lendings=lendings, device_classes=classes
        )
        assert view.state == "done", view.error  # neither class has two groups
        assert (view.verification.disputed, view.verification.groups) == (0, 2)
        np.testing.assert_allclose(await output_of(a, view, exact), x, rtol=2.0**-22)
        assert a.context.book.banned == set()


async def test_audits_compare_numbers_too(tmp_path, autojump_clock):
    many = tolerant(program(tasks=40, n=40 * 64))
    async with world(tmp_path) as w:
        a, view, _, _ = await run(w, Confidence(0.98, 0.2), [rounding(ULP), rounding(1 / ULP)], many)
        assert view.state == "done", view.error
        assert (view.verification.liars, view.verification.agreed) == ((), 40)
        assert view.verification.audits == len(w.audits.tasks) > 0
        assert "void" not in kinds(a, view)


@pytest.mark.parametrize(("factor", "is_banned"), [(BEYOND, False), (3, True)], ids=["beyond", "far"])
async def test_an_audit_that_differs_voids_and_bans_only_for_a_lie(tmp_path, autojump_clock, factor, is_banned):
    many = tolerant(program(tasks=40, n=40 * 64))
    async with world(tmp_path) as w:
        a, view, x, lenders = await run(w, Confidence(0.98, 0.2), [rounding(factor), None], many)
        assert view.state == "done", view.error
        assert (await output_of(a, view, many) == x).all()
        assert a.context.book.banned == ({lenders[0].key} if is_banned else set())
        assert "void" in kinds(a, view)


def product(shape=(24, 16, 20)):
    """A program of one matmul."""
    m, k, n = shape
    buffers = (
        Buffer("a", "in", "float32", (m, k), (), None),
        Buffer("b", "in", "float32", (k, n), (), None),
        Buffer("c", "out", "float32", (m, n), (), None),
    )
    return Program(2, (), (), buffers, (Operation("matmul", (0, 1), (2,), ()),), Blocks(1), ())


def factors(candidate, *, scale=1.0):
    rng = np.random.default_rng(1)
    return [(scale * rng.standard_normal(buffer.shape)).astype(np.float32) for buffer in candidate.buffers[:2]]


async def product_of(a, view, candidate):
    data = b"".join([part async for part in a.requester.output(bytes.fromhex(view.id), 2)])
    return np.frombuffer(data, np.float32).reshape(candidate.buffers[2].shape)


async def test_one_answer_is_accepted_for_its_check(tmp_path, autojump_clock):
    candidate = product()
    arrays = factors(candidate)
    async with world(tmp_path) as w:
        a, view, _, (lender,) = await run(w, Algebraic(), [rounding(ULP)], candidate, arrays=arrays, memory_mib=256)
        assert view.state == "done", view.error
        assert (view.verification.attempts, view.verification.checks) == (1, 1)
        np.testing.assert_allclose(await product_of(a, view, candidate), arrays[0] @ arrays[1], rtol=1e-4, atol=1e-5)
        assert a.context.book.standing(lender.key, "wasm-1", a.context.clock()).verified == 1


async def one_wrong(task, results):
    found = np.frombuffer(results[0], np.float32).copy()
    found[7] += 0.5
    results[0][:] = found.tobytes()


@pytest.mark.parametrize(("behaviour", "is_banned"), [(one_wrong, True), (rounding(1 + 2.0**-13), False)],
                         ids=["wrong", "odd"])  # fmt: skip
async def test_what_fails_its_check_runs_elsewhere(tmp_path, autojump_clock, behaviour, is_banned):
    candidate = product()
    arrays = factors(candidate)
    async with world(tmp_path) as w:
        a = await w.start(1)
        liar = await w.start(2, pool=InlinePool(behaviour))
        await knows(a, [liar])
        job, _ = await make_job(
            a, candidate=candidate, policy=Algebraic(), arrays=arrays, memory_mib=256, tolerances=LIMITS
        )
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        while not {"caught", "barred"} & {line.kind for line in a.requester.story(identifier)}:
            await trio.sleep(0.1)
        honest = await w.start(3, pool=InlinePool())
        await knows(a, [honest])
        view = await a.requester.wait(identifier)
        assert view.state == "done", view.error
        np.testing.assert_allclose(await product_of(a, view, candidate), arrays[0] @ arrays[1], rtol=1e-4, atol=1e-5)
        assert a.context.book.banned == ({liar.key} if is_banned else set())
        kept = [peer for peer, *_ in a.context.journal.reader.evidence()]
        assert kept == [liar.key] * is_banned


async def test_what_no_check_can_judge_is_compared_with_others(tmp_path, autojump_clock):
    candidate = product()
    arrays = factors(candidate, scale=1e25)  # honest answers overflow
    async with world(tmp_path) as w:
        a, view, _, _ = await run(w, Algebraic(), [None, None, None], candidate, arrays=arrays, memory_mib=256)
        assert view.state == "done", view.error
        assert not np.isfinite(await product_of(a, view, candidate)).all()
        assert view.verification.attempts == 2
        assert "unchecked" in kinds(a, view)


async def test_a_policy_that_does_not_go_with_its_program_is_refused(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        for policy, candidate, tolerances, why in [
            (Algebraic(), program(), LIMITS, "no algebraic check"),
            (Quorum(2, 3), TOLERANT, (), "how far numbers may be apart"),
            (Quorum(2, 3), TOLERANT, 2 * LIMITS, "2 tolerances"),
        ]:
            job, _ = await make_job(a, key=why, candidate=candidate, policy=policy, tolerances=tolerances)
            with pytest.raises(ConfigError, match=why):
                await a.requester.submit(job)


async def test_accomplices_that_agree_are_found_by_audits_of_agreed_results(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        a = await w.start(1)
        liars = [await w.start(n, pool=InlinePool(lie)) for n in (2, 3)]
        await knows(a, liars)
        candidate = program(tasks=32, n=32 * 64)
        job, x = await make_job(a, candidate=candidate, policy=Quorum(2, 3, 0.5))
        identifier = bytes.fromhex((await a.requester.submit(job)).id)
        while len(a.context.book.banned) < 2:
            await trio.sleep(0.1)
        lenders = [await w.start(n, pool=InlinePool()) for n in (4, 5)]
        await knows(a, lenders)
        view = await a.requester.wait(identifier)
        assert view.state == "done", view.error
        assert (await output_of(a, view, candidate) == x).all()  # also what was not audited
        assert set(view.verification.liars) == {peer_id(liar.key) for liar in liars}
        assert view.verification.audits >= len(w.audits.tasks) > 0  # some were void before their turn
        while len(a.context.journal.reader.case_names()) < 2:  # run again for the sake of evidence
            await trio.sleep(0.1)


def test_answers_of_one_class_alone_have_to_be_the_same_bits():
    """A device that lies about its class, and gives another's bits, makes no liars of those who do not."""
    exact = program()
    ones = np.ones(exact.buffers[1].shape, np.float32)
    mine, theirs = b"m" * 32, b"t" * 32

    def found(*classes):
        answers = ((mine, classes[0], [ones.tobytes()]), (theirs, classes[1], [(ones * ULP).tobytes()]))
        shown = tuple(Shown(root, frozenset(names), data) for root, names, data in answers)
        return compare(exact, SimpleNamespace(tolerances=LIMITS), shown)

    assert (mine, theirs) in found({"wasm-1"}, {"gpu"}).close
    assert (mine, theirs) in found({"wasm-1", "gpu"}, {"gpu"}).close
    assert (mine, theirs) in found({"gpu"}, {"gpu"}).far
