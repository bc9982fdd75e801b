"""What becomes of provisional results: ``verification/settlement.py`` for each job under ``confidence``.

The flow: an accepted single answer goes on its provider's tab (``put``). What the settlement rules (``_follow``)
becomes effects: this node runs tasks itself (``Audit``) and hears what it got (``audited``); results are good for good
(``Settle``), or void and run again (``Void``); a provider is ``Ban``ned. When every task has an answer, ``close`` has
audits drawn that are missing, and at last all is settled: only then the job is done.

Under ``quorum`` and ``lead`` the lot falls on some of the agreed results, and on all that somebody was outvoted for, if
this node can run the tasks: an audit that contradicts one catches all who agreed on it (``panels.py``), and clears whom
they outvoted with the right answer.

If this node can run none of a job (another device class, or its operator wants so), peers audit: an answer's task is
given to others, like any attempt (``_ask_peers``), and they are compared with it; if they differ, more are asked
until an answer leads as under ``lead(lead_for(p, f))``, and whoever is outvoted is caught. A task that this node
cannot run though it can the others is replicated; so is the whole job if its bits are not defined and nobody can
audit it.
"""

from collections.abc import Callable, Iterable, Sequence

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import (
    Audit,
    Audited,
    Ban,
    Caught,
    Cleared,
    Kept,
    NoteAudit,
    NotePanel,
    Settle,
    SettleAttempts,
    Verified,
    Void,
)
from depin_node.compute.jobs.job import Confidence
from depin_node.compute.jobs.panels import BEFORE, Agreed, KeptPanels
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.market.messages import Verdict
from depin_node.compute.verification.bounds import threshold
from depin_node.compute.verification.quorum import Ballot, Ref
from depin_node.compute.verification.rules import audit_by, rule_of
from depin_node.compute.verification.settlement import Ruling, audit_key, draw_of
from depin_node.core.clock import Now

UNCONFIRMED_MAX = 8
"""Answers that a provider whose every answer is audited may have on the way: this node can run no more at once."""
CONTRADICTED = "this node ran the task itself, and got something else"
CONTRADICTED_BY_PEERS = "other peers ran the task, and agree on something else"
OUTVOTED = "its answer differs from the one that the others agree on"
VOTES = frozenset([CONTRADICTED_BY_PEERS, OUTVOTED])
"""What is others' word only: who won may be in league, so nobody is banned for it."""
APART = "this node ran the task itself, and its numbers are further off than the job's tolerance"


