"""The typed tree as C++ text, the same for every code shape.

All types have fixed sizes (``i32``, ``f64``; headers/device.h), every conversion is written out, no identifier is the
user's, and ``const`` is gone. What differs from plain C++ is where C++ leaves a result undefined that CUDA's devices
define: conversions from float to integer saturate, shifts by too much give what is left, bits of NaNs are canonical.
"""

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.ranges import is_wide
from depin_node.compute.translate.semantics import SYNCHRONISING, Facts, body_of, through_union, visible_bits
from depin_node.compute.translate.stores import canonical_of
from depin_node.compute.translate.types import (
    VOID,
    Array,
    Pointer,
    Record,
    Reference,
    Scalar,
    Type,
    Void,
)

_COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!=", "&&", "||"})
_SHIFTS = {"<<": "shl", ">>": "shr"}


def cpp(type_: Type) -> str:
    """Return a type's C++ name."""
    if isinstance(type_, Scalar):
        return type_.name
    if isinstance(type_, Void):
        return "void"
    if isinstance(type_, Pointer):
        return f"{cpp(type_.target)}*"
    if isinstance(type_, Reference):
        return f"{cpp(type_.target)}&"
    if isinstance(type_, Array):
        return f"cuda::array<{cpp(type_.element)}, {type_.count or 1}>"
    return type_.cpp


def print_records(records: list[Record]) -> str:
    """Return the definitions of structs and unions."""
    lines = [f"{'union' if record.is_union else 'struct'} {record.cpp};" for record in records]
    for record in records:
        members = " ".join(f"{cpp(field.type)} {field.name};" for field in record.fields)
        align = f"alignas({record.align}) " if record.align else ""
        lines.append(f"{'union' if record.is_union else 'struct'} {align}{record.cpp} {{ {members} }};")
    return "\n".join(lines)


