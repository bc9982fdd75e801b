"""The bundle for GPU machines: that it builds and starts here, and what its runner says of kernels; no GPU is needed.

The runner's kernels are run over the interpreter of PTX, so that what is sent away is known to work as far as can be.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ptx_driver import PtxDriver

from depin_node.compute.devices.gpu.compiling import CompileLimits, Compiler
from depin_node.compute.devices.gpu.cuda import CudaDevice
from depin_node.compute.devices.gpu.nvidia import find_gpus

HERE = Path(__file__).parent
KERNELS = {"saxpy", "carve"}
NO_GPU = 3


def module(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    size, names = module("bundle").write_bundle(folder / "gpu.tar.gz", only=KERNELS)
    assert set(names) == KERNELS
    assert 0 < size < 4 << 20
    shutil.unpack_archive(folder / "gpu.tar.gz", folder)
    return folder / "depin-gpu"


def test_it_holds_all_that_it_imports_and_says_that_there_is_no_gpu(unpacked):
    if find_gpus().gpus:
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, "-I", "run.py"], cwd=unpacked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (NO_GPU, "")
    assert done.stdout.startswith("there is no GPU here: no NVIDIA driver")
    imported = "import run, depin_node.compute.devices.gpu.cuda as found; print(found.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", imported], cwd=unpacked, capture_output=True, text=True, timeout=60, check=True
    )
    assert Path(done.stdout.strip()) == unpacked / "depin_node/compute/devices/gpu/cuda.py"


def test_the_runner_tells_which_kernels_agree(unpacked, capsys):
    pytest.importorskip("nvidia.cuda_nvrtc", reason="NVRTC is not installed")
    compiler = Compiler(CompileLimits(seconds=60))
    compiler.wait_ready(60)
    spoilt = unpacked / "cases" / "spoilt.json"
    case = json.loads((unpacked / "cases" / "saxpy.json").read_text())
    for file in (unpacked / "cases").glob("saxpy.*"):
        file.with_name(file.name.replace("saxpy", "spoilt")).write_bytes(file.read_bytes())
    spoilt.write_text(json.dumps(case | {"name": "spoilt", "digests": ["00" * 32]}))
    outcomes = module("run").run_cases(unpacked / "cases", CudaDevice(PtxDriver(), compiler.compile))
    compiler.close()
    told = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert outcomes["saxpy"]["agrees"]
    assert "bit for bit" in told["saxpy"]
    assert not outcomes["spoilt"]["agrees"]
    assert "DIFFERS" in told["spoilt"]
    assert "error" not in outcomes["carve"]
    assert not outcomes["carve"]["exact"]


@pytest.mark.gpu
def test_a_gpu_gives_the_known_answers_and_its_driver_works_behind_the_layers():
    found = find_gpus()
    if not found.gpus:
        pytest.skip(f"no GPU: {found.reason}")
    told = module("run").behind_layers(found.gpus[0])
    assert "FAILED" not in told
    assert "landlock" in told
