"""Fetching blobs by both carriers: the way of a good blob, and every way to send a bad one.

The mesh is the one in memory; data channels are real TCP on loopback.
"""

import os
import re
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio
import trio.lowlevel
import trio.testing
import zstandard
from blob_nodes import ASKER, FEW, OWNER, QUOTA, THIRD, grant_for, nodes

from depin_node.core.clock import now
from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.wire import decode, encode
from depin_node.crypto.blob import CHUNK_BYTES, Manifest, manifest
from depin_node.crypto.envelope import Envelope, sign
from depin_node.crypto.identity import Identity
from depin_node.p2p import blobs, swarm
from depin_node.p2p import carrier as carriers
from depin_node.p2p.advert import Offer, sign_advert
from depin_node.p2p.blob_messages import (
    BLOBS_PROTOCOL,
    CHUNK,
    CHUNK_HEADER,
    CREDIT,
    HAVE,
    HEAD,
    PROOF,
    RAW,
    ROOTS_MAX,
    WANT,
    WANTED_MAX,
    ZSTD,
    BlobRequest,
    Grant,
    Head,
    pack_indices,
)
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import BlobLimits
from depin_node.p2p.carrier import FRAME_HEADER, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN, StreamCarrier, Window
from depin_node.p2p.compression import Sample, compress
from depin_node.p2p.frames import ASK, REFUSE, Frame, FrameReader, send_frames


@pytest.fixture(params=["stream", "direct"])
def carrier(request):
    return request.param


@pytest.mark.parametrize("size", [0, 1, 70_000, CHUNK_BYTES, 5 * CHUNK_BYTES + 77])
async def test_a_granted_blob_arrives(tmp_path, size, carrier):
    async with nodes(tmp_path, OWNER, ASKER, carrier=carrier) as (owner, asker):
        owner.serve(), asker.serve()
        data = os.urandom(size)
        key = await owner.store.put(data)
        await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)
        assert await asker.store.read(key) == data
        assert (owner.violations, asker.violations) == ([], [])
        assert size <= owner.blobs.sent_bytes <= size + 5 * 6
        if asker.direct:
            assert asker.direct.counters["channels"] == owner.direct.counters["channels"] == 1


async def test_nobody_waits_for_a_chunk_after_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(carriers, "_PATIENCE_S", 600.0)
    async with nodes(tmp_path, OWNER, ASKER, carrier="stream") as (owner, asker):
        owner.serve(), asker.serve()
        for size in (100, 3 * CHUNK_BYTES):
            key = await owner.store.put(os.urandom(size))
            with trio.fail_after(60):
                await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)


class LateToHear(StreamCarrier):
    """Hears that an answer has left when the asker has gone on already: on a busy machine it does."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.went_on = trio.Event()

    async def send(self, kind, body):
        await super().send(kind, body)
        if kind in (HEAD, REFUSE):
            await self.went_on.wait()
            self.went_on = trio.Event()

    async def receive(self, *args):
        frame = await super().receive(*args)
        if frame is None or frame.kind == WANT or self.went_on.statistics().tasks_waiting:
            self.went_on.set()
        return frame


async def test_an_asker_that_goes_on_before_its_holder_hears_that_the_answer_has_left(tmp_path, monkeypatch):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        data = os.urandom(3 * CHUNK_BYTES)
        key = await owner.store.put(data)
        monkeypatch.setattr(blobs, "StreamCarrier", LateToHear)
        carrier = await asker.reach(owner)
        for asked, answer in ((b"?" * 32, REFUSE), (key, HEAD)):
            request = BlobRequest(grant_for(ASKER, asked), asked, QUOTA, True, b"")
            await carrier.send(ASK, encode(request))
            assert (await carrier.receive(1 << 20, 5)).kind == answer
        await carrier.send(WANT, pack_indices([2]))
        assert (await carrier.receive(1 << 21, 5)).kind == CHUNK
        await carrier.aclose()
        assert owner.violations == []


async def test_who_got_a_blob_serves_it_to_whom_the_owner_grants_it(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, third):
        for node in (owner, asker, third):
            node.serve()
        data = os.urandom(3 * CHUNK_BYTES)
        key = await owner.store.put(data)
        await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)
        owner.store.delete(key)
        await third.blobs.fetch(key, [OWNER.key, ASKER.key], grant_for(THIRD, key), **FEW)
        assert await third.store.read(key) == data


async def test_who_merely_holds_a_blob_serves_it_to_nobody_else(tmp_path):
    """A grant by somebody who is not the blob's owner is worth nothing, and does not tell that the blob is there."""
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, third):
        for node in (owner, asker, third):
            node.serve()
        key = await owner.store.put(b"secret")
        await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)
        for roots in ([key], [key, bytes(32)]):
            wanted = roots[-1]
            with pytest.raises(TransportError, match="not_found"):
                await third.blobs.fetch(wanted, [ASKER.key], grant_for(THIRD, *roots, owner=THIRD), **FEW)


