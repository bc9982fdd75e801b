"""One worker process, from the node's side: started, spoken to, watched, killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

if sys.platform == "linux":
    import fcntl

import psutil
import structlog
import trio

from depin_node.compute.sandbox import messages as m
from depin_node.compute.sandbox.cgroup import MemoryGroups
from depin_node.compute.sandbox.config import WorkerConfig
from depin_node.core import wire
from depin_node.core.errors import ResourceError, TaskError, TaskOutOfMemory

log = structlog.get_logger("depin_node.sandbox")
STDERR_LINE_MAX: Final = 500
STDERR_BYTES_MAX: Final = 64 << 10
_READ_BYTES: Final = 1 << 18
PIPE_BYTES: Final = 256 << 10
"""A message of many small results goes into a pipe whole, so that the worker goes on with the next ones."""
_REAP_S: Final = 5.0
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A slot is one core; and landlock binds only threads that start after it, so NumPy must start none at its import."""


class WorkerProcess:
    """A started worker. ``receive`` is for one task only, ``send`` for one other."""

    def __init__(self, config: WorkerConfig, groups: MemoryGroups | None = None) -> None:
        """Start it, in a control group of its own if there are ``groups``.

        Not by ``trio.run_process``: that starts it from a helper thread, and PR_SET_PDEATHSIG means that thread.

        Raises:
            ResourceError: the system has no process or descriptor to give.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                to_worker, from_node = _pipe(theirs, ours)
                to_node, from_worker = _pipe(ours, theirs)[::-1]
                errors_in, errors_out = _pipe(ours, theirs)
                fds_ours, fds_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                ours.callback(fds_ours.close)
                theirs.callback(fds_theirs.close)
                argument = {
                    "parent": os.getpid(),
                    "nice": config.nice,
                    "sys_path": config.sys_path,
                    "device": config.device,
                    "layers": config.layers,
                    "read_fd": to_worker,
                    "write_fd": to_node,
                    "socket_fd": fds_theirs.fileno(),
                }
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "depin_node.compute.sandbox.start", json.dumps(argument)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors_out,
                    pass_fds=(to_worker, to_node, fds_theirs.fileno()),
                    cwd="/",
                    env=_ENVIRONMENT | dict(config.environment),
                    start_new_session=True,
                )
            except OSError as error:
                raise ResourceError(f"no worker process could be started: {error}") from error
            ours.pop_all()
        self.pid = self._process.pid
        self._group = groups.make(self.pid) if groups else None
        self._send, self._receive = trio.lowlevel.FdStream(from_node), trio.lowlevel.FdStream(from_worker)
        self._errors = trio.lowlevel.FdStream(errors_in)
        self._fd_socket = fds_ours
        self._fd_socket.setblocking(False)
        self._buffer = bytearray()
        self._usage = psutil.Process(self.pid)
        self.device_class = ""
        self.compiles = False
        self.layers: tuple[m.Layer, ...] = ()
        self.verdict: TaskError | None = None
        """Why it was killed, if whoever did it knows better than its lease."""

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until it has imported everything and confined itself.

        Raises:
            ResourceError: it ended, or is not ready in time.
        """
        with trio.move_on_after(timeout_s):
            message = await self.receive()
            if isinstance(message, m.Hello):
                self.device_class, self.layers = message.device_class, message.layers
                self.compiles = message.compiles
                return
            raise ResourceError(f"the worker process ended as it started: {await self._last_words()}")
        raise ResourceError(f"the worker process was not ready within {timeout_s:g} s")

    async def _last_words(self) -> str:
        lines = [line async for line in self.error_lines()]
        return lines[-1] if lines else "it said nothing"

    async def send(self, message: wire.Message) -> None:
        """Send a message.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the worker is gone.
        """
        data = memoryview(m.frame(message))
        try:
            sent = os.write(self._send.fileno(), data)  # trio's stream gives all others their turn first
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError from error
        if sent < len(data):
            await self._send.send_all(data[sent:])

    def send_files(self, fds: Sequence[int]) -> None:
        """Hand over descriptors, before the message that speaks of them.

        Raises:
            OSError: the worker is gone.
        """
        socket.send_fds(self._fd_socket, [b"f"], list(fds))

    async def receive(self) -> wire.Message | None:
        """Return the next message; None when the worker is gone.

        Raises:
            PeerViolation: it speaks nonsense.
        """
        header = await self._exactly(m.HEADER.size)
        if header is None:
            return None
        body = await self._exactly(m.body_bytes(header))
        return None if body is None else m.unframe(header, body)

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            try:
                await trio.lowlevel.wait_readable(self._receive.fileno())  # seldom is anything there already
                data = os.read(self._receive.fileno(), _READ_BYTES)
            except (OSError, ValueError, trio.ClosedResourceError):  # ValueError: of a descriptor that is closed
                return None
            if not data:
                return None
            self._buffer += data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def error_lines(self) -> AsyncIterator[str]:
        """What it writes to stderr, line by line, printable; at ``STDERR_BYTES_MAX`` its stderr is closed."""
        total, rest = 0, b""
        while True:
            try:
                data = await self._errors.receive_some(4096)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            total += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines if data else [rest]:
                if line:
                    text = line[:STDERR_LINE_MAX].decode(errors="replace")
                    yield "".join(c if c.isprintable() else " " for c in text)
            rest = rest[:STDERR_LINE_MAX]
            if not data or total > STDERR_BYTES_MAX:
                await self._errors.aclose()
                return

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def resident_bytes(self) -> int:
        """Return its memory, shared pages included; 0 when it is gone."""
        try:
            return int(self._usage.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def limit_memory(self, resident_bytes: int) -> None:
        """Have the kernel keep it below this, where it can."""
        if self._group:
            self._group.limit(resident_bytes)

    def saw(self, progress: tuple[int, int], seconds: float) -> None:
        """Its lease tells how many tasks it started and finished, and how long each may take; for who wants to know."""

    def kill(self) -> None:
        """End it and whatever it started, now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """Kill it, reap it, close what we hold."""
        if self._process.returncode is None:
            self.kill()
        self._fd_socket.close()
        with trio.CancelScope(shield=True), trio.move_on_after(_REAP_S):
            for stream in (self._send, self._receive, self._errors):
                await stream.aclose()
            while self._process.poll() is None:  # noqa: ASYNC110 - there is no event for it; it was killed
                await trio.sleep(0.002)
        if self._process.returncode is None:
            log.warning("a killed worker process does not end", pid=self.pid)
        if self._group:
            if self._group.ran_out():
                self.verdict = self.verdict or TaskOutOfMemory("the worker took more memory than its control group has")
            self._group.close()

    def describe_end(self) -> str:
        """Say how it ended, once it is reaped."""
        code = self._process.returncode
        if code is None:
            return "it does not end"
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # the user has many pipes already: slower, not wrong
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    reader.callback(os.close, read_fd)
    writer.callback(os.close, write_fd)
    return read_fd, write_fd
