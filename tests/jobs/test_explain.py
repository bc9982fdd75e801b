"""Why nobody works on a job, and what would change that."""

import msgspec
import pytest

from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.explain import Prospect, explain
from depin_node.compute.jobs.job import InputRef, Job, JobError, JobView, Limits, Quorum, Verification

GOOD = Prospect("g", True, True, True, "", 0, (("wasm-1", 1024),))
JOB = Job(
    "key", "n", b"p" * 32, 1, (InputRef(0, b"i" * 32, 1),), 4, ("wasm-1",), Quorum(2, 3), Limits(60, 2048), 1
)  # fmt: skip


def view(**changes):
    fields = {
        "id": "ab" * 32, "name": "n", "state": "failed", "tasks_total": 4, "tasks_done": 0, "tasks_running": 0,
        "attempts_failed": 0, "providers": (), "created_s": 1.0, "started_s": None, "finished_s": None, "error": None,
        "stages_s": {}, "verification": Verification(0, 0, ()),
    }  # fmt: skip
    return JobView(**(fields | changes))


def explained(prospects, job=JOB, story=(), **changes):
    return explain(job, view(**changes), story, prospects, (), 0)


def condition(found, name):
    (only,) = [item for item in found.conditions if item.name == name]
    return only


def test_each_condition_counts_all_that_fail_it_and_those_that_fail_nothing_else():
    found = explained(
        [
            GOOD._replace(group="a", devices=(("wasm-1", 1024),)),
            GOOD._replace(group="b", devices=(("wasm-1", 1024),), lending=False),
            GOOD._replace(group="c", devices=(("cuda", 4096),)),
            GOOD._replace(group="d", devices=(("wasm-1", 4096),)),
        ]
    )
    assert (found.peers_known, found.peers_fitting, found.groups_fitting, found.groups_needed) == (4, 1, 1, 2)
    memory = condition(found, "memory")
    assert (memory.failing, memory.alone, memory.gained, memory.groups) == (2, 1, 1, 2)
    assert memory.relax == "[limits] memory_mib = 1024, if a task fits it"
    lending = condition(found, "lending")
    assert (lending.failing, lending.alone, lending.relax) == (1, 0, "")
    other = condition(found, "device_class")
    assert (other.failing, other.alone, other.gained) == (1, 1, 1)
    assert "price" not in {item.name for item in found.conditions}


def test_where_groups_are_missing_it_says_how_many_and_what_would_help():
    lenders = [GOOD._replace(group=group, devices=(("wasm-1", 4096),)) for group in "aab"]
    assert explained(lenders).would_help == ()
    assert explained(lenders[:1], state="done").would_help == ()
    one_group = explained(lenders[:2])
    assert (one_group.groups_fitting, one_group.groups_needed) == (1, 2)
    more, listed, fewer = one_group.would_help
    assert more.startswith("1 more lender of another group")
    assert listed.startswith("2 fit, in 1 group: list those that you know to be different people's as trusted_peers")
    assert fewer.startswith("submit it again so that fewer have to agree: [verify] k = 1, n = 1; or policy = ")
    _, relayed, _, _ = explained([lender._replace(is_relayed=True) for lender in lenders[:2]]).would_help
    assert relayed.startswith("2 of those that fit are met by way of a relay only, and count as of its group")
    (more,) = explained([]).would_help
    assert more.startswith("2 more lenders of other groups")


def test_nodes_of_the_jobs_own_owner_lack_a_vote_where_votes_are_counted():
    nodes = [GOOD._replace(group="own", devices=(("wasm-1", 4096),), is_fellow=True)]
    found = explained(nodes)
    assert (found.peers_fitting, condition(found, "vote").failing) == (0, 1)
    assert "trusted_peers" in condition(found, "vote").relax
    assert explained(nodes, job=msgspec.structs.replace(JOB, policy=Quorum(1, 1))).peers_fitting == 1


def test_a_limit_is_relaxed_no_further_than_it_takes():
    found = explained([GOOD._replace(group=str(mib), devices=(("wasm-1", mib),)) for mib in (64, 512, 1024, 1536)])
    memory = condition(found, "memory")
    assert memory.relax == "[limits] memory_mib = 1024, if a task fits it"  # two groups are needed
    assert (memory.alone, memory.gained, memory.groups) == (4, 2, 2)


def test_a_limit_that_cannot_give_enough_is_relaxed_to_what_there_is():
    found = explained([GOOD._replace(devices=(("wasm-1", mib),)) for mib in (64, 512)])  # one group
    memory = condition(found, "memory")
    assert (memory.relax, memory.gained, memory.groups) == ("[limits] memory_mib = 64, if a task fits it", 2, 1)


def test_prices_are_relaxed_upwards():
    found = explained(
        [GOOD._replace(group=str(price), price=price, devices=(("wasm-1", 4096),)) for price in (7, 3, 9)]
    )
    price = condition(found, "price")
    assert (price.relax, price.gained, price.groups) == ("price_max = 7", 2, 2)


def test_who_was_banned_is_no_use_whatever_is_relaxed():
    found = explained([GOOD._replace(devices=(("wasm-1", 4096),), banned="it lied")])
    assert condition(found, "honest").alone == 1
    assert (condition(found, "honest").gained, condition(found, "honest").groups) == (0, 0)
    assert "is not asked again" in condition(found, "honest").relax


def test_where_time_went_adds_up():
    stages = {"first_offer": 0.5, "first_bid": 0.75, "first_agreement": 1.0, "first_task": 1.0, "first_result": 3.0}
    found = explained([GOOD], stages_s=stages | {"done": 10.0}, state="done")
    assert sum(stage.took_s for stage in found.stages) == 10.0
    assert [stage.took_s for stage in found.stages] == [0.5, 0.25, 0.25, 0, 2.0, 7.0]


def test_what_was_not_waited_for_took_no_time():
    stages = {"first_task": 0.1, "first_offer": 0.2, "first_result": 0.5, "first_bid": 3.0, "done": 4.0}
    found = explained([GOOD], stages_s=stages, state="done")
    assert [tuple(msgspec.structs.astuple(stage)) for stage in found.stages] == [
        ("placing the first task", 0.1), ("the first result", 0.4), ("all further tasks", 3.5)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reached", "waited_for"),
    [
        ({}, "finding somebody to ask"),
        ({"first_offer": 1.0, "first_bid": 1.0}, "the first agreement"),
        ({"first_task": 1.0, "first_offer": 1.5}, "the first result"),
    ],
)
def test_what_never_came_was_waited_for_in_vain(reached, waited_for):
    found = explained([GOOD], stages_s=reached | {"failed": 60.0})
    assert found.stages[-1].what == f"{waited_for}, in vain"
    assert sum(stage.took_s for stage in found.stages) == 60.0
    assert all(stage.took_s >= 0 for stage in found.stages)


def test_what_was_rejected_is_told_without_the_rest():
    story = [JobEvent(1, "asked", "p"), JobEvent(2, "disagreed", "", 3, "a: 00, b: 11"), JobEvent(3, "caught", "p", 3)]
    found = explained([], story=story, error=JobError("verification", "no two agree"))
    assert [line.kind for line in found.rejected] == ["disagreed", "caught"]
    assert found.error == "verification: no two agree"
