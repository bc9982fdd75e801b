"""Of a large blob the chunks that an owner's jobs need here, as they need them, from its owner only.

The flow: ``Blobs.parts`` opens it and has ``bring`` at work; whoever needs chunks says so (``want``), waits for them
(``until_here``), and says when it has done with them (``let_go``): they make room for others then. A transfer that has
brought all waits for more to be wanted for ``LINGER_S``, unless another of the same owner's blobs waits for its turn.

Chunks are not shared with peers: each leaves the owner once for each node that needs it. Lenders that had rows of each
other would know which tasks are run by both, and when to be honest.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import trio

from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.crypto.blob import Manifest
from depin_node.p2p.blob_fetch import Fetch, Source
from depin_node.p2p.blob_messages import BlobRequest
from depin_node.p2p.blob_partial import PartialBlob
from depin_node.p2p.blob_sparse import SparseBlob
from depin_node.p2p.network import PeerKey

LINGER_S: Final = 1.0
TURNS: Final = 3
"""Blobs of one owner that are asked for at the same time."""
TURN_S: Final = 2.0
"""So long at most, while another waits for its turn."""


class Parts(Fetch):
    """See the module."""

    def __init__(
        self,
        source: Source,
        me: PeerKey,
        owner: PeerKey,
        request: BlobRequest,
        holders: Sequence[PeerKey],
        *,
        turn: trio.CapacityLimiter,
        rounds_max: int,
        round_pause_s: float,
        timeout_s: float,
    ) -> None:
        """``turn``: of the owner's blobs; ``request.size_bytes_max`` is the blob's size; all else as in ``Fetch``."""
        super().__init__(
            source, me, owner, request, holders,
            rounds_max=rounds_max, round_pause_s=round_pause_s, timeout_s=timeout_s, linger_s=LINGER_S,
        )  # fmt: skip
        self._turn = turn
        self._since_s = 0.0
        self._sparse: SparseBlob | None = None
        self._opened = trio.Event()
        self._come = trio.lowlevel.ParkingLot()
        self._failure: TransportError | ResourceError | None = None

    async def bring(self) -> None:
        """Bring what is wanted, until cancelled or out of reach for good: ``until_here`` tells."""
        try:
            async with self._stack:
                while True:
                    await self._bring()
                    while self._incoming.is_complete:
                        await self._incoming.wait_for_change(math.inf)
        except (TransportError, ResourceError) as error:
            self._fail(error)
        finally:  # whoever still waits, or wants more, is told so; nothing is reserved for a file that is put away
            self._fail(TransportError(f"blob {self._request.blob_id.hex()} is not brought any more"))

    def _note_come(self) -> None:
        self._come.unpark_all()

    def _fail(self, error: TransportError | ResourceError) -> None:
        self._failure = self._failure or error
        self._opened.set()
        self._come.unpark_all()

    async def opened(self) -> Path:
        """Return its file, which has holes where nothing has come, once it is there.

        Raises:
            TransportError: the owner does not give it.
            ResourceError: no room here.
        """
        await self._opened.wait()
        return self._open.path

    def want(self, chunks: Iterable[int]) -> None:
        """Need chunks, and have brought what of them is not here, the first first; it has been ``opened``. They stay
        until they are ``let_go``. If the owner is gone, ``until_here`` tells.

        Raises:
            ResourceError: no room for all of them; none is needed then.
        """
        if self._failure is not None:
            return
        new = self._open.want(chunks)
        if new and self._incoming.swarm is not None:
            self._incoming.swarm.needs(new)
            self._incoming.changed()

    def let_go(self, chunks: Iterable[int]) -> None:
        """Undo ``want``."""
        if self._failure is None:
            self._open.let_go(chunks)
            self._come.unpark_all()

    async def until_here(self, chunks: Iterable[int]) -> None:
        """Wait for chunks, each until it is here or needed by nobody any more.

        Raises:
            TransportError: the owner does not give them.
            ResourceError: no room here.
        """
        for index in chunks:
            while not self._open.arrivals.here[index] and self._open.is_needed(index):
                await self._come.park()

    @property
    def has_all(self) -> bool:
        """Whether the owner has given all chunks there are."""
        return self._incoming.partial is not None and self._incoming.partial.is_whole

    @property
    def _open(self) -> SparseBlob:
        if self._failure is not None:
            raise self._failure
        assert self._sparse is not None
        return self._sparse

    async def _open_partial(self, manifest: Manifest) -> PartialBlob:
        if manifest.size != self._request.size_bytes_max:
            raise PeerViolation(f"the blob has {manifest.size} bytes, not {self._request.size_bytes_max} as was said")
        opened = self._source.store.sparse.open(self._request.blob_id, self.owner, manifest)
        self._sparse = partial = await self._stack.enter_async_context(opened)
        partial.arrivals.listeners.add(self._note_come)
        self._stack.callback(partial.arrivals.listeners.discard, self._note_come)
        self._opened.set()
        return partial

    async def _pull(self, holder: PeerKey) -> None:
        async with self._turn:
            self._since_s = trio.current_time()
            await super()._pull(holder)
            self._excused = not self._incoming.is_complete

    def _may_linger(self) -> bool:
        return not self._turn.statistics().tasks_waiting

    def _gives_way(self) -> bool:
        return not self._may_linger() and trio.current_time() - self._since_s >= TURN_S

    def _meet(self, peers: tuple[PeerKey, ...]) -> None:
        """Others want other chunks."""
