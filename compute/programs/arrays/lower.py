"""From a graph of arrays to steps: kernels in one source, launches, operations, and the arrays they share.

::

    results ─ schedule.py ─► what lies in memory ─ kernels.py ─► texts ─ here ─► Recording

Steps come in the order of the graph. Kernels with the same text are one kernel. What lies in memory for a while only is
a *temporary*; once nothing reads it any more, the next one of its size and dtype takes its place.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from depin_node.compute.programs.arrays import kernels
from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.emit import CREATED
from depin_node.compute.programs.arrays.indices import VIEWS
from depin_node.compute.programs.arrays.reductions import reduction
from depin_node.compute.programs.arrays.scans import scan
from depin_node.compute.programs.arrays.schedule import in_order, place
from depin_node.compute.programs.arrays.sorts import sort
from depin_node.compute.programs.arrays.words import HELPERS
from depin_node.compute.programs.operations import Attribute

LEAVES: Final = ("input", "constant")


@dataclass(eq=False)
class Slot:
    """Memory of one array. ``role`` is ``in``, ``constant``, ``out`` or ``temp``."""

    role: str
    kind: str
    shape: tuple[int, ...]
    data: Any = None

    @property
    def elements(self) -> int:
        """Of the array."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Launched:
    """One launch: of kernel number ``kernel`` along x, with arrays in memory and numbers."""

    kernel: int
    grid: int
    block: int
    args: tuple[Slot | float, ...]


@dataclass(frozen=True)
class Called:
    """One operation of the device's library."""

    name: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    attributes: Mapping[str, Attribute]


@dataclass
class Recording:
    """What was recorded: texts of kernels in order, steps, and the slots of inputs and results.

    Attributes:
        inputs: by the position of the argument.
        results: in order.
        slots: all of them; each step's are among them.
    """

    texts: list[kernels.Text] = field(default_factory=list)
    steps: list[Launched | Called] = field(default_factory=list)
    inputs: dict[int, Slot] = field(default_factory=dict)
    results: list[Slot] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    def source(self, first: int, last: int) -> str:
        """Return the source of the kernels [first, last)."""
        texts = self.texts[first:last]
        helpers = {name for text in texts for name in text.helpers}
        parts = ["#include <cupy/complex.cuh>\n"] if any("complex<" in text.code for text in texts) else []
        parts += [text.strip() + "\n" for name, text in HELPERS.items() if name in helpers]
        parts += [text.code.replace("@", kernel_name(first + k)) for k, text in enumerate(texts)]
        return "".join(parts)


def kernel_name(number: int) -> str:
    """Return the name of a kernel in the source."""
    return f"step{number}"


def lower(results: Sequence[Array]) -> Recording:
    """Lower the graph of ``results`` to steps. Raises ``TraceError`` if it is too large."""
    return _Lowering(results).recording


