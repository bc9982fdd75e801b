"""Who is asked for the open jobs, and which agreements nobody needs any more.

Each job wants as many providers as it can use; candidates are asked in the order in which the directory names
them, unless they have just refused or let us down. There is one agreement with a provider at a time, for all
jobs: its terms are rounded up, and wide enough for every open job that the provider might do. Where a later job
needs wider ones, the provider gets nothing more, and is asked again when what it has in hand has ended.
"""

import itertools

from depin_node.compute.jobs.board import Board
from depin_node.compute.jobs.events import Ask, Candidate
from depin_node.compute.jobs.job import Limits
from depin_node.compute.jobs.partner import Partner
from depin_node.compute.jobs.progress import Progress
from depin_node.compute.market.messages import Terms
from depin_node.core.clock import SECOND_NS, Now

DURATION_S, DURATION_S_MAX = 3600, 86_400
"""For which an agreement is asked: for twice the time of its longest task where that is more, at most for a day."""
IDLE_S = 10
"""An agreement without work is kept so long for the next job: shorter than the provider's own limit."""
NEEDY_SEEN_MAX = 16
"""Open tasks that are looked at for a way on when a job stands still."""
MEMORY_STEP_MIB = 256
SECONDS_STEP = 60
OUTPUT_BYTES_MIN = 1 << 20


class Recruiting:
    """Asks candidates; ``idle`` names agreements to end."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def recruit(self, now: Now) -> None:
        """Ask candidates until each job has as many providers as it can use."""
        for progress in self._board.open_jobs():
            self._recruit_for(progress, now)

    def _recruit_for(self, progress: Progress, now: Now) -> None:
        board, rule = self._board, progress.rule
        useful = max(rule.most, rule.agree * (progress.job.tasks - progress.accepted))
        if progress.replicated:
            useful = max(useful, progress.rule_for(next(iter(progress.replicated))).most)
        # Who has failed a task is of no use to it: each failure makes room for somebody else.
        stuck = list(itertools.islice(progress.needy.values(), NEEDY_SEEN_MAX))
        useful += max((task.ballot.attempts_ended for task in stuck), default=0)
        # Who audits is none of those who have had the task, however few are needed for new ones.
        useful = max([useful, *(task.ballot.groups_needed() for task in stuck if task.is_audit)])
        wanted = min(board.config.providers_max, useful)
        engaged = sum(self.serves(partner, progress, now) for partner in board.partners.values())
        for candidate in board.candidates:
            if engaged >= wanted or len(board.partners) >= board.config.providers_max:
                break
            if candidate.peer in board.partners or not board.might_do(candidate, progress):
                continue
            if not board.patience.allows(candidate.peer, now):
                continue
            terms = self._terms(candidate, progress)
            partner = Partner(candidate.peer, candidate.group, terms, board.next_attempt, is_fellow=candidate.is_fellow)
            partner.has_refused = board.patience.has_refused(candidate.peer)
            board.partners[candidate.peer] = partner
            engaged += 1
            progress.part(candidate.peer).state = "asked"
            progress.stage("first_offer", now)
            board.note(progress, now, "asked", candidate.peer)
            duration_s = min(DURATION_S_MAX, max(DURATION_S, 2 * terms.limits.seconds))
            board.do(Ask(candidate.peer, terms, board.config.price_max, duration_s))
        for candidate in board.candidates:
            if engaged >= wanted:
                break
            engaged += self._comes_round(candidate, progress, now)

    def _terms(self, candidate: Candidate, progress: Progress) -> Terms:
        """Return what to ask a candidate for: all that open jobs want of it; for one alone where that was refused."""
        terms = progress.terms
        if not self._board.patience.has_refused(candidate.peer):
            for other in self._board.open_jobs():
                if other.terms.device_classes == terms.device_classes and self._board.might_do(candidate, other):
                    terms = _wider(terms, other.terms)
        return _rounded(terms)

    def _comes_round(self, candidate: Candidate, progress: Progress, now: Now) -> bool:
        """Tell whether a provider that works for us under terms too narrow for a job is to be asked for wider ones."""
        partner = self._board.partners.get(candidate.peer)
        if (
            partner is None
            or not partner.is_agreed
            or partner.has_refused
            or partner.terms.device_classes != progress.terms.device_classes  # else no terms are for both
            or partner.terms.cover(progress.terms, partner.device_class)
            or not self._board.might_do(candidate, progress)
        ):
            return False
        if not partner.is_ending:
            partner.is_ending = True
            self._board.note(progress, now, "asked for more", candidate.peer)
        return True

    def serves(self, partner: Partner, progress: Progress, now: Now) -> bool:
        """Tell whether a provider's agreement, or what it was asked for, covers a job."""
        if not progress.takes(partner):
            return False
        if partner.is_agreed:
            return partner.suits(progress.job, progress.terms, now.boottime_ns)
        return any(partner.terms.cover(progress.terms, name) for name in progress.job.device_classes)

    def waits(self, progress: Progress, now: Now) -> bool:
        """Tell whether a provider might do a job, but works for us under an agreement that does not cover it, about
        another of its devices for example: there is one agreement with a provider at a time."""
        engaged = {
            partner.peer
            for partner in self._board.partners.values()
            if partner.open and not partner.suits(progress.job, progress.terms, now.boottime_ns)
        }
        return any(
            candidate.peer in engaged and self._board.might_do(candidate, progress)
            for candidate in self._board.candidates
        )

    def idle(self, now: Now) -> list[Partner]:
        """Return whom nobody needs: agreements idle for long, and those that no open job can use."""
        jobs = self._board.open_jobs()
        idle = []
        for partner in self._board.partners.values():
            if not partner.is_agreed or partner.open:
                continue
            of_use = any(
                progress.takes(partner) and partner.suits(progress.job, progress.terms, now.boottime_ns)
                for progress in jobs
            )
            if not of_use and (jobs or now.boottime_ns > partner.idle_since_ns + IDLE_S * SECOND_NS):
                idle.append(partner)
        return idle


def _wider(one: Terms, other: Terms) -> Terms:
    limits = Limits(max(one.limits.seconds, other.limits.seconds), max(one.limits.memory_mib, other.limits.memory_mib))
    return Terms(one.device_classes, limits, max(one.output_bytes_max, other.output_bytes_max))


def _rounded(terms: Terms) -> Terms:
    output_bytes = max(OUTPUT_BYTES_MIN, 1 << max(0, terms.output_bytes_max - 1).bit_length())
    seconds = min(86_400, -(-terms.limits.seconds // SECONDS_STEP) * SECONDS_STEP)
    memory_mib = min(1 << 20, -(-terms.limits.memory_mib // MEMORY_STEP_MIB) * MEMORY_STEP_MIB)
    return Terms(terms.device_classes, Limits(seconds, memory_mib), output_bytes)
