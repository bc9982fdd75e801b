"""Fetching blobs over the in-memory network: the way of a good blob, and every way to send a bad one."""

import os
import struct
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.lowlevel

from depin_node.core.clock import now
from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.wire import decode, encode
from depin_node.crypto.blob import CHUNK_BYTES, Manifest, manifest
from depin_node.crypto.envelope import Envelope, sign
from depin_node.crypto.identity import Identity
from depin_node.p2p.advert import Offer, sign_advert
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blob_transfer import (
    BLOBS_PROTOCOL,
    CREDIT,
    HEAD,
    ROOTS_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    BlobRequest,
    Grant,
    ManifestMessage,
    Window,
)
from depin_node.p2p.blobs import BlobLimits, Blobs, issue_grant
from depin_node.p2p.frames import ASK, REFUSE, Frame, FrameReader, send_frames
from depin_node.p2p.memory import MemoryFabric

OWNER, ASKER, THIRD = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
QUOTA = 64 << 20
LIMITS = BlobLimits(stall_timeout_s=5.0, round_pause_s=0.01)
FEW = {"size_bytes_max": QUOTA, "timeout_s": 30.0}


def grant_for(peer, *roots, owner=OWNER, network_id="test", lifetime_s=600):
    return issue_grant(owner, network_id, peer.key, roots, seq=1, now=now(), lifetime_s=lifetime_s)


class Node:
    def __init__(self, identity, network, folder, quota):
        self.identity = identity
        self.network = network
        self.violations = []
        self.store = BlobStore(folder, quota_bytes=quota)
        self.blobs = None

    def serve(self, limits=LIMITS):
        self.blobs = Blobs(
            self.network,
            self.store,
            report=lambda peer, error: self.violations.append((peer, str(error))),
            limits=limits,
        )
        return self


@asynccontextmanager
async def nodes(folder, *identities, quota=QUOTA):
    """One node each, all connected to each other; they do not serve blobs yet."""
    fabric = MemoryFabric(1)
    made = []
    async with AsyncExitStack() as stack:
        for identity in identities:
            network = await stack.enter_async_context(fabric.open(identity.key))
            for other in made:
                await network.dial(other.network.addresses()[0])
            made.append(Node(identity, network, folder / str(len(made)), quota))
        yield made


@pytest.mark.parametrize("size", [0, 1, 70_000, CHUNK_BYTES, 5 * CHUNK_BYTES + 77])
async def test_a_granted_blob_arrives(tmp_path, size):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        data = os.urandom(size)
        key = await owner.store.put(data)
        await asker.blobs.fetch(key, [OWNER.key], grant_for(ASKER, key), **FEW)
        assert await asker.store.read(key) == data
        assert (owner.violations, asker.violations) == ([], [])


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
    stream = await asker.network.open_stream(holder.network.key, BLOBS_PROTOCOL)
    await send_frames(stream, [Frame(ASK, request)])
    frame = await FrameReader(stream, size_bytes_max=1 << 20).read()
    assert frame is None or frame.kind == REFUSE
    return frame and frame.body.decode()


def blob_request(key, grant, **changed):
    fields = {
        "grant": grant,
        "blob_id": key,
        "size_bytes_max": QUOTA,
        "wants_manifest": True,
        "first_chunk": 0,
        "credit_bytes": WINDOW_BYTES_MIN,
    }
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
async def test_bad_grants_are_refused(tmp_path, make, code):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve()
        key = await owner.store.put(b"secret")
        if code is None:  # a crime: no answer, and it is counted
            with pytest.raises(TransportError, match="reset"):
                await refusal(asker, owner, blob_request(key, make(key)))
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


BAD_REQUESTS = {
    "garbage": struct.pack("<IB", 40, ASK) + b"\xc1" * 40,
    "oversized": struct.pack("<IB", 1 << 31, ASK),
    "no request": struct.pack("<IB", 4, CREDIT) + bytes(4),
    "too much credit": "credit",
    "credit that is none": "kind",
}


async def read_all(stream, received=None):
    while data := await stream.receive_some():
        if received is not None:
            received += data


