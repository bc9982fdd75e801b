"""Where peers can be dialled, remembered so that no teller can fill the memory with its own (Heilman et al. 2015).

Addresses that we only heard of are *new*, those at which we reached the peer ourselves are *tried*. Each table is cut
into buckets; a keyed hash says which bucket and which slot an address may take. A bucket of *new* follows from the
group of the address and the group of the teller, so that one teller's group reaches few buckets however much it tells;
a bucket of *tried* from the group of the address. In *new* a taken slot is given up only when what is there failed or
is old; in *tried* only when the peer there, dialled again, does not answer (test before evict): ``feeler`` names it.

No I/O, no clock. At most ``NEW_MAX`` and ``TRIED_MAX`` addresses.
"""

from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.addresses import Address

if TYPE_CHECKING:
    from random import Random

SLOTS = 16
NEW_BUCKETS, NEW_BUCKETS_PER_TELLER = 64, 8
TRIED_BUCKETS, TRIED_BUCKETS_PER_GROUP = 32, 4
NEW_MAX, TRIED_MAX = NEW_BUCKETS * SLOTS, TRIED_BUCKETS * SLOTS
_OLD_NS = 3600 * SECOND_NS
_Slot = tuple[int, int]


class Known(msgspec.Struct, frozen=True):
    """One peer's address. ``group`` bounds how much room it has; ``since_ns``: heard, or last reached (boot clock)."""

    address: Address
    group: str
    since_ns: int
    failed: int = 0

    @property
    def peer(self) -> bytes:
        """Whose it is."""
        return self.address.peer


class AddressBook:
    """See the module.

    Args:
        secret: unknown to peers, so that they cannot choose slots; kept for as long as the book.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._new: dict[_Slot, Known] = {}
        self._tried: dict[_Slot, Known] = {}
        self._contested: dict[_Slot, Known] = {}  # who wants a slot of tried that is taken
        self._slots: dict[bytes, tuple[bool, _Slot]] = {}  # by peer: whether tried, and where

    def __len__(self) -> int:
        return len(self._slots)

    def tried(self) -> list[Known]:
        """Return the addresses at which we reached their peers."""
        return list(self._tried.values())

    def is_tried(self, peer: bytes) -> bool:
        """Tell whether we reached ``peer`` ourselves."""
        return self._slots.get(peer, (False, (0, 0)))[0]

    def heard(self, address: Address, group: str, teller_group: str, ns: int) -> None:
        """Note an address that somebody of ``teller_group`` told."""
        if address.peer in self._slots:
            return
        within = self._hash(group, teller_group) % NEW_BUCKETS_PER_TELLER
        bucket = self._hash("new", teller_group, str(within)) % NEW_BUCKETS
        slot = (bucket, self._hash("new", str(bucket), address.peer.hex()) % SLOTS)
        there = self._new.get(slot)
        if there is None or there.failed or ns - there.since_ns > _OLD_NS:
            if there is not None:
                del self._slots[there.peer]
            self._new[slot] = Known(address, group, ns)
            self._slots[address.peer] = (False, slot)

    def reached(self, address: Address, group: str, ns: int) -> None:
        """Note that we dialled ``address`` and its peer answered."""
        known = Known(address, group, ns)
        is_tried, slot = self._slots.get(address.peer, (False, (-1, -1)))
        if is_tried:
            self._tried[slot] = known
            self._contested.pop(slot, None)
            return
        within = self._hash(address.peer.hex(), group) % TRIED_BUCKETS_PER_GROUP
        bucket = self._hash("tried", group, str(within)) % TRIED_BUCKETS
        place = (bucket, self._hash("tried", str(bucket), address.peer.hex()) % SLOTS)
        if place in self._tried:
            self._contested[place] = known
        else:
            self._new.pop(slot, None)
            self._tried[place] = known
            self._slots[address.peer] = (True, place)

    def failed(self, peer: bytes) -> None:
        """Note that ``peer`` could not be dialled."""
        if peer not in self._slots:
            return
        is_tried, slot = self._slots[peer]
        contender = self._contested.pop(slot, None) if is_tried else None
        if contender is not None:
            del self._slots[peer]
            self._new.pop(self._slots.pop(contender.peer, (False, (-1, -1)))[1], None)
            self._tried[slot] = contender
            self._slots[contender.peer] = (True, slot)
            return
        table = self._tried if is_tried else self._new
        table[slot] = replace(table[slot], failed=table[slot].failed + 1)

    def feeler(self, rng: "Random") -> Known | None:
        """Return what is worth a dial to find out: a contested address, else a new one."""
        if self._contested:
            return self._tried[rng.choice(list(self._contested))]
        fresh = [known for known in self._new.values() if not known.failed]
        return rng.choice(fresh) if fresh else None

    def draw(self, rng: "Random", count: int) -> list[Known]:
        """Return addresses to dial, drawn: tried and new ones with equal chance, as long as there are both."""
        tables = [list(table.values()) for table in (self._tried, self._new) if table]
        drawn: list[Known] = []
        while len(drawn) < count and tables:
            table = rng.choice(tables)
            place = rng.randrange(len(table))
            table[place], table[-1] = table[-1], table[place]
            drawn.append(table.pop())
            if not table:
                tables.remove(table)
        return drawn

    def _hash(self, *parts: str) -> int:
        text = "\0".join(parts).encode()
        return int.from_bytes(blake3(self._secret + text).digest(8), "big")
