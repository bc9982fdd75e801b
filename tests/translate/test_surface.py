"""What surface.h declares exists: every function is implemented, every type is known and laid out alike."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depin_node.compute.translate import compile_kernel
from depin_node.compute.translate.backend import GENERATE
from depin_node.compute.translate.frontend import EMPTY_HEADERS, check_options
from depin_node.compute.translate.includes import includes
from depin_node.compute.translate.names import BUILTIN_RECORDS, TYPEDEFS
from depin_node.compute.translate.toolchain import Toolchain
from depin_node.compute.translate.types import align_of, size_of

HEADERS = Path(compile_kernel.__code__.co_filename).with_name("headers")


@pytest.fixture(scope="module")
def declarations(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The top-level declarations of surface.h. Also the guard that this wheel's clang has ``-cc1 -ast-dump=json``."""
    tools = Toolchain(tmp_path_factory.mktemp("surface"), "surface.h", 60)
    target = ("-x", "cuda", "-fcuda-is-device", "-triple", "nvptx64-nvidia-cuda", "-std=c++17", "-fno-builtin", "-w")
    outcome = tools.run("clang", "-cc1", *target, "-ast-dump=json", str(HEADERS / "surface.h"))
    assert outcome.status == 0, outcome.errors
    tree = json.loads(outcome.output)
    assert tree["kind"] == "TranslationUnitDecl"
    return [node for node in tree["inner"] if not node.get("isImplicit")]


def functions(nodes: list[dict[str, Any]]) -> list[tuple[str, list[str], str]]:
    found = []
    for node in nodes:
        if node["kind"] == "FunctionDecl":
            parameters = [
                child["type"]["qualType"] for child in node.get("inner", []) if child["kind"] == "ParmVarDecl"
            ]
            found.append((node["name"], parameters, node["type"]["qualType"].partition("(")[0].strip()))
    return found


WAITING = ("__sync", "__shfl", "__any_sync", "__all_sync", "__ballot")


@pytest.mark.parametrize("waiting", [False, True])
def test_every_function_is_implemented(declarations: list[dict[str, Any]], waiting: bool) -> None:
    known = [f for f in functions(declarations) if f[0].startswith(WAITING) is waiting and f[0] != "printf"]
    assert len(known) > (30 if waiting else 390)
    lines = []
    for number, (name, parameters, result) in enumerate(known):
        names = []
        for place, type_ in enumerate(parameters):
            if type_.endswith("*"):
                lines.append(f"{type_} p{number}_{place} = ({type_})memory;")
            else:
                lines.append(f"{type_} p{number}_{place} = *({type_}*)memory;")
            names.append(f"p{number}_{place}")
        call = f"{name}({', '.join(names)})"
        keep = result == "void" or name == "__trap"
        guard = "if (memory[9] == 77) " if name == "__trap" else ""
        lines.append(f"{guard}{call};" if keep else f"*({result}*)(memory + 16) = {call};")
    source = "__global__ void k(unsigned char* memory) {\n" + "\n".join(lines) + "\n}"
    for shape in ("fission", "coroutine") if waiting else ("loop",):
        assert compile_kernel(source, "k", deadline_s=300, _shape=shape).shape == shape  # type: ignore[arg-type]


def test_every_template_is_implemented(build: Any) -> None:
    lines = []
    for name in ("ldg", "ldcg", "ldca", "ldcs", "ldlu", "ldcv"):
        lines.append(f"x[0] += __{name}(x + 1); y[0].x = __{name}((const float2*)y).y;")
    lines += [f"__{name}(x, 2.0f);" for name in ("stwb", "stcg", "stcs", "stwt")]
    one = "sqrt rsqrt cbrt rcbrt exp exp2 exp10 expm1 log log2 log10 log1p sin cos tan asin acos atan"
    one += " sinh cosh tanh asinh acosh atanh erf erfc fabs floor ceil trunc rint round nearbyint"
    for name in one.split():
        lines.append(f"x[0] += {name}(n) + {name}((unsigned char)n) + {name}(3L) + {name}(4ull) + {name}(true);")
    for name in ["pow", "atan2", "fmod", "hypot", "copysign", "fmax", "fmin", "fdim"]:
        lines.append(f"x[0] += {name}(x[1], 2.0) + {name}(2.0, x[1]) + {name}(n, 2.0) + {name}(2.0, n);")
        lines.append(f"x[0] += {name}(2, n) + {name}(3u, 5ll) + {name}(n, x[1]);")
    build("__global__ void k(float* x, float2* y, int n) {\n" + "\n".join(lines) + "\n}")


