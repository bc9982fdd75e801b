"""The system calls of Linux that Python has no name for, by ctypes: no compiled extension, no library but the C one.

Only x86-64 and aarch64 are spoken; elsewhere ``machine`` says so and the layers that need it are not there.
"""

import ctypes
import os
import sys
from typing import Final, Literal, cast, get_args

Machine = Literal["x86_64", "aarch64"]
_NO_NEW_PRIVS: Final = 38
_PDEATHSIG: Final = 1
"""``PR_SET_...`` of include/uapi/linux/prctl.h."""
_CAPABILITY_VERSION_3: Final = 0x20080522
"""include/uapi/linux/capability.h; the third version has two words for each set."""


def machine() -> Machine:
    """Return the machine whose system call numbers hold here.

    Raises:
        OSError: another system or another machine.
    """
    if sys.platform != "linux":
        raise OSError("only on Linux")
    found = os.uname().machine
    for name in get_args(Machine):
        if name == found and sys.maxsize > 1 << 32:  # a 32-bit interpreter makes other system calls
            return cast(Machine, name)
    raise OSError(f"not written for {found} yet")


def system_call(number: int, *arguments: "int | ctypes.Array[ctypes.c_char] | None") -> int:
    """Make a system call; each argument is passed as a word, a buffer as its address.

    Raises:
        OSError: with the kernel's errno.
    """
    words = [ctypes.c_ulong(ctypes.addressof(a) if isinstance(a, ctypes.Array) else a or 0).value for a in arguments]
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    result = int(call(ctypes.c_long(number), *map(ctypes.c_ulong, words)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _prctl(option: int, argument: int) -> None:
    words = [ctypes.c_ulong(word) for word in (argument, 0, 0, 0)]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *words):
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")


def die_with_parent(signal_number: int) -> None:
    """Ask for a signal when the thread that started us ends."""
    _prctl(_PDEATHSIG, signal_number)


def no_new_privileges() -> None:
    """Never gain a privilege by ``execve`` again; landlock and seccomp ask for it."""
    _prctl(_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability of this thread and of those it starts: for workers of a node that runs as root.

    Raises:
        OSError: the kernel does not know it.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def threads() -> int:
    """Return how many threads this process has."""
    return len(os.listdir("/proc/self/task"))
