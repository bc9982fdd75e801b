"""Real nodes in real network namespaces, behind NAT made by nftables: what they find out, and how they meet."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import netns
import pytest
from netns import Internet, Site
from reach_process import Node, peer_of

WHY_NOT = netns.missing()
pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
PUBLIC = ("192.0.2", "198.51.100", "203.0.113")


class World:
    """Three public first peers, each a group of its own, and two sites."""

    def __init__(self, net: Internet, stack: ExitStack) -> None:
        self.net = net
        spaces = [net.host(f"p{i}", network) for i, network in enumerate(PUBLIC)]
        self.sites: tuple[Site, Site] = (net.site("a", "198.18.0", 1), net.site("b", "198.19.0", 2))
        self.first = [f"/ip4/{host}/tcp/4701/p2p/{peer_of(f'public{i}')}" for i, (_, host) in enumerate(spaces)]
        self.public: list[Node] = []
        for i, (space, _) in enumerate(spaces):
            node = Node(space, f"public{i}", self.first, relay=True)
            stack.callback(node.end)
            self.public.append(node)
        for node in self.public:
            node.view()

    @contextmanager
    def nodes(self, *kinds: str, **setting: Any) -> Iterator[list[Node]]:
        """Start a node at each site, whose NAT is of that kind."""
        with ExitStack() as stack:
            started = []
            for site, kind in zip(self.sites, kinds, strict=False):
                site.set_nat(kind)
                node = Node(site.space, f"{site.space}{kind}{os.urandom(4).hex()}", self.first, **setting)
                stack.callback(node.end)
                started.append(node)
            yield started


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with netns.internet() as net, ExitStack() as stack:
        yield World(net, stack)


def test_public_nodes_find_that_they_can_be_called(world: World) -> None:
    for node in world.public:
        view = node.until(lambda view: view["verdict"] == "public")
        assert (view["nat"], view["external"], view["relays"]) == ("none", [], [])


@contextmanager
def another_address(site: Site, address: str) -> Iterator[None]:
    """Give the host of a site one more address as long as the block runs."""
    device = site.net.device_of(site.space, site.host)
    site.net.inside(site.space, "ip", "address", "add", address, "dev", device)
    yield
    site.net.inside(site.space, "ip", "address", "del", address, "dev", device)


def test_behind_a_full_cone_we_are_public_at_its_address_and_adverts_follow_ours(
    world: World,
) -> None:
    with world.nodes("full-cone") as (a,):
        view = a.until(lambda view: view["verdict"] == "public" and view["nat"] != "unknown")
        assert view["external"] == [["198.18.0.2", 4701]]
        assert view["nat"] == "endpoint-independent"
        outer = f"/ip4/198.18.0.2/tcp/4701/p2p/{a.peer}"
        a.until(lambda view: view["advertised"][0] == outer)
        other = world.public[0]
        other.wait_for(lambda: other.ask("knows", a.peer)["ok"], lambda known: outer in known)
        with another_address(world.sites[0], "192.168.1.77/24"):
            a.until(lambda view: any("192.168.1.77" in address for address in view["advertised"]))
        a.until(lambda view: not any("192.168.1.77" in address for address in view["advertised"]))


def private(node: Node, nat: str) -> dict[str, Any]:
    """Wait until a node knows that it cannot be called, by what kind of NAT, and advertises two relays first."""
    view = node.until(lambda view: len(view["relays"]) == 2 and view["nat"] == nat and view["verdict"] == "private")
    assert view["external"] == []
    return node.until(lambda view: all("p2p-circuit" in address for address in (*view["advertised"], "", "")[:2]))


def test_two_behind_port_restricted_nats_meet_through_holes(world: World) -> None:
    with world.nodes("port-restricted", "port-restricted") as (a, b):
        private(a, "endpoint-independent")
        private(b, "endpoint-independent")
        a.wait_for(lambda: a.ask("knows", b.peer)["ok"], lambda known: any("p2p-circuit" in where for where in known))
        assert a.ask("connect", b.peer) == {"ok": None}
        path = a.ask("path", b.peer)["ok"]  # at once: what is begun on a circuit ends with it
        assert not path["relayed"]
        assert path["address"].startswith("/ip4/198.19.0.2/")
        b.wait_for(lambda: b.ask("path", a.peer)["ok"], lambda path: path and not path["relayed"])
        assert a.ask("echo", b.peer, 8_000_000) == {"ok": True}


def test_two_behind_symmetric_nats_keep_to_the_relay(world: World) -> None:
    with world.nodes("symmetric", "symmetric") as (a, b):
        private(a, "address-dependent")
        private(b, "address-dependent")
        a.wait_for(lambda: a.ask("knows", b.peer)["ok"], lambda known: any("p2p-circuit" in where for where in known))
        assert a.ask("connect", b.peer) == {"ok": None}
        assert a.ask("path", b.peer)["ok"]["relayed"]
        assert a.ask("echo", b.peer, 100_000) == {"ok": True}
        assert a.ask("path", b.peer)["ok"]["relayed"]


def test_a_public_node_asks_a_private_one_by_its_relay_and_is_called(world: World) -> None:
    """The private one, asked through the relay, calls the public one directly."""
    with world.nodes("symmetric", "full-cone") as (a, b):
        b.until(lambda view: view["verdict"] == "public")
        a.until(lambda view: view["relays"])
        b.wait_for(lambda: b.ask("knows", a.peer)["ok"], lambda known: any("p2p-circuit" in where for where in known))
        b.ask("connect", a.peer)
        path = b.ask("path", a.peer)["ok"]
        assert not path["relayed"]
        assert path["address"].startswith("/ip4/198.18.0.2/")
