"""What every ``Network`` promises, run on the one in memory and on libp2p over loopback."""

import hashlib
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio

from depin_node.core.errors import ConfigError, PeerViolation, TransportError
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse, peer_id
from depin_node.p2p.frames import FrameReader, RequestRefusedError, request, serve_requests
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.network import (
    Connected,
    Disconnected,
    Network,
    NetworkLimits,
    Stream,
    UnknownProtocolError,
    Verdict,
)

OpenNode = Callable[..., AbstractAsyncContextManager[Network]]
DEADLINE_S = 30


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def key_of(name: str) -> bytes:
    return Identity(seed_of(name)).key


@pytest.fixture(params=["memory", pytest.param("libp2p", marks=pytest.mark.net)])
def open_node(request: pytest.FixtureRequest) -> OpenNode:
    if request.param == "memory":
        fabric = MemoryFabric(seed=1)

        def open_memory(name: str, network_id: str = "test", **limits: Any) -> AbstractAsyncContextManager[Network]:
            return fabric.open(key_of(name), network_id=network_id, limits=NetworkLimits(**limits))

        return open_memory

    from depin_node.p2p.libp2p.host import open_libp2p

    def open_real(name: str, network_id: str = "test", **limits: Any) -> AbstractAsyncContextManager[Network]:
        return open_libp2p(seed_of(name), network_id=network_id, limits=NetworkLimits(**limits))

    return open_real


@pytest.fixture(autouse=True)
async def deadline() -> Any:
    with trio.fail_after(DEADLINE_S):
        yield


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


