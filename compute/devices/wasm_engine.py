"""The door to wasmtime: an engine that gives the same bits everywhere, and what one task holds of it.

Relaxed SIMD and every unused proposal is off, a module imports nothing but memory, and its only exports are those of
``translate/abi.py``. Memory has exactly the size that a task needs; fuel and an epoch, which the watchdog advances at
the deadline, end what does not end by itself.

The only module that imports wasmtime.
"""

import ctypes
import re
import threading
import time
import weakref
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import wasmtime
from wasmtime import _ffi as ffi  # Func.__call__ asks for the function's type each time: 56 µs against 6

from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.ownership import Bytes
from depin_node.compute.devices.task_arrays import Memory
from depin_node.compute.programs.memory import ALIGNMENT_BYTES
from depin_node.compute.programs.module import PAGE_BYTES, TABLE_ELEMENTS_MAX, scan_module
from depin_node.compute.programs.program import ENTRIES_MAX
from depin_node.compute.translate.abi import ARGUMENT_BYTES, LOG_BYTES
from depin_node.core.errors import ResourceError, TaskOutOfMemory, TaskRejected, TaskTimedOut, TaskTrapped

VERSION_MIN = (50, 0, 1)
"""The first of its line on PyPI with the fixes of 2026-10-19 to the code generator, two of them critical."""
STACK_BYTES_MAX = 512 << 10
WATCHDOG_S = 0.05
TASKS_MAX = 64
"""Tasks that follow each other in one store, which keeps their instances, each with its table, until it is closed."""
DETAIL_CHARACTERS_MAX = 1000
RUN_PARAMETERS = ("i64", "i64", *("i32",) * 7)
EngineError = (wasmtime.Trap, wasmtime.WasmtimeError)
"""What calls into a module raise; ``task_error`` says what it means."""


class Watchdog:
    """Advances the engine's epoch when the running task passes its deadline, within ``WATCHDOG_S``. Its thread ends
    with it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None

    def arm(self, seconds: float) -> None:
        """Start the clock of a task."""
        with self._lock:
            self._deadline = time.monotonic() + seconds
            if self._thread is None:  # not before: a worker has one thread when it confines itself
                self._thread = threading.Thread(target=_watch, args=[weakref.ref(self)], name="watchdog", daemon=True)
                self._thread.start()

    def disarm(self) -> None:
        """Stop it; no epoch is advanced after this returns."""
        with self._lock:
            self._deadline = None

    def look(self) -> None:
        """Advance the epoch if it is time."""
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._deadline = None
                self._engine.increment_epoch()


def _watch(watchdog: "weakref.ref[Watchdog]") -> None:
    while True:
        time.sleep(WATCHDOG_S)  # time itself is what it waits for: a clock for deadlines, in a thread of its own
        present = watchdog()
        if present is None:
            return
        present.look()
        del present


def require_safe_version(version: str) -> None:
    """Refuse an engine with holes that are known and mended.

    Raises:
        ResourceError: it is older than ``VERSION_MIN``.
    """
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if found < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        raise ResourceError(
            f"wasmtime {version} lets WebAssembly out of its sandbox (GHSA-mghf-wjfp-p5xm, GHSA-897f-g5gm-fmxm): "
            f"strangers' kernels need {least} or newer; run: pip install 'wasmtime>={least}'"
        )


def make_engine(*, canonical_nans: bool = False) -> Any:
    """Return an engine of ours.

    Args:
        canonical_nans: every NaN that an instruction makes is the canonical one, on any processor. Up to five times as
            slow, and not needed for what the translator makes.
    """
    require_safe_version(metadata.version("wasmtime"))
    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    config.wasm_simd = True
    config.cranelift_nan_canonicalization = canonical_nans
    for proposal in (
        "relaxed_simd",
        "threads",
        "tail_call",
        "multi_memory",
        "memory64",
        "component_model",
        "exceptions",
        "function_references",
        "gc",
        "wide_arithmetic",
        "custom_page_sizes",
        "stack_switching",
    ):
        if hasattr(type(config), f"wasm_{proposal}"):  # a proposal the engine does not know is off
            setattr(config, f"wasm_{proposal}", False)
    config.parallel_compilation = False  # a slot is one core
    config.max_wasm_stack = STACK_BYTES_MAX
    return wasmtime.Engine(config)


def compile_module(engine: Any, module: bytes) -> Any:
    """Return a module as the engine has it, compiled.

    Raises:
        TaskRejected: it is not valid.
    """
    try:
        return wasmtime.Module(engine, module)
    except wasmtime.WasmtimeError as error:
        raise TaskRejected(f"the module is not valid: {_bounded(error)}") from error


def native_module(engine: Any, native: bytes) -> Any | None:
    """Return a module of its native code; None if that is of another engine, or for another machine."""
    try:
        return wasmtime.Module.deserialize(engine, native)
    except wasmtime.WasmtimeError:
        return None


class Unit:
    """A unit's module, compiled, and what it begins with: its own part of memory, where that is not zero."""

    def __init__(self, compiled: Any, module: bytes) -> None:
        self.module = compiled
        self.kernels = _check_exports(self.module)
        info = scan_module(module)
        self.own_bytes, self.pages_max = info.memory_pages * PAGE_BYTES, info.memory_pages_max
        self.prints = any(export.name == "log" for export in self.module.exports)
        self.arguments = self.log = 0
        self.begins: list[tuple[int, Bytes]] = []

    def look(self, task: "Instances", number: int) -> None:
        """See in a task of its own, as unit ``number`` of it, how the unit begins and where its arguments go.

        Raises:
            TaskRejected: it does not start.
        """
        try:
            task.enter(number)
            self.begins = _not_zero(task.memory.bytes[: self.own_bytes])
            result = (ffi.wasmtime_val_t * 1)()
            task.call("argbuf", (ffi.wasmtime_val_t * 0)(), result)
            self.arguments = int(result[0].of.i32) & 0xFFFFFFFF
            if self.prints:
                task.call("log", (ffi.wasmtime_val_t * 0)(), result)
                self.log = int(result[0].of.i32) & 0xFFFFFFFF
        except EngineError as error:
            raise TaskRejected(f"the module does not start: {_bounded(error)}") from error
        if self.arguments % 16 or self.arguments + ARGUMENT_BYTES > self.own_bytes:
            raise TaskRejected("the module's argument buffer is not aligned or not within its own memory")
        if self.log % 4 or self.log + 4 + LOG_BYTES > self.own_bytes:
            raise TaskRejected("the module's log is not aligned or not within its own memory")


