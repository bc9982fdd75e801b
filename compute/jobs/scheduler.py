"""The scheduler machine: jobs to tasks, tasks to attempts, attempts to providers, answers to results.

The flow: ``Submitted`` opens a job. While tasks wait, candidates are asked (``Ask``); whoever ``Agreed`` gets
attempts. A task is opened only when all ``k`` attempts that its quorum wants can be placed at once, on
providers of different groups and of one class, so that no task holds places that another waits for: the first
goes to who would have it soonest, the others are drawn uniformly over the groups, from secret randomness.
When all have committed, the set is sealed (``AskReveal``); when k roots agree and the bytes are here, the
result is stored (``StoreResult``) and its attempts are released. Answers that lost are ``Caught``: their
provider gets nothing more. An attempt that ends without an answer is replaced, elsewhere if there is an
elsewhere; a provider that is lost costs its tasks that much.

A job ends ``done`` when all results are handed to the journal; ``failed`` when n answers of a task do not
agree, when k groups (two, if there is a second to ask) report the same fault of the task, when an attempt was
replaced too often, or when for ``suitable_s`` nothing of it ran and nobody took it; or ``cancelled``.

Costs nothing per finished task but a byte. Time for an event is linear in its items, times the number of
providers.
"""

import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from depin_node.compute.jobs import reasons
from depin_node.compute.jobs.events import (
    Ask,
    AskReveal,
    AskUpload,
    Assign,
    CancelAsked,
    Candidate,
    Candidates,
    Caught,
    CloseWork,
    Effect,
    EndAgreement,
    Event,
    Gone,
    Heard,
    JobEnded,
    JobEvent,
    Note,
    OpenWork,
    OutputSizes,
    ReleaseAttempt,
    ResultsStored,
    StoreResult,
    Submitted,
    Tick,
)
from depin_node.compute.jobs.job import JobError, JobView, Limits
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.patience import ORDERLY, Patience
from depin_node.compute.jobs.placement import draw_new, draw_replacements
from depin_node.compute.jobs.progress import Progress, shown
from depin_node.compute.market.happenings import (
    Agreed,
    BidHeard,
    Committed,
    Declined,
    Delivered,
    Ended,
    Failed,
    Revealed,
)
from depin_node.compute.market.messages import TASK_FAULTS, EndCode, Terms, Verdict
from depin_node.compute.verification.quorum import Ballot, Phase
from depin_node.core.clock import SECOND_NS, Now

if TYPE_CHECKING:
    from random import Random

DURATION_S = 3600
IDLE_S = 10
"""An agreement without work is kept so long for the next job: shorter than the provider's own limit."""
NEEDY_SEEN_MAX = 16
"""Open tasks that are looked at for a way on when a job stands still."""
MEMORY_STEP_MIB = 256
SECONDS_STEP = 60
OUTPUT_BYTES_MIN = 1 << 20
"""Terms are rounded up to these, so that one agreement serves one job after the other."""
_SET_CONTEXT = "depin-node scheduler 2026 commit set v1"


@dataclass(frozen=True)
class SchedulerConfig:
    """Bounds and waits of the scheduler."""

    suitable_s: float = 60.0
    """How long a job may wait without anybody working on it."""
    providers_max: int = 32
    """Providers engaged at once."""
    jobs_max: int = 64
    """Jobs worked on at once; others are queued."""
    attempts_ended_max: int = 16
    """Attempts of one task that may end without an answer."""
    price_max: int = 0
    """Millicredits per second of a slot."""


