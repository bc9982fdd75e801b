"""The faults of py-libp2p 0.8.1, each to be run in a process of its own with its mend left out or not.

    python libp2p_faults.py NAME off|on     prints {"fault": true} if the fault shows, {"fault": false} if all is well
    python libp2p_faults.py                 the same for every name that comes in on a line, both ways

``NAME`` is that of a mend, or ``mend:variant``. Mends patch the library for a whole process, hence the processes. What
is neither the fault nor well ends in an exception, so that a broken test is not taken for a fault.
"""

import contextlib
import json
import logging
import os
import sys
import traceback
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import structlog
import trio
import trio.testing
from cryptography.exceptions import InvalidTag
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.yamux.yamux import TYPE_WINDOW_UPDATE, Yamux
from multiaddr import Multiaddr

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from libp2p_proxy import Proxy, shrink

from depin_node.core.errors import TransportError
from depin_node.p2p.addresses import parse, peer_id
from depin_node.p2p.libp2p import mends as libp2p_mends
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.libp2p.mends import registry
from depin_node.p2p.network import Connected, Disconnected, ListenError, NetworkLimits, Stream

Open = Callable[..., AbstractAsyncContextManager[Any]]
Fault = Callable[[Open], Awaitable[bool]]
FAULTS: dict[str, Fault] = {}
RATES: dict[str, float] = {}


def fault(name: str, *, clock_rate: float = 1) -> Callable[[Fault], Fault]:
    def register(function: Fault) -> Fault:
        FAULTS[name] = function
        RATES[name] = clock_rate
        return function

    return register


def connection_of(network: Any, peer: bytes) -> Any:
    (connection,) = [c for c in network._swarm.get_connections() if parse_peer(c) == peer]
    return connection.muxed_conn


def parse_peer(connection: Any) -> bytes:
    key: bytes = connection.muxed_conn.peer_id.extract_public_key().to_bytes()
    return key


async def raw_stream(network: Any, peer: bytes, protocol: str) -> Any:
    """Open a stream of any protocol, past our own interface, as a stranger may."""
    connection = connection_of(network, peer)
    return await network._host.new_stream(connection.peer_id, [TProtocol(protocol)])


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def sleep(stream: Stream) -> None:
    await trio.sleep_forever()


class Steps(trio.abc.Instrument):
    """Counts the turns that a task gets within the block that it opens."""

    count = 0

    def __enter__(self) -> "Steps":
        self.of, self.count = trio.lowlevel.current_task(), 0
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.of


async def ends_the_host(open_node: Open, attack: Callable[[Any, Any], Awaitable[None]], error: type[Exception]) -> bool:
    """Attack a node: True if that ends it with ``error``, False if it still answers."""
    ended: list[Exception] = []

    async def victim(task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with open_node("victim") as node:
                task_status.started(node)
                await trio.sleep_forever()
        except Exception as group:  # noqa: BLE001 - judged below
            ended.append(group)
            done.set()

    done = trio.Event()
    async with trio.open_nursery() as nursery:
        node = await nursery.start(victim)
        where = node.addresses()[0]
        async with open_node("attacker") as attacker:
            await attacker.dial(where)
            await attack(attacker, node)
            with trio.move_on_after(2):
                await done.wait()
            if ended:
                assert any(isinstance(leaf, error) for leaf in leaves(ended[0])), ended
                return True
        async with open_node("someone else") as other:
            await other.dial(where)  # says hello: it is alive
        nursery.cancel_scope.cancel()
    return False


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


# Strangers


@fault("ipv6_addresses")
async def nobody_knows_where_a_peer_is(open_node: Open) -> bool:
    try:
        (await trio.open_tcp_listeners(0, host="::1"))[0].socket.close()
    except OSError:  # no IPv6 here: nothing can be shown
        return "ipv6_addresses" not in registry._applied
    async with open_node("a", listen=["/ip6/::1/tcp/0"]) as a, open_node("b", listen=["/ip6/::1/tcp/0"]) as b:
        await a.dial(b.addresses()[0])
        seen = [a.path(b.key).address, b.path(a.key).address]
        assert all(address.endswith(peer) for address, peer in zip(seen, (peer_id(b.key), peer_id(a.key)), strict=True))
        return not all(address.startswith("/ip6/::1/tcp/") for address in seen)


@fault("noise_only")
async def plaintext_is_accepted(open_node: Open) -> bool:
    async with open_node("a") as a:
        socket = await trio.open_tcp_stream("127.0.0.1", parse(a.addresses()[0]).port)
        async with socket:
            for line in (b"/multistream/1.0.0\n", b"/plaintext/2.0.0\n"):
                await socket.send_all(bytes([len(line)]) + line)
            answer = b""
            while answer.count(b"\n") < 2:
                answer += await socket.receive_some(1000)
    assert b"na\n" in answer or b"/plaintext/2.0.0\n" in answer
    return b"/plaintext/2.0.0" in answer


@fault("handler_errors")
async def a_handler_that_raises_ends_the_host(open_node: Open) -> bool:
    async def attack(attacker: Any, victim: Any) -> None:
        async def handler(stream: Any) -> None:
            raise ZeroDivisionError

        victim._host.set_stream_handler(TProtocol("/broken/1"), handler)  # past our own border, as the library's are
        with contextlib.suppress(StreamFailure):  # the handler may be done for before the stream is seen to be open
            await raw_stream(attacker, victim.key, "/broken/1")

    return await ends_the_host(open_node, attack, ZeroDivisionError)


@fault("handshake_errors")
async def a_garbled_handshake_is_no_transport_error(open_node: Open) -> bool:
    """Whom a node calls, to see whether it can be called or to punch a hole, answers Noise with rubbish."""

    async def rubbish(stream: trio.SocketStream) -> None:
        said = b""
        for line in (b"/multistream/1.0.0\n", b"/noise\n"):
            await stream.send_all(bytes([len(line)]) + line)
            while line not in said:
                said += await stream.receive_some(1000)
        await stream.send_all(b"\x00\xc8" + b"\x09" + bytes(31) + bytes(range(168)))
        await trio.sleep_forever()

    async with open_node("a") as a, open_node("b") as b, trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, rubbish, [listener])
        port, escaped = listener.socket.getsockname()[1], 0
        for call in (
            lambda: a.probe(f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id(b.key)}"),
            lambda: a.punch(b.key, "127.0.0.1", port, local_port=0, outbound=True),
        ):
            try:
                await call()
            except TransportError:
                continue
            except InvalidTag:
                escaped += 1
        nursery.cancel_scope.cancel()
    assert escaped in (0, 2)
    return escaped == 2