def pattern(size_bytes: int) -> bytes:
    """Bytes in which any loss, doubling or swap shows."""
    return b"".join(i.to_bytes(4, "big") for i in range((size_bytes + 3) // 4))[:size_bytes]


async def receive_all(stream: Stream, size_bytes_max: int = 65_536) -> bytes:
    data = bytearray()
    while chunk := await stream.receive_some(size_bytes_max):
        data += chunk
    return bytes(data)


async def open_and_read(network: Network, peer: bytes, protocol: str) -> bytes:
    stream = await network.open_stream(peer, protocol)
    return await stream.receive_some()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


# Connecting


async def test_a_dialled_peer_is_known_to_both(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        seen_by_a, seen_by_b = a.connection_events(), b.connection_events()
        assert a.key == key_of("a")
        assert await a.dial(b.addresses()[0]) == b.key
        at_a, at_b = await seen_by_a.receive(), await seen_by_b.receive()
        assert isinstance(at_a, Connected)
        assert isinstance(at_b, Connected)
        assert (at_a.peer, at_a.outbound) == (b.key, True)
        assert (at_b.peer, at_b.outbound) == (a.key, False)
        assert parse(at_a.address).peer == b.key
        assert a.peers() == {b.key}
        assert b.peers() == {a.key}
        assert await a.dial(b.addresses()[0]) == b.key  # again: nothing new
        with pytest.raises(trio.WouldBlock):
            seen_by_a.receive_nowait()


async def test_addresses_can_be_dialled_as_they_are_printed(open_node: OpenNode) -> None:
    async with open_node("a") as a:
        for address in a.addresses():
            assert parse(address).peer == a.key
            assert not parse(address).is_wildcard
            assert parse(address).port > 0


async def test_dial_says_what_is_wrong(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b, open_node("x", network_id="other") as foreign:
        where = b.addresses()[0].rsplit("/", 1)[0]
        with pytest.raises(ConfigError, match="not an address"):
            await a.dial("10.0.0.1:4001")
        with pytest.raises(TransportError, match="this node itself"):
            await a.dial(a.addresses()[0])
        with pytest.raises(TransportError, match="refused"):
            await a.dial(f"/ip4/127.0.0.1/tcp/9/p2p/{peer_id(b.key)}")
        with pytest.raises(TransportError, match=r"is not|does not correspond"):
            await a.dial(f"{where}/{peer_id(key_of('somebody else'))}")
        with pytest.raises(TransportError, match="of another network than 'test'"):
            await a.dial(foreign.addresses()[0])
        await until(lambda: not a.peers())
        assert await a.dial(b.addresses()[0]) == b.key  # none of it did harm, nor is b held to blame


async def test_both_may_dial_at_once(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.dial, b.addresses()[0])
            nursery.start_soon(b.dial, a.addresses()[0])
        assert a.peers() == {b.key}
        stream = await a.open_stream(b.key, "echo/1")
        await stream.send_all(b"x")
        assert await stream.receive_exactly(1) == b"x"


async def test_the_connection_cap_holds_and_is_said(open_node: OpenNode) -> None:
    async with open_node("hub", connections_max=2) as hub, open_node("a") as a, open_node("b") as b:
        hub.serve("echo/1", echo)
        await a.dial(hub.addresses()[0])
        await b.dial(hub.addresses()[0])
        async with open_node("c") as c:
            with pytest.raises(TransportError):
                await c.dial(hub.addresses()[0])
        stream = await a.open_stream(hub.key, "echo/1")
        await stream.send_all(b"still here")
        assert await stream.receive_exactly(10) == b"still here"


async def test_connections_do_not_use_up_inbound_places_for_good(open_node: OpenNode) -> None:
    async with open_node("hub", connections_max=4) as hub:
        for round_number in range(12):
            async with open_node(f"visitor {round_number}") as visitor:
                await visitor.dial(hub.addresses()[0])
                assert visitor.peers() == {hub.key}
            await until(lambda: not hub.peers())


async def test_a_peer_that_leaves_is_seen_to(open_node: OpenNode) -> None:
    async with open_node("a") as a:
        events = a.connection_events()
        async with open_node("b") as b:
            b.serve("echo/1", echo)
            await a.dial(b.addresses()[0])
            stream = await a.open_stream(b.key, "echo/1")
        await events.receive()
        assert await events.receive() == Disconnected(key_of("b"))
        assert not a.peers()
        with pytest.raises(TransportError):
            await stream.receive_some()
        with pytest.raises(TransportError, match="not connected"):
            await a.open_stream(key_of("b"), "echo/1")
    with pytest.raises(trio.EndOfChannel):
        await events.receive()


async def test_a_peer_that_comes_back_is_the_same_peer(open_node: OpenNode) -> None:
    async with open_node("a") as a:
        for _ in range(3):
            async with open_node("b") as b:
                b.serve("echo/1", echo)
                await a.dial(b.addresses()[0])
                stream = await a.open_stream(b.key, "echo/1")
                await stream.send_all(b"hello")
                assert await stream.receive_exactly(5) == b"hello"
            await until(lambda: not a.peers())


async def test_disconnect_is_for_both(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        await a.dial(b.addresses()[0])
        await a.disconnect(b.key)
        await a.disconnect(b.key)
        await until(lambda: not a.peers() and not b.peers())


# Streams


async def test_bytes_go_both_ways_at_once(open_node: OpenNode) -> None:
    data = pattern(3_000_000)
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        assert (stream.peer, stream.protocol) == (b.key, "echo/1")

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await receive_all(stream) == data


async def test_small_reads_of_a_large_transfer(open_node: OpenNode) -> None:
    data = pattern(1_500_000)

    async def send(stream: Stream) -> None:
        await stream.send_all(memoryview(data))

    async with open_node("a") as a, open_node("b") as b:
        b.serve("data/1", send)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "data/1")
        assert await stream.receive_exactly(10) == data[:10]
        assert data[:10] + await receive_all(stream, 999) == data
        assert await stream.receive_some() == b""  # and the end stays the end


async def test_bytes_come_where_they_are_wanted(open_node: OpenNode) -> None:
    data, rng = pattern(3_000_000), random.Random(7)

    async def send(stream: Stream) -> None:
        at = 0
        while at < len(data):  # messages of all sizes, many of them larger than what is wanted, or smaller
            size_bytes = rng.choice((1, 500, 5000, 65_519, 300_000))
            await stream.send_all(data[at : at + size_bytes])
            at += size_bytes

    async with open_node("a") as a, open_node("b") as b:
        b.serve("data/1", send)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "data/1")
        buffer, at = memoryview(bytearray(len(data) + 1)), 0
        while True:
            middle, end = sorted(at + rng.choice((0, 1, 70_000, 1_000_000)) for _ in range(2))
            if not (count := await stream.receive_into(buffer[at:middle], buffer[middle : end + 1])):
                break
            at += count
            some = await stream.receive_some(rng.choice((1, 3000)))
            buffer[at : at + len(some)] = some
            at += len(some)
        assert (at, bytes(buffer[:at]) == data) == (len(data), True)
        assert await stream.receive_into(buffer) == 0  # and the end stays the end


async def test_one_side_may_end_before_the_other(open_node: OpenNode) -> None:
    async def answer(stream: Stream) -> None:
        question = await receive_all(stream)
        await stream.send_all(question[::-1])

    async with open_node("a") as a, open_node("b") as b:
        b.serve("reverse/1", answer)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "reverse/1")
        await stream.send_all(b"abc")
        await stream.send_eof()
        assert await receive_all(stream) == b"cba"
        await stream.aclose()
        await stream.aclose()


async def test_what_was_sent_before_closing_arrives(open_node: OpenNode) -> None:
    received = trio.Event()
    got = b""

    async def take(stream: Stream) -> None:
        nonlocal got
        got = await receive_all(stream)
        received.set()

    async with open_node("a") as a, open_node("b") as b:
        b.serve("take/1", take)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "take/1")
        await stream.send_all(pattern(200_000))
        await stream.aclose()
        await received.wait()
        assert got == pattern(200_000)
        with pytest.raises(TransportError):
            await stream.send_all(b"more")


async def test_a_short_stream_is_an_error_to_who_wants_more(open_node: OpenNode) -> None:
    async def three(stream: Stream) -> None:
        await stream.send_all(b"abc")

    async with open_node("a") as a, open_node("b") as b:
        b.serve("three/1", three)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "three/1")
        with pytest.raises(TransportError, match="ended after 3 of 4 bytes"):
            await stream.receive_exactly(4)


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_is_not_an_end(open_node: OpenNode, who: str) -> None:
    failed = trio.Event()

    async def serve(stream: Stream) -> None:
        await stream.send_all(b"x")
        if who == "server":
            await stream.reset()
        else:
            with pytest.raises(TransportError):
                await stream.receive_some()
            failed.set()

    async with open_node("a") as a, open_node("b") as b:
        b.serve("reset/1", serve)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "reset/1")
        if who == "client":
            assert await stream.receive_exactly(1) == b"x"
            await stream.reset()
            await failed.wait()
        else:
            with pytest.raises(TransportError):
                await receive_all(stream)
        with pytest.raises(TransportError):
            await stream.send_all(b"more")


