"""Blobs on a real disk."""

import array
import errno
import os
import subprocess
import sys
import threading
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from blake3 import blake3

from depin_node.core.errors import PeerViolation, ResourceError
from depin_node.crypto.blob import CHUNK_BYTES, blob_id, chunks, manifest
from depin_node.p2p import blob_writer
from depin_node.p2p.blob_store import BlobMissingError, BlobStore

SIZES = [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 5]
QUOTA = 64 << 20


def blob(size, seed=0):
    return bytes([seed]) + os.urandom(size - 1) if size else b""


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def stream(data, step):
    for start in range(0, len(data), step):
        yield data[start : start + step]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("durable", [False, True])
async def test_what_is_put_can_be_read_also_after_a_restart(tmp_path, size, durable):
    data = blob(size)
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    key = await store.put(data, durable=durable)
    assert key == blob_id(data)
    for reopened in (store, BlobStore(tmp_path, quota_bytes=QUOTA)):
        assert reopened.has(key)
        assert (reopened.size_bytes(key), reopened.used_bytes) == (size, size)
        assert await reopened.read(key) == data
        assert await reopened.manifest(key) == manifest(data)
        async with reopened.open(key) as view:
            assert view == data
            assert view.readonly


async def test_data_of_many_chunks_are_put_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_writer, "_AT_ONCE_BYTES", 2 * CHUNK_BYTES)
    data = blob(5 * CHUNK_BYTES + 3)
    store = BlobStore(tmp_path, quota_bytes=len(data))
    assert await store.put(data) == blob_id(data)
    assert await store.read(blob_id(data)) == data
    assert await store.manifest(blob_id(data)) == manifest(data)
    with pytest.raises(ResourceError, match="no room"):
        await BlobStore(tmp_path / "small", quota_bytes=len(data) - 1).put(data)
    assert files(tmp_path / "small") == []


@pytest.mark.parametrize("step", [999, CHUNK_BYTES, 2 * CHUNK_BYTES + 3])
async def test_a_stream_is_cut_into_chunks_whatever_its_pieces(tmp_path, step):
    data = blob(3 * CHUNK_BYTES + 5)
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    key = await store.put_stream(stream(data, step), size_bytes_max=len(data))
    assert key == blob_id(data)
    assert await store.read(key) == data


