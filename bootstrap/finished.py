"""What a provider has finished and its requester has not taken yet: kept, so that a restart or a broken connection does
not cost the work.

The flow: a result that took long enough is written down when it is committed to. When the same requester has the same
task of the same job run again, under whichever agreement, it is answered at once with what is here. Once the requester
has released the attempt, or after ``KEPT_S``, it is dropped. Results too large for the journal go where results that
stay go (``kept``).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import trio
from blake3 import blake3

from depin_node.bootstrap.kept import SWEEP_S, KeptResults, PutAhead, until_ns
from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.job import INLINE_BYTES_MAX
from depin_node.compute.jobs.schema import StoredFinished, StoredOutput
from depin_node.compute.market.messages import STAY_S, WorkBody
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import DepinError
from depin_node.core.wire import encode
from depin_node.crypto.blob import blob_id

log = structlog.get_logger("depin_node.provider")

LONG_S = 1.0
"""What takes less is computed again sooner than it is worth a place on the disk."""
KEPT_S = STAY_S
KEPT_MAX = 4096
_CONTEXT = "depin-node provider 2026 finished result v1"


class FinishedResults:
    """See the module; ``open_finished`` makes it."""

    def __init__(self, context: MarketContext, kept: KeptResults, nursery: trio.Nursery) -> None:
        self._context = context
        self._kept = kept
        self._nursery = nursery
        now = context.clock()
        now_s = now.wall_ns // SECOND_NS
        context.journal.write_lazily([statements.drop_finished_before(now_s)])
        names = context.journal.reader.finished_names(now_s)
        self._names = {name: until_ns(until_s, now) for name, until_s in names}  # until (boot ns)

    @staticmethod
    def name(owner: bytes, body: WorkBody, task: int) -> bytes:
        """Return what a result is found by: whose task of which job it is."""
        return blake3(owner + encode(body) + task.to_bytes(8, "little"), derive_key_context=_CONTEXT).digest()

    def remember(
        self,
        owner: bytes,
        body: WorkBody,
        task: int,
        outputs: Sequence[memoryview | PutAhead],
        elapsed_us: int,
        log: bytes,
    ) -> bytes | None:
        """Have a result written down, soon; return its name, or None if it is not worth it."""
        if elapsed_us < LONG_S * 1e6 or len(self._names) >= KEPT_MAX:
            return None
        name = self.name(owner, body, task)
        self._names[name] = self._context.clock().boottime_ns + KEPT_S * SECOND_NS
        self._nursery.start_soon(self._write, name, owner, list(outputs), elapsed_us, log)
        return name

    async def _write(
        self, name: bytes, owner: bytes, outputs: list[memoryview | PutAhead], elapsed_us: int, printed: bytes
    ) -> None:
        if sum(output.nbytes for output in outputs) <= INLINE_BYTES_MAX:
            views = [self._kept.view(output) if isinstance(output, PutAhead) else output for output in outputs]
            stored = tuple(StoredOutput(bytes(output), None) for output in views)
        elif all(await self._kept.keep(owner, [outputs])):
            ids = [output.blob if isinstance(output, PutAhead) else blob_id(output) for output in outputs]
            stored = tuple(StoredOutput(b"", blob) for blob in ids)
        else:
            self._names.pop(name, None)
            return
        if name not in self._names:  # it was taken meanwhile
            return
        until_s = self._context.clock().wall_ns // SECOND_NS + KEPT_S
        result = StoredFinished(stored, elapsed_us, printed)
        self._context.journal.write_lazily([statements.put_finished(name, result, until_s)])

    async def recall(
        self, owner: bytes, body: WorkBody, task: int
    ) -> tuple[bytes, list[memoryview], StoredFinished] | None:
        """Return the name, the outputs and the rest of a result that is here; None if it is not."""
        if not self._names:
            return None
        name = self.name(owner, body, task)
        stored = self._context.journal.reader.finished(name) if name in self._names else None
        if stored is None:
            return None
        store = self._context.blobs.store
        try:
            outputs = [
                memoryview(output.inline if output.blob is None else await store.read(output.blob))
                for output in stored.outputs
            ]
        except DepinError as error:  # it had to make room
            log.info("a finished result is gone", reason=str(error))
            self.forget(name)
            return None
        return name, outputs, stored

    def forget(self, name: bytes) -> None:
        """The requester has what it wanted."""
        if name in self._names:
            del self._names[name]
            self._context.journal.write_lazily([statements.drop_finished([name])])

    async def run(self) -> None:
        """Let go of what nobody asked for in time, for ever."""
        while True:
            now_ns = self._context.clock().boottime_ns
            over = [name for name, ends_ns in self._names.items() if ends_ns < now_ns]
            if over:
                for name in over:
                    del self._names[name]
                self._context.journal.write_lazily([statements.drop_finished(over)])
            await trio.sleep(SWEEP_S)


@asynccontextmanager
async def open_finished(context: MarketContext, kept: KeptResults) -> AsyncIterator[FinishedResults]:
    """Keep what is finished, and what was before a restart, as long as the block runs."""
    async with trio.open_nursery() as nursery:
        finished = FinishedResults(context, kept, nursery)
        nursery.start_soon(finished.run)
        yield finished
        nursery.cancel_scope.cancel()
