"""The types of a kernel, as the device sees them: ``long`` and ``size_t`` have 64 bits, ``char`` is signed.

Clang's JSON gives types as text. ``parse_type`` reads that text (not CUDA source) with a small recursive-descent
parser; names are looked up by a function that the caller passes. Qualifiers are dropped, except whether a pointer's
target is const. Enumerations are their underlying integer. Sizes follow the LP64 layout that nvptx64 and, for
everything without pointers, wasm32 share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Scalar:
    """``kind``: b(ool), i(nteger), u(nsigned), f(loat)."""

    kind: str
    bits: int

    @property
    def name(self) -> str:
        """The C++ name in the generated code."""
        return "bool" if self.kind == "b" else f"{self.kind}{self.bits}"

    @property
    def dtype(self) -> str:
        """NumPy's name."""
        return "bool" if self.kind == "b" else {"i": "int", "u": "uint", "f": "float"}[self.kind] + str(self.bits)


@dataclass(frozen=True)
class Void:
    """``void``."""


@dataclass(frozen=True)
class Pointer:
    """A pointer; ``const``: the target may not be written through it."""

    target: "Type"
    const: bool = False


@dataclass(frozen=True)
class Reference:
    """A reference, of either kind."""

    target: "Type"


@dataclass(frozen=True)
class Array:
    """``count`` is None for ``extern __shared__ T s[]``."""

    element: "Type"
    count: int | None


@dataclass
class Field:
    """A member of a record. Unnamed members have a name made from their place."""

    name: str
    type: "Type"
    id: str
    by_reference: bool = False
    """What a lambda has captured by reference: a pointer to it."""


@dataclass(eq=False)
class Record:
    """A struct or union; equal to itself only. ``cpp`` is its name in the generated code.

    ``dtype``: NumPy's name, for the classes of our library that are numbers (``half``, ``complex``).
    """

    name: str
    cpp: str
    is_union: bool = False
    align: int = 0
    fields: list[Field] = field(default_factory=list)
    bases: list["tuple[Record, Field | None]"] = field(default_factory=list)
    """Base classes, each with the field that holds it; None: it has no members, and is where the object begins."""
    dtype: str = ""


Type: TypeAlias = Scalar | Void | Pointer | Reference | Array | Record

BOOL = Scalar("b", 8)
I8, I16, I32, I64 = (Scalar("i", bits) for bits in (8, 16, 32, 64))
U8, U16, U32, U64 = (Scalar("u", bits) for bits in (8, 16, 32, 64))
F32, F64 = Scalar("f", 32), Scalar("f", 64)
VOID = Void()

_WORDS: dict[str, Type] = {
    "bool": BOOL,
    "char": I8,
    "signed char": I8,
    "unsigned char": U8,
    "short": I16,
    "unsigned short": U16,
    "int": I32,
    "unsigned int": U32,
    "long": I64,
    "unsigned long": U64,
    "long long": I64,
    "wchar_t": I32,
    "unsigned long long": U64,
    "float": F32,
    "double": F64,
    "void": VOID,
}
_BUILTIN = {word for name in _WORDS for word in name.split()} | {"char8_t", "char16_t", "char32_t"}
_BUILTIN |= {"__int128", "_Float16", "__bf16", "__fp16", "__float128", "_BitInt", "_Complex", "auto"}
_QUALIFIERS = {"const", "volatile", "restrict", "__restrict", "__restrict__"}
_KEYS = {"struct", "class", "union", "enum", "typename", "template"}

NAME_CHARACTERS_MAX = 200


class TypeTextError(ValueError):
    """A type's text is of no form that this compiler knows."""


@dataclass(frozen=True)
class Constant:
    """A const type as a template's argument: ``View<const float>`` is another class than ``View<float>``."""

    type: Type


Argument: TypeAlias = Type | Constant | int
"""A template's argument."""


@dataclass(frozen=True)
class Name:
    """One part of a qualified name, with its template arguments: types, or integers."""

    text: str
    arguments: "tuple[Argument, ...] | None" = None


Lookup = Callable[[Sequence[Name]], Type]
"""Finds a named type, or raises TypeTextError."""
LookupValue = Callable[[Sequence[Name]], int]
"""Finds a named integer (an enumerator in a template's argument), or raises TypeTextError."""


def parse_type(text: str, lookup: Lookup, lookup_value: LookupValue) -> Type:
    """Read a type as clang prints it.

    Raises:
        TypeTextError: it is not understood, or not supported.
    """
    parser = _Parser(text, lookup, lookup_value)
    result = parser.type()
    if parser.at < len(parser.tokens):
        raise TypeTextError(f"the type {shorten(text)!r} is not supported")
    return result