async def refusal(asker, holder, request):
    carrier = await asker.reach(holder)
    await carrier.send(ASK, request)
    frame = await carrier.receive(1 << 20, 10)
    assert frame is None or frame.kind == REFUSE
    return frame and frame.body.decode()


def blob_request(key, grant, **changed):
    fields = {"grant": grant, "blob_id": key, "size_bytes_max": QUOTA, "wants_manifest": True, "nonce": b""}
    return encode(BlobRequest(**(fields | changed)))


def forged(key):
    """The owner's name over a grant that the asker signed."""
    raw = decode(grant_for(ASKER, key, owner=ASKER), Envelope, size_bytes_max=4096)
    return encode(Envelope(OWNER.key, raw.signature, raw.payload))


def another_type(key):
    return sign_advert(OWNER, "test", Offer(), [], seq=1, now=now(), lifetime_s=60)


def endless(key):
    expires_s = now().wall_ns // 10**9 + 90_000
    return sign(OWNER, "test", Grant(to=ASKER.key, expires_s=expires_s, seq=1, roots=(key,)))


BAD_GRANTS = {
    "none": (lambda key: b"", None),
    "garbage": (lambda key: b"\xc1" * 200, None),
    "forged": (forged, None),
    "of another type": (another_type, None),
    "of a foreign network": (lambda key: grant_for(ASKER, key, network_id="other"), None),
    "for somebody else": (lambda key: grant_for(THIRD, key), "not_granted"),
    "expired": (lambda key: grant_for(ASKER, key, lifetime_s=-61), "not_granted"),
    "valid for too long": (endless, "not_granted"),
    "for another blob": (lambda key: grant_for(ASKER, bytes(32)), "not_granted"),
    "by somebody else": (lambda key: grant_for(ASKER, key, owner=THIRD), "not_found"),
    "by the asker": (lambda key: grant_for(ASKER, key, owner=ASKER), "not_found"),
}


@pytest.mark.parametrize(("make", "code"), BAD_GRANTS.values(), ids=BAD_GRANTS)
async def test_bad_grants_are_refused(tmp_path, make, code, carrier):
    async with nodes(tmp_path, OWNER, ASKER, carrier=carrier) as (owner, asker):
        owner.serve()
        key = await owner.store.put(b"secret")
        if code is None:  # a crime: no answer, and it is counted
            with suppress(TransportError):  # or it just ends
                assert await refusal(asker, owner, blob_request(key, make(key))) is None
        else:
            assert await refusal(asker, owner, blob_request(key, make(key))) == code
        assert len(owner.violations) == (code is None)
        asker.serve()
        await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)
        assert await asker.store.read(key) == b"secret"


