"""The worker process: loads a program, runs its tasks one after the other, and knows nothing else.

Started by ``pool`` as ``python -m depin_node.compute.sandbox.start CONFIG`` with nothing of the node's environment, no
descriptors but its own, in a session of its own. One worker serves one agreement and is then killed.
"""

import importlib
import itertools
import mmap
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from depin_node.compute.devices.device import Device, Input, Loaded, TaskLimits, access_of, compiler_of
from depin_node.compute.devices.pages import map_shared
from depin_node.compute.programs.program import BUFFERS_MAX, Program
from depin_node.compute.programs.shards import result_sizes
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.sandbox import messages as m
from depin_node.compute.sandbox.confine import limit_cpu, limit_data, seal
from depin_node.compute.sandbox.start import orphaned
from depin_node.core import wire
from depin_node.core.errors import PeerViolation, TaskError, TaskOutOfMemory
from depin_node.crypto.blob import blob_id

FLUSH_S = 0.01
"""Results of tasks faster than this are sent together; none waits much longer for the others. Half of what a lane holds
ahead (``AHEAD_S``): meanwhile the worker has the other half."""
CPU_LIMIT_KEPT = 0.25
"""Of a task's time: the limit of processor time is raised anew when so much has passed, not for each quick task."""
PENDING_MAX = 32
TICK_S = 0.1
SPENT_EXIT_CODE = 75
"""``EX_TEMPFAIL`` of sysexits.h."""
_NO_MEMORY = "the worker could not allocate more memory"


