"""What a device is: something that loads a program once and then runs its tasks, one at a time, in a worker process.

A device never sees the network, a job or a peer: numbers in, numbers out. What it returns is in the canonical layout
of ``programs.shards``, with canonical NaNs, so that equal results are equal bytes within its device class.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from depin_node.compute.programs.program import Program


class Input(NamedTuple):
    """The bytes of one input array. ``fd`` is a file of just these bytes, which a device may map; -1: there is none."""

    data: memoryview
    fd: int = -1


class TaskLimits(NamedTuple):
    """What one task may use: ``seconds`` from start to result, ``memory_bytes`` of linear memory."""

    seconds: float
    memory_bytes: int


class Access(NamedTuple):
    """What a device has to open after its worker was confined: trees or files to ``read``, and ``devices`` to drive."""

    read: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


NOTHING: Final = Access()
"""No file: the worker keeps what it has open, and only the system calls that computing takes."""


class Loaded(Protocol):
    """A program on a device. One that has ``is_spent`` set after a task can run nothing more in its process.

    One that has ``results_in(arena)`` is told once which memory, shared with the node, results will lie in that have
    their pages for themselves; it may then have such pages elsewhere while a task runs.
    """

    def run(self, task: int, limits: TaskLimits, results: Sequence[memoryview]) -> int:
        """Run one task from a clean state.

        Args:
            task: its index in the program.
            limits: what it may use.
            results: one writable buffer of ``shards.result_bytes`` for each of ``program.outputs``; all is written.

        Returns:
            The fuel it used: a measure of progress that compares within one engine version.

        Raises:
            TaskTimedOut, TaskOutOfMemory, TaskTrapped: it ended without a result. The device is as good as before.
        """
        ...


class Device(Protocol):
    """A device of this machine; constructed without arguments, by its dotted name.

    Its constructor imports and opens all that ``load`` and ``run`` will need, and starts no thread: after it the worker
    is confined, can open nothing more, and a thread that was there before is not held by all of its layers.
    """

    device_class: str
    """Providers whose results must agree bit for bit. First asked for after the worker was confined."""

    # A device that must open files even then says which in ``access: Access``; see ``access_of``.

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> Loaded:
        """Compile ``program`` (validated) for its ``inputs``, by buffer index.

        Raises:
            TaskRejected: the device refuses the module. TaskOutOfMemory: no task of it fits ``limits``.
        """
        ...


class Compiler(Protocol):
    """What a device can do besides whose modules become native code that other workers of this machine may run."""

    def compile_native(self, modules: Sequence[bytes]) -> list[bytes]:
        """Return the native code of modules of a program that will be loaded; they are not compiled again then.

        Raises:
            TaskRejected: the device refuses one of them.
        """
        ...

    def adopt_native(self, modules: Sequence[bytes], native: Sequence[bytes]) -> None:
        """Take native code that ``compile_native`` returned elsewhere. It must be ours: it will be run."""
        ...


def compiler_of(device: Device) -> Compiler:
    """Return a device that has ``compile_native`` as what it is."""
    compiler: Compiler = device  # type: ignore[assignment]  # the caller knows
    return compiler


def access_of(device: Device) -> Access:
    """Return what a device has to open after its worker was confined: nothing, but for those that drive a GPU."""
    access: Access = getattr(device, "access", NOTHING)
    return access
