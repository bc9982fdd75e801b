"""Which provider gets which attempt, as long as there is credit.

A task is opened only when all ``k`` attempts that its quorum wants can be placed at once, on providers of
different groups and of one class, so that no task holds places that another waits for. Replacements come
first: others wait for them.
"""

import itertools

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import Assign, OpenWork
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.placement import draw_new, draw_replacements
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.jobs.recruiting import NEEDY_SEEN_MAX
from depin_node.compute.verification.quorum import Ballot
from depin_node.core.clock import Now

Batches = dict[bytes, list[int]]
"""By provider, the tasks whose attempts are to be sent in one message; numbers follow each other."""


class Placing:
    """Opens tasks and places their attempts."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._opened = 0

    def dispatch(self, now: Now) -> None:
        """Place what waits: replacements first, then new tasks, job by job."""
        board = self._board
        for progress in board.open_jobs():
            suitable = board.suitable(progress, now)
            if not suitable:
                continue
            batches: Batches = {}
            if progress.needy:
                self._replace(progress, suitable, batches)
            self._open_new(progress, suitable, batches)
            for peer, tasks in batches.items():
                self._assign(progress, board.partners[peer], tasks, now)

    def _open_new(self, progress: Progress, suitable: list[Partner], batches: Batches) -> None:
        k = progress.rule.agree
        ready = [partner for partner in suitable if partner.credit() > 0]
        while len(progress.tasks) < progress.open_max and len(ready) >= k:
            number = progress.next_open()
            if number is None:
                return
            chosen = draw_new(self._board.rng, ready, k)
            if chosen is None:
                return
            progress.take_next()
            self._opened += 1
            task = OpenTask(progress.id, Ballot(number, progress.rule), self._opened)
            progress.tasks[number] = task
            for partner in chosen:
                self._start(task, partner, batches)
                if partner.credit() <= 0:
                    ready.remove(partner)

    def _replace(self, progress: Progress, suitable: list[Partner], batches: Batches) -> None:
        """Start the further attempts that open tasks want; all of a task or none, oldest first."""
        for number, task in list(progress.needy.items()):
            ballot = task.ballot
            if not ballot.runs:  # nothing is left of it: it starts anew, with its failures remembered
                ballot.device_class = ""
            chosen = draw_replacements(self._board.rng, task, suitable, ballot.wanted(), needs_credit=True)
            if chosen is None:
                continue
            del progress.needy[number]
            for partner in chosen:
                self._start(task, partner, batches)

    def _start(self, task: OpenTask, partner: Partner, batches: Batches) -> None:
        attempt = partner.next_attempt
        partner.next_attempt += 1
        self._board.next_attempt = max(self._board.next_attempt, partner.next_attempt)
        partner.open[attempt] = task
        task.ballot.started((partner.peer, attempt), partner.group, partner.device_class)
        batches.setdefault(partner.peer, []).append(task.ballot.task)

    def _assign(self, progress: Progress, partner: Partner, tasks: list[int], now: Now) -> None:
        number = partner.works.get(progress.id)
        if number is None:
            number = partner.works[progress.id] = partner.next_work
            partner.next_work += 1
            self._board.do(OpenWork(partner.peer, number, progress.id))
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
        self._board.do(Assign(partner.peer, number, partner.next_attempt - len(tasks), tasks))

    # Jobs that stand still.

    def waits_its_turn(self, progress: Progress, now: Now) -> bool:
        """Tell whether a job that stands still has providers, and these are only full; see that they do not stay so."""
        rng, k = self._board.rng, progress.rule.agree
        suitable = self._board.suitable(progress, now)
        for task in itertools.islice(progress.needy.values(), NEEDY_SEEN_MAX):
            chosen = draw_replacements(rng, task, suitable, task.ballot.wanted(), needs_credit=False)
            for partner in chosen or ():
                if partner.credit_max() <= 0:
                    self._unblock(partner, task)
            if chosen is not None:
                return True
        if progress.needy:
            return False
        return progress.next_open() is not None and len(suitable) >= k and draw_new(rng, suitable, k) is not None

    def _unblock(self, partner: Partner, oldest: OpenTask) -> None:
        """Void the youngest task that stands still and holds a place with ``partner``, for the sake of an older one.

        Windows can fill with answers that wait for a replacement elsewhere, where the window is full of the same.
        """
        jobs = self._board.jobs
        stuck = [
            task
            for task in partner.open.values()
            if task.sequence > oldest.sequence and task.ballot.task in jobs[task.job_id].needy
        ]
        if not stuck:
            return
        youngest = max(stuck, key=lambda task: task.sequence)
        progress, number = jobs[youngest.job_id], youngest.ballot.task
        self._board.release_all(youngest)
        del progress.tasks[number]
        del progress.needy[number]
        progress.again.append(number)
