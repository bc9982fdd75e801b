"""The CPU as a device: a program's WebAssembly modules in wasmtime, fresh instances for each task.

Memory is kept from task to task of one program, since fresh pages cost more than most tasks: what a task wrote is made
what it was before. After a task that failed, or where nobody can tell what was written, the next one gets new memory.

Why the same bits come out everywhere: the engine (``wasm_engine``) leaves nothing to the machine, memory starts as
zeros, and NaNs, whose sign and payload depend on the processor, are made canonical in float outputs. What holds a
kernel: linear memory of exactly the size its arrays need, fuel, and a deadline. The process around it has limits of its
own (``sandbox``).

The arrays lie in linear memory (``task_arrays``), at addresses that are the same for every task of a program, above the
part that is the modules' own. Several units share that memory and take turns at the bottom of it: a unit that follows
another finds its own part as it began. What a task does not own must be as it was at the end, or it has failed.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from depin_node.compute.devices.array_operations import execute, prepare
from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.held import Zeros
from depin_node.compute.devices.ownership import Bytes
from depin_node.compute.devices.pages import Pages
from depin_node.compute.devices.steps import run_steps
from depin_node.compute.devices.task_arrays import TaskArrays
from depin_node.compute.devices.wasm_engine import (
    NO_RESULTS,
    Call,
    EngineError,
    Instances,
    Machine,
    Unit,
    Watchdog,
    compile_module,
    make_engine,
    native_module,
    task_error,
)
from depin_node.compute.programs.memory import attributes, memory_bytes
from depin_node.compute.programs.module import PAGE_BYTES, scan_module
from depin_node.compute.programs.program import Axis, Launch, Offset, Operation, Program, Scalar, flattened
from depin_node.compute.programs.shards import task_blocks
from depin_node.compute.programs.slices import held_bytes
from depin_node.compute.translate.abi import pack_arguments, slot_bytes
from depin_node.core.errors import TaskOutOfMemory, TaskRejected, TaskTimedOut

FUEL_PER_S = 200_000_000_000
"""More than any code burns: 1.1e10 a second in integer arithmetic, 5e10 in ``memory.fill``, measured. So fuel ends a
task only if the watchdog failed."""
PLACES_KEPT_MAX = 64
"""Argument buffers kept for one launch: as many as there are ways in which swaps have left its arrays."""


class WasmDevice:
    """See the module."""

    device_class = "wasm-1"
    gap_fill = 0
    """The byte that memory between the arrays holds. Programs may not read it: ``TrialDevice`` sees whether they do."""
    canonical_nans = False
    tells_sizes = False
    """Whether modules are told how large their arrays are, as those of trials want to know (``translate/abi.py``)."""

    def __init__(self) -> None:
        self.engine = make_engine(canonical_nans=self.canonical_nans)
        self.pages, self.zeros = Pages(), Zeros()
        prepare(np)
        self.watchdog = Watchdog(self.engine)
        self._compiled: dict[bytes, Any] = {}

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> "WasmProgram":
        """See ``Device``."""
        for index in program.inputs:
            buffer = program.buffers[index]
            if index not in inputs or inputs[index].data.nbytes != buffer.size_bytes:
                raise TaskRejected(f"input {buffer.name} does not have its {buffer.size_bytes} bytes")
        units = [Unit(self._module(unit.module), unit.module) for unit in program.units]
        for kernel in program.kernels:
            if kernel.entry >= units[kernel.unit].kernels:
                raise TaskRejected(f"{kernel.name} is run{kernel.entry}, which its module does not export")
        return WasmProgram(self, program, units, inputs, limits)

    def _module(self, module: bytes) -> Any:
        compiled = self._compiled.get(module)
        return compile_module(self.engine, module) if compiled is None else compiled

    def compile_native(self, modules: Sequence[bytes]) -> list[bytes]:
        """See ``Compiler``."""
        for module in modules:
            scan_module(module)
            self._compiled[module] = compile_module(self.engine, module)
        return [bytes(self._compiled[module].serialize()) for module in modules]

    def adopt_native(self, modules: Sequence[bytes], native: Sequence[bytes]) -> None:
        """See ``Compiler``. What the engine does not take is compiled again."""
        for module, code in zip(modules, native, strict=True):
            compiled = native_module(self.engine, code)
            if compiled is not None:
                self._compiled[module] = compiled


class CanonicalNanDevice(WasmDevice):
    """The same, with NaNs made canonical by the engine: a module that gives other bytes shows those of a processor."""

    canonical_nans = True


class _Prepared:
    """What a launch needs that is the same for all tasks."""

    def __init__(self, program: Program, launch: Launch) -> None:
        kernel = program.kernels[launch.kernel]
        self.launch, self.unit, self.parameters = launch, kernel.unit, kernel.parameters
        self.export = f"run{kernel.entry}"
        self.buffers = [a.buffer if isinstance(a, Offset) else a for a in launch.args if not isinstance(a, Scalar)]
        self.written = {
            a.buffer if isinstance(a, Offset) else a
            for a, parameter in zip(launch.args, kernel.parameters, strict=True)
            if not isinstance(a, Scalar) and not parameter.const
        }
        self.call = Call(launch.grid(0), launch.block, launch.shared_mem)
        self.packed: dict[tuple[int, ...], Bytes] = {}
        self.varies = isinstance(program.shards, Axis)
        self.call.set_blocks(0, launch.blocks(0))

    def set_blocks(self, program: Program, task: int, last: int) -> None:
        """Say which blocks of which grid the next call runs; ``last`` is the program's ``last_blocks``."""
        if self.varies:
            self.call.set_grid(self.launch.grid(task))
            self.call.set_blocks(0, self.launch.blocks(task))
        elif program.tasks > 1 or last:
            self.call.set_blocks(*task_blocks(program, task))
        if last:
            self.call.keep_last(last)


