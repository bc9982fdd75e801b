"""What NVIDIA's driver says of the GPUs of this machine: who they are, how they are, and who holds a context.

Everything comes from NVML through nvidia-ml-py; nothing here opens a CUDA context, so a node can ask at any time. A GPU
in MIG mode is not listed itself: its instances are, each with a UUID and memory of its own. What a driver does not
report (power on many laptops, ECC on most cards) is None, never zero.

NVML API Reference Guide, "Device Queries", "Multi Instance GPU Management", "NvmlClocksEventReasons".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

_HOT: Final = 0x20 | 0x40
"""``nvmlClocksEventReasonSwThermalSlowdown`` and ``...HwThermalSlowdown``: the device slows down because it is hot."""
_GPUS_MAX: Final = 64
_MIG_MAX: Final = 16


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of one.

    Attributes:
        uuid: ``GPU-…`` or ``MIG-…``, what ``CUDA_VISIBLE_DEVICES`` takes.
        name: the product.
        memory_bytes: all of it, used or not.
        capability: compute capability, (8, 6) is sm_86.
        driver: the driver's version.
        cuda: the newest CUDA that the driver runs, (12, 4).
        minor: its device file is ``/dev/nvidia<minor>``; None where the driver does not say.
        power_limit_w: the power that it is held to, in watts.
        parent: of a MIG instance, the UUID of its GPU; else empty.
        instances: of a MIG instance, its GPU instance and compute instance ids, which name its capability files.
    """

    uuid: str
    name: str
    memory_bytes: int
    capability: tuple[int, int]
    driver: str
    cuda: tuple[int, int]
    minor: int | None
    power_limit_w: int | None
    parent: str = ""
    instances: tuple[int, int] | None = None

    @property
    def architecture(self) -> str:
        """As compilers call it: ``sm_86``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Found:
    """The GPUs, and where there is none, why."""

    gpus: tuple[Gpu, ...]
    reason: str = ""


@dataclass(frozen=True)
class Health:
    """How a GPU is. ``broken`` says why it needs its operator, or is empty."""

    broken: str
    hot: bool


def find_gpus() -> Found:
    """Return the GPUs that the driver knows, in its order. Never raises: a machine without one is usual."""
    try:
        with _nvml() as nvml:
            return _found(nvml)
    except _Unavailable as error:
        return Found((), str(error))


def health(gpu: Gpu) -> Health:
    """Ask how a GPU is, at the cost of a few calls into the driver."""
    try:
        with _nvml() as nvml:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID((gpu.parent or gpu.uuid).encode())
                reasons = _or_none(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
                kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                errors = _or_none(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, *kinds) or 0
            except nvml.NVMLError as error:
                return Health(f"the driver has lost it: {error}", False)
    except _Unavailable as error:
        return Health(str(error), False)
    return Health(
        f"{errors} uncorrectable memory errors since the driver started" if errors else "", bool(reasons & _HOT)
    )


def total_energy_mj(gpu: Gpu) -> int | None:
    """Return the mJ that a GPU has drawn since its driver started; None where it does not say, as of MIG instances."""
    try:
        with _nvml() as nvml:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid.encode())
                energy_mj: int | None = _or_none(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
            except nvml.NVMLError:
                return None
    except _Unavailable:
        return None
    return energy_mj


def context_holders(gpu: Gpu) -> frozenset[int] | None:
    """Return the ids of the processes that have a context on the GPU; None: the driver does not answer.

    In a container with process ids of its own these are ids outside of it: compare with what was there before.
    """
    try:
        with _nvml() as nvml:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid.encode())
                return frozenset(process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle))
            except nvml.NVMLError:
                return None
    except _Unavailable:
        return None


class _Unavailable(Exception):
    """Why NVML cannot be asked."""


@contextmanager
def _nvml() -> Iterator[ModuleType]:
    try:
        import pynvml
    except ImportError:
        raise _Unavailable("nvidia-ml-py is not installed: install depin-node[cuda12] or depin-node[cuda13]") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise _Unavailable(f"no NVIDIA driver: {error}") from None
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _or_none(nvml: ModuleType, ask: Any, *arguments: Any) -> Any:
    """Return the answer, or None where the device or its driver does not have one."""
    missing = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION)
    try:
        return ask(*arguments)
    except nvml.NVMLError as error:
        if error.value in missing:
            return None
        raise


def _found(nvml: ModuleType) -> Found:
    try:
        count = nvml.nvmlDeviceGetCount()
        driver = nvml.nvmlSystemGetDriverVersion()
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    except nvml.NVMLError as error:
        return Found((), f"the NVIDIA driver does not answer: {error}")
    gpus, reasons = list[Gpu](), list[str]()
    for index in range(min(count, _GPUS_MAX)):
        try:  # one that fell off the bus does not hide the others
            gpus += _with_instances(
                nvml, nvml.nvmlDeviceGetHandleByIndex(index), driver, (cuda // 1000, cuda % 1000 // 10)
            )
        except nvml.NVMLError as error:
            reasons.append(f"GPU {index}: {error}")
    return Found(tuple(gpus), "; ".join(reasons) if reasons else "" if gpus else "the NVIDIA driver knows no GPU")


def _with_instances(nvml: ModuleType, handle: Any, driver: str, cuda: tuple[int, int]) -> list[Gpu]:
    power_mw = _or_none(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    whole = Gpu(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
        capability=nvml.nvmlDeviceGetCudaComputeCapability(handle),
        driver=driver,
        cuda=cuda,
        minor=_or_none(nvml, nvml.nvmlDeviceGetMinorNumber, handle),
        power_limit_w=None if power_mw is None else round(power_mw / 1000),
    )
    mode = _or_none(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return [whole]
    instances = []
    for index in range(min(nvml.nvmlDeviceGetMaxMigDeviceCount(handle), _MIG_MAX)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                continue  # numbers are not dense
            raise
        instances.append(
            Gpu(
                uuid=nvml.nvmlDeviceGetUUID(instance),
                name=nvml.nvmlDeviceGetName(instance),
                memory_bytes=nvml.nvmlDeviceGetMemoryInfo(instance).total,
                capability=whole.capability,
                driver=driver,
                cuda=cuda,
                minor=whole.minor,
                power_limit_w=None,  # it is the whole GPU's
                parent=whole.uuid,
                instances=(nvml.nvmlDeviceGetGpuInstanceId(instance), nvml.nvmlDeviceGetComputeInstanceId(instance)),
            )
        )
    return instances
