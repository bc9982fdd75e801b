"""One task's ballot: who runs it, who has answered, and which answer the policy's rule accepts.

The flow: the scheduler starts ``wanted()`` attempts with eligible providers of different groups and one
device class. As each commits, ``committed`` is told; when no attempt is outstanding, ``ready()`` gives those
to be asked: from here on their answers are fixed. As each shows its root, ``revealed`` is told; when the rule
(``rules.py``) accepts the root that is given most, it is decided. Until then ``wanted()`` asks for more, up to the
most that the rule counts: then the ballot is undecided. An attempt that ends without an answer (``ended``) makes room
for another; the pair is remembered, and so is the group that failed with a given code.

Answers agree if their roots are equal, bit for bit, within one device class. On a *numeric* ballot (a tolerant program,
or answers of several classes) those agree too whose numbers are close: while different answers are shown, nothing is
decided or wanted until they are ``compared`` (``comparing.py``). Each answer is then a candidate, and those close to it
support it; the one with the most support, of these the one started first, leads all that are not close to it. A trap or
a time-out is not an answer: it never agrees with anything.
"""

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from itertools import combinations

from depin_node.compute.verification.findings import Nearness
from depin_node.compute.verification.rules import Rule

COMPARED_MAX = 16
"""Different answers to one task that are compared with each other: one more than the largest quorum has. Further ones
count for themselves."""

_NO_PAIRS: frozenset[tuple[bytes, bytes]] = frozenset()

Ref = tuple[bytes, int]
"""An attempt: the provider's key and the attempt's number in its agreement."""


class Phase(Enum):
    """How far an attempt is."""

    RUNNING = 1
    COMMITTED = 2
    ASKED = 3
    REVEALED = 4


class Run:
    """One attempt on the ballot. ``reachable``: its provider can still send the bytes."""

    __slots__ = ("commitment", "device_class", "group", "phase", "reachable", "root")

    def __init__(self, group: str, device_class: str) -> None:
        self.group = group
        self.device_class = device_class
        self.phase = Phase.RUNNING
        self.commitment = b""
        self.root = b""
        self.reachable = True


