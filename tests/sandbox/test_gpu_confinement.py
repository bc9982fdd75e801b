"""The layers around a worker that drives a GPU, tried on ordinary files and a device that every machine has.

There is no GPU here: that CUDA's driver can work behind these layers is for ``make test-gpu`` to show.
"""

import os
import subprocess
import sys

import pytest
from bpf import ARCH, CLONE_NEWUSER, PTHREAD, SIGCHLD, run_filter

from depin_node.compute.devices.gpu.cuda_access import cuda_access
from depin_node.compute.devices.gpu.nvidia import Gpu
from depin_node.compute.sandbox.seccomp import ALLOW, ALWAYS, DENY, IF, KILL, NEVER, UNKNOWN, gpu_program

PID = 4711
linux = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
CHILD = """
import errno, os, socket, sys, termios, threading
from depin_node.compute.devices.device import Access
from depin_node.compute.sandbox.confine import seal
from depin_node.compute.sandbox.start import confine
from depin_node.compute.sandbox.config import LAYERS
folder = sys.argv[1]
import fcntl, encodings.idna
confine(os.getppid())
layers = seal(sys.argv[2].split(","), Access((folder + "/read", "/proc/self"), ("/dev/null",)))
for layer in layers:
    print("layer", layer.name, layer.active)
def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags, 0o600))
def drives():
    fd = os.open("/dev/null", os.O_RDWR)
    os.write(fd, b"x")
    try:
        fcntl.ioctl(fd, termios.TCGETS, bytes(64))
    except OSError as error:
        if error.errno != errno.ENOTTY:  # it is no terminal: so the request did arrive
            raise
def thread():
    started = threading.Thread(target=lambda: opens(folder + "/read/file"))
    started.start()
    started.join()
def forks():
    if not os.fork():
        os._exit(0)
for name, attempt in {
    "read": lambda: opens(folder + "/read/file"),
    "list": lambda: os.listdir(folder + "/read"),
    "maps": lambda: opens("/proc/self/maps"),
    "drive": drives,
    "thread": thread,
    "write": lambda: opens(folder + "/read/file", os.O_WRONLY),
    "create": lambda: opens(folder + "/read/new", os.O_WRONLY | os.O_CREAT),
    "secret": lambda: opens(folder + "/secret"),
    "other device": lambda: opens("/dev/zero"),
    "parent": lambda: opens(f"/proc/{os.getppid()}/environ"),
    "passwd": lambda: opens("/etc/passwd"),
    "inet": lambda: socket.socket(),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "fork": forks,
    "run": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
}.items():
    try:
        attempt()
        print("tried", name.replace(" ", "_"), "done")
    except OSError as error:
        print("tried", name.replace(" ", "_"), errno.errorcode[error.errno])
    sys.stdout.flush()
"""
ALLOWED = {"read", "list", "maps", "drive", "thread"}
FILES = {"write", "create", "secret", "other_device", "parent", "passwd"}
CALLS = {"inet", "unix", "fork", "run", "kill"}


def intrude(folder, layers):
    """Return which layers held in a child, and what became of each of its attempts."""
    (folder / "read").mkdir()
    (folder / "read" / "file").write_text("a library")
    (folder / "secret").write_text("a key")
    child = subprocess.run([sys.executable, "-c", CHILD, folder, layers], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    lines = [line.split() for line in child.stdout.splitlines()]
    held = {name for kind, name, active in lines if kind == "layer" and active == "True"}
    if missing := set(layers.split(",")) - held - {"none"}:
        pytest.skip(f"not on this kernel: {missing}")
    return {name: outcome for kind, name, outcome in lines if kind == "tried"}


@linux
def test_all_layers_leave_what_the_driver_needs_and_nothing_else(tmp_path):
    found = intrude(tmp_path, "memory,capabilities,landlock,seccomp")
    assert {name for name, outcome in found.items() if outcome == "done"} == ALLOWED
    assert {found[name] for name in FILES} == {"EACCES"}
    assert {found[name] for name in CALLS} == {"EPERM"}


@linux
def test_landlock_alone_denies_other_files(tmp_path):
    found = intrude(tmp_path, "landlock")
    assert {name for name, outcome in found.items() if outcome == "EACCES"} == FILES | {"run"}


@linux
def test_seccomp_alone_denies_the_calls(tmp_path):
    found = intrude(tmp_path, "seccomp")
    assert {name for name, outcome in found.items() if outcome == "EPERM"} == CALLS


def answer(machine, number, *arguments, arch=None):
    """Return what the filter says to a system call."""
    return run_filter(gpu_program(machine, PID), ARCH[machine] if arch is None else arch, number, arguments)


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_for_gpu_workers(machine, column):
    assert {answer(machine, numbers[column]) for numbers in NEVER.values()} == {DENY}
    assert {answer(machine, numbers[column]) for numbers in ALWAYS.values()} == {ALLOW}
    assert not NEVER.keys() & ALWAYS.keys()
    clone = IF["clone"][0][column]
    assert answer(machine, clone, PTHREAD) == ALLOW
    assert answer(machine, clone, SIGCHLD) == answer(machine, clone, PTHREAD | CLONE_NEWUSER) == DENY
    kill = IF["kill"][0][column]
    assert (answer(machine, kill, PID), answer(machine, kill, 1)) == (ALLOW, DENY)
    assert answer(machine, 435) == answer(machine, 100_000) == UNKNOWN
    assert answer(machine, 0, arch=0) == KILL
    ioctl, openat = ((16, 29)[column], (257, 56)[column])
    assert answer(machine, ioctl) == answer(machine, openat) == ALLOW


def test_the_numbers_agree_with_the_other_list():
    shared = {name: numbers for name, numbers in NEVER.items() if name in ALWAYS or name in IF}
    assert not shared
    assert all(len({numbers[column] for numbers in NEVER.values()}) == len(NEVER) for column in (0, 1))


def test_the_paths_of_one_gpu_and_no_other(tmp_path):
    gpu = Gpu("GPU-1", "any", 1, (8, 0), "550", (12, 4), minor=2, power_limit_w=None)
    access = cuda_access(gpu)
    assert set(access.devices) == {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia2"}
    for path in (os.path.expanduser("~"), "/", "/home", "/tmp", "/etc", "/proc", "/dev", "/sys"):
        assert path not in access.read


def test_a_mig_instance_has_its_two_capability_files(tmp_path):
    folder = tmp_path / "proc/driver/nvidia/capabilities/gpu0/mig/gi1"
    (folder / "ci0").mkdir(parents=True)
    (folder / "access").write_text("DeviceFileMinor: 30\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    (folder / "ci0" / "access").write_text("DeviceFileMinor: 31\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    gpu = Gpu("MIG-1", "any", 1, (8, 0), "550", (12, 4), 0, None, parent="GPU-1", instances=(1, 0))
    devices = cuda_access(gpu, str(tmp_path)).devices
    assert {"/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31", "/dev/nvidia0"} < set(devices)
