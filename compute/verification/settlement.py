"""One job's provisional answers, and how they are settled: audits drawn in secret, and what a catch voids.

The flow under ``confidence(p, f)``: a single answer that was accepted goes on its provider's *tab*, with a *draw* that
is a function of a secret and of the signed commit set (``draw_of``), so that it is fixed after the answer and before
anything is known of it, and is the same after a restart. An answer whose draw is below the tab's rate is audited: the
requester computes it itself. ``audited`` compares. An audit that differs is a catch: everything of that provider that
is not settled is void, and runs again elsewhere.

The rate falls with the length of a tab (``bounds.audit_rate``): what a settlement costs is a number of audits, not a
share. While the job runs, audits are drawn at the rate of the length that the tab seems to get, so that liars are found
early; when all tasks have an answer, ``close`` draws what is missing at the rate of the length that it got. Since each
answer keeps its draw, one rate's audits contain those of every lower rate, and nothing is drawn twice. When no audit is
open, all is settled together. A tab that is ``TAB_MAX`` long is settled by itself, so that memory stays bounded.

Where results are believed in *parts* (``Confidence.parts``), each part of an answer has a draw of its own, derived from
the answer's; the rate is that of so many parts, and an audit runs those that are due. All of the above holds with parts
in place of answers. An answer is settled by audits alone when all its parts were found right.

Where this node cannot run the tasks, *peers* do: an answer is given to a number of them, drawn by lot, none of its
provider's group. The number for each is that of ``bounds.peer_audits``, its fraction decided by the answer's draw.
Peers can be in league with the liar: what they have found right is not settled before its tab, and counts as often as
they were asked; who joined after a catch is run again by ``bounds.late_audits``. If they differ from the answer, the
votes of more decide; ``audited`` is told by what root.

All answers are audited of newcomers, who are given few until that made them established, and of who *joined* the job
after somebody was caught in it: else liars could try again under new names until one of them is lucky. What an audit
has confirmed is settled at once.
"""

from array import array
from math import e, expm1
from typing import NamedTuple

from blake3 import blake3

from depin_node.compute.jobs.job import Confidence
from depin_node.compute.verification.bounds import (
    DRAWS,
    hazard,
    late_audits,
    peer_audits,
    peer_wrong_share,
    wrong_share,
)

TAB_MAX = 8192
"""Provisional answers of one provider in one job; 53 bytes each."""
ROOT_BYTES = 32
_DRAW_CONTEXT = "depin-node verification 2026 audit draw v1"


def audit_key(secret: bytes) -> bytes:
    """Return the key of draws, derived from a secret of the operating system's that is kept across restarts."""
    return blake3(secret, derive_key_context=_DRAW_CONTEXT).digest()


def draw_of(key: bytes, job: bytes, task: int, commitments: bytes) -> int:
    """Return a task's draw in [0, DRAWS): a keyed hash of its commit set, uniform to who does not know the key."""
    digest = blake3(job + task.to_bytes(8, "little") + commitments, key=key).digest()
    return int.from_bytes(digest[:8], "little")


def part_draws(draw: int, parts: int) -> list[int]:
    """Return the draws of an answer's parts: a function of its own, and as little known."""
    if parts == 1 or not draw:
        return [draw] * parts
    data = blake3(draw.to_bytes(8, "little")).digest(length=8 * parts)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, 8 * parts, 8)]


class Ruling(NamedTuple):
    """What follows: tasks to ``audit`` now, tasks that are ``settled`` now, and who was caught, with the tasks that are
    void."""

    audit: tuple[int, ...] = ()
    settled: tuple[int, ...] = ()
    caught: bytes = b""
    void: tuple[int, ...] = ()


class Tab:
    """The answers of one provider that are settled together. Columns, not objects: there can be many."""

    __slots__ = ("draws", "is_closed", "open_audits", "peer", "roots", "seen", "states", "tasks", "withdrawn")

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.tasks = array("L")
        self.draws = array("Q")
        self.roots = bytearray()
        self.states = bytearray()
        self.seen = array("Q")  # by answer, a bit for each part that was found right; or how many peers found it so
        self.open_audits = 0
        self.withdrawn = 0
        self.is_closed = False

    def __len__(self) -> int:
        return len(self.tasks) - self.withdrawn

    def root(self, index: int) -> bytes:
        """Return the answer's root."""
        return bytes(self.roots[index * ROOT_BYTES : (index + 1) * ROOT_BYTES])

    def unsettled(self) -> list[int]:
        """Return the tasks that no audit has confirmed."""
        return [task for task, state in zip(self.tasks, self.states, strict=True) if state in (_PROVISIONAL, _AUDITED)]


_PROVISIONAL, _AUDITED, _CONFIRMED, _WITHDRAWN = range(4)
_NOTHING = Ruling()


