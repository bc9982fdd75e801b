"""Which shards a node follows as the mesh grows and shrinks, and whom of its neighbours that makes kin.

Gossip about a shard goes only through those who follow it, so a node wants some neighbours of its smallest one: its
kin. A newcomer takes the sizes that most peers tell; afterwards it goes by its own count (``shards``). A part of the
discovery machine.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.discovery_events import Effect, Follow
from depin_node.p2p.shards import CAPABILITIES, Shard, Sharding, place_of

if TYPE_CHECKING:
    from random import Random

    from depin_node.p2p.directory import Directory
    from depin_node.p2p.mesh_config import MeshConfig
    from depin_node.p2p.neighbours import Neighbours
    from depin_node.p2p.rhythm import Rhythm

_LENIENCE = 0.5
"""Of the spacing that we keep ourselves: peers may count fewer nodes."""


class Following:
    """See the module. Times are of the boot clock."""

    def __init__(
        self,
        directory: "Directory",
        neighbours: "Neighbours",
        rhythm: "Rhythm",
        config: "MeshConfig",
        rng: "Random",
        start_ns: int,
    ) -> None:
        self.sharding = Sharding(directory.own_key, config.shard_max)
        self._directory = directory
        self._neighbours = neighbours
        self._rhythm = rhythm
        self._kin_wanted = config.kin_wanted
        self._rng = rng
        self._topics: frozenset[str] = frozenset()
        self.kin: Shard | None = None
        """The shard that our kin share: the smallest we follow; None if all nodes are in it."""
        self._fellows_known: list[bytes] = []
        self._fellows_at = -1  # by which change of the neighbours
        self._adopt_until_ns = start_ns + int(config.settle_s * SECOND_NS)

    def told(self, bits: Sequence[int], ns: int) -> None:
        """A peer told how large its shards are."""
        if len(bits) != len(CAPABILITIES):
            return
        self.sharding.told(bits)
        if not self.sharding.bits_max:  # a newcomer learns at once how large the topic is
            self._rhythm.nodes = max(self._rhythm.nodes, len(self._directory))
        if ns < self._adopt_until_ns and tuple(bits) != self.sharding.bits:
            self._rhythm.sweep_ns = min(self._rhythm.sweep_ns, ns)

    def resize(self, ns: int) -> list[Effect]:
        """Count our shards, and follow larger or smaller ones if need be."""
        counts, rhythm, before = self._counts(), self._rhythm, self.sharding.bits
        if self.sharding.resize(counts, is_newcomer=ns < self._adopt_until_ns):
            counts = self._counts()
            smallest = max(self.sharding.followed(), key=lambda shard: shard.bits)
            self.kin, self._fellows_at = smallest if smallest.bits else None, -1
            if any(now < then for now, then in zip(self.sharding.bits, before, strict=True)):
                # The other half does not know us; but who halves a shard is known to all that stay in it.
                rhythm.announce_ns = min(rhythm.announce_ns, rhythm.after(ns, 1.0))
            rhythm.ask_ns = min(rhythm.ask_ns, rhythm.after(ns, 0.5))
        rhythm.nodes = max(counts.values(), default=0)
        self._directory.spacing_s = _LENIENCE * rhythm.spacing_s
        topics = self.sharding.topics()
        if topics == self._topics:
            return []
        self._topics = topics
        return [Follow(topics)]

    def topics_of(self, peer: bytes) -> list[str]:
        """Return the topics, of those that we follow, in which the advert of ``peer`` is at home."""
        entry = self._directory.get(peer)
        shards = [self.sharding.own(name) for name in entry.capabilities] if entry and not entry.advert.leaving else []
        return [shard.topic for shard in shards if entry and shard.has_place(entry.place)]

    @property
    def lacks_kin(self) -> bool:
        """Whether there are too few neighbours of our shard."""
        return self.kin is not None and len(self._fellows()) < self._kin_wanted

    def any_kin(self) -> bytes:
        """Return one of them at random; any neighbour if there is none."""
        fellows = self._fellows()
        return self._rng.choice(fellows) if fellows else self._neighbours.any(self._rng)

    def _fellows(self) -> list[bytes]:
        if self._fellows_at != self._neighbours.changes:
            self._fellows_at, kin = self._neighbours.changes, self.kin
            self._fellows_known = [p for p in self._neighbours.keys if kin is not None and kin.has_place(place_of(p))]
        return self._fellows_known

    def _counts(self) -> Counter[str]:
        return Counter({shard.capability: self._directory.count(shard) for shard in self.sharding.followed()})
