"""Who broke the protocol lately, and who is kept out for it."""

from dataclasses import dataclass

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.dialling import Book


@dataclass(frozen=True)
class _Strikes:
    count: int
    since_ns: int
    banned_until_ns: int = 0


class Standing:
    """Counts violations: the ``violations_max``-th within ``ban_s`` bans for ``ban_s``."""

    def __init__(self, violations_max: int, ban_s: float) -> None:
        self._violations_max = violations_max
        self._ban_ns = int(ban_s * SECOND_NS)
        self._strikes: Book[bytes, _Strikes] = Book()

    def is_banned(self, peer: bytes, ns: int) -> bool:
        """Tell whether ``peer`` is kept out."""
        strikes = self._strikes.get(peer)
        return strikes is not None and ns < strikes.banned_until_ns

    def violated(self, peer: bytes, ns: int) -> bool:
        """Count a violation; return whether it was one too many."""
        old = self._strikes.get(peer)
        if old is None or ns - old.since_ns > self._ban_ns:
            old = _Strikes(0, ns)
        if old.count + 1 < self._violations_max:
            self._strikes.put(peer, _Strikes(old.count + 1, old.since_ns, old.banned_until_ns))
            return False
        self._strikes.put(peer, _Strikes(0, ns, ns + self._ban_ns))
        return True
