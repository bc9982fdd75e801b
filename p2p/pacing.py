"""How fast TCP may send to peers on this machine: as fast as they take it."""

import socket as sockets
from contextlib import suppress
from typing import Any

from depin_node.p2p.groups import is_loopback_host


def unpace_on_loopback(sock: Any) -> None:
    """On loopback there is no line to share with others: where the system's congestion control paces (BBR), nothing is
    gained by that, and a data channel loses a sixth of its speed, a blob by a stream a tenth.

    Args:
        sock: connected; of ``socket`` or ``trio.socket``.
    """
    if hasattr(sockets, "TCP_CONGESTION"):
        with suppress(OSError):  # not allowed here, or the peer has gone: slower, or soon over
            if is_loopback_host(sock.getpeername()[0]):
                sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_CONGESTION, b"reno")
