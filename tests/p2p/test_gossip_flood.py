"""A flood of gossip costs the flooder: on the real network, honest messages come through while one neighbour floods."""

from contextlib import suppress
from typing import Any

import pytest
import trio

from depin_node.core.errors import TransportError
from depin_node.core.wire import encode
from depin_node.p2p import gossip
from depin_node.p2p.frames import Frame, send_frames
from depin_node.p2p.network import Network, NetworkLimits, Verdict

pytestmark = pytest.mark.net
TOPIC = "notes/1"
HONEST = 40


def open_node(name: str, **limits: Any) -> Any:
    from depin_node.p2p.libp2p.host import open_libp2p

    return open_libp2p(name.encode().ljust(32, b"."), network_id="test", limits=NetworkLimits(**limits))


async def flood(network: Network, victim: bytes, kind: bytes, sent: list[int]) -> None:
    """Send messages as fast as the victim reads, past our own node's gossip.

    The victim reads one stream of gossip a peer, the newest: our own node's takes the place of ours if it comes late.
    """
    while victim in network.peers():
        stream = await network.open_stream(victim, "gossip/1")
        with suppress(TransportError):
            while True:
                posts = []
                for _ in range(50):
                    sent[0] += 1
                    posts.append(Frame(gossip.POST, encode(gossip.Post(TOPIC, kind + b"%d" % sent[0] + bytes(500)))))
                await send_frames(stream, posts)
    raise AssertionError("the flooder was hung up on")


@pytest.mark.parametrize("kind", [b"known", b"valid"])
async def test_honest_messages_come_through_while_a_neighbour_floods(kind: bytes) -> None:
    heard: dict[str, set[bytes]] = {"middle": set(), "far": set()}

    def hear(network: Network, name: str) -> None:
        async def judge(peer: bytes, data: bytes) -> Verdict:
            heard[name].add(data)
            return Verdict.IGNORE if data.startswith(b"known") else Verdict.ACCEPT

        network.subscribe(TOPIC, judge)

    with trio.fail_after(90):
        async with (
            open_node("middle", stall_timeout_s=60) as middle,
            open_node("far") as far,
            open_node("honest") as honest,
            open_node("flooder", stall_timeout_s=60) as flooder,
        ):
            for network, name in ((middle, "middle"), (far, "far")):
                hear(network, name)
            await honest.dial(middle.addresses()[0])
            await middle.dial(far.addresses()[0])
            await flooder.dial(middle.addresses()[0])
            sent = [0]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, flooder, middle.key, kind, sent)
                while not middle.counters().get("gossip_slowed"):
                    await trio.sleep(0.05)
                for number in range(HONEST):
                    await honest.publish(TOPIC, b"honest %d" % number)
                    await trio.sleep(0.02)
                wanted = {b"honest %d" % number for number in range(HONEST)}
                while not wanted <= heard["far"]:
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
            taken = sum(data.startswith(kind) for data in heard["middle"])
            assert taken < sent[0]  # what is left waits in the flooder's own pipe
            assert taken < gossip.TOKENS_BURST + gossip.TOKENS_PER_S * 90
