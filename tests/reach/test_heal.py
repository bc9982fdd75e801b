"""Real nodes in network namespaces whose network breaks and changes under them: the mesh mends by itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import netns
import pytest
from netns import Internet
from reach_process import Node, peer_of

WHY_NOT = netns.missing(nat=False)
# Cutting a network and moving a host between addresses is done in namespaces, which only root can make.
pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
NETWORKS = ("192.0.2", "198.51.100", "203.0.113", "198.18.0")


def address_of(host: str, name: str) -> str:
    return f"/ip4/{host}/tcp/4701/p2p/{peer_of(name)}"


class Hosts:
    """Four public hosts, each a group of its own, with a node each; all were told of the first node only."""

    def __init__(self, net: Internet, stack: ExitStack) -> None:
        self.net = net
        self.spaces = [net.host(f"h{i}", network)[0] for i, network in enumerate(NETWORKS)]
        first = [address_of(f"{NETWORKS[0]}.2", "h0")]
        self.nodes = [Node(space, f"h{i}", first if i else []) for i, space in enumerate(self.spaces)]
        for node in self.nodes:
            stack.callback(node.end)

    def meet(self, *groups: set[int]) -> None:
        """Wait until each node is connected with all of its group, and with nobody else."""
        for group in groups:
            for number in group:
                peers = {self.nodes[other].peer for other in group - {number}}
                self.nodes[number].until(lambda view, peers=peers: set(view["peers"]) == peers)

    @contextmanager
    def cut_between(self, some: set[int], others: set[int]) -> Iterator[None]:
        """Let nothing pass between two groups of hosts as long as the block runs."""
        pairs = [(a, b) for a in some for b in others] + [(b, a) for a in some for b in others]
        rules = [["from", f"{NETWORKS[a]}.0/24", "to", f"{NETWORKS[b]}.0/24", "blackhole"] for a, b in pairs]
        for rule in rules:
            self.net.inside(self.net.core, "ip", "rule", "add", *rule)
        yield
        for rule in rules:
            self.net.inside(self.net.core, "ip", "rule", "del", *rule)

    def move(self, number: int) -> str:
        """Give a host another address of its network instead of the one that it has, and return it."""
        space, network = self.spaces[number], NETWORKS[number]
        device = self.net.device_of(space, f"{network}.2")
        self.net.inside(space, "ip", "address", "del", f"{network}.2/24", "dev", device)
        self.net.inside(space, "ip", "address", "add", f"{network}.77/24", "dev", device)
        self.net.inside(space, "ip", "route", "replace", "default", "via", f"{network}.1")
        return f"{network}.77"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with netns.internet() as net, ExitStack() as stack:
        yield Hosts(net, stack)


def test_a_mesh_that_was_cut_in_two_goes_on_in_both_halves_and_grows_together_again(hosts: Hosts) -> None:
    hosts.meet({0, 1, 2, 3})
    with hosts.cut_between({0, 1}, {2, 3}):
        hosts.meet({0, 1}, {2, 3})
    hosts.meet({0, 1, 2, 3})
    assert hosts.nodes[2].ask("echo", hosts.nodes[1].peer, 10_000)["ok"]


def test_a_node_whose_address_changes_under_it_is_found_at_the_new_one(hosts: Hosts) -> None:
    hosts.meet({0, 1, 2, 3})
    moved = address_of(hosts.move(2), "h2")
    for other in (0, 1, 3):
        node = hosts.nodes[other]
        node.wait_for(lambda node=node: node.ask("knows", hosts.nodes[2].peer)["ok"], lambda known: moved in known)
    hosts.meet({0, 1, 2, 3})
    assert hosts.nodes[3].ask("echo", hosts.nodes[2].peer, 10_000)["ok"]
