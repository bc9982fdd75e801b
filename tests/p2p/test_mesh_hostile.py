"""What one hostile peer can send to a node, protocol by protocol, and that the node takes no harm."""

import random
import struct
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import TransportError
from depin_node.core.wire import encode
from depin_node.crypto.envelope import NOBODY, Envelope, sign
from depin_node.crypto.identity import Identity
from depin_node.p2p.advert import Advert, DeviceOffer, DigestLine, Offer
from depin_node.p2p.directory import Digest
from depin_node.p2p.directory_protocol import (
    ADVERTS_MAX,
    DIRECTORY_PROTOCOL,
    FIND_PROTOCOL,
    PEERS_PROTOCOL,
    Adverts,
    CatchUpRequest,
    FindRequest,
    News,
    PeersRequest,
    ShardLine,
)
from depin_node.p2p.frames import ANSWER, ASK, REFUSE, Frame, FrameReader, send_frames
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.mesh import open_mesh
from depin_node.p2p.network import Verdict
from depin_node.p2p.shards import CAPABILITIES, Shard

VICTIM, MALLORY, CAROL = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
WALL_S = 1_800_000_000


def simulated_now():
    ns = int(trio.current_time() * SECOND_NS)
    return Now(ns, WALL_S * SECOND_NS + ns)


def advert(**changed):
    fields = {
        "to": NOBODY,
        "expires_s": WALL_S + 300,
        "seq": 10,
        "addresses": ("/ip4/10.0.0.9/tcp/4001",),
        "protocol_min": 1,
        "protocol_max": 1,
        "lending": True,
        "devices": (DeviceOffer("wasm-1", 512, 1, 1),),
        "price": 0,
        "software": "0.1.0",
        "leaving": False,
        "certificate": b"",
    }
    return Advert(**(fields | changed))


def signed(signer=MALLORY, network="test", **changed):
    return sign(signer, network, advert(**changed))


def forged():
    """Carol's name over Mallory's signature."""
    payload = encode(advert())
    return encode(Envelope(CAROL.key, MALLORY.sign(b"depin/test/advert/v1\0" + payload), payload))


BAD_ADVERTS = {
    "garbage": b"\xff" * 100,
    "empty": b"",
    "oversized": b"\x93" + bytes(1100),
    "forged": forged(),
    "expired": signed(expires_s=WALL_S - 100),
    "valid for too long": signed(expires_s=WALL_S + 5 * 3600),
    "misaddressed": signed(to=VICTIM.key),
    "of a foreign network": signed(network="other"),
    "wildcard address": signed(addresses=("/ip4/0.0.0.0/tcp/4001",)),
    "damaged address": signed(addresses=("/ip4/10.0.0.9/tcp/99999",)),
    "address of another peer": signed(
        addresses=("/ip4/10.0.0.9/tcp/1/p2p/12D3KooWMz5U7fR8mF5DNhZSSyFN8c19kU63xYopzDSNCzoFigYk",)
    ),
    "no version": signed(protocol_min=3, protocol_max=2),
    "of another type": sign(MALLORY, "test", advert()).replace(b"wasm-1", b"wasm-2"),
}


ADVERTS_TOPIC = Shard("cpu", 0, 0).topic


@asynccontextmanager
async def under_attack():
    """A node with a mesh, and Mallory's bare network, connected to it."""
    fabric = MemoryFabric(1)
    async with (
        fabric.open(VICTIM.key) as network,
        open_mesh(network, VICTIM, clock=simulated_now, rng=random.Random(1)) as mesh,
        fabric.open(MALLORY.key) as mallory,
    ):
        mallory.subscribe(ADVERTS_TOPIC, ignore)
        yield fabric, mesh, mallory


async def ignore(peer, data):
    return Verdict.ACCEPT


async def connect(mesh, mallory):
    await mallory.dial(mesh.network.addresses()[0])
    await trio.sleep(0.1)


async def check_that_all_is_well(fabric, mesh):
    """An honest peer joins by the node that was attacked, and each sees the other."""
    assert {entry.key for entry in mesh.directory.peers()} <= {MALLORY.key, CAROL.key}
    async with (
        fabric.open(CAROL.key) as network,
        open_mesh(
            network,
            CAROL,
            first_peers=mesh.network.addresses(),
            offer=Offer(lending=True),
            clock=simulated_now,
            rng=random.Random(3),
        ) as carol,
    ):
        with trio.fail_after(10):
            await carol.ready.wait()
            while mesh.directory.get(CAROL.key) is None:
                await trio.sleep(0.1)


