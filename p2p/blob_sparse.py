"""Blobs of which only some chunks are wanted here: files with holes, each for the jobs of one owner.

Only what is wanted takes room. What came is there the next time, unless its room was needed meanwhile; not after a
restart. Room is made by files that nobody uses, and in the end by chunks of files in use that nobody needs any more: so
a job's inputs may be larger than all of the store. No peer is served from such a file, and no other owner's job sees
it: who has one chunk of a blob need not have the others. Once all chunks are here it becomes a blob like others, when
who uses it is done.
"""

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from pathlib import Path

from depin_node.core.errors import ResourceError
from depin_node.crypto.blob import CHUNK_BYTES, Buffer, Manifest
from depin_node.p2p.blob_files import allocate, open_sparse, punch, rename
from depin_node.p2p.blob_partial import Arrivals, PartialBlob, Store

_IDLE_MAX = 64
"""Files kept that nobody uses."""
_TURNS = count()


class SparseBlob(PartialBlob):
    """One such file, open. A chunk is needed by as many as have ``want``ed it and not ``let_go`` of it. What is here
    and needed by none can be given up: first what is so for longest."""

    def __init__(
        self, store: Store, blob_id: bytes, manifest: Manifest, path: Path, fd: int, arrivals: Arrivals | None
    ) -> None:
        """``arrivals``: what is in the file; None: nothing."""
        super().__init__(store, blob_id, manifest, path, fd, wanted=False)
        self.reserved_bytes = 0
        """Of the store, since it was opened: less than none if more was given up."""
        self.arrivals = arrivals or self.arrivals
        self._needed: Counter[int] = Counter()
        self._spare = {index: next(_TURNS) for index in self.arrivals.order}

    def want(self, chunks: Iterable[int]) -> list[int]:
        """Need chunks; return those that are to come now.

        Raises:
            ResourceError: no room for all; none is needed then.
        """
        wanted = list(chunks)
        for index in wanted:
            self._needed[index] += 1
            self._spare.pop(index, None)
        new = [index for index in dict.fromkeys(wanted) if self.needless[index] and not self.arrivals.here[index]]
        size_bytes = sum(map(self.size_of, new))
        try:
            self._store.reserve(size_bytes)
        except ResourceError:
            self.let_go(wanted)
            raise
        self.reserved_bytes += size_bytes
        for index in new:
            self.needless[index] = 0
        self._missing += len(new)
        return new

    def let_go(self, chunks: Iterable[int]) -> None:
        """Undo ``want``; what was asked for comes nevertheless."""
        for index in chunks:
            self._needed[index] -= 1
            if not self._needed[index]:
                del self._needed[index]
                if self.arrivals.here[index]:
                    self._spare[index] = next(_TURNS)

    def is_needed(self, index: int) -> bool:
        """Tell whether somebody needs a chunk."""
        return index in self._needed

    def write(self, index: int, chunk: Buffer) -> None:
        """See ``PartialBlob``. Writing into room that was found before takes a fourth less."""
        start = index * CHUNK_BYTES
        with self._store.disk_errors():
            allocate(self._fd, start, start + self.size_of(index))
        super().write(index, chunk)

    def arrived(self, index: int) -> bool:
        """See ``PartialBlob``."""
        is_new = super().arrived(index)
        if is_new and index not in self._needed:
            self._spare[index] = next(_TURNS)
        return is_new

    def spare_since(self) -> int | None:
        """Return the turn since when nobody needs the chunk that would be given up; None: all are needed."""
        return next(iter(self._spare.values()), None)

    def give_up_chunk(self) -> bool:
        """Make room by the chunk that nobody needs for longest; False: the file system cannot."""
        index = next(iter(self._spare))
        if not punch(self._fd, index * CHUNK_BYTES, CHUNK_BYTES):
            return False
        del self._spare[index]
        self.arrivals.forget(index)
        size_bytes = self.size_of(index)
        self.reserved_bytes -= size_bytes
        self._store.release(size_bytes)
        return True


@dataclass
class _Idle:
    path: Path
    arrivals: Arrivals | None = None
    size_bytes: int = 0


class SparseBlobs:
    """See the module; one of these in each store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._idle: OrderedDict[tuple[bytes, bytes], _Idle] = OrderedDict()  # the longest unused first
        self._open: dict[tuple[bytes, bytes], SparseBlob] = {}

    def __len__(self) -> int:
        """Return how many nobody uses."""
        return len(self._idle)

    def drop_oldest(self) -> None:
        """Delete what was not used for longest."""
        _, idle = self._idle.popitem(last=False)
        self._drop(idle)

    def give_up_chunk(self) -> bool:
        """Make room by a chunk of an open file: the one that nobody needs for longest. False: there is none."""
        spare = [(since, opened) for opened in self._open.values() if (since := opened.spare_since()) is not None]
        return bool(spare) and min(spare, key=itemgetter(0))[1].give_up_chunk()

    def _drop(self, idle: _Idle) -> None:
        self._store.release(idle.size_bytes)
        self._store.discard(idle.path, idle.size_bytes)

    @asynccontextmanager
    async def open(self, blob_id: bytes, owner: bytes, manifest: Manifest) -> AsyncIterator[SparseBlob]:
        """Open a blob for an owner's jobs; one at a time for each of both. A file that is opened anew has another path.

        Raises:
            ResourceError: no file can be made.
        """
        store = self._store
        idle = self._idle.pop((blob_id, owner), None) or _Idle(store.new_path())
        partial: SparseBlob | None = None
        try:
            try:
                fd = await store.in_thread(lambda: open_sparse(idle.path, manifest.size, is_new=idle.arrivals is None))
            except FileNotFoundError:  # somebody has deleted it: what came is gone
                store.release(idle.size_bytes)
                idle = _Idle(store.new_path())
                fd = await store.in_thread(lambda: open_sparse(idle.path, manifest.size, is_new=True))
            partial = self._open[blob_id, owner] = SparseBlob(store, blob_id, manifest, idle.path, fd, idle.arrivals)
            yield partial
        finally:
            self._open.pop((blob_id, owner), None)
            if partial is None:
                self._drop(idle)
            else:
                partial.close()
                self._put_away(idle, partial, owner)

    def _put_away(self, idle: _Idle, partial: SparseBlob, owner: bytes) -> None:
        store = self._store
        come_bytes = sum(map(partial.size_of, partial.arrivals.order))
        store.release(idle.size_bytes + partial.reserved_bytes - come_bytes)
        idle.arrivals, idle.size_bytes = partial.arrivals, come_bytes
        if not partial.is_whole:
            self._idle[partial.blob_id, owner] = idle
            if len(self._idle) > _IDLE_MAX:
                self.drop_oldest()
            return
        if store.has(partial.blob_id):
            self._drop(idle)
            return
        try:
            rename(idle.path, store.path(partial.blob_id), durable=False)
        except OSError:  # no room even for a name: it is fetched again when it is wanted
            self._drop(idle)
        else:
            store.adopt(partial.blob_id, partial.manifest)
