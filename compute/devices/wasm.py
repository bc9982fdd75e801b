"""The CPU as a device: a program's WebAssembly module in wasmtime, one fresh instance for each task.

Why the same bits come out everywhere: the module imports nothing but memory, relaxed SIMD and every unused proposal is
off, memory starts as zeros, and NaNs, whose sign and payload depend on the processor, are made canonical in float
outputs. What holds a kernel: linear memory of exactly the size its arrays need, fuel, and an epoch that a watchdog
advances at the deadline. The process around it has limits of its own (``sandbox``).

The arrays lie in linear memory whole, at addresses that are the same for every task of a program. Inputs are laid over
it copy-on-write where the system can, copied where not; a task that writes to an input changes only what it reads
itself. An output is fresh memory, of which only the task's own part is taken; changes anywhere else fail the task.

The only module that imports wasmtime.
"""

import ctypes
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import wasmtime
from wasmtime import _ffi as ffi  # Func.__call__ asks for the function's type each time: 56 µs against 6

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.ownership import Bytes, Foreign, put_back
from depin_node.compute.devices.pages import Pages
from depin_node.compute.programs.memory import placements
from depin_node.compute.programs.module import PAGE_BYTES, TABLE_ELEMENTS_MAX, scan_module
from depin_node.compute.programs.program import DTYPE_BYTES, Axis, Launch, Offset, Program, Scalar
from depin_node.compute.programs.shards import numpy_dtype, owned_boxes, task_blocks
from depin_node.compute.translate.abi import pack_arguments
from depin_node.core.errors import TaskOutOfMemory, TaskRejected, TaskTimedOut, TaskTrapped

ARGUMENT_BYTES = 4096
STACK_BYTES_MAX = 512 << 10
FUEL_PER_S = 200_000_000_000
"""More than any code burns: 1.1e10 a second in integer arithmetic, 5e10 in ``memory.fill``, measured. So fuel ends a
task only if the watchdog failed."""
WATCHDOG_S = 0.05
MAP_BYTES_MIN = 64 << 10
DETAIL_CHARACTERS_MAX = 1000
KERNELS_MAX = 64
"""In one module."""
RUN_PARAMETERS = ("i64", "i64", *("i32",) * 7)


class Watchdog:
    """Advances the engine's epoch when the running task passes its deadline, within ``WATCHDOG_S``."""

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
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()

    def disarm(self) -> None:
        """Stop it; no epoch is advanced after this returns."""
        with self._lock:
            self._deadline = None

    def _watch(self) -> None:
        while True:
            time.sleep(WATCHDOG_S)  # the clock that deadlines are counted by, in its own thread
            with self._lock:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._deadline = None
                    self._engine.increment_epoch()


class WasmDevice:
    """See the module."""

    device_class = "wasm-1"

    def __init__(self) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        config.epoch_interruption = True
        config.wasm_simd = True
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
        self.engine = wasmtime.Engine(config)
        self.pages = Pages()
        self.watchdog = Watchdog(self.engine)

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> "WasmProgram":
        """See ``Device``."""
        for index in program.inputs:
            buffer = program.buffers[index]
            if index not in inputs or inputs[index].data.nbytes != buffer.size_bytes:
                raise TaskRejected(f"input {buffer.name} does not have its {buffer.size_bytes} bytes")
        if len(program.steps) > 1 or not isinstance(program.steps[0], Launch) or isinstance(program.shards, Axis):
            raise TaskRejected("the device runs programs of one launch so far")
        try:
            module = wasmtime.Module(self.engine, program.units[0].module)
        except wasmtime.WasmtimeError as error:
            raise TaskRejected(f"the module is not valid: {_bounded(error)}") from error
        _check_exports(module)
        return WasmProgram(self, program, module, inputs, limits)


def _address(argument: int | Offset, addresses: Sequence[int], program: Program) -> int:
    if isinstance(argument, int):
        return addresses[argument]
    item_bytes = DTYPE_BYTES[program.buffers[argument.buffer].dtype]
    return addresses[argument.buffer] + argument.elements * item_bytes


def _bounded(error: Exception) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:DETAIL_CHARACTERS_MAX]


def _check_exports(module: Any) -> None:
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
    if not 1 <= kernels <= KERNELS_MAX or found not in (ours, {**ours, "log": address}):
        raise TaskRejected(f"the module's exports are not argbuf and run0 … of our interface: {sorted(found)}"[:400])


