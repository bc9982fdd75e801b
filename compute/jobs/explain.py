"""Why a job is as it is: who could run it, what each of the others lacks, and what became of those who were asked.

Each known peer is held against every condition, not only the first that it fails. A condition that is the only one
some peers fail is worth relaxing: ``relax`` says to what, and how many peers would then fit. As of now: peers come
and go, and a job that failed an hour ago may have failed for another want.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.job import END_STATES, Job, JobView, ProviderView, Verification, describe
from depin_node.compute.verification.rules import rule_of
from depin_node.core.text import counted
from depin_node.core.views import View

TOLD = (
    "disagreed",
    "caught",
    "cleared",
    "barred",
    "void",
    "unchecked",
    "attempt_failed",
    "lost",
    "doubled",
    "declined",
)
"""Kinds of lines in a job's story that say why something was rejected, or who was dropped."""
TOLD_MAX = 50
_WAITED_FOR = {
    "first_offer": "finding somebody to ask",
    "first_bid": "the first bid",
    "first_agreement": "the first agreement",
    "first_task": "placing the first task",
    "first_result": "the first result",
}


class ConditionView(View, frozen=True):
    """What ``failing`` known peers lack, ``alone`` of them nothing else. Relaxed to ``relax``, ``gained`` more fit,
    and ``groups`` groups in all."""

    name: str
    failing: int
    alone: int
    relax: str
    gained: int
    groups: int


class StageView(View, frozen=True):
    """How long a job took for something."""

    what: str
    took_s: float


class EvidenceView(View, frozen=True):
    """What a peer was dropped for. ``commits`` and ``reveals`` are the signed messages that show it, in bytes."""

    peer: str
    task: int
    reason: str
    commits_bytes: int
    reveals_bytes: int


class ExplainView(View, frozen=True):
    """Why a job is as it is. ``rejected`` are lines of its story; peers are peer ids; ``would_help`` is what to do
    where providers of fewer groups fit than it needs."""

    id: str
    name: str
    state: str
    policy: str
    verification: Verification
    error: str
    groups_needed: int
    peers_known: int
    peers_fitting: int
    groups_fitting: int
    conditions: tuple[ConditionView, ...]
    stages: tuple[StageView, ...]
    providers: tuple[ProviderView, ...]
    rejected: tuple[JobEvent, ...]
    evidence: tuple[EvidenceView, ...]
    would_help: tuple[str, ...] = ()


class Prospect(NamedTuple):
    """A known peer. ``devices`` are (device class, MiB of memory for one task); ``banned`` is why, or empty."""

    group: str
    speaks: bool
    lending: bool
    reachable: bool
    banned: str
    price: int
    devices: tuple[tuple[str, int], ...]
    is_fellow: bool = False
    """Of this node's owner, and not listed: it has no vote."""
    is_relayed: bool = False
    """Met by way of a relay only, so that nobody knows its network: it counts as of the relay's group."""


class _Condition(NamedTuple):
    name: str
    holds: Callable[[Prospect], bool]
    value: Callable[[Prospect], int] | None
    """What would have to be allowed for this peer, if that is a number; larger is laxer."""
    words: Callable[[int], str]
    may_relax: bool = True


def explain(
    job: Job,
    view: JobView,
    story: Sequence[JobEvent],
    prospects: Sequence[Prospect],
    evidence: Iterable[EvidenceView],
    price_max: int,
) -> ExplainView:
    """Return the explanation of a job."""
    conditions = _conditions(job, price_max)
    needed = rule_of(job.policy).agree
    lacking = [frozenset(c.name for c in conditions if not c.holds(prospect)) for prospect in prospects]
    fitting = [prospect for prospect, lacks in zip(prospects, lacking, strict=True) if not lacks]
    groups = {prospect.group for prospect in fitting}
    return ExplainView(
        id=view.id,
        name=view.name,
        state=view.state,
        policy=describe(job.policy),
        verification=view.verification,
        error="" if view.error is None else f"{view.error.code}: {view.error.message}",
        groups_needed=needed,
        peers_known=len(prospects),
        peers_fitting=len(fitting),
        groups_fitting=len(groups),
        conditions=tuple(
            _condition_view(condition, prospects, lacking, groups, needed)
            for condition in conditions
            if any(condition.name in lacks for lacks in lacking)
        ),
        stages=tuple(_stages(view)),
        providers=view.providers,
        rejected=tuple(event for event in story if event.kind in TOLD)[-TOLD_MAX:],
        evidence=tuple(evidence),
        would_help=() if view.state == "done" else tuple(_would_help(needed, fitting, len(groups))),
    )


