"""What to compute, in numbers only: kernels, buffers, one launch, and how it is cut into tasks.

A ``Program`` is built and compiled by who submits (``bind`` in ``binding.py``) and travels as a blob: its id is the id
of the blob that ``encode_program`` returns. Who receives one calls ``decode_program``, which refuses anything that is
not complete, within bounds, and clear about which task owns which element of each output. After that the sizes of
every task, its memory and its results are known before a line of it runs (``memory_bytes``, and ``shards.py``).

Which block owns what (the *tile rule*): ``tile`` cuts an output into ``ceil(shape[k] / tile[k])`` tiles along each
axis k; the last ones may be smaller. Tiles are numbered in C order (last axis fastest), blocks as CUDA does (x
fastest). Block number b owns tile number b; blocks beyond the last tile own nothing. So a block (x, y) of a 2-D grid
owns tile (y, x) of a 2-D output. Where both have two long axes or more, their lengths have to be the same; where one
of them has a single long axis, the numbers are all that counts.
"""

from math import prod
from typing import Annotated, Final, Literal

from msgspec import Meta

from depin_node.compute.programs.module import PAGE_BYTES, scan_module
from depin_node.core import wire
from depin_node.core.errors import PeerViolation, TaskRejected
from depin_node.crypto.blob import blob_id

VERSION: Final = 1
SOURCE_BYTES_MAX = 1 << 20
PROGRAM_BYTES_MAX = 8 << 20
BUFFERS_MAX = 64
PARAMETERS_MAX = 128
DIMENSIONS_MAX = 8
MEMORY_BYTES_MAX = 65535 * PAGE_BYTES
"""Of one task: what wasm32 can address, less the page that would make the size overflow 32 bits."""
TASKS_MAX = 1_000_000
BLOCK_THREADS_MAX = 1024
BLOCK_MAX = (1024, 1024, 64)
GRID_MAX = (2**31 - 1, 65535, 65535)
SHARED_BYTES_MAX = 48 << 10
"""This and the three above are CUDA's own limits (CUDA C++ Programming Guide, "Technical Specifications")."""
ALIGNMENT_BYTES = 4096
"""Buffers start on pages, so that a device can map an input instead of copying it."""
GUARD_BYTES = 256
"""At least so many bytes between buffers, which no correct kernel touches."""

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

Identifier = Annotated[str, Meta(min_length=1, max_length=256)]
DType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32", "int64", "uint64", "float64",
    "complex64", "complex128",
]  # fmt: skip
Length = Annotated[int, Meta(ge=1, le=1 << 32)]
Lengths = Annotated[tuple[Length, ...], Meta(max_length=DIMENSIONS_MAX)]
Dim3 = tuple[Length, Length, Length]
Index = Annotated[int, Meta(ge=0, le=255)]


class Parameter(wire.Message, frozen=True):
    """One parameter of a kernel. ``lanes`` is 2, 3 or 4 for CUDA's vector types; ``const`` counts for pointers only."""

    name: Identifier
    pointer: bool
    dtype: DType
    lanes: Annotated[int, Meta(ge=1, le=4)]
    const: bool


class Kernel(wire.Message, frozen=True):
    """A kernel, in source and compiled to WebAssembly. ``exact``: its bits are defined, so results compare by hash."""

    name: Identifier
    source: Annotated[str, Meta(max_length=SOURCE_BYTES_MAX)]
    options: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=64)]
    parameters: Annotated[tuple[Parameter, ...], Meta(max_length=PARAMETERS_MAX)]
    module: bytes
    exact: bool


class Buffer(wire.Message, frozen=True):
    """A named array. ``tile`` is for outputs; empty: the whole output belongs to the one task there is."""

    name: Identifier
    role: Literal["in", "out", "inout"]
    dtype: DType
    shape: Lengths
    tile: Lengths

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The size of the whole array."""
        return self.elements * DTYPE_BYTES[self.dtype]

    @property
    def is_input(self) -> bool:
        """Whether its bytes come with the job."""
        return self.role != "out"

    @property
    def is_output(self) -> bool:
        """Whether tasks return parts of it."""
        return self.role != "in"


class Scalar(wire.Message, frozen=True):
    """A value passed by value: its little-endian bytes, lanes side by side."""

    dtype: DType
    data: Annotated[bytes, Meta(min_length=1, max_length=32)]


class Launch(wire.Message, frozen=True):
    """One launch of a kernel: ``args`` in the order of its parameters, each a buffer's index or a scalar."""

    kernel: Index
    grid: Dim3
    block: Dim3
    shared_mem: Annotated[int, Meta(ge=0, le=SHARED_BYTES_MAX)]
    args: Annotated[tuple[Index | Scalar, ...], Meta(max_length=PARAMETERS_MAX)]

    @property
    def blocks(self) -> int:
        """The number of blocks of the whole launch."""
        return prod(self.grid)


