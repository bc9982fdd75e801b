"""What is fuzzed of the network: every decoder that a stranger's bytes reach, and the machines behind them."""

import importlib
import pkgutil
import random
from typing import Any

import trio
from fuzzing import Finding, mutate, target
from libp2p.io.exceptions import IncompleteReadError
from msgspec import inspect
from structlog.testing import capture_logs

import depin_node.crypto
import depin_node.p2p
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation, TransportError
from depin_node.core.wire import Message, decode, encode
from depin_node.crypto.identity import Identity
from depin_node.p2p import gossip, mdns
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.advert import DeviceOffer, Offer, sign_advert
from depin_node.p2p.blob_messages import unpack_have, unpack_indices
from depin_node.p2p.directory import Directory
from depin_node.p2p.frames import FrameReader
from depin_node.p2p.network import Verdict

NOW = Now(10**12, 1_800_000_000 * SECOND_NS)
AUTHORS = [Identity(bytes([number]) * 32) for number in range(4)]
SIZE_BYTES_MAX = 1 << 20


def _messages() -> list[type[Message]]:
    """Import the modules of p2p and crypto that need no libp2p, and return their messages."""
    for package in (depin_node.p2p, depin_node.crypto):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if not module.ispkg:
                importlib.import_module(module.name)
    importlib.import_module("depin_node.p2p.reach.messages")
    found, waiting = [], [Message]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__struct_fields__ and kind.__module__.startswith(("depin_node.p2p", "depin_node.crypto")):
            found.append(kind)
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__name__}")


MESSAGES = _messages()


def sample(kind: Any, chance: random.Random) -> Any:
    """Return a value of a type that msgspec describes."""
    match kind:
        case inspect.StructType():
            return kind.cls(*(sample(field.type, chance) for field in kind.fields))
        case inspect.IntType():
            low, high = kind.ge or 0, min(kind.le if kind.le is not None else 2**63 - 1, 2**63 - 1)
            return chance.choice((low, high, chance.randint(low, high)))
        case inspect.FloatType():
            return chance.random()
        case inspect.BoolType():
            return chance.random() < 0.5
        case inspect.BytesType():
            low, high = kind.min_length or 0, min(kind.max_length if kind.max_length is not None else 64, 4096)
            return chance.randbytes(chance.choice((low, high, chance.randint(low, max(low, min(high, 64))))))
        case inspect.StrType():
            low, high = kind.min_length or 0, kind.max_length or 32
            return "".join(chance.choice("abcxyz019-/") for _ in range(chance.randint(low, max(low, min(high, 40)))))
        case inspect.VarTupleType() | inspect.ListType():
            low, high = kind.min_length or 0, kind.max_length if kind.max_length is not None else 8
            return tuple(sample(kind.item_type, chance) for _ in range(chance.randint(low, max(low, min(high, 5)))))
        case inspect.TupleType():
            return tuple(sample(item, chance) for item in kind.item_types)
        case inspect.EnumType():
            return chance.choice(list(kind.cls))
        case inspect.UnionType():
            return sample(chance.choice(kind.types), chance)
        case inspect.NoneType():
            return None
        case inspect.Metadata():
            return sample(kind.type, chance)
    raise TypeError(f"no message has had a field of {kind} so far: say here how to draw one")


@target
def p2p_messages(chance: random.Random) -> bytes:
    """Every message of the network and of crypto: decoded or refused, and what is decoded has one encoding."""
    kind, other = chance.choice(MESSAGES), chance.choice(MESSAGES)
    whole = encode(sample(inspect.type_info(kind), chance))
    data = mutate(whole, chance, encode(sample(inspect.type_info(other), chance)))
    try:
        value = decode(data, kind, size_bytes_max=SIZE_BYTES_MAX)
    except PeerViolation:
        return data
    except Exception as error:  # whatever it is, it is the finding
        raise Finding(f"{kind.__name__}: {type(error).__name__}: {error}", data) from error
    if encode(value) != data:
        raise Finding(f"{kind.__name__}: another encoding was taken", data)
    return data


