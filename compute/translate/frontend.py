"""CUDA source to clang's syntax tree, without the source reaching any file of this machine.

Clang runs as CUDA for nvptx64 (so ``long`` and ``size_t`` have 64 bits, and every CUDA attribute, overload and template
is resolved as a GPU compiler would) and prints its tree as JSON. It sees a virtual file system that holds the source,
``headers/surface.h``, ``headers/library`` and a few empty headers, and does not fall through to the real one:
``#include``, ``#embed``, ``__has_include`` and their kin find nothing else, however they are spelt, because there is
nothing else to find.

``surface.h`` is precompiled once into the cache folder: that saves 0.1 s each time.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from depin_node.compute.translate.errors import CompileError, Diagnostic
from depin_node.compute.translate.refusals import why_no_file, why_refused
from depin_node.compute.translate.toolchain import Toolchain, compiler_version

SOURCE_BYTES_MAX = 1 << 20
OPTIONS_MAX = 64
OPTION_CHARACTERS_MAX = 1024
STANDARDS = ("c++11", "c++14", "c++17", "c++20")
VIRTUAL = "/depin-kernel"
SOURCE = f"{VIRTUAL}/kernel.cu"
SURFACE = f"{VIRTUAL}/surface.h"
PRECOMPILED = f"{VIRTUAL}/surface.pch"
PRECOMPILED_MAX = 8
HEADERS = Path(__file__).with_name("headers")
EMPTY_HEADERS = (
    *("assert.h", "cassert", "cfloat", "climits", "cmath", "cstddef", "cstdint", "float.h", "limits.h", "math.h"),
    *("stddef.h", "stdint.h", "cuda.h", "cuda_runtime.h", "cuda_runtime_api.h", "device_launch_parameters.h"),
    *("math_functions.h", "vector_types.h", "vector_functions.h", "device_functions.h", "sm_30_intrinsics.h"),
    *("stdio.h", "cstdio", "stdlib.h", "cstdlib", "device_atomic_functions.h", "cupy/cuda_workaround.h"),
)
"""Headers whose contents every kernel gets anyway: surface.h has what is supported of them."""
LIBRARY_HEADERS = {
    "cstring": "memory.h",
    "string.h": "memory.h",
    "cuda_fp16.h": "half.h",
    "cuda_fp16.hpp": "half.h",
    "cuComplex.h": "cucomplex.h",
    "thrust/complex.h": "complex.h",
    "cupy/complex.cuh": "complex.h",
    "cupy/complex/complex.h": "complex.h",
    "cupy/cuComplex_bridge.h": "cucomplex_bridge.h",
    "cupy/float16.cuh": "float16.h",
    "cupy/carray.cuh": "carray.h",
    "cupy/atomics.cuh": "atomics.h",
    "math_constants.h": "math_constants.h",
    "cupy/math_constants.h": "math_constants.h",
    "limits": "limits.h",
    "type_traits": "type_traits.h",
    "utility": "type_traits.h",
    "algorithm": "algorithm.h",
}
"""Headers that a kernel may include: CUDA C++ of our own in ``headers/library``, translated with the kernel."""

Node = dict[str, Any]


def check_options(options: Sequence[str], filename: str) -> tuple[str, ...]:
    """Return the options in the form that clang takes: ``-D``, ``-U`` and ``-std=`` as CuPy's ``options`` has them.

    Raises:
        CompileError: any other option.
    """
    if len(options) > OPTIONS_MAX or any(len(option) > OPTION_CHARACTERS_MAX for option in options):
        limits = f"{OPTIONS_MAX} options of {OPTION_CHARACTERS_MAX} characters"
        raise CompileError([Diagnostic(f"too many options, or too long ones: at most {limits}")], filename)
    checked, standard, rest = [], "c++17", list(options)
    while rest:
        option = rest.pop(0)
        if option in ("-D", "-U", "--define-macro", "--undefine-macro") and rest:
            option = ("-D" if option in ("-D", "--define-macro") else "-U") + rest.pop(0)
        option = option.replace("--define-macro=", "-D").replace("--undefine-macro=", "-U")
        name, _, value = option.lstrip("-").partition("=")
        if name == "std" and value in STANDARDS and option.startswith(("-std", "--std")):
            standard = value
        elif option[:2] in ("-D", "-U") and _is_macro(option[2:]):
            checked.append(option)
        else:
            text = (
                f"the option {option!r} is not supported: only -DNAME=VALUE, -UNAME and -std={'|'.join(STANDARDS)} are"
            )
            raise CompileError([Diagnostic(text)], filename)
    return (f"-std={standard}", *checked)


def _is_macro(text: str) -> bool:
    name = text.partition("=")[0].partition("(")[0]
    return name.isidentifier() and name.isascii() and text.isprintable()


def parse(code: str, options: Sequence[str], tools: Toolchain, cache: Path | None) -> Node:
    """Return clang's tree of the source, as ``-ast-dump=json`` has it.

    Args:
        code: CUDA C++.
        options: as ``check_options`` returns them.
        tools: the compilers.
        cache: where precompiled headers are kept; None for nowhere.

    Raises:
        CompileError: the source is too large or not correct, or it exhausted the compiler.
    """
    data = code.encode(errors="surrogatepass")
    if len(data) > SOURCE_BYTES_MAX:
        text = f"the source has {len(data)} bytes, at most {SOURCE_BYTES_MAX} are allowed"
        raise CompileError([Diagnostic(text)], tools.filename)
    (tools.folder / "kernel.cu").write_bytes(data)
    (tools.folder / "empty.h").write_bytes(b"")
    surface = _precompiled(options, tools, cache) if cache else None
    _write_overlay(tools.folder, surface)
    header = ("-include-pch", PRECOMPILED) if surface else ("-include", SURFACE)
    outcome = tools.run(*_command(options), "-ast-dump=json", *header, SOURCE)
    findings = _findings(outcome.errors, tools.filename)
    if surface and outcome.status and not findings:
        surface.unlink(missing_ok=True)  # it may be damaged: this time without it
        return parse(code, options, tools, None)
    if findings:
        raise CompileError(findings, tools.filename)
    if outcome.status:
        raise tools.crash(outcome)
    try:
        tree: Node = json.loads(outcome.output)
    except RecursionError:
        text = "an expression or statement is nested too deeply: split it"
        raise CompileError([Diagnostic(text)], tools.filename) from None
    return tree


def _command(options: Sequence[str]) -> list[str]:
    return [
        *("clang", "-cc1", "-x", "cuda", "-fcuda-is-device", "-triple", "nvptx64-nvidia-cuda", *options),
        *("-ivfsoverlay", "files.yaml", "-nostdsysteminc", "-nobuiltininc", "-nostdinc++", "-isystem", VIRTUAL),
        *("-fno-builtin", "-w", "-ferror-limit", "20", "-fno-caret-diagnostics", "-disable-pragma-debug-crash"),
        *("-Wno-register", "-Wno-reserved-user-defined-literal"),  # nvcc warns where clang would refuse
        *("-ftemplate-depth=256", "-fbracket-depth", "256", "-fconstexpr-depth=256", "-fconstexpr-steps=1048576"),
    ]


def _write_overlay(folder: Path, surface: Path | None) -> None:
    """Write the list of all files that clang can see."""
    files = {"kernel.cu": folder / "kernel.cu", "surface.h": HEADERS / "surface.h"}
    files |= dict.fromkeys(EMPTY_HEADERS, folder / "empty.h")
    files |= {name: HEADERS / "library" / file for name, file in LIBRARY_HEADERS.items()}
    if surface:
        files[PRECOMPILED.rpartition("/")[2]] = surface
    contents = [{"type": "file", "name": name, "external-contents": str(path)} for name, path in files.items()]
    roots = [{"type": "directory", "name": VIRTUAL, "contents": contents}]
    overlay = {"version": 0, "fallthrough": False, "use-external-names": False, "roots": roots}
    (folder / "files.yaml").write_text(json.dumps(overlay))


def _precompiled(options: Sequence[str], tools: Toolchain, cache: Path) -> Path | None:
    """Return the precompiled surface.h for these options, made now if it is not there; None if it cannot be kept."""
    surface = (HEADERS / "surface.h").read_bytes()
    standard = options[0]  # macros come later: they do not change what surface.h declares, see parse()
    key = hashlib.blake2b(surface + f"\0{compiler_version()}\0{standard}".encode(), digest_size=16).hexdigest()
    path = cache / f"surface-{key}.pch"
    if path.exists():
        return path
    made = tools.folder / "surface.pch"
    _write_overlay(tools.folder, None)
    outcome = tools.run(*_command([standard]), "-emit-pch", "-fno-pch-timestamp", "-o", str(made), SURFACE)
    if outcome.status:
        raise tools.crash(outcome)
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        temporary = cache / f".{path.name}.{secrets.token_hex(4)}"
        try:
            shutil.copyfile(made, temporary)  # the private folder may be on another file system
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in sorted(cache.glob("surface-*.pch"), key=lambda file: file.stat().st_mtime_ns)[:-PRECOMPILED_MAX]:
            old.unlink(missing_ok=True)
        return path
    return None


def _findings(text: str, filename: str) -> list[Diagnostic]:
    """Read clang's messages: the errors, without the notes."""
    found = []
    for line in text.splitlines():
        for mark in (": error: ", ": fatal error: "):
            place, separator, message = line.partition(mark)
            parts = place.rsplit(":", 2)
            if separator and len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
                file = filename if parts[0] == SOURCE else parts[0]
                found.append(Diagnostic(_clearer(message), int(parts[1]), int(parts[2]), file))
                break
        note = line.partition(": note: candidate ")[2]
        if note and found and found[-1].text.startswith("no matching ") and "(" not in found[-1].text:
            found[-1] = replace(found[-1], text=f"{found[-1].text} ({note})")
    return found


def _clearer(message: str) -> str:
    """Say of an unknown name, or a file, why it is unknown."""
    for start in ("use of undeclared identifier '", "unknown type name '", "no template named '", "no type named '"):
        if message.startswith(start):
            return why_refused(message.removeprefix(start).partition("'")[0])
    if " in namespace 'std'" in message:
        return f"{message.partition(';')[0]}: {why_refused('std').partition(': ')[2]}, each with its header"
    if message.endswith(" not found"):
        return f"{message}: {why_no_file(message.split(chr(39))[1] if chr(39) in message else '')}"
    return message
