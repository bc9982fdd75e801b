"""What single tasks returned, while others still run."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from depin_node.client.outputs import Array
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import numpy_dtype, owned_boxes, result_bytes
from depin_node.core.errors import TransportError
from depin_node.core.views import NO_TASK, PROVISIONAL

_NUMBER_BYTES = 4


class Piece(NamedTuple):
    """``data`` is what belongs at ``where`` in the output: ``whole[piece.where] = piece.data``."""

    where: tuple[slice, ...]
    data: Array

    def __repr__(self) -> str:
        """Return it without its numbers, which may be millions."""
        where = ", ".join(f"{cut.start}:{cut.stop}" for cut in self.where)
        return f"<Piece [{where}]: {self.data.dtype} {self.data.shape}>"


class Part(NamedTuple):
    """What one task returned: by the name of each output, the pieces of it that the task owns.

    A task whose result is void, since who gave it was caught, runs again, and its part comes again: the last one
    counts. ``is_provisional``: under ``confidence``, its provider's answers are not settled yet. What has not come
    again when the job is done is for good.
    """

    task: int
    outputs: dict[str, list[Piece]]
    is_provisional: bool = False

    def put_into(self, **wholes: Array) -> None:
        """Copy the pieces of outputs, by their names, to their places in whole arrays."""
        for name, whole in wholes.items():
            for piece in self.outputs[name]:
                whole[piece.where] = piece.data


def read_parts(program: Program, stream: Iterator[bytes]) -> Iterator[Part]:
    """Cut a stream of results, each ``task u32 LE`` (``PROVISIONAL`` may be added) and the outputs in the program's
    order, into parts.

    Raises:
        TransportError: it breaks off within one, or names a task that the program does not have.
    """
    reader = _Reader(stream)
    while True:
        head = reader.take(_NUMBER_BYTES, may_end=True)
        if head is None:
            return
        number = int.from_bytes(head, "little")
        if number == NO_TASK:
            continue
        task, is_provisional = number & ~PROVISIONAL, bool(number & PROVISIONAL)
        if task >= program.tasks:
            raise TransportError(f"the node sent a result of task {task}; there are {program.tasks}")
        outputs = {}
        for position, index in enumerate(program.outputs):
            data = reader.take(result_bytes(program, task, position))
            assert data is not None
            outputs[program.buffers[index].name] = list(_pieces(program, task, position, data))
        yield Part(task, outputs, is_provisional)


def _pieces(program: Program, task: int, position: int, data: bytes) -> Iterator[Piece]:
    flat = np.frombuffer(data, numpy_dtype(program.buffers[program.outputs[position]]))
    at = 0
    for box in owned_boxes(program, task, position):
        yield Piece(box.slices, flat[at : at + box.elements].reshape(box.shape))
        at += box.elements


class _Reader:
    """Bytes of a stream that is cut anywhere."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._have = bytearray()

    def take(self, size_bytes: int, *, may_end: bool = False) -> bytes | None:
        """Return the next bytes; None at the end of the stream, if it may be here."""
        while len(self._have) < size_bytes:
            more = next(self._stream, None)
            if more is None:
                if may_end and not self._have:
                    return None
                raise TransportError("the results broke off; ask again for them")
            self._have += more
        taken = bytes(self._have[:size_bytes])
        del self._have[:size_bytes]
        return taken
