"""What a GPU makes of the project's kernels: run on a machine with one, from a bundle or a checkout.

    python run.py [CASES]

For each kernel: whether its results are WebAssembly's bit for bit, and how long it took. Ends with what a reader needs
to know in one JSON line, and with exit code 0 if every exact kernel agreed, 1 if one did not, 3 if there is no GPU.
Needs no network and no compiler but NVRTC.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
if (HERE / "depin_node").is_dir():  # a bundle; in a checkout the package is installed
    sys.path.insert(0, str(HERE))
NO_GPU = 3


def main(arguments):
    try:
        from depin_node.compute.devices.gpu.nvidia import find_gpus
    except ImportError as error:
        print(f"{error}: see README in this folder for what to install", file=sys.stderr)
        return 2
    found = find_gpus()
    if not found.gpus:
        print(f"there is no GPU here: {found.reason}")
        return NO_GPU
    return run(Path(arguments[0]) if arguments else HERE / "cases", found.gpus[0])


def run(cases, gpu):
    from depin_node.compute.devices.gpu.answering import wrong_answers
    from depin_node.compute.devices.gpu.compiling import CompileLimits, Compiler
    from depin_node.compute.devices.gpu.cuda import CudaDevice
    from depin_node.compute.devices.gpu.cupy import CupyDriver

    print(f"{gpu.name}, {gpu.architecture}, {gpu.memory_bytes >> 20} MiB, driver {gpu.driver}, CUDA {gpu.cuda}")
    compiler = Compiler(CompileLimits(seconds=120))
    compiler.wait_ready(60)
    driver = CupyDriver()
    device = CudaDevice(driver, compiler.compile)
    wrong = wrong_answers(driver, compiler.compile)
    print(f"known answers: {'all right' if not wrong else f'launches {wrong} differ'}; class {device.device_class}")
    speed = measure(device)
    print(f"speed: {speed}")
    summary = {"gpu": gpu.name, "architecture": gpu.architecture, "class": device.device_class, "speed": speed}
    summary["kernels"] = outcomes = run_cases(cases, device)
    summary["worker"] = behind_layers(gpu)
    print(f"in a confined worker: {summary['worker']}")
    agree = [name for name, outcome in outcomes.items() if outcome["agrees"]]
    differ = [name for name, outcome in outcomes.items() if outcome["exact"] and not outcome["agrees"]]
    print(f"{len(agree)} of {len(outcomes)} kernels agree bit for bit")
    print(f"exact ones that do not: {', '.join(differ) or 'none'}")
    print(json.dumps(summary))
    return 1 if differ or wrong else 0


def measure(device):
    """Return millions of operations a second, float32 and float64, and MB/s of memory."""
    from depin_node.compute.devices.benchmark import benchmark_program, measuring
    from depin_node.compute.devices.device import TaskLimits
    from depin_node.compute.programs.shards import result_bytes

    limits, program = TaskLimits(30.0, 1 << 30), benchmark_program()
    loaded, steps = device.load(program, {}, limits), measuring()
    task = next(steps)
    while True:
        begin = time.perf_counter()
        loaded.run(task, limits, [memoryview(bytearray(result_bytes(program, task, 0)))])
        try:
            task = steps.send(time.perf_counter() - begin)
        except StopIteration as finished:
            loaded.close()
            return list(vars_of(finished.value).values())


def vars_of(value):
    return {name: getattr(value, name) for name in value.__struct_fields__}


def run_cases(folder, device):
    """Run all cases; one that loses its context ends the run, and says so."""
    outcomes = {}
    for file in sorted(folder.glob("*.json")):
        case = json.loads(file.read_text())
        try:
            digests, seconds = run_case(device, folder, case)
        except Exception as error:  # noqa: BLE001 - whatever it is: it is this kernel's outcome
            outcomes[case["name"]] = {"exact": case["exact"], "agrees": False, "error": repr(error)}
            print(f"{case['name']:28} FAILED: {error!r}")
            if device.is_spent:
                print("the context is lost: the other kernels were not run")
                break
            continue
        agrees = digests == case["digests"]
        word = "bit for bit" if agrees else "DIFFERS" if case["exact"] else "differs, as it may"
        print(f"{case['name']:28} {word:20} {seconds * 1e3:9.3f} ms  wasm {case['wasm_s'] * 1e3:9.3f} ms")
        outcomes[case["name"]] = {
            "exact": case["exact"],
            "agrees": agrees,
            "seconds": seconds,
            "wasm_s": case["wasm_s"],
        }
    return outcomes


def run_case(device, folder, case):
    """Return the digests of a case's outputs, and the seconds of its second run."""
    from depin_node.compute.devices.device import Input, TaskLimits
    from depin_node.compute.programs.shards import result_bytes
    from depin_node.compute.programs.validation import decode_program

    program = decode_program((folder / f"{case['name']}.program").read_bytes())
    inputs = {index: Input(memoryview((folder / f"{case['name']}.{index}").read_bytes())) for index in program.inputs}
    limits = TaskLimits(120.0, 2 << 30)
    loaded = device.load(program, inputs, limits)
    results = [memoryview(bytearray(result_bytes(program, 0, output))) for output in range(len(program.outputs))]
    for _ in range(2):
        begin = time.perf_counter()
        loaded.run(0, limits, results)
        seconds = time.perf_counter() - begin
    if hasattr(loaded, "close"):
        loaded.close()
    return [hashlib.sha256(result).hexdigest() for result in results], seconds


def behind_layers(gpu):
    """Open the GPU in a worker as a node does: whether CUDA's driver works behind the layers is known only then."""
    try:
        import trio

        from depin_node.compute.sandbox.gpu_pool import DriverProbe, gpu_config, open_gpu_pool
    except ImportError as error:
        return f"not tried: {error}"

    async def ask():
        async with open_gpu_pool(gpu_config(gpu), DriverProbe(gpu)) as pool:
            device_class = await pool.device_class()
            return f"{device_class}; " + "; ".join(f"{layer} ({layer.active})" for layer in pool.layers())

    try:
        return trio.run(ask)
    except Exception as error:  # noqa: BLE001 - a group of them; it is what this asks for
        return f"FAILED: {error!r} {[repr(e) for e in getattr(error, 'exceptions', ())]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
