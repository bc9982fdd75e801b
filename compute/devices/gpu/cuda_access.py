"""What a worker that drives one GPU finds: its environment, and the files that CUDA's driver library opens.

From public sources, for there is no specification: the device nodes are those that NVIDIA's Container Device Interface
file names and that gVisor's ``nvproxy`` proxies; the files of ``/proc`` and ``/sys`` those of the AppArmor rules that
Ubuntu and snapd ship for OpenCL and CUDA programs; MIG's capability files are in NVIDIA's "MIG User Guide", "Device
Nodes and Capabilities". **It was not yet seen to suffice on hardware**: ``make test-gpu`` tells.

Not on it, on purpose: other GPUs' nodes, ``/dev/nvidia-modeset`` (displays), ``/tmp`` and ``/dev/shm`` (MPS and IPC
between processes), the home directory (the kernel cache, which is off), and every socket.
"""

import re
import site
import sys
import sysconfig
from pathlib import Path
from typing import Final

from depin_node.compute.devices.device import Access
from depin_node.compute.devices.gpu.nvidia import Gpu

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ENVIRONMENT: Final = (
    ("CUPY_CACHE_IN_MEMORY", "1"),  # CuPy's own kernels: no cache on disk that a task could poison
    ("CUDA_CACHE_DISABLE", "1"),  # nor the driver's
    ("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent"),  # one client's fault would end all
    ("CUDA_MODULE_LOADING", "EAGER"),  # what a kernel takes is known when it is loaded
)
"""What a worker's environment must say, beside the UUID in ``VISIBLE``."""
_CONTROL: Final = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
_SYSTEM: Final = (
    "/proc/driver/nvidia",
    "/proc/self",
    "/proc/devices",
    "/proc/modules",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/sys/vm",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/devices/system/memory",
    "/sys/bus/pci/devices",
    "/sys/module/nvidia",
    "/sys/module/nvidia_uvm",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/cuda",
    "/usr/share/nvidia",
    "/dev/urandom",
)
_CAPABILITIES: Final = "/proc/driver/nvidia/capabilities"
_MINOR: Final = re.compile(r"DeviceFileMinor: (\d+)")


def cuda_access(gpu: Gpu, root: str = "/") -> Access:
    """Return what a worker for ``gpu`` may open. ``root`` is where the file system begins, for tests."""
    devices = [*_CONTROL, *_capability_files(gpu, Path(root))]
    if gpu.minor is not None:
        devices.append(f"/dev/nvidia{gpu.minor}")
    pci = sorted(str(path) for path in Path(root, "sys/devices").glob("pci*"))
    return Access((*_SYSTEM, *pci, *_python()), tuple(devices))


def _python() -> tuple[str, ...]:
    """Return where the interpreter's own modules and libraries lie: CuPy imports parts of itself late."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), f"{sys.base_prefix}/lib"}
    return tuple(sorted(folder for folder in folders if folder))


def _capability_files(gpu: Gpu, root: Path) -> list[str]:
    """Return the nodes that stand for a MIG instance's rights: of its GPU instance and of its compute instance."""
    if gpu.instances is None or gpu.minor is None:
        return []
    gpu_instance, compute_instance = gpu.instances
    folder = root / _CAPABILITIES.lstrip("/") / f"gpu{gpu.minor}" / "mig" / f"gi{gpu_instance}"
    files = []
    for path in (folder / "access", folder / f"ci{compute_instance}" / "access"):
        try:
            found = _MINOR.search(path.read_text())
        except OSError:
            continue
        if found:
            files.append(f"/dev/nvidia-caps/nvidia-cap{found.group(1)}")
    return files
