"""What is believed: answers are sealed, shown and compared; results accepted, liars caught, lost attempts replaced.

When all of a task's attempts have committed, the set is sealed (``AskReveal``); when k roots agree and the bytes are
here, the result is stored (``StoreResult``) and its attempts are released. Large results of a job that has them stay
are kept by those who computed them (``NoteHolders``). Answers that lost are ``Caught``: their provider gets nothing
more. An attempt that ends without an answer leaves its task needy: ``placing`` replaces it.
"""

from blake3 import blake3

from depin_node.compute.jobs import reasons
from depin_node.compute.jobs.board import Board, verified_by
from depin_node.compute.jobs.events import (
    AskReveal,
    AskUpload,
    Audited,
    Caught,
    CloseWork,
    EndAgreement,
    NoteHolders,
    ReleaseAttempt,
    StoreResult,
    Verified,
)
from depin_node.compute.jobs.partner import OpenTask, Partner
from depin_node.compute.jobs.patience import ORDERLY
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.jobs.settling import CONTRADICTED, Settling
from depin_node.compute.market.happenings import Committed, Delivered, Failed, Revealed, Stayed
from depin_node.compute.market.messages import TASK_FAULTS, EndCode, Verdict, Want
from depin_node.compute.verification.quorum import Ballot, Phase
from depin_node.core.clock import Now

LOST_KEPT_MAX = 64
"""Lost providers whose answers are remembered to be asked for: each has at most a window of them."""
_SET_CONTEXT = "depin-node scheduler 2026 commit set v1"
OUTVOTED = "its answer differs from the one that the others agree on"
_TASK_FAULTS = frozenset(code.value for code in TASK_FAULTS)


