"""The text of a generated kernel: its signature, the user's fragments in it, and whose line an error is in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from depin_node.compute.programs.generated.arguments import Argument, Arguments
from depin_node.compute.programs.generated.layout import INDEX_32_MAX, Axes, Blocks
from depin_node.compute.programs.generated.parameters import C_TYPES
from depin_node.compute.programs.kernel import InOut, Out, RawKernel
from depin_node.core.errors import ConfigError

if TYPE_CHECKING:
    from depin_node.compute.translate import CompiledKernel

SOURCES_MAX = 256
"""Kernels kept in memory, so that launching one again does not compile it again."""
_HEADERS = {
    "complex": "cupy/complex.cuh",
    "float16": "cupy/float16.cuh",
    "half": "cuda_fp16.h",
    "atomicM(ax|in)": "cupy/atomics.cuh",
    "_floor_divide": "cupy/carray.cuh",
}
"""What CuPy includes in every such source, by the word that needs it."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_FINDING = re.compile(r"(?m)^(?P<file>[^\n]*?)(?::(?P<line>\d+):(?P<column>\d+))?: error: (?P<text>.*)$")


@dataclass(frozen=True)
class Lowered:
    """What a kernel and its arguments became: a launch, as of any raw kernel."""

    kernel: RawKernel
    grid: int | Sequence[int]
    block: int | Sequence[int]
    args: Sequence[Any]


@dataclass(frozen=True)
class Fragment:
    """Where in a text something of the user's stands: ``lines`` from ``first`` on (counted from 1)."""

    label: str
    first: int
    lines: int


class GeneratedKernel(RawKernel):
    """A raw kernel whose errors and notes name the user's fragments and the lines in them."""

    def __init__(self, code: str, name: str, options: Sequence[str], fragments: Sequence[Fragment]) -> None:
        super().__init__(code, name, options, filename=f"{name}.cu")
        self.fragments = tuple(fragments)
        self._compiled: CompiledKernel | None = None

    def compile(self) -> "CompiledKernel":
        """Compile it, once. Raises as ``RawKernel.compile``."""
        if self._compiled is None:
            from depin_node.compute.translate import CompileError

            try:
                compiled = super().compile()
            except CompileError as error:
                raise self._placed(error) from None
            self._compiled = replace(compiled, notes=tuple(map(self._in_fragment, compiled.notes)))
        return self._compiled

    def _find(self, line: int) -> tuple[str, int] | None:
        for fragment in self.fragments:
            if 0 <= line - fragment.first < fragment.lines:
                return fragment.label, line - fragment.first + 1
        return None

    def _in_fragment(self, note: str) -> str:
        match = re.match(r"line (\d+): ", note)
        found = match and self._find(int(match[1]))
        return f"{found[0]}, line {found[1]}: {note[match.end() :]}" if match and found else note

    def _placed(self, error: Exception) -> Exception:
        from depin_node.compute.translate.errors import CompileError, Diagnostic

        findings = []
        for match in _FINDING.finditer(str(error)):
            line, column = int(match["line"] or 0), int(match["column"] or 0)
            found = self._find(line)
            file, line = (f"{self.name}, {found[0]}", found[1]) if found else (match["file"], line)
            findings.append(Diagnostic(match["text"], line, column, file))
        return CompileError(findings, self.filename) if findings else error


class Text:
    """A source being written."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.fragments: list[Fragment] = []

    def add(self, text: str) -> None:
        """Add lines of ours."""
        self._lines += text.strip("\n").split("\n")

    def user(self, label: str, text: str, before: str = "", after: str = "") -> None:
        """Add lines of the user's; ``before`` and ``after`` are lines of ours around them."""
        if before:
            self.add(before)
        lines = re.split(r"\r\n|\r|\n", text)
        self.fragments.append(Fragment(label, len(self._lines) + 1, len(lines)))
        self._lines += lines
        if after:
            self.add(after)

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


@lru_cache(maxsize=SOURCES_MAX)
def generated_kernel(
    code: str, name: str, options: tuple[str, ...], fragments: tuple[Fragment, ...]
) -> GeneratedKernel:
    """Return the kernel of a source, the same object for the same source."""
    return GeneratedKernel(code, name, options, fragments)


