"""Who gets an attempt: the first of a new task by speed, every other one by lot.

The lot is uniform over groups, then within the group, from secret randomness: whoever wants two of its nodes to meet on
one task can do no better than hold many groups.
"""

from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.verification.quorum import Ballot

if TYPE_CHECKING:
    from random import Random

ANY_CLASS = ""
ATTEMPTS_AGAIN_MAX = 3
"""How often a task may be tried again with one provider that failed it through no fault of the task."""


def draw(rng: "Random", ready: list[Partner], count: int, without: set[str], device_class: str) -> list[Partner] | None:
    """Draw ``count`` providers of as many groups, none of ``without``; None if there are not so many."""
    groups: dict[str, list[Partner]] = {}
    for partner in ready:
        if device_class in (partner.device_class, ANY_CLASS) and partner.group not in without:
            groups.setdefault(partner.group, []).append(partner)
    if len(groups) < count:
        return None
    names = list(groups) if count == len(groups) else rng.sample(list(groups), count)
    return [members[0] if len(members := groups[name]) == 1 else rng.choice(members) for name in names]


class Ready:
    """Providers that have credit for a job's new tasks, whose answers can be compared, by group; built once for many
    tasks. ``anchored``: one of those that are chosen for a task has to be established."""

    def __init__(self, job_id: bytes, usual_s: float, *, anchored: bool = False) -> None:
        self._anchors: dict[Partner, None] | None = {} if anchored else None
        self._job_id = job_id
        self._usual_s = usual_s
        self._groups: dict[str, list[Partner]] = {}
        self._names: list[str] = []  # of the groups, for the lot
        self._at: dict[str, int] = {}
        self._soonest: list[tuple[float, int, Partner]] = []  # a heap; entries are out of date as attempts are placed
        self._credit: dict[Partner, int] = {}

    def add(self, partner: Partner, credit: int) -> None:
        """Add a provider that may get ``credit`` further attempts."""
        self._credit[partner] = credit
        if self._anchors is not None and not partner.is_newcomer:
            self._anchors[partner] = None
        heappush(self._soonest, (partner.load_s(self._job_id, self._usual_s), len(self._soonest), partner))
        members = self._groups.get(partner.group)
        if members is None:
            self._groups[partner.group] = [partner]
            self._at[partner.group] = len(self._names)
            self._names.append(partner.group)
        else:
            members.append(partner)

    def groups(self) -> int:
        """Return how many groups have credit."""
        return len(self._names)

    def suffices(self, k: int) -> bool:
        """Tell whether providers of ``k`` groups can be chosen."""
        return len(self._names) >= k and (k == 1 or self._anchors is None or bool(self._anchors))

    def draw(self, rng: "Random", k: int) -> list[Partner]:
        """Choose providers of ``k`` groups, if that ``suffices``: who has it soonest, then others by lot."""
        first = self._take_soonest()
        if k == 1:
            return [first]
        chosen = [first, *(self._member(rng, name) for name in self._others(rng, first.group, k - 1))]
        if self._anchors is not None and all(partner.is_newcomer for partner in chosen):
            anchor = rng.choice(list(self._anchors))
            same = next((at for at, partner in enumerate(chosen) if partner.group == anchor.group), k - 1)
            chosen[same] = anchor
        return chosen

    def _others(self, rng: "Random", group: str, count: int) -> list[str]:
        """Draw ``count`` of the groups but ``group``."""
        names, at = self._names, self._at[group]
        if count == 1:  # as ``rng.sample`` does it, without its cost
            drawn = int(rng.random() * (len(names) - 1))
            return [names[drawn + (drawn >= at)]]
        return [names[drawn + (drawn >= at)] for drawn in rng.sample(range(len(names) - 1), count)]

    def _member(self, rng: "Random", name: str) -> Partner:
        members = self._groups[name]
        return members[0] if len(members) == 1 else rng.choice(members)

    def _take_soonest(self) -> Partner:
        """Return who would answer first, as of its place in the heap once it is brought up to date."""
        while True:
            load_s, number, partner = self._soonest[0]
            if partner not in self._credit:
                heappop(self._soonest)
                continue
            now_s = partner.load_s(self._job_id, self._usual_s)
            if now_s <= load_s:
                return partner
            heapreplace(self._soonest, (now_s, number, partner))

    def placed(self, partner: Partner) -> None:
        """Note that a provider has got one of the attempts; who has no credit left is out."""
        self._credit[partner] -= 1
        if self._credit[partner] > 0:
            return
        del self._credit[partner]
        if self._anchors is not None:
            self._anchors.pop(partner, None)
        members = self._groups[partner.group]
        members.remove(partner)
        if not members:
            del self._groups[partner.group]
            at, last = self._at.pop(partner.group), self._names.pop()
            if last != partner.group:
                self._names[at] = last
                self._at[last] = at


def may_try(ballot: Ballot, partner: Partner) -> bool:
    """Tell whether a provider may be given a task, in view of how it has failed it: not if it says that the task itself
    is at fault. What one says of it keeps nobody else from it."""
    return ballot.failed_before(partner.peer) < ATTEMPTS_AGAIN_MAX and not ballot.blames(partner.group)


def draw_replacements(
    rng: "Random", task: OpenTask, suitable: list[Partner], count: int, *, needs_credit: bool
) -> list[Partner] | None:
    """Choose providers for further attempts of an open task: all of them or none.

    Those who have not failed it come first; if they are only busy, they are waited for.
    """
    ballot = task.ballot
    has_vote = [partner for partner in suitable if not (partner.is_fellow and ballot.rule.agree > 1)]
    able = [p for p in has_vote if not ballot.has_group(p.group) and may_try(ballot, p)]
    fresh = [partner for partner in able if not ballot.failed_before(partner.peer)]
    classes = [ballot.device_class] if ballot.runs else list({partner.device_class for partner in able})
    if ballot.mixes:
        classes.append(ANY_CLASS)
    for pool in (fresh, able):
        for device_class in classes:
            ready = [partner for partner in pool if not needs_credit or partner.credit_max() > 0]
            chosen = draw(rng, ready, count, set(), device_class)
            if chosen is not None:
                return chosen
            if draw(rng, pool, count, set(), device_class) is not None:
                return None
    return None
