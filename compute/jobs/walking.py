"""Disputes that are walked to the first wrong step, where this node can do single steps of a task.

The flow: two answers of a task differ (``begin``), so the shell walks their providers' states (``Walk``; the machine of
that is ``verification/dispute.py``), and tells ``Walked``. Who is proven to have done a step wrongly is caught, and has
no vote; the next two are walked. If nobody is named, the votes decide. One dispute of a job at a time; others are
voted on meanwhile.
"""

from collections.abc import Callable

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import Ban, Caught, ReleaseAttempt, Walk, Walked
from depin_node.compute.jobs.panels import BEFORE
from depin_node.compute.jobs.partner import OpenTask
from depin_node.compute.jobs.progress import Progress, shown
from depin_node.compute.market.messages import Verdict
from depin_node.compute.verification.dispute import Party
from depin_node.compute.verification.quorum import Ref
from depin_node.core.clock import Now

WALKS_MAX = 8
"""Disputes of one task that are walked: each names somebody, or is the last."""


class Walking:
    """See the module. ``drop`` takes an attempt without an answer off its ballot, and has it replaced; ``catch`` ends
    all business with a peer."""

    def __init__(
        self,
        board: Board,
        drop: Callable[[Progress, OpenTask, Ref, str, Now], None],
        catch: Callable[[Progress, bytes, int, Now, str], None],
    ) -> None:
        self._board = board
        self._drop = drop
        self._catch = catch

    def begin(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """If answers differ, have it found out which of two providers did a step wrongly."""
        ballot = task.ballot
        if not progress.can_walk or progress.is_walking or task.walks >= WALKS_MAX or not ballot.is_disputed():
            return
        parties: dict[bytes, Party] = {}
        for (peer, _), run in ballot.runs.items():
            if run.root and run.reachable:
                parties.setdefault(run.root, Party(peer, run.root))
        if len(parties) < 2:
            return
        task.walks += 1
        progress.is_walking = task.is_walked_now = True
        a, b, *_ = parties.values()
        self._board.note(progress, now, "walks", a.peer, ballot.task, f"its steps are compared with {shown(b.peer)}'s")
        self._board.do(Walk(progress.id, ballot.task, task.sequence, (a, b)))

    def walked(self, event: Walked, now: Now) -> tuple[Progress, OpenTask] | None:
        """Take what a walk has found; return the task to be decided anew, if it is open still."""
        progress = self._board.jobs.get(event.job_id)
        if progress is None:
            return None
        progress.is_walking = False
        task = progress.tasks.get(event.task)
        if task is None or progress.is_over or task.sequence != event.sequence:
            return None
        progress.active_ns = now.boottime_ns
        task.is_walked_now = False
        ballot = task.ballot
        if not event.liars:
            task.walks = WALKS_MAX
            self._board.note(progress, now, "walked", task=ballot.task, detail=event.why)
        ballot.decided = b""  # nothing was accepted meanwhile
        for ref in [ref for ref in ballot.runs if ref[0] in event.liars and ref[1] != BEFORE]:
            self._board.do(Caught(*ref, progress.id, ballot.task, event.why))
            self._board.do(ReleaseAttempt(*ref, Verdict.REJECTED))
            self._drop(progress, task, ref, "wrong", now)
        for peer in event.liars:
            if (peer, BEFORE) in ballot.runs:  # an answer from before is void with all of its provider's
                self._board.do(Ban(peer, progress.id, ballot.task, event.why))
            self._catch(progress, peer, ballot.task, now, event.why)
        if progress.is_over or progress.tasks.get(event.task) is not task:
            return None
        if task.outputs is not None and all(run.root != task.outputs_root for run in ballot.runs.values()):
            task.outputs = None  # they were a liar's
        ballot.recount()
        self.begin(progress, task, now)
        return progress, task
