"""Attempts that wait for their parts of inputs: where arrays are cut, a task is given some rows of each.

A lender needs of such arrays what its own tasks are given, and runs the first of them while the parts of others are on
their way. What is handed to a lane has all that it needs. Attempts go on in the order in which they came; where there
is no room for the parts of one, it waits until others before it have ended, whose parts can then go.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import trio

from depin_node.compute.jobs.job import InputRef
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.slices import byte_ranges, held_bytes_max, is_in_rows
from depin_node.core.errors import ResourceError
from depin_node.crypto.blob import CHUNK_BYTES
from depin_node.p2p.blob_parts import Parts

PARTS_BYTES_MIN: Final = 8 << 20
"""Smaller inputs are fetched whole."""
PART_BYTES_MAX: Final = 1 << 30
"""So are those of which a task is given more: its chunks are counted one by one."""


class Inputs(NamedTuple):
    """How a work's inputs are here: of those in ``parts``, by buffer index, the parts of tasks of ``program``."""

    program: Program | None = None
    parts: Mapping[int, Parts] = {}


class Arriving:
    """Of one work. ``inputs``: those that come in parts, by buffer index; ``ready`` takes (attempt, task)."""

    def __init__(
        self, program: Program, inputs: Mapping[int, Parts], ready: Callable[[Sequence[tuple[int, int]]], None]
    ) -> None:
        self._program = program
        self._inputs = inputs
        self._ready = ready
        self._waiting: dict[int, int] = {}
        self._unasked: deque[tuple[int, int]] = deque()
        """The last of those that wait: their parts have not been asked for."""
        self._holding: dict[int, int] = {}
        """Attempts whose parts were asked for, and which have not ended."""
        self._no_room: ResourceError | None = None
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, items: Iterable[tuple[int, int]]) -> None:
        """Have the parts of attempts brought."""
        for attempt, task in items:
            self._waiting[attempt] = task
            self._unasked.append((attempt, task))
        self._ask()

    def drop(self, attempts: Iterable[int]) -> None:
        """Forget attempts, of this work or others, which have ended: nobody needs their parts any more."""
        for attempt in attempts:
            self._waiting.pop(attempt, None)
            task = self._holding.pop(attempt, None)
            if task is not None:
                self._let_go(task)
        self._ask()

    def take_all(self) -> list[tuple[int, int]]:
        """Return what still waits, and forget it."""
        waiting, self._waiting = list(self._waiting.items()), {}
        return waiting

    async def run(self) -> None:
        """Hand on what has come, until cancelled.

        Raises:
            TransportError: the owner does not give it.
            ResourceError: no room here for what a single task is given.
        """
        while True:
            while not self._waiting:
                await self._changed.park()
            attempt, task = next(iter(self._waiting.items()))
            if attempt not in self._holding:
                if not self._holding and self._no_room is not None:
                    raise self._no_room
                await self._changed.park()
                continue
            for parts, chunks in self._needs(task):
                await parts.until_here(chunks)
            if self._waiting.pop(attempt, None) is not None:
                self._ready([(attempt, task)])

    @asynccontextmanager
    async def having(self, task: int) -> AsyncIterator[None]:
        """Have all that a task is given here, brought if need be, as long as the block runs. Raises as ``run``."""
        self._want(task)
        try:
            for parts, chunks in self._needs(task):
                await parts.until_here(chunks)
            yield
        finally:
            self._let_go(task)
            self._ask()

    def _ask(self) -> None:
        """Have parts brought, in order, as far as there is room for them."""
        self._no_room = None
        while self._unasked and self._no_room is None:
            attempt, task = self._unasked[0]
            try:
                if attempt in self._waiting:
                    self._want(task)
                    self._holding[attempt] = task
                self._unasked.popleft()
            except ResourceError as error:
                self._no_room = error
        self._changed.unpark_all()

    def _want(self, task: int) -> None:
        wanted: list[tuple[Parts, list[int]]] = []
        try:
            for parts, chunks in self._needs(task):
                parts.want(chunks)
                wanted.append((parts, chunks))
        except ResourceError:
            for parts, chunks in wanted:
                parts.let_go(chunks)
            raise

    def _let_go(self, task: int) -> None:
        for parts, chunks in self._needs(task):
            parts.let_go(chunks)

    def _needs(self, task: int) -> list[tuple[Parts, list[int]]]:
        if task >= self._program.tasks:
            return []  # who runs it finds out
        return [
            (parts, chunks_of(byte_ranges(self._program, self._program.buffers[index], task)))
            for index, parts in self._inputs.items()
        ]


def comes_in_parts(program: Program, item: InputRef) -> bool:
    """Tell whether lenders get of an input what their tasks are given: rows, which lie together in its bytes."""
    buffer = program.buffers[item.buffer] if item.buffer < len(program.buffers) else None
    if buffer is None or not is_in_rows(buffer) or buffer.size_bytes != item.size_bytes:
        return False
    return item.size_bytes >= PARTS_BYTES_MIN and held_bytes_max(program, buffer) <= PART_BYTES_MAX


def part_bytes(program: Program, inputs: Iterable[InputRef]) -> int:
    """Return how many bytes of such inputs a task is given, in the mean."""
    return sum(item.size_bytes for item in inputs if comes_in_parts(program, item)) // program.tasks


def chunks_of(ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the numbers of the chunks in which bytes lie, each once."""
    found = (index for start, end in ranges for index in range(start // CHUNK_BYTES, -(-end // CHUNK_BYTES)))
    return list(dict.fromkeys(found))