async def test_a_handler_that_raises_ends_its_stream_alone(open_node: OpenNode) -> None:
    async def crash(stream: Stream) -> None:
        await stream.receive_some()
        raise ZeroDivisionError("a bug in this handler")

    async with open_node("a") as a, open_node("b") as b:
        b.serve("crash/1", crash)
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        steady = await a.open_stream(b.key, "echo/1")
        doomed = await a.open_stream(b.key, "crash/1")
        await doomed.send_all(b"x")
        with pytest.raises(TransportError):
            await doomed.receive_some()
        await steady.send_all(b"fine")
        assert await steady.receive_exactly(4) == b"fine"
        assert b.counters()["streams_failed"] == 1
        assert a.peers() == {b.key}


async def test_unknown_protocols_are_told_apart(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        with pytest.raises(UnknownProtocolError, match="does not serve echo/2"):
            await a.open_stream(b.key, "echo/2")
        with pytest.raises(ValueError, match="served already"):
            b.serve("echo/1", echo)


async def test_the_stream_cap_holds_and_frees_places(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b", inbound_streams_per_peer_max=3) as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        held = [await a.open_stream(b.key, "echo/1") for _ in range(3)]
        for stream in held:
            await stream.send_all(b"x")
            assert await stream.receive_exactly(1) == b"x"
        with pytest.raises(TransportError):
            await open_and_read(a, b.key, "echo/1")  # refused at the one or the other, as the refusal travels
        assert b.counters()["streams_refused"] == 1
        for stream in held:
            await stream.send_eof()
            assert await stream.receive_some() == b""
        again = await a.open_stream(b.key, "echo/1")
        await again.send_all(b"y")
        assert await again.receive_exactly(1) == b"y"


async def test_hundreds_of_streams_one_after_the_other(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        for _ in range(600):  # more than twice yamux's 256 places
            stream = await a.open_stream(b.key, "echo/1")
            await stream.send_all(b"x")
            assert await stream.receive_exactly(1) == b"x"
            await stream.aclose()


# Time


async def test_a_reader_that_stops_costs_its_stream_after_the_stall_time(open_node: OpenNode) -> None:
    async def never_read(stream: Stream) -> None:
        await trio.sleep_forever()

    async with open_node("a", stall_timeout_s=0.5) as a, open_node("b") as b:
        b.serve("sleep/1", never_read)
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "sleep/1")
        sent_bytes = 0

        async def send_for_ever() -> None:
            nonlocal sent_bytes
            while True:
                await stream.send_all(bytes(16_384))
                sent_bytes += 16_384

        with pytest.raises(TransportError, match=r"read nothing for 0\.5 s"):
            await send_for_ever()
        assert 16_384 <= sent_bytes <= 256 * 1024  # the window, and no more
        other = await a.open_stream(b.key, "echo/1")
        await other.send_all(b"fine")
        assert await other.receive_exactly(4) == b"fine"


async def test_a_slow_reader_gets_everything(open_node: OpenNode) -> None:
    data = pattern(1_000_000)

    async def send(stream: Stream) -> None:
        await stream.send_all(data)

    async with open_node("a") as a, open_node("b", stall_timeout_s=5) as b:
        b.serve("data/1", send)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "data/1")
        got = bytearray()
        while chunk := await stream.receive_some(50_000):
            got += chunk
            await trio.sleep(0.02)
        assert got == data


@pytest.mark.parametrize("way", ["some", "into"])
async def test_cancelled_reads_lose_nothing(open_node: OpenNode, way: str) -> None:
    data, buffer = pattern(2_000_000), memoryview(bytearray(70_001))

    async def read(stream: Stream) -> bytes | memoryview:
        return await stream.receive_some(70_001) if way == "some" else buffer[: await stream.receive_into(buffer)]

    async def send(stream: Stream) -> None:
        for start in range(0, len(data), 100_000):
            await stream.send_all(data[start : start + 100_000])

    async with open_node("a") as a, open_node("b") as b:
        b.serve("data/1", send)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "data/1")
        got = bytearray()
        cancelled = 0
        while len(got) < len(data):
            with trio.move_on_after(0.0005 if len(got) % 3 else 0) as scope:
                got += await read(stream)
            cancelled += scope.cancelled_caught
            if scope.cancelled_caught:
                got += await read(stream)
        assert got == data
        assert cancelled > 0


