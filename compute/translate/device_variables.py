"""``__device__`` variables: those that kernels only read are constants; one that a kernel could change is refused.

Blocks of one launch run on different machines, so nothing that a thread writes may outlive it but what pointers lead
to. Each expression is looked at in the role that its parent gives it: its *value* is taken; it is a *place* that is
written, or bound to a reference; or it is an address that goes where the target is *const*.
"""

from collections.abc import Sequence

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.semantics import body_of
from depin_node.compute.translate.types import Pointer, Reference, Type

_CHANGES = frozenset({"++", "--", "p++", "p--"})
_VALUE, _PLACE, _CONST = "value", "place", "const"


def check_only_read(functions: Sequence[t.Function], variables: set[t.Variable]) -> None:
    """Check all uses of these variables.

    Raises:
        Unsupported: one of them is written, or its address goes where it could be.
    """
    for function in functions if variables else ():
        for statement in t.walk(body_of(function)):
            if isinstance(statement, t.Statement):
                role = _VALUE
                if isinstance(statement, t.Declare):
                    role = _role(statement.variable.type)
                elif isinstance(statement, t.Return):
                    role = _role(function.result)
                for part in t.parts(statement):
                    if isinstance(part, t.Expression):
                        _check(part, role, variables)


def _role(type_: Type) -> str:
    """Return the role of what initialises a variable, a parameter or a result of this type."""
    if isinstance(type_, Reference):
        return _PLACE
    return _CONST if isinstance(type_, Pointer) and type_.const else _VALUE


def _check(node: t.Expression, role: str, variables: set[t.Variable]) -> None:
    if isinstance(node, t.Name):
        address = node.variable.storage == "parameter"  # of one without a value, not the variable itself
        if node.variable in variables and role in ((_PLACE, _VALUE) if address else (_PLACE,)):
            text = f"{node.variable.name}: variables that outlive a thread can be read, not written: pass a pointer"
            raise Unsupported(text, node.line, 1)
        return
    roles = [(part, _VALUE) for part in t.parts(node) if isinstance(part, t.Expression)]
    if isinstance(node, t.Member):
        roles = [(node.object, role)]
    elif isinstance(node, t.Index):
        roles = [_target(node.base, role, variables), (node.index, _VALUE)]
    elif isinstance(node, t.Unary) and node.op == "*":
        roles = [_target(node.operand, role, variables)]
    elif isinstance(node, t.Unary) and node.op == "&":
        roles = [(node.operand, _VALUE if role == _CONST else _PLACE)]
    elif isinstance(node, t.Unary) and node.op in _CHANGES:
        roles = [(node.operand, _PLACE)]
    elif isinstance(node, t.Cast) and node.kind == "decay":
        roles = [(node.operand, _VALUE if role == _CONST else _PLACE)]
    elif isinstance(node, t.Assign):
        roles = [(node.left, _PLACE), (node.right, _role(node.left.type))]
    elif isinstance(node, t.Conditional):
        roles = [(node.condition, _VALUE), (node.yes, role), (node.no, role)]
    elif isinstance(node, t.Binary):
        last = role if node.op == "," or isinstance(node.type, Pointer) else _VALUE
        first = role if isinstance(node.type, Pointer) and node.op != "," else _VALUE
        roles = [(node.left, first), (node.right, last)]
    elif isinstance(node, t.Call) and isinstance(node.function, t.Function):
        types = [parameter.type for parameter in node.function.parameters]
        roles = [(argument, _role(type_)) for argument, type_ in zip(node.arguments, types, strict=True)]
    elif isinstance(node, t.Call) and str(node.function).startswith("__ld"):
        roles = [(argument, _CONST) for argument in node.arguments]
    for part, its_role in roles:
        _check(part, its_role, variables)


def _target(pointer: t.Expression, role: str, variables: set[t.Variable]) -> tuple[t.Expression, str]:
    """Return what is looked at for the target of a pointer: of an array that decays, the array itself."""
    if isinstance(pointer, t.Name) and pointer.variable in variables:  # the hidden parameter of one without a value
        return pointer, _PLACE if role == _PLACE else _CONST
    if isinstance(pointer, t.Cast) and pointer.kind == "decay":
        return pointer.operand, role
    return pointer, _CONST if role != _PLACE else _VALUE
