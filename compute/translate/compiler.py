"""From CUDA source to compiled kernels: the passes in their order, within one deadline, with a cache around them.

    source ─ frontend ─► clang's tree ─ index, lower ─► typed tree ─ semantics ─► facts
           ─ shapes ─► C++ ─ backend ─► WebAssembly

Each pass is a module that explains itself; each raises for what it does not understand, so nothing is miscompiled by
guessing. A fault of a pass is told as what it is, with the pass; in a fast shape it costs only speed. All of it runs in
the submitting process; providers get the module.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.abi import slot_offsets
from depin_node.compute.translate.backend import compile_cpp
from depin_node.compute.translate.cache import Cache, cache_folder
from depin_node.compute.translate.errors import CompileError, Diagnostic, Unsupported
from depin_node.compute.translate.frontend import Node, check_options, parse
from depin_node.compute.translate.index import Index
from depin_node.compute.translate.kernel_names import explain, is_plain, with_lookups
from depin_node.compute.translate.lower import Lowering
from depin_node.compute.translate.print_cuda import print_cuda
from depin_node.compute.translate.reads import only_stored_through
from depin_node.compute.translate.semantics import analyse
from depin_node.compute.translate.shapes import Shape, print_kernel, print_unit
from depin_node.compute.translate.stores import stores_canonical
from depin_node.compute.translate.toolchain import Toolchain
from depin_node.compute.translate.types import Array, Pointer, Scalar, Type, Void, has_pointer, numbers, show, size_of
from depin_node.core.errors import DepinError, ResourceError

LANES_MAX = 4
VALUE_BYTES_MAX = 1024
"""Of a parameter that is passed by value."""
KERNELS_MAX = 64


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes:
        name: as in the source; ``argument0`` and so on where it has none.
        kind: a pointer to global memory, or a value.
        dtype: NumPy's name of the scalar; for pointers, of what they point to. Structs of mixed members are ``uint8``.
        lanes: of a vector type such as ``float4``, or a struct of up to four equal members; of any struct by value,
            how many equal members it has, or else its bytes; else 1.
        const: of a pointer: nothing is written through it, ``const T*``.
        read: of a pointer: something may be read through it, see reads.py.
        constant_bytes: 0 of what the source declares as a parameter. Else it is hidden, after those, in the source's
            order: a pointer to the ``__constant__`` variable of this name and of so many bytes, which the host sets.
    """

    name: str
    kind: Literal["pointer", "scalar"]
    dtype: str
    lanes: int = 1
    const: bool = False
    read: bool = True
    constant_bytes: int = 0

    @property
    def pointer(self) -> bool:
        """Whether the argument is an address; see abi.py."""
        return self.kind == "pointer"


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel, ready to run.

    Attributes:
        name: of the kernel, as it was asked for.
        entry: its place in the unit: the module runs it as ``run<entry>``.
        parameters: in order.
        module: WebAssembly, of the whole unit; abi.py has its interface.
        cuda: the whole unit for GPUs.
        shape: how a block's threads run, see shapes.py.
        exact: its bits are defined, as far as the source tells; see semantics.py.
        notes: why not exact, one sentence each with the line.
        shared_bytes: of static shared memory.
    """

    name: str
    entry: int
    parameters: tuple[Parameter, ...]
    module: bytes = field(repr=False)
    cuda: str = field(repr=False)
    shape: Shape
    exact: bool
    notes: tuple[str, ...]
    shared_bytes: int


@dataclass(frozen=True)
class CompiledUnit:
    """Kernels of one source, ready to run.

    Attributes:
        module: WebAssembly; abi.py has its interface.
        cuda: the same as CUDA C++ for GPUs, printed from the typed tree, without a preprocessor directive.
        kernels: in the order in which they were asked for.
    """

    module: bytes = field(repr=False)
    cuda: str = field(repr=False)
    kernels: tuple[CompiledKernel, ...]


def compile_kernel(
    code: str,
    name: str,
    options: Sequence[str] = (),
    *,
    filename: str = "kernel.cu",
    deadline_s: float = 30.0,
    _shape: Shape | None = None,
) -> CompiledKernel:
    """Translate one kernel of a CUDA source: a unit of one; see ``compile_unit``."""
    unit = compile_unit(code, (name,), options, filename=filename, deadline_s=deadline_s, _shape=_shape)
    return unit.kernels[0]


def compile_unit(
    code: str,
    names: Sequence[str],
    options: Sequence[str] = (),
    *,
    name_expressions: Sequence[str] = (),
    filename: str = "kernel.cu",
    deadline_s: float = 30.0,
    trial: bool = False,
    _shape: Shape | None = None,
) -> CompiledUnit:
    """Translate kernels of one CUDA source to one WebAssembly module.

    Args:
        code: CUDA C++, at most 1 MiB; only headers that every kernel has anyway can be included.
        names: of the ``__global__`` functions, 1 to 64, all different; instances of templates as ``scale<float>``.
        options: ``-D``, ``-U`` and ``-std=``, as in CuPy.
        name_expressions: more instances of templates: what a mangled name among ``names`` may mean.
        filename: how messages call the source.
        deadline_s: for the whole translation.
        trial: to make the variant that runs backwards over memory of ones (headers/runtime.h), to be compared with the
            module itself; never in the fission shape, whose order is fixed.
        _shape: for tests: the shape to take.

    Raises:
        CompileError: the source is wrong, uses what is not supported, or exhausted the compiler.
        ConfigError: the compiler is not installed.
        ResourceError: there is no room for its files.
    """
    if not 1 <= len(set(names)) == len(names) <= KERNELS_MAX:
        text = f"a unit has 1 to {KERNELS_MAX} kernels, each of another name: {len(names)} were asked for"
        raise CompileError([Diagnostic(text)], filename)
    checked = check_options(options, filename)
    cache = Cache(cache_folder())
    expressions = [name for name in dict.fromkeys([*names, *name_expressions]) if not is_plain(name)]
    key = cache.key(code, names, (*checked, *expressions), "trial" if trial else _shape or "")
    found = cache.get(key)
    if found is not None:
        return found
    try:
        with tempfile.TemporaryDirectory(prefix="depin-compile-", ignore_cleanup_errors=True) as folder:
            tools = Toolchain(Path(folder), filename, deadline_s)
            with _pass("front end", filename):
                tree = _parse(code, expressions, checked, tools, cache)
            with _pass("lowering", filename):
                unit = Lowering(Index(tree)).unit(names, expressions)
            del tree
            compiled = _finish(unit, names, tools, trial, _shape)
    except Unsupported as error:
        raise CompileError([error.diagnostic], filename) from None
    except RecursionError:
        text = "an expression or statement is nested too deeply: split it"
        raise CompileError([Diagnostic(text)], filename) from None
    except OSError as error:
        raise ResourceError(f"{filename}: the compiler cannot use its folder for temporary files: {error}") from error
    cache.put(key, compiled)
    return compiled


@contextmanager
def _pass(name: str, filename: str) -> Iterator[None]:
    """Turn what a pass should never raise into an error that says whose fault it is.

    Raises:
        CompileError: there was such a fault. What passes do raise goes through.
    """
    try:
        yield
    except (DepinError, Unsupported, RecursionError, OSError, MemoryError):
        raise
    except Exception as error:
        text = (
            f"the translator failed in its {name} ({type(error).__name__}: {error}): this is a fault of depin-node, "
            "not of the kernel. Please report it with the source; written in another way the kernel may translate"
        )
        raise CompileError([Diagnostic(text)], filename) from error


def _parse(code: str, expressions: Sequence[str], options: Sequence[str], tools: Toolchain, cache: Cache) -> Node:
    try:
        return parse(with_lookups(code, expressions), options, tools, cache.folder)
    except CompileError as error:
        raise explain(error, code, expressions, tools.filename) from None


def _finish(unit: t.Unit, names: Sequence[str], tools: Toolchain, trial: bool, wanted: Shape | None) -> CompiledUnit:
    kernels, texts = [], []
    with _pass("semantic pass", tools.filename):
        facts = [analyse(kernel) for kernel in unit.kernels]
        canonical = all(stores_canonical(kernel) for kernel in unit.kernels)
        for found in facts:
            found.canonical, found.trial = canonical, trial
    for entry, (kernel, name, found) in enumerate(zip(unit.kernels, names, facts, strict=True)):
        parameters = _parameters(kernel.entry)
        if trial:
            wanted = "coroutine" if kernel.entry in found.synchronising else "loop"
        with _pass("shapes", tools.filename):
            shape, text = print_kernel(kernel, found, parameters, wanted)
        texts.append(text)
        kernels.append(
            CompiledKernel(
                name=name,
                entry=entry,
                parameters=parameters,
                module=b"",
                cuda="",
                shape=shape,
                exact=not found.notes,
                notes=tuple(found.notes),
                shared_bytes=sum(size_of(variable.type) for variable in kernel.shared),
            )
        )
    with _pass("back end", tools.filename):
        module = compile_cpp(print_unit(unit, texts, facts), tools, trial=trial, canonical=canonical)
    with _pass("CUDA text", tools.filename):
        cuda = print_cuda(unit, facts)
    return with_texts(CompiledUnit(module, cuda, tuple(kernels)))


def with_texts(unit: CompiledUnit) -> CompiledUnit:
    """Return the unit with its module and its CUDA text in each kernel."""
    return replace(unit, kernels=tuple(replace(k, module=unit.module, cuda=unit.cuda) for k in unit.kernels))


def _parameters(entry: t.Function) -> tuple[Parameter, ...]:
    hidden, unread = list(entry.hidden.values()), only_stored_through(entry)
    parameters = tuple(
        _hidden_parameter(variable) if variable in hidden else _parameter(place, variable, variable not in unread)
        for place, variable in enumerate(entry.parameters)
    )
    names = [parameter.name for parameter in parameters]
    for variable in hidden:
        if names.count(variable.name) > 1:
            text = f"{variable.name}: give this __constant__ variable a name that nothing else has"
            raise Unsupported(text, variable.line, 1)
    try:
        slot_offsets(parameters)
    except ValueError as error:
        raise Unsupported(str(error), entry.line, 1) from None
    return parameters


def _parameter(place: int, variable: t.Variable, read: bool) -> Parameter:
    type_, name = variable.type, variable.name or f"argument{place}"
    if isinstance(type_, Pointer):
        dtype, lanes = _element(type_.target, variable)
        return Parameter(name, "pointer", dtype, lanes, type_.const, read)
    if has_pointer(type_) or size_of(type_) > VALUE_BYTES_MAX:
        text = f"{variable.name}: a parameter of type {show(type_)} is not supported: pass its members"
        if has_pointer(type_):
            text += ", for there are pointers in it"
        raise Unsupported(text, variable.line, 1)
    return Parameter(name, "scalar", *(numbers(type_) or ("uint8", size_of(type_))))


def _hidden_parameter(variable: t.Variable) -> Parameter:
    assert isinstance(variable.type, Pointer)
    whole = element = variable.type.target
    while isinstance(element, Array):
        element = element.element
    dtype, lanes = _element(element, variable)
    return Parameter(variable.name, "pointer", dtype, lanes, const=True, constant_bytes=size_of(whole))


def _element(target: Type, variable: t.Variable) -> tuple[str, int]:
    if isinstance(target, Void):
        return "uint8", 1
    if isinstance(target, Pointer):
        raise Unsupported(f"{variable.name}: pointers to pointers are not supported", variable.line, 1)
    if has_pointer(target):
        raise Unsupported(f"{variable.name}: pointers to {show(target)} are not supported", variable.line, 1)
    parts = numbers(target)
    if parts is None:
        return "uint8", 1
    dtype, count = parts
    return dtype, count if count <= LANES_MAX and not isinstance(target, Scalar) else 1