async def test_a_cancelled_send_resets_its_stream_alone(open_node: OpenNode) -> None:
    async def never_read(stream: Stream) -> None:
        await trio.sleep_forever()

    async with open_node("a") as a, open_node("b") as b:
        b.serve("sleep/1", never_read)
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        steady = await a.open_stream(b.key, "echo/1")
        for _ in range(5):
            stream = await a.open_stream(b.key, "sleep/1")
            with trio.move_on_after(0.05) as scope:
                await stream.send_all(pattern(2_000_000))
            assert scope.cancelled_caught
            with pytest.raises(TransportError):
                await stream.send_all(b"x")
            await steady.send_all(b"fine")
            assert await steady.receive_exactly(4) == b"fine"


# Requests


async def test_requests_and_their_errors(open_node: OpenNode) -> None:
    async def answer(peer: bytes, body: bytes) -> bytes:
        assert peer == key_of("a")
        if body == b"slow":
            await trio.sleep_forever()
        if body == b"bad":
            raise PeerViolation("a secret detail")
        if body == b"bug":
            raise ZeroDivisionError("a secret detail")
        return body * 2

    async with open_node("a") as a, open_node("b") as b:
        serve_requests(b, "double/1", answer, size_bytes_max=1000, timeout_s=20)
        serve_requests(b, "hasty/1", answer, size_bytes_max=1000, timeout_s=0.2)
        await a.dial(b.addresses()[0])

        async def ask(body: bytes, protocol: str = "double/1", timeout_s: float = 20, answer_max: int = 100) -> bytes:
            return await request(a, b.key, protocol, body, size_bytes_max=answer_max, timeout_s=timeout_s)

        assert await ask(b"abc") == b"abcabc"
        assert await ask(b"") == b""
        with pytest.raises(TransportError, match=r"within 0\.3 s"):
            await ask(b"slow", timeout_s=0.3)
        with pytest.raises(RequestRefusedError, match="timed_out"):
            await ask(b"slow", "hasty/1")
        with pytest.raises(RequestRefusedError) as refused:
            await ask(b"bad")
        assert refused.value.refusal == "violation"
        assert "secret" not in str(refused.value)
        with pytest.raises(TransportError) as failed:
            await ask(b"bug")
        assert "secret" not in str(failed.value)
        with pytest.raises(TransportError):
            await ask(bytes(1001))
        with pytest.raises(PeerViolation, match="more than the 100 allowed"):
            await ask(bytes(51))
        assert await ask(b"fine") == b"finefine"