class Shards(wire.Message, frozen=True):
    """How the program is cut: ``count`` tasks, each a range of blocks."""

    by: Literal["blocks"]
    count: Annotated[int, Meta(ge=1, le=TASKS_MAX)]


class Program(wire.Message, frozen=True):
    """All that a provider has to know to run any task of a job, except the inputs' bytes."""

    version: Literal[1]
    kernels: Annotated[tuple[Kernel, ...], Meta(min_length=1, max_length=1)]
    buffers: Annotated[tuple[Buffer, ...], Meta(min_length=1, max_length=BUFFERS_MAX)]
    steps: Annotated[tuple[Launch, ...], Meta(min_length=1, max_length=1)]
    shards: Shards

    @property
    def launch(self) -> Launch:
        """The one step of this release."""
        return self.steps[0]

    @property
    def kernel(self) -> Kernel:
        """The kernel of that step."""
        return self.kernels[self.launch.kernel]

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


def encode_program(program: Program) -> bytes:
    """Return the canonical bytes, which are also the program's blob."""
    return wire.encode(program)


def program_id(program: Program) -> bytes:
    """Return the 32-byte id: that of the program's blob."""
    return blob_id(encode_program(program))


def decode_program(data: bytes | bytearray | memoryview) -> Program:
    """Decode and validate a program.

    Raises:
        TaskRejected: malformed, or against a rule of ``validate``.
    """
    try:
        program = wire.decode(data, Program, size_bytes_max=PROGRAM_BYTES_MAX)
    except PeerViolation as error:
        raise TaskRejected(f"the program cannot be read: {error}") from error
    validate(program)
    return program


def validate(program: Program) -> None:
    """Check all that the schema cannot say.

    Raises:
        TaskRejected: with the first rule that is broken.
    """
    launch, buffers = program.launch, program.buffers
    if launch.kernel >= len(program.kernels):
        raise TaskRejected(f"the launch names kernel {launch.kernel}, there is only one")
    scan_module(program.kernel.module)
    _validate_launch(program)
    for kind, names in (
        ("buffer", [buffer.name for buffer in buffers]),
        ("parameter", [parameter.name for parameter in program.kernel.parameters]),
    ):
        if len(set(names)) < len(names):
            raise TaskRejected(f"two {kind}s have the same name")
    if not program.outputs:
        raise TaskRejected("the program has no output: mark at least one pointer as Out or InOut")
    for buffer in buffers:
        _validate_ownership(program, buffer)
    if memory_bytes(program) > MEMORY_BYTES_MAX:
        raise TaskRejected(
            f"a task needs {memory_bytes(program) >> 20} MiB for its arrays; at most {MEMORY_BYTES_MAX >> 20} MiB fit"
        )


def _validate_launch(program: Program) -> None:
    launch, kernel = program.launch, program.kernel
    if any(n > most for n, most in zip(launch.block, BLOCK_MAX, strict=True)):
        raise TaskRejected(f"block {launch.block} is larger than CUDA's {BLOCK_MAX}")
    if prod(launch.block) > BLOCK_THREADS_MAX:
        raise TaskRejected(f"block {launch.block} has {prod(launch.block)} threads; at most {BLOCK_THREADS_MAX}")
    if any(n > most for n, most in zip(launch.grid, GRID_MAX, strict=True)):
        raise TaskRejected(f"grid {launch.grid} is larger than CUDA's {GRID_MAX}")
    if program.tasks > launch.blocks:
        raise TaskRejected(f"{program.tasks} shards of {launch.blocks} blocks: a shard has at least one block")
    if len(launch.args) != len(kernel.parameters):
        raise TaskRejected(f"{kernel.name} takes {len(kernel.parameters)} arguments, {len(launch.args)} are given")
    for argument, parameter in zip(launch.args, kernel.parameters, strict=True):
        _validate_argument(program, argument, parameter)
    unused = set(range(len(program.buffers))) - {arg for arg in launch.args if isinstance(arg, int)}
    if unused:
        raise TaskRejected(f"buffer {program.buffers[min(unused)].name} is not an argument of the launch")


