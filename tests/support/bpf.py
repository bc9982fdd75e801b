"""The filter of ``sandbox.seccomp``, run by an interpreter of its few instructions, for both machines."""

from depin_node.compute.sandbox.seccomp import Instruction

MACHINES = ("x86_64", "aarch64")
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SIGCHLD = 17
CLONE_NEWUSER = 0x10000000
PTHREAD = 0x3D0F00  # glibc's sysdeps/unix/sysv/linux/createthread.c


def run_filter(code, arch, number, arguments=()):
    """Return what a filter says to a system call of an architecture."""
    data = {0: number, 4: arch}
    for position in range(6):
        argument = arguments[position] if position < len(arguments) else 0
        data[16 + 8 * position], data[20 + 8 * position] = argument & 0xFFFFFFFF, argument >> 32
    at, word = 0, 0
    while True:
        step: Instruction = code[at]
        at += 1
        match step.code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                word = data[step.k]
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                word &= step.k
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += step.jump_true if word == step.k else step.jump_false
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                at += step.jump_true if word >= step.k else step.jump_false
            case 0x06:  # BPF_RET | BPF_K
                return step.k
            case other:
                raise AssertionError(f"an instruction {other:#x}")
