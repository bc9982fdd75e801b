"""The filter, run by an interpreter of its few instructions: what it answers for each system call, on both machines."""

import errno
import re
from pathlib import Path

import pytest
from bpf import ARCH, CLONE_NEWUSER, MACHINES, PTHREAD, SIGCHLD, run_filter

from depin_node.compute.sandbox import landlock, seccomp
from depin_node.compute.sandbox.seccomp import ALLOW, ALWAYS, DENY, IF, KILL, UNKNOWN, program

PID = 4711
I386, ARM = 0x40000003, 0x40000028
X32 = 0x40000000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
CLONE_VM, CLONE_VFORK, CLONE_THREAD, CLONE_NEWTIME = 0x100, 0x4000, 0x10000, 0x80
AT_FDCWD = -100 & 0xFFFFFFFFFFFFFFFF
MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN = 1, 2, 3, 0x10, 0x20, 0x100
DANGEROUS = """
    socket connect bind listen accept accept4 sendto sendmsg socketpair open openat openat2 creat execve
    execveat fork vfork ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal mount
    umount2 pivot_root chroot unshare setns keyctl add_key request_key bpf io_uring_setup io_uring_enter
    io_uring_register perf_event_open userfaultfd memfd_create memfd_secret init_module finit_module kexec_load
    kexec_file_load reboot swapon setuid setgid setresuid capset personality ioctl tkill rt_sigqueueinfo
    rt_tgsigqueueinfo shmget shmat msgget semget mq_open inotify_init1 fanotify_init name_to_handle_at
    open_by_handle_at quotactl sched_setaffinity sched_setscheduler setpriority seccomp process_madvise
    process_mrelease move_pages landlock_restrict_self truncate ftruncate unlink unlinkat mkdirat renameat2
    linkat symlinkat mknodat fchmodat fchownat utimensat chdir fchdir getdents64 readlinkat statx faccessat2
    stat sethostname settimeofday clock_settime adjtimex acct syslog modify_ldt iopl ioperm setrlimit pipe2 dup3
    eventfd2 timer_create
"""


def answer(machine, number, *arguments, arch=None):
    """Return what the filter says to a system call."""
    return run_filter(program(machine, PID), ARCH[machine] if arch is None else arch, number, arguments)


def number(machine, name):
    table = ALWAYS[name] if name in ALWAYS else IF[name][0]
    return table[MACHINES.index(machine)]


def header(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text()))
    return {name: int(value) for name, value in found.items()}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(machine):
    numbers = header(machine)
    for name in (*ALWAYS, *IF):
        assert number(machine, name) == numbers.get(name, numbers.get("fstatat") if name == "newfstatat" else None)
    assert seccomp._SECCOMP[machine] == numbers["seccomp"]
    assert numbers.get("clone3", 435) == seccomp._CLONE3
    assert numbers.get("landlock_create_ruleset", 444) == landlock._CREATE_RULESET
    assert numbers.get("landlock_restrict_self", 446) == landlock._RESTRICT_SELF


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_dangerous_is_denied_whatever_its_arguments(machine):
    numbers = header(machine)
    found = [numbers[name] for name in DANGEROUS.split() if name in numbers]
    assert len(found) > 90
    for call in found:
        for argument in (0, 1, PID, PTHREAD, 2**64 - 1):
            assert answer(machine, call, *[argument] * 6) == DENY, call


@pytest.mark.parametrize("machine", MACHINES)
def test_of_all_numbers_only_those_of_the_list_pass(machine):
    always = {number(machine, name) for name in ALWAYS}
    sometimes = {number(machine, name) for name in IF}
    assert len(always) == len(ALWAYS)
    for call in range(2000):
        said = answer(machine, call)
        if call in always:
            assert said == ALLOW
        elif call == 435 or call >= 471:
            assert said == UNKNOWN
        elif call not in sometimes:
            assert said == DENY
        assert answer(machine, call | X32) == UNKNOWN
        for foreign in {I386, ARM, *ARCH.values()} - {ARCH[machine]}:
            assert answer(machine, call, arch=foreign) == KILL
    assert (DENY & 0xFFFF, UNKNOWN & 0xFFFF) == (errno.EPERM, errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "passes"), [
    ("clone", (PTHREAD,), True),
    ("clone", (SIGCHLD,), False),
    ("clone", (CLONE_VM | CLONE_VFORK | SIGCHLD,), False),
    ("clone", (PTHREAD | CLONE_NEWUSER,), False),
    ("clone", (PTHREAD | CLONE_NEWTIME,), False),
    ("clone", (CLONE_THREAD << 32,), False),
    ("kill", (PID, 9), True),
    ("kill", (PID + 1, 9), False),
    ("kill", (0, 9), False),
    ("kill", (2**64 - 1, 9), False),
    ("kill", (2**64 - PID, 9), False),
    ("tgkill", (PID, 5, 6), True),
    ("tgkill", (5, PID, 6), False),
    ("prlimit64", (0, 0, 1, 0), True),
    ("prlimit64", (0, 2, 1, 0), True),
    ("prlimit64", (PID, 0, 1, 0), False),
    ("prlimit64", (0, 7, 1, 0), False),
    ("newfstatat", (3, 0, 0, 0x1000), True),
    ("newfstatat", (AT_FDCWD, 0, 0, 0), False),
    ("newfstatat", (AT_FDCWD, 0, 0, 0x1100), False),
    ("ioctl", (3, 0xC0606610, 0), True),
    ("ioctl", (3, 0x5401, 0), False),
    ("fcntl", (3, 1030), True),
    ("fcntl", (3, 8, PID), False),
    ("fcntl", (3, 1024), False),
    ("fcntl", (3, 4), False),
    ("mmap", (0, 1, 3, MAP_PRIVATE | MAP_ANONYMOUS), True),
    ("mmap", (0, 1, 7, MAP_PRIVATE | MAP_ANONYMOUS), True),
    ("mmap", (0, 1, 3, MAP_SHARED, 4), True),
    ("mmap", (0, 1, 3, MAP_PRIVATE | MAP_FIXED, 4), True),
    ("mmap", (0, 1, 3, MAP_SHARED | MAP_ANONYMOUS), False),
    ("mmap", (0, 1, 3, MAP_SHARED_VALIDATE | MAP_ANONYMOUS), False),
    ("mmap", (0, 1, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN), False),
    ("prctl", (15,), True),
    ("prctl", (1,), False),
    ("prctl", (23,), False),
])  # fmt: skip
def test_arguments_decide_where_it_matters(machine, name, arguments, passes):
    assert answer(machine, number(machine, name), *arguments) == (ALLOW if passes else DENY)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_one_that_the_kernel_takes(machine):
    code = program(machine, PID)
    assert len(code) <= 4096  # BPF_MAXINSNS
    assert code[-1].code == 0x06
    for at, step in enumerate(code):
        assert 0 <= step.jump_true <= 255
        assert 0 <= step.jump_false <= 255
        assert at + 1 + max(step.jump_true, step.jump_false) < len(code) or step.code == 0x06


@pytest.mark.parametrize(("abi", "words"), [
    (1, [0x1FFF]),
    (2, [0x3FFF]),
    (3, [0x7FFF]),
    (4, [0x7FFF, 3]),
    (5, [0xFFFF, 3]),
    (6, [0xFFFF, 3, 3]),
    (7, [0xFFFF, 3, 3]),
    (99, [0xFFFF, 3, 3]),
])  # fmt: skip
def test_a_ruleset_asks_for_what_its_abi_knows(abi, words):
    assert landlock.ruleset(abi) == b"".join(word.to_bytes(8, "little") for word in words)
