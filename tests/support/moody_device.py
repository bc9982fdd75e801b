"""Devices for a worker that misbehaves in ways that no kernel can: by the program's source text, for one task."""

import json
import os
import resource
import signal
import sys
import time

import numpy as np

from depin_node.core.errors import TaskRejected


class MoodyDevice:
    """Results are the worker's pid; the kernel's source ``"what:task"`` says what goes wrong with which task."""

    device_class = "moody"

    def load(self, program, inputs, limits):
        if program.kernel.source == "spy":
            raise TaskRejected(json.dumps(spy()))
        if program.kernel.source == "die at load":
            os._exit(3)
        if program.kernel.source == "hang at load":
            time.sleep(3600)
        return Moody(program.kernel.source)


def spy():
    return {
        "environment": sorted(os.environ),
        "descriptors": sorted(descriptors()),
        "cwd": os.getcwd(),
        "leads its session": os.getsid(0) == os.getpid(),
        "niceness": os.nice(0),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "file": resource.getrlimit(resource.RLIMIT_FSIZE),
        "descriptors_max": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "modules": [name for name in ("trio", "wasmtime", "depin_node.crypto.identity") if name in sys.modules],
    }


def descriptors():
    for fd in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # that of the listing itself
            continue


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
        for fd in range(3, 256):
            try:
                os.write(fd, b"\xff" * 64)
            except OSError:
                continue

    def raise_error(self):
        raise ZeroDivisionError("a fault in the device")

    def spin(self):
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        while True:
            pass