class Machine:
    """Units, and the memory that a task of them gets."""

    def __init__(self, engine: Any, units: Sequence[Unit], memory_bytes: int) -> None:
        self.engine, self.units, self.memory_bytes = engine, units, memory_bytes
        pages = memory_bytes // PAGE_BYTES
        self.memory_type = wasmtime.MemoryType(wasmtime.Limits(pages, pages))
        self.view_type = ctypes.c_ubyte * memory_bytes


class Instances:
    """A store, its memory and an instance of each unit that has run in a task. Closing it gives all memory back.

    A task that follows another in one store has instances of its own, and memory that was made as it was.
    """

    def __init__(self, machine: Machine, fuel: int) -> None:
        self._units = machine.units
        self._tasks = 0
        self.store = store = wasmtime.Store(machine.engine)
        try:
            units = TASKS_MAX * (len(machine.units) or 1)
            store.set_limits(machine.memory_bytes, TABLE_ELEMENTS_MAX, units, units, 1)
            self.begin(fuel)
            try:
                memory = wasmtime.Memory(store, machine.memory_type)
            except wasmtime.WasmtimeError as error:
                raise TaskOutOfMemory(f"no memory of {machine.memory_bytes >> 20} MiB to be had") from error
            address = ctypes.addressof(memory.data_ptr(store).contents)
            view = np.frombuffer(memoryview(machine.view_type.from_address(address)), np.uint8)
            self.memory = Memory(view, address, {})
            self._memory = memory
            self._imports = (ffi.wasmtime_extern_t * 1)(memory._as_extern())
        except BaseException:  # whatever it was: the memory is let go; raised again
            store.close()
            raise

    @property
    def is_worn(self) -> bool:
        """Whether the store can take no further task: it keeps what instances had until it is closed."""
        return self._tasks >= TASKS_MAX

    def begin(self, fuel: int) -> None:
        """Forget what the last task has run and printed; the next has this much fuel, and new instances."""
        self._tasks += 1
        self._instances: dict[int, Any] = {}
        self._unit = -1
        self._printed = bytearray()
        self.store.set_fuel(fuel)
        self.store.set_epoch_deadline(1)

    def enter(self, number: int) -> None:
        """Have the module of a unit in its own part of memory, as it began.

        Raises:
            EngineError: it does not start.
        """
        if number == self._unit:
            return
        if self._unit >= 0:
            self._keep_log()
            self.memory.bytes[: self._units[self._unit].own_bytes] = 0
        unit = self._units[number]
        if number in self._instances:
            for start, data in unit.begins:
                self.memory.bytes[start : start + len(data)] = data
        else:
            self._instances[number] = self._instance(unit)
        self._unit = number

    def _instance(self, unit: Unit) -> Any:
        """Return a new instance; ``wasmtime.Instance`` takes three times as long to say the same."""
        instance, trap = ffi.wasmtime_instance_t(), ctypes.POINTER(ffi.wasm_trap_t)()
        context, module = self.store._context(), unit.module.ptr()
        _raise(
            ffi.wasmtime_instance_new(context, module, self._imports, 1, ctypes.byref(instance), ctypes.byref(trap)),
            trap,
        )
        return instance

    def _keep_log(self) -> None:
        """Add what the unit has printed, which is in its own part of memory."""
        unit = self._units[self._unit]
        if unit.prints:
            length = int(self.memory.bytes[unit.log : unit.log + 4].view("<u4")[0])
            kept = min(length, LOG_BYTES, LOG_BYTES - len(self._printed))
            self._printed += self.memory.bytes[unit.log + 4 : unit.log + 4 + kept].tobytes()

    def take_log(self) -> bytes:
        """Return what the task has printed, at most ``LOG_BYTES``; call it at the end."""
        if self._unit >= 0:
            self._keep_log()
        return bytes(self._printed)

    def call(self, name: str, values: Any, results: Any) -> None:
        """Call a function that the unit exports (that it does is known) with kept arrays of raw values.

        Raises:
            EngineError: it trapped.
        """
        context, export = self.store._context(), ffi.wasmtime_extern_t()
        instance = ctypes.byref(self._instances[self._unit])
        ffi.wasmtime_instance_export_get(context, instance, name.encode(), len(name), ctypes.byref(export))
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_func_call(
            context,
            ctypes.byref(export.of.func),
            values,
            len(values),
            results,
            len(results),
            ctypes.byref(trap),
        )
        _raise(error, trap)

    def close(self) -> None:
        """Free everything; ``memory`` must not be used after."""
        del self.memory
        self.store.close()


