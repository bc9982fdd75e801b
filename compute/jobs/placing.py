"""Which provider gets which attempt, as long as there is credit.

A task is opened only when all ``k`` attempts that its quorum wants can be placed at once, on providers of
different groups and of one class, so that no task holds places that another waits for. Replacements come
first: others wait for them. Jobs share what there is by the time of slots that they were given: the one that had
least is served until another has had less, with a quantum that lets messages fill. When a job has nothing left to
open, what is late is given to somebody who has nothing to do: the first answer counts.
"""

import itertools
from math import inf

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import Assign, OpenWork
from depin_node.compute.jobs.partner import OpenTask, Partner, Stint
from depin_node.compute.jobs.placement import Ready, draw_replacements, may_try
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.jobs.recruiting import NEEDY_SEEN_MAX
from depin_node.compute.jobs.settling import Settling
from depin_node.core.clock import SECOND_NS, Now

QUANTUM_S = 0.05
"""How much more of the slots' time one job may get than another before it is the other's turn."""
LAG_S = 1.0
LAG_RUNS = 4
"""How much less than others a job may have had, in seconds or its own runs, before the rest is forgiven."""
RUN_S = 0.001
"""What a run is taken to cost until one has ended."""
REPLACED_MAX = 64
"""Needy tasks that are looked at in one go, oldest first."""
SPARE_AFTER_S = 0.2
SPARE_FACTOR = 2.0
"""An attempt is late when it has taken so many times what a provider without work would take."""
SPARES_MAX = 2
"""Attempts that double a slow one, of one task."""
SPARES_SEEN_MAX = 64
SPARES_EVERY_S = 0.05
NEWCOMER_OPEN_MAX = 8
"""Attempts that a newcomer may have open, where there are established providers to compare it with."""
LOOK_UP_NS = SECOND_NS // 4
"""How old what is known of a provider's standing may be."""

Batches = dict[Partner, list[int]]
"""By provider, the tasks whose attempts are to be sent in one message; numbers follow each other."""


