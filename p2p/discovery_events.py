"""What the discovery machine is told, and what it wants done; see ``discovery.py``."""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from depin_node.p2p.addresses import Address
from depin_node.p2p.directory import Need
from depin_node.p2p.shards import Shard

FOUND_MAX = 64
"""Peers in one answer to a question."""


class Question(msgspec.Struct, frozen=True):
    """Which peers are asked for: at most ``count`` that suit ``need`` (None: any), in ``shard`` (None: anywhere), in
    the order that ``point`` (16 random bytes) gives them.
    """

    need: Need | None
    shard: Shard | None
    point: bytes
    count: int


# What happens


class Tick(msgspec.Struct, frozen=True):
    """``wake_ns`` has come."""


class PeerConnected(msgspec.Struct, frozen=True):
    """The network has a connection to ``peer``."""

    peer: bytes
    address: str
    outbound: bool


class PeerLost(msgspec.Struct, frozen=True):
    """The network's last connection to ``peer`` is gone."""

    peer: bytes


class DialEnded(msgspec.Struct, frozen=True):
    """A dial has ended; ``error`` says why it failed."""

    peer: bytes
    error: str | None


class Gossiped(msgspec.Struct, frozen=True):
    """An advert came by gossip, handed on by ``peer``, who should have judged it."""

    peer: bytes
    data: bytes


class Told(msgspec.Struct, frozen=True):
    """``peer`` sent adverts. ``are_live``: it answered the question for live peers. ``bits`` are the sizes of its
    shards, if it caught us up.
    """

    peer: bytes
    adverts: Sequence[bytes]
    are_live: bool = False
    bits: Sequence[int] = ()


class Found(msgspec.Struct, frozen=True):
    """``peer`` answered a question of a search (0: of none); no adverts if it failed to."""

    peer: bytes
    search: int
    adverts: Sequence[bytes]


class Search(msgspec.Struct, frozen=True):
    """Somebody here wants ``count`` live peers that suit ``need``. ``number`` is new."""

    number: int
    need: Need
    count: int


class Sighted(msgspec.Struct, frozen=True):
    """Somebody on a network of this machine says that it is at ``address``."""

    address: Address


class Introduced(msgspec.Struct, frozen=True):
    """``peer`` sent its own advert over its own connection."""

    peer: bytes
    data: bytes


class Changed(msgspec.Struct, frozen=True):
    """What we offer, or where we can be dialled, has changed."""


Event: TypeAlias = (
    Tick | PeerConnected | PeerLost | DialEnded | Gossiped | Told | Found | Introduced | Sighted | Changed | Search
)

# What is to be done


class Dial(msgspec.Struct, frozen=True):
    """Dial ``peer`` at ``addresses``, one after the other; report by ``DialEnded``."""

    peer: bytes
    addresses: tuple[str, ...]


class AskPeers(msgspec.Struct, frozen=True):
    """Ask ``peer`` for live peers; report by ``Told``."""

    peer: bytes


class CatchUp(msgspec.Struct, frozen=True):
    """Send ``peer`` our advert and digest, and take what we miss; report by ``Told``."""

    peer: bytes


class Find(msgspec.Struct, frozen=True):
    """Put a question of a search to ``peer``; report by ``Found``."""

    peer: bytes
    search: int
    question: Question


class SearchEnded(msgspec.Struct, frozen=True):
    """A search has ended with these peers, all connected."""

    number: int
    peers: tuple[bytes, ...]


class Follow(msgspec.Struct, frozen=True):
    """Subscribe to these topics, and to no others that are for adverts."""

    topics: frozenset[str]


class Announce(msgspec.Struct, frozen=True):
    """Sign a new advert, keep and gossip it."""


class Forward(msgspec.Struct, frozen=True):
    """The gossiped advert is news: pass it on."""


class Spread(msgspec.Struct, frozen=True):
    """Gossip these adverts of others by their ids, each in its topic: answers to questions taught us."""

    adverts: tuple[tuple[str, bytes], ...]


class Disconnect(msgspec.Struct, frozen=True):
    """Close the connection to ``peer``."""

    peer: bytes


class Blame(msgspec.Struct, frozen=True):
    """``peer`` broke the rules: the network counts it (``strikes``)."""

    peer: bytes
    reason: str


class Tell(msgspec.Struct, frozen=True):
    """Something a person may want to see. ``what`` is one of ``joined``, ``alone``, ``connected``, ``lost``,
    ``discovered``, ``left``, ``expired``, ``undialled``, ``violated``.
    """

    what: str
    peer: bytes
    detail: str = ""


Effect: TypeAlias = (
    Dial | AskPeers | CatchUp | Find | SearchEnded | Follow | Announce | Forward | Spread | Disconnect | Blame | Tell
)
