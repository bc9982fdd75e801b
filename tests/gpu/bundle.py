"""``make gpu-bundle``: packs what ``tests/gpu/run.py`` needs to run alone on a machine with a GPU.

    python tests/gpu/bundle.py FILE.tar.gz

The package's folders, the runner, and for each kernel of the corpus and of the compute benchmark (smaller) its program,
its inputs, and the hashes of the outputs that WebAssembly makes of them here.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "benchmarks"), str(ROOT / "tests" / "gpu")]
FOLDERS = ("compute", "core", "crypto")
BYTES_MAX = 60 << 20
SMALLER = {"ELEMENTS": 1 << 20, "OPTIONS": 1 << 18}
README = """\
depin-node on a GPU: what agrees bit for bit, and at what speed. No network is needed but for these two lines:

    pip install numpy msgspec msgpack blake3 pynacl trio structlog psutil
    pip install nvidia-ml-py nvidia-cuda-nvrtc-cu12 'cupy-cuda12x[ctk]'

Python 3.11 to 3.13 on Linux, an NVIDIA GPU from sm_75 (Turing) on, a driver for CUDA 12. Then, in this folder:

    python run.py

It prints one line for each kernel and ends with one line of JSON: send that. It takes some minutes at most.
"""


def corpus(only=None):
    """Yield (name, bound program) of every kernel, or of those named."""
    import compute_cases
    import kernel_cases

    from depin_node.client.work import prepare_launch
    from depin_node.compute.programs.kernel import InOut, RawKernel

    for case in kernel_cases.cases():
        name = case.name if not case.kernel else f"{case.name}-{case.kernel}"
        if only is not None and name not in only:
            continue
        kernel = RawKernel(case.source, case.kernel or case.name, tuple(case.options))
        slots = kernel.compile().parameters
        given = list(zip(slots, case.arguments, strict=True))
        arguments = [
            InOut(np.array(value)) if slot.pointer and not slot.const else value
            for slot, value in given
            if not slot.constant_bytes
        ]
        constants = {slot.name: value for slot, value in given if slot.constant_bytes}
        launch = (kernel, case.grid, case.block, arguments)
        yield name, prepare_launch(*launch, shared_mem=case.shared_mem, constants=constants or None, local=True).bound
    if only is not None:
        return
    for constant, value in SMALLER.items():
        setattr(compute_cases, constant, value)
    for case in compute_cases.cases():
        launch = (case.grid, case.block) if case.reduction is None else (None, None)
        more = {"shared_mem": case.shared_mem} if case.reduction is None else {"axis": 1}
        yield f"bench-{case.name}", prepare_launch(case.kernel, *launch, case.arguments, local=True, **more).bound


def write_case(folder, name, bound, device):
    """Write a program and its inputs, and what WebAssembly makes of it."""
    import run

    from depin_node.compute.programs.program import encode_program

    (folder / f"{name}.program").write_bytes(encode_program(bound.program))
    for index, array in bound.inputs.items():
        (folder / f"{name}.{index}").write_bytes(np.ascontiguousarray(array).tobytes())
    case = {"name": name, "exact": bound.program.exact, "digests": [], "wasm_s": 0.0}
    case["digests"], case["wasm_s"] = run.run_case(device, folder, case)
    (folder / f"{name}.json").write_text(json.dumps(case))


def write_bundle(target, only=None):
    """Write the tar; return its size in bytes and the names of its kernels."""
    from depin_node.compute.devices.wasm import WasmDevice

    names = []
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary, "depin-gpu")
        (top / "cases").mkdir(parents=True)
        tracked = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in tracked.stdout.splitlines():
            if (ROOT / name).is_file():
                place = top / "depin_node" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, place)
        shutil.copyfile(ROOT / "tests" / "gpu" / "run.py", top / "run.py")
        (top / "README").write_text(README)
        for name, bound in corpus(only):
            write_case(top / "cases", name, bound, WasmDevice())
            names.append(name)
        with tarfile.open(target, "w:gz", compresslevel=6) as tar:
            tar.add(top, top.name, filter=lambda info: None if "__pycache__" in info.name else info)
    return target.stat().st_size, names


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    target.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    size, names = write_bundle(target)
    print(f"{target}: {size / (1 << 20):.1f} MiB, {len(names)} kernels, in {time.monotonic() - begin:.0f} s")
    if size > BYTES_MAX:
        sys.exit(f"that is more than {BYTES_MAX >> 20} MiB")


if __name__ == "__main__":
    main()
