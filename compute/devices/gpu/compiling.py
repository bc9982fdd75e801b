"""Compiling a stranger's CUDA text: in a process that has no GPU, no files, no network and little time.

NVRTC is a whole C++ compiler: it opens what a text includes, and a template keeps it busy for ever. So a device's
worker starts, before it confines itself, a child (``sandbox.compile_worker``) that loads NVRTC, gives up everything
else, reads texts from its standard input and answers with PTX and a CUBIN, or with a refusal. The child serves one
agreement and dies with it. What it says is bounded here, and is data: PTX to check, a CUBIN to load.

A frame, both ways, is a u32 length and a canonical ``Message``.
"""

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from depin_node.core import wire
from depin_node.core.errors import PeerViolation, ResourceError, TaskCrashed, TaskRejected, TaskTimedOut

HEADER: Final = struct.Struct("<I")
TEXT_BYTES_MAX: Final = 4 << 20
OUTPUT_BYTES_MAX: Final = 16 << 20
"""PTX and CUBIN of one text together. A kernel of 1,000 lines makes some 100 KiB of each."""
LOG_CHARACTERS_MAX: Final = 1000
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
_STOP_S: Final = 5.0


class Compile(wire.Message, frozen=True):
    """A whole text, header included, and the options for NVRTC."""

    text: Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
    options: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=64)]


class Compiled(wire.Message, frozen=True):
    """What came out; ``log`` is empty, or else why nothing did."""

    ptx: str
    cubin: bytes
    log: Annotated[str, Meta(max_length=LOG_CHARACTERS_MAX)]


@dataclass(frozen=True)
class CompileLimits:
    """What one text may take: ``seconds`` of wall time and of CPU, ``memory_bytes`` in all. NVRTC at rest takes 200 MiB
    of addresses, a kernel that uses the whole maths header 60 more."""

    seconds: float = 20.0
    memory_bytes: int = 1 << 30


class Compiler:
    """The child and the pipes to it. Not for use by two threads; a time-out or a crash ends it for good."""

    def __init__(self, limits: CompileLimits | None = None) -> None:
        """Start it; it confines itself while we go on.

        Raises:
            ResourceError: no process is to be had.
        """
        self.limits = limits or CompileLimits()
        argument = {"parent": os.getpid(), "seconds": self.limits.seconds, "memory_bytes": self.limits.memory_bytes}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "depin_node.compute.sandbox.compile_worker", json.dumps(argument)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_ENVIRONMENT,
            )
        except OSError as error:
            raise ResourceError(f"no process for compiling could be started: {error}") from error
        self.layers = ""
        """What confines the child, as it told; set by ``wait_ready``."""

    def wait_ready(self, seconds: float) -> None:
        """Wait until NVRTC is loaded and the child is confined.

        Raises:
            ResourceError: it ended, or takes longer.
        """
        try:
            self.layers = self._receive(seconds).decode()
        except (TaskTimedOut, TaskCrashed) as error:
            raise ResourceError(
                f"CUDA cannot be compiled here: {error}; is NVRTC installed (depin-node[cuda12] or [cuda13])?"
            ) from error

    def compile(self, text: str, options: Sequence[str]) -> Compiled:
        """Return PTX and CUBIN of ``text``.

        Raises:
            TaskRejected: the text is too long or not taken, or takes too much memory; with NVRTC's log.
            TaskTimedOut: it takes longer than ``limits.seconds``.
            TaskCrashed: the compiler died, for want of memory too.
        """
        if len(text) > TEXT_BYTES_MAX:
            raise TaskRejected(f"the CUDA text has {len(text)} characters, at most {TEXT_BYTES_MAX} are allowed")
        body = wire.encode(Compile(text, tuple(options)))
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(HEADER.pack(len(body)) + body)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # a pipe that is broken, or that we closed
            raise TaskCrashed("the compiler died before this text") from error
        try:
            answer = wire.decode(self._receive(self.limits.seconds), Compiled, size_bytes_max=OUTPUT_BYTES_MAX)
        except PeerViolation as error:
            raise TaskCrashed("the compiler speaks nonsense") from error
        if answer.log:
            raise TaskRejected(f"the CUDA text does not compile: {answer.log}")
        return answer

    def _receive(self, seconds: float) -> bytes:
        until = time.monotonic() + seconds
        (size,) = HEADER.unpack(self._exactly(HEADER.size, until))
        if size > OUTPUT_BYTES_MAX:
            self.close()
            raise TaskRejected(f"the compiled text has {size} bytes, at most {OUTPUT_BYTES_MAX} are allowed")
        return self._exactly(size, until)

    def _exactly(self, size: int, until: float) -> bytes:
        assert self._process.stdout is not None
        fd, data = self._process.stdout.fileno(), bytearray()
        while len(data) < size:
            ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self.close()
                raise TaskTimedOut("the compiler took too long")
            part = os.read(fd, min(1 << 18, size - len(data)))
            if not part:
                raise TaskCrashed("the compiler died: perhaps it wants more memory than it may have")
            data += part
        return bytes(data)

    def close(self) -> None:
        """End it. From inside a confined worker this only hangs up; the child is then ended by the worker's end."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(_STOP_S)
