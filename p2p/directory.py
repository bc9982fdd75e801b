"""The directory: the newest advert of each known peer, bounded; and who of them can take some work.

The flow: ``receive`` checks an advert from anywhere and keeps it if it is newer than what is known; ``connected``,
``lost`` and ``unreachable`` add what we saw ourselves. ``digest`` and ``missing_from`` are the two halves of catching
up with a peer: adverts are kept as they arrived, so that they can be handed on. ``candidates`` draws peers for work,
``why_nobody`` says what the others lacked; ``sample`` answers the same question for another node. No I/O, no clock.

Room is given up in this order (``_make_room``): expired adverts; then, in the largest group, the peer not
heard of for longest. Peers connected now always stay. A peer's group is that of the address it was seen at;
before it was ever connected, that of the first address it claims. Nodes of one owner are all in the group of
that of them which was connected first: so a fleet counts once wherever it is, and owners, which are free, make no new
groups.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError
from depin_node.core.wire import Message
from depin_node.crypto.envelope import SKEW_S_MAX, Verified
from depin_node.crypto.ownership import OwnerCertificate, Owners, read_certificate
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.advert import Advert, DigestLine, ReadAdvert, common_protocol, read_advert
from depin_node.p2p.groups import group_of, is_loopback, own_group
from depin_node.p2p.members import Members
from depin_node.p2p.shards import CAPABILITIES, Shard

if TYPE_CHECKING:
    from random import Random

DIGEST_MAX = 4096


class Digest(Message, frozen=True):
    """What a node knows, in short."""

    lines: Annotated[tuple[DigestLine, ...], msgspec.Meta(max_length=DIGEST_MAX)]


@dataclass(frozen=True)
class DirectoryLimits:
    """How much is kept of whom."""

    entries_max: int = DIGEST_MAX
    group_max: int = 256
    """Entries of one group; a lab behind one /16 needs no more to be found."""
    adverts_burst: int = 8
    """New adverts of one peer taken at once; afterwards one every ``Directory.spacing_s``."""


class Taken(Enum):
    """What became of an advert."""

    DISCOVERED = "discovered"
    """The first of this peer."""
    UPDATED = "updated"
    KNOWN = "known"
    """We had this one, or a newer one."""
    TOO_OFTEN = "too often"
    """The peer changes its advert more often than it may."""
    OURSELVES = "ourselves"
    """Our own, newer than what we remember having signed: from before a restart."""


class Entry(msgspec.Struct, frozen=True):
    """What is known of one peer. ``data`` is its advert as it arrived, ``heard_ns`` when (boot clock).

    ``seen_at`` is where it was last connected, None if it never was; ``is_unreachable``: its connection was lost or a
    dial failed, and it has not been heard since. ``certificate`` is its owner's, if it held when the advert came.
    ``place`` and ``capabilities`` say in which shards it is, ``line`` is its line in digests.
    """

    key: bytes
    advert: Advert
    data: bytes
    addresses: tuple[Address, ...]
    heard_ns: int
    group: str
    line: DigestLine
    seen_at: Address | None = None
    is_connected: bool = False
    is_unreachable: bool = False
    allowance: float = 0.0
    certificate: Verified[OwnerCertificate] | None = None
    place: int = 0
    capabilities: tuple[str, ...] = ()

    @property
    def owner(self) -> bytes | None:
        """The key of its owner, None if it shows no certificate that holds."""
        return self.certificate.sender if self.certificate else None

    @property
    def name(self) -> str:
        """The peer id as people see it."""
        return peer_id(self.key)


@dataclass(frozen=True)
class Need:
    """What a peer must offer: one device of one of ``device_classes`` with at least ``memory_mib`` and ``slots``, for
    at most ``price_max`` (thousandths of a credit for one second of the reference device).
    """

    device_classes: frozenset[str]
    memory_mib: int
    slots: int = 0
    price_max: int = 2**63 - 1


@dataclass
class _Fleet:
    """The known nodes of one owner, and the group they count as."""

    group: str
    is_seen: bool = False
    members: dict[bytes, None] = field(default_factory=dict)


def ranked(entries: Iterable[Entry], point: bytes, count: int) -> list[Entry]:
    """Return the first ``count`` of ``entries`` in the order that ``point`` gives them: groups by rank, of each the one
    that ranks first, then of each the second.
    """

    def rank(name: bytes) -> bytes:
        return blake3(point + name).digest(8)

    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    order = sorted(groups, key=lambda group: rank(group.encode()))[:count]
    queues = [groups[group] for group in order]
    for queue in queues:
        if len(queue) > 1:  # most groups are of one
            queue.sort(key=lambda entry: rank(entry.key))
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)][:count]


class Directory:
    """The bounded directory of one node.

    Args:
        network_id: adverts of other networks are refused.
        own_key: ours; our own advert is kept and handed on, and never a candidate.
        limits: bounds.
        dials_loopback: whether a claimed loopback address can be meant for us: only if all our own are loopback. Else
            it would name a node of this machine, which we would have met.
        listed: keys that count as their own group, by word of the operator.
        owners: which certificates hold.
        read: reads an advert, as ``read_advert`` does; a simulation shares that work among its nodes.
    """

    def __init__(
        self,
        network_id: str,
        own_key: bytes,
        *,
        limits: DirectoryLimits | None = None,
        dials_loopback: bool = True,
        listed: Collection[bytes] = (),
        owners: Owners | None = None,
        read: Callable[[bytes, str, Now], ReadAdvert] = read_advert,
    ) -> None:
        self.network_id = network_id
        self.own_key = own_key
        self.owners = owners or Owners(network_id, own_key)
        self.own_seq_seen = 0
        """The highest ``seq`` under which our own advert came from others."""
        self.spacing_s = 1.0
        """How often a peer may change its advert: the more adverts there are, the less often."""
        self._read = read
        self._limits = limits or DirectoryLimits()
        self.dials_loopback = dials_loopback
        """See above; changes with our addresses."""
        self._listed = frozenset(listed)
        self._entries: dict[bytes, Entry] = {}
        self._members = Members()
        self._groups: dict[str, dict[bytes, None]] = {}  # in each the longest unheard first; most are of one peer
        self._connections: dict[bytes, Address | None] = {}
        self._fleets: dict[bytes, _Fleet] = {}  # by owner

    # What is known

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        """Return what is known of ``key``."""
        return self._entries.get(key)

    def peers(self) -> list[Entry]:
        """Return the peers that have not left; without ourselves."""
        return self._present(self._entries.values())

    def _present(self, entries: Iterable[Entry]) -> list[Entry]:
        return [entry for entry in entries if not entry.advert.leaving and entry.key != self.own_key]

    def receive(self, data: bytes, now: Now) -> tuple[Taken, bytes]:
        """Take an advert; return what became of it and whose it is.

        Raises:
            PeerViolation: not a valid advert; see ``read_advert``.
        """
        read = self._read(data, self.network_id, now)
        key, advert = read.verified.sender, read.verified.payload
        known = self._entries.get(key)
        if known is not None and advert.seq <= known.advert.seq:
            return Taken.KNOWN, key
        if key == self.own_key:
            self.own_seq_seen = max(self.own_seq_seen, advert.seq)
            return Taken.OURSELVES, key
        if known is None:
            allowance = float(self._limits.adverts_burst)
        else:
            idle_s = (now.boottime_ns - known.heard_ns) / SECOND_NS
            allowance = min(known.allowance + idle_s / self.spacing_s, float(self._limits.adverts_burst))
        if allowance < 1:
            return Taken.TOO_OFTEN, key
        self._put(self._entry(read, known, now, allowance - 1), now)
        return (Taken.UPDATED if known else Taken.DISCOVERED), key

    def keep_own(self, data: bytes, now: Now) -> None:
        """Keep the advert that we signed."""
        read = self._read(data, self.network_id, now)
        self._put(self._entry(read, self._entries.get(read.verified.sender), now, 0.0), now)

    def connected(self, key: bytes, address: str) -> None:
        """Note that ``key`` is connected, at ``address``; it may or may not end in ``/p2p/<id>``."""
        self._connections[key] = seen_at = _parse_seen(address, key)
        entry = self._entries.get(key)
        if entry is not None:
            seen_at = seen_at or entry.seen_at
            group = self._group(key, seen_at, entry.addresses, entry.owner)
            self._store(replace(entry, seen_at=seen_at, is_connected=True, is_unreachable=False, group=group))

    def seen_at(self, key: bytes) -> Address | None:
        """Return where ``key`` is connected, as far as that tells where it is."""
        return self._connections.get(key)

    def lost(self, key: bytes, *, is_unreachable: bool = True) -> None:
        """Note that ``key`` is no longer connected; if that was not in order, it counts as unreachable until it is
        heard again.
        """
        self._connections.pop(key, None)
        entry = self._entries.get(key)
        if entry is not None:
            self._store(replace(entry, is_connected=False, is_unreachable=is_unreachable))

    def unreachable(self, key: bytes) -> None:
        """Note that ``key`` could not be dialled."""
        entry = self._entries.get(key)
        if entry is not None and not entry.is_connected:
            self._store(replace(entry, is_unreachable=True))

    def expire(self, now: Now) -> list[Entry]:
        """Forget the adverts that would no longer be taken if they arrived now; return them."""
        oldest_s = now.wall_ns // SECOND_NS - SKEW_S_MAX
        expired = [entry for entry in self._entries.values() if entry.advert.expires_s < oldest_s]
        for entry in expired:
            self._remove(entry.key)
        return expired

    # Owners

    def is_fellow(self, key: bytes, now: Now) -> bool:
        """Tell whether ``key`` shows a certificate of our own owner, and both its and ours hold now."""
        entry = self._entries.get(key)
        return entry is not None and self.owners.is_fellow(entry.certificate, now)

    def owners_met(self) -> list[bytes]:
        """Return the owners of known nodes, our own first."""
        own = self.owners.own
        return [*([own] if own else []), *(owner for owner in self._fleets if owner != own)]

    def revoked(self, data: bytes, now: Now) -> bytes | None:
        """Take a list of revocations of an owner that we met; return whose it is if it is news.

        Raises:
            PeerViolation: not a valid list.
        """
        owner = self.owners.take(data, now)
        if owner is not None:
            for key in [entry.key for entry in self._entries.values() if entry.owner == owner]:
                entry = self._entries.get(key)
                if entry is not None and entry.certificate and not self.owners.holds(entry.certificate, now):
                    group = self._group(key, entry.seen_at, entry.addresses, None)
                    self._store(replace(entry, certificate=None, group=group))
        return owner

    def _certificate(self, key: bytes, advert: Advert, now: Now) -> Verified[OwnerCertificate] | None:
        known = self._entries.get(key)
        verified = known.certificate if known else None
        if verified is None or verified.data != advert.certificate:
            verified = read_certificate(advert.certificate, self.network_id, key)
        return verified if self.owners.holds(verified, now) else None

    # Catching up

    def within(self, shards: Sequence[Shard]) -> list[Entry]:
        """Return who is known in ``shards``, ourselves and who left included."""
        wide = {shard.capability for shard in shards if not shard.bits}
        if len(wide) == len(CAPABILITIES):
            return list(self._entries.values())
        keys = dict.fromkeys(chain.from_iterable(self._members.of(shard) for shard in shards))
        return [self._entries[key] for key in keys]

    def count(self, shard: Shard) -> int:
        """Return how many are known in ``shard``, ourselves and who left included."""
        return self._members.count(shard)

    def digest(self, shards: Sequence[Shard]) -> Digest:
        """Return what we know of ``shards``."""
        entries = self.within(shards)[-DIGEST_MAX:]
        return Digest(tuple([entry.line for entry in entries]))

    def missing_from(self, digest: Digest, shards: Sequence[Shard], count_max: int, rng: "Random") -> list[bytes]:
        """Return at most ``count_max`` adverts of ``shards``, drawn by ``rng``, that the sender of ``digest`` lacks or
        has older.
        """
        same = set(digest.lines)
        differing = [entry for entry in self.within(shards) if entry.line not in same]
        theirs = {line.prefix: line.seq for line in digest.lines} if differing else {}
        missing = [entry.data for entry in differing if theirs.get(entry.line.prefix, -1) < entry.line.seq]
        return missing if len(missing) <= count_max else rng.sample(missing, count_max)

    # Who can take work

    def sample(self, need: Need | None, shard: Shard | None, point: bytes, count: int) -> list[Entry]:
        """Return at most ``count`` peers that suit, by rank: one of each group before a second of any.

        The ranks follow from ``point``, which the asker draws: of all peers known to any that were asked, those that
        rank first are one uniform draw over groups, and who answers cannot make its own rank higher (min-wise
        sampling, as in Brahms, Bortnikov et al. 2008).
        """
        entries = self.peers() if shard is None else self._present(self.within([shard]))
        return ranked([entry for entry in entries if not need or self._misfit(entry, need) is None], point, count)

    def candidates(self, need: Need, count: int, rng: "Random", *, exclude: Collection[bytes] = ()) -> list[Entry]:
        """Draw at most ``count`` suitable peers, uniformly over groups: one of each before a second of any.

        Whether a peer is busy is not looked at: what it says of that is old, and choosing by it would let a peer
        choose us.
        """
        groups: dict[str, list[Entry]] = {}
        for entry in sorted(self.peers(), key=lambda entry: entry.key):
            if self._lacks(entry, need, exclude) is None:
                groups.setdefault(entry.group, []).append(entry)
        order = sorted(groups)
        rng.shuffle(order)
        for members in groups.values():
            rng.shuffle(members)
        drawn: list[Entry] = []
        while order and len(drawn) < count:
            for group in order[: count - len(drawn)]:
                drawn.append(groups[group].pop())
            order = [group for group in order if groups[group]]
        return drawn

    def why_nobody(self, need: Need, *, exclude: Collection[bytes] = ()) -> Mapping[str, int]:
        """Return how many known peers fail by each condition (the first that each fails); empty if none is known."""
        lacks = (self._lacks(entry, need, exclude) for entry in self.peers())
        return Counter(reason for reason in lacks if reason is not None)

    def _lacks(self, entry: Entry, need: Need, exclude: Collection[bytes]) -> str | None:
        misfit = self._misfit(entry, need)
        if misfit is not None:
            return misfit
        if entry.is_unreachable or not (entry.is_connected or self.dialable(entry)):
            return "unreachable"
        if entry.key in exclude:
            return "excluded"
        return None

    def _misfit(self, entry: Entry, need: Need) -> str | None:
        """Say why what a peer offers is not what is needed."""
        if common_protocol(entry.advert.protocol_min, entry.advert.protocol_max) is None:
            return "other protocol version"
        if not entry.advert.lending:
            return "not lending"
        devices = [device for device in entry.advert.devices if device.device_class in need.device_classes]
        if not devices:
            return "no device of the class"
        if not any(device.memory_mib >= need.memory_mib for device in devices):
            return "too little memory"
        if not any(device.memory_mib >= need.memory_mib and device.slots >= need.slots for device in devices):
            return "too few slots"
        return "too dear" if entry.advert.price > need.price_max else None

    def dialable(self, entry: Entry) -> tuple[Address, ...]:
        """Return the addresses of ``entry`` that can be dialled from here."""
        return tuple(address for address in entry.addresses if self.dials_loopback or not is_loopback(address))

    # Keeping

    def _entry(self, read: ReadAdvert, known: Entry | None, now: Now, allowance: float) -> Entry:
        verified, addresses = read.verified, read.addresses
        key, advert = verified.sender, verified.payload
        certificate = self._certificate(key, advert, now) if advert.certificate else None
        seen_at = self._connections.get(key) or (known.seen_at if known else None)
        return Entry(
            key=key,
            advert=advert,
            data=verified.data,
            addresses=addresses,
            heard_ns=now.boottime_ns,
            group=self._group(key, seen_at, addresses, certificate.sender if certificate else None),
            line=read.line,
            seen_at=seen_at,
            is_connected=key in self._connections,
            allowance=allowance,
            certificate=certificate,
            place=read.place,
            capabilities=read.capabilities,
        )

    def _group(self, key: bytes, seen_at: Address | None, addresses: tuple[Address, ...], owner: bytes | None) -> str:
        if key in self._listed:
            return own_group(key)
        fleet = self._fleets.get(owner) if owner else None
        if fleet is not None and (fleet.is_seen or seen_at is None):
            return fleet.group
        if seen_at is not None:
            return group_of(seen_at)
        claimed = [address for address in addresses if self.dials_loopback or not is_loopback(address)]
        return group_of(claimed[0]) if claimed else "no address"

    def _put(self, entry: Entry, now: Now) -> None:
        """Keep a new advert: the peer becomes the most recently heard."""
        known = self._entries.get(entry.key)
        if known is not None and (known.group, known.owner) == (entry.group, entry.owner):
            members = self._groups[entry.group]
            if len(members) > 1:
                del members[entry.key]
                members[entry.key] = None
        else:
            self._remove(entry.key)
            self._make_room(entry.group, now)
        self._store(entry)

    def _store(self, entry: Entry) -> None:
        """Keep what changed about a peer, in its place if its group is the same."""
        old = self._entries.get(entry.key)
        if old is not None and (old.group, old.owner) != (entry.group, entry.owner):
            self._remove(entry.key)
            old = None
        self._entries[entry.key] = entry
        if old is None or old.capabilities != entry.capabilities:
            if old is not None:
                self._members.drop(old.key, old.place, old.capabilities)
            self._members.add(entry.key, entry.place, entry.capabilities)
        members = self._groups.setdefault(entry.group, {})
        members[entry.key] = None
        if entry.owner and entry.key not in self._listed:
            self._muster(entry.owner, entry)
        if len(members) > self._limits.group_max:  # it was seen elsewhere than it claimed to be
            self._evict_from(entry.group)

    def _muster(self, owner: bytes, entry: Entry) -> None:
        """Note a node of a fleet; the first that was connected gives all of them its group."""
        fleet = self._fleets.setdefault(owner, _Fleet(entry.group))
        fleet.members[entry.key] = None
        if entry.seen_at is not None and not fleet.is_seen:
            fleet.is_seen, fleet.group = True, entry.group
            for key in [key for key in fleet.members if self._entries[key].group != fleet.group]:
                if key in self._entries:  # the last one may have taken its place
                    self._store(replace(self._entries[key], group=fleet.group))

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._members.drop(key, entry.place, entry.capabilities)
        members = self._groups[entry.group]
        del members[key]
        if not members:
            del self._groups[entry.group]
        fleet = self._fleets.get(entry.owner) if entry.owner else None
        if fleet is not None and entry.owner:
            fleet.members.pop(key, None)
            if not fleet.members:
                del self._fleets[entry.owner]

    def _make_room(self, group: str, now: Now) -> None:
        if len(self._groups.get(group, ())) >= self._limits.group_max:
            self._evict_from(group)
        if len(self._entries) >= self._limits.entries_max:
            self.expire(now)
        if len(self._entries) >= self._limits.entries_max:
            largest = max(self._groups, key=lambda name: len(self._groups[name]))
            if not self._evict_from(largest):  # all its peers are connected
                for name in list(self._groups):
                    if self._evict_from(name):
                        break

    def _evict_from(self, group: str) -> bool:
        for key in self._groups[group]:
            if key != self.own_key and key not in self._connections:
                self._remove(key)
                return True
        return False


def _parse_seen(address: str, key: bytes) -> Address | None:
    suffix = f"/p2p/{peer_id(key)}"
    try:
        return parse(address.removesuffix(suffix) + suffix)
    except ConfigError:
        return None  # a relayed connection, say: no address that tells where the peer is
