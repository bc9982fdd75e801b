"""One job as the scheduler holds it, and as it is shown. Memory does not grow with finished tasks: a byte for
each."""

from collections import Counter, defaultdict, deque
from collections.abc import Collection
from functools import lru_cache

from depin_node.compute.jobs.events import OutputSizes
from depin_node.compute.jobs.job import (
    INLINE_BYTES_MAX,
    Algebraic,
    Confidence,
    Job,
    JobError,
    JobView,
    Lead,
    ProviderView,
    Quorum,
    Results,
    Verification,
    describe,
)
from depin_node.compute.jobs.panels import Panels
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.market.messages import Terms
from depin_node.compute.verification.bounds import lead_error, lead_for
from depin_node.compute.verification.forecast import HOSTILE_SHARE, certainty
from depin_node.compute.verification.quorum import Ballot
from depin_node.compute.verification.rules import Rule, rule_of
from depin_node.compute.verification.settlement import Settlement
from depin_node.core.clock import SECOND_NS, Now
from depin_node.crypto.identity import peer_id

UPLOAD_BYTES_MAX = 256 << 20
"""What the results of a job's open tasks may take in this node's memory while they arrive."""
OPEN_TASKS_MAX = 4096
ROOM_SHARE = 8
"""Where as many tasks are open as may be, new ones are opened when that share of them has ended: the cost of a look at
all providers is shared."""
PROVIDERS_SHOWN_MAX = 256


shown = lru_cache(maxsize=4096)(peer_id)
"""The peer id of a key; base58 takes as long as a signature."""


class Part:
    """A provider's part in one job."""

    __slots__ = ("done", "failed", "price_us", "reason", "run_us", "running", "state")

    def __init__(self) -> None:
        self.state = "asked"
        self.done = 0
        self.running = 0
        self.failed = 0
        self.run_us = 0
        self.price_us = 0
        self.reason = ""


