"""Who of a directory is in which shard, without looking at everybody each time somebody asks.

The members of the shards that were asked for lately are kept as peers come and go. A part of the directory.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from depin_node.p2p.shards import Shard

if TYPE_CHECKING:
    from depin_node.p2p.directory import Entry

_SHARDS_MAX = 6
"""Our own and those of the neighbours that catch up with us; a further one puts out the longest unasked."""


class Members:
    """See the module. ``entries`` is the directory's own table, by key."""

    def __init__(self, entries: "Mapping[bytes, Entry]") -> None:
        self._entries = entries
        self._of: OrderedDict[Shard, dict[bytes, None]] = OrderedDict()

    def of(self, shard: Shard) -> Iterable[bytes]:
        """Return who is in ``shard``."""
        members = self._of.get(shard)
        if members is None:
            members = {key: None for key, entry in self._entries.items() if _is_in(entry, shard)}
            self._of[shard] = members
            if len(self._of) > _SHARDS_MAX:
                self._of.popitem(last=False)
        self._of.move_to_end(shard)
        return members

    def count(self, shard: Shard) -> int:
        """Return how many are in ``shard``."""
        self.of(shard)
        return len(self._of[shard])

    def put(self, entry: "Entry") -> None:
        """A peer is new, or has other capabilities than before."""
        for shard, members in self._of.items():
            if _is_in(entry, shard):
                members[entry.key] = None
            else:
                members.pop(entry.key, None)

    def drop(self, key: bytes) -> None:
        """A peer is gone."""
        for members in self._of.values():
            members.pop(key, None)


def _is_in(entry: "Entry", shard: Shard) -> bool:
    return shard.capability in entry.capabilities and shard.has_place(entry.place)
