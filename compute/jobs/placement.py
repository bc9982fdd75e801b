"""Who gets an attempt: the first of a new task by speed, every other one by lot.

The lot is uniform over groups, then within the group, from secret randomness: whoever wants two of its nodes to meet on
one task can do no better than hold many groups.
"""

from typing import TYPE_CHECKING

from depin_node.compute.jobs.partner import OpenTask, Partner

if TYPE_CHECKING:
    from random import Random

ATTEMPTS_AGAIN_MAX = 3
"""How often a task may be tried again with one provider that failed it through no fault of the task."""


def draw(rng: "Random", ready: list[Partner], count: int, without: set[str], device_class: str) -> list[Partner] | None:
    """Draw ``count`` providers of as many groups, none of ``without``; None if there are not so many."""
    groups: dict[str, list[Partner]] = {}
    for partner in ready:
        if partner.device_class == device_class and partner.group not in without:
            groups.setdefault(partner.group, []).append(partner)
    if len(groups) < count:
        return None
    names = list(groups) if count == len(groups) else rng.sample(list(groups), count)
    return [members[0] if len(members := groups[name]) == 1 else rng.choice(members) for name in names]


def draw_new(rng: "Random", ready: list[Partner], k: int) -> list[Partner] | None:
    """Choose providers for a new task: who has it soonest, then others by lot."""
    first = min(ready, key=Partner.load)
    if k == 1:
        return [first]
    others = draw(rng, ready, k - 1, {first.group}, first.device_class)
    if others is not None:
        return [first, *others]
    for other in ready:  # the soonest is of a class that too few have: one that enough have will do
        others = draw(rng, ready, k - 1, {other.group}, other.device_class)
        if others is not None:
            return [other, *others]
    return None


def draw_replacements(
    rng: "Random", task: OpenTask, suitable: list[Partner], count: int, *, needs_credit: bool
) -> list[Partner] | None:
    """Choose providers for further attempts of an open task: all of them or none.

    Those who have not failed it come first; if they are only busy, they are waited for.
    """
    ballot = task.ballot
    able = [partner for partner in suitable if not ballot.has_group(partner.group)]
    fresh = [partner for partner in able if not ballot.failed_before(partner.peer)]
    again = [p for p in able if 0 < ballot.failed_before(p.peer) < ATTEMPTS_AGAIN_MAX and not ballot.failures]
    classes = [ballot.device_class] if ballot.runs else list({partner.device_class for partner in able})
    for pool in (fresh, fresh + again):
        for device_class in classes:
            ready = [partner for partner in pool if not needs_credit or partner.credit_max() > 0]
            chosen = draw(rng, ready, count, set(), device_class)
            if chosen is not None:
                return chosen
            if draw(rng, pool, count, set(), device_class) is not None:
                return None
    return None
