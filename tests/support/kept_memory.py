"""Inputs as a worker is given them: copied, or of a file that can be mapped."""

import mmap
import os

import numpy as np

from depin_node.compute.devices.device import Input
from depin_node.compute.sandbox.arena import memory_file


def given(array, *, mapped):
    """Return an array as an input; the file of one that is mapped stays open."""
    data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    if not mapped:
        return Input(data.data)
    fd = memory_file("test", data.nbytes)
    os.pwrite(fd, data.tobytes(), 0)
    return Input(memoryview(mmap.mmap(fd, data.nbytes, prot=mmap.PROT_READ)), fd)
