"""The per-peer border: connection events with a slow reader, handlers that fail."""

from collections import Counter

import pytest
import trio

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.p2p.network import Connected, Disconnected, EventsLost, NetworkLimits, Stream, Verdict
from depin_node.p2p.serving import COUNTERS, EventHub, StreamServer, judge


def event(number: int) -> Disconnected:
    return Disconnected(bytes([number]) * 32)


def test_a_slow_reader_learns_that_it_missed_something() -> None:
    counters: Counter[str] = Counter()
    hub = EventHub(NetworkLimits(events_queue_max=4), counters)
    reader = hub.subscribe()
    for number in range(10):
        hub.emit(event(number))
    assert [reader.receive_nowait() for _ in range(4)] == [event(0), event(1), event(2), EventsLost()]
    assert counters["events_lost"] == 7
    hub.emit(event(10))
    assert reader.receive_nowait() == event(10)  # and from here on it is told again
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()


def test_readers_do_not_slow_each_other() -> None:
    hub = EventHub(NetworkLimits(events_queue_max=2), Counter())
    slow, quick = hub.subscribe(), hub.subscribe()
    for number in range(5):
        hub.emit(event(number))
        assert quick.receive_nowait() == event(number)
    assert slow.receive_nowait() == event(0)
    assert slow.receive_nowait() == EventsLost()


def test_a_reader_that_left_is_forgotten_and_the_end_is_seen() -> None:
    hub = EventHub(NetworkLimits(), Counter())
    gone, stays = hub.subscribe(), hub.subscribe()
    gone.close()
    hub.emit(Connected(bytes(32), "", outbound=True))
    assert len(hub._readers) == 1
    hub.close()
    assert isinstance(stays.receive_nowait(), Connected)
    with pytest.raises(trio.EndOfChannel):
        stays.receive_nowait()
    with pytest.raises(trio.EndOfChannel):
        hub.subscribe().receive_nowait()


class Ended:
    """Just enough of a stream to see how it ended."""

    protocol = "test/1"

    def __init__(self, peer: bytes = bytes(32)) -> None:
        self.peer = peer
        self.how = ""

    async def aclose(self) -> None:
        self.how = "closed"

    async def reset(self) -> None:
        self.how = "reset"


@pytest.mark.parametrize(
    ("error", "how", "counter"),
    [
        (None, "closed", None),
        (TransportError("gone"), "reset", "streams_broken"),
        (PeerViolation("garbage"), "reset", "streams_violated"),
        (ZeroDivisionError("a bug"), "reset", "streams_failed"),
        (ExceptionGroup("a nursery's", [KeyError("a bug")]), "reset", "streams_failed"),
    ],
)
async def test_what_a_handler_raises_is_counted_and_ends_its_stream(
    error: Exception | None, how: str, counter: str | None
) -> None:
    async def handler(stream: Stream) -> None:
        if error:
            raise error

    counters: Counter[str] = Counter()
    stream = Ended()
    await StreamServer(NetworkLimits(), counters).run(stream, handler)  # type: ignore[arg-type]
    assert stream.how == how
    assert counters == ({counter: 1} if counter else {})
    assert set(counters) <= set(COUNTERS)


async def test_the_cap_is_per_peer() -> None:
    counters: Counter[str] = Counter()
    server = StreamServer(NetworkLimits(inbound_streams_per_peer_max=1), counters)
    go = trio.Event()

    async def wait(stream: Stream) -> None:
        await go.wait()

    first, second, other = Ended(), Ended(), Ended(b"o" * 32)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, first, wait)
        nursery.start_soon(server.run, other, wait)
        await trio.testing.wait_all_tasks_blocked()
        await server.run(second, wait)  # type: ignore[arg-type]
        assert second.how == "reset"
        go.set()
    assert (first.how, other.how) == ("closed", "closed")
    assert counters == {"streams_refused": 1}
    assert not server._running


async def test_a_verdict_is_counted_and_errors_are_told_apart() -> None:
    counters: Counter[str] = Counter()

    async def ask(answer: Verdict | Exception) -> Verdict:
        async def handler(peer: bytes, data: bytes) -> Verdict:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return await judge(handler, bytes(32), b"x", limits=NetworkLimits(), counters=counters)

    for answer, verdict in (
        (Verdict.ACCEPT, Verdict.ACCEPT),
        (Verdict.IGNORE, Verdict.IGNORE),
        (Verdict.REJECT, Verdict.REJECT),
        (PeerViolation("forged"), Verdict.REJECT),
        (ZeroDivisionError("a bug of ours"), Verdict.IGNORE),
    ):
        assert await ask(answer) is verdict
    assert counters == {"gossip_invalid": 2, "gossip_ignored": 1, "gossip_failed": 1}
    assert set(counters) <= set(COUNTERS)


async def test_an_oversized_message_is_not_even_shown() -> None:
    async def handler(peer: bytes, data: bytes) -> Verdict:
        raise AssertionError

    counters: Counter[str] = Counter()
    limits = NetworkLimits(gossip_size_bytes_max=10)
    assert await judge(handler, bytes(32), bytes(11), limits=limits, counters=counters) is Verdict.REJECT
    assert counters == {"gossip_oversized": 1}