async def test_a_grant_for_as_many_blobs_as_it_can_hold(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        keys = [await owner.store.put(bytes([number])) for number in range(ROOTS_MAX)]
        grant = grant_for(ASKER, *keys)
        for key in (keys[0], keys[-1]):
            await asker.blobs.fetch(key, [OWNER.key], grant, **FEW)
        with pytest.raises(Exception, match="64"):
            decode(encode(Grant(ASKER.key, 1, 1, tuple(keys) * 2)), Grant, size_bytes_max=10_000)


def frame(kind, body):
    return struct.pack("<IB", len(body), kind) + body


SIZE = 4 * CHUNK_BYTES + 1000
DATA = os.urandom(SIZE)
MANIFEST_OF_DATA = manifest(DATA)
KEY = MANIFEST_OF_DATA.blob_id()


def head(size=SIZE, hashes=MANIFEST_OF_DATA.hashes, have=b"", others=()):
    return encode(Head(size, b"".join(hashes), have, others))


def chunk(index, data=DATA, encoding=RAW):
    return CHUNK_HEADER.pack(index, encoding) + data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


BAD_REQUESTS = {
    "garbage": frame(ASK, b"\xc1" * 40),
    "oversized": struct.pack("<IB", 1 << 31, ASK),
    "no request": frame(CREDIT, bytes(5)),
    "too much credit": frame(CREDIT, struct.pack("<I", WINDOW_BYTES_MAX)),
    "chunks before a blob": frame(WANT, bytes(4)),
    "a nonce that is none": b"",
    "a chunk beyond the end": frame(WANT, struct.pack("<I", 3)),
    "no chunk": frame(WANT, b""),
    "half a chunk number": frame(WANT, b"\0\0\0\0\0"),
    "too many chunks": frame(WANT, bytes(4 * (WANTED_MAX + 1))),
    "too many chunks, little by little": frame(WANT, bytes(4)) * (WANTED_MAX + 2),
    "another request before the chunks": frame(WANT, pack_indices([0, 1, 2])),
    "an answer": frame(HEAD, head(3, [bytes(32)])),
}
BEFORE_ASKING = ("garbage", "oversized", "no request", "too much credit", "chunks before a blob")
AFTER_ASKING = set(BAD_REQUESTS) - set(BEFORE_ASKING)
AFTER_HEAD = AFTER_ASKING - {"a nonce that is none"}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_bad_requests_are_counted_and_end_the_stream(tmp_path, name):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve()
        key = await owner.store.put(os.urandom(3 * CHUNK_BYTES))
        stream = await asker.network.open_stream(OWNER.key, BLOBS_PROTOCOL)
        ask = frame(ASK, blob_request(key, grant_for(ASKER, key)))
        if name == "a nonce that is none":
            ask = frame(ASK, blob_request(key, grant_for(ASKER, key), nonce=b"short"))
        await stream.send_all(ask if name in AFTER_ASKING else b"")
        if name in AFTER_HEAD:
            assert (await FrameReader(stream, size_bytes_max=1 << 20).read()).kind == HEAD
        await stream.send_all(BAD_REQUESTS[name] + (ask if name == "another request before the chunks" else b""))
        with trio.fail_after(20), suppress(TransportError):
            while await stream.receive_some():
                pass
        with trio.fail_after(20):
            while not owner.violations:
                await trio.lowlevel.checkpoint()
        assert len(owner.violations) == 1
        asker.serve()
        await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)


