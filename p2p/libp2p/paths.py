"""How peers are connected, and the connections that are not plain dials: probes, circuits, punched holes.

All of them end in libp2p's own upgrade: Noise proves who is at the other end, whatever lies between. A direct
connection replaces a relayed one to the same peer: what runs on the relayed one breaks, and is begun again by whoever
began it.
"""

from typing import Any

import trio
from libp2p.abc import ConnectionType
from libp2p.rcmgr import Direction

from depin_node.core.errors import ConfigError, TransportError
from depin_node.p2p.addresses import parse, peer_id
from depin_node.p2p.libp2p import mends
from depin_node.p2p.libp2p.calling import punch, raw
from depin_node.p2p.libp2p.carrier import Carrier, carried
from depin_node.p2p.libp2p.listening import resolve
from depin_node.p2p.libp2p.terms import GONE, id_of_key, key_of_id, reason_of
from depin_node.p2p.network import Path, PeerKey

_MAPPED = "/ip6/::ffff:"


def path_of(connection: Any) -> Path:
    """Return how one connection goes."""
    where = next((str(address) for address in connection.get_transport_addresses()), "")
    if where.startswith(_MAPPED):  # an IPv4 call to a listener of both families
        where = "/ip4/" + where.removeprefix(_MAPPED)
    address = f"{where}/p2p/{peer_id(key_of_id(connection.muxed_conn.peer_id))}"
    outbound = connection.direction == Direction.OUTBOUND
    carrier = mends.tcp_of(connection.muxed_conn)
    if isinstance(carrier, Carrier):
        return Path(address, outbound, relayed=True, bulk=carrier.bulk)
    try:
        local_port = carrier.stream.socket.getsockname()[1]
    except OSError:  # it has just been closed
        local_port = 0
    return Path(address, outbound, local_port)


def is_relayed(connection: Any) -> bool:
    """Tell whether a connection goes through a relay."""
    return bool(connection.get_connection_type() == ConnectionType.RELAYED)


def best(connections: list[Any]) -> Any | None:
    """Return the connection that streams are opened on: a direct one if there is one, else the newest."""
    return max(reversed(connections), key=lambda connection: not is_relayed(connection), default=None)


def gives_way(older: Any, *, to: Any) -> bool:
    """Tell which of two connections with one peer ends: a relayed one, or of two alike the older."""
    return is_relayed(older) or (bool(older.direction == to.direction) and not is_relayed(to))


async def probe(swarm: Any, address: str) -> None:
    """Connect, prove who is there by Noise, and hang up. Raises as ``network.Network.probe``."""
    target = parse(address)
    if target.relay:
        raise ConfigError(f"{address} is that of a relay: it tells nothing about who is behind it")
    error: Exception | None = None
    for plain in await resolve(target):
        _, _, host, _, port = plain.split("/")
        try:
            # from any port: a NAT that lets us in only because the peer has called our own one must not count
            stream = await trio.open_tcp_stream(host, int(port))
        except OSError as failed:
            error = failed
            continue
        try:
            await swarm.upgrader.upgrade_security(raw(stream, outbound=True), True, id_of_key(target.peer))
            return
        except GONE as failed:
            error = failed
        finally:
            await trio.aclose_forcefully(stream)
    raise TransportError(f"{target}: cannot be called: {reason_of(error)}") from error


async def upgrade(swarm: Any, connection: Any, peer: PeerKey, *, outbound: bool) -> None:
    """Make a raw connection one of the swarm's, with ``peer`` or nobody. Raises ``TransportError``."""
    try:
        if outbound:
            await swarm.upgrade_outbound_raw_conn(connection, id_of_key(peer))
            return
        muxed = await swarm.upgrade_inbound_raw_conn(connection, None)
        if key_of_id(muxed.peer_id) == peer:
            return
        mends.abort(muxed)
    except GONE as error:
        raise TransportError(f"{peer_id(peer)}: cannot be connected: {reason_of(error)}") from error
    raise TransportError(f"{peer_id(peer)} was to be there, and another peer is")


async def adopt(swarm: Any, carrier: Carrier, path: Path, peer: PeerKey) -> None:
    """Run Noise and yamux over a spliced stream. Raises ``TransportError``."""
    suffix = f"/p2p/{peer_id(peer)}"
    await upgrade(
        swarm, carried(carrier, path.address.removesuffix(suffix), outbound=path.outbound), peer, outbound=path.outbound
    )


async def meet(swarm: Any, peer: PeerKey, host: str, port: int, *, local_port: int, outbound: bool) -> None:
    """Call, or punch a hole, and connect. Raises ``TransportError``."""
    try:
        if local_port:
            stream = await punch(host, port, local_port)
        else:
            stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise TransportError(f"{host}:{port}: cannot be called: {reason_of(error)}") from error
    await upgrade(swarm, raw(stream, outbound=outbound), peer, outbound=outbound)
