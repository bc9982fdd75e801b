"""What only the real network can show: processes that die or freeze, garbage from strangers, clean ends."""

import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from depin_node.core.errors import ConfigError, TransportError
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.network import Connected, Disconnected, ListenError, NetworkLimits, Stream, Verdict

pytestmark = pytest.mark.net

NODE = """
import structlog, sys, trio
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.network import Verdict

async def main():
    async def echo(stream):
        while data := await stream.receive_some():
            await stream.send_all(data)
    with trio.open_signal_receiver(__import__("signal").SIGINT) as signals:
        async with open_libp2p(b"n" * 32, network_id="test") as network:
            network.serve("echo/1", echo)
            async def hear(peer, data):
                return Verdict.ACCEPT
            network.subscribe("notes/1", hear)
            print(network.addresses()[0], flush=True)
            async for _ in signals:
                break
trio.run(main)
"""


@pytest.fixture(autouse=True)
async def deadline() -> Any:
    with trio.fail_after(60):
        yield


@contextmanager
def node_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-c", NODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def open_node(name: str, **options: Any) -> Any:
    from depin_node.p2p.libp2p.host import open_libp2p

    limits = {key: options.pop(key) for key in list(options) if key in NetworkLimits.__dataclass_fields__}
    return open_libp2p(
        name.encode().ljust(32, b"."), **{"network_id": "test", **options}, limits=NetworkLimits(**limits)
    )


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def until(condition: Any) -> None:
    while not condition():
        await trio.sleep(0.01)


# Processes


async def test_a_killed_peer_is_noticed_at_once() -> None:
    with node_process() as (process, address):
        async with open_node("a") as a:
            events = a.connection_events()
            peer = await a.dial(address)
            assert isinstance(await events.receive(), Connected)
            begin = time.monotonic()
            process.kill()
            assert await events.receive() == Disconnected(peer)
            assert time.monotonic() - begin < 3  # measured: 0.11 s; a ping would take 6


async def test_a_frozen_peer_is_noticed_and_may_come_back() -> None:
    with node_process() as (process, address):
        async with open_node("a") as a:
            events = a.connection_events()
            peer = await a.dial(address)
            assert isinstance(await events.receive(), Connected)
            begin = time.monotonic()
            process.send_signal(signal.SIGSTOP)
            assert await events.receive() == Disconnected(peer)
            assert time.monotonic() - begin < 10
            process.send_signal(signal.SIGCONT)
            assert await a.dial(address) == peer
            stream = await a.open_stream(peer, "echo/1")
            await stream.send_all(b"back")
            assert await stream.receive_exactly(4) == b"back"


