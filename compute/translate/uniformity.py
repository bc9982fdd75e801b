"""Which values are the same in all threads: a forward data-flow analysis over a prepared body (fission_calls.py).

Four levels, each variable and expression has one:

    BLOCK   the same in all threads of the block that are there
    STRIP   the same in all threads of a warp, in the only region (fission.py) that uses it: what is assigned under
            control flow around warp functions, which is asked to be uniform as the kernel runs; votes of whole warps
    WARP    the same in all threads of a warp, as far as the text tells: ``threadIdx.x / 32``, a vote. That depends on
            the shape of blocks, so who relies on it checks it as the kernel runs
    LANE    anything

A variable is as uniform as all that is assigned to it and the control flow around those assignments: a loop that lanes
leave at different times makes what it assigns LANE. A load from a uniform address is uniform: a thread that wrote there
since the last barrier would make it a race. Private arrays, variables whose address is taken, and what functions write
through references are LANE.
"""

from collections.abc import Iterable, Iterator, Sequence

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission_calls import Wait, variables_of, waits
from depin_node.compute.translate.semantics import BARRIERS, body_of, has_array, root
from depin_node.compute.translate.types import Reference

BLOCK, STRIP, WARP, LANE = range(4)
VOTES = frozenset({"__ballot_sync", "__any_sync", "__all_sync"})
CHANGES = frozenset({"++", "--", "p++", "p--"})
WARP_SIZE, _WARP_BITS, ALL_LANES = 32, 5, 0xFFFFFFFF