class Deciding:
    """Takes what providers answer; ``secret`` (32 bytes, from the operating system) seals commit sets."""

    def __init__(self, board: Board, secret: bytes) -> None:
        self._board = board
        self._secret = blake3(secret, derive_key_context=_SET_CONTEXT).digest()
        self.settling = Settling(board, secret, self._found_out)

    # Answers.

    def committed(self, partner: Partner, event: Committed, now: Now) -> None:
        """Note that answers are fixed."""
        board, peer = self._board, partner.peer
        answered: list[tuple[Progress, OpenTask]] = []
        runs: list[tuple[bytes, int]] = []
        for attempt, commitment, run_us in event.items:
            task = partner.open.get(attempt)
            if task is None:
                continue
            progress = board.jobs[task.job_id]
            progress.part(peer).run_us += run_us
            progress.spent_us += partner.stints[task.job_id].price_us
            progress.running -= 1
            progress.active_ns = now.boottime_ns
            task.ballot.committed((peer, attempt), commitment)
            runs.append((task.job_id, run_us))
            answered.append((progress, task))
        partner.answered(runs, now.boottime_ns)
        board.feed(partner)
        for progress, task in answered:
            progress.run_s = partner.stints[progress.id].run_s
            self._seal(task, now)

    def _seal(self, task: OpenTask, now: Now) -> None:
        """If all answers that are wanted are in, fix the set and have them shown; one of them sends its bytes
        too."""
        asked = task.ballot.ready()
        if not asked:
            return
        for ref in task.ballot.surplus():
            self._withdraw(task, ref, now)
        inputs = task.job_id + task.ballot.task.to_bytes(8, "little") + task.ballot.commitments()
        sealed = blake3(inputs, key=self._secret).digest()
        stays = self._board.jobs[task.job_id].stays(task.ballot.task)
        if not stays and task.uploading is None and task.outputs is None:
            task.uploading = asked[task.ballot.task % len(asked)]
        for ref in asked:
            want = Want.STAY if stays else Want.BYTES if ref == task.uploading else Want.ROOT
            self._board.do(AskReveal(ref[0], ref[1], sealed, want))

    def _withdraw(self, task: OpenTask, ref: tuple[bytes, int], now: Now) -> None:
        """Release an attempt that others have made superfluous: it was slow, and that is no fault."""
        progress = self._board.jobs[task.job_id]
        task.ballot.withdrawn(ref)
        progress.running -= 1
        progress.part(ref[0]).running -= 1
        if self._board.take_off(*ref, now):
            self._board.do(ReleaseAttempt(*ref, None))

    def revealed(self, partner: Partner, event: Revealed, now: Now) -> None:
        """Note answers that were shown."""
        for attempt, root in event.items:
            task = partner.open.get(attempt)
            if task is None:
                continue
            progress = self._board.jobs[task.job_id]
            progress.active_ns = now.boottime_ns
            was_disputed = task.ballot.is_disputed()
            task.ballot.revealed((partner.peer, attempt), root)
            if task.ballot.is_disputed() and not was_disputed:
                progress.disputed += 1
                self._board.note(
                    progress, now, "disagreed", task=task.ballot.task, detail=reasons.who_said_what(task.ballot)
                )
            self._decide(progress, task, now)

    def delivered(self, partner: Partner, event: Delivered, now: Now) -> None:
        """Note the bytes of an answer."""
        task = partner.open.get(event.attempt)
        if task is None:
            return
        if task.uploading == (partner.peer, event.attempt):
            task.uploading = None
        task.outputs, task.outputs_root, task.log = event.outputs, event.root, event.log
        self._decide(self._board.jobs[task.job_id], task, now)

    def stayed(self, partner: Partner, event: Stayed) -> None:
        """Note that a provider keeps the bytes of an answer that it is about to show."""
        task = partner.open.get(event.attempt)
        if task is not None:
            task.stayed[(partner.peer, event.attempt)] = event.blobs
            task.log = event.log

    def _decide(self, progress: Progress, task: OpenTask, now: Now) -> None:
        """Go on with a task whose answers or bytes have changed."""
        ballot = task.ballot
        if progress.is_over:
            return
        if ballot.is_undecided():
            self._board.finish(progress, "failed", reasons.undecided(ballot), now)
            return
        if not ballot.decided:
            if ballot.wanted():
                self._board.need(progress, task)
            return
        if _holders(task) or (task.outputs is not None and task.outputs_root == ballot.decided):
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

    def _accept(self, progress: Progress, task: OpenTask, now: Now) -> None:
        ballot = task.ballot
        del progress.tasks[ballot.task]
        progress.done[ballot.task] = 1
        progress.accepted += 1
        progress.stage("first_result", now)
        agreeing = [peer for (peer, _), run in ballot.runs.items() if run.root == ballot.decided]
        progress.groups[len(agreeing)] += 1
        tab = self.settling.tab_of(progress, ballot, now)
        if tab is None:
            self._note_verified(ballot, agreeing, now)
        if holders := _holders(task):
            blobs = task.stayed[holders[0]]
            peers = tuple(peer for peer, _ in holders)
            self._board.do(NoteHolders(progress.id, ballot.task, ballot.decided, blobs, peers, task.log, tab))
        else:
            assert task.outputs is not None
            self._board.do(StoreResult(progress.id, ballot.task, ballot.decided, task.outputs, task.log, tab))
        liars = ballot.dissenters()
        for peer, attempt in liars:
            self._board.do(Caught(peer, attempt, progress.id, ballot.task))
        for (peer, attempt), run in ballot.runs.items():
            agrees = run.root == ballot.decided
            part = progress.part(peer)
            part.done += agrees
            if agrees:
                self._board.patience.satisfied(peer)
            if self._board.take_off(peer, attempt, now):
                part.running -= 1
                believed = Verdict.ACCEPTED if tab is None else Verdict.PROVISIONAL
                self._board.do(ReleaseAttempt(peer, attempt, believed if agrees else Verdict.REJECTED))
        for peer, _ in liars:
            self._catch(progress, peer, ballot.task, now)
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

    def _note_verified(self, ballot: Ballot, agreeing: list[bytes], now: Now) -> None:
        """Who agrees with somebody established was right; newcomers that agree with each other earn nothing by it."""
        if len(agreeing) < 2:
            return
        established = [peer for peer in agreeing if not self._board.missing(peer, ballot.device_class, now)]
        for peer in agreeing:
            by_established = any(other != peer for other in established)
            self._board.do(Verified(peer, ballot.device_class, 1, by_established))

    def _found_out(self, progress: Progress, peer: bytes, task: int, now: Now) -> None:
        self._catch(progress, peer, task, now, CONTRADICTED)

    def _catch(self, progress: Progress, peer: bytes, task: int, now: Now, why: str = OUTVOTED) -> None:
        """Have nothing more to do with a peer whose answer lost: its open attempts count for nothing, and its answers
        that are not settled neither."""
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
        self._board.take_off(peer, attempt, now)
        groups = ballot.ended(ref, code, is_task_fault=code in _TASK_FAULTS)
        self._board.note(progress, now, "attempt_failed", peer, ballot.task, code)
        if groups and groups >= self._faults_to_fail(progress, ballot):
            self._board.finish(progress, "failed", reasons.fault(ballot, code, groups), now)
        elif ballot.attempts_ended > self._board.config.attempts_ended_max:
            self._board.finish(progress, "failed", reasons.worn_out(ballot, code), now)
        elif not progress.is_over:
            if ballot.wanted():
                self._board.need(progress, task)
            else:
                self._seal(task, now)

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

    def gone(self, peer: bytes, code: str, now: Now) -> None:
        """A conversation is over: its attempts return to the queue at once; the peer is not asked for a
        while."""
        board = self._board
        partner = board.partners.pop(peer, None)
        if partner is None:
            return
        board.hungry.pop(partner, None)
        board.patience.ended(peer, code, was_agreed=partner.is_agreed, now=now)
        state = _state_after(code, partner.is_agreed)
        for progress in board.open_jobs():
            part = progress.parts.get(peer)
            if part is not None and part.state != "caught":
                part.state, part.reason, part.running = state, code, 0
                if state == "declined":
                    progress.declines[code] += 1
                board.note(progress, now, state, peer, detail=code)
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
        if task.ballot.runs[ref].phase is Phase.REVEALED:
            task.ballot.unreachable(ref)
            if task.uploading == ref:
                task.uploading = None
            self._decide(progress, task, now)
        else:
            self._end_attempt(progress, task, ref, "lost", now)


def _holders(task: OpenTask) -> list[tuple[bytes, int]]:
    """Return the attempts whose providers keep the bytes of the decided answer, and are there."""
    runs, decided = task.ballot.runs, task.ballot.decided
    return [ref for ref in task.stayed if decided and ref in runs and runs[ref].root == decided and runs[ref].reachable]


def _state_after(code: str, was_agreed: bool) -> str:
    if was_agreed:
        return "left" if code in ORDERLY else "lost"
    return "declined"