def shorten(text: str) -> str:
    """Bound a name for an error message."""
    return text if len(text) <= NAME_CHARACTERS_MAX else text[:NAME_CHARACTERS_MAX] + "…"


def _tokens(text: str) -> list[str]:
    result, at = [], 0
    while at < len(text):
        start, c = at, text[at]
        at += 1
        if c.isspace():
            continue
        if c.isalnum() or c == "_":
            while at < len(text) and (text[at].isalnum() or text[at] == "_"):
                at += 1
        elif text[start : start + 2] in ("::", "&&"):
            at += 1
        elif c == "(" and text.startswith(("(unnamed", "(anonymous", "(lambda"), start):
            at = text.find(")", start) + 1 or len(text)
        elif c == "'":  # a character as a template's argument
            at = text.find("'", start + 2) + 1 or len(text)
        result.append(text[start:at])
    return result


def parse_argument(text: str, lookup: Lookup, lookup_value: LookupValue) -> Argument:
    """Read a template's argument that is a type, as clang prints it.

    Raises:
        TypeTextError: it is not understood, or not supported.
    """
    return _Parser(text, lookup, lookup_value).type_argument()


class _Parser:
    def __init__(self, text: str, lookup: Lookup, lookup_value: LookupValue) -> None:
        self.text, self.lookup, self.lookup_value = text, lookup, lookup_value
        self.tokens, self.at = _tokens(text), 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else ""

    def fail(self) -> TypeTextError:
        return TypeTextError(f"the type {shorten(self.text)!r} is not supported")

    def type(self) -> Type:
        base, const = self.specifiers()
        return self.declarator(base, const)

    def specifiers(self) -> tuple[Type, bool]:
        const, words = False, list[str]()
        named: Type | None = None
        while True:
            word = self.peek()
            if word in _QUALIFIERS:
                const = const or word == "const"
            elif word in _KEYS:
                pass
            elif word in _BUILTIN and named is None:
                words.append(word)
            elif named is None and not words and (word[:1].isalpha() or word[:1] in "_(:") and word != "(":
                if not word:
                    break
                named = self.lookup(self.qualified())
                continue
            else:
                break
            self.at += 1
        if named is not None:
            return named, const
        name = " ".join(words)
        if name not in _WORDS:
            raise TypeTextError(f"the type {shorten(name or self.text)!r} is not supported")
        return _WORDS[name], const

    def qualified(self) -> list[Name]:
        names = []
        if self.peek() == "::":
            self.at += 1
        while True:
            word = self.next()
            if not (word[:1].isalpha() or word[:1] == "_" or word[:2] in ("(u", "(a", "(l")):
                raise self.fail()
            arguments = None
            if self.peek() == "<":
                self.at += 1
                arguments = self.template_arguments()
            names.append(Name(word, arguments))
            if self.peek() != "::":
                return names
            self.at += 1
            if self.peek() == "template":
                self.at += 1

    def template_arguments(self) -> tuple[Argument, ...]:
        arguments: list[Argument] = []
        while self.peek() != ">":
            arguments.append(self.template_argument())
            if self.peek() == ",":
                self.at += 1
            elif self.peek() != ">":
                raise self.fail()
        self.at += 1
        return tuple(arguments)

    def type_argument(self) -> Argument:
        base, const = self.specifiers()
        type_ = self.declarator(base, const)
        return Constant(type_) if const and type_ is base else type_

    def template_argument(self) -> Argument:
        word = self.peek()
        if word in ("true", "false"):
            self.at += 1
            return int(word == "true")
        if word[:1] == "'" and len(word) == 3:
            self.at += 1
            return ord(word[1])
        sign = 1
        if word == "-":
            self.at += 1
            sign, word = -1, self.peek()
        if word[:1].isdigit():
            self.at += 1
            return sign * int(word.rstrip("uUlL"))
        start = self.at
        try:
            return self.type_argument()
        except TypeTextError:
            self.at = start
            return self.lookup_value(self.qualified())

    def declarator(self, base: Type, const: bool) -> Type:
        while self.peek() in ("*", "&", "&&"):
            base = Pointer(base, const) if self.next() == "*" else Reference(base)
            const = False
            while self.peek() in _QUALIFIERS:
                const = self.next() == "const" or const
        inner: tuple[int, int] | None = None
        if self.peek() == "(":
            if self.at + 1 < len(self.tokens) and self.tokens[self.at + 1] not in ("*", "&", "&&", "("):
                raise TypeTextError(f"functions as values are not supported: {shorten(self.text)!r}")
            start, depth = self.at, 0
            while self.at < len(self.tokens):
                word = self.next()
                depth += (word == "(") - (word == ")")
                if not depth:
                    break
            inner = (start + 1, self.at - 1)
        counts: list[int | None] = []
        while self.peek() == "[":
            self.at += 1
            word = self.next()
            if word == "]":
                counts.append(None)
                continue
            if not word.isdigit() or self.next() != "]":
                raise TypeTextError(f"arrays of variable length are not supported: {shorten(self.text)!r}")
            counts.append(int(word))
        if self.peek() == "(":
            raise TypeTextError(f"pointers to functions are not supported: {shorten(self.text)!r}")
        for count in reversed(counts):
            base = _array(base, count)
        if inner is None:
            return base
        end, (self.at, stop) = self.at, inner
        rest, self.tokens = self.tokens[stop:], self.tokens[:stop]
        result = self.declarator(base, const)
        if self.at != stop:
            raise self.fail()
        self.tokens, self.at = self.tokens + rest, end
        return result