class Uniformity:
    """The levels of a body.

    Attributes:
        definitions: how often each variable is assigned or declared, in the text.
        memory: variables that are more than a value: arrays, and those whose address is taken.
        escaping: of those, the ones whose address may outlive the expression that takes it.
        values: what variables are declared with.
    """

    def __init__(self, body: Sequence[t.Statement], crossing: Iterable[t.Variable] = ()) -> None:
        """Analyse a body; ``crossing`` are variables that more than one region uses: they are not STRIP."""
        self._levels: dict[t.Variable, int] = dict.fromkeys(crossing, LANE)
        self.definitions: dict[t.Variable, int] = {}
        self.memory: set[t.Variable] = set()
        self.values: dict[t.Variable, t.Expression] = {}
        self.escaping: set[t.Variable] = set()
        self._given: set[int] = set()
        self._pure: dict[t.Function, bool] = {}
        for statement in body:
            for node in t.walk(statement):
                self._count(node)
        self._changed = True
        while self._changed:
            self._changed = False
            self._statements(body, BLOCK)

    def of(self, variable: t.Variable) -> int:
        """Return a variable's level."""
        return self._levels.get(variable, BLOCK)

    def add(self, variable: t.Variable, level: int) -> None:
        """Make a variable known that a pass has made; it is assigned more than once."""
        self._levels[variable], self.definitions[variable] = level, 2

    def level(self, node: t.Expression) -> int:
        """Return an expression's level."""
        if isinstance(node, t.Name):
            return self.of(node.variable)
        if isinstance(node, t.ThreadName):
            return LANE if node.name == "threadIdx" else BLOCK
        if isinstance(node, t.Member) and isinstance(node.object, t.ThreadName) and node.object.name == "threadIdx":
            return LANE if node.field.name == "x" else WARP
        if isinstance(node, t.Binary) and self._drops_the_lane(node):
            return WARP
        result = BLOCK
        if isinstance(node, t.Call):
            result = self._call(node)
        for part in t.parts(node):
            if isinstance(part, t.Expression):
                result = max(result, self.level(part))
        return result

    def _drops_the_lane(self, node: t.Binary) -> bool:
        """Whether it is a thread's number without its lower five bits: ``/ 32``, ``>> 5``, ``& ~31``."""
        number = constant(node.right)
        if number is None or not self._counts_threads(node.left):
            return False
        if node.op == "/":
            return number > 0 and number % WARP_SIZE == 0
        if node.op == ">>":
            return number >= _WARP_BITS
        return node.op == "&" and number % WARP_SIZE == 0

    def _counts_threads(self, node: t.Expression) -> bool:
        """Whether it is ``threadIdx.x``, or that plus what is the same in a warp."""
        while isinstance(node, t.Cast) and node.kind == "value":
            node = node.operand
        if isinstance(node, t.Name) and self.definitions.get(node.variable) == 1 and node.variable in self.values:
            return self._counts_threads(self.values[node.variable])
        if isinstance(node, t.Binary) and node.op == "+":
            for one, other in ((node.left, node.right), (node.right, node.left)):
                number = constant(other)
                if self._counts_threads(one) and self.level(other) <= WARP and (number or 0) % WARP_SIZE == 0:
                    return True
        return isinstance(node, t.Member) and isinstance(node.object, t.ThreadName) and self.level(node) == LANE

    def _call(self, node: t.Call) -> int:
        return LANE if self.has_effect(node) or self._asks_for_place(node) else BLOCK

    def _asks_for_place(self, call: t.Call) -> bool:
        if not isinstance(call.function, t.Function):
            return False
        return any(isinstance(node, t.ThreadName) and node.name == "threadIdx" for node in reached(call.function))

    def has_effect(self, call: t.Call) -> bool:
        """Whether a call does more than compute its result from its arguments and memory."""
        if isinstance(call.function, t.Function):
            return not self._is_pure(call.function)
        return str(call.function).startswith(("atomic", "__st", "__threadfence", "__trap", "printf"))

    def _is_pure(self, function: t.Function) -> bool:
        """Whether a function writes no memory but its own variables."""
        if function not in self._pure:
            self._pure[function] = False  # if it is recursive
            self._pure[function] = all(self._is_pure_part(node) for node in t.walk(body_of(function)))
        return self._pure[function]

    def _is_pure_part(self, node: t.TreeNode) -> bool:
        if isinstance(node, t.Call):
            return not self.has_effect(node)
        place = assigned(node)
        base = None if place is None else root(place)
        return place is None or (isinstance(base, t.Name) and not isinstance(base.variable.type, Reference))

    # ---- counting

    def _count(self, node: t.TreeNode) -> None:
        if isinstance(node, t.Declare):
            self._define(node.variable)
            if node.value is not None:
                self.values[node.variable] = node.value
            if has_array(node.variable.type):
                self.memory.add(node.variable)
                self._raise(node.variable, LANE)
            if isinstance(node.variable.type, Reference) and node.value is not None:
                self._raise(node.variable, LANE)
                self._expose(node.value)
        elif isinstance(node, Wait) and node.target is not None:
            self._define(node.target)
        elif (place := assigned(node)) is not None:
            self._define_place(place)
        elif isinstance(node, t.Unary) and node.op == "&" and id(node) not in self._given:
            self._expose(node.operand)
        elif isinstance(node, t.Index):
            self._given.add(id(node.base))
        elif isinstance(node, t.Cast) and node.kind == "decay" and id(node) not in self._given:
            self._expose(node.operand)
        elif isinstance(node, t.Call) and isinstance(node.function, str):
            self._give(node)
        elif isinstance(node, t.Call) and isinstance(node.function, t.Function):
            for parameter, argument in zip(node.function.parameters, node.arguments, strict=True):
                if isinstance(parameter.type, Reference):
                    self._expose(argument)

    def _define(self, variable: t.Variable) -> None:
        self.definitions[variable] = self.definitions.get(variable, 0) + 1

    def _define_place(self, place: t.Expression) -> None:
        base = root(place)
        if isinstance(base, t.Name):
            self._define(base.variable)
        elif isinstance(base, t.Conditional):
            self._expose(base)

    def _give(self, call: t.Call) -> None:
        """Note what a function of the device header writes through a pointer, which goes nowhere else."""
        for argument in call.arguments:
            base = root(argument.operand) if isinstance(argument, t.Unary) and argument.op == "&" else None
            if isinstance(base, t.Name) and base.variable.storage == "local":
                self._given.add(id(argument))
                self._define(base.variable)
                self._raise(base.variable, LANE)

    def _expose(self, place: t.Expression) -> None:
        """Note that a variable may be changed, and by whom is not known."""
        for variable in variables_of(place):
            if variable.storage == "local" and not isinstance(variable.type, Reference):
                self.memory.add(variable)
                self.escaping.add(variable)
                self._define(variable)
                self._raise(variable, LANE)

    # ---- levels

    def _raise(self, variable: t.Variable, level: int) -> None:
        if variable.storage == "local" and level > self.of(variable):  # others are places in memory
            self._levels[variable] = level
            self._changed = True

    def _statements(self, body: Sequence[t.Statement], control: int) -> None:
        for statement in body:
            self._statement(statement, control)

    def _statement(self, node: t.Statement, control: int) -> None:
        if isinstance(node, t.Block):
            self._statements(node.body, control)
        elif isinstance(node, t.Declare):
            if node.value is not None:
                self._expression(node.value, control)
                self._raise(node.variable, max(control, self.level(node.value)))
            else:
                self._raise(node.variable, control)
        elif isinstance(node, t.Evaluate):
            self._expression(node.value, control)
        elif isinstance(node, t.If):
            self._expression(node.condition, control)
            inner = max(control, _asked(node, self.level(node.condition)))
            self._statements(node.yes.body, inner)
            self._statements(node.no.body if node.no else [], inner)
        elif isinstance(node, t.Loop):
            inner = max(control, _asked(node, self.loop_level(node)))
            for part in (node.condition, node.step):
                if part is not None:
                    self._expression(part, inner)
            self._statements(node.body.body, inner)
        elif isinstance(node, t.Switch):
            self._expression(node.value, control)
            self._statements(node.body.body, max(control, self.level(node.value)))
        elif isinstance(node, Wait):
            self._wait(node, control)

    def loop_level(self, node: t.Loop) -> int:
        """Return how uniformly the lanes stay in a loop: its condition's level, and that of its jumps."""
        level = BLOCK if node.condition is None else self.level(node.condition)
        return max(level, self._jumps(node.body, BLOCK, ("break", "continue")))

    def _jumps(self, node: t.Statement, control: int, kinds: Sequence[str]) -> int:
        if isinstance(node, t.Jump):
            return control if node.kind in kinds else BLOCK
        if isinstance(node, t.If):
            control = max(control, self.level(node.condition))
        elif isinstance(node, t.Switch):
            control, kinds = max(control, self.level(node.value)), ("continue",)
        elif isinstance(node, t.Loop):
            return BLOCK
        inner = [part for part in t.parts(node) if isinstance(part, t.Statement)]
        return max((self._jumps(part, control, kinds) for part in inner), default=BLOCK)

    def _wait(self, node: Wait, control: int) -> None:
        if node.target is None:
            return
        if node.function in BARRIERS:
            level = BLOCK
        elif node.function in VOTES:
            level = STRIP if constant(node.arguments[0]) == ALL_LANES else max(WARP, self.level(node.arguments[0]))
        elif node.function == "__shfl_sync" and _is_whole_warp(node.arguments[3]):
            level = max(WARP, self.level(node.arguments[2]))
        else:
            level = LANE
        self._raise(node.target, max(level, control))

    def _expression(self, node: t.Expression, control: int) -> None:
        """Raise what an expression assigns."""
        if isinstance(node, t.Assign):
            base = root(node.left)
            if isinstance(base, t.Name):
                parts = [self.level(part) for part in (node.left, node.right)]
                whole = not node.op and node.left is base
                self._raise(base.variable, max(control, parts[1] if whole else max(parts)))
        elif isinstance(node, t.Unary) and node.op in CHANGES:
            base = root(node.operand)
            if isinstance(base, t.Name):
                self._raise(base.variable, max(control, self.level(node.operand)))
        elif isinstance(node, t.Conditional):
            control = max(control, self.level(node.condition))
        elif isinstance(node, t.Binary) and node.op in ("&&", "||"):
            control = max(control, self.level(node.left))
        for part in t.parts(node):
            if isinstance(part, t.Expression):
                self._expression(part, control)


