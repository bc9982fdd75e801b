"""Indices of 64 bits that can be checked once for a whole row of threads.

Addresses have 32 bits in WebAssembly, so a wider index that leads beyond 4 GiB has to be noticed: each is checked where
it is used (``cuda::at``), which is slow where the rest of a loop is SIMD. But most are affine in ``threadIdx.x``: then
they are in range all along a row of threads if they are at its two ends, as with the leading guard (guard.py). What is
found here is added to that test, and the row that passes it does without the checks.
"""

from dataclasses import dataclass

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.guard import affine
from depin_node.compute.translate.semantics import root
from depin_node.compute.translate.types import Reference, Scalar, Type

_CHANGES = frozenset({"++", "--", "p++", "p--", "&"})


@dataclass
class Ranges:
    """``indices`` into a kernel's parameters; ``declarations`` are the variables that they need, in order."""

    declarations: list[t.Declare]
    indices: list[t.Index]


def is_wide(index: t.Expression) -> bool:
    """Whether an index was computed in 64 bits."""
    while isinstance(index, t.Cast) and index.kind == "value":
        index = index.operand
    return isinstance(index.type, Scalar) and index.type.bits == 64 and not isinstance(index, t.Literal)


def find_ranges(function: t.Function, body: t.Block) -> Ranges:
    """Return the indices in the body of a kernel that are affine in ``threadIdx.x``."""
    changed = _changed(body)
    known = {p: False for p in function.parameters if _is_integer(p.type) and p not in changed}
    bases = {p for p in function.parameters if p not in changed}
    declared: dict[t.Variable, t.Declare] = {}
    found: list[t.Index] = []
    for node in t.walk(body):
        if isinstance(node, t.Declare) and node.value is not None and _is_integer(node.variable.type):
            varies = affine(node.value, known) if node.variable not in changed else None
            if varies is not None:
                known[node.variable], declared[node.variable] = varies, node
        elif isinstance(node, t.Declare) and _named(node.value) in bases and node.variable not in changed:
            bases.add(node.variable)  # another name of a parameter
            declared[node.variable] = node
        elif isinstance(node, t.Index) and is_wide(node.index) and affine(node.index, known) is not None:
            found += [node] if _named(node.base) in bases else []
    needed = {part for node in found for part in _variables(node)}
    for variable in reversed(declared):
        value = declared[variable].value
        if variable in needed and value is not None:
            needed |= _variables(value)
    return Ranges([declared[variable] for variable in declared if variable in needed], found)


def _is_integer(type_: Type) -> bool:
    return isinstance(type_, Scalar) and type_.kind in "iub"


def _named(value: t.Expression | None) -> t.Variable | None:
    """Return the variable that an expression is, if it is no more."""
    return value.variable if isinstance(value, t.Name) else None


def _variables(value: t.Expression) -> set[t.Variable]:
    return {node.variable for node in t.walk(value) if isinstance(node, t.Name)}


def _changed(body: t.Block) -> set[t.Variable]:
    """Return the variables that may not keep the value that they are declared with."""
    places: list[t.Expression] = []
    for node in t.walk(body):
        if isinstance(node, t.Assign):
            places.append(node.left)
        elif isinstance(node, t.Unary) and node.op in _CHANGES:
            places.append(node.operand)
        elif isinstance(node, t.Declare) and isinstance(node.variable.type, Reference) and node.value is not None:
            places.append(node.value)
        elif isinstance(node, t.Call) and isinstance(node.function, t.Function):
            pairs = zip(node.function.parameters, node.arguments, strict=True)
            places += [argument for parameter, argument in pairs if isinstance(parameter.type, Reference)]
    return {base.variable for base in map(root, places) if isinstance(base, t.Name)}
