"""Who of a directory is in which shard, without looking at everybody each time somebody asks.

A shard is a range of places, so the members of any shard of a capability lie side by side once they are sorted by
place. A part of the directory.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable

from depin_node.p2p.shards import CAPABILITIES, PLACE_BITS, Shard


class Members:
    """See the module."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[int, bytes]]] = {name: [] for name in CAPABILITIES}  # sorted: place and key

    def of(self, shard: Shard) -> list[bytes]:
        """Return who is in ``shard``."""
        first, end = self._range(shard)
        return [key for _, key in self._of[shard.capability][first:end]]

    def count(self, shard: Shard) -> int:
        """Return how many are in ``shard``."""
        first, end = self._range(shard)
        return end - first

    def add(self, key: bytes, place: int, capabilities: Iterable[str]) -> None:
        """A peer is new."""
        for name in capabilities:
            insort(self._of[name], (place, key))

    def drop(self, key: bytes, place: int, capabilities: Iterable[str]) -> None:
        """A peer is gone. ``capabilities`` are those that it was added with."""
        for name in capabilities:
            del self._of[name][bisect_left(self._of[name], (place, key))]

    def _range(self, shard: Shard) -> tuple[int, int]:
        members, size = self._of[shard.capability], 1 << (PLACE_BITS - shard.bits)
        start = shard.prefix * size
        return bisect_left(members, (start, b"")), bisect_left(members, (start + size, b""))
