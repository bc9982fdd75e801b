"""TCP calls to other machines, all from one local port.

A NAT gives each call an outer endpoint. If all of a node's calls leave from one port, what peers see of them tells what
kind of NAT it is; and the hole that they have made is one that a peer can be told to call (``reach/``). The port is
drawn by the system at the first call, for each family; a call that cannot have it (another one to the same endpoint has
just ended) leaves from any. Calls to this machine are plain.
"""

import errno
import ipaddress
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

_PUNCH_TRY_S = 1.5
_PUNCH_PAUSE_S = 0.1
# A call from the same port to the same endpoint is there already, or has just ended.
_TAKEN = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EALREADY, errno.EISCONN}


class Caller:
    """The one port, and calls from it."""

    def __init__(self) -> None:
        self._ports: dict[int, int] = {}
        self._drawing = trio.Lock()

    async def call(self, host: str, port: int) -> trio.SocketStream:
        """Connect, from the one port if possible. Raises ``OSError``."""
        address = ipaddress.ip_address(host)
        family = trio.socket.AF_INET if address.version == 4 else trio.socket.AF_INET6
        if not address.is_loopback:
            async with self._drawing:
                socket = await _bound(family, self._ports.get(family, 0))
                if socket is not None:
                    self._ports.setdefault(family, socket.getsockname()[1])
            if socket is not None and await _connects(socket, host, port):
                return trio.SocketStream(socket)
        return await trio.open_tcp_stream(host, port)

    def use_for(self, swarm: Any) -> None:
        """Let libp2p's TCP transport call this way."""
        for transport in swarm.transport_manager.get_transports():
            if isinstance(transport, TCP):
                transport._dial_resolved = self._dial

    async def _dial(self, address: Multiaddr, source: object = None) -> RawConnection:
        _, _, host, _, port, *_ = str(address).split("/")
        try:
            return raw(await self.call(host, int(port)), outbound=True)
        except (OSError, ValueError) as error:
            raise OpenConnectionError(f"{address}: {error}") from error


async def _bound(family: int, port: int) -> trio.socket.SocketType | None:
    socket = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)  # our other calls hold the port too
    try:
        await socket.bind(("0.0.0.0" if family == trio.socket.AF_INET else "::", port))  # noqa: S104 - to call, not listen
    except OSError:
        socket.close()
        return None
    return socket


async def _connects(socket: trio.socket.SocketType, host: str, port: int) -> bool:
    """Connect; False if the port is in use for a call to the same endpoint. Raises ``OSError`` for all else."""
    done = False
    try:
        await socket.connect((host, port))
        done = True
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
    finally:
        if not done:
            socket.close()
    return done


async def punch(host: str, port: int, local_port: int) -> trio.SocketStream:
    """Call ``host`` from ``local_port`` again and again, while it calls us, until the calls meet in the middle (TCP's
    simultaneous open, RFC 9293, 3.5). The caller sets the deadline. Raises ``OSError`` if the port cannot be had.
    """
    family = trio.socket.AF_INET if ipaddress.ip_address(host).version == 4 else trio.socket.AF_INET6
    while True:
        socket = await _bound(family, local_port)
        if socket is None:
            raise OSError(errno.EADDRINUSE, f"port {local_port} is in use")
        met = False
        try:
            with trio.move_on_after(_PUNCH_TRY_S):
                await socket.connect((host, port))
                met = True
        except OSError as error:
            if error.errno in _TAKEN:
                raise
        finally:
            if not met:
                socket.close()
        if met:
            return trio.SocketStream(socket)
        await trio.sleep(_PUNCH_PAUSE_S)


def raw(stream: trio.SocketStream, *, outbound: bool) -> RawConnection:
    """Return what libp2p upgrades."""
    return RawConnection(TrioTCPStream(stream), outbound)
