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
    host = ipaddress.ip_address(address.host)
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    prefix = 16 if host.version == 4 else 32
    return f"ip {ipaddress.ip_network((host, prefix), strict=False)}"
