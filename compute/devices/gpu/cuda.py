"""A GPU as a device: a program's CUDA text, compiled strictly elsewhere, run over buffers that stay on the GPU.

    load   check the words ─► compile (a process without GPU) ─► check the PTX ─► load the CUBIN ─► plan the memory
    run    clear all ─► inputs up ─► steps ─► guards and owners checked ─► the task's part of the outputs down

All arrays of a task lie in one allocation, in the places that they have in WebAssembly, with guards between them. It
is cleared before each task, so that no task sees old bytes, neither another's nor the driver's. Launches are cut into
ranges of blocks (``pacing``), between which the deadline counts; what hangs longer is the node's to kill. After an
error that costs the context the device is *spent*: the worker tells the outcome, and ends.

Everything but the calls into the driver (``driver.Driver``) is here, and runs in tests without a GPU, over an
interpreter of PTX.
"""

import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Final

import numpy as np
from blake3 import blake3

from depin_node.compute.devices.array_operations import execute
from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.gpu import comparing, nvrtc, ptx, strict
from depin_node.compute.devices.gpu.answering import wrong_answers
from depin_node.compute.devices.gpu.budget import plan_memory
from depin_node.compute.devices.gpu.comparing import Comparer
from depin_node.compute.devices.gpu.compiling import Compiled
from depin_node.compute.devices.gpu.driver import Driver, DriverError
from depin_node.compute.devices.gpu.faults import classify
from depin_node.compute.devices.gpu.pacing import Pacer
from depin_node.compute.devices.held import canonical_nans, held_edge, held_input
from depin_node.compute.devices.steps import run_steps
from depin_node.compute.programs.memory import attributes, own_bytes, placements, scratch_bytes
from depin_node.compute.programs.program import (
    DTYPE_BYTES,
    Blocks,
    Kernel,
    Launch,
    Offset,
    Operation,
    Program,
    Scalar,
    flattened,
)
from depin_node.compute.programs.shards import (
    Box,
    contiguous_start,
    local_box,
    numpy_dtype,
    owned_boxes,
    task_blocks,
)
from depin_node.compute.programs.slices import held_bytes, held_shape
from depin_node.core.errors import TaskRejected, TaskTimedOut, TaskTrapped

Compile = Callable[[str, Sequence[str]], Compiled]
STRICT_CLASS: Final = "strict-1"
_ENTRY: Final = re.compile(r"^\.visible \.entry (\w+)\(.*?^}", re.MULTILINE | re.DOTALL)
FIRST_BLOCKS_PER_MULTIPROCESSOR: Final = 4
FUEL_PER_S: Final = 1_000_000
"""A GPU counts no instructions: its fuel is microseconds."""


