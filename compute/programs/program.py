"""What to compute, in numbers only: kernels, named arrays, steps over them, and how the whole is cut into tasks.

A ``Program`` is built and compiled by who submits (``binding.py``, ``builder.py``) and travels as a blob: its id is the
id of the blob that ``encode_program`` returns. Who receives one calls ``validation.decode_program``, which refuses
anything that is not complete, within bounds, and clear about which task owns which element of each output. After that
the size of every task is known before a line of it runs: its arrays and results (``shards.py``, ``slices.py``), its
memory (``memory.py``) and its work (``work.py``).

A task runs the ``steps`` in order over buffers that stay on the device throughout. What differs from task to task is a
table of numbers: a launch has one grid, or one for each task; a scalar one value, or one for each task.
"""

from collections.abc import Iterator
from math import prod
from typing import Annotated, Final, Literal

from msgspec import Meta

from depin_node.core import wire
from depin_node.crypto.blob import blob_id

VERSION: Final = 2
SOURCE_BYTES_MAX = 1 << 20
PROGRAM_BYTES_MAX = 8 << 20
UNITS_MAX = 16
KERNELS_MAX = 256
ENTRIES_MAX = 64
"""Kernels of one unit."""
BUFFERS_MAX = 256
PARAMETERS_MAX = 128
DIMENSIONS_MAX = 8
TASKS_MAX = 1_000_000
SLICES_MAX = 1 << 16
"""Tasks of a program cut along an axis: each has numbers of its own."""
SHARED_BYTES_MAX = 48 << 10
"""Of a block: CUDA's own limit (CUDA C++ Programming Guide, "Technical Specifications")."""
HALO_MAX = 1 << 20
ATTRIBUTES_MAX = 16

DTYPE_BYTES: Final = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
"""The element types, by NumPy's name, with their size."""

LANES_MAX: Final = 1024
Identifier = Annotated[str, Meta(min_length=1, max_length=256)]
DType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32", "int64", "uint64", "float64",
    "complex64", "complex128",
]  # fmt: skip
LENGTH_MAX = 1 << 32
Length = Annotated[int, Meta(ge=1, le=LENGTH_MAX)]
Lengths = Annotated[tuple[Length, ...], Meta(max_length=DIMENSIONS_MAX)]
Dim3 = tuple[Length, Length, Length]
Index = Annotated[int, Meta(ge=0, le=255)]


class Unit(wire.Message, frozen=True):
    """One translation of one source: the WebAssembly ``module``, and ``cuda`` for GPUs (empty: there is none)."""

    module: bytes
    cuda: Annotated[str, Meta(max_length=SOURCE_BYTES_MAX)]


class Parameter(wire.Message, frozen=True):
    """One parameter of a kernel. ``const`` counts for pointers only.

    ``lanes`` is 2, 3 or 4 for CUDA's vector types, more for structs that are passed by value.
    """

    name: Identifier
    pointer: bool
    dtype: DType
    lanes: Annotated[int, Meta(ge=1, le=LANES_MAX)]
    const: bool


class Kernel(wire.Message, frozen=True):
    """Kernel number ``entry`` of a unit: its module runs it as ``run<entry>``.

    ``exact``: its bits are defined, so that results compare by hash.
    """

    name: Identifier
    unit: Index
    entry: Annotated[int, Meta(ge=0, lt=ENTRIES_MAX)]
    parameters: Annotated[tuple[Parameter, ...], Meta(max_length=PARAMETERS_MAX)]
    exact: bool


class Cut(wire.Message, frozen=True):
    """An array cut along an axis: task i owns rows [offsets[i], offsets[i + 1]) of it, by table ``table`` of ``Axis``.

    It holds ``halo`` rows more on either side, which are its neighbours'. Rows beyond the array's ends are what
    ``edge`` says: ``clamp`` the outermost row, ``wrap`` the rows of the other end, ``reflect`` mirrored at the
    outermost row (which is not repeated), ``constant`` the element ``fill`` (its bytes; empty for other edges),
    ``none``: not there, the array is shorter.
    """

    axis: Annotated[int, Meta(ge=0, lt=DIMENSIONS_MAX)]
    table: Index
    halo: Annotated[int, Meta(ge=0, le=HALO_MAX)]
    edge: Literal["clamp", "wrap", "reflect", "constant", "none"]
    fill: Annotated[bytes, Meta(max_length=16)]


class Buffer(wire.Message, frozen=True):
    """A named array.

    ``temp`` is memory of a task's own, zeros at first; so is an ``out``, of which the task's part is the result.
    ``tile`` is for outputs of a launch cut by blocks; empty: the whole output belongs to the one task there is.
    ``shape`` is that of the whole array, ``cut`` what a task holds of it; None: all.
    """

    name: Identifier
    role: Literal["in", "out", "inout", "temp"]
    dtype: DType
    shape: Lengths
    tile: Lengths
    cut: Cut | None

    @property
    def elements(self) -> int:
        """The number of elements of the whole array."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The size of the whole array."""
        return self.elements * DTYPE_BYTES[self.dtype]

    @property
    def is_input(self) -> bool:
        """Whether its bytes come with the job."""
        return self.role in ("in", "inout")

    @property
    def is_output(self) -> bool:
        """Whether tasks return parts of it."""
        return self.role in ("out", "inout")


