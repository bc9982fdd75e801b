"""Nodes that serve and fetch blobs: the mesh is the one in memory, data channels are real TCP on loopback."""

from contextlib import AsyncExitStack, asynccontextmanager

from depin_node.core.clock import now
from depin_node.crypto.identity import Identity
from depin_node.p2p.blob_messages import BLOBS_PROTOCOL
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import BlobLimits, Blobs, issue_grant
from depin_node.p2p.carrier import StreamCarrier, Window
from depin_node.p2p.direct import open_direct
from depin_node.p2p.memory import MemoryFabric

OWNER, ASKER, THIRD = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
QUOTA = 64 << 20
LIMITS = BlobLimits(stall_timeout_s=5.0, round_pause_s=0.01)
FEW = {"size_bytes_max": QUOTA, "timeout_s": 30.0}


def grant_for(peer, *roots, owner=OWNER, network_id="test", lifetime_s=600):
    return issue_grant(owner, network_id, peer.key, roots, seq=1, now=now(), lifetime_s=lifetime_s)


class Node:
    def __init__(self, identity, network, folder, quota, direct):
        self.identity = identity
        self.network = network
        self.direct = direct
        self.violations = []
        self.store = BlobStore(folder, quota_bytes=quota)
        self.blobs = None

    def serve(self, limits=LIMITS):
        self.blobs = Blobs(
            self.network,
            self.store,
            report=lambda peer, error: self.violations.append((peer, str(error))),
            limits=limits,
            direct=self.direct,
        )
        return self

    def serve_raw(self, answer):
        """Serve by ``answer(carrier)``, which may break any rule."""

        async def serve(stream):
            await answer(StreamCarrier(stream, timeout_s=5))

        self.network.serve(BLOBS_PROTOCOL, serve)
        if self.direct:
            self.direct.serve(answer)

    async def reach(self, holder):
        """Open a carrier to a holder."""
        if self.direct:
            return await self.direct.open(holder.network.key)
        stream = await self.network.open_stream(holder.network.key, BLOBS_PROTOCOL)
        return StreamCarrier(stream, timeout_s=5, window=Window(0.01))


@asynccontextmanager
async def nodes(folder, *identities, quota=QUOTA, carrier="stream"):
    """One node each, all connected to each other; they do not serve blobs yet."""
    fabric = MemoryFabric(1)
    made = []
    async with AsyncExitStack() as stack:
        for identity in identities:
            network = await stack.enter_async_context(fabric.open(identity.key))
            for other in made:
                await network.dial(other.network.addresses()[0])
            direct = None
            if carrier == "direct":
                direct = await stack.enter_async_context(
                    open_direct(network, hosts=["127.0.0.1"], host_of=lambda peer: "127.0.0.1")
                )
            made.append(Node(identity, network, folder / str(len(made)), quota, direct))
        yield made
