"""Stores into arrays: whether a kernel can make every NaN canonical as it stores it.

Outputs have canonical NaNs (``devices/held.py``), and to look for others costs a pass over a result, a sixth of saxpy's
time. So where all that a kernel writes into memory goes through pointers and is floats, or structs of floats alone,
each store makes them canonical, in registers, and the module says so (``backend.CANONICAL``). A kernel that writes
anything else (integers, which may be put where floats are; atomics; mixed structs; its own arrays, shared or not, which
an index may lead out of, and where these instructions would cost more than looking) says nothing, and the host looks.

A module that says so and does not do it harms nobody but its own job: whose bits come from a processor's NaNs can
show them as integers anyway.
"""

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.semantics import body_of, root
from depin_node.compute.translate.types import Pointer, Record, Reference, Scalar, Type, homogeneous
from depin_node.compute.translate.uniformity import assigned

_READING = ("__ld",)


def stores_canonical(kernel: t.Kernel) -> bool:
    """Whether ``canonical_of`` covers all that a kernel's threads write outside of their own variables."""
    return all(_is_covered(node) for function in kernel.functions for node in t.walk(body_of(function)))


def canonical_of(place: t.Expression) -> Scalar | None:
    """Return the float that a stored value consists of and that is to be made canonical, or None."""
    return None if _is_own(place) else _floats(place.type)


def _is_covered(node: t.TreeNode) -> bool:
    place = assigned(node)
    if place is not None:
        return _is_own(place) or (isinstance(node, t.Assign) and _is_led_to(place) and _floats(place.type) is not None)
    if isinstance(node, t.Call) and isinstance(node.function, str) and not node.function.startswith(_READING):
        return not any(_leads_out(argument) for argument in node.arguments)
    return True


def _floats(type_: Type) -> Scalar | None:
    found = homogeneous(type_) if isinstance(type_, Scalar | Record) else None
    return found[0] if found is not None and t.is_float(found[0]) else None


def _leads_out(argument: t.Expression) -> bool:
    """Whether a function of the device header is given what it might write through."""
    if not isinstance(argument.type, Pointer):
        return False
    return not (isinstance(argument, t.Unary) and argument.op == "&" and _is_own(argument.operand))


def _is_own(place: t.Expression) -> bool:
    """Whether an lvalue is a thread's own variable, or a member of it: an index may lead out of an array."""
    while isinstance(place, t.Member):
        place = place.object
    return isinstance(place, t.Name) and not _is_led_to(place) and place.variable.storage in ("local", "parameter")


def _is_led_to(place: t.Expression) -> bool:
    """Whether an lvalue is what a pointer or a reference leads to."""
    base = root(place)
    return not isinstance(base, t.Name) or isinstance(base.variable.type, Reference)