class _Instance:
    """A store, memory and instance for one task. Closing it gives all memory back."""

    def __init__(self, loaded: "WasmProgram", fuel: int) -> None:
        self.store = store = wasmtime.Store(loaded.device.engine)
        try:
            store.set_limits(loaded.memory_bytes, TABLE_ELEMENTS_MAX, 1, 1, 1)
            store.set_fuel(fuel)
            store.set_epoch_deadline(1)
            try:
                memory = wasmtime.Memory(store, loaded.memory_type)
            except wasmtime.WasmtimeError as error:
                raise TaskOutOfMemory(f"no memory of {loaded.memory_bytes >> 20} MiB to be had") from error
            self.address = ctypes.addressof(memory.data_ptr(store).contents)
            self.bytes: Bytes = np.frombuffer(memoryview(loaded.view_type.from_address(self.address)), np.uint8)
            self._instance = wasmtime.Instance(store, loaded.module, [memory])
        except BaseException:  # whatever it was: the memory is let go; raised again
            store.close()
            raise

    def call(self, name: str, values: Any, results: Any) -> None:
        """Call an exported function (that there is one is known) with kept arrays of raw values.

        Raises:
            wasmtime.Trap, wasmtime.WasmtimeError: it trapped.
        """
        context, export = self.store._context(), ffi.wasmtime_extern_t()
        instance = ctypes.byref(self._instance._instance)
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
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        if trap:
            raise wasmtime.Trap._from_ptr(trap)

    def close(self) -> None:
        """Free everything; ``bytes`` must not be used after."""
        del self.bytes
        self.store.close()