class Placing:
    """Opens tasks and places their attempts."""

    def __init__(self, board: Board, settling: Settling) -> None:
        self._board = board
        self._settling = settling

    def dispatch(self, now: Now) -> None:
        """Place what waits, fairly among jobs."""
        board = self._board
        waiting = []
        for progress in board.jobs.values():
            if progress.is_over_budget():
                continue
            if progress.needy or (progress.hungry and progress.may_open()):
                waiting.append(progress)
            elif progress.hungry and progress.tasks:
                self._double_slow(progress, now)
        if len(waiting) == 1:
            self._serve(waiting[0], None, now)
            return
        _forgive(waiting)
        while waiting:
            waiting.sort(key=lambda progress: progress.served_s)
            until_s = waiting[1].served_s + QUANTUM_S if len(waiting) > 1 else inf
            if not self._serve(waiting[0], until_s, now):
                waiting.pop(0)

    def _serve(self, progress: Progress, until_s: float | None, now: Now) -> bool:
        """Place attempts of a job until it has had ``until_s`` (None: no other waits); tell whether that stopped it."""
        batches: Batches = {}
        if progress.needy:
            self._replace(progress, batches, now)
        has_more = self._open_new(progress, until_s, batches, now)
        self._assign_all(progress, batches, now)
        return has_more

    def _ready(self, progress: Progress, now: Now) -> list[Ready]:
        """Return who could take new tasks now, by device class; those with most groups first.

        Who has no credit, or does not suit, is not looked at again for this job before something of it ends.
        """
        by_class: dict[str, Ready] = {}
        out, at_ns = [], now.boottime_ns
        anchored = self._anchored(progress, now)
        mixed = progress.mixes and not self._has_class_of_its_own(progress, now)
        for partner in progress.hungry:
            credit = min(partner.credit(progress.id), self._settling.room(progress, partner, now))
            if anchored and partner.is_newcomer:
                credit = min(credit, NEWCOMER_OPEN_MAX - len(partner.open))
            if credit <= 0 or not progress.takes(partner) or not partner.suits(progress.job, progress.terms, at_ns):
                out.append(partner)
            else:
                name = "" if mixed else partner.device_class
                ready = by_class.get(name)
                if ready is None:
                    ready = by_class[name] = Ready(progress.id, progress.run_s or RUN_S, anchored=anchored)
                ready.add(partner, credit)
        for partner in out:
            del progress.hungry[partner]
        return sorted(by_class.values(), key=Ready.groups, reverse=True)

    def _anchored(self, progress: Progress, now: Now) -> bool:
        """Tell whether each task that is replicated is to have an established provider: if there is one.

        Newcomers can be many and one: what only they agree on is believed only where there is nobody else.
        """
        if progress.rule.agree == 1:
            return False
        if now.boottime_ns >= progress.looked_for_anchors_ns + LOOK_UP_NS:
            progress.looked_for_anchors_ns = now.boottime_ns
            suitable = self._board.suitable(progress, now)
            for partner in suitable:
                partner.is_newcomer = bool(self._board.missing(partner.peer, partner.device_class, now))
            progress.is_anchored = any(not partner.is_newcomer for partner in suitable)
        return progress.is_anchored

    def _has_class_of_its_own(self, progress: Progress, now: Now) -> bool:
        """Tell whether the providers of one device class are enough: only else answers of several are compared."""
        groups: dict[str, set[str]] = {}
        for partner in self._board.suitable(progress, now):
            groups.setdefault(partner.device_class, set()).add(partner.group)
        return any(len(names) >= progress.next_rule().agree for names in groups.values())

    def _open_new(self, progress: Progress, until_s: float | None, batches: Batches, now: Now) -> bool:
        """Open tasks while there is credit, and until the job has had its share; tell whether that stopped it."""
        if not progress.may_open():
            return False
        for ready in self._ready(progress, now):
            while progress.room() > 0 and (number := progress.next_open()) is not None:
                agree = progress.rule_for(number).agree
                if not ready.suffices(agree):
                    break
                if until_s is not None and progress.served_s > until_s:
                    return True
                chosen = ready.draw(self._board.rng, agree)
                progress.take(number)
                task = OpenTask(progress.id, progress.ballot(number), self._board.opened())
                progress.tasks[number] = task
                for partner in chosen:
                    self._start(progress, task, partner, batches, now)
                    ready.placed(partner)
        return False

    def _replace(self, progress: Progress, batches: Batches, now: Now) -> None:
        """Start the further attempts that open tasks want; all of a task or none, oldest first."""
        suitable = [
            partner
            for partner in self._board.suitable(progress, now)
            if not self._settling.is_spared(progress, partner, now)
        ]
        for number, task in list(itertools.islice(progress.needy.items(), REPLACED_MAX)):
            ballot = task.ballot
            if not ballot.runs:  # nothing is left of it: it starts anew, with its failures remembered
                ballot.device_class = ""
            chosen = draw_replacements(self._board.rng, task, suitable, ballot.wanted(), needs_credit=True)
            if chosen is None:
                continue
            del progress.needy[number]
            for partner in chosen:
                self._start(progress, task, partner, batches, now)

    def _start(self, progress: Progress, task: OpenTask, partner: Partner, batches: Batches, now: Now) -> None:
        stint = partner.stints.get(progress.id)
        if stint is None:
            stint = self._open_work(progress, partner)
        attempt = partner.start(stint, task, now.boottime_ns)
        if attempt >= self._board.next_attempt:
            self._board.next_attempt = attempt + 1
        task.since_ns = now.boottime_ns
        task.ballot.started((partner.peer, attempt), partner.group, partner.device_class)
        progress.served_s += stint.run_s or progress.run_s or RUN_S
        batches.setdefault(partner, []).append(task.ballot.task)

    def _open_work(self, progress: Progress, partner: Partner) -> Stint:
        stint = partner.stints[progress.id] = Stint(partner.next_work, progress.part_bytes)
        partner.next_work += 1
        self._board.do(OpenWork(partner.peer, stint.number, progress.id))
        return stint

    def _assign_all(self, progress: Progress, batches: Batches, now: Now) -> None:
        for partner, tasks in batches.items():
            stint = partner.stints[progress.id]
            self._board.do(Assign(partner.peer, stint.number, partner.next_attempt - len(tasks), tasks))
            part = progress.part(partner.peer)
            part.state = "working"
            part.running += len(tasks)
            progress.running += len(tasks)
            progress.attempts += len(tasks)
            if progress.settlement is not None:
                progress.settlement.joined(partner.peer)
        if batches:
            progress.active_ns = now.boottime_ns
            if progress.state == "queued":
                progress.state = "running"
                progress.started_ns = now.wall_ns
                progress.stage("first_task", now)

    def call_in(self, partner: Partner, now: Now) -> None:
        """Have a provider that is back asked for what it had answered when it was lost, if that is still wanted."""
        had: dict[bytes, list[int]] = {}
        for job_id, number in self._board.finished_with.pop(partner.peer, ()):
            had.setdefault(job_id, []).append(number)
        for job_id, numbers in had.items():  # one by one: the numbers of a message's attempts follow each other
            progress = self._board.jobs.get(job_id)
            if progress is None or not progress.takes(partner):
                continue
            if partner.suits(progress.job, progress.terms, now.boottime_ns):
                batches: Batches = {}
                for number in numbers:
                    self._call_in_one(progress, number, partner, batches, now)
                self._assign_all(progress, batches, now)

    def _call_in_one(self, progress: Progress, number: int, partner: Partner, batches: Batches, now: Now) -> None:
        task = progress.tasks.get(number)
        if task is None or partner.credit_max() <= 0:
            return
        ballot, is_needy = task.ballot, number in progress.needy
        if not ballot.runs:
            ballot.device_class = partner.device_class
        if not ballot.takes(partner.device_class) or ballot.has_group(partner.group):
            return
        if not is_needy and (task.spares >= SPARES_MAX or not ballot.is_running()):
            return
        task.spares += not is_needy
        self._start(progress, task, partner, batches, now)
        if is_needy and not ballot.wanted():
            del progress.needy[number]

    # Late attempts.

    def _double_slow(self, progress: Progress, now: Now) -> None:
        """Have tasks whose attempts are late run once more, by those who have nothing to do."""
        if now.boottime_ns < progress.looked_for_slow_ns + int(SPARES_EVERY_S * SECOND_NS):
            return
        progress.looked_for_slow_ns = now.boottime_ns
        late = [
            task
            for task in itertools.islice(progress.tasks.values(), SPARES_SEEN_MAX)
            if task.spares < SPARES_MAX
            and now.boottime_ns - task.since_ns > SPARE_AFTER_S * SECOND_NS
            and task.ballot.is_running()
        ]
        idle = self._idle(progress, now) if late else []
        batches: Batches = {}
        for task in late:
            if not idle:
                break
            late_s = (now.boottime_ns - task.since_ns) / SECOND_NS
            able = [
                partner
                for partner in idle
                if task.ballot.takes(partner.device_class)
                and not task.ballot.has_group(partner.group)
                and may_try(task.ballot, partner)
                and late_s > self._patience_s(progress, partner)
            ]
            if able:
                partner = self._board.rng.choice(able)
                task.spares += 1
                self._start(progress, task, partner, batches, now)
                self._board.note(progress, now, "doubled", partner.peer, task.ballot.task, f"late by {late_s:.1f} s")
                if not partner.has_idle_slot():
                    idle.remove(partner)
        self._assign_all(progress, batches, now)

    def _idle(self, progress: Progress, now: Now) -> list[Partner]:
        """Return providers that have nothing to do, and may have attempts of a job; by lot, if they are many."""
        idle = [partner for partner in progress.hungry if partner.has_idle_slot()]
        if len(idle) > SPARES_SEEN_MAX:
            idle = self._board.rng.sample(idle, SPARES_SEEN_MAX)
        return [p for p in idle if progress.takes(p) and p.suits(progress.job, progress.terms, now.boottime_ns)]

    def _patience_s(self, progress: Progress, partner: Partner) -> float:
        """Return after what time an attempt is late, when ``partner`` could do it too."""
        stint = partner.stints.get(progress.id)
        if stint is not None and stint.pace_s:
            usual_s = stint.pace_s * partner.slots
        elif progress.run_s:
            usual_s = progress.run_s
        else:
            usual_s = progress.job.limits.seconds / 4
        return max(SPARE_AFTER_S, SPARE_FACTOR * usual_s)

    # Jobs that stand still.

    def waits_its_turn(self, progress: Progress, now: Now) -> bool:
        """Tell whether a job that stands still has providers, and these are only full; see that they do not stay so."""
        rng, k = self._board.rng, progress.next_rule().agree
        suitable = self._board.suitable(progress, now)
        for task in itertools.islice(progress.needy.values(), NEEDY_SEEN_MAX):
            chosen = draw_replacements(rng, task, suitable, task.ballot.wanted(), needs_credit=False)
            for partner in chosen or ():
                if partner.credit_max() <= 0:
                    self._unblock(partner, task, now)
            if chosen is not None:
                return True
        if progress.needy or progress.next_open() is None:
            return False
        groups: dict[str, set[str]] = {}
        for partner in suitable:
            groups.setdefault(partner.device_class, set()).add(partner.group)
        if progress.mixes and len(set().union(*groups.values())) >= k:
            return True
        return any(len(names) >= k for names in groups.values())

    def _unblock(self, partner: Partner, oldest: OpenTask, now: Now) -> None:
        """Void the youngest task that stands still and holds a place with ``partner``, for the sake of an older one.

        Windows can fill with answers that wait for a replacement elsewhere, where the window is full of the same.
        """
        jobs = self._board.jobs
        stuck = [
            task
            for task in partner.open.values()
            if task.sequence > oldest.sequence and task.ballot.task in jobs[task.job_id].needy and not task.is_audit
        ]
        if not stuck:
            return
        youngest = max(stuck, key=lambda task: task.sequence)
        progress, number = jobs[youngest.job_id], youngest.ballot.task
        self._board.release_all(youngest, now)
        del progress.tasks[number]
        del progress.needy[number]
        progress.again.append(number)


def _forgive(waiting: list[Progress]) -> None:
    """Let nobody claim more of what it did not get than a few runs' time: it may have been nobody's who was here."""
    if waiting:
        most_s = max(progress.served_s for progress in waiting)
        lag_s = max(LAG_S, *(LAG_RUNS * progress.run_s for progress in waiting))
        for progress in waiting:
            progress.served_s = max(progress.served_s, most_s - lag_s)
