"""What of a stream has come and is not read: in pieces, or straight in the room that a waiting task has for it."""

from collections import deque
from typing import Any

_LARGE_PIECE_BYTES = 4096
_SMALL_PIECES_BYTES = 256 * 1024


class Room:
    """Where a task that waits for bytes of a stream wants them: in these buffers, one after the other."""

    def __init__(self, *buffers: memoryview) -> None:
        self._left = deque(buffer for buffer in buffers if len(buffer))
        self.size_bytes = 0
        """How many are in them."""

    def put(self, data: memoryview) -> memoryview:
        """Copy what there is room for; return the rest."""
        while data and self._left:
            first = self._left[0]
            count = min(len(data), len(first))
            first[:count] = data[:count]
            self._filled(count)
            data = data[count:]
        return data

    def open_into(self, session: Any, size_bytes_max: int) -> int:
        """Have the messages that are here decrypted straight into the first that is not full, as far as there is room;
        return their size."""
        if not self._left:
            return 0
        count: int = session.depin_open_into(self._left[0][:size_bytes_max])
        self._filled(count)
        return count

    def _filled(self, count: int) -> None:
        self.size_bytes += count
        if count == len(self._left[0]):
            self._left.popleft()
        else:
            self._left[0] = self._left[0][count:]


class Pieces:
    """What of a stream waits to be read: large pieces as they came, small ones put together."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._at = 0  # so much of the first is taken
        self._size_bytes = 0

    def __len__(self) -> int:
        return self._size_bytes

    def __iadd__(self, data: bytes | memoryview) -> "Pieces":
        self.extend(data)
        return self

    def extend(self, data: bytes | memoryview) -> None:
        """Put so many bytes at the end."""
        last = self._pieces[-1] if self._pieces else None
        if len(data) >= _LARGE_PIECE_BYTES:
            is_most = isinstance(data, memoryview) and 2 * len(data) >= len(data.obj)  # type: ignore[arg-type]
            self._pieces.append(data if is_most else bytes(data))  # no small part keeps a large message in memory
        elif isinstance(last, bytearray) and len(last) < _SMALL_PIECES_BYTES:
            last += data
        else:
            self._pieces.append(bytearray(data))
        self._size_bytes += len(data)

    def clear(self) -> None:
        """Drop all."""
        self._pieces.clear()
        self._at = self._size_bytes = 0

    def take(self, size_bytes_max: int) -> bytes:
        """Remove up to so many bytes from the front, and return them."""
        return b"".join(self._parts(size_bytes_max))

    def take_into(self, buffer: memoryview) -> int:
        """Move what there is room for from the front into ``buffer``; return how many bytes."""
        at = 0
        for part in self._parts(len(buffer)):
            buffer[at : at + len(part)] = part
            at += len(part)
        return at

    def _parts(self, size_bytes_max: int) -> list[memoryview]:
        left = min(size_bytes_max, self._size_bytes)
        self._size_bytes -= left
        parts = []
        while left:
            first = self._pieces[0]
            part = memoryview(first)[self._at : self._at + left]
            parts.append(part)
            left -= len(part)
            self._at += len(part)
            if self._at == len(first):
                self._pieces.popleft()
                self._at = 0
        return parts


class Buffers(dict[int, Pieces]):
    """Of a connection's streams, by number; the library puts in a ``bytearray`` for each."""

    def __setitem__(self, stream_id: int, buffer: object) -> None:
        super().__setitem__(stream_id, Pieces())
