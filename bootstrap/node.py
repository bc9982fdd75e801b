"""The composition root: every part of a node, opened in the order in which they need each other.

    data directory → log → identity → network → mesh → reach → blobs → journal → sandbox → provider, requester → control

They close in the opposite order: first nobody local can ask for more, last the data directory is free again. A node
that lends nothing has no sandbox and no provider, one that is a first peer only has no requester either.
"""

import ipaddress
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
import trio

from depin_node.bootstrap import data_dir as data_dirs
from depin_node.bootstrap import logs, owner_files
from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.control import application, serving
from depin_node.bootstrap.evidence import open_evidence
from depin_node.bootstrap.first_peers import first_peers, remembered_peers
from depin_node.bootstrap.handover import open_handover
from depin_node.bootstrap.lent import measure, offers, open_lent
from depin_node.bootstrap.market import MarketContext, open_market
from depin_node.bootstrap.operator import Operator
from depin_node.bootstrap.provider import Provider, open_provider
from depin_node.bootstrap.receipts import open_logs
from depin_node.bootstrap.requester import Requester, open_requester
from depin_node.bootstrap.testimony import serve_testimony
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.scheduler import SchedulerConfig
from depin_node.compute.jobs.statements import put_peers
from depin_node.compute.market.pricing import reference_speed
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.local import ControlFile, DataDir
from depin_node.core.ticks import sleep_to_tick
from depin_node.core.version import software_version
from depin_node.core.views import StatusView
from depin_node.crypto import identity as identities
from depin_node.crypto import membership
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import Owners
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.advert import Offer
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.direct import DirectChannels, open_direct
from depin_node.p2p.groups import is_loopback_host
from depin_node.p2p.lan import Lan, open_lan
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import Mesh, open_mesh
from depin_node.p2p.network import ListenError, Network, NetworkLimits
from depin_node.p2p.reach.desk import RelayLimits
from depin_node.p2p.reach.service import Reach, ReachSettings, open_reach
from depin_node.p2p.reach.upnp import map_port

log = structlog.get_logger("depin_node.node")

PORTS_TRIED = 64
"""Ports from the default one on, before a node gives up."""
REMEMBER_S = 2.0
"""How soon new peers are written down, so that a node that crashes finds the mesh again, be it the first one."""
REMEMBER_RARELY_S = 10.0
"""The same once some are written down and no new ones come."""
ADVERTISE_S = 2.0
"""How often a change in free slots is told to the mesh; peers do not choose by it, so that it need not be new."""


@dataclass(frozen=True)
class Node:
    """A running node; ``open_node`` makes it. ``provider`` is None where nothing is lent, and so is ``requester`` where
    the node is a first peer only."""

    config: NodeConfig
    mesh: Mesh
    reach: Reach
    requester: Requester | None
    provider: Provider | None
    operator: Operator
    control_url: str

    def status(self) -> StatusView:
        """Return how the node is."""
        return self.operator.status()


