"""The mesh and blobs on the real network: five libp2p hosts, each a process, on loopback."""

import json
import random
import subprocess
import sys
from contextlib import ExitStack

import pytest
import trio

from depin_node.crypto.blob import CHUNK_BYTES
from depin_node.crypto.identity import Identity
from depin_node.p2p.advert import DeviceOffer, Offer
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.directory import Need
from depin_node.p2p.mesh import open_mesh

pytestmark = pytest.mark.net
US = Identity(bytes([99]) * 32)

NODE = """
import json, structlog, sys, trio
from pathlib import Path
from depin_node.core.clock import now
from depin_node.crypto.identity import Identity
from depin_node.p2p.advert import DeviceOffer, Offer
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs, issue_grant
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import open_mesh

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
number, folder, asker, *first = sys.argv[1:]
identity = Identity(bytes([int(number)]) * 32)
offer = Offer(lending=True, devices=(DeviceOffer("wasm-1", 512, 1, 1),))

def tell(**facts):
    print(json.dumps(facts), flush=True)

async def main():
    async with (
        open_libp2p(identity.seed, listen=["/ip4/127.0.0.1/tcp/0"], network_id="test") as network,
        open_mesh(network, identity, first_peers=first, offer=offer) as mesh,
    ):
        store = BlobStore(Path(folder), quota_bytes=1 << 26)
        Blobs(network, store, connect=mesh.connect, report=mesh.report)
        blob = await store.put(bytes([int(number)]) * (5 << 20))
        grant = issue_grant(identity, "test", bytes.fromhex(asker), [blob], seq=1, now=now(), lifetime_s=600)
        tell(address=network.addresses()[0], blob=blob.hex(), grant=grant.hex())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_with_stdin, nursery.cancel_scope)
            async for _ in mesh.watch():
                tell(known=len(mesh.directory.peers()), connected=len(network.peers()))

async def end_with_stdin(scope):
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    scope.cancel()

trio.run(main)
"""


class Process:
    def __init__(self, stack, tmp_path, number, *first):
        self.key = Identity(bytes([number]) * 32).key
        arguments = [sys.executable, "-c", NODE, str(number), tmp_path / str(number), US.key.hex(), *first]
        self.process = stack.enter_context(
            subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(self.process.kill)

    def wait_until_up(self):
        facts = json.loads(self.process.stdout.readline())
        self.address = facts["address"]
        self.blob, self.grant = bytes.fromhex(facts["blob"]), bytes.fromhex(facts["grant"])

    def wait_until(self, **least):
        """Read what it tells until it knows, and is connected to, as many."""
        while True:
            facts = json.loads(self.process.stdout.readline())
            if all(facts[name] >= count for name, count in least.items()):
                return


async def test_processes_find_each_other_outlive_their_first_peer_and_fetch_blobs(tmp_path):
    from depin_node.p2p.libp2p.host import open_libp2p  # imported where a host is opened

    with ExitStack() as stack, trio.fail_after(90):
        first = Process(stack, tmp_path, 1)
        await trio.to_thread.run_sync(first.wait_until_up)
        others = [Process(stack, tmp_path, number, first.address) for number in (2, 3, 4)]
        for other in others:
            await trio.to_thread.run_sync(other.wait_until_up)
        for other in others:
            await trio.to_thread.run_sync(lambda other=other: other.wait_until(known=3, connected=3))
        first.process.kill()
        async with (
            open_libp2p(US.seed, listen=["/ip4/127.0.0.1/tcp/0"], network_id="test") as network,
            open_mesh(network, US, first_peers=[first.address, others[0].address]) as mesh,
        ):
            store = BlobStore(tmp_path / "ours", quota_bytes=1 << 26)
            blobs = Blobs(network, store, connect=mesh.connect, report=mesh.report)
            keys = {other.key for other in others}
            while not keys <= {entry.key for entry in mesh.directory.peers()}:
                await trio.sleep(0.05)
            need = Need(frozenset({"wasm-1"}), 256)
            while {entry.key for entry in mesh.candidates(need, 9, random.Random(1))} != keys:
                await trio.sleep(0.05)
            assert len({entry.group for entry in mesh.candidates(need, 9, random.Random(1))}) == 3
            for other in others:
                await blobs.fetch(other.blob, [other.key], other.grant, size_bytes_max=1 << 24, timeout_s=30)
                assert await store.manifest(other.blob)
                assert store.size_bytes(other.blob) == 5 * CHUNK_BYTES
            others[2].process.stdin.close()  # it leaves in order, and says so
            while mesh.directory.get(others[2].key).advert.leaving is False:
                await trio.sleep(0.05)
            assert others[2].process.wait(10) == 0
            mesh.set_offer([DeviceOffer("wasm-1", 512, 1, 1)], lending=True)
            assert mesh.offer == Offer(lending=True, devices=(DeviceOffer("wasm-1", 512, 1, 1),))
