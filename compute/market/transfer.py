"""The bytes of revealed outputs: ``DATA`` frames, unsigned, each checked against the size and hash that were
signed.

Body of a frame: ``attempt u64 ‖ output u16 ‖ offset u64`` little-endian, then at most ``DATA_BYTES_MAX``
bytes. The frames of one output come in order, outputs in the program's order; an output without bytes has no
frame. The header is fixed, so there is no schema to check; all three numbers must be the very next ones.
"""

import struct
from collections.abc import Iterator

from depin_node.compute.market.messages import DATA_BYTES_MAX, Output
from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import blob_id

_HEADER = struct.Struct("<QHQ")


def header_of(body: memoryview) -> int:
    """Return the attempt that a frame belongs to.

    Raises:
        PeerViolation: too short or too long.
    """
    if not _HEADER.size < len(body) <= _HEADER.size + DATA_BYTES_MAX:
        raise PeerViolation(f"market: a data frame of {len(body)} bytes")
    attempt: int = _HEADER.unpack_from(body)[0]
    return attempt


def check_sizes(outputs: tuple[Output, ...], sizes: tuple[int, ...]) -> None:
    """Compare what is announced with what the program says; before any room is made for it.

    Raises:
        PeerViolation: the announced sizes are others.
    """
    if tuple(output.size_bytes for output in outputs) != sizes:
        raise PeerViolation("market: the outputs do not have the sizes that the program gives them")


class Incoming:
    """The outputs of one attempt as they arrive."""

    def __init__(self, outputs: tuple[Output, ...], log: bytes = b"") -> None:
        """Expect ``outputs``, whose sizes were checked; ``log`` came with their names."""
        self._outputs = outputs
        self.log = log
        self.buffers: list[bytearray] = []  # each once its first bytes come
        self._output = 0
        self._offset = 0
        self._skip_full()

    def is_complete(self) -> bool:
        """Tell whether all bytes are here; only then ``buffers`` hold what was signed."""
        return self._output == len(self._outputs)

    def add(self, body: memoryview) -> None:
        """Take the next frame, whose length ``header_of`` has checked.

        Raises:
            PeerViolation: not the next bytes, or an output does not have the hash that was signed.
        """
        _, output, offset = _HEADER.unpack_from(body)
        size_bytes = len(body) - _HEADER.size
        if self.is_complete() or (output, offset) != (self._output, self._offset):
            raise PeerViolation("market: data out of order")
        if offset + size_bytes > self._outputs[output].size_bytes:
            raise PeerViolation("market: more data than was announced")
        if not offset:
            self.buffers.append(bytearray(self._outputs[output].size_bytes))
        memoryview(self.buffers[output])[offset : offset + size_bytes] = body[_HEADER.size :]  # not made bytes for it
        self._offset += size_bytes
        self._skip_full()

    def _skip_full(self) -> None:
        while not self.is_complete() and self._offset == self._outputs[self._output].size_bytes:
            if not self._offset:
                self.buffers.append(bytearray())
            if blob_id(self.buffers[self._output]) != self._outputs[self._output].blob:
                raise PeerViolation("market: an output does not have the hash that was signed")
            self._output += 1
            self._offset = 0


def frames(attempt: int, outputs: list[memoryview]) -> Iterator[tuple[bytes, memoryview]]:
    """Cut outputs into ``DATA`` frames; return the head of each body and the bytes behind it."""
    for number, output in enumerate(outputs):
        for offset in range(0, len(output), DATA_BYTES_MAX):
            yield _HEADER.pack(attempt, number, offset), output[offset : offset + DATA_BYTES_MAX]
