"""The arrays of a task in one block of memory: laid out before it runs, edges kept, its own part taken after it.

Inputs are laid over memory copy-on-write where the system can, copied where not, and of arrays that are cut only the
rows that the task holds. A task that writes to an input changes only what it reads itself. A large result is filled
where the node will read it, if it lies in the arena (``results_in``): its pages, made zeros, are lent to the memory
while the task runs. After a task the memory can be made what it was before (``restore``): whatever the task wrote is
zeros or the input again, so the next task sees nothing of it. Rows beyond an array's ends
(``slices``) are filled by the edge rule at first, and again after each step that may have written the array; but not
those that wrap around: they are a neighbour's like any other.

NaNs of results are made canonical, but where every module says that it stores no others (``translate/stores.py``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from depin_node.compute.devices.device import Input
from depin_node.compute.devices.held import Edge, Zeros, canonical_nans, held_edge, lay_rows, take
from depin_node.compute.devices.ownership import Bytes, Foreign, put_back
from depin_node.compute.devices.pages import Pages
from depin_node.compute.programs.memory import own_bytes, placements
from depin_node.compute.programs.module import scan_module
from depin_node.compute.programs.program import Axis, Operation, Program, Swap, flattened
from depin_node.compute.programs.shards import Box, first_owned, local_box, numpy_dtype, owned_boxes, result_start
from depin_node.compute.programs.slices import byte_ranges, held_bytes, held_shape, is_in_rows
from depin_node.core.errors import TaskTrapped

MAP_BYTES_MIN = 64 << 10
HUGE_BYTES_MIN = 4 << 20
"""A task that owns so much of an output, or more, gets large pages for it."""
KEPT_BYTES_MAX = 1 << 20
"""So much of what a task wrote is made zeros and kept for the next one; more costs less to give back."""
Array = npt.NDArray[Any]


class Memory(NamedTuple):
    """The linear memory of one task, where in this process it begins, and which parts of it files are mapped over."""

    bytes: Bytes
    address: int
    mapped: dict[int, tuple[int, int]]

    def __repr__(self) -> str:  # a traceback may outlive the memory
        return f"Memory at {self.address:#x}"


class Loan(NamedTuple):
    """Pages of a result that are in a task's memory while it runs: addresses in this process, and bytes."""

    shared: int
    address: int
    size: int