class Printer:
    """Prints functions; ``waits``: the coroutine shape, in which synchronising functions are tasks."""

    narrow = True
    """Addresses have 32 bits."""
    may_store_canonical = True
    """Whether stores make NaNs canonical where all of a kernel's can (stores.py)."""

    def __init__(self, facts: Facts, *, waits: bool) -> None:
        self.facts, self.waits = facts, waits
        self.in_range: set[int] = set()
        """The ids of indices that have been checked already."""
        self._task = False
        self._function: t.Function | None = None

    def is_task(self, function: t.Function) -> bool:
        """Whether a function is printed as a coroutine."""
        return self.waits and function in self.facts.synchronising

    def signature(self, function: t.Function, attributes: str) -> str:
        """Return a function's head. Every function gets the thread ``k``."""
        result = cpp(function.result)
        if self.is_task(function):
            result, attributes = f"cuda::Task<{result}>", ""
        parameters = "".join(f", {cpp(p.type)} {p.cpp}" for p in function.parameters)
        return f"static {attributes}{result} {function.cpp}(cuda::Thread& k{parameters})"

    def function(self, function: t.Function, attributes: str) -> str:
        """Return a function's definition."""
        return self.definition(
            function, body_of(function), self.signature(function, attributes), self.is_task(function)
        )

    def definition(self, function: t.Function, body: t.Block, head: str, task: bool) -> str:
        """Return a definition with this head and body."""
        self._task, self._function = task, function
        start, end = "", ""
        if function in self.facts.recursive:
            start = "cuda::Deeper deeper(k);\n"
        if function.constructs and function.self_variable is not None:
            start_value = "{}" if function.starts_as_zeros else f"CUDA_UNSET({cpp(function.result)})"
            start += f"{cpp(function.result)} {function.self_variable.cpp} = {start_value};\n"
            end = f"{self._return} {function.self_variable.cpp};\n"
        elif function.result == VOID:
            end = "co_return;\n" if task else ""
        elif not isinstance(function.result, Reference):
            end = f"{self._return} {{}};\n"
        return f"{head} {{\n{start}{self._body(body)}{end}}}\n"

    @property
    def _return(self) -> str:
        return "co_return" if self._task else "return"

    # ---- statements

    def _body(self, block: t.Block) -> str:
        return "".join(self.statement(statement) for statement in block.body)

    def statement(self, node: t.Statement) -> str:
        """Return a statement, with its end of line."""
        if isinstance(node, t.Block):
            return "{\n" + self._body(node) + "}\n"
        if isinstance(node, t.Evaluate):
            return f"{self.expression(node.value)};\n"
        if isinstance(node, t.Declare):
            return self.declaration(node)
        if isinstance(node, t.If):
            no = "" if node.no is None else f"else {self.statement(node.no)}"
            return f"if ({self.expression(node.condition)}) {self.statement(node.yes)}{no}"
        if isinstance(node, t.Loop):
            return self._loop(node)
        if isinstance(node, t.Switch):
            return f"switch ({self.expression(node.value)}) {{\n{self._body(node.body)}}}\n"
        if isinstance(node, t.Case):
            return f"case {node.value.text}:;\n" if node.value else "default:;\n"
        if isinstance(node, t.Jump):
            return f"{node.kind};\n"
        assert isinstance(node, t.Return)
        return self._print_return(node)

    def declaration(self, node: t.Declare) -> str:
        """Return a local variable's declaration: what has no value starts as zeros."""
        variable = node.variable
        if node.value is None and isinstance(variable.type, Array) and not node.bare:
            return f"CUDA_UNSET_ARRAY({variable.cpp}, {cpp(variable.type)});\n"
        if node.value is None:
            value = "" if node.bare else f" = CUDA_UNSET({cpp(variable.type)})"
        elif isinstance(node.value, t.Initialise):
            value = f" = {self.braces(node.value)}"
        else:
            value = f" = {self.expression(node.value)}"
        return f"{cpp(variable.type)} {variable.cpp}{value};\n"

    def _loop(self, node: t.Loop) -> str:
        condition = "" if node.condition is None else self.expression(node.condition)
        if node.do:
            return f"do {self.statement(node.body)}while ({condition});\n"
        step = "" if node.step is None else self.expression(node.step)
        return f"for (; {condition}; {step}) {self.statement(node.body)}"

    def _print_return(self, node: t.Return) -> str:
        function = self._function
        assert function is not None
        if function.constructs and function.self_variable is not None:
            return f"{self._return} {function.self_variable.cpp};\n"
        if node.value is None:
            return f"{self._return};\n"
        if function.result == VOID:
            return f"{{ {self.expression(node.value)}; {self._return}; }}\n"
        return f"{self._return} {self.expression(node.value)};\n"

    # ---- expressions

    def expression(self, node: t.Expression) -> str:
        """Return an expression, with parentheses around it where it is not atomic."""
        method = getattr(self, "_" + type(node).__name__.lower())
        text: str = method(node)
        return text

    def _literal(self, node: t.Literal) -> str:
        return node.text

    def _name(self, node: t.Name) -> str:
        if node.variable.storage == "dynamic":
            return f"(*({cpp(node.type)}*)cuda::dynamic_shared)"
        return node.variable.cpp

    def _threadname(self, node: t.ThreadName) -> str:
        return f"k.{node.name}"

    def _unary(self, node: t.Unary) -> str:
        bits = visible_bits(node)
        if bits is not None:
            return f"cuda::bits<{cpp(node.type)}>({self.expression(bits)})"
        operand = self.expression(node.operand)
        return f"({operand}{node.op[1:]})" if node.op[0] == "p" else f"({node.op}{operand})"

    def _binary(self, node: t.Binary) -> str:
        left, right = self.expression(node.left), self.expression(node.right)
        if isinstance(node.type, Pointer) and node.op in ("+", "-"):
            by, base, offset = node.right, left, right
            if isinstance(by.type, Pointer):
                by, base, offset = node.left, right, left
            if self._may_stray(by):
                return f"cuda::moved(k, {base}, {'-' if node.op == '-' else ''}(i64){offset})"
        if node.op in _SHIFTS and not _is_small_shift(node):
            return f"cuda::{_SHIFTS[node.op]}<{cpp(node.type)}>({left}, {right})"
        if self.narrow and node.op == "-" and isinstance(node.right.type, Pointer):
            return f"cuda::apart({left}, {right})"
        return f"({left} {node.op} {right})"

    def _assign(self, node: t.Assign) -> str:
        scalar = canonical_of(node.left) if self.may_store_canonical and self.facts.canonical else None
        if scalar is None:
            return self._store(node)
        if node.op:
            return f"cuda::made_canonical({self._store(node)})"
        return f"({self._target(node)} = cuda::canonical_all<{cpp(scalar)}>({self.expression(node.right)}))"

    def _target(self, node: t.Assign) -> str:
        """Return the lvalue that an assignment writes."""
        return self.place(node.left)

    def _store(self, node: t.Assign) -> str:
        left = self._target(node)
        if not node.op:
            value = self.expression(node.right)
            if t.is_float(node.left.type) and through_union(node.left, self.facts.punned_unions):
                value = f"cuda::canonical({value})"
            return f"({left} = {value})"
        right, compute = self.expression(node.right), cpp(node.compute)
        if isinstance(node.left.type, Pointer) and self._may_stray(node.right):
            return f"cuda::move(k, {left}, {'-' if node.op == '-' else ''}(i64){right})"
        if node.op in _SHIFTS:
            return f"cuda::{_SHIFTS[node.op]}_assign<{compute}>({left}, {right})"
        if t.is_float(node.compute) and not t.is_float(node.left.type):
            name = {"+": "add", "-": "sub", "*": "mul", "/": "div"}[node.op]
            return f"cuda::{name}_assign<{compute}>({left}, {right})"
        return f"({left} {node.op}= {right})"

    def place(self, node: t.Expression) -> str:
        """Return an lvalue that is written: there ``*(int*)&x`` is memory, not a value."""
        if visible_bits(node) is not None:
            assert isinstance(node, t.Unary)
            return f"(*{self.expression(node.operand)})"
        return self.expression(node)

    def _conditional(self, node: t.Conditional) -> str:
        parts = (self.expression(part) for part in (node.condition, node.yes, node.no))
        return "({} ? {} : {})".format(*parts)

    def _index(self, node: t.Index) -> str:
        base, index = self.expression(node.base), self.expression(node.index)
        return f"cuda::at(k, {base}, {index})" if self._may_stray(node.index) else f"{base}[{index}]"

    def _may_stray(self, index: t.Expression) -> bool:
        """Whether it has to be noticed if an index leaves the addresses, which have 32 bits here."""
        return self.narrow and is_wide(index) and id(index) not in self.in_range

    def _member(self, node: t.Member) -> str:
        return f"{self.expression(node.object)}.{node.field.name}"

    def _cast(self, node: t.Cast) -> str:
        if node.kind == "null":
            return "nullptr"
        operand = self.expression(node.operand)
        if node.kind == "truth" or (node.kind == "value" and isinstance(node.type, Scalar) and node.type.kind == "b"):
            return f"({operand} != 0)"
        if node.kind == "value" and t.is_float(node.operand.type) and not t.is_float(node.type) and node.type != VOID:
            return f"cuda::to_integer<{cpp(node.type)}>({operand})"
        return f"(({cpp(node.type)}){operand})"

    def _call(self, node: t.Call) -> str:
        arguments = [self.expression(argument) for argument in node.arguments]
        if isinstance(node.function, t.Function):
            text = f"{node.function.cpp}({', '.join(['k', *arguments])})"
            return f"(co_await {text})" if self.is_task(node.function) else text
        text = f"cuda::{node.function}({', '.join(arguments)})"
        return f"(co_await {text})" if node.function in SYNCHRONISING else text

    def _initialise(self, node: t.Initialise) -> str:
        if isinstance(node.type, Array):
            return self.braces(node)
        return f"{cpp(node.type)}{self.braces(node)}" if isinstance(node.type, Record) else f"(({cpp(node.type)})0)"

    def braces(self, node: t.Initialise) -> str:
        """Return ``{a, b}``."""
        items = [self.braces(i) if isinstance(i, t.Initialise) and i.items else self.expression(i) for i in node.items]
        if node.member is None:
            return "{" + ", ".join(items) + "}"
        if t.is_float(node.member.type) and node.type in self.facts.punned_unions:
            items = [f"cuda::canonical({items[0]})"]
        return f"{{.{node.member.name} = {items[0]}}}"

    def _temporary(self, node: t.Temporary) -> str:
        operand = self.expression(node.operand)
        if not isinstance(node.operand, t.Initialise):
            operand = f"static_cast<{cpp(node.type)}>({operand})"
        return f"cuda::lvalue({operand})"


