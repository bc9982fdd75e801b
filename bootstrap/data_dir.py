"""Claiming a data directory: private to its user, and one node at a time.

The claim is a ``flock`` on a file that holds the node's process id: the kernel drops it however the process ends, so
that no stale claim can keep a node from starting.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from depin_node.core.errors import ConfigError, ResourceError
from depin_node.core.local import ControlFile, DataDir


def prepare(data_dir: DataDir) -> None:
    """Make the directory if need be, and keep others out of it.

    Raises:
        ConfigError: it cannot be made, is not a directory, or belongs to somebody else.
    """
    path = data_dir.path
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = path.stat().st_uid
        if owner != os.geteuid():
            raise ConfigError(f"{path}: this data directory belongs to user {owner}; choose another with --data-dir")
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be used as data directory: {error.strerror}") from error


@contextmanager
def claim(data_dir: DataDir) -> Iterator[None]:
    """Hold the directory for this process.

    Raises:
        ResourceError: another node holds it; the message names its process id.
        ConfigError: as ``prepare``.
    """
    prepare(data_dir)
    try:
        lock = os.open(data_dir.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{data_dir.lock}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise ConfigError(f"{data_dir.lock}: cannot be locked ({error.strerror}); use a local disk") from error
            holder = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            raise ResourceError(
                f"a node is already running on {data_dir.path} (process {holder});"
                " stop it, or start this one with another --data-dir"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


@contextmanager
def announced(data_dir: DataDir, control: ControlFile) -> Iterator[None]:
    """Let local clients find the node: ``control.json``, private, whole or not there, gone at the end."""
    temporary = data_dir.control.with_name(f".{data_dir.control.name}.tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(control) + b"\n")
    temporary.replace(data_dir.control)
    try:
        yield
    finally:
        data_dir.control.unlink(missing_ok=True)
