"""Control groups: found where they were delegated, and what is written where. The kernel's part needs a machine with a
delegated memory controller, and is tried where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from depin_node.compute.sandbox.cgroup import MemoryGroup, MemoryGroups

MOUNT = "35 24 0:30 / {} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def tree(tmp_path):
    """A directory like a delegated service's groups, and a /proc/self that is in one of them."""
    service, proc = tmp_path / "system.slice" / "depin-node.service", tmp_path / "proc"
    (service / "node").mkdir(parents=True)
    proc.mkdir()
    (service / "cgroup.controllers").write_text("cpu memory pids\n")
    (service / "cgroup.subtree_control").write_text("memory\n")
    (proc / "cgroup").write_text("4:memory:/old\n0::/system.slice/depin-node.service/node\n")
    (proc / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + MOUNT.format(tmp_path))
    try:
        os.setxattr(service, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    return service, proc


def detail(proc):
    groups = MemoryGroups(proc)
    assert groups.layer.active
    assert groups.make(os.getpid()) is None
    return groups.layer.detail


def test_a_worker_gets_a_group_with_a_limit(tree):
    service, proc = tree
    groups = MemoryGroups(proc)
    assert groups.layer.detail.startswith("kept by the kernel")
    group = groups.make(1234)
    assert isinstance(group, MemoryGroup)
    group.limit(100 << 20)
    path = service / "worker-1234"
    assert {file.name: file.read_text() for file in path.iterdir()} == {
        "cgroup.procs": "1234",
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "memory.max": str(116 << 20),
    }
    assert not group.ran_out()
    (path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 1\n")
    assert group.ran_out()
    for file in path.iterdir():
        file.unlink()  # the kernel's own files are no hindrance
    group.close()
    assert not path.exists()


def test_what_was_not_delegated_is_left_alone(tree):
    service, proc = tree
    os.removexattr(service, "user.delegate")
    assert "no control group was delegated" in detail(proc)
    assert sorted(path.name for path in service.iterdir()) == ["cgroup.controllers", "cgroup.subtree_control", "node"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("service/cgroup.controllers", "cpu pids\n", "has no memory controller"),
        ("proc/cgroup", "4:memory:/old\n", "no control groups of version 2"),
        ("proc/cgroup", "0::/\n", "no control group was delegated"),
        ("proc/cgroup", "0::/../other\n", "no control group was delegated"),
        ("proc/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda rw\n", "no control groups of version 2"),
    ],
)
def test_elsewhere_the_node_watches_and_says_why(tree, name, text, reason):
    service, proc = tree
    folder, _, file = name.partition("/")
    ({"service": service, "proc": proc}[folder] / file).write_text(text)
    assert detail(proc).startswith("watched by the node: ")
    assert reason in detail(proc)


def test_without_proc_the_node_watches(tmp_path):
    assert detail(tmp_path / "none") == "watched by the node: no control groups on this system"


def test_the_kernel_keeps_the_limit():
    groups = MemoryGroups()
    if not groups.layer.detail.startswith("kept"):
        pytest.skip(groups.layer.detail)
    child = subprocess.Popen(
        [sys.executable, "-c", "input(); x = bytearray(400 << 20)"], stdin=subprocess.PIPE, start_new_session=True
    )
    group = groups.make(child.pid)
    assert group is not None
    group.limit(100 << 20)
    child.communicate(b"\n", timeout=60)
    assert child.returncode == -9
    assert group.ran_out()
    group.close()
    assert not Path(f"/proc/{child.pid}").exists()
