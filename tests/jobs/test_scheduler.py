"""The scheduler alone, with providers that answer at once; under faults it is tried in ``tests/market``."""

import tracemalloc
from collections import Counter

import pytest
from instant_mesh import InstantMesh

from depin_node.cli.job import _checking
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import JobError, Limits, Quorum
from depin_node.compute.jobs.partner import OpenTask, Partner, Stint
from depin_node.compute.jobs.patience import Patience
from depin_node.compute.jobs.placement import draw
from depin_node.compute.jobs.progress import ROOM_SHARE
from depin_node.compute.jobs.scheduler import SchedulerConfig
from depin_node.compute.market import happenings as hp
from depin_node.compute.market.messages import LINGER_S, EndCode, FailCode, Terms
from depin_node.compute.verification.quorum import Ballot
from depin_node.compute.verification.rules import Rule
from depin_node.core.clock import SECOND_NS, Now

TERMS = Terms(("wasm-1",), Limits(60, 64), 100)


def wait(mesh, seconds, candidates=True):
    """Let time pass in steps of a second; return all effects."""
    effects = []
    for _ in range(seconds):
        mesh.time_ns += SECOND_NS
        if candidates:
            effects += mesh.scheduler.handle(e.Candidates(mesh.candidates, {}), mesh.now())
        effects += mesh.scheduler.handle(e.Tick(), mesh.now())
    return effects


def test_memory_does_not_grow_with_finished_tasks():
    mesh = InstantMesh(providers=4)
    mesh.submit(20_000, Quorum(1, 1))
    held = []

    def look(_):
        if mesh.events % 10_000 == 0:
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        mesh.run(on_event=look)
    finally:
        tracemalloc.stop()
    assert [ended.state for ended in mesh.ended.values()] == ["done"]
    assert len(held) > 5
    assert held[-1] < held[1] + 50_000


def test_replicas_are_drawn_uniformly_over_groups_and_then_within_them():
    mesh = InstantMesh()
    groups = [0, 0, 0, 0, 0, 1, 2, 2, 3]
    partners = [Partner(bytes([n]) * 32, f"g{group}", TERMS, 0) for n, group in enumerate(groups)]
    for partner in partners:
        partner.agreed("wasm-1", 1, 8, 1 << 60, 0)
    drawn = Counter(draw(mesh.scheduler._board.rng, partners, 1, {"g3"}, "wasm-1")[0].peer[0] for _ in range(6000))
    assert set(drawn) == set(range(8))
    assert sum(drawn[n] for n in range(5)) == pytest.approx(2000, rel=0.15)
    assert drawn[5] == pytest.approx(2000, rel=0.15)
    assert drawn[0] == pytest.approx(400, rel=0.3)
    pair = draw(mesh.scheduler._board.rng, partners, 3, {"g3"}, "wasm-1")
    assert len({partner.group for partner in pair}) == 3
    assert draw(mesh.scheduler._board.rng, partners, 4, {"g3"}, "wasm-1") is None
    assert draw(mesh.scheduler._board.rng, partners, 1, set(), "cuda") is None


def test_a_large_group_draws_no_more_than_a_small_one():
    mesh = InstantMesh(providers=9, window=1024)
    big = {candidate.peer for candidate in mesh.candidates[:6]}
    mesh.candidates = tuple(c._replace(group="one owner") if c.peer in big else c for c in mesh.candidates)
    mesh.submit(1000, Quorum(2, 3))
    mesh.run()
    assert sum(mesh.attempts[peer] for peer in big) <= 1000  # never both replicas of a task
    assert sum(mesh.attempts.values()) == 2000