def _validate_argument(program: Program, argument: int | Scalar, parameter: Parameter) -> None:
    size = DTYPE_BYTES[parameter.dtype] * parameter.lanes
    if isinstance(argument, Scalar):
        if parameter.pointer:
            raise TaskRejected(f"parameter {parameter.name} is a pointer and gets a scalar")
        if argument.dtype != parameter.dtype or len(argument.data) != size:
            raise TaskRejected(
                f"parameter {parameter.name} is {parameter.dtype} of {size} bytes, "
                f"its argument {argument.dtype} of {len(argument.data)} bytes"
            )
        return
    if not parameter.pointer:
        raise TaskRejected(f"parameter {parameter.name} is a scalar and gets an array")
    if argument >= len(program.buffers):
        raise TaskRejected(f"parameter {parameter.name} names buffer {argument} of {len(program.buffers)}")
    buffer = program.buffers[argument]
    if not is_element_of(buffer.dtype, parameter.dtype, parameter.lanes):
        raise TaskRejected(f"parameter {parameter.name} points to {parameter.dtype}, its array is {buffer.dtype}")
    if buffer.size_bytes % size:
        raise TaskRejected(f"array {buffer.name} of {buffer.elements} elements does not divide by {parameter.lanes}")
    if parameter.const and not buffer.is_input:
        raise TaskRejected(f"parameter {parameter.name} is const and cannot be an output")
    if not parameter.const and not buffer.is_output:
        raise TaskRejected(f"parameter {parameter.name} is not const: its array must be Out or InOut")


def is_element_of(array: str, dtype: str, lanes: int) -> bool:
    """Whether a pointer to ``lanes`` × ``dtype`` takes an array: complex numbers are pairs too (``float2``)."""
    pairs = {"complex64": "float32", "complex128": "float64"}
    return array == dtype or (lanes == 2 and pairs.get(array) == dtype)


def tile_counts(buffer: Buffer) -> tuple[int, ...]:
    """Return how many tiles an output has along each axis; an empty ``tile`` is one tile."""
    tile = buffer.tile or buffer.shape
    return tuple(-(-length // step) for length, step in zip(buffer.shape, tile, strict=True))


def _validate_ownership(program: Program, buffer: Buffer) -> None:
    if not buffer.is_output:
        if buffer.tile:
            raise TaskRejected(f"input {buffer.name} has a tile: only outputs have owners")
        return
    if not buffer.tile:
        if program.tasks > 1:
            raise TaskRejected(
                f"output {buffer.name} has no tile, so its one owner needs the whole launch: "
                "say which part a block owns (tile), or use one shard"
            )
        return
    if len(buffer.tile) != len(buffer.shape):
        raise TaskRejected(f"output {buffer.name}: tile {buffer.tile} and shape {buffer.shape} differ in dimensions")
    if any(step > length for step, length in zip(buffer.tile, buffer.shape, strict=True)):
        raise TaskRejected(f"output {buffer.name}: tile {buffer.tile} is larger than its shape {buffer.shape}")
    counts, launch = tile_counts(buffer), program.launch
    if prod(counts) > launch.blocks:
        raise TaskRejected(
            f"output {buffer.name}: {prod(counts)} tiles of {buffer.tile}, but only {launch.blocks} blocks to own them"
        )
    long_tiles = [count for count in counts if count > 1]
    long_grid = [length for length in reversed(launch.grid) if length > 1]
    if len(long_tiles) > 1 and len(long_grid) > 1 and long_tiles != long_grid:
        raise TaskRejected(
            f"output {buffer.name}: its tiles form a grid of {counts}, the launch one of {launch.grid[::-1]} (z, y, x)"
        )


def placements(program: Program) -> tuple[tuple[int, ...], int]:
    """Place the buffers in the linear memory of a task.

    Returns:
        The address of each buffer, a multiple of ``ALIGNMENT_BYTES`` with at least ``GUARD_BYTES`` before and after
        it, and the size of the whole memory in bytes, a multiple of ``PAGE_BYTES``.
    """
    top = scan_module(program.kernel.module).memory_pages * PAGE_BYTES
    addresses = []
    for buffer in program.buffers:
        address = -(-(top + GUARD_BYTES) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        addresses.append(address)
        top = address + buffer.size_bytes
    return tuple(addresses), -(-(top + GUARD_BYTES) // PAGE_BYTES) * PAGE_BYTES


def memory_bytes(program: Program) -> int:
    """Return the linear memory that a task takes: the module's own data and stack, all arrays whole, guards."""
    return placements(program)[1]
