"""Whose NaNs a module shows: an engine that makes them canonical changes what was written by hand, nothing else."""

import numpy as np
import pytest
from wat_programs import copying, numbers, program

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.wasm import CanonicalNanDevice, WasmDevice
from depin_node.compute.programs.binding import bind
from depin_node.compute.programs.kernel import Out, RawKernel
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.shards import result_bytes

LIMITS = TaskLimits(30, 1 << 30)
KERNELS = {
    "arithmetic": "out[i] = __float_as_int(x[i] - x[(i + 7) & 255]);",
    "the sign of a maximum": "out[i] = __float_as_int(sqrtf(x[i]) + fmaxf(x[i], x[i ^ 1]));",
    "through a pointer": "float v = x[i] * x[i ^ 3]; out[i] = *(int*)&v;",
    "through a union": "union { float f; int n; } u; u.f = x[i] / x[i ^ 1]; out[i] = u.n;",
    "double": "double d = (double)x[i] * x[i ^ 5]; out[i] = (int)__double_as_longlong(d) ^ __float_as_int((float)d);",
    "copysign": "out[i] = __float_as_int(powf(x[i], 0.5f)) ^ __float_as_int(copysignf(x[i] - x[i], x[i ^ 1]));",
}


def both(program: Program, array: np.ndarray) -> list[bytes]:
    """Return the result of the one task, by either engine."""
    found = []
    for device in (WasmDevice(), CanonicalNanDevice()):
        result = bytearray(result_bytes(program, 0, 0))
        loaded = device.load(program, {0: Input(memoryview(array).cast("B"))}, LIMITS)
        loaded.run(0, LIMITS, [memoryview(result)])
        found.append(bytes(result))
    return found


@pytest.mark.parametrize("body", KERNELS.values(), ids=KERNELS)
def test_compiled_kernels_show_no_bits_that_a_processor_chose(body: str) -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 256, dtype=np.uint32)
    bits[:40] = 0x7F800000 + np.arange(40) * 0x10001
    bits[40:80] = 0xFF800000 + np.arange(40)
    code = f'extern "C" __global__ void k(const float* x, int* out) {{ int i = threadIdx.x; {body} }}'
    x = bits.view(np.float32)
    kernel = bind(RawKernel(code, "k"), 1, 256, [x, Out("int32", 256)])
    assert kernel.program.exact
    one, other = both(kernel.program, x)
    assert one == other


def test_a_module_written_by_hand_may_show_some() -> None:
    keeps_a_payload = "(f32.store (local.get $y) (f32.add (f32.const nan:0x412345) (f32.const 1)))"
    one, other = both(program(copying(after=keeps_a_payload), dtype="int32", tasks=1), numbers(dtype="int32"))
    assert (one[:4][::-1].hex(), other[:4][::-1].hex()) == ("7fc12345", "7fc00000")
    assert one[4:] == other[4:]