class WasmProgram:
    """A compiled module with its inputs; see ``Loaded``."""

    def __init__(
        self, device: WasmDevice, program: Program, module: Any, inputs: Mapping[int, Input], limits: TaskLimits
    ) -> None:
        self.device, self.program, self.module = device, program, module
        self.addresses, self.memory_bytes = placements(program)
        if self.memory_bytes > limits.memory_bytes:
            raise TaskOutOfMemory(
                f"a task needs {-(-self.memory_bytes >> 20)} MiB for its arrays and its module, "
                f"the limit is {limits.memory_bytes >> 20} MiB"
            )
        pages = self.memory_bytes // PAGE_BYTES
        info = scan_module(program.units[0].module)
        if info.memory_pages_max is not None and info.memory_pages_max < pages:
            raise TaskRejected(f"the module allows {info.memory_pages_max} pages of memory, its arrays need {pages}")
        self.memory_type = wasmtime.MemoryType(wasmtime.Limits(pages, info.memory_pages_max or pages))
        self.view_type = ctypes.c_ubyte * self.memory_bytes
        self._inputs = {
            index: (np.frombuffer(inputs[index].data, np.uint8), inputs[index].fd) for index in program.inputs
        }
        self._outputs = [
            (index, program.buffers[index], numpy_dtype(program.buffers[index])) for index in program.outputs
        ]
        launch = program.launch
        self._run = f"run{program.kernels[launch.kernel].entry}"
        self._call = (ffi.wasmtime_val_t * len(RUN_PARAMETERS))()
        fixed = (0, 0, *launch.grid(0), *launch.block, launch.shared_mem)
        for value, kind, number in zip(self._call, RUN_PARAMETERS, fixed, strict=True):
            value.kind = ffi.WASMTIME_I64.value if kind == "i64" else ffi.WASMTIME_I32.value
            setattr(value.of, kind, number)
        packed = pack_arguments(
            program.kernels[launch.kernel].parameters,
            [a.data if isinstance(a, Scalar) else _address(a, self.addresses, program) for a in launch.args],
        )
        self._arguments: Bytes = np.frombuffer(packed, np.uint8)
        self._gaps = self._find_gaps(info.memory_pages * PAGE_BYTES)
        self._argument_address = self._find_arguments(info.memory_pages * PAGE_BYTES)

    def _find_gaps(self, start: int) -> list[Foreign]:
        """The parts of memory above the module's own that belong to no array."""
        ends = [a + buffer.size_bytes for a, buffer in zip(self.addresses, self.program.buffers, strict=True)]
        edges = zip([start, *ends], [*self.addresses, self.memory_bytes], strict=True)
        return [Foreign(low, high, low, None, "") for low, high in edges]

    def _find_arguments(self, own_bytes: int) -> int:
        """Ask the module once where its argument buffer is."""
        try:
            instance = _Instance(self, FUEL_PER_S // 1000)
            try:
                result = (ffi.wasmtime_val_t * 1)()
                instance.call("argbuf", (ffi.wasmtime_val_t * 0)(), result)
                address = int(result[0].of.i32) & 0xFFFFFFFF
            finally:
                instance.close()
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise TaskRejected(f"the module does not start: {_bounded(error)}") from error
        if address % 16 or address + ARGUMENT_BYTES > own_bytes or len(self._arguments) > ARGUMENT_BYTES:
            raise TaskRejected("the module's argument buffer is not aligned or not within its own memory")
        return address

    def run(self, task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        """See ``Loaded``."""
        fuel = int(limits.seconds * FUEL_PER_S)
        try:
            instance = _Instance(self, fuel)
            try:
                self._place_inputs(instance)
                self._call[0].of.i64, self._call[1].of.i64 = task_blocks(self.program, task)
                self.device.watchdog.arm(limits.seconds)
                try:
                    instance.call(self._run, self._call, _NO_RESULTS)
                finally:
                    self.device.watchdog.disarm()
                self._take_outputs(instance, task, results)
                return fuel - int(instance.store.get_fuel())
            finally:
                instance.close()
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise _task_error(error, limits) from error

    def _place_inputs(self, instance: _Instance) -> None:
        for index, (data, fd) in self._inputs.items():
            address = self.addresses[index]
            if (
                fd < 0
                or len(data) < MAP_BYTES_MIN
                or not self.device.pages.map_file(instance.address + address, fd, len(data))
            ):
                instance.bytes[address : address + len(data)] = data
        at = self._argument_address
        instance.bytes[at : at + len(self._arguments)] = self._arguments

    def _take_outputs(self, instance: _Instance, task: int, results: Sequence[memoryview]) -> None:
        foreign = list(self._gaps)
        for output, (index, buffer, dtype) in enumerate(self._outputs):
            address = self.addresses[index]
            whole = instance.bytes[address : address + buffer.size_bytes].view(dtype).reshape(buffer.shape)
            original = self._inputs[index][0] if buffer.is_input else None
            boxes = owned_boxes(self.program, task, output)
            result = np.frombuffer(results[output], dtype)
            at = 0
            for box in boxes:
                result[at : at + box.elements].reshape(box.shape)[...] = whole[box.slices]
                at += box.elements
            if dtype.kind == "c":
                _canonical_nans(result.view(f"<f{dtype.itemsize // 2}"))
            elif dtype.kind == "f":
                _canonical_nans(result)
            foreign += [
                Foreign(address + start, address + stop, address, original, buffer.name)
                for start, stop in put_back(buffer, dtype.itemsize, boxes, whole, original)
            ]
        self._check_unchanged(instance, foreign)

    def _check_unchanged(self, instance: _Instance, foreign: list[Foreign]) -> None:
        """Compare what the task does not own with what it was, as far as it was touched."""
        start = self._gaps[0].start
        touched = self.device.pages.touched(instance.address + start, self.memory_bytes - start)
        for low, high in touched:
            for part in foreign:
                first, last = max(part.start, start + low), min(part.stop, start + high)
                if first < last and not part.is_unchanged(instance.bytes, first, last):
                    where = f"to {part.name} outside the tiles of its blocks" if part.name else "between its arrays"
                    raise TaskTrapped(f"the kernel wrote {where}")


_NO_RESULTS = (ffi.wasmtime_val_t * 0)()


def _canonical_nans(result: npt.NDArray[Any]) -> None:
    nans = np.isnan(result)
    if nans.any():
        result[nans] = np.nan  # NumPy's own, positive and quiet: 7e00, 7fc00000, 7ff8000000000000


def _task_error(error: Exception, limits: TaskLimits) -> TaskTimedOut | TaskTrapped:
    code = error.trap_code if isinstance(error, wasmtime.Trap) else None
    codes = wasmtime.TrapCode
    if code is codes.INTERRUPT:
        return TaskTimedOut(f"the task did not end within {limits.seconds:g} s")
    if code is codes.OUT_OF_FUEL:
        return TaskTimedOut(f"the task used up its fuel for {limits.seconds:g} s")
    reason = {
        codes.MEMORY_OUT_OF_BOUNDS: "it read or wrote outside its memory",
        codes.UNREACHABLE: "it stopped itself: a trap, a barrier that some threads never reach, or recursion too deep",
        codes.STACK_OVERFLOW: "its stack overflowed: recursion too deep",
        codes.INTEGER_DIVISION_BY_ZERO: "it divided an integer by zero",
        codes.INTEGER_OVERFLOW: "an integer operation overflowed",
    }.get(code, _bounded(error))
    return TaskTrapped(f"the kernel trapped: {reason}")
