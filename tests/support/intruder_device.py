"""A device that tries to get out of its worker, as native code would that broke out of wasmtime, and tells what it got.

``Intruder`` runs the attempts that the kernel's source names, ``"attempt attempt ... {JSON of what they need}"``, and
is refused with "attempt=done" or "attempt=the name of the error" for each. Every attempt succeeds in an unconfined
worker: the tests try that too, so that none is denied for a reason of its own.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import subprocess
import threading

from depin_node.core.errors import TaskRejected

PTRACE_SEIZE = 0x4206
NUMBERS = {  # on x86-64 and on aarch64, of calls without a name in Python
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "unshare": (272, 97),
    "memfd_create": (319, 279),
    "execve": (59, 221),
    "prlimit64": (302, 261),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
}
LIBC = ctypes.CDLL(None, use_errno=True)
BIG = 8 << 30
NO_RESERVE = 0x4000
NOWHERE = -1


class Intruder:
    """See the module."""

    device_class = "intruder"

    def load(self, program, inputs, limits):
        names, _, needs = program.units[0].cuda.partition("{")
        needs = json.loads("{" + needs)
        raise TaskRejected(" ".join(f"{name}={attempt(name, needs)}" for name in names.split()))


class EarlyThreadIntruder(Intruder):
    """Its attempts run in a thread that was there before the worker was confined."""

    def __init__(self):
        self.wanted, self.done = threading.Event(), threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        self.wanted.wait()
        try:
            super().load(*self.asked)
        except TaskRejected as found:
            self.found = found
        self.done.set()

    def load(self, program, inputs, limits):
        self.asked = program, inputs, limits
        self.wanted.set()
        assert self.done.wait(30)
        raise self.found


def attempt(name, needs):
    """Return "done", or the name of the errno with which it was denied."""
    try:
        ATTEMPTS[name](needs)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except ValueError:  # of setrlimit, which hides the errno
        return "EPERM"
    return "done"


def raw(name, *arguments):
    words = [argument if isinstance(argument, ctypes.Array) else ctypes.c_long(argument) for argument in arguments]
    LIBC.syscall.restype = ctypes.c_long
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name][platform.machine() == "aarch64"]), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def reaches(name, *arguments):
    """Done if the kernel got as far as to look at arguments that are wrong."""
    try:
        raw(name, *arguments)
    except OSError as error:
        if error.errno not in (errno.EFAULT, errno.EINVAL):
            raise


def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags, 0o600))


def makes_socket(family, kind=socket.SOCK_STREAM):
    socket.socket(family, kind).close()


def connects(family, address):
    with socket.socket(family) as attempt:
        attempt.connect(address)


def sends_datagram(needs):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        attempt.sendto(b"hello", ("127.0.0.1", needs["port"]))


def listens(needs):
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        attempt.listen()


def forks(needs):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def allocates(flags):
    mmap.mmap(-1, BIG, flags=flags | mmap.MAP_ANONYMOUS | NO_RESERVE).close()


def reads_memory(needs):
    here = ctypes.create_string_buffer(8)
    local = (ctypes.c_ulong * 2)(ctypes.addressof(here), 8)
    remote = (ctypes.c_ulong * 2)(needs["address"], 8)
    raw("process_vm_readv", needs["parent"], local, 1, remote, 1, 0)


def in_a_thread(needs):
    found = []
    thread = threading.Thread(target=lambda: found.append(attempt("read", needs)))
    thread.start()
    thread.join()
    if found != ["done"]:
        raise OSError(getattr(errno, found[0]), found[0])


def starts_thread(needs):
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def raises_limit(needs):
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def still_dies_with_its_node(needs):
    found = ctypes.c_int()
    LIBC.prctl(2, ctypes.byref(found), 0, 0, 0)  # PR_GET_PDEATHSIG
    assert found.value == signal.SIGKILL


ATTEMPTS = {
    "read": lambda needs: opens("/etc/passwd"),
    "list": lambda needs: os.listdir("/"),
    "write": lambda needs: opens(needs["folder"] + "/made", os.O_WRONLY | os.O_CREAT),
    "tmp": lambda needs: os.mkdir(needs["folder"] + "/folder"),
    "library": lambda needs: opens(os.__file__),
    "reopen": lambda needs: opens("/proc/self/fd/0"),
    "read_in_thread": in_a_thread,
    "inet": lambda needs: makes_socket(socket.AF_INET),
    "inet6": lambda needs: makes_socket(socket.AF_INET6),
    "unix": lambda needs: makes_socket(socket.AF_UNIX),
    "netlink": lambda needs: makes_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "pair": lambda needs: [end.close() for end in socket.socketpair()],
    "connect": lambda needs: connects(socket.AF_INET, ("127.0.0.1", needs["port"])),
    "connect_abstract": lambda needs: connects(socket.AF_UNIX, "\0" + needs["abstract"]),
    "connect_path": lambda needs: connects(socket.AF_UNIX, needs["path"]),
    "listen": listens,
    "udp": sends_datagram,
    "fork": forks,
    "run": lambda needs: subprocess.run(["/bin/true"], check=True),
    "execve": lambda needs: reaches("execve", NOWHERE, 0, 0),
    "ptrace": lambda needs: raw("ptrace", PTRACE_SEIZE, needs["victim"], 0, 0),
    "kill": lambda needs: os.kill(needs["victim"], signal.SIGKILL),
    "signal_parent": lambda needs: os.kill(needs["parent"], 0),
    "pidfd": lambda needs: raw("pidfd_open", needs["parent"], 0),
    "environ": lambda needs: opens(f"/proc/{needs['parent']}/environ"),
    "mem": lambda needs: opens(f"/proc/{needs['parent']}/mem"),
    "vm_read": reads_memory,
    "limits_of_parent": lambda needs: raw("prlimit64", needs["parent"], resource.RLIMIT_NOFILE, 0, 0),
    "io_uring": lambda needs: reaches("io_uring_setup", 1, NOWHERE),
    "unshare": lambda needs: raw("unshare", 0),
    "memfd": lambda needs: os.close(raw("memfd_create", ctypes.create_string_buffer(b"x"), 0)),
    "allocate": lambda needs: allocates(mmap.MAP_PRIVATE),
    "allocate_shared": lambda needs: allocates(mmap.MAP_SHARED),
    "raise_limit": raises_limit,
    "chroot": lambda needs: os.chroot("/"),
    # what a worker needs, and no layer may deny
    "thread": starts_thread,
    "pdeathsig": still_dies_with_its_node,
    "clone3": lambda needs: raw("clone3", NOWHERE, 0),
}
