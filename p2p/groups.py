"""Groups: nodes that may have one owner, as far as their addresses tell.

Identities are free, addresses less so: whatever counts or draws peers does so by group. IPv4 addresses of one
/16 are one group, IPv6 addresses of one /32, and names of one domain (its last two labels). Nodes on this
machine and nodes that the operator listed each count as their own.
"""

import ipaddress
from functools import lru_cache

from depin_node.p2p.addresses import Address, IPAddress, read_ip

HOSTS_CACHED = 8192


def is_loopback(address: Address) -> bool:
    """Tell whether ``address`` is on the machine that dials it."""
    return _reach(address.kind, address.host) == "loopback"


def is_private(address: Address) -> bool:
    """Tell whether ``address`` is on this machine or in a network behind a router."""
    return _reach(address.kind, address.host) != "public"


def own_group(key: bytes) -> str:
    """Return the group of a node that counts as its own."""
    return f"key {key.hex()}"


def group_of(address: Address) -> str:
    """Return the group of the node at ``address``, as text that says which."""
    return own_group(address.peer) if is_loopback(address) else _group(address.kind, address.host)


@lru_cache(maxsize=HOSTS_CACHED)
def group_of_host(host: str) -> str:
    """Return the group of an IP address, as text; loopback is one group, and so is what came by way of a relay."""
    if not host:
        return "relayed"
    ip = _ip(host)
    prefix = 16 if ip.version == 4 else 32
    return f"ip {ipaddress.ip_network((ip, prefix), strict=False)}"


@lru_cache(maxsize=HOSTS_CACHED)
def is_loopback_host(host: str) -> bool:
    """Tell whether an IP address is of this machine."""
    return bool(host) and _ip(host).is_loopback


def _ip(host: str) -> IPAddress:
    return read_ip(host.partition("%")[0])  # sockets name a zone


@lru_cache(maxsize=HOSTS_CACHED)
def _reach(kind: str, host: str) -> str:
    if kind not in ("ip4", "ip6"):
        return "loopback" if host.lower().rstrip(".") == "localhost" else "public"
    parsed = _ip(host)
    return "loopback" if parsed.is_loopback else "private" if parsed.is_private else "public"


def _group(kind: str, name: str) -> str:
    if kind not in ("ip4", "ip6"):
        return "dns " + ".".join(name.lower().rstrip(".").split(".")[-2:])
    return group_of_host(name)
