"""Seccomp: the system calls that a worker may still make, by a list; every other one fails with EPERM.

The kernel runs a small program (classic BPF) before each system call. Ours knows the calls by number: those of
``ALWAYS`` pass, those of ``IF`` pass with arguments that are named there, and nothing else does. So there is no
socket, no ``open`` by path, no ``fork``, ``execve``, ``ptrace``, ``mount``, ``bpf``, ``io_uring``, and no signal to
another process, while the interpreter, NumPy and wasmtime's compiler and signal handlers go on: they need memory,
threads, clocks, and the descriptors that they hold.

Three answers besides: numbers newer than this list fail with ENOSYS, as on a kernel that is older than them, so that a
new C library falls back; so does ``clone3``, whose flags lie in memory where no filter sees them, and for which the C
library then takes ``clone``; system calls of another architecture (32 bits) end the process.

The driver of a GPU is a library of which nobody outside knows every call, and which changes with each release. So a
worker that drives one has a list of what is *denied* (``NEVER``) instead: sockets, processes, other processes' memory
and signals, mounts, modules, keys, and what the kernel has been attacked by most. Files are landlock's part there, and
what the driver's ``ioctl`` allows is nobody's: that is the trust which lending a GPU asks for.

What passes and tells something: ``newfstatat`` with AT_EMPTY_PATH, by which glibc 2.33 to 2.38 does ``fstat``; the
filter cannot read its path, so a worker can learn whether a file is there, and its size and times.

Linux's Documentation/userspace-api/seccomp_filter.rst. Constants from include/uapi/linux/{seccomp,filter,bpf_common,
audit,sched,fcntl,fs,prctl,mman}.h; numbers from arch/x86/entry/syscalls/syscall_64.tbl and, for aarch64,
include/uapi/asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Mapping
from itertools import chain
from typing import Final, NamedTuple

from depin_node.compute.sandbox.linux import Machine, machine, system_call

ALWAYS: Final[Mapping[str, tuple[int, int]]] = {
    # memory
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "membarrier": (324, 283),
    # descriptors that are open already
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "close": (3, 57),
    "recvmsg": (47, 212),
    # threads
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # signals to oneself
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # time
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    # what one is, and chance
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrusage": (98, 165),
    "uname": (63, 160),
    "getrandom": (318, 278),
}
"""By name, the numbers on x86-64 and on aarch64."""

OWN_PID: Final = -1
"""Stands for the worker's process id."""


class Check(NamedTuple):
    """``argument`` (from 0), its lower 32 bits ``& mask``, equals ``value``: all the kernel looks at in an ``int``."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF


_NAMESPACES: Final = 0x7E020000 | 0x80
"""``CLONE_NEW...`` of sched.h: mount, cgroup, UTS, IPC, user, PID, network, and time."""
_THREAD: Final = 0x00010000
_AT_EMPTY_PATH: Final = 0x1000
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20
_MAP_KIND: Final = _MAP_SHARED | _MAP_ANONYMOUS | 0x100
"""With ``MAP_GROWSDOWN``."""
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_RLIMIT_CPU, _RLIMIT_DATA = 0, 2
_PAGEMAP_SCAN: Final = 0xC0606610
_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 1, 2, 3, 1030

IF: Final[Mapping[str, tuple[tuple[int, int], tuple[tuple[Check, ...], ...]]]] = {
    # RLIMIT_DATA does not count memory that is shared and has no file, nor what grows down.
    "mmap": ((9, 222), tuple((Check(3, kind, _MAP_KIND),) for kind in (_MAP_ANONYMOUS, _MAP_SHARED, 0))),
    "clone": ((56, 220), ((Check(0, _THREAD, _THREAD | _NAMESPACES),),)),
    "fcntl": ((72, 25), tuple((Check(1, command),) for command in (_F_DUPFD_CLOEXEC, _F_GETFD, _F_SETFD, _F_GETFL))),
    "ioctl": ((16, 29), ((Check(1, _PAGEMAP_SCAN),),)),
    "newfstatat": ((262, 79), ((Check(3, _AT_EMPTY_PATH),),)),
    "prlimit64": ((302, 261), tuple((Check(0, 0), Check(1, kind)) for kind in (_RLIMIT_CPU, _RLIMIT_DATA))),
    "tgkill": ((234, 131), ((Check(0, OWN_PID),),)),
    "kill": ((62, 129), ((Check(0, OWN_PID),),)),
    "prctl": ((157, 167), tuple((Check(0, option),) for option in (_PR_SET_NAME, _PR_GET_NAME))),
}
"""By name, the numbers, and what must hold: all checks of one of the alternatives."""

NEVER: Final[Mapping[str, tuple[int, int]]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "personality": (135, 92),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "capset": (126, 91),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
"""What a worker that drives a GPU may not do either; numbers as above."""
_NEVER_X86: Final = (57, 58, 172, 173, 154)
"""``fork``, ``vfork``, ``iopl``, ``ioperm``, ``modify_ldt``, which only x86-64 has."""
_IF_GPU: Final = ("clone", "tgkill", "kill")
"""Those of ``IF`` that hold for a worker that drives a GPU too."""

_CLONE3: Final = 435
_FIRST_UNKNOWN: Final = 471
"""The numbers below have been looked through, as of Linux 6.19; from ``clone3`` on they are the same everywhere."""

_SECCOMP: Final[Mapping[Machine, int]] = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH: Final[Mapping[Machine, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
DENY: Final = 0x00050000 | errno.EPERM
UNKNOWN: Final = 0x00050000 | errno.ENOSYS
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in ``struct seccomp_data``; an argument has 8 bytes, the lower half first."""


