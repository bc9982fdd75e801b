"""One node of the tests on a local network: it is told of nobody, and prints whom it knows whenever that changes.

python lan_node.py SEED NETWORK_ID [LOOK_S]
"""

import json
import logging
import sys

import structlog
import trio

from depin_node.crypto.identity import Identity
from depin_node.p2p import lan as lans
from depin_node.p2p.lan import open_lan
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.mesh import open_mesh

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


async def main() -> None:
    lans.LOOK_S = float(sys.argv[3]) if len(sys.argv) > 3 else lans.LOOK_S
    identity = Identity(bytes([int(sys.argv[1])]) * 32)
    async with (
        open_libp2p(identity.seed, listen=["/ip4/0.0.0.0/tcp/0"], network_id=sys.argv[2]) as network,
        open_mesh(network, identity) as mesh,
        open_lan(network.key, network.addresses, mesh.sighted) as lan,
    ):
        seen = mesh.watch()
        print(json.dumps([]), flush=True)
        async for tell in seen:
            peers = sorted(entry.name for entry in mesh.directory.peers())
            print(json.dumps([tell.what, peers, lan.networks]), flush=True)


trio.run(main)
