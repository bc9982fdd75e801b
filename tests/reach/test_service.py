"""The shell over the network in memory: who can be called says so, who cannot gets a relay, and nobody is misused."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog.testing
import trio

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import TransportError
from depin_node.core.wire import decode, encode
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse
from depin_node.p2p.frames import RequestRefusedError, request, serve_requests
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.mesh import Mesh, open_mesh
from depin_node.p2p.reach.messages import (
    MESSAGE_BYTES_MAX,
    REACH_PROTOCOL,
    RELAYED_PROTOCOL,
    Answer,
    Incoming,
    Outcome,
    Question,
)
from depin_node.p2p.reach.service import Reach, ReachSettings, open_reach
from depin_node.p2p.reach.verdict import Nat, Verdict


def now() -> Now:
    ns = int(trio.current_time() * SECOND_NS)
    return Now(ns, 1_700_000_000 * SECOND_NS + ns)


def identity(number: int) -> Identity:
    return Identity(bytes([number]) * 32)


@asynccontextmanager
async def node(
    fabric: MemoryFabric,
    number: int,
    first: list[str],
    *,
    is_private: bool = False,
    ahead_s: int = 0,
    **settings: Any,
) -> AsyncIterator[tuple[Mesh, Reach]]:
    """Open a node in a group of its own, whose clock is ``ahead_s`` ahead."""
    who = identity(number)

    def clock() -> Now:
        return Now(now().boottime_ns, now().wall_ns + ahead_s * SECOND_NS)

    async with (
        fabric.open(who.key, host=f"10.{number}.0.1", is_private=is_private) as network,
        open_mesh(network, who, first_peers=first, clock=clock, rng=random.Random(number)) as mesh,
        open_reach(network, advertise=mesh.set_addresses, settings=ReachSettings(**settings), clock=clock) as reach,
    ):
        mesh.dial, mesh.best_first = reach.dial, reach.best_first
        yield mesh, reach


@asynccontextmanager
async def public(fabric: MemoryFabric, count: int = 3) -> AsyncIterator[list[tuple[Mesh, Reach]]]:
    """Open nodes that know each other, and find that they can be called."""
    async with AsyncExitStack() as stack:
        nodes: list[tuple[Mesh, Reach]] = []
        for number in range(1, count + 1):
            first = [address for mesh, _ in nodes for address in mesh.network.addresses()]
            nodes.append(await stack.enter_async_context(node(fabric, number, first)))
        with trio.fail_after(120):
            for _, reach in nodes:
                while reach.view.verdict is not Verdict.PUBLIC:
                    await trio.sleep(0.5)
        yield nodes


async def until(holds: Any) -> None:
    with trio.fail_after(120):
        while not holds():
            await trio.sleep(0.5)


@pytest.mark.parametrize("ahead_s", [7200, 30])
async def test_a_clock_that_is_off_by_more_than_adverts_allow_is_logged_once(autojump_clock: Any, ahead_s: int) -> None:
    fabric = MemoryFabric(1)
    with structlog.testing.capture_logs() as logs:
        async with public(fabric) as nodes:
            first = [address for mesh, _ in nodes for address in mesh.network.addresses()]
            async with node(fabric, 9, first, ahead_s=ahead_s) as (_, reach):
                await until(lambda: reach.view.skew_s is not None)
                await trio.sleep(60)
    said = [line["behind_s"] for line in logs if "clock is off" in line["event"]]
    assert said == ([-7200] if ahead_s > 60 else [])


async def test_who_cannot_be_called_is_reached_by_a_relay(autojump_clock: Any) -> None:
    fabric = MemoryFabric(1)
    async with public(fabric) as nodes:
        assert all(reach.serves_circuits for _, reach in nodes)
        first = [address for mesh, _ in nodes for address in mesh.network.addresses()]
        async with node(fabric, 9, first, is_private=True) as (mesh, reach):
            await until(lambda: len(reach.view.relays) == 2)
            assert reach.view.verdict is Verdict.PRIVATE
            assert reach.view.nat is Nat.NONE
            private = mesh.network.key
            async with node(fabric, 10, first) as (other, other_reach):
                await until(lambda: (entry := other.directory.get(private)) and entry.addresses[0].relay)
                await other.connect(private)
                path = other.network.path(private)
                assert path is not None
                assert path.relayed
                assert other_reach.counters()["circuits_dialled"] == 1
                await until(lambda: reach.counters().get("circuits_taken") == 1)
                relay = parse(path.address).relay
                serving = next(r for m, r in nodes if m.network.key == relay)
                assert serving.desk.circuits == 1
            await until(lambda: not serving.desk.circuits)
        await until(lambda: not sum(reach.desk.places for _, reach in nodes))


async def test_while_two_have_a_circuit_only_they_try_again_to_meet(autojump_clock: Any) -> None:
    """In memory no hole can be punched; who cannot be called calls who can, again and again."""
    fabric = MemoryFabric(1)
    async with public(fabric) as nodes:
        first = [address for mesh, _ in nodes for address in mesh.network.addresses()]
        async with node(fabric, 9, first, is_private=True) as (mesh, reach):
            await until(lambda: len(reach.view.relays) == 2)
            private = mesh.network.key
            async with node(fabric, 10, first) as (other, other_reach):
                await until(lambda: other_reach.view.verdict is Verdict.PUBLIC)
                await until(lambda: (entry := other.directory.get(private)) and entry.addresses[0].relay)
                await other.connect(private)
                with trio.fail_after(600):
                    while reach.counters().get("not_met", 0) < 3:
                        await trio.sleep(0.5)
                assert trio.current_time() > 66 + 132  # ever more rarely: who is asked too often refuses


async def test_of_two_that_propose_to_meet_at_once_one_begins(autojump_clock: Any, monkeypatch: Any) -> None:
    fabric, begins = MemoryFabric(1), []
    async with public(fabric) as nodes:
        first = [address for mesh, _ in nodes for address in mesh.network.addresses()]
        async with (
            node(fabric, 9, first, is_private=True) as (a, one),
            node(fabric, 10, first, is_private=True) as (b, other),
        ):
            await until(lambda: len(one.view.relays) == len(other.view.relays) == 2)
            await until(lambda: (entry := b.directory.get(a.network.key)) and entry.addresses[0].relay)
            await b.connect(a.network.key)

            async def punch(peer: bytes, *_: Any, outbound: bool, **__: Any) -> None:
                begins.append(outbound)
                await trio.sleep(1)
                raise TransportError("no holes are punched in memory")

            for mesh, reach in ((a, one), (b, other)):
                monkeypatch.setattr(mesh.network, "punch", punch)
                reach._met_ns.clear()  # as a minute later
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one._propose, b.network.key)
                nursery.start_soon(other._propose, a.network.key)
            assert begins.count(True) == 1


async def test_when_its_relays_die_it_finds_others(autojump_clock: Any) -> None:
    fabric = MemoryFabric(2)
    async with public(fabric, 4) as nodes:
        first = [address for mesh, _ in nodes for address in mesh.network.addresses()]
        async with node(fabric, 9, first, is_private=True) as (_, reach):
            await until(lambda: len(reach.view.relays) == 2)
            gone = reach.view.relays[0]
            fabric.kill(gone)
            await until(lambda: len(reach.view.relays) == 2 and gone not in reach.view.relays)
            await until(lambda: all(parse(a).relay != gone for a in reach.addresses() or ()))


async def ask(network: Any, peer: bytes, port: int) -> Answer:
    answer = await request(
        network, peer, REACH_PROTOCOL, encode(Question(port)), size_bytes_max=MESSAGE_BYTES_MAX, timeout_s=30
    )
    return decode(answer, Answer, size_bytes_max=MESSAGE_BYTES_MAX)


async def test_only_the_asker_is_called_back_and_not_often(autojump_clock: Any) -> None:
    fabric = MemoryFabric(3)
    async with node(fabric, 1, []) as (mesh, reach), fabric.open(identity(7).key, host="10.7.0.1") as asker:
        called: list[str] = []
        probe = mesh.network.probe

        async def spy(address: str) -> None:
            called.append(address)
            await probe(address)

        mesh.network.probe = spy  # type: ignore[method-assign]
        await asker.dial(mesh.network.addresses()[0])
        own = parse(asker.addresses()[0])
        answer = await ask(asker, mesh.network.key, own.port)
        assert (answer.host, answer.outcome, answer.called) == (own.host, Outcome.REACHED, True)
        assert (await ask(asker, mesh.network.key, 1)).outcome is Outcome.NOT_REACHED
        assert {parse(address).host for address in called} == {own.host}
        assert {parse(address).peer for address in called} == {asker.key}
        for _ in range(2):
            await ask(asker, mesh.network.key, own.port)
        with pytest.raises(RequestRefusedError, match="resource"):
            await ask(asker, mesh.network.key, own.port)
        assert len(called) == 4
        assert (await ask(asker, mesh.network.key, 0)).outcome is Outcome.NOT_TRIED, "to look costs nothing"
        await trio.sleep(10)
        assert (await ask(asker, mesh.network.key, own.port)).outcome is Outcome.REACHED
        assert reach.counters()["called_back"] == 5


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "224.0.0.1", "2001:db8::1%x", "nowhere"])
async def test_who_sees_us_where_nobody_can_be_is_not_heard(autojump_clock: Any, host: str) -> None:
    fabric = MemoryFabric(3)

    async def lie(peer: bytes, body: bytes) -> bytes:
        return encode(Answer(host, 4701, called=True, outcome=Outcome.REACHED, wall_s=0))

    async with AsyncExitStack() as stack:
        first = []
        for number in (1, 2):
            liar = await stack.enter_async_context(fabric.open(identity(number).key, host=f"10.{number}.0.1"))
            serve_requests(liar, REACH_PROTOCOL, lie, size_bytes_max=MESSAGE_BYTES_MAX, timeout_s=5)
            first.append(liar.addresses()[0])
        async with node(fabric, 9, first) as (mesh, reach):
            await until(lambda: len(mesh.network.peers()) == 2)
            await trio.sleep(60)
            assert (reach.view.verdict, reach.addresses()) == (Verdict.UNKNOWN, None)


async def test_circuits_from_who_is_not_our_relay_are_refused(autojump_clock: Any) -> None:
    fabric = MemoryFabric(4)
    async with node(fabric, 1, []) as (mesh, _), fabric.open(identity(7).key, host="10.7.0.1") as mallory:
        await mallory.dial(mesh.network.addresses()[0])
        incoming = encode(Incoming(identity(8).key, bulk=True, host="10.8.0.1", port=1))
        with pytest.raises(RequestRefusedError, match="not_my_relay"):
            await request(
                mallory, mesh.network.key, RELAYED_PROTOCOL, incoming, size_bytes_max=MESSAGE_BYTES_MAX, timeout_s=9
            )
        assert identity(8).key not in mesh.network.peers()


async def test_a_node_that_came_up_without_a_network_tells_its_address_when_it_has_one(autojump_clock: Any) -> None:
    fabric = MemoryFabric(1)
    async with node(fabric, 1, []) as (first, _), fabric.open(identity(2).key, host="127.0.0.1") as network:
        settings = ReachSettings()
        async with (
            open_mesh(network, identity(2), first_peers=first.network.addresses(), clock=now) as mesh,
            open_reach(network, advertise=mesh.set_addresses, settings=settings, clock=now),
        ):
            with trio.fail_after(60):
                await first.ready.wait()
            assert mesh.directory.dials_loopback
            alone, network._address = network._address, msgspec.structs.replace(network._address, host="10.2.0.1")
            with trio.fail_after(60):
                while (known := first.directory.get(network.key)) is None or known.addresses == (alone,):
                    await trio.sleep(1)
            assert known.addresses == (network._address,)
            assert not mesh.directory.dials_loopback
