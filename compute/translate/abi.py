"""How arguments lie in a module's argument buffer: what the compiler emits and the device writes are this one page.

A compiled module exports ``argbuf: () -> i32``, the address of ``ARGUMENT_BYTES`` bytes, and for each kernel of its
unit, in order, ``run0``, ``run1``, … ``(b0, b1: i64, gx, gy, gz, bx, by, bz, shared_mem: i32)``, which runs the blocks
numbered [b0, b1), x fastest, of the launch grid. Before it the caller writes one slot for each parameter, in order:

- a pointer is an address in linear memory, as u64; modules of trials take the size of its array in bytes from the upper
  half, 0 if it is not known;
- a scalar is its value, little-endian; of a vector type (``lanes`` > 1) the lanes, side by side;
- a slot begins at a multiple of 8, or of 16 if its size is a multiple of 16; bytes between slots are zero.

A unit that prints exports ``log: () -> i32`` too: the address of a u32, how many bytes have been printed, and of these
bytes, ``LOG_BYTES`` at most. They are whatever the kernel printed.

Only the standard library is imported here: workers load this module without the compiler.
"""

import struct
from collections.abc import Sequence
from typing import Final, Protocol

ARGUMENT_BYTES: Final = 4096
LOG_BYTES: Final = 16 << 10
THREADS_MAX: Final = 1024
"""Threads of one block."""
SHARED_DYNAMIC_BYTES_MAX: Final = 48 << 10

FORMATS: Final = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "float16": "e",
    "int32": "i",
    "uint32": "I",
    "float32": "f",
    "int64": "q",
    "uint64": "Q",
    "float64": "d",
    "complex64": "ff",
    "complex128": "dd",
}
"""The ``struct`` format of each dtype, by NumPy's name; complex numbers are real part, imaginary part."""

Number = bool | int | float | complex
Value = Number | bytes | Sequence[Number]


class Slot(Protocol):
    """What the layout depends on; ``Parameter`` here and in ``programs`` both have it."""

    @property
    def name(self) -> str:
        """For error messages."""

    @property
    def pointer(self) -> bool:
        """Whether the slot holds an address."""

    @property
    def dtype(self) -> str:
        """NumPy's name of the scalar, or of one lane of it."""

    @property
    def lanes(self) -> int:
        """1, or the lanes of a vector type."""


def slot_bytes(parameter: Slot) -> int:
    """Return the size of a parameter's slot, without padding."""
    if parameter.pointer:
        return 8
    return struct.calcsize("<" + FORMATS[parameter.dtype]) * parameter.lanes


def slot_offsets(parameters: Sequence[Slot]) -> list[int]:
    """Return the byte offset of each parameter's slot.

    Raises:
        ValueError: they do not fit into ``ARGUMENT_BYTES``.
    """
    offsets, end = [], 0
    for parameter in parameters:
        size = slot_bytes(parameter)
        alignment = 16 if size % 16 == 0 else 8
        start = -(-end // alignment) * alignment
        offsets.append(start)
        end = start + size
    if end > ARGUMENT_BYTES:
        raise ValueError(f"the parameters take {end} bytes, at most {ARGUMENT_BYTES} are allowed")
    return offsets


def pack_arguments(parameters: Sequence[Slot], values: Sequence[Value]) -> bytes:
    """Return the bytes to write to the argument buffer.

    Args:
        parameters: of the kernel, in order.
        values: one for each: an address for a pointer; for a scalar a number, a sequence of ``lanes`` numbers, or the
            little-endian bytes themselves.

    Raises:
        ValueError: a value is missing, does not fit its type, or the whole does not fit the buffer.
    """
    if len(values) != len(parameters):
        raise ValueError(f"the kernel has {len(parameters)} parameters, {len(values)} values were given")
    offsets = slot_offsets(parameters)
    packed = bytearray()
    for parameter, offset, value in zip(parameters, offsets, values, strict=True):
        packed.extend(bytes(offset - len(packed)))
        packed.extend(_pack(parameter, value))
    return bytes(packed)


def _pack(parameter: Slot, value: Value) -> bytes:
    size = slot_bytes(parameter)
    if isinstance(value, bytes):
        if len(value) != size or parameter.pointer:
            raise ValueError(f"{parameter.name}: {len(value)} bytes were given where {size} are its size")
        return value
    items: Sequence[Number] = [value] if isinstance(value, bool | int | float | complex) else value
    if parameter.dtype.startswith("complex") and not parameter.pointer:
        items = [part for item in items for part in (complex(item).real, complex(item).imag)]
    form = "<Q" if parameter.pointer else f"<{FORMATS[parameter.dtype] * parameter.lanes}"
    try:
        return struct.pack(form, *items)
    except (struct.error, OverflowError) as error:
        kind = "an address" if parameter.pointer else f"{parameter.lanes} × {parameter.dtype}"
        raise ValueError(f"{parameter.name}: {value!r} is not {kind} ({error})") from error