async def test_an_oversized_frame_is_refused_before_it_is_read(open_node: OpenNode) -> None:
    refused = trio.Event()

    async def read(stream: Stream) -> None:
        reader = FrameReader(stream, size_bytes_max=1000)
        assert (await reader.read()) == (7, b"ok")
        with pytest.raises(PeerViolation, match="4294967295 bytes, more than the 1000"):
            await reader.read()
        refused.set()

    async with open_node("a") as a, open_node("b") as b:
        b.serve("frames/1", read)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "frames/1")
        await stream.send_all(b"\x02\0\0\0\x07ok" + b"\xff\xff\xff\xff\x07")
        await refused.wait()


# Gossip


class Listener:
    """Takes part in a topic, remembers what came, and judges by the first byte."""

    def __init__(self, network: Network, topic: str = "notes/1") -> None:
        self.got: list[tuple[bytes, bytes]] = []
        self.network = network
        network.subscribe(topic, self.handle)

    async def handle(self, peer: bytes, data: bytes) -> Verdict:
        self.got.append((peer, data))
        if data.startswith(b"raise"):
            raise ZeroDivisionError("a bug in this handler")
        if data.startswith(b"known"):
            return Verdict.IGNORE
        return Verdict.REJECT if data.startswith(b"invalid") else Verdict.ACCEPT

    def bodies(self) -> list[bytes]:
        return [data for _, data in self.got]


async def publish_until_heard(sender: Network, *listeners: Listener, topic: str = "notes/1") -> None:
    """Publish numbered probes until one has reached all: a mesh takes a moment to form."""
    number = 0
    while not all(any(b.startswith(b"probe") for b in listener.bodies()) for listener in listeners):
        number += 1
        await sender.publish(topic, b"probe %d" % number)
        with trio.move_on_after(0.2):
            await until(lambda: all(listener.got for listener in listeners))