class WasmProgram:
    """Compiled modules with their inputs; see ``Loaded``."""

    def __init__(
        self, device: WasmDevice, program: Program, units: list[Unit], inputs: Mapping[int, Input], limits: TaskLimits
    ) -> None:
        self.device, self.program, self.units = device, program, units
        self.log = b""
        self.last_blocks = 0
        """Of each launch only so many blocks are run, its last; 0: all. Set for trials (``trial.py``)."""
        self._kept: Instances | None = None
        self.arrays = TaskArrays(program, inputs, device.pages, device.zeros, device.gap_fill)
        needed = memory_bytes(program)
        if needed > limits.memory_bytes:
            raise TaskOutOfMemory(
                f"a task needs {-(-needed >> 20)} MiB for its arrays and its modules, "
                f"the limit is {limits.memory_bytes >> 20} MiB"
            )
        pages = self.arrays.memory_bytes // PAGE_BYTES
        for unit in units:
            if unit.pages_max is not None and unit.pages_max < pages:
                raise TaskRejected(f"the module allows {unit.pages_max} pages of memory, its arrays need {pages}")
        self._machine = Machine(device.engine, units, self.arrays.memory_bytes)
        self.launches = {
            id(step): _Prepared(program, step) for step in flattened(program.steps) if isinstance(step, Launch)
        }
        for number, unit in enumerate(units):
            task = Instances(self._machine, FUEL_PER_S // 1000)
            try:
                unit.look(task, number)
            finally:
                task.close()

    def results_in(self, arena: memoryview) -> None:
        """See ``Loaded``."""
        self.arrays.results_in(arena)

    def run(self, task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        """See ``Loaded``."""
        fuel = int(limits.seconds * FUEL_PER_S)
        deadline_s = time.monotonic() + limits.seconds
        instances, keep = self._take_instances(fuel), False
        try:
            used = self._run(_Running(self, task, instances, deadline_s), task, limits, results)
            keep = not instances.is_worn and self.arrays.restore(instances.memory)
            return fuel - used
        except _OverTime:
            raise TaskTimedOut(f"the task did not end within {limits.seconds:g} s") from None
        except EngineError as error:
            raise task_error(error, limits) from error
        finally:
            if keep:
                self._kept = instances
            else:
                instances.close()

    def _take_instances(self, fuel: int) -> Instances:
        """Return what the last task left, if it may be used again, or new ones."""
        instances, self._kept = self._kept, None
        if instances is None:
            return Instances(self._machine, fuel)
        instances.begin(fuel)
        return instances

    def _run(self, running: "_Running", task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        """Run a task in memory that is as it has to be at first; return the fuel that is left."""
        memory = running.task.memory
        try:
            self.arrays.start(task, memory, results)
            self.device.watchdog.arm(limits.seconds)
            try:
                slots = list(range(len(self.program.buffers)))
                run_steps(self.program.steps, running, slots)
                running.check()
            finally:
                self.device.watchdog.disarm()
            self.arrays.finish(task, memory, slots, results)
            return int(running.task.store.get_fuel())
        finally:
            self.log = running.task.take_log()
            self.arrays.end()


class _OverTime(Exception):
    """The time is over between two steps."""


class _Running:
    """One task on its way through the steps; see ``steps.Executor``."""

    def __init__(self, loaded: WasmProgram, number: int, task: Instances, deadline_s: float) -> None:
        self._loaded, self._number, self.task, self._deadline_s = loaded, number, task, deadline_s

    def check(self) -> None:
        """See ``Executor``."""
        if time.monotonic() > self._deadline_s:
            raise _OverTime

    def launch(self, step: Launch, slots: Sequence[int]) -> None:
        """See ``Executor``."""
        loaded, task = self._loaded, self.task
        prepared = loaded.launches[id(step)]
        task.enter(prepared.unit)
        packed = self._arguments(prepared, slots)
        at = loaded.units[prepared.unit].arguments
        task.memory.bytes[at : at + len(packed)] = packed
        prepared.set_blocks(loaded.program, self._number, loaded.last_blocks)
        task.call(prepared.export, prepared.call.values, NO_RESULTS)
        if loaded.arrays.has_edges:
            for index in prepared.written:
                loaded.arrays.refill(task.memory, index, slots[index], self._number)

    def _arguments(self, prepared: _Prepared, slots: Sequence[int]) -> Bytes:
        places = tuple([slots[index] for index in prepared.buffers])
        packed = prepared.packed.get(places)
        if packed is None:
            values = [self._argument(prepared, position, slots) for position in range(len(prepared.parameters))]
            packed = np.frombuffer(pack_arguments(prepared.parameters, values), np.uint8)
            if not prepared.varies and len(prepared.packed) < PLACES_KEPT_MAX:
                prepared.packed[places] = packed
        return packed

    def _argument(self, prepared: _Prepared, position: int, slots: Sequence[int]) -> int | bytes:
        argument, parameter = prepared.launch.args[position], prepared.parameters[position]
        if isinstance(argument, Scalar):
            return argument.of(self._number, slot_bytes(parameter))
        index, offset = (argument.buffer, argument.elements) if isinstance(argument, Offset) else (argument, 0)
        address = self._loaded.arrays.addresses[slots[index]] + offset * self._loaded.arrays.dtypes[index].itemsize
        if self._loaded.device.tells_sizes and not offset:
            address |= held_bytes(self._loaded.program, self._loaded.program.buffers[index], self._number) << 32
        return address

    def operation(self, step: Operation, slots: Sequence[int]) -> None:
        """See ``Executor``."""
        arrays, memory = self._loaded.arrays, self.task.memory

        def views(names: tuple[int, ...]) -> list[Any]:
            return [arrays.view(memory, index, slots[index], self._number) for index in names]

        with np.errstate(all="ignore"):
            execute(np, step.name, views(step.inputs), views(step.outputs), attributes(step))
        for index in step.outputs:
            arrays.refill(memory, index, slots[index], self._number)

    def is_set(self, slot: int) -> bool:
        """See ``Executor``."""
        address = self._loaded.arrays.addresses[slot]
        return bool(self.task.memory.bytes[address : address + self._loaded.arrays.dtypes[slot].itemsize].any())
