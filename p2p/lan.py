"""The shell of ``mdns.Beacon``: one socket for each network of this machine, and what is heard goes to the mesh.

IPv4 only: a node that listens on IPv6 alone is found by its first peers. The port is shared with other responders of
the machine (Avahi, say). What cannot be opened is told of once, and tried again with the next look at the interfaces. A
device that went and came back with its address is another network: what was joined on the first is heard no more.
"""

import ipaddress
import random
import secrets
import socket as plain
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import psutil
import structlog
import trio

from depin_node.core import clock
from depin_node.core.clock import SECOND_NS
from depin_node.p2p.addresses import Address, parse
from depin_node.p2p.groups import is_loopback
from depin_node.p2p.mdns import GROUP, PACKET_BYTES_MAX, PORT, Beacon, Say, answer, query

log = structlog.get_logger("depin_node.p2p")

NETWORKS_MAX = 16
LOOK_S = 30.0
_IP_MULTICAST_ALL = 49  # Linux: else every socket hears what any of them joined

_Network = tuple[int, ipaddress.IPv4Interface]
"""The device's number, which no other device gets, and our address there."""


class Lan:
    """See the module; ``open_lan`` makes it.

    Args:
        own_key: ours.
        addresses: returns where we listen.
        sighted: takes an address that may be worth a dial.
    """

    def __init__(
        self, own_key: bytes, addresses: Callable[[], Sequence[str]], sighted: Callable[[Address], None]
    ) -> None:
        self.networks: tuple[str, ...] = ()
        """Where we are heard now."""
        self.error = ""
        """Why not, where that is so."""
        self.sightings = 0
        self._addresses = addresses
        self._sighted = sighted
        self._name = secrets.token_hex(16).encode()
        rng = random.Random(secrets.token_bytes(32))  # noqa: S311 - spreads answers
        self._beacon = Beacon(own_key, rng, clock.now())
        self._sockets: dict[_Network, trio.socket.SocketType] = {}
        self._wake = trio.Event()

    async def run(self) -> None:
        """Say and hear, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            while True:
                await self._look(nursery)
                await trio.sleep(LOOK_S)

    async def _look(self, nursery: trio.Nursery) -> None:
        """Join the networks that this machine is in now, and leave those that it is in no longer."""
        try:
            there = interfaces()
        except OSError as error:  # no descriptor is left, perhaps; what is joined stays so
            log.debug("this machine's networks cannot be seen", reason=str(error))
            return
        for gone in [network for network in self._sockets if network not in there]:
            self._sockets.pop(gone).close()
        failures: list[str] = []
        for new in [network for network in there if network not in self._sockets]:
            try:
                self._sockets[new] = await _joined(new[1])
            except OSError as error:
                failures.append(f"{new[1]}: {error.strerror or error}")
                continue
            self._beacon.changed(clock.now())
            self._wake.set()
            nursery.start_soon(self._hear, new, self._sockets[new])
        if self.error != (reason := "; ".join(failures)):
            self.error = reason
            if reason:
                log.warning("not every network can be asked for nodes", reason=reason)
        self.networks = tuple(str(interface) for _, interface in self._sockets)

    async def _keep_time(self) -> None:
        while True:
            self._wake = trio.Event()
            wait_s = (self._beacon.wake_ns - clock.now().boottime_ns) / SECOND_NS
            with trio.move_on_after(max(0.0, wait_s)):
                await self._wake.wait()
                continue
            for say in self._beacon.tick(clock.now()):
                await self._say(say)

    async def _say(self, say: Say) -> None:
        shown = [address for address in self._addresses() if not is_loopback(parse(address))]
        data = query() if say is Say.QUERY else answer(self._name, shown)
        if say is Say.ANSWER and not shown:
            return
        for socket in list(self._sockets.values()):
            with suppress(OSError):  # the network is gone, as the next look will show
                await socket.sendto(data, (GROUP, PORT))

    async def _hear(self, network: _Network, socket: trio.socket.SocketType) -> None:
        with suppress(OSError, trio.ClosedResourceError):  # so it ends when the network is gone
            while True:
                data, (host, port) = await socket.recvfrom(PACKET_BYTES_MAX + 1)
                if ipaddress.IPv4Address(host) not in network[1].network:
                    continue
                for address in self._beacon.heard(data, host, port, clock.now()):
                    self.sightings += 1
                    self._sighted(address)
                self._wake.set()
        if self._sockets.get(network) is socket:
            del self._sockets[network]
            socket.close()


def interfaces() -> list[_Network]:
    """Return the networks of this machine that are up, but loopback, at most ``NETWORKS_MAX``. Raises ``OSError``."""
    up = psutil.net_if_stats()
    numbers = {name: number for number, name in plain.if_nameindex()}
    return [
        (numbers[name], ipaddress.IPv4Interface(f"{entry.address}/{entry.netmask}"))
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == plain.AF_INET and entry.netmask and name in numbers and name in up and up[name].isup
        if not ipaddress.IPv4Address(entry.address).is_loopback
    ][:NETWORKS_MAX]


async def _joined(interface: ipaddress.IPv4Interface) -> trio.socket.SocketType:
    """Return a socket of the group in one network. Raises ``OSError``."""
    socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    done = False
    try:
        own = interface.ip.packed
        socket.setsockopt(plain.SOL_SOCKET, plain.SO_REUSEADDR, 1)
        socket.setsockopt(plain.IPPROTO_IP, plain.IP_MULTICAST_TTL, 255)
        socket.setsockopt(plain.IPPROTO_IP, plain.IP_MULTICAST_LOOP, 1)  # nodes of this machine hear each other
        socket.setsockopt(plain.IPPROTO_IP, plain.IP_MULTICAST_IF, own)
        socket.setsockopt(plain.IPPROTO_IP, plain.IP_ADD_MEMBERSHIP, plain.inet_aton(GROUP) + own)
        with suppress(OSError):  # not Linux
            socket.setsockopt(plain.IPPROTO_IP, _IP_MULTICAST_ALL, struct.pack("i", 0))
        await socket.bind((GROUP, PORT))
        done = True
        return socket
    finally:
        if not done:
            socket.close()


@asynccontextmanager
async def open_lan(
    own_key: bytes, addresses: Callable[[], Sequence[str]], sighted: Callable[[Address], None]
) -> AsyncIterator[Lan]:
    """Be found on the local networks, and find others, as long as the block runs; see ``Lan``."""
    lan = Lan(own_key, addresses, sighted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lan.run)
        try:
            yield lan
        finally:
            nursery.cancel_scope.cancel()