class CudaDevice:
    """A driver and a compiler; ``is_spent`` once the context is lost."""

    def __init__(self, driver: Driver, compile_text: Compile) -> None:
        """Load what it needs on the device.

        Raises:
            TaskError: the device or the compiler fails at our own kernel.
        """
        self.driver, self.compile = driver, compile_text
        self.is_spent = False
        with self.faults():
            self.pacer = Pacer(first=FIRST_BLOCKS_PER_MULTIPROCESSOR * driver.capacity().multiprocessors)
            options = strict.options(driver.architecture, real=True)
            self.comparer = Comparer(driver, compile_text(comparing.TEXT, options))

    @functools.cached_property
    def device_class(self) -> str:
        """``strict-1`` if the device gives every known answer, else what its results depend on.

        Raises:
            TaskError: the device fails at the known answers.
        """
        with self.faults():
            if not wrong_answers(self.driver, self.compile):
                return STRICT_CLASS
        options = strict.options(self.driver.architecture, real=True)
        flags = blake3(" ".join(options).encode()).hexdigest()[:8]
        version = ".".join(str(part) for part in nvrtc.version())
        return f"cuda:sm_{self.driver.architecture}:nvrtc-{version}:{flags}"

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> "CudaProgram":
        """See ``Device``.

        Raises:
            TaskRejected, TaskTimedOut, TaskCrashed: the text is not compiled, or is not what it should be.
            TaskOutOfMemory: see ``budget``.
        """
        for index in program.inputs:
            buffer = program.buffers[index]
            if index not in inputs or inputs[index].data.nbytes != buffer.size_bytes:
                raise TaskRejected(f"input {buffer.name} does not have its {buffer.size_bytes} bytes")
        with self.faults():
            return CudaProgram(self, program, inputs, limits)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what the driver reports into the error of a task."""
        try:
            yield
        except DriverError as error:
            fault = classify(error.status, error.name)
            self.is_spent = self.is_spent or fault.lost
            raise fault.error from error


class CudaProgram:
    """A loaded program with its memory; see ``Loaded``."""

    def __init__(self, device: CudaDevice, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> None:
        self.device, self.driver, self.program = device, device.driver, program
        self.functions = self._compile_units()
        self._inputs = {
            index: np.frombuffer(inputs[index].data, numpy_dtype(buffer)).reshape(buffer.shape)
            for index, buffer in ((index, program.buffers[index]) for index in program.inputs)
        }
        own = own_bytes(program)
        places, memory_bytes = placements(program)
        self._offsets = [place - own for place in places]
        self._size = memory_bytes - own
        compared = [i for i in program.outputs if program.buffers[i].tile and program.buffers[i].is_input]
        originals = sum(program.buffers[index].size_bytes for index in compared)
        plan_memory(
            self.driver.capacity(),
            [self.driver.footprint(function) for function in self.functions],
            arrays=self._size,
            originals=originals,
            scratch=scratch_bytes(program),
            limit=limits.memory_bytes,
        )
        self._base = self.driver.allocate(self._size)
        self._originals = {index: self.driver.allocate(program.buffers[index].size_bytes) for index in compared}
        for index, address in self._originals.items():
            self.driver.upload(address, _bytes(self._inputs[index]))

    @property
    def is_spent(self) -> bool:
        """Whether no task can run here any more."""
        return self.device.is_spent

    def _compile_units(self) -> list[Any]:
        """Return the function of each kernel."""
        program, driver = self.program, self.driver
        threads = [1] * len(program.units)
        for step in flattened(program.steps):
            if isinstance(step, Launch):
                unit = program.kernels[step.kernel].unit
                threads[unit] = max(threads[unit], prod(step.block))
        compiled = [self._compile(unit.cuda, most) for unit, most in zip(program.units, threads, strict=True)]
        names = [ptx.check_entry(compiled[k.unit].ptx, k.entry, k.parameters) for k in program.kernels]
        if program.exact:
            for kernel, name in zip(program.kernels, names, strict=True):
                _require_strict(kernel, name, compiled[kernel.unit].ptx)
        loaded = [driver.load(unit.ptx, unit.cubin) for unit in compiled]
        return [driver.function(loaded[k.unit], name) for k, name in zip(program.kernels, names, strict=True)]

    def _compile(self, cuda: str, threads_max: int) -> Compiled:
        if not cuda:
            raise TaskRejected("the program has no CUDA text: whoever compiled it can be run on WebAssembly only")
        text = strict.whole_text(cuda, threads_max)
        return self.device.compile(text, strict.options(self.driver.architecture, real=True))

    # A task

    def run(self, task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        """See ``Loaded``."""
        with self.device.faults():
            begin = time.monotonic()
            self.driver.clear(self._base, self._size)
            for index, whole in self._inputs.items():
                held = held_input(self.program, self.program.buffers[index], task, whole)
                self.driver.upload(self.place(index), _bytes(held))
            self.driver.wait()
            attempt = _Attempt(self, task, begin + limits.seconds, limits.seconds)
            slots = list(range(len(self.program.buffers)))
            run_steps(self.program.steps, attempt, slots)
            attempt.wait()
            self._check_guards(task)
            self._take_outputs(task, slots, results)
            return int((time.monotonic() - begin) * FUEL_PER_S)

    def close(self) -> None:
        """Give the memory back."""
        for address in (self._base, *self._originals.values()):
            self.driver.free(address)

    def _check_guards(self, task: int) -> None:
        """What belongs to no array must be zeros."""
        buffers, comparer = self.program.buffers, self.device.comparer
        ends = [at + held_bytes(self.program, b, task) for at, b in zip(self._offsets, buffers, strict=True)]
        comparer.start()
        for start, stop in zip([0, *ends], [*self._offsets, self._size], strict=True):
            comparer.compare(self._base + start, 0, stop - start)
        if comparer.has_found():
            raise TaskTrapped("the kernel wrote between its arrays")

    def place(self, slot: int) -> int:
        """Return the address of a buffer's slot."""
        return self._base + self._offsets[slot]

    def array(self, name: int, slot: int, task: int) -> Any:
        """Return what a task holds of a buffer, as an array on the device."""
        buffer = self.program.buffers[name]
        return self.driver.array(self.place(slot), buffer.dtype, held_shape(self.program, buffer, task))

    def _take_outputs(self, task: int, slots: Sequence[int], results: Sequence[memoryview]) -> None:
        for output, index in enumerate(self.program.outputs):
            buffer, dtype = self.program.buffers[index], numpy_dtype(self.program.buffers[index])
            shape, address = held_shape(self.program, buffer, task), self.place(slots[index])
            boxes = [local_box(self.program, buffer, task, box) for box in owned_boxes(self.program, task, output)]
            result, whole, at = np.frombuffer(results[output], dtype), None, 0
            for box in boxes:
                part = result[at : at + box.elements]
                first = contiguous_start(box, shape)
                if first is not None:
                    self.driver.download(address + first * dtype.itemsize, _bytes(part))
                else:
                    whole = self._download(address, shape, dtype) if whole is None else whole
                    part.reshape(box.shape)[...] = whole[box.slices]
                at += box.elements
            if isinstance(self.program.shards, Blocks) and buffer.tile:
                self._check_owner(index, address, boxes, shape, dtype)
            canonical_nans(result)

    def _download(self, address: int, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Any:
        whole = np.empty(shape, dtype)
        self.driver.download(address, _bytes(whole))
        return whole

    def _check_owner(
        self, index: int, address: int, boxes: Sequence[Box], shape: tuple[int, ...], dtype: "np.dtype[Any]"
    ) -> None:
        """Everything of an output that is not the task's must be what it was: zeros, or the input."""
        firsts = [(contiguous_start(box, shape), box.elements) for box in boxes]
        owned = [(first, first + count) for first, count in firsts if first is not None]
        name = self.program.buffers[index].name
        if len(owned) < len(boxes):  # one of them is scattered
            whole = self._download(address, shape, dtype)
            before = self._inputs.get(index, np.zeros(shape, dtype))
            for box in boxes:
                whole[box.slices] = before[box.slices]
            unchanged = whole.tobytes() == before.tobytes()
        else:
            unchanged = self._is_unchanged(index, address, owned)
        if not unchanged:
            raise TaskTrapped(f"the kernel wrote to {name} outside the tiles of its blocks")

    def _is_unchanged(self, index: int, address: int, owned: Sequence[tuple[int, int]]) -> bool:
        """Compare all elements but those of the ranges ``owned``, on the device."""
        buffer, comparer = self.program.buffers[index], self.device.comparer
        original, item_bytes = self._originals.get(index, 0), DTYPE_BYTES[buffer.dtype]
        comparer.start()
        starts, stops = [start for start, _ in owned], [stop for _, stop in owned]
        for low, high in zip([0, *stops], [*starts, buffer.elements], strict=True):
            at = low * item_bytes
            comparer.compare(address + at, original + at if original else 0, (high - low) * item_bytes)
        return not comparer.has_found()


class _Attempt:
    """What the device has been given to do of one task; see ``steps.Executor``."""

    def __init__(self, loaded: CudaProgram, task: int, until: float, seconds: float) -> None:
        self._loaded, self._task, self._until, self._seconds = loaded, task, until, seconds
        self._program, self._driver, self._pacer = loaded.program, loaded.driver, loaded.device.pacer
        self._since = time.monotonic()
        found = {name: held_edge(loaded.program, b, task) for name, b in enumerate(loaded.program.buffers)}
        self._edges = {name: edge for name, edge in found.items() if edge is not None}
        for name in self._edges:
            self._refill(name, name)

    def check(self) -> None:
        """See ``Executor``."""
        if time.monotonic() > self._until:
            self.wait()

    def wait(self) -> None:
        """Wait for the device, and see what time it is.

        Raises:
            TaskTimedOut: too late; the device has nothing left to do.
            DriverError: something that ran failed.
        """
        try:
            self._driver.wait()
        finally:
            now = time.monotonic()
            self._pacer.waited(now - self._since)
            self._since = now
        if now > self._until:
            raise TaskTimedOut(f"the task did not end within {self._seconds:g} s")

    def launch(self, step: Launch, slots: Sequence[int]) -> None:
        """See ``Executor``: it is queued, range by range."""
        program, pacer = self._program, self._pacer
        grid = step.grid(self._task)
        first, last = 0, prod(grid)
        if isinstance(program.shards, Blocks) and program.tasks > 1:
            first, last = task_blocks(program, self._task)
        function = self._loaded.functions[step.kernel]
        fixed = [number.to_bytes(4, "little") for number in (*grid, step.shared_mem)] + self._arguments(step, slots)
        key = (id(self._loaded), step.kernel, step.block)
        while first < last:
            if pacer.must_wait(key):
                self.wait()
            if pacer.is_idle():
                self._since = time.monotonic()
            blocks = pacer.blocks(key, last - first)
            self._driver.launch(function, blocks, step.block, step.shared_mem, [first.to_bytes(8, "little"), *fixed])
            pacer.queued(key, blocks)
            first += blocks
        parameters = program.kernels[step.kernel].parameters
        for argument, parameter in zip(step.args, parameters, strict=True):
            if parameter.pointer and not parameter.const:
                assert not isinstance(argument, Scalar)
                name = argument.buffer if isinstance(argument, Offset) else argument
                self._refill(name, slots[name])

    def _arguments(self, step: Launch, slots: Sequence[int]) -> list[bytes]:
        program, arguments = self._program, list[bytes]()
        for argument, parameter in zip(step.args, program.kernels[step.kernel].parameters, strict=True):
            if isinstance(argument, Scalar):
                arguments.append(argument.of(self._task, DTYPE_BYTES[parameter.dtype] * parameter.lanes))
                continue
            name, elements = (argument.buffer, argument.elements) if isinstance(argument, Offset) else (argument, 0)
            address = self._loaded.place(slots[name]) + elements * DTYPE_BYTES[program.buffers[name].dtype]
            arguments.append(address.to_bytes(8, "little"))
        return arguments

    def operation(self, step: Operation, slots: Sequence[int]) -> None:
        """See ``Executor``: queued behind the launches, and waited for, since its time is not foreseen."""
        self.wait()
        inputs, outputs = (
            [self._loaded.array(name, slots[name], self._task) for name in names]
            for names in (step.inputs, step.outputs)
        )
        execute(self._driver.xp, step.name, inputs, outputs, attributes(step))
        for name in step.outputs:
            self._refill(name, slots[name])
        self.wait()

    def is_set(self, slot: int) -> bool:
        """See ``Executor``: waits for the device."""
        self.wait()
        flag = bytearray(DTYPE_BYTES[self._program.buffers[slot].dtype])
        self._driver.download(self._loaded.place(slot), memoryview(flag))
        return any(flag)

    def _refill(self, name: int, slot: int) -> None:
        """Make the rows beyond an array's ends what the edge rule says, after what may have written them."""
        edge = self._edges.get(name)
        if edge is not None:
            view = self._loaded.array(name, slot, self._task)
            view[edge.targets] = edge.fill if edge.sources is None else view[edge.sources]


def _require_strict(kernel: Kernel, name: str, text: str) -> None:
    """Refuse a kernel whose PTX, functions that it may call included, can give other bits than WebAssembly."""
    mine = _ENTRY.sub(lambda match: match[0] if match[1] == name else "", text)
    if reasons := ptx.why_not_strict(mine):
        raise TaskRejected(f"{kernel.name} would not give the same bits here: {'; '.join(reasons)}")


def _bytes(array: Any) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))