@target
def p2p_adverts(chance: random.Random) -> bytes:
    """Adverts: the directory takes or refuses them, and nobody speaks for another."""
    directory = Directory(AUTHORS[0].key, "test")
    offer = Offer(True, (DeviceOffer("wasm-1", 1024, 2, 1, "a model", 1, 2, 3),), 5, "0.1")
    signed = [
        sign_advert(who, "test", offer, ["/ip4/10.0.0.1/tcp/4001"], seq=chance.randrange(9), now=NOW, lifetime_s=60)
        for who in AUTHORS[1:3]
    ]
    data = mutate(signed[0], chance, signed[1])
    try:
        _, key = directory.receive(data, NOW)
    except PeerViolation:
        return data
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    if data not in signed or key not in (AUTHORS[1].key, AUTHORS[2].key):
        raise Finding("a forged advert was taken", data)
    return data


class _Bytes:
    """A stream, or what yamux reads from, of bytes that come in pieces; then it ends."""

    protocol, peer = "test/1", bytes(32)

    def __init__(self, data: bytes, chance: random.Random) -> None:
        self.data, self.chance = data, chance
        self.written = 0

    async def receive_some(self, size_bytes_max: int = 65_536) -> bytes:
        size = min(size_bytes_max, self.chance.choice((1, 2, 5, 100, 65_536)))
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    async def receive_into(self, buffer: memoryview) -> int:
        taken = await self.receive_some(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)

    async def read(self, n: int | None = None) -> bytes:
        return await self.receive_some(n or 65_536)

    # What a secured session has.

    def _drain(self, n: int | None) -> bytes:
        return b""

    async def read_msg(self) -> bytes:
        message = await self.receive_some()
        if not message:
            raise IncompleteReadError("the end")
        return message

    async def write(self, data: bytes) -> None:
        self.written += len(data)

    async def close(self) -> None:
        self.data = b""


@target
def p2p_frames(chance: random.Random) -> bytes:
    """Frames: read or refused, none longer than it may be."""
    whole = b"".join(
        len(body := chance.randbytes(chance.choice((0, 1, 50, 1000)))).to_bytes(4, "little")
        + bytes([chance.randrange(256)])
        + body
        for _ in range(chance.randrange(1, 6))
    )
    data = mutate(whole, chance)

    async def read() -> None:
        reader, taken = FrameReader(_Bytes(data, chance), size_bytes_max=500), b""  # type: ignore[arg-type]
        while (frame := await reader.read()) is not None:
            if len(frame.body) > 500:
                raise Finding("a frame longer than it may be", data)
            taken += len(frame.body).to_bytes(4, "little") + bytes([frame.kind]) + frame.body
        if taken != data:
            raise Finding("frames of other bytes than came", data)

    try:
        trio.run(read)
    except (PeerViolation, TransportError):
        pass
    except Finding:
        raise
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    return data


@target
def p2p_gossip(chance: random.Random) -> bytes:
    """The gossip machine, fed by three neighbours: it takes or refuses, and stays small."""
    node, said = gossip.Gossip(1000, random.Random(chance.random())), b""
    node.subscribe("notes/1")
    for number in range(3):
        node.joined(bytes([number]) * 32, NOW)
    for _ in range(20):
        post = encode(gossip.Post(chance.choice(("notes/1", "other/1")), chance.randbytes(chance.randrange(4))))
        ids = encode(gossip.Ids(tuple(gossip.message_id("notes/1", bytes([n])) for n in range(chance.randrange(1, 9)))))
        kind = chance.randrange(6)
        body = chance.choice((post, ids, encode(gossip.Topics(("notes/1",)))))
        body = mutate(body, chance) if chance.random() < 0.5 else body
        said += bytes([kind]) + body
        peer = bytes([chance.randrange(3)]) * 32
        try:
            for effect in node.heard(peer, kind, body, NOW):
                if isinstance(effect, gossip.Judge):
                    node.judged(effect, chance.choice(list(Verdict)), NOW)
        except PeerViolation:
            node.left(peer)
        except Exception as error:  # as above
            raise Finding(f"{type(error).__name__}: {error}", said) from error
        node.tick(NOW)
    if len(node._missing) > gossip.MISSING_MAX or len(node._stored) > gossip.STORED_MAX:
        raise Finding("it grows", said)
    return said


