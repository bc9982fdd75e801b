"""Signed messages: ``[sender_key, signature, payload]``, checked over the bytes that arrived.

The signature covers ``label ‖ payload``, where the label ``depin/<network>/<type>/v<n>\\0`` comes from the protocol
that the bytes came in by, never from the bytes; so no message can be taken for one of another type, version or
network. The payload itself begins with whom it is to, until when it holds, and a sequence number (``replay.py``).
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerStale, PeerViolation
from depin_node.core.wire import Key, Message, Uint, decode, encode
from depin_node.crypto.identity import Identity

SKEW_S_MAX = 60
"""How far peers' wall clocks may differ before messages count as expired (design.md, part 7)."""
NOBODY = b""
"""The ``to`` of messages that anybody may read: adverts and the like."""
ENVELOPE_OVERHEAD_BYTES = 32 + 64 + 16

Recipient = Annotated[bytes, msgspec.Meta(max_length=32)]


class Signed(Message, frozen=True):
    """Base of all signed payloads.

    ``to`` is the recipient's key, or ``NOBODY``; ``expires_s`` is wall time, seconds since the Unix epoch; ``seq``
    grows with every message that a node signs.
    """

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    SIZE_BYTES_MAX: ClassVar[int]
    LIFETIME_S_MAX: ClassVar[int] = 600

    to: Recipient
    expires_s: Uint
    seq: Uint


S = TypeVar("S", bound=Signed)


class Envelope(Message, frozen=True):
    """The outer array of a signed message."""

    sender: Key
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    payload: bytes


@dataclass(frozen=True)
class Verified(Generic[S]):
    """A payload whose signature, recipient and expiry were checked. ``data`` is the envelope as it arrived."""

    sender: bytes
    payload: S
    data: bytes


def label(network: str, kind: type[Signed], version: int | None = None) -> bytes:
    """Return what is signed in front of a payload of ``kind``, of this ``version`` or its own, on ``network``."""
    return f"depin/{network}/{kind.TYPE}/v{version or kind.VERSION}\0".encode()


def sign(identity: Identity, network: str, message: Signed) -> bytes:
    """Return ``message`` in its signed envelope."""
    payload = encode(message)
    return encode(Envelope(identity.key, identity.sign(label(network, type(message)) + payload), payload))


@lru_cache(maxsize=4096)
def _verify_key(key: bytes) -> VerifyKey:
    return VerifyKey(key)


def verify_signature(data: bytes, kind: type[S], network: str) -> Verified[S]:
    """Check who signed ``data``, and decode it; who it is to and whether it has expired are not looked at.

    This is for evidence and receipts, which outlive their expiry. Messages from peers go through ``verify``.

    Raises:
        PeerViolation: oversized, malformed, not canonical, or not signed by the key it names.
    """
    envelope = decode(data, Envelope, size_bytes_max=kind.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES)
    _check_signature(envelope, kind, label(network, kind))
    payload = decode(envelope.payload, kind, size_bytes_max=kind.SIZE_BYTES_MAX)
    return Verified(envelope.sender, payload, bytes(data))


def _check_signature(envelope: Envelope, kind: type[Signed], signed_label: bytes) -> None:
    try:
        _verify_key(envelope.sender).verify(signed_label + envelope.payload, envelope.signature)
    except (BadSignatureError, ValueError) as error:
        signed = signed_label[:-1].decode()  # another network or version looks like a forgery, so say which
        raise PeerViolation(f"{kind.TYPE}: the signature is not the sender's for {signed}") from error


def read_kept(data: bytes, kind: type[S], network: str) -> S:
    """Return a message that this node has kept since it was verified, maybe since an older version of ``kind``.

    For kinds whose versions have only ever added fields at the end of structures, with a default that says what was
    meant without them. What comes from outside goes through ``verify``.

    Raises:
        PeerViolation: as ``verify_signature``, and of no version up to this one.
    """
    try:
        return verify_signature(data, kind, network).payload
    except PeerViolation:
        envelope = decode(data, Envelope, size_bytes_max=kind.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES)
        for version in range(kind.VERSION - 1, 0, -1):
            with suppress(PeerViolation):
                _check_signature(envelope, kind, label(network, kind, version))
                return msgspec.msgpack.decode(envelope.payload, type=kind)  # fields that were not there yet: defaults
        raise


def verify(data: bytes, kind: type[S], network: str, *, to: bytes, now: Now) -> Verified[S]:
    """Check and decode a message that arrived. ``to`` is the receiver's key, or ``NOBODY`` for gossip.

    Raises:
        PeerViolation: as ``verify_signature``; or addressed to somebody else, or valid for longer than the type allows
            (which would have to be remembered against replay for as long).
        PeerStale: expired.
    """
    verified = verify_signature(data, kind, network)
    message = verified.payload
    if message.to != to:
        raise PeerViolation(f"{kind.TYPE}: addressed to another peer")
    wall_s = now.wall_ns // SECOND_NS
    if message.expires_s < wall_s - SKEW_S_MAX:
        raise PeerStale(f"{kind.TYPE}: expired {wall_s - message.expires_s} s ago")
    if message.expires_s > wall_s + kind.LIFETIME_S_MAX + SKEW_S_MAX:
        raise PeerViolation(f"{kind.TYPE}: valid for longer than the {kind.LIFETIME_S_MAX} s allowed")
    return verified
