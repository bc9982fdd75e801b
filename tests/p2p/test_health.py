"""What is wrong with a peer or a link is noticed, and mends by itself: ghosts, cut links, frozen and moved nodes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from depin_node.crypto.identity import Identity
from depin_node.p2p.mesh import Mesh, open_mesh
from depin_node.p2p.network import Connected, Disconnected, Network, NetworkLimits, Verdict

pytestmark = pytest.mark.net
TOPIC = "notes/1"

NODE = """
import json, structlog, sys, trio
from depin_node.crypto.identity import Identity
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import open_mesh

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
identity = Identity(bytes([int(sys.argv[1])]) * 32)

async def main():
    async with (
        open_libp2p(identity.seed, network_id="test") as network,
        open_mesh(network, identity, first_peers=sys.argv[2:]) as mesh,
    ):
        print(json.dumps(network.addresses()[0]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)

trio.run(main)
"""


@pytest.fixture(autouse=True)
async def deadline() -> Any:
    with trio.fail_after(120):
        yield


def seed(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def open_node(name: str, **limits: Any) -> Any:
    from depin_node.p2p.libp2p.host import open_libp2p

    return open_libp2p(seed(name), network_id="test", limits=NetworkLimits(**limits))


def proxy_to(network: Network) -> Any:
    from libp2p_proxy import Proxy

    return Proxy(network.addresses()[0]).run()


def hear(network: Network) -> set[bytes]:
    got: set[bytes] = set()

    async def take(peer: bytes, data: bytes) -> Verdict:
        got.add(data)
        return Verdict.ACCEPT

    network.subscribe(TOPIC, take)
    return got


async def until(condition: Any) -> None:
    while not condition():
        await trio.sleep(0.02)


async def gossip_arrives(sender: Network, got: set[bytes], word: str) -> None:
    number = 0
    while not any(data.startswith(word.encode()) for data in got):
        number += 1
        await sender.publish(TOPIC, f"{word} {number}".encode())
        await trio.sleep(0.1)


async def test_a_ghost_is_replaced() -> None:
    """A peer comes back while its old connection still looks alive: the new one counts, gossip goes on at once."""
    async with open_node("victim", dead_after_s=600) as victim:
        hear(victim)
        async with open_node("peer") as first, proxy_to(victim) as proxy:
            got = hear(first)
            await first.dial(proxy.address)
            await gossip_arrives(victim, got, "first")
            proxy.flowing = trio.Event()  # frozen: the victim cannot know
            async with open_node("peer") as second:
                got = hear(second)
                await second.dial(victim.addresses()[0])
                await gossip_arrives(victim, got, "second")
                assert victim.peers() == {second.key}
                assert len(victim._swarm.get_connections()) == 1


async def test_a_cut_link_is_noticed_by_both_ends_and_may_be_dialled_again() -> None:
    async with open_node("a", dead_after_s=2) as a, open_node("b", dead_after_s=2) as b, proxy_to(b) as proxy:
        events_a, events_b, got = a.connection_events(), b.connection_events(), hear(b)
        hear(a)
        await a.dial(proxy.address)
        for events in (events_a, events_b):
            assert isinstance(await events.receive(), Connected)
        await gossip_arrives(a, got, "before")
        proxy.flowing = trio.Event()
        assert await events_a.receive() == Disconnected(b.key)
        assert await events_b.receive() == Disconnected(a.key)
        proxy.flowing.set()
        assert await a.dial(proxy.address) == b.key
        await gossip_arrives(a, got, "after")


@contextmanager
def node_process(number: int, *first: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", NODE, str(number), *first]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


async def test_a_frozen_node_comes_back_and_one_that_moved_is_found_again() -> None:
    """A process is stopped, as by a suspended machine, and goes on; then it is killed and comes back at another port.
    Nobody is told anything: the mesh finds it each time."""
    us, key = Identity(seed("us")), Identity(bytes([7]) * 32).key

    def knows(mesh: Mesh, address: str) -> bool:
        entry = mesh.directory.get(key)
        return entry is not None and address.startswith(str(entry.addresses[0]).partition("/p2p/")[0])

    async with open_node("us", dead_after_s=3) as network, open_mesh(network, us) as mesh:
        ours = network.addresses()[0]
        with node_process(7, ours) as (process, address):
            await until(lambda: key in network.peers() and knows(mesh, address))
            process.send_signal(signal.SIGSTOP)
            await until(lambda: key not in network.peers())
            process.send_signal(signal.SIGCONT)
            await until(lambda: key in network.peers())
        await until(lambda: key not in network.peers())
        with node_process(7, ours) as (_, moved):
            assert moved != address
            await until(lambda: key in network.peers() and knows(mesh, moved))
