"""Memory limits that the kernel keeps, where this node was given a part of the tree of control groups (Linux, v2).

Given means delegated: systemd marks what it leaves to a service (``Delegate=memory``) with an extended attribute, and
puts the service's own process into a group below (``DelegateSubgroup=node``), since a group that hands out memory may
hold no processes itself. Each worker then gets a group beside the node's, with a limit, no swap, and an end for all of
it at once. Nothing that was not delegated is touched. Elsewhere the node looks at what its workers have resident,
twenty times a second, as it does here too: a fast worker may take more than its limit for a moment.

Described in Linux's Documentation/admin-guide/cgroup-v2.rst and systemd's docs/CGROUP_DELEGATION.md.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from depin_node.compute.sandbox.messages import Layer

_DELEGATED: Final = ("user.delegate", "trusted.delegate")
_KERNEL_BYTES: Final = 16 << 20
"""Page tables and the like, which a group's memory contains and resident memory does not."""


class MemoryGroup:
    """The group of one worker."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def limit(self, resident_bytes: int) -> None:
        """Set the limit. What cannot be set leaves the node's own watch."""
        with contextlib.suppress(OSError):
            (self._path / "memory.max").write_text(str(resident_bytes + _KERNEL_BYTES))

    def ran_out(self) -> bool:
        """Whether the kernel has ended it for want of memory."""
        with contextlib.suppress(OSError):
            events = (self._path / "memory.events").read_text()
            return any(int(count) > 0 for count in re.findall(r"^oom_kill (\d+)$", events, re.MULTILINE))
        return False

    def close(self) -> None:
        """Remove it, once its process has ended."""
        with contextlib.suppress(OSError):
            self._path.rmdir()


class MemoryGroups:
    """Where workers' groups are made; ``layer`` says who keeps the limit, and why not the kernel."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        try:
            self._parent: Path | None = _find_parent(proc)
            self.layer = Layer("resident", True, "kept by the kernel, in a control group for each worker")
        except OSError as error:
            self._parent = None
            self.layer = Layer("resident", True, f"watched by the node: {error.strerror or error}")

    def make(self, pid: int) -> MemoryGroup | None:
        """Put a worker into a group of its own; None: it has none."""
        if self._parent is None:
            return None
        group = MemoryGroup(path := self._parent / f"worker-{pid}")
        try:
            path.mkdir(exist_ok=True)
            (path / "memory.oom.group").write_text("1")
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                (path / "memory.swap.max").write_text("0")
            (path / "cgroup.procs").write_text(str(pid))
        except OSError:  # full, or taken away: the node's own watch is left
            group.close()
            return None
        return group


def _find_parent(proc: Path) -> Path:
    """Return the directory in which groups can be made.

    Raises:
        OSError: there is none; says why.
    """
    try:
        own, mounts = (proc / "cgroup").read_text(), (proc / "mountinfo").read_text()
    except OSError as error:
        raise OSError(error.errno, "no control groups on this system") from error
    place = re.search(r"^0::(/.*)$", own, re.MULTILINE)
    mount = re.search(r"^\d+ \d+ \S+ (\S+) (\S+) .*? - cgroup2 ", mounts, re.MULTILINE)
    if place is None or mount is None:
        raise OSError(0, "no control groups of version 2")
    inside = os.path.relpath(place[1], mount[1])
    parent = (Path(mount[2]) / inside).resolve().parent
    if inside in (".", "..") or inside.startswith("../") or not _is_delegated(parent):
        raise OSError(0, "no control group was delegated to it")
    if "memory" not in (parent / "cgroup.controllers").read_text().split():
        raise OSError(0, "the control group of this node has no memory controller")
    if "memory" not in (parent / "cgroup.subtree_control").read_text().split():
        (parent / "cgroup.subtree_control").write_text("+memory")
    return parent


def _is_delegated(group: Path) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False
