"""What a worker gives up before it reads its first byte, and how it makes sure that it does not outlive its node."""

import ctypes
import os
import resource
import signal
import sys

DESCRIPTORS_MAX = 256
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def confine(parent: int, nice: int) -> None:
    """Give up core dumps, writing files, many descriptors and new privileges; die with process ``parent``.

    Memory is not limited here: RLIMIT_AS breaks wasmtime, which reserves 4 GiB of addresses for each memory. The node
    watches what is resident.
    """
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides; a terminal's Ctrl-C is not for us
    os.nice(nice)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        for option, argument in (
            (_PR_SET_PDEATHSIG, signal.SIGKILL),
            (_PR_SET_NO_NEW_PRIVS, 1),
        ):
            if prctl(option, argument, 0, 0, 0):
                raise OSError(ctypes.get_errno(), f"prctl {option}")
    if orphaned(parent):  # it died before the line above
        os._exit(1)


def orphaned(parent: int) -> bool:
    """Whether the node is gone."""
    return os.getppid() != parent


def limit_cpu(seconds: float) -> None:
    """Let the system end this process if it computes for ``seconds`` more: the last net under the watchdogs."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 2, hard))