class TaskArrays:
    """Where the arrays of a program's tasks are, and what is in them at first."""

    def __init__(
        self, program: Program, inputs: Mapping[int, Input], pages: Pages, zeros: Zeros, gap_fill: int = 0
    ) -> None:
        self.program, self.pages, self._zeros, self._gap_fill = program, pages, zeros, gap_fill
        self.addresses, self.memory_bytes = placements(program)
        self.dtypes = [numpy_dtype(buffer) for buffer in program.buffers]
        self._sizes = [buffer.size_bytes for buffer in program.buffers]
        self._start = own_bytes(program)
        self._inputs = {
            index: (np.frombuffer(inputs[index].data, np.uint8), inputs[index].fd) for index in program.inputs
        }
        self._outputs = [(index, program.buffers[index], self.dtypes[index]) for index in program.outputs]
        self._varies = isinstance(program.shards, Axis)
        self._arena = (0, 0)
        self._reached = 0  # the end of what has been filled of it
        self._lent: dict[int, Loan] = {}
        self._touched: list[tuple[int, int]] = []
        self._faults = -1
        self._moves = any(isinstance(step, Swap) for step in flattened(program.steps))
        self._canonical = all(scan_module(unit.module).canonical for unit in program.units) and not any(
            isinstance(step, Operation) for step in flattened(program.steps)
        )
        self._first_of = [None if self._moves else first_owned(program, n) for n in range(len(program.outputs))]
        self._by_turns = [self._pages_of(index) for index in program.outputs if program.buffers[index].tile]
        self._cut = [index for index, buffer in enumerate(program.buffers) if buffer.cut is not None]
        self._task, self._gaps, self._edges = -1, self._find_gaps(0), dict[int, Edge]()

    @property
    def has_edges(self) -> bool:
        """Whether the task that was started has rows to ``refill``."""
        return bool(self._edges)

    def results_in(self, arena: memoryview) -> None:
        """Say where results may lie that share their pages with nothing else: the large ones are filled in place."""
        self._arena = (np.frombuffer(arena, np.uint8).ctypes.data, len(arena))

    def start(self, task: int, memory: Memory, results: Sequence[memoryview]) -> None:
        """Lay a task's arrays out in memory that is zeros, but for inputs that are mapped already.

        ``end`` has to be called in any case.
        """
        if self._varies and task != self._task:
            self._task, self._gaps = task, self._find_gaps(task)
            edges = {index: held_edge(self.program, self.program.buffers[index], task) for index in self._cut}
            self._edges = {index: edge for index, edge in edges.items() if edge is not None}
        for index, (data, fd) in self._inputs.items():
            buffer, address = self.program.buffers[index], self.addresses[index]
            if buffer.cut is not None:
                if not self._map_rows(index, task, memory):
                    whole = data.view(self.dtypes[index]).reshape(buffer.shape)
                    lay_rows(self.program, buffer, task, whole, self.view(memory, index, index, task))
            elif index in memory.mapped:
                continue
            elif (
                fd >= 0 and len(data) >= MAP_BYTES_MIN and self.pages.map_file(memory.address + address, fd, len(data))
            ):
                memory.mapped[index] = (address, address - (-len(data) // self.pages.size) * self.pages.size)
            else:
                memory.bytes[address : address + len(data)] = data
        self._lend(task, memory, results)
        for output, (index, buffer, _) in enumerate(self._outputs):
            large = self._sizes[index] >= HUGE_BYTES_MIN * self.program.tasks
            if large and not buffer.is_input and output not in self._lent:
                self.pages.use_large(memory.address + self.addresses[index], self._sizes[index])
        for index in self._edges:
            self.refill(memory, index, index, task)
        self._flip_gaps(memory)
        self._faults = self.pages.faults()

    def _map_rows(self, index: int, task: int, memory: Memory) -> bool:
        """Lay the rows that a task holds of an input over memory, in place of another's, if they are whole pages of the
        file; tell whether that was done. What is left of their last page is copied: other rows follow there."""
        buffer, address, (data, fd) = self.program.buffers[index], self.addresses[index], self._inputs[index]
        before = memory.mapped.pop(index, None)
        if before is not None:
            self.pages.make_private(memory.address + before[0], before[1] - before[0])
        if fd < 0 or not is_in_rows(buffer):
            return False
        start, end = byte_ranges(self.program, buffer, task)[0]
        size = (end - start) // self.pages.size * self.pages.size
        is_all = end - start == held_bytes(self.program, buffer, task)  # no row lies beyond the array's ends
        if not is_all or size < MAP_BYTES_MIN or not self.pages.map_file(memory.address + address, fd, size, start):
            return False
        memory.mapped[index] = (address, address + size)
        memory.bytes[address + size : address + end - start] = data[start + size : end]
        return True

    def _lend(self, task: int, memory: Memory, results: Sequence[memoryview]) -> None:
        """Have large results that lie in the arena filled in place: whole pages, where a task owns one part of it."""
        arena, arena_bytes = self._arena
        for output, (index, buffer, _) in enumerate(self._outputs):
            size = len(results[output]) // self.pages.size * self.pages.size
            if size < MAP_BYTES_MIN or not arena_bytes or buffer.is_input or self._moves:
                continue
            result = np.frombuffer(results[output], np.uint8)
            shared, start = result.ctypes.data, result_start(self.program, task, output)
            if start is None or not arena <= shared <= arena + arena_bytes - size:
                continue
            address = memory.address + self.addresses[index] + start
            self._zeros.make(result[:size], fresh=shared + size > self._reached)
            self._reached = max(self._reached, shared + size)
            if self.pages.lend(shared, address, size):
                self._lent[output] = Loan(shared, address, size)

    def _owned(self, task: int, output: int) -> Sequence[Box]:
        """Return what a task owns of an output, as parts of what it holds of it."""
        buffer, boxes = self._outputs[output][1], owned_boxes(self.program, task, output)
        return boxes if buffer.cut is None else [local_box(self.program, buffer, task, boxes[0])]

    def end(self) -> None:
        """Take back what was lent.

        Raises:
            OSError: it does not come back; this process must end.
        """
        while self._lent:
            self.pages.take_back(*self._lent.popitem()[1])

    def view(self, memory: Memory, name: int, slot: int, task: int) -> Array:
        """Return what a task holds of the buffer ``name``, which is at ``slot`` now."""
        buffer, address = self.program.buffers[name], self.addresses[slot]
        if buffer.cut is None:
            size_bytes, shape = self._sizes[name], buffer.shape
        else:
            size_bytes, shape = held_bytes(self.program, buffer, task), held_shape(self.program, buffer, task)
        return memory.bytes[address : address + size_bytes].view(self.dtypes[name]).reshape(shape)

    def refill(self, memory: Memory, name: int, slot: int, task: int) -> None:
        """Make the rows beyond an array's ends what the edge rule says, after a step that may have written them."""
        edge = self._edges.get(name)
        if edge is not None:
            view = self.view(memory, name, slot, task)
            view[edge.targets] = edge.fill if edge.sources is None else view[edge.sources]

    def finish(self, task: int, memory: Memory, slots: Sequence[int], results: Sequence[memoryview]) -> None:
        """Take the task's own part of each output, with canonical NaNs.

        Raises:
            TaskTrapped: something was written that is not the task's own.
        """
        own = [(0, self._start)]
        for output, (index, buffer, dtype) in enumerate(self._outputs):
            result = np.frombuffer(results[output], dtype)
            look = not self._canonical or buffer.is_input
            first_of = self._first_of[output]
            low = self.addresses[index] + (first_of(task) * dtype.itemsize if first_of else 0)
            if output in self._lent:
                self._finish_lent(self._lent[output], memory, result, look=look)
            elif first_of is not None:
                take(result, memory.bytes[low : low + result.nbytes].view(dtype), look=look)
            else:
                at, whole = 0, self.view(memory, index, slots[index], task)
                for box in self._owned(task, output):
                    take(result[at : at + box.elements], whole[box.slices], look=look)
                    at += box.elements
            if first_of is not None:
                own.append((low, low + result.nbytes))
        self._check_unchanged(memory, task, own)

    def _finish_lent(self, loan: Loan, memory: Memory, result: Array, *, look: bool) -> None:
        """Make the NaNs canonical where the result is, and copy what is left of its last page."""
        start, done = loan.address - memory.address, loan.size // result.itemsize
        if look:
            canonical_nans(memory.bytes[start : start + loan.size].view(result.dtype))
        rest = memory.bytes[start + loan.size : start + result.nbytes]
        take(result[done:], rest.view(result.dtype), look=look)

    def _pages_of(self, index: int) -> tuple[int, int]:
        """Return where the pages are that hold nothing but an array, as addresses in linear memory."""
        low, high, page = self.addresses[index], self.addresses[index] + self._sizes[index], self.pages.size
        return -(-low // page) * page, high // page * page

    def restore(self, memory: Memory) -> bool:
        """Make memory what ``start`` wants, after ``finish`` and ``end``.

        Pages of an output that tasks fill by turns are given back: the next task writes to others, and would be asked
        of these what they hold.

        Returns:
            Whether that was possible; if not, the memory must not be used again.
        """
        if not self.pages.can_tell:
            return False
        kept, given_back = 0, sorted([*memory.mapped.values(), *self._by_turns])
        for low, high in self._touched:
            for first, last, goes in _cut_at(low, high, given_back):
                kept += 0 if goes else last - first
                if goes or kept > KEPT_BYTES_MAX:
                    if not self.pages.forget(memory.address + first, last - first):
                        return False
                else:
                    memory.bytes[first:last] = 0
        return True

    def _check_unchanged(self, memory: Memory, task: int, own: list[tuple[int, int]]) -> None:
        """Compare what the task does not own with what it was, as far as it was touched; ``own`` need not be all.

        Files that are mapped are not looked at if nothing was: a write to their pages would have been a fault.
        """
        unchanged = self._faults >= 0 and self.pages.faults() == self._faults
        self._flip_gaps(memory)
        known = [
            (loan.address - memory.address, loan.address - memory.address + loan.size) for loan in self._lent.values()
        ]
        known += memory.mapped.values() if unchanged else []
        self._touched = [
            (first + low, first + high)
            for first, last, is_known in _cut_at(0, self.memory_bytes, sorted(known))
            if not is_known
            for low, high in self.pages.touched(memory.address + first, last - first)
        ]
        if all(any(first <= low and high <= last for first, last in own) for low, high in self._touched):
            return  # as it is with most tasks
        for part in self._foreign(memory, task):
            for low, high in self._touched:
                first, last = max(part.start, low), min(part.stop, high)
                if first < last and not part.is_unchanged(memory.bytes, first, last):
                    where = f"to {part.name} outside the tiles of its blocks" if part.name else "between its arrays"
                    raise TaskTrapped(f"the kernel wrote {where}")

    def _foreign(self, memory: Memory, task: int) -> Iterator[Foreign]:
        """Yield what must be as it was; a task's own parts that lie in there have been taken, and are put back."""
        yield from self._gaps
        for output, (index, buffer, dtype) in enumerate(self._outputs):
            if buffer.tile:
                address, original = self.addresses[index], self._inputs[index][0] if buffer.is_input else None
                boxes, whole = self._owned(task, output), self.view(memory, index, index, task)
                for start, stop in put_back(buffer, dtype.itemsize, boxes, whole, original):
                    yield Foreign(address + start, address + stop, address, original, buffer.name)

    def _flip_gaps(self, memory: Memory) -> None:
        """Put ``gap_fill`` between the arrays, or take it away again, which leaves zeros where nothing was written."""
        if self._gap_fill:
            for gap in self._gaps:
                memory.bytes[gap.start : gap.stop] ^= self._gap_fill

    def _find_gaps(self, task: int) -> list[Foreign]:
        """The parts of memory above the modules' own that belong to no array of a task."""
        buffers = self.program.buffers
        ends = [a + held_bytes(self.program, buffer, task) for a, buffer in zip(self.addresses, buffers, strict=True)]
        edges = zip([self._start, *ends], [*self.addresses, self.memory_bytes], strict=True)
        return [Foreign(low, high, low, None, "") for low, high in edges]


def _cut_at(low: int, high: int, marked: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """Cut a range into parts that lie in one of ``marked``, which are in order, and parts that lie in none."""
    for start, stop in marked:
        if start >= high:
            break
        if low < start:
            yield low, start, False
        if max(low, start) < min(high, stop):
            yield max(low, start), min(high, stop), True
        low = max(low, min(high, stop))
    if low < high:
        yield low, high, False
