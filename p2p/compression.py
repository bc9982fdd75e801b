"""zstandard where it pays: for data that shrinks, over a path that is slower than the compressor.

The flow: the holder of a blob takes a sample of it once (``sample``). For each chunk it compares what the last ones
took to send (``Pace``) with what compressing takes, and decides (``pays``). The asker knows the size of each chunk
beforehand, so that a bomb is refused by its header, before anything is allocated, and cannot grow beyond it.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES, Buffer

_LEVEL = 1
_SAMPLE_BYTES = 32 * 1024
_SAMPLES = 4
RATIO_MAX = 0.9
"""What shrinks by less than a tenth is never compressed."""
_WINDOW_BYTES_MAX = 2 * CHUNK_BYTES
_SAVES_TIMES = 2


@dataclass(frozen=True)
class Sample:
    """How a blob compresses: size after over size before, and seconds for a whole chunk."""

    ratio: float
    chunk_s: float

    def pays(self, send_s: float) -> bool:
        """Tell whether a chunk that takes ``send_s`` to send is better compressed: it must save twice what compressing
        takes. The asker has work with it too; and where processors are busy, sending waits for them as well."""
        return self.ratio <= RATIO_MAX and _SAVES_TIMES * self.chunk_s < (1 - self.ratio) * send_s


class Pace:
    """How long a chunk takes to send, by the quicker of the last two: one alone may have waited for a processor, and to
    compress the next would make the others wait longer."""

    def __init__(self) -> None:
        self._took_s = deque([0.0], 2)

    def note(self, took_s: float, size_bytes: int) -> None:
        """Note how long the last one took, of so many bytes."""
        self._took_s.append(took_s * CHUNK_BYTES / size_bytes)

    @property
    def send_s(self) -> float:
        """Seconds for a whole chunk; 0 before two were sent."""
        return min(self._took_s)


def sample(read: Callable[[int, Buffer], int], size_bytes: int) -> Sample:
    """Compress the beginnings of a few chunks of a blob: ``read(index, into)`` fills ``into`` and returns its size."""
    before = after = 0
    compressor, buffer = zstandard.ZstdCompressor(level=_LEVEL), bytearray(_SAMPLE_BYTES)
    count = -(-size_bytes // CHUNK_BYTES)
    began = time.perf_counter()
    for index in sorted({count * number // _SAMPLES for number in range(_SAMPLES)}) if count else ():
        piece = memoryview(buffer)[: read(index, buffer)]
        before += len(piece)
        after += len(compressor.compress(piece))
    if not before:
        return Sample(1.0, 0.0)
    return Sample(after / before, (time.perf_counter() - began) * CHUNK_BYTES / before)


def compress(chunk: Buffer) -> bytes:
    """Return ``chunk`` as one zstandard frame that says its size."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(chunk)


def decompress(data: Buffer, size_bytes: int) -> bytes:
    """Return the chunk of ``size_bytes`` in ``data``.

    Raises:
        PeerViolation: damaged, of another size, or wants more memory than a chunk needs.
    """
    try:
        if zstandard.frame_content_size(data) != size_bytes:
            raise PeerViolation("a compressed chunk does not have the size that it should")
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        return reader.decompress(data, max_output_size=size_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PeerViolation("a compressed chunk is damaged") from error