class Settlement:
    """The tabs of one job."""

    def __init__(
        self, policy: Confidence, tasks: int, *, catches: int = 0, parts: int = 1, by_peers: bool = False
    ) -> None:
        """Begin without answers.

        Args:
            policy: of the job.
            tasks: of the whole job.
            catches: how many were caught in it before a restart.
            parts: into how many each of them is cut, for audits by this node.
            by_peers: whether peers audit: then an audit runs a whole task, ``due`` times.
        """
        self.policy = policy
        self.audits = 0.0
        """What this node was to run so far, in tasks."""
        self.by_peers = by_peers
        self._parts = parts
        self._whole = (1 << parts) - 1
        self._tasks = tasks
        self._tabs: dict[bytes, list[Tab]] = {}  # by provider; the last one is open, those before are being settled
        self._auditing: dict[int, tuple[Tab, int, int]] = {}  # tab, place on it, parts
        self._catches = catches
        self._members: dict[bytes, bool] = {}  # who takes part, and whether all of its answers are audited
        self._accepted = 0
        self._risk = 0.0  # expected wrong ones among what is settled
        self._coefficient = hazard(policy.p, policy.f, 1)
        self._simple = policy.f / (e * (1 - policy.p))

    def joined(self, peer: bytes) -> None:
        """Note that a provider is given its first task of the job."""
        self._members.setdefault(peer, self._catches > 0)

    def accepted(self, peer: bytes, task: int, root: bytes, draw: int, *, is_newcomer: bool) -> Ruling:
        """Put an answer on its provider's tab; return what is to be audited now."""
        self.joined(peer)
        tabs = self._tabs.setdefault(peer, [])
        if not tabs or tabs[-1].is_closed:
            tabs.append(Tab(peer))
        tab = tabs[-1]
        self._accepted += 1
        tab.tasks.append(task)
        tab.draws.append(0 if is_newcomer or self._members[peer] else draw)
        tab.roots += root
        tab.states.append(_PROVISIONAL)
        tab.seen.append(0)
        if len(tab) >= TAB_MAX:
            tab.is_closed = True
            due = self._draw(tab, len(tab))
            return Ruling(due, () if tab.open_audits else self._settle(tab))
        place = len(tab.tasks) - 1
        parts = self._due(tab, place, self._threshold(self._expected(tab)))
        return Ruling((self._audit(tab, place, parts),)) if parts else _NOTHING

    def _expected(self, tab: Tab) -> int:
        """Return how long a tab seems to get: its share of what is accepted so far, or of all providers; whichever is
        more."""
        share = max(len(tab) * self._tasks // self._accepted, self._tasks // len(self._tabs), len(tab))
        return min(TAB_MAX, share)

    def restored(self, peer: bytes, task: int, root: bytes, draw: int, *, is_confirmed: bool) -> None:
        """Put an answer from before a restart on its tab; ``resume`` then says what is to be audited."""
        tab = self._tabs.setdefault(peer, [Tab(peer)])[-1]
        self._members[peer] = False  # those that had to be audited have a draw of 0; the rest is for the better
        self._accepted += 1
        tab.tasks.append(task)
        tab.draws.append(draw)
        tab.roots += root
        tab.states.append(_CONFIRMED if is_confirmed else _PROVISIONAL)
        tab.seen.append(0)

    def resume(self) -> Ruling:
        """Return what is to be audited after a restart: answers whose draw says so, at the rate as it stands."""
        tabs = [tabs[-1] for tabs in self._tabs.values()]
        return Ruling(tuple(task for tab in tabs for task in self._draw(tab, self._expected(tab))))

    def provider(self, task: int) -> bytes | None:
        """Return whose answer an open audit is about; None if there is no such audit any more."""
        found = self._auditing.get(task)
        return found[0].peer if found else None

    def answer(self, task: int) -> tuple[bytes, bytes]:
        """Return the provider and the root of an answer that is being audited."""
        tab, index, _ = self._auditing[task]
        return tab.peer, tab.root(index)

    def due(self, task: int) -> int:
        """Return how many peers are to run the task of an answer that is being audited."""
        return self._auditing[task][2]

    def parts(self, task: int) -> tuple[int, ...]:
        """Return which parts of an answer are being audited."""
        _, _, due = self._auditing[task]
        return tuple(part for part in range(self._parts) if due >> part & 1)

    def is_auditing(self) -> bool:
        """Tell whether an audit is open."""
        return bool(self._auditing)

    def is_watched(self, peer: bytes) -> bool:
        """Tell whether all answers of a provider are audited, since somebody was caught before it joined."""
        return self._members.get(peer, self._catches > 0)

    def open_audits(self, peer: bytes) -> int:
        """Return how many answers of a provider are being audited."""
        return sum(tab.open_audits for tab in self._tabs.get(peer, ()))

    def audited(self, task: int, root: bytes) -> Ruling:
        """Compare an audit's root with the answer's; where parts were run and are right, it is the same."""
        found = self._auditing.pop(task, None)
        if found is None:
            return _NOTHING  # its provider was caught meanwhile
        tab, index, due = found
        tab.open_audits -= 1
        if tab.root(index) != root:
            return Ruling(caught=tab.peer, void=self.void(tab.peer))
        if self.by_peers:
            tab.seen[index] += due
            tab.states[index] = _PROVISIONAL
            return Ruling(settled=self._settle_if_closed(tab))
        tab.seen[index] |= due
        if tab.seen[index] != self._whole:
            tab.states[index] = _PROVISIONAL
            return Ruling(settled=self._settle_if_closed(tab))
        tab.states[index] = _CONFIRMED
        return Ruling(settled=(task, *self._settle_if_closed(tab)))

    def withdraw(self, task: int) -> Ruling:
        """Take an answer whose audit could not be made off its tab: it is to run again, replicated."""
        found = self._auditing.pop(task, None)
        if found is None:
            return _NOTHING
        tab, index, _ = found
        tab.open_audits -= 1
        tab.withdrawn += 1
        tab.states[index] = _WITHDRAWN
        self._accepted -= 1
        return Ruling(settled=self._settle_if_closed(tab), void=(task,))

    def void(self, peer: bytes) -> tuple[int, ...]:
        """Forget everything of a provider that is not settled; return the tasks that are to run again."""
        self._catches += peer in self._members
        void = tuple(task for tab in self._tabs.pop(peer, ()) for task in tab.unsettled())
        for task in void:
            self._auditing.pop(task, None)
        self._accepted -= len(void)
        return void

    def close(self) -> Ruling:
        """All tasks have an answer: return what is still to be audited or, if nothing is, settle all.

        May be asked again: what was void has been answered anew, and made other tabs longer.
        """
        if self._auditing:
            return _NOTHING
        tabs = [tab for tabs in self._tabs.values() for tab in tabs]
        due = tuple(task for tab in tabs if not tab.is_closed for task in self._draw(tab, len(tab)))
        if self._auditing:
            return Ruling(due)
        return Ruling(settled=tuple(task for tab in tabs for task in self._settle(tab)))

    def wrong_expected(self) -> float:
        """Return the bound on the expected number of wrong answers among those that are settled."""
        return self._risk

    def _threshold(self, answers: int) -> float:
        """Return what draws are compared with; where peers audit, by how many each answer is."""
        if self.by_peers:
            return peer_audits(self.policy.p, self.policy.f, answers)
        length = answers * self._parts
        rate = max(-expm1(-self._coefficient / length), self._simple / length)
        return rate * DRAWS if rate < 1 else DRAWS

    def _due(self, tab: Tab, index: int, limit: float) -> int:
        """Return which parts of an answer are to be audited, and were not, as bits; or by how many peers more."""
        if self.by_peers:
            draw, k = tab.draws[index], int(limit)
            due = k + (draw < limit % 1 * DRAWS) if draw else max(k + 1, late_audits(self.policy.p, self.policy.f))
            return max(0, due - tab.seen[index])
        if self._parts == 1:
            return int(tab.draws[index] < limit)
        draws = enumerate(part_draws(tab.draws[index], self._parts))
        return sum(1 << part for part, draw in draws if draw < limit) & ~tab.seen[index]

    def _audit(self, tab: Tab, index: int, due: int) -> int:
        tab.states[index] = _AUDITED
        tab.open_audits += 1
        self._auditing[tab.tasks[index]] = (tab, index, due)
        self.audits += 0 if self.by_peers else due.bit_count() / self._parts
        return tab.tasks[index]

    def _draw(self, tab: Tab, length: int) -> tuple[int, ...]:
        limit, states = self._threshold(max(1, length)), tab.states
        return tuple(
            self._audit(tab, index, due)
            for index, state in enumerate(states)
            if state == _PROVISIONAL and (due := self._due(tab, index, limit))
        )

    def _settle_if_closed(self, tab: Tab) -> tuple[int, ...]:
        return self._settle(tab) if tab.is_closed and not tab.open_audits else ()

    def _settle(self, tab: Tab) -> tuple[int, ...]:
        """Everything of a tab is for good; those that an audit confirmed were so before."""
        length = len(tab)
        limit, f, units = self._threshold(max(1, length)), self.policy.f, max(1, length) * self._parts
        share = peer_wrong_share(limit, f, units) if self.by_peers else wrong_share(min(1.0, limit / DRAWS), f, units)
        self._risk += length * share
        tabs = self._tabs[tab.peer]
        tabs.remove(tab)
        if not tabs:
            del self._tabs[tab.peer]
        return tuple(task for task, state in zip(tab.tasks, tab.states, strict=True) if state == _PROVISIONAL)
