"""What runs under one agreement: queued attempts, and for each slot of a device a lane that takes the next (``turns``).

A lane has one worker process at a time, loaded with the program of the work that is next; it goes on over other inputs
and with other programs of the same requester as long as it can, else the lane takes a fresh one. It keeps just enough
submitted that the worker never waits: no second task beside one that takes so long that nobody would notice. Results
are copied out of the worker's memory and wait here until they are released; or in the store, once a work has had some
stay there. A lane whose device is withdrawn ends, and
leaves what is queued to the others; with the last lane the agreement ends.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
import trio

from depin_node.bootstrap.arriving import Arriving, Inputs
from depin_node.bootstrap.kept import PutAhead
from depin_node.bootstrap.turns import Turns
from depin_node.compute.jobs.job import INLINE_BYTES_MAX
from depin_node.compute.jobs.schema import StoredFinished
from depin_node.compute.market import orders as market
from depin_node.compute.market.messages import FailCode, Kind, Output, WorkBody
from depin_node.compute.market.provider import ProviderTalk
from depin_node.compute.market.transfer import frames as data_frames
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.compute.sandbox.messages import UNNAMED
from depin_node.compute.sandbox.pool import Lease, Result
from depin_node.compute.sandbox.pool import Output as Made
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import DepinError, ResourceError, TaskError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.identity import peer_id
from depin_node.p2p.frames import Frame

log = structlog.get_logger("depin_node.provider")

AHEAD_S = 0.02
AHEAD_MAX = 64
"""A lane's worker holds so much work ahead: enough that it never waits, little enough that lanes end
together."""
ALONE_S = 0.5
"""A task that takes so long is alone in its worker: the gap before the next one is under a hundredth of it."""
STOP_AFTER_S = 0.25
"""A run that nobody wants any more is let go on for so long, or twice that; then its worker is killed."""
DATA_BYTES_AT_ONCE = 256 * 1024
"""Result bytes in one write; signed messages pass between two writes."""


class Supplier(Protocol):
    """What a shop needs of its node."""

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
class Work:
    """A job's program and inputs, as they are fetched."""

    body: WorkBody
    inputs: dict[int, Path] = field(default_factory=dict)
    failure: FailCode | None = None
    blobs: list[bytes] = field(default_factory=list)
    arriving: Arriving | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def has_program_of(self, other: "Work") -> bool:
        """Tell whether a worker that is loaded for ``other`` is for this one but for its inputs."""
        return self.body.program == other.body.program and self.body.terms.limits == other.body.terms.limits

    def is_as(self, other: "Work") -> bool:
        """Tell whether a worker that is loaded for ``other`` is for this one."""
        are_same = self.body.inputs == other.body.inputs and self.inputs == other.inputs  # not another file with holes
        return are_same and self.has_program_of(other)


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
        self._upload: Iterator[bytes] | None = None
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
                    lane = _Lane(self, f"{order.agreement.hex()[:8]}/{number}", device, self._pools[device])
                    nursery.start_soon(lane.run)

    async def prepare(self, order: market.Prepare) -> None:
        """Fetch a work's program and inputs; what fails is told to each of its attempts."""
        work = self._works[order.work]
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
            if work.failure is not None:
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
            for work in self._works.values():
                if work.arriving is not None:
                    work.arriving.drop(waiting)

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
        self._turns.served(number, result.duration_ns / SECOND_NS)
        energy_mj = self._supplier.ran(self._talk.peer, device, result.duration_ns)
        if attempt in self._released:
            self._released.discard(attempt)
            self._supplier.let_go(ahead)
            return
        if result.error is not None:
            self.failed(attempt, _fail_code(result.error))
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
        self._released.discard(attempt)
        self._talk.failed(attempt, code, self._clock())
        self._wake()

    # What the writer asks.

    def data(self) -> list[Frame]:
        """Return the next frames of results that are to be sent."""
        frames: list[Frame] = []
        size_bytes = 0
        while size_bytes < DATA_BYTES_AT_ONCE:
            if self._upload is None:
                attempt = self._talk.next_upload()
                if attempt is None:
                    break
                outputs = self._finished[attempt].outputs
                views = [self._supplier.view(of) if isinstance(of, PutAhead) else of for of in outputs]
                self._upload = data_frames(attempt, views)
            body = next(self._upload, None)
            if body is None:
                self._upload = None
                continue
            frames.append(Frame(Kind.DATA, body))
            size_bytes += len(body)
        return frames