async def test_gossip_reaches_nodes_beyond_the_neighbours(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b, open_node("c") as c:
        at_a, at_b, at_c = Listener(a), Listener(b), Listener(c)
        await a.dial(b.addresses()[0])
        await b.dial(c.addresses()[0])
        await publish_until_heard(a, at_b, at_c)
        await a.publish("notes/1", b"hello")
        await until(lambda: b"hello" in at_c.bodies())
        assert (b.key, b"hello") in at_c.got  # who passed it on: he vouches for it
        assert a.key not in c.peers()
        assert at_a.got == []  # our own are not handed to us


async def test_gossip_comes_once_however_many_ways_there_are(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b, open_node("c") as c, open_node("d") as d:
        nodes = [a, b, c, d]
        listeners = [Listener(node) for node in nodes]
        for i, node in enumerate(nodes):
            for other in nodes[i + 1 :]:
                await node.dial(other.addresses()[0])
        await publish_until_heard(a, *listeners[1:])
        for number in range(20):
            await a.publish("notes/1", b"n %d" % number)
        for listener in listeners[1:]:
            await until(lambda listener=listener: b"n 19" in listener.bodies())  # type: ignore[misc]
        await trio.sleep(0.3)  # time for doubles to come, if there were any
        for listener in listeners[1:]:
            assert len(listener.got) == len(set(listener.got))
            assert {b"n %d" % number for number in range(20)} <= set(listener.bodies())


async def test_only_what_is_judged_valid_is_passed_on(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b, open_node("c") as c:
        at_b, at_c = Listener(b), Listener(c)
        a.subscribe("notes/1", at_b.handle)
        await a.dial(b.addresses()[0])
        await b.dial(c.addresses()[0])
        await publish_until_heard(a, at_b, at_c)
        for body in (b"invalid", b"raise", b"known", b"valid"):
            await a.publish("notes/1", body)
        await until(lambda: b"valid" in at_c.bodies())
        assert {b"invalid", b"raise", b"known"} <= set(at_b.bodies())
        assert not {b"invalid", b"raise", b"known"} & set(at_c.bodies())
        counters = b.counters()
        assert (counters["gossip_invalid"], counters["gossip_failed"], counters["gossip_ignored"]) == (1, 1, 1)


async def test_an_equal_message_is_the_same_whoever_says_it(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b, open_node("c") as c:
        Listener(a)
        at_b = Listener(b)
        Listener(c)
        await a.dial(b.addresses()[0])
        await c.dial(b.addresses()[0])
        await publish_until_heard(a, at_b)
        await publish_until_heard(c, at_b)
        for sender in (a, c, a):
            await sender.publish("notes/1", b"twice")
            await sender.publish("notes/1", b"end of " + sender.key)
        await until(lambda: {b"end of " + a.key, b"end of " + c.key} <= set(at_b.bodies()))
        assert at_b.bodies().count(b"twice") == 1


async def test_who_unsubscribes_hears_and_passes_on_nothing_more(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b, open_node("c") as c:
        at_b, at_c = Listener(b), Listener(c)
        stays = Listener(b, "stays/1")
        a.subscribe("stays/1", at_c.handle)
        await a.dial(b.addresses()[0])
        await b.dial(c.addresses()[0])
        await publish_until_heard(a, at_b, at_c)
        await b.unsubscribe("notes/1")
        await b.unsubscribe("never/1")
        at_b.got.clear()
        await a.publish("notes/1", b"nobody hears this")
        await publish_until_heard(a, stays, topic="stays/1")
        assert (at_b.got, b"nobody hears this" in at_c.bodies()) == ([], False)
        b.subscribe("notes/1", at_b.handle)  # and it may come back
        at_c.got.clear()
        await publish_until_heard(a, at_b, at_c)


async def test_gossip_has_a_size(open_node: OpenNode) -> None:
    async with open_node("a", gossip_size_bytes_max=5000) as a, open_node("b", gossip_size_bytes_max=1000) as b:
        at_b = Listener(b)
        Listener(a)
        await a.dial(b.addresses()[0])
        await publish_until_heard(a, at_b)
        with pytest.raises(ValueError, match="too many to gossip"):
            await a.publish("notes/1", bytes(5001))
        await a.publish("notes/1", bytes(1001))
        await a.publish("notes/1", b"end")
        await until(lambda: b"end" in at_b.bodies())
        assert bytes(1001) not in at_b.bodies()
        assert b.counters()["gossip_oversized"] == 1


async def test_gossip_comes_back_with_the_peer(open_node: OpenNode) -> None:
    async with open_node("a") as a:
        Listener(a)
        for _ in range(2):
            async with open_node("b") as b:
                at_b = Listener(b)
                await b.dial(a.addresses()[0])
                await publish_until_heard(a, at_b)
            await until(lambda: not a.peers())


# Closing


async def test_errors_leave_the_block_as_they_are(open_node: OpenNode) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_node("a"):
            raise ZeroDivisionError("mine")


async def test_a_network_can_be_cancelled_in_the_middle_of_everything(open_node: OpenNode) -> None:
    async def never_read(stream: Stream) -> None:
        await trio.sleep_forever()

    async with open_node("b") as b:
        b.serve("sleep/1", never_read)
        with trio.move_on_after(0.5) as scope:
            async with open_node("a") as a:
                Listener(a)
                await a.dial(b.addresses()[0])
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        stream = await a.open_stream(b.key, "sleep/1")
                        nursery.start_soon(stream.send_all, bytes(1_000_000))
                    nursery.start_soon(a.publish, "notes/1", b"x")
        assert scope.cancelled_caught
        await until(lambda: not b.peers())
