"""Waiting made explicit: the kernel's body with every barrier and warp function as a statement of its own.

Device functions that synchronise are inlined; a call that waits is taken out of its expression, together with
whatever the coroutine shape (clang) evaluates before it: ``v += __shfl_down_sync(m, v, 1)`` becomes

    Wait t = __shfl_down_sync(m, v, 1);  v += t;

Loops that wait in their condition test it inside. Comma statements become several. Parameters that are assigned become
local variables. Nothing else changes, and what does not wait is shared with the original tree, which stays as it was.

Refuses (``Fallback``): recursion, constructors and ``switch`` that wait, returns from the middle of an inlined function
other than ``if (…) return x;``, references to anything but a variable.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.semantics import SYNCHRONISING, Facts, body_of, root
from depin_node.compute.translate.types import BOOL, F32, VOID, Array, Reference

_STRIP_FUNCTIONS = {"exp": "expf", "expf": "expf", "__expf": "expf", "log": "logf", "logf": "logf", "__logf": "logf"}
"""Long functions of a float, by their names, that headers/fission.h has for a whole strip."""
NODES_MAX = 20_000
"""A body that inlining makes larger than this falls back."""
_CHANGES = ("++", "--", "p++", "p--")
_Node = TypeVar("_Node", bound=t.TreeNode)


class Fallback(Exception):
    """The fission shape does not take this kernel; the text says why."""


@dataclass
class Wait(t.Statement):
    """``target = function(arguments)``: the only statement of a prepared body that waits."""

    function: str
    arguments: list[t.Expression]
    target: t.Variable | None


def prepare(kernel: t.Kernel, facts: Facts, *, apart: bool = False) -> list[t.Statement]:
    """Return the kernel's body in this form.

    Args:
        kernel: the kernel.
        facts: about it.
        apart: whether calls of strip functions are taken out of their expressions too, into declarations of their own:
            those that every thread makes, in a kernel that does not wait.

    Raises:
        Fallback: it has no such form.
    """
    return _Preparation(kernel, facts, apart).body()


def strip_function(node: t.TreeNode | None) -> str | None:
    """Return the name of the function for a whole strip that a call is one lane of, if there is one."""
    if not isinstance(node, t.Call) or not isinstance(node.function, str) or node.type != F32:
        return None
    return _STRIP_FUNCTIONS.get(node.function)


def may_return(node: t.Statement) -> bool:
    """Whether a function may end in it."""
    return any(isinstance(part, t.Return) for part in t.walk(node))


def waits(node: t.TreeNode) -> bool:
    """Whether a statement of a prepared body waits."""
    return any(isinstance(part, Wait) for part in t.walk(node))


class _Preparation:
    def __init__(self, kernel: t.Kernel, facts: Facts, apart: bool) -> None:
        self.entry, self.facts, self._apart = kernel.entry, facts, apart
        self._count = 0
        self._nodes = 0

    def body(self) -> list[t.Statement]:
        body, start, renamed = body_of(self.entry).body, [], {}
        for parameter in self.entry.parameters:
            if any(_changes(node, parameter) for node in t.walk(body_of(self.entry))):
                local = self._variable(parameter.type, parameter)
                value = t.Name(parameter.type, parameter.line, parameter)
                start.append(t.Declare(parameter.line, local, value))
                renamed[parameter] = local
        if renamed:
            body = [self._copy(statement, renamed) for statement in body]
        return [*start, *self.statements(body)]

    # ---- statements

    def statements(self, body: Sequence[t.Statement]) -> list[t.Statement]:
        return [made for statement in body for made in self.statement(statement)]

    def statement(self, node: t.Statement) -> list[t.Statement]:
        if isinstance(node, t.Evaluate) and isinstance(node.value, t.Binary) and node.value.op == ",":
            left, right = node.value.left, node.value.right
            return [*self.statement(t.Evaluate(node.line, left)), *self.statement(t.Evaluate(node.line, right))]
        if isinstance(node, t.Block):
            return [t.Block(node.line, self.statements(node.body))]
        if self._apart and isinstance(node, t.If | t.Loop | t.Switch):
            return [node]  # what not every thread does
        if isinstance(node, t.Loop):
            return self._loop(node)
        if not self._waits(node):
            return [node]
        out: list[t.Statement] = []
        if isinstance(node, t.Evaluate):
            value = self.pull(node.value, out)
            if not isinstance(value, t.Name | t.Literal):
                out.append(t.Evaluate(node.line, value))
        elif isinstance(node, t.Declare) and node.value is not None and not isinstance(node.variable.type, Reference):
            out.append(replace(node, value=self.pull(node.value, out)))
        elif isinstance(node, t.If):
            condition = self.pull(node.condition, out)
            no = None if node.no is None else self._block(node.no)
            out.append(t.If(node.line, condition, self._block(node.yes), no))
        else:
            raise Fallback(f"line {node.line}: this statement waits")
        return out

    def _block(self, node: t.Block) -> t.Block:
        return t.Block(node.line, self.statements(node.body))

    def _loop(self, node: t.Loop) -> list[t.Statement]:
        if node.step is not None and self._waits(node.step):
            raise Fallback(f"line {node.line}: a loop waits in its step")
        body = self.statements(node.body.body)
        if node.condition is None or not self._waits(node.condition):
            return [replace(node, body=t.Block(node.body.line, body))]
        test: list[t.Statement] = []
        condition = self.pull(node.condition, test)
        leave = t.If(node.line, t.Unary(BOOL, node.line, "!", _truth(condition)), t.Block(node.line, [_BREAK]), None)
        if not node.do:
            return [t.Loop(node.line, None, node.step, t.Block(node.line, [*test, leave, *body]))]
        if any(isinstance(part, t.Jump) and part.kind == "continue" for part in t.walk(node.body)):
            raise Fallback(f"line {node.line}: a do loop with continue waits in its condition")
        return [t.Loop(node.line, None, None, t.Block(node.line, [*body, *test, leave]))]

    # ---- expressions

    def pull(self, node: t.Expression, out: list[t.Statement]) -> t.Expression:
        """Return what is left of an expression once its waiting calls are statements at the end of ``out``."""
        if not self._waits(node):
            return node
        if isinstance(node, t.Call):
            references = [False] * len(node.arguments)
            if isinstance(node.function, t.Function):
                references = [isinstance(p.type, Reference) for p in node.function.parameters]
            arguments = self._operands(node.arguments, out, references)
            if isinstance(node.function, t.Function):
                if node.function in self.facts.synchronising:
                    return self._inline(node.function, arguments, node, out)
                return replace(node, arguments=arguments)
            if strip_function(node) is not None:
                given = self._kept(arguments[0], out)
                return self._kept(replace(node, arguments=[given]), out)
            if node.function not in SYNCHRONISING:
                return replace(node, arguments=arguments)
            target = None if node.type == VOID else self._variable(node.type, None)
            out.append(Wait(node.line, node.function, arguments, target))
            return t.Literal(VOID, node.line, "void()") if target is None else t.Name(node.type, node.line, target)
        if isinstance(node, t.Assign):  # C++17: the right side first
            if self._waits(node.left):
                raise Fallback(f"line {node.line}: what is assigned to waits")
            return replace(node, right=self.pull(node.right, out))
        if self._apart and isinstance(node, t.Conditional):
            return replace(node, condition=self.pull(node.condition, out))
        if self._apart and isinstance(node, t.Binary) and node.op in ("&&", "||"):
            return replace(node, left=self.pull(node.left, out))
        if isinstance(node, t.Conditional):
            return self._choice(node, node.condition, node.yes, node.no, out)
        if isinstance(node, t.Binary) and node.op in ("&&", "||"):
            if not self._waits(node.right):
                return replace(node, left=self.pull(node.left, out))
            known = t.Literal(BOOL, node.line, "false" if node.op == "&&" else "true")
            yes, no = (node.right, known) if node.op == "&&" else (known, node.right)
            return self._choice(t.Conditional(node.type, node.line, node.left, yes, no), node.left, yes, no, out)
        if isinstance(node, t.Binary) and node.op == ",":
            out.extend(self.statement(t.Evaluate(node.line, node.left)))
            return self.pull(node.right, out)
        children = [part for part in t.parts(node) if isinstance(part, t.Expression)]
        pulled = iter(self._operands(children, out, [False] * len(children)))
        return _with_parts(node, lambda _: next(pulled))

    def _choice(
        self, node: t.Expression, condition: t.Expression, yes: t.Expression, no: t.Expression, out: list[t.Statement]
    ) -> t.Expression:
        condition = self.pull(condition, out)
        result = self._variable(node.type, None)
        branches = []
        for value in (yes, no):
            branch: list[t.Statement] = []
            value = self.pull(value, branch)
            if node.type != VOID:
                branch.append(_set(result, value))
            branches.append(t.Block(node.line, branch))
        if node.type != VOID:
            out.append(t.Declare(node.line, result, None))
        out.append(t.If(node.line, condition, *branches))
        return t.Name(node.type, node.line, result)

    def _operands(
        self, nodes: Sequence[t.Expression], out: list[t.Statement], references: Sequence[bool]
    ) -> list[t.Expression]:
        """Pull operands that are evaluated from left to right: what comes before a wait keeps its value of then."""
        last = max((place for place, node in enumerate(nodes) if self._waits(node)), default=0)
        calls = any(
            isinstance(part, t.Call) and isinstance(part.function, t.Function)
            for node in nodes[: last + 1]
            for part in t.walk(node)
        )
        made = []
        for place, node in enumerate(nodes):
            value = self.pull(node, out)
            if place < last and not _stable(value, calls):
                if references[place] or isinstance(value.type, Array):
                    raise Fallback(f"line {node.line}: a reference is passed to a function that waits")
                value = self._kept(value, out)
            made.append(value)
        return made

    # ---- inlining

    def _inline(
        self, function: t.Function, arguments: list[t.Expression], call: t.Call, out: list[t.Statement]
    ) -> t.Expression:
        if function in self.facts.recursive or function.constructs:
            raise Fallback(f"line {call.line}: {function.name} waits, and is recursive or a constructor")
        renamed: dict[t.Variable, t.Variable] = {}
        for parameter, argument in zip(function.parameters, arguments, strict=True):
            if not isinstance(parameter.type, Reference):
                local = self._variable(parameter.type, parameter)
                out.append(t.Declare(call.line, local, argument))
                renamed[parameter] = local
            elif isinstance(argument, t.Name):
                renamed[parameter] = argument.variable
            else:
                raise Fallback(f"line {call.line}: {function.name} waits and takes a reference")
        body = body_of(function)
        for node in t.walk(body):
            if isinstance(node, t.Declare):
                renamed[node.variable] = self._variable(node.variable.type, node.variable)
        result = self._variable(function.result, None)
        copied = [self._copy(statement, renamed) for statement in body.body]
        *before, last = copied or [t.Block(call.line, [])]
        value = last.value if isinstance(last, t.Return) and not any(map(may_return, before)) else None
        if value is not None and result.type != VOID:
            copied = [*before, t.Declare(last.line, result, value)]  # not before: it would live across the waits
        else:
            if result.type != VOID:
                out.append(t.Declare(call.line, result, None))
            copied = self._without_returns(copied, result)
        out.extend(self.statements(copied))
        return t.Name(function.result, call.line, result)

    def _without_returns(self, body: list[t.Statement], result: t.Variable) -> list[t.Statement]:
        """Return a body that assigns its result instead of returning it."""
        out: list[t.Statement] = []
        for place, node in enumerate(body):
            rest = body[place + 1 :]
            if isinstance(node, t.Return):
                if node.value is not None:
                    known = result.type != VOID
                    out.append(_set(result, node.value) if known else t.Evaluate(node.line, node.value))
                return out
            if not may_return(node):
                out.append(node)
                continue
            if isinstance(node, t.Block):
                return out + self._without_returns([*node.body, *rest], result)
            if not isinstance(node, t.If):
                raise Fallback(f"line {node.line}: a function that waits returns from here")
            yes, no = node.yes.body, node.no.body if node.no else []
            if _returns(yes):
                no = [*no, *rest]
            elif _returns(no):
                yes = [*yes, *rest]
            elif rest:
                raise Fallback(f"line {node.line}: a function that waits returns from here")
            blocks = [t.Block(node.line, self._without_returns(branch, result)) for branch in (yes, no)]
            return [*out, t.If(node.line, node.condition, *blocks)]
        return out

    # ---- helpers

    def _variable(self, type_: Any, like: t.Variable | None) -> t.Variable:
        self._count += 1
        name = like.cpp if like else "w"
        return t.Variable(like.name if like else "", f"{name}_{self._count}", type_, "local", like.line if like else 0)

    def _kept(self, value: t.Expression, out: list[t.Statement]) -> t.Name:
        """Keep a value in a variable of its own, from here on."""
        kept = self._variable(value.type, None)
        out.append(t.Declare(value.line, kept, value))
        return t.Name(value.type, value.line, kept)

    def _waits(self, node: t.TreeNode) -> bool:
        return any(
            isinstance(part, t.Call)
            and (
                part.function in SYNCHRONISING
                or part.function in self.facts.synchronising
                or (self._apart and strip_function(part) is not None)
            )
            for part in t.walk(node)
        )

    def _copy(self, node: _Node, renamed: dict[t.Variable, t.Variable]) -> _Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise Fallback("the kernel is too large once its functions are inlined")
        if isinstance(node, t.Name):
            return replace(node, variable=renamed.get(node.variable, node.variable))
        copied = _with_parts(node, lambda part: self._copy(part, renamed))
        if isinstance(copied, t.Declare):
            copied.variable = renamed.get(copied.variable, copied.variable)
        return copied


_BREAK = t.Jump(0, "break")


def _with_parts(node: _Node, change: Callable[[Any], Any]) -> _Node:
    """Return a node with its direct children changed, in order."""
    made: dict[str, Any] = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if isinstance(value, t.Expression | t.Statement):
            made[item.name] = change(value)
        elif isinstance(value, list):
            made[item.name] = [change(part) for part in value]
    return replace(node, **made)


def _set(variable: t.Variable, value: t.Expression) -> t.Statement:
    place = t.Name(variable.type, value.line, variable)
    return t.Evaluate(value.line, t.Assign(variable.type, value.line, "", place, value, variable.type))


def _truth(value: t.Expression) -> t.Expression:
    return value if value.type == BOOL else t.Cast(BOOL, value.line, "value", value)


def _returns(body: list[t.Statement]) -> bool:
    """Whether every way through it returns."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, t.Block):
        return _returns(last.body)
    if isinstance(last, t.If):
        return last.no is not None and _returns(last.yes.body) and _returns(last.no.body)
    return isinstance(last, t.Return)