class _Lowering:
    def __init__(self, results: Sequence[Array]) -> None:
        self.recording = Recording()
        fixed = {operand for array in in_order(results) if array.op == "call" for operand in array.inputs}
        made = [_made(array, fixed) for array in results]
        self._shapes = {maker: array.shape for array, maker in zip(results, made, strict=True)}
        self._numbers: dict[str, int] = {}
        self._slots: dict[Array, Slot] = {}
        self._calls: dict[Array, tuple[Slot, ...]] = {}
        order = in_order(made)
        self._memory = place(order, made)
        self._sizes = [array.size for array in order]
        for array in order:
            if array.op in LEAVES:
                self._slots[array] = self._leaf(array)
            elif array in self._memory:
                self._lower(array)
        for array, maker in zip(results, made, strict=True):
            self.recording.results.append(self._result(array, maker))
        reuse(self.recording)

    def _slot(self, role: str, kind: str, shape: tuple[int, ...], data: Any = None) -> Slot:
        slot = Slot(role, kind, shape, data)
        self.recording.slots.append(slot)
        return slot

    def _leaf(self, array: Array) -> Slot:
        if array.op == "constant":
            return self._slot("constant", array.kind, array.shape, array.attributes["array"])
        slot = self._slot("in", array.kind, array.shape)
        self.recording.inputs[array.attributes["position"]] = slot
        return slot

    def _own(self, array: Array) -> Slot:
        """Make the slot of an array that is about to be computed."""
        role, shape = ("out", self._shapes[array]) if array in self._shapes else ("temp", array.shape)
        return self._slots.setdefault(array, self._slot(role, array.kind, shape))

    def _result(self, array: Array, made: Array) -> Slot:
        """Return the slot of a result; one that is an input, or a result already, is copied."""
        slot = self._slots[made]
        if slot.role == "out" and slot.shape == array.shape and slot not in self.recording.results:
            return slot
        copy = Array("reshape", (made,), {}, array.kind, array.shape)
        self._memory.add(made)
        target = self._slot("out", array.kind, array.shape)
        self._launch(kernels.elementwise(copy, self._lies, self._sizes), target)
        return target

    def _lies(self, array: Array) -> bool:
        return array in self._memory or array.op in LEAVES

    def _launch(self, text: kernels.Text, *args: Slot | int) -> None:
        number = self._numbers.setdefault(text.code, len(self._numbers))
        if number == len(self.recording.texts):
            self.recording.texts.append(text)
        reads = tuple(self._slots[array] for array in text.reads)
        self.recording.steps.append(Launched(number, text.grid, text.block, (*reads, *text.scalars, *args)))

    def _lower(self, array: Array) -> None:
        if array.op == "call":
            self._call(array)
        elif array.op == "operation":
            self._slots[array] = self._calls[array.inputs[0]][array.attributes["part"]]
        elif array.op == "reduce":
            self._launch(reduction(array, self._lies, self._sizes), self._own(array))
        elif array.op == "scan":
            self._scan(array)
        elif array.op in ("sort", "argsort"):
            self._sort(array)
        elif array.op == "concat":
            self._concat(array)
        else:
            self._launch(kernels.elementwise(array, self._lies, self._sizes), self._own(array))

    def _call(self, array: Array) -> None:
        attributes = array.attributes
        results = [part for part in self._shapes if part.op == "operation" and part.inputs[0] is array]
        parts = {part.attributes["part"] for part in results}
        outputs = tuple(
            self._slot("out" if part in parts else "temp", spec.dtype, spec.shape)
            for part, spec in enumerate(attributes["plan"].results)
        )
        self._calls[array] = outputs
        inputs = tuple(self._slots[operand] for operand in array.inputs)
        self.recording.steps.append(Called(attributes["name"], inputs, outputs, attributes["attributes"]))

    def _scan(self, array: Array) -> None:
        texts = scan(array, self._lies, self._sizes)
        own = self._own(array)
        self._launch(texts.chunks, own)
        if texts.totals is not None and texts.add is not None:
            totals = self._slot("temp", array.kind, (array.shape[0], texts.parts))
            self._launch(texts.totals, own, totals)
            self._launch(texts.add, totals, own)

    def _sort(self, array: Array) -> None:
        """Sort to and fro between two pairs of arrays, so that the last merge writes the result."""
        texts = sort(array, self._lies, self._sizes)
        own, source = self._own(array), array.inputs[0]
        places = array.op == "argsort"
        keys = [self._slot("temp", source.kind, source.shape) for _ in range(2)] if places else [own]
        at = [own] if places else []
        if texts.widths:
            (at if places else keys).append(self._slot("temp", array.kind, array.shape))
        last = len(texts.widths) % 2  # which of the two is written first, so that number 0 is written last
        self._launch(texts.runs, keys[last], *([at[last]] if places else ()))
        for number, width in enumerate(texts.widths):
            source_, target = (last + number) % 2, (last + number + 1) % 2
            pairs = [keys[source_], keys[target], *([at[source_], at[target]] if places else ())]
            self._launch(texts.merge, *pairs, width)

    def _concat(self, array: Array) -> None:
        own, axis, offset = self._own(array), array.attributes["axis"], 0
        for piece in array.inputs:
            self._launch(kernels.elementwise(piece, self._lies, self._sizes, into=(array, axis)), own, offset)
            offset += piece.shape[axis]


def _made(result: Array, fixed: Container[Array]) -> Array:
    """Return what makes a result: the same elements in the same order, perhaps in another shape.

    What the library reads or writes (``fixed`` is what it reads) has to keep its shape.
    """
    array = result
    while array.op == "reshape":
        array = array.inputs[0]
    return result if array.op in {"operation", *LEAVES, *CREATED, *VIEWS} or array in fixed else array


def reuse(recording: Recording) -> None:
    """Let temporaries take the place of others of their size and dtype that nothing reads any more.

    What an operation reads or writes has to be of its shape too; for kernels only the number of elements counts.
    """
    fixed = {slot for step in recording.steps if isinstance(step, Called) for slot in _slots_of(step)}
    last: dict[Slot, int] = {}
    for number, step in enumerate(recording.steps):
        last.update(dict.fromkeys(_slots_of(step), number))
    standing: dict[Slot, Slot] = {}
    free: dict[tuple[str, int], list[Slot]] = {}
    for number, step in enumerate(recording.steps):
        slots = _slots_of(step)
        for slot in slots:
            if slot.role == "temp" and slot not in standing:
                same = free.get((slot.kind, slot.elements), [])
                found = next((other for other in same if slot not in fixed or other.shape == slot.shape), slot)
                if found is not slot:
                    same.remove(found)
                standing[slot] = found
        for slot in dict.fromkeys(slots):
            if slot.role == "temp" and last[slot] == number:
                free.setdefault((slot.kind, slot.elements), []).append(standing[slot])
        recording.steps[number] = _replaced(step, standing)
    used = {slot for step in recording.steps for slot in _slots_of(step)} | set(recording.results)
    recording.slots = [slot for slot in recording.slots if slot in used]


def _slots_of(step: Launched | Called) -> list[Slot]:
    if isinstance(step, Called):
        return [*step.inputs, *step.outputs]
    return [argument for argument in step.args if isinstance(argument, Slot)]


def _replaced(step: Launched | Called, by: Mapping[Slot, Slot]) -> Launched | Called:
    if isinstance(step, Called):
        inputs, outputs = (tuple(by.get(slot, slot) for slot in slots) for slots in (step.inputs, step.outputs))
        return Called(step.name, inputs, outputs, step.attributes)
    args = tuple(by.get(a, a) if isinstance(a, Slot) else a for a in step.args)
    return Launched(step.kernel, step.grid, step.block, args)
