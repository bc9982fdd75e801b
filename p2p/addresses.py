"""Addresses of peers as text, without libp2p: ``/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…``, or by way of a relay
``/ip4/192.0.2.1/tcp/4001/p2p/RELAY/p2p-circuit/p2p/12D3KooW…``.
"""

import ipaddress
import re

import msgspec

from depin_node.core.errors import ConfigError
from depin_node.crypto.identity import key_of, peer_id

__all__ = ["Address", "parse", "peer_id"]

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62}))*\Z")
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


def parse(text: str) -> Address:
    """Read ``/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/RELAY/p2p-circuit]/p2p/ID``; the result prints in one canonical
    form.

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
            host = str((ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address)(host))
        except ValueError as error:
            raise ConfigError(f"{text[:80]!r}: {error}") from error
    elif kind not in ("dns", "dns4", "dns6") or not _DNS_NAME.match(host):
        raise ConfigError(f"{text[:80]!r}: /{kind[:8]}/{host[:40]} is not an ip4, ip6 or dns host")
    peer = key_of(identity)
    if peer == relay:
        raise ConfigError(f"{text[:80]!r}: the relay and the peer behind it are one")
    return Address(kind, host, int(port), peer, relay)
