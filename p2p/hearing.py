"""What comes in about peers: adverts, by gossip, over a peer's own connection, or as answers to questions.

Each goes into the directory, which checks it; an address that is new also into the address book, under the group of who
told it. What breaks the rules is blamed on who handed it on, since everybody judges before passing on. A node that
joins two parts of a mesh learns all of one from one neighbour: what is new in an answer goes on by gossip, so that the
other part knows it within seconds. What one group's nodes gossip goes on only so often, however many they are. A part
of the discovery machine.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from depin_node.core.errors import PeerStale, PeerViolation
from depin_node.p2p.bucket import Bucket, Buckets
from depin_node.p2p.directory import Taken
from depin_node.p2p.discovery_events import Blame, Effect, Forward, Spread, Tell
from depin_node.p2p.neighbours import room_of

if TYPE_CHECKING:
    from depin_node.core.clock import Now
    from depin_node.p2p.choosing import Choosing
    from depin_node.p2p.directory import Directory
    from depin_node.p2p.following import Following
    from depin_node.p2p.rhythm import Rhythm

SPREAD_BURST, SPREAD_PER_S = 256, 8.0
"""Adverts that answers taught us and that we pass on: a shard holds some 200, and a teller must not make us flood."""
ORIGIN_BURST, ORIGIN_PER_S = 256, 4.0
"""Gossiped adverts of one group that we pass on: all nodes of a topic together make about one a second."""


class Hearing:
    """See the module."""

    def __init__(
        self, directory: "Directory", choosing: "Choosing", following: "Following", rhythm: "Rhythm", now: "Now"
    ) -> None:
        self._directory = directory
        self._choosing = choosing
        self._following = following
        self._rhythm = rhythm
        self._spread = Bucket(SPREAD_BURST, SPREAD_PER_S, now)
        self._origins = Buckets(ORIGIN_BURST, ORIGIN_PER_S)

    def gossiped(self, peer: bytes, data: bytes, now: "Now") -> list[Effect]:
        """Take anybody's advert from ``peer``, and pass on what is new. One that has expired on its way is no fault."""
        try:
            taken, key = self._directory.receive(data, now)
        except PeerStale:
            return []
        except PeerViolation as error:
            return [Blame(peer, str(error))]
        if taken is Taken.KNOWN:
            return []
        if taken is Taken.TOO_OFTEN:
            # Who relays it could not know what we take; who signed it could.
            return [Blame(peer, "advert: changed more often than it may be")] if key == peer else []
        effects, entry = self._noted(taken, key, peer, now), self._directory.get(key)
        is_news = taken in (Taken.DISCOVERED, Taken.UPDATED)
        if is_news and (entry is None or self._origins.of(entry.group, now).take(1, now)):
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
        """Take adverts that ``peer`` told; return whose they are. One that has expired by our clock need not by its."""
        effects, keys, news = list[Effect](), list[bytes](), list[tuple[str, bytes]]()
        has_others = any(neighbour != peer for neighbour in self._choosing.neighbours.keys)
        for data in adverts:
            try:
                taken, key = self._directory.receive(data, now)
            except PeerStale:
                continue
            except PeerViolation as error:
                effects.append(Blame(peer, str(error)))
                break
            keys.append(key)
            if taken is Taken.KNOWN:
                continue
            effects += self._noted(taken, key, peer, now)
            if taken is Taken.DISCOVERED and self._choosing.dialling.was_tried(key):
                self._directory.unreachable(key)  # we tried before we knew its advert
            if taken is Taken.DISCOVERED and has_others and self._spread.take(1, now):
                news += [(topic, data) for topic in self._following.topics_of(key)]
        if news:
            effects.append(Spread(tuple(news)))
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