def _is_small_shift(node: t.Binary) -> bool:
    count = node.right
    while isinstance(count, t.Cast) and count.kind == "value":
        count = count.operand
    if not isinstance(count, t.Literal) or not isinstance(node.type, Scalar):
        return False
    digits = count.text.rstrip("ul")
    return digits.isdigit() and int(digits) < node.type.bits


class GuardPrinter(Printer):
    """Prints the overflow-checked test of a row's ends; ``fine`` turns false where a value leaves its type."""

    def _binary(self, node: t.Binary) -> str:
        left, right = self.expression(node.left), self.expression(node.right)
        if node.op in _COMPARISONS or node.op in "/%":  # quotients are the same in the whole row: nothing to check
            return f"({left} {node.op} {right})"
        name = {"+": "add", "-": "sub", "*": "mul"}[node.op]
        return f"cuda::checked_{name}<{cpp(node.type)}>({left}, {right}, fine)"

    def _unary(self, node: t.Unary) -> str:
        operand = self.expression(node.operand)
        return operand if node.op == "+" else f"cuda::checked_sub<{cpp(node.type)}>(0, {operand}, fine)"

    def _cast(self, node: t.Cast) -> str:
        return f"cuda::checked_cast<{cpp(node.type)}>({self.expression(node.operand)}, fine)"