@fault("inbound_slots")
async def inbound_places_are_used_up(open_node: Open) -> bool:
    async with open_node("hub", connections_max=3) as hub:
        for number in range(6):
            async with open_node(f"visitor {number}", dial_timeout_s=3) as visitor:
                try:
                    await visitor.dial(hub.addresses()[0])
                except TransportError:
                    assert not hub.peers()
                    assert number == 3
                    return True
            while hub.peers():
                await trio.sleep(0.01)
    return False


@fault("inbound_slots:idle")
async def sockets_that_stay_open_keep_others_out(open_node: Open) -> bool:
    async with open_node("hub", connections_max=8, handshakes_max=8, dial_timeout_s=30) as hub:
        port = parse(hub.addresses()[0]).port
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(40)]
        await trio.sleep(0.2)
        try:
            async with open_node("visitor", dial_timeout_s=5) as visitor:
                await visitor.dial(hub.addresses()[0])
            return False
        except TransportError:
            return True
        finally:
            for socket in idle:
                await socket.aclose()


@fault("long_negotiations")
async def a_stranger_fills_memory_before_the_handshake(open_node: Open) -> bool:
    size_bytes = 8 << 20  # the library gives up after 101 reads, which were less than 32 MiB now and then
    tracemalloc.start()
    async with open_node("victim", dial_timeout_s=50) as victim:
        socket = await trio.open_tcp_stream("127.0.0.1", parse(victim.addresses()[0]).port)
        async with socket:
            try:
                await socket.send_all(b"\xff\xff\xff\xff\x0f")
                for _ in range(0, size_bytes, 1 << 20):
                    await socket.send_all(bytes(1 << 20))
            except trio.BrokenResourceError:
                return False
            while tracemalloc.get_traced_memory()[1] < size_bytes:  # what is on its way comes
                await trio.sleep(0.01)
    return True


@fault("yamux_rules")
async def the_window_may_be_overrun(open_node: Open) -> bool:
    size_bytes = 4 << 20
    async with open_node("victim") as victim, open_node("attacker") as attacker:
        victim.serve("sleep/1", sleep)
        await attacker.dial(victim.addresses()[0])
        stream = await attacker.open_stream(victim.key, "sleep/1")
        stream._yamux.send_window = 1 << 30
        held = connection_of(victim, attacker.key).stream_buffers
        try:
            for _ in range(0, size_bytes, 65_536):
                await stream.send_all(bytes(65_536))
            while True:
                if sum(map(len, held.values())) >= size_bytes:
                    return True
                if not victim.peers():
                    return False
                await trio.sleep(0.01)
        except TransportError:
            return False


