"""What the journal and the blob store have of jobs: whether one can run, and what became of it."""

import mmap
import os
import tempfile
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial

import trio

from depin_node.bootstrap.left_results import LeftResults
from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.job import Algebraic, Job, JobView, Quorum, Results, SignedJob, Verification
from depin_node.compute.jobs.schema import StoredOutput, StoredPart
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import follow_each_other, result_bytes, scatter_bytes
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.verification.checkable import operation_of
from depin_node.core.errors import ConfigError, ResourceError, TaskError, TransportError
from depin_node.core.views import NO_TASK, PROVISIONAL
from depin_node.crypto.blob import CHUNK_BYTES
from depin_node.crypto.envelope import read_kept
from depin_node.p2p.blob_store import BlobMissingError

GRANT_BLOBS_MAX = 64
PROGRAMS_KEPT_MAX = 16
TASKS_READ = 64
"""Results taken from the journal at a time."""
ROOTS_READ = 4096
"""Of so many it is seen at a time whether they are still what was told: a few milliseconds."""
TASKS_FETCHED = 8
"""Results that stayed with others are fetched so many at a time, while the ones before are read."""


class JobRecords:
    """Reads only. ``compute_again`` has the results of tasks computed anew, and waits for them."""

    def __init__(self, context: MarketContext, compute_again: Callable[[bytes, list[int]], Awaitable[None]]) -> None:
        self._context = context
        self._left = LeftResults(context)
        self._compute_again = compute_again
        self._programs: dict[bytes, Program] = {}
        self._going: set[tuple[bytes, bytes]] = set()  # let go, and not yet in the journal

    def signed(self, envelope: bytes) -> Job:
        """Return the job in its envelope, which this node signed."""
        return read_kept(envelope, SignedJob, self._context.network.network_id).job

    async def check(self, job: Job) -> Program:
        """Return the program of a job that can run here. Raises ``ConfigError`` with what is missing or does
        not fit."""
        store = self._context.blobs.store
        blobs = blobs_of(job)
        if len(blobs) > GRANT_BLOBS_MAX:
            raise ConfigError(
                f"the program and its inputs are {len(blobs)} blobs; at most {GRANT_BLOBS_MAX} can be granted"
            )
        for blob in blobs:
            if not store.has(blob):
                raise ConfigError(f"blob {blob.hex()} is not on this node: put the program and the inputs first")
        program = await self.program(job)
        if program.tasks != job.tasks:
            raise ConfigError(f"the job says {job.tasks} tasks, its program has {program.tasks}")
        if store.size_bytes(job.program) != job.program_bytes:
            raise ConfigError("the job gives its program another size than it has")
        if tuple(item.buffer for item in job.inputs) != program.inputs:
            raise ConfigError(f"the job's inputs are for other buffers than the program's, which are {program.inputs}")
        check_policy(job, program)
        for item in job.inputs:
            expected = program.buffers[item.buffer].size_bytes
            if not item.size_bytes == store.size_bytes(item.blob) == expected:
                name = program.buffers[item.buffer].name
                raise ConfigError(f"input {name} has {store.size_bytes(item.blob)} bytes, its shape says {expected}")
        return program

    async def program(self, job: Job) -> Program:
        """Return a job's program; the last few are kept decoded. Raises ``ConfigError``: it is refused, or damaged."""
        program = self._programs.pop(job.program, None)
        if program is None:
            try:
                program = decode_program(await self._context.blobs.store.read(job.program))
            except TaskError as error:
                raise ConfigError(f"the program is refused: {error}") from error
            except BlobMissingError as error:  # a power cut can do that
                raise ConfigError(f"the program is damaged, and gone: {error}; submit the job anew") from error
        self._programs[job.program] = program
        if len(self._programs) > PROGRAMS_KEPT_MAX:
            del self._programs[next(iter(self._programs))]
        return program

    def without_bytes(self, identifier: bytes, tasks: int) -> Iterator[int]:
        """Yield tasks whose accepted result lay in the blob store and is gone: a power cut can do that."""
        reader, store = self._context.journal.reader, self._context.blobs.store
        for first in range(0, tasks, TASKS_READ):
            for task, _, outputs in reader.results(identifier, first, TASKS_READ):
                is_gone = any(output.blob is not None and not store.has(output.blob) for output in outputs)
                if is_gone and not reader.holders(identifier, task):
                    yield task

    async def output(self, identifier: bytes, buffer: int, *, stays: bool = False) -> AsyncIterator[bytes]:
        """Yield what the tasks of a job that is done returned for a buffer, in task order.

        When all of it has been taken, the store may drop it to make room, unless it ``stays``: it would be fetched
        from who computed it, or be computed again.

        Raises:
            ConfigError: the buffer is no output of it.
            TransportError: it stayed with peers that are gone, and cannot be computed again.
            ResourceError: no room here for what stayed with others.
        """
        reader = self._context.journal.reader
        stored = reader.job(identifier)
        assert stored is not None
        job = self.signed(stored.envelope)
        program = await self.program(job)
        if buffer not in program.outputs:
            raise ConfigError(f"buffer {buffer} is not an output of this job; its outputs are {program.outputs}")
        position = program.outputs.index(buffer)
        step = TASKS_FETCHED if job.results is Results.STAY else TASKS_READ
        taken: set[bytes] = set()
        for first in range(0, job.tasks, step):
            await self._bring(identifier, first, step)
            for _, _, outputs in reader.results(identifier, first, step):
                async for part in self._bytes((outputs[position],)):
                    yield part
                if (blob := outputs[position].blob) is not None:
                    taken.add(blob)
        if not stays:
            self._let_go(identifier, taken)

    def _let_go(self, identifier: bytes, blobs: set[bytes]) -> None:
        """Keep results no longer than there is room: their owner has them."""
        context = self._context
        going = {(identifier, blob) for blob in context.journal.reader.held_by(identifier) & blobs} - self._going
        self._going |= going
        for _, blob in going:
            context.blobs.store.unpin(blob)

        def note(error: ResourceError | None) -> None:
            if error is None:
                self._going -= going

        if going:
            context.journal.write_lazily([statements.let_go(identifier, [blob for _, blob in going])], note)

    async def parts(
        self, identifier: bytes, job: Job, *, in_order: bool, more: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """Yield what tasks returned as it is accepted: each ``task u32 LE``, with ``PROVISIONAL`` added if it is not
        settled, then its outputs in the program's order. ``NO_TASK`` in its place is a sign of life, and has nothing
        behind it. What was void, and has another result by the end, comes once more.

        Args:
            identifier: of the job.
            job: the job.
            in_order: in task order, else in the order in which they were accepted.
            more: waits for more; False if there will be none.

        Raises:
            TransportError, ResourceError: as ``output``.
        """
        reader, task, row = self._context.journal.reader, 0, 0
        told = array("Q", bytes(8 * job.tasks))  # a mark of each result that was yielded
        goes_on = True
        while True:
            if in_order:
                found = reader.parts(identifier, task, TASKS_READ)
                ready = [part for at, part in enumerate(found, task) if part.task == at]
            else:
                ready = reader.parts_since(identifier, row, TASKS_READ)
            async for data in self._parts(identifier, ready, told):
                yield data
            if ready:
                row, task = ready[-1].row, ready[-1].task + 1
            elif goes_on:
                yield NO_TASK.to_bytes(4, "little")
                goes_on = await more()  # what came with the last news is looked for once more
            else:
                break
        for first in range(0, job.tasks, ROOTS_READ):
            await trio.lowlevel.checkpoint()
            for other, root in reader.roots(identifier, first, ROOTS_READ):
                if told[other] != _mark(root):
                    async for data in self._parts(identifier, reader.parts(identifier, other, 1), told):
                        yield data

    async def _parts(self, identifier: bytes, found: Iterable[StoredPart], told: "array[int]") -> AsyncIterator[bytes]:
        """Yield those parts that ``told`` has no mark of, or that of another result; and mark them."""
        for part in found:
            if told[part.task] == _mark(part.root):
                continue
            if self._left.missing(part.outputs):  # it was taken once, and made room
                await self._bring(identifier, part.task, 1)
                part = next(iter(self._context.journal.reader.parts(identifier, part.task, 1)), part)
            told[part.task] = _mark(part.root)
            yield (part.task + PROVISIONAL * part.is_provisional).to_bytes(4, "little")
            async for data in self._bytes(part.outputs):
                yield data

    async def _bytes(self, outputs: tuple[StoredOutput, ...]) -> AsyncIterator[bytes]:
        store = self._context.blobs.store
        for output in outputs:
            if output.blob is None:
                yield output.inline
                continue
            for index in range(-(-store.size_bytes(output.blob) // CHUNK_BYTES)):
                yield await store.read_chunk(output.blob, index)

    async def _bring(self, identifier: bytes, first: int, count: int) -> None:
        """Fetch the results of some tasks that stayed with others; those that are gone are computed again."""
        for is_last in (False, True):
            results = self._context.journal.reader.results(identifier, first, count)
            lost = await self._left.bring(identifier, [(task, outputs) for task, _, outputs in results])
            if not lost:
                return
            if is_last:
                raise TransportError(f"the results of tasks {lost} were computed again, and lost again; ask once more")
            await self._compute_again(identifier, lost)

    async def assemble(self, identifier: bytes, buffer: int) -> bytes:
        """Put an output of a job that is done together, in C order, as one blob, and return its id.

        Raises:
            ConfigError: the buffer is no output of it.
            ResourceError: no room.
        """
        store = self._context.blobs.store
        stored = self._context.journal.reader.job(identifier)
        assert stored is not None
        program = await self.program(self.signed(stored.envelope))
        parts = self.output(identifier, buffer, stays=True)
        size_bytes = program.buffers[buffer].size_bytes if buffer in program.outputs else 0
        if not size_bytes or follow_each_other(program, buffer):
            return await store.put_stream(parts, size_bytes_max=size_bytes, durable=True)
        with tempfile.TemporaryFile(dir=store.folder) as file:
            os.truncate(file.fileno(), size_bytes)
            whole = mmap.mmap(file.fileno(), size_bytes)
            await self._scatter(program, buffer, parts, whole)
            return await store.put(memoryview(whole), durable=True)

    async def _scatter(self, program: Program, buffer: int, parts: AsyncIterator[bytes], whole: mmap.mmap) -> None:
        """Put the parts of an output, task by task, in their places."""
        position = program.outputs.index(buffer)
        task, waiting = 0, bytearray()
        async for part in parts:
            waiting += part
            while task < program.tasks and len(waiting) >= (size := result_bytes(program, task, position)):
                data = bytes(waiting[:size])
                del waiting[:size]
                await self._context.blobs.store.in_thread(partial(scatter_bytes, program, task, position, data, whole))
                task += 1


def _mark(root: bytes) -> int:
    """Return what stands for a result in a list of those that were told: never 0."""
    return int.from_bytes(root[:8], "little") | 1


def check_policy(job: Job, program: Program) -> None:
    """Raises ``ConfigError`` if a job's policy does not go with its program."""
    if job.tolerances and len(job.tolerances) != len(program.outputs):
        raise ConfigError(f"the job has {len(job.tolerances)} tolerances, its program {len(program.outputs)} outputs")
    is_checked = isinstance(job.policy, Algebraic)
    if is_checked and (operation_of(program) is None or not job.tolerances):
        raise ConfigError("no algebraic check judges this program: use quorum, lead or confidence")
    is_single = isinstance(job.policy, Quorum) and job.policy.k == 1
    if not program.exact and not job.tolerances and not is_single:
        raise ConfigError("the program's bits are not defined: the job has to say how far numbers may be apart")


def blobs_of(job: Job) -> list[bytes]:
    """Return the program and the inputs, each once."""
    return list(dict.fromkeys([job.program, *(item.blob for item in job.inputs)]))


def queued(identifier: bytes, job: Job) -> JobView:
    """Return how a job is shown that nobody has begun with."""
    return JobView(
        id=identifier.hex(),
        name=job.name,
        state="queued",
        tasks_total=job.tasks,
        tasks_done=0,
        tasks_running=0,
        attempts_failed=0,
        providers=(),
        created_s=float(job.created_s),
        started_s=None,
        finished_s=None,
        error=None,
        stages_s={},
        verification=Verification(0, 0, ()),
    )