def test_integers_count_as_double_in_functions_of_two(host: Any, build: Any) -> None:
    calls = (
        "pow(2, n), fmax(0, x[0]), fmin(x[1], 3), pow(3u, -2l), hypot(3, 4), fmod(7, n), std::pow(2, n), pow(x[1], 2)"
    )
    lines = "".join(f"y[{place}] = {call};" for place, call in enumerate(calls.replace("), ", ");").split(";")))
    kernel = build(f"__global__ void k(const float* x, double* y, int n) {{ {lines} }}")
    _, y = host.run(kernel, [1], [1], [np.float32([-1.5, 7]), np.zeros(8), 5])
    assert y.tolist() == [32, 0, 3, 1 / 9, 5, 2, 32, 49]


def test_every_typedef_is_known(declarations: list[dict[str, Any]], build: Any) -> None:
    typedefs = {node["name"] for node in declarations if node["kind"] == "TypedefDecl"}
    assert typedefs == {name for name in TYPEDEFS if not name.startswith("__")}
    parameters = ", ".join(f"{name}* p{k}, {name} v{k}" for k, name in enumerate(sorted(typedefs)))
    kernel = build(f"__global__ void k({parameters}) {{}}")
    for k, name in enumerate(sorted(typedefs)):
        pointer, value = kernel.parameters[2 * k : 2 * k + 2]
        assert pointer.dtype == value.dtype == TYPEDEFS[name].dtype  # type: ignore[union-attr]


def test_every_vector_type_is_known_and_laid_out_as_clang_does(declarations: list[dict[str, Any]], build: Any) -> None:
    records = {node["name"] for node in declarations if node["kind"] == "CXXRecordDecl"}
    assert records == set(BUILTIN_RECORDS)
    checks = "".join(
        f'static_assert(sizeof({n}) == {size_of(r)} && alignof({n}) == {align_of(r)}, "{n}");\n'
        for n, r in BUILTIN_RECORDS.items()
    )
    parameters = ", ".join(f"{name} v{k}" for k, name in enumerate(BUILTIN_RECORDS))
    kernel = build(f"{checks}__global__ void k({parameters}) {{}}")
    assert [p.lanes for p in kernel.parameters] == [len(r.fields) for r in BUILTIN_RECORDS.values()]


def test_empty_headers_can_be_included_in_every_standard(build: Any) -> None:
    lines = "".join(f"#include <{name}>\n" for name in EMPTY_HEADERS)
    for standard in ("c++11", "c++14", "c++17", "c++20"):
        build(f"{lines}__global__ void k(int* x) {{ x[0] = INT_MAX; }}", "k", f"-std={standard}")
    assert check_options((), "k.cu") == ("-std=c++17",)


def test_rounding_conversions(host: Any, build: Any) -> None:
    source = """__global__ void k(const float* x, int* out, int n) {
        int i = threadIdx.x;
        out[i] = __float2int_rn(x[i]) * 1000000 + __float2int_rz(x[i]) * 10000
            + __float2int_ru(x[i]) * 100 + __float2int_rd(x[i]);
        out[n + i] = lrintf(x[i]) * 10000 + lround((double)x[i]) * 100 + (int)rintf(x[i]) + (int)roundf(x[i]);
    }"""
    x = np.array([0.5, 1.5, 2.5, 2.4, 2.6, 3.0], np.float32)
    out = host.run(build(source), [1], [6], [x, np.zeros(12, np.int32), 6])[1]
    up, down, near, away = np.ceil(x), np.floor(x), np.rint(x), np.floor(x + 0.5)
    np.testing.assert_array_equal(out[:6], near * 1000000 + down * 10000 + up * 100 + down)
    np.testing.assert_array_equal(out[6:], near * 10000 + away * 100 + near + away)


def test_no_header_is_left_out_that_has_something_of_what_is_called(tmp_path: Path) -> None:
    """Not even one overload: another would be called, with other bits."""
    tools = Toolchain(tmp_path, "kernel.cpp", 60)
    compiler = [*GENERATE[: GENERATE.index("-emit-obj")], "-ast-list", *GENERATE[GENERATE.index("-emit-obj") + 1 :]]

    def declared(text: str) -> Counter[str]:
        (tmp_path / "kernel.cpp").write_text(text)
        outcome = tools.run(*compiler, "-I", str(HEADERS), "kernel.cpp")
        assert outcome.status == 0, outcome.errors
        return Counter(outcome.output.decode().split())

    everything = declared('#include "coroutines.h"\n#include "log.h"\n#include "fission.h"\n')
    names = {name for name in everything if name.startswith("cuda::") and name.count("::") == 1}
    assert {"cuda::expf", "cuda::__fadd_rz", "cuda::j0f", "cuda::max"} <= names
    included = {name: includes(f"cuda::run_block cuda::printf {name}") for name in names}
    seen = {text: declared(text) for text in set(included.values())}
    assert len(seen) == 3
    for name, text in included.items():
        assert seen[text][name] == everything[name], name
