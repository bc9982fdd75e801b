"""What is believed: answers are sealed, shown and compared; results accepted, liars caught, lost attempts replaced.

When all of a task's attempts have committed, the set is sealed (``AskReveal``); when k roots agree and the bytes are
here, the result is stored (``StoreResult``) and its attempts are released. Answers that differ may be compared as
numbers (``judging``) or walked step by step (``walking``) first. Large results of a job that has them stay are kept by
those who computed them (``NoteHolders``). Answers that lost are ``Caught``: their
provider gets nothing more. An attempt that ends without an answer leaves its task needy: ``placing`` replaces it.
"""

from blake3 import blake3

from depin_node.compute.jobs import reasons
from depin_node.compute.jobs.board import Board, verified_by
from depin_node.compute.jobs.events import (
    AskReveal,
    AskUpload,
    Audited,
    Caught,
    Checked,
    CloseWork,
    Compared,
    EndAgreement,
    NoteHolders,
    ReleaseAttempt,
    StoreResult,
    Verified,
    Walked,
)
from depin_node.compute.jobs.judging import Judging
from depin_node.compute.jobs.panels import BEFORE
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.patience import ORDERLY
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.jobs.settling import OUTVOTED, VOTES, Settling
from depin_node.compute.jobs.walking import Walking
from depin_node.compute.market.happenings import Committed, Delivered, Failed, Revealed, Stayed
from depin_node.compute.market.messages import TASK_FAULTS, EndCode, Verdict, Want
from depin_node.compute.verification.findings import Outcome
from depin_node.compute.verification.quorum import Ballot, Phase, Ref
from depin_node.compute.verification.rules import ATTEMPTS_MAX
from depin_node.core.clock import Now

LOST_KEPT_MAX = 64
"""Lost providers whose answers are remembered to be asked for: each has at most a window of them."""
_SET_CONTEXT = "depin-node scheduler 2026 commit set v1"
APART = "its answer differs from the others' by more than the job's tolerance: a dispute, and no proof of a lie"
_TASK_FAULTS = frozenset(code.value for code in TASK_FAULTS)


