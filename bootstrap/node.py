"""The composition root: every part of a node, opened in the order in which they need each other.

    data directory → identity → journal → network → mesh → blobs → sandbox → provider, requester → control API

They close in the opposite order: first nobody local can ask for more, last the data directory is free again.
"""

import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import structlog
import trio

from depin_node.bootstrap import data_dir as data_dirs
from depin_node.bootstrap import logs
from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.control import application, serving
from depin_node.bootstrap.first_peers import first_peers
from depin_node.core.errors import ConfigError
from depin_node.core.local import ControlFile, DataDir
from depin_node.core.views import DeviceView, PeerView, StatusView
from depin_node.crypto import identity as identities
from depin_node.crypto.blob import BLOB_BYTES_MAX
from depin_node.crypto.identity import Identity, peer_id
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.libp2p_host import open_libp2p
from depin_node.p2p.mesh import Mesh, open_mesh
from depin_node.p2p.network import ListenError, Network, NetworkLimits

log = structlog.get_logger("depin_node.node")

PORTS_TRIED = 64
UPLOAD_KEPT_S = 600.0


class Uploads:
    """Blobs that the client has brought, or asked about, for a job to come: kept for ``UPLOAD_KEPT_S``."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._until_s: dict[bytes, float] = {}

    def keep(self, blob_id: bytes) -> None:
        """Pin a blob for a while, and let go of those whose while is over."""
        now_s = trio.current_time()
        for old in [known for known, until_s in self._until_s.items() if until_s < now_s]:
            del self._until_s[old]
            self._store.unpin(old)
        if blob_id not in self._until_s:
            self._store.pin(blob_id)
        self._until_s[blob_id] = now_s + UPLOAD_KEPT_S


class Node:
    """A running node; ``open_node`` makes it. It is what the control API controls."""

    def __init__(
        self, config: NodeConfig, data_dir: DataDir, identity: Identity, network: Network, mesh: Mesh, blobs: Blobs
    ) -> None:
        self.config = config
        self.data_dir = data_dir
        self.identity = identity
        self.network = network
        self.mesh = mesh
        self.control_url = ""
        self._blobs = blobs
        self._uploads = Uploads(blobs.store)
        self._started_s = time.time()

    def status(self) -> StatusView:
        """Return how the node is."""
        counters = Counter(self.network.counters()) + Counter(self.mesh.counters())
        return StatusView(
            peer=peer_id(self.identity.key),
            version=version("depin-node"),
            network_id=self.config.network_id,
            pid=os.getpid(),
            data_dir=str(self.data_dir.path),
            started_s=self._started_s,
            addresses=tuple(self.network.addresses()),
            lending=self.config.lend,
            slots=self.config.slots_lent(),
            peers_connected=len(self.network.peers()),
            peers_known=len(self.mesh.directory.peers()),
            jobs={},
            tasks_lent=0,
            blobs_bytes=self._blobs.store.used_bytes,
            counters=dict(counters),
        )

    def peers(self) -> list[PeerView]:
        """Return the peers that are known, connected ones first, then by peer id."""
        views = [
            PeerView(
                peer=entry.name,
                address=str(next(iter(entry.addresses), entry.seen_at) or ""),
                connected=entry.is_connected,
                lending=entry.advert.lending,
                devices=tuple(
                    DeviceView(device.device_class, "", device.memory_mib, device.slots, device.free_slots)
                    for device in entry.advert.devices
                ),
                price_millicredits=entry.advert.price,
                version=entry.advert.software,
                group=entry.group,
            )
            for entry in self.mesh.directory.peers()
        ]
        return sorted(views, key=lambda view: (not view.connected, view.peer))

    def has_blob(self, blob_id: bytes) -> bool:
        """Tell whether the blob is here; if so, it stays long enough for a job to be submitted."""
        if not self._blobs.store.has(blob_id):
            return False
        self._uploads.keep(blob_id)
        return True

    async def put_blob(self, blob_id: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Store a blob. Raises ``ConfigError`` if the bytes have another id, ``ResourceError`` if there is no room."""
        self._uploads.keep(blob_id)
        stored = await self._blobs.store.put_stream(chunks, size_bytes_max=BLOB_BYTES_MAX, durable=True)
        if stored != blob_id:
            raise ConfigError(f"these bytes are blob {stored.hex()}, not {blob_id.hex()}")


@asynccontextmanager
async def open_node(config: NodeConfig, data_dir: DataDir) -> AsyncIterator[Node]:
    """Bring a node up, and take it down again when the block ends.

    Raises:
        ConfigError: a setting, a file or the identity is wrong.
        ResourceError: the data directory or a named port is in use.
    """
    join_by = first_peers(config.first_peers, data_dir.first_peers)
    async with AsyncExitStack() as stack:
        stack.enter_context(data_dirs.claim(data_dir))
        logs.set_up(config.log_level, data_dir.log)
        identity = identities.load_or_create(data_dir.identity)
        network = await _open_network(stack, config, identity)
        mesh = await stack.enter_async_context(open_mesh(network, identity, first_peers=join_by))
        store = BlobStore(data_dir.blobs, quota_bytes=config.disk_mib << 20)
        blobs = Blobs(network, store, connect=mesh.connect, report=mesh.report)
        node = Node(config, data_dir, identity, network, mesh, blobs)
        token = secrets.token_urlsafe(32)
        node.control_url = await stack.enter_async_context(serving(application(node, token), config.control_port))
        stack.enter_context(data_dirs.announced(data_dir, ControlFile(node.control_url, token, os.getpid())))
        yield node


async def _open_network(stack: AsyncExitStack, config: NodeConfig, identity: Identity) -> Network:
    """Listen where the configuration says; if it leaves that to us and the port is taken, on the next free one."""
    limits = NetworkLimits(
        dial_timeout_s=config.waits.dial,
        open_timeout_s=config.waits.open,
        stall_timeout_s=config.waits.stall,
        dead_after_s=config.waits.dead,
    )
    for listen in _listen_addresses(config):
        host = open_libp2p(identity.seed, listen=(listen,), network_id=config.network_id, limits=limits)
        try:
            network = await stack.enter_async_context(host)
        except ListenError as error:
            if not config.listen_is_default:
                raise
            log.warning("port taken, trying the next one", listen=listen, reason=str(error))
            continue
        return network
    raise ListenError(f"{PORTS_TRIED} ports from {config.listen} on are taken; name a free one with --listen")


def _listen_addresses(config: NodeConfig) -> list[str]:
    if not config.listen_is_default:
        return [config.listen]
    start, _, port = config.listen.rpartition("/")
    return [f"{start}/{int(port) + n}" for n in range(PORTS_TRIED)]
