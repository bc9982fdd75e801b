"""What comes in about peers: adverts, by gossip, over a peer's own connection, or as answers to questions.

Each goes into the directory, which checks it; an address that is new also into the address book, under the group of who
told it. What breaks the rules is blamed on who handed it on, since everybody judges before passing on. A part of the
discovery machine.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from depin_node.core.errors import PeerStale, PeerViolation
from depin_node.p2p.directory import Taken
from depin_node.p2p.discovery_events import Blame, Effect, Forward, Tell
from depin_node.p2p.neighbours import room_of

if TYPE_CHECKING:
    from depin_node.core.clock import Now
    from depin_node.p2p.choosing import Choosing
    from depin_node.p2p.directory import Directory
    from depin_node.p2p.rhythm import Rhythm


class Hearing:
    """See the module."""

    def __init__(self, directory: "Directory", choosing: "Choosing", rhythm: "Rhythm") -> None:
        self._directory = directory
        self._choosing = choosing
        self._rhythm = rhythm

    def gossiped(self, peer: bytes, data: bytes, now: "Now") -> list[Effect]:
        """Take anybody's advert from ``peer``, and pass on what is new. One that has expired on its way is no fault."""
        try:
            taken, key = self._directory.receive(data, now)
        except PeerStale:
            return []
        except PeerViolation as error:
            return [Blame(peer, str(error))]
        effects = self._noted(taken, key, peer, now)
        if taken in (Taken.DISCOVERED, Taken.UPDATED):
            effects.append(Forward())
        return effects

    def introduced(self, peer: bytes, data: bytes, now: "Now") -> list[Effect]:
        """Take an advert that must be ``peer``'s own."""
        try:
            taken, key = self._directory.receive(data, now)
        except PeerViolation as error:
            return [Blame(peer, str(error))]
        effects = self._noted(taken, key, peer, now)
        if key != peer:
            effects.append(Blame(peer, "advert: passed off that of another peer"))
        return effects

    def told(self, peer: bytes, adverts: Sequence[bytes], now: "Now") -> tuple[list[Effect], list[bytes]]:
        """Take adverts that ``peer`` told; return whose they are."""
        effects, keys = list[Effect](), list[bytes]()
        for data in adverts:
            try:
                taken, key = self._directory.receive(data, now)
            except PeerViolation as error:
                effects.append(Blame(peer, str(error)))
                break
            effects += self._noted(taken, key, peer, now)
            if taken is Taken.DISCOVERED and self._choosing.dialling.was_tried(key):
                self._directory.unreachable(key)  # we tried before we knew its advert
            keys.append(key)
        return effects, keys

    def _noted(self, taken: Taken, key: bytes, teller: bytes, now: "Now") -> list[Effect]:
        entry = self._directory.get(key)
        if taken is Taken.OURSELVES:
            # From before a restart, and with a higher seq than the one we began with: outbid it.
            self._rhythm.announce_by(now.boottime_ns, now.boottime_ns)
        elif taken is Taken.DISCOVERED and entry is not None and not entry.advert.leaving:
            address = next(iter(self._directory.dialable(entry)), None)
            if address is not None:
                told_by = self._directory.get(teller)
                group = told_by.group if told_by else "unknown"
                self._choosing.book.heard(address, room_of(address, entry.group), group, now.boottime_ns)
            return [Tell("discovered", key)]
        elif taken is Taken.UPDATED and entry is not None and entry.advert.leaving:
            return [Tell("left", key)]
        return []
