"""Forty real nodes on one machine, each a process that knows one other: how soon does each know all?

Then the first peer is killed, and a newcomer joins by another node; then half of the nodes are killed at once, and one
more newcomer joins. Times count from when the last node (or the newcomer) listens, until every directory concerned is
complete: ``forty_nodes_known_s`` at most 10 is what design.md asks for. All traffic stays on loopback.

    python benchmarks/net_mesh.py [--nodes 40]

The last line is one flat JSON object.
"""

import argparse
import json
import queue
import random
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

from depin_node.crypto.identity import Identity, peer_id

START_S = 600.0
TIMEOUT_S = 120.0
PORT_FIRST = 21_000
"""Below the range from which systems take the ports of outgoing calls: else one may be gone before its node listens."""
NODE = """
import json, logging, sys, time
import structlog, trio
from depin_node.crypto.identity import Identity
from depin_node.p2p.advert import DeviceOffer, Offer
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import open_mesh

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
seed, port, *first = sys.argv[1:]
identity = Identity(bytes.fromhex(seed))
offer = Offer(lending=True, devices=(DeviceOffer("wasm-1", 512, 1, 1),))

def tell(**facts):
    print(json.dumps(facts | {"at_s": time.monotonic()}), flush=True)

async def main():
    listen = [f"/ip4/127.0.0.1/tcp/{port}"]
    async with (
        open_libp2p(identity.seed, listen=listen, network_id="forty") as network,
        open_mesh(network, identity, first_peers=first, offer=offer) as mesh,
    ):
        tell(known=[])
        before = []
        async for _ in mesh.watch():
            known = sorted(entry.name for entry in mesh.directory.peers() if not entry.is_unreachable)
            if known != before:
                before = known
                tell(known=known)

trio.run(main)
"""


class Node:
    """One process; what it tells is read by a thread of its own."""

    def __init__(self, stack, news, number, first):
        self.number = number
        identity = Identity(number.to_bytes(32, "big"))
        port = PORT_FIRST + number
        self.name = peer_id(identity.key)
        self.address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{self.name}"
        arguments = [sys.executable, "-c", NODE, identity.seed.hex(), str(port), *([first.address] if first else [])]
        self.process = stack.enter_context(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True))
        stack.callback(self.process.kill)
        self.listens_s = None
        self.known = frozenset()
        threading.Thread(target=self._read, args=(news,), daemon=True).start()

    def _read(self, news):
        for line in self.process.stdout:
            news.put((self, json.loads(line)))


def wait_until(news, nodes, living):
    """Return when (monotonic) the last of ``nodes`` knew all that live, and counted none of them as gone."""
    deadline_s = time.monotonic() + (TIMEOUT_S if all(node.listens_s for node in nodes) else START_S)
    names, last_s = {node.name for node in living}, 0.0
    while any(node.listens_s is None or not names - {node.name} <= node.known for node in nodes):
        try:
            node, facts = news.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            missing = sorted(len(names - {node.name} - node.known) for node in nodes)
            raise SystemExit(f"nodes still miss so many others: {missing}") from None
        node.listens_s = node.listens_s or facts["at_s"]
        node.known, last_s = frozenset(facts["known"]), facts["at_s"]
    return last_s


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, news, nodes = random.Random(options.seed), queue.Queue(), []
    with ExitStack() as stack:
        for number in range(1, options.nodes + 1):
            nodes.append(Node(stack, news, number, rng.choice(nodes) if nodes else None))
        done_s = wait_until(news, nodes, nodes)
        result = {"forty_nodes_known_s": round(done_s - max(node.listens_s for node in nodes), 2)}
        print(json.dumps(result), flush=True)

        nodes.pop(0).process.kill()
        newcomer = Node(stack, news, 1001, rng.choice(nodes))
        nodes.append(newcomer)
        done_s = wait_until(news, nodes, nodes)
        result["first_killed_newcomer_known_s"] = round(done_s - newcomer.listens_s, 2)
        print(json.dumps(result), flush=True)

        rng.shuffle(nodes)
        half = len(nodes) // 2
        for node in nodes[:half]:
            node.process.kill()
        nodes = nodes[half:]
        newcomer = Node(stack, news, 1002, nodes[0])
        nodes.append(newcomer)
        done_s = wait_until(news, [newcomer], nodes)
        result["half_killed_newcomer_known_s"] = round(done_s - newcomer.listens_s, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