def _asked(node: t.Statement, level: int) -> int:
    """Return how uniform the flow inside a statement is if warp functions in it let it be asked."""
    return STRIP if level == WARP and waits(node) else level


def assigned(node: t.TreeNode) -> t.Expression | None:
    """Return the lvalue that a node writes, if any."""
    if isinstance(node, t.Assign):
        return node.left
    return node.operand if isinstance(node, t.Unary) and node.op in CHANGES else None


def changed_in(nodes: Sequence[t.TreeNode]) -> set[t.Variable]:
    """Return the variables that these nodes assign or declare."""
    found: set[t.Variable] = set()
    for node in nodes:
        for part in t.walk(node):
            if isinstance(part, t.Declare):
                found.add(part.variable)
            elif isinstance(part, Wait) and part.target is not None:
                found.add(part.target)
            else:
                taken = part.operand if isinstance(part, t.Unary) and part.op == "&" else assigned(part)
                base = None if taken is None else root(taken)
                if isinstance(base, t.Name):
                    found.add(base.variable)
    return found


def reached(function: t.Function) -> Iterator[t.TreeNode]:
    """Yield all that a function is made of, and the functions it calls."""
    seen = {function}
    stack = [function]
    while stack:
        for node in t.walk(body_of(stack.pop())):
            yield node
            if isinstance(node, t.Call) and isinstance(node.function, t.Function) and node.function not in seen:
                seen.add(node.function)
                stack.append(node.function)


def _is_whole_warp(width: t.Expression) -> bool:
    return constant(width) == WARP_SIZE


def constant(node: t.Expression) -> int | None:
    """Return the value of an integer constant."""
    if isinstance(node, t.Cast) and node.kind == "value":
        return constant(node.operand)
    if isinstance(node, t.Unary) and node.op in "-~":
        inner = constant(node.operand)
        return None if inner is None else -inner if node.op == "-" else ~inner
    if isinstance(node, t.Literal):
        digits = node.text.rstrip("ul")
        return int(digits) if digits.isdigit() else None
    return None