@pytest.mark.parametrize("data", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_bad_requests_are_counted_and_end_the_stream(tmp_path, data):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve()
        key = await owner.store.put(os.urandom(3 * CHUNK_BYTES))
        stream = await asker.network.open_stream(OWNER.key, BLOBS_PROTOCOL)
        if data in ("credit", "kind"):
            body = struct.pack("<I", WINDOW_BYTES_MAX) if data == "credit" else b"??"
            frames = [Frame(ASK, blob_request(key, grant_for(ASKER, key))), Frame(CREDIT, body)]
            await send_frames(stream, frames)
        else:
            await stream.send_all(data)
        with trio.fail_after(20), pytest.raises(TransportError, match="reset"):
            await read_all(stream)
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
        received = bytearray()
        with trio.fail_after(20), pytest.raises(TransportError, match="reset"):
            await read_all(stream, received)  # but give no credit
        assert WINDOW_BYTES_MIN <= len(received) <= WINDOW_BYTES_MIN + 200  # with the manifest


async def test_a_busy_holder_says_so(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(BlobLimits(served_per_peer_max=2))
        key = await owner.store.put(os.urandom(3 * CHUNK_BYTES))
        streams = [await asker.network.open_stream(OWNER.key, BLOBS_PROTOCOL) for _ in range(2)]
        assert await refusal(asker, owner, blob_request(key, grant_for(ASKER, key))) == "busy"
        for stream in streams:
            await stream.aclose()


# Holders that lie

SIZE = 4 * CHUNK_BYTES + 1000
DATA = os.urandom(SIZE)
MANIFEST_OF_DATA = manifest(DATA)
KEY = MANIFEST_OF_DATA.blob_id()


def head(size=SIZE, hashes=MANIFEST_OF_DATA.hashes):
    return Frame(HEAD, encode(ManifestMessage(size, b"".join(hashes))))


CORRUPTED = DATA[: CHUNK_BYTES + 5] + b"X" + DATA[CHUNK_BYTES + 6 :]
LIES = {
    "a corrupted chunk": (MANIFEST_OF_DATA, CORRUPTED, "chunk 1"),
    "bytes in another order": (MANIFEST_OF_DATA, DATA[1:] + DATA[:1], "chunk 0"),
    "a size that lies": (Manifest(SIZE - 1, MANIFEST_OF_DATA.hashes), DATA, "manifest"),
    "a manifest of another blob": (manifest(CORRUPTED), CORRUPTED, "manifest"),
    "a manifest with a hash too few": (Manifest(SIZE, MANIFEST_OF_DATA.hashes[1:]), DATA, "manifest"),
}
RAW_LIES = {
    "a manifest that is garbage": ([Frame(HEAD, b"\xc1")], "malformed"),
    "a manifest of 64 GiB": ([head(size=1 << 36, hashes=(bytes(32),) * 65_536)], "more than"),
    "no manifest": ([Frame(HEAD, b"")], "malformed"),
    "no answer": ([Frame(99, b"")], "no answer"),
}


def lie(liar, claimed, data):
    """Serve ``data`` under the name of the good blob, by the rules of the protocol otherwise."""

    class LyingStore(BlobStore):
        def has(self, blob_id):
            return True

        async def manifest(self, blob_id):
            return claimed

        async def read_chunk(self, blob_id, index):
            return data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    liar.store = LyingStore(liar.store.folder, quota_bytes=QUOTA)
    liar.serve().blobs.note_owner(KEY, OWNER.key)


def lie_raw(liar, frames):
    """Answer with ``frames`` and all of the good blob, credit or not."""

    async def serve(stream):
        await FrameReader(stream, size_bytes_max=1 << 20).read()
        await send_frames(stream, frames)
        await stream.send_all(DATA)

    liar.network.serve(BLOBS_PROTOCOL, serve)


async def check_that_the_liar_is_passed_over(owner, asker, why):
    await owner.store.put(DATA)
    await asker.blobs.fetch(KEY, [THIRD.key, OWNER.key], grant_for(ASKER, KEY), **FEW)
    assert await asker.store.read(KEY) == DATA
    assert asker.store.used_bytes == SIZE
    ((peer, reason),) = asker.violations
    assert peer == THIRD.key
    assert why in reason


@pytest.mark.parametrize(("claimed", "data", "why"), LIES.values(), ids=LIES)
async def test_a_lying_holder_is_reported_and_the_next_one_asked(tmp_path, claimed, data, why):
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, liar):
        owner.serve(), asker.serve()
        lie(liar, claimed, data)
        await check_that_the_liar_is_passed_over(owner, asker, why)


@pytest.mark.parametrize(("frames", "why"), RAW_LIES.values(), ids=RAW_LIES)
async def test_a_holder_that_breaks_the_protocol_is_reported_and_the_next_one_asked(tmp_path, frames, why):
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, liar):
        owner.serve(), asker.serve()
        lie_raw(liar, frames)
        await check_that_the_liar_is_passed_over(owner, asker, why)


