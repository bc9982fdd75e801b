"""The data port: who gets in, who does not, and what it costs. TCP on loopback, the mesh in memory."""

import errno
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio
import trio.testing

from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.wire import encode
from depin_node.crypto.identity import Identity
from depin_node.p2p import direct as module
from depin_node.p2p.carrier import FRAME_HEADER
from depin_node.p2p.direct import DIRECT_PROTOCOL, DirectAsk, DirectLimits, open_direct
from depin_node.p2p.frames import ASK, Frame, FrameReader, send_frames
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.memory_links import MemoryStream
from depin_node.p2p.network import Path

ALICE, BOB, EVE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
LIMITS = DirectLimits(handshake_timeout_s=2.0, connect_timeout_s=1.0, handshakes_max=4)
SIZE_MAX = 4 << 20


class End:
    """One node's data port, and the carriers that peers opened to it."""

    def __init__(self, network, channels):
        self.network = network
        self.channels = channels
        self.carriers, self._send = None, None
        self._send, self.carriers = trio.open_memory_channel(100)
        self.over = trio.Event()
        channels.serve(self.take)

    async def take(self, carrier):
        self._send.send_nowait(carrier)
        await carrier.ended.wait()

    async def open(self, other):
        mine = await self.channels.open(other.network.key)
        return mine, await other.carriers.receive()


@asynccontextmanager
async def ends(*identities, hosts=None, limits=LIMITS):
    fabric = MemoryFabric(1)
    hosts = hosts or dict.fromkeys((ALICE.key, BOB.key, EVE.key), "127.0.0.1")
    async with AsyncExitStack() as stack:
        made = []
        for identity in identities:
            network = await stack.enter_async_context(fabric.open(identity.key))
            for other in made:
                await network.dial(other.network.addresses()[0])
            channels = await stack.enter_async_context(
                open_direct(network, hosts=["127.0.0.1"], host_of=hosts.get, limits=limits)
            )
            made.append(End(network, channels))
        yield made


def once(body):
    """Return what makes one body for ``send_bulk``."""
    left = [bytearray(FRAME_HEADER.size) + body]
    return lambda may_wait: left.pop() if left else None


@pytest.mark.parametrize("size", [0, 1, 100_000, 1 << 20, 3 << 20])
async def test_frames_pass_both_ways(size):
    body = os.urandom(size)
    async with ends(ALICE, BOB) as (alice, bob):
        mine, theirs = await alice.open(bob)
        assert (mine.peer, theirs.peer) == (BOB.key, ALICE.key)
        for sender, receiver in ((mine, theirs), (theirs, mine)) * 2:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.send_bulk, 7, once(body))
                assert await receiver.receive(SIZE_MAX, 10) == (7, body)
        await mine.aclose()
        assert await theirs.receive(SIZE_MAX, 10) is None


