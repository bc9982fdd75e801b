"""What runs under one agreement: queued attempts, which lanes take (``lanes.py``), and their results.

Attempts whose inputs come in parts wait until theirs are here (``arriving.py``). Results are copied out of the worker's
memory and wait here until they are released; or in the store, once a work has had some stay there. With the last lane
the agreement ends.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from depin_node.bootstrap.arriving import Arriving, Inputs
from depin_node.bootstrap.kept import PutAhead
from depin_node.bootstrap.lanes import Lane, Work, fail_code
from depin_node.bootstrap.turns import Turns
from depin_node.compute.jobs.job import INLINE_BYTES_MAX
from depin_node.compute.jobs.schema import StoredFinished
from depin_node.compute.market import orders as market
from depin_node.compute.market.messages import FRAME_BYTES_MAX, FailCode, Kind, Output, WorkBody
from depin_node.compute.market.provider import ProviderTalk
from depin_node.compute.market.transfer import frames as data_frames
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.compute.sandbox.messages import UNNAMED
from depin_node.compute.sandbox.pool import Output as Made
from depin_node.compute.sandbox.pool import Result
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import DepinError, ResourceError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.identity import peer_id
from depin_node.p2p.frames import FRAME_HEADER_BYTES, put_frame

log = structlog.get_logger("depin_node.provider")

DATA_BYTES_AT_ONCE = 256 * 1024
"""Result bytes in one write; signed messages pass between two writes."""


class Supplier(Protocol):
    """What a shop needs of its node."""

    def at_hand(self, requester: bytes, order: market.Prepare, work: "Work") -> bool:
        """Take a work's blobs, and pin them, if all are here; tell whether that is so."""

    def fetched(
        self, requester: bytes, order: market.Prepare, work: "Work", *, in_parts: bool
    ) -> AbstractAsyncContextManager[Inputs]:
        """Get a work's blobs, and pin them; some inputs may come ``in_parts``, as long as the block runs."""

    async def read(self, blob: bytes) -> bytes:
        """Return the bytes of a blob that was fetched."""

    def ran(self, requester: bytes, device: int, duration_ns: int) -> int:
        """Note slot time that was used; return the energy that it took, in mJ."""

    def unpin(self, work: "Work") -> None:
        """Let a work's blobs go."""

    def remember(
        self,
        owner: bytes,
        body: WorkBody,
        task: int,
        outputs: Sequence[memoryview | PutAhead],
        elapsed_us: int,
        log: bytes,
    ) -> bytes | None:
        """Keep a result until its requester takes it; return its name, if it is worth it."""

    async def recall(
        self, owner: bytes, body: WorkBody, task: int
    ) -> tuple[bytes, list[memoryview], StoredFinished] | None:
        """Return a result of before that its requester has not taken."""

    def forget_finished(self, name: bytes) -> None:
        """A result was taken."""

    async def keep(self, owner: bytes, results: Sequence[Sequence[memoryview | PutAhead]]) -> list[bool]:
        """Put results away for the node that owns them; False for each for which there is no room."""

    async def put_ahead(self, results: Sequence[Sequence[memoryview]]) -> list[list[PutAhead]]:
        """Store results that will probably have to be kept; nothing of each for which there is no room."""

    def let_go(self, ahead: Iterable[PutAhead]) -> None:
        """Undo ``put_ahead``."""

    def view(self, output: PutAhead) -> memoryview:
        """Return the bytes of what was put ahead."""


@dataclass
class _Finished:
    """A result that its requester has not released."""

    work: int
    outputs: Sequence[memoryview | PutAhead]

    def ahead(self) -> list[PutAhead]:
        """Return those of the outputs that are in the store."""
        return [output for output in self.outputs if isinstance(output, PutAhead)]


