"""Results that stay with their provider: put away as blobs, served to whom their requester grants them, for ``STAY_S``.

The flow: a requester that wants an answer's bytes to stay has them ``keep``-ed before the answer is shown: from then on
they survive a restart, for as long as was promised. Then they are like any other blob that nobody has pinned, and go
when room is needed. All kept results together have at most ``SHARE`` of the store: strangers' results never crowd out
what the node's own jobs need.
"""

import heapq
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.statements import Statement
from depin_node.compute.market.messages import STAY_S
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import ResourceError

log = structlog.get_logger("depin_node.provider")

SHARE = 0.5
KEPT_MAX = 65_536
"""Blobs; a journal row and some hundred bytes of memory each."""
SWEEP_S = 30.0


class KeptResults:
    """What this node keeps for requesters; ``open_kept`` makes it."""

    def __init__(self, context: MarketContext) -> None:
        self._context = context
        self._ends: list[tuple[int, bytes, bytes, int]] = []  # until (wall s), owner, blob, size
        self._bytes = 0
        for owner, blob, size_bytes, until_s in context.journal.reader.kept():
            if context.blobs.store.has(blob):
                self._note(owner, blob, size_bytes, until_s)

    async def keep(self, owner: bytes, results: Sequence[Sequence[memoryview]]) -> list[bool]:
        """Put the outputs of tasks away for ``owner``; return False for each for which there is no room. Afterwards
        they survive a crash of this process."""
        store, kept, size_bytes = self._context.blobs.store, list[bool](), self._bytes
        count = len(self._ends)
        for outputs in results:
            more_bytes = sum(map(len, outputs))
            has_room = size_bytes + more_bytes <= SHARE * store.quota_bytes and count + len(outputs) <= KEPT_MAX
            kept.append(has_room)
            if has_room:
                size_bytes, count = size_bytes + more_bytes, count + len(outputs)
        staying = [output for outputs, stays in zip(results, kept, strict=True) if stays for output in outputs]
        until_s = self._context.clock().wall_ns // SECOND_NS + STAY_S
        writes: list[Statement] = []
        try:
            for blob, output in zip(await store.put_all(staying), staying, strict=True):
                self._note(owner, blob, len(output), until_s)
                writes.append(statements.put_kept(owner, blob, len(output), until_s))
            await self._context.journal.write(writes)
        except ResourceError as error:
            log.warning("no room for results that were to stay", reason=str(error))
            return [False] * len(results)
        return kept

    def _note(self, owner: bytes, blob: bytes, size_bytes: int, until_s: int) -> None:
        self._context.blobs.store.pin(blob)
        self._context.blobs.note_owner(blob, owner)
        self._bytes += size_bytes
        heapq.heappush(self._ends, (until_s, owner, blob, size_bytes))

    async def run(self) -> None:
        """Let go of what was kept for long enough, for ever."""
        while True:
            now_s = self._context.clock().wall_ns // SECOND_NS
            while self._ends and self._ends[0][0] < now_s:
                _, _, blob, size_bytes = heapq.heappop(self._ends)
                self._bytes -= size_bytes
                self._context.blobs.store.unpin(blob)
            self._context.journal.write_lazily([statements.drop_kept(now_s)])
            await trio.sleep(SWEEP_S)


@asynccontextmanager
async def open_kept(context: MarketContext) -> AsyncIterator[KeptResults]:
    """Keep what was promised before a restart, and what will be, as long as the block runs."""
    kept = KeptResults(context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        yield kept
        nursery.cancel_scope.cancel()
