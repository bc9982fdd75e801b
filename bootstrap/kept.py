"""Results that stay with their provider: put away as blobs, served to whom their requester grants them, for ``STAY_S``.

The flow: a requester that wants an answer's bytes to stay has them ``keep``-ed before the answer is shown: from then on
they survive a restart, for as long as was promised. Then they are like any other blob that nobody has pinned, and go
when room is needed. Where others of a work were asked for, those that follow are ``put_ahead``: in the store as soon as
they are there, and only noted when they are asked for. All kept results together have at most ``SHARE`` of the store:
strangers' results never crowd out what the node's own jobs need.
"""

import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.statements import Statement
from depin_node.compute.market.messages import STAY_S
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ResourceError
from depin_node.p2p.blob_files import map_file

log = structlog.get_logger("depin_node.provider")

SHARE = 0.5
KEPT_MAX = 65_536
"""Blobs; a journal row and some hundred bytes of memory each."""
SWEEP_S = 30.0


def until_ns(until_s: int, now: Now) -> int:
    """Return, on the boot clock, when a promise of a run before ends that was noted by wall time (s): all that is told
    of it. In this run it ends then, however the wall clock is set."""
    left_s = min(STAY_S, until_s - now.wall_ns // SECOND_NS)
    return now.boottime_ns + left_s * SECOND_NS


@dataclass(frozen=True)
class PutAhead:
    """An output that is in the store already; nobody has asked for it yet."""

    blob: bytes
    nbytes: int


class KeptResults:
    """What this node keeps for requesters; ``open_kept`` makes it."""

    def __init__(self, context: MarketContext) -> None:
        self._context = context
        self._ends: list[tuple[int, int, bytes, bytes, int]] = []  # until (boot ns; wall s), owner, blob, size
        self._bytes = self._ahead_bytes = 0
        now = context.clock()
        context.journal.write_lazily([statements.drop_kept_before(now.wall_ns // SECOND_NS)])
        for owner, blob, size_bytes, until_s in context.journal.reader.kept():
            if context.blobs.store.has(blob):
                self._note(owner, blob, size_bytes, until_ns(until_s, now), until_s)

    async def keep(self, owner: bytes, results: Sequence[Sequence[memoryview | PutAhead]]) -> list[bool]:
        """Put the outputs of tasks away for ``owner``; return False for each for which there is no room. Afterwards
        they survive a crash of this process."""
        store, kept = self._context.blobs.store, self._have_room(results, self._bytes)
        staying = [output for outputs, stays in zip(results, kept, strict=True) if stays for output in outputs]
        now = self._context.clock()
        until_s = now.wall_ns // SECOND_NS + STAY_S
        writes: list[Statement] = []
        try:
            put = iter(await store.put_all([output for output in staying if not isinstance(output, PutAhead)]))
            for output in staying:
                blob = output.blob if isinstance(output, PutAhead) else next(put)
                self._note(owner, blob, output.nbytes, now.boottime_ns + STAY_S * SECOND_NS, until_s)
                writes.append(statements.put_kept(owner, blob, output.nbytes, until_s))
            await self._context.journal.write(writes)
        except ResourceError as error:
            log.warning("no room for results that were to stay", reason=str(error))
            return [False] * len(results)
        return kept

    async def put_ahead(self, results: Sequence[Sequence[memoryview]]) -> list[list[PutAhead]]:
        """Store the outputs of tasks that will probably be asked to stay, and hold them until they are ``let_go``; of
        each task all, or none where there is no room."""
        store, have_room = self._context.blobs.store, self._have_room(results, self._bytes + self._ahead_bytes)
        try:
            staying = [output for outputs, fits in zip(results, have_room, strict=True) if fits for output in outputs]
            blobs = iter(await store.put_all(staying))
        except ResourceError:  # it is said when they are asked for
            return [[] for _ in results]
        ahead = [
            [PutAhead(next(blobs), output.nbytes) for output in outputs] if fits else []
            for outputs, fits in zip(results, have_room, strict=True)
        ]
        for output in (output for outputs in ahead for output in outputs):
            store.pin(output.blob)
            self._ahead_bytes += output.nbytes
        return ahead

    def let_go(self, ahead: Iterable[PutAhead]) -> None:
        """Undo ``put_ahead``: what nobody has asked for may be dropped when room is needed."""
        for output in ahead:
            self._context.blobs.store.unpin(output.blob)
            self._ahead_bytes -= output.nbytes

    def view(self, output: PutAhead) -> memoryview:
        """Return the bytes of what is held."""
        return map_file(self._context.blobs.store.path(output.blob))

    def _have_room(self, results: Sequence[Sequence[memoryview | PutAhead]], size_bytes: int) -> list[bool]:
        """Tell for each task whether there is room for its outputs besides ``size_bytes`` and those before it."""
        store, count, fits = self._context.blobs.store, len(self._ends), list[bool]()
        for outputs in results:
            more_bytes = sum(output.nbytes for output in outputs)
            is_here = all(store.has(output.blob) for output in outputs if isinstance(output, PutAhead))
            has_room = size_bytes + more_bytes <= SHARE * store.quota_bytes and count + len(outputs) <= KEPT_MAX
            fits.append(is_here and has_room)
            if fits[-1]:
                size_bytes, count = size_bytes + more_bytes, count + len(outputs)
        return fits

    def _note(self, owner: bytes, blob: bytes, size_bytes: int, ends_ns: int, until_s: int) -> None:
        self._context.blobs.store.pin(blob)
        self._context.blobs.note_owner(blob, owner)
        self._bytes += size_bytes
        heapq.heappush(self._ends, (ends_ns, until_s, owner, blob, size_bytes))

    async def run(self) -> None:
        """Let go of what was kept for long enough, for ever."""
        while True:
            now_ns, over = self._context.clock().boottime_ns, list[tuple[bytes, bytes, int]]()
            while self._ends and self._ends[0][0] < now_ns:
                _, until_s, owner, blob, size_bytes = heapq.heappop(self._ends)
                self._bytes -= size_bytes
                self._context.blobs.store.unpin(blob)
                over.append((owner, blob, until_s))
            if over:
                self._context.journal.write_lazily([statements.drop_kept(over)])
            await trio.sleep(SWEEP_S)


@asynccontextmanager
async def open_kept(context: MarketContext) -> AsyncIterator[KeptResults]:
    """Keep what was promised before a restart, and what will be, as long as the block runs."""
    kept = KeptResults(context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        yield kept
        nursery.cancel_scope.cancel()
