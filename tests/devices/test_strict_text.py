"""What may stand in the CUDA text of a stranger: the printer's words, and nothing that reaches a file or a clock."""

import pytest

from depin_node.compute.devices.gpu import nvrtc, strict
from depin_node.core.errors import TaskRejected

FINE = (
    'extern "C" __global__ void __launch_bounds__(cuda::THREADS) run0(i64 b0, u32 gx, u32 gy, u32 gz, u32 shared_mem, '
)
FINE += "i32* v1_x) {\ncuda::Thread k = cuda::this_thread(b0, gx, gy, gz);\n%s\n}\n"

HOSTILE = {
    "include": '#include "/etc/passwd"',
    "include by digraph": '%:include "/etc/passwd"',
    "include by trigraph": '??=include "/etc/passwd"',
    "include on a new line": "v1_x[0] = 1;\n  #include </etc/passwd>",
    "spliced": "#inc\\\nlude </etc/passwd>",
    "embed": "i32 v2_[] = {\n#embed </etc/passwd>\n};",
    "pragma operator": '_Pragma("once")',
    "assembly": 'asm("mov.u32 %0, %clock;");',
    "assembly, spelt otherwise": '__asm__ volatile("trap;");',
    "assembly between comments": "a/**/sm(1);",
    "string": 'v1_x = (i32*)"text";',
    "raw string": 'R"(x)"',
    "character": "v1_x[0] = 'a';",
    "file name": "v1_x[0] = __FILE__[0];",
    "file exists": "v1_x[0] = __has_include(</etc/passwd>);",
    "clock": "v1_x[0] = clock64();",
    "clock by scope": "v1_x[0] = ::clock64();",
    "scope in scope": "v1_x[0] = cuda::as<::dim3>(1);",
    "special register": "v1_x[0] = __nvvm_read_ptx_sreg_clock();",
    "sleep": "__nanosleep(1000);",
    "print": "printf(0);",
    "allocate": "v1_x = (i32*)malloc(8);",
    "new": "v1_x = new i32[4];",
    "launch": "cudaDeviceSynchronize();",
    "template": "template <i32 n> struct R1 { i32 m1; };",
    "generic lambda": "[&](auto v2_) {}(1);",
    "constant expression": "constexpr i32 v2_ = 1;",
    "type computed": "decltype(v1_x) v2_ = v1_x;",
    "attribute": "[[deprecated]] i32 v2_;",
    "attribute, spelt otherwise": "__attribute__((weak)) i32 v2_;",
    "jump": "goto v2_;",
    "volatile": "volatile i32 v2_;",
    "reinterpretation": "v1_x[0] = reinterpret_cast<i64>(v1_x);",
    "inline PTX by name": "cuda_builtin::fma(1.0f, 1.0f, 1.0f);",
    "namespace": "namespace cuda { }",
    "using": "using namespace cuda;",
    "throw": "throw 1;",
    "thread storage": "thread_local i32 v2_;",
    "not ASCII": "i32 v2_é;",
    "zero byte": "i32\0 v2_;",
    "backslash": "i32 \\u0061;",
    "at sign": "@x",
    "dollar": "i32 v2$;",
    "long word": f"i32 v2_{'a' * 100};",
    "deep": "(" * 3000 + ")" * 3000,
    "long": ";" * (1 << 20),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_before_it_is_compiled(name: str) -> None:
    with pytest.raises(TaskRejected) as caught:
        strict.whole_text(FINE % HOSTILE[name])
    assert len(str(caught.value)) < 300


def test_a_text_of_the_printer_is_taken() -> None:
    text = (
        FINE % "i32 v2_a = cuda::add<i32>(v1_x[0], 1); v1_x[0] = cuda::rem<i32>(v2_a, (v2_a % 3)); f32 v3_ = 0x1.8p-3f;"
    )
    ptx = nvrtc.to_ptx(strict.whole_text(text, 64), strict.options(75, real=False))
    assert ".maxntid 64, 1, 1" in ptx


@pytest.mark.parametrize("threads", [0, 1025, -1])
def test_a_block_has_1_to_1024_threads(threads: int) -> None:
    with pytest.raises(TaskRejected, match="1 to 1024 threads"):
        strict.whole_text("", threads)


def test_what_is_not_in_the_header_is_an_error_with_its_line() -> None:
    with pytest.raises(nvrtc.NvrtcError, match=r"nowhere"):
        nvrtc.to_ptx(strict.whole_text(FINE % "cuda::nowhere(1);"), strict.options(75, real=False))
