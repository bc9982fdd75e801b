"""Nodes on the same local network find each other by multicast DNS: what is said, and when. A machine without I/O.

The flow, as the mDNS of libp2p has it: a node asks for ``_p2p._udp.local`` (``PTR``) when it comes up, and then less
and less often; whoever is there answers to all, with ``TXT`` records of its addresses, ``dnsaddr=/ip4/…/p2p/…``, and so
does a newcomer without being asked. Nobody is answered more than once a second.

Anybody on the network can say anything, so little is believed: only packets from a host of a network that we are in;
of the addresses told only one at the very host that sent it, so that nobody can name another as a target; so many
packets a second, so many addresses. What is found is dialled like any other address that was heard of, and hello says
whether it is of our mesh.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError
from depin_node.p2p.addresses import Address, parse
from depin_node.p2p.bucket import Bucket

if TYPE_CHECKING:
    from random import Random

GROUP, PORT = "224.0.0.251", 5353
PACKET_BYTES_MAX = 9000
SERVICE = (b"_p2p", b"_udp", b"local")
ADDRESSES_MAX = 8
_RECORDS_MAX = 64
_LABELS_MAX = 16
_POINTERS_MAX = 8
"""In one name; responders need one or two."""
_PTR, _TXT, _IN, _TTL_S = 12, 16, 1, 120
_IS_ANSWER = 0x8400
_HEADER = struct.Struct(">6H")
_PREFIX = b"dnsaddr="
QUERY_S = (1.0, 600.0)
"""First and longest pause between queries; each is four times the one before."""
ANSWER_AFTER_S = (0.02, 0.12)
PACKETS_BURST, PACKETS_PER_S = 64, 16.0
SIGHTED_BURST, SIGHTED_PER_S = 16, 0.5


class Say(Enum):
    """What is to be sent to the group now."""

    QUERY = "query"
    ANSWER = "answer"


@dataclass(frozen=True)
class Packet:
    """What a packet says to us: a question for nodes, or the addresses of some."""

    asks: bool
    addresses: tuple[str, ...]


class Beacon:
    """When to ask and to answer, and what to believe. Call ``tick`` when ``wake_ns`` has come.

    Args:
        own_key: ours; what we say comes back to us.
        rng: spreads answers.
        now: when it starts.
    """

    def __init__(self, own_key: bytes, rng: "Random", now: Now) -> None:
        self._own_key = own_key
        self._rng = rng
        self._query_ns = self._answer_ns = now.boottime_ns
        self._pause_s = QUERY_S[0]
        self._answered_ns = now.boottime_ns - SECOND_NS
        self._is_asked = True
        self._packets = Bucket(PACKETS_BURST, PACKETS_PER_S, now)
        self._sighted = Bucket(SIGHTED_BURST, SIGHTED_PER_S, now)

    @property
    def wake_ns(self) -> int:
        """When (boot clock) the next ``tick`` is due."""
        return min(self._query_ns, self._answer_ns) if self._is_asked else self._query_ns

    def tick(self, now: Now) -> list[Say]:
        """Return what is to be said."""
        said: list[Say] = []
        if now.boottime_ns >= self._query_ns:
            self._query_ns = now.boottime_ns + int(self._pause_s * self._rng.uniform(2 / 3, 4 / 3) * SECOND_NS)
            self._pause_s = min(4 * self._pause_s, QUERY_S[1])
            said.append(Say.QUERY)
        if self._is_asked and now.boottime_ns >= self._answer_ns:
            self._is_asked, self._answered_ns = False, now.boottime_ns
            said.append(Say.ANSWER)
        return said

    def changed(self, now: Now) -> None:
        """Our networks, or addresses, have changed: begin anew."""
        self._query_ns, self._pause_s = now.boottime_ns, QUERY_S[0]
        self._answer_soon(now)

    def heard(self, data: bytes, host: str, port: int, now: Now) -> list[Address]:
        """Take a packet that came from ``host``, which is in a network of ours; return whom it may be worth to dial."""
        if len(data) > PACKET_BYTES_MAX or not self._packets.take(1, now):
            return []
        packet = read(data)
        if packet is None:
            return []
        if packet.asks:
            self._answer_soon(now)
        if port != PORT:
            return []  # an answer that no responder sent (RFC 6762, 11)
        found = dict.fromkeys(self._believed(packet.addresses, host))
        return [address for address in found if self._sighted.take(1, now)]

    def _answer_soon(self, now: Now) -> None:
        if not self._is_asked:
            self._is_asked = True
            soon_ns = now.boottime_ns + int(self._rng.uniform(*ANSWER_AFTER_S) * SECOND_NS)
            self._answer_ns = max(soon_ns, self._answered_ns + SECOND_NS)

    def _believed(self, addresses: Sequence[str], host: str) -> Iterator[Address]:
        for text in addresses[:ADDRESSES_MAX]:
            try:
                address = parse(text)
            except ConfigError:
                continue  # of another transport, perhaps
            if address.host == host and not address.relay and address.peer != self._own_key:
                yield address


def query() -> bytes:
    """Return the packet that asks who is there."""
    return _HEADER.pack(0, 0, 1, 0, 0, 0) + _name(SERVICE) + struct.pack(">2H", _PTR, _IN)


def answer(name: bytes, addresses: Sequence[str]) -> bytes:
    """Return the packet that says where we are. ``name`` is a label of our own: random, 32 to 63 characters."""
    instance = (name, *SERVICE)
    texts = [_PREFIX + address.encode() for address in addresses[:ADDRESSES_MAX]]
    text = b"".join(bytes([len(part)]) + part for part in texts if len(part) < 256) or b"\0"
    records = _record(SERVICE, _PTR, _name(instance)) + _record(instance, _TXT, text)
    return _HEADER.pack(0, _IS_ANSWER, 0, 1, 0, 1) + records


def read(data: bytes) -> Packet | None:
    """Return what a packet says, or None if it is damaged."""
    try:
        return _read(data)
    except (IndexError, ValueError, struct.error):
        return None


def _read(data: bytes) -> Packet:
    _, flags, questions, *sections = _HEADER.unpack_from(data)
    if questions + sum(sections) > _RECORDS_MAX:
        raise ValueError("too many records")
    offset, asks, addresses = _HEADER.size, False, list[str]()
    for _ in range(questions):
        labels, offset = _labels(data, offset)
        kind, _ = struct.unpack_from(">2H", data, offset)
        offset += 4
        asks = asks or (labels == SERVICE and kind == _PTR and not flags & 0x8000)
    for _ in range(sum(sections) if flags & 0x8000 else 0):
        labels, offset = _labels(data, offset)
        kind, _, _, size_bytes = struct.unpack_from(">2HIH", data, offset)
        offset += 10
        if offset + size_bytes > len(data):
            raise ValueError("a record ends beyond the packet")
        if kind == _TXT and labels[1:] == SERVICE:
            addresses += _texts(data[offset : offset + size_bytes])
        offset += size_bytes
    return Packet(asks, tuple(addresses))


def _texts(data: bytes) -> Iterator[str]:
    offset = 0
    while offset < len(data):
        part = data[offset + 1 : offset + 1 + data[offset]]
        if part.startswith(_PREFIX):
            yield part[len(_PREFIX) :].decode("ascii")
        offset += 1 + data[offset]


def _labels(data: bytes, offset: int) -> tuple[tuple[bytes, ...], int]:
    """Return a name, in lower case, and where it ends. A pointer leads back, so that none leads in a circle; few are
    followed, as the name of each record could lead along one long chain."""
    labels: list[bytes] = []
    end, pointers = None, 0
    while size_bytes := data[offset]:
        if size_bytes >= 0xC0:
            target = struct.unpack_from(">H", data, offset)[0] & 0x3FFF
            pointers += 1
            if target >= offset or pointers > _POINTERS_MAX:
                raise ValueError("a name that leads forward, or too often elsewhere")
            end = offset + 2 if end is None else end
            offset = target
            continue
        labels.append(data[offset + 1 : offset + 1 + size_bytes].lower())
        if size_bytes >= 0x40 or len(labels) > _LABELS_MAX:
            raise ValueError("a label or a name is too long")
        offset += 1 + size_bytes
    return tuple(labels), offset + 1 if end is None else end


def _name(labels: Sequence[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _record(labels: Sequence[bytes], kind: int, data: bytes) -> bytes:
    return _name(labels) + struct.pack(">2HIH", kind, _IN, _TTL_S, len(data)) + data