def _array(element: Type, count: int | None) -> Type:
    """Return an array. An array of references, as clang prints a deduced ``auto&``, is a reference to an array."""
    if isinstance(element, Reference):
        return Reference(_array(element.target, count))
    return Array(element, count)


def align_of(type_: Type) -> int:
    """Return the alignment in bytes."""
    if isinstance(type_, Scalar):
        return type_.bits // 8
    if isinstance(type_, Pointer | Reference):
        return 8
    if isinstance(type_, Array):
        return align_of(type_.element)
    if isinstance(type_, Record):
        return max([type_.align, 1, *(align_of(f.type) for f in type_.fields)])
    raise TypeTextError("void has no size")


def size_of(type_: Type) -> int:
    """Return the size in bytes."""
    if isinstance(type_, Array):
        if type_.count is None:
            raise TypeTextError("an array without a length has no size")
        return type_.count * size_of(type_.element)
    if not isinstance(type_, Record):
        return align_of(type_)
    end = 0
    for member in type_.fields:
        start = 0 if type_.is_union else -(-end // align_of(member.type)) * align_of(member.type)
        end = max(end, start + size_of(member.type))
    align = align_of(type_)
    return max(-(-end // align) * align, align)


def members_end(record: Record) -> int:
    """Return where the last member of a struct ends: before the padding at its end."""
    end = 0
    for member in record.fields:
        end = -(-end // align_of(member.type)) * align_of(member.type) + size_of(member.type)
    return end


def has_pointer(type_: Type) -> bool:
    """Whether a value of this type holds an address anywhere."""
    if isinstance(type_, Array):
        return has_pointer(type_.element)
    if isinstance(type_, Record):
        return any(has_pointer(member.type) for member in type_.fields)
    return isinstance(type_, Pointer | Reference)


def homogeneous(type_: Type) -> tuple[Scalar, int] | None:
    """Return the scalar that a value consists of and how many there are, side by side, or None if they differ."""
    if isinstance(type_, Scalar):
        return type_, 1
    if isinstance(type_, Array):
        inner = homogeneous(type_.element)
        return inner and (inner[0], inner[1] * (type_.count or 0))
    if not isinstance(type_, Record) or type_.is_union or not type_.fields:
        return None
    parts = [homogeneous(member.type) for member in type_.fields]
    scalars = {part[0] for part in parts if part}
    if None in parts or len(scalars) != 1:
        return None
    scalar, count = scalars.pop(), sum(part[1] for part in parts if part)
    return (scalar, count) if count * size_of(scalar) == size_of(type_) else None


def numbers(type_: Type) -> tuple[str, int] | None:
    """Return the dtype of the numbers that a value consists of and how many there are, or None if they differ."""
    if isinstance(type_, Scalar):
        return type_.dtype, 1
    if isinstance(type_, Array):
        inner = numbers(type_.element)
        return inner and (inner[0], inner[1] * (type_.count or 0))
    parts = homogeneous(type_)
    if not isinstance(type_, Record) or parts is None:
        return None
    if type_.dtype:
        return type_.dtype, 1
    inside = [numbers(member.type) for member in type_.fields]
    dtypes = {part[0] for part in inside if part}
    if None in inside or len(dtypes) != 1:
        return parts[0].dtype, parts[1]
    return dtypes.pop(), sum(part[1] for part in inside if part)


def show(type_: Type) -> str:
    """Return a name for error messages."""
    if isinstance(type_, Scalar):
        names = {"i8": "signed char", "u8": "unsigned char", "f32": "float", "f64": "double", "i32": "int"}
        return names.get(type_.name, type_.dtype)
    if isinstance(type_, Pointer):
        return f"{show(type_.target)} *"
    if isinstance(type_, Reference):
        return f"{show(type_.target)} &"
    if isinstance(type_, Array):
        return f"{show(type_.element)}[{type_.count or ''}]"
    return type_.name if isinstance(type_, Record) else "void"
