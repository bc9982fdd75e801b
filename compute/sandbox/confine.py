"""What a worker gives up before it reads its first byte.

::

    confine     first of all, in ``start``: core dumps, writing files, new privileges; it dies with its node
    (imports, the device is made, the pipes are wrapped)
    seal        the layers: capabilities, landlock, seccomp; nothing can be imported or opened from here on
    limit_data  when a program is loaded, and it is known how much it may take

A layer that the system does not have is left out and reported, and the worker runs all the same.
"""

import resource
from collections.abc import Callable, Collection
from typing import Final

from depin_node.compute.devices.device import NOTHING, Access
from depin_node.compute.sandbox import linux
from depin_node.compute.sandbox.landlock import forbid_files
from depin_node.compute.sandbox.messages import Layer
from depin_node.compute.sandbox.seccomp import forbid_system_calls


def _drop_capabilities() -> str:
    linux.machine()
    linux.drop_capabilities()
    return "none is held"


def _may_limit_data() -> str:
    linux.machine()
    return "RLIMIT_DATA, by what each program needs"


_LAYERS: Final[dict[str, Callable[[Access], str]]] = {
    "memory": lambda _: _may_limit_data(),
    "capabilities": lambda _: _drop_capabilities(),
    "landlock": forbid_files,
    "seccomp": lambda access: forbid_system_calls(drives_gpu=access != NOTHING),  # last: it leaves none for the others
}


def seal(wanted: Collection[str], access: Access = NOTHING) -> tuple[Layer, ...]:
    """Put on the layers of ``wanted`` that the system has; call it from the only thread.

    Args:
        wanted: their names.
        access: what may be opened all the same.

    Returns:
        Each layer, whether it holds, and how or why not.
    """
    return tuple(
        _put_on(name, put_on, access) if name in wanted else Layer(name, False, "switched off")
        for name, put_on in _LAYERS.items()
    )


def _put_on(name: str, put_on: Callable[[Access], str], access: Access) -> Layer:
    try:
        return Layer(name, True, put_on(access))
    except OSError as error:
        return Layer(name, False, error.strerror or str(error))


def limit_data(size: int) -> None:
    """Let no allocation pass ``size`` bytes of private writable memory: what is reserved, stacks and code do not count.

    It refuses at once what the node's watch over resident memory would see only after it was written. That watch stays:
    memory that was written and then made read-only is not counted here.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def limit_cpu(seconds: float) -> None:
    """Let the system end this process if it computes for ``seconds`` more: the last net under the watchdogs."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 2, hard))
