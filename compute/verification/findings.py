"""What comparing and checking answers finds: the words that the machines share with who computes it."""

from enum import Enum
from typing import NamedTuple


class Nearness(NamedTuple):
    """What a comparison found: pairs of roots that are close, and pairs that are far; each in both orders."""

    close: frozenset[tuple[bytes, bytes]] = frozenset()
    far: frozenset[tuple[bytes, bytes]] = frozenset()


class Outcome(Enum):
    """What a check of an answer says of it."""

    RIGHT = "right"
    ODD = "odd"
    """Off by more than the bound of rounding, and by less than no rounding explains: nobody's lie, and not accepted."""
    WRONG = "wrong"
    UNCHECKED = "unchecked"
    """The numbers do not allow it: infinities and NaNs, or too many bytes."""


class Finding(NamedTuple):
    """A check's outcome, and why."""

    outcome: Outcome
    why: str = ""
