"""Blobs of which only some chunks are wanted: what comes, what stays, who sees it, and every way that it fails."""

import os
from contextlib import asynccontextmanager

import pytest
import trio
from blob_nodes import ASKER, LIMITS, OWNER, THIRD, grant_for, nodes

from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.wire import encode
from depin_node.crypto.blob import CHUNK_BYTES, manifest
from depin_node.p2p import blob_parts, blob_sparse
from depin_node.p2p.blob_messages import CHUNK, CHUNK_HEADER, HEAD, RAW, Head, unpack_indices
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import BlobLimits

COUNT = 12
SIZE = (COUNT - 1) * CHUNK_BYTES + 77


@pytest.fixture(params=["stream", "direct"])
def carrier(request):
    return request.param


@asynccontextmanager
async def two(folder, carrier="stream", *, limits=LIMITS, quota=64 << 20):
    """Return an owner with a blob, and who wants parts of it; the third asks too."""
    async with nodes(folder, OWNER, ASKER, THIRD, carrier=carrier, quota=quota) as (owner, asker, third):
        owner.serve(limits), asker.serve(limits), third.serve(limits)
        data = os.urandom(SIZE)
        yield owner, asker, third, data, await owner.store.put(data)


def parts_of(asker, key, owner=OWNER, size=SIZE):
    return asker.blobs.parts(key, owner.key, grant_for(asker.identity, key, owner=owner), size_bytes=size)


