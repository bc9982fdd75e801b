"""Groups: nodes that may have one owner, as far as their addresses tell.

Identities are free, addresses less so: whatever counts or draws peers does so by group. IPv4 addresses of one
/16 are one group, IPv6 addresses of one /32, and names of one domain (its last two labels). Nodes on this
machine and nodes that the operator listed each count as their own.
"""

import ipaddress

from depin_node.p2p.addresses import Address


def is_loopback(address: Address) -> bool:
    """Tell whether ``address`` is on the machine that dials it."""
    if address.kind in ("ip4", "ip6"):
        return ipaddress.ip_address(address.host).is_loopback
    return address.host.lower().rstrip(".") == "localhost"


def own_group(key: bytes) -> str:
    """Return the group of a node that counts as its own."""
    return f"key {key.hex()}"


def group_of(address: Address) -> str:
    """Return the group of the node at ``address``, as text that says which."""
    if is_loopback(address):
        return own_group(address.peer)
    if address.kind not in ("ip4", "ip6"):
        return "dns " + ".".join(address.host.lower().rstrip(".").split(".")[-2:])
    return group_of_host(address.host)


def group_of_host(host: str) -> str:
    """Return the group of an IP address, as text; loopback is one group, and so is what came by way of a relay."""
    if not host:
        return "relayed"
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    prefix = 16 if ip.version == 4 else 32
    return f"ip {ipaddress.ip_network((ip, prefix), strict=False)}"


def is_loopback_host(host: str) -> bool:
    """Tell whether an IP address is of this machine."""
    if not host:
        return False
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback
