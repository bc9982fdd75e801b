"""Answers whose numbers are looked at here: compared with each other, or checked without a second run.

The flow of a numeric task (a tolerant program, or several device classes): equal roots decide as for any other. If the
answers differ, the bytes of each different one are fetched, one after the other; then the shell compares them
(``Compare``) and tells ``Compared``. The ballot counts who is close to whom. Under ``algebraic`` the one answer's bytes
are here anyway: the shell checks them (``Check``), with random numbers that were drawn after the answer was fixed, and
tells ``Checked``. An answer that no check can judge is compared with others' instead.
"""

from collections.abc import Callable

from blake3 import blake3

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import AskUpload, Check, Compare, Shown
from depin_node.compute.jobs.partner import OpenTask
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.verification.quorum import COMPARED_MAX, Phase, Ref
from depin_node.core.clock import Now

_CHECK_CONTEXT = "depin-node verification 2026 check v1"
Drop = Callable[[Progress, OpenTask, Ref, str, Now], None]


class Judging:
    """See the module. ``drop`` takes an attempt without an answer off its ballot, and has it replaced."""

    def __init__(self, board: Board, secret: bytes, drop: Drop) -> None:
        self._board = board
        self._key = blake3(secret, derive_key_context=_CHECK_CONTEXT).digest()
        self._drop = drop

    def compares(self, progress: Progress, task: OpenTask, now: Now) -> bool:
        """If answers differ, see that they are compared; tell whether that has to be waited for."""
        ballot = task.ballot
        roots = ballot.uncompared()
        if not roots:
            return False
        if task.is_judged_now or any(run.phase is Phase.ASKED for run in ballot.runs.values()):
            return True
        missing = [root for root in roots if root not in task.answers]
        if missing:
            return self._fetch(progress, task, missing, now)
        shown = tuple(Shown(root, ballot.classes(root), task.answers[root][0]) for root in roots[:COMPARED_MAX])
        task.is_judged_now = True
        self._board.do(Compare(progress.id, ballot.task, task.sequence, shown))
        return True

    def _fetch(self, progress: Progress, task: OpenTask, missing: list[bytes], now: Now) -> bool:
        runs = task.ballot.runs
        under_way = runs.get(task.uploading) if task.uploading is not None else None
        if under_way is not None and under_way.reachable and under_way.root in missing:
            return True
        refs = [ref for ref, run in runs.items() if run.root == missing[0]]
        task.uploading = next((ref for ref in refs if runs[ref].reachable), None)
        if task.uploading is not None:
            self._board.do(AskUpload(*task.uploading))
        else:
            self._drop(progress, task, refs[0], "lost", now)  # what cannot be had is not compared; that decides anew
        return True

    def check(self, progress: Progress, task: OpenTask) -> None:
        """Have the one answer of a task checked."""
        if task.is_judged_now:
            return
        ballot = task.ballot
        assert task.outputs is not None
        task.is_judged_now = True
        seed = blake3(progress.id + ballot.task.to_bytes(8, "little") + ballot.commitments(), key=self._key).digest()
        self._board.do(Check(progress.id, ballot.task, task.sequence, ballot.decided, task.outputs, seed))
