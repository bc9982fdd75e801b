"""Private meshes on the real network: a mismatch is told at once on both sides, and nothing else is served before."""

from typing import Any

import pytest
import structlog
import trio

from depin_node.core.errors import TransportError
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse, peer_id
from depin_node.p2p.frames import ANSWER, Frame, FrameReader, send_frames
from depin_node.p2p.libp2p import hello
from depin_node.p2p.network import Network, NetworkLimits, Stream

pytestmark = pytest.mark.net

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture(autouse=True)
async def deadline() -> Any:
    with trio.fail_after(60):
        yield


def open_node(name: str, **options: Any) -> Any:
    from depin_node.p2p.libp2p.host import open_libp2p

    limits = {key: options.pop(key) for key in list(options) if key in NetworkLimits.__dataclass_fields__}
    return open_libp2p(seed(name), **{"network_id": "test", **options}, limits=NetworkLimits(**limits))


def seed(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def key_of(name: str) -> bytes:
    return Identity(seed(name)).key


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def until(condition: Any) -> None:
    while not condition():
        await trio.sleep(0.01)


async def works(a: Network, b: Network) -> None:
    b.serve("echo/1", echo)
    assert await a.dial(b.addresses()[0]) == b.key
    stream = await a.open_stream(b.key, "echo/1")
    await stream.send_all(b"x")
    assert await stream.receive_exactly(1) == b"x"
    assert a.peers() == {b.key}
    assert b.peers() == {a.key}


@pytest.mark.parametrize("key", [None, KEY])
async def test_who_has_the_same_key_or_none_gets_in(key: bytes | None) -> None:
    async with open_node("a", pre_shared_key=key) as a, open_node("b", pre_shared_key=key) as b:
        await works(a, b)


@pytest.mark.parametrize(("ours", "theirs"), [(KEY, OTHER), (KEY, None), (None, KEY)])
async def test_another_key_is_told_at_once_to_both(ours: bytes | None, theirs: bytes | None) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_node("a", pre_shared_key=ours) as a, open_node("b", pre_shared_key=theirs) as b:
            begin = trio.current_time()
            with pytest.raises(TransportError, match="another pre-shared key, or only one of us has any"):
                await a.dial(b.addresses()[0])
            assert trio.current_time() - begin < 5  # not a time-out
            await until(lambda: b.counters().get("greetings_failed") == 1)
            assert not a.peers()
            assert not b.peers()
    told = [(entry["peer"], entry["reason"]) for entry in logs if "not of our mesh" in entry["event"]]
    assert {peer for peer, _ in told} == {peer_id(key_of("a")), peer_id(key_of("b"))}
    assert all("has another pre-shared key" in reason for _, reason in told)


async def test_who_tries_again_and_again_is_logged_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hello, "_GOODBYE_S", 0.05)
    with structlog.testing.capture_logs() as logs:
        async with open_node("a", pre_shared_key=KEY) as a, open_node("b", pre_shared_key=OTHER) as b:
            for attempt in range(1, 13):
                with pytest.raises(TransportError, match="another pre-shared key"):
                    await a.dial(b.addresses()[0])
                await until(lambda attempt=attempt: b.counters().get("greetings_failed") == attempt)
                await until(lambda: not a._swarm.get_connections())
    told = [(entry["peer"], entry["times"]) for entry in logs if "not of our mesh" in entry["event"]]
    assert sorted(told) == sorted((peer_id(key_of(name)), times) for name in "ab" for times in (1, 10))


async def test_only_allowed_peers_get_in_and_the_others_are_told() -> None:
    async with open_node("a") as a, open_node("b", allowed=[key_of("c")]) as b, open_node("c") as c:
        with pytest.raises(TransportError, match="takes only the peers on its list"):
            await a.dial(b.addresses()[0])
        await works(c, b)
        with pytest.raises(TransportError, match="not among the allowed peers"):
            await b.dial(a.addresses()[0])


async def test_who_answers_hello_with_rubbish_is_a_peer_that_cannot_be_connected() -> None:
    async def rubbish(stream: Stream, muxed: Any) -> None:
        await FrameReader(stream, size_bytes_max=64).read()
        await send_frames(stream, [Frame(ANSWER, b"rubbish")])

    async with open_node("a") as a, open_node("b") as b:
        b._greeter.answer = rubbish
        port = parse(b.addresses()[0]).port
        with pytest.raises(TransportError, match="breaks hello/2"):
            await a.dial(b.addresses()[0])
        with pytest.raises(TransportError, match="breaks hello/2"):
            await a.punch(b.key, "127.0.0.1", port, local_port=0, outbound=True)


async def test_who_opens_a_hello_and_says_nothing_breaks_the_rules() -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_node("a") as a, open_node("b", dial_timeout_s=0.5) as b:
            await a.dial(b.addresses()[0])
            await a.open_stream(b.key, "hello/2")
            await until(lambda: b.counters().get("streams_violated") or b.counters().get("streams_failed"))
            assert not b.counters().get("streams_failed")
    assert not [line for line in logs if line["log_level"] == "error"]


async def test_nothing_is_served_before_hello() -> None:
    """A stranger that does everything but say hello: no protocol of ours answers, nobody hears of it, and it is cut."""
    from libp2p.custom_types import TProtocol
    from libp2p.network.stream.exceptions import StreamError

    async def listen_only(*_: Any) -> None:
        await trio.sleep_forever()

    served = False

    async def serve(stream: Stream) -> None:
        nonlocal served
        served = True

    async with open_node("victim", open_timeout_s=0.5, dial_timeout_s=2) as victim, open_node("stranger") as stranger:
        victim.serve("secret/1", serve)
        stranger._greeter.greet = listen_only
        await stranger._connect(parse(victim.addresses()[0]))
        (connection,) = stranger._swarm.get_connections()
        for protocol in ("secret/1", "gossip/1"):
            stream = await stranger._host.new_stream(
                connection.muxed_conn.peer_id, [TProtocol(f"/depin/test/{protocol}")]
            )
            with pytest.raises(StreamError):  # reset
                await stream.read(1)
        assert not served
        assert not victim.peers()
        await until(lambda: not victim._swarm.get_connections())
        assert victim.counters()["greetings_failed"] == 1