def _changes(node: t.TreeNode, variable: t.Variable) -> bool:
    """Whether this node may change the variable, its parts not looked at."""
    places: list[t.Expression] = []
    if isinstance(node, t.Assign):
        places = [node.left]
    elif isinstance(node, t.Unary) and node.op in (*_CHANGES, "&"):
        places = [node.operand]
    elif isinstance(node, t.Call) and isinstance(node.function, t.Function):
        pairs = zip(node.function.parameters, node.arguments, strict=True)
        places = [argument for parameter, argument in pairs if isinstance(parameter.type, Reference)]
    elif isinstance(node, t.Declare) and isinstance(node.variable.type, Reference) and node.value is not None:
        places = [node.value]
    return any(variable in variables_of(place) for place in places)


def variables_of(place: t.Expression) -> Iterator[t.Variable]:
    """Yield the variables that an lvalue may be, or be a part of; none, if it is reached through a pointer."""
    place = root(place)
    if isinstance(place, t.Name):
        yield place.variable
    elif isinstance(place, t.Conditional):
        yield from variables_of(place.yes)
        yield from variables_of(place.no)
    elif isinstance(place, t.Binary) and place.op == ",":
        yield from variables_of(place.right)
    elif isinstance(place, t.Assign):
        yield from variables_of(place.left)
    elif isinstance(place, t.Unary | t.Cast) and (isinstance(place, t.Cast) or place.op in _CHANGES):
        yield from variables_of(place.operand)


def _stable(node: t.Expression, calls: bool) -> bool:
    """Whether an expression has the same value after a wait as before; ``calls``: the user's code runs in between."""
    for part in t.walk(node):
        if isinstance(part, t.Name) and (calls or part.variable.storage not in ("local", "parameter", "constant")):
            return False
        if isinstance(part, t.Assign | t.Index) or (isinstance(part, t.Unary) and part.op in (*_CHANGES, "*", "&")):
            return False
        if isinstance(part, t.Call):
            return False
    return True