async def test_who_takes_nothing_is_given_up(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(BlobLimits(stall_timeout_s=0.2))
        key = await owner.store.put(os.urandom(3 * CHUNK_BYTES))
        stream = await asker.network.open_stream(OWNER.key, BLOBS_PROTOCOL)
        await send_frames(stream, [Frame(ASK, blob_request(key, grant_for(ASKER, key)))])
        head = await FrameReader(stream, size_bytes_max=1 << 20).read()
        await send_frames(stream, [Frame(WANT, pack_indices([0, 1, 2]))])
        received = bytearray()
        with trio.fail_after(20), suppress(TransportError):
            while data := await stream.receive_some():  # but give no credit
                received += data
        assert head.kind == HEAD
        assert WINDOW_BYTES_MIN <= len(received) <= WINDOW_BYTES_MIN + 5


async def test_who_takes_nothing_of_a_data_channel_is_given_up(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, carrier="direct") as (owner, asker):
        owner.serve()
        owner.direct._limits = replace(owner.direct._limits, stall_timeout_s=0.2)
        key = await owner.store.put(os.urandom(16 * CHUNK_BYTES))
        carrier = await asker.reach(owner)
        await carrier.send(ASK, blob_request(key, grant_for(ASKER, key)))
        assert (await carrier.receive(1 << 20, 10)).kind == HEAD
        await carrier.send(WANT, pack_indices(range(16)))
        with trio.fail_after(20):
            while owner.direct._open:
                await trio.sleep(0.02)


async def test_who_has_no_room_for_a_data_channel_has_one_when_there_is(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, carrier="direct") as (owner, asker):
        owner.serve(), asker.serve()
        most = asker.direct._limits.channels_per_peer_max
        opened = [await asker.reach(owner) for _ in range(most)]
        instead = await asker.blobs.open_carrier(owner.network.key, 1 << 30)
        assert isinstance(instead, StreamCarrier)
        for channel in opened:
            channel.close()
        await trio.testing.wait_all_tasks_blocked()
        assert not isinstance(await asker.blobs.open_carrier(owner.network.key, 1 << 30), StreamCarrier)


async def test_who_asks_nothing_is_given_up(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, ASKER, carrier=carrier) as (owner, asker):
        owner.serve(BlobLimits(stall_timeout_s=0.1))
        opened = await asker.reach(owner)
        with trio.fail_after(20), suppress(TransportError):
            assert await opened.receive(1 << 20, 10) is None
        assert owner.violations == []


async def test_a_busy_holder_says_so(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, ASKER, carrier=carrier) as (owner, asker):
        owner.serve(BlobLimits(served_per_peer_max=2))
        key = await owner.store.put(os.urandom(3 * CHUNK_BYTES))
        opened = [await asker.reach(owner) for _ in range(2)]
        for one in opened:
            await one.send(ASK, blob_request(key, grant_for(ASKER, key)))
            assert (await one.receive(1 << 20, 10)).kind == HEAD
        assert await refusal(asker, owner, blob_request(key, grant_for(ASKER, key))) == "busy"
        for one in opened:
            await one.aclose()


async def test_one_carrier_serves_one_blob_after_the_other(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, ASKER, carrier=carrier) as (owner, asker):
        owner.serve()
        blobs = [os.urandom(size) for size in (5, CHUNK_BYTES + 5, 77)]
        keys = [await owner.store.put(data) for data in blobs]
        opened = await asker.reach(owner)
        for key, data in zip(keys, blobs, strict=True):
            await opened.send(ASK, blob_request(key, grant_for(ASKER, *keys)))
            assert (await opened.receive(1 << 20, 10)).kind == HEAD
            count = -(-len(data) // CHUNK_BYTES)
            await opened.send(WANT, pack_indices(range(count)))
            parts = [(await opened.receive(2 << 20, 10)).body for _ in range(count)]
            assert b"".join(part[CHUNK_HEADER.size :] for part in parts) == data
        await opened.aclose()
        assert owner.violations == []


# Holders that lie

CORRUPTED = DATA[: CHUNK_BYTES + 5] + b"X" + DATA[CHUNK_BYTES + 6 :]
LIES = {
    "a corrupted chunk": (MANIFEST_OF_DATA, CORRUPTED, "chunk 1"),
    "bytes in another order": (MANIFEST_OF_DATA, DATA[1:] + DATA[:1], "chunk [0-4]"),
    "a size that lies": (Manifest(SIZE - 1, MANIFEST_OF_DATA.hashes), DATA, "manifest"),
    "a manifest of another blob": (manifest(CORRUPTED), CORRUPTED, "manifest"),
    "a manifest with a hash too few": (Manifest(SIZE, MANIFEST_OF_DATA.hashes[1:]), DATA, "manifest"),
}


def lie(liar, claimed, data):
    """Serve ``data`` under the name of the good blob, by the rules of the protocol otherwise."""

    class LyingStore(BlobStore):
        def has(self, blob_id):
            return True

        def size_bytes(self, blob_id):
            return claimed.size

        async def manifest(self, blob_id):
            return claimed

        def chunk_reader(self, blob_id):
            def read(index, into, may_wait=True):
                part = data[index * CHUNK_BYTES :][: min(len(into), CHUNK_BYTES)]
                memoryview(into)[: len(part)] = part
                return len(part)

            return read

    liar.store = LyingStore(liar.store.folder, quota_bytes=QUOTA)
    liar.serve().blobs.note_owner(KEY, OWNER.key)


@asynccontextmanager
async def reading(carrier):
    """Take what the asker says, credit too, while the block talks; yields what returns the next frame's numbers."""
    send, receive = trio.open_memory_channel(1000)

    async def read():
        with suppress(TransportError, PeerViolation), send:
            while (frame := await carrier.receive(1 << 20, 60)) is not None:
                send.send_nowait(frame)

    async def next_frame():
        kind, body = await receive.receive()
        return [index for (index,) in struct.iter_unpack("<I", body)] if kind == WANT else body

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with suppress(TransportError, trio.EndOfChannel):
            yield next_frame


def once(body):
    """Return what makes one body for ``send_bulk``."""
    left = [bytearray(FRAME_HEADER.size) + body]
    return lambda may_wait: left.pop() if left else None


def say(*frames, after_want=()):
    """Return a holder that answers a request with ``frames``, and what is wanted then with ``after_want``."""

    async def answer(carrier):
        async with reading(carrier) as next_frame:
            await next_frame()
            for kind, body in frames:
                await carrier.send_bulk(kind, once(body))
            if after_want:
                await next_frame()
            for kind, body in after_want:
                await carrier.send_bulk(kind, once(body))

    return answer


def hidden(data):
    """Compress without telling the size."""
    return zstandard.ZstdCompressor(level=1, write_content_size=False).compress(data)


GOOD_HEAD = (HEAD, head())
RAW_LIES = {
    "a manifest that is garbage": (say((HEAD, b"\xc1")), "malformed"),
    "a manifest of 64 GiB": (say((HEAD, head(size=1 << 36, hashes=(bytes(32),) * 65_536))), "more than"),
    "no manifest": (say((HEAD, head(hashes=()))), "manifest"),
    "no answer": (say((99, b"")), "no answer"),
    "a proof": (say((PROOF, bytes(32))), "no answer"),
    "bits for another blob": (say((HEAD, head(have=bytes(2)))), "does not fit"),
    "bits beyond the end": (say((HEAD, head(have=b"\xff"))), "does not fit"),
    "a chunk before it is wanted": (say(GOOD_HEAD, (CHUNK, chunk(0)), (CHUNK, chunk(0))), "not asked for|chunk 0"),
    "a chunk that is not wanted": (
        say(GOOD_HEAD, after_want=[(CHUNK, chunk(index)) for index in (4, 3)]),
        "not wanted",
    ),
    "an empty chunk": (say(GOOD_HEAD, after_want=[(CHUNK, b"")]), "empty"),
    "half a chunk": (say(GOOD_HEAD, after_want=[(CHUNK, chunk(0)[:-1])]), "size"),
    "a chunk that is too long": (say(GOOD_HEAD, after_want=[(CHUNK, chunk(0) + b"x")]), "more than"),
    "a chunk in an unknown encoding": (say(GOOD_HEAD, after_want=[(CHUNK, chunk(0, encoding=9))]), "encoding"),
    "a bomb": (say(GOOD_HEAD, after_want=[(CHUNK, CHUNK_HEADER.pack(0, ZSTD) + compress(bytes(1 << 28)))]), "size"),
    "a bomb that hides its size": (
        say(GOOD_HEAD, after_want=[(CHUNK, CHUNK_HEADER.pack(0, ZSTD) + hidden(bytes(1 << 28)))]),
        "size",
    ),
    "a damaged compressed chunk": (
        say(GOOD_HEAD, after_want=[(CHUNK, CHUNK_HEADER.pack(0, ZSTD) + compress(bytes(CHUNK_BYTES))[:-4])]),
        "damaged",
    ),
    "an offer beyond the end": (say(GOOD_HEAD, (HAVE, pack_indices([5]))), "beyond"),
    "the same offer again": (say((HEAD, head(have=b"\1")), (HAVE, pack_indices([0]))), "twice"),
    "an offer of nothing": (say(GOOD_HEAD, (HAVE, b"")), "no list"),
    "credit": (say(GOOD_HEAD, (CREDIT, bytes(4))), "credit|not asked for"),
}


async def check_that_the_liar_is_passed_over(owner, asker):
    await owner.store.put(DATA)
    await asker.blobs.fetch(KEY, [THIRD.key, OWNER.key], grant_for(ASKER, KEY), **FEW)
    assert await asker.store.read(KEY) == DATA
    assert asker.store.used_bytes == SIZE
    assert {peer for peer, _ in asker.violations} <= {THIRD.key}  # none, if the owner was faster


@pytest.mark.parametrize(("claimed", "data", "why"), LIES.values(), ids=LIES)
async def test_a_lying_holder_costs_only_itself(tmp_path, claimed, data, why, carrier):
    async with nodes(tmp_path, OWNER, ASKER, THIRD, carrier=carrier) as (owner, asker, liar):
        owner.serve(), asker.serve()
        lie(liar, claimed, data)
        with pytest.raises(TransportError, match=why):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        assert [peer for peer, _ in asker.violations] == [THIRD.key]
        await check_that_the_liar_is_passed_over(owner, asker)


@pytest.mark.parametrize(("answer", "why"), RAW_LIES.values(), ids=RAW_LIES)
async def test_a_holder_that_breaks_the_protocol_costs_only_itself(tmp_path, answer, why, carrier):
    async with nodes(tmp_path, OWNER, ASKER, THIRD, carrier=carrier) as (owner, asker, liar):
        owner.serve(), asker.serve()
        liar.serve_raw(answer)
        with pytest.raises(TransportError):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        ((peer, reason),) = asker.violations
        assert (peer, bool(re.search(why, reason))) == (THIRD.key, True), reason
        await check_that_the_liar_is_passed_over(owner, asker)


async def test_a_holder_that_ignores_credit_harms_only_itself(tmp_path):
    async with nodes(tmp_path, ASKER, THIRD) as (asker, greedy):
        asker.serve()

        async def answer(stream):
            reader = FrameReader(stream, size_bytes_max=1 << 20)
            await reader.read()
            await send_frames(stream, [Frame(HEAD, head())])
            while (asked := await reader.read()) is not None:
                if asked.kind == WANT:
                    wanted = [index for (index,) in struct.iter_unpack("<I", asked.body)]
                    await send_frames(stream, [Frame(CHUNK, chunk(index)) for index in wanted])

        greedy.network.serve(BLOBS_PROTOCOL, answer)
        await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        assert await asker.store.read(KEY) == DATA


async def test_a_liar_alone_yields_nothing_and_is_asked_once(tmp_path, carrier):
    async with nodes(tmp_path, ASKER, THIRD, carrier=carrier) as (asker, liar):
        asker.serve()
        lie(liar, MANIFEST_OF_DATA, CORRUPTED)
        with pytest.raises(TransportError, match="chunk 1 is not the one"):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        assert len(asker.violations) == 1
        assert not asker.store.has(KEY)


async def test_an_interrupted_transfer_goes_on_where_it_broke_also_after_a_restart(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, ASKER, THIRD, carrier=carrier) as (owner, asker, broken):
        owner.serve(), asker.serve()
        await owner.store.put(DATA)

        times = 0

        async def answer(carrier):
            nonlocal times
            times += 1
            if times > 1:
                await carrier.send(REFUSE, b"not_found")
                return
            async with reading(carrier) as next_frame:
                await next_frame()
                await carrier.send(HEAD, head())
                for index in await next_frame():
                    await carrier.send_bulk(CHUNK, once(chunk(index)))
                while not any(partial.arrivals.order for partial in asker.store.partials._open.values()):
                    await trio.sleep(0.01)
                await carrier.reset()

        broken.serve_raw(answer)
        with pytest.raises(TransportError):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        asker.store = BlobStore(asker.store.folder, quota_bytes=QUOTA)
        asker.blobs.store = asker.store
        await asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW)
        assert await asker.store.read(KEY) == DATA
        assert owner.blobs.sent_bytes < SIZE - CHUNK_BYTES / 2


async def test_what_shrinks_goes_compressed_over_a_slow_path_and_only_then(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        dull = bytes(range(256)) * (8 * CHUNK_BYTES // 256)
        for data, pays, share in ((dull, True, 0.3), (dull, False, 1.01), (DATA, True, 1.01)):
            key = await owner.store.put(data)
            asker.store.delete(key)
            owner.blobs.sent_bytes = 0
            owner.blobs.note_sample(key, Sample(ratio=0.01, chunk_s=0.0 if pays else 10.0))
            await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)
            assert await asker.store.read(key) == data
            assert owner.blobs.sent_bytes <= share * len(data)


async def test_a_blob_that_was_damaged_on_disk_is_fetched_again(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve()
        await owner.store.put(DATA)
        await asker.store.put(DATA)
        asker.store.path(KEY).write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        asker.store = BlobStore(asker.store.folder, quota_bytes=QUOTA)
        await asker.serve().blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW)
        assert await asker.store.read(KEY) == DATA


async def test_a_holder_whose_blob_is_damaged_says_that_it_has_none(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        await owner.store.put(DATA)
        owner.store.path(KEY).write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        owner.store = BlobStore(owner.store.folder, quota_bytes=QUOTA)
        owner.serve()
        assert await refusal(asker, owner, blob_request(KEY, grant_for(ASKER, KEY))) == "not_found"


async def test_holders_that_are_gone_or_silent_are_passed_over(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, silent):
        owner.serve()
        asker.serve(BlobLimits(stall_timeout_s=0.2))

        async def silence(stream):
            await trio.sleep_forever()

        silent.network.serve(BLOBS_PROTOCOL, silence)
        await owner.store.put(DATA)
        nobody = Identity(bytes([9]) * 32).key
        await asker.blobs.fetch(KEY, [nobody, THIRD.key, OWNER.key], grant_for(ASKER, KEY), **FEW)
        assert await asker.store.read(KEY) == DATA


async def test_a_fetch_that_fails_tells_each_holders_reason(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        with pytest.raises(TransportError, match=r"12D3Koo\w+: .*; 12D3Koo\w+: ") as raised:
            await asker.blobs.fetch(KEY, [OWNER.key, THIRD.key], grant_for(ASKER, KEY), **FEW)
        assert "not_found" in str(raised.value)
        assert "not connected" in str(raised.value)
        with pytest.raises(TransportError, match="nobody is said to hold it"):
            await asker.blobs.fetch(KEY, [], grant_for(ASKER, KEY), **FEW)


async def test_a_fetch_ends_in_time(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (silent, asker):

        async def silence(stream):
            await trio.sleep_forever()

        silent.network.serve(BLOBS_PROTOCOL, silence)
        asker.serve()
        with trio.fail_after(20), pytest.raises(TransportError, match=r"within 0.3 s"):
            await asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), size_bytes_max=QUOTA, timeout_s=0.3)


async def test_a_grant_that_is_not_ours_is_not_even_sent(tmp_path):
    async with nodes(tmp_path, ASKER) as (asker,):
        asker.serve()
        for grant in (grant_for(THIRD, KEY), grant_for(ASKER, bytes(32))):
            with pytest.raises(PeerViolation):
                await asker.blobs.fetch(KEY, [OWNER.key], grant, **FEW)


async def test_a_blob_that_is_too_large_is_not_sent(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        await owner.store.put(DATA)
        with pytest.raises(TransportError, match="too_large"):
            await asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), size_bytes_max=SIZE - 1, timeout_s=9)
        assert asker.violations == []


async def test_a_full_quota_ends_the_fetch_and_leaves_nothing(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, quota=5_000_000) as (owner, asker):
        owner.serve(), asker.serve()
        await owner.store.put(DATA)
        asker.store.pin(await asker.store.put(bytes(3_000_000)))
        with pytest.raises(ResourceError, match="quota"):
            await asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW)
        assert asker.store.used_bytes == 3_000_000


async def test_fetches_of_one_blob_share_one_transfer(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        await owner.store.put(DATA)
        opened = 0
        open_stream = asker.network.open_stream

        async def count(peer, protocol):
            nonlocal opened
            opened += 1
            return await open_stream(peer, protocol)

        asker.network.open_stream = count
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW))
        assert opened == 1
        assert await asker.store.read(KEY) == DATA