class Progress:
    """The state of one job."""

    def __init__(
        self,
        job_id: bytes,
        job: Job,
        done: bytearray,
        sizes: OutputSizes,
        output_bytes_max: int,
        now: Now,
        *,
        can_audit: bool = False,
        caught: Collection[bytes] = (),
        parts: int = 1,
        by_peers: bool = False,
    ) -> None:
        self.id = job_id
        self.job = job
        is_audited = isinstance(job.policy, Confidence) and (can_audit or by_peers)
        self.rule = rule_of(job.policy, replicated=isinstance(job.policy, Confidence) and not is_audited)
        self.is_numeric = bool(job.tolerances)
        self.mixes = self.is_numeric and len(job.device_classes) > 1
        self.is_checked = isinstance(job.policy, Algebraic)
        self.barred = set(caught)
        """Who gets no more of it: found out in it, or apart from the others in its numbers, which is no lie."""
        self.can_walk = False  # this node can do single steps of its tasks
        self.part_bytes = 0  # of inputs, that travel for a task
        self.is_walking = False  # one dispute at a time is walked, others are voted on meanwhile
        self.audits_agreed = job.policy.audits if can_audit and isinstance(job.policy, Quorum | Lead) else 0.0
        self.panels: Panels | None = Panels(job.tasks) if self.audits_agreed else None
        self.settlement: Settlement | None = None
        if isinstance(job.policy, Confidence) and is_audited:
            only_peers = not can_audit
            self.settlement = Settlement(job.policy, job.tasks, catches=len(caught), parts=parts, by_peers=only_peers)
        self.audit_parts = parts if self.settlement is not None else 1  # into which each result is cut
        self.provisional: dict[int, bytes] = {}  # tasks whose result is not settled, and by whom it is
        self.replicated: set[int] = set()  # tasks that this node cannot run or check itself
        self.classes: dict[bytes, str] = {}  # of providers with a tab
        self.auditors: dict[int, frozenset[str]] = {}  # groups that have run a provisional result, its provider's too
        self.attempts = 0
        self.checks = 0  # answers that were checked here without a second run
        self.groups: Counter[int] = Counter()  # accepted tasks by the number of groups that agreed
        self.sizes = sizes
        self.terms = Terms(job.device_classes, job.limits, output_bytes_max)
        self.done = done
        self.accepted = self.earlier = sum(done)
        self.stored = self.accepted
        self.state = "queued"
        self.is_over = False
        self.error: JobError | None = None
        self.lacks = ""  # why it cannot be done by those who are known, as of the last look at them
        self.next_task = 0
        self.again: deque[int] = deque()  # tasks to be opened once more
        self.tasks: dict[int, OpenTask] = {}
        self.needy: dict[int, OpenTask] = {}  # open tasks that want another attempt, oldest first
        self.hungry: dict[Partner, None] = {}  # who might be sent more of it, for all that is known
        self.served_s = 0.0  # of slots' time that was given to it: what fair sharing compares
        self.spent_us = 0  # what all answers cost, in µs of the reference core
        self.deadline_ns: int | None = None  # when it is to have ended, on the boot clock
        self.run_s = 0.0  # mean time of a run, by the word of all providers together
        self.looked_for_slow_ns = 0
        self.looked_for_anchors_ns = -(1 << 62)
        self.is_anchored = False  # there are established providers for what is replicated
        self.running = 0  # attempts that have neither committed nor ended
        self.active_ns = now.boottime_ns
        answers = self.rule.agree if self.is_numeric else 1
        self.open_max = min(OPEN_TASKS_MAX, max(4, UPLOAD_BYTES_MAX // max(1, output_bytes_max * answers)))
        self.attempts_failed = 0
        self.failures: Counter[str] = Counter()  # of attempts, by code
        self.disputed = 0
        self.liars: list[bytes] = []
        self.declines: defaultdict[str, set[bytes]] = defaultdict(set)  # who declined, by code; or was lost
        self.parts: dict[bytes, Part] = {}
        self.submitted = now
        self.started_ns: int | None = None
        self.finished_ns: int | None = None
        self.stages_s: dict[str, float] = {}

    def stays(self, task: int) -> bool:
        """Tell whether the result of ``task`` is to stay with those who compute it: not if its numbers are looked at
        here."""
        looked_at = self.rule.agree > 1 or self.settlement is not None or self.audits_agreed
        if self.is_checked or (self.is_numeric and looked_at):
            return False
        return self.job.results is Results.STAY and sum(self.sizes(task)) > INLINE_BYTES_MAX

    def ballot(self, task: int) -> Ballot:
        """Return the ballot of a task that is opened now."""
        return Ballot(task, self.rule_for(task), is_numeric=self.is_numeric, mixes=self.mixes)

    def takes(self, partner: Partner) -> bool:
        """Tell whether a provider may have attempts of it: a node of our own owner has no vote in our own quorum."""
        return partner.peer not in self.barred and not (partner.is_fellow and (self.rule.agree > 1 or self.replicated))

    @property
    def is_settled(self) -> bool:
        """Whether every task has a result that is believed for good."""
        return (
            self.accepted == self.job.tasks
            and not self.provisional
            and not (self.panels is not None and self.panels.auditing)
        )

    def rule_for(self, task: int) -> Rule:
        """Return when an answer to a task is accepted."""
        return rule_of(self.job.policy, replicated=True) if task in self.replicated else self.rule

    def next_rule(self) -> Rule:
        """Return the rule of the task that is opened next."""
        task = self.next_open()
        return self.rule if task is None else self.rule_for(task)

    def reopen(self, task: int, groups: int = 1) -> None:
        """A task that had a single answer, or so many ``groups`` that agreed, is to run once more."""
        self.groups[groups] -= 1
        self.done[task] = 0
        self.accepted -= 1
        self.earlier = min(self.earlier, self.accepted)
        self.stored -= 1
        if task < self.next_task:
            self.again.append(task)

    def next_open(self) -> int | None:
        """Return the next task to open, without taking it."""
        if self.again:
            return self.again[0]
        while self.next_task < self.job.tasks and self.done[self.next_task]:
            self.next_task += 1
        return self.next_task if self.next_task < self.job.tasks else None

    def is_over_budget(self) -> bool:
        """Tell whether no further attempts may be made."""
        return bool(self.job.budget_s) and self.spent_us >= self.job.budget_s * 1_000_000

    def may_open(self) -> bool:
        """Tell whether a task waits to be opened, and there is room for it."""
        return self.is_roomy() and self.next_open() is not None

    def room(self) -> int:
        """Return how many more tasks may be open, for the sake of what is open and what the disk has not taken yet."""
        if self.is_over or self.is_over_budget():
            return 0
        return self.open_max - len(self.tasks) - self.accepted + self.stored

    def is_roomy(self) -> bool:
        """Tell whether so many tasks may be opened that it is worth a look at who could take them; or all that are
        left."""
        room = self.room()
        if room <= 0:
            return False
        return room >= self.open_max // ROOM_SHARE or room >= self.job.tasks - self.accepted - len(self.tasks)

    def take(self, task: int) -> None:
        """Take the task that ``next_open`` names."""
        if self.again:
            self.again.popleft()
        else:
            self.next_task = task + 1

    def part(self, peer: bytes) -> Part:
        """Return a provider's part; the first so many are kept apart, later ones share one that is not
        shown."""
        part = self.parts.get(peer)
        if part is None:
            part = Part()
            if len(self.parts) < PROVIDERS_SHOWN_MAX:
                self.parts[peer] = part
        return part

    def stage(self, name: str, now: Now) -> None:
        """Note when something happened for the first time."""
        if name not in self.stages_s:
            self.stages_s[name] = (now.boottime_ns - self.submitted.boottime_ns) / SECOND_NS

    def view(self) -> JobView:
        """Return how it stands."""
        return JobView(
            id=self.id.hex(),
            name=self.job.name,
            state=self.state,
            tasks_total=self.job.tasks,
            tasks_done=self.stored,
            tasks_running=len(self.tasks),
            attempts_failed=self.attempts_failed,
            providers=tuple(
                ProviderView(
                    shown(peer),
                    part.state,
                    part.done,
                    part.running,
                    part.reason,
                    part.failed,
                    part.run_us / 1e6,
                    part.price_us / 1e6,
                )
                for peer, part in self.parts.items()
            ),
            created_s=float(self.job.created_s),
            started_s=_seconds(self.started_ns),
            finished_s=_seconds(self.finished_ns),
            error=self.error,
            stages_s=dict(self.stages_s),
            verification=self._verification(),
            lacks="" if self.is_over or self.running else self.lacks,
        )

    def _verification(self) -> Verification:
        policy = self.job.policy
        audits = self.settlement.audits if self.settlement is not None else 0.0
        audits += self.panels.audits if self.panels is not None else 0
        return Verification(
            self.accepted,
            self.disputed,
            tuple(shown(peer) for peer in self.liars),
            policy=describe(policy),
            provisional=len(self.provisional),
            earlier=self.earlier,
            attempts=self.attempts,
            audits=audits,
            groups=self.groups_mean(),
            confidence=self._confidence(),
            hostile_share=policy.f if isinstance(policy, Confidence) else HOSTILE_SHARE,
            checks=self.checks,
        )

    def groups_mean(self) -> float:
        """Return how many different groups agreed on a task, in the mean."""
        return sum(groups * tasks for groups, tasks in self.groups.items()) / max(1, self.groups.total())

    def _confidence(self) -> float | None:
        """Return what may be expected of what is settled: a share of right results, if hostile groups hold no more than
        the policy says. None before all is."""
        policy = self.job.policy
        if not self.is_settled:
            return None
        if not isinstance(policy, Confidence):
            unchecked = len(self.replicated) / self.job.tasks * HOSTILE_SHARE**2
            return certainty(policy) - (unchecked if isinstance(policy, Algebraic) else 0.0)
        if self.settlement is None:
            return 1 - lead_error(self.rule.lead, policy.f)
        outvoted = len(self.replicated) * lead_error(lead_for(policy.p, policy.f), policy.f)
        return 1 - (self.settlement.wrong_expected() + outvoted) / self.job.tasks


def deadline_ns(job: Job, now: Now) -> int | None:
    """Return when a job is to have ended, on the boot clock; it was created at a wall time, maybe before a restart."""
    if not job.deadline_s:
        return None
    passed_ns = max(0, now.wall_ns - job.created_s * SECOND_NS)
    return now.boottime_ns + max(0, job.deadline_s * SECOND_NS - passed_ns)


def _seconds(wall_ns: int | None) -> float | None:
    return None if wall_ns is None else wall_ns / SECOND_NS