async def test_on_loopback_nobody_paces() -> None:
    from depin_node.p2p.libp2p.mends import tcp_of

    async with open_node("a") as a, open_node("b") as b:
        await a.dial(b.addresses()[0])
        await until(lambda: a.key in b.peers())
        for node in (a, b):
            (connection,) = node._swarm.get_connections()
            option = tcp_of(connection.muxed_conn).stream.socket.getsockopt
            if hasattr(socket, "TCP_CONGESTION"):  # Linux; elsewhere nobody can choose
                assert option(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"


async def test_an_answer_that_is_here_before_the_ping_is_known_to_have_left_tells_the_round_trip() -> None:
    async with open_node("a", dead_after_s=2.0) as a, open_node("b") as b:
        await a.dial(b.addresses()[0])
        (connection,) = a._swarm.get_connections()
        muxed = connection.muxed_conn
        await until(lambda: muxed.rtt() > 0)
        write, number = muxed._write_frame, muxed._ping_id

        async def write_slowly(frame: bytes) -> None:
            await write(frame)
            await muxed._ping_event.wait()

        muxed._write_frame = write_slowly
        await until(lambda: muxed._ping_id > number and muxed._ping_event.is_set())
        assert muxed.rtt() < 0.2  # it was counted from the ping before, or from the start of the clock


async def test_a_short_freeze_of_ourselves_costs_no_connection() -> None:
    """After a suspension all deadlines have passed, and all answers wait to be read: that is no silence."""
    with node_process() as (_, address):
        async with open_node("a", dead_after_s=2.0) as a:
            peer = await a.dial(address)
            events = a.connection_events()
            time.sleep(3)  # noqa: ASYNC251 - the whole event loop stands still
            with trio.move_on_after(3):
                pytest.fail(f"{await events.receive()} after a freeze of our own")
            assert a.peers() == {peer}


async def test_an_interrupted_node_ends_without_a_word() -> None:
    with node_process() as (process, address):
        async with open_node("a") as a:
            peer = await a.dial(address)
            stream = await a.open_stream(peer, "echo/1")
            await stream.send_all(b"x")
            process.send_signal(signal.SIGINT)
            output, errors = await trio.to_thread.run_sync(process.communicate)
            await until(lambda: not a.peers())
    assert process.returncode == 0
    assert output == ""
    assert "Traceback" not in errors
    assert "RuntimeError" not in errors


async def test_the_package_does_not_import_libp2p() -> None:
    probe = (
        "import sys, json; import depin_node.p2p, depin_node.p2p.network, depin_node.p2p.memory, depin_node.p2p.frames;"
        "print(json.dumps('libp2p' in sys.modules))"
    )
    shown = await trio.run_process([sys.executable, "-c", probe], capture_stdout=True)
    assert json.loads(shown.stdout) is False


# Identity, addresses


async def test_one_seed_is_one_key_everywhere() -> None:
    async with open_node("same") as node:
        identity = Identity(b"same".ljust(32, b"."))
        assert node.key == identity.key
        assert node.addresses()[0].endswith(peer_id(identity.key))


async def test_a_wildcard_is_shown_as_what_can_be_dialled() -> None:
    async with open_node("wild", listen=["/ip4/0.0.0.0/tcp/0"]) as node, open_node("a") as a:
        assert node.addresses()
        for address in node.addresses():
            assert not parse(address).is_wildcard
            assert await a.dial(address) == node.key


async def test_what_was_dialled_leaves_nothing_behind() -> None:
    """The library's peerstore has no bound of its own that matters: false addresses must not fill it."""
    async with open_node("a") as a, open_node("b") as b:
        await a.dial(b.addresses()[0])
        for number in range(20):
            with pytest.raises(TransportError):
                await a.dial(f"/ip4/127.0.0.1/tcp/9/p2p/{peer_id(Identity(bytes([number]) * 32).key)}")
        for node in (a, b):
            assert set(node._swarm.peerstore.peer_data_map) <= {node._host.get_id()}


async def test_a_name_can_be_dialled() -> None:
    async with open_node("named") as node, open_node("a") as a:
        where = parse(node.addresses()[0])
        assert await a.dial(f"/dns4/localhost/tcp/{where.port}/p2p/{peer_id(node.key)}") == node.key
        with pytest.raises(TransportError):
            await a.dial(f"/dns4/no-such-host.invalid/tcp/1/p2p/{peer_id(Identity(bytes(32)).key)}")


class Names(trio.abc.HostnameResolver):
    """Names that lead where the test says."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts

    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> Any:
        def entry(host: str) -> Any:
            if ":" in host:
                return socket.AF_INET6, socket.SOCK_STREAM, 0, "", (host, port, 0, 0)
            return socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)

        return [entry(found) for found in self.hosts[host.decode()]]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError("a dial asks for no names")  # trio wants both of a resolver


async def test_a_name_leads_to_this_machine_only_if_it_says_so() -> None:
    from depin_node.p2p.libp2p.listening import resolve

    here = ["127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1", "fe80::1%lo"]
    trio.socket.set_custom_hostname_resolver(Names(evil=here, mixed=[*here, "192.0.2.1"], localhost=here))
    found = {name: Address("dns", name, 1, bytes(32)) for name in ("evil", "mixed", "localhost")}
    assert await resolve(found["mixed"]) == ["/ip4/192.0.2.1/tcp/1"]
    assert "/ip4/127.0.0.1/tcp/1" in await resolve(found["localhost"])
    async with open_node("a") as a:
        with pytest.raises(TransportError, match="leads to no other machine"):
            await a.dial(str(found["evil"]))


async def test_an_address_that_is_silent_leaves_time_for_the_others() -> None:
    trio.socket.set_custom_hostname_resolver(Names(localhost=["127.0.0.2", "127.0.0.1"]))
    async with open_node("named") as node, open_node("a", dial_timeout_s=2.0) as a:
        port = parse(node.addresses()[0]).port
        with socket.create_server(("127.0.0.2", port)):
            assert await a.dial(f"/dns4/localhost/tcp/{port}/p2p/{peer_id(node.key)}") == node.key


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:4001", "/ip4/127.0.0.1/udp/1", "/ip4/300.0.0.1/tcp/1", "/ip4/::1/tcp/1", "/ip4/127.0.0.1/tcp/",
        "/dns4/localhost/tcp/4001", f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes([1]) * 32)}/p2p-circuit",
    ],
)  # fmt: skip
async def test_listen_addresses_are_checked(address: str) -> None:
    with pytest.raises(ConfigError, match="no address to listen on"):
        async with open_node("a", listen=[address]):
            pass


async def test_addresses_are_what_they_were_while_no_descriptor_is_left_to_look() -> None:
    async with open_node("a", listen=["/ip4/0.0.0.0/tcp/0"]) as node:
        before = node.addresses()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert before == node.addresses() != []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_node_listens_on_both_families_at_one_port() -> None:
    try:
        (await trio.open_tcp_listeners(0, host="::1"))[0].socket.close()
    except OSError:
        pytest.skip("no IPv6 on this machine: nothing can listen on it")
    (free,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = free.socket.getsockname()[1]
    await free.aclose()
    listen = [f"/ip4/0.0.0.0/tcp/{port}", f"/ip6/::/tcp/{port}"]
    async with open_node("both", listen=listen) as node, open_node("a") as a, open_node("b") as b:
        assert {parse(address).kind for address in node.addresses()} == {"ip4", "ip6"}
        for other, host in ((a, "/ip4/127.0.0.1"), (b, "/ip6/::1")):
            assert await other.dial(f"{host}/tcp/{port}/p2p/{peer_id(node.key)}") == node.key
            path = other.path(node.key)
            assert path is not None
            assert path.address.startswith(f"{host}/tcp/{port}")


async def test_what_cannot_be_listened_on_is_said() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on /ip4/192\.0\.2\.1"):
        async with open_node("a", listen=["/ip4/127.0.0.1/tcp/0", "/ip4/192.0.2.1/tcp/4001"]):
            pass


@pytest.mark.parametrize("network_id", ["", "a/b", "a b", "x" * 65])
async def test_network_ids_are_checked(network_id: str) -> None:
    with pytest.raises(ConfigError, match="no network id"):
        async with open_node("a", network_id=network_id):
            pass


# Strangers


GARBAGE = [
    b"",
    b"\0",
    b"\xff" * 51,
    b"\xff" * 100_000,
    bytes([50]) + b"\xff" * 50,
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # an endless varint
    b"\xff\xff\xff\xff\x0f" + bytes(1000),  # a length of 4 GiB
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes.fromhex("16030100a5010000a10303") + bytes(200),  # TLS
]


async def test_garbage_on_every_protocol_harms_nobody() -> None:
    from libp2p.custom_types import TProtocol
    from libp2p.exceptions import BaseLibp2pError

    GONE = (TransportError, BaseLibp2pError, IndexError)  # noqa: N806
    async with open_node("victim") as victim, open_node("friend") as friend, open_node("stranger") as stranger:
        victim.serve("echo/1", echo)

        async def hear(peer: bytes, data: bytes) -> Verdict:
            return Verdict.ACCEPT

        victim.subscribe("notes/1", hear)
        await friend.dial(victim.addresses()[0])
        steady = await friend.open_stream(victim.key, "echo/1")
        protocols = list(victim._host.get_mux().handlers)
        assert "/depin/test/gossip/1" in protocols
        for protocol in protocols:
            for garbage in GARBAGE:
                with contextlib.suppress(*GONE):  # the victim may hang up on the stranger
                    await stranger.dial(victim.addresses()[0])
                    connection = stranger._swarm.get_connections()[-1]
                    stream = await stranger._host.new_stream(connection.muxed_conn.peer_id, [TProtocol(protocol)])
                    await stream.write(garbage)
                    await stream.close()
        await steady.send_all(b"fine")
        assert await steady.receive_exactly(4) == b"fine"
        assert friend.peers() == {victim.key}
        await stranger.dial(victim.addresses()[0])


async def test_garbage_instead_of_a_handshake_harms_nobody() -> None:
    async with open_node("victim", dial_timeout_s=2) as victim, open_node("friend") as friend:
        victim.serve("echo/1", echo)
        await friend.dial(victim.addresses()[0])
        port = parse(victim.addresses()[0]).port
        for prefix in (b"", b"\x13/multistream/1.0.0\n", b"\x13/multistream/1.0.0\n\x07/noise\n"):
            for garbage in GARBAGE:
                async with await trio.open_tcp_stream("127.0.0.1", port) as socket:
                    try:
                        await socket.send_all(prefix + garbage)
                        await socket.send_eof()
                        while await socket.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass  # refused by a reset, as it may be
        stream = await friend.open_stream(victim.key, "echo/1")
        await stream.send_all(b"fine")
        assert await stream.receive_exactly(4) == b"fine"


async def test_half_open_connections_end_by_themselves() -> None:
    async with open_node("victim", dial_timeout_s=1, connections_max=10) as victim, open_node("friend") as friend:
        port = parse(victim.addresses()[0]).port
        sockets = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(10)]
        while True:
            try:
                await friend.dial(victim.addresses()[0])
                break
            except TransportError:
                await trio.sleep(0.1)
        for socket in sockets:
            await socket.aclose()


async def test_who_comes_through_a_hole_with_another_kind_of_key_is_not_whom_we_meet() -> None:
    from attacker import Attacker
    from libp2p.crypto.secp256k1 import create_new_key_pair

    async with open_node("victim", dial_timeout_s=5) as victim, trio.open_nursery() as nursery:

        async def come(stream: trio.SocketStream) -> None:
            attacker = Attacker(victim.addresses()[0], 1)

            async def tcp(port: int | None = None) -> trio.SocketStream:
                return stream

            attacker.tcp = tcp  # type: ignore[method-assign]
            async with attacker.muxed(create_new_key_pair()) as mux:
                assert await mux.hung_up()

        listeners = await nursery.start(trio.serve_tcp, come, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(TransportError, match="no Ed25519 key"):
            await victim.punch(Identity(b"f" * 32).key, "127.0.0.1", port, local_port=0, outbound=False)
        nursery.cancel_scope.cancel()


async def test_streams_that_are_never_negotiated_are_bounded() -> None:
    async with open_node("victim", inbound_streams_per_peer_max=4) as victim, open_node("stranger") as stranger:
        victim.serve("echo/1", echo)
        await stranger.dial(victim.addresses()[0])
        (connection,) = stranger._swarm.get_connections()
        held = [await connection.muxed_conn.open_stream() for _ in range(50)]
        await until(lambda: victim.counters().get("streams_refused", 0) >= 30)
        (inbound,) = victim._swarm.get_connections()
        assert len(inbound.muxed_conn.streams) < 30
        for stream in held:
            await stream.reset()


async def test_streams_whose_other_end_closes_later_leave_nothing() -> None:
    async with open_node("a") as a, open_node("b") as b:

        async def slow(stream: Stream) -> None:
            await trio.sleep(0.01)

        b.serve("slow/1", slow)
        await a.dial(b.addresses()[0])
        muxed = a._swarm.get_connections()[0].muxed_conn
        await until(lambda: len(muxed.streams) == 2)  # gossip's, one each way, which stay
        before = len(muxed.stream_events)
        for _ in range(20):
            stream = await a.open_stream(b.key, "slow/1")
            await stream.send_all(b"hello")
            await stream.aclose()
        await until(lambda: len(muxed.streams) <= before)
        assert len(muxed.stream_events) <= before


async def test_a_peer_that_never_closes_its_side_is_reset_in_the_end() -> None:
    async with open_node("a", stall_timeout_s=0.5) as a, open_node("b") as b:

        async def keep(stream: Stream) -> None:
            await trio.sleep_forever()

        b.serve("keep/1", keep)
        await a.dial(b.addresses()[0])
        (connection,) = a._swarm.get_connections()
        stream = await a.open_stream(b.key, "keep/1")
        await stream.aclose()
        await until(lambda: stream._yamux.stream_id not in connection.muxed_conn.streams)