@fault("root_logging")
async def the_root_logger_gets_a_handler(open_node: Open) -> bool:
    assert not logging.getLogger().handlers
    async with open_node("a") as a, open_node("b") as b:
        await a.dial(b.addresses()[0])
        await a.disconnect(b.key)
    return bool(logging.getLogger().handlers)


# Dialling and listening


@fault("dial_blacklist")
async def one_failed_address_blocks_a_peer(open_node: Open) -> bool:
    async with open_node("a") as a, open_node("b") as b:
        with contextlib.suppress(TransportError):
            await a.dial(f"/ip4/127.0.0.1/tcp/9/p2p/{b.addresses()[0].rsplit('/', 1)[1]}")
        try:
            await a.dial(b.addresses()[0])
        except TransportError as error:
            assert "negative cache" in str(error)  # noqa: PT017
            return True
    return False


@fault("auto_dialling")
async def whoever_is_in_the_peerstore_is_dialled(open_node: Open) -> bool:
    async with open_node("a") as a, open_node("b") as b:
        where = Multiaddr(b.addresses()[0].rsplit("/p2p/", 1)[0])
        a._swarm.peerstore.add_addrs(b._host.get_id(), [where], 600)
        await a._swarm.auto_connector.maybe_connect()  # what its 30 s timer does
        with trio.move_on_after(1):
            while not a.peers():
                await trio.sleep(0.01)
        return bool(a.peers())


@fault("identify")
async def what_a_peer_claims_is_kept(open_node: Open) -> bool:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("a-claim/1", echo)
        await b.dial(a.addresses()[0])
        known = a._swarm.peerstore.peer_data_map

        def claimed() -> list[str]:
            return list(known[b._host.get_id()].get_protocols()) if b._host.get_id() in known else []

        with trio.move_on_after(2):
            while not claimed():
                await trio.sleep(0.01)
        return any("a-claim" in protocol for protocol in claimed())


@fault("dial_delay")
async def every_dial_takes_a_quarter_second(open_node: Open) -> bool:
    fastest_s = float("inf")
    async with open_node("a") as a, open_node("b") as b:
        for _ in range(5):
            begin = trio.current_time()
            await a.dial(b.addresses()[0])
            fastest_s = min(fastest_s, trio.current_time() - begin)
            await a.disconnect(b.key)
            while a.peers() or b.peers():
                await trio.sleep(0.01)
    return fastest_s >= 0.25


@fault("exclusive_listen")
async def two_nodes_listen_on_one_port(open_node: Open) -> bool:
    async with open_node("a") as a:
        where = a.addresses()[0].rsplit("/p2p/", 1)[0]
        try:
            async with open_node("b", listen=[where]):
                return True
        except ListenError as error:
            assert "Address already in use" in str(error)  # noqa: PT017
            return False


# Speed


@fault("noise_messages:read")
async def each_message_takes_two_reads(open_node: Open) -> bool:
    calls = 0
    read = RawConnection.read

    async def counted(self: Any, n: int | None = None) -> bytes:
        nonlocal calls
        calls += 1
        data: bytes = await read(self, n)
        return data

    RawConnection.read = counted
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        calls = 0
        for _ in range(100):
            await stream.send_all(b"x" * 100)
            await stream.receive_exactly(100)
    return calls >= 400  # a question and an answer, a length and a body each


@fault("noise_messages:written")
async def each_message_is_a_write_of_its_own(open_node: Open) -> bool:
    calls = 0
    write = RawConnection.write

    async def counted(self: Any, data: bytes) -> None:
        nonlocal calls
        calls += len(data) > 10_000  # not what gossip and pings write meanwhile
        await write(self, data)

    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        no_more_window = registry.FRAME_HEADER.pack(0, TYPE_WINDOW_UPDATE, 0, stream._yamux.stream_id, 0)
        RawConnection.write = counted
        await connection_of(a, b.key).secured_conn.write(no_more_window * 10_000)  # two messages
        RawConnection.write = write
        await stream.send_all(b"still one connection")
        assert await stream.receive_exactly(20) == b"still one connection"
    return calls > 1


@fault("free_locks")
async def a_message_waits_for_turns_of_the_loop(open_node: Open) -> bool:
    written_after: list[int] = []
    write, steps = os.write, Steps()

    def noted(fd: int, data: Any) -> int:
        if trio.lowlevel.current_task() is steps.of:
            written_after.append(steps.count)
        return write(fd, data)

    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        for _ in range(10):  # gossip may be writing when one of them is sent
            with steps, contextlib.ExitStack() as stack:
                stack.callback(setattr, os, "write", write)
                os.write = noted
                await stream.send_all(b"x")
    return min(written_after) > 0


