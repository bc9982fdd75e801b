"""Who has a vote: not the fleet of the requester's owner, and newcomers only beside somebody established."""

import random
from collections import defaultdict

import pytest
from instant_mesh import ROOT, InstantMesh

from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Lead, Limits, Quorum
from depin_node.compute.jobs.panels import Agreed, Panels
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.placement import draw_replacements
from depin_node.compute.jobs.placing import NEWCOMER_OPEN_MAX
from depin_node.compute.jobs.scheduler import Scheduler, SchedulerConfig
from depin_node.compute.market import happenings as hp
from depin_node.compute.market.messages import Terms, Want
from depin_node.compute.verification.quorum import Ballot
from depin_node.compute.verification.rules import Rule


class Mesh(InstantMesh):
    """Keeps who ran which task, and the most attempts that each had open."""

    def __init__(self, providers, *, fellows=(), established=()):
        super().__init__(providers)
        self.candidates = tuple(
            item._replace(is_fellow=number in fellows) for number, item in enumerate(self.candidates)
        )
        known = {self.candidates[number].peer for number in established}
        self.scheduler = Scheduler(
            SchedulerConfig(), random.Random(1), bytes(32), set(), lambda peer, name, now: 0 if peer in known else 8
        )
        self.known = known
        self.ran = defaultdict(set)
        self.open_max = defaultdict(int)

    def carry_out(self, effect):
        if isinstance(effect, e.Assign):
            partners = self.scheduler._board.partners
            partner = partners[effect.peer]
            if any(other.is_agreed and other.peer in self.known for other in partners.values()):
                for task in effect.tasks:
                    self.ran[task].add(effect.peer)
            self.open_max[effect.peer] = max(self.open_max[effect.peer], len(partner.open))
        super().carry_out(effect)


@pytest.mark.parametrize(("policy", "has_vote"), [(Quorum(2, 3), False), (Lead(2), False), (Quorum(1, 1), True)],
                         ids=["quorum", "lead", "single"])  # fmt: skip
def test_nodes_of_our_own_owner_have_no_vote(policy, has_vote):
    mesh = Mesh(3, fellows=[1])
    name = mesh.submit(50, policy)
    mesh.run()
    assert mesh.ended[name].state == "done"
    assert (mesh.attempts[mesh.candidates[1].peer] > 0) is has_vote


def test_newcomers_vote_beside_somebody_established_and_have_few_places():
    mesh = Mesh(8, established=[2, 5])
    name = mesh.submit(400, Quorum(2, 3))
    mesh.run()
    assert mesh.ended[name].state == "done"
    assert all(peers & mesh.known for peers in mesh.ran.values())
    assert len(mesh.ran) > 380  # all but the first ones, when nobody established had agreed yet
    newcomers = [item.peer for item in mesh.candidates if item.peer not in mesh.known]
    assert all(0 < mesh.open_max[peer] <= NEWCOMER_OPEN_MAX for peer in newcomers)


def test_newcomers_vote_alone_where_there_is_nobody_else():
    mesh = Mesh(3)
    name = mesh.submit(40, Quorum(2, 3))
    mesh.run()
    assert mesh.ended[name].state == "done"


def test_one_that_calls_a_task_faulty_keeps_nobody_else_from_it():
    """Of two, one is missing; of the others two were lost with it, and one says that it timed out."""
    ballot = Ballot(0, Rule(2, 0, 3))
    partners = []
    for number in range(4):
        partner = Partner(bytes([number]) * 32, f"g{number}", Terms(("wasm-1",), Limits(3, 128), 8), 0)
        partner.agreed("wasm-1", 1, 8, 10**12, 0)
        partners.append(partner)
        ballot.started((partner.peer, 0), partner.group, "wasm-1")
    for partner, code in zip(partners[1:], ("lost", "lost", "timed_out"), strict=True):
        ballot.ended((partner.peer, 0), code, is_task_fault=code == "timed_out")
    task = OpenTask(b"j" * 32, ballot, 0)
    drawn = {draw_replacements(random.Random(seed), task, partners, 1, needs_credit=True)[0] for seed in range(20)}
    assert drawn == set(partners[1:3])


def test_what_only_caught_providers_agreed_on_is_void():
    panels = Panels(5)
    for task, peers in enumerate(["ab", "bc", "ab", "abc", "a"]):
        panels.accepted(task, frozenset(peer.encode() for peer in peers))
    panels.audit(0, Agreed(b"root", "wasm-1", ()))
    assert panels.void({b"a"}) == [(4, 1)]
    assert panels.void({b"a", b"b"}) == [(0, 2), (2, 2)]
    assert panels.auditing == {}
    panels.accepted(0, frozenset([b"c", b"d"]))
    assert panels.void({b"a", b"b"}) == []


def test_what_is_left_when_a_liar_is_caught_elsewhere_is_counted_anew():
    """A task under ``lead(2)`` has two answers that agree, the liar's, and nobody else to ask. The other task names the
    liar: then the two lead by two, though no further answer comes."""
    mesh = InstantMesh(providers=4)
    liar, _, b, c = (candidate.peer for candidate in mesh.candidates)
    answer, tasks, held = mesh.carry_out, {}, []

    def carry_out(effect):
        if isinstance(effect, e.Assign):
            tasks.update({(effect.peer, effect.first_attempt + i): task for i, task in enumerate(effect.tasks)})
        if isinstance(effect, e.AskUpload):
            mesh.heard(effect, hp.Delivered(effect.attempt, ROOT, [bytearray(8)]))
        elif not isinstance(effect, e.AskReveal):
            answer(effect)
        elif effect.peer in (b, c):
            held.append(effect)
        else:
            reveal(effect)

    def reveal(effect):
        root = b"lie".ljust(32) if effect.peer == liar else ROOT
        mesh.heard(effect, hp.Revealed([(effect.attempt, root)]))
        if effect.want is Want.BYTES:
            mesh.heard(effect, hp.Delivered(effect.attempt, root, [bytearray(8)]))

    def reveal_held(peer, task):
        (effect,) = (one for one in held if one.peer == peer and tasks[peer, one.attempt] == task)
        reveal(effect)
        mesh.run()

    mesh.carry_out = carry_out
    mesh.candidates = (mesh.candidates[0], mesh.candidates[1])
    name = mesh.submit(2, Lead(2))
    mesh.run()  # the liar and one other have answered both
    mesh.queue.append(e.Candidates(tuple(e.Candidate(p, p.hex(), (("wasm-1", 1024),), 0) for p in (b, c)), {}))
    mesh.run()
    assert {(one.peer, tasks[one.peer, one.attempt]) for one in held} == {(b, 0), (b, 1), (c, 0), (c, 1)}
    reveal_held(c, 0)
    mesh.queue.append(e.Gone(c, "lost"))
    mesh.run()
    reveal_held(b, 1)
    assert name not in mesh.ended
    reveal_held(b, 0)
    assert mesh.ended[name].state == "done"
