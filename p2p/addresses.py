"""Addresses of peers as text, without libp2p: ``/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…``, or by way of a relay
``/ip4/192.0.2.1/tcp/4001/p2p/RELAY/p2p-circuit/p2p/12D3KooW…``.
"""

import ipaddress
import re

import msgspec

from depin_node.core.errors import ConfigError
from depin_node.crypto.identity import key_of, peer_id

__all__ = ["Address", "IPAddress", "parse", "parse_listen", "peer_id", "read_ip"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62}))*\Z")
# What the system's resolver takes for an IPv4 address, in any of endless spellings (inet_aton).
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?(0[xX][0-9a-fA-F]*|[0-9]+)\Z")
_LENGTH_MAX = 480
CIRCUIT = "p2p-circuit"


class Address(msgspec.Struct, frozen=True):
    """Where one peer can be dialled. ``kind`` is ``ip4``, ``ip6``, ``dns``, ``dns4`` or ``dns6``.

    ``relay`` is the key of the relay that is there instead, which connects with the peer; empty: the peer is there.
    """

    kind: str
    host: str
    port: int
    peer: bytes
    relay: bytes = b""

    def __str__(self) -> str:
        way = f"/p2p/{peer_id(self.relay)}/{CIRCUIT}" if self.relay else ""
        return f"/{self.kind}/{self.host}/tcp/{self.port}{way}/p2p/{peer_id(self.peer)}"

    @property
    def is_wildcard(self) -> bool:
        """Whether nobody can dial it (0.0.0.0 or ::)."""
        return self.kind in ("ip4", "ip6") and ipaddress.ip_address(self.host).is_unspecified


def read_ip(text: str) -> IPAddress:
    """Read an IP address; an IPv4 address within IPv6 (``::ffff:192.0.2.1``) is that IPv4 address.

    Raises:
        ValueError: it is none, or has a zone (``%eth0``), which means nothing on another machine.
    """
    address = (ipaddress.IPv6Address if ":" in text else ipaddress.IPv4Address)(text)
    if "%" in text:
        raise ValueError("an address with a zone ('%') means nothing on another machine")
    return getattr(address, "ipv4_mapped", None) or address


def parse(text: str) -> Address:
    """Read ``/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/RELAY/p2p-circuit]/p2p/ID``; the result prints in one canonical
    form, in which no host has two spellings.

    Raises:
        ConfigError: anything else, with what is wrong.
    """
    parts = text.split("/") if len(text) <= _LENGTH_MAX else []
    relay = b""
    if len(parts) == 10 and parts[5] == "p2p" and parts[7] == CIRCUIT:
        relay = key_of(parts[6])
        del parts[5:8]
    if len(parts) != 7 or parts[0] or parts[3] != "tcp" or parts[5] != "p2p":
        raise ConfigError(f"{text[:80]!r} is not an address: it should look like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…")
    _, kind, host, _, port, _, identity = parts
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536):
        raise ConfigError(f"{text[:80]!r}: port {port[:8]!r} is not between 1 and 65535")
    if kind in ("ip4", "ip6"):
        try:
            if (":" in host) != (kind == "ip6"):
                raise ValueError(f"{host[:40]!r} is no {kind} host")
            ip = read_ip(host)
        except ValueError as error:
            raise ConfigError(f"{text[:80]!r}: {str(error)[:120]}") from error
        kind, host = f"ip{ip.version}", str(ip)
    elif kind not in ("dns", "dns4", "dns6") or not _DNS_NAME.match(host):
        raise ConfigError(f"{text[:80]!r}: /{kind[:8]}/{host[:40]} is not an ip4, ip6 or dns host")
    elif _ENDS_IN_NUMBER.match(host):
        raise ConfigError(f"{text[:80]!r}: {host[:40]} is no name but an address: write /ip4/… and the four numbers")
    peer = key_of(identity)
    if peer == relay:
        raise ConfigError(f"{text[:80]!r}: the relay and the peer behind it are one")
    return Address(kind, host, int(port), peer, relay)


def parse_listen(text: str) -> tuple[str, str, int]:
    """Read where to listen, ``/ip4|ip6/HOST/tcp/PORT``; return ``ip4`` or ``ip6``, host and port, of which 0 takes a
    free one.

    Raises:
        ConfigError: anything else.
    """
    start, _, port = text.rpartition("/")
    try:
        address = parse(f"{start}/{'1' if port == '0' else port}/p2p/{peer_id(bytes(32))}")
        if address.relay or address.kind not in ("ip4", "ip6"):
            raise ConfigError("a relay or a name")
    except ConfigError as error:
        raise ConfigError(
            f"{text[:80]!r} is no address to listen on: it should look like /ip4/127.0.0.1/tcp/4001"
        ) from error
    return address.kind, address.host, int(port)
