"""An attacker speaks TCP, multistream, Noise, yamux and our protocols, badly; the node stays small and goes on serving.

One victim, a process of its own, outlives all attacks; after each its memory, tasks and descriptors are back where they
were, and an honest peer from elsewhere connects and is served. ``tests/support`` has the attacker's tools and the
victim.
"""

import contextlib
import itertools
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

pytestmark = pytest.mark.net

pytest.importorskip("libp2p")
from attacker import (  # noqa: E402 - needs libp2p
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    GONE,
    HEADER,
    MULTISTREAM,
    PING,
    RST,
    SYN,
    WINDOW,
    Attacker,
    Mux,
    frame,
    line,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: E402
from libp2p.crypto.secp256k1 import create_new_key_pair as create_secp256k1_key_pair  # noqa: E402

from depin_node.core.wire import decode, encode  # noqa: E402
from depin_node.p2p import gossip  # noqa: E402
from depin_node.p2p.direct import DirectAnswer, DirectAsk  # noqa: E402
from depin_node.p2p.libp2p.hello import Hello  # noqa: E402
from depin_node.p2p.libp2p.host import open_libp2p  # noqa: E402
from depin_node.p2p.reach.messages import Incoming, Meeting, Question, RelayQuestion  # noqa: E402

VICTIM = Path(__file__).parents[1] / "support" / "victim.py"
ADVERTS = "adverts-cpu-0-0/2"
PROTOCOLS = (
    "hello/2",
    "gossip/1",
    "directory/2",
    "peers/1",
    "find/1",
    "owners/1",
    "blobs/2",
    "direct/1",
    "reach/1",
    "relay/1",
    "relayed/1",
    "punch/1",
    "echo/1",
    "/ipfs/ping/1.0.0",
)
RSS_MIB_MAX = 48  # above the baseline: what windows and handshakes may hold for a moment, and Python does not give back
Attack = Callable[[Attacker], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def says(name: str, data: bytes) -> None:
    async def run(attacker: Attacker) -> None:
        await attacker.say(data)

    ATTACKS[name] = run


def in_noise(name: str, data: bytes) -> None:
    """On a socket on which ``/noise`` is agreed."""

    async def run(attacker: Attacker) -> None:
        async with attacker.negotiated() as stream:
            with trio.move_on_after(4):
                try:
                    await stream.send_all(data)
                    while await stream.receive_some():
                        pass
                except GONE:
                    return

    ATTACKS[name] = run


def in_yamux(name: str, *frames: tuple[Any, ...]) -> None:
    """On a connection that is greeted: yamux frames that cost it."""

    async def run(attacker: Attacker) -> None:
        async with attacker.greeted() as mux:
            for one in frames:
                await mux.send(*one[:5], version=one[5] if len(one) > 5 else 0)
            assert await mux.hung_up(), "the victim did not hang up"

    ATTACKS[name] = run


# Raw TCP


@attack
async def sockets_that_say_nothing(attacker: Attacker) -> None:
    streams = [await attacker.tcp() for _ in range(50)]
    await trio.sleep(0.5)
    for stream in streams:
        await trio.aclose_forcefully(stream)


@attack
async def sockets_that_are_reset(attacker: Attacker) -> None:
    for _ in range(50):
        stream = await attacker.tcp()
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)


@attack
async def a_byte_now_and_then(attacker: Attacker) -> None:
    stream = await attacker.tcp()
    begin = trio.current_time()
    with trio.move_on_after(6):
        try:
            for byte in itertools.cycle(MULTISTREAM):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.1)
        except GONE:
            pass
    assert trio.current_time() - begin < 5  # its time for the handshake is up
    await stream.aclose()


@attack
async def a_flood_of_random_bytes(attacker: Attacker) -> None:
    await attacker.say(random.Random(1).randbytes(8 << 20))


