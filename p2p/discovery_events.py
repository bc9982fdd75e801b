"""What the discovery machine is told, and what it wants done; see ``discovery.py``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from depin_node.p2p.directory import Need
from depin_node.p2p.shards import Shard

FOUND_MAX = 64
"""Peers in one answer to a question."""


@dataclass(frozen=True)
class Question:
    """Which peers are asked for: at most ``count`` that suit ``need`` (None: any), in ``shard`` (None: anywhere), in
    the order that ``point`` (16 random bytes) gives them.
    """

    need: Need | None
    shard: Shard | None
    point: bytes
    count: int


# What happens


@dataclass(frozen=True)
class Tick:
    """``wake_ns`` has come."""


@dataclass(frozen=True)
class PeerConnected:
    """The network has a connection to ``peer``."""

    peer: bytes
    address: str
    outbound: bool


@dataclass(frozen=True)
class PeerLost:
    """The network's last connection to ``peer`` is gone."""

    peer: bytes


@dataclass(frozen=True)
class DialEnded:
    """A dial has ended; ``error`` says why it failed."""

    peer: bytes
    error: str | None


@dataclass(frozen=True)
class Gossiped:
    """An advert came by gossip, handed on by ``peer``, who should have judged it."""

    peer: bytes
    data: bytes


@dataclass(frozen=True)
class Told:
    """``peer`` sent adverts. ``are_live``: it answered the question for live peers. ``bits`` are the sizes of its
    shards, if it caught us up.
    """

    peer: bytes
    adverts: Sequence[bytes]
    are_live: bool = False
    bits: Sequence[int] = ()


@dataclass(frozen=True)
class Found:
    """``peer`` answered a question of a search (0: of none); no adverts if it failed to."""

    peer: bytes
    search: int
    adverts: Sequence[bytes]


@dataclass(frozen=True)
class Search:
    """Somebody here wants ``count`` live peers that suit ``need``. ``number`` is new."""

    number: int
    need: Need
    count: int


@dataclass(frozen=True)
class Introduced:
    """``peer`` sent its own advert over its own connection."""

    peer: bytes
    data: bytes


@dataclass(frozen=True)
class Changed:
    """What we offer, or where we can be dialled, has changed."""


Event: TypeAlias = Tick | PeerConnected | PeerLost | DialEnded | Gossiped | Told | Found | Introduced | Changed | Search

# What is to be done


@dataclass(frozen=True)
class Dial:
    """Dial ``peer`` at ``addresses``, one after the other; report by ``DialEnded``."""

    peer: bytes
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class AskPeers:
    """Ask ``peer`` for live peers; report by ``Told``."""

    peer: bytes


@dataclass(frozen=True)
class CatchUp:
    """Send ``peer`` our advert and digest, and take what we miss; report by ``Told``."""

    peer: bytes


@dataclass(frozen=True)
class Find:
    """Put a question of a search to ``peer``; report by ``Found``."""

    peer: bytes
    search: int
    question: Question


@dataclass(frozen=True)
class SearchEnded:
    """A search has ended with these peers, all connected."""

    number: int
    peers: tuple[bytes, ...]


@dataclass(frozen=True)
class Follow:
    """Subscribe to these topics, and to no others that are for adverts."""

    topics: frozenset[str]


@dataclass(frozen=True)
class Announce:
    """Sign a new advert, keep and gossip it."""


@dataclass(frozen=True)
class Forward:
    """The gossiped advert is news: pass it on."""


@dataclass(frozen=True)
class Disconnect:
    """Close the connection to ``peer``."""

    peer: bytes


@dataclass(frozen=True)
class Blame:
    """``peer`` broke the rules: the network counts it (``strikes``)."""

    peer: bytes
    reason: str


@dataclass(frozen=True)
class Tell:
    """Something a person may want to see. ``what`` is one of ``joined``, ``alone``, ``connected``, ``lost``,
    ``discovered``, ``left``, ``expired``, ``undialled``, ``violated``.
    """

    what: str
    peer: bytes
    detail: str = ""


Effect: TypeAlias = (
    Dial | AskPeers | CatchUp | Find | SearchEnded | Follow | Announce | Forward | Disconnect | Blame | Tell
)
