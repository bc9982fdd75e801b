"""A job's state in one file, for a node of the same owner that never met the one that worked on it.

What is in it: ``MAGIC``; then pieces, each a kind u8, a size u64 LE, and its bytes: the owner's certificate of the node
that wrote it, the blobs that a part of the state names, that part as the node signed it (``JobState``), the next blobs,
and so on. Whoever reads it believes nothing but signatures and hashes. Provisional results are not in it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from enum import IntEnum

from depin_node.core.errors import ConfigError

MAGIC = b"depin job file 1"
_HEADER_BYTES = 9


class Piece(IntEnum):
    """What follows."""

    CERTIFICATE = 1
    STATE = 2
    BLOB = 3


def header(kind: Piece, size_bytes: int) -> bytes:
    """Return what stands before a piece."""
    return bytes([kind]) + size_bytes.to_bytes(8, "little")


class Reader:
    """Reads pieces from bytes as they come. Raises ``ConfigError`` if they are no such file, or end early."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self._waiting = bytearray()

    async def begin(self) -> None:
        """Read the beginning of the file."""
        if await self._exactly(len(MAGIC)) != MAGIC:
            raise ConfigError("this is no file that `depin-node job export` wrote, or of another version")

    async def next(self, size_bytes_max: Callable[[Piece], int]) -> tuple[Piece, int] | None:
        """Return the kind and the size of the next piece; None at the end of the file."""
        if not self._waiting and not await self._more():
            return None
        found = await self._exactly(_HEADER_BYTES)
        try:
            kind = Piece(found[0])
        except ValueError:
            raise ConfigError("the job file is damaged") from None
        size_bytes = int.from_bytes(found[1:], "little")
        if size_bytes > size_bytes_max(kind):
            raise ConfigError(f"the job file is damaged: a piece of {size_bytes} bytes")
        return kind, size_bytes

    async def whole(self, size_bytes: int) -> bytes:
        """Return a piece."""
        return await self._exactly(size_bytes)

    async def stream(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield a piece bit by bit."""
        while size_bytes:
            if not self._waiting and not await self._more():
                raise ConfigError("the job file ends early")
            part = bytes(self._waiting[:size_bytes])
            del self._waiting[: len(part)]
            size_bytes -= len(part)
            yield part

    async def _exactly(self, size_bytes: int) -> bytes:
        async with aclosing(self.stream(size_bytes)) as parts:
            return b"".join([part async for part in parts])

    async def _more(self) -> bool:
        while (part := await anext(self._parts, None)) is not None:
            if part:
                self._waiting += part
                return True
        return False
