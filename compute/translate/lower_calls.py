"""Calls and objects: from clang's nodes to the typed tree.

Every call names the function that is meant: a function of the source, which is lowered in turn, or one of the device
header. Constructors are functions that return the object; those that only copy, or only set to zero, are no calls.
"""

from typing import Any

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.frontend import Node
from depin_node.compute.translate.index import FUNCTIONS, children, has_body
from depin_node.compute.translate.lower_expressions import Expressions, dereference
from depin_node.compute.translate.printing import check_arguments, cpp_text, text_bytes
from depin_node.compute.translate.types import (
    F32,
    F64,
    I8,
    I32,
    VOID,
    Array,
    Pointer,
    Record,
    Reference,
    Scalar,
    Type,
    size_of,
)

CONSTRUCTED_MAX = 256
_BUILTIN_FUNCTIONS = {
    "__builtin_popcount": "__popc",
    "__builtin_popcountll": "__popcll",
    "__builtin_popcountl": "__popcll",
    "__builtin_clz": "__clz",
    "__builtin_clzll": "__clzll",
    "__builtin_clzl": "__clzll",
    "__builtin_ffs": "__ffs",
    "__builtin_ffsll": "__ffsll",
    "__builtin_trap": "__trap",
    "__builtin_unreachable": "__trap",
}
_BUILTIN_LITERALS = {
    "__builtin_inff": (F32, "__builtin_inff()"),
    "__builtin_huge_valf": (F32, "__builtin_inff()"),
    "__builtin_inf": (F64, "__builtin_inf()"),
    "__builtin_huge_val": (F64, "__builtin_inf()"),
    "__builtin_nanf": (F32, '__builtin_nanf("")'),
    "__builtin_nan": (F64, '__builtin_nan("")'),
}