@pytest.mark.parametrize("way_ms", [1, 150])
def test_a_provider_is_kept_busy_however_far_it_is(way_ms):
    run_ms, seconds, job_id, ms = 4, 6, b"j" * 16, SECOND_NS // 1000
    partner = Partner(b"p" * 32, "g", TERMS, 0)
    partner.bid(SECOND_NS - 2 * way_ms * ms)
    partner.agreed("wasm-1", 1, 256, 3600 * SECOND_NS, SECOND_NS)
    stint = partner.stints[job_id] = Stint(0)
    task = OpenTask(job_id, Ballot(0, Rule(1, 1, 1)), 0)
    due, free_ms, ran, most = [], 0, Counter(), 0
    for at_ms in range(1000 * seconds):
        here = [answer for answer in due if answer[0] <= at_ms]
        due = due[len(here) :]
        partner.answered([(job_id, 1000 * run_ms) for _ in here], at_ms * ms)
        for _, attempt in here:
            partner.close(attempt, at_ms * ms)
        for _ in range(partner.credit(job_id)):
            free_ms = max(free_ms, at_ms + way_ms) + run_ms
            ran[free_ms // 1000] += run_ms
            due.append((free_ms + way_ms, partner.start(stint, task, at_ms * ms)))
        most = max(most, len(partner.open))
    assert ran[seconds - 2] >= 950  # of 1,000 ms
    waits_ms = 2 * 1000 * LINGER_S  # answers for company, before they are told and before they are shown
    assert most <= (100 + waits_ms + 5 * way_ms) / run_ms + 4  # little is lost with it


@pytest.mark.parametrize(("part_mib", "most"), [(0, 58), (3, 13), (64, 2)])
def test_no_more_is_in_hand_than_its_inputs_could_come_for(part_mib, most):
    partner, ms = Partner(b"p" * 32, "g", TERMS, 0), SECOND_NS // 1000
    partner.agreed("wasm-1", 1, 256, 3600 * SECOND_NS, SECOND_NS)
    stint = partner.stints[b"j" * 16] = Stint(0, part_mib << 20)
    partner.close(partner.start(stint, OpenTask(b"j" * 16, Ballot(0, Rule(1, 1, 1)), 0), SECOND_NS), SECOND_NS + 4 * ms)
    partner.answered([(b"j" * 16, 3000)], SECOND_NS + 4 * ms)
    assert most * 0.7 <= partner.credit(b"j" * 16) <= most


def test_what_is_accepted_is_not_run_again():
    mesh = InstantMesh()
    done = bytearray(50)
    done[10:30] = b"\1" * 20
    (name,) = (mesh.submit(50, Quorum(1, 1), done=done),)
    mesh.run()
    assert sum(mesh.attempts.values()) == 30
    assert mesh.scheduler.view(name).tasks_done == 50


def test_what_a_job_costs_is_told_of_the_tasks_since_a_restart():
    mesh = InstantMesh()
    name = mesh.submit(50, Quorum(2, 2), done=bytearray([1] * 20 + [0] * 30))
    checked = mesh.run().scheduler.view(name).verification
    assert (checked.agreed, checked.earlier, checked.attempts) == (50, 20, 60)
    assert "2.00 runs a task (the 30 since this node went on with the job)" in dict(_checking(checked))["cost"]
    name = mesh.submit(50, Quorum(2, 2), key="another")
    assert "2.00 runs a task;" in dict(_checking(mesh.run().scheduler.view(name).verification))["cost"]


def test_a_job_that_was_done_needs_nobody():
    mesh = InstantMesh()
    mesh.submit(5, Quorum(1, 1), done=bytearray(b"\1" * 5))
    mesh.run()
    assert not mesh.attempts
    assert [ended.state for ended in mesh.ended.values()] == ["done"]


def test_jobs_beyond_the_bound_wait_and_can_be_cancelled():
    mesh = InstantMesh(providers=0, config=SchedulerConfig(jobs_max=2))
    names = [mesh.submit(3, Quorum(1, 1), key=str(n)) for n in range(4)]
    mesh.run()
    assert [mesh.scheduler.view(name) is not None for name in names] == [True, True, False, False]
    effects = mesh.scheduler.handle(e.CancelAsked(names[3]), mesh.now())
    assert effects == [e.JobEnded(names[3], "cancelled", None)]
    mesh.scheduler.handle(e.CancelAsked(names[0]), mesh.now())
    assert mesh.scheduler.view(names[2]).state == "queued"
    mesh.scheduler.forget(names[0])
    assert mesh.scheduler.view(names[0]) is None


def test_providers_are_asked_as_far_as_they_are_of_use():
    for tasks, policy, expected in (
        (1, Quorum(1, 1), 1),
        (1, Quorum(2, 3), 3),
        (3, Quorum(2, 3), 6),
        (999, Quorum(1, 1), 32),
    ):
        mesh = InstantMesh(providers=40)
        mesh.submit(tasks, policy)
        asked = [
            effect
            for event in list(mesh.queue)
            for effect in mesh.scheduler.handle(event, mesh.now())
            if isinstance(effect, e.Ask)
        ]
        assert len(asked) == expected


def test_who_is_banned_too_dear_or_too_small_is_not_asked():
    mesh = InstantMesh(providers=4)
    mesh.scheduler._board.banned.add(mesh.candidates[0].peer)
    mesh.candidates = (
        mesh.candidates[0],
        mesh.candidates[1]._replace(price=1),
        mesh.candidates[2]._replace(devices=(("wasm-1", 63), ("cuda", 1024))),
        mesh.candidates[3]._replace(devices=(("cuda", 1024),)),
    )
    name = mesh.submit(3, Quorum(1, 1))
    mesh.run()
    effects = wait(mesh, 61)
    assert not any(isinstance(effect, e.Ask) for effect in effects)
    assert mesh.scheduler.view(name).error.code == "nobody_suitable"


def test_a_failure_counts_agreements_that_are_for_its_job():
    mesh = InstantMesh(providers=2)
    Slow(mesh)
    mesh.submit(1000, Quorum(1, 1), key="runs")
    mesh.run()
    name = mesh.submit(3, Quorum(1, 1), key="too large for all", memory_mib=4096)
    mesh.run()
    wait(mesh, 61)
    assert len(mesh.scheduler._board.partners) == 2
    assert "4096 MiB and 60 s a task; 0 agreed" in mesh.scheduler.view(name).error.message


def test_a_failure_says_the_way_out_of_what_lenders_declined():
    mesh = InstantMesh(providers=2)
    mesh.carry_out = lambda effect: mesh.heard(effect, hp.Declined("time")) if isinstance(effect, e.Ask) else None
    name = mesh.submit(3, Quorum(1, 1), seconds=7200)
    mesh.run()
    wait(mesh, 61)
    assert "declined (time), whose tasks may not take as long: lower [limits] seconds" in (
        mesh.scheduler.view(name).error.message
    )


def test_a_failure_counts_each_lender_once_who_could_not_be_reached():
    mesh = InstantMesh(providers=2)
    mesh.carry_out = lambda effect: (
        mesh.heard(effect, hp.Declined("unreachable")) if isinstance(effect, e.Ask) else None
    )
    name = mesh.submit(3, Quorum(1, 1))
    mesh.run()
    wait(mesh, 61)
    assert "0 agreed; 2 could not be reached (depin-node doctor" in mesh.scheduler.view(name).error.message
    assert mesh.scheduler.view(name).error.message.count("reach") == 1


def test_a_failure_counts_who_agreed_and_was_lost():
    mesh = InstantMesh(providers=1)
    name = mesh.submit(3, Quorum(1, 1))
    peer = first_ask(mesh)
    terms = mesh.scheduler._board.partners[peer].terms
    mesh.scheduler.handle(e.Heard(peer, hp.Agreed(b"a" * 32, "wasm-1", 1, 4, terms, 60)), mesh.now())
    mesh.scheduler.handle(e.Heard(peer, hp.Ended("stalled")), mesh.now())
    wait(mesh, 61)
    assert "0 agreed; 1 was lost" in mesh.scheduler.view(name).error.message


def test_a_failure_says_that_inputs_did_not_reach_the_lenders():
    mesh = InstantMesh(providers=1)
    name = mesh.submit(3, Quorum(1, 1))
    first_ask(mesh)
    mesh.scheduler._board.jobs[name].failures["no_blob"] = 2
    wait(mesh, 61)
    assert (
        "2 attempts could not fetch the inputs (of which no more than 8 MiB go by way of a relay"
        in mesh.scheduler.view(name).error.message
    )


def first_ask(mesh):
    """Run until somebody is asked; return whom."""
    mesh.carry_out = lambda effect: None
    mesh.run()
    return next(iter(mesh.scheduler._board.partners))


@pytest.mark.parametrize(("code", "again_within_s"), [("busy", 2), ("memory", 31), ("unreachable", 2)])
def test_who_declines_is_asked_again_after_a_while(code, again_within_s):
    mesh = InstantMesh(providers=1)
    mesh.submit(3, Quorum(1, 1))
    peer = first_ask(mesh)
    assert mesh.scheduler.handle(e.Heard(peer, hp.Declined(code)), mesh.now())
    assert not any(isinstance(effect, e.Ask) for effect in mesh.scheduler.handle(e.Tick(), mesh.now()))
    asked = [effect for effect in wait(mesh, again_within_s) if isinstance(effect, e.Ask)]
    assert [effect.peer for effect in asked] == [peer]


def test_who_leaves_for_the_price_again_and_again_waits_longer_each_time():
    patience, at, waits = Patience(), Now(0, 0), []
    for _ in range(8):
        patience.ended(b"p" * 32, "price", was_agreed=True, now=at)
        begin = at
        while not patience.allows(b"p" * 32, at):
            at = Now(at.boottime_ns + SECOND_NS // 10, 0)
        waits.append((at.boottime_ns - begin.boottime_ns) / SECOND_NS)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_who_could_not_be_reached_for_long_and_agrees_has_let_nobody_down_yet():
    """A lender behind NAT: found by a relay at last, its stream breaks once as the two meet directly."""
    patience, at = Patience(), Now(0, 0)
    for _ in range(8):
        patience.ended(b"p" * 32, "unreachable", was_agreed=False, now=at)
    patience.ended(b"p" * 32, "lost", was_agreed=True, now=at)
    assert patience.allows(b"p" * 32, Now(SECOND_NS, 0))
    patience.ended(b"p" * 32, "unreachable", was_agreed=False, now=at)
    patience.ended(b"p" * 32, "lost", was_agreed=True, now=at)
    assert not patience.allows(b"p" * 32, Now(SECOND_NS, 0))


def test_who_lets_us_down_again_and_again_waits_longer_each_time():
    mesh = InstantMesh(providers=1, config=SchedulerConfig(suitable_s=1e6))
    mesh.submit(3, Quorum(1, 1))
    peer = first_ask(mesh)
    waits = []
    for _ in range(6):
        mesh.scheduler.handle(
            e.Heard(peer, hp.Agreed(b"a" * 32, "wasm-1", 1, 4, mesh.scheduler._board.partners[peer].terms, 60)),
            mesh.now(),
        )
        mesh.scheduler.handle(e.Heard(peer, hp.Ended("stalled")), mesh.now())
        begin = mesh.time_ns
        while peer not in mesh.scheduler._board.partners:
            wait(mesh, 1)
        waits.append((mesh.time_ns - begin) // SECOND_NS)
    assert waits == sorted(waits)
    assert waits[-1] > 20


def test_an_idle_agreement_is_kept_for_the_next_job_and_then_ended():
    mesh = InstantMesh(providers=1)
    mesh.submit(3, Quorum(1, 1))
    mesh.run()
    assert not any(isinstance(effect, e.EndAgreement) for effect in wait(mesh, 5))
    mesh.submit(3, Quorum(1, 1), key="next")
    asked = []
    carry_out = mesh.carry_out
    mesh.carry_out = lambda effect: (asked.append(effect) if isinstance(effect, e.Ask) else None, carry_out(effect))
    mesh.run()
    assert not asked
    ended = [effect for effect in wait(mesh, 12) if isinstance(effect, e.EndAgreement)]
    assert [effect.code for effect in ended] == [EndCode.DONE]


def test_an_agreement_that_does_not_cover_the_next_job_makes_room_for_one_that_does():
    mesh = InstantMesh(providers=1)
    mesh.submit(3, Quorum(1, 1))
    mesh.run()
    name = mesh.submit(3, Quorum(1, 1), key="larger")
    (event, candidates) = mesh.queue
    mesh.queue.clear()
    mesh.queue.extend([e.Submitted(name, event.job, event.done, lambda task: (1 << 25,), 1 << 25), candidates])
    mesh.run()
    for effect in wait(mesh, 3):
        mesh.carry_out(effect)
    mesh.run()
    assert mesh.ended[name].state == "done"


def test_a_job_that_needs_wider_terms_shares_the_provider_of_one_that_runs():
    mesh = InstantMesh(providers=2)
    slow = Slow(mesh)
    large = mesh.submit(1000, Quorum(1, 1), key="large")
    mesh.run()
    narrow = {peer: partner.terms for peer, partner in mesh.scheduler._board.partners.items()}
    small = mesh.submit(3, Quorum(1, 1), key="small", memory_mib=512)
    mesh.run()
    in_hand = len(slow.sent)
    for sent in list(slow.sent):
        mesh.time_ns += SECOND_NS
        slow.answer(sent, 1_000_000)
    assert not slow.sent  # it gets nothing more
    assert not mesh.scheduler.view(large).tasks_running
    for effect in wait(mesh, 2):
        mesh.carry_out(effect)
    mesh.run()
    assert {job for _, _, job, _ in slow.sent} == {large, small}
    for peer, partner in mesh.scheduler._board.partners.items():
        assert partner.terms.limits.memory_mib == 512 > narrow[peer].limits.memory_mib
    while not mesh.ended:
        mesh.time_ns += SECOND_NS
        slow.answer(slow.sent[0], 1_000_000)
    assert [name for name in mesh.ended if mesh.ended[name].state == "done"] == [small]
    assert slow.notes.count("asked for more") == 2
    assert in_hand < 20


@pytest.mark.parametrize("whole", [{"device_class": "strict-1", "memory_mib": 512}, {"seconds": 7200}])
def test_a_job_that_no_wider_terms_would_help_ends_nobodys_work(whole):
    """Other device classes cannot be joined to an agreement; one for an hour is none for a task of two."""
    mesh = InstantMesh(providers=1)
    mesh.candidates = (mesh.candidates[0]._replace(devices=(("wasm-1", 1024), ("strict-1", 1024))),)
    slow = Slow(mesh)
    large = mesh.submit(1000, Quorum(1, 1), key="large", seconds=7200 if "seconds" in whole else 60)
    mesh.run()
    mesh.submit(3, Quorum(1, 1), key="other", **whole)
    mesh.run()
    assert "asked for more" not in slow.notes
    assert not any(partner.is_ending for partner in mesh.scheduler._board.partners.values())
    assert mesh.scheduler.view(large).state in ("queued", "running")


def test_who_refuses_wider_terms_keeps_its_job_and_is_not_asked_for_more_again():
    mesh = InstantMesh(providers=1)
    slow = Slow(mesh)
    large = mesh.submit(1000, Quorum(1, 1), key="large")
    mesh.run()
    mesh.submit(3, Quorum(1, 1), key="small", memory_mib=512)
    mesh.run()
    while slow.sent:
        slow.answer(slow.sent[0], 1_000_000)
    carry_out, asked = mesh.carry_out, []

    def refuse(effect):
        if isinstance(effect, e.Ask) and effect.terms.limits.memory_mib == 512:
            asked.append(effect)
            mesh.heard(effect, hp.Declined("memory"))
        else:
            carry_out(effect)

    mesh.carry_out = refuse
    for _ in range(60):
        for effect in wait(mesh, 1):
            mesh.carry_out(effect)
        mesh.run()
    assert len(asked) == 1
    assert {job for _, _, job, _ in slow.sent} == {large}
    before = len(mesh.ended)
    for _ in range(50):
        mesh.time_ns += SECOND_NS
        slow.answer(slow.sent[0], 1_000_000)
    assert slow.sent
    assert len(mesh.ended) == before


def test_results_that_cannot_be_stored_fail_the_job():
    mesh = InstantMesh(providers=0)
    name = mesh.submit(3, Quorum(1, 1))
    mesh.run()
    error = JobError("resource", "the disk is full")
    effects = mesh.scheduler.handle(e.StoringFailed(name, error), mesh.now())
    assert effects == [e.JobEnded(name, "failed", error)]
    assert mesh.scheduler.handle(e.StoringFailed(name, error), mesh.now()) == []


def test_attempts_that_end_without_an_answer_are_bounded():
    mesh = InstantMesh(providers=30, config=SchedulerConfig(attempts_ended_max=5))
    name = mesh.submit(1, Quorum(1, 1))
    carry_out = mesh.carry_out

    def crash(effect):
        if isinstance(effect, e.Assign):
            mesh.attempts[effect.peer] += 1
            mesh.queue.append(e.Heard(effect.peer, hp.Failed([(effect.first_attempt, FailCode.CRASHED)])))
        else:
            carry_out(effect)

    mesh.carry_out = crash
    mesh.run()
    while not mesh.ended:
        for effect in wait(mesh, 1):
            mesh.carry_out(effect)
        mesh.run()
    assert mesh.ended[name].error.code == "attempts"
    assert sum(mesh.attempts.values()) == 6


def test_a_story_and_a_view_tell_what_happened():
    mesh = InstantMesh(providers=2)
    lines = []
    carry_out = mesh.carry_out
    mesh.carry_out = lambda effect: (
        lines.append(effect.event) if isinstance(effect, e.Note) else None,
        carry_out(effect),
    )
    name = mesh.submit(4, Quorum(2, 2))
    mesh.run()
    assert {line.kind for line in lines} == {"asked", "bid", "agreed"}
    view = mesh.scheduler.view(name)
    assert (view.state, view.tasks_done, view.tasks_running, view.verification.agreed) == ("done", 4, 0, 4)
    assert [(part.state, part.tasks_done, part.tasks_running) for part in view.providers] == [("finished", 4, 0)] * 2
    assert list(view.stages_s) == ["first_offer", "first_bid", "first_agreement", "first_task", "first_result", "done"]


def test_a_story_tells_what_a_provider_did_wrong():
    mesh = InstantMesh(providers=1, config=SchedulerConfig(suitable_s=1e6))
    mesh.submit(3, Quorum(1, 1))
    peer = first_ask(mesh)
    effects = mesh.scheduler.handle(e.Gone(peer, "violation", "bid: expired 9 s ago"), mesh.now())
    assert [n.event.detail for n in effects if isinstance(n, e.Note)] == ["violation: bid: expired 9 s ago"]


class Slow:
    """An instant mesh whose providers answer when ``answer`` is called: commits only."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.sent = []  # (peer, attempt, job, task)
        self.works = {}
        self.voided = set()
        self.notes = []
        carry_out = mesh.carry_out

        def carry(effect):
            if isinstance(effect, e.OpenWork):
                self.works[(effect.peer, effect.work)] = effect.job_id
            elif isinstance(effect, e.Assign):
                job = self.works[(effect.peer, effect.work)]
                self.sent += [(effect.peer, effect.first_attempt + i, job, task) for i, task in enumerate(effect.tasks)]
            elif isinstance(effect, e.ReleaseAttempt) and effect.verdict is None:
                self.voided.add((effect.peer, effect.attempt))
            else:
                if isinstance(effect, e.Note):
                    self.notes.append(effect.event.kind)
                carry_out(effect)

        mesh.carry_out = carry

    def answer(self, sent, run_us):
        peer, attempt, job, _ = sent
        self.sent.remove(sent)
        self.mesh.queue.append(e.Heard(peer, hp.Priced(job, run_us)))
        self.mesh.queue.append(e.Heard(peer, hp.Committed([(attempt, attempt.to_bytes(32, "big"), run_us)])))
        self.mesh.run()


def test_jobs_share_the_time_of_slots_not_the_number_of_tasks():
    mesh = InstantMesh(providers=1, window=64)
    slow = Slow(mesh)
    long, short = (mesh.submit(100_000, Quorum(1, 1), key=key) for key in ("long", "short"))
    mesh.run()
    run_s = {long: 0.1, short: 0.001}
    had_s = Counter()
    while sum(had_s.values()) < 20:  # one slot: first come, first served
        sent = slow.sent[0]
        job = sent[2]
        mesh.time_ns += int(run_s[job] * SECOND_NS)
        had_s[job] += run_s[job]
        slow.answer(sent, round(run_s[job] * 1e6))
    assert had_s[long] == pytest.approx(had_s[short], rel=0.2)


def test_a_job_that_comes_late_does_not_catch_up_with_what_others_had():
    mesh = InstantMesh(providers=1, window=8)
    slow = Slow(mesh)
    first = mesh.submit(100_000, Quorum(1, 1), key="first")
    mesh.run()
    for _ in range(500):
        mesh.time_ns += SECOND_NS // 100
        slow.answer(slow.sent[0], 10_000)
    mesh.submit(100_000, Quorum(1, 1), key="second")
    mesh.run()
    had = Counter()
    for _ in range(200):
        had[slow.sent[0][2]] += 1
        mesh.time_ns += SECOND_NS // 100
        slow.answer(slow.sent[0], 10_000)
    assert had[first] > 80


@pytest.mark.parametrize("who_is_first", ["spare", "late"])
def test_a_late_attempt_is_doubled_and_the_first_answer_counts(who_is_first):
    mesh = InstantMesh(providers=2, window=8)
    slow = Slow(mesh)
    name = mesh.submit(20, Quorum(1, 1))
    mesh.run()
    stuck = slow.sent[0][0]
    while True:  # one provider does its tasks, the other stands
        waiting = [sent for sent in slow.sent if sent[0] != stuck]
        if not waiting:
            break
        mesh.time_ns += SECOND_NS // 50
        slow.answer(waiting[0], 20_000)
    late = list(slow.sent)
    assert late
    for effect in wait(mesh, 1):
        mesh.carry_out(effect)
    mesh.run()
    spare = [sent for sent in slow.sent if sent[0] != stuck]
    assert spare
    assert "doubled" in slow.notes
    (twin,) = [sent for sent in late if sent[3] == spare[0][3]]
    loser = twin if who_is_first == "spare" else spare[0]
    slow.answer(spare[0] if who_is_first == "spare" else twin, 20_000)
    assert slow.voided == {loser[:2]}
    slow.sent.remove(loser)
    while slow.sent:
        mesh.time_ns += SECOND_NS // 50
        (sent, *_) = [sent for sent in slow.sent if sent[:2] not in slow.voided]
        slow.answer(sent, 20_000)
        slow.sent = [sent for sent in slow.sent if sent[:2] not in slow.voided]
        for effect in wait(mesh, 1):
            mesh.carry_out(effect)
        mesh.run()
    assert mesh.ended[name].state == "done"
    assert mesh.scheduler.view(name).tasks_done == 20


def test_a_disk_that_does_not_keep_up_stops_new_tasks():
    mesh = InstantMesh(providers=4, window=1024)
    stored = []
    carry_out = mesh.carry_out
    mesh.carry_out = lambda effect: stored.append(effect) if isinstance(effect, e.StoreResult) else carry_out(effect)
    name = mesh.submit(10_000, Quorum(1, 1))
    mesh.run()
    most = mesh.scheduler._board.jobs[name].open_max
    assert (
        most - most // ROOM_SHARE <= len(stored) <= most
    )  # providers are looked at when an eighth is free, not at each
    while stored:
        carry_out(stored.pop())
        mesh.run()
    assert mesh.ended[name].state == "done"


def test_with_many_providers_all_get_work():
    mesh = InstantMesh(providers=300, config=SchedulerConfig(providers_max=300))
    mesh.submit(2000, Quorum(2, 3))
    mesh.run()
    assert len(mesh.attempts) == 300
    assert max(mesh.attempts.values()) <= 64  # a window


def test_with_many_providers_few_are_looked_at_for_each_task(monkeypatch):
    looks, credit = Counter(), Partner.credit
    monkeypatch.setattr(Partner, "credit", lambda *args: (looks.update(all=1), credit(*args))[1])
    mesh = InstantMesh(providers=300, config=SchedulerConfig(providers_max=300))
    mesh.submit(5000, Quorum(2, 3))
    mesh.run()
    assert [ended.state for ended in mesh.ended.values()] == ["done"]
    assert looks["all"] < 5000  # 1,806 of them; all that had room for more, whenever a task ended, were 258,671


def test_a_job_fails_at_its_deadline_and_says_how_far_it_was():
    mesh = InstantMesh(providers=1, window=4)
    mesh.time_ns = 10 * SECOND_NS  # the job was created at 1 s
    slow = Slow(mesh)
    name = mesh.submit(50, Quorum(1, 1), deadline_s=30)
    mesh.run()
    slow.answer(slow.sent[0], 1000)
    ended = [effect for effect in wait(mesh, 20) if isinstance(effect, e.JobEnded)]
    assert not ended
    (ended,) = [effect for effect in wait(mesh, 3) if isinstance(effect, e.JobEnded)]
    assert (ended.job_id, ended.state, ended.error.code) == (name, "failed", "deadline")
    assert "1 of 50 tasks" in ended.error.message
    assert f"raise [limits] deadline_s, or see where the time went: depin-node job explain {name.hex()[:12]}" in (
        ended.error.message
    )


def test_a_job_that_too_few_can_do_says_so_while_it_waits_and_at_its_deadline():
    mesh = InstantMesh(providers=3)
    mesh.candidates = (*mesh.candidates[:2], mesh.candidates[2]._replace(devices=(("cuda", 1024),)))
    name = mesh.submit(3, Quorum(5, 5), deadline_s=30)
    mesh.scheduler.handle(mesh.queue.popleft(), mesh.now())
    assert mesh.scheduler.view(name).lacks == "", "nobody has looked yet"
    mesh.run()
    lacks = "it needs 5 lenders of different groups, and waits 60 s for them: 2 of 3 known peers fit, in 2 groups"
    assert (mesh.scheduler.view(name).state, mesh.scheduler.view(name).lacks) == ("queued", lacks)
    (ended,) = [effect for effect in wait(mesh, 32) if isinstance(effect, e.JobEnded)]
    assert ended.error.code == "deadline"
    assert f"{lacks}, see what the others lack: depin-node job explain {name.hex()[:12]}" in ended.error.message
    assert mesh.scheduler.view(name).lacks == ""


def test_a_job_says_that_nodes_of_its_own_owner_have_no_vote():
    mesh = InstantMesh(providers=3)
    mesh.candidates = tuple(candidate._replace(is_fellow=True) for candidate in mesh.candidates)
    quorum, one = mesh.submit(1, Quorum(2, 3), deadline_s=0), mesh.submit(1, Quorum(1, 1))
    mesh.run()
    own = "3 known nodes: of this node's own owner, whose word is no second one (list them in trusted_peers, or"
    assert mesh.scheduler.view(quorum).lacks.startswith(
        f"it needs 2 lenders of different groups, and waits 60 s for them: 0 of 3 known peers fit, in 0 groups; {own}"
    )
    assert mesh.scheduler.view(one).state == "done"
    (ended,) = [effect for effect in wait(mesh, 62) if isinstance(effect, e.JobEnded)]
    assert ended.error.code == "nobody_suitable"
    assert own in ended.error.message


def test_a_job_lacks_nobody_once_enough_are_known():
    mesh = InstantMesh(providers=2, window=1)
    Slow(mesh)
    everybody, mesh.candidates = mesh.candidates, mesh.candidates[:1]
    name = mesh.submit(3, Quorum(2, 2))
    mesh.run()
    assert mesh.scheduler.view(name).lacks.endswith(": 1 of 1 known peer fit, in 1 group")
    mesh.queue.append(e.Candidates(everybody[:1], {"not lending": 2, "unreachable": 1}))
    mesh.run()
    assert mesh.scheduler.view(name).lacks == (
        "it needs 2 lenders of different groups, and waits 60 s for them:"
        " 1 of 4 known peers fit, in 1 group (2 not lending, 1 unreachable)"
    )
    mesh.queue.append(e.Candidates((), {"not lending": 2}))
    mesh.run()
    assert mesh.scheduler.view(name).lacks.endswith(": no lender is known, only 2 peers without --lend")
    mesh.candidates = everybody
    mesh.queue.append(e.Candidates(everybody, {}))
    mesh.run()
    assert mesh.scheduler.view(name).lacks == ""


def test_a_job_that_waits_for_its_turn_fails_at_its_deadline_too():
    mesh = InstantMesh(providers=0, config=SchedulerConfig(jobs_max=1))
    mesh.submit(3, Quorum(1, 1), key="first")
    name = mesh.submit(3, Quorum(1, 1), key="second", deadline_s=5)
    mesh.run()
    (ended,) = [effect for effect in wait(mesh, 8) if isinstance(effect, e.JobEnded)]
    assert (ended.job_id, ended.error.code) == (name, "deadline")


def test_a_wall_clock_that_is_set_ends_no_job_that_runs_or_waits():
    mesh = InstantMesh(providers=1, window=1, config=SchedulerConfig(jobs_max=1))
    slow, wall_s = Slow(mesh), 0
    mesh.now = lambda: Now(mesh.time_ns, mesh.time_ns + wall_s * SECOND_NS)
    mesh.submit(1, Quorum(1, 1), key="first", deadline_s=60)
    second = mesh.submit(1, Quorum(1, 1), key="second", deadline_s=60)
    mesh.run()
    wall_s = 7200
    assert not [effect for effect in wait(mesh, 10) if isinstance(effect, e.JobEnded)]
    slow.answer(slow.sent[0], 1000)
    assert not [effect for effect in wait(mesh, 10) if isinstance(effect, e.JobEnded)]
    assert mesh.scheduler.view(second).state == "running"
    ended = [effect for effect in wait(mesh, 45) if isinstance(effect, e.JobEnded)]
    assert [(effect.job_id, effect.error.code) for effect in ended] == [(second, "deadline")]


def test_a_budget_ends_a_job_when_what_runs_has_ended():
    mesh = InstantMesh(providers=2, window=4)
    slow = Slow(mesh)
    name = mesh.submit(1000, Quorum(1, 1), budget_s=2)
    mesh.run()
    answered = 0
    while slow.sent:
        mesh.time_ns += SECOND_NS // 10
        slow.answer(slow.sent[0], 100_000)
        answered += 1
    (ended,) = [effect for effect in wait(mesh, 1) if isinstance(effect, e.JobEnded)]
    assert (ended.job_id, ended.error.code) == (name, "budget")
    assert 20 <= answered <= 20 + 2 * 4
    assert f"{answered} of 1000" in ended.error.message


def test_a_job_waits_for_a_provider_that_works_on_another_device_of_its_own():
    """There is one agreement with a provider at a time: a job of another class has its turn, and does not fail."""
    mesh = InstantMesh(providers=1)
    mesh.candidates = (mesh.candidates[0]._replace(devices=(("wasm-1", 1024), ("strict-1", 1024))),)
    answer, kept = mesh.carry_out, []
    mesh.carry_out = lambda effect: kept.append(effect) if isinstance(effect, e.Assign) else answer(effect)
    first = mesh.submit(3, Quorum(1, 1))
    mesh.run()
    second = mesh.submit(3, Quorum(1, 1), key="second", device_class="strict-1")
    mesh.run()
    assert not wait(mesh, 100)
    assert mesh.scheduler.view(second).state == "queued"
    mesh.carry_out = answer
    for effect in kept:
        answer(effect)
    mesh.run()
    for effect in wait(mesh, 2):
        mesh.carry_out(effect)
    mesh.run()
    assert {name: ended.state for name, ended in mesh.ended.items()} == {first: "done", second: "done"}
