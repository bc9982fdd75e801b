"""The GPU's driver through CuPy: the only module that imports it, and thin, since it cannot be tried without a GPU.

``CupyDriver`` is ``driver.Driver`` in CuPy's calls; ``CupyDevice`` is what a worker makes: the GPU that its environment
names, a compiler process, and the class that the known answers earn. The order matters: before its worker is confined
it only imports and starts the compiler; the context, which starts threads, is opened when the class is asked for.

**Not run on hardware yet.** What of it can be run without a GPU is tested: the import, the refusal, the compiler.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import cupy
import numpy as np
from cupy.cuda import driver, runtime

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.gpu import nvidia
from depin_node.compute.devices.gpu.budget import Capacity, Footprint
from depin_node.compute.devices.gpu.compiling import Compiler
from depin_node.compute.devices.gpu.cuda import CudaDevice, CudaProgram
from depin_node.compute.devices.gpu.cuda_access import VISIBLE, cuda_access
from depin_node.compute.devices.gpu.driver import DriverError
from depin_node.compute.programs.program import Program
from depin_node.core.errors import ResourceError

COMPILER_START_S: Final = 30.0
_MULTIPROCESSORS, _THREADS_PER_MULTIPROCESSOR = 16, 39
"""``cudaDevAttrMultiProcessorCount``, ``cudaDevAttrMaxThreadsPerMultiProcessor``."""
_PRINTF_BYTES: Final = 64 << 10


class CupyDriver:
    """The first visible GPU; its context lives as long as the process."""

    xp: Any = cupy

    def __init__(self) -> None:
        """Open the context.

        Raises:
            ResourceError: there is no GPU, no driver, or one that is too old.
        """
        try:
            runtime.setDevice(0)
            runtime.free(0)
            self.architecture = int(cupy.cuda.Device(0).compute_capability)
            runtime.deviceSetLimit(runtime.cudaLimitPrintfFifoSize, _PRINTF_BYTES)
            runtime.deviceSetLimit(runtime.cudaLimitMallocHeapSize, 0)
        except runtime.CUDARuntimeError as error:
            raise ResourceError(f"no GPU can be used here: {error}") from error
        self._pool = cupy.cuda.MemoryPool()
        cupy.cuda.set_allocator(self._zeroed)

    def _zeroed(self, size: int) -> Any:
        """Allocate for CuPy's own functions: what they get shows nobody's old bytes."""
        pointer = self._pool.malloc(size)
        if size:
            runtime.memsetAsync(pointer.ptr, 0, size, 0)
        return pointer

    def capacity(self) -> Capacity:
        """See ``Driver``."""
        with _errors():
            free_bytes, _ = runtime.memGetInfo()
            return Capacity(
                free_bytes,
                runtime.deviceGetAttribute(_MULTIPROCESSORS, 0),
                runtime.deviceGetAttribute(_THREADS_PER_MULTIPROCESSOR, 0),
            )

    def load(self, ptx: str, cubin: bytes) -> Any:
        """See ``Driver``."""
        with _errors():
            module = cupy.cuda.function.Module()
            module.load(cubin)
            return module

    def function(self, module: Any, name: str) -> Any:
        """See ``Driver``."""
        with _errors():
            return module.get_function(name)

    def footprint(self, function: Any) -> Footprint:
        """See ``Driver``."""
        with _errors():
            return Footprint(
                driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, function.ptr),
                driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function.ptr),
                driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function.ptr),
            )

    def allocate(self, size: int) -> int:
        """See ``Driver``; past CuPy's pool, so that nothing of it is handed out again."""
        with _errors():
            return int(runtime.malloc(size))

    def free(self, address: int) -> None:
        """See ``Driver``."""
        with _errors():
            runtime.free(address)

    def clear(self, address: int, size: int) -> None:
        """See ``Driver``."""
        with _errors():
            runtime.memsetAsync(address, 0, size, 0)

    def upload(self, address: int, data: memoryview) -> None:
        """See ``Driver``."""
        with _errors():
            runtime.memcpy(address, _host(data), data.nbytes, runtime.memcpyHostToDevice)

    def download(self, address: int, into: memoryview) -> None:
        """See ``Driver``."""
        with _errors():
            runtime.memcpy(_host(into), address, into.nbytes, runtime.memcpyDeviceToHost)

    def launch(
        self, function: Any, blocks: int, block: tuple[int, int, int], shared_mem: int, arguments: Sequence[bytes]
    ) -> None:
        """See ``Driver``. Not by CuPy's own launch, which would guess the types of scalars."""
        values = [ctypes.create_string_buffer(argument, len(argument)) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        with _errors():
            driver.launchKernel(function.ptr, blocks, 1, 1, *block, shared_mem, 0, ctypes.addressof(pointers), 0)

    def wait(self) -> None:
        """See ``Driver``."""
        with _errors():
            runtime.deviceSynchronize()

    def array(self, address: int, dtype: str, shape: tuple[int, ...]) -> Any:
        """See ``Driver``."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = cupy.cuda.UnownedMemory(address, size, self)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
        raise DriverError(error.status, str(error).partition(":")[0]) from error


def _host(data: memoryview) -> int:
    """Return the address of a buffer of the host."""
    return int(np.frombuffer(data, np.uint8).ctypes.data)


class CupyDevice:
    """What a worker for one GPU makes; see the module and ``Device``."""

    def __init__(self) -> None:
        """Find the GPU that the environment names, and start the compiler; open nothing on the GPU yet.

        Raises:
            ResourceError: there is no such GPU, or no NVRTC.
        """
        uuid, found = os.environ.get(VISIBLE, ""), nvidia.find_gpus()
        gpu = next((gpu for gpu in found.gpus if gpu.uuid == uuid), None)
        if gpu is None:
            which, why = uuid or f"named in {VISIBLE}", found.reason or "the driver knows others"
            raise ResourceError(f"there is no GPU {which}: {why}")
        self.access = cuda_access(gpu)
        self._compiler = Compiler()
        self._compiler.wait_ready(COMPILER_START_S)
        self._device: CudaDevice | None = None

    @property
    def device_class(self) -> str:
        """Open the context, run the known answers, and say what they earn."""
        return self._open().device_class

    def load(self, program: Program, inputs: Mapping[int, Input], limits: TaskLimits) -> CudaProgram:
        """See ``Device``."""
        return self._open().load(program, inputs, limits)

    def _open(self) -> CudaDevice:
        if self._device is None:
            self._device = CudaDevice(CupyDriver(), self._compiler.compile)
        return self._device