@fault("socket_turns")
async def each_read_of_what_is_there_takes_a_turn(open_node: Open) -> bool:
    async with open_node("a"):
        ours, theirs = trio.socket.socketpair()
        with ours, theirs:
            stream = TrioTCPStream(trio.SocketStream(theirs))
            await ours.send(bytes(10_000))
            with Steps() as steps:
                for _ in range(100):
                    await stream.read(100)
    return steps.count > 50


@fault("stream_reads")
async def a_read_waits_for_the_lock_of_all_streams(open_node: Open) -> bool:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        connection = connection_of(a, b.key)
        await stream.send_all(b"there")
        while not connection.stream_buffers[stream._yamux.stream_id]:
            await trio.sleep(0.01)
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                async with connection.streams_lock:
                    held.set()
                    await trio.sleep_forever()

            held = trio.Event()
            nursery.start_soon(hold)
            await held.wait()
            data = b""
            with trio.move_on_after(2):
                data = await stream.receive_some()
            nursery.cancel_scope.cancel()
    return data != b"there"


@fault("window_updates")
async def each_read_sends_a_window_update(open_node: Open) -> bool:
    frames = 0
    write_frame = Yamux._write_frame

    async with open_node("a") as a, open_node("b") as b:
        write_frame = Yamux._write_frame

        async def counted(self: Any, data: bytes) -> None:
            nonlocal frames
            frames += 1
            await write_frame(self, data)

        Yamux._write_frame = counted
        b.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "echo/1")
        frames = 0
        for _ in range(100):
            await stream.send_all(b"x" * 100)
            await stream.receive_exactly(100)
    return frames >= 390  # question, update, answer, update; the last few may be on their way


# Connections that stay whole


@fault("noise_messages:segments")
async def small_segments_end_a_connection(open_node: Open) -> bool:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("echo/1", echo)
        async with Proxy(b.addresses()[0], chunk_bytes=200).run() as proxy:
            await a.dial(proxy.address)
            stream = await a.open_stream(b.key, "echo/1")
            try:
                await stream.send_all(bytes(60_000))
                await stream.receive_exactly(60_000)
            except TransportError:
                return True
    return False


@fault("cancelled_writes")
async def a_cancelled_write_ends_all_streams(open_node: Open) -> bool:
    async with open_node("a") as a, open_node("b") as b:
        b.serve("sleep/1", sleep)
        b.serve("echo/1", echo)
        async with Proxy(b.addresses()[0], small_buffers=True).run() as proxy:
            await a.dial(proxy.address)
            shrink(libp2p_mends.tcp_of(connection_of(a, b.key)).stream)
            steady = await a.open_stream(b.key, "echo/1")
            stream = await a.open_stream(b.key, "sleep/1")
            async with trio.open_nursery() as nursery:
                proxy.flowing = trio.Event()  # hold everything: the write stops in the middle of a frame
                cancelling = trio.CancelScope()

                async def send() -> None:
                    with cancelling:
                        await stream.send_all(bytes(250_000))

                nursery.start_soon(send)
                await trio.sleep(0.5)
                cancelling.cancel()
                await trio.sleep(0.1)
                proxy.flowing.set()
            with trio.move_on_after(4), contextlib.suppress(TransportError):
                await steady.send_all(b"fine")
                await steady.receive_exactly(4)
                return False
    return True


@fault("blocked_readers")
async def bulk_both_ways_stops_for_good(open_node: Open) -> bool:
    async def sink(stream: Stream) -> None:
        while await stream.receive_some(1 << 20):
            pass

    async def bulk(sender: Any, receiver: Any) -> None:
        stream = await sender.open_stream(receiver.key, "sink/1")
        await stream.send_all(bytes(8 << 20))
        await stream.aclose()

    async def open_streams(sender: Any, receiver: Any) -> None:
        while True:
            stream = await sender.open_stream(receiver.key, "echo/1")
            await stream.send_all(bytes(1000))
            await stream.receive_exactly(1000)
            await stream.aclose()

    def shrink_all(network: Any, peer: bytes) -> None:
        shrink(libp2p_mends.tcp_of(connection_of(network, peer)).stream)

    limits = {"dead_after_s": 3.0, "open_timeout_s": 4.0}
    async with open_node("a", **limits) as a, open_node("b", **limits) as b:
        for node in (a, b):
            node.serve("sink/1", sink)
            node.serve("echo/1", echo)
        await a.dial(b.addresses()[0])
        while not b.peers():
            await trio.sleep(0.01)
        shrink_all(a, b.key)
        shrink_all(b, a.key)
        ways = ((a, b), (b, a))
        stopped = False
        try:
            async with trio.open_nursery() as background:
                for one, other in ways * 4:
                    background.start_soon(open_streams, one, other)
                async with trio.open_nursery() as nursery:
                    for one, other in ways * 4:
                        nursery.start_soon(bulk, one, other)
                background.cancel_scope.cancel()
        except* TransportError:
            stopped = True
    return stopped