async def test_when_the_first_of_two_fetches_is_cancelled_the_second_goes_on(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        await owner.store.put(DATA)
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def first():
                with scope:
                    await asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW)

            nursery.start_soon(first)
            while not asker.store.used_bytes:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(lambda: asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW))
            await trio.lowlevel.checkpoint()
            scope.cancel()
        assert await asker.store.read(KEY) == DATA
        assert asker.store.used_bytes == SIZE


# Whose is it?


async def test_a_blob_that_is_here_serves_only_who_proves_to_have_it(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, third):
        for node in (owner, asker, third):
            node.serve()
        await owner.store.put(DATA)
        await asker.blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW)
        with pytest.raises(TransportError, match=r"nobody proved .*not_found"):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY, owner=THIRD), **FEW)
        await third.store.put(DATA)
        sent = third.blobs.sent_bytes
        await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY, owner=THIRD), **FEW)
        assert third.blobs.sent_bytes == sent == 0


@pytest.mark.parametrize("shown", [bytes(32), b"", b"x" * 33, None])
async def test_a_wrong_proof_is_a_violation(tmp_path, shown, carrier):
    async with nodes(tmp_path, ASKER, THIRD) as (asker, liar):
        asker.serve()
        await asker.store.put(DATA)

        async def answer(carrier):
            await carrier.receive(1 << 20, 10)
            await carrier.send(*((HEAD, head()) if shown is None else (PROOF, shown)))

        liar.serve_raw(answer)
        with pytest.raises(TransportError, match="nobody proved"):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY, owner=THIRD), **FEW)
        assert [peer for peer, _ in asker.violations] == [THIRD.key] or shown == b""


