"""Blobs of which only some chunks are wanted here: files with holes, each for the jobs of one owner.

Only what is wanted takes room. What came is there the next time, unless its room was needed meanwhile; not after a
restart. No peer is served from such a file, and no other owner's job sees it: who has one chunk of a blob need not have
the others. Once all chunks are here it becomes a blob like others, when who uses it is done.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from depin_node.crypto.blob import Manifest
from depin_node.p2p.blob_files import open_sparse, rename
from depin_node.p2p.blob_partial import Arrivals, Keeper, PartialBlob

_IDLE_MAX = 64
"""Files kept that nobody uses."""


class Store(Keeper, Protocol):
    """What sparse blobs need of their store."""

    def new_path(self) -> Path:
        """Return a name for a new file."""

    def path(self, blob_id: bytes) -> Path:
        """Return where a whole blob is."""

    def has(self, blob_id: bytes) -> bool:
        """Tell whether a whole blob is here."""

    def release(self, size_bytes: int) -> None:
        """Undo ``reserve``."""

    def adopt(self, blob_id: bytes, manifest: Manifest) -> None:
        """Note that a file whose room was reserved has got its name."""

    def discard(self, path: Path, size_bytes: int) -> None:
        """Delete a file."""


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

    def __len__(self) -> int:
        """Return how many nobody uses."""
        return len(self._idle)

    def drop_oldest(self) -> None:
        """Delete what was not used for longest."""
        _, idle = self._idle.popitem(last=False)
        self._drop(idle)

    def _drop(self, idle: _Idle) -> None:
        self._store.release(idle.size_bytes)
        self._store.discard(idle.path, idle.size_bytes)

    @asynccontextmanager
    async def open(self, blob_id: bytes, owner: bytes, manifest: Manifest) -> AsyncIterator[PartialBlob]:
        """Open a blob for an owner's jobs; one at a time for each of both. A file that is opened anew has another path.

        Raises:
            ResourceError: no file can be made.
        """
        store = self._store
        idle = self._idle.pop((blob_id, owner), None) or _Idle(store.new_path())
        partial: PartialBlob | None = None
        try:
            try:
                fd = await store.in_thread(lambda: open_sparse(idle.path, manifest.size, is_new=idle.arrivals is None))
            except FileNotFoundError:  # somebody has deleted it: what came is gone
                store.release(idle.size_bytes)
                idle = _Idle(store.new_path())
                fd = await store.in_thread(lambda: open_sparse(idle.path, manifest.size, is_new=True))
            partial = PartialBlob(store, blob_id, manifest, idle.path, fd, wanted=False)
            if idle.arrivals is not None:
                partial.arrivals = idle.arrivals
            yield partial
        finally:
            if partial is None:
                self._drop(idle)
            else:
                partial.close()
                self._put_away(idle, partial, owner)

    def _put_away(self, idle: _Idle, partial: PartialBlob, owner: bytes) -> None:
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
