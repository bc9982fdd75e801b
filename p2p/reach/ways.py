"""In which order a peer's addresses are worth dialling from here: near ones, then direct ones, then those of relays.

A node behind a NAT advertises its address inside it too, for its neighbours there. From elsewhere that address is
nobody's, or somebody else's: it is left out if there is any other.
"""

import ipaddress
from collections.abc import Collection, Sequence

from depin_node.p2p.addresses import Address, parse, read_ip

# Addresses that mean different machines in different places: RFC 1918, RFC 6598, RFC 4193.
_LOCAL_NETWORKS = [
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]
_NEAR_BITS = {4: 16, 6: 48}


def best_first(addresses: Sequence[str], own_hosts: Collection[str]) -> list[str]:
    """Return ``addresses`` (of one peer) in the order in which to dial them, from a machine that has ``own_hosts``."""
    near_networks = {_near(host) for host in own_hosts}
    ranked = [(_rank(parse(address), near_networks), address) for address in addresses]
    worth = [(rank, address) for rank, address in ranked if rank is not None]
    return [address for _, address in sorted(worth, key=lambda item: item[0])] or list(addresses)


def _rank(address: Address, near_networks: Collection[object]) -> int | None:
    if address.relay:
        return 2
    if address.kind not in ("ip4", "ip6") or not is_local(address.host):
        return 1
    return 0 if _near(address.host) in near_networks else None


def is_local(host: str) -> bool:
    """Tell whether an IP address means another machine elsewhere."""
    address = ipaddress.ip_address(host)
    return any(address in network for network in _LOCAL_NETWORKS)


def is_callable(host: str) -> bool:
    """Tell whether ``host``, which somebody named, is an IP address that may be called: not this machine, in whatever
    spelling, nor what nobody else has.
    """
    try:
        address = read_ip(host)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local)


def _near(host: str) -> object:
    address = ipaddress.ip_address(host)
    return ipaddress.ip_network((host, _NEAR_BITS[address.version]), strict=False)