class Scheduler:
    """The machine: ``handle(event, now)`` returns what is to be done."""

    def __init__(self, config: SchedulerConfig, rng: "Random", secret: bytes, banned: set[bytes]) -> None:
        """``rng`` draws replicas, ``secret`` (32 bytes) seals commit sets: both from the operating system."""
        self._config = config
        self._rng = rng
        self._secret = blake3(secret, derive_key_context=_SET_CONTEXT).digest()
        self._banned = banned
        self._jobs: dict[bytes, Progress] = {}
        self._waiting: deque[Submitted] = deque()
        self._partners: dict[bytes, Partner] = {}
        self._candidates: tuple[Candidate, ...] = ()
        self._unsuitable: dict[str, int] = {}
        self._patience = Patience()
        self._opened = 0
        self._attempts = 0  # numbers below were used
        self._effects: list[Effect] = []

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return the effects in the order in which they are to be carried out."""
        if isinstance(event, Heard):
            self._heard(event, now)
        elif isinstance(event, ResultsStored):
            self._stored(event)
        elif isinstance(event, Tick):
            self._tick(now)
        elif isinstance(event, Submitted):
            self._submitted(event, now)
        elif isinstance(event, Candidates):
            self._candidates = event.items
            self._unsuitable = dict(event.unsuitable)
            self._recruit(now)
        elif isinstance(event, Gone):
            self._gone(event.peer, event.code, now)
        elif isinstance(event, CancelAsked):
            self._cancelled(event.job_id, now)
        else:
            self._finish(self._jobs.get(event.job_id), "failed", event.error, now)
        effects, self._effects = self._effects, []
        return effects

    def view(self, job_id: bytes) -> JobView | None:
        """Return how a job stands, from its submission until its end was told; None for others."""
        progress = self._jobs.get(job_id)
        return progress.view() if progress else None

    def terms(self, job_id: bytes) -> Terms:
        """Return what attempts of an open job may use."""
        return self._jobs[job_id].terms

    def sizes(self, job_id: bytes) -> OutputSizes:
        """Return the bytes of each output of an open job's tasks."""
        return self._jobs[job_id].sizes

    def knows_candidates(self) -> bool:
        """Tell whether there is anybody to ask."""
        return bool(self._candidates)

    def needs(self) -> tuple[frozenset[str], int] | None:
        """Return the device classes and the least memory (MiB) of open jobs; None if candidates are of no use."""
        jobs = [progress.job for progress in self._open_jobs()]
        if not jobs:
            return None
        classes = frozenset(name for job in jobs for name in job.device_classes)
        return classes, min(job.limits.memory_mib for job in jobs)

    def forget(self, job_id: bytes) -> None:
        """Drop a job that has ended."""
        progress = self._jobs.get(job_id)
        if progress is not None and progress.is_over:
            del self._jobs[job_id]

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _note(
        self, progress: Progress, now: Now, kind: str, peer: bytes = b"", task: int = -1, detail: str = ""
    ) -> None:
        name = shown(peer) if peer else ""
        self._do(Note(progress.id, JobEvent(now.wall_ns / SECOND_NS, kind, name, task, detail)))

    # Jobs come and go.

    def _submitted(self, event: Submitted, now: Now) -> None:
        if event.job_id in self._jobs or any(waiting.job_id == event.job_id for waiting in self._waiting):
            return
        if sum(not progress.is_over for progress in self._jobs.values()) >= self._config.jobs_max:
            self._waiting.append(event)
            return
        progress = Progress(event.job_id, event.job, event.done, event.sizes, event.output_bytes_max, now)
        self._jobs[event.job_id] = progress
        self._patience.new_terms()
        if progress.accepted == event.job.tasks:
            self._finish(progress, "done", None, now)
            return
        self._dispatch(now)
        self._recruit(now)

    def _cancelled(self, job_id: bytes, now: Now) -> None:
        waiting = next((event for event in self._waiting if event.job_id == job_id), None)
        if waiting is not None:
            self._waiting.remove(waiting)
            self._do(JobEnded(job_id, "cancelled", None))
            return
        self._finish(self._jobs.get(job_id), "cancelled", None, now)

    def _finish(self, progress: Progress | None, state: str, error: JobError | None, now: Now) -> None:
        """End a job: void what is open, close its works, and let the next one in."""
        if progress is None or progress.is_over:
            return
        for task in list(progress.tasks.values()):
            self._release_all(task)
        progress.tasks.clear()
        progress.needy.clear()
        for partner in self._partners.values():
            number = partner.works.pop(progress.id, None)
            if number is not None:
                self._do(CloseWork(partner.peer, number, _verified_by(progress)))
                self._note_idle(partner, now)
        progress.state = state
        progress.error = error
        progress.finished_ns = now.wall_ns
        progress.stage(state, now)
        for part in progress.parts.values():
            part.running = 0
        self._do(JobEnded(progress.id, state, error))
        if self._waiting:
            self._submitted(self._waiting.popleft(), now)
        else:
            self._dispatch(now)

    def _release_all(self, task: OpenTask) -> None:
        """Void every attempt of an open task. Answers that were shown were honest work: their receipt says
        unused."""
        progress = self._jobs[task.job_id]
        for (peer, attempt), run in task.ballot.runs.items():
            if run.phase is Phase.RUNNING:
                progress.running -= 1
            partner = self._partners.get(peer)
            if partner is not None and partner.open.pop(attempt, None) is not None:
                self._do(ReleaseAttempt(peer, attempt, Verdict.UNUSED if run.phase is Phase.REVEALED else None))
                progress.part(peer).running -= 1

    def _stored(self, event: ResultsStored) -> None:
        progress = self._jobs.get(event.job_id)
        if progress is not None:
            progress.stored += event.tasks

    # Conversations.

    def _heard(self, heard: Heard, now: Now) -> None:
        partner = self._partners.get(heard.peer)
        if partner is None:
            return
        event = heard.event
        if isinstance(event, Committed):
            self._committed(partner, event, now)
        elif isinstance(event, Revealed):
            self._revealed(partner, event, now)
        elif isinstance(event, Delivered):
            self._delivered(partner, event, now)
        elif isinstance(event, Failed):
            self._failed(partner, event, now)
        elif isinstance(event, BidHeard):
            for progress in self._open_jobs():
                progress.stage("first_bid", now)
                self._note(progress, now, "bid", heard.peer, detail=f"{event.slots} slots, window {event.window}")
        elif isinstance(event, Agreed):
            self._agreed(partner, event, now)
        elif isinstance(event, Declined | Ended):
            self._gone(heard.peer, event.code, now)
            return
        self._dispatch(now)

    def _open_jobs(self) -> list[Progress]:
        return [progress for progress in self._jobs.values() if not progress.is_over]

    def _agreed(self, partner: Partner, event: Agreed, now: Now) -> None:
        until_ns = now.boottime_ns + event.duration_s * SECOND_NS
        partner.agreed(event.device_class, event.slots, event.window, until_ns, now.boottime_ns)
        for progress in self._open_jobs():
            if partner.suits(progress.job, progress.terms, now.boottime_ns):
                progress.stage("first_agreement", now)
                progress.part(partner.peer).state = "working"
                self._note(progress, now, "agreed", partner.peer)

    def _gone(self, peer: bytes, code: str, now: Now) -> None:
        """A conversation is over: its attempts return to the queue at once; the peer is not asked for a
        while."""
        partner = self._partners.pop(peer, None)
        if partner is None:
            return
        self._patience.ended(peer, code, was_agreed=partner.is_agreed, now=now)
        state = _state_after(code, partner.is_agreed)
        for progress in self._open_jobs():
            part = progress.parts.get(peer)
            if part is not None and part.state != "caught":
                part.state, part.reason, part.running = state, code, 0
                if state == "declined":
                    progress.declines[code] += 1
                self._note(progress, now, state, peer, detail=code)
        for job_id, number in partner.works.items():
            self._do(CloseWork(peer, number, _verified_by(self._jobs[job_id])))
        lost, partner.open = partner.open, {}
        for attempt, task in lost.items():
            if not self._jobs[task.job_id].is_over:  # losing one before may have ended its job
                self._lose(partner, attempt, task, now)
        self._dispatch(now)
        self._recruit(now)

    def _lose(self, partner: Partner, attempt: int, task: OpenTask, now: Now) -> None:
        ref = (partner.peer, attempt)
        progress = self._jobs[task.job_id]
        if task.ballot.runs[ref].phase is Phase.REVEALED:
            task.ballot.unreachable(ref)
            if task.uploading == ref:
                task.uploading = None
            self._decide(progress, task, now)
        else:
            self._end_attempt(progress, task, ref, "lost", now)

    # Attempts.

    def _dispatch(self, now: Now) -> None:
        """Place what waits, as long as there is credit: replacements first, then new tasks, job by job."""
        for progress in self._open_jobs():
            suitable = [p for p in self._partners.values() if p.suits(progress.job, progress.terms, now.boottime_ns)]
            if not suitable:
                continue
            batches: dict[bytes, list[int]] = {}
            if progress.needy:
                self._replace(progress, suitable, batches, now)
            self._open_new(progress, suitable, batches, now)
            for peer, tasks in batches.items():
                self._assign(progress, self._partners[peer], tasks, now)

    def _assign(self, progress: Progress, partner: Partner, tasks: list[int], now: Now) -> None:
        number = partner.works.get(progress.id)
        if number is None:
            number = partner.works[progress.id] = partner.next_work
            partner.next_work += 1
            self._do(OpenWork(partner.peer, number, progress.id))
        partner.took(len(tasks), now.boottime_ns)
        part = progress.part(partner.peer)
        part.state = "working"
        part.running += len(tasks)
        progress.running += len(tasks)
        progress.active_ns = now.boottime_ns
        if progress.state == "queued":
            progress.state = "running"
            progress.started_ns = now.wall_ns
            progress.stage("first_task", now)
        self._do(Assign(partner.peer, number, partner.next_attempt - len(tasks), tasks))

    def _start(self, task: OpenTask, partner: Partner, batches: dict[bytes, list[int]]) -> None:
        attempt = partner.next_attempt
        partner.next_attempt += 1
        self._attempts = max(self._attempts, partner.next_attempt)
        partner.open[attempt] = task
        task.ballot.started((partner.peer, attempt), partner.group, partner.device_class)
        batches.setdefault(partner.peer, []).append(task.ballot.task)

    def _open_new(self, progress: Progress, suitable: list[Partner], batches: dict[bytes, list[int]], now: Now) -> None:
        policy = progress.job.policy
        ready = [partner for partner in suitable if partner.credit() > 0]
        while len(progress.tasks) < progress.open_max and len(ready) >= policy.k:
            number = progress.next_open()
            if number is None:
                return
            chosen = draw_new(self._rng, ready, policy.k)
            if chosen is None:
                return
            progress.take_next()
            self._opened += 1
            task = OpenTask(progress.id, Ballot(number, policy), self._opened)
            progress.tasks[number] = task
            for partner in chosen:
                self._start(task, partner, batches)
                if partner.credit() <= 0:
                    ready.remove(partner)

    def _replace(self, progress: Progress, suitable: list[Partner], batches: dict[bytes, list[int]], now: Now) -> None:
        """Start the further attempts that open tasks want; all of a task or none, oldest first."""
        for number, task in list(progress.needy.items()):
            ballot = task.ballot
            if not ballot.runs:  # nothing is left of it: it starts anew, with its failures remembered
                ballot.device_class = ""
            chosen = draw_replacements(self._rng, task, suitable, ballot.wanted(), needs_credit=True)
            if chosen is None:
                continue
            del progress.needy[number]
            for partner in chosen:
                self._start(task, partner, batches)

    def _committed(self, partner: Partner, event: Committed, now: Now) -> None:
        partner.answered(len(event.items), now.boottime_ns)
        for attempt, commitment in event.items:
            task = partner.open.get(attempt)
            if task is None:
                continue
            progress = self._jobs[task.job_id]
            progress.running -= 1
            progress.active_ns = now.boottime_ns
            task.ballot.committed((partner.peer, attempt), commitment)
            self._seal(task, now)

    def _seal(self, task: OpenTask, now: Now) -> None:
        """If all answers that are wanted are in, fix the set and have them shown; one of them sends its bytes
        too."""
        asked = task.ballot.ready()
        if not asked:
            return
        inputs = task.job_id + task.ballot.task.to_bytes(8, "little") + task.ballot.commitments()
        sealed = blake3(inputs, key=self._secret).digest()
        if task.uploading is None and task.outputs is None:
            task.uploading = asked[task.ballot.task % len(asked)]
        for ref in asked:
            self._do(AskReveal(ref[0], ref[1], sealed, ref == task.uploading))

    def _revealed(self, partner: Partner, event: Revealed, now: Now) -> None:
        for attempt, root in event.items:
            task = partner.open.get(attempt)
            if task is None:
                continue
            progress = self._jobs[task.job_id]
            progress.active_ns = now.boottime_ns
            was_disputed = task.ballot.is_disputed()
            task.ballot.revealed((partner.peer, attempt), root)
            if task.ballot.is_disputed() and not was_disputed:
                progress.disputed += 1
                self._note(progress, now, "disagreed", task=task.ballot.task, detail=reasons.who_said_what(task.ballot))
            self._decide(progress, task, now)

    def _delivered(self, partner: Partner, event: Delivered, now: Now) -> None:
        task = partner.open.get(event.attempt)
        if task is None:
            return
        if task.uploading == (partner.peer, event.attempt):
            task.uploading = None
        task.outputs, task.outputs_root, task.log = event.outputs, event.root, event.log
        self._decide(self._jobs[task.job_id], task, now)

    def _decide(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """Go on with a task whose answers or bytes have changed."""
        ballot = task.ballot
        if progress.is_over:
            return
        if ballot.is_undecided():
            self._finish(progress, "failed", reasons.undecided(ballot), now)
            return
        if not ballot.decided:
            if ballot.wanted():
                progress.needy[ballot.task] = task
            return
        if task.outputs is not None and task.outputs_root == ballot.decided:
            self._accept(progress, task, now)
            return
        if task.uploading is not None:
            run = ballot.runs.get(task.uploading)
            if run is not None and run.root == ballot.decided and run.reachable:
                return  # its bytes are under way
        task.uploading = ballot.uploader()
        if task.uploading is not None:
            self._do(AskUpload(*task.uploading))
            return
        for ref in ballot.reopen():
            self._note(progress, now, "lost", ref[0], ballot.task, "its bytes can no longer be had")
        progress.needy[ballot.task] = task

    def _accept(self, progress: Progress, task: OpenTask, now: Now) -> None:
        ballot = task.ballot
        assert task.outputs is not None
        del progress.tasks[ballot.task]
        progress.done[ballot.task] = 1
        progress.accepted += 1
        progress.stage("first_result", now)
        self._do(StoreResult(progress.id, ballot.task, ballot.decided, task.outputs, task.log))
        liars = ballot.dissenters()
        for peer, attempt in liars:
            self._do(Caught(peer, attempt, progress.id, ballot.task))
        for (peer, attempt), run in ballot.runs.items():
            agrees = run.root == ballot.decided
            part = progress.part(peer)
            part.done += agrees
            if agrees:
                self._patience.satisfied(peer)
            partner = self._partners.get(peer)
            if partner is not None and partner.open.pop(attempt, None) is not None:
                part.running -= 1
                self._do(ReleaseAttempt(peer, attempt, Verdict.ACCEPTED if agrees else Verdict.REJECTED))
                self._note_idle(partner, now)
        for peer, _ in liars:
            self._catch(progress, peer, ballot.task, now)
        if progress.accepted == progress.job.tasks:
            self._finish(progress, "done", None, now)

    def _catch(self, progress: Progress, peer: bytes, task: int, now: Now) -> None:
        """Have nothing more to do with a peer whose answer lost: its open attempts count for nothing."""
        self._banned.add(peer)
        if peer not in progress.liars:
            progress.liars.append(peer)
            self._note(progress, now, "caught", peer, task, "its answer differs from the one that the quorum agrees on")
        for other in self._open_jobs():
            if peer in other.parts:
                other.parts[peer].state = "caught"
        if peer in self._partners:
            self._void_shown(self._partners[peer], now)
            self._gone(peer, "caught", now)
            self._do(EndAgreement(peer, EndCode.DONE))

    def _void_shown(self, partner: Partner, now: Now) -> None:
        """Take what a caught peer has shown, and is not accepted yet, off its ballots."""
        for attempt, task in list(partner.open.items()):
            run = task.ballot.runs[(partner.peer, attempt)]
            if run.phase is Phase.REVEALED and not task.ballot.decided:
                self._end_attempt(self._jobs[task.job_id], task, (partner.peer, attempt), "caught", now)

    def _failed(self, partner: Partner, event: Failed, now: Now) -> None:
        ended = [(attempt, code, partner.open.pop(attempt, None)) for attempt, code in event.items]
        for attempt, code, task in ended:
            if task is not None and not self._jobs[task.job_id].is_over:  # the one before may have ended its job
                self._end_attempt(self._jobs[task.job_id], task, (partner.peer, attempt), code.value, now)

    def _end_attempt(self, progress: Progress, task: OpenTask, ref: tuple[bytes, int], code: str, now: Now) -> None:
        """An attempt has ended without an answer: replace it, or give the job up."""
        peer, attempt = ref
        ballot = task.ballot
        if ballot.runs[ref].phase is Phase.RUNNING:
            progress.running -= 1
        part = progress.part(peer)
        part.running = max(0, part.running - 1)
        if task.uploading == ref:
            task.uploading = None
        progress.active_ns = now.boottime_ns
        progress.attempts_failed += 1
        partner = self._partners.get(peer)
        if partner is not None:
            partner.open.pop(attempt, None)
            self._note_idle(partner, now)
        groups = ballot.ended(ref, code, is_task_fault=code in _TASK_FAULTS)
        self._note(progress, now, "attempt_failed", peer, ballot.task, code)
        if groups and groups >= self._faults_to_fail(progress, ballot):
            self._finish(progress, "failed", reasons.fault(ballot, code, groups), now)
        elif ballot.attempts_ended > self._config.attempts_ended_max:
            self._finish(progress, "failed", reasons.worn_out(ballot, code), now)
        elif not progress.is_over:
            if ballot.wanted():
                progress.needy[ballot.task] = task
            else:
                self._seal(task, now)

    def _faults_to_fail(self, progress: Progress, ballot: Ballot) -> int:
        """Return how many groups must report the same fault: a single one is believed only if there is no
        second."""
        k = progress.job.policy.k
        if k > 1:
            return k
        tried = set().union(*ballot.failures.values())
        known = {candidate.group for candidate in self._candidates if self._might_do(candidate, progress)}
        known |= {partner.group for partner in self._partners.values() if partner.is_agreed}
        return 2 if known - tried else 1

    # Recruiting.

    def _might_do(self, candidate: Candidate, progress: Progress) -> bool:
        return (
            candidate.peer not in self._banned
            and any(name in candidate.device_classes for name in progress.job.device_classes)
            and candidate.memory_mib >= progress.job.limits.memory_mib
            and candidate.price <= self._config.price_max
        )

    def _recruit(self, now: Now) -> None:
        """Ask candidates until each job has as many providers as it can use."""
        for progress in self._open_jobs():
            policy = progress.job.policy
            useful = max(policy.n, policy.k * (progress.job.tasks - progress.accepted))
            # Who has failed a task is of no use to it: each failure makes room for somebody else.
            stuck = itertools.islice(progress.needy.values(), NEEDY_SEEN_MAX)
            useful += max((task.ballot.attempts_ended for task in stuck), default=0)
            wanted = min(self._config.providers_max, useful)
            engaged = sum(self._serves(partner, progress, now) for partner in self._partners.values())
            for candidate in self._candidates:
                if engaged >= wanted or len(self._partners) >= self._config.providers_max:
                    break
                if candidate.peer in self._partners or not self._might_do(candidate, progress):
                    continue
                if not self._patience.allows(candidate.peer, now):
                    continue
                terms = _rounded(progress.terms)
                self._partners[candidate.peer] = Partner(candidate.peer, candidate.group, terms, self._attempts)
                engaged += 1
                progress.part(candidate.peer).state = "asked"
                progress.stage("first_offer", now)
                self._note(progress, now, "asked", candidate.peer)
                self._do(Ask(candidate.peer, terms, self._config.price_max, DURATION_S))

    def _serves(self, partner: Partner, progress: Progress, now: Now) -> bool:
        if partner.is_agreed:
            return partner.suits(progress.job, progress.terms, now.boottime_ns)
        return any(partner.terms.cover(progress.terms, name) for name in progress.job.device_classes)

    def _note_idle(self, partner: Partner, now: Now) -> None:
        if not partner.open:
            partner.idle_since_ns = now.boottime_ns

    # Time.

    def _tick(self, now: Now) -> None:
        self._end_idle(now)
        for progress in self._open_jobs():
            if progress.running or len(progress.tasks) > len(progress.needy) or self._waits_its_turn(progress, now):
                progress.active_ns = now.boottime_ns
            elif now.boottime_ns > progress.active_ns + int(self._config.suitable_s * SECOND_NS):
                agreed = {partner.group for partner in self._partners.values() if partner.is_agreed}
                error = reasons.nobody(progress, self._config.suitable_s, len(agreed), self._unsuitable)
                self._finish(progress, "failed", error, now)
        self._patience.prune(now)
        self._recruit(now)
        self._dispatch(now)

    def _end_idle(self, now: Now) -> None:
        """Give back what nobody needs: agreements idle for long, and those that no open job can use."""
        jobs = self._open_jobs()
        for partner in list(self._partners.values()):
            if not partner.is_agreed or partner.open:
                continue
            of_use = any(partner.suits(progress.job, progress.terms, now.boottime_ns) for progress in jobs)
            if of_use:
                continue
            if jobs or now.boottime_ns > partner.idle_since_ns + IDLE_S * SECOND_NS:
                self._gone(partner.peer, EndCode.DONE.value, now)
                self._do(EndAgreement(partner.peer, EndCode.DONE))

    def _waits_its_turn(self, progress: Progress, now: Now) -> bool:
        """Tell whether a job that stands still has providers, and these are only full; see that they do not stay so."""
        suitable = [p for p in self._partners.values() if p.suits(progress.job, progress.terms, now.boottime_ns)]
        for task in itertools.islice(progress.needy.values(), NEEDY_SEEN_MAX):
            chosen = draw_replacements(self._rng, task, suitable, task.ballot.wanted(), needs_credit=False)
            for partner in chosen or ():
                if partner.credit_max() <= 0:
                    self._unblock(partner, task)
            if chosen is not None:
                return True
        if progress.needy:
            return False
        return (
            progress.next_open() is not None
            and len(suitable) >= progress.job.policy.k
            and draw_new(self._rng, suitable, progress.job.policy.k) is not None
        )

    def _unblock(self, partner: Partner, oldest: OpenTask) -> None:
        """Void the youngest task that stands still and holds a place with ``partner``, for the sake of an older one.

        Windows can fill with answers that wait for a replacement elsewhere, where the window is full of the same.
        """
        stuck = [
            task
            for task in partner.open.values()
            if task.sequence > oldest.sequence and task.ballot.task in self._jobs[task.job_id].needy
        ]
        if not stuck:
            return
        youngest = max(stuck, key=lambda task: task.sequence)
        progress, number = self._jobs[youngest.job_id], youngest.ballot.task
        self._release_all(youngest)
        del progress.tasks[number]
        del progress.needy[number]
        progress.again.append(number)


_TASK_FAULTS = frozenset(code.value for code in TASK_FAULTS)


def _state_after(code: str, was_agreed: bool) -> str:
    if was_agreed:
        return "left" if code in ORDERLY else "lost"
    return "declined"


def _rounded(terms: Terms) -> Terms:
    output_bytes = max(OUTPUT_BYTES_MIN, 1 << max(0, terms.output_bytes_max - 1).bit_length())
    seconds = min(86_400, -(-terms.limits.seconds // SECONDS_STEP) * SECONDS_STEP)
    memory_mib = min(1 << 20, -(-terms.limits.memory_mib // MEMORY_STEP_MIB) * MEMORY_STEP_MIB)
    return Terms(terms.device_classes, Limits(seconds, memory_mib), output_bytes)


def _verified_by(progress: Progress) -> str:
    return f"quorum {progress.job.policy.k} of {progress.job.policy.n}"
