"""PTX text to functions of basic blocks.

A block ends before a label, and after each instruction that moves or waits: branches, calls, returns, barriers, warp
functions. Braces and directives inside a function only scope names; NVRTC's names are unique but for those of call
sequences, which are written before they are read.
"""

import re
from dataclasses import dataclass, field

import numpy as np

SIZES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}
SIZES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8, "pred": 1}
MOVES = ("bra", "brx", "ret", "exit", "trap", "call")
WAITS = ("bar", "barrier", "shfl", "vote")


class ParseError(Exception):
    """The text is not of the form that NVRTC writes."""


@dataclass
class Instruction:
    """``guard``: the predicate's register and whether it is negated."""

    op: str
    words: tuple[str, ...]
    operands: list[str]
    guard: tuple[str, bool] | None
    text: str


@dataclass
class Variable:
    """Of a memory space: where it lies is the machine's affair."""

    name: str
    space: str
    size: int
    align: int
    data: bytes = b""


@dataclass
class Function:
    """An entry, or a function that is called."""

    name: str
    entry: bool
    parameters: list[Variable]
    results: list[Variable]
    blocks: list[list[Instruction]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    """Of ``brx.idx``."""
    registers: dict[str, str] = field(default_factory=dict)
    """Name to type; ``%rd<`` stands for ``%rd1``, ``%rd2`` and so on."""
    variables: list[Variable] = field(default_factory=list)


@dataclass
class Module:
    """A whole text."""

    functions: dict[str, Function]
    variables: list[Variable]


_VARIABLE = re.compile(
    r"^(?:\.(?:visible|weak|extern|common)\s+)*\.(?P<space>global|const|shared|local|param)\s+(?:\.align\s+(?P<align>\d+)\s+)?"
    r"\.(?P<type>\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)??(?:\.align\s+\d+\s+)?)?(?P<name>[\w$]+)(?P<array>\[\d*\])?(?:\s*=\s*(?P<value>.*))?$",
    re.DOTALL,
)


def parse(text: str) -> Module:
    """Parse a module as NVRTC prints it."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"^\.(version|target|address_size)[^\n]*$", "", text, flags=re.MULTILINE)
    module, at = Module({}, []), 0
    while text[at:].strip():
        brace, end = text.find("{", at), text.find(";", at)
        head = text[at:brace] if brace >= 0 else ""
        if brace >= 0 and re.search(r"\.(entry|func)\b", head) and (end < 0 or brace < end):
            close = _matching(text, brace)
            function = _function(head, text[brace + 1 : close])
            module.functions[function.name] = function
            at = close + 1
            continue
        if end < 0:
            raise ParseError(text[at : at + 200])
        statement = text[at:end].strip()
        if not re.match(r"(\.\w+\s+)*\.func\b", statement):  # a declaration of what is defined below
            module.variables.append(_variable(statement))
        at = end + 1
    return module


def _matching(text: str, brace: int) -> int:
    depth = 0
    for at in range(brace, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return at
    raise ParseError("a brace is not closed")


def _variable(statement: str) -> Variable:
    match = _VARIABLE.match(" ".join(statement.split()))
    if not match:
        raise ParseError(statement)
    size = SIZES[match["type"]]
    count = int(match["array"][1:-1] or 0) if match["array"] else 1
    data = b""
    if match["value"]:
        items = match["value"].strip("{} ").split(",")
        data = b"".join((literal(item.strip()) & ((1 << 8 * size) - 1)).to_bytes(size, "little") for item in items)
    align = int(match["align"] or size)
    return Variable(match["name"], match["space"], size * count, align, data)


def literal(text: str) -> int:
    """Return an immediate's bits."""
    if text.startswith(("0f", "0d", "0F", "0D")):
        return int(text[2:], 16)
    return int(text.rstrip("U"), 0)


def _function(head: str, body: str) -> Function:
    match = re.search(r"\.(entry|func)\s*(?:\(([^)]*)\))?\s*([\w$]+)\s*(?:\(([^)]*)\))?", head, re.DOTALL)
    if not match:
        raise ParseError(head)
    kind, results, name, parameters = match.groups()
    function = Function(name, kind == "entry", _parameters(parameters), _parameters(results))
    current: list[Instruction] = []
    function.blocks.append(current)
    scopes: list[dict[str, str]] = [{}]
    for statement in _statements(body):
        if statement in "{}":
            scopes = [*scopes, dict(scopes[-1])] if statement == "{" else scopes[:-1]
            continue
        while match := re.match(r"([\w$]+):\s*", statement):
            table = re.match(r"([\w$]+):\s*\.branchtargets\s+(.*)", statement, re.DOTALL)
            if table:
                function.tables[table[1]] = [word.strip() for word in table[2].split(",")]
                statement = ""
                break
            if current:
                current = []
                function.blocks.append(current)
            function.labels[match[1]] = len(function.blocks) - 1
            statement = statement[match.end() :]
        if not statement:
            continue
        if statement.startswith(".reg"):
            _, type_, rest = statement.split(None, 2)
            for item in rest.split(","):
                name, many, _ = item.strip().partition("<")
                if len(scopes) > 1:  # it hides an outer one of the same name
                    scopes[-1][name] = name = f"%{name.lstrip('%')}@{len(function.registers)}"
                function.registers[name + ("<" if many else "")] = type_[1:]
        elif statement.startswith((".pragma", ".loc ")):
            pass
        elif statement.startswith("."):
            function.variables.append(_variable(statement))
        else:
            inner = scopes[-1]
            if inner:
                statement = re.sub(r"%?[\w$]+", lambda match, inner=inner: inner.get(match[0], match[0]), statement)
            instruction = _instruction(statement)
            current.append(instruction)
            if instruction.op in MOVES + WAITS:
                current = []
                function.blocks.append(current)
    return function


def _parameters(text: str | None) -> list[Variable]:
    return [_variable(item.strip()) for item in (text or "").split(",") if item.strip()]


def _statements(body: str) -> list[str]:
    """Split at semicolons; braces of scopes stand alone, those of vectors stay in their statement."""
    result, start, depth, at = [], 0, 0, 0
    while at < len(body):
        c = body[at]
        if c == "{" and (not body[start:at].strip() or body[start:at].rstrip().endswith(":")):
            result += [body[start:at].strip(), "{"]
            start = at + 1
        elif c == "}" and depth == 0:
            result.append("}")
            start = at + 1
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
        elif c == ";":
            result.append(" ".join(body[start:at].split()))
            start = at + 1
        at += 1
    return [item for item in result if item]


def _instruction(statement: str) -> Instruction:
    guard, text = None, statement
    if statement.startswith("@"):
        word, statement = statement[1:].split(None, 1)
        guard = (word.lstrip("!"), word.startswith("!"))
    head, _, rest = statement.partition(" ")
    op, *words = head.split(".")
    operands = re.findall(r"\([^)]*\)|\{[^}]*\}|\[[^\]]*\]|[^,\s]+", rest)
    return Instruction(op, tuple(words), operands, guard, text)


DTYPES = {"b8": "u1", "u8": "u1", "s8": "i1", "b16": "u2", "u16": "u2", "s16": "i2", "f16": "u2", "b32": "u4"}
DTYPES |= {"u32": "u4", "s32": "i4", "f32": "f4", "b64": "u8", "u64": "u8", "s64": "i8", "f64": "f8", "pred": "?"}


def dtype(name: str) -> np.dtype:
    """Return NumPy's type for PTX's."""
    return np.dtype(DTYPES[name])
