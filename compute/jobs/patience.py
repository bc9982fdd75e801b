"""When a peer may be asked again: after a refusal, a failure, or an orderly end.

Each failure in a row doubles the wait; one accepted answer ends the row. Failures before an agreement and those of
agreements are two rows, and an agreement ends the first: who could not be reached for a while, and is, has let nobody
down. A refusal is about one job's terms: another job may ask at once.
"""

from depin_node.compute.market.messages import EndCode
from depin_node.core.clock import SECOND_NS, Now

REFUSED_S = 30.0
BUSY_S_MAX = 10.0
UNREACHABLE_S_MAX = 30.0
LET_DOWN_S_MAX = 300.0
"""Longest waits after a refusal of the terms, by a busy peer, without an answer, after an agreement that failed."""
FORGOTTEN_AFTER_S = 60
_FIRST_S = 0.5
_NEVER = (0, 0, 0)
_REFUSALS = frozenset({"unsupported_class", "too_large", "memory", "time", "not_lending", "price", "banned"})
_BUSY = frozenset({"busy", "group_limit"})
ORDERLY = frozenset({code.value for code in EndCode} - {EndCode.STALLED.value})
"""Ends of an agreement that are nobody's fault."""


class Patience:
    """Bounded by the peers asked within the longest wait."""

    def __init__(self) -> None:
        self._waits: dict[bytes, tuple[int, int, int]] = {}  # not before (ns), failures in a row, let down in a row
        self._refusers: set[bytes] = set()

    def ended(self, peer: bytes, code: str, *, was_agreed: bool, now: Now) -> None:
        """A conversation ended with ``code``."""
        _, failures, let_down = self._waits.get(peer, _NEVER)
        if was_agreed:
            failures = 0
            let_down += code not in ORDERLY or code == EndCode.PRICE.value
        else:
            failures += 1
        if code in _REFUSALS and not was_agreed:
            wait_s = REFUSED_S
            self._refusers.add(peer)
        elif was_agreed and code == EndCode.PRICE.value:  # known after a probe: each costs one
            wait_s = min(REFUSED_S, _FIRST_S * 2.0 ** min(let_down, 16))
        elif was_agreed and code in ORDERLY:
            wait_s = 0.2
        else:
            longest_s = LET_DOWN_S_MAX if was_agreed else BUSY_S_MAX if code in _BUSY else UNREACHABLE_S_MAX
            wait_s = min(longest_s, _FIRST_S * 2.0 ** min(let_down if was_agreed else failures, 16))
        self._waits[peer] = (now.boottime_ns + int(wait_s * SECOND_NS), failures, let_down)

    def allows(self, peer: bytes, now: Now) -> bool:
        """Tell whether a peer may be asked."""
        return self._waits.get(peer, _NEVER)[0] <= now.boottime_ns

    def has_refused(self, peer: bytes) -> bool:
        """Tell whether a peer's last answer was that it does not take the terms."""
        return peer in self._refusers

    def satisfied(self, peer: bytes) -> None:
        """An answer of this peer was accepted."""
        self._waits.pop(peer, None)

    def new_terms(self) -> None:
        """Another job asks for something else than what was refused."""
        for peer in self._refusers:
            self._waits.pop(peer, None)
        self._refusers.clear()

    def prune(self, now: Now) -> None:
        """Forget what is long over."""
        since_ns = now.boottime_ns - FORGOTTEN_AFTER_S * SECOND_NS
        self._waits = {peer: wait for peer, wait in self._waits.items() if wait[0] > since_ns}
        self._refusers &= self._waits.keys()