# Several at once

LARGE = os.urandom(24 * CHUNK_BYTES + 5)
LARGE_KEY = manifest(LARGE).blob_id()
OTHERS = [Identity(bytes([number]) * 32) for number in range(11, 15)]


async def test_an_input_that_all_need_leaves_its_owner_about_once(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, *OTHERS, quota=2 * QUOTA, carrier=carrier) as (owner, *others):
        owner.serve()
        await owner.store.put(LARGE)
        async with trio.open_nursery() as nursery:
            for node in others:
                node.serve()
                grant = grant_for(node.identity, LARGE_KEY)
                nursery.start_soon(
                    lambda node=node, grant=grant: node.blobs.fetch(LARGE_KEY, [OWNER.key], grant, **FEW)
                )
        for node in others:
            assert await node.store.read(LARGE_KEY) == LARGE
            assert node.violations == []
        assert sum(node.blobs.sent_bytes for node in (owner, *others)) < 4.6 * len(LARGE)
        assert owner.blobs.sent_bytes <= 2 * len(LARGE)  # 1.0 to 1.1; the machine that runs this may stall


async def test_who_fetch_together_and_refuse_each_other_wait_for_nothing(tmp_path, monkeypatch, carrier):
    for name in ("PATIENCE_S_MIN", "PATIENCE_S_MAX"):
        monkeypatch.setattr(swarm, name, 1000.0)
    limits = BlobLimits(round_pause_s=1000.0)
    async with nodes(tmp_path, OWNER, *OTHERS[:2], quota=2 * QUOTA, carrier=carrier) as (owner, *others):
        owner.serve()
        await owner.store.put(LARGE)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for node in others:
                    node.serve(limits)
                    monkeypatch.setattr(node.blobs, "why_not", lambda peer, request: "not_granted")
                    grant = grant_for(node.identity, LARGE_KEY)
                    nursery.start_soon(
                        lambda node=node, grant=grant: node.blobs.fetch(
                            LARGE_KEY, [OWNER.key], grant, size_bytes_max=QUOTA, timeout_s=900
                        )
                    )
        for node in others:
            assert await node.store.read(LARGE_KEY) == LARGE


