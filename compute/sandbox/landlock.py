"""Landlock: this process can open no file and no TCP connection again, whatever code runs in it.

A *ruleset* names the accesses that it handles; what is handled and not allowed by a rule is denied. Ours handles all
that the kernel knows. For a worker that computes in WebAssembly it has no rule at all; for one that drives a GPU it has
a rule for each path of the device's ``Access``: trees that may be read, device files that may be opened and spoken to
by ``ioctl``. It binds the thread that calls and those started after it, for ever. What is
open already stays usable: that is how inputs reach a worker. It also forbids ptrace of, and looking into, any process
outside.

Each version of the interface (*ABI*) knows more: 1 files, 2 moving them, 3 truncating, 4 TCP, 5 device ioctls,
6 signals and abstract Unix sockets outside. What it never covers: UDP, Unix sockets with a path, ``stat``, ``fork``;
``seccomp`` does. Linux's Documentation/userspace-api/landlock.rst; constants from include/uapi/linux/landlock.h.
"""

import ctypes
import errno
import os
import struct
from typing import Final

from depin_node.compute.devices.device import NOTHING, Access
from depin_node.compute.sandbox.linux import machine, system_call, threads

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_CREATE_RULESET_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_FILES: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which ABI on how many of the lowest bits of ``LANDLOCK_ACCESS_FS_...`` are known."""
_WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1 << 1, 1 << 2, 1 << 3, 1 << 15
_TCP: Final = 0b11
"""``LANDLOCK_ACCESS_NET_BIND_TCP``, ``..._CONNECT_TCP``, since ABI 4."""
_SCOPES: Final = 0b11
"""``LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET``, ``..._SIGNAL``, since ABI 6."""


def ruleset(abi: int) -> bytes:
    """Return the ``struct landlock_ruleset_attr`` that handles all that ``abi`` knows, as long as it is there."""
    files = (1 << max(bits for since, bits in _FILES if abi >= since)) - 1
    words = [files, _TCP, _SCOPES][: 1 if abi < 4 else 2 if abi < 6 else 3]
    return struct.pack(f"={len(words)}Q", *words)


def _rule(abi: int, path: str, *, is_device: bool) -> tuple[int, bytes] | None:
    """Return a descriptor of ``path`` and its ``struct landlock_path_beneath_attr``; None: there is no such file."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None  # what is not there cannot be opened either
    access = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
    if is_device:
        access = _READ_FILE | _WRITE_FILE | (_IOCTL_DEV if abi >= 5 else 0)
    return fd, struct.pack("=Qi", access, fd)


def forbid_files(access: Access = NOTHING) -> str:
    """Forbid this process all that landlock can but ``access``; ``no_new_privileges`` comes before.

    Returns:
        What the kernel offered.

    Raises:
        OSError: the kernel does not have it, or there are threads that it would not bind.
    """
    machine()
    try:
        abi = system_call(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(error.errno, "this kernel has none, or it is off") from error
        raise
    if (count := threads()) > 1:
        raise OSError(f"it would bind one of {count} threads")
    attribute = ruleset(abi)
    fd = system_call(_CREATE_RULESET, ctypes.create_string_buffer(attribute, len(attribute)), len(attribute), 0)
    try:
        allowed = sum(
            _allow(fd, abi, path, is_device=path in access.devices) for path in (*access.read, *access.devices)
        )
        system_call(_RESTRICT_SELF, fd, 0)
    finally:
        os.close(fd)
    files = f"{allowed} paths and nothing below others" if allowed else "no files"
    return f"ABI {abi}: {files}" + (", no TCP" if abi >= 4 else "") + (", no signals out" if abi >= 6 else "")


def _allow(ruleset_fd: int, abi: int, path: str, *, is_device: bool) -> bool:
    found = _rule(abi, path, is_device=is_device)
    if found is None:
        return False
    fd, attribute = found
    try:
        buffer = ctypes.create_string_buffer(attribute, len(attribute))
        system_call(_ADD_RULE, ruleset_fd, _PATH_BENEATH, buffer, 0)
    finally:
        os.close(fd)
    return True
