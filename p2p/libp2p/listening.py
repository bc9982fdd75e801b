"""Addresses as sockets want them: names resolved, wildcards spelled out, listeners opened or the reason given."""

from typing import Any

import psutil
import trio
from multiaddr import Multiaddr

from depin_node.core.errors import TransportError
from depin_node.p2p.addresses import Address, parse_listen, read_ip
from depin_node.p2p.groups import is_loopback
from depin_node.p2p.network import ListenError

_DNS_ADDRESSES_MAX = 4


async def resolve(target: Address) -> list[str]:
    """Return the target's plain addresses, ``/ip4|ip6/HOST/tcp/PORT``: more than one only for a DNS name. A name leads
    to this machine only if it says so (``localhost``): anybody can have one that does.

    Raises:
        TransportError: the name leads nowhere.
    """
    if target.kind in ("ip4", "ip6"):
        return [f"/{target.kind}/{target.host}/tcp/{target.port}"]
    family = {"dns": 0, "dns4": trio.socket.AF_INET, "dns6": trio.socket.AF_INET6}[target.kind]
    try:
        found = await trio.socket.getaddrinfo(target.host, target.port, family, trio.socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError(f"{target}: {error}") from error
    plain: dict[str, None] = {}
    for *_, where in found:
        try:
            ip = read_ip(str(where[0]))
        except ValueError:  # link-local: with a zone
            continue
        if is_loopback(target) or not (ip.is_loopback or ip.is_unspecified):
            plain[f"/ip{ip.version}/{ip}/tcp/{target.port}"] = None
    if not plain:
        raise TransportError(f"{target}: the name leads to no other machine; for one on this, write 127.0.0.1 or ::1")
    return list(plain)[:_DNS_ADDRESSES_MAX]


def expand(plain: str) -> list[str]:
    """Replace a wildcard by the addresses of this machine's interfaces: loopback only if there is no other. Raises
    ``OSError``."""
    _, kind, host, rest = plain.split("/", 3)
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return [plain]
    family = trio.socket.AF_INET if kind == "ip4" else trio.socket.AF_INET6
    hosts = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family and not entry.address.startswith("fe80")
    ]
    outside = [host for host in hosts if not host.startswith("127.") and host != "::1"]
    return [f"/{kind}/{host}/{rest}" for host in outside or hosts]


def listen_address(text: str) -> Multiaddr:
    """Return what libp2p takes to listen on. Raises ``ConfigError`` for what is no such address."""
    kind, host, port = parse_listen(text)
    return Multiaddr(f"/{kind}/{host}/tcp/{port}")


async def listen_on(swarm: Any, address: Multiaddr) -> None:
    """Listen, or raise ``ListenError`` with the reason, which libp2p does not tell."""
    if await swarm.listen(address):
        return
    host, port = address.value_for_protocol(address.protocols()[0].name), int(address.value_for_protocol("tcp"))
    reason = "libp2p refused it"
    try:
        for listener in await trio.open_tcp_listeners(port, host=host):
            await listener.aclose()
    except OSError as error:
        reason = error.strerror or str(error)
    raise ListenError(f"cannot listen on {address}: {reason}; choose another address or port with --listen")