def _would_help(needed: int, fitting: Sequence[Prospect], groups: int) -> Iterable[str]:
    """Yield what to do so that enough groups can run the job, whatever single peers lack."""
    if groups >= needed:
        return
    yield (
        f"{counted(needed - groups, 'more lender')} of {'another group' if needed - groups == 1 else 'other groups'}"
        " (another owner, another /16): depin-node start --lend --peer ADDRESS"
    )
    relayed = sum(prospect.is_relayed for prospect in fitting)
    if relayed > 1:
        yield (
            f"{relayed} of those that fit are met by way of a relay only, and count as of its group: they are of their"
            " own networks' when a port is passed on at their routers, or at this node's (depin-node doctor, there or"
            " here, says how)"
        )
    if len(fitting) > groups:
        yield (
            f"{len(fitting)} fit, in {counted(groups, 'group')}: list those that you know to be different people's as"
            " trusted_peers in this node's config.toml"
        )
    if 0 < groups < needed:
        yield (
            f"submit it again so that fewer have to agree: [verify] k = {groups}, n = {2 * groups - 1}; or policy ="
            ' "confidence", which runs tasks once and audits some in secret'
        )


def _conditions(job: Job, price_max: int) -> list[_Condition]:
    classes, memory_mib = set(job.device_classes), job.limits.memory_mib

    def memory_of(prospect: Prospect) -> int:
        return max((mib for name, mib in prospect.devices if name in classes), default=0)

    def has_class(prospect: Prospect) -> bool:
        return any(name in classes for name, _ in prospect.devices)

    wanted = " or ".join(job.device_classes)
    is_voted_on = rule_of(job.policy).agree > 1
    return [
        _Condition("protocol", lambda p: p.speaks, None, lambda _: "update depin-node, there or here"),
        _Condition("lending", lambda p: p.lending, None, lambda _: "start them with --lend"),
        _Condition("device_class", has_class, None, lambda _: f"another device class than {wanted}"),
        _Condition(
            "memory",
            lambda p: not has_class(p) or memory_of(p) >= memory_mib,  # a missing class is told once
            lambda p: -memory_of(p),
            lambda least: f"[limits] memory_mib = {-least}, if a task fits it",
        ),
        _Condition(
            "vote",
            lambda p: not (is_voted_on and p.is_fellow),
            None,
            lambda _: "list them in trusted_peers: they are of this node's owner",
        ),
        _Condition("price", lambda p: p.price <= price_max, lambda p: p.price, lambda most: f"price_max = {most}"),
        _Condition(
            "reachable",
            lambda p: p.reachable,
            None,
            lambda _: "start them again if they are down, else open a port or use a relay",
        ),
        _Condition("honest", lambda p: not p.banned, None, lambda _: "who has lied is not asked again", False),
    ]


def _condition_view(
    condition: _Condition,
    prospects: Sequence[Prospect],
    lacking: Sequence[frozenset[str]],
    groups: set[str],
    needed: int,
) -> ConditionView:
    failing = sum(condition.name in lacks for lacks in lacking)
    alone = [p for p, lacks in zip(prospects, lacking, strict=True) if lacks == {condition.name}]
    if not alone:
        return ConditionView(condition.name, failing, 0, "", 0, 0)
    if not condition.may_relax:
        gained, to = [], condition.words(0)
    elif condition.value is None:
        gained, to = alone, condition.words(0)
    else:
        value = condition.value
        alone.sort(key=value)
        bound = value(alone[-1])
        have = set(groups)
        for prospect in alone:  # no laxer than it takes
            have.add(prospect.group)
            if len(have) >= needed > len(groups):
                bound = value(prospect)
                break
        gained = [prospect for prospect in alone if value(prospect) <= bound]
        to = condition.words(bound)
    with_them = groups | {prospect.group for prospect in gained}
    return ConditionView(condition.name, failing, len(alone), to, len(gained), len(with_them))


def _stages(view: JobView) -> Iterable[StageView]:
    """Yield what the job waited for, one after the other: the times add up to the last one's.

    What came after a later stage of the way was not waited for: who has an agreement from before gets tasks at once,
    while others are still asked.
    """
    at_s, way = view.stages_s, list(_WAITED_FOR)
    before_s = 0.0
    for number, name in enumerate(way):
        if name in at_s and at_s[name] <= min(at_s.get(later, at_s[name]) for later in way[number:]):
            yield StageView(_WAITED_FOR[name], round(at_s[name] - before_s, 6))
            before_s = at_s[name]
    end_s = next((at_s[state] for state in END_STATES if state in at_s), None)
    if end_s is not None:
        reached = max((number for number, name in enumerate(way, 1) if name in at_s or "done" in at_s), default=0)
        last = f"{_WAITED_FOR[way[reached]]}, in vain" if reached < len(way) else "all further tasks"
        yield StageView(last, round(end_s - before_s, 6))