async def test_on_loopback_nobody_paces_nor_waits_to_send():
    async with ends(ALICE, BOB) as (alice, bob):
        for carrier in await alice.open(bob):
            option = carrier._socket.getsockopt
            assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_CONGESTION"):  # Linux; elsewhere nobody can choose
                assert option(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"


async def test_who_cannot_be_reached_reaches_the_other():
    hosts = {ALICE.key: "127.0.0.1"}  # Alice knows no way to Bob, Bob knows one to Alice
    async with ends(ALICE, BOB, hosts=hosts) as (alice, bob):
        mine, theirs = await alice.open(bob)
        await mine.send(6, b"through")
        assert (await theirs.receive(SIZE_MAX, 10)).body == b"through"


async def test_two_that_cannot_reach_each_other_are_told():
    async with ends(ALICE, BOB, hosts={EVE.key: "127.0.0.1"}) as (alice, bob):
        with pytest.raises(TransportError, match=r"no data channel|cannot be reached"):
            await alice.channels.open(BOB.key)
        await trio.testing.wait_all_tasks_blocked()
        assert not alice.channels._expected
        assert not bob.channels._expected


async def test_a_node_without_a_server_opens_none():
    async with ends(ALICE, BOB) as (alice, bob):
        bob.channels._serve_carrier = None
        with pytest.raises(TransportError, match="opens no data channel"):
            await alice.channels.open(BOB.key)


async def test_channels_are_bounded_for_each_peer_and_free_again():
    async with ends(ALICE, BOB) as (alice, bob):
        opened = [await alice.open(bob) for _ in range(LIMITS.channels_per_peer_max)]
        with pytest.raises(TransportError):
            await alice.channels.open(BOB.key)
        alice.channels._limits = replace(LIMITS, channels_per_peer_max=100)
        with pytest.raises(TransportError, match="opens no data channel"):  # Bob's own bound
            await alice.channels.open(BOB.key)
        for mine, theirs in opened:
            mine.close(), theirs.close()
        await trio.testing.wait_all_tasks_blocked()
        await alice.open(bob)


async def test_a_peer_that_is_disconnected_loses_its_channels():
    async with ends(ALICE, BOB) as (alice, bob):
        mine, theirs = await alice.open(bob)
        await bob.network.disconnect(ALICE.key)
        with trio.fail_after(10):
            await mine.ended.wait()
            await theirs.ended.wait()


@pytest.mark.parametrize("side", ["opener", "server"])
async def test_a_peer_that_is_disconnected_while_a_channel_is_made_gets_none(side, monkeypatch):
    async with ends(ALICE, BOB) as (alice, bob):
        loses, name, other = (alice, "_knock", BOB) if side == "opener" else (bob, "_reached", ALICE)
        connect = getattr(loses.channels, name)

        async def connect_and_lose(*args, **options):
            connected = await connect(*args, **options)
            await loses.network.disconnect(other.key)
            await trio.testing.wait_all_tasks_blocked(0.01)  # all that follows the disconnection has been done
            return connected

        monkeypatch.setattr(loses.channels, name, connect_and_lose)
        with trio.fail_after(10):
            if side == "opener":
                with pytest.raises(TransportError, match="not connected"):
                    await alice.channels.open(BOB.key)
            else:
                with suppress(TransportError):
                    await (await alice.channels.open(BOB.key)).ended.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)
            while loses.channels._open:
                await trio.sleep(0.01)
        assert loses.channels.counters["channels"] == 0


async def test_a_channel_whose_opening_is_given_up_is_closed(monkeypatch):
    async with ends(ALICE, BOB) as (alice, bob):

        async def take_for_ever(_):
            await trio.sleep_forever()

        monkeypatch.setattr(MemoryStream, "aclose", take_for_ever)
        with trio.move_on_after(0.5) as given_up:
            await alice.channels.open(BOB.key)
        assert given_up.cancelled_caught
        with trio.fail_after(10):
            theirs = await bob.carriers.receive()
            assert await theirs.receive(SIZE_MAX, 10) is None
        assert alice.channels._open == {}


async def test_where_no_descriptor_is_left_none_is_opened(monkeypatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    async with ends(ALICE, BOB) as (alice, bob):
        with monkeypatch.context() as patched:
            patched.setattr(trio.socket, "socket", none_left)
            with pytest.raises(TransportError, match=r"no data channel|cannot be reached"):
                await alice.channels.open(BOB.key)
        await alice.open(bob)


async def test_a_channel_that_is_closed_when_a_thread_has_found_it_full_is_an_error():
    async with ends(ALICE, BOB) as (alice, bob):
        mine, _ = await alice.open(bob)

        class Full:
            def poll(self, _):
                trio.from_thread.run_sync(mine.close)

        mine._writable = Full()
        with pytest.raises(TransportError, match="closed"):
            await mine.send_bulk(7, lambda may_wait: bytearray(FRAME_HEADER.size + SIZE_MAX))


async def test_a_port_in_use_is_an_error():
    async with ends(ALICE) as (alice,):
        fabric = MemoryFabric(2)
        async with fabric.open(BOB.key) as network:
            with pytest.raises(ResourceError, match="data_listen"):
                async with open_direct(network, hosts=["127.0.0.1"], port=alice.channels.port):
                    pass


async def test_a_port_that_another_program_has_in_the_other_family_is_drawn_again(monkeypatch):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine: nothing can listen on it")
    drawn, listen = [], trio.open_tcp_listeners
    async with AsyncExitStack() as stack:

        async def first_taken(port, *, host):
            listeners = await listen(port, host=host)
            if port == 0:
                drawn.append(listeners[0].socket.getsockname()[1])
            if len(drawn) == 1:
                stack.enter_context(socket.create_server(("::1", drawn[0]), family=socket.AF_INET6))
            return listeners

        monkeypatch.setattr(trio, "open_tcp_listeners", first_taken)
        network = await stack.enter_async_context(MemoryFabric(1).open(ALICE.key))
        channels = await stack.enter_async_context(open_direct(network, hosts=["127.0.0.1", "::1"]))
        assert channels.port == drawn[-1] != drawn[0]


# Strangers at the port


async def knock(port, data):
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)
    return stream