class Ballot:
    """The state of one open task. A settled task needs none: its ballot is dropped."""

    __slots__ = (
        "_apart",
        "_asked",
        "_close",
        "_committed",
        "_compared",
        "_ended",
        "_far",
        "_running",
        "_shown",
        "attempts_ended",
        "decided",
        "device_class",
        "failures",
        "is_numeric",
        "mixes",
        "rule",
        "runs",
        "task",
    )

    def __init__(self, task: int, rule: Rule, *, is_numeric: bool = False, mixes: bool = False) -> None:
        """``mixes``: answers of several device classes may be on it; then it is numeric too."""
        self.task = task
        self.rule = rule
        self.is_numeric = is_numeric or mixes
        self.mixes = mixes
        self._close = self._far = _NO_PAIRS
        self._compared: frozenset[bytes] = frozenset()
        self.device_class = ""
        self.runs: dict[Ref, Run] = {}
        self.decided = b""
        self.failures: dict[str, set[str]] = {}
        self.attempts_ended = 0
        self._apart: frozenset[str] = frozenset()
        self._ended: dict[bytes, int] = {}
        self._running = self._committed = self._asked = self._shown = 0  # how many runs are so far

    def wanted(self) -> int:
        """Return how many attempts to start now.

        None while answers are being shown: whoever began then could wait to be told them.
        """
        if self.decided or self._asked or (self.is_numeric and self.uncompared()):
            return 0
        _, best, second = self._count()
        runs = len(self.runs)
        return self.rule.wanted(best, second, runs - self._shown, runs)

    def _count(self) -> tuple[bytes, int, int]:
        """Return the root given most, how often it was, and how often the next one."""
        if not self._shown:
            return b"", 0, 0
        shown = [run.root for run in self.runs.values() if run.phase is Phase.REVEALED]
        if shown.count(shown[0]) == len(shown):
            return shown[0], len(shown), 0
        if self._close:
            return self._supported(shown)
        (root, best), (_, second) = Counter(shown).most_common(2)
        return root, best, second

    def _supported(self, shown: list[bytes]) -> tuple[bytes, int, int]:
        """Count per candidate: what it has to lead are those that are not close to it."""
        support = [sum(self._is_close(a, b) for b in shown) for a in shown]
        at = support.index(max(support))
        apart = [n for n, root in zip(support, shown, strict=True) if not self._is_close(shown[at], root)]
        return shown[at], support[at], max(apart, default=0)

    def _is_close(self, a: bytes, b: bytes) -> bool:
        return a == b or (bool(self._close) and (a, b) in self._close)

    def uncompared(self) -> list[bytes]:
        """Return the different answers shown, if some of them have to be compared before anything can be decided."""
        if not self.is_numeric:
            return []
        roots = list(dict.fromkeys(run.root for run in self.runs.values() if run.phase is Phase.REVEALED))
        return roots if len(roots) > 1 and not self._compared.issuperset(roots[:COMPARED_MAX]) else []

    def compared(self, roots: Iterable[bytes], found: Nearness) -> None:
        """Note how near answers are to each other; sets ``decided`` as ``revealed`` does."""
        self._compared, self._close, self._far = frozenset(roots), *found
        self._decide()

    def recount(self) -> bool:
        """See whether what is left after an attempt was taken off decides, or is to be compared."""
        self._decide()
        return bool(self.decided or self.uncompared())

    def agrees(self, root: bytes) -> bool:
        """Tell whether an answer is the decided one, or as good."""
        return self._is_close(self.decided, root)

    def agreeing(self) -> list[Ref]:
        """Return the attempts whose answer is the decided one, or as good."""
        decided = self.decided
        return [ref for ref, run in self.runs.items() if run.root == decided or self.agrees(run.root)]

    def is_far(self, root: bytes) -> bool:
        """Tell whether no rounding explains that an answer is not the decided one."""
        return not self.is_numeric or (self.decided, root) in self._far

    def classes(self, root: bytes) -> frozenset[str]:
        """Return the device classes of those who gave an answer."""
        return frozenset(run.device_class for run in self.runs.values() if run.root == root)

    def is_undecided(self) -> bool:
        """Tell whether as many answers are in as count, and none is accepted."""
        if self.decided or self._shown < len(self.runs):
            return False
        return not self.wanted() and not self.uncompared()

    def failed_before(self, peer: bytes) -> int:
        """Return how many attempts of this task ended without an answer with ``peer``."""
        return self._ended.get(peer, 0)

    def blames(self, group: str) -> bool:
        """Tell whether somebody of ``group`` has failed it by what is said to be the task's own fault."""
        return any(group in groups for groups in self.failures.values())

    def takes(self, device_class: str) -> bool:
        """Tell whether an answer of a device class can be compared with those that there are."""
        return self.mixes or self.device_class == device_class

    def has_group(self, group: str) -> bool:
        """Tell whether a provider of ``group`` runs this task, or has answered, or is not to be asked."""
        return group in self._apart or group in [run.group for run in self.runs.values()]

    def groups_needed(self) -> int:
        """Return how many groups there have to be: those that have had the task, and as many as are wanted."""
        return len(self._apart | {run.group for run in self.runs.values()}) + self.wanted()

    def begins_with(self, ref: Ref, group: str, device_class: str, root: bytes, *, apart: frozenset[str]) -> None:
        """Begin with an answer from before, that others are to agree with; nobody of the groups ``apart`` is asked."""
        self.started(ref, group, device_class)
        self._apart = apart
        run = self.runs[ref]
        run.phase, run.root = Phase.REVEALED, root
        self._running -= 1
        self._shown += 1

    def started(self, ref: Ref, group: str, device_class: str) -> None:
        """Note a new attempt."""
        if not self.runs:
            self.device_class = device_class
        assert self.device_class == device_class or self.mixes
        assert not self.has_group(group)
        self.runs[ref] = Run(group, device_class)
        self._running += 1

    def committed(self, ref: Ref, commitment: bytes) -> None:
        """Note that an answer is fixed."""
        run = self.runs[ref]
        assert run.phase is Phase.RUNNING
        run.phase = Phase.COMMITTED
        self._running -= 1
        self._committed += 1
        run.commitment = commitment

    def ready(self) -> list[Ref]:
        """Return the attempts to be asked now, marked as asked; none while answers are still to come or wanted.

        Those who still run then double a slow one that has answered, or the other way round: see ``surplus``.
        """
        committed = self._committed
        if not committed or (self._running and not self._has_enough(committed)) or self.wanted():
            return []
        asked = [ref for ref, run in self.runs.items() if run.phase is Phase.COMMITTED]
        for ref in asked:
            self.runs[ref].phase = Phase.ASKED
        self._asked += committed
        self._committed = 0
        return asked

    def _has_enough(self, committed: int) -> bool:
        """Tell whether so many further answers decide, if they agree with those shown."""
        _, best, second = self._count()
        return not self.rule.wanted(best, second, committed, self._shown + committed)

    def surplus(self) -> list[Ref]:
        """Return the attempts that still run, and are not needed any more: enough others have answered."""
        if not self._asked or not self._running:
            return []
        return [ref for ref, run in self.runs.items() if run.phase is Phase.RUNNING]

    def withdrawn(self, ref: Ref) -> None:
        """Take an attempt that nobody needs any more off the ballot."""
        self._forget(ref)

    def _forget(self, ref: Ref) -> Run:
        run = self.runs.pop(ref)
        if run.phase is Phase.RUNNING:
            self._running -= 1
        elif run.phase is Phase.COMMITTED:
            self._committed -= 1
        elif run.phase is Phase.ASKED:
            self._asked -= 1
        else:
            self._shown -= 1
        return run

    def is_running(self) -> bool:
        """Tell whether it waits for nothing but attempts that run."""
        return self._running > 0 and not self._asked

    def commitments(self) -> bytes:
        """Return all commitments that are in, sorted and joined: what the commit set seals."""
        return b"".join(sorted(run.commitment for run in self.runs.values()))

    def revealed(self, ref: Ref, root: bytes) -> None:
        """Note a shown answer, whose opening was checked; sets ``decided`` to the root that the rule accepts."""
        run = self.runs[ref]
        assert run.phase is Phase.ASKED
        run.phase = Phase.REVEALED
        run.root = root
        self._asked -= 1
        self._shown += 1
        self._decide()

    def _decide(self) -> None:
        if self._shown < self.rule.agree or (self.is_numeric and (self.decided or self.uncompared())):
            return
        best_root, best, second = self._count()
        if self.rule.accepts(best, second):
            self.decided = best_root

    def is_disputed(self) -> bool:
        """Tell whether two answers differ, and are not known to be close."""
        if self._shown < 2:
            return False
        roots = [run.root for run in self.runs.values() if run.root]
        if self.is_numeric:
            return any(not self._is_close(a, b) for a, b in combinations(dict.fromkeys(roots), 2))
        return len(roots) > 1 and roots.count(roots[0]) < len(roots)

    def ended(self, ref: Ref, code: str, *, is_task_fault: bool) -> int:
        """Take an attempt without an answer off the ballot.

        Returns:
            How many groups have failed with this code so far, if it is the task's own fault; else 0.
        """
        run = self._forget(ref)
        self.attempts_ended += 1
        self._ended[ref[0]] = self.failed_before(ref[0]) + 1
        if not is_task_fault:
            return 0
        groups = self.failures.setdefault(code, set())
        groups.add(run.group)
        return len(groups)

    def unreachable(self, ref: Ref) -> None:
        """Note that a revealed answer's provider is gone: its signed answer counts, its bytes cannot be
        had."""
        run = self.runs[ref]
        assert run.phase is Phase.REVEALED
        run.reachable = False

    def uploader(self) -> Ref | None:
        """Return who can send the bytes of the decided root, or None if nobody is left."""
        for ref, run in self.runs.items():
            if run.root == self.decided and run.reachable:
                return ref
        return None

    def reopen(self) -> list[Ref]:
        """Forget a decision whose bytes nobody can send; return its attempts, now off the ballot."""
        gone = [ref for ref, run in self.runs.items() if run.root == self.decided]
        for ref in gone:
            self.ended(ref, "lost", is_task_fault=False)
        self.decided = b""
        return gone

    def dissenters(self) -> list[Ref]:
        """Return the attempts whose answer is not the decided one, nor as good."""
        decided, runs = self.decided, self.runs.items()
        return [ref for ref, run in runs if run.root not in (b"", decided) and not self.agrees(run.root)]
