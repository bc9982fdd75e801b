"""The shell of multicast DNS on the machine's own loopback: networks that cannot be joined, or not even be seen."""

import ipaddress
import resource
import socket
from contextlib import contextmanager

import pytest
import trio

from depin_node.p2p import lan as module
from depin_node.p2p.lan import Lan

NETWORK = (1, ipaddress.IPv4Interface("127.0.0.1/8"))


@contextmanager
def no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def port(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        monkeypatch.setattr(module, "PORT", taken.getsockname()[1])  # another program's, that will not share it
        yield taken


async def test_a_network_that_could_not_be_joined_once_is_joined_later_and_no_more_complained_of(port, monkeypatch):
    lan, there = Lan(bytes(32), list, lambda address: None), [NETWORK]
    monkeypatch.setattr(module, "interfaces", lambda: there)
    async with trio.open_nursery() as nursery:
        await lan._look(nursery)
        assert (lan.networks, "in use" in lan.error) == ((), True)
        port.close()
        await lan._look(nursery)
        assert (lan.networks, lan.error) == (("127.0.0.1/8",), "")
        there = []
        await lan._look(nursery)
        assert (lan.networks, lan.error) == ((), "")


async def test_networks_that_cannot_be_seen_for_a_moment_stay_joined(port, monkeypatch):
    port.close()
    lan = Lan(bytes(32), list, lambda address: None)
    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patched:
            patched.setattr(module, "interfaces", lambda: [NETWORK])
            await lan._look(nursery)
        with no_descriptor_left():
            await lan._look(nursery)
        assert lan.networks == ("127.0.0.1/8",)
        nursery.cancel_scope.cancel()
    for joined in lan._sockets.values():
        joined.close()


async def test_a_device_that_came_back_with_its_address_is_joined_anew(port, monkeypatch):
    port.close()
    lan, there = Lan(bytes(32), list, lambda address: None), [NETWORK]
    monkeypatch.setattr(module, "interfaces", lambda: there)
    async with trio.open_nursery() as nursery:
        await lan._look(nursery)
        (before,) = lan._sockets.values()
        there = [(2, NETWORK[1])]
        await lan._look(nursery)
        (after,) = lan._sockets.values()
        assert before is not after
        assert lan.networks == ("127.0.0.1/8",)
        there = []
        await lan._look(nursery)
