"""One lease: a program's tasks in a worker of their own, and what happens when that worker dies.

The driver takes a worker, loads the program, and keeps three tasks going: one writes what was submitted, one reads
outcomes, one watches memory and progress and kills. When a worker dies, the task that was running then has failed
(crashed, timed out or out of memory); those that only waited go to a fresh worker. Between tasks the worker can go on
over other inputs (``load_inputs``) or with another program (``load_next``): starting another takes 0.15 to 0.4 s of a
processor.
"""

import math
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
import trio

from depin_node.compute.sandbox import messages as m
from depin_node.compute.sandbox.arena import InputSource, open_input
from depin_node.compute.sandbox.config import PoolConfig
from depin_node.compute.sandbox.loading import Loading, prepare
from depin_node.compute.sandbox.native import NativeCode
from depin_node.compute.sandbox.process import WorkerProcess
from depin_node.core import wire
from depin_node.core.errors import (
    PeerViolation,
    ResourceError,
    TaskCrashed,
    TaskError,
    TaskOutOfMemory,
    TaskTimedOut,
)

log = structlog.get_logger("depin_node.sandbox")
WATCH_S: Final = 0.05
LOADS_MAX: Final = 64
"""Programs that one worker is given: of each something stays in its memory."""
FRUITLESS_MAX: Final = 3
"""Workers that may die in a row without one outcome before all that waits has failed."""


@dataclass(frozen=True)
class Output:
    """One output of a task in the canonical layout. ``data`` may lie in the arena: use it before the release.
    ``blob_id`` is what the worker says, or ``UNNAMED``."""

    blob_id: bytes
    data: bytes | memoryview


@dataclass(frozen=True)
class Result:
    """How an attempt ended: with ``outputs`` in the order of ``program.outputs``, or with an ``error``."""

    attempt: bytes
    task: int
    outputs: tuple[Output, ...]
    error: TaskError | None
    fuel: int
    duration_ns: int
    log: bytes = b""
    """What the kernel printed: a stranger's bytes, bounded. Show them with ``core.text.printable``."""


@dataclass
class _Pending:
    attempt: bytes
    task: int
    sizes: tuple[int, ...]
    places: tuple[int, ...]
    named: bool