class Pipe:
    """Frames from the node and to it, blocking. Ends the process when the node closes its end."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._buffer = bytearray()

    def receive(self) -> wire.Message:
        """Return the next message."""
        header = self._exactly(m.HEADER.size)
        return m.unframe(header, self._exactly(m.body_bytes(header)))

    def waits(self) -> bool:
        """Whether more has arrived already than was handed out."""
        return bool(self._buffer)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = os.read(self._read_fd, 1 << 18)
            if not data:
                os._exit(0)
            self._buffer += data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def send(self, message: wire.Message) -> None:
        """Send a message; blocks until the node has taken it."""
        view = memoryview(m.frame(message))
        while view:
            view = view[os.write(self._write_fd, view) :]


class Sender:
    """Gathers outcomes of quick tasks into one message; none waits longer than a tick."""

    def __init__(self, pipe: Pipe, parent: int) -> None:
        self._pipe, self._parent = pipe, parent
        self._lock = threading.Lock()
        self._pending: list[m.Outcome] = []
        self._since_ns = 0  # the first of them is there
        threading.Thread(target=self._tick, name="tick", daemon=True).start()

    def add(self, outcome: m.Outcome, *, at_once: bool) -> None:
        """Take an outcome; ``at_once`` sends it and all before it."""
        now_ns = time.perf_counter_ns()
        with self._lock:
            if not self._pending:
                self._since_ns = now_ns - outcome.duration_ns
            self._pending.append(outcome)
            if at_once or len(self._pending) >= PENDING_MAX or now_ns - self._since_ns > FLUSH_S * 1e9:
                self._send()

    def _send(self) -> None:
        if self._pending:
            outcomes, self._pending = tuple(self._pending), []
            self._pipe.send(m.Done(outcomes))

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_S)  # a clock of its own thread: it bounds how long an outcome waits
            if orphaned(self._parent):
                os._exit(1)
            with self._lock:
                self._send()


class Agreement:
    """A loaded program, its arena and its limits."""

    def __init__(self, device: Device, load: m.Load, fds: list[int]) -> None:
        self._device = device
        self.program: Program = decode_program(load.program)
        self.limits = TaskLimits(load.seconds, load.memory_bytes)
        files = 1 + len(load.inputs)
        if load.inputs != self.program.inputs or len(fds) != files + bool(load.native_bytes):
            raise PeerViolation("the inputs given are not those of the program")
        self.arena = map_shared(fds[0], load.arena_bytes)
        os.close(fds[0])
        if load.native_bytes:
            _adopt(device, self.program, load.native_bytes, fds[files])
            os.close(fds[files])
        self._input_fds: list[int] = []
        self.loaded: Loaded | None = None
        self.take_inputs(fds[1:files])
        self._sizes_of = result_sizes(self.program)
        self._limited_until = 0.0
        self.started = self.finished = 0

    def take_inputs(self, fds: list[int]) -> None:
        """Run the tasks that follow over the inputs in these files.

        Raises:
            TaskError: see ``Device.load``.
        """
        if len(fds) != len(self.program.inputs):
            raise PeerViolation(f"{len(fds)} inputs, not the {len(self.program.inputs)} of the program")
        self.drop()
        self._input_fds = fds
        inputs: Mapping[int, Input] = {
            index: _map_input(fd, self.program.buffers[index].size_bytes)
            for index, fd in zip(self.program.inputs, fds, strict=True)
        }
        self.loaded = self._device.load(self.program, inputs, self.limits)
        if (results_in := getattr(self.loaded, "results_in", None)) is not None:
            results_in(self.arena)

    def drop(self) -> None:
        """Let go of all that is loaded: for what comes next there may be no room beside it."""
        self.loaded = None
        for fd in self._input_fds:
            os.close(fd)
        self._input_fds = []

    def run(self, task: m.Task) -> m.Outcome:
        """Run one task to its outcome; every failure of it is one."""
        begin = time.perf_counter_ns()
        self.started += 1
        m.PROGRESS.pack_into(self.arena, 0, self.started, self.finished)
        if time.monotonic() > self._limited_until:
            limit_cpu(2 * self.limits.seconds)
            self._limited_until = time.monotonic() + CPU_LIMIT_KEPT * self.limits.seconds
        code, detail, fuel = "", "", 0
        pieces: tuple[m.Piece, ...] = ()
        assert self.loaded is not None
        try:
            sizes = self._sizes_of(task.task)
            results = [self._place(size, place) for size, place in zip(sizes, task.places, strict=True)]
            fuel = self.loaded.run(task.task, self.limits, results)
            pieces = tuple(
                m.Piece(blob_id(result), bytes(result))
                if place == m.INLINE
                else m.Piece(blob_id(result) if task.named else m.UNNAMED, b"")
                for result, place in zip(results, task.places, strict=True)
            )
        except TaskError as error:
            code, detail = error.code, str(error)[: m.DETAIL_CHARACTERS_MAX]
        except MemoryError:
            code, detail = TaskOutOfMemory.code, _NO_MEMORY
        self.finished += 1
        m.PROGRESS.pack_into(self.arena, 0, self.started, self.finished)
        log: bytes = getattr(self.loaded, "log", b"")
        return m.Outcome(task.attempt, code, detail, fuel, time.perf_counter_ns() - begin, pieces, log)

    def is_spent(self) -> bool:
        """Whether the device can run nothing more in this process: its context is lost. The next task needs another."""
        return bool(getattr(self.loaded, "is_spent", False))

    def _place(self, size: int, place: int) -> memoryview:
        if place == m.INLINE:
            return memoryview(bytearray(size))
        if place < m.PROGRESS_PAGE_BYTES or place + size > len(self.arena):
            raise PeerViolation("a place outside the arena")
        return self.arena[place : place + size]


def _map_input(fd: int, size: int) -> Input:
    if os.fstat(fd).st_size != size:
        raise PeerViolation(f"an input of {os.fstat(fd).st_size} bytes, expected {size}")
    return Input(memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ)), fd)


def _adopt(device: Device, program: Program, sizes: tuple[int, ...], fd: int) -> None:
    """Give a device the native code of a program's units, which an untouched worker of this node has made."""
    data = bytes(_map_input(fd, sum(sizes)).data)
    ends = list(itertools.accumulate(sizes))
    parts = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    compiler_of(device).adopt_native([unit.module for unit in program.units], parts)


