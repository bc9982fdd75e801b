"""Whom a node dials, and whom of those that are connected it counts as chosen.

With nobody connected: anchors of last time, first peers, remembered ones, then whoever was heard of. With some: first
peers that were never reached, which may just be coming up, prospects out of the ``AddressBook`` as long as choices are
left, now and then a feeler to somebody new, and first peers that got lost. Of each group one is dialled to be a
neighbour (``Neighbours``), and nobody more often than ``Dialling`` allows. A part of the discovery machine.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from depin_node.p2p.address_book import AddressBook
from depin_node.p2p.dialling import Dialling, Purpose
from depin_node.p2p.discovery_events import Dial
from depin_node.p2p.neighbours import Neighbour, Neighbours, room_at, room_of
from depin_node.p2p.shards import place_of

if TYPE_CHECKING:
    from random import Random

    from depin_node.p2p.addresses import Address
    from depin_node.p2p.directory import Directory, Entry
    from depin_node.p2p.mesh_config import MeshConfig

REMEMBERED_MAX = 64
ANCHORS = 2
_DRAWN = 16


class Choosing:
    """See the module. Times are of the boot clock.

    Args:
        directory: what is known of peers.
        config: how many are wanted.
        rng: all random choices.
        first_peers: dialled first, in order.
        remembered: what ``remembered`` returned last time; the first two are anchors, dialled before all others.
    """

    def __init__(
        self,
        directory: "Directory",
        config: "MeshConfig",
        rng: "Random",
        first_peers: "Sequence[Address]",
        remembered: "Sequence[Address]",
    ) -> None:
        self._directory = directory
        self._config = config
        self._rng = rng
        self._first = _by_peer(first_peers, directory.own_key)
        self._remembered = _by_peer(remembered, directory.own_key)
        self._unmet = dict.fromkeys(self._first)  # first peers that were never connected
        self._anchors = list(self._remembered)[:ANCHORS]
        self.neighbours = Neighbours()
        self._left = 0
        self._left_at = -1  # by which change of the neighbours
        self.dialling = Dialling(config.dial_pause_s, self._first, self._remembered, rng)
        self.book = AddressBook(rng.randbytes(32))

    # How many are wanted

    @property
    def lacks(self) -> bool:
        """Whether there are too few neighbours, or too few that we chose."""
        return len(self.neighbours) < self._config.neighbours_wanted or self.choices_left > 0

    @property
    def has_unmet(self) -> bool:
        """Whether a first peer was never connected."""
        return bool(self._unmet)

    @property
    def choices_left(self) -> int:
        """How many neighbours are still to be chosen; first peers do not count: others chose those for us."""
        if self._left_at != self.neighbours.changes:
            self._left_at = self.neighbours.changes
            named = sum(peer in self.neighbours for peer in self._first)
            self._left = self._config.chosen_wanted + min(named, ANCHORS) - len(self.neighbours.rooms())
        return self._left

    @property
    def places_left(self) -> int:
        """How many more may be dialled to be neighbours."""
        room = max(self._config.neighbours_wanted - len(self.neighbours), self.choices_left)
        return max(0, room - self.dialling.count(Purpose.NEIGHBOUR))

    # Dialling

    def first(self, ns: int) -> list[Dial]:
        """Dial with nobody connected: anchors, first peers, remembered ones, then anyone known."""
        known = [entry.key for entry in self._directory.peers()]
        self._rng.shuffle(known)
        order = [*self._anchors, *self._first, *self._remembered, *self._drawn(), *known]
        return self.neighbours_of(dict.fromkeys(order), ns)

    def apart(self, ns: int) -> list[Dial]:
        """Dial all first peers that were never connected, since each may be the only honest one; else a first or
        remembered one that is not connected now: that joins meshes that were parted.
        """
        if self._unmet:
            return self.neighbours_of(list(self._unmet), ns)
        apart = [peer for peer in (*self._first, *self._remembered) if peer not in self.neighbours]
        return self.neighbours_of([self._rng.choice(apart)], ns) if apart else []

    def prospects(self, ns: int, *, at_most: int) -> list[Dial]:
        """Dial some of those we heard of, as long as choices are left."""
        return self.among(self._drawn(), ns, at_most=at_most) if self.choices_left > 0 else []

    def among(self, peers: Iterable[bytes], ns: int, *, at_most: int) -> list[Dial]:
        """Dial some of ``peers`` that are known, and have not left."""
        entries = (self._directory.get(peer) for peer in peers)
        return self.neighbours_of([e.key for e in entries if e and self._is_prospect(e)], ns, at_most=at_most)

    def neighbours_of(self, peers: Iterable[bytes], ns: int, *, at_most: int = 64) -> list[Dial]:
        """Dial some of ``peers`` to be neighbours: of each group one."""
        dials: list[Dial] = []
        rooms = set(self.neighbours.rooms()) | {
            self._room(peer) for peer, purpose in self.dialling.under_way.items() if purpose is Purpose.NEIGHBOUR
        }
        for peer in peers:
            if len(dials) >= at_most:
                break
            room, is_trusted = self._room(peer), peer in self._first or peer in self._remembered
            if room in rooms and not is_trusted:
                continue
            begun = self._dial(peer, self._addresses(peer), Purpose.NEIGHBOUR, ns)
            if begun:
                rooms.add(room)
                dials += begun
        return dials

    def feeler(self, ns: int) -> list[Dial]:
        """Dial somebody of whom we only heard, to see whether they are there."""
        known = self.book.feeler(self._rng)
        if known is None or known.peer in self.neighbours:
            return []
        return self._dial(known.peer, [known.address], Purpose.FEELER, ns)

    def sighted(self, address: "Address", ns: int) -> list[Dial]:
        """Dial somebody who says to be on a network of this machine: a stranger, or if neighbours are wanted."""
        entry, taken = self._directory.get(address.peer), room_at(address) in self.neighbours.rooms()
        if entry is not None and (taken or not self.lacks):
            return []
        return self._dial(address.peer, [address], Purpose.NEIGHBOUR, ns)

    def errand(self, peer: bytes, ns: int) -> list[Dial]:
        """Dial a peer for a question or for work."""
        return self._dial(peer, self._addresses(peer), Purpose.ERRAND, ns)

    def _dial(self, peer: bytes, addresses: "Sequence[Address]", purpose: Purpose, ns: int) -> list[Dial]:
        under_way = self.dialling.count(Purpose.NEIGHBOUR, Purpose.FEELER)
        if purpose is not Purpose.ERRAND and under_way >= self._config.dials_max:
            return []
        if peer == self._directory.own_key or peer in self.neighbours:
            return []
        allowed = self.dialling.allowed(peer, addresses, ns)
        if not allowed:
            return []
        self.dialling.start(peer, allowed, purpose)
        return [Dial(peer, tuple(str(address) for address in allowed))]

    # What came of it

    def failed(self, peer: bytes, ns: int) -> None:
        """A dial failed."""
        self._directory.unreachable(peer)
        self.dialling.failed(peer, self._addresses(peer), ns)
        self.book.failed(peer)

    def connected(self, peer: bytes, *, outbound: bool, ns: int) -> Purpose | None:
        """A connection stands: note it, and whether it is a chosen one. Return what it was dialled for, if it was."""
        seen_at = self._directory.seen_at(peer)
        purpose = self.dialling.answered(peer, seen_at if outbound else None)
        room = room_at(seen_at) if seen_at else self._room(peer)
        is_chosen = (
            outbound
            and purpose in (None, Purpose.NEIGHBOUR, Purpose.FEELER)
            and room not in self.neighbours.rooms()
            and (purpose is not Purpose.FEELER or self.choices_left > 0)
        )
        self._unmet.pop(peer, None)
        self.neighbours.put(peer, Neighbour(ns, outbound, is_chosen, room, place_of(peer)))
        if outbound and seen_at is not None:
            entry = self._directory.get(peer)
            self.book.reached(seen_at, entry.group if entry else room_at(seen_at), ns)
        return purpose

    # What others may know

    def introductions(self, asker: bytes, count_max: int) -> list[bytes]:
        """Return the adverts of at most ``count_max`` peers that we dialled ourselves, drawn at random, live ones
        first.
        """
        live = [peer for peer in self.neighbours.keys if self.book.is_tried(peer)]
        before = [known.peer for known in self.book.tried() if known.peer not in self.neighbours]
        self._rng.shuffle(live)
        self._rng.shuffle(before)
        entries = (self._directory.get(peer) for peer in (*live, *before) if peer != asker)
        shown = [entry.data for entry in entries if entry and not entry.advert.leaving and not entry.is_unreachable]
        return shown[:count_max]

    def remembered(self) -> list[str]:
        """Return where to join next time: anchors, then addresses that we dialled, then those of neighbours that called
        from where they say they are, then those remembered before.
        """
        chosen = self.neighbours.chosen()[:ANCHORS]
        tried = {known.peer: known.address for known in self.book.tried()}
        live = [peer for peer in self.neighbours.keys if peer in tried]
        order = [tried[peer] for peer in (*chosen, *live, *tried) if peer in tried]
        callers = [entry for peer in self.neighbours.keys if (entry := self._directory.get(peer)) and peer not in tried]
        order += [a for entry in callers if entry.seen_at for a in entry.addresses if a.host == entry.seen_at.host]
        before = [address for addresses in self._remembered.values() for address in addresses]
        return list(dict.fromkeys(str(address) for address in (*order, *before)))[:REMEMBERED_MAX]

    def _drawn(self) -> list[bytes]:
        return [known.peer for known in self.book.draw(self._rng, _DRAWN)]

    def _is_prospect(self, entry: "Entry") -> bool:
        return entry.key not in self.neighbours and not entry.advert.leaving and entry.key != self._directory.own_key

    def _addresses(self, peer: bytes) -> "tuple[Address, ...]":
        entry = self._directory.get(peer)
        advertised = self._directory.dialable(entry) if entry else ()
        known = (*self._first.get(peer, ()), *self._remembered.get(peer, ()), *advertised)
        return tuple(dict.fromkeys(known))

    def _room(self, peer: bytes) -> str:
        entry, addresses = self._directory.get(peer), self._addresses(peer)
        if entry is not None:
            return room_of(entry.seen_at or next(iter(addresses), None), entry.group)
        return room_at(addresses[0]) if addresses else ""


def _by_peer(addresses: "Sequence[Address]", own_key: bytes) -> "dict[bytes, tuple[Address, ...]]":
    by_peer: dict[bytes, tuple[Address, ...]] = {}
    for address in addresses:
        if address.peer != own_key:
            by_peer[address.peer] = (*by_peer.get(address.peer, ()), address)
    return by_peer
