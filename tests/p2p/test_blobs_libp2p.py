"""Blobs over real libp2p hosts on loopback: by a data channel, by a stream, and shared out among three."""

import os
from contextlib import AsyncExitStack

import pytest
import trio

from depin_node.core.clock import now
from depin_node.crypto.identity import Identity
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs, issue_grant
from depin_node.p2p.direct import open_direct
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.network import ListenError

pytestmark = pytest.mark.net

SIZE = (12 << 20) + 77


@pytest.mark.parametrize("ports", [(True, True), (True, False), (False, False)])
async def test_a_large_blob_takes_the_data_channel_if_one_of_the_two_can_be_reached(tmp_path, ports):
    async with AsyncExitStack() as stack:
        owner, asker = (Identity(bytes([number]) * 32) for number in (1, 2))
        blobs, channels = [], []
        for identity, has_port in zip((owner, asker), ports, strict=True):
            network = await stack.enter_async_context(open_libp2p(identity.seed, network_id="test"))
            direct = await stack.enter_async_context(open_direct(network, hosts=["127.0.0.1"]))
            if not has_port:
                direct.port = 0  # as behind a NAT
            channels.append(direct)
            store = BlobStore(tmp_path / str(len(blobs)), quota_bytes=64 << 20)
            blobs.append(Blobs(network, store, direct=direct))
        await blobs[1]._network.dial(blobs[0]._network.addresses()[0])
        key = await blobs[0].store.put(data := os.urandom(SIZE))
        grant = issue_grant(owner, "test", asker.key, [key], seq=1, now=now(), lifetime_s=60)
        await blobs[1].fetch(key, [owner.key], grant, size_bytes_max=SIZE, timeout_s=60)
        assert await blobs[1].store.read(key) == data
        assert [direct.counters["channels"] for direct in channels] == ([1, 1] if any(ports) else [0, 0])


async def test_two_that_met_by_ipv6_have_a_data_channel_by_ipv6(tmp_path):
    async with AsyncExitStack() as stack:
        ends = []
        for number in (1, 2):
            listen = ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]
            try:
                network = await stack.enter_async_context(
                    open_libp2p(bytes([number]) * 32, network_id="test", listen=listen)
                )
            except ListenError as error:
                pytest.skip(f"this machine has no IPv6: {error}")
            direct = await stack.enter_async_context(open_direct(network, hosts=["127.0.0.1", "::1"]))
            direct.serve(answer_one)
            ends.append((network, direct))
        (one, mine), (other, _) = ends
        await one.dial(next(address for address in other.addresses() if address.startswith("/ip6/")))
        carrier = await mine.open(other.key)
        await carrier.send(7, b"by IPv6")
        assert (await carrier.receive(100, 10)).body == b"by IPv6"
        assert carrier._socket.getpeername()[0] == "::1"


async def answer_one(carrier):
    frame = await carrier.receive(100, 10)
    await carrier.send(frame.kind, frame.body)


async def test_three_that_fetch_together_get_chunks_of_each_other(tmp_path):
    async with AsyncExitStack() as stack:
        identities = [Identity(bytes([number]) * 32) for number in range(1, 5)]
        blobs = []
        for identity in identities:
            network = await stack.enter_async_context(open_libp2p(identity.seed, network_id="test"))
            for other in blobs:
                await network.dial(other._network.addresses()[0])
            direct = await stack.enter_async_context(open_direct(network, hosts=["127.0.0.1"]))
            store = BlobStore(tmp_path / str(len(blobs)), quota_bytes=64 << 20)
            blobs.append(Blobs(network, store, direct=direct))
        key = await blobs[0].store.put(data := os.urandom(SIZE))
        async with trio.open_nursery() as nursery:
            for identity, fetcher in zip(identities[1:], blobs[1:], strict=True):
                grant = issue_grant(identities[0], "test", identity.key, [key], seq=1, now=now(), lifetime_s=60)
                nursery.start_soon(
                    lambda fetcher=fetcher, grant=grant: fetcher.fetch(
                        key, [identities[0].key], grant, size_bytes_max=SIZE, timeout_s=60
                    )
                )
        for fetcher in blobs[1:]:
            assert await fetcher.store.read(key) == data
        assert any(fetcher.sent_bytes for fetcher in blobs[1:])
        assert blobs[0].sent_bytes <= 2.5 * SIZE  # 1.0 to 1.2 on a machine that does nothing else
