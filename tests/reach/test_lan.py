"""Real nodes on a cable between network namespaces, told of nobody: they find each other by multicast."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer

import netns
import pytest

from depin_node.crypto.identity import Identity, peer_id

WHY_NOT = netns.missing(nat=False)
# Multicast needs a LAN: two network namespaces and a cable, which only root can make; WHY_NOT says what is missing.
pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
SCRIPT = Path(netns.__file__).with_name("lan_node.py")
DEADLINE_S = 90.0


@contextmanager
def node(space: str, number: int, network: str = "lan", look_s: float = 30.0) -> Iterator[subprocess.Popen[str]]:
    run = ["ip", "netns", "exec", space, sys.executable, str(SCRIPT), str(number), network, str(look_s)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        deadline = Timer(DEADLINE_S, process.kill)  # then what is read ends
        deadline.start()
        try:
            yield process
        finally:
            deadline.cancel()
            process.kill()


def name(number: int) -> str:
    return peer_id(Identity(bytes([number]) * 32).key)


def until(process: subprocess.Popen[str], what: str, peers: set[str]) -> None:
    """Read until something happens in the presence of these peers."""
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told and told[0] == what and peers <= set(told[1]):
            return
    raise AssertionError(f"{peers} not in time")


def test_nodes_of_one_cable_find_each_other_and_those_of_another_mesh_are_left_alone() -> None:
    with netns.internet() as net, ExitStack() as stack:
        a, b = net.space("a"), net.space("b")
        net.link(a, "192.168.7.1/24", b, "192.168.7.2/24")
        first = stack.enter_context(node(a, 1))
        stranger = stack.enter_context(node(b, 3, "another"))
        second = stack.enter_context(node(b, 2))
        until(first, "discovered", {name(2)})
        until(second, "discovered", {name(1)})
        until(stranger, "undialled", set())  # it tried, was told that its mesh is another, and knows nobody


def test_a_device_that_goes_and_comes_back_with_its_address_between_two_looks_is_heard_again() -> None:
    with netns.internet() as net, ExitStack() as stack:
        a, b = net.space("a"), net.space("b")
        device, _ = net.link(a, "192.168.7.1/24", b, "192.168.7.2/24")
        first = stack.enter_context(node(a, 1, look_s=3.0))
        with node(b, 2):
            until(first, "discovered", {name(2)})
        net.inside(a, "ip", "link", "delete", device)
        net.link(a, "192.168.7.1/24", b, "192.168.7.2/24")
        stack.enter_context(node(b, 3))
        until(first, "discovered", {name(3)})