class Calls(Expressions):
    """Lowers expressions, calls and the making of objects too; ``Lowering`` has the rest."""

    def _CallExpr(self, node: Node) -> t.Expression:  # noqa: N802
        callee, *arguments = children(node)
        target = self._callee(callee)
        if target.get("kind") == "CXXMethodDecl":  # an operator, or a static method
            return self._call_method(node, target, arguments)
        return self._call(node, target, [lambda a=a: self.expression(a) for a in arguments])

    _CXXOperatorCallExpr = _CallExpr

    def _callee(self, node: Node) -> Node:
        while node.get("kind") in ("ImplicitCastExpr", "ParenExpr", "SubstNonTypeTemplateParmExpr", "UnaryOperator"):
            if node.get("kind") == "UnaryOperator" and node.get("opcode") not in ("&", "*"):
                break
            node = self._last(node)
        target: Node = node.get("referencedDecl", {})
        if node.get("kind") == "MemberExpr":  # a static method, called through an object
            return self.lowering.index.by_id.get(node.get("referencedMemberDecl", ""), {})
        if node.get("kind") != "DeclRefExpr" or target.get("kind") not in FUNCTIONS:
            raise self.refuse("only functions can be called: pointers to functions are not supported", node)
        return target

    def _call_method(self, node: Node, target: Node, arguments: list[Node]) -> t.Expression:
        method = self.lowering.index.definition(target.get("id", ""))
        if method is None:
            if target.get("name") == "operator=" and len(arguments) == 2:  # of a vector type
                return self._copy_assignment(node, arguments)
            raise self.refuse(f"{target.get('name', '')} is not supported", node)
        if self._copies(method):
            return self._copy_assignment(node, arguments)
        return self._call(node, method, [lambda a=a: self.expression(a) for a in arguments])

    def _copies(self, method: Node) -> bool:
        """Whether a method is an assignment that copies all members as they are."""
        if method.get("name") != "operator=" or not is_implicit(method):
            return False
        record = method.get("_record") or {}
        record = self.lowering.index.definition(record.get("id", "")) or record
        moves = "&&" in method.get("type", {}).get("qualType", "")
        return is_trivial(record, "moveAssign" if moves else "copyAssign")

    def _copy_assignment(self, node: Node, arguments: list[Node]) -> t.Expression:
        left, right = (self.expression(argument) for argument in arguments)
        return t.Assign(left.type, node["_line"], "", left, right, left.type)

    def _CXXMemberCallExpr(self, node: Node) -> t.Expression:  # noqa: N802
        callee, *arguments = children(node)
        while callee.get("kind") == "ParenExpr":
            callee = self._last(callee)
        method = self.lowering.index.definition(callee.get("referencedMemberDecl", ""))
        if method is None or callee.get("kind") != "MemberExpr":
            raise self.refuse("this call is not supported", node)

        def object_() -> t.Expression:
            base = self.expression(self._last(callee))
            if not callee.get("isArrow"):
                return base
            if not isinstance(base.type, Pointer):
                raise self.refuse("this call is not supported", node)
            return dereference(base, base.type.target, node["_line"])

        if self._copies(method):
            value = self.expression(arguments[0])
            left = object_()
            return t.Assign(left.type, node["_line"], "", left, value, left.type)
        return self._call(node, method, [object_, *(lambda a=a: self.expression(a) for a in arguments)])

    def _call(self, node: Node, target: Node, arguments: list[Any]) -> t.Expression:
        name, line = target.get("name", ""), node["_line"]
        declared = self.lowering.index.definition(target.get("id", ""))
        type_ = self.type_of(node)
        if name.startswith("__builtin_") and (declared is None or not has_body(declared)):
            return self._builtin(node, name, arguments)
        if declared is None and name in ("nan", "nanf"):  # whatever the text says: there is one NaN
            return self._builtin(node, f"__builtin_{name}", arguments)
        if declared is None and name == "printf":
            return self._printf(node)
        if declared is None:
            return t.Call(type_, line, name, [argument() for argument in arguments])
        if not has_body(declared):
            raise self.refuse(f"{name} is declared, but not defined", node)
        function = self.lowering.function(declared)
        if self.lowering.index.is_static(declared) and len(arguments) > len(function.parameters):
            arguments = arguments[1:]  # a static method's object
        return t.Call(type_, line, function, [argument() for argument in arguments])

    def _printf(self, node: Node) -> t.Expression:
        """Lower ``printf``: the format has to be a text, and the arguments have to fit it."""
        text = children(node)[1]
        while text.get("kind") in ("ImplicitCastExpr", "ParenExpr"):
            text = self._last(text)
        if text.get("kind") != "StringLiteral":
            raise self.refuse("printf takes a format that is written in the call", node)
        self._printing += 1
        form, *arguments = (self.expression(child) for child in children(node)[1:])
        self._printing -= 1
        try:
            check_arguments(self._text(text).decode("latin-1"), [argument.type for argument in arguments])
        except ValueError as error:
            raise self.refuse(str(error), node) from None
        return t.Call(I32, node["_line"], "printf", [form, *arguments])

    def _text(self, node: Node) -> bytes:
        type_ = self.type_of(node)
        try:
            if isinstance(type_, Array) and type_.element == I8 and type_.count:
                return text_bytes(node.get("value", ""), type_.count)
        except ValueError as error:
            raise self.refuse(str(error), node) from None
        raise self.refuse("only plain text is supported", node)

    def _StringLiteral(self, node: Node) -> t.Expression:  # noqa: N802
        if not self._printing:
            raise self.refuse("text is supported as an argument of printf only", node)
        return t.Literal(self.type_of(node), node["_line"], cpp_text(self._text(node)))

    def _builtin(self, node: Node, name: str, arguments: list[Any]) -> t.Expression:
        if name in _BUILTIN_LITERALS:
            return t.Literal(*(_BUILTIN_LITERALS[name][0], node["_line"], _BUILTIN_LITERALS[name][1]))
        line = node["_line"]
        if name in ("__builtin_expect", "__builtin_assume_aligned") and arguments:
            first: t.Expression = arguments[0]()
            return first
        if name == "__builtin_assume":
            return t.Cast(VOID, line, "value", t.Literal(I32, line, "0"))
        if name in _BUILTIN_FUNCTIONS:
            return t.Call(self.type_of(node), line, _BUILTIN_FUNCTIONS[name], [argument() for argument in arguments])
        raise self.refuse(f"{name} is not supported: use CUDA's own functions", node)

    # ---- objects

    def _CXXConstructExpr(self, node: Node) -> t.Expression:  # noqa: N802
        type_, line, arguments = self.type_of(node), node["_line"], children(node)
        wanted = node.get("ctorType", {}).get("qualType", "")
        if isinstance(type_, Array):
            element = type_.element
            while isinstance(element, Array):
                element = element.element
            constructor = isinstance(element, Record) and self.lowering.constructor(element, wanted)
            if constructor:
                function = self.lowering.function(constructor)
                return self._construct_all(node, type_, function, size_of(type_) // size_of(element))
            return t.Initialise(type_, line, [])
        if not isinstance(type_, Record):
            raise self.refuse("this construction is not supported", node)
        constructor = self.lowering.constructor(type_, wanted)
        if constructor:
            function = self.lowering.function(constructor)
            return t.Call(type_, line, function, [self.expression(argument) for argument in arguments])
        if not arguments:
            return t.Initialise(type_, line, [])
        if len(arguments) == 1:
            value = self.expression(arguments[0])
            if value.type == type_:
                return value
        if type_.name == "dim3" and type_.cpp == "cuda::dim3":
            return t.Initialise(type_, line, [self.expression(argument) for argument in arguments])
        raise self.refuse(f"this construction of {type_.name} is not supported", node)

    def _construct_all(self, node: Node, type_: Type, function: t.Function, total: int) -> t.Expression:
        """Return an array, or one of its elements, with each object made by a constructor."""
        if total > CONSTRUCTED_MAX:
            raise self.refuse(
                f"arrays of more than {CONSTRUCTED_MAX} objects with constructors are not supported", node
            )
        line = node["_line"]
        if not isinstance(type_, Array):
            return t.Call(type_, line, function, [self.expression(argument) for argument in children(node)])
        items = [self._construct_all(node, type_.element, function, total) for _ in range(type_.count or 0)]
        return t.Initialise(type_, line, items)

    def _LambdaExpr(self, node: Node) -> t.Expression:  # noqa: N802
        type_ = self.type_of(node)
        closure, *captures, _ = children(node)
        if not isinstance(type_, Record) or self.types.record(closure) is not type_:
            raise self.refuse("this lambda is not supported", node)
        items = []
        for field, capture in zip(type_.fields, captures, strict=True):
            value = self.expression(capture)
            items.append(t.Unary(field.type, value.line, "&", value) if field.by_reference else value)
        return t.Initialise(type_, node["_line"], items)

    _CXXTemporaryObjectExpr = _CXXConstructExpr

    def _InitListExpr(self, node: Node) -> t.Expression:  # noqa: N802
        type_, line = self.type_of(node), node["_line"]
        nodes = children(node)
        if "array_filler" in node:
            filler, *nodes = node["array_filler"]
            if not _is_zero(filler):
                raise self.refuse("write out all elements of an array of objects with constructors", node)
        items = [self.expression(child) for child in nodes]
        if isinstance(type_, Record) and len(type_.bases) <= len(items):
            empty = {place for place, (_, field) in enumerate(type_.bases) if field is None}
            items = [item for place, item in enumerate(items) if place not in empty]
        if isinstance(type_, Scalar | Pointer | Reference):
            return items[0] if items else t.Initialise(type_, line, [])
        if len(items) == 1 and isinstance(type_, Record) and items[0].type == type_:
            return items[0]
        member = None
        if isinstance(type_, Record) and type_.is_union and items:
            wanted = node.get("field", {}).get("id")
            member = next((field for field in type_.fields if field.id == wanted), None)
            if member is None:
                raise self.refuse("this initialiser of a union is not supported", node)
        return t.Initialise(type_, line, items, member)


def _is_zero(filler: Node) -> bool:
    """Whether what fills the rest of an array is zero."""
    if filler.get("kind") == "InitListExpr":
        return all(_is_zero(child) for child in (*filler.get("array_filler", ()), *children(filler)))
    return filler.get("kind") == "ImplicitValueInitExpr"


def is_trivial(record: Node, what: str) -> bool:
    """Whether a copy or move (``copyCtor``, ``moveAssign``, …) of a record takes its members as they are."""
    return bool(record.get("definitionData", {}).get(what, {}).get("trivial"))


def captured_variable(capture: Node) -> str:
    """Return the id of the variable that an initialiser of a closure's member copies or refers to; empty: of none."""
    while capture.get("kind") in ("ImplicitCastExpr", "ParenExpr", "CXXConstructExpr") and len(children(capture)) == 1:
        capture = children(capture)[0]
    target: Node = capture.get("referencedDecl", {}) if capture.get("kind") == "DeclRefExpr" else {}
    return str(target.get("id", ""))


def is_implicit(method: Node) -> bool:
    """Whether the compiler wrote this member function: then it copies."""
    return bool(method.get("isImplicit") or method.get("explicitlyDefaulted"))
