"""Who is connected, whom of them we chose, and whom a node with too many connections lets go.

A *chosen* neighbour is one that we dialled to be a neighbour. Of each group at most one is chosen, so that nobody gets
all our choices by having many addresses of one kind; nodes of a private network count by host, since there one group
is all there is. Who called us is never chosen, and makes no chosen one go: when there are too many, callers go first,
those of the largest group before others.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from depin_node.p2p.addresses import Address
from depin_node.p2p.groups import group_of, is_loopback, is_private, own_group

if TYPE_CHECKING:
    from random import Random


def room_of(address: Address | None, group: str) -> str:
    """Return what only one chosen neighbour may have: its group, or on a private network its host."""
    if address is None or not is_private(address):
        return group
    return own_group(address.peer) if is_loopback(address) else f"host {address.host}"


def room_at(address: Address) -> str:
    """Return the same of a peer of which only an address is known."""
    return room_of(address, group_of(address))


class Neighbour(msgspec.Struct, frozen=True):
    """One connection. ``room``: see ``room_of``; ``is_introduced``: it has told who it is."""

    since_ns: int
    is_outbound: bool
    is_chosen: bool
    room: str
    place: int
    is_introduced: bool = False


class Neighbours:
    """All connections of one node."""

    def __init__(self) -> None:
        self._of: dict[bytes, Neighbour] = {}
        self._rooms: frozenset[str] = frozenset()
        self.changes = 0
        """How often somebody came or went."""

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, peer: object) -> bool:
        return peer in self._of

    @property
    def keys(self) -> Collection[bytes]:
        """Who is connected."""
        return self._of.keys()

    def get(self, peer: bytes) -> Neighbour | None:
        """Return the connection to ``peer``."""
        return self._of.get(peer)

    def put(self, peer: bytes, neighbour: Neighbour) -> None:
        """Note a connection."""
        self._of[peer] = neighbour
        self._count_rooms()

    def pop(self, peer: bytes) -> Neighbour | None:
        """Note that a connection is gone."""
        gone = self._of.pop(peer, None)
        self._count_rooms()
        return gone

    def introduced(self, peer: bytes) -> None:
        """Note that ``peer`` told who it is, over its own connection."""
        if peer in self._of:
            self._of[peer] = replace(self._of[peer], is_introduced=True)

    def is_chosen(self, peer: bytes) -> bool:
        """Tell whether ``peer`` is connected, and chosen."""
        return peer in self._of and self._of[peer].is_chosen

    def chosen(self) -> list[bytes]:
        """Return the chosen ones, the longest connected first."""
        return sorted((p for p, n in self._of.items() if n.is_chosen), key=lambda peer: self._of[peer].since_ns)

    def rooms(self) -> frozenset[str]:
        """Return what the chosen ones take up."""
        return self._rooms

    def _count_rooms(self) -> None:
        self.changes += 1
        self._rooms = frozenset(neighbour.room for neighbour in self._of.values() if neighbour.is_chosen)

    def any(self, rng: "Random") -> bytes:
        """Return one at random."""
        return rng.choice(list(self._of))

    def to_drop(self, over: int, settled_ns: int, kept: Callable[[bytes], bool], rng: "Random") -> list[bytes]:
        """Return at most ``over`` connections to let go: none in use, none younger than ``settled_ns``, none chosen."""
        if over <= 0:
            return []
        idle = [p for p, n in self._of.items() if n.since_ns < settled_ns and not n.is_chosen and not kept(p)]
        sizes = Counter(self._of[peer].room for peer in idle)
        rng.shuffle(idle)
        idle.sort(key=lambda peer: (self._of[peer].is_outbound, -sizes[self._of[peer].room]))
        return idle[:over]