@asynccontextmanager
async def open_node(config: NodeConfig, data_dir: DataDir) -> AsyncIterator[Node]:
    """Bring a node up, and take it down again when the block ends.

    Raises:
        ConfigError: a setting, a file or the identity is wrong.
        ResourceError: the data directory or a named port is in use, or a part cannot get what it needs.
    """
    if config.bootstrap_only and config.lend:
        raise ConfigError("a first peer (--bootstrap-only) lends nothing: leave out one of it and --lend")
    join_by = first_peers(config.first_peers, data_dir.first_peers)
    async with AsyncExitStack() as stack:
        stack.enter_context(data_dirs.claim(data_dir))
        logs.set_up(config.log_level, data_dir.log)
        identity = identities.load_or_create(data_dir.identity)
        remembered = _remembered(data_dir)
        network = await _open_network(stack, config, identity)
        offer = Offer(software=software_version())
        owners = Owners(config.network_id, identity.key, owner_files.read_certificate(data_dir.owner_certificate))
        mesh = await stack.enter_async_context(
            open_mesh(
                network,
                identity,
                first_peers=join_by,
                remembered=remembered,
                offer=offer,
                listed=_keys(config.trusted_peers, "trusted_peers"),
                owners=owners,
            )
        )
        reach = await stack.enter_async_context(_open_reach(config, network, mesh))
        lan = await _open_lan(stack, config, network, mesh)
        store = BlobStore(data_dir.blobs, quota_bytes=config.disk_mib << 20)
        direct = await _open_direct(stack, config, network)
        blobs = Blobs(network, store, connect=mesh.connect, report=mesh.report, direct=direct)
        market = await stack.enter_async_context(
            open_market(
                data_dir.journal, identity, network, mesh, blobs, listed=_keys(config.trusted_peers, "trusted_peers")
            )
        )
        await stack.enter_async_context(open_evidence(market))
        await stack.enter_async_context(open_logs(market))
        provider = await _open_provider(stack, config, market) if config.lend else None
        requester = handover = None
        if not config.bootstrap_only:
            scheduling = SchedulerConfig(suitable_s=config.waits.suitable, price_max=config.price_max_millicredits)
            handover = await open_handover(market)
            requester = await stack.enter_async_context(
                open_requester(market, scheduling, audits_here=config.audits_here)
            )
            await stack.enter_async_context(handover.running(requester))
        await stack.enter_async_context(_housekeeping(market, provider, join_by, config, data_dir))
        operator = Operator(config, data_dir, join_by, market, reach, lan, requester, handover, provider)
        token = secrets.token_urlsafe(32)
        url = await stack.enter_async_context(serving(application(operator, token), config.control_port))
        stack.enter_context(data_dirs.announced(data_dir, ControlFile(url, token, os.getpid())))
        yield Node(config, mesh, reach, requester, provider, operator, url)


@asynccontextmanager
async def _open_reach(config: NodeConfig, network: Network, mesh: Mesh) -> AsyncIterator[Reach]:
    """Find out how this node is reached, and let the mesh dial by way of relays, as long as the block runs."""
    limits = RelayLimits(bulk=config.relay_bulk)
    settings = ReachSettings(relay=config.relay, relay_always=config.bootstrap_only, limits=limits)
    mapper = map_port if config.upnp else None
    listed = _keys(config.trusted_peers, "trusted_peers")
    async with open_reach(
        network, advertise=mesh.set_addresses, settings=settings, listed=listed, mapper=mapper
    ) as reach:
        mesh.dial, mesh.best_first = reach.dial, reach.best_first
        yield reach


async def _open_lan(stack: AsyncExitStack, config: NodeConfig, network: Network, mesh: Mesh) -> Lan | None:
    """Find nodes on the local networks, those that this machine joins later too; None where nobody there could connect,
    or it is not wanted."""
    is_local = all(is_loopback_host(listen.split("/")[2]) for listen in config.listen.split(","))
    if not config.mdns or config.bootstrap_only or is_local:
        return None
    return await stack.enter_async_context(open_lan(network.key, network.addresses, mesh.sighted))


def _keys(peers: tuple[str, ...], setting: str) -> list[bytes]:
    try:
        return [identities.key_of(peer) for peer in peers]
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _network_limits(config: NodeConfig) -> NetworkLimits:
    waits, limits = config.waits, config.limits
    return NetworkLimits(
        dial_timeout_s=waits.dial,
        open_timeout_s=waits.open,
        stall_timeout_s=waits.stall,
        dead_after_s=waits.dead,
        connections_max=limits.connections,
        connections_per_group_max=limits.connections_per_group,
        handshakes_max=limits.handshakes,
        handshakes_per_group_max=limits.handshakes_per_group,
        arrivals_per_s=limits.arrivals_per_second,
        streams_max=limits.streams,
        streams_per_group_max=limits.streams_per_group,
        inbound_streams_per_peer_max=limits.streams_per_peer,
        streams_per_s=limits.streams_per_second,
        requests_per_s=limits.requests_per_second,
        buffered_bytes_max=limits.buffered_mib << 20,
        buffered_per_group_bytes_max=limits.buffered_per_group_mib << 20,
        kept_out_s=limits.kept_out_seconds,
        exempt_loopback=limits.exempt_loopback,
    )


