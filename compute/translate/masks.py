"""Loops that the lanes of a strip leave at different times, in lock step: a mask says who is still in.

    while (c) { a; if (b) break; d; }    becomes, for each lane,    mask = c ? ~0 : 0
    while any lane's mask is set, for each lane:                    if (mask) { a; on = 1; if (b) { mask = 0; on = 0; }
                                                                                if (on) { d; }
                                                                                if (mask) { mask = c ? ~0 : 0; } }

Every lane does what it did, in its order, so its bits are the same. What is left inside has no loops and jumps only
forward, which compilers turn into selects and SIMD. That pays where lanes only compute: a load under a mask is a branch
for each lane. So loops that touch memory are not taken, nor those with loops in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.types import BOOL, U32, VOID, Array, Pointer, Reference
from depin_node.compute.translate.uniformity import LANE, Uniformity, reached

_SET, _CLEAR = "0xffffffffu", "0u"


@dataclass
class Masked:
    """A loop in this form: ``before`` once for each lane, ``body`` as long as some lane's ``mask`` is not zero."""

    before: list[t.Statement]
    body: list[t.Statement]
    mask: t.Variable


def masked(loop: t.Loop, values: Uniformity) -> Masked | None:
    """Return a loop in this form, None if it is not to be taken."""
    if not all(_only_computes(part, values) for part in t.parts(loop)):
        return None
    names = _Names(loop, values)
    steps = [] if loop.step is None else [t.Evaluate(loop.line, loop.step)]
    again = [names.ask(loop.condition)] if loop.condition is not None else []
    body = names.forward(loop.body.body)
    last: list[t.Statement] = [*steps, *again]
    if names.leaves:
        body = [t.Declare(loop.line, names.on, names.literal(_SET)), *body]
        last = [t.If(loop.line, names.test(names.mask), t.Block(loop.line, last), None)] if last else []
    first = names.literal(_SET) if loop.do or loop.condition is None else names.choose(loop.condition)
    inside = t.If(loop.line, names.test(names.mask), t.Block(loop.line, [*body, *last]), None)
    return Masked([t.Declare(loop.line, names.mask, first)], [inside], names.mask)


def _only_computes(node: t.TreeNode, values: Uniformity) -> bool:
    """Whether it has neither loops, nor memory, nor effects, nor what ends the thread."""
    return all(_is_computing(part, values) for part in _with_callees(node)) and not any(
        isinstance(part, t.Return) for part in t.walk(node)
    )


def _with_callees(node: t.TreeNode) -> Iterator[t.TreeNode]:
    for part in t.walk(node):
        yield part
        if isinstance(part, t.Call) and isinstance(part.function, t.Function):
            yield from reached(part.function)


def _is_computing(part: t.TreeNode, values: Uniformity) -> bool:
    if isinstance(part, t.Name | t.Declare):
        variable = part.variable
        plain = variable.storage in ("local", "parameter") and not isinstance(variable.type, Reference | Array)
        return plain and variable not in values.memory
    if isinstance(part, t.Call) and isinstance(part.function, str):
        return part.type != VOID and not values.has_effect(part) and not _has_pointer(part.arguments)
    if isinstance(part, t.Unary):
        return part.op not in "*&"
    return not isinstance(part, t.Loop | t.Switch | t.Index | t.Initialise)


def _has_pointer(arguments: Sequence[t.Expression]) -> bool:
    return any(isinstance(argument.type, Pointer) for argument in arguments)


class _Names:
    """The variables that the new form needs, and statements with them."""

    def __init__(self, loop: t.Loop, values: Uniformity) -> None:
        self.line, self.leaves = loop.line, False
        number = len(values.definitions)
        self.mask, self.on = (t.Variable(n, f"{n}_{number}", U32, "local", loop.line) for n in ("mask", "on"))
        for variable in (self.mask, self.on):
            values.add(variable, LANE)

    def literal(self, text: str) -> t.Literal:
        return t.Literal(U32, self.line, text)

    def test(self, variable: t.Variable) -> t.Expression:
        return t.Binary(BOOL, self.line, "!=", t.Name(U32, self.line, variable), self.literal(_CLEAR))

    def choose(self, condition: t.Expression) -> t.Expression:
        return t.Conditional(U32, self.line, condition, self.literal(_SET), self.literal(_CLEAR))

    def assign(self, variable: t.Variable, value: t.Expression) -> t.Statement:
        return t.Evaluate(self.line, t.Assign(U32, self.line, "", t.Name(U32, self.line, variable), value, U32))

    def ask(self, condition: t.Expression) -> t.Statement:
        return self.assign(self.mask, self.choose(condition))

    def forward(self, body: Sequence[t.Statement]) -> list[t.Statement]:
        """Return statements without jumps: what one would have passed over is done only if ``on`` is still set."""
        out: list[t.Statement] = []
        for place, node in enumerate(body):
            if isinstance(node, t.Block):
                return [*out, *self.forward([*node.body, *body[place + 1 :]])]
            if isinstance(node, t.Jump):
                self.leaves = True
                left = [self.mask, self.on] if node.kind == "break" else [self.on]
                return [*out, *(self.assign(variable, self.literal(_CLEAR)) for variable in left)]
            if not any(isinstance(part, t.Jump) for part in t.walk(node)):
                out.append(node)
                continue
            assert isinstance(node, t.If)
            no = None if node.no is None else t.Block(node.line, self.forward(node.no.body))
            out.append(t.If(node.line, node.condition, t.Block(node.line, self.forward(node.yes.body)), no))
            rest = self.forward(body[place + 1 :])
            return [*out, t.If(node.line, self.test(self.on), t.Block(node.line, rest), None)] if rest else out
        return out
