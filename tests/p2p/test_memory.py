"""The simulated faults: delay, loss, partition, freeze and kill, on a clock that jumps."""

import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from depin_node.core.errors import TransportError
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.network import Connected, Disconnected, Network, NetworkLimits, Stream, Verdict


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def test_bytes_take_their_time(clock: trio.testing.MockClock) -> None:
    fabric = MemoryFabric(seed=3, latency_s=(0.1, 0.1))
    async with fabric.open(key(1)) as a, fabric.open(key(2)) as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        begin = trio.current_time()
        await stream.send_all(b"x")
        await stream.receive_exactly(1)
        assert trio.current_time() - begin == pytest.approx(0.2)


async def test_a_kill_drops_connections_and_leaves_the_block(clock: trio.testing.MockClock) -> None:
    fabric = MemoryFabric()
    async with fabric.open(key(1)) as a:
        events = a.connection_events()
        reached = False
        async with trio.open_nursery() as nursery:

            async def victim(task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
                nonlocal reached
                async with fabric.open(key(2)) as b:
                    b.serve("echo/1", echo)
                    task_status.started(b.addresses()[0])
                    await trio.sleep_forever()
                reached = True

            await a.dial(await nursery.start(victim))
            stream = await a.open_stream(key(2), "echo/1")
            fabric.kill(key(2))
            assert isinstance(await events.receive(), Connected)
            assert await events.receive() == Disconnected(key(2))
            with pytest.raises(TransportError, match="reset"):
                await stream.receive_some()
        assert reached
        async with fabric.open(key(2)) as again:
            assert await a.dial(again.addresses()[0]) == key(2)


async def test_a_short_partition_only_delays(clock: trio.testing.MockClock) -> None:
    fabric = MemoryFabric()
    async with fabric.open(key(1)) as a, fabric.open(key(2)) as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        fabric.partition([a.key], [b.key])
        await stream.send_all(b"x")
        with trio.move_on_after(3) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        fabric.heal()
        assert await stream.receive_exactly(1) == b"x"
        await trio.sleep(60)
        assert a.peers() == {b.key}


@pytest.mark.parametrize("how", ["partition", "freeze"])
async def test_a_long_silence_is_a_death(clock: trio.testing.MockClock, how: str) -> None:
    fabric = MemoryFabric()
    limits = NetworkLimits(dead_after_s=6, dial_timeout_s=10)
    async with fabric.open(key(1), limits=limits) as a, fabric.open(key(2)) as b, fabric.open(key(3)) as c:
        for node in (b, c):
            await a.dial(node.addresses()[0])
        events = a.connection_events()
        begin = trio.current_time()
        if how == "partition":
            fabric.partition([b.key])
        else:
            fabric.freeze(b.key)
        assert await events.receive() == Disconnected(b.key)
        assert trio.current_time() - begin == pytest.approx(6)
        assert a.peers() == {c.key}
        with pytest.raises(TransportError, match="no answer within 10 s"):
            await a.dial(b.addresses()[0])
        fabric.heal()
        fabric.thaw(b.key)
        assert await a.dial(b.addresses()[0]) == b.key


async def test_gossip_is_lost_by_the_seed(clock: trio.testing.MockClock) -> None:
    async def heard(seed: int) -> list[bytes]:
        fabric = MemoryFabric(seed, gossip_loss=0.5)
        got: list[bytes] = []

        async def take(peer: bytes, data: bytes) -> Verdict:
            got.append(data)
            return Verdict.ACCEPT

        async with fabric.open(key(1)) as a, fabric.open(key(2)) as b:
            b.subscribe("notes/1", take)
            await a.dial(b.addresses()[0])
            for number in range(100):
                await a.publish("notes/1", bytes([number]))
            await trio.sleep(1)
        return got

    first = await heard(1)
    assert 30 < len(first) < 70
    assert first == await heard(1)
    assert first != await heard(2)


async def test_a_full_gossip_queue_drops_the_newest_and_counts(clock: trio.testing.MockClock) -> None:
    fabric = MemoryFabric()
    got: list[bytes] = []

    async def slow(peer: bytes, data: bytes) -> Verdict:
        await trio.sleep(1)
        got.append(data)
        return Verdict.ACCEPT

    async with fabric.open(key(1)) as a, fabric.open(key(2), limits=NetworkLimits(gossip_queue_max=5)) as b:
        b.subscribe("notes/1", slow)
        await a.dial(b.addresses()[0])
        for number in range(20):
            await a.publish("notes/1", bytes([number]))
        await trio.sleep(100)
        assert got == [bytes([number]) for number in range(len(got))]
        assert len(got) + b.counters()["gossip_dropped"] == 20
        assert len(got) <= 6


async def test_a_thousand_nodes_hear_one(clock: trio.testing.MockClock) -> None:
    seed = 7
    chance = random.Random(seed)
    fabric = MemoryFabric(seed, latency_s=(0.01, 0.1))
    heard: set[bytes] = set()
    async with AsyncExitStack() as stack:
        nodes: list[Network] = [await stack.enter_async_context(fabric.open(key(n))) for n in range(1000)]

        def listen(node: Network) -> None:
            async def take(peer: bytes, data: bytes) -> Verdict:
                assert node.key not in heard
                heard.add(node.key)
                return Verdict.ACCEPT

            node.subscribe("notes/1", take)

        async def join(node: Network) -> None:
            for other in chance.sample(nodes, 4):
                if other is not node:
                    await node.dial(other.addresses()[0])

        async with trio.open_nursery() as nursery:
            for node in nodes:
                listen(node)
                nursery.start_soon(join, node)
        begin = trio.current_time()
        await nodes[0].publish("notes/1", b"hello")
        while len(heard) < 999:
            await trio.sleep(0.01)
        assert trio.current_time() - begin < 2


async def test_hosts_can_be_chosen(clock: Any) -> None:
    fabric = MemoryFabric()
    async with fabric.open(key(1), host="198.51.100.7") as a, fabric.open(key(2), host="198.51.100.7") as b:
        assert a.addresses()[0].startswith("/ip4/198.51.100.7/")
        await b.dial(a.addresses()[0])
