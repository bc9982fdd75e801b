"""What becomes of provisional results: ``verification/settlement.py`` for each job under ``confidence``.

The flow: an accepted single answer goes on its provider's tab (``put``). What the settlement rules (``_follow``)
becomes effects: this node runs tasks itself (``Audit``) and hears what it got (``audited``); results are good for good
(``Settle``), or void and run again (``Void``); a provider is ``Ban``ned. When every task has an answer, ``close`` has
audits drawn that are missing, and at last all is settled: only then the job is done.

A task that this node cannot run itself is replicated. If it can run none of a job (another device class), the job is
replicated as a whole: its rule is that of ``lead(lead_for(p, f))``, and nothing of it is provisional.
"""

from collections.abc import Callable, Iterable

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import Audit, Audited, Ban, Kept, Settle, SettleAttempts, Verified, Void
from depin_node.compute.jobs.partner import Partner
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.market.messages import Verdict
from depin_node.compute.verification.quorum import Ballot
from depin_node.compute.verification.settlement import Ruling, audit_key, draw_of
from depin_node.core.clock import Now

UNCONFIRMED_MAX = 8
"""Answers that a provider whose every answer is audited may have on the way: this node can run no more at once."""
CONTRADICTED = "this node ran the task itself, and got something else"


class Settling:
    """The settling part of the scheduler. ``catch`` ends all business with a peer that was found out."""

    def __init__(self, board: Board, secret: bytes, catch: Callable[[Progress, bytes, int, Now], None]) -> None:
        self._board = board
        self._key = audit_key(secret)
        self._catch = catch

    def resume(self, progress: Progress, kept: Iterable[Kept], now: Now) -> None:
        """Go on with the tabs of a job from before a restart."""
        settlement = progress.settlement
        if settlement is None:
            return
        for answer in kept:
            settlement.restored(answer.peer, answer.task, answer.root, answer.draw, is_confirmed=answer.is_confirmed)
            if not answer.is_confirmed:
                progress.provisional[answer.task] = answer.peer
        self._follow(progress, settlement.resume(), now)
        self.close(progress, now)

    def room(self, progress: Progress, partner: Partner, now: Now) -> int:
        """Return how many more attempts a provider may have for the sake of audits; many for who is established."""
        settlement = progress.settlement
        if settlement is None:
            return partner.window
        missing = self._board.missing(partner.peer, partner.device_class, now)
        if not missing and not settlement.is_watched(partner.peer):
            return partner.window
        return (
            min(missing or UNCONFIRMED_MAX, UNCONFIRMED_MAX) - len(partner.open) - settlement.open_audits(partner.peer)
        )

    def tab_of(self, progress: Progress, ballot: Ballot, now: Now) -> tuple[bytes, int] | None:
        """Return the provider and the draw of an accepted answer that is provisional; None for others."""
        if progress.settlement is None or ballot.rule.agree > 1:
            return None
        peer = next(peer for (peer, _), run in ballot.runs.items() if run.root == ballot.decided)
        if progress.settlement.is_watched(peer) or self._board.missing(peer, ballot.device_class, now):
            return peer, 0
        return peer, draw_of(self._key, progress.id, ballot.task, ballot.commitments())

    def put(self, progress: Progress, ballot: Ballot, tab: tuple[bytes, int], now: Now) -> None:
        """Put an accepted answer on its provider's tab; its result is handed to the journal."""
        assert progress.settlement is not None
        peer, draw = tab
        progress.provisional[ballot.task] = peer
        progress.classes[peer] = ballot.device_class
        ruling = progress.settlement.accepted(peer, ballot.task, ballot.decided, draw, is_newcomer=draw == 0)
        self._follow(progress, ruling, now)

    def audited(self, event: Audited, now: Now) -> None:
        """Take what this node got for a task."""
        progress = self._board.jobs.get(event.job_id)
        if progress is None or progress.settlement is None or progress.is_over:
            return
        progress.active_ns = now.boottime_ns
        settlement = progress.settlement
        peer = settlement.provider(event.task)
        partner = self._board.partners.get(peer or b"")
        if partner is not None:
            self._board.feed(partner)  # it may have been waiting for this
        if not event.root:
            progress.replicated.add(event.task)
            self._follow(progress, settlement.withdraw(event.task), now)
        else:
            ruling = settlement.audited(event.task, event.root)
            if peer is not None and not ruling.caught:
                self._board.do(Verified(peer, progress.classes.get(peer, progress.job.device_classes[0]), 1, True))
            self._follow(progress, ruling, now, is_confirmed=event.task)
        self._board.has_room = True

    def close(self, progress: Progress, now: Now) -> None:
        """If every task has an answer, settle what can be settled."""
        if progress.settlement is None or progress.is_over or progress.accepted < progress.job.tasks:
            return
        self._follow(progress, progress.settlement.close(), now)

    def void(self, peer: bytes, now: Now) -> None:
        """Whoever was caught, with whatever: nothing of it that is not settled counts."""
        for progress in self._board.open_jobs():
            if progress.settlement is not None:
                self._void(progress, peer, progress.settlement.void(peer), now)

    def _follow(self, progress: Progress, ruling: Ruling, now: Now, *, is_confirmed: int = -1) -> None:
        if ruling.settled:
            self._settle(progress, ruling.settled, is_confirmed)
        for task in ruling.audit:
            self._board.do(Audit(progress.id, task))
        if ruling.caught:
            task = ruling.void[0] if ruling.void else -1
            self._board.do(Ban(ruling.caught, progress.id, task, CONTRADICTED))
            self._void(progress, ruling.caught, ruling.void, now)
            self._catch(progress, ruling.caught, task, now)
        elif ruling.void:
            self._void(progress, b"", ruling.void, now)

    def _settle(self, progress: Progress, tasks: tuple[int, ...], confirmed: int) -> None:
        by_peer: dict[bytes, list[int]] = {}
        for task in tasks:
            by_peer.setdefault(progress.provisional.pop(task), []).append(task)
        alone = tuple(task for task in tasks if task == confirmed)
        together = tuple(task for task in tasks if task != confirmed)
        if alone:
            self._board.do(Settle(progress.id, alone, confirmed=True))
        if together:
            self._board.do(Settle(progress.id, together, confirmed=False))
        for peer, settled in by_peer.items():
            self._tell(progress, peer, tuple(settled), Verdict.ACCEPTED)

    def _void(self, progress: Progress, peer: bytes, tasks: tuple[int, ...], now: Now) -> None:
        if not tasks:
            return
        for task in tasks:
            progress.provisional.pop(task, None)
            progress.reopen(task)
        self._board.do(Void(progress.id, tasks))
        self._board.note(progress, now, "void", peer, tasks[0], f"{len(tasks)} results that were not settled run again")
        if peer:
            self._tell(progress, peer, tasks, Verdict.VOID)
        self._board.has_room = True

    def _tell(self, progress: Progress, peer: bytes, tasks: tuple[int, ...], verdict: Verdict) -> None:
        """Give a provider the last verdict on its answers, if it is still there."""
        partner = self._board.partners.get(peer)
        stint = partner.stints.get(progress.id) if partner is not None else None
        if stint is not None:
            self._board.do(SettleAttempts(peer, stint.number, tasks, verdict))
