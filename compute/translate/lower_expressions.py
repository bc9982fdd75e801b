"""Expressions: from clang's nodes to the typed tree. One method for each kind of node; what has none is refused."""

import math
import struct
from typing import TYPE_CHECKING

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.frontend import Node
from depin_node.compute.translate.index import FUNCTIONS, Scope, children
from depin_node.compute.translate.names import Types
from depin_node.compute.translate.types import (
    BOOL,
    F32,
    F64,
    I32,
    Array,
    Pointer,
    Record,
    Reference,
    Scalar,
    Type,
    TypeTextError,
    align_of,
    has_pointer,
    show,
    size_of,
)

if TYPE_CHECKING:
    from depin_node.compute.translate.lower import Lowering

THREAD_NAMES = frozenset({"threadIdx", "blockIdx", "blockDim", "gridDim"})
WARP_SIZE = 32
_SAME = frozenset(
    {
        *("LValueToRValue", "NoOp", "FunctionToPointerDecay", "BuiltinFnToFnPtr", "ConstructorConversion"),
        "UserDefinedConversion",
    }
)
_VALUES = frozenset(
    {
        *("IntegralCast", "IntegralToFloating", "FloatingToIntegral", "FloatingCast", "IntegralToBoolean"),
        *("FloatingToBoolean", "BooleanToSignedIntegral", "ToVoid"),
    }
)
_WRAPPERS = frozenset(
    {
        *("ParenExpr", "ExprWithCleanups", "ConstantExpr", "CXXDefaultArgExpr", "CXXDefaultInitExpr"),
        *("SubstNonTypeTemplateParmExpr", "CXXStdInitializerListExpr", "CXXBindTemporaryExpr"),
    }
)
_REFUSED = {
    "PredefinedExpr": "text is supported as an argument of printf only",
    "SourceLocExpr": "text is supported as an argument of printf only",
    "CXXNewExpr": "memory cannot be allocated inside a kernel: use local or shared arrays, or pass a pointer",
    "CXXDeleteExpr": "memory cannot be allocated inside a kernel: use local or shared arrays, or pass a pointer",
    "CXXThrowExpr": "exceptions are not supported",
    "CUDAKernelCallExpr": "a kernel cannot launch another one: launch it from the host",
    "StmtExpr": "statements inside expressions are not supported",
    "BinaryConditionalOperator": "?: without its middle operand is not supported",
    "ImaginaryLiteral": "complex numbers are not supported yet",
    "AddrLabelExpr": "goto is not supported",
    "AtomicExpr": "only CUDA's own atomic functions are supported",
    "CXXTypeidExpr": "type information at run time is not supported",
    "CXXDynamicCastExpr": "type information at run time is not supported",
    "CXXPseudoDestructorExpr": "destructors are not supported",
    "OffsetOfExpr": "offsetof is not supported",
    "VAArgExpr": "functions with a variable number of arguments are not supported",
}