@dataclass
class Signature:
    """The parameters of a kernel, with what they are given: the user's, then numbers of ours."""

    declarations: list[str] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    """Ours: the C type by the name."""

    def pointer(self, argument: Argument, given: Any) -> None:
        """Add an array of the user's."""
        const = "" if argument.output else "const "
        self.declarations.append(f"{const}{argument.info.c_type}* __restrict__ {argument.info.name}")
        self.args.append(given)

    def scalar(self, argument: Argument) -> None:
        """Add a number of the user's."""
        self.declarations.append(f"const {argument.info.c_type} {argument.info.name}")
        self.args.append(argument.number)

    def number(self, name: str, value: int, c_type: str = "long long") -> str:
        """Add a number of ours, once, and return its name."""
        if name not in self.numbers:
            self.numbers[name] = c_type
            self.declarations.append(f"const {c_type} {name}")
            self.args.append(value)
        return name

    def __str__(self) -> str:
        return ",\n    ".join(self.declarations)


def place(signature: Signature, axes: Axes, array: int, name: str, flat: str, group: str) -> str:
    """Return the C expression of where an array's element is, for the index ``flat`` of a loop over ``axes``.

    Args:
        signature: gets the lengths and strides that the expression needs.
        axes: of the loop.
        array: its number in ``axes``.
        name: its name.
        flat: a name, or an expression in parentheses.
        group: a letter for these axes.
    """
    factor = axes.factor(array)
    if factor == 0:
        return "0"
    if factor == 1:
        return flat
    if factor is not None:
        return f"{flat} * {signature.number(f'_{name}_{group}', factor)}"
    c_type = "unsigned int" if prod(axes.lengths) < INDEX_32_MAX else "long long"
    terms = []
    for axis, stride in enumerate(axes.strides[array]):
        if not stride:
            continue
        digit = f"({c_type}){flat}"
        if axis < len(axes.lengths) - 1:
            digit += f" / {signature.number(f'_{group}_inner{axis}', axes.inner(axis), c_type)}"
        if axis > 0:
            digit += f" % {signature.number(f'_{group}_length{axis}', axes.lengths[axis], c_type)}"
        terms.append(
            digit if stride == 1 else f"{digit} * {signature.number(f'_{name}_{group}{axis}', stride, c_type)}"
        )
    return f"(ptrdiff_t)({' + '.join(terms)})"


def blocks_head(signature: Signature, blocks: Blocks, lanes: int = 1) -> list[str]:
    """Return the declarations of what blocks begin with.

    ``_per_block`` is the elements of a block, ``_part`` its number in its row, ``_first`` its first element.

    Args:
        signature: gets the numbers that are needed.
        blocks: how the result is cut.
        lanes: threads for each element.
    """
    head = [f"const int _per_block = blockDim.x{f' / {lanes}' if lanes > 1 else ''};"]
    if blocks.parts == blocks.count:
        part, start = "blockIdx.x", ""
    else:
        row, parts = signature.number("_row", blocks.row), signature.number("_parts", blocks.parts, "unsigned int")
        part, start = f"blockIdx.x % {parts}", f"(ptrdiff_t)(blockIdx.x / {parts}) * {row} + "
    head.append(f"const unsigned int _part = {part};")
    head.append(f"const ptrdiff_t _first = {start}(ptrdiff_t)_part * _per_block;")
    return head


def declarations(arguments: Arguments, *fragments: str) -> str:
    """Return what a source begins with: the headers of CuPy's that it needs, and the type variables."""
    words = " ".join([*fragments, *(C_TYPES[a.dtype] for a in (*arguments.inputs, *arguments.outputs))])
    lines = [f"#include <{file}>" for word, file in _HEADERS.items() if re.search(rf"\b{word}\b", words)]
    lines += [f"typedef {C_TYPES[dtype]} {name};" for name, dtype in sorted(arguments.variables.items())]
    return "\n".join(lines)


def checked_name(name: Any, what: str) -> str:
    """Return a kernel's name. Raises ``ConfigError`` if C cannot have it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"invalid kernel name {name!r}: {what} takes a name as C has them, such as 'squared_diff'")
    return name


def checked_text(**texts: Any) -> None:
    """Raise ``ConfigError`` for what is not text, by its name."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ConfigError(f"{name}: expected text, not {type(text).__name__}")


def result_of(argument: Argument, shape: tuple[int, ...], blocks: Blocks, shards: int) -> Out | InOut:
    """Return an output as ``bind`` takes it, with its tile."""
    name, given = argument.info.name, argument.shape
    assert given is not None
    tile: tuple[int, ...] | None = blocks.tile if given == shape and shards > 1 else None
    if shards > 1 and tile is None:
        raise ConfigError(
            f"{name} is raw and has the shape {given}, the loop {shape}: which thread writes what is not known, "
            "so it cannot be cut: use one shard"
        )
    if isinstance(argument.out, InOut):
        return InOut(argument.out.array, tile)
    return Out(argument.dtype, given, tile)