class Instruction(NamedTuple):
    """``struct sock_filter``: what to do with ``k``, and how far to jump if a comparison holds and if not."""

    code: int
    k: int
    jump_true: int = 0
    jump_false: int = 0


def program(machine: Machine, pid: int) -> list[Instruction]:
    """Return the filter for a worker with this process id."""
    column = 0 if machine == "x86_64" else 1
    code = [
        Instruction(LOAD, _ARCH),
        Instruction(EQUAL, _AUDIT_ARCH[machine], 1, 0),
        Instruction(RETURN, KILL),
        Instruction(LOAD, _NUMBER),
        *_when(AT_LEAST, _FIRST_UNKNOWN, [Instruction(RETURN, UNKNOWN)]),
    ]
    for numbers, alternatives in IF.values():
        body = list(chain.from_iterable(_allowed_if(checks, pid) for checks in alternatives))
        code += _when(EQUAL, numbers[column], [*body, Instruction(RETURN, DENY)])
    for numbers in ALWAYS.values():
        code += _when(EQUAL, numbers[column], [Instruction(RETURN, ALLOW)])
    return [*code, *_when(EQUAL, _CLONE3, [Instruction(RETURN, UNKNOWN)]), Instruction(RETURN, DENY)]


def gpu_program(machine: Machine, pid: int) -> list[Instruction]:
    """Return the filter for a worker with this process id that drives a GPU."""
    column = 0 if machine == "x86_64" else 1
    denied = [numbers[column] for numbers in NEVER.values()] + list(_NEVER_X86 if machine == "x86_64" else ())
    code = [
        Instruction(LOAD, _ARCH),
        Instruction(EQUAL, _AUDIT_ARCH[machine], 1, 0),
        Instruction(RETURN, KILL),
        Instruction(LOAD, _NUMBER),
        *_when(AT_LEAST, _FIRST_UNKNOWN, [Instruction(RETURN, UNKNOWN)]),
        *_when(EQUAL, _CLONE3, [Instruction(RETURN, UNKNOWN)]),
    ]
    for name in _IF_GPU:
        numbers, alternatives = IF[name]
        body = list(chain.from_iterable(_allowed_if(checks, pid) for checks in alternatives))
        code += _when(EQUAL, numbers[column], [*body, Instruction(RETURN, DENY)])
    for number in denied:
        code += _when(EQUAL, number, [Instruction(RETURN, DENY)])
    return [*code, Instruction(RETURN, ALLOW)]


def _when(test: int, k: int, body: list[Instruction]) -> list[Instruction]:
    return [Instruction(test, k, 0, len(body)), *body]


def _allowed_if(checks: tuple[Check, ...], pid: int) -> list[Instruction]:
    code: list[Instruction] = [Instruction(RETURN, ALLOW)]
    for check in reversed(checks):
        value = pid if check.value == OWN_PID else check.value
        code = [
            Instruction(LOAD, _ARGUMENTS + 8 * check.argument),
            Instruction(AND, check.mask),
            *_when(EQUAL, value, code),
        ]
    return code


def forbid_system_calls(*, drives_gpu: bool = False) -> str:
    """Bind every thread of this process to the list, for ever; ``no_new_privileges`` comes before.

    Args:
        drives_gpu: take the list of what is denied, not that of what is allowed.

    Returns:
        What was done.

    Raises:
        OSError: the kernel does not have it, or not for this machine.
    """
    here = machine()
    code = (gpu_program if drives_gpu else program)(here, os.getpid())
    packed = b"".join(struct.pack("=HBBI", step.code, step.jump_true, step.jump_false, step.k) for step in code)
    filters = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("@HP", len(code), ctypes.addressof(filters))  # struct sock_fprog
    refused_by = system_call(
        _SECCOMP[here], _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.create_string_buffer(header, len(header))
    )
    if refused_by:
        raise OSError(f"thread {refused_by} has a filter of its own")
    if drives_gpu:
        return f"{len(NEVER)} system calls denied: no network, no processes"
    return f"{len(ALWAYS) + len(IF)} system calls left: no network, no files, no processes"