class Expressions:
    """Lowers expressions within ``scope``; ``Lowering`` has the rest."""

    lowering: "Lowering"
    types: Types
    scope: Scope
    self_variable: t.Variable | None
    _printing = 0
    """Within so many calls of ``printf``: only there is text known."""

    def expression(self, node: Node) -> t.Expression:
        """Lower one expression.

        Raises:
            Unsupported: this, or something in it, is not supported.
        """
        kind = node.get("kind", "")
        if kind in _WRAPPERS:
            return self.expression(self._last(node))
        method = getattr(self, "_" + kind, None)
        if method is None:
            text = _REFUSED.get(kind) or f"{kind or 'this'} is not supported"
            raise self.refuse(text, node)
        result: t.Expression = method(node)
        return result

    def refuse(self, text: str, node: Node) -> Unsupported:
        """Return the error for a node."""
        return Unsupported(text, node.get("_line", 0), node.get("_column", 0))

    def type_of(self, node: Node) -> Type:
        """Return a node's type."""
        return self.types.of(node, self.scope)

    def _last(self, node: Node) -> Node:
        inner = children(node)
        return inner[-1] if inner else {}

    def _literal(self, node: Node, type_: Type, value: int) -> t.Literal:
        return t.Literal(type_, node["_line"], integer_text(type_, value))

    # ---- constants

    def _IntegerLiteral(self, node: Node) -> t.Expression:  # noqa: N802 - clang's names
        return self._literal(node, self.type_of(node), int(node["value"]))

    def _CharacterLiteral(self, node: Node) -> t.Expression:  # noqa: N802
        return self._literal(node, self.type_of(node), int(node["value"]))

    def _CXXBoolLiteralExpr(self, node: Node) -> t.Expression:  # noqa: N802
        return t.Literal(self.type_of(node), node["_line"], "true" if node["value"] else "false")

    def _FloatingLiteral(self, node: Node) -> t.Expression:  # noqa: N802
        type_, value = self.type_of(node), float(node["value"])
        if math.isinf(value):
            return t.Literal(type_, node["_line"], "__builtin_inff()" if type_ == F32 else "__builtin_inf()")
        if type_ == F32:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        elif type_ != F64:
            raise self.refuse("long double is not supported", node)
        return t.Literal(type_, node["_line"], value.hex() + ("f" if type_ == F32 else ""))

    def _zero(self, node: Node) -> t.Expression:
        return t.Initialise(self.type_of(node), node["_line"], [])

    _ImplicitValueInitExpr = _zero
    _CXXScalarValueInitExpr = _zero

    def _SizeOfPackExpr(self, node: Node) -> t.Expression:  # noqa: N802
        for around in (self.lowering._node, self.lowering._node.get("_record") or {}):
            packs = [child for child in children(around) if child.get("isPack")]
            if len(packs) == 1:
                return self._literal(node, self.type_of(node), len(children(packs[0])))
        raise self.refuse("this sizeof... is not supported", node)

    def _UnaryExprOrTypeTraitExpr(self, node: Node) -> t.Expression:  # noqa: N802
        if "argType" in node:
            measured = self.types.of({**node, "type": node["argType"]}, self.scope)
        else:
            measured = self.type_of(self._last(node))
        if isinstance(measured, Reference):
            measured = measured.target
        if has_pointer(measured):
            text = f"the size of {show(measured)} differs between devices: pointers may not be measured"
            raise self.refuse(text, node)
        measure = {"sizeof": size_of, "alignof": align_of, "_Alignof": align_of}.get(node.get("name", ""))
        if measure is None:
            raise self.refuse(f"{node.get('name')} is not supported", node)
        try:
            return self._literal(node, self.type_of(node), measure(measured))
        except TypeTextError as error:
            raise self.refuse(str(error), node) from None

    # ---- names and places

    def _DeclRefExpr(self, node: Node) -> t.Expression:  # noqa: N802
        target = node.get("referencedDecl", {})
        kind, name = target.get("kind", ""), target.get("name", "")
        declared = self.lowering.index.by_id.get(target.get("id", ""))
        if kind == "EnumConstantDecl" and declared is not None:
            return self._literal(node, self.type_of(node), self.types.enumerator(declared))
        if kind not in ("VarDecl", "ParmVarDecl", "VarTemplateSpecializationDecl"):
            what = "functions as values are" if kind in FUNCTIONS else f"{name or kind} is"
            raise self.refuse(f"{what} not supported", node)
        if declared is not None:
            return self.lowering.variable(declared, node)
        if name in THREAD_NAMES:
            return t.ThreadName(self.type_of(node), node["_line"], name)
        if name == "warpSize":
            return self._literal(node, I32, WARP_SIZE)
        within = "_captures" in (self.lowering._node.get("_record") or {})
        what = "captures with an initialiser are not supported" if within else f"{name} is not supported"
        raise self.refuse(f"{name}: {what}" if within else what, node)

    def _CXXThisExpr(self, node: Node) -> t.Expression:  # noqa: N802
        variable = self.self_variable
        if variable is None:
            raise self.refuse("this is not supported here", node)
        target = variable.type.target if isinstance(variable.type, Reference) else variable.type
        line = node["_line"]
        record = self.lowering._node.get("_record") or {}
        for place, capture in enumerate(record.get("_captures", ())):  # the object of the method around a lambda
            while capture.get("kind") in ("ImplicitCastExpr", "UnaryOperator", "CXXConstructExpr"):
                capture = self._last(capture)
            if capture.get("kind") == "CXXThisExpr" and isinstance(target, Record):
                field = target.fields[place]
                member = t.Member(field.type, line, t.Name(target, line, variable), field, target)
                return member if isinstance(field.type, Pointer) else t.Unary(Pointer(field.type), line, "&", member)
        return t.Unary(Pointer(target), line, "&", t.Name(target, line, variable))

    def _MemberExpr(self, node: Node) -> t.Expression:  # noqa: N802
        member = self.lowering.index.by_id.get(node.get("referencedMemberDecl", ""))
        inner = self._last(node)
        if member is not None and member["kind"] == "EnumConstantDecl":
            return self._literal(node, self.type_of(node), self.types.enumerator(member))
        if member is not None and member["kind"] == "VarDecl":
            return self.lowering.variable(member, node)
        base = self.expression(inner)
        base_type = base.type
        if node.get("isArrow"):
            if not isinstance(base_type, Pointer):
                raise self.refuse("this member access is not supported", node)
            base_type = base_type.target
            base = dereference(base, base_type, node["_line"])
        if not isinstance(base_type, Record):
            raise self.refuse("this member access is not supported", node)
        wanted = node.get("referencedMemberDecl") if member is not None else node.get("name")
        for field in base_type.fields:
            if (field.id if member is not None else field.name) == wanted:
                record = base_type if member is not None else None
                return t.Member(field.type, node["_line"], base, field, record)
        raise self.refuse(f"the member {node.get('name', '')} is not supported", node)

    def _ArraySubscriptExpr(self, node: Node) -> t.Expression:  # noqa: N802
        base, index = (self.expression(child) for child in children(node))
        if not isinstance(base.type, Pointer):
            base, index = index, base
        if not isinstance(base.type, Pointer):
            raise self.refuse("this index is not supported", node)
        return t.Index(base.type.target, node["_line"], base, index)

    def _MaterializeTemporaryExpr(self, node: Node) -> t.Expression:  # noqa: N802
        inner = self.expression(self._last(node))
        return t.Temporary(inner.type, node["_line"], inner)

    # ---- operators

    def _UnaryOperator(self, node: Node) -> t.Expression:  # noqa: N802
        op, line = node["opcode"], node["_line"]
        operand = self.expression(self._last(node))
        if op == "&":
            if isinstance(operand, t.Unary) and operand.op == "*":
                return operand.operand
            return t.Unary(Pointer(operand.type), line, "&", operand)
        if op == "*":
            if not isinstance(operand.type, Pointer):
                raise self.refuse("this dereference is not supported", node)
            return dereference(operand, operand.type.target, line)
        if op in ("++", "--"):
            return t.Unary(operand.type, line, ("p" if node.get("isPostfix") else "") + op, operand)
        if op in ("+", "-", "~", "!"):
            return t.Unary(self.type_of(node), line, op, operand)
        if op == "__extension__":
            return operand
        raise self.refuse(f"the operator {op} is not supported", node)

    def _BinaryOperator(self, node: Node) -> t.Expression:  # noqa: N802
        op, line = node["opcode"], node["_line"]
        left, right = (self.expression(child) for child in children(node))
        if op == "=":
            return t.Assign(left.type, line, "", left, right, left.type)
        if op in (".*", "->*", "<=>"):
            raise self.refuse(f"the operator {op} is not supported", node)
        pointer = next((side.type for side in (left, right) if isinstance(side.type, Pointer)), None)
        if pointer is not None and op in ("+", "-") and not (op == "-" and isinstance(right.type, Pointer)):
            return t.Binary(pointer, line, op, left, right)
        type_ = right.type if op == "," else self.type_of(node)
        return t.Binary(type_, line, op, left, right)

    def _CompoundAssignOperator(self, node: Node) -> t.Expression:  # noqa: N802
        left, right = (self.expression(child) for child in children(node))
        compute = left.type
        if not isinstance(compute, Pointer):
            compute = self.types.of({**node, "type": node["computeResultType"]}, self.scope)
        op = node["opcode"].removesuffix("=")
        return t.Assign(left.type, node["_line"], op, left, right, compute)

    def _ConditionalOperator(self, node: Node) -> t.Expression:  # noqa: N802
        condition, yes, no = (self.expression(child) for child in children(node))
        type_ = yes.type if yes.type == no.type else self.type_of(node)
        return t.Conditional(type_, node["_line"], condition, yes, no)

    # ---- conversions

    def _cast(self, node: Node) -> t.Expression:
        kind, line, inner = node.get("castKind", ""), node["_line"], self._last(node)
        if kind in _SAME:
            return self.expression(inner)
        if kind in ("DerivedToBase", "UncheckedDerivedToBase", "BaseToDerived"):
            return self._between_classes(node, kind == "BaseToDerived")
        if kind == "ArrayToPointerDecay":
            operand = self.expression(inner)
            if not isinstance(operand.type, Array):
                raise self.refuse("this array is not supported", node)
            return t.Cast(Pointer(operand.type.element), line, "decay", operand)
        if kind == "PointerToBoolean" and self._last(inner).get("kind") == "StringLiteral":
            return t.Literal(BOOL, line, "true")  # assert(x && "why")
        type_ = self.type_of(node)
        if kind == "NullToPointer":
            return t.Cast(type_, line, "null", t.Literal(I32, line, "0"))
        operand = self.expression(inner)
        if kind in _VALUES:
            return t.Cast(type_, line, "value", operand)
        if kind == "PointerToBoolean":
            return t.Cast(type_, line, "truth", operand)
        if kind == "BitCast" and isinstance(type_, Pointer):
            return self._bits(node, type_, operand)
        if kind == "LValueBitCast":
            address = t.Unary(Pointer(operand.type), line, "&", operand)
            target = type_.target if isinstance(type_, Reference) else type_
            return dereference(self._bits(node, Pointer(target), address), target, line)
        if kind in ("PointerToIntegral", "IntegralToPointer"):
            raise self.refuse("conversions between pointers and integers are not supported", node)
        raise self.refuse(f"the conversion {kind} is not supported", node)

    _ImplicitCastExpr = _CStyleCastExpr = _CXXStaticCastExpr = _CXXReinterpretCastExpr = _cast
    _CXXConstCastExpr = _CXXFunctionalCastExpr = _cast

    def _between_classes(self, node: Node, down: bool) -> t.Expression:
        """Lower a conversion between a class and one of its bases, of an object or of a pointer to one."""
        operand, line, type_ = self.expression(self._last(node)), node["_line"], self.type_of(node)
        pointer = isinstance(operand.type, Pointer)
        target = type_.target if isinstance(type_, Pointer | Reference) else type_
        if isinstance(operand.type, Pointer):
            operand = dereference(operand, operand.type.target, line)
        if not isinstance(operand.type, Record) or not isinstance(target, Record):
            raise self.refuse("this conversion between classes is not supported", node)
        found = _as_derived(operand, target) if down else _as_base(operand, target)
        if found is None:
            raise self.refuse("this conversion between classes is not supported", node)
        if not pointer:
            return found
        if isinstance(found, t.Unary) and found.op == "*":
            return found.operand
        return t.Unary(Pointer(target), line, "&", found)

    def _bits(self, node: Node, type_: Pointer, operand: t.Expression) -> t.Expression:
        for end in (type_, operand.type):
            if isinstance(end, Pointer) and has_pointer(end.target):
                raise self.refuse("pointers may not be read as other types", node)
        return t.Cast(type_, node["_line"], "bits", operand)


