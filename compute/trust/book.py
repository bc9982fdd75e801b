"""The local book on peers: who was caught (for good, with evidence in the journal), who let attempts end (for
now).

Local opinion only: nothing of it is told to others or taken from them.
"""

from collections import Counter, OrderedDict

COUNTED_MAX = 4096


class Book:
    """``banned`` is shared with who must not deal with those peers: the scheduler and the lender."""

    def __init__(self, banned: dict[bytes, str]) -> None:
        """Begin with those who are banned already, by reason."""
        self.banned: set[bytes] = set(banned)
        self.reasons = dict(banned)
        self._failures: OrderedDict[bytes, Counter[str]] = OrderedDict()

    def caught(self, peer: bytes, reason: str) -> bool:
        """Ban a peer; return whether that is new, and so to be stored."""
        self.banned.add(peer)
        if peer in self.reasons:
            return False
        self.reasons[peer] = reason
        return True

    def let_down(self, peer: bytes, code: str) -> None:
        """Count an attempt or a conversation that ended without what it was for. Costs availability, not
        trust."""
        counts = self._failures.setdefault(peer, Counter())
        counts[code] += 1
        self._failures.move_to_end(peer)
        if len(self._failures) > COUNTED_MAX:
            self._failures.popitem(last=False)

    def failures(self, peer: bytes) -> Counter[str]:
        """Return how often a peer let us down, by code."""
        return Counter(self._failures.get(peer, ()))