class Settling:
    """The settling part of the scheduler. ``catch`` ends all business with a peer that was found out, ``bar`` that of
    one job with a peer whose numbers differ."""

    def __init__(
        self,
        board: Board,
        secret: bytes,
        catch: Callable[[Progress, bytes, int, Now, str], None],
        bar: Callable[[Progress, bytes, int, Now, str], None],
    ) -> None:
        self._board = board
        self._key = audit_key(secret)
        self._catch = catch
        self._bar = bar

    def resume(self, progress: Progress, kept: Iterable[Kept], panels: KeptPanels, now: Now) -> None:
        """Go on with the tabs, or the panels, of a job from before a restart."""
        if progress.panels is not None:
            progress.panels.restored(panels)
            for task, _ in panels.of:
                progress.groups[len(progress.panels.members(task))] += 1
            for task in tuple(progress.panels.auditing):
                self.audit_agreed(progress, task)
        settlement = progress.settlement
        if settlement is None:
            return
        for answer in kept:
            progress.groups[1] += 1
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
        if self.is_spared(progress, partner, now):
            return 0
        missing = self._board.missing(partner.peer, partner.device_class, now)
        if not missing and not settlement.is_watched(partner.peer):
            return partner.window
        return (
            min(missing or UNCONFIRMED_MAX, UNCONFIRMED_MAX) - len(partner.open) - settlement.open_audits(partner.peer)
        )

    def is_spared(self, progress: Progress, partner: Partner, now: Now) -> bool:
        """Tell whether a provider has no part in a job while there are enough others: who joined after a catch, where
        peers audit. Each of its answers would be run again by several, and its votes may be those of a liar that was
        caught, and is back under another name."""
        settlement, policy = progress.settlement, progress.job.policy
        if settlement is None or not settlement.by_peers or not settlement.is_watched(partner.peer):
            return False
        assert isinstance(policy, Confidence)
        suitable = self._board.suitable(progress, now)
        others = {other.group for other in suitable if not settlement.is_watched(other.peer)}
        return len(others) > rule_of(policy, replicated=True).agree  # as many as win a vote, and whom it is about

    def tab_of(self, progress: Progress, ballot: Ballot, now: Now) -> tuple[bytes, int] | None:
        """Return the provider and the draw of an accepted answer that is provisional; None for others."""
        if progress.settlement is None or ballot.rule.agree > 1:
            return None
        peer, name = next(
            (peer, run.device_class) for (peer, _), run in ballot.runs.items() if run.root == ballot.decided
        )
        if progress.settlement.is_watched(peer):
            return peer, 0
        if self._board.missing(peer, name, now):
            return peer, 1 if progress.settlement.by_peers else 0
        return peer, draw_of(self._key, progress.id, ballot.task, ballot.commitments())

    def put(self, progress: Progress, ballot: Ballot, tab: tuple[bytes, int], now: Now) -> None:
        """Put an accepted answer on its provider's tab; its result is handed to the journal."""
        assert progress.settlement is not None
        peer, draw = tab
        progress.provisional[ballot.task] = peer
        run = next(run for (name, _), run in ballot.runs.items() if name == peer)
        progress.classes[peer] = run.device_class
        if progress.settlement.by_peers:
            progress.auditors[ballot.task] = frozenset([run.group])
        ruling = progress.settlement.accepted(peer, ballot.task, ballot.decided, draw, is_newcomer=draw == 0)
        self._follow(progress, ruling, now)

    def audited(self, event: Audited, now: Now) -> None:
        """Take what this node got for a task."""
        progress = self._board.jobs.get(event.job_id)
        if progress is None or progress.is_over:
            return
        progress.active_ns = now.boottime_ns
        if progress.settlement is None:
            self._audited_agreed(progress, event, now)
            return
        settlement = progress.settlement
        peer = settlement.provider(event.task)
        if peer is None or settlement.answer(event.task)[1] != event.answer:
            return  # that answer is void, and another may have come since
        partner = self._board.partners.get(peer)
        if partner is not None:
            self._board.feed(partner)  # it may have been waiting for this
        if not event.root:
            progress.replicated.add(event.task)
            self._follow(progress, settlement.withdraw(event.task), now)
        else:
            ruling = settlement.audited(event.task, event.root)
            if not ruling.caught:
                self._board.do(Verified(peer, progress.classes.get(peer, progress.job.device_classes[0]), 1, True))
            self._follow(progress, ruling, now, is_confirmed=event.task, is_far=event.is_far)
        self._board.has_room = True

    def close(self, progress: Progress, now: Now) -> None:
        """If every task has an answer, settle what can be settled."""
        if progress.settlement is None or progress.is_over or progress.accepted < progress.job.tasks:
            return
        self._follow(progress, progress.settlement.close(), now)

    def void(self, peer: bytes, now: Now) -> None:
        """Whoever was caught, with whatever: nothing of it that is not settled counts."""
        for progress in self._board.open_jobs():
            self.void_in(progress, peer, now)

    def void_in(self, progress: Progress, peer: bytes, now: Now) -> None:
        """Nothing of a peer that is not settled counts in a job; nor what was agreed on by such peers only."""
        if progress.settlement is not None:
            self._void(progress, peer, progress.settlement.void(peer), now)
        if progress.panels is not None:
            self._void_agreed(progress, progress.panels.void(self._board.banned.union(progress.liars)), now)

    # Agreed results.

    def agreed(self, progress: Progress, ballot: Ballot, agreeing: Sequence[Ref]) -> bool:
        """Note who agreed on a task; tell whether its result is to be audited: if the lot falls on it, or somebody was
        outvoted, for accomplices win votes too."""
        panels = progress.panels
        if panels is None:
            return False
        peers = frozenset(peer for peer, _ in agreeing)
        if panels.accepted(ballot.task, peers):
            self._board.do(NotePanel(progress.id, panels.number(ballot.task), tuple(sorted(peers))))
        outvoted = tuple((ref[0], ballot.runs[ref].root) for ref in ballot.dissenters())
        draw = draw_of(self._key, progress.id, ballot.task, ballot.commitments())
        if not outvoted and draw >= threshold(progress.audits_agreed):
            return False
        classes = {ballot.runs[ref].device_class for ref in agreeing}
        agreed = Agreed(ballot.decided, classes.pop() if len(classes) == 1 else "", tuple(agreeing), outvoted)
        panels.audit(ballot.task, agreed)
        self._board.do(NoteAudit(progress.id, ballot.task, agreed.device_class, is_open=True))
        return True

    def audit_agreed(self, progress: Progress, task: int) -> None:
        """Have an agreed result audited, now that the journal was given it."""
        if progress.panels is not None and (agreed := progress.panels.auditing.get(task)) is not None:
            self._board.do(Audit(progress.id, task, agreed.root, agreed.device_class))

    def _audited_agreed(self, progress: Progress, event: Audited, now: Now) -> None:
        agreed = progress.panels.auditing.get(event.task) if progress.panels is not None else None
        if progress.panels is None or agreed is None or agreed.root != event.answer:
            return  # void meanwhile
        del progress.panels.auditing[event.task]
        self._board.do(NoteAudit(progress.id, event.task, agreed.device_class, is_open=False))
        if not event.root:
            return  # not to be had here
        if agreed.root == event.root:
            for peer, _ in agreed.attempts:
                self._board.do(Verified(peer, agreed.device_class or progress.job.device_classes[0], 1, True))
            return
        for peer, root in agreed.outvoted:
            if root == event.root:
                self._clear(progress, peer, event.task, now)
        progress.panels.forget(event.task)
        self._void_agreed(progress, [(event.task, len(agreed.attempts))], now)
        for peer, attempt in agreed.attempts:
            if event.is_far:
                self._board.do(Caught(peer, attempt, progress.id, event.task, CONTRADICTED))
        for peer, _ in agreed.attempts:
            if event.is_far:
                self._catch(progress, peer, event.task, now, CONTRADICTED)
            else:
                self._bar(progress, peer, event.task, now, APART)

    def _clear(self, progress: Progress, peer: bytes, task: int, now: Now) -> None:
        """Who was outvoted was right: it has its part in the open jobs again, unless it lost other votes."""
        if peer not in progress.liars:
            return
        progress.liars.remove(peer)
        for other in self._board.open_jobs():
            if peer not in other.liars:
                other.barred.discard(peer)
                if peer in other.parts:
                    other.parts[peer].state = "left"
        self._board.note(progress, now, "cleared", peer, task, "this node ran the task itself, and got the same")
        self._board.do(Cleared(peer, progress.id))

    # Audits by peers.

    def _ask_peers(self, progress: Progress, task: int, peer: bytes, root: bytes) -> None:
        """Have others run a task whose answer is provisional: to them it is an attempt like any other."""
        assert progress.settlement is not None
        had = progress.auditors.get(task) or frozenset([self._group_of(peer)])
        ballot = Ballot(task, audit_by(progress.settlement.due(task)))
        name = progress.classes.get(peer, progress.job.device_classes[0])
        ballot.begins_with((peer, BEFORE), self._group_of(peer), name, root, apart=had)
        audit = OpenTask(progress.id, ballot, self._board.opened())
        audit.is_audit = True
        progress.tasks[task] = audit
        self._board.need(progress, audit)

    def _group_of(self, peer: bytes) -> str:
        partner = self._board.partners.get(peer)
        known = (candidate.group for candidate in self._board.candidates if candidate.peer == peer)
        return partner.group if partner is not None else next(known, f"of {peer.hex()}")

    def disputed(self, progress: Progress, ballot: Ballot) -> None:
        """A peer contradicts an answer: who leads among more of them is believed."""
        assert isinstance(progress.job.policy, Confidence)
        ballot.rule = rule_of(progress.job.policy, replicated=True)

    def peers_found(self, progress: Progress, ballot: Ballot, root: bytes, now: Now) -> None:
        """Take what peers got for a task, or who was asked instead."""
        settlement, task = progress.settlement, ballot.task
        if settlement is None or settlement.provider(task) is None:
            return
        had = progress.auditors.get(task, frozenset())
        progress.auditors[task] = had | {run.group for run in ballot.runs.values()}
        self._follow(progress, settlement.audited(task, root), now, is_confirmed=task, why=CONTRADICTED_BY_PEERS)
        self._board.has_room = True

    def _drop_audit(self, progress: Progress, task: int, now: Now) -> None:
        """A provisional result is void: nobody needs to run it again for its sake."""
        audit = progress.tasks.get(task)
        if audit is not None and audit.is_audit:
            self._board.release_all(audit, now)
            del progress.tasks[task]
            progress.needy.pop(task, None)

    def _void_agreed(self, progress: Progress, tasks: Sequence[tuple[int, int]], now: Now) -> None:
        if not tasks:
            return
        for task, groups in tasks:
            progress.reopen(task, groups)
        void = tuple(task for task, _ in tasks)
        self._board.do(Void(progress.id, void))
        self._board.note(progress, now, "void", task=void[0], detail=f"{len(void)} results of who was caught run again")
        self._board.has_room = True

    # What follows.

    def _follow(
        self,
        progress: Progress,
        ruling: Ruling,
        now: Now,
        *,
        is_confirmed: int = -1,
        is_far: bool = True,
        why: str = CONTRADICTED,
    ) -> None:
        if ruling.settled:
            self._settle(progress, ruling.settled, is_confirmed)
        for task in ruling.audit:
            assert progress.settlement is not None
            peer, root = progress.settlement.answer(task)
            if progress.settlement.by_peers:
                self._ask_peers(progress, task, peer, root)
                continue
            parts = progress.settlement.parts(task) if progress.audit_parts > 1 else ()
            self._board.do(Audit(progress.id, task, root, progress.classes.get(peer, ""), parts))
        if ruling.caught:
            task = ruling.void[0] if ruling.void else -1
            if is_far:
                if why == CONTRADICTED_BY_PEERS:
                    self._board.do(Caught(ruling.caught, BEFORE, progress.id, is_confirmed, why, is_opinion=True))
                else:
                    self._board.do(Ban(ruling.caught, progress.id, is_confirmed, why))
            self._void(progress, ruling.caught, ruling.void, now)
            if is_far:
                self._catch(progress, ruling.caught, task, now, why)
            else:
                self._bar(progress, ruling.caught, task, now, APART)
        elif ruling.void:
            self._void(progress, b"", ruling.void, now)

    def _settle(self, progress: Progress, tasks: tuple[int, ...], confirmed: int) -> None:
        by_peer: dict[bytes, list[int]] = {}
        for task in tasks:
            by_peer.setdefault(progress.provisional.pop(task), []).append(task)
            progress.auditors.pop(task, None)
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
            progress.auditors.pop(task, None)
            self._drop_audit(progress, task, now)
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