@target
def p2p_mdns(chance: random.Random) -> bytes:
    """Packets of multicast DNS: read or refused, and nothing is believed but what the sender says of its own host."""
    where = [f"/ip4/192.168.1.{n}/tcp/4701/p2p/{peer_id(who.key)}" for n, who in enumerate(AUTHORS[1:3], 1)]
    whole = (mdns.query(), mdns.answer(b"n" * 32, where), mdns.answer(b"n" * 32, where[:1]))
    data = mutate(chance.choice(whole), chance, chance.choice(whole))
    beacon = mdns.Beacon(AUTHORS[0].key, random.Random(1), NOW)
    try:
        found = beacon.heard(data, "192.168.1.1", mdns.PORT, NOW)
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    if len(found) > mdns.ADDRESSES_MAX or any(address.host != "192.168.1.1" for address in found):
        raise Finding("more was believed than may be", data)
    return data


@target
def p2p_blob_lists(chance: random.Random) -> bytes:
    """The packed lists of the blob protocol."""
    data = mutate(chance.randbytes(chance.choice((0, 1, 4, 16, 64))), chance)
    count = chance.choice((0, 1, 7, 8, 9, 1000))
    try:
        unpack_have(data, count)
        unpack_indices(data, count, 16)
    except PeerViolation:
        pass
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    return data


@target
def p2p_yamux(chance: random.Random) -> bytes:
    """Our reader of yamux: whatever comes, it ends by itself, in order, and holds no more than windows."""
    from libp2p.stream_muxer.yamux.yamux import Yamux

    from depin_node.p2p.libp2p.mends.registry import FRAME_HEADER
    from depin_node.p2p.libp2p.mends.yamux_rules import _read_frames

    frames = []
    for _ in range(chance.randrange(1, 40)):
        kind, number = chance.choice((0, 0, 0, 1, 1, 2)), chance.choice((1, 1, 3, 5, 101, 0, 2))
        body = chance.randbytes(chance.choice((0, 1, 100, 3000))) if kind == 0 else b""
        flags = chance.choice((0, 0, 1, 1, 2, 4, 8, 5, 9))
        length = len(body) if kind == 0 else chance.choice((0, 1, 65_536, 2**32 - 1))
        frames.append(FRAME_HEADER.pack(0, kind, flags, number, length) + body)
    whole = b"".join(frames)
    data = mutate(whole, chance) if chance.random() < 0.7 else whole

    async def read() -> None:
        conn = _Bytes(data, chance)
        conn.is_initiator = False  # type: ignore[attr-defined]
        from libp2p.peer.id import ID

        muxed = Yamux(conn, ID(b"\0$\x08\x01\x12 " + bytes(32)), is_initiator=False)
        held = 0

        class Guard:
            def opens(self, muxed: Any) -> bool:
                return len(muxed.streams) < 20

            def received(self, muxed: Any, size_bytes: int) -> None:
                nonlocal held
                held = max(held, *(len(buffer) for buffer in muxed.stream_buffers.values()))

            def broke(self, peer: bytes, reason: str) -> None:
                pass

        muxed.swarm = type("Swarm", (), {"depin_guard": Guard()})()
        muxed.secured_conn.conn = type("L", (), {"read_writer": None, "read_msg": conn.read_msg})()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:

                async def accept() -> None:
                    async with muxed.new_stream_receive_channel as channel:
                        async for _ in channel:
                            pass

                nursery.start_soon(accept)
                await _read_frames(muxed)
        assert not data or len(conn.data) < len(data), "nothing was read"
        if held > 256 * 1024 or muxed.streams:
            raise Finding(f"it holds {held} bytes and {len(muxed.streams)} streams", data)

    import depin_node.p2p.libp2p.mends.yamux_rules as rules

    abort, rules.abort = rules.abort, lambda muxed: None  # there is no socket
    try:
        with capture_logs():
            trio.run(read)
    except Finding:
        raise
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    finally:
        rules.abort = abort
    return data