class Deciding:
    """Takes what providers answer; ``secret`` (32 bytes, from the operating system) seals commit sets."""

    def __init__(self, board: Board, secret: bytes) -> None:
        self._board = board
        self._secret = blake3(secret, derive_key_context=_SET_CONTEXT).digest()
        self.settling = Settling(board, secret, self._catch, self._bar)
        self._judging = Judging(board, secret, self._end_attempt)
        self._walking = Walking(board, self._end_attempt, self._catch)

    # Answers.

    def committed(self, partner: Partner, event: Committed, now: Now) -> None:
        """Note that answers are fixed."""
        board, peer = self._board, partner.peer
        answered: dict[bytes, list[OpenTask]] = {}
        runs: list[tuple[bytes, int]] = []
        for attempt, commitment, run_us in event.items:
            task = partner.open.get(attempt)
            if task is None:
                continue
            task.ballot.committed((peer, attempt), commitment)
            runs.append((task.job_id, run_us))
            answered.setdefault(task.job_id, []).append(task)
        is_first = any(not partner.stints[job_id].pace_s for job_id in answered)
        partner.answered(runs, now.boottime_ns)
        for job_id, run_us in runs:
            board.jobs[job_id].part(peer).run_us += run_us
        if is_first:
            board.feed(partner)  # its speed is known: it may be worth sending more
        for job_id, tasks in answered.items():
            progress, stint = board.jobs[job_id], partner.stints[job_id]
            progress.spent_us += stint.price_us * len(tasks)
            progress.running -= len(tasks)
            progress.active_ns = now.boottime_ns
            progress.run_s = stint.run_s
            for task in tasks:
                self._seal(progress, task, now)

    def _seal(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """If all answers that are wanted are in, fix the set and have them shown; one of them sends its bytes
        too."""
        ballot = task.ballot
        asked = ballot.ready()
        if not asked:
            return
        for ref in ballot.surplus():
            self._withdraw(task, ref, now)
        inputs = task.job_id + ballot.task.to_bytes(8, "little") + ballot.commitments()
        sealed = blake3(inputs, key=self._secret).digest()
        stays = progress.stays(ballot.task) and not task.is_audit
        if not stays and not task.is_audit and task.uploading is None and task.outputs is None and not task.answers:
            task.uploading = asked[ballot.task % len(asked)]
        for ref in asked:
            want = Want.STAY if stays else Want.BYTES if ref == task.uploading else Want.ROOT
            self._board.do(AskReveal(ref[0], ref[1], sealed, want))

    def _withdraw(self, task: OpenTask, ref: tuple[bytes, int], now: Now) -> None:
        """Release an attempt that others have made superfluous: it was slow, and that is no fault."""
        progress = self._board.jobs[task.job_id]
        progress.running -= task.ballot.runs[ref].phase is Phase.RUNNING
        task.ballot.withdrawn(ref)
        progress.part(ref[0]).running -= 1
        if self._board.take_off(*ref, now):
            self._board.do(ReleaseAttempt(*ref, None))

    def _withdraw_unshown(self, task: OpenTask, now: Now) -> None:
        """Release the attempts that a decision did not wait for: answers were counted anew when a liar's was taken off,
        and who had been asked instead is still at it."""
        for ref in [ref for ref, run in task.ballot.runs.items() if run.phase is not Phase.REVEALED]:
            self._withdraw(task, ref, now)

    def revealed(self, partner: Partner, event: Revealed, now: Now) -> None:
        """Note answers that were shown."""
        for attempt, root in event.items:
            task = partner.open.get(attempt)
            if task is None:
                continue
            progress = self._board.jobs[task.job_id]
            progress.active_ns = now.boottime_ns
            task.ballot.revealed((partner.peer, attempt), root)
            if not task.ballot.is_numeric:
                self._note_dispute(progress, task, now)
                self._walking.begin(progress, task, now)
            self._decide(progress, task, now)

    def _note_dispute(self, progress: Progress, task: OpenTask, now: Now) -> None:
        if task.is_disputed or not task.ballot.is_disputed():
            return
        task.is_disputed = True
        progress.disputed += 1
        self._board.note(progress, now, "disagreed", task=task.ballot.task, detail=reasons.who_said_what(task.ballot))

    def walked(self, event: Walked, now: Now) -> None:
        """Take what a walk has found, and decide anew."""
        found = self._walking.walked(event, now)
        if found is not None:
            self._decide(*found, now)

    def compared(self, event: Compared, now: Now) -> None:
        """Note how near the answers to a task are to each other."""
        found = self._judged(event, now)
        if found is not None:
            progress, task = found
            task.ballot.compared(event.roots, event.found)
            self._note_dispute(progress, task, now)
            self._decide(progress, task, now)

    def _judged(self, event: Compared | Checked, now: Now) -> tuple[Progress, OpenTask] | None:
        progress = self._board.jobs.get(event.job_id)
        task = progress.tasks.get(event.task) if progress is not None else None
        if progress is None or task is None or progress.is_over or task.sequence != event.sequence:
            return None
        progress.active_ns = now.boottime_ns
        task.is_judged_now = False
        return progress, task

    def checked(self, event: Checked, now: Now) -> None:
        """Accept an answer that was found right, or refuse it."""
        found = self._judged(event, now)
        if found is None or found[1].ballot.decided != event.root:
            return
        (progress, task), (outcome, why) = found, event.finding
        progress.checks += 1
        if outcome is Outcome.RIGHT:
            task.is_checked = True
            self._decide(progress, task, now)
            return
        ballot = task.ballot
        ref = next(iter(ballot.runs))
        ballot.decided = b""
        task.outputs = None
        if outcome is Outcome.UNCHECKED:
            self._board.note(progress, now, "unchecked", ref[0], ballot.task, f"{why}: others' answers are asked for")
            progress.replicated.add(ballot.task)
            ballot.rule = progress.rule_for(ballot.task)
            partner = self._board.partners.get(ref[0])
            if partner is not None and partner.is_fellow:  # it has no vote
                self._end_attempt(progress, task, ref, "fellow", now)
            if not progress.is_over:
                self._board.need(progress, task)
            return
        task.answers.clear()
        is_lie = outcome is Outcome.WRONG
        if is_lie:
            self._board.do(Caught(*ref, progress.id, ballot.task, why))
        self._board.do(ReleaseAttempt(*ref, Verdict.REJECTED))
        self._end_attempt(progress, task, ref, "wrong", now)
        if is_lie:
            self._catch(progress, ref[0], ballot.task, now, why)
        else:
            self._bar(progress, ref[0], ballot.task, now, why)

    def delivered(self, partner: Partner, event: Delivered, now: Now) -> None:
        """Note the bytes of an answer."""
        task = partner.open.get(event.attempt)
        if task is None:
            return
        if task.uploading == (partner.peer, event.attempt):
            task.uploading = None
        if task.ballot.is_numeric:
            task.answers[event.root] = event.outputs, event.log
        else:
            task.outputs, task.outputs_root, task.log = event.outputs, event.root, event.log
        self._decide(self._board.jobs[task.job_id], task, now)

    def stayed(self, partner: Partner, event: Stayed, now: Now) -> None:
        """Note that a provider keeps the bytes of an answer that it is about to show."""
        task = partner.open.get(event.attempt)
        if task is not None:
            task.stayed[(partner.peer, event.attempt)] = event.blobs
            task.log = event.log

    def _decide(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """Go on with a task whose answers or bytes have changed."""
        ballot = task.ballot
        if (
            progress.is_over
            or task.is_walked_now
            or (ballot.is_numeric and self._judging.compares(progress, task, now))
        ):
            return
        if task.is_audit:
            self._decide_audit(progress, task, now)
            return
        if not ballot.decided:
            if ballot.is_undecided():
                self._board.finish(progress, "failed", reasons.undecided(ballot), now)
            elif ballot.wanted():
                self._board.need(progress, task)
            return
        if ballot.decided in task.answers:
            task.outputs_root, (task.outputs, task.log) = ballot.decided, task.answers[ballot.decided]
        if _holders(task) or (task.outputs is not None and task.outputs_root == ballot.decided):
            if progress.is_checked and ballot.rule.agree == 1 and not task.is_checked:
                self._judging.check(progress, task)
            else:
                self._accept(progress, task, now)
            return
        if task.uploading is not None:
            run = ballot.runs.get(task.uploading)
            if run is not None and run.root == ballot.decided and run.reachable:
                return  # its bytes are under way
        task.uploading = ballot.uploader()
        if task.uploading is not None:
            self._board.do(AskUpload(*task.uploading))
            return
        for ref in ballot.reopen():
            self._board.note(progress, now, "lost", ref[0], ballot.task, "its bytes can no longer be had")
        self._board.need(progress, task)

    def _decide_audit(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """Go on with an answer that peers run again."""
        ballot = task.ballot
        if not ballot.decided and ballot.is_disputed() and ballot.rule.most < ATTEMPTS_MAX:
            self.settling.disputed(progress, ballot)
        if ballot.is_undecided():
            self._board.finish(progress, "failed", reasons.undecided(ballot), now)
        elif not ballot.decided:
            if ballot.wanted():
                self._board.need(progress, task)
        else:
            self._end_audit(progress, task, now)

    def _end_audit(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """An answer was run again often enough: release who did, and settle what that means."""
        ballot = task.ballot
        del progress.tasks[ballot.task]
        progress.needy.pop(ballot.task, None)
        self._withdraw_unshown(task, now)
        self._note_verified(task, ballot.agreeing(), now)
        dissent = [ref for ref in ballot.dissenters() if ref[1] != BEFORE]
        for ref in dissent:
            self._board.do(Caught(*ref, progress.id, ballot.task, OUTVOTED, is_opinion=True))
        for (peer, attempt), run in ballot.runs.items():
            if self._board.take_off(peer, attempt, now):
                progress.part(peer).running -= 1
                verdict = Verdict.ACCEPTED if ballot.agrees(run.root) else Verdict.REJECTED
                self._board.do(ReleaseAttempt(peer, attempt, verdict))
        for peer, _ in dissent:
            self._catch(progress, peer, ballot.task, now)
        self.settling.peers_found(progress, ballot, ballot.decided, now)
        self.finish_if_settled(progress, now)

    def _accept(self, progress: Progress, task: OpenTask, now: Now) -> None:
        board, ballot = self._board, task.ballot
        del progress.tasks[ballot.task]
        progress.done[ballot.task] = 1
        progress.accepted += 1
        progress.stage("first_result", now)
        agreeing = ballot.agreeing()
        progress.groups[len(agreeing)] += 1
        tab = self.settling.tab_of(progress, ballot, now)
        is_audited = tab is None and self.settling.agreed(progress, ballot, agreeing)
        if tab is None:
            self._note_verified(task, agreeing, now)
        panel = progress.panels.number(ballot.task) if progress.panels is not None else 0
        if holders := _holders(task):
            blobs = task.stayed[holders[0]]
            peers = tuple(peer for peer, _ in holders)
            board.do(NoteHolders(progress.id, ballot.task, ballot.decided, blobs, peers, task.log, tab, panel))
        else:
            assert task.outputs is not None
            board.do(StoreResult(progress.id, ballot.task, ballot.decided, task.outputs, task.log, tab, panel))
        dissent = [(ref, ballot.is_far(ballot.runs[ref].root)) for ref in ballot.dissenters()]
        for ref, is_lie in dissent:
            if is_lie:
                board.do(Caught(*ref, progress.id, ballot.task, OUTVOTED, is_opinion=True))
        self._withdraw_unshown(task, now)
        believed = Verdict.ACCEPTED if tab is None else Verdict.PROVISIONAL
        for ref, run in ballot.runs.items():
            peer, attempt = ref
            agrees = run.root == ballot.decided or ref in agreeing
            part = progress.part(peer)
            part.done += agrees
            if agrees:
                board.patience.satisfied(peer)
            if board.take_off(peer, attempt, now):
                part.running -= 1
                verdict = believed if agrees else Verdict.REJECTED
                board.do(ReleaseAttempt(peer, attempt, verdict, agrees and (is_audited or tab is not None)))
        for (peer, _), is_lie in dissent:
            if is_lie:
                self._catch(progress, peer, ballot.task, now)
            else:
                self._bar(progress, peer, ballot.task, now, APART)
        if is_audited:
            self.settling.audit_agreed(progress, ballot.task)
        if tab is not None:
            self.settling.put(progress, ballot, tab, now)
        self.finish_if_settled(progress, now)

    def audited(self, event: Audited, now: Now) -> None:
        """Take what this node itself got for a task."""
        self.settling.audited(event, now)
        progress = self._board.jobs.get(event.job_id)
        if progress is not None:
            self.finish_if_settled(progress, now)

    def finish_if_settled(self, progress: Progress, now: Now) -> None:
        """A job is done when all its results are believed for good."""
        self.settling.close(progress, now)
        if progress.is_settled and not progress.is_over:
            self._board.finish(progress, "done", None, now)

    def _note_verified(self, task: OpenTask, agreeing: list[Ref], now: Now) -> None:
        """Whose answer passed a check, or agrees with somebody established, was right; newcomers that agree with each
        other earn nothing by it."""
        ballot = task.ballot
        if len(agreeing) < 2 and not task.is_checked:
            return
        classes = {ref[0]: ballot.runs[ref].device_class for ref in agreeing}
        established = [peer for peer, name in classes.items() if not self._board.missing(peer, name, now)]
        for peer, name in classes.items():
            by_established = task.is_checked or any(other != peer for other in established)
            self._board.do(Verified(peer, name, 1, by_established))

    def _catch(self, progress: Progress, peer: bytes, task: int, now: Now, why: str = OUTVOTED) -> None:
        """Have nothing more to do with a peer whose answer lost: its open attempts count for nothing, and its answers
        that are not settled neither. For a lost vote that is so in the jobs that are open; else for good."""
        if why in VOTES:
            for other in self._board.open_jobs():
                other.barred.add(peer)
        else:
            self._board.banned.add(peer)
        if peer not in progress.liars:
            progress.liars.append(peer)
            self._board.note(progress, now, "caught", peer, task, why)
        self.settling.void(peer, now)
        for other in self._board.open_jobs():
            if peer in other.parts:
                other.parts[peer].state = "caught"
        if peer in self._board.partners:
            self._void_shown(self._board.partners[peer], now)
            self.gone(peer, "caught", now)
            self._board.do(EndAgreement(peer, EndCode.DONE))

    def _bar(self, progress: Progress, peer: bytes, task: int, now: Now, why: str) -> None:
        """Give a peer nothing more of a job, since its answers are not as the others': nobody's lie. What it has open
        of it goes elsewhere."""
        if peer in progress.barred:
            return
        progress.barred.add(peer)
        self._board.note(progress, now, "barred", peer, task, why)
        self.settling.void_in(progress, peer, now)
        part = progress.part(peer)
        part.state, part.reason = "barred", "its numbers differ"
        partner = self._board.partners.get(peer)
        for attempt, open_task in list(partner.open.items()) if partner is not None else ():
            if open_task.job_id != progress.id or open_task.ballot.decided or progress.is_over:
                continue
            shown = open_task.ballot.runs[(peer, attempt)].phase is Phase.REVEALED
            self._board.do(ReleaseAttempt(peer, attempt, Verdict.UNUSED if shown else None))
            self._end_attempt(progress, open_task, (peer, attempt), "barred", now)
        self._board.has_room = True

    def _void_shown(self, partner: Partner, now: Now) -> None:
        """Take what a caught peer has shown, and is not accepted yet, off its ballots."""
        for attempt, task in list(partner.open.items()):
            run = task.ballot.runs[(partner.peer, attempt)]
            if run.phase is Phase.REVEALED and not task.ballot.decided:
                self._end_attempt(self._board.jobs[task.job_id], task, (partner.peer, attempt), "caught", now)

    def failed(self, partner: Partner, event: Failed, now: Now) -> None:
        """Note attempts that ended without an answer."""
        ended = [(attempt, code, partner.close(attempt, now.boottime_ns)) for attempt, code in event.items]
        self._board.feed(partner)
        for attempt, code, task in ended:
            if task is not None and not self._board.jobs[task.job_id].is_over:  # the one before may have ended its job
                self._end_attempt(self._board.jobs[task.job_id], task, (partner.peer, attempt), code.value, now)

    def _end_attempt(self, progress: Progress, task: OpenTask, ref: tuple[bytes, int], code: str, now: Now) -> None:
        """An attempt has ended without an answer: replace it, or give the job up."""
        peer, attempt = ref
        ballot = task.ballot
        if ballot.runs[ref].phase is Phase.RUNNING:
            progress.running -= 1
        part = progress.part(peer)
        part.running = max(0, part.running - 1)
        part.failed += 1
        if task.uploading == ref:
            task.uploading = None
        progress.active_ns = now.boottime_ns
        progress.attempts_failed += 1
        progress.failures[code] += 1
        self._board.take_off(peer, attempt, now)
        groups = ballot.ended(ref, code, is_task_fault=code in _TASK_FAULTS)
        self._board.note(progress, now, "attempt_failed", peer, ballot.task, code)
        if groups and groups >= self._faults_to_fail(progress, ballot):
            self._board.finish(progress, "failed", reasons.fault(ballot, code, groups), now)
        elif ballot.attempts_ended > self._board.config.attempts_ended_max:
            self._board.finish(progress, "failed", reasons.worn_out(ballot, code), now)
        elif not progress.is_over:
            # What is left may be what was waited for.
            if (ballot.is_numeric or not ballot.decided) and ballot.recount():
                self._decide(progress, task, now)
            elif ballot.wanted():
                self._board.need(progress, task)
            else:
                self._seal(progress, task, now)

    def _faults_to_fail(self, progress: Progress, ballot: Ballot) -> int:
        """Return how many groups must report the same fault: a single one is believed only if there is no
        second."""
        k = progress.rule.agree
        if k > 1:
            return k
        tried = set().union(*ballot.failures.values())
        known = {candidate.group for candidate in self._board.candidates if self._board.might_do(candidate, progress)}
        known |= {partner.group for partner in self._board.partners.values() if partner.is_agreed}
        return 2 if known - tried else 1

    # Conversations that end.

    def gone(self, peer: bytes, code: str, now: Now, detail: str = "") -> None:
        """A conversation is over: its attempts return to the queue at once; the peer is not asked for a
        while."""
        board = self._board
        partner = board.partners.pop(peer, None)
        if partner is None:
            return
        board.patience.ended(peer, code, was_agreed=partner.is_agreed, now=now)
        state = _state_after(code, partner.is_agreed)
        for progress in board.open_jobs():
            progress.hungry.pop(partner, None)
            part = progress.parts.get(peer)
            if part is not None and part.state != "caught":
                part.state, part.reason, part.running = state, code, 0
                if state in ("declined", "lost"):
                    progress.declines[code if state == "declined" else state].add(peer)
                board.note(progress, now, state, peer, detail=f"{code}: {detail}" if detail else code)
        for job_id, stint in partner.stints.items():
            board.do(CloseWork(peer, stint.number, verified_by(board.jobs[job_id])))
        if state == "lost":
            self._note_finished(partner)
        lost, partner.open = partner.open, {}
        for attempt, task in lost.items():
            if not board.jobs[task.job_id].is_over:  # losing one before may have ended its job
                self._lose(partner, attempt, task, now)
        board.has_room = True

    def _note_finished(self, partner: Partner) -> None:
        """Remember what a lost provider has answered, and not shown: it may come back with it."""
        had = [
            (task.job_id, task.ballot.task)
            for attempt, task in partner.open.items()
            if task.ballot.runs[(partner.peer, attempt)].phase in (Phase.COMMITTED, Phase.ASKED)
        ]
        kept = self._board.finished_with
        kept.pop(partner.peer, None)
        if had:
            kept[partner.peer] = had
            if len(kept) > LOST_KEPT_MAX:
                del kept[next(iter(kept))]

    def _lose(self, partner: Partner, attempt: int, task: OpenTask, now: Now) -> None:
        ref = (partner.peer, attempt)
        progress = self._board.jobs[task.job_id]
        if progress.tasks.get(task.ballot.task) is not task:
            return  # losing one before has ended it
        if task.ballot.runs[ref].phase is Phase.REVEALED:
            task.ballot.unreachable(ref)
            if task.uploading == ref:
                task.uploading = None
            self._decide(progress, task, now)
        else:
            self._end_attempt(progress, task, ref, "lost", now)


def _holders(task: OpenTask) -> list[tuple[bytes, int]]:
    """Return the attempts whose providers keep the bytes of the decided answer, and are there."""
    if not task.stayed:
        return []
    runs, decided = task.ballot.runs, task.ballot.decided
    return [ref for ref in task.stayed if decided and ref in runs and runs[ref].root == decided and runs[ref].reachable]


def _state_after(code: str, was_agreed: bool) -> str:
    if was_agreed:
        return "left" if code in ORDERLY else "lost"
    return "declined"
