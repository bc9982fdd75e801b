"""One slot of an agreement: a lane takes the attempts that are next (``turns.py``) and has a worker run them.

It has one worker process at a time, loaded with the program of the work that is next; it goes on over other inputs and
with other programs of the same requester as long as it can, else the lane takes a fresh one. It keeps just enough
submitted that the worker never waits: no second task beside one that takes so long that nobody would notice. A lane
whose device is withdrawn ends, and leaves what is queued to the others.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from depin_node.bootstrap.arriving import Arriving
from depin_node.compute.market.messages import FailCode, WorkBody
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.compute.sandbox.pool import Lease
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import ResourceError, TaskError

if TYPE_CHECKING:
    from depin_node.bootstrap.shop import Shop

log = structlog.get_logger("depin_node.provider")

AHEAD_S = 0.02
AHEAD_MAX = 64
"""A lane's worker holds so much work ahead: enough that it never waits, little enough that lanes end
together."""
ALONE_S = 0.5
"""A task that takes so long is alone in its worker: the gap before the next one is under a hundredth of it."""
STOP_AFTER_S = 0.25
"""A run that nobody wants any more is let go on for so long, or twice that; then its worker is killed."""


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


class Lane:
    """One slot: one worker at a time, loaded with the program of the work that is next."""

    def __init__(self, shop: "Shop", name: str, device: int, pool: AnyPool) -> None:
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
                code = FailCode.RESOURCE if isinstance(error, ResourceError) else fail_code(error)
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
            taken = await self._hand_in(number, taken)
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

    async def _hand_in(self, number: int, taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Answer attempts with what was finished before; return those that have to run. If cancelled, none is lost."""
        left, to_run = deque(taken), list[tuple[int, int]]()
        try:
            while left:
                if not await self._shop.hand_in(number, *left[0]):
                    to_run.append(left[0])
                left.popleft()
        finally:
            if left:
                self._shop.give_back(number, [*to_run, *left])
        return to_run

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


def _limits_of(work: Work) -> dict[str, int]:
    """Return what each task of a work may use, as ``Lease.load`` takes it."""
    limits = work.body.terms.limits
    return {"seconds": limits.seconds, "memory_limit_bytes": limits.memory_mib << 20}


def fail_code(error: TaskError) -> FailCode:
    """Return how a task's error is told."""
    try:
        return FailCode(error.code)
    except ValueError:
        return FailCode.FAILED