class Scalar(wire.Message, frozen=True, tag="scalar"):
    """A value passed by value: its little-endian bytes, lanes side by side; or those of one value for each task."""

    dtype: DType
    data: Annotated[bytes, Meta(min_length=1)]

    def of(self, task: int, size_bytes: int) -> bytes:
        """Return the bytes of a task's value, ``size_bytes`` long."""
        if len(self.data) == size_bytes:
            return self.data
        return self.data[task * size_bytes : (task + 1) * size_bytes]


class Offset(wire.Message, frozen=True, tag="offset"):
    """A pointer ``elements`` into a buffer."""

    buffer: Index
    elements: Annotated[int, Meta(ge=0, le=1 << 32)]


class Launch(wire.Message, frozen=True, tag="launch"):
    """One launch of a kernel: ``args`` in the order of its parameters, each a buffer's index, a place in it, a scalar.

    ``grids`` is one grid, or one for each task.
    """

    kernel: Index
    grids: Annotated[tuple[Dim3, ...], Meta(min_length=1, max_length=SLICES_MAX)]
    block: Dim3
    shared_mem: Annotated[int, Meta(ge=0, le=SHARED_BYTES_MAX)]
    args: Annotated[tuple[Index | Scalar | Offset, ...], Meta(max_length=PARAMETERS_MAX)]

    def grid(self, task: int) -> Dim3:
        """Return the grid of a task."""
        return self.grids[task] if len(self.grids) > 1 else self.grids[0]

    def blocks(self, task: int) -> int:
        """Return the number of blocks of a task's grid."""
        return prod(self.grid(task))


class Attribute(wire.Message, frozen=True):
    """One attribute of an array operation."""

    name: Identifier
    value: int | float | Annotated[tuple[int, ...], Meta(max_length=DIMENSIONS_MAX)]


class Operation(wire.Message, frozen=True, tag="operation"):
    """An array operation of the table ``operations.py``, by the device's library; attributes ascend by name."""

    name: Identifier
    inputs: Annotated[tuple[Index, ...], Meta(max_length=8)]
    outputs: Annotated[tuple[Index, ...], Meta(min_length=1, max_length=8)]
    attributes: Annotated[tuple[Attribute, ...], Meta(max_length=ATTRIBUTES_MAX)]


class Swap(wire.Message, frozen=True, tag="swap"):
    """Two buffers exchange their names: what was ``a`` is ``b`` from here on. Nothing is copied."""

    a: Index
    b: Index


class Repeat(wire.Message, frozen=True, tag="repeat"):
    """Steps done ``count`` times."""

    count: Annotated[int, Meta(ge=1, le=1 << 24)]
    steps: Annotated[tuple["Step", ...], Meta(min_length=1)]


class Until(wire.Message, frozen=True, tag="until"):
    """Steps done until the one element of ``buffer`` is not zero after them; at least once, at most ``max`` times."""

    buffer: Index
    max: Annotated[int, Meta(ge=1, le=1 << 24)]
    steps: Annotated[tuple["Step", ...], Meta(min_length=1)]


Step = Launch | Operation | Swap | Repeat | Until


class Blocks(wire.Message, frozen=True, tag="blocks"):
    """``count`` tasks; where there are several, each runs a range of the blocks of the one launch (``shards.py``)."""

    count: Annotated[int, Meta(ge=1, le=TASKS_MAX)]


class Axis(wire.Message, frozen=True, tag="axis"):
    """``count`` tasks, each with its slice of the arrays that have a ``cut``: the tables say where they are cut."""

    count: Annotated[int, Meta(ge=1, le=SLICES_MAX)]
    tables: Annotated[tuple[tuple[int, ...], ...], Meta(min_length=1, max_length=8)]


class Program(wire.Message, frozen=True):
    """All that a provider has to know to run any task of a job, except the inputs' bytes.

    ``combine``: launches that merge the partial results of two tasks into one; see ``combine.py``. Empty: there is
    nothing to merge.
    """

    version: Literal[2]
    units: Annotated[tuple[Unit, ...], Meta(max_length=UNITS_MAX)]
    kernels: Annotated[tuple[Kernel, ...], Meta(max_length=KERNELS_MAX)]
    buffers: Annotated[tuple[Buffer, ...], Meta(min_length=1, max_length=BUFFERS_MAX)]
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    shards: Blocks | Axis
    combine: Annotated[tuple[Launch, ...], Meta(max_length=64)]

    @property
    def launch(self) -> Launch:
        """The first step of a program that begins with a launch: all there is where blocks are cut."""
        first = self.steps[0]
        assert isinstance(first, Launch)
        return first

    @property
    def inputs(self) -> tuple[int, ...]:
        """The indices of the buffers whose bytes come with the job, ascending."""
        return tuple(index for index, buffer in enumerate(self.buffers) if buffer.is_input)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The indices of the buffers that tasks return parts of, ascending: a task's results are in this order."""
        return tuple(index for index, buffer in enumerate(self.buffers) if buffer.is_output)

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return self.shards.count

    @property
    def exact(self) -> bool:
        """Whether the bits of its results are defined: all kernels are exact, and no step is a library's."""
        flat = list(flattened(self.steps))
        return all(kernel.exact for kernel in self.kernels) and not any(isinstance(step, Operation) for step in flat)


def flattened(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield all steps, each once, what is within loops after the loop itself. Valid programs nest few."""
    for step in steps:
        yield step
        if isinstance(step, Repeat | Until):
            yield from flattened(step.steps)


def encode_program(program: Program) -> bytes:
    """Return the canonical bytes, which are also the program's blob."""
    return wire.encode(program)


def program_id(program: Program) -> bytes:
    """Return the 32-byte id: that of the program's blob."""
    return blob_id(encode_program(program))