async def test_bytes_after_the_blobs_end_are_not_read(tmp_path):
    async with nodes(tmp_path, ASKER, THIRD) as (asker, liar):
        asker.serve()
        lie_raw(liar, [head(5, manifest(DATA[:5]).hashes)])
        key = manifest(DATA[:5]).blob_id()
        await asker.blobs.fetch(key, [THIRD.key], grant_for(ASKER, key), **FEW)
        assert await asker.store.read(key) == DATA[:5]


async def test_a_holder_that_ignores_credit_harms_only_itself(tmp_path):
    async with nodes(tmp_path, ASKER, THIRD) as (asker, greedy):
        asker.serve()
        lie_raw(greedy, [head()])
        await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        assert await asker.store.read(KEY) == DATA


async def test_a_liar_alone_yields_nothing_and_is_asked_once(tmp_path):
    async with nodes(tmp_path, ASKER, THIRD) as (asker, liar):
        asker.serve()
        lie(liar, MANIFEST_OF_DATA, CORRUPTED)
        with pytest.raises(TransportError, match="chunk 1 is not the one"):
            await asker.blobs.fetch(KEY, [THIRD.key], grant_for(ASKER, KEY), **FEW)
        assert len(asker.violations) == 1
        assert (asker.store.has(KEY), asker.store.used_bytes) == (False, 0)


async def test_an_interrupted_transfer_goes_on_at_the_next_holder_where_it_broke(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, THIRD) as (owner, asker, broken):
        asker.serve()
        asked = []
        send_from = {THIRD.key: 2 * CHUNK_BYTES + 5000, OWNER.key: SIZE}  # bytes until it breaks

        def serve(node):
            async def answer(stream):
                reader = FrameReader(stream, size_bytes_max=1 << 20)
                request = decode((await reader.read()).body, BlobRequest, size_bytes_max=1 << 20)
                asked.append((request.wants_manifest, request.first_chunk))
                await send_frames(stream, [head() if request.wants_manifest else Frame(HEAD, b"")])
                at, end, credit = request.first_chunk * CHUNK_BYTES, send_from[node.network.key], request.credit_bytes
                while at < end:
                    sent = min(credit, end - at)
                    await stream.send_all(DATA[at : at + sent])
                    at, credit = at + sent, credit - sent
                    if at < end:
                        credit += struct.unpack("<I", (await reader.read()).body)[0]
                while asker.store.used_bytes < end // CHUNK_BYTES * CHUNK_BYTES:
                    await trio.sleep(0.01)
                if node is broken:
                    await stream.reset()

            node.network.serve(BLOBS_PROTOCOL, answer)

        serve(broken)
        serve(owner)
        await asker.blobs.fetch(KEY, [THIRD.key, OWNER.key], grant_for(ASKER, KEY), **FEW)
        assert asked == [(True, 0), (False, 2)]
        assert await asker.store.read(KEY) == DATA


async def test_a_blob_that_was_damaged_on_disk_is_fetched_again(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve()
        await owner.store.put(DATA)
        await asker.store.put(DATA)
        asker.store.path(KEY).write_bytes(DATA[:-1] + b"X")
        asker.store = BlobStore(asker.store.folder, quota_bytes=QUOTA)
        await asker.serve().blobs.fetch(KEY, [OWNER.key], grant_for(ASKER, KEY), **FEW)
        assert await asker.store.read(KEY) == DATA


async def test_a_holder_whose_blob_is_damaged_says_that_it_has_none(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        await owner.store.put(DATA)
        owner.store.path(KEY).write_bytes(DATA[:-1] + b"X")
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
        with pytest.raises(TransportError, match=r"12D3Koo\w+: .*not_found; 12D3Koo\w+: not connected"):
            await asker.blobs.fetch(KEY, [OWNER.key, THIRD.key], grant_for(ASKER, KEY), **FEW)
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


def test_credit_and_arrivals_balance():
    window, under_way = Window(round_trip_s=0.001), WINDOW_BYTES_MIN
    for step in range(1000):
        size = min(1 + step * 997 % READ_BYTES, under_way)
        under_way += window.arrived(size, step * 0.001) - size
        assert 0 < under_way <= window.size_bytes
