"""What is not CUDA, or not supported, is refused with its place and its reason; what is not reached does not matter."""

import pytest

from depin_node.compute.translate import CompileError, compile_kernel, compiler_available

KERNEL = 'extern "C" __global__ void k(float* x, int n) {{\n{}\n}}\n'


def k(body: str, before: str = "") -> str:
    return before + KERNEL.format(body)


# source, line, part of the message
REFUSED = {
    "syntax": (k("x[0] = ;"), 2, "expected expression"),
    "missing brace": ("__global__ void k() {", 1, "expected '}'"),
    "unknown name": (k("x[0] = foo(1);"), 2, "foo is not declared, neither in the source nor in the device header"),
    "video instruction": (k("n = __vadd2(n, n);"), 2, "__vadd2 is not supported: SIMD video instructions"),
    "wrong arguments": (k("x[0] = sinf(1, 2);"), 2, "requires 1 argument, but 2 were provided"),
    "host function": (k("f();", "void f() {}\n"), 3, "call to __host__ function from __global__ function"),
    "undefined function": (k("f();", "__device__ void f();\n"), 3, "f is declared, but not defined"),
    "puts": (k('puts("a");'), 2, "puts is not supported: printf is the only one"),
    "format elsewhere": (k('const char* f = "a"; printf(f);'), 2, "text is supported as an argument of printf only"),
    "format chosen": (k('printf(n ? "a" : "b");'), 2, "a format that is written in the call"),
    "too few arguments": (k('printf("%d %d", n);'), 2, "the format has 2 conversions, 1 arguments are given"),
    "wrong argument": (k('printf("%f", n);'), 2, "%f wants a float or double"),
    "integer wanted": (k('printf("%5ld", x[0]);'), 2, "%d wants an integer"),
    "text wanted": (k('printf("%s", x);'), 2, "%s wants text"),
    "width wanted": (k('printf("%*d", x[0], n);'), 2, "* wants an integer"),
    "conversion": (k('printf("%n", &n);'), 2, "the conversion '%n' is not supported"),
    "cut conversion": (k('printf("50%");'), 2, "the conversion '%' is not supported"),
    "wide text": (k('printf("%ls", L"a");'), 2, "text"),
    "old shuffle": (k("x[0] = __shfl(x[0], 1);"), 2, "only the forms that end in _sync"),
    "active mask": (k("x[0] = __activemask();"), 2, "__activemask is not supported"),
    "texture": (k("x[0] = tex2D<float>(0, 1, 2);"), 2, "textures and surfaces are not supported"),
    "texture object": ("__global__ void k(cudaTextureObject_t t) {}", 1, "textures and surfaces are not supported"),
    "surface object": ("__global__ void k(cudaSurfaceObject_t s) {}", 1, "textures and surfaces are not supported"),
    "managed": (k("x[0] = m;", "__managed__ int m;\n"), 1, "managed memory is not supported"),
    "8 bits": (k("", "#include <cuda_fp8.h>\n"), 1, "floats of 8 bits are not supported"),
    "matching lanes": (k("n = __match_any_sync(~0u, n);"), 2, "__match_any_sync is not supported"),
    "texture reference": (k("", "texture<float> t;\n"), 1, "textures and surfaces are not supported"),
    "cooperative groups": (k("", "#include <cooperative_groups.h>\n"), 1, "cooperative groups are not supported"),
    "curand": (k("", "#include <curand_kernel.h>\n"), 1, "curand is not supported"),
    "curand state": (k("curandState s;"), 2, "curand is not supported"),
    "half": (k("", "__device__ half f(half a) { return a; }\n"), 1, "half precision needs #include <cuda_fp16.h>"),
    "clock": (k("x[0] = clock64();"), 2, "clocks and processor ids"),
    "malloc": (k("float* p = (float*)malloc(4);"), 2, "memory cannot be allocated"),
    "memset": (k("memset(x, 0, 4);"), 2, "the memory functions need #include <cstring>"),
    "memmove": ("#include <string.h>\n" + k("memmove(x, x + 1, 4);"), 3, "write a loop that begins at the right end"),
    "new": (k("int* p = new int;"), 2, "memory cannot be allocated"),
    "assembly": (k('asm("mov.u32 %0, %1;" : "=r"(n) : "r"(n));'), 2, "inline assembly"),
    "assembly outside": (k("", 'asm(".globl x");\n'), 1, "inline assembly"),
    "dynamic parallelism": (k("k<<<1, 1>>>(x, n);"), 2, "kernel launch from __device__ or __global__"),
    "runtime call": (k("cudaMalloc(&x, 3);"), 2, "the CUDA runtime cannot be called"),
    "bfloat": (k("__nv_bfloat16 b;"), 2, "bfloat16 is not supported: use float, or half"),
    "library": ("#include <cub/cub.cuh>\n" + k(""), 1, "libraries of device code are not supported"),
    "complex": (k("complex<float> z;"), 2, "complex numbers need #include <cupy/complex.cuh>"),
    "in std": (k("std::sort(x, x + 9);"), 2, "no member named 'sort' in namespace 'std': of the C++ library there are"),
    "standard library": ("#include <cuda/std/complex>\n" + k(""), 1, "of the C++ library there are maths"),
    "builtin": (k("x[0] = __builtin_sqrtf(x[0]);"), 2, "__builtin_sqrtf is not supported"),
    "pointer to integer": (k("long a = (long)x;"), 2, "between pointers and integers"),
    "integer to pointer": (k("float* p = (float*)16L;"), 2, "between pointers and integers"),
    "pointer in struct": (
        "struct S {\n  float* p;\n};\n__global__ void k(S s) { s.p[0] = 1; }",
        4,
        "a parameter of type S",
    ),
    "pointer in structs": ("struct S { S* p; int a; };\n__global__ void k(S* s) { s->a = 1; }", 2, "pointers to S"),
    "pointer in union": (k("U u; u.p = x;", "union U {\n  float* p; int a; };\n"), 2, "pointers inside unions"),
    "size of struct with pointer": (k("x[0] = sizeof(S);", "struct S { float* p; };\n"), 3, "size of S differs"),
    "pointer in dynamic shared": (
        k("", "").replace("\n\n", "\nextern __shared__ float* p[]; p[n] = x;\n"),
        2,
        "pointers in dyn",
    ),
    "lambda with an initialiser": (
        k("auto f = [m = n + 1](int a) { return a + m; };\nx[0] = f(1);"),
        2,
        "m: captures with",
    ),
    "lambda as pointer": (
        k("float (*f)(float) = [](float a) { return a; };\nx[0] = f(1);"),
        2,
        "pointers to functions",
    ),
    "virtual base class": (
        k("B b; x[0] = b.a;", "struct A { int a; };\nstruct B : virtual A {};\n"),
        2,
        "virtual base",
    ),
    "base class with padding": (
        k("B b; x[0] = b.c;", "struct A { int a; char b; };\nstruct B : A { char c; };\n"),
        2,
        "B: a base class with a member in its padding",
    ),
    "written through an address": (
        k("f(g);", "__device__ int g[3] = {1, 2, 3};\n__device__ void f(int* p) { p[0] = 1; }\n"),
        4,
        "g: variables that outlive",
    ),
    "address of a variable": (k("int* p = &g; x[0] = *p;", "__device__ int g = 4;\n"), 3, "g: variables that outlive"),
    "atomic on a variable": (
        k("atomicAdd(&g, 1);", "__device__ int g;\n"),
        3,
        "g: variables that outlive a thread can be read",
    ),
    "many objects": (
        k("C c[300]; x[0] = c[0].a;", "struct C { float a; __device__ C(float b = 1) : a(b) {} };\n"),
        3,
        "arrays of more than 256 objects with constructors",
    ),
    "pointer to pointer": ("__global__ void k(float** x) { x[0][0] = 1; }", 1, "pointers to pointers"),
    "pointer reinterpreted": (k("float** p = (float**)x; p[0][0] = 1;"), 2, "pointers may not be read as other types"),
    "size of pointer": (k("x[0] = sizeof(float*);"), 2, "the size of float * differs between devices"),
    "global variable": (k("g = 1;", "__device__ int g;\n"), 3, "g: variables that outlive a thread"),
    "static variable": (k("static int a = n; x[0] = a;"), 2, "a: variables that outlive a thread"),
    "constant without a size": (k("x[0] = c[1];", "extern __constant__ float c[];\n"), 1, "has a size and no pointers"),
    "constant pointer": (k("x[0] = c[1];", "__constant__ float* c;\n"), 1, "has a size and no pointers"),
    "goto": (k("goto e; e: x[0] = 1;"), 2, "goto is not supported"),
    "virtual": (
        k("A a; x[0] = a.f();", "struct A { __device__ virtual int f() { return 1; } };\n"),
        1,
        "virtual functions",
    ),
    "destructor": (
        k("A a; x[0] = a.b;", "struct A { int b; __device__ ~A() { b = 1; } };\n"),
        1,
        "destructors that do something",
    ),
    "bit-field": (k("A a; x[0] = a.b;", "struct A { int b : 3; };\n"), 1, "bit-fields"),
    "function pointer": (
        k("float (*p)(float) = f;\nx[0] = p(1);", "__device__ float f(float a) { return a; }\n"),
        3,
        "pointers to functions",
    ),
    "variadic": (
        k("x[0] = f(1, 2);", "__device__ int f(int a, ...) { return a; }\n"),
        1,
        "variable number of arguments",
    ),
    "text": (k('const char* s = "a"; x[0] = s[0];'), 2, "text is supported as an argument of printf only"),
    "variable length": (k("float a[n]; x[0] = a[0];"), 2, "variable-length arrays"),
    "128 bits": (k("__int128 a = n; x[0] = (float)a;"), 2, "'__int128' is not supported"),
    "long double": (k("long double a = n; x[0] = a;"), 2, "'long double' is not supported"),
    "structured binding": (
        k("P p = {1, 2}; auto [a, b] = p; x[0] = a;", "struct P { int a, b; };\n"),
        3,
        "structured bindings",
    ),
    "exception": (k("throw 1;"), 2, "cannot use 'throw'"),
    "large local": (
        k("float a[10000]; a[n] = 1; x[0] = a[0];"),
        2,
        "40000 bytes of each thread's stack, at most 32768",
    ),
    "large shared": (k("__shared__ float a[20000]; a[n] = 1;"), 2, "80000 bytes: at most 49152"),
    "much shared": (
        k("__shared__ float a[9000];\n__shared__ float b[9000];\na[n] = b[n];"),
        3,
        "72000 bytes of shared",
    ),
    "large parameter": (
        "struct S { int a; float b[300]; };\n__global__ void k(S s) {}",
        2,
        "a parameter of type S is not supported",
    ),
    "two kernels": ("__global__ void k(int* a) {}\n__global__ void k(float* a) {}", 2, "there are 2 kernels 'k'"),
    "directive": (k("", "\n\n#error no way\n"), 3, "no way"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_line_and_reason(name: str) -> None:
    source, line, text = REFUSED[name]
    with pytest.raises(CompileError) as caught:
        compile_kernel(source, "k", filename="hill.cu")
    error = caught.value
    assert (error.file, error.line) == ("hill.cu", line)
    assert error.column >= 1
    assert str(error).startswith(f"hill.cu:{line}:{error.column}: error: ")
    assert text in str(error).splitlines()[0]


def test_no_such_kernel_names_those_there_are() -> None:
    with pytest.raises(
        CompileError, match=r"hill\.cu: error: there is no kernel 'z' in the source: it has a, k"
    ) as caught:
        compile_kernel(k("") + "__global__ void a() {}\n__device__ void z() {}", "z", filename="hill.cu")
    assert caught.value.line == 0


def test_many_errors_are_cut_short() -> None:
    with pytest.raises(CompileError) as caught:
        compile_kernel(k("\n".join(f"x[{i}] = bad{i};" for i in range(100))), "k")
    assert 2 <= len(str(caught.value).splitlines()) <= 21


def test_messages_hold_no_control_characters_and_no_end_of_text() -> None:
    with pytest.raises(CompileError) as caught:
        compile_kernel(k("", '#error "\x1b[31m\u202e' + "a" * 5000 + '"\n'), "k", filename="a\nb.cu")
    text = str(caught.value)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.startswith("a?b.cu:1:2: error: ")
    assert len(text) < 1000


@pytest.mark.parametrize(
    "options",
    [("-I/usr/include",), ("-include", "x.h"), ("--gpu-architecture=sm_70",), ("-D",), ("-std=c++98",),
     ("-DA\n#include <x>",),
     ("-fplugin=x.so",), ("@file",), ("-D1",), ("-Dé=1",), ("-DA=1",) * 65, ("-D" + "A" * 2000,)],
    ids=lambda options: options[0][:20].replace("\n", " "),
)  # fmt: skip
def test_other_options_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(CompileError, match="option"):
        compile_kernel(k(""), "k", options)


def test_macros_from_options_reach_the_source() -> None:
    source = k("#if A != 3 || B(2) != 4 || defined(C)\n#error wrong\n#endif")
    for options in (("-DA=3", "-DB(x)=2*x", "-DC", "-UC"), ("-D", "A=3", "--define-macro=B(x)=x*2", "-U", "C")):
        compile_kernel(source, "k", options)


def test_what_the_kernel_does_not_reach_does_not_matter() -> None:
    unused = "struct A { float* p; };\n__device__ int g;\n__device__ void f(A* a) { a->p[0] = g++; goto e; e:; }\n"
    assert compile_kernel(k("x[0] = 1;", unused), "k").exact


def test_the_compiler_is_there() -> None:
    assert compiler_available() is None


def test_without_the_compiler_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from depin_node.compute.translate import toolchain
    from depin_node.core.errors import ConfigError

    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    assert compiler_available() == "pip install 'depin-node[compile]'"
    with pytest.raises(ConfigError, match=r"pip install 'depin-node\[compile\]'"):
        compile_kernel(k("x[0] = 77;"), "k")
