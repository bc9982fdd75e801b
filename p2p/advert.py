"""Adverts: what a node tells the mesh about itself, signed, at most 1 KiB, gossiped.

A node signs a new advert at an interval and when something changed; of one node only the advert with the
highest ``seq`` counts, and none counts after its expiry. A node that shuts down signs a last one with
``leaving`` set. It expires no earlier than the one before, so that it outlives every older advert that is
still on its way and none of them brings the node back.

Addresses stand without ``/p2p/<id>``: the id is the signer's, so nobody can advertise an address as that of
another peer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.wire import Message, Name, Uint
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, NOBODY, Signed, Verified, sign, verify
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import CERTIFICATE_BYTES_MAX
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.shards import capabilities_of, place_of

ADVERT_BYTES_MAX = 1024
ADDRESSES_MAX = 8
DEVICES_MAX = 8
PREFIX_BYTES = 8
PROTOCOL_MIN = PROTOCOL_MAX = 2
"""The versions of the set of protocols that this software speaks; each protocol also has its own, in its name."""

MODEL_CHARACTERS_MAX = 48
_Speed = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=4096)]
_Version = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class DeviceOffer(Message, frozen=True):
    """One device that a node lends.

    ``device_class`` means nothing here: providers of one class give results that agree bit for bit.
    ``memory_mib`` is what one task may use; ``slots`` tasks run at once, of which ``free_slots`` wait for work.
    ``model`` is what the device calls itself. The speeds are those that the node measured for one slot, in millions of
    float32 and float64 operations a second and in MB/s of memory; 0: not measured. They are claims, like all else here.
    """

    device_class: Name
    memory_mib: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
    slots: _Count
    free_slots: _Count
    model: Annotated[str, msgspec.Meta(max_length=MODEL_CHARACTERS_MAX)] = ""
    mflops_f32: _Speed = 0
    mflops_f64: _Speed = 0
    mbytes_s: _Speed = 0


class Advert(Signed, frozen=True):
    """What a node can run, how loaded it is, its price and where it can be dialled.

    ``price`` is in thousandths of a credit for a reference-second. ``protocol_min`` to
    ``protocol_max`` are the versions of the stream protocols that it speaks. ``certificate`` is its owner's, or empty.
    """

    TYPE: ClassVar[str] = "advert"
    VERSION: ClassVar[int] = 3
    SIZE_BYTES_MAX: ClassVar[int] = ADVERT_BYTES_MAX - ENVELOPE_OVERHEAD_BYTES
    LIFETIME_S_MAX: ClassVar[int] = 4 * 3600

    addresses: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=256)], ...], msgspec.Meta(max_length=ADDRESSES_MAX)
    ]
    protocol_min: _Version
    protocol_max: _Version
    lending: bool
    devices: Annotated[tuple[DeviceOffer, ...], msgspec.Meta(max_length=DEVICES_MAX)]
    price: Uint
    software: Annotated[str, msgspec.Meta(max_length=32)]
    leaving: bool
    certificate: Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]


class DigestLine(Message, frozen=True):
    """One known advert in short: the first bytes of its signer's key, and ``seq``."""

    prefix: Annotated[bytes, msgspec.Meta(min_length=PREFIX_BYTES, max_length=PREFIX_BYTES)]
    seq: Uint


def common_protocol(low: int, high: int, *, ours: tuple[int, int] = (PROTOCOL_MIN, PROTOCOL_MAX)) -> int | None:
    """Return the latest version that we and a peer that speaks ``low`` to ``high`` have in common; None: there is none.

    ``ours``: what we speak.
    """
    latest = min(high, ours[1])
    return latest if latest >= max(low, ours[0]) else None


@dataclass(frozen=True)
class Offer:
    """What a node tells of itself beyond its addresses: the fields of ``Advert`` of the same names."""

    lending: bool = False
    devices: tuple[DeviceOffer, ...] = ()
    price: int = 0
    software: str = ""


def sign_advert(
    identity: Identity,
    network_id: str,
    offer: Offer,
    addresses: Sequence[str],
    *,
    seq: int,
    now: Now,
    lifetime_s: int,
    leaving: bool = False,
    certificate: bytes = b"",
) -> bytes:
    """Return a signed advert. Of ``addresses`` (each ends in our ``/p2p/<id>``) it holds as many as fit, and none that
    would void it.

    Raises:
        ConfigError: what is offered takes more than ``ADVERT_BYTES_MAX`` even without an address.
    """
    suffix = f"/p2p/{peer_id(identity.key)}"
    shown = [address.removesuffix(suffix) for address in addresses if _can_be_told(address)][:ADDRESSES_MAX]
    if len(offer.devices) > DEVICES_MAX:
        raise ConfigError(f"{len(offer.devices)} devices are too many to advertise: lend at most {DEVICES_MAX}")
    while True:
        advert = Advert(
            to=NOBODY,
            expires_s=now.wall_ns // SECOND_NS + lifetime_s,
            seq=seq,
            addresses=tuple(shown),
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            lending=offer.lending,
            devices=offer.devices,
            price=offer.price,
            software=offer.software,
            leaving=leaving,
            certificate=certificate,
        )
        data = sign(identity, network_id, advert)
        if len(data) <= ADVERT_BYTES_MAX:
            return data
        if not shown:
            raise ConfigError(
                f"the devices to lend take {len(data)} bytes to advertise, at most {ADVERT_BYTES_MAX} fit"
            )
        shown.pop()


def _can_be_told(address: str) -> bool:
    try:
        return not parse(address).is_wildcard
    except ConfigError:
        return False


class ReadAdvert(msgspec.Struct, frozen=True):
    """An advert that was checked, and what follows from it and its signer alone: its ``addresses``, none of which is a
    wildcard, in which shards the signer is (``place``, ``capabilities``), and its ``line`` in digests.
    """

    verified: Verified[Advert]
    addresses: tuple[Address, ...]
    place: int
    capabilities: tuple[str, ...]
    line: DigestLine


def read_advert(data: bytes, network_id: str, now: Now) -> ReadAdvert:
    """Check an advert that arrived.

    Raises:
        PeerViolation: forged, expired, malformed, oversized, of another network, or with a damaged address.
    """
    verified = verify(data, Advert, network_id, to=NOBODY, now=now)
    advert = verified.payload
    if advert.protocol_min > advert.protocol_max:
        raise PeerViolation("advert: the range of protocol versions is empty")
    suffix = f"/p2p/{peer_id(verified.sender)}"
    try:
        addresses = tuple(parse(text + suffix) for text in advert.addresses)
    except ConfigError as error:
        raise PeerViolation(f"advert: {error}") from error
    if any(address.is_wildcard for address in addresses):
        raise PeerViolation("advert: nobody can dial a wildcard address")
    return ReadAdvert(
        verified,
        addresses,
        place_of(verified.sender),
        capabilities_of(advert.lending, advert.devices),
        DigestLine(verified.sender[:PREFIX_BYTES], advert.seq),
    )
