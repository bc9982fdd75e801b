"""A gateway that passes our port on: a real client against a small gateway with real rules, in network namespaces."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import netns
import pytest
import trio
from netns import Site

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.wire import decode, encode
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse
from depin_node.p2p.frames import serve_requests
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.reach.messages import REACH_PROTOCOL, Answer, Outcome, Question
from depin_node.p2p.reach.service import open_reach
from depin_node.p2p.reach.verdict import Verdict

WHY_NOT = netns.missing()
needs_namespaces = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
GATEWAY = Path(netns.__file__).with_name("fake_gateway.py")
ASK = "from depin_node.p2p.reach.upnp import map_port; import trio, sys, json, structlog, logging;" \
    "structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr));" \
    "print(json.dumps(trio.run(map_port, '192.168.1.2', 4701)))"  # fmt: skip


@contextmanager
def gateway(site: Site, outer_host: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", site.router, sys.executable, GATEWAY, "192.168.1.1", outer_host, site.outer_interface],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"action": "ready"}
    try:
        yield process
    finally:
        process.kill()


def mapped(site: Site) -> Any:
    done = subprocess.run(
        ["ip", "netns", "exec", site.space, sys.executable, "-c", ASK], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.net
@needs_namespaces
def test_the_gateway_passes_the_port_on_and_calls_from_outside_arrive() -> None:
    with netns.internet() as net:
        outside, _ = net.host("p", "192.0.2")
        site = net.site("a", "198.18.0", 1)
        site.set_nat("port-restricted")
        assert mapped(site) is None, "no gateway answers: no port, and no error"
        with gateway(site, site.outer_host) as process:
            assert mapped(site) == [site.outer_host, 4701]
            process.kill()
            asked = {line["action"]: line for line in map(json.loads, process.communicate()[0].splitlines())}
        assert asked["AddPortMapping"]["NewInternalClient"] == site.host
        assert 0 < int(asked["AddPortMapping"]["NewLeaseDuration"]) <= 3600, "a node that dies does not keep the port"
        serve = "import socket; s=socket.create_server(('', 4701)); print('up', flush=True); print(s.accept()[1])"
        listener = subprocess.Popen(
            ["ip", "netns", "exec", site.space, sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True
        )
        assert listener.stdout is not None
        assert listener.stdout.readline() == "up\n"
        call = f"import socket; socket.create_connection(('{site.outer_host}', 4701), 5)"
        net.inside(outside, sys.executable, "-c", call)
        assert "192.0.2.2" in listener.communicate(timeout=10)[0]


async def test_what_a_gateway_says_is_asked_of_peers_before_it_is_advertised(autojump_clock: Any) -> None:
    fabric, asked, advertised = MemoryFabric(1), [], []

    async def lying_gateway(host: str, port: int) -> tuple[str, int]:
        assert (host, port) == ("10.1.0.1", parse(network.addresses()[0]).port)
        return "203.0.113.9", 4999

    async def note(peer: bytes, body: bytes) -> bytes:
        asked.append(decode(body, Question, size_bytes_max=64).port)
        return encode(Answer("203.0.113.9", 1, called=True, outcome=Outcome.NOT_REACHED, wall_s=0))

    def now() -> Now:
        ns = int(trio.current_time() * SECOND_NS)
        return Now(ns, ns)

    keys = [Identity(bytes([number]) * 32).key for number in (1, 2, 3)]
    async with (
        fabric.open(keys[0], host="10.1.0.1") as network,
        fabric.open(keys[1], host="10.2.0.1") as one,
        fabric.open(keys[2], host="10.3.0.1") as two,
        open_reach(network, advertise=advertised.append, mapper=lying_gateway, clock=now) as reach,
    ):
        for peer in (one, two):
            serve_requests(peer, REACH_PROTOCOL, note, size_bytes_max=64, timeout_s=5)
            await network.dial(peer.addresses()[0])
        await trio.sleep(30)
        assert set(asked) == {4999}
        assert reach.view.verdict is Verdict.PRIVATE
        assert set(advertised) == {None}, "nothing but where it listens"
