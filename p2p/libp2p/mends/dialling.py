"""Mends of dialling and listening."""

from typing import Any

import libp2p.host.basic_host as basic_host
import libp2p.io.trio as tcp_io
import libp2p.network.swarm as swarm_module
import libp2p.transport.tcp.tcp as tcp_module
import trio
from libp2p.host.basic_host import BasicHost
from libp2p.network.auto_connector import AutoConnector

from depin_node.p2p.libp2p.mends.registry import patch


@patch
def dial_blacklist() -> None:
    """Fault: a peer whose one tried address failed is not dialled again for 60 s, at whatever address.

    Mend: never mark; the peer directory decides whom to dial and when. Until: the cache is keyed by address (> 0.8.1).
    """
    swarm_module._NegativePeerCache.mark_failed = lambda self, peer_id: None


@patch
def auto_dialling() -> None:
    """Fault: below half of ``high_watermark`` the host dials whoever is in its peerstore, at addresses that any peer
    may have put there.

    Until: 0 for ``min_connections`` and ``low_watermark`` switches it off (> 0.8.1).
    """

    async def maybe_connect(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    AutoConnector.maybe_connect = maybe_connect


@patch
def identify() -> None:
    """Fault: every connected peer is asked for, or may push, its addresses and protocols, and all it says is kept,
    without a bound: a way to fill memory and to have others dialled.

    We learn addresses from signed adverts. Mend: neither ask nor answer. Until: it is an option (> 0.8.1).
    """
    BasicHost._schedule_identify = lambda self, peer_id, *, reason: None
    original = basic_host.get_default_protocols

    def only_ping(host: Any) -> Any:
        return {name: handler for name, handler in original(host).items() if "/ping/" in name}

    basic_host.get_default_protocols = only_ping


@patch
def dial_delay() -> None:
    """Fault: a dial waits 250 ms before it returns, even when it succeeded at once (``failed_event`` never comes).

    Until: py-libp2p stops waiting on success (> 0.8.1).
    """
    swarm_module._HAPPY_EYEBALLS_DELAY = 0.02


@patch
def exclusive_listen() -> None:
    """Fault: listeners set SO_REUSEPORT, so a second node of the same user binds the same port without an error and
    the kernel spreads connections over both. And one at ``::`` takes the port of IPv4 too, so that a node cannot listen
    on both at one port, nor tell who calls by which.

    SO_REUSEPORT is there for hole punching, which we do from our calls' port (``calling``). Until: both are options
    (> 0.8.1).
    """

    def set_reuse_flags(socket: Any) -> None:
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        if socket.family == trio.socket.AF_INET6:
            socket.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)

    tcp_module._set_reuse_flags = set_reuse_flags


@patch
def ipv6_addresses() -> None:
    """Fault: the other end of an IPv6 connection has no address, since its socket names four numbers and not two.

    Until: py-libp2p takes the first two (> 0.8.1).
    """

    def get_remote_address(self: Any) -> tuple[str, int] | None:
        if self._cached_remote_address is None:
            try:
                host, port, *_ = self.stream.socket.getpeername()
            except OSError:  # it is gone
                return None
            self._cached_remote_address = (host, port)
        address: tuple[str, int] = self._cached_remote_address
        return address

    tcp_io.TrioTCPStream.get_remote_address = get_remote_address
