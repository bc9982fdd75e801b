"""The journal under trio: many who wait share one transaction, and one thread writes.

The flow: ``write`` and ``write_soon`` queue statements in order; the writer takes all that have gathered,
applies them in one transaction in a thread, and tells everybody. A transaction takes about as long as the
disk needs to confirm (0.4 to 1.5 ms on an SSD), whatever it holds.

Who queues is bounded: a requester by its open tasks, a provider by its conversations.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue

import trio

from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.statements import Statement
from depin_node.core.errors import ResourceError

Then = Callable[[ResourceError | None], None]
"""Called when the statements are on disk, or with the reason why they are not."""
LINGER_S = 0.05
TRANSACTION_MAX = 2048
"""Queued writes in one transaction, so that none waits for ever."""


class JournalWriter:
    """Writes in the background, reads at once. ``reader`` is for short queries; it sees what was
    confirmed."""

    def __init__(self, path: Path) -> None:
        self._writing = Journal(path)
        self.reader = Journal(path)
        self._queue: list[tuple[list[Statement], Then]] = []
        self._wake = trio.Event()
        self._urgent = False
        self._closing = False
        self._batches: SimpleQueue[list[Statement] | None] = SimpleQueue()
        self._applied = trio.Event()
        self._error: ResourceError | None = None

    def write_soon(self, statements: Iterable[Statement], then: Then | None = None) -> None:
        """Queue statements; ``then`` is called from the writer, and must not raise."""
        self._queue.append((list(statements), then or _ignore))
        self._urgent = True
        self._wake.set()

    def write_lazily(self, statements: Iterable[Statement], then: Then | None = None) -> None:
        """Queue statements that may wait ``LINGER_S`` for others to share their transaction."""
        self._queue.append((list(statements), then or _ignore))
        if len(self._queue) == 1:
            self._wake.set()

    async def write(self, statements: Iterable[Statement]) -> None:
        """Write and wait until it survives a crash. If cancelled, it may or may not be written.

        Raises:
            ResourceError: nothing was written.
        """
        done = trio.Event()
        outcome: list[ResourceError | None] = []

        def note(error: ResourceError | None) -> None:
            outcome.append(error)
            done.set()

        self.write_soon(statements, note)
        await done.wait()
        if outcome[0] is not None:
            raise outcome[0]

    async def run(self) -> None:
        """Write until ``close`` was called and the queue is empty; not to be cancelled before."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_thread, trio.lowlevel.current_trio_token())
                try:
                    await self._write_all()
                finally:
                    self._batches.put(None)

    async def _write_all(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                await self._woken()
                continue
            if not self._urgent:
                with trio.move_on_after(LINGER_S):
                    while not self._urgent and not self._closing:
                        await self._woken()
            self._urgent = False
            batch, self._queue = self._queue[:TRANSACTION_MAX], self._queue[TRANSACTION_MAX:]
            error = await self._apply([statement for statements, _ in batch for statement in statements])
            for _, then in batch:
                then(error)

    async def _woken(self) -> None:
        self._wake = trio.Event()
        await self._wake.wait()

    async def _apply(self, statements: list[Statement]) -> ResourceError | None:
        self._applied = trio.Event()
        self._batches.put(statements)
        await self._applied.wait()
        return self._error

    async def _keep_thread(self, token: trio.lowlevel.TrioToken) -> None:
        """Keep a thread that applies batches: to wake it takes a third of ``to_thread.run_sync``'s time there and back.

        It ends with the batch that is None.
        """

        def note(error: ResourceError | None) -> None:
            self._error = error
            self._applied.set()

        def work() -> None:
            while (statements := self._batches.get()) is not None:
                try:
                    self._writing.apply(statements)
                except ResourceError as error:
                    token.run_sync_soon(note, error)
                else:
                    token.run_sync_soon(note, None)

        await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))

    def close(self) -> None:
        """Take no more; ``run`` ends when all is written."""
        self._closing = True
        self._wake.set()

    def release(self) -> None:
        """Close the files, after ``run`` has ended."""
        self._writing.close()
        self.reader.close()


def _ignore(error: ResourceError | None) -> None:
    """Do nothing: for what is good to have, and no promise."""


@asynccontextmanager
async def open_journal(path: Path) -> AsyncIterator[JournalWriter]:
    """Open the journal as long as the block runs; on the way out all that is queued is written.

    Raises:
        ConfigError, ResourceError: see ``Journal``.
    """
    writer = JournalWriter(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield writer
            finally:
                writer.close()
    finally:
        writer.release()
