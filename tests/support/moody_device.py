"""Devices for a worker that misbehaves in ways that no kernel can: by the program's source text, for one task."""

import json
import os
import resource
import signal
import stat
import sys
import time

import numpy as np

from depin_node.core.errors import TaskRejected, TaskTrapped

KINDS = {stat.S_IFCHR: "character", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFREG: "file"}
DESCRIPTORS_MAX = 4096  # a node, or a long run of tests, holds hundreds: a worker keeps the numbers that it is given


class MoodyDevice:
    """Results are the worker's pid; the kernel's source ``"what:task"`` says what goes wrong with which task."""

    device_class = "moody"

    def __init__(self):
        self.start = {"cwd": os.getcwd(), "niceness": os.nice(0)}  # of what no confined worker can ask
        self.start["leads its session"] = os.getsid(0) == os.getpid()
        for name in ("CORE", "FSIZE", "NOFILE"):
            self.start[name] = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))

    def load(self, program, inputs, limits):
        if program.units[0].cuda == "spy":
            raise TaskRejected(json.dumps(self.start | spy()))
        if program.units[0].cuda == "die at load":
            os._exit(3)
        if program.units[0].cuda == "hang at load":
            time.sleep(3600)
        return Moody(program.units[0].cuda)


def spy():
    return {
        "environment": sorted(os.environ),
        "descriptors": sorted(descriptors()),
        "modules": [name for name in ("trio", "wasmtime", "depin_node.crypto.identity") if name in sys.modules],
    }


def descriptors():
    for fd in range(DESCRIPTORS_MAX):
        try:
            found = os.fstat(fd)
        except OSError:
            continue
        kind = stat.S_IFMT(found.st_mode)
        yield f"{KINDS[kind]} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)} {found.st_nlink}"


class FickleDevice(MoodyDevice):
    """Its class is what a file says, as a GPU's is what its known answers say."""

    def __init__(self):
        super().__init__()
        with open(os.environ["FICKLE_CLASS_FILE"]) as file:
            self.device_class = file.read()


class Moody:
    def __init__(self, mood):
        what, _, task = mood.partition(":")
        self.what, self.task = what, int(task or -1)

    def run(self, task, limits, results):
        if task == self.task:
            getattr(self, self.what)()
        for result in results:
            np.frombuffer(result, np.float32)[:] = os.getpid()
        return 1

    def crash(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def exit(self):
        os._exit(7)

    def hang(self):
        time.sleep(3600)

    def hog(self):
        self.kept = np.ones(1 << 30, np.uint8)
        time.sleep(3600)

    def stop(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def complain(self):
        for number in range(100_000):
            print(f"\x1b[31mcomplaint {number}", "x" * 10_000, file=sys.stderr)

    def babble(self):
        """Write nonsense where the node expects frames."""
        for fd in range(3, DESCRIPTORS_MAX):
            try:
                os.write(fd, b"\xff" * 64)
            except OSError:
                continue

    def raise_error(self):
        raise ZeroDivisionError("a fault in the device")

    def lose_context(self):
        self.is_spent = True
        raise TaskTrapped("the kernel failed: it read or wrote outside its memory")

    def spin(self):
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        while True:
            pass
