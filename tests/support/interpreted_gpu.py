"""A device for workers that is a GPU in all but its driver, which interprets PTX (``ptx_driver``): it compiles the
strict text with NVRTC in a confined process of its own. That the interpreter earns ``strict-1`` is shown by
``tests/devices/test_known_answers.py``; here it is said, since the interpreter takes a minute for it."""

from pathlib import Path

from ptx_driver import PtxDriver

from depin_node.compute.devices.device import Access
from depin_node.compute.devices.gpu import cuda
from depin_node.compute.devices.gpu.compiling import CompileLimits, Compiler


class InterpretedGpu(cuda.CudaDevice):
    """See the module."""

    device_class = cuda.STRICT_CLASS
    access = Access(read=(str(Path(cuda.__file__).parents[2]),))  # our headers

    def __init__(self):
        compiler = Compiler(CompileLimits(seconds=60))
        compiler.wait_ready(60)
        super().__init__(PtxDriver(), compiler.compile)
