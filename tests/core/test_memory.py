"""Freed memory is used again, seen by the page faults of a process of its own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from depin_node.core.memory import keep_freed
if {keep}: keep_freed()
def faults():
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        buffers = [bytearray(1 << 20) for _ in range(4)]
        del buffers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin
faults()
print(faults())
"""


def faults(keep: bool) -> int:
    """Return how often a page is not there when 4 MiB are made and freed twenty times."""
    program = PROGRAM.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt: elsewhere nothing is tuned")
def test_what_is_freed_is_used_again() -> None:
    assert faults(keep=True) < 200
    assert faults(keep=False) > 2000  # else there is nothing to keep
