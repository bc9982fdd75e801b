"""Sources that want to read files, or to exhaust the machine of who compiles them."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depin_node.compute.translate import CompileError, compile_kernel
from depin_node.compute.translate.toolchain import MEMORY_BYTES_MAX

KERNEL = 'extern "C" __global__ void k(int* x) { x[0] = 1; }\n'
SECRET = "hunter2_secret_value"

READERS = {
    "include": '#include "{path}"',
    "include angle": "#include <{path}>",
    "include relative": '#include "../../../../../../../../../..{path}"',
    "include_next": '#include_next "{path}"',
    "import": '#import "{path}"',
    "digraph": '%:include "{path}"',
    "trigraph": '??=include "{path}"',
    "spliced": '#inc\\\nlude "{path}"',
    "spliced name": '#include "{spliced}"',
    "comment": '/**/#/**/include/**/"{path}"',
    "macro": '#define F "{path}"\n#include F',
    "pasted macro": "#define S(x) #x\n#define T(x) S(x)\n#include T({path})",
    "pragma": '#pragma GCC dependency "{path}"',
    "_Pragma": '_Pragma("GCC dependency \\"{path}\\"")',
    "module": "#pragma clang module import {name}",
    "embed": 'const unsigned char data[] = {{\n#embed "{path}"\n}};',
    "embed digraph": 'const unsigned char data[] = {{\n%:embed "{path}"\n}};',
    "embed limit": 'const unsigned char data[] = {{\n#embed "{path}" limit(3)\n}};',
    "stdin": '#include "/dev/stdin"',
    "environment": '#include "/proc/self/environ"',
    "endless": '#include "/dev/zero"',
    "folder": '#include "/"',
    "own source": '#include "kernel.cu"',
    "own overlay": '#include "files.yaml"',
    "own header": '#include "/depin-kernel/device.h"',
    "source file": '#include "{headers}/device.h"',
    "incbin": 'asm(".incbin \\"{path}\\"");',
    "line": '#line 1 "{path}"\n#include "{path}"',
    "embed in initialiser": '__constant__ char c[] = {{\n#embed "{path}" if_empty(1)\n}};',
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(f"{SECRET}\n#error {SECRET}\n")
    return path


@pytest.mark.parametrize("name", READERS)
def test_no_spelling_reaches_a_file(name: str, secret: Path) -> None:
    headers = Path(compile_kernel.__code__.co_filename).with_name("headers")
    spliced = str(secret).replace("r", "\\\nr", 1)
    text = READERS[name].format(path=secret, name=secret.stem, spliced=spliced, headers=headers)
    with pytest.raises(CompileError) as caught:
        compile_kernel(f"{text}\n{KERNEL}", "k")
    assert SECRET not in str(caught.value)
    assert caught.value.line >= 1


@pytest.mark.parametrize("query", ["__has_include", "__has_include_next", "__has_embed"])
def test_not_even_whether_a_file_exists_is_told(query: str, secret: Path) -> None:
    for path in (str(secret), "/etc/passwd", "/", "files.yaml"):
        source = f'#if {query}("{path}")\n#error it exists\n#endif\n{KERNEL}'
        assert compile_kernel(source, "k").exact


def test_file_names_and_times_are_not_data() -> None:
    for text in ("__FILE__", "__TIME__", "__DATE__", "__TIMESTAMP__", "__BASE_FILE__", "__func__"):
        with pytest.raises(CompileError, match="text is supported as an argument of printf only"):
            compile_kernel(f"__global__ void k(int* x) {{ x[0] = {text}[0]; }}", "k")


def test_the_environment_does_not_reach_the_compiler(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "CCC_OVERRIDE_OPTIONS", "CLANG_CONFIG_FILE"):
        monkeypatch.setenv(variable, str(secret.parent))
    with pytest.raises(CompileError, match=r"secret\.txt' file not found"):
        compile_kernel(f"#include <secret.txt>\n{KERNEL}", "k")


MACROS = "\n".join(f"#define M{i} {f'M{i - 1} ' * 4}" for i in range(1, 16))
BOMBS = {
    "macro": f"#define M0 x[0] += 1;\n{MACROS}\n__global__ void k(int* x) {{ M15 }}",
    "template": "struct L; struct R;\ntemplate <class T, int N> struct B { struct P; struct Q;\n"
    "static const int v = B<P, N - 1>::v + B<Q, N - 1>::v; };\n"
    "template <class T> struct B<T, 0> { static const int v = 1; };\n__global__ void k(int* x) { x[0] = B<L, 30>::v; }",
}


BOMBING = """if True:
    import resource, sys
    from depin_node.compute.translate import CompileError, compile_kernel
    try:
        compile_kernel(sys.argv[1], "k", deadline_s=1.0)
    except CompileError as error:
        print(error)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""In a process of its own, which has had no other children: the most memory that one of them took, in KiB."""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_at_the_deadline(name: str) -> None:
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", BOMBING, BOMBS[name]], capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 60  # the real bound is the deadline; this machine may be busy
    error, peak = done.stdout.rsplit("\n", 2)[0], int(done.stdout.split()[-1])
    assert re.search(r"did not finish within 1 s|more than \d+ MiB", error), error
    assert peak * 1024 < MEMORY_BYTES_MAX


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from depin_node.compute.translate import toolchain

    monkeypatch.setattr(toolchain, "MEMORY_BYTES_MAX", 200 << 20)
    with pytest.raises(CompileError, match=r"make the kernel smaller"):
        compile_kernel(BOMBS["macro"], "k", deadline_s=60)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (" " * (1 << 20) + KERNEL, "at most 1048576 are allowed"),
        (f"__global__ void k(int* x) {{ x[0] = {'(' * 10000}1{')' * 10000}; }}", "bracket nesting"),
        (f"__global__ void k(int* x) {{ x[0] = {'+'.join(['x[1]'] * 450)}; }}", "nested too deeply"),
        (f"__global__ void k(int* x) {{ {'x[0] = x[1] * 3;' * 40000} }}", "expands to more than 64 MiB"),
        ("template <int N> struct F { static const int v = F<N + 1>::v; };\n"
         "__global__ void k(int* x) { x[0] = F<0>::v; }", "recursive template instantiation"),
        ("constexpr int f(int n) { int s = 0; for (int i = 0; i < n; ++i) s ^= i; return s; }\n"
         "__global__ void k(int* x) { constexpr int v = f(1 << 30); x[0] = v; }", "constant expression"),
        ("__constant__ int a[100000000] = {1};\n__global__ void k(int* x) { x[0] = a[x[1]]; }", "make the kernel"),
        ('#include "kernel.cu"\n#include "kernel.cu"\n' + KERNEL, "nested too deeply"),
    ],
    ids=["size", "brackets", "depth", "tree", "templates", "constexpr", "data", "itself"],
)  # fmt: skip
def test_every_dimension_has_a_bound(source: str, text: str) -> None:
    with pytest.raises(CompileError, match=text):
        compile_kernel(source, "k", deadline_s=120)  # not what is tried: 64 MiB of tree took 40 s on a slow machine


@pytest.mark.parametrize("command", ["crash", "parser_crash", "llvm_fatal_error", "overflow_stack", "handle_crash"])
def test_debugging_pragmas_do_nothing(command: str) -> None:
    assert compile_kernel(f"#pragma clang __debug {command}\n{KERNEL}", "k").exact


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    compile_kernel(KERNEL + "// left", "k")
    with pytest.raises(CompileError):
        compile_kernel(BOMBS["macro"], "k", deadline_s=0.5)
    assert list(tmp_path.iterdir()) == []