def _remembered(data_dir: DataDir) -> tuple[str, ...]:
    journal = Journal(data_dir.journal)  # opened for good when the mesh stands; here it also shows early if damaged
    try:
        return remembered_peers(journal.peers())
    finally:
        journal.close()


async def _open_network(stack: AsyncExitStack, config: NodeConfig, identity: Identity) -> Network:
    """Listen where the configuration says; if it leaves that to us and the port is taken, on the next free one."""
    limits = _network_limits(config)
    trusted, allowed = _keys(config.trusted_peers, "trusted_peers"), _keys(config.allowed_peers, "allowed_peers")
    key = membership.load(config.pre_shared_key_file) if config.pre_shared_key_file else None
    for listen in _listen_addresses(config):
        host = open_libp2p(
            identity.seed,
            listen=listen.split(","),
            network_id=config.network_id,
            limits=limits,
            listed=trusted,
            allowed=allowed or None,
            pre_shared_key=key,
        )
        try:
            network = await stack.enter_async_context(host)
        except ListenError as error:
            if not config.listen_is_default:
                raise
            log.debug("port taken, trying the next one", listen=listen, reason=str(error))
            continue
        if listen != config.listen:
            log.info("the usual port is taken: listening on another", usual=config.listen, listen=listen)
        return network
    raise ListenError(f"{PORTS_TRIED} ports from {config.listen} on are taken; name a free one with --listen")


async def _open_direct(stack: AsyncExitStack, config: NodeConfig, network: Network) -> DirectChannels | None:
    """Open the data port; None if the configuration wants none."""
    if config.data_listen == "off":
        return None
    hosts, port = data_port(config)
    return await stack.enter_async_context(open_direct(network, hosts=hosts, port=port))


def data_port(config: NodeConfig) -> tuple[list[str], int]:
    """Return where data channels connect: hosts, at most one of each family, and the port that they share.

    Raises:
        ConfigError: ``data_listen`` is no such address, or several of a family or port.
    """
    named, hosts, ports = config.data_listen, dict[str, str](), set[int]()
    for address in (named or config.listen).split(","):
        match address.split("/"):
            case ["", "ip4" | "ip6" as family, host, "tcp", port] if not named:
                hosts.setdefault(family, host)
                ports.add(0)
            case ["", "ip4" | "ip6" as family, host, "tcp", port] if _is_endpoint(family, host, port):
                if family in hosts:
                    raise ConfigError(f"data_listen: {named[:80]!r} names two hosts of a family: name one")
                hosts[family] = host
                ports.add(int(port))
            case _:
                raise ConfigError(f"data_listen: {address[:80]!r} should look like /ip4/192.0.2.1/tcp/4702, or be off")
    if len(ports) > 1:
        raise ConfigError(f"data_listen: {named[:80]!r} has several ports, and peers are told one")
    return list(hosts.values()), ports.pop()


def _is_endpoint(family: str, host: str, port: str) -> bool:
    try:
        is_host = f"ip{ipaddress.ip_address(host).version}" == family
    except ValueError:
        return False
    return is_host and port.isascii() and port.isdecimal() and int(port) < 1 << 16


def _listen_addresses(config: NodeConfig) -> list[str]:
    if not config.listen_is_default:
        return [config.listen]
    parts = [listen.rpartition("/") for listen in config.listen.split(",")]
    return [",".join(f"{start}/{int(port) + n}" for start, _, port in parts) for n in range(PORTS_TRIED)]


