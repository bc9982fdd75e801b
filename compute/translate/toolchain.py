"""The compilers in the ``ziglang`` wheel, run as bounded children: clang's front end and code generator, and wasm-ld.

A child gets a deadline, a cap on its memory and on what it writes, a working directory of its own and an environment
without the user's variables; it leads its own process group, which is killed when it must end. Nothing here reads the
source: what it may do to a compiler is a hang, a crash or much memory, and each ends as a ``CompileError``.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from depin_node.compute.translate.errors import CompileError, Diagnostic
from depin_node.core.errors import ConfigError

MEMORY_BYTES_MAX = 2 << 30
OUTPUT_BYTES_MAX = 64 << 20
ERROR_BYTES_MAX = 1 << 20
INSTALL = "pip install 'depin-node[compile]'"


def compiler_available() -> str | None:
    """Return None if the compiler is installed, else the command that installs it."""
    return None if _zig() else INSTALL


def _zig() -> Path | None:
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "zig.exe" if os.name == "nt" else "zig")
        if path.is_file():
            return path
    return None


def compiler_version() -> str:
    """Return the version of the compiler, or an empty string if there is none."""
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit status, what it printed on stdout and stderr."""

    status: int
    output: bytes
    errors: str


class Toolchain:
    """Runs the compilers for one translation, all of them within one deadline.

    Args:
        folder: a private, empty folder: working directory and place of all files of the children.
        filename: how the user calls the source.
        deadline_s: for all children together, from now.
    """

    def __init__(self, folder: Path, filename: str, deadline_s: float) -> None:
        zig = _zig()
        if zig is None:
            raise ConfigError(f"compiling a kernel needs the ziglang package: {INSTALL}")
        self.zig, self.folder, self.filename = zig, folder, filename
        self.deadline_s, self._end = deadline_s, time.monotonic() + deadline_s

    def run(self, *arguments: str) -> Outcome:
        """Run ``zig`` with these arguments.

        Raises:
            CompileError: the deadline passed, or the child wrote too much.
        """
        environment = {"LC_ALL": "C", "TMPDIR": str(self.folder), "ZIG_GLOBAL_CACHE_DIR": str(self.folder)}
        environment |= {key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ}
        paths = self.folder / "stdout", self.folder / "stderr"
        with paths[0].open("wb") as output, paths[1].open("wb") as errors:
            child = subprocess.Popen(
                [str(self.zig), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=self.folder,
                env=environment,
                start_new_session=os.name != "nt",
            )
            try:
                _limit(child.pid)
                _wait(child, max(self._end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                raise self._error(
                    f"the compiler did not finish within {self.deadline_s:g} s; make the kernel smaller "
                    "(templates and macros that expand without end look like this)"
                ) from None
            finally:
                _kill(child)
        written = max(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        if written >= OUTPUT_BYTES_MAX:
            raise self._error(f"the kernel expands to more than {OUTPUT_BYTES_MAX >> 20} MiB; make it smaller")
        with paths[1].open("rb") as stream:
            text = stream.read(ERROR_BYTES_MAX).decode(errors="replace")
        return Outcome(child.returncode, paths[0].read_bytes(), text)

    def crash(self, outcome: Outcome) -> CompileError:
        """Return the error for a child that failed without saying where in the source."""
        reason = f"ended with status {outcome.status}"
        if "out of memory" in outcome.errors or "bad_alloc" in outcome.errors:
            reason = f"needed more than {MEMORY_BYTES_MAX >> 20} MiB of memory"
        elif outcome.status == -getattr(signal, "SIGXFSZ", 0):
            reason = f"wrote more than {OUTPUT_BYTES_MAX >> 20} MiB"
        first = next((line for line in outcome.errors.splitlines() if line.strip()), "no message")
        return self._error(f"the compiler {reason} ({first.strip()}); make the kernel smaller or simpler")

    def _error(self, text: str) -> CompileError:
        return CompileError([Diagnostic(text)], self.filename)


def _wait(child: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait until a child ends: at once, where the system can say it, since ``Popen.wait`` looks every 50 ms.

    Raises:
        subprocess.TimeoutExpired: it has not ended after so long.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # no descriptor, or a kernel without them
            fd = os.pidfd_open(child.pid)
            try:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(seconds * 1000)
            finally:
                os.close(fd)
            seconds = 0.0
    child.wait(seconds)


def _limit(pid: int) -> None:
    """Cap the child's memory and files, where the system can do that to another process (Linux)."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX))
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def _kill(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is not None:
        return
    if os.name == "nt":
        child.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