async def test_a_stream_that_is_too_long_leaves_nothing(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    with pytest.raises(ResourceError, match="beyond the 2000000 bytes"):
        async with aclosing(stream(blob(3 * CHUNK_BYTES), 5000)) as pieces:
            await store.put_stream(pieces, size_bytes_max=2_000_000)
    assert (files(tmp_path), store.used_bytes) == ([], 0)


@pytest.mark.parametrize("count", [1, 300_000])
async def test_an_array_of_any_kind_is_put_as_its_bytes(tmp_path, count):
    numbers = array.array("d", range(count))
    store = BlobStore(tmp_path, quota_bytes=1 << 24)
    assert await store.read(await store.put(memoryview(numbers))) == numbers.tobytes()


async def test_putting_twice_takes_the_room_of_one(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    data = blob(5000)
    assert await store.put(data) == await store.put(data)
    assert (store.used_bytes, len(store)) == (5000, 1)


async def test_what_is_here_is_not_written_again_unless_it_has_to_be_on_disk_or_its_file_is_gone(tmp_path):
    data, store = blob(1000), BlobStore(tmp_path, quota_bytes=QUOTA)
    path = store.path(await store.put(data))
    first = path.stat().st_ino
    await store.put(data)
    assert path.stat().st_ino == first
    await store.put(data, durable=True)
    assert path.stat().st_ino != first
    path.unlink()
    await store.put(data)
    assert await store.read(blob_id(data)) == data
    assert store.used_bytes == 1000


async def test_what_is_here_and_dropped_for_its_own_sake_is_written_again(tmp_path):
    data, store = blob(1000), BlobStore(tmp_path, quota_bytes=1000)
    await store.put(data)
    assert await store.put_all([data]) == [blob_id(data)]
    assert await store.read(blob_id(data)) == data
    assert store.used_bytes == 1000


async def test_of_many_that_are_put_together_none_makes_room_for_another(tmp_path):
    items = [blob(size, seed) for seed, size in enumerate([*SIZES, 2 * CHUNK_BYTES])]
    store = BlobStore(tmp_path, quota_bytes=sum(map(len, items)) + 10)
    old = await store.put(blob(11))
    assert await store.put_all(items) == [blob_id(item) for item in items]
    assert [await store.read(blob_id(item)) for item in items] == items
    assert not store.has(old)
    assert store.used_bytes == sum(map(len, items))
    with pytest.raises(ResourceError, match="no room"):
        await BlobStore(tmp_path / "small", quota_bytes=sum(map(len, items)) - 1).put_all(items)


async def test_missing_blobs_are_errors(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    for ask in (store.read, store.manifest):
        with pytest.raises(BlobMissingError, match="not here"):
            await ask(bytes(32))
    store.delete(bytes(32))
    assert not store.has(bytes(32))


async def test_leftovers_of_a_crash_are_deleted_and_strange_files_left_alone(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    with store.writer(size_bytes_max=QUOTA) as writer:
        await writer.write_chunk(blob(CHUNK_BYTES))
        (tmp_path / "README").write_text("mine")
        (tmp_path / ("z" * 64)).write_text("mine")
        assert files(tmp_path) == ["1", "README", "z" * 64]
        reopened = BlobStore(tmp_path, quota_bytes=QUOTA)
        assert files(tmp_path) == ["README", "z" * 64]
        assert reopened.used_bytes == 0
    assert store.used_bytes == 0


@pytest.mark.parametrize("damage", [b"", b"X" * 5000, b"longer" * 1000])
async def test_a_blob_that_a_power_cut_damaged_counts_as_missing(tmp_path, damage):
    key = await BlobStore(tmp_path, quota_bytes=QUOTA).put(blob(5000))
    (tmp_path / key.hex()).write_bytes(damage)
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    with pytest.raises(BlobMissingError, match="damaged"):
        await store.read(key)
    assert (store.has(key), store.used_bytes, files(tmp_path)) == (False, 0, [])


async def test_a_blob_whose_file_somebody_deleted_counts_as_missing(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    key = await store.put(blob(5000))
    (tmp_path / key.hex()).unlink()
    with pytest.raises(BlobMissingError, match="deleted"):
        await store.read(key)
    assert (store.has(key), store.used_bytes) == (False, 0)


async def test_room_is_made_by_dropping_what_was_not_used_for_longest(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=10_000)
    keys = [await store.put(blob(3000, seed)) for seed in range(3)]
    await store.read(keys[0])
    await store.put(blob(3000, 9))
    assert [store.has(key) for key in keys] == [True, False, True]
    assert store.used_bytes == 9000
    assert len(files(tmp_path)) == 3


async def test_the_order_of_use_outlives_a_restart(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=10_000)
    keys = [await store.put(blob(3000, seed)) for seed in range(3)]
    for age, key in enumerate(keys):
        os.utime(tmp_path / key.hex(), (1_000_000 - age, 1_000_000 - age))
    store = BlobStore(tmp_path, quota_bytes=10_000)
    await store.read(keys[2])  # the oldest by date, but used
    await store.put(blob(3000, 9))
    assert [store.has(key) for key in keys] == [True, False, True]


async def test_pinned_and_open_blobs_stay_and_the_error_says_what_to_do(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=10_000)
    pinned, opened = await store.put(blob(3000, 1)), await store.put(blob(3000, 2))
    store.pin(pinned)
    async with store.open(opened):
        with pytest.raises(ResourceError, match="raise the disk quota"):
            await store.put(blob(5000))
        assert store.has(pinned)
        assert store.has(opened)
        assert store.used_bytes == 6000
    await store.put(blob(5000))
    assert (store.has(pinned), store.has(opened)) == (True, False)
    store.unpin(pinned)
    await store.put(blob(9000))
    assert not store.has(pinned)


async def test_who_has_a_blob_open_reads_on_when_it_is_deleted(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    data = blob(CHUNK_BYTES + 7)
    key = await store.put(data)
    async with store.open(key) as view:
        store.delete(key)
        assert view == data
    assert files(tmp_path) == []


def write(partial, index, part):
    partial.write(index, part)
    assert partial.arrived(index)


async def test_chunks_of_a_partial_blob_are_checked_one_by_one_in_any_order(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    data = blob(2 * CHUNK_BYTES + 5)
    good, parts = manifest(data), [bytes(part) for part in chunks(data)]
    async with store.partials.open(good.blob_id(), good) as partial:
        assert store.used_bytes == len(data)
        write(partial, 2, parts[2])
        for wrong in (parts[1], parts[0][:-1], b""):
            with pytest.raises(PeerViolation, match="chunk 0"):
                write(partial, 0, wrong)
        write(partial, 0, parts[0])
        assert (partial.arrivals.order, partial.is_complete) == ([2, 0], False)
        assert store.chunk_reader(good.blob_id())(2, into := bytearray(CHUNK_BYTES)) == 5
        assert into[:5] == parts[2]
        write(partial, 1, parts[1])
        await partial.finish()
    assert await store.read(good.blob_id()) == data
    assert (store.used_bytes, files(tmp_path)) == (len(data), [good.blob_id().hex()])


async def test_nothing_is_looked_for_in_a_blob_of_which_nothing_has_come(tmp_path):
    good = manifest(bytes(3 * CHUNK_BYTES))  # as room on disk that nobody has written to reads
    async with BlobStore(tmp_path, quota_bytes=QUOTA).partials.open(good.blob_id(), good) as partial:
        assert partial.arrivals.order == []


async def half_of(store, data, *indices):
    good, parts = manifest(data), [bytes(part) for part in chunks(data)]
    async with store.partials.open(good.blob_id(), good) as partial:
        for index in indices:
            write(partial, index, parts[index])
    return good


@pytest.mark.parametrize("restart", [False, True])
async def test_what_a_broken_fetch_left_is_kept_and_checked_again(tmp_path, restart):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    data = blob(3 * CHUNK_BYTES + 5)
    good = await half_of(store, data, 0, 2)
    path = tmp_path / "partial" / good.blob_id().hex()
    with path.open("r+b") as file:  # as a power cut may leave it
        file.seek(2 * CHUNK_BYTES + 100)
        file.write(b"damaged")
    if restart:
        store = BlobStore(tmp_path, quota_bytes=QUOTA)
    assert (store.used_bytes, store.has(good.blob_id())) == (len(data), False)
    assert await store.partials.left(good.blob_id()) == good
    async with store.partials.open(good.blob_id(), good) as partial:
        assert partial.arrivals.order == [0]
    assert store.used_bytes == len(data)


@pytest.mark.parametrize("damage", [b"", b"short", bytes(8 + 4 * 32)])
async def test_a_partial_blob_without_a_good_manifest_is_deleted(tmp_path, damage):
    good = await half_of(BlobStore(tmp_path, quota_bytes=QUOTA), blob(3 * CHUNK_BYTES + 5), 1)
    (tmp_path / "partial" / f"{good.blob_id().hex()}.manifest").write_bytes(damage)
    store = BlobStore(tmp_path, quota_bytes=QUOTA)
    assert (store.used_bytes, files(tmp_path)) == (0, [])
    assert await store.partials.left(good.blob_id()) is None


async def test_partial_blobs_give_way_first_and_those_of_which_nothing_came_at_once(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=5 * CHUNK_BYTES)
    kept = await store.put(blob(1000))
    await half_of(store, blob(3 * CHUNK_BYTES))
    assert files(tmp_path) == [kept.hex()]
    await half_of(store, blob(3 * CHUNK_BYTES), 1)
    await store.put(blob(4 * CHUNK_BYTES))
    assert store.has(kept)
    assert store.used_bytes == 4 * CHUNK_BYTES + 1000


async def test_a_partial_blob_takes_the_room_of_the_whole_and_is_refused_without(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=4 * CHUNK_BYTES)
    data, other = blob(3 * CHUNK_BYTES), manifest(blob(3 * CHUNK_BYTES))
    good = manifest(data)
    async with store.partials.open(good.blob_id(), good):
        with pytest.raises(ResourceError, match="quota"):
            async with store.partials.open(other.blob_id(), other):
                pass
    assert (store.used_bytes, files(tmp_path)) == (0, [])


async def test_a_proof_is_of_the_bytes_and_of_the_question(tmp_path):
    store, data = BlobStore(tmp_path, quota_bytes=QUOTA), blob(2 * CHUNK_BYTES + 5)
    key = await store.put(data)
    assert await store.prove(key, b"n" * 32) == blake3(data, key=b"n" * 32).digest()
    assert await store.prove(key, b"n" * 32) != await store.prove(key, b"m" * 32)
    with pytest.raises(BlobMissingError):
        await store.prove(bytes(32), bytes(32))


async def test_cancelled_writes_leave_nothing(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=QUOTA)

    async def endless():
        while True:
            yield blob(CHUNK_BYTES // 2)
            await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        async with aclosing(endless()) as pieces, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: store.put_stream(pieces, size_bytes_max=QUOTA))
            while store.used_bytes < 4 * CHUNK_BYTES:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert (store.used_bytes, files(tmp_path)) == (0, [])


async def test_a_folder_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be kept here"):
        BlobStore(tmp_path / "file", quota_bytes=QUOTA)


FULL_DISK = """
import resource, sys, trio
from pathlib import Path
from depin_node.core.errors import ResourceError
from depin_node.p2p import blob_writer
from depin_node.p2p.blob_store import BlobStore

async def main():
    store = BlobStore(Path(sys.argv[1]), quota_bytes=1 << 30)
    small = await store.put(b"x" * 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_500_000, 3_500_000))
    try:
        await store.put(bytes(8 << 20), durable=True)
    except ResourceError as error:
        assert "disk is full" in str(error), error
    else:
        raise AssertionError("8 MiB fitted into 3.5 MB")
    assert store.used_bytes == 1000
    assert await store.read(small) == b"x" * 1000
    assert await store.read(await store.put(b"y" * 3_000_000)) == b"y" * 3_000_000
    with store.writer(size_bytes_max=1 << 29) as writer:  # of unknown size: room is sought for more than comes
        for _ in range(3):
            await writer.write_chunk(b"z" * (1 << 20))
        grown = await writer.finish()
    assert (store.folder / grown.hex()).stat().st_size == 3 << 20
    assert await store.read(grown) == b"z" * (3 << 20)

trio.run(main)
"""


def test_a_full_disk_is_an_error_and_the_store_goes_on(tmp_path):
    subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], check=True, timeout=60)
    assert len(files(tmp_path)) == 3


KILLED = """
import os, signal, sys, trio
from pathlib import Path
from depin_node.p2p import blob_writer
from depin_node.p2p.blob_store import BlobStore

async def main():
    store = BlobStore(Path(sys.argv[1]), quota_bytes=1 << 30)
    async with trio.open_nursery() as nursery:
        for seed in range(8):
            nursery.start_soon(lambda seed=seed: put(store, bytes([seed]) * (3 << 20)))

async def put(store, data):
    print((await store.put(data, durable=True)).hex(), flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("acknowledged", [1, 4, 7])
def test_what_was_acknowledged_survives_sigkill_and_what_was_not_is_whole_or_gone(tmp_path, acknowledged):
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        promised = [process.stdout.readline().strip() for _ in range(acknowledged)]
        process.kill()

    async def check():
        store = BlobStore(tmp_path, quota_bytes=1 << 30)
        assert set(promised) <= set(files(tmp_path))
        for name in files(tmp_path):
            data = await store.read(bytes.fromhex(name))
            assert data == data[:1] * (3 << 20)

    trio.run(check)


async def test_a_chunk_may_be_read_only_where_nobody_waits_for_the_disk(tmp_path, monkeypatch):
    store, into = BlobStore(tmp_path, quota_bytes=QUOTA), bytearray(CHUNK_BYTES)
    data = os.urandom(CHUNK_BYTES + 5)
    read = store.chunk_reader(await store.put(data))
    assert (read(1, into, may_wait=False), into[:5]) == (5, data[CHUNK_BYTES:])  # it was just written

    def is_not_supported(fd, buffers, offset, flags=0):
        if flags & os.RWF_NOWAIT:
            raise OSError(errno.EOPNOTSUPP, "some file systems cannot tell")
        return preadv(fd, buffers, offset, flags)

    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", is_not_supported)
    with pytest.raises(BlockingIOError):
        read(1, into, may_wait=False)
    assert read(0, into) == CHUNK_BYTES


async def test_large_files_are_deleted_by_a_thread_and_their_names_are_free_at_once(tmp_path, monkeypatch):
    """On the loop a node would serve nobody as long as the kernel frees what it has of them in memory."""
    threads, unlink = set(), Path.unlink

    def noted(path, *args, **options):
        threads.add(threading.get_ident())
        return unlink(path, *args, **options)

    store, data = BlobStore(tmp_path, quota_bytes=64 << 20), os.urandom(9 << 20)
    monkeypatch.setattr(Path, "unlink", noted)
    for _ in range(2):
        key = await store.put(data)
        assert await store.read(key) == data
        store.delete(key)
        assert (store.has(key), store.path(key).exists(), store.used_bytes) == (False, False, 0)
    with store.writer(size_bytes_max=len(data)) as writer:
        await writer.write_whole(memoryview(data))  # and it is given up
    with trio.fail_after(10):
        while files(tmp_path):
            await trio.sleep(0.01)
    assert threads
    assert threading.get_ident() not in threads


async def test_who_stores_waits_until_what_was_dropped_for_it_is_gone(tmp_path):
    store = BlobStore(tmp_path, quota_bytes=20 << 20)
    keys = [await store.put(os.urandom(9 << 20)) for _ in range(3)]
    assert files(tmp_path) == sorted(key.hex() for key in keys[1:])
