"""A dispute over one task, walked to the first step in which two providers differ.

The flow: both say what their arrays held after the last step (``AskState``), and whether that gives the result that
each signed is seen first (``CheckResult``): who contradicts itself is named. Then the steps are halved: where both say
the same, they differ later; where they do not, at that step or before. When one step is left, its state before is what
*both* say, so that nobody can dispute it: this node does that one step from there (``DoStep``), and who says something
else after it has lied. An honest provider is never named, whatever the other says, and however it changes what it says:
each is only compared with what follows from its own words.

Bounded: two questions a round, ``2 + log2(steps)`` rounds, one step of work here. Who does not answer cannot be
proven to have lied: the walk is given up (``Over`` without names), and the vote goes on.
"""

from dataclasses import dataclass
from typing import NamedTuple

State = tuple[bytes, ...]


class Party(NamedTuple):
    """A provider, and the root that it has signed."""

    peer: bytes
    root: bytes


@dataclass(frozen=True)
class AskState:
    """Ask a provider for its state after ``step`` steps; then tell ``said``."""

    peer: bytes
    step: int


@dataclass(frozen=True)
class CheckResult:
    """See whether a party's last state gives the result that it signed; then tell ``checked``."""

    party: Party
    state: State


@dataclass(frozen=True)
class DoStep:
    """Do the step after the first ``step``, from a state that all of ``holders`` say; then tell ``did``."""

    step: int
    state: State
    holders: tuple[bytes, ...]


@dataclass(frozen=True)
class Over:
    """The walk has ended. ``liars``: who is named; ``step``: the first that they did wrongly, counted from 1."""

    liars: tuple[bytes, ...]
    step: int
    why: str


Effect = AskState | CheckResult | DoStep | Over
GIVEN_UP = "a dispute could not be walked: "


class Dispute:
    """The machine; ``steps``: how many the task does; ``first``: the state before them, which nobody has to say."""

    def __init__(self, steps: int, first: State, a: Party, b: Party) -> None:
        assert steps >= 1
        assert a.peer != b.peer
        assert a.root != b.root
        self._parties = {a.peer: a, b.peer: b}
        self._steps = steps
        self._low, self._common = 0, first
        self._high = self._asked = steps
        self._said: dict[bytes, State] = {}
        self._beyond: dict[bytes, State] = {}  # what each says of ``_high``, where they differ
        self._right: dict[bytes, bool] = {}
        self._is_over = False

    def start(self) -> list[Effect]:
        """Begin."""
        return self._ask(self._steps)

    def _ask(self, step: int) -> list[Effect]:
        self._asked, self._said = step, {}
        return [AskState(peer, step) for peer in self._parties]

    def _end(self, liars: tuple[bytes, ...], step: int, why: str) -> list[Effect]:
        if self._is_over:
            return []
        self._is_over = True
        return [Over(liars, step, why)]

    def said(self, peer: bytes, step: int, state: State | None) -> list[Effect]:
        """Take a party's state; None: it did not give one."""
        if self._is_over or peer not in self._parties or step != self._asked or peer in self._said:
            return []
        if state is None or len(state) != len(self._common):
            return self._end((), 0, f"{GIVEN_UP}a provider did not say its state after step {step}")
        self._said[peer] = state
        if len(self._said) < len(self._parties):
            return []
        if step == self._steps and not self._right:
            return [CheckResult(party, self._said[party.peer]) for party in self._parties.values()]
        return self._halve()

    def checked(self, peer: bytes, is_right: bool | None) -> list[Effect]:
        """Take whether a party's last state gives its result; None: it could not be told."""
        if self._is_over or peer not in self._parties or peer in self._right:
            return []
        if is_right is None:
            return self._end((), 0, f"{GIVEN_UP}a provider's arrays could not be had")
        self._right[peer] = is_right
        if len(self._right) < len(self._parties):
            return []
        liars = tuple(peer for peer, right in self._right.items() if not right)
        if liars:
            return self._end(liars, self._steps, "its result is not what its own arrays hold after the last step")
        return self._halve()

    def _halve(self) -> list[Effect]:
        a, b = self._said.values()
        if a == b:
            self._low, self._common = self._asked, a
        else:
            self._high, self._beyond = self._asked, self._said
        if self._low >= self._high:  # the same arrays, and yet each gives its own root: then a root is no hash
            return self._end((), 0, f"{GIVEN_UP}the states are the same after all steps")
        if self._high - self._low == 1:
            return [DoStep(self._low, self._common, tuple(self._parties))]
        return self._ask((self._low + self._high) // 2)

    def did(self, state: State | None) -> list[Effect]:
        """Take what this node got for the one step; None: it could not do it."""
        if self._is_over or self._high - self._low != 1 or not self._beyond:
            return []
        if state is None:
            return self._end((), 0, f"{GIVEN_UP}step {self._high} could not be done here")
        liars = tuple(peer for peer, said in self._beyond.items() if said != state)
        return self._end(liars, self._high, f"it did step {self._high} of {self._steps} wrongly")
