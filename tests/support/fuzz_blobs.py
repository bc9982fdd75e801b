"""Fuzz targets of the data plane: what peers say about blobs, on both carriers, and sealed blobs."""

import contextlib
import random

import zstandard
from fuzzing import Finding, mutate, target

from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.wire import decode, encode
from depin_node.crypto.blob import Manifest, manifest
from depin_node.crypto.channel import AES_128_GCM, TAG_BYTES, Sealer, Unsealer
from depin_node.crypto.identity import Identity
from depin_node.crypto.sealing import open_sealed, recipients_of, seal
from depin_node.p2p import blob_messages as m
from depin_node.p2p import compression
from depin_node.p2p.direct import DirectAnswer, DirectAsk
from depin_node.p2p.swarm import Swarm

DATA = bytes(range(256)) * 20
GOOD = manifest(DATA)
HEAD = encode(m.Head(GOOD.size, b"".join(GOOD.hashes), b"", (bytes(32),)))
REQUEST = encode(m.BlobRequest(bytes(100), GOOD.blob_id(), 1 << 30, True, bytes(32)))
ASK = encode(DirectAsk(bytes(32), b"\1\2", 4702))
READER = Identity(bytes(32))
SEALED = b"".join(seal([DATA], [READER.key]))


@target
def blob_messages(chance: random.Random) -> bytes:
    """Requests and answers about blobs decode to what they say, or are violations."""
    data = mutate(chance.choice((HEAD, REQUEST, ASK)), chance, HEAD)
    count = chance.choice((0, 1, 7, 8, 9, 300))
    try:
        for kind in (m.Head, m.BlobRequest, DirectAsk, DirectAnswer):
            try:
                message = decode(data, kind, size_bytes_max=4096)
            except PeerViolation:
                continue
            if encode(message) != data:
                raise Finding(f"{kind.__name__} is not canonical", data)
            if isinstance(message, m.Head):
                found: Manifest = m.manifest_of(message, GOOD.blob_id(), 1 << 20)
                if found != GOOD:
                    raise Finding("another manifest was taken", data)
        for unpack in (lambda: m.unpack_indices(data, count, 64), lambda: m.unpack_keys(data)):
            with contextlib.suppress(PeerViolation):
                unpack()
        here = m.unpack_have(data, count)
        if here is not None and (len(here) != count or set(here) - {0, 1}):
            raise Finding("what a holder has is not what it is", data)
    except PeerViolation:
        pass
    except Exception as error:  # whatever it is, it is the finding
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    return data


@target
def compressed_chunks(chance: random.Random) -> bytes:
    """Compressed chunks give exactly as much as they should, or are violations."""
    plain = DATA[: chance.choice((1, 100, len(DATA)))] * chance.choice((1, 1, 40))
    data = mutate(zstandard.ZstdCompressor(level=1).compress(plain), chance, HEAD)
    try:
        if len(compression.decompress(data, len(plain))) != len(plain):
            raise Finding("another size than was asked for", data)
    except PeerViolation:
        pass
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    return data


@target
def sealed_blobs(chance: random.Random) -> bytes:
    """Sealed blobs open to what was sealed, or not at all."""
    data = mutate(SEALED, chance, SEALED)
    try:
        opened = b"".join(open_sealed([data], READER))
        if data != SEALED and opened != DATA:
            raise Finding("something else came out", data)
        recipients_of(data)
    except (PeerViolation, ConfigError):
        pass
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    return data


@target
def channel_frames(chance: random.Random) -> bytes:
    """A frame of a data channel that was changed never opens."""
    frame = bytearray(len(DATA) + TAG_BYTES)
    Sealer(AES_128_GCM, bytes(32)).seal(b"head", DATA, frame)
    data, out = mutate(bytes(frame), chance, DATA), bytearray(len(DATA))
    try:
        if len(data) == len(frame):
            Unsealer(AES_128_GCM, bytes(32)).next()(b"head", data, out)
            if data != frame:
                raise Finding("a changed frame was opened", data)
    except PeerViolation:
        pass
    return data


@target
def swarm_events(chance: random.Random) -> bytes:
    """Whatever holders say and do, no chunk is asked of more than two at once, and all that can be had is asked for."""
    count = chance.choice((1, 5, 40))
    swarm = Swarm(bytes(32), bytearray(count), chance)
    here, now_s, trace = swarm._here, 0.0, bytearray()
    peers = [bytes([number]) * 32 for number in range(1, 5)]
    try:
        for _ in range(200):
            peer, step = chance.choice(peers), chance.randrange(7)
            trace += bytes([peer[0], step])
            known = swarm._holders.get(peer)
            if step == 0:
                has = bytearray(chance.randrange(2) for _ in range(count))
                swarm.join(peer, chance.choice((None, has)))
            elif step == 1:
                swarm.leave(peer)
            elif step == 2:
                swarm.wants(peer)
            elif step == 3 and known is not None:
                swarm.has(peer, [chance.randrange(count)])
            elif step == 4 and known is not None and known.owes:
                index = chance.choice(list(known.owes))
                here[index] = 1
                swarm.arrived(index, now_s)
                swarm.sent(peer, index)
            elif known is not None:
                swarm.take(peer, now_s)
            now_s += chance.choice((0.0, 0.01, 2.0))
            owed = [index for holder in swarm._holders.values() for index in holder.owes if not here[index]]
            if any(owed.count(index) > 2 for index in set(owed)):
                raise Finding("a chunk was asked of more than two", bytes(trace))
        for peer in peers[1:]:  # as those who stall do in the end
            swarm.leave(peer)
        swarm.join(peers[0], None)
        for _ in range(20 * count):
            now_s += 2.0
            index = swarm.take(peers[0], now_s)
            if index is not None:
                here[index] = 1
                swarm.arrived(index, now_s)
                swarm.sent(peers[0], index)
        if not all(here):
            raise Finding("a chunk that a whole holder has was never asked for", bytes(trace))
    except Finding:
        raise
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", bytes(trace)) from error
    return bytes(trace)
