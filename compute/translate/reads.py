"""Which of a kernel's pointers are only stored through: no thread looks at what they lead to.

A program that is cut along an axis has to know whose rows a launch reads (``programs/halos.py``), and ``T*`` does not
say. So each place that names such a pointer is looked at: a plain store through it, ``v[i] = …``, ``*v = …``,
``v[i].x = …``, reads nothing. Anywhere else (``v[i] += …``, an atomic, a copy of the pointer, a call) it may.
"""

from collections import Counter

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.semantics import body_of, root


def only_stored_through(entry: t.Function) -> frozenset[t.Variable]:
    """Return the parameters of a kernel through which its threads store and never read."""
    named, stored = Counter[t.Variable](), Counter[t.Variable]()
    for node in t.walk(body_of(entry)):
        if isinstance(node, t.Name):
            named[node.variable] += 1
        elif isinstance(node, t.Assign) and not node.op:
            pointer = _pointer(root(node.left))
            if isinstance(pointer, t.Name):
                stored[pointer.variable] += 1
    return frozenset(variable for variable in entry.parameters if named[variable] == stored[variable])


def _pointer(place: t.Expression) -> t.Expression | None:
    """Return the pointer that leads to a place: ``v`` of ``v[i]``, ``*v`` and ``*(v + i)``."""
    if isinstance(place, t.Index):
        return place.base
    if isinstance(place, t.Unary) and place.op == "*":
        inner = place.operand
        return inner.left if isinstance(inner, t.Binary) and inner.op == "+" else inner
    return None