@pytest.mark.parametrize("name", BAD_ADVERTS)
async def test_bad_gossip(autojump_clock, name):
    async with under_attack() as (fabric, mesh, mallory):
        await connect(mesh, mallory)
        data = BAD_ADVERTS[name]
        await mallory.publish(ADVERTS_TOPIC, data)
        await trio.sleep(1)
        assert mesh.directory.peers() == []
        if name == "expired":  # it may have been long under way; nor is it passed on
            assert "violated" not in mesh.counters()
            return
        assert mesh.counters()["violated"] == 1
        assert mesh.network.counters()["gossip_invalid"] == 1  # so it was not passed on
        for number in range(8):  # one more than are too many: old ones fade
            await mallory.publish(ADVERTS_TOPIC, data + bytes([number]))
        await trio.sleep(1)
        assert MALLORY.key not in mesh.network.peers()
        await check_that_all_is_well(fabric, mesh)


async def test_who_hands_on_an_advert_says_nothing_about_whose_it_is(autojump_clock):
    async with under_attack() as (_, mesh, mallory):
        await connect(mesh, mallory)
        await mallory.publish(ADVERTS_TOPIC, signed(CAROL))
        await trio.sleep(1)
        assert mesh.directory.get(CAROL.key) is not None
        assert mesh.directory.get(MALLORY.key) is None
        assert "gossip_invalid" not in mesh.network.counters()


async def test_replayed_gossip_changes_nothing(autojump_clock):
    async with under_attack() as (_, mesh, mallory):
        await connect(mesh, mallory)
        for data in (
            signed(seq=10, price=1),
            signed(seq=11, price=2),
            signed(seq=10, price=4),
            signed(seq=11, price=3),
        ):
            await mallory.publish(ADVERTS_TOPIC, data)
        await trio.sleep(1)
        assert mesh.directory.get(MALLORY.key).advert.price == 2
        assert mesh.network.counters()["gossip_ignored"] == 2  # known already: nobody's fault
        assert "gossip_invalid" not in mesh.network.counters()


async def test_who_changes_its_advert_all_the_time_is_kept_out(autojump_clock):
    async with under_attack() as (_, mesh, mallory):
        await connect(mesh, mallory)
        for seq in range(200):
            await mallory.publish(ADVERTS_TOPIC, signed(seq=seq))
        await trio.sleep(1)
        assert mesh.directory.get(MALLORY.key).advert.seq < 20
        assert MALLORY.key not in mesh.network.peers()


def digest(lines=()):
    return Digest(tuple(DigestLine(bytes([number]) * 8, number) for number in lines))


def frame(kind, body, length=None):
    return struct.pack("<IB", len(body) if length is None else length, kind) + body


EVERYWHERE = tuple(ShardLine(index, 0, 0) for index in range(len(CAPABILITIES)))
GOOD = encode(CatchUpRequest(signed(), EVERYWHERE, digest()))
BAD_REQUESTS = {
    (DIRECTORY_PROTOCOL, "garbage"): frame(ASK, b"\xc1" * 40),
    (DIRECTORY_PROTOCOL, "not canonical"): frame(ASK, GOOD.replace(b"\x93", b"\xdc\x00\x03", 1)),
    (DIRECTORY_PROTOCOL, "extra field"): frame(ASK, GOOD.replace(b"\x93", b"\x94", 1) + b"\x00"),
    (DIRECTORY_PROTOCOL, "garbage advert"): frame(ASK, encode(CatchUpRequest(b"x" * 100, EVERYWHERE, digest()))),
    (DIRECTORY_PROTOCOL, "forged advert"): frame(ASK, encode(CatchUpRequest(forged(), EVERYWHERE, digest()))),
    (DIRECTORY_PROTOCOL, "another's advert"): frame(ASK, encode(CatchUpRequest(signed(CAROL), EVERYWHERE, digest()))),
    (DIRECTORY_PROTOCOL, "a shard that cannot be"): frame(
        ASK, encode(CatchUpRequest(signed(), (ShardLine(3, 0, 0),), digest()))
    ),
    (FIND_PROTOCOL, "garbage"): frame(ASK, b"\xc1" * 40),
    (FIND_PROTOCOL, "too many wanted"): frame(ASK, encode(FindRequest((), 0, 0, 0, (), bytes(16), 65))),
    (FIND_PROTOCOL, "a short point"): frame(ASK, encode(FindRequest((), 0, 0, 0, (), bytes(15), 1))),
    (PEERS_PROTOCOL, "garbage"): frame(ASK, b"\xc1" * 40),
    (PEERS_PROTOCOL, "too many wanted"): frame(ASK, b"\x91\xcd\xff\xff"),
    (PEERS_PROTOCOL, "none wanted"): frame(ASK, b"\x91\x00"),
}


