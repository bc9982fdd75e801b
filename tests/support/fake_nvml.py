"""An NVML library in Python, called by nvidia-ml-py through ctypes as it calls the real one.

There is no GPU where these tests run. What is written here follows NVML's own documentation (NVML API Reference Guide):
signatures, structures and error codes; the machines are invented. So nvidia-ml-py's wrapping and our reading are run
for real, and only the driver's answers are made up.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field

NOT_SUPPORTED, NOT_FOUND, INSUFFICIENT_SIZE, GPU_IS_LOST, DRIVER_NOT_LOADED = 3, 6, 7, 15, 9
GIB = 1 << 30


class Memory(ctypes.Structure):
    """``nvmlMemory_t``."""

    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class ProcessInfo(ctypes.Structure):
    """``nvmlProcessInfo_t``, version 3 of its call."""

    _fields_ = (("pid", c_uint), ("used", c_ulonglong), ("gpu_instance", c_uint), ("compute_instance", c_uint))


@dataclass
class Card:
    """What the driver would say of one GPU or MIG instance; None: not supported."""

    uuid: str
    name: str = "NVIDIA GeForce RTX 3060"
    memory: int = 12 * GIB
    capability: tuple = (8, 6)
    power_mw: int | None = 170_000
    minor: int | None = 0
    mig: tuple | None = None
    slots: dict = field(default_factory=dict)
    ids: tuple = (0, 0)
    reasons: int = 0
    ecc: int | None = None
    energy_mj: int | None = 5_000
    pids: list = field(default_factory=list)
    lost: bool = False


class Library:
    """``libnvidia-ml.so.1`` as far as we use it."""

    def __init__(self, *cards, init=0):
        self.cards, self.init = list(cards), init
        everything = [*cards, *(slot for card in cards for slot in card.slots.values())]
        self._handles = dict(enumerate(everything, 1))
        self._calls = []  # ctypes does not keep them alive
        number = POINTER(c_uint)
        for name, types, call in (
            ("nvmlInitWithFlags", [c_uint], lambda flags: self.init),
            ("nvmlShutdown", [], lambda: 0),
            ("nvmlDeviceGetCount_v2", [number], lambda out: self._put(out, len(self.cards))),
            ("nvmlSystemGetDriverVersion", [c_void_p, c_uint], lambda out, size: self._text(out, size, "550.54.14")),
            ("nvmlSystemGetCudaDriverVersion_v2", [POINTER(c_int)], lambda out: self._put(out, 12040)),
            ("nvmlDeviceGetHandleByIndex_v2", [c_uint, POINTER(c_void_p)], self._by_index),
            ("nvmlDeviceGetHandleByUUID", [c_char_p, POINTER(c_void_p)], self._by_uuid),
            ("nvmlDeviceGetName", [c_void_p, c_void_p, c_uint], self._string("name")),
            ("nvmlDeviceGetUUID", [c_void_p, c_void_p, c_uint], self._string("uuid")),
            ("nvmlDeviceGetMemoryInfo", [c_void_p, POINTER(Memory)], self._memory),
            ("nvmlDeviceGetCudaComputeCapability", [c_void_p, *[POINTER(c_int)] * 2], self._pair("capability")),
            ("nvmlDeviceGetMinorNumber", [c_void_p, number], self._number("minor")),
            ("nvmlDeviceGetEnforcedPowerLimit", [c_void_p, number], self._number("power_mw")),
            ("nvmlDeviceGetMigMode", [c_void_p, number, number], self._pair("mig")),
            ("nvmlDeviceGetMaxMigDeviceCount", [c_void_p, number], lambda handle, out: self._put(out, 7)),
            ("nvmlDeviceGetMigDeviceHandleByIndex", [c_void_p, c_uint, POINTER(c_void_p)], self._instance),
            ("nvmlDeviceGetGpuInstanceId", [c_void_p, number], lambda h, out: self._put(out, self._handles[h].ids[0])),
            (
                "nvmlDeviceGetComputeInstanceId",
                [c_void_p, number],
                lambda h, out: self._put(out, self._handles[h].ids[1]),
            ),
            ("nvmlDeviceGetTotalEnergyConsumption", [c_void_p, POINTER(c_ulonglong)], self._number("energy_mj")),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", [c_void_p, POINTER(c_ulonglong)], self._number("reasons")),
            ("nvmlDeviceGetTotalEccErrors", [c_void_p, c_uint, c_uint, POINTER(c_ulonglong)], self._ecc),
            (
                "nvmlDeviceGetComputeRunningProcesses_v3",
                [c_void_p, number, POINTER(ProcessInfo)],
                self._processes,
            ),
        ):  # fmt: skip
            setattr(self, name, self._wrap(types, call))

    def _wrap(self, types, call):
        """Return a function pointer of the C interface, so that arguments really pass through ctypes."""
        pointer = ctypes.CFUNCTYPE(c_int, *types)(call)
        self._calls.append(pointer)
        return ctypes.cast(pointer, ctypes.CFUNCTYPE(c_int, *[_untyped(kind) for kind in types]))

    @staticmethod
    def _put(out, value):
        out[0] = value
        return 0

    @staticmethod
    def _text(out, size, text):
        data = text.encode() + b"\0"
        assert len(data) <= size
        ctypes.memmove(out, data, len(data))
        return 0

    def _card(self, handle):
        return self._handles[handle]

    def _string(self, name):
        return lambda handle, out, size: self._text(out, size, getattr(self._card(handle), name))

    def _number(self, name):
        def call(handle, out):
            value = getattr(self._card(handle), name)
            return NOT_SUPPORTED if value is None else self._put(out, value)

        return call

    def _pair(self, name):
        def call(handle, first, second):
            pair = getattr(self._card(handle), name)
            return NOT_SUPPORTED if pair is None else self._put(first, pair[0]) or self._put(second, pair[1])

        return call

    def _by_index(self, index, out):
        return GPU_IS_LOST if self.cards[index].lost else self._put(out, index + 1)

    def _by_uuid(self, uuid, out):
        for handle, card in self._handles.items():
            if card.uuid.encode() == uuid:
                return GPU_IS_LOST if card.lost else self._put(out, handle)
        return NOT_FOUND

    def _instance(self, handle, index, out):
        found = self._card(handle).slots.get(index)
        if found is None:
            return NOT_FOUND
        return self._put(out, next(number for number, card in self._handles.items() if card is found))

    def _memory(self, handle, out):
        out[0] = Memory(self._card(handle).memory, 0, self._card(handle).memory)
        return 0

    def _ecc(self, handle, kind, counter, out):
        assert (kind, counter) == (1, 0)  # uncorrected, since the driver started
        count = self._card(handle).ecc
        return NOT_SUPPORTED if count is None else self._put(out, count)

    def _processes(self, handle, count, out):
        pids, room = self._card(handle).pids, count[0]
        count[0] = len(pids)
        if room < len(pids):
            return INSUFFICIENT_SIZE
        for index, pid in enumerate(pids):
            out[index] = ProcessInfo(pid, GIB, 0xFFFFFFFF, 0xFFFFFFFF)
        return 0


def _untyped(kind):
    """Pointers arrive from nvidia-ml-py as pointers to its own structures."""
    return kind if kind in (c_uint, c_int, c_char_p) else c_void_p
