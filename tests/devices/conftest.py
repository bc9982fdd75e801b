"""Every device there is: WebAssembly, a GPU's driver played by an interpreter of PTX, and real GPUs."""

import functools

import pytest
from ptx_driver import PtxDriver

from depin_node.compute.devices.gpu.compiling import CompileLimits, Compiler
from depin_node.compute.devices.gpu.cuda import CudaDevice
from depin_node.compute.devices.gpu.nvidia import find_gpus
from depin_node.compute.devices.wasm import WasmDevice

DEVICES = ("wasm", "ptx", pytest.param("gpu", marks=pytest.mark.gpu))


@pytest.fixture(scope="session")
def compile_text():
    """NVRTC in its confined process; a text is compiled once."""
    pytest.importorskip("nvidia.cuda_nvrtc", reason="NVRTC is not installed")
    compiler = Compiler(CompileLimits(seconds=60))
    compiler.wait_ready(60)
    known = functools.cache(compiler.compile)
    yield lambda text, options: known(text, tuple(options))
    compiler.close()


def open_gpu(compile_text):
    """Return the first GPU as a device, or skip with the reason."""
    found = find_gpus()
    if not found.gpus:
        pytest.skip(f"no GPU: {found.reason}")
    from depin_node.compute.devices.gpu.cupy import CupyDriver

    return CudaDevice(CupyDriver(), compile_text)


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "wasm":
        return WasmDevice()
    compile_text = request.getfixturevalue("compile_text")
    return CudaDevice(PtxDriver(), compile_text) if request.param == "ptx" else open_gpu(compile_text)
