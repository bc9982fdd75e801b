"""How a mend is registered and applied: the parts that the other modules of this package share."""

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import structlog
from libp2p.crypto.keys import KeyPair
from libp2p.io.trio import TrioTCPStream
from libp2p.stream_muxer.yamux.yamux import YAMUX_HEADER_FORMAT

from depin_node.p2p.network import NetworkLimits

log = structlog.get_logger("depin_node.p2p")

FRAME_HEADER = struct.Struct(YAMUX_HEADER_FORMAT)
"""Version, type, flags, stream id, length."""


@dataclass
class Plan:
    """The options one host is built from, as a careless caller would give them; the mends change them."""

    key_pair: KeyPair
    limits: NetworkLimits
    security: dict[Any, Any] | None = None
    """Of ``new_host``; None accepts whatever libp2p does."""


Mend = Callable[[Plan], None]
MENDS: dict[str, Mend] = {}
_applied: set[str] = set()
_LIMITS = NetworkLimits()


def apply(plan: Plan, *, without: Collection[str] = ()) -> None:
    """Apply all mends but those named in ``without``, which is for tests."""
    for name, mend in MENDS.items():
        if name not in without:
            mend(plan)


def option(mend: Mend) -> Mend:
    """Register a mend that changes the plan of one host."""
    MENDS[mend.__name__] = mend
    return mend


def patch(mend: Callable[[], None]) -> Callable[[], None]:
    """Register a mend that changes the library, once a process."""

    def once(plan: Plan) -> None:
        if mend.__name__ not in _applied:
            _applied.add(mend.__name__)
            mend()

    once.__doc__ = mend.__doc__
    MENDS[mend.__name__] = once
    return mend


def is_applied(name: str) -> bool:
    """Tell whether a mend of the library is in."""
    return name in _applied


def limits_of(connection: Any) -> NetworkLimits:
    """Return the limits of the host that a yamux connection belongs to."""
    limits: NetworkLimits = getattr(getattr(connection, "swarm", None), "depin_limits", _LIMITS)
    return limits


def abort(connection: Any) -> None:
    """Close a yamux connection's socket, or circuit, at once, without a word; its reader then cleans up."""
    carrier = tcp_of(connection)
    if isinstance(carrier, TrioTCPStream):
        carrier.stream.socket.close()
    else:
        carrier.abort()


def tcp_of(connection: Any) -> Any:
    """Return the ``TrioTCPStream``, or ``carrier.Carrier``, under yamux, session, Noise, its packets and the raw
    connection."""
    layer = connection.secured_conn
    for name in ("conn", "read_writer", "read_write_closer", "stream"):
        layer = getattr(layer, name)
    return layer
