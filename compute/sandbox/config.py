"""What can be set about workers."""

from dataclasses import dataclass, field
from typing import Final

LAYERS: Final = ("memory", "capabilities", "landlock", "seccomp")
"""What the operating system confines a worker by, where it has it; see ``confine``."""


@dataclass(frozen=True)
class WorkerConfig:
    """How workers are started.

    ``device`` is the dotted name of a ``devices.Device``; ``sys_path`` is added to the worker's import path for devices
    that are not part of this package. ``nice`` is added to the niceness. ``layers`` are those to put on where the
    system has them: all, but in tests of one alone; no user's configuration leads here.
    """

    device: str = "depin_node.compute.devices.wasm:WasmDevice"
    sys_path: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    nice: int = 10
    start_timeout_s: float = 60.0
    layers: tuple[str, ...] = LAYERS


@dataclass(frozen=True)
class PoolConfig:
    """How many workers there are and what they may use.

    Attributes:
        worker: how each is started.
        workers_max: leases at a time.
        spare: whether one more worker is kept started, so that a lease begins at once.
        window: tasks that a lease holds, from submission until their release.
        arena_bytes: room for large results that wait to be released, at least; one task's always fit twice.
        overhead_bytes: what a worker may have resident beyond arrays and arena: the interpreter takes 60 MiB, the
            compilation of a module at the size limit the rest.
        load_timeout_s: for compiling a module.
        work_max: threads and floating-point operations of a task, as ``programs.work`` knows them before it runs.
        grace_s: beyond a task's own deadline, which the worker keeps by itself, until the worker is killed.
    """

    worker: WorkerConfig = field(default_factory=WorkerConfig)
    workers_max: int = 1
    spare: bool = True
    window: int = 1024
    arena_bytes: int = 64 << 20
    overhead_bytes: int = 768 << 20
    load_timeout_s: float = 30.0
    work_max: int = 1 << 62
    grace_s: float = 5.0
