"""Which dials are under way, and when a peer or an address may be dialled again.

Addresses are claims: whoever signs adverts can put a stranger's address into them. So it is the *target*, host and
port, that is dialled less and less often while nobody who should be there answers, whatever peers are claimed to be at
it; and a host at which many ports failed is left alone for a while. What the operator named, and what was reached last
time, is exempt; first peers, which may be coming up, are dialled every two seconds for a minute. Exempt from the
limit of hosts are those of this machine and of private networks.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.addresses import Address
from depin_node.p2p.groups import is_private

if TYPE_CHECKING:
    from random import Random

BOOK_MAX = 4096
TARGET_PAUSE_S = (1.0, 3600.0)
NAMED_PAUSE_S, NAMED_SHARE = 2.0, 16
HOST_FAILURES_MAX = 8
HOST_PAUSE_S = 600.0
_Target = tuple[str, int, bytes]
K = TypeVar("K")
V = TypeVar("V")


class Book(Generic[K, V]):
    """A dictionary of at most ``BOOK_MAX`` entries; the longest unchanged goes first."""

    def __init__(self) -> None:
        self._of: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return what is kept of ``key``."""
        return self._of.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep ``value``."""
        self._of[key] = value
        self._of.move_to_end(key)
        if len(self._of) > BOOK_MAX:
            self._of.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget ``key``."""
        self._of.pop(key, None)


class Purpose(Enum):
    """What a dial is for."""

    NEIGHBOUR = "neighbour"
    FEELER = "feeler"
    ERRAND = "errand"
    """For a question or for work, not to be a neighbour."""


class _Tries(msgspec.Struct, frozen=True):
    failed: int
    again_ns: int


def _target(address: Address) -> _Target:
    """Return what is dialled: a host and port, and behind a relay the peer, since others there are not to blame."""
    return address.host, address.port, address.peer if address.relay else b""


class Dialling:
    """See the module.

    Args:
        pause_s: first and longest pause before the same peer is dialled again; each failure doubles it.
        named: peers that the operator named: first peers.
        remembered: peers that were reached when the node last ran.
        rng: spreads the pauses.
    """

    def __init__(
        self, pause_s: tuple[float, float], named: Iterable[bytes], remembered: Iterable[bytes], rng: "Random"
    ) -> None:
        self._pause_s = pause_s
        self._named = frozenset(named)
        self._trusted = self._named.union(remembered)
        self._rng = rng
        self.under_way: dict[bytes, Purpose] = {}
        self._meant: Book[bytes, Purpose] = Book()
        self._targets_of: dict[bytes, tuple[Address, ...]] = {}
        self._peers: Book[bytes, _Tries] = Book()
        self._targets: Book[_Target, _Tries] = Book()
        self._hosts: Book[str, _Tries] = Book()

    def count(self, *purposes: Purpose) -> int:
        """Return how many dials are under way for ``purposes``."""
        return sum(purpose in purposes for purpose in self.under_way.values())

    def was_tried(self, peer: bytes) -> bool:
        """Tell whether dials to ``peer`` failed since it was last connected."""
        return self._peers.get(peer) is not None

    def allowed(self, peer: bytes, addresses: Sequence[Address], ns: int) -> tuple[Address, ...]:
        """Return those of a peer's addresses that may be dialled now; none while it is being dialled."""
        tries = self._peers.get(peer)
        if peer in self.under_way or (tries is not None and ns < tries.again_ns):
            return ()
        return self.reachable(peer, addresses, ns)

    def reachable(self, peer: bytes, addresses: Sequence[Address], ns: int) -> tuple[Address, ...]:
        """Return those of a peer's addresses at which dialling is not a nuisance."""
        if peer in self._trusted:
            return tuple(addresses)
        return tuple(address for address in addresses if self._may_dial(address, ns))

    def start(self, peer: bytes, addresses: Sequence[Address], purpose: Purpose) -> None:
        """Note that a dial begins."""
        self.under_way[peer] = purpose
        self._meant.put(peer, purpose)
        self._targets_of[peer] = tuple(addresses)

    def ended(self, peer: bytes) -> None:
        """Note that a dial is over and has not failed."""
        self.under_way.pop(peer, None)

    def failed(self, peer: bytes, addresses: Sequence[Address], ns: int) -> None:
        """Note that nobody answered as ``peer``, at the addresses given or those it was started with."""
        self.under_way.pop(peer, None)
        self._meant.drop(peer)
        tries = self._peers.get(peer)
        shortest_s, longest_s = self._pause_s
        if peer in self._named:  # it may be coming up: look often at first
            longest_s = min(longest_s, max(NAMED_PAUSE_S, tries.failed / NAMED_SHARE if tries else 0.0))
        self._peers.put(peer, self._after(tries, (shortest_s, longest_s), ns))
        for address in self._targets_of.pop(peer, tuple(addresses)):
            target = _target(address)
            self._targets.put(target, self._after(self._targets.get(target), TARGET_PAUSE_S, ns))
            if not is_private(address):
                known = self._hosts.get(address.host)
                failed = known.failed + 1 if known is not None and ns < known.again_ns else 1
                self._hosts.put(address.host, _Tries(failed, ns + int(HOST_PAUSE_S * SECOND_NS)))

    def answered(self, peer: bytes, address: Address | None) -> Purpose | None:
        """Note that ``peer`` is connected, at ``address``; return what it was dialled for, if it was."""
        self._peers.drop(peer)
        self._targets_of.pop(peer, None)
        if address is not None:
            self._targets.drop(_target(address))
            self._hosts.drop(address.host)
        meant = self._meant.get(peer)
        self._meant.drop(peer)
        return meant

    def _may_dial(self, address: Address, ns: int) -> bool:
        target, host = self._targets.get(_target(address)), self._hosts.get(address.host)
        if target is not None and ns < target.again_ns:
            return False
        return host is None or host.failed < HOST_FAILURES_MAX or ns >= host.again_ns

    def _after(self, tries: _Tries | None, pause_s: tuple[float, float], ns: int) -> _Tries:
        failed = (tries.failed if tries else 0) + 1
        pause = min(pause_s[0] * 2.0 ** min(failed - 1, 30), pause_s[1]) * self._rng.uniform(2 / 3, 4 / 3)
        return _Tries(failed, ns + int(pause * SECOND_NS))