def _raise(error: Any, trap: Any) -> None:
    """Raise what a call into the engine ended in, if it did not end well: an ``EngineError``."""
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    if trap:
        raise wasmtime.Trap._from_ptr(trap)


class Call:
    """The parameters of a module's ``run``, kept from call to call."""

    def __init__(self, grid: Sequence[int], block: Sequence[int], shared_mem: int) -> None:
        self.values = (ffi.wasmtime_val_t * len(RUN_PARAMETERS))()
        for value, kind, number in zip(self.values, RUN_PARAMETERS, (0, 0, *grid, *block, shared_mem), strict=True):
            value.kind = ffi.WASMTIME_I64.value if kind == "i64" else ffi.WASMTIME_I32.value
            setattr(value.of, kind, number)

    def set_grid(self, grid: Sequence[int]) -> None:
        """Say of which grid the blocks are."""
        for value, length in zip(self.values[2:5], grid, strict=True):
            value.of.i32 = length

    def set_blocks(self, first: int, last: int) -> None:
        """Say which blocks to run."""
        self.values[0].of.i64, self.values[1].of.i64 = first, last

    def keep_last(self, count: int) -> None:
        """Of these blocks run only the last ``count``."""
        self.values[0].of.i64 = max(self.values[0].of.i64, self.values[1].of.i64 - count)


def _check_exports(module: Any) -> int:
    """Return how many kernels a module has. Raises ``TaskRejected`` if it exports anything else."""
    found = {}
    for export in module.exports:
        if not isinstance(export.type, wasmtime.FuncType):
            raise TaskRejected(f"the module exports {export.name!r}, which is not a function")
        found[export.name] = (
            tuple(str(kind) for kind in export.type.params),
            tuple(str(kind) for kind in export.type.results),
        )
    kernels = len(found.keys() - {"argbuf", "log"})
    address, run = ((), ("i32",)), (RUN_PARAMETERS, ())
    ours = {"argbuf": address, **{f"run{entry}": run for entry in range(kernels)}}
    if not 1 <= kernels <= ENTRIES_MAX or found not in (ours, {**ours, "log": address}):
        raise TaskRejected(f"the module's exports are not argbuf and run0 … of our interface: {sorted(found)}"[:400])
    return kernels


def _not_zero(own: Bytes) -> list[tuple[int, Bytes]]:
    """Return copies of the parts of a unit's own memory that are not zero, by their place."""
    pages = own.reshape(-1, ALIGNMENT_BYTES)
    used = np.flatnonzero(pages.any(axis=1))
    return [(int(page) * ALIGNMENT_BYTES, pages[page].copy()) for page in used]


NO_RESULTS = (ffi.wasmtime_val_t * 0)()


def task_error(error: Exception, limits: TaskLimits) -> TaskTimedOut | TaskTrapped:
    """Return how a task ended that ended in an ``EngineError``."""
    code = error.trap_code if isinstance(error, wasmtime.Trap) else None
    codes = wasmtime.TrapCode
    if code is codes.INTERRUPT:
        return TaskTimedOut(f"the task did not end within {limits.seconds:g} s")
    if code is codes.OUT_OF_FUEL:
        return TaskTimedOut(f"the task did not end before it used up its fuel for {limits.seconds:g} s")
    reason = {
        codes.MEMORY_OUT_OF_BOUNDS: "it read or wrote outside its memory",
        codes.UNREACHABLE: "it stopped itself: a trap, a barrier that some threads never reach, or recursion too deep",
        codes.STACK_OVERFLOW: "its stack overflowed: recursion too deep",
        codes.INTEGER_DIVISION_BY_ZERO: "it divided an integer by zero",
        codes.INTEGER_OVERFLOW: "an integer operation overflowed",
    }.get(code, _bounded(error))
    return TaskTrapped(f"the kernel trapped: {reason}")


def _bounded(error: Exception) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:DETAIL_CHARACTERS_MAX]
