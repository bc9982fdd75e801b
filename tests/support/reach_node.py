"""One node of the tests in network namespaces: a real host, mesh and reach, told what to do by lines of JSON.

    python reach_node.py '{"seed": …, "listen": …, "peers": […], "relay": true}'

It prints its addresses, then one answer for each command that it reads; see ``Commands``.
"""

import hashlib
import json
import sys
from typing import Any

import structlog
import trio

from depin_node.core.errors import DepinError
from depin_node.crypto.identity import Identity, key_of
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import Mesh, open_mesh
from depin_node.p2p.network import NetworkLimits, Stream
from depin_node.p2p.reach.desk import RelayLimits
from depin_node.p2p.reach.service import Reach, ReachSettings, open_reach
from depin_node.p2p.reach.upnp import map_port
from depin_node.p2p.reach.verdict import ReachConfig

WAIT_S = 30.0


class Commands:
    """Each method is a command; its arguments and its answer are JSON."""

    def __init__(self, mesh: Mesh, reach: Reach) -> None:
        self.mesh = mesh
        self.reach = reach

    async def view(self) -> dict[str, Any]:
        """How others can call this node."""
        view = self.reach.view
        own = self.mesh.directory.get(self.mesh.network.key)
        return {
            "verdict": view.verdict.value,
            "nat": view.nat.value,
            "external": view.external,
            "relays": [peer_id(relay) for relay in view.relays],
            "serves": self.reach.serves_circuits,
            "advertised": [str(address) for address in own.addresses] if own else [],
            "counters": self.reach.counters(),
            "peers": [peer_id(peer) for peer in self.mesh.network.peers()],
        }

    async def knows(self, peer: str) -> list[str]:
        """At which addresses the directory has ``peer``."""
        entry = self.mesh.directory.get(key_of(peer))
        return [str(address) for address in entry.addresses] if entry else []

    async def connect(self, peer: str) -> None:
        """Connect as a requester does."""
        await self.mesh.connect(key_of(peer))

    async def path(self, peer: str) -> dict[str, Any] | None:
        """How ``peer`` is connected."""
        path = self.mesh.network.path(key_of(peer))
        return {"relayed": path.relayed, "outbound": path.outbound, "address": path.address} if path else None

    async def echo(self, peer: str, size_bytes: int) -> bool:
        """Send bytes to ``peer`` and compare what comes back."""
        stream = await self.mesh.network.open_stream(key_of(peer), "echo/1")
        sent = bytes(range(251)) * (size_bytes // 251)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, sent)
            same = await stream.receive_exactly(len(sent)) == sent
        await stream.aclose()
        return same


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def main(setting: dict[str, Any]) -> None:
    seed = hashlib.sha256(setting["seed"].encode()).digest()
    limits = NetworkLimits(dial_timeout_s=8.0, open_timeout_s=8.0)
    settings = ReachSettings(
        relay_always=setting.get("relay", False),
        limits=RelayLimits(circuit_bytes_max=4 << 20, group_bytes_s=1e8),
        addresses_every_s=0.5,
        map_every_s=5.0,
        config=ReachConfig(ask_every_s=0.2, unhelpful_s=2.0, relay_pause_s=2.0),
    )
    async with (
        open_libp2p(seed, listen=setting["listen"], network_id="reach", limits=limits) as network,
        open_mesh(network, Identity(seed), first_peers=setting["peers"]) as mesh,
        open_reach(
            network,
            advertise=mesh.set_addresses,
            settings=settings,
            mapper=map_port if setting.get("upnp") else None,
        ) as reach,
    ):
        mesh.dial, mesh.best_first = reach.dial, reach.best_first
        network.serve("echo/1", echo)
        answer(network.addresses())
        commands = Commands(mesh, reach)
        async for line in trio.wrap_file(sys.stdin):
            name, *arguments = json.loads(line)
            try:
                with trio.fail_after(WAIT_S):
                    answer({"ok": await getattr(commands, name)(*arguments)})
            except (DepinError, trio.TooSlowError) as error:
                answer({"error": getattr(error, "code", "slow"), "message": str(error)})


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, json.loads(sys.argv[1]))