@pytest.mark.parametrize(("case", "data"), BAD_REQUESTS.items(), ids=[" ".join(case) for case in BAD_REQUESTS])
async def test_bad_requests_are_counted(autojump_clock, case, data):
    async with under_attack() as (fabric, mesh, mallory):
        await connect(mesh, mallory)
        stream = await mallory.open_stream(VICTIM.key, case[0])
        await stream.send_all(data)
        await FrameReader(stream, size_bytes_max=1 << 20).read()
        assert mesh.counters()["violated"] == 1
        await check_that_all_is_well(fabric, mesh)


@pytest.mark.parametrize("protocol", [DIRECTORY_PROTOCOL, PEERS_PROTOCOL])
@pytest.mark.parametrize(
    "data",
    [frame(ASK, b"", length=1 << 31), frame(99, b""), frame(ASK, b"half", length=100)],
    ids=["oversized", "kind", "half"],
)
async def test_bad_frames_end_their_stream_only(autojump_clock, protocol, data):
    async with under_attack() as (fabric, mesh, mallory):
        await connect(mesh, mallory)
        stream = await mallory.open_stream(VICTIM.key, protocol)
        await stream.send_all(data)
        with trio.fail_after(60), suppress(TransportError):  # reset; or, for the half frame, closed after the deadline
            assert await stream.receive_some() == b""
        await check_that_all_is_well(fabric, mesh)


async def test_who_asks_too_often_is_refused(autojump_clock):
    async with under_attack() as (_, mesh, mallory):
        await connect(mesh, mallory)
        stream = await mallory.open_stream(VICTIM.key, PEERS_PROTOCOL)
        reader = FrameReader(stream, size_bytes_max=1 << 20)
        answers = []
        for _ in range(60):
            await send_frames(stream, [Frame(ASK, encode(PeersRequest(1)))])
            answers.append(await reader.read())
        assert answers[0].kind == ANSWER
        assert answers[-1] == Frame(REFUSE, b"resource")


BAD_ANSWERS = {
    "garbage": frame(ANSWER, b"\xc1" * 40),
    "oversized": frame(ANSWER, b"", length=1 << 31),
    "too many adverts": {
        PEERS_PROTOCOL: frame(ANSWER, encode(Adverts((b"",) * (ADVERTS_MAX + 1)))),
        DIRECTORY_PROTOCOL: frame(ANSWER, encode(News((0, 0, 0), (b"",) * (ADVERTS_MAX + 1)))),
    },
    "bad advert": {
        PEERS_PROTOCOL: frame(ANSWER, encode(Adverts((forged(),)))),
        DIRECTORY_PROTOCOL: frame(ANSWER, encode(News((0, 0, 0), (forged(),)))),
    },
    "no answer": frame(77, b""),
}


@pytest.mark.parametrize("protocol", [DIRECTORY_PROTOCOL, PEERS_PROTOCOL])
@pytest.mark.parametrize("data", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_bad_answers_are_counted_until_their_sender_is_kept_out(autojump_clock, protocol, data):
    async with under_attack() as (fabric, mesh, mallory):

        async def answer(stream):
            await stream.receive_some()
            await stream.send_all(data[protocol] if isinstance(data, dict) else data)

        mallory.serve(protocol, answer)
        await connect(mesh, mallory)
        with trio.fail_after(900):
            while MALLORY.key in mesh.network.peers():
                await trio.sleep(1)
        assert mesh.network.counters()["peers_kept_out"] == 1
        await check_that_all_is_well(fabric, mesh)


async def test_who_never_answers_costs_nothing_but_time(autojump_clock):
    async with under_attack() as (fabric, mesh, mallory):

        async def silence(stream):
            await trio.sleep_forever()

        mallory.serve(DIRECTORY_PROTOCOL, silence)
        mallory.serve(PEERS_PROTOCOL, silence)
        await connect(mesh, mallory)
        await trio.sleep(100)
        await check_that_all_is_well(fabric, mesh)


async def test_made_up_peers_are_dialled_seldom_and_few_at_once(autojump_clock):
    """Whoever a teller invents has to be signed, but its address can be a victim's."""
    async with under_attack() as (_, mesh, mallory):

        async def tell(stream):
            await FrameReader(stream, size_bytes_max=1 << 20).read()
            made_up = [signed(Identity(random.randbytes(32))) for _ in range(16)]
            await send_frames(stream, [Frame(ANSWER, encode(Adverts(tuple(made_up))))])

        mallory.serve(PEERS_PROTOCOL, tell)
        await connect(mesh, mallory)
        await trio.sleep(60)
        assert 250 < len(mesh.directory.peers()) <= 256  # all are of one group
        assert 1 <= mesh.counters()["undialled"] <= 10  # whoever is said to be there: it is one target
