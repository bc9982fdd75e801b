"""What CUDA's error numbers mean for a task and for the context it ran in.

Most errors of a kernel are *sticky*: the context is lost, every later call returns the same number, and only a new
process helps. CUDA Driver API, "CUresult".
"""

from typing import Final, NamedTuple

from depin_node.core.errors import TaskCrashed, TaskError, TaskOutOfMemory, TaskTimedOut, TaskTrapped


class Fault(NamedTuple):
    """The ``error`` that a task ends with; ``lost``: the context is gone; ``doubtful``: so may be the device."""

    error: TaskError
    lost: bool
    doubtful: bool = False


_KERNEL: Final = {
    700: "it read or wrote outside its memory",
    701: "its blocks want more registers or parameters than the device has",
    715: "it stopped itself, or an instruction is not the device's",
    716: "it read or wrote at an address that is not aligned",
    717: "it used an address of a space where it may not be used",
    718: "it jumped outside its code",
    719: "it stopped itself, or failed in a way that the driver does not tell",
    710: "an assertion of it does not hold",
}
_DEVICE: Final = {
    46: "the device is not available",
    100: "there is no device",
    101: "there is no such device",
    214: "the device's memory has an error that it cannot correct",
    219: "the device's link failed",
    220: "the device's link cannot be used",
    226: "the device contained an error and has to be reset",
    709: "the context was destroyed",
    999: "the driver does not say what happened",
}
_NOT_LOST: Final = frozenset({1, 2, 701})
"""Invalid value, out of memory, launch out of resources: refused before anything ran."""


def classify(status: int, name: str) -> Fault:
    """Return what to make of a status that is not success; ``name`` is CUDA's for it."""
    if status == 2:
        return Fault(TaskOutOfMemory("the device has no memory left for the task"), lost=False)
    if status == 702:
        return Fault(
            TaskTimedOut("the driver ended the kernel: it ran too long for a device with a display"), lost=True
        )
    if status in _KERNEL:
        return Fault(TaskTrapped(f"the kernel failed: {_KERNEL[status]} ({name})"), lost=status not in _NOT_LOST)
    if status in _DEVICE:
        return Fault(TaskCrashed(f"{_DEVICE[status]} ({name})"), lost=True, doubtful=True)
    return Fault(TaskCrashed(f"the driver reports {name}"), lost=status not in _NOT_LOST)
