"""Circuits: what a relay splices is a connection like any other, as long as it keeps to its terms."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from depin_node.core import clock
from depin_node.core.errors import TransportError
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import Address, parse
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.frames import RequestRefusedError
from depin_node.p2p.groups import group_of
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.network import Connected, Disconnected, Network, NetworkLimits, NoDirectPathError, Stream
from depin_node.p2p.network import Path as Way
from depin_node.p2p.reach.desk import RelayDesk, RelayLimits
from depin_node.p2p.reach.relay import RelayServer, connect_through, reserve, serve_relayed

OpenNode = Callable[..., AbstractAsyncContextManager[Network]]


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@pytest.fixture(params=["memory", pytest.param("libp2p", marks=pytest.mark.net)])
def open_node(request: pytest.FixtureRequest) -> OpenNode:
    if request.param == "memory":
        fabric = MemoryFabric(seed=1)
        return lambda name: fabric.open(Identity(seed_of(name)).key)
    return open_real


@asynccontextmanager
async def open_real(name: str) -> AsyncIterator[Network]:
    from depin_node.p2p.libp2p.host import open_libp2p

    async with open_libp2p(seed_of(name), network_id="test", limits=NetworkLimits()) as network:
        yield network


@pytest.fixture(autouse=True)
async def deadline() -> Any:
    with trio.fail_after(30):
        yield


@dataclass
class World:
    relay: Network
    target: Network
    source: Network
    server: RelayServer

    def circuit(self) -> Address:
        at = parse(self.relay.addresses()[0])
        return Address(at.kind, at.host, at.port, self.target.key, self.relay.key)

    async def connect(self) -> None:
        await self.source.dial(self.relay.addresses()[0])
        await connect_through(self.source, self.circuit(), timeout_s=5)


@asynccontextmanager
async def world(open_node: OpenNode, **limits: Any) -> AsyncIterator[World]:
    async with open_node("relay") as relay, open_node("target") as target, open_node("source") as source:
        desk = RelayDesk(RelayLimits(group_bytes_s=1e9, **limits))
        server = RelayServer(relay, desk, lambda peer, path: group_of(parse(path.address)), clock.now, 5)
        server.is_open = True
        serve_relayed(target, lambda peer: peer == relay.key, lambda *_: None)
        await target.dial(relay.addresses()[0])
        await reserve(target, relay.key, timeout_s=5)
        yield World(relay, target, source, server)


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def test_streams_run_over_a_circuit_both_ways(open_node: OpenNode) -> None:
    async with world(open_node) as w:
        events = w.target.connection_events()
        await w.connect()
        event = await events.receive()
        while not (isinstance(event, Connected) and event.peer == w.source.key):
            event = await events.receive()
        assert parse(event.address).relay == w.relay.key
        assert not event.outbound
        path = w.source.path(w.target.key)
        assert path is not None
        assert (path.relayed, path.outbound, path.address) == (True, True, str(w.circuit()))
        w.target.serve("echo/1", echo)
        w.source.serve("echo/1", echo)
        for caller, called in ((w.source, w.target), (w.target, w.source)):
            stream = await caller.open_stream(called.key, "echo/1")
            sent = bytes(range(256)) * 2000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, sent)
                assert await stream.receive_exactly(len(sent)) == sent
            await stream.aclose()
        assert w.server.desk.circuits == 1


async def test_when_one_end_hangs_up_both_know_and_the_desk_is_clear(open_node: OpenNode) -> None:
    async with world(open_node) as w:
        await w.connect()
        events = w.target.connection_events()
        await w.source.disconnect(w.target.key)
        assert await events.receive() == Disconnected(w.source.key)
        while w.server.desk.circuits:
            await trio.sleep(0.01)
        assert w.relay.key in w.source.peers()


async def test_without_a_place_there_is_no_circuit(open_node: OpenNode) -> None:
    async with world(open_node) as w:
        w.server.desk.lost(w.target.key)
        with pytest.raises(RequestRefusedError, match="no_reservation"):
            await w.connect()
        w.server.is_open = False
        with pytest.raises(RequestRefusedError, match="not_serving"):
            await reserve(w.target, w.relay.key, timeout_s=5)


@pytest.mark.net
async def test_a_circuit_ends_when_it_has_carried_all_it_may() -> None:
    async with world(open_real, circuit_bytes_max=300_000) as w:
        await w.connect()
        w.target.serve("echo/1", echo)
        stream = await w.source.open_stream(w.target.key, "echo/1")
        echoed = 0
        while echoed < 1_000_000:
            try:
                await stream.send_all(bytes(10_000))
                await stream.receive_exactly(10_000)
            except TransportError:
                break
            echoed += 10_000
        assert 100_000 < echoed < 150_000  # both ways count
        while w.server.desk.circuits:
            await trio.sleep(0.01)


@pytest.mark.net
async def test_the_relay_cannot_pose_as_the_target() -> None:
    """A relay that answers itself, instead of the target, fails Noise: the source knows whom it wants."""
    async with open_real("relay") as relay, open_real("source") as source:
        target = Identity(seed_of("target")).key

        async def pose(stream: Stream) -> None:
            from depin_node.core.wire import decode, encode
            from depin_node.p2p.frames import ANSWER, Frame, FrameReader, send_frames
            from depin_node.p2p.reach.messages import RelayQuestion, RelayTerms

            reader = FrameReader(stream, size_bytes_max=1024)
            frame = await reader.read()
            assert frame is not None
            decode(frame.body, RelayQuestion, size_bytes_max=1024)
            await send_frames(stream, [Frame(ANSWER, encode(RelayTerms(60, 60, 1 << 20, bulk=False, host="", port=0)))])
            path = Way(f"/ip4/127.0.0.1/tcp/1/p2p/{'x'}", outbound=False, relayed=True)
            await relay.adopt(stream, path, source.key, reader.rest())

        relay.serve("relay/1", pose)
        await source.dial(relay.addresses()[0])
        at = parse(relay.addresses()[0])
        with pytest.raises(TransportError):
            await connect_through(source, Address(at.kind, at.host, at.port, target, relay.key), timeout_s=5)
        assert target not in source.peers()


async def test_large_blobs_want_a_direct_path_or_a_relay_that_offers_bulk(tmp_path: Path, open_node: OpenNode) -> None:
    for bulk in (False, True):
        async with world(open_node, bulk=bulk) as w:
            await w.connect()
            ours, theirs = (
                Blobs(network, BlobStore(tmp_path / f"{name}{bulk}", quota_bytes=1 << 20))
                for name, network in (("ours", w.source), ("theirs", w.target))
            )
            assert theirs
            await ours.open_carrier(w.target.key, 1000)  # control, and what is as small, goes through any relay
            if bulk:
                await ours.open_carrier(w.target.key, 100 << 20)
                continue
            with pytest.raises(NoDirectPathError) as refused:
                await ours.open_carrier(w.target.key, 100 << 20)
            assert refused.value.code == "no_direct_path"