class _Lane:
    """One slot: one worker at a time, loaded with the program of the work that is next."""

    def __init__(self, shop: Shop, name: str, device: int, pool: AnyPool) -> None:
        self._shop = shop
        self._name = name
        self._device = device
        self._pool = pool
        self._lease: Lease | None = None
        self._loaded: Work | None = None
        self._in_flight: dict[bytes, tuple[int, int]] = {}  # attempt and task, in the order in which they run
        self._number = -1  # of the work that these are of
        self._begun, self._done = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._mean_s = AHEAD_S

    async def run(self) -> None:
        """Run attempts until cancelled, or the device is withdrawn."""
        try:
            while not self._pool.withdrawn():
                number, work = await self._shop.next_work(self._number)
                if work.failure is not None:
                    self._fail_next(number, work.failure)
                elif self._is_for(work) or await self._load(number, work):
                    await self._run_works(number)
        finally:
            await self._close()

    def _fail_next(self, number: int, code: FailCode) -> None:
        for attempt, _ in self._shop.take(number, AHEAD_MAX):
            self._shop.failed(attempt, code)

    def _is_for(self, work: Work) -> bool:
        return self._loaded is not None and work.is_as(self._loaded)

    async def _load(self, number: int, work: Work) -> bool:
        """Get a worker for another program, or other inputs; what fails, fails the attempts that wait for it."""
        began_ns = self._shop.now_ns()
        try:
            if not await self._goes_on(work):
                await self._close()
                self._lease = await self._pool.acquire(self._name)
                await self._lease.load(await self._shop.read_program(work), work.inputs, **_limits_of(work))
        except (TaskError, ResourceError) as error:
            log.warning("a program cannot be loaded", lane=self._name, reason=str(error))
            if not self._pool.withdrawn():  # else it is not the program's fault, and another lane may do it
                code = FailCode.RESOURCE if isinstance(error, ResourceError) else _fail_code(error)
                self._fail_next(number, code)
            await self._close()
            return False
        finally:
            # A worker's start and the compilation of a module, which a stranger can make last half a minute.
            self._shop.loaded(number, self._device, self._shop.now_ns() - began_ns)
        self._loaded, self._mean_s = work, AHEAD_S
        return True

    async def _goes_on(self, work: Work) -> bool:
        """Have the worker that is there take a work; False: a fresh one has to. One may have died since its last task,
        and what is wrong with a program or inputs a fresh one says too."""
        lease, before, self._loaded = self._lease, self._loaded, None
        if lease is None or before is None or not lease.goes_on:
            return False
        try:
            if not work.has_program_of(before):
                return await lease.load_next(await self._shop.read_program(work), work.inputs, **_limits_of(work))
            await lease.load_inputs(work.inputs)
        except (TaskError, ResourceError) as error:
            log.info("a worker does not go on", lane=self._name, reason=str(error))
            return False
        return True

    async def _run_works(self, number: int) -> None:
        """Run queued attempts of a work, and of others that the worker is loaded for as well; until another program is
        next, or the worker is beyond repair."""
        assert self._lease is not None
        self._number = number
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._collect, self._lease, nursery.cancel_scope)
            nursery.start_soon(self._stop_unwanted, nursery.cancel_scope)
            while await self._has_more():
                await self._run_work(self._number, self._lease)
            nursery.cancel_scope.cancel()

    async def _has_more(self) -> bool:
        """Wait for something to run; tell whether the worker is the one to run it."""
        self._number, work = await self._shop.next_work(self._number)
        return work.failure is None and self._is_for(work) and not self._pool.withdrawn()

    async def _run_work(self, number: int, lease: Lease) -> None:
        """Run queued attempts of one work while it is its turn; a worker that cannot go on is closed."""
        while (is_next := self._shop.is_next(number)) or self._in_flight:
            ahead = 1 if self._mean_s >= ALONE_S else max(2, min(AHEAD_MAX, int(AHEAD_S / self._mean_s)))
            room = ahead - len(self._in_flight)
            # By halves: what is handed over together is answered together.
            taken = self._shop.take(number, room) if is_next and 2 * room >= ahead else []
            was_any = bool(taken)
            taken = [item for item in taken if not await self._shop.hand_in(number, *item)]
            if not taken and was_any:
                continue
            if not taken:
                await self._done.park()
                continue
            batch = [(attempt.to_bytes(16, "little"), task) for attempt, task in taken]
            for (name, _), item in zip(batch, taken, strict=True):
                self._in_flight[name] = item
            self._begun.unpark_all()
            try:
                await lease.submit(batch, named=not self._shop.stay(number))
            except (TaskError, ResourceError) as error:
                log.warning("a worker cannot go on", lane=self._name, reason=str(error))
                await self._close()
                return

    async def _collect(self, lease: Lease, scope: trio.CancelScope) -> None:
        async for first in lease.results():
            results = [first, *lease.waiting()]
            ahead = await self._shop.put_ahead(self._number, results)
            for result in results:
                attempt, _ = self._in_flight.pop(result.attempt, (None, 0))
                stored = ahead.get(result.attempt, [])
                if attempt is None:
                    self._shop.let_go(stored)
                    continue  # given back: its worker is being killed
                self._mean_s += 0.2 * (max(1e-5, result.duration_ns / SECOND_NS) - self._mean_s)
                self._shop.finished(self._number, attempt, result, stored, self._device)
                lease.release(result.attempt)
            self._done.unpark_all()
        # The lease is closed: it has told what became of each attempt it held.
        self._loaded = None
        scope.cancel()

    async def _stop_unwanted(self, scope: trio.CancelScope) -> None:
        """Kill the worker when what it runs was released, and it goes on with it; what waits there starts anew."""
        seen = None
        while True:
            if not self._in_flight:
                await self._begun.park()
            await trio.sleep(STOP_AFTER_S)
            head = next(iter(self._in_flight.values()), None)
            if head is None or head != seen or self._shop.is_wanted(head[0]):
                seen = head if head is not None and not self._shop.is_wanted(head[0]) else None
                continue
            wanted = {name: item for name, item in self._in_flight.items() if self._shop.is_wanted(item[0])}
            for name in wanted:
                del self._in_flight[name]
            self._shop.give_back(self._number, list(wanted.values()))
            await self._close()
            scope.cancel()

    async def _close(self) -> None:
        lease, self._lease, self._loaded = self._lease, None, None
        if lease is not None:
            await lease.aclose()
        for attempt, _ in self._in_flight.values():
            self._shop.failed(attempt, FailCode.CRASHED)
        self._in_flight.clear()


def _name(output: Made, stored: memoryview | PutAhead) -> bytes:
    """Return the id of an output's bytes: the store's, else the worker's, which may have been told not to hash it."""
    if isinstance(stored, PutAhead):
        return stored.blob
    return blob_id(stored) if output.blob_id == UNNAMED else output.blob_id


def _limits_of(work: Work) -> dict[str, int]:
    """Return what each task of a work may use, as ``Lease.load`` takes it."""
    limits = work.body.terms.limits
    return {"seconds": limits.seconds, "memory_limit_bytes": limits.memory_mib << 20}


def _fail_code(error: TaskError) -> FailCode:
    try:
        return FailCode(error.code)
    except ValueError:
        return FailCode.FAILED
