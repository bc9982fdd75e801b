"""What a node and its worker say to each other, over two pipes.

::

    node                         worker
      ────────────────── Hello ──── started and confined
    Compile ────────────────────►   where the node has no native code of these modules yet, see ``native``
      ──────────────── Compiled ──── or Refused
    Load ───────────────────────►   (the arena, the inputs' files and that of the native code go over a socket)
      ────────────────── Ready ──── compiled; or Refused
    Run (many tasks) ───────────►
    Run (many tasks) ───────────►
      ─────────────────── Done ──── many results, in the order of the tasks
    Inputs ─────────────────────►   other inputs for the same program, when all is done; their files go over the socket
      ────────────────── Ready ──── or Refused
    Load ───────────────────────►   or another program of the same requester
      ────────────────── Ready ──── or Refused
    end of file ────────────────►   exits

A frame is a u32 length, a u8 kind, and a canonical ``Message``. Results of at least ``ARENA_BYTES_MIN`` go through the
*arena*, a file in memory that both map: the node says where each goes, so nothing has to be given back. The arena's
first page is the *progress page*: two u64, tasks started and tasks finished since the load, by which the node knows
which task is running when it dies or takes too long.
"""

import struct
from typing import Annotated, Final

from msgspec import Meta

from depin_node.compute.programs.program import BUFFERS_MAX, PROGRAM_BYTES_MAX, TASKS_MAX, UNITS_MAX
from depin_node.compute.translate.abi import LOG_BYTES
from depin_node.core import errors, wire

HEADER: Final = struct.Struct("<IB")
FRAME_BYTES_MAX: Final = PROGRAM_BYTES_MAX + (1 << 20)
ARENA_BYTES_MIN: Final = 64 << 10
UNNAMED: Final = bytes(32)
"""Where a memory file beats a pipe: 3 MiB take 10.5 ms by pipe, 1.0 ms by memory file (notes of the prototype)."""
PROGRESS: Final = struct.Struct("<QQ")
PROGRESS_PAGE_BYTES: Final = 4096
BATCH_MAX: Final = 128
INLINE: Final = -1
DETAIL_CHARACTERS_MAX: Final = 1000

Attempt = Annotated[bytes, Meta(min_length=16, max_length=16)]
Code = Annotated[str, Meta(max_length=32)]
Detail = Annotated[str, Meta(max_length=DETAIL_CHARACTERS_MAX)]
Seconds = Annotated[float, Meta(gt=0, le=7 * 86400)]


class Layer(wire.Message, frozen=True):
    """One layer of confinement: whether it holds in this worker, and how, or why not."""

    name: wire.Name
    active: bool
    detail: Annotated[str, Meta(max_length=200)]

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


class Hello(wire.Message, frozen=True):
    """The worker stands. It never says more of the machine than this."""

    device_class: wire.Name
    layers: Annotated[tuple[Layer, ...], Meta(max_length=8)]
    compiles: bool
    """Whether it may be asked to ``Compile``."""


class Compile(wire.Message, frozen=True):
    """Modules to compile before anything else of their job is there."""

    modules: Annotated[tuple[bytes, ...], Meta(max_length=UNITS_MAX)]
    data_bytes: wire.Uint
    """What the worker may allocate in all."""


class Compiled(wire.Message, frozen=True):
    """The native code of each module; nothing if it is too long for a message."""

    native: Annotated[tuple[bytes, ...], Meta(max_length=UNITS_MAX)]


class Load(wire.Message, frozen=True):
    """The program, the buffers whose files follow (ascending), and what each task may use."""

    program: bytes
    inputs: Annotated[tuple[int, ...], Meta(max_length=BUFFERS_MAX)]
    arena_bytes: wire.Uint
    seconds: Seconds
    memory_bytes: wire.Uint
    data_bytes: wire.Uint
    """What the worker may allocate in all."""
    native_bytes: Annotated[tuple[int, ...], Meta(max_length=UNITS_MAX)]
    """How long the native code of each unit is, one after the other in the last file; empty: there is no such file."""


class Inputs(wire.Message, frozen=True):
    """The tasks that follow are over other inputs, whose files follow as in ``Load``; all else stays."""


class Ready(wire.Message, frozen=True):
    """Loaded."""


class Refused(wire.Message, frozen=True):
    """Not loaded, and never will be."""

    code: Code
    detail: Detail


class Task(wire.Message, frozen=True):
    """One task, and for each of its outputs where in the arena it goes, or ``INLINE``; and whether those in the arena
    are to be named: who reads them may hash them anyway."""

    attempt: Attempt
    task: Annotated[int, Meta(ge=0, lt=TASKS_MAX)]
    places: Annotated[tuple[int, ...], Meta(max_length=BUFFERS_MAX)]
    named: bool


class Run(wire.Message, frozen=True):
    """Tasks to run one after the other."""

    tasks: Annotated[tuple[Task, ...], Meta(max_length=BATCH_MAX)]


class Piece(wire.Message, frozen=True):
    """One output of a task: the id of its bytes or ``UNNAMED``, and the bytes themselves if they are inline."""

    blob_id: wire.Digest
    data: bytes


class Outcome(wire.Message, frozen=True):
    """How a task ended: ``code`` is empty for a result, else that of a ``TaskError`` with its text."""

    attempt: Attempt
    code: Code
    detail: Detail
    fuel: wire.Uint
    duration_ns: wire.Uint
    pieces: Annotated[tuple[Piece, ...], Meta(max_length=BUFFERS_MAX)]
    log: Annotated[bytes, Meta(max_length=LOG_BYTES)]
    """What the kernel printed; anything may be in it."""


class Done(wire.Message, frozen=True):
    """Outcomes, in the order in which the tasks were given."""

    outcomes: Annotated[tuple[Outcome, ...], Meta(max_length=BATCH_MAX)]


KINDS: Final[tuple[type[wire.Message], ...]] = (Hello, Compile, Compiled, Load, Ready, Refused, Run, Done, Inputs)

_ERRORS: Final = {
    kind.code: kind
    for kind in (
        errors.TaskError,
        errors.TaskRejected,
        errors.TaskTimedOut,
        errors.TaskOutOfMemory,
        errors.TaskTrapped,
        errors.TaskNoResult,
        errors.TaskCrashed,
    )
}


def task_error(code: str, detail: str) -> errors.TaskError:
    """Return the error with this code; an unknown code is a plain ``TaskError``."""
    return _ERRORS.get(code, errors.TaskError)(detail)


def frame(message: wire.Message) -> bytes:
    """Return a message as it goes into a pipe."""
    body = wire.encode(message)
    return HEADER.pack(len(body), KINDS.index(type(message))) + body


def body_bytes(header: bytes | bytearray | memoryview) -> int:
    """Return the size of the body that follows a header.

    Raises:
        PeerViolation: too large, or of an unknown kind.
    """
    size, kind = HEADER.unpack(header)
    if size > FRAME_BYTES_MAX or kind >= len(KINDS):
        raise errors.PeerViolation(f"a frame of {size} bytes of kind {kind}")
    return int(size)


def unframe(header: bytes | bytearray | memoryview, body: bytes | bytearray | memoryview) -> wire.Message:
    """Decode a message.

    Raises:
        PeerViolation: malformed.
    """
    _, kind = HEADER.unpack(header)
    message: wire.Message = wire.decode(body, KINDS[kind], size_bytes_max=FRAME_BYTES_MAX)
    return message