def _make_device(dotted: str) -> Device:
    module, _, name = dotted.partition(":")
    device: Device = getattr(importlib.import_module(module), name)()
    return device


def serve(pipe: Pipe, fd_socket: socket.socket, device: Device, sender: Sender, *, limit_memory: bool) -> NoReturn:
    """Serve one agreement until the node closes the pipe."""
    load = pipe.receive()
    if isinstance(load, m.Compile):
        if limit_memory:
            limit_data(load.data_bytes)
        try:
            native = tuple(compiler_of(device).compile_native(load.modules))
        except MemoryError:
            _refuse(pipe, TaskOutOfMemory(_NO_MEMORY))
        except TaskError as error:
            _refuse(pipe, error)
        fits = sum(map(len, native)) <= m.FRAME_BYTES_MAX // 2
        pipe.send(m.Compiled(native if fits else ()))
        load = pipe.receive()
    if not isinstance(load, m.Load):
        raise PeerViolation(f"{type(load).__name__} before Load")
    if limit_memory:
        limit_data(load.data_bytes)
    agreement = _agree(pipe, fd_socket, device, load)
    while True:
        run = pipe.receive()
        if isinstance(run, m.Inputs):
            _renew(pipe, fd_socket, agreement)
            continue
        if isinstance(run, m.Load):
            agreement.drop()
            agreement = _agree(pipe, fd_socket, device, run)
            continue
        if not isinstance(run, m.Run):
            raise PeerViolation(f"{type(run).__name__} instead of Run")
        for position, task in enumerate(run.tasks):
            outcome = agreement.run(task)
            spent = agreement.is_spent()
            last = position + 1 == len(run.tasks) and not pipe.waits()
            sender.add(outcome, at_once=spent or last)
            if spent:
                os._exit(SPENT_EXIT_CODE)


def _agree(pipe: Pipe, fd_socket: socket.socket, device: Device, load: m.Load) -> Agreement:
    """Load a program."""
    _, fds, _, _ = socket.recv_fds(fd_socket, 1, BUFFERS_MAX + 2)
    try:
        try:
            agreement = Agreement(device, load, fds)
        except MemoryError as error:
            raise TaskOutOfMemory(_NO_MEMORY) from error
    except TaskError as error:
        _refuse(pipe, error)
    pipe.send(m.Ready())
    return agreement


def _renew(pipe: Pipe, fd_socket: socket.socket, agreement: Agreement) -> None:
    """Take other inputs."""
    _, fds, _, _ = socket.recv_fds(fd_socket, 1, BUFFERS_MAX)
    try:
        agreement.take_inputs(fds)
    except MemoryError:
        _refuse(pipe, TaskOutOfMemory(_NO_MEMORY))
    except TaskError as error:
        _refuse(pipe, error)
    pipe.send(m.Ready())


def _refuse(pipe: Pipe, error: TaskError) -> NoReturn:
    pipe.send(m.Refused(error.code, str(error)[: m.DETAIL_CHARACTERS_MAX]))
    while True:
        pipe.receive()  # until the node hangs up


def run(config: Mapping[str, Any]) -> NoReturn:
    """Serve, as ``WorkerProcess`` says."""
    sys.path.extend(config["sys_path"])
    device = _make_device(config["device"])
    pipe = Pipe(config["read_fd"], config["write_fd"])
    fd_socket = socket.socket(fileno=config["socket_fd"])
    layers = seal(config["layers"], access_of(device))
    pipe.send(m.Hello(device.device_class, layers, hasattr(device, "compile_native")))
    limit_memory = any(layer.name == "memory" and layer.active for layer in layers)
    serve(pipe, fd_socket, device, Sender(pipe, config["parent"]), limit_memory=limit_memory)