says("an_http_request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
says("a_tls_hello", bytes.fromhex("16030100a5010000a10303") + bytes(200))
says("zeros", bytes(65_536))
says("a_socket_that_is_half_closed_at_once", b"")

# Multistream

says("a_length_without_end", b"\xff" * 10_000)
says("a_message_of_no_bytes", b"\x00" * 1000)
says("a_message_without_its_newline", b"\x13/multistream/1.0.0x")
says("a_message_of_no_text", bytes([20]) + b"\xff" * 19 + b"\n")
says("a_message_of_16_mib", b"\x80\x80\x80\x08" + bytes(16 << 20))
says("a_thousand_lists", MULTISTREAM + line("ls") * 1000)
says("a_thousand_unknown_protocols", MULTISTREAM + b"".join(line(f"/no/{n}") for n in range(1000)))
says("plaintext_instead_of_noise", MULTISTREAM + line("/plaintext/2.0.0") + bytes(100))
says("another_version_of_multistream", line("/multistream/9.0.0") + line("/noise"))
says("noise_and_nothing_more", MULTISTREAM + line("/noise"))

# Noise

in_noise("a_first_message_of_garbage", struct.pack(">H", 200) + b"\xaa" * 200)
in_noise("a_first_message_of_no_bytes", struct.pack(">H", 0) * 100)
in_noise("a_first_message_that_never_comes", struct.pack(">H", 65_535) + bytes(10))
in_noise("a_key_of_zeros", struct.pack(">H", 32) + bytes(32) + struct.pack(">H", 100) + bytes(100))
in_noise("a_first_message_and_then_garbage", struct.pack(">H", 32) + b"\x09" + bytes(31) + os.urandom(4000))


@attack
async def garbage_after_the_handshake(attacker: Attacker) -> None:
    async with attacker.noised() as secured:
        stream = secured.conn.read_writer.read_write_closer
        with trio.move_on_after(4):
            try:
                for _ in range(10):
                    await stream.write(struct.pack(">H", 1000) + os.urandom(1000))
                while await stream.read(100):
                    pass
            except Exception:  # noqa: BLE001 - however it ends
                return


@attack
async def an_identity_of_another_kind(attacker: Attacker) -> None:
    """Peers are Ed25519 keys; Noise would take others."""
    async with attacker.muxed(create_secp256k1_key_pair()) as mux:
        assert await mux.hung_up()


@attack
async def noise_and_then_silence(attacker: Attacker) -> None:
    async with attacker.noised() as secured:
        begin = trio.current_time()
        with trio.move_on_after(6):
            try:
                while await secured.read(100):
                    pass
            except Exception:  # noqa: BLE001 - however it ends
                pass
        assert trio.current_time() - begin < 5


# Yamux

in_yamux("a_frame_of_another_version", (DATA, 0, 1, 0, b"", 1))
in_yamux("a_frame_of_an_unknown_type", (9, 0, 0, 0, b""))
in_yamux("a_frame_of_unknown_flags", (WINDOW, 0x8000, 1, 0, b""))
in_yamux("a_stream_with_a_number_of_ours", (WINDOW, SYN, 2, 0, b""))
in_yamux("the_stream_zero", (WINDOW, SYN, 0, 0, b""))
in_yamux("a_stream_that_is_opened_twice", (WINDOW, SYN, 101, 0, b""), (WINDOW, SYN, 101, 0, b""))
in_yamux("data_for_a_stream_that_never_was", (DATA, 0, 9001, 4, b"data"))
in_yamux("an_acknowledgement_of_nothing", (WINDOW, ACK, 4000, 0, b""))
in_yamux("a_reset_of_nothing", (WINDOW, RST, 4001, 0, b""))
in_yamux("a_frame_of_16_mib", (WINDOW, SYN, 101, 0, b""), (DATA, 0, 101, 16 << 20, bytes(70_000)))
in_yamux("a_frame_of_4_gib", (WINDOW, SYN, 101, 0, b""), (DATA, 0, 101, 0xFFFFFFFF, b""))
in_yamux("a_frame_beyond_the_window", (WINDOW, SYN, 101, 0, b""), (DATA, 0, 101, 300_000, bytes(300_000)))
in_yamux("a_window_beyond_all_bounds", *[(WINDOW, SYN if not n else 0, 101, 0xFFFFFFFF, b"") for n in range(3)])
in_yamux("a_flood_of_pings", *[(PING, SYN, 0, n, b"") for n in range(200)])
in_yamux("a_farewell_and_then_more", (GO_AWAY, 0, 0, 0, b""), (WINDOW, SYN, 101, 0, b""))


@attack
async def answers_to_pings_that_nobody_sent(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        for number in range(5000):
            await mux.send(PING, ACK, 0, number)


@attack
async def streams_without_end(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        for number in range(1001, 6001, 2):
            await mux.send(WINDOW, SYN, number, 0)
        assert await mux.wait(lambda: sum(bool(flags & RST) for flags in mux.flags.values()) > 500) or mux.ended


@attack
async def streams_opened_and_reset(attacker: Attacker) -> None:
    """CVE-2023-44487 in yamux."""
    async with attacker.greeted() as mux:
        for number in range(1001, 21_001, 40):
            batch = b"".join(
                HEADER.pack(0, WINDOW, SYN, n, 0) + HEADER.pack(0, WINDOW, RST, n, 0)
                for n in range(number, number + 40, 2)
            )
            await mux.write(batch)


@attack
async def streams_filled_and_reset(attacker: Attacker) -> None:
    """Each leaves a window's worth of bytes that nobody will read."""
    async with attacker.greeted() as mux:
        for number in range(1001, 1401, 2):
            if mux.ended:
                break
            await mux.send(WINDOW, SYN, number, 0)
            for _ in range(4):
                await mux.send(DATA, 0, number, 60_000, bytes(60_000))
            await mux.send(WINDOW, RST, number, 0)


@attack
async def all_windows_filled(attacker: Attacker) -> None:
    """60 streams that nobody reads, a full window each: 15 MiB, more than this victim lets one group make it hold."""
    async with attacker.greeted() as mux:
        numbers = [await mux.open("sleep/1") for _ in range(60)]
        for number in numbers:
            for _ in range(4):
                await mux.send(DATA, 0, number, 60_000, bytes(60_000))
        assert await mux.hung_up()


@attack
async def data_after_the_end(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        number = await mux.open("echo/1")
        await mux.send(DATA, FIN, number, 1, b"x")
        for _ in range(100):
            await mux.send(DATA, 0, number, 1000, bytes(1000))


@attack
async def empty_frames_without_end(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        number = await mux.open("echo/1")
        for _ in range(200):
            await mux.write(HEADER.pack(0, DATA, 0, number, 0) * 500)


@attack
async def a_frame_that_dribbles(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        number = await mux.open("echo/1")
        await mux.send(DATA, 0, number, 50_000, b"x")
        assert await mux.hung_up(6)  # the victim's time to stall is 2 s


@attack
async def a_peer_that_never_reads(attacker: Attacker) -> None:
    async with attacker.noised() as secured:
        await secured.write(MULTISTREAM + line("/yamux/1.0.0"))
        with trio.move_on_after(5):
            try:
                for number in range(1, 2001, 2):
                    ask = MULTISTREAM + line("ls") * 50
                    head = HEADER.pack(0, WINDOW, SYN, number, 0) + HEADER.pack(0, DATA, 0, number, len(ask))
                    await secured.write(head + ask)
            except Exception:  # noqa: BLE001 - the victim hung up
                return


@attack
async def a_negotiation_that_never_ends(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        for number in range(1001, 1101, 2):
            await mux.send(WINDOW, SYN, number, 0)
            await mux.send(DATA, 0, number, 1, b"\x13")
        await trio.sleep(0.5)


# Hello


async def hello(attacker: Attacker, data: bytes) -> None:
    async with attacker.muxed() as mux:
        number = await mux.open("hello/2")
        await mux.say(number, data)
        await mux.hung_up(1)


@attack
async def no_hello(attacker: Attacker) -> None:
    async with attacker.muxed() as mux:
        number = await mux.open("echo/1", wait=False)
        await mux.say(number, b"x" * 1000)
        assert await mux.hung_up()
        assert b"x" not in mux.got[number].replace(b"ex", b"")


@attack
async def a_hello_of_garbage(attacker: Attacker) -> None:
    await hello(attacker, b"\xff" * 60)


@attack
async def a_hello_without_end(attacker: Attacker) -> None:
    await hello(attacker, frame(1, bytes(100)) + bytes(200_000))


@attack
async def a_hello_for_another_mesh(attacker: Attacker) -> None:
    async with attacker.muxed() as mux:
        number = await mux.open("hello/2")
        await mux.say(number, frame(1, encode(Hello(b"p" * 32))))
        assert await mux.wait(lambda: b"pre_shared_key" in mux.got[number])
        assert await mux.hung_up()


@attack
async def many_hellos(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        for _ in range(50):
            number = await mux.open("hello/2", wait=False)
            await mux.say(number, frame(1, encode(Hello(b""))))


# Our protocols

GARBAGE = [
    b"",
    b"\0" * 5,
    b"\xff" * 51,
    frame(1, b""),
    frame(1, b"\xc1" * 100),
    frame(1, b"\x91" * 1000),  # as deep as it goes
    frame(1, b"\xdd\xff\xff\xff\xff"),  # an array of four thousand million
    frame(2, b"x"),
    frame(250, b"x"),
    b"\xff\xff\xff\xff\x01" + bytes(1000),
    frame(1, bytes(60_000)),
]


def garbage_on(protocol: str) -> None:
    async def run(attacker: Attacker) -> None:
        for data in GARBAGE:
            async with attacker.greeted() as mux:
                number = await mux.open(protocol)
                await mux.say(number, data)
                await mux.send(WINDOW, FIN, number, 0)
                await trio.sleep(0.02)

    ATTACKS[f"garbage on {protocol}"] = run


for name in PROTOCOLS:
    garbage_on(name)


@attack
async def questions_without_end(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        number = await mux.open("peers/1")
        for _ in range(40):
            await mux.say(number, frame(1, b"\x91\x10") * 100)


async def gossips(mux: Mux, *frames: bytes) -> None:
    number = await mux.open("gossip/1")
    await mux.say(number, frame(gossip.TOPICS, encode(gossip.Topics((ADVERTS,)))))
    for one in frames:
        if mux.ended:
            break
        await mux.say(number, one)


@attack
async def a_flood_of_gossip(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        posts = [frame(gossip.POST, encode(gossip.Post(ADVERTS, b"%d" % n + bytes(900)))) for n in range(200)]
        await gossips(mux, *posts)
        assert await mux.hung_up()  # eight are enough


@attack
async def a_flood_of_gossip_that_nobody_wants(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        posts = [frame(gossip.POST, encode(gossip.Post("nobody/1", b"%d" % n + bytes(200)))) for n in range(1500)]
        with trio.move_on_after(3):
            await gossips(mux, *posts)


@attack
async def a_flood_of_ids(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        lists = [encode(gossip.Ids(tuple(os.urandom(32) for _ in range(128)))) for _ in range(100)]
        with trio.move_on_after(3):
            await gossips(mux, *(frame(kind, ids) for ids in lists for kind in (gossip.HAVE, gossip.WANT)))


# Reachability


@attack
async def calls_back_without_end(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        number = await mux.open("reach/1")
        for _ in range(200):
            await mux.say(number, frame(1, encode(Question(9))))
        await trio.sleep(1)


@attack
async def circuits_without_end(attacker: Attacker) -> None:
    """Places for itself; circuits to nobody, to itself and to the victim."""
    async with attacker.greeted() as mux:
        for target in (b"", os.urandom(32), attacker.victim) * 20:
            number = await mux.open("relay/1", wait=False)
            await mux.say(number, frame(1, encode(RelayQuestion(target))))
        await trio.sleep(1)


@attack
async def circuits_that_nobody_asked_for(attacker: Attacker) -> None:
    """A relay that the victim did not choose, and a meeting with who is connected already."""
    async with attacker.greeted() as mux:
        for _ in range(20):
            for protocol, message in (
                ("relayed/1", Incoming(os.urandom(32), True, "192.0.2.1", 9)),
                ("punch/1", Meeting(9, True)),
            ):
                number = await mux.open(protocol, wait=False)
                await mux.say(number, frame(1, encode(message)))
        await trio.sleep(1)


# Data channels


async def channel(mux: Mux) -> DirectAnswer:
    number = await mux.open("direct/1")
    key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    await mux.say(number, frame(1, encode(DirectAsk(key, b"\1\2", 0))))
    assert await mux.wait(lambda: len(mux.got[number]) > 5)
    return decode(bytes(mux.got[number][5:]), DirectAnswer, size_bytes_max=256)


@attack
async def channels_that_nobody_connects(attacker: Attacker) -> None:
    async with attacker.greeted() as mux:
        for _ in range(8):
            await channel(mux)
        key = X25519PrivateKey.generate().public_key().public_bytes_raw()
        for _ in range(50):  # refused: as many are waited for as one peer may have
            number = await mux.open("direct/1", wait=False)
            await mux.say(number, frame(1, encode(DirectAsk(key, b"\1\2", 0))))
        await trio.sleep(1)


@attack
async def strangers_at_the_data_port(attacker: Attacker) -> None:
    """40 that say nothing, a byte, or a token and a proof that are none."""
    async with attacker.greeted() as mux, contextlib.AsyncExitStack() as stack:
        port = (await channel(mux)).port
        for number in range(40):
            stream = await stack.enter_async_context(await attacker.tcp(port))
            with contextlib.suppress(*GONE):
                await stream.send_all((b"", b"x", os.urandom(48))[number % 3])
        await trio.sleep(1)


# The test


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, str(VICTIM), str(tmp_path_factory.mktemp("blobs"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
            assert process.poll() is None  # it outlived everything
        finally:
            process.stdin.close()
            process.kill()


@pytest.fixture(scope="module")
def baseline() -> dict[str, float]:
    """How the victim was after the first attack: what is imported and grown once does not count."""
    return {}


async def stats_of(address: str) -> dict[str, Any]:
    """An honest peer connects, is served, and asks how the victim is."""
    async with open_libp2p(os.urandom(32), network_id="test") as friend:
        peer = await friend.dial(address)
        echo = await friend.open_stream(peer, "echo/1")
        await echo.send_all(b"fine")
        assert await echo.receive_exactly(4) == b"fine"
        await echo.aclose()
        stream = await friend.open_stream(peer, "stats/1")
        data = b""
        while chunk := await stream.receive_some():
            data += chunk
        shown: dict[str, Any] = json.loads(data)
        return shown


def bounded(now: dict[str, Any], before: dict[str, float]) -> bool:
    """Nothing but the friend himself is connected, and nothing has grown. (Five tasks: some end a moment later.)"""
    return bool(
        now["connections"] <= 1
        and now["tasks"] <= before["tasks"] + 5
        and now["descriptors"] <= before["descriptors"] + 2
        and now["rss_mib"] <= before["rss_mib"] + RSS_MIB_MAX
    )


async def settled(address: str, baseline: dict[str, float]) -> None:
    """Wait until the victim is as it was; its longest time-out is 4 s."""
    now: dict[str, Any] = {}
    with trio.move_on_after(20):
        while True:
            now = await stats_of(address)
            if not baseline and now["connections"] <= 1:
                baseline.update(now)
            if baseline and bounded(now, baseline):
                return
            await trio.sleep(0.5)
    pytest.fail(f"the victim has grown: {now}, at first {baseline}")


@pytest.mark.parametrize("name", ATTACKS)
async def test_the_victim_serves_on(victim: str, baseline: dict[str, float], name: str) -> None:
    with trio.fail_after(90):
        if not baseline:
            await ATTACKS["an_http_request"](Attacker(victim, 2))
            await settled(victim, baseline)
        group = 10 + list(ATTACKS).index(name)
        await ATTACKS[name](Attacker(victim, group))
        await settled(victim, baseline)


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 70
