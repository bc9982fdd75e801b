"""The canonical encoding: MessagePack arrays in field order, shortest integers, float64.

Everything that is signed, hashed or sent is a frozen ``Message``. ``decode`` is for bytes from outside: it bounds
sizes before it allocates, checks the schema, and refuses any other encoding of the same value, so that
``encode(decode(b)) == b`` holds for all that it accepts.
"""

from typing import Annotated, Any, TypeVar

import msgpack
import msgspec

from depin_node.core.errors import PeerViolation

M = TypeVar("M", bound="Message")

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A 32-byte Ed25519 public key: the identity of a node."""
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A 32-byte BLAKE3 hash."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
"""A short name that a person chose."""
Uint = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An unsigned integer that every language can hold."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all that is signed, hashed or sent: an array on the wire, one element a field, none optional."""


_encoder = msgspec.msgpack.Encoder()


def encode(value: Message) -> bytes:
    """Return the canonical encoding of ``value``."""
    return _encoder.encode(value)


def decode(data: bytes | bytearray | memoryview, kind: type[M], *, size_bytes_max: int) -> M:
    """Decode ``data`` as a ``kind``.

    Raises:
        PeerViolation: larger than ``size_bytes_max``, not MessagePack, against the schema, or not canonical.
    """
    if len(data) > size_bytes_max:
        raise PeerViolation(f"{kind.__name__}: {len(data)} bytes, more than the {size_bytes_max} allowed")
    try:
        raw: Any = msgpack.unpackb(data, max_ext_len=0, max_map_len=4096, strict_map_key=False)
        value = msgspec.convert(raw, kind)
        canonical = encode(value) == data
    except (
        ValueError,  # msgpack's and msgspec's errors derive from it, and so do broken UTF-8 and deep nesting
        TypeError,
        OverflowError,
        RecursionError,
        msgspec.ValidationError,
        msgpack.UnpackException,
    ) as error:
        raise PeerViolation(f"{kind.__name__}: malformed ({error})") from error
    if not canonical:
        raise PeerViolation(f"{kind.__name__}: not in canonical encoding")
    return value