class Lease:
    """A worker for one agreement: ``load`` once, ``submit`` often, read ``results``, ``release`` each, ``aclose``.

    ``goes_on``: whether there is a worker that may take other inputs or another program, once all was released.
    """

    def __init__(
        self,
        config: PoolConfig,
        take_worker: Callable[[], Awaitable[WorkerProcess]],
        name: str,
        native: NativeCode | None = None,
    ) -> None:
        self._config, self._take_worker, self._name = config, take_worker, name
        self._native = native or NativeCode()
        self._scope = trio.CancelScope()
        self._wanted, self._loaded, self._ended = trio.Event(), trio.Event(), trio.Event()
        self._work, self._room = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._give, self._results = trio.open_memory_channel[Result](config.window)
        self._waiting: deque[_Pending] = deque()
        self._sent: deque[_Pending] = deque()
        self._held: dict[bytes, _Pending] = {}
        self._at: Loading | None = None
        self._known: set[tuple[bytes, ...]] = set()  # units' modules that the present worker has compiled or adopted
        self._loads = 0  # programs that it was given
        self._resident_bytes_max = 0  # of it
        self._renew: Callable[[WorkerProcess], Awaitable[None]] | None = None  # gives it what comes next
        self.goes_on = False
        self._received = 0  # outcomes of the present worker
        self._fruitless = 0
        self._verdict: TaskError | None = None  # why the present worker was killed
        self._failure: TaskError | ResourceError | None = None  # why nothing can be loaded

    # What the owner calls

    async def load(
        self, program: bytes | memoryview, inputs: Mapping[int, InputSource], *, seconds: float, memory_limit_bytes: int
    ) -> None:
        """Load a program for tasks of at most ``seconds`` and ``memory_limit_bytes`` of linear memory each.

        Args:
            program: its canonical bytes.
            inputs: by buffer index, the bytes, or a file that has just these bytes and will not be changed.
            seconds: from the start of a task to its result.
            memory_limit_bytes: see ``program.memory_bytes``.

        Raises:
            TaskError: the program is refused, or nothing of it can run within the limits.
            ResourceError: no worker or no memory on this machine.
        """
        loading = await prepare(self._config, program, inputs, seconds=seconds, memory_limit_bytes=memory_limit_bytes)
        if self._ended.is_set():
            loading.close()
            raise ResourceError("the lease is closed")
        self._at = loading
        self._wanted.set()
        await self._loaded.wait()
        if self._failure or self._ended.is_set():
            raise self._failure or ResourceError("the lease is closed")

    async def load_inputs(self, inputs: Mapping[int, InputSource]) -> None:
        """Go on with the same program and limits over other inputs, once every attempt was released.

        Raises:
            TaskError, ResourceError: as ``load`` does; the lease is of no use then.
        """
        if self._held or not self.goes_on:
            raise ValueError("there are attempts over the inputs of before, or no worker that takes others")
        self._loading.take_inputs(inputs)
        await self._go_on(self._send_inputs)

    async def load_next(
        self, program: bytes | memoryview, inputs: Mapping[int, InputSource], *, seconds: float, memory_limit_bytes: int
    ) -> bool:
        """Go on with another program, once every attempt was released; False: only a fresh worker can, nothing changed.

        That is so if it needs more memory than the worker was bound to, if the worker has had ``LOADS_MAX``, or if its
        modules are not native code yet: who has run something compiles nothing for others (``native``).

        Raises:
            TaskError, ResourceError: as ``load`` does; the lease is of no use then.
        """
        if self._held:
            raise ValueError("there are attempts at the program of before")
        if not self.goes_on:
            return False
        following = await prepare(self._config, program, inputs, seconds=seconds, memory_limit_bytes=memory_limit_bytes)
        modules = following.modules
        is_compiled = not modules or modules in self._known or self._native.get(modules) is not None
        has_room = following.resident_bytes_max <= self._resident_bytes_max and self._loads < LOADS_MAX
        if not (self.goes_on and is_compiled and has_room):
            following.close()
            return False
        self._loading.close()
        self._at, self._received = following, 0
        self._loads += 1
        await self._go_on(self._send_load)
        return True

    @property
    def _loading(self) -> Loading:
        assert self._at is not None
        return self._at

    async def _go_on(self, send: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        """Have the worker given what is loaded now."""
        self._loaded, self._renew = trio.Event(), send
        self._work.unpark_all()
        with trio.move_on_after(self._config.load_timeout_s) as scope:
            await self._loaded.wait()
        if scope.cancelled_caught:
            self._failure = TaskTimedOut(f"going on took more than {self._config.load_timeout_s:g} s")
            self._scope.cancel()
        if self._failure or self._ended.is_set():
            raise self._failure or ResourceError("the lease is closed")

    async def submit(self, tasks: Iterable[tuple[bytes, int]], *, named: bool = True) -> None:
        """Hand over tasks (16-byte attempt id, task index); waits while the window or the arena is full.

        ``named``: whether the worker is to hash large results; who stores them does so anyway.

        Raises:
            TaskError, ResourceError: the lease has failed or is closed.
        """
        for attempt, task in tasks:
            if attempt in self._held:
                raise ValueError("an attempt is submitted once")
            if not 0 <= task < self._loading.program.tasks:
                raise IndexError(f"task {task} of {self._loading.program.tasks}")
            sizes = self._loading.sizes_of(task)
            while (places := self._reserve(task, sizes)) is None:
                await self._room.park()
            if self._ended.is_set():
                raise self._failure or ResourceError("the lease is closed")
            pending = _Pending(attempt, task, sizes, places, named)
            self._held[attempt] = pending
            self._waiting.append(pending)
            self._work.unpark_all()

    def results(self) -> AsyncIterator[Result]:
        """Iterate over the results as they come, until the lease is closed. What failed is released already.

        The iterator is no generator: it can be left and taken up again, by one reader at a time.
        """
        return self

    def __aiter__(self) -> "Lease":
        return self

    async def __anext__(self) -> Result:
        try:
            try:
                result = self._results.receive_nowait()  # no turn of the loop for each: at most a window waits here
            except trio.WouldBlock:
                result = await self._results.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if result.error:
            self.release(result.attempt)
        return result

    def waiting(self) -> list[Result]:
        """Return the results that are there already, in the same way; perhaps none."""
        results: list[Result] = []
        while True:
            try:
                results.append(self._results.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        for result in results:
            if result.error:
                self.release(result.attempt)
        return results

    def release(self, attempt: bytes) -> None:
        """Give up a result's bytes; what is not held is ignored."""
        pending = self._held.pop(attempt, None)
        if pending:
            self._loading.give_back(pending.places, pending.sizes)
            self._room.unpark_all()

    async def aclose(self) -> None:
        """Kill the worker and forget all that was submitted."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    def _reserve(self, task: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        if self._ended.is_set():
            return ()
        if len(self._held) >= self._config.window:
            return None
        return self._loading.take_places(task, sizes)

    # The driver

    async def drive(self) -> None:
        """Serve the lease until it is closed; the pool's to call, once."""
        try:
            with self._scope:
                await self._wanted.wait()
                while self._failure is None:
                    await self._serve_with_one_worker()
        except ResourceError as error:
            self._failure = error
        finally:
            if self._failure:  # then nobody closed the lease: its owner wants to know what became of each attempt
                for pending in (*self._sent, *self._waiting):
                    self._deliver(Result(pending.attempt, pending.task, (), TaskCrashed(str(self._failure)), 0, 0))
            self._ended.set()
            self._loaded.set()
            self._room.unpark_all()
            self._give.close()
            if self._at is not None:
                self._at.close()

    async def _serve_with_one_worker(self) -> None:
        worker = await self._take_worker()
        self._verdict, self._received = None, 0
        self._known, self._loads, self._resident_bytes_max = set(), 1, self._loading.resident_bytes_max
        self._loading.arena.reset_progress()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._log_errors, worker)
                nursery.start_soon(self._watch, worker)
                try:
                    await self._load_and_read(worker, nursery)
                except (PeerViolation, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    log.warning("the worker cannot be spoken to", lease=self._name, reason=repr(error))
                nursery.cancel_scope.cancel()
        finally:
            self.goes_on = False
            await worker.aclose()
        self._account_for_death(worker)

    async def _load_and_read(self, worker: WorkerProcess, nursery: trio.Nursery) -> None:
        worker.limit_memory(self._resident_bytes_max)
        with trio.move_on_after(self._config.load_timeout_s) as scope:
            reply = await self._compile(worker)
            if not isinstance(reply, m.Refused):
                await self._send_load(worker)
                reply = await worker.receive()
        if scope.cancelled_caught:
            self._failure = TaskTimedOut(f"compiling the module took more than {self._config.load_timeout_s:g} s")
            return
        if isinstance(reply, m.Refused):
            self._failure = m.task_error(reply.code, reply.detail)
            return
        if not isinstance(reply, m.Ready):
            return  # it died
        self._loaded.set()
        self.goes_on = worker.compiles  # what drives a GPU keeps its inputs on the device
        nursery.start_soon(self._write, worker)
        while (message := await worker.receive()) is not None:
            if isinstance(message, m.Ready) and not self._loaded.is_set():
                self._loaded.set()
                continue
            if isinstance(message, m.Refused) and not self._loaded.is_set():
                self._failure = m.task_error(message.code, message.detail)
                return
            if not isinstance(message, m.Done):
                raise PeerViolation(f"{type(message).__name__} instead of Done")
            for outcome in message.outcomes:
                self._accept(outcome)

    async def _compile(self, worker: WorkerProcess) -> wire.Message | None:
        """Have a worker that has seen nothing yet compile what is not there as native code; return its answer."""
        modules = self._loading.modules
        if not (modules and worker.compiles) or self._native.get(modules) is not None:
            return None
        await worker.send(m.Compile(modules, self._loading.message.data_bytes))
        reply = await worker.receive()
        if isinstance(reply, m.Compiled):
            self._native.put(modules, reply.native)
            self._known.add(modules)
        return reply

    async def _send_load(self, worker: WorkerProcess) -> None:
        loading, native = self._loading, None
        if loading.modules and worker.compiles and loading.modules not in self._known:
            native = self._native.get(loading.modules)
        if native is None:
            worker.send_files(loading.fds)
            await worker.send(loading.message)
            return
        fd = open_input(b"".join(native), "native code", sum(map(len, native)))
        try:
            worker.send_files([*loading.fds, fd])
        finally:
            os.close(fd)
        self._known.add(loading.modules)
        await worker.send(msgspec.structs.replace(loading.message, native_bytes=tuple(map(len, native))))

    async def _send_inputs(self, worker: WorkerProcess) -> None:
        worker.send_files(self._loading.input_fds)
        await worker.send(m.Inputs())

    async def _write(self, worker: WorkerProcess) -> None:
        try:
            while True:
                if self._renew is not None:
                    send, self._renew = self._renew, None
                    await send(worker)
                while self._waiting:
                    batch = [self._waiting.popleft() for _ in range(min(m.BATCH_MAX, len(self._waiting)))]
                    self._sent.extend(batch)
                    await worker.send(m.Run(tuple(m.Task(p.attempt, p.task, p.places, p.named) for p in batch)))
                await self._work.park()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it died: the reader sees the end too

    def _accept(self, outcome: m.Outcome) -> None:
        if not self._sent or self._sent[0].attempt != outcome.attempt:
            raise PeerViolation("an outcome out of turn")
        pending = self._sent[0]
        error = m.task_error(outcome.code, outcome.detail) if outcome.code else None
        outputs: tuple[Output, ...] = ()
        if error is None:
            if len(outcome.pieces) != len(pending.sizes):
                raise PeerViolation("a result without all of its outputs")
            outputs = tuple(
                Output(piece.blob_id, self._output_bytes(piece, place, size))
                for piece, place, size in zip(outcome.pieces, pending.places, pending.sizes, strict=True)
            )
        self._sent.popleft()
        self._received += 1
        self._fruitless = 0
        self._deliver(
            Result(pending.attempt, pending.task, outputs, error, outcome.fuel, outcome.duration_ns, outcome.log)
        )

    def _output_bytes(self, piece: m.Piece, place: int, size: int) -> bytes | memoryview:
        if place != m.INLINE:
            return self._loading.arena.view[place : place + size]
        if len(piece.data) != size:
            raise PeerViolation(f"an output of {len(piece.data)} bytes, expected {size}")
        return piece.data

    def _deliver(self, result: Result) -> None:
        self._give.send_nowait(result)  # never full: it holds a window, and so does _held

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill the worker when it takes too much memory or stands still."""
        seen, since = (-1, -1), math.inf
        while True:
            await trio.sleep(WATCH_S)
            resident = worker.resident_bytes()
            if resident > self._resident_bytes_max:
                self._verdict = TaskOutOfMemory(f"the worker had {resident >> 20} MiB resident")
            seconds = self._loading.message.seconds
            if (now := self._loading.arena.progress()) != seen or not self._sent:
                seen, since = now, trio.current_time()
            worker.saw(now, seconds)
            patience_s = seconds + self._config.grace_s
            if trio.current_time() - since > patience_s:
                self._verdict = TaskTimedOut(f"the task stood still for {patience_s:g} s")
            if self._verdict:
                worker.kill()
                return

    async def _log_errors(self, worker: WorkerProcess) -> None:
        async for line in worker.error_lines():
            log.warning("worker", lease=self._name, pid=worker.pid, stderr=line)

    def _account_for_death(self, worker: WorkerProcess) -> None:
        """Fail the attempt that was running; let the others wait for the next worker."""
        error = self._verdict or worker.verdict or TaskCrashed(f"the worker died: {worker.describe_end()}")
        log.warning("a worker died", lease=self._name, pid=worker.pid, reason=str(error))
        started, finished = self._loading.arena.progress()
        position = started - 1 - self._received
        self._fruitless += 1
        if not self._loaded.is_set() or self._fruitless >= FRUITLESS_MAX:
            self._failure = self._failure or error
        elif started > finished and 0 <= position < len(self._sent):
            pending = self._sent[position]
            del self._sent[position]
            self._fruitless = 0
            self._deliver(Result(pending.attempt, pending.task, (), error, 0, 0))
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
