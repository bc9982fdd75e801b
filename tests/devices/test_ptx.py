"""The check of NVRTC's output, on what NVRTC makes of sources that are not strict."""

from dataclasses import dataclass

import pytest

from depin_node.compute.devices.gpu import nvrtc, strict
from depin_node.compute.devices.gpu.ptx import check_entry, entry_bytes, why_not_strict
from depin_node.core.errors import TaskRejected

OPTIONS = strict.options(75, real=False)


@dataclass(frozen=True)
class P:
    dtype: str
    lanes: int = 1
    pointer: bool = False
    name: str = "p"


def reasons(body: str, options: tuple[str, ...] = OPTIONS) -> list[str]:
    head = 'extern "C" __global__ void k(float* x, double* y, int* z) '
    return why_not_strict(nvrtc.to_ptx(f"{head}{{ {body} }}", options))


def test_plain_arithmetic_is_strict() -> None:
    body = (
        "x[0] = x[1] * x[2] + x[3] / sqrtf(x[4]); y[0] = y[1] * y[2] - y[3] / sqrt(y[4]); z[0] = __popc(z[1] * z[2]);"
    )
    assert reasons(body) == []


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("x[0] = __fdividef(x[1], x[2]);", "div.approx.f32"),
        ("x[0] = __expf(x[1]);", "ex2.approx.f32"),
        ("x[0] = __sinf(x[1]);", "sin.approx.f32"),
        ("x[0] = rsqrtf(x[1]);", "rsqrt.approx.f32"),
        ("x[0] = __fadd_rz(x[1], x[2]);", "add.rz.f32"),
        ("y[0] = __dmul_ru(y[1], y[2]);", "mul.rp.f64"),
        ("x[0] = __double2float_rd(y[1]);", "cvt.rm.f32.f64"),
        ("x[0] = __fmaf_rz(x[1], x[2], x[3]);", "fma.rz.f32"),
        ("y[0] = exp(y[1]);", "fma.rn.f64"),
        ("y[0] = log(y[1]);", "fma.rn.f64"),
        ("atomicAdd(x, 1.0f);", "atom.global.add.f32"),
        ("z[0] = (int)clock64();", "%clock64"),
        ('asm("mov.u32 %0, %%smid;" : "=r"(z[0]));', "%smid"),
        ('asm("mul.f32 %0, %1, %1;" : "=f"(x[0]) : "f"(x[1]));', "mul.f32"),
        ('asm("{ mul.ftz.f32 %0, %1, %1; }" : "=f"(x[0]) : "f"(x[1]));', "mul.ftz.f32"),
        ("x[0] = __saturatef(x[1]);", "cvt.sat.f32.f32"),
        ("__nanosleep(z[0]);", "nanosleep.u32"),
        ("z[threadIdx.x] = __shfl_down_sync(-1, z[0], 1);", "shfl.sync.down.b32"),
        ("__prof_trigger(1);", "pmevent"),
    ],
)  # fmt: skip
def test_what_is_not_strict_is_named(body: str, word: str) -> None:
    assert any(reason.startswith(word) for reason in reasons(body)), reasons(body)


def test_what_the_flags_forbid_is_found_without_them() -> None:
    body, kept = "x[0] = x[1] * x[2] + x[3] / x[4];", ("--device-as-default-execution-space",)
    assert "fma.rn.f32 is fused, and the source does not call fma" in reasons(body, kept)
    assert "add.ftz.f32 is not among the strict instructions" in reasons("x[0] += x[1];", (*kept, "--ftz=true"))
    assert "div.full.f32 is not among the strict instructions" in reasons(body, (*kept, "--prec-div=false"))
    assert "sqrt.approx.f32 is not among the strict instructions" in reasons(
        "x[0] = sqrtf(x[1]);", (*kept, "--prec-sqrt=false")
    )


def test_reasons_are_bounded() -> None:
    ptx = "\n".join(f"\todd{letter} \t%r1;" for letter in "abcdefghijklmn")
    assert len(why_not_strict(ptx)) == 10


HEAD = 'extern "C" __global__ void run0(long long b0, unsigned a, unsigned b, unsigned c, unsigned d'


@pytest.mark.parametrize("architecture", [75, 120])
def test_an_entry_has_to_take_what_is_passed(architecture: int) -> None:
    text = HEAD + ", float* x, float4 y, char z, double w, float3 v) { x[0] = y.x + z + w + v.z + b0; }"
    ptx = nvrtc.to_ptx(text, strict.options(architecture, real=False))
    passed = [P("float32", pointer=True), P("float32", 4), P("int8"), P("float64"), P("float32", 3)]
    assert entry_bytes(ptx) == {"run0": (8, 4, 4, 4, 4, 8, 16, 1, 8, 12)}
    assert check_entry(ptx, 0, passed) == "run0"
    with pytest.raises(TaskRejected, match="run1 takes parameters of None bytes"):
        check_entry(ptx, 1, passed)
    for other in (passed[:-1], [*passed, P("int8")], [*passed[:-1], P("float32", 4)], [P("uint8"), *passed[1:]]):
        with pytest.raises(TaskRejected, match="the program passes"):
            check_entry(ptx, 0, other)