@fault("slow_readers", clock_rate=10)
async def a_reader_that_pauses_breaks_the_writer(open_node: Open) -> bool:
    async def pause(stream: Stream) -> None:
        await trio.sleep(8)
        while await stream.receive_some():
            pass
        await stream.send_all(b"k")

    async with open_node("a", stall_timeout_s=60, dead_after_s=600) as a, open_node("b", dead_after_s=600) as b:
        b.serve("pause/1", pause)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "pause/1")
        try:
            await stream.send_all(bytes(1_000_000))
        except TransportError as error:
            assert "after 5 seconds" in str(error)  # noqa: PT017
            return True
        await stream.send_eof()
        assert await stream.receive_exactly(1) == b"k"
    return False


@fault("cancelled_reads")
async def a_cancelled_read_loses_bytes(open_node: Open) -> bool:
    data = b"".join(i.to_bytes(4, "big") for i in range(40_000))

    async def send(stream: Stream) -> None:
        await stream.send_all(data)
        await trio.sleep_forever()  # a stream that has ended needs no new window

    async with open_node("a") as a, open_node("b") as b:
        b.serve("data/1", send)
        await a.dial(b.addresses()[0])
        stream = await a.open_stream(b.key, "data/1")
        connection = connection_of(a, b.key)
        while len(connection.stream_buffers[stream._yamux.stream_id]) < len(data):
            await trio.sleep(0.01)
        got = bytearray()

        async def release() -> None:
            await connection._write_lock.acquire()
            locked.set()
            await trio.sleep(0.4)
            connection._write_lock.release()

        locked = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(release)
            await locked.wait()
            with trio.move_on_after(0.1):
                got += await stream.receive_some(150_000)
        with trio.move_on_after(3):
            while len(got) < len(data):
                got += await stream.receive_some()
    return got != data


@fault("frozen_peers")
async def a_frozen_peer_is_not_noticed(open_node: Open) -> bool:
    async with (
        open_node("a", dead_after_s=2.0) as a,
        open_node("b") as b,
        Proxy(b.addresses()[0]).run() as proxy,
    ):
        events = a.connection_events()
        await a.dial(proxy.address)
        assert isinstance(await events.receive(), Connected)
        proxy.flowing = trio.Event()
        with trio.move_on_after(5):
            assert await events.receive() == Disconnected(b.key)
            return False
    return True


def run_fault(name: str, mode: str) -> bool:
    """Run one fault in this process, with its mend ``off`` or ``on``."""
    mend = name.partition(":")[0]
    assert mend in libp2p_mends.MENDS
    without = {"on": (), "off": (mend,)}[mode]

    def open_node(node: str, listen: Any = ("/ip4/127.0.0.1/tcp/0",), **limits: Any) -> Any:
        return open_libp2p(
            node.encode().ljust(32, b"."),
            network_id="test",
            listen=listen,
            limits=NetworkLimits(**limits),
            without_mends=without,
        )

    async def run() -> bool:
        with trio.fail_after(60 * RATES[name]):
            return await FAULTS[name](open_node)

    return trio.run(run, clock=trio.testing.MockClock(rate=RATES[name]))


def run_forked(name: str, mode: str) -> tuple[int, int]:
    """Start ``run_fault`` in a fork, which saves the seconds that libp2p takes to import; return pid and pipe."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    try:
        outcome = json.dumps(run_fault(name, mode))
    except BaseException:  # noqa: BLE001 - handed to the parent as text
        outcome = traceback.format_exc()
    os.write(writing, outcome.encode()[:60_000])
    os._exit(0)


def serve() -> None:
    """Take a name a line; answer ``{"off": …, "on": …}``, each true, false or the text of an error."""
    for line in sys.stdin:
        started = {mode: run_forked(line.strip(), mode) for mode in ("off", "on")}
        answer: dict[str, Any] = {}
        for mode, (pid, pipe) in started.items():
            with os.fdopen(pipe) as outcome:
                text = outcome.read()
            os.waitpid(pid, 0)
            answer[mode] = {"true": True, "false": False}.get(text, text or "it died")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if sys.argv[1:]:
        print(json.dumps({"fault": run_fault(*sys.argv[1:])}))
    else:
        serve()