class Shop:
    """All that runs under one agreement."""

    def __init__(
        self,
        supplier: Supplier,
        pools: Sequence[AnyPool],
        talk: ProviderTalk,
        clock: Callable[[], Now],
        wake: Callable[[], None],
    ) -> None:
        """``pools``: of all devices; ``wake`` is called when the machine may have something to send."""
        self._supplier = supplier
        self._pools = pools
        self._talk = talk
        self._clock = clock
        self._wake = wake
        self.scope = trio.CancelScope()
        self._works: dict[int, Work] = {}
        self._turns = Turns()
        self._released: set[int] = set()  # running attempts whose result nobody wants
        self._running: set[int] = set()
        self._finished: dict[int, _Finished] = {}
        self._staying: set[int] = set()  # works that have had results stay
        self._remembered: dict[int, bytes] = {}  # attempts whose result is on the disk, by which name
        self._upload: Iterator[tuple[bytes, memoryview]] | None = None
        self._outgoing = memoryview(b"")  # frames of data; used again, since new memory costs as much as to fill it
        self._arrived = trio.lowlevel.ParkingLot()
        self._takes_parts = False

    # Orders.

    def open(self, order: market.Open) -> None:
        """Note which devices there are, before anything else."""
        self._takes_parts = all(self._pools[device].maps_inputs for device in order.shares)

    async def run(self, order: market.Open) -> None:
        """Keep a lane for each slot until the agreement is over, or all its devices are withdrawn."""
        devices = [device for device, slots in order.shares.items() for _ in range(slots)]
        with self.scope:
            async with trio.open_nursery() as nursery:
                for number, device in enumerate(devices):
                    lane = Lane(self, f"{order.agreement.hex()[:8]}/{number}", device, self._pools[device])
                    nursery.start_soon(lane.run)

    def has_all(self, order: market.Prepare) -> bool:
        """Let a work's attempts run at once if its blobs are here; tell whether that is so."""
        is_here = self._supplier.at_hand(self._talk.peer, order, self._works[order.work])
        if is_here:
            self._set_ready(order.work)
        return is_here

    async def prepare(self, order: market.Prepare) -> None:
        """Fetch a work's program and inputs; what fails is told to each of its attempts."""
        work = self._works.get(order.work)
        if work is None:  # closed before its turn came
            return
        with work.scope:
            try:
                async with self._supplier.fetched(self._talk.peer, order, work, in_parts=self._takes_parts) as inputs:
                    await self._run_over(order.work, work, inputs)
            except ResourceError as error:
                work.failure = FailCode.RESOURCE
                log.warning("no room for a job's blobs", reason=str(error))
            except DepinError as error:
                work.failure = FailCode.NO_BLOB
                log.info("a job's blobs could not be had", peer=peer_id(self._talk.peer), reason=str(error))
            if work.failure is not None and self._works.get(order.work) is work:  # not closed meanwhile
                waiting, work.arriving = work.arriving.take_all() if work.arriving is not None else [], None
                self._turns.add(order.work, waiting)
                self._set_ready(order.work)

    async def _run_over(self, number: int, work: Work, inputs: Inputs) -> None:
        """Let the attempts of a work run; where inputs come in parts, as they come."""
        if inputs.program is None:
            self._set_ready(number)
            return

        def ready(items: Sequence[tuple[int, int]]) -> None:
            self._turns.add(number, items)
            self._arrived.unpark_all()

        work.arriving = Arriving(inputs.program, inputs.parts, ready)
        work.arriving.add(self._turns.take(number, sys.maxsize))
        self._set_ready(number)
        await work.arriving.run()

    def _set_ready(self, number: int) -> None:
        self._turns.ready(number)
        self._arrived.unpark_all()

    def add_work(self, order: market.Prepare) -> None:
        """Note a work before its first attempt comes."""
        self._works[order.work] = Work(order.body)
        self._turns.open(order.work)

    def add(self, order: market.Run) -> None:
        """Queue attempts."""
        arriving = self._works[order.work].arriving
        if arriving is not None:
            arriving.add(order.items)
            return
        self._turns.add(order.work, order.items)
        self._arrived.unpark_all()

    async def keep(self, order: market.Keep) -> None:
        """Put results away that are to stay here: what is asked for together is told together."""
        wanted = {attempt: self._finished[attempt] for attempt in order.attempts if attempt in self._finished}
        self._staying.update(finished.work for finished in wanted.values())
        are_here = await self._supplier.keep(self._talk.peer, [finished.outputs for finished in wanted.values()])
        for attempt, is_here in zip(wanted, are_here, strict=True):
            self._talk.kept(attempt, is_here=is_here)
        self._wake()

    def free(self, attempts: list[int]) -> None:
        """Drop attempts: their bytes, their place in the queue, or their result to come."""
        waiting = set()
        for attempt in attempts:
            name = self._remembered.pop(attempt, None)
            if name is not None and not self._talk.is_over():  # a conversation that broke has taken nothing
                self._supplier.forget_finished(name)
            finished = self._finished.pop(attempt, None)
            if finished is not None:
                self._supplier.let_go(finished.ahead())
            elif attempt in self._running:
                self._released.add(attempt)
            else:
                waiting.add(attempt)
        if waiting:
            self._turns.drop(waiting)
            self._need_no_inputs(waiting)

    def _need_no_inputs(self, attempts: Iterable[int]) -> None:
        """Attempts have ended, or will not run."""
        for work in self._works.values():
            if work.arriving is not None:
                work.arriving.drop(attempts)

    def forget(self, number: int) -> None:
        """A work is closed: its blobs may be dropped."""
        work = self._works.pop(number, None)
        self._staying.discard(number)
        self._turns.close(number)
        if work is not None:
            work.scope.cancel()
            self._supplier.unpin(work)

    def work_of(self, job: bytes) -> Work | None:
        """Return the open work of a job, once its blobs are here."""
        works = (work for number, work in self._works.items() if self._turns.is_ready(number))
        return next((work for work in works if work.body.job == job and work.failure is None), None)

    def close(self) -> None:
        """The agreement is over: kill the workers."""
        self.scope.cancel()
        for number in list(self._works):
            self.forget(number)
        self.free(list(self._finished))

    # What lanes ask.

    async def next_work(self, staying: int) -> tuple[int, Work]:
        """Wait until something can run on a slot that has run attempts of work ``staying`` (-1: none); return whose."""
        while (number := self._turns.next(staying)) is None:
            await self._arrived.park()
        return number, self._works[number]

    def is_next(self, number: int) -> bool:
        """Tell whether a slot that has run attempts of work ``number`` is to run more of them."""
        return self._turns.next(number) == number

    def take(self, number: int, count: int) -> list[tuple[int, int]]:
        """Take at most ``count`` attempts of work ``number``, the oldest first."""
        taken = self._turns.take(number, count)
        self._running.update(attempt for attempt, _ in taken)
        return taken

    def give_back(self, number: int, items: list[tuple[int, int]]) -> None:
        """Put attempts of work ``number`` that were taken, and did not run, back to be the next of it."""
        self._running.difference_update(attempt for attempt, _ in items)
        self._turns.put_back(number, items)
        self._arrived.unpark_all()

    def let_go(self, ahead: Sequence[PutAhead]) -> None:
        """Undo ``put_ahead`` for a result that nobody waits for any more."""
        self._supplier.let_go(ahead)

    def is_wanted(self, attempt: int) -> bool:
        """Tell whether a running attempt was not released."""
        return attempt not in self._released

    async def read_program(self, work: Work) -> bytes:
        """Return the bytes of a work's program."""
        return await self._supplier.read(work.body.program)

    def now_ns(self) -> int:
        """Return the time of the boot clock."""
        return self._clock().boottime_ns

    def loaded(self, number: int, device: int, duration_ns: int) -> None:
        """Note the time that it took to load a work's program, or to fail at it: slot time like that of its tasks."""
        self._turns.served(number, duration_ns / SECOND_NS)
        self._supplier.ran(self._talk.peer, device, duration_ns)

    async def hand_in(self, number: int, attempt: int, task: int) -> bool:
        """Answer an attempt with what was finished before a restart, or a broken connection; False if nothing was."""
        peer, work = self._talk.peer, self._works.get(number)
        found = await self._supplier.recall(peer, work.body, task) if work is not None else None
        if found is None:
            return False
        name, results, stored = found
        self._running.discard(attempt)
        self._need_no_inputs([attempt])
        if attempt in self._released:
            self._released.discard(attempt)
            return True
        self._remembered[attempt] = name
        self._finished[attempt] = _Finished(number, list(results))
        outputs = tuple(Output(blob_id(result), result.nbytes) for result in results)
        self._talk.finished(attempt, outputs, stored.elapsed_us, stored.log)
        self._wake()
        return True

    def stay(self, number: int) -> bool:
        """Tell whether large results of a work will probably be asked to stay: others were."""
        return number in self._staying

    async def put_ahead(self, number: int, results: Sequence[Result]) -> dict[bytes, list[PutAhead]]:
        """Store large results of a work that has had others stay; return what is there, by the worker's name."""
        if not self.stay(number):
            return {}
        views = {result.attempt: [memoryview(output.data) for output in result.outputs] for result in results}
        large = {name: of for name, of in views.items() if sum(view.nbytes for view in of) > INLINE_BYTES_MAX}
        ahead = dict(zip(large, await self._supplier.put_ahead(list(large.values())), strict=True))
        if self.scope.cancel_called:
            for outputs in ahead.values():
                self._supplier.let_go(outputs)
            return {}
        return ahead

    def finished(self, number: int, attempt: int, result: Result, ahead: list[PutAhead], device: int) -> None:
        """Keep a result's bytes, unless they were put ``ahead``, and have it committed to."""
        self._running.discard(attempt)
        self._need_no_inputs([attempt])
        self._turns.served(number, result.duration_ns / SECOND_NS)
        energy_mj = self._supplier.ran(self._talk.peer, device, result.duration_ns)
        if attempt in self._released:
            self._released.discard(attempt)
            self._supplier.let_go(ahead)
            return
        if result.error is not None:
            self.failed(attempt, fail_code(result.error))
            return
        # Out of the worker's arena: that has room for a few results, the window is for many.
        kept: Sequence[memoryview | PutAhead] = ahead or [memoryview(bytes(output.data)) for output in result.outputs]
        self._finished[attempt] = _Finished(number, kept)
        outputs = tuple(Output(_name(*pair), pair[1].nbytes) for pair in zip(result.outputs, kept, strict=True))
        elapsed_us = result.duration_ns // 1000
        work = self._works.get(number)
        if work is not None:
            name = self._supplier.remember(self._talk.peer, work.body, result.task, kept, elapsed_us, result.log)
            if name is not None:
                self._remembered[attempt] = name
        self._talk.finished(attempt, outputs, elapsed_us, result.log, fuel=result.fuel, energy_mj=energy_mj)
        self._wake()

    def failed(self, attempt: int, code: FailCode) -> None:
        """Tell that an attempt ended without a result."""
        self._running.discard(attempt)
        self._need_no_inputs([attempt])
        self._released.discard(attempt)
        self._talk.failed(attempt, code, self._clock())
        self._wake()

    # What the writer asks.

    def data(self) -> memoryview:
        """Return the next frames of results that are to be sent, one behind the other; they are gone with the next
        call."""
        at = 0
        while at < DATA_BYTES_AT_ONCE:
            if self._upload is None:
                attempt = self._talk.next_upload()
                if attempt is None:
                    break
                outputs = self._finished[attempt].outputs
                views = [self._supplier.view(of) if isinstance(of, PutAhead) else of for of in outputs]
                self._upload = data_frames(attempt, views)
            parts = next(self._upload, None)
            if parts is None:
                self._upload = None
                continue
            if not self._outgoing:
                self._outgoing = memoryview(bytearray(DATA_BYTES_AT_ONCE + FRAME_HEADER_BYTES + FRAME_BYTES_MAX))
            at += put_frame(self._outgoing[at:], Kind.DATA, *parts)
        return self._outgoing[:at]


def _name(output: Made, stored: memoryview | PutAhead) -> bytes:
    """Return the id of an output's bytes: the store's, else the worker's, which may have been told not to hash it."""
    if isinstance(stored, PutAhead):
        return stored.blob
    return blob_id(stored) if output.blob_id == UNNAMED else output.blob_id
