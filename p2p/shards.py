"""Shards: which adverts a node takes part in gossiping, so that its traffic does not grow with the mesh.

Every node has a *place*, 64 bits of a hash of its key, and a few *capabilities*: ``cpu`` and ``gpu`` for what it lends,
``idle`` if it lends nothing. The nodes of one capability whose places begin with the same ``bits`` bits are one shard,
and one topic. A node publishes in its own shard of each capability that it has, and follows the shard of *every*
capability in which its own place falls: its place is random, so that is a random sample of them. While the mesh is
small every shard has 0 bits: all know all.

``Sharding`` counts who it knows in its shard. Above ``shard_max`` it halves the shard (as often as it takes, so that a
mesh that grows quickly is not followed as a whole meanwhile), below 0.3 of that it doubles it; between them lies a
factor of more than three, so that a node does not go back and forth. Neighbours do not take
each step at the same time: near a border a node also follows the shard one bit longer or shorter, and catching up by
digest goes by places, not by topics.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import median_low
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

if TYPE_CHECKING:
    from depin_node.p2p.advert import DeviceOffer

CAPABILITIES = ("idle", "cpu", "gpu")
SHARD_MAX = 200
SHARD_MIN_SHARE = 0.3
BITS_MAX = 16
PLACE_BITS = 64
_TELLERS = 9


@lru_cache(maxsize=16_384)
def place_of(key: bytes) -> int:
    """Return the place of a node, 64 bits."""
    return int.from_bytes(blake3(b"depin/place/v1\0" + key).digest(8), "big")


def capability_of(device_class: str) -> str:
    """Return the capability that a device class falls under."""
    return "cpu" if device_class.startswith("wasm") else "gpu"


def capabilities_of(lending: bool, devices: Iterable["DeviceOffer"]) -> tuple[str, ...]:
    """Return what a node that offers this is counted under, in the order of ``CAPABILITIES``."""
    found = {capability_of(device.device_class) for device in devices} if lending else set()
    return tuple(name for name in CAPABILITIES if name in found) or ("idle",)


class Shard(NamedTuple):
    """The nodes of one capability whose places begin with the ``bits`` bits of ``prefix``."""

    capability: str
    bits: int
    prefix: int

    def has_place(self, place: int) -> bool:
        """Tell whether a place falls into it."""
        return place >> (PLACE_BITS - self.bits) == self.prefix

    @property
    def topic(self) -> str:
        """The topic of its adverts."""
        return f"adverts-{self.capability}-{self.bits}-{self.prefix:x}/2"


def _halvings(count: int, count_max: int) -> int:
    """Return how often ``count`` is to be halved so that ``count_max`` is not exceeded."""
    return max(0, (-(-count // count_max) - 1).bit_length())


class Sharding:
    """How large one node's shards are: of more than ``shard_max`` nodes none stays."""

    def __init__(self, own_key: bytes, shard_max: int = SHARD_MAX) -> None:
        self._max, self._min = shard_max, SHARD_MIN_SHARE * shard_max
        self._place = place_of(own_key)
        self._bits = dict.fromkeys(CAPABILITIES, 0)
        self._counts: Counter[str] = Counter()
        self._told: deque[tuple[int, ...]] = deque(maxlen=_TELLERS)

    @property
    def bits(self) -> tuple[int, ...]:
        """The bits of each of ``CAPABILITIES``."""
        return tuple(self._bits[name] for name in CAPABILITIES)

    @property
    def bits_max(self) -> int:
        """The bits of the smallest shard."""
        return max(self._bits.values())

    def own(self, capability: str) -> Shard:
        """Return the shard of a capability that we follow."""
        return self._at(capability, self._bits[capability])

    def followed(self) -> list[Shard]:
        """Return the shards that we follow, one a capability."""
        return [self.own(name) for name in CAPABILITIES]

    def topics(self) -> frozenset[str]:
        """Return the topics to subscribe to: those of the shards, and near a border of the next ones."""
        shards = self.followed()
        for name in CAPABILITIES:
            bits, count = self._bits[name], self._counts[name]
            if count > 0.75 * self._max and bits < BITS_MAX:
                shards.append(self._at(name, bits + 1))
            if count < 2 * self._min and bits:
                shards.append(self._at(name, bits - 1))
        return frozenset(shard.topic for shard in shards)

    def told(self, bits: Sequence[int]) -> None:
        """Note how large a peer's shards are; a newcomer begins with what most say."""
        self._told.append(tuple(bits))

    def resize(self, counts: Counter[str], *, is_newcomer: bool = False) -> bool:
        """Take how many nodes are known in each of our shards; return whether one changed its size.

        A shard that holds too many is halved as often as it takes, one that holds too few is doubled. What peers say
        can only shorten the way that our own count takes us; a newcomer, who cannot count yet, takes what most say.
        """
        before = self.bits
        for index, name in enumerate(CAPABILITIES):
            bits, count, told = self._bits[name], counts[name], [line[index] for line in self._told]
            usual = min(median_low(told), BITS_MAX) if told else bits
            if count > self._max:
                chosen = max(bits + _halvings(count, self._max), usual)
            elif count < self._min and bits:
                chosen = usual if is_newcomer else min(bits - 1, usual)
            else:
                chosen = max(bits, usual) if is_newcomer else bits
            self._bits[name] = min(chosen, BITS_MAX)
            self._counts[name] = count >> max(0, self._bits[name] - bits)
        return self.bits != before

    def _at(self, capability: str, bits: int) -> Shard:
        return Shard(capability, bits, self._place >> (PLACE_BITS - bits))