def _as_base(place: t.Expression, base: Record) -> t.Expression | None:
    """Return the part of an object that is of a base class; None if it is not one of its bases."""
    assert isinstance(place.type, Record)
    for record, field in place.type.bases:
        if field is not None:
            part: t.Expression = t.Member(record, place.line, place, field, place.type)
        else:
            address = t.Unary(Pointer(place.type), place.line, "&", place)
            part = t.Unary(record, place.line, "*", t.Cast(Pointer(record), place.line, "base", address))
        found = part if record is base else _as_base(part, base)
        if found is not None:
            return found
    return None


def _as_derived(place: t.Expression, derived: Record) -> t.Expression | None:
    """Return the object that a base class's object is a part of, if it is the first part."""
    if not _begins_with(derived, place.type):
        return None
    address = t.Unary(Pointer(place.type), place.line, "&", place)
    return t.Unary(derived, place.line, "*", t.Cast(Pointer(derived), place.line, "base", address))


def _begins_with(derived: Record, base: Type) -> bool:
    for record, field in derived.bases:
        if (field is None or field is derived.fields[0]) and (record is base or _begins_with(record, base)):
            return True
    return False


def integer_text(type_: Type, value: int) -> str:
    """Return C++ text for an integer of exactly this type."""
    if not isinstance(type_, Scalar) or type_.kind == "f":
        raise Unsupported(f"an integer constant of type {show(type_)} is not supported")
    if type_.kind == "b":
        return "true" if value else "false"
    suffix = {"i32": "", "u32": "u", "i64": "ll", "u64": "ull"}.get(type_.name)
    if type_.kind == "u":
        value &= (1 << type_.bits) - 1
    if suffix is not None and 0 <= value < 1 << (type_.bits - (type_.kind == "i")):
        return f"{value}{suffix}"
    return f"(({type_.name}){value & 0xFFFFFFFFFFFFFFFF}ull)"


def dereference(pointer: t.Expression, target: Type, line: int) -> t.Expression:
    """Return ``*pointer``; of an address just taken, the thing itself."""
    if isinstance(pointer, t.Unary) and pointer.op == "&" and pointer.operand.type == target:
        return pointer.operand
    return t.Unary(target, line, "*", pointer)
