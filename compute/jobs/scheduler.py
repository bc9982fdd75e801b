"""The scheduler machine: jobs to tasks, tasks to attempts, attempts to providers, answers to results.

The flow: ``Submitted`` opens a job. While tasks wait, candidates are asked (``recruiting``); whoever ``Agreed``
gets attempts (``placing``). What they answer is sealed, compared, and accepted or caught (``deciding``). An
attempt that ends without an answer is replaced, elsewhere if there is an elsewhere; a provider that is lost costs
its tasks that much. All parts share one ``board``.

A job ends ``done`` when all results are handed to the journal; ``failed`` when n answers of a task do not
agree, when k groups (two, if there is a second to ask) report the same fault of the task, when an attempt was
replaced too often, or when for ``suitable_s`` nothing of it ran and nobody took it; or ``cancelled``.

Costs nothing per finished task but a byte. Time for an event is linear in its items; who is looked at for new tasks
are the providers of whom something has ended (``Progress.hungry``), not all. Linear in all providers are ticks, changes
of who is engaged, and tasks that wait for a replacement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depin_node.compute.jobs import reasons
from depin_node.compute.jobs.board import Board, Missing
from depin_node.compute.jobs.deciding import Deciding
from depin_node.compute.jobs.events import (
    Audited,
    CancelAsked,
    Candidates,
    Checked,
    Compared,
    Effect,
    EndAgreement,
    Event,
    Gone,
    HandedOver,
    Heard,
    JobEnded,
    OutputSizes,
    ResultsStored,
    StoringFailed,
    Submitted,
    Tick,
    Walked,
)
from depin_node.compute.jobs.job import JobError, JobView
from depin_node.compute.jobs.partner import Partner
from depin_node.compute.jobs.placing import Placing
from depin_node.compute.jobs.progress import Progress, deadline_ns
from depin_node.compute.jobs.recruiting import Recruiting
from depin_node.compute.market.happenings import (
    Agreed,
    BidHeard,
    Committed,
    Declined,
    Delivered,
    Ended,
    Failed,
    Priced,
    Revealed,
    Stayed,
)
from depin_node.compute.market.messages import EndCode, Terms
from depin_node.compute.trust.book import ESTABLISHED_ANSWERS
from depin_node.core.clock import SECOND_NS, Now

if TYPE_CHECKING:
    from random import Random


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
    """Millicredits per reference-second."""


class Scheduler:
    """The machine: ``handle(event, now)`` returns what is to be done."""

    def __init__(
        self,
        config: SchedulerConfig,
        rng: "Random",
        secret: bytes,
        banned: set[bytes],
        missing: Missing = lambda peer, device_class, now: ESTABLISHED_ANSWERS,
    ) -> None:
        """Begin without jobs.

        Args:
            config: bounds and waits.
            rng: draws replicas, from the operating system's randomness.
            secret: 32 bytes of the same: seals commit sets and draws audits.
            banned: whom to have nothing to do with; grows with who is caught.
            missing: how many answers of a peer must still be found right; by default all peers are newcomers.
        """
        self._config = config
        self._board = Board(config, rng, banned, missing)
        self._deciding = Deciding(self._board, secret)
        self._settling = self._deciding.settling
        self._placing = Placing(self._board, self._settling)
        self._recruiting = Recruiting(self._board)
        self._waiting: dict[bytes, tuple[Submitted, int | None]] = {}  # and when it is to have ended (boot ns)
        self._takes: dict[type, Callable[[Any, Now], None]] = {
            Heard: self._heard,
            ResultsStored: self._stored,
            Audited: self._deciding.audited,
            Compared: self._deciding.compared,
            Checked: self._deciding.checked,
            Walked: self._deciding.walked,
            Tick: self._tick,
            Submitted: self._submitted,
            Candidates: self._candidates,
            Gone: self._gone,
            CancelAsked: self._cancelled,
            StoringFailed: self._storing_failed,
            HandedOver: self._handed_over,
        }
        self._hears: dict[type, Callable[[Partner, Any, Now], None]] = {
            Committed: self._deciding.committed,
            Revealed: self._deciding.revealed,
            Delivered: self._deciding.delivered,
            Stayed: self._deciding.stayed,
            Failed: self._deciding.failed,
            Priced: self._priced,
            BidHeard: self._bid,
            Agreed: self._agreed,
            Declined: self._ended,
            Ended: self._ended,
        }

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return the effects in the order in which they are to be carried out."""
        self._takes[type(event)](event, now)
        if self._board.has_room:
            self._fill(now)
        return self._board.take_effects()

    def view(self, job_id: bytes) -> JobView | None:
        """Return how a job stands, from its submission until its end was told; None for others."""
        progress = self._board.jobs.get(job_id)
        return progress.view() if progress else None

    def terms(self, job_id: bytes) -> Terms:
        """Return what attempts of an open job may use."""
        return self._board.jobs[job_id].terms

    def sizes(self, job_id: bytes) -> OutputSizes:
        """Return the bytes of each output of an open job's tasks."""
        return self._board.jobs[job_id].sizes

    def knows_candidates(self) -> bool:
        """Tell whether there is anybody to ask."""
        return bool(self._board.candidates)

    def needs(self) -> tuple[frozenset[str], int] | None:
        """Return the device classes and the least memory (MiB) of open jobs; None if candidates are of no use."""
        jobs = [progress.job for progress in self._board.open_jobs()]
        if not jobs:
            return None
        classes = frozenset(name for job in jobs for name in job.device_classes)
        return classes, min(job.limits.memory_mib for job in jobs)

    def forget(self, job_id: bytes) -> None:
        """Drop a job that has ended."""
        progress = self._board.jobs.get(job_id)
        if progress is not None and progress.is_over:
            del self._board.jobs[job_id]

    # Jobs come and go.

    def _submitted(self, event: Submitted, now: Now) -> None:
        board = self._board
        if event.job_id in board.jobs or event.job_id in self._waiting:
            return
        until_ns = deadline_ns(event.job, now)  # now: the wall clock may be set while the job waits
        if len(board.open_jobs()) >= self._config.jobs_max:
            self._waiting[event.job_id] = event, until_ns
        else:
            self._begin(event, until_ns, now)

    def _begin(self, event: Submitted, until_ns: int | None, now: Now) -> None:
        board = self._board
        progress = Progress(
            event.job_id,
            event.job,
            event.done,
            event.sizes,
            event.output_bytes_max,
            now,
            can_audit=event.can_audit,
            caught=event.caught,
            parts=event.parts,
            by_peers=event.by_peers,
        )
        progress.deadline_ns = until_ns
        progress.spent_us = event.spent_us
        progress.can_walk = event.can_walk
        progress.part_bytes = event.part_bytes
        progress.served_s = min((other.served_s for other in board.open_jobs()), default=0.0)
        board.jobs[event.job_id] = progress
        board.patience.new_terms()
        for partner in board.partners.values():
            if partner.is_agreed:
                board.feed(partner)
        board.has_room = True
        self._settling.resume(progress, event.kept, event.panels, now)
        if progress.is_settled:
            board.finish(progress, "done", None, now)
        else:
            self._recruiting.recruit(now)

    def _cancelled(self, event: CancelAsked, now: Now) -> None:
        self._end(event.job_id, "cancelled", None, now)

    def _storing_failed(self, event: StoringFailed, now: Now) -> None:
        self._end(event.job_id, "failed", event.error, now)

    def _handed_over(self, event: HandedOver, now: Now) -> None:
        self._end(event.job_id, "taken_over", event.error, now)

    def _end(self, job_id: bytes, state: str, error: JobError | None, now: Now) -> None:
        if self._waiting.pop(job_id, None) is not None:
            self._board.do(JobEnded(job_id, state, error))
            return
        self._board.finish(self._board.jobs.get(job_id), state, error, now)

    def _stored(self, event: ResultsStored, now: Now) -> None:
        progress = self._board.jobs.get(event.job_id)
        if progress is not None:
            self._board.has_room |= not progress.is_roomy()
            progress.stored += event.tasks

    def _fill(self, now: Now) -> None:
        """Where an event has made room, let jobs in that wait, and place attempts."""
        board = self._board
        while board.has_room:
            board.has_room = False
            if self._waiting and len(board.open_jobs()) < self._config.jobs_max:
                self._begin(*self._waiting.pop(next(iter(self._waiting))), now)
            self._placing.dispatch(now)

    # Conversations.

    def _candidates(self, event: Candidates, now: Now) -> None:
        board = self._board
        board.candidates = event.items
        board.unsuitable = dict(event.unsuitable)
        known = len(event.items) + sum(event.unsuitable.values())
        for progress in board.open_jobs():
            fitting = {c.peer: c.group for c in event.items if board.might_do(c, progress)}
            fitting |= {partner.peer: partner.group for partner in board.suitable(progress, now)}
            progress.lacks = reasons.shortage(
                progress,
                set(fitting.values()),
                len(fitting),
                known,
                board.unsuitable,
                board.voteless(progress),
                self._config.suitable_s,
            )
        self._recruiting.recruit(now)

    def _gone(self, event: Gone, now: Now) -> None:
        self._deciding.gone(event.peer, event.code, now, event.detail)
        self._recruiting.recruit(now)

    def _heard(self, heard: Heard, now: Now) -> None:
        partner = self._board.partners.get(heard.peer)
        hears = self._hears.get(type(heard.event))  # what is for the shell only is nothing to us
        if partner is not None and hears is not None:
            hears(partner, heard.event, now)

    def _bid(self, partner: Partner, event: BidHeard, now: Now) -> None:
        partner.bid(now.boottime_ns)
        for progress in self._board.open_jobs():
            if self._recruiting.serves(partner, progress, now):
                progress.stage("first_bid", now)
                detail = f"{event.slots} slots, window {event.window}"
                self._board.note(progress, now, "bid", partner.peer, detail=detail)

    def _ended(self, partner: Partner, event: Declined | Ended, now: Now) -> None:
        self._deciding.gone(partner.peer, event.code, now)
        self._recruiting.recruit(now)

    def _priced(self, partner: Partner, event: Priced, now: Now) -> None:
        stint, progress = partner.stints.get(event.job), self._board.jobs.get(event.job)
        if stint is not None and progress is not None:
            stint.price_us = event.task_us
            progress.part(partner.peer).price_us = event.task_us

    def _agreed(self, partner: Partner, event: Agreed, now: Now) -> None:
        until_ns = now.boottime_ns + event.duration_s * SECOND_NS
        partner.agreed(event.device_class, event.slots, event.window, until_ns, now.boottime_ns)
        partner.is_newcomer = bool(self._board.missing(partner.peer, partner.device_class, now))
        self._board.feed(partner)
        for progress in self._board.open_jobs():
            if partner.suits(progress.job, progress.terms, now.boottime_ns):
                progress.stage("first_agreement", now)
                part = progress.part(partner.peer)
                part.state, part.reason = "working", ""
                progress.is_anchored |= progress.takes(partner) and not partner.is_newcomer
                self._board.note(progress, now, "agreed", partner.peer)
        self._placing.call_in(partner, now)

    # Time.

    def _tick(self, _: Tick, now: Now) -> None:
        board = self._board
        for partner in self._recruiting.idle(now):
            self._deciding.gone(partner.peer, EndCode.DONE.value, now)
            board.do(EndAgreement(partner.peer, EndCode.DONE))
        for event in [event for event, until_ns in self._waiting.values() if _is_late(until_ns, now)]:
            del self._waiting[event.job_id]
            board.do(JobEnded(event.job_id, "failed", reasons.deadline(event.job_id, event.job, sum(event.done))))
        for progress in board.open_jobs():
            if _is_late(progress.deadline_ns, now):
                error = reasons.deadline(progress.id, progress.job, progress.accepted, progress.lacks)
                board.finish(progress, "failed", error, now)
            elif progress.is_over_budget() and len(progress.tasks) == len(progress.needy):
                board.finish(progress, "failed", reasons.budget(progress.job, progress.accepted), now)
            elif self._is_worked_on(progress, now):
                progress.active_ns = now.boottime_ns
            elif now.boottime_ns > progress.active_ns + int(self._config.suitable_s * SECOND_NS):
                agreed = {
                    partner.group
                    for partner in board.partners.values()
                    if partner.is_agreed and self._recruiting.serves(partner, progress, now)
                }
                error = reasons.nobody(
                    progress, self._config.suitable_s, len(agreed), board.unsuitable, board.voteless(progress)
                )
                board.finish(progress, "failed", error, now)
        for partner in board.partners.values():
            if not partner.open:
                board.feed(partner)  # those who kept it from a job's tasks may have left
        board.patience.prune(now)
        self._recruiting.recruit(now)
        board.has_room = True

    def _is_worked_on(self, progress: Progress, now: Now) -> bool:
        """Tell whether something of a job runs, or is being shown; or waits for providers that are only full."""
        return bool(
            (progress.settlement is not None and progress.settlement.is_auditing() and not progress.settlement.by_peers)
            or (progress.panels is not None and progress.panels.auditing)
            or progress.running
            or len(progress.tasks) > len(progress.needy)
            or self._placing.waits_its_turn(progress, now)
            or self._recruiting.waits(progress, now)
        )


def _is_late(deadline_ns: int | None, now: Now) -> bool:
    return deadline_ns is not None and now.boottime_ns >= deadline_ns
