"""What the parts of the scheduler share: jobs, partners, candidates, and the effects that gather while an event is
handled."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from depin_node.compute.jobs.events import Candidate, CloseWork, Effect, JobEnded, JobEvent, Note, ReleaseAttempt
from depin_node.compute.jobs.job import JobError, describe
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.patience import Patience
from depin_node.compute.jobs.progress import Progress, shown
from depin_node.compute.market.messages import VERIFIED_BY_MAX, Verdict
from depin_node.compute.verification.quorum import Phase
from depin_node.core.clock import SECOND_NS, Now

if TYPE_CHECKING:
    from random import Random

    from depin_node.compute.jobs.scheduler import SchedulerConfig


Missing = Callable[[bytes, str, Now], int]
"""How many answers of a peer on a device class must still be found right before it is established."""


class Board:
    """The scheduler's state. ``next_attempt``: no attempt has this number, or a higher one."""

    def __init__(self, config: "SchedulerConfig", rng: "Random", banned: set[bytes], missing: Missing) -> None:
        self.config = config
        self.rng = rng
        self.banned = banned
        self.jobs: dict[bytes, Progress] = {}
        self.partners: dict[bytes, Partner] = {}
        self.candidates: tuple[Candidate, ...] = ()
        self.unsuitable: dict[str, int] = {}
        self.missing = missing
        self.patience = Patience()
        self.next_attempt = 0
        self.tasks_opened = 0
        self.finished_with: dict[bytes, list[tuple[bytes, int]]] = {}
        """By lost provider, the (job, task) whose answers it had: it is asked for them when it is back."""
        self.has_room = False
        """Something has ended: there may be work for who is free now, and a place for a job that waits."""
        self._effects: list[Effect] = []

    def opened(self) -> int:
        """Return the sequence number of a task that is opened now."""
        self.tasks_opened += 1
        return self.tasks_opened

    def do(self, effect: Effect) -> None:
        """Have something done, after what was asked for before."""
        self._effects.append(effect)

    def take_effects(self) -> list[Effect]:
        """Return what is to be done, and start anew."""
        effects, self._effects = self._effects, []
        return effects

    def note(
        self, progress: Progress, now: Now, kind: str, peer: bytes = b"", task: int = -1, detail: str = ""
    ) -> None:
        """Add a line to a job's story."""
        name = shown(peer) if peer else ""
        self.do(Note(progress.id, JobEvent(now.wall_ns / SECOND_NS, kind, name, task, detail)))

    def open_jobs(self) -> list[Progress]:
        """Return the jobs that have not ended, oldest first."""
        return [progress for progress in self.jobs.values() if not progress.is_over]

    def suitable(self, progress: Progress, now: Now) -> list[Partner]:
        """Return the partners whose agreement a job's attempts may be sent under."""
        partners = self.partners.values()
        return [p for p in partners if progress.takes(p) and p.suits(progress.job, progress.terms, now.boottime_ns)]

    def might_do(self, candidate: Candidate, progress: Progress) -> bool:
        """Tell whether a candidate's advert fits a job."""
        return (
            candidate.peer not in self.banned
            and candidate.peer not in progress.barred
            and not (candidate.is_fellow and progress.rule.agree > 1)
            and any(
                name in progress.job.device_classes and memory_mib >= progress.job.limits.memory_mib
                for name, memory_mib in candidate.devices
            )
            and candidate.price <= self.config.price_max
        )

    def voteless(self, progress: Progress) -> int:
        """Return how many candidates are of this node's owner and therefore have no vote in a job that needs some."""
        return sum(candidate.is_fellow for candidate in self.candidates) if progress.rule.agree > 1 else 0

    def take_off(self, peer: bytes, attempt: int, now: Now) -> bool:
        """Note that an attempt is over, and its place free; False if it was before, or its provider is gone."""
        partner = self.partners.get(peer)
        if partner is None or partner.close(attempt, now.boottime_ns) is None:
            return False
        if partner.is_worth_a_look():
            self.feed(partner)
        self.has_room = True
        return True

    def feed(self, partner: Partner) -> None:
        """Note that a provider may get more work, of any job."""
        partner.freed = 0
        for progress in self.jobs.values():
            if not progress.is_over:
                progress.hungry[partner] = None
        self.has_room = True

    def need(self, progress: Progress, task: OpenTask) -> None:
        """Note that an open task wants another attempt."""
        progress.needy[task.ballot.task] = task
        self.has_room = True

    def finish(self, progress: Progress | None, state: str, error: JobError | None, now: Now) -> None:
        """End a job: void what is open, and close its works."""
        if progress is None or progress.is_over:
            return
        for task in list(progress.tasks.values()):
            self.release_all(task, now)
        progress.tasks.clear()
        progress.needy.clear()
        progress.hungry.clear()
        for partner in self.partners.values():
            stint = partner.stints.pop(progress.id, None)
            if stint is not None:
                self.do(CloseWork(partner.peer, stint.number, verified_by(progress)))
                self.feed(partner)
        progress.state = state
        progress.is_over = True
        progress.error = error
        progress.finished_ns = now.wall_ns
        progress.stage(state, now)
        for part in progress.parts.values():
            part.running = 0
            if part.state == "working":
                part.state = "finished"
        self.do(JobEnded(progress.id, state, error))
        self.has_room = True

    def release_all(self, task: OpenTask, now: Now) -> None:
        """Void every attempt of an open task. Answers that were shown were honest work: their receipt says
        unused."""
        progress = self.jobs[task.job_id]
        for (peer, attempt), run in task.ballot.runs.items():
            if run.phase is Phase.RUNNING:
                progress.running -= 1
            if self.take_off(peer, attempt, now):
                self.do(ReleaseAttempt(peer, attempt, Verdict.UNUSED if run.phase is Phase.REVEALED else None))
                progress.part(peer).running -= 1


def verified_by(progress: Progress) -> str:
    """Say how a job's results were verified, for its last receipt: by which policy, and how many groups stand behind
    an answer."""
    return f"{describe(progress.job.policy)}; {progress.groups_mean():.1f} groups"[:VERIFIED_BY_MAX]