async def _open_provider(stack: AsyncExitStack, config: NodeConfig, market: MarketContext) -> Provider:
    lent = await stack.enter_async_context(open_lent(config))
    provider = await stack.enter_async_context(open_provider(market, lent, config.unpaid_share))
    serve_testimony(market, provider)
    return provider


@asynccontextmanager
async def _housekeeping(
    market: MarketContext, provider: Provider | None, join_by: tuple[str, ...], config: NodeConfig, data_dir: DataDir
) -> AsyncIterator[None]:
    """Advertise what is lent, tell if nobody can be joined, and write down whom to join by next time, as long as the
    block runs."""
    async with trio.open_nursery() as nursery:
        if provider is not None:
            _advertise(market.mesh, provider, config)
            nursery.start_soon(_measure, provider, data_dir)
            nursery.start_soon(_keep_advertising, market.mesh, provider, config)
        nursery.start_soon(_keep_remembering, market)
        if market.mesh.owners.own is not None:
            nursery.start_soon(_keep_revocations, market, data_dir)
        if join_by:
            nursery.start_soon(_tell_if_unjoined, market.mesh)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            market.journal.write_soon(put_peers(market.mesh.remembered()))


async def _measure(provider: Provider, data_dir: DataDir) -> None:
    """Find out how fast the slots are, and bid by that from now on."""
    await measure(provider.devices, data_dir.speeds)
    for number, device in enumerate(provider.devices):
        provider.lender.measured(number, reference_speed(*device.speed.numbers()))


async def _keep_advertising(mesh: Mesh, provider: Provider, config: NodeConfig) -> None:
    while True:
        await trio.sleep(ADVERTISE_S)
        _advertise(mesh, provider, config)


def _advertise(mesh: Mesh, provider: Provider, config: NodeConfig) -> None:
    devices = offers(provider.devices, provider.lender)
    mesh.set_offer(devices, lending=bool(devices), price=config.price_millicredits)


async def _keep_revocations(market: MarketContext, data_dir: DataDir) -> None:
    """Take what our owner revokes from ``owner.revoked``, and write there what a fellow told us: the newer list wins.

    A file that is damaged is told of once, and left alone until the owner mends it; and so is that our own certificate
    does not hold any more, which others do not tell us.
    """
    mesh = market.mesh
    own, read, told, held = mesh.owners.own, b"", "", True
    assert own is not None
    while True:
        try:
            if (found := owner_files.read_revocations(data_dir.owner_revoked)) and found != read:
                read = found
                mesh.revoke(found)
            if (known := mesh.owners.list_of(own)) and known != read:
                read = known
                owner_files.write(data_dir.owner_revoked, known)
                log.info("the owner has revoked certificates; a fellow has passed the list on", owner=peer_id(own))
        except (ConfigError, PeerViolation) as error:
            if told != (told := str(error)):
                log.warning("what the owner revoked cannot be kept", file=str(data_dir.owner_revoked), reason=told)
        if held and not mesh.owners.shown(market.clock()):
            held = False
            log.warning(
                "our owner's certificate has expired or was revoked", owner=peer_id(own), see="depin-node doctor"
            )
        await trio.sleep(REMEMBER_S)


async def _tell_if_unjoined(mesh: Mesh) -> None:
    """Tell once that no peer to join by can be reached, and why: else a mistyped address looks like an empty mesh."""
    while not mesh.ready.is_set():
        if failures := mesh.failures():
            peer, reason = next(iter(failures.items()))
            log.warning("no peer can be reached yet; trying on", peer=peer, reason=reason)
            await mesh.ready.wait()
            log.info("joined the mesh")
            return
        await trio.sleep(REMEMBER_S)


async def _keep_remembering(market: MarketContext) -> None:
    written: set[str] = set()
    while True:
        known = market.mesh.remembered()
        is_new = not written.issuperset(known)
        if is_new:
            market.journal.write_soon(put_peers(known))
            written = set(known)
        await sleep_to_tick(REMEMBER_RARELY_S if known and not is_new else REMEMBER_S)