async def test_a_blob_comes_from_all_who_have_it(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, ASKER, *OTHERS[:2], quota=2 * QUOTA, carrier=carrier) as (owner, asker, *others):
        asker.serve()
        holders = [owner, *others]
        for node in holders:
            node.serve()
            await node.store.put(LARGE)
            node.blobs.note_owner(LARGE_KEY, OWNER.key)
        keys = [node.network.key for node in holders]
        await asker.blobs.fetch(LARGE_KEY, keys, grant_for(ASKER, LARGE_KEY), **FEW)
        assert await asker.store.read(LARGE_KEY) == LARGE
        assert all(node.blobs.sent_bytes for node in holders)
        assert sum(node.blobs.sent_bytes for node in holders) < 1.5 * len(LARGE)


async def test_holders_that_stall_lie_or_promise_in_the_middle_cost_only_themselves(tmp_path, carrier):
    async with nodes(tmp_path, OWNER, ASKER, *OTHERS[:3], quota=2 * QUOTA, carrier=carrier) as found:
        owner, asker, staller, liar, promiser = found
        asker.serve(), owner.serve()
        await owner.store.put(LARGE)
        good = encode(Head(len(LARGE), b"".join(manifest(LARGE).hashes), b"", ()))

        async def lie_in_the_middle(carrier):
            async with reading(carrier) as next_frame:
                await next_frame()
                await carrier.send(HEAD, good)
                for index in await next_frame():
                    await carrier.send_bulk(CHUNK, once(CHUNK_HEADER.pack(index, RAW) + bytes(CHUNK_BYTES)))

        staller.serve_raw(say((HEAD, good)))
        liar.serve_raw(lie_in_the_middle)
        promiser.serve_raw(say((HEAD, encode(Head(len(LARGE), b"".join(manifest(LARGE).hashes), bytes(4), ())))))
        keys = [node.network.key for node in (staller, liar, promiser, owner)]
        with trio.fail_after(60):  # far less than what a stall costs alone, were it waited for
            await asker.blobs.fetch(LARGE_KEY, keys, grant_for(ASKER, LARGE_KEY), size_bytes_max=QUOTA, timeout_s=60)
        assert await asker.store.read(LARGE_KEY) == LARGE
        assert {peer for peer, _ in asker.violations} <= {OTHERS[1].key}


# The window

READ_BYTES = 256 * 1024


def test_the_window_doubles_while_waiting_for_credit_sets_the_pace():
    window, now_s = Window(round_trip_s=0.05), 0.0
    for _ in range(1000):
        window.arrived(READ_BYTES, now_s)
        now_s += 0.05 * READ_BYTES / window.size_bytes  # a fast path: one window a round trip
    assert window.size_bytes == WINDOW_BYTES_MAX


def test_the_window_stays_small_where_the_path_sets_the_pace():
    window, now_s = Window(round_trip_s=0.001), 0.0
    for _ in range(1000):
        window.arrived(READ_BYTES, now_s)
        now_s += READ_BYTES / 400e6
    assert window.size_bytes <= 4 * WINDOW_BYTES_MIN


def test_transfers_from_one_peer_share_the_window():
    window = Window(round_trip_s=0.001)
    window.size_bytes = WINDOW_BYTES_MAX
    shares = []
    for window.transfers in (0, 1, 2, 8, 100):
        shares.append(window.share_bytes())
    assert shares == [8 << 20, 8 << 20, 4 << 20, 1 << 20, WINDOW_BYTES_MIN]