async def is_hung_up(stream):
    async with stream:
        with trio.fail_after(10):
            try:
                return await stream.receive_some(100) == b""
            except trio.BrokenResourceError:
                return True


@pytest.mark.parametrize(
    "data", [bytes(48), bytes(range(48)), b"GET / HTTP/1.1\r\nHost: depin-node.example\r\n\r\n....", b""]
)
async def test_who_shows_no_token_is_hung_up_on(data):
    async with ends(ALICE, limits=replace(LIMITS, handshake_timeout_s=0.3)) as (alice,):
        assert await is_hung_up(await knock(alice.channels.port, data))
        assert not alice.channels._knocking
        assert not alice.channels._open


async def test_a_flood_of_the_port_is_refused_and_hurts_nobody_for_long():
    async with ends(ALICE, BOB, limits=replace(LIMITS, handshake_timeout_s=1.0)) as (alice, bob):
        streams = [await knock(bob.channels.port, b"half") for _ in range(60)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(bob.channels._knocking) == 4
        assert bob.channels.counters["handshakes_evicted"] == 56
        for stream in streams:
            assert await is_hung_up(stream)
        await alice.open(bob)


async def test_one_group_cannot_hold_all_places_at_the_port():
    async with ends(ALICE, BOB) as (alice, bob):

        async def hold_a_place():
            sock = trio.socket.socket()
            await sock.bind(("127.1.0.1", 0))  # of another /16 than the others here
            await sock.connect(("127.0.0.1", bob.channels.port))
            return trio.SocketStream(sock)

        _, token, keys = await begun(alice, bob)
        held = [await hold_a_place() for _ in range(4)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with await knock(bob.channels.port, token) as honest:
            held += [await hold_a_place() for _ in range(40)]
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(bob.channels._knocking) == 4
            await honest.send_all(keys.opener_proof)
            assert await honest.receive_some(32) == keys.server_proof
        assert await is_hung_up(held[0])
        for stream in held:
            await stream.aclose()


async def begun(alice, bob):
    """Have Alice's token waited for by Bob, without connecting."""
    stream = await alice.network.open_stream(BOB.key, DIRECT_PROTOCOL)
    ask = DirectAsk(os.urandom(32), bytes([1]), alice.channels.port)
    await send_frames(stream, [Frame(ASK, encode(ask))])
    await FrameReader(stream, size_bytes_max=1000).read()
    ((token, expected),) = bob.channels._expected.items()
    return stream, token, expected.keys


async def test_a_token_alone_is_worth_nothing_and_is_spent():
    async with ends(ALICE, BOB) as (alice, bob):
        _, token, keys = await begun(alice, bob)
        assert await is_hung_up(await knock(bob.channels.port, token + bytes(32)))
        assert await is_hung_up(await knock(bob.channels.port, token + keys.opener_proof))


async def test_a_proof_cannot_be_played_back_to_its_maker():
    async with ends(ALICE, BOB) as (alice, bob):
        _, token, keys = await begun(alice, bob)
        assert await is_hung_up(await knock(bob.channels.port, token + keys.server_proof))


async def test_a_token_is_good_once():
    async with ends(ALICE, BOB) as (alice, bob):
        _, token, keys = await begun(alice, bob)
        async with await knock(bob.channels.port, token + keys.opener_proof) as first:
            assert await first.receive_some(32) == keys.server_proof
        assert await is_hung_up(await knock(bob.channels.port, token + keys.opener_proof))


async def test_a_server_that_is_another_is_not_believed():
    """Whoever took over the port of a peer cannot show its proof."""
    async with ends(ALICE, BOB) as (alice, bob):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        bob.channels.port = listener.socket.getsockname()[1]

        async def pretend():
            async with listener, await listener.accept() as impostor:
                await impostor.receive_some(100)
                await impostor.send_all(bytes(32))
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pretend)
            mine, theirs = await alice.open(bob)  # Bob called Alice instead
            await theirs.send(8, b"it is me")
            assert (await mine.receive(SIZE_MAX, 10)).body == b"it is me"
            nursery.cancel_scope.cancel()


# On the wire


@asynccontextmanager
async def between(alice, bob, change):
    """Put a man in the middle of Alice's way to Bob; ``change`` maps what passes to Bob."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port, bob.channels.port = bob.channels.port, listener.socket.getsockname()[1]
    passed = bytearray()

    async def serve(stream):
        async with await trio.open_tcp_stream("127.0.0.1", port) as onward, trio.open_nursery() as nursery:

            async def back():
                async for data in onward:
                    await stream.send_all(data)

            nursery.start_soon(back)
            async for data in stream:
                passed.extend(data)
                await onward.send_all(change(data))
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield passed
        nursery.cancel_scope.cancel()


async def test_nothing_of_what_passes_can_be_read():
    async with ends(ALICE, BOB) as (alice, bob), between(alice, bob, bytes) as passed:
        mine, theirs = await alice.open(bob)
        await mine.send(6, b"attack at dawn" * 10)
        assert (await theirs.receive(SIZE_MAX, 10)).body == b"attack at dawn" * 10
        assert b"attack" not in passed
        assert len(passed) == 48 + FRAME_HEADER.size + 140 + 16


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("at", [4, 5, -1])
async def test_what_is_changed_on_the_way_is_found(size, at):
    def change(data):
        if len(data) == 48:
            return data
        data = bytearray(data)
        if not change.done:
            change.done = True
            data[at] ^= 1
        return data

    change.done = False
    async with ends(ALICE, BOB) as (alice, bob), between(alice, bob, change):
        mine, theirs = await alice.open(bob)
        await mine.send(6, bytes(size))
        with pytest.raises(PeerViolation, match="forged or damaged"):
            await theirs.receive(SIZE_MAX, 10)


async def test_a_frame_that_is_too_long_is_not_read():
    async with ends(ALICE, BOB) as (alice, bob):
        mine, theirs = await alice.open(bob)
        await mine.send(6, bytes(1001))
        with pytest.raises(PeerViolation, match="more than the 1000"):
            await theirs.receive(1000, 10)


@pytest.mark.parametrize("data", [b"\1", FRAME_HEADER.pack(100, 6) + b"half"])
async def test_a_frame_that_breaks_off_is_an_error(data):
    async with ends(ALICE, BOB) as (alice, bob):
        mine, theirs = await alice.open(bob)
        mine._socket.send(data)
        mine.close()
        with pytest.raises(TransportError, match="inside a frame"):
            await theirs.receive(1000, 10)


async def test_a_peer_that_says_nothing_is_given_up():
    async with ends(ALICE, BOB) as (alice, bob):
        mine, _ = await alice.open(bob)
        with pytest.raises(TransportError, match=r"sent nothing for 0\.05 s"):
            await mine.receive(1000, 0.05)


BAD_MESSAGES = {
    "garbage": [Frame(ASK, b"\xc1\xc1")],
    "no request": [Frame(9, b"")],
    "a short key": [Frame(ASK, b"\x93\xc4\x01a\xc4\x01\x01\x00")],
    "no cipher that is known": [Frame(ASK, encode(DirectAsk(bytes(32), b"\x63", 1)))],
    "a key that is none": [Frame(ASK, encode(DirectAsk(bytes(32), b"\1", 1)))],
    "too long": [Frame(ASK, bytes(1000))],
}


@pytest.mark.parametrize("frames", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
async def test_bad_messages_end_the_stream_and_leave_nothing(frames):
    async with ends(ALICE, BOB) as (alice, bob):
        stream = await alice.network.open_stream(BOB.key, DIRECT_PROTOCOL)
        await send_frames(stream, frames)
        with trio.fail_after(10), suppress(TransportError):
            while await stream.receive_some():
                pass
        assert bob.network.counters()["streams_violated"] == 1
        assert not bob.channels._expected
        assert not bob.channels._opening.total()
        await alice.open(bob)


def test_the_port_of_a_relayed_peer_is_not_guessed():
    class Network:
        def __init__(self, path):
            self.path = lambda peer: path

    path = module.host_of_path
    assert path(Network(None), ALICE.key) is None
    assert path(Network(Path("/ip4/192.0.2.1/tcp/4001/p2p/x", True)), ALICE.key) == "192.0.2.1"
    assert path(Network(Path("/ip6/2001:db8::1/tcp/4001/p2p/x", True)), ALICE.key) == "2001:db8::1"
    assert path(Network(Path("/ip4/192.0.2.1/tcp/4001/p2p/x", True, relayed=True)), ALICE.key) is None
    assert path(Network(Path("/memory/1", True)), ALICE.key) is None
