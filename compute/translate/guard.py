"""The leading guard of a kernel: ``if (i >= n) return;``, or a body that is all ``if (i < n) { … }``.

Most threads pass it. If a whole row of threads does, the loop shape runs the row without it, and the loop becomes free
of branches. Whether a row passes is tested at its two ends, which is right only if the condition is a conjunction of
comparisons between expressions that are affine in ``threadIdx.x``, without overflow: what is affine and in range at
both ends is affine and in range between them, and then each comparison holds on an interval. So ``find_guard`` takes
nothing else, and the generated test computes with overflow checks; a row that fails any of it runs with the guard.
"""

from dataclasses import dataclass

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.types import BOOL, Scalar

_COMPARISONS = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass
class Guard:
    """``declarations`` are those that the condition needs; ``condition`` is true for threads that do the work.

    ``body`` is the kernel's body without the guard.
    """

    declarations: list[t.Declare]
    condition: t.Expression
    body: t.Block


def find_guard(function: t.Function) -> Guard | None:
    """Return the guard that a kernel's body begins with, or None."""
    body = function.body.body if function.body else []
    known: dict[t.Variable, bool] = {}
    for parameter in function.parameters:
        if _is_integer(parameter.type):
            known[parameter] = False
    declarations = []
    for position, statement in enumerate(body):
        if isinstance(statement, t.Declare):
            if statement.value is None or not _has_effect(statement.value):
                if statement.value is not None and _is_integer(statement.variable.type):
                    varies = affine(statement.value, known)
                    if varies is not None:
                        known[statement.variable] = varies
                        declarations.append(statement)
                continue
            return None
        if not isinstance(statement, t.If) or statement.no is not None:
            return None
        if _returns(statement.yes):
            condition = _convex(statement.condition, known, True)
            rest = [*body[:position], *body[position + 1 :]]
        elif position == len(body) - 1:
            condition = _convex(statement.condition, known, False)
            rest = [*body[:position], statement.yes]
        else:
            return None
        if condition is None:
            return None
        return Guard(declarations, condition, t.Block(statement.line, rest))
    return None


def _is_integer(type_: object) -> bool:
    return isinstance(type_, Scalar) and type_.kind in "iub"


def _has_effect(value: t.Expression) -> bool:
    """Whether evaluating may change a variable (or wait, or not end)."""
    for node in t.walk(value):
        if isinstance(node, t.Assign) or (isinstance(node, t.Unary) and node.op in ("++", "--", "p++", "p--", "&")):
            return True
        if isinstance(node, t.Call) and isinstance(node.function, t.Function):
            return True
        if isinstance(node, t.Call) and str(node.function).startswith(
            ("atomic", "printf", "__sync", "__shfl", "__any", "__all")
        ):
            return True
    return False


def _returns(statement: t.Statement) -> bool:
    if isinstance(statement, t.Block):
        return len(statement.body) == 1 and _returns(statement.body[0])
    return isinstance(statement, t.Return) and statement.value is None


def _convex(condition: t.Expression, known: dict[t.Variable, bool], negate: bool) -> t.Expression | None:
    """Return the condition, negated or not, as a conjunction of affine comparisons; None if it is none."""
    if isinstance(condition, t.Unary) and condition.op == "!":
        return _convex(condition.operand, known, not negate)
    if not isinstance(condition, t.Binary):
        return None
    op, line = condition.op, condition.line
    if op == ("||" if negate else "&&"):
        left, right = _convex(condition.left, known, negate), _convex(condition.right, known, negate)
        return t.Binary(BOOL, line, "&&", left, right) if left and right else None
    if op in _COMPARISONS and _is_integer(condition.left.type):
        if affine(condition.left, known) is None or affine(condition.right, known) is None:
            return None
        return t.Binary(BOOL, line, _COMPARISONS[op] if negate else op, condition.left, condition.right)
    return None


def affine(value: t.Expression, known: dict[t.Variable, bool]) -> bool | None:
    """Return whether an integer expression varies along a row, affinely; None if it is of no form known here."""
    if not _is_integer(value.type):
        return None
    if isinstance(value, t.Literal):
        return False
    if isinstance(value, t.Name):
        return known.get(value.variable)
    if isinstance(value, t.Member) and isinstance(value.object, t.ThreadName):
        return value.object.name == "threadIdx" and value.field.name == "x"
    if isinstance(value, t.Cast) and value.kind == "value" and _is_integer(value.operand.type):
        inner = affine(value.operand, known)
        return None if inner and value.type == BOOL else inner
    if isinstance(value, t.Unary) and value.op in "+-":
        return affine(value.operand, known)
    if isinstance(value, t.Binary) and value.op in ("+", "-", "*"):
        left, right = affine(value.left, known), affine(value.right, known)
        if left is None or right is None or (value.op == "*" and left and right):
            return None
        return left or right
    if isinstance(value, t.Binary) and value.op in ("/", "%"):  # of what is the same in the whole row
        return False if affine(value.left, known) is False and affine(value.right, known) is False else None
    return None