async def has(path, data, chunks):
    """Check a file against what is said to be in it."""
    found = await trio.Path(path).read_bytes()
    assert len(found) == len(data)
    for index in range(COUNT):
        piece = slice(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
        assert found[piece] == (data[piece] if index in chunks else bytes(len(data[piece]))), index


async def test_what_is_wanted_comes_and_nothing_else(tmp_path, carrier):
    async with two(tmp_path, carrier) as (owner, asker, _, data, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            assert owner.blobs.sent_bytes == 0
            parts.want([3, 7])
            await parts.until_here([3, 7])
            await has(path, data, {3, 7})
            parts.want([11, 3])
            await parts.until_here([3, 11])
            await has(path, data, {3, 7, 11})
            assert asker.store.used_bytes == 2 * CHUNK_BYTES + 77
        assert owner.blobs.sent_bytes <= 2 * CHUNK_BYTES + 77 + 3 * 6
        assert not asker.store.has(key)
        assert asker.violations == owner.violations == []
        if asker.direct:
            assert asker.direct.counters["channels"] == 1


async def test_what_has_come_is_there_the_next_time(tmp_path, carrier):
    async with two(tmp_path, carrier) as (owner, asker, _, data, key):
        for chunks in ([0, 1], [1, 2]):
            async with parts_of(asker, key) as parts:
                path = await parts.opened()
                parts.want(chunks)
                await parts.until_here(chunks)
        await has(path, data, {0, 1, 2})
        assert owner.blobs.sent_bytes <= 3 * (CHUNK_BYTES + 6)
        assert asker.store.used_bytes == 3 * CHUNK_BYTES


async def test_all_parts_are_a_blob(tmp_path):
    async with two(tmp_path) as (_, asker, _, data, key):
        async with parts_of(asker, key) as parts:
            await parts.opened()
            parts.want(range(COUNT))
            await parts.until_here(range(COUNT))
            assert parts.has_all
        assert asker.blobs.is_at_hand(key, OWNER.key)
        assert await asker.store.read(key) == data
        assert asker.store.used_bytes == SIZE
        assert not asker.blobs.may_have_parts(key, OWNER.key)
        assert not len(asker.store.sparse)


async def test_nobody_else_sees_what_came(tmp_path):
    """A third node, which knows the id, gets nothing of it from who has parts, and its jobs nothing that it did not
    give itself."""
    async with two(tmp_path) as (_, asker, third, data, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            parts.want([0])
            await parts.until_here([0])
            grant = grant_for(THIRD, key)
            with pytest.raises(TransportError, match="not_found"):
                await third.blobs.fetch(key, [ASKER.key], grant, size_bytes_max=SIZE, timeout_s=5)
            async with parts_of(asker, key, owner=THIRD) as theirs:
                with pytest.raises(TransportError, match="not_found"):
                    await theirs.opened()
        third_key = await third.store.put(data)
        assert third_key == key
        async with parts_of(asker, key, owner=THIRD) as theirs:
            assert await theirs.opened() != path
            assert third.blobs.sent_bytes == 0
            theirs.want([0])
            await theirs.until_here([0])
            assert third.blobs.sent_bytes > CHUNK_BYTES


async def test_only_for_whom_the_grant_is(tmp_path):
    async with two(tmp_path) as (_, asker, _, _, key):
        with pytest.raises(PeerViolation):
            async with asker.blobs.parts(key, OWNER.key, grant_for(THIRD, key), size_bytes=SIZE):
                raise AssertionError
        with pytest.raises(PeerViolation, match="other blobs"):
            async with asker.blobs.parts(bytes(32), OWNER.key, grant_for(ASKER, key), size_bytes=SIZE):
                raise AssertionError
        assert asker.blobs.may_have_parts(key, OWNER.key)


async def test_a_blob_of_another_size_than_said_is_refused(tmp_path):
    async with two(tmp_path) as (_, asker, _, _, key):
        async with parts_of(asker, key, size=SIZE + 1) as parts:
            with pytest.raises(TransportError, match=f"has {SIZE} bytes, not {SIZE + 1}"):
                await parts.opened()
        assert asker.store.used_bytes == 0


async def test_an_owner_that_is_gone_is_told_to_who_waits(tmp_path):
    limits = BlobLimits(stall_timeout_s=0.2, round_pause_s=0.01)
    async with two(tmp_path, limits=limits) as (owner, asker, _, data, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            parts.want([1])
            await parts.until_here([1])
            await owner.network.disconnect(ASKER.key)
            owner.store.delete(key)
            parts.want([2])
            with pytest.raises(TransportError):
                await parts.until_here([2])
            with pytest.raises(TransportError):
                await parts.until_here([3])
        await has(path, data, {1})


async def test_a_wrong_chunk_is_never_written(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        asker.serve()
        data = os.urandom(SIZE)
        named = manifest(data)

        async def lie(carrier):
            await carrier.receive(4096, 5)
            await carrier.send(HEAD, encode(Head(named.size, b"".join(named.hashes), b"", ())))
            wanted = await carrier.receive(4096, 5)
            (index, *_) = unpack_indices(wanted.body, COUNT, 64)
            await carrier.send(CHUNK, CHUNK_HEADER.pack(index, RAW) + bytes(CHUNK_BYTES))
            await carrier.receive(4096, 5)

        owner.serve_raw(lie)
        async with parts_of(asker, named.blob_id()) as parts:
            path = await parts.opened()
            parts.want([4])
            with pytest.raises(TransportError, match="not the one"):
                await parts.until_here([4])
        assert len(asker.violations) == 1
        await has(path, data, set())
        assert asker.store.used_bytes == 0


async def test_no_room_for_a_part_is_told(tmp_path):
    async with two(tmp_path, quota=14 << 20) as (_, asker, _, data, key):
        other = await asker.store.put(os.urandom(12 << 20))
        with asker.store.pinned(other):
            async with parts_of(asker, key) as parts:
                path = await parts.opened()
                parts.want([0, 1])
                await parts.until_here([0, 1])
                with pytest.raises(ResourceError, match="no room"):
                    parts.want([1, 2])
                parts.let_go([0])
                with pytest.raises(ResourceError, match="no room"):
                    parts.want([2, 3])
                parts.want([2])
                await parts.until_here([2])
        await has(path, data, {1, 2})
        assert asker.store.used_bytes == (12 << 20) + 2 * CHUNK_BYTES


async def test_what_nobody_needs_any_more_makes_room_and_comes_again(tmp_path, carrier):
    async with two(tmp_path, carrier) as (owner, asker, _, data, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            asker.store.quota_bytes = 3 * CHUNK_BYTES
            for index in (*range(COUNT), *range(COUNT)):
                parts.want([index])
                parts.want([index])
                await parts.until_here([index])
                begin = slice(index * CHUNK_BYTES, index * CHUNK_BYTES + 77)
                assert (await trio.Path(path).read_bytes())[begin] == data[begin]
                parts.let_go([index])
                parts.let_go([index])
            assert asker.store.used_bytes <= asker.store.quota_bytes
            assert path.stat().st_blocks * 512 <= 3 * CHUNK_BYTES
            await has(path, data, {9, 10, 11})
            assert owner.blobs.sent_bytes <= 2 * (SIZE + 6 * COUNT)
        assert asker.store.used_bytes == 2 * CHUNK_BYTES + 77
        async with parts_of(asker, key) as parts:  # so is what an earlier use has left
            assert await parts.opened() == path
            parts.want([10, 0])
            await parts.until_here([0])
            parts.want([1])
            await parts.until_here([1])
            await has(path, data, {0, 1, 10})
        assert asker.store.used_bytes == 3 * CHUNK_BYTES


async def test_what_was_needed_last_stays_whichever_blob_it_is_of(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER) as (owner, asker):
        owner.serve(), asker.serve()
        keys = [await owner.store.put(os.urandom(SIZE)) for _ in range(2)]
        async with parts_of(asker, keys[0]) as one, parts_of(asker, keys[1]) as other:
            both = [one, other]
            for parts in both:
                await parts.opened()
                parts.want(range(6))
                await parts.until_here(range(6))
            for index in range(6):
                for parts in both:
                    parts.let_go([index])
            asker.store.quota_bytes = asker.store.used_bytes
            one.want([6, 7, 8, 9])
            await one.until_here([6, 7, 8, 9])
            assert [bytes(parts._open.arrivals.here[:6]) for parts in both] == [b"\0\0\1\1\1\1"] * 2


async def test_who_waits_for_what_nobody_needs_any_more_is_let_go_on(tmp_path):
    async with two(tmp_path) as (owner, asker, _, _, key), parts_of(asker, key) as parts:
        await parts.opened()
        await owner.network.disconnect(ASKER.key)
        parts.want([4])
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parts.until_here, [4])
                await trio.sleep(0.02)
                parts.let_go([4])


async def test_a_file_system_that_cannot_punch_holes_keeps_all(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_sparse, "punch", lambda *_: False)
    async with two(tmp_path, quota=64 << 20) as (_, asker, _, data, key), parts_of(asker, key) as parts:
        path = await parts.opened()
        asker.store.quota_bytes = 2 * CHUNK_BYTES
        parts.want([0, 1])
        await parts.until_here([0, 1])
        parts.let_go([0, 1])
        with pytest.raises(ResourceError, match="no room"):
            parts.want([2])
        await has(path, data, {0, 1})


async def test_a_blob_larger_than_the_quota_can_be_used_in_parts(tmp_path):
    async with nodes(tmp_path, OWNER, ASKER, quota=64 << 20) as (owner, asker):
        owner.serve()
        asker.store = BlobStore(tmp_path / "small", quota_bytes=4 << 20)
        asker.serve()
        data = os.urandom(SIZE)
        key = await owner.store.put(data)
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            parts.want([5, 6, 7])
            await parts.until_here([5, 6, 7])
            await has(path, data, {5, 6, 7})


async def test_idle_parts_make_room(tmp_path):
    async with two(tmp_path, quota=14 << 20) as (_, asker, _, data, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            parts.want(range(5))
            await parts.until_here(range(5))
        await asker.store.put(os.urandom(12 << 20))
        assert asker.store.used_bytes == 12 << 20
        async with parts_of(asker, key) as parts:
            assert await parts.opened() != path  # a new file: who has mapped the old one would not see what comes
            parts.want([0])
            await parts.until_here([0])
            await has(await parts.opened(), data, {0})


async def test_what_parts_have_left_is_deleted_at_start(tmp_path):
    async with two(tmp_path) as (_, asker, _, _, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            parts.want([0])
            await parts.until_here([0])
        assert path.exists()
        again = BlobStore(asker.store.folder, quota_bytes=64 << 20)
        assert again.used_bytes == 0
        assert not path.exists()


async def test_many_blobs_of_one_owner_take_turns(tmp_path, carrier):
    """More than an owner serves to one peer at a time: none is refused, and none waits for another that lingers."""
    limits = BlobLimits(stall_timeout_s=5.0, round_pause_s=0.01, served_per_peer_max=blob_parts.TURNS)
    async with nodes(tmp_path, OWNER, ASKER, carrier=carrier, quota=128 << 20) as (owner, asker):
        owner.serve(limits), asker.serve(limits)
        keys = [await owner.store.put(os.urandom(8 << 20)) for _ in range(7)]
        done = []

        async def use(key):
            async with parts_of(asker, key, size=8 << 20) as parts:
                await parts.opened()
                for index in (1, 5, 2):
                    parts.want([index])
                    await parts.until_here([index])
                done.append(key)
                await all_done.wait()

        all_done = trio.Event()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for key in keys:
                    nursery.start_soon(use, key)
                while len(done) < len(keys):
                    await trio.sleep(0.01)
                all_done.set()
        assert owner.violations == asker.violations == []


async def test_who_waits_is_told_when_it_is_closed_and_nothing_is_reserved_after(tmp_path):
    async with two(tmp_path) as (_, asker, _, _, key):
        told = []

        async def wait(parts):
            with pytest.raises(TransportError, match="not brought any more"):
                await parts.until_here([5])
            told.append(True)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery, parts_of(asker, key) as parts:
                await parts.opened()
                parts._sparse._needed[5] += 1  # and nobody asks for it
                nursery.start_soon(wait, parts)
                await trio.sleep(0.05)
        assert told
        parts.want([3, 4])
        assert asker.store.used_bytes == 0


async def test_a_grant_that_somebody_else_signed_is_refused(tmp_path):
    """Else two works over one blob, by two identities of one requester, would share a file without knowing."""
    async with two(tmp_path) as (_, asker, third, data, key):
        assert await third.store.put(data) == key
        third.blobs.note_owner(key, OWNER.key)
        with pytest.raises(PeerViolation, match="somebody else's"):
            async with asker.blobs.parts(key, THIRD.key, grant_for(ASKER, key), size_bytes=SIZE):
                raise AssertionError


async def test_a_file_that_was_deleted_is_begun_afresh(tmp_path):
    async with two(tmp_path) as (_, asker, _, data, key):
        async with parts_of(asker, key) as parts:
            path = await parts.opened()
            parts.want(range(6))
            await parts.until_here(range(6))
        path.unlink()
        async with parts_of(asker, key) as parts:
            await parts.opened()
            parts.want(range(COUNT))
            await parts.until_here(range(COUNT))
        assert await asker.store.read(key) == data
        assert asker.store.used_bytes == SIZE


async def test_an_owner_that_is_busy_is_waited_for(tmp_path):
    limits = BlobLimits(served_max=1, stall_timeout_s=5.0, round_pause_s=0.05)
    async with (
        two(tmp_path, limits=limits) as (_, asker, third, _, key),
        parts_of(asker, key) as mine,
        trio.open_nursery() as nursery,
    ):
        await mine.opened()

        async def go_on():
            for index in range(6):
                mine.want([index])
                await mine.until_here([index])
                await trio.sleep(0.2)

        nursery.start_soon(go_on)
        with trio.fail_after(20):
            async with parts_of(third, key) as theirs:
                await theirs.opened()
                theirs.want([0])
                await theirs.until_here([0])


async def test_blobs_of_which_more_is_always_wanted_let_others_have_their_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_parts, "TURN_S", 0.2)
    async with nodes(tmp_path, OWNER, ASKER, quota=256 << 20) as (owner, asker):
        owner.serve(), asker.serve()
        keys = [await owner.store.put(os.urandom(SIZE)) for _ in range(blob_parts.TURNS + 1)]

        async def always_want(key):
            async with parts_of(asker, key) as parts:
                await parts.opened()
                parts._incoming.partial._missing += 1  # a chunk that is on its way, by a slow line
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for key in keys[:-1]:
                nursery.start_soon(always_want, key)
            await trio.sleep(0.3)
            with trio.fail_after(5):
                async with parts_of(asker, keys[-1]) as parts:
                    await parts.opened()
            nursery.cancel_scope.cancel()
