"""Kernels in somebody's CUDA program, cut free of its host code as a person would do who pastes them into a RawKernel.

A ``.cu`` file is read with the headers that it includes put in their place, with the macros and folders that the
Makefile beside it names, and cut into *pieces*: preprocessor lines, and declarations at namespace level. Host functions
and host variables are left out; everything else stays. Pieces are told apart by their words alone, which is good enough
to count with: what is kept wrongly is refused by the translator, and ``wild.py`` then leaves out the pieces in which
the errors are, as that person would.

Includes of what is neither in the suite nor known to the translator (``<vector>``, ``<iostream>``) are left out, and
what nvcc brings of the C++ library without being asked is included where ``std`` is written.

Of a template, the instance is taken that the file launches (``name<float, 16><<<``); constants of the host function
around the launch are put in. What is deduced, or a parameter of a host template, is not known from one file: there,
``float``, ``int``, then ``double`` stands for types and 16 for numbers. In Python files, kernels are the strings given
to CuPy.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from depin_node.compute.translate.frontend import EMPTY_HEADERS, LIBRARY_HEADERS

FILE_BYTES_MAX = 2 << 20
DEPTH_MAX = 20
GUESSES = ("float", "int", "double")
"""What a template's types are if the file does not say."""
STANDARD = "".join(f"#include <{name}>\n" for name in ("algorithm", "limits", "type_traits", "utility"))
"""What CUDA's own headers include, so that programs for nvcc leave it out."""
PYTHON_KINDS = {"RawKernel": 2, "RawModule": 1, "ElementwiseKernel": 3, "ReductionKernel": 6}
"""CuPy's classes, with how many of their first arguments are texts."""
_TOKEN = re.compile(
    r"""(?P<line>^[ \t]*\#(?:\\\r?\n|/\*.*?\*/|[^\n])*)|(?P<skip>\n|[^\S\n]+|//(?:\\\n|[^\n])*|/\*.*?\*/)
    |(?P<text>R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[A-Za-z_]\w*)|(?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(?:if|el|endif)(?:\\\r?\n|[^\n])*", re.MULTILINE)
_DEFINE = re.compile(r"-D[A-Za-z_]\w*(=[\w.+-]+)?")
_LOCAL_INCLUDE = re.compile(r'\s*#\s*include\s*[<"]([^">]+)[">]')
_MACRO = re.compile(r"\s*#\s*define\s+(\w+)\s+(.*)", re.DOTALL)
_AGGREGATES = frozenset({"struct", "class", "union", "enum", "typedef", "using"})
_DEVICE = frozenset({"__global__", "__device__", "__constant__"})
_CONSTANT = frozenset({"const", "constexpr"})
_BUILTIN = re.compile(
    r"(u?(char|short|int|long|longlong)|float|double|half|float16)[1-4]?|u?int(8|16|32|64)_t|true|false|const|size_t|bool"
    r"|unsigned|signed|void|__half2?"
)
_DEFINED = re.compile(
    r"\b(?:struct|class|union|enum|enum\s+class|using|define)\s+(\w+)|\b(?:const|constexpr)\b[^;=(]*?\b(\w+)\s*="
    r"|\btypedef\b[^;]*?\b(\w+)\s*;|\}\s*(\w+)\s*;"
)
_NUMBERS = re.compile(r"\b(int|unsigned|size_t|bool|long|short|auto|uint32_t|int32_t|std::size_t|char)\b")


@dataclass
class Piece:
    """A run of lines of a file. ``kernel``: its name, with its namespaces, if it defines one."""

    text: str
    origin: Path
    fixed: bool = False
    """It holds others together (a directive, a namespace's brace) and is never left out."""
    device: bool = False
    kernel: str = ""
    template: tuple[str, ...] | None = None
    """A kernel's template parameters, as written."""


@dataclass
class Source:
    """One translation unit: what is kept of it, and the names to ask the translator for."""

    pieces: list[Piece] = field(default_factory=list)
    host: list[str] = field(default_factory=list)
    devices: set[str] = field(default_factory=lambda: set(_DEVICE))
    """What says that a piece is for the device; macros that stand for it included."""
    macros: tuple[str, ...] = ()
    """``-D`` options of the Makefile."""
    folders: tuple[Path, ...] = ()
    """``-I`` options of the Makefile."""


def find_files(folder: Path) -> list[Path]:
    """Return the CUDA and Python files below a folder that may hold kernels, in order of their names."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".cu", ".py") and path.is_file() and path.stat().st_size <= FILE_BYTES_MAX
    )


def read_source(path: Path, root: Path) -> Source:
    """Cut a ``.cu`` file into pieces; includes are looked for beside it, in ``include`` and in ``src``."""
    source = Source()
    makefile = next((f / "Makefile" for f in (path.parent, path.parent.parent) if (f / "Makefile").is_file()), None)
    if makefile:
        words = makefile.read_text(errors="replace").split()
        source.macros = tuple(dict.fromkeys(word for word in words if _DEFINE.fullmatch(word)))
        named = [word[2:] for word in words if word.startswith("-I") and "$" not in word]
        source.folders = tuple(makefile.parent / name for name in named)
    _read(path, root, source, set(), [], 0)
    if any(re.search(r"\bstd\b", piece.text) for piece in source.pieces):
        source.pieces.insert(0, Piece(STANDARD, path, fixed=True))
    return source


def _read(path: Path, root: Path, source: Source, seen: set[Path], spaces: list[str], depth: int) -> None:
    seen.add(path)
    for piece in _pieces(path.read_text(errors="replace"), path, source, spaces):
        include = _LOCAL_INCLUDE.match(piece.text) if piece.fixed else None
        found = _included(path, root, include[1], source.folders) if include else None
        if found is None:
            if include is None or include[1] in LIBRARY_HEADERS or include[1] in EMPTY_HEADERS:
                source.pieces.append(piece)
        elif found not in seen and depth < DEPTH_MAX:
            _read(found, root, source, seen, spaces, depth + 1)


def _included(path: Path, root: Path, name: str, named: tuple[Path, ...]) -> Path | None:
    here = path.parent
    for folder in (here, here / "include", here / "src", here.parent, here.parent / "include", *named):
        candidate = (folder / name).resolve()
        if candidate.is_relative_to(root) and candidate.is_file() and candidate.stat().st_size <= FILE_BYTES_MAX:
            return candidate
    return None


def _pieces(text: str, path: Path, source: Source, spaces: list[str]) -> Iterator[Piece]:
    """Cut a text. ``spaces`` is the stack of open namespaces, ``""`` for ``extern "C" {`` and unnamed ones."""
    start, depth, round_depth = 0, 0, 0
    words: list[str] = []
    branches: list[int] = []
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match[0]
        if kind == "mark":
            kind = "text"
        if kind == "skip":
            continue
        if kind == "line":
            behind = _depth_at(token, depth, branches)
            if words:
                depth = behind
                continue
            yield Piece(token, path, fixed=True)
            macro = _MACRO.match(token)
            if macro and source.devices & set(re.findall(r"\w+", macro[2])):
                source.devices.add(macro[1])
            start = match.end()
            continue
        if not words:
            start = match.start()
        words.append(token)
        round_depth += (token == "(") - (token == ")") if depth == 0 else 0
        if token == "{":
            if depth == 0 and ("namespace" in words[:2] or words[:-1] == ["extern", '"C"']):
                spaces.append(words[-2] if "namespace" in words[:-2] else "")
                yield Piece(text[start : match.end()], path, fixed=True)
                words = []
                continue
            depth += 1
            continue
        if token == "}":
            if depth == 0:
                if spaces:
                    spaces.pop()
                yield Piece("}", path, fixed=True)
                words = []
                continue
            depth -= 1
            if depth or not _is_function(words):
                continue
        elif token != ";" or depth or round_depth:
            continue
        piece = _classify(text[start : match.end()], words, path, source, spaces)
        if piece is None:
            source.host.append(text[start : match.end()])
            yield from directives(text[start : match.end()], path)
        else:
            yield piece
        words, depth, round_depth = [], 0, 0
    if words:
        yield from directives(text[start:], path)


def _depth_at(line: str, depth: int, branches: list[int]) -> int:
    """Return how deep braces are behind a directive: each branch begins as deep as the first (``branches``) did."""
    word = line.strip().lstrip("#").split(maxsplit=1)[:1]
    if word and word[0].startswith("if"):
        branches.append(depth)
    elif branches and word in (["else"], ["elif"]):
        return branches[-1]
    elif branches and word == ["endif"]:
        branches.pop()
    return depth


def directives(text: str, path: Path) -> Iterator[Piece]:
    """Yield the conditionals in a text that is left out: they may open or close what lies outside of it."""
    for line in _DIRECTIVE.finditer(text):
        yield Piece(line[0], path, fixed=True)


def _plain(words: list[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """Return the words before the body without the template head, and the template's parameters."""
    head = words[: words.index("{")] if "{" in words else words
    if head[:2] != ["template", "<"]:
        return head, None
    depth, parameters, current = 0, [], [""]
    for place, word in enumerate(head[1:], 1):
        depth += (word == "<") - (word == ">")
        if depth == 0:
            parameters.append(" ".join(current).strip())
            rest, more = _plain(head[place + 1 :])
            return rest, tuple(p for p in parameters if p) if more is None else None
        if word == "," and depth == 1:
            parameters.append(" ".join(current).strip())
            current = [""]
        elif place > 1:
            current.append(word)
    return head, None


def _is_function(words: list[str]) -> bool:
    head, _ = _plain(words)
    if "operator" in head:
        return not _AGGREGATES & {head[0]}
    if "(" not in head or "=" in head[: head.index("(")]:
        return False
    return not (_AGGREGATES & set(head[: head.index("(")])) or (head[-1] in (")", "const") and head[0] != "typedef")


def _classify(text: str, words: list[str], path: Path, source: Source, spaces: list[str]) -> Piece | None:
    head, template = _plain(words)
    if "__global__" in head or any(word in source.devices and "global" in word.lower() for word in head):
        name = _function_name(head)
        qualified = "::".join([*(space for space in spaces if space), name]) if name and "{" in words else ""
        return Piece(text, path, device=True, kernel=qualified, template=template)
    if source.devices & set(words):
        return Piece(text, path, device=True)
    if (
        not head
        or _AGGREGATES & set(head[:3])
        or (_CONSTANT & set(head) and not _is_function(words))
        or "constexpr" in head
    ):
        return Piece(text, path)
    return None


def _function_name(head: list[str]) -> str:
    """Return the word before the parameter list: the first round bracket that no attribute owns."""
    place = 0
    while "(" in head[place:]:
        place = head.index("(", place)
        word = head[place - 1] if place else ""
        if word.isidentifier() and word not in (
            "__launch_bounds__",
            "__attribute__",
            "__align__",
            "alignas",
            "__declspec",
        ):
            return word
        depth = 0
        for place in range(place, len(head)):  # noqa: B020 - goes on behind the attribute's brackets
            depth += (head[place] == "(") - (head[place] == ")")
            if depth == 0:
                break
        place += 1
    return ""


def instances(kernel: Piece, source: Source) -> list[str]:
    """Return the names to try, as ``name_expressions`` takes them: what the file launches, then guesses."""
    short = kernel.kernel.rpartition("::")[2]
    if kernel.template is None:
        return list(dict.fromkeys([kernel.kernel, short]))
    parameters = [parameter for parameter in kernel.template if "..." not in parameter]
    launch = re.compile(rf"\b{re.escape(short)}\s*<((?:[^<>;]|<[^<>;]*>)*)>\s*(?:<<<|[;,)])")
    texts = [*source.host, *(piece.text for piece in source.pieces if _MACRO.match(piece.text))]
    written = [_split(found[1]) for text in texts for found in launch.finditer(text)]
    names = {word for piece in source.pieces for found in _DEFINED.findall(piece.text) for word in found if word}
    host = "\n".join(source.host)
    lists = []
    for kind, arguments in itertools.product(GUESSES, [*written[:3], []]):
        pairs = _pairs(parameters, arguments)
        lists.append([(given and _known(given, names, host)) or _argument(p, kind) for p, given in pairs])
    return list(dict.fromkeys(f"{kernel.kernel}<{', '.join(arguments)}>" for arguments in lists))


def _split(arguments: str) -> list[str]:
    return [found.strip() for found in re.findall(r"(?:[^,<>()]|<[^<>]*>|\([^()]*\))+", arguments) if found.strip()]


def _pairs(parameters: list[str], arguments: list[str]) -> list[tuple[str, str]]:
    """Pair parameters with arguments (``""`` where there is none, but not behind them for one with a default)."""
    rest = [(parameter, "") for parameter in parameters[len(arguments) :] if "=" not in parameter]
    return [*zip(parameters, arguments, strict=False), *rest]


def _known(argument: str, names: set[str], host: str) -> str:
    """Return a launch's template argument with constants of the host put in, or nothing if more of it is unknown."""
    for word in set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", argument)):
        if word in names or _BUILTIN.fullmatch(word):
            continue
        value = re.search(rf"\b{word}\s*=\s*(\d+|true|false)\b", host)
        if value is None:
            return ""
        argument = re.sub(rf"\b{word}\b", value[1], argument)
    return argument


def _argument(parameter: str, kind: str) -> str:
    if re.match(r"(typename|class)\b", parameter):
        return kind
    return "true" if parameter.startswith("bool") else "16" if _NUMBERS.search(parameter) else kind


def read_python(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the kernels of a Python file: CuPy's class, and the texts it is given."""
    try:
        tree = ast.parse(path.read_text(errors="replace"))
    except (SyntaxError, ValueError):
        return
    names = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called not in PYTHON_KINDS:
            continue
        given = [*node.args, *(word.value for word in node.keywords if word.arg == "code")]
        texts = [names.get(item.id) if isinstance(item, ast.Name) else getattr(item, "value", None) for item in given]
        if texts and all(isinstance(item, str) for item in texts[: PYTHON_KINDS[called]]):
            yield called, tuple(str(item) for item in texts[: PYTHON_KINDS[called]])
