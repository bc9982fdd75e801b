"""The fission shape's plan: where a kernel's body is cut into loops over threads.

A prepared body (fission_calls.py) is cut at its barriers into *regions*. Control flow around barriers has to be uniform
over the block and stays outside, as do assignments of uniform variables between regions. Each region becomes a loop
over *strips* of neighbouring threads; a region with warp functions has strips of a whole warp, and is cut once more, at
those, where control flow has to be uniform over the warp. What is left are *lanes*: statements for one thread after the
other, which compilers turn into SIMD. In a region without effects whose order shows, loops are turned inside out too:
uniform ones go around the lanes, others run for the whole strip as long as all of its lanes do.

    body ─► Region, If, Loop, Wait (barriers)      once for each block
    Region ─► Lanes, Uniform, Branch, Repeat, Divergent, Masked, Warp     once for each strip

A strip whose threads are all there runs that as it is; others (the end of a row, threads that have returned) run a
second version, thread by thread under a mask.

The coroutine shape runs a warp until it waits, lane by lane, then the next; so does this one. What may come out
differently is the order of what different lanes do between two waits. Where that shows (atomics whose result is used
or that do not commute, float atomics, printf), the lanes run one after the other through what lies between the waits.

Refuses (``Fallback``): barriers under control flow that is not uniform, warp functions under control flow that does not
look uniform over a warp (if it looks so and is not, the kernel traps where it would have deadlocked), and what
fission_calls.py refuses.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission_calls import Fallback, Wait, prepare, variables_of, waits
from depin_node.compute.translate.masks import Masked, masked
from depin_node.compute.translate.semantics import BARRIERS, Facts, body_of, root
from depin_node.compute.translate.types import VOID, Reference, Scalar
from depin_node.compute.translate.uniformity import (
    BLOCK,
    CHANGES,
    STRIP,
    WARP,
    Uniformity,
    assigned,
    changed_in,
    constant,
)

REMADE_NODES_MAX = 24
"""Variables that are a simple function of the thread's place are computed anew where they are used, up to this size."""
_INDEX_BITS = 32
LANE_BYTES_MAX = 2 << 10
"""What one thread may carry over waits."""
_COMMUTING = (
    {"atomicAdd", "atomicSub"},
    *({name} for name in ("atomicAnd", "atomicOr", "atomicXor", "atomicMin", "atomicMax", "atomicInc", "atomicDec")),
)


# ---- the pieces of a region


@dataclass
class Lanes:
    """Statements for each lane of a strip; ``serial``: they hold loops. ``yields``: ``{}`` is an expression's text."""

    body: list[t.Statement]
    serial: bool = False
    yields: list[tuple[str, t.Expression]] = field(default_factory=list)


@dataclass
class Uniform:
    """A statement that assigns a uniform variable."""

    statement: t.Statement


@dataclass
class Stride:
    """Declares a variable that grows by one from lane to lane, or moves it on by the same in all lanes."""

    variable: t.Variable
    statement: t.Statement


@dataclass
class Branch:
    """``if``; a condition of level WARP is asked in every lane."""

    condition: t.Expression
    level: int
    yes: list["Piece"]
    no: list["Piece"]


@dataclass
class Repeat:
    """A loop whose iterations all lanes of the strip do together."""

    loop: t.Loop
    level: int
    body: list["Piece"]
    step: list["Piece"]


@dataclass
class Divergent:
    """A loop that the lanes do together while all are in it; then each finishes on its own."""

    loop: t.Loop
    body: list["Piece"]
    step: list["Piece"]


@dataclass
class Warp:
    """A warp function."""

    wait: Wait


@dataclass
class Leave:
    """``break`` or ``continue`` of a ``Repeat``."""

    kind: str


Piece = Lanes | Uniform | Stride | Branch | Repeat | Divergent | Masked | Warp | Leave


@dataclass
class Region(t.Statement):
    """What lies between two barriers.

    Attributes:
        body: statements, without blocks among them.
        whole_warps: it has warp functions.
        returns: threads may end in it.
        ordered: lanes have to run one after the other.
        vote: a barrier that counts, at its end.
    """

    body: list[t.Statement]
    whole_warps: bool
    returns: bool
    ordered: bool
    vote: Wait | None = None


class Plan:
    """Where a kernel is cut, and where its variables live.

    Attributes:
        items: the block's statements: ``Region``, and what is done once for each block.
        values: levels of variables and expressions.
        remade: variables that are computed anew wherever they are used, by their declarations.
        hoisted: uniform variables that more than one region uses.
        carried: variables of one thread each that more than one region uses.
        returns: whether some threads may end before others.
    """

    def __init__(self, kernel: t.Kernel, facts: Facts) -> None:
        self.facts = facts
        body = prepare(kernel, facts)
        self._names = _count_names(body)
        self._atomics = _kinds_of_atomics(kernel)
        crossing: set[t.Variable] = set()
        while True:
            self._analyse(body, crossing)
            more = {variable for variable in self.carried if self.values.of(variable) == STRIP}
            if not more:
                break
            crossing |= more

    def _analyse(self, body: Sequence[t.Statement], crossing: set[t.Variable]) -> None:
        self.values = Uniformity(body, crossing)
        self.remade: dict[t.Variable, t.Declare] = {}
        self.strides: set[t.Variable] = set()
        self._remake(body)
        self.items = self._cut(body)
        self.regions = [node for item in self.items for node in t.walk(item) if isinstance(node, Region)]
        self.returns = any(region.returns for region in self.regions)
        self.hoisted: set[t.Variable] = set()
        self.carried: set[t.Variable] = set()
        self._place()

    # ---- variables

    def _remake(self, body: Sequence[t.Statement]) -> None:
        sizes: dict[t.Variable, int] = {}
        for statement in body:
            for node in t.walk(statement):
                if not isinstance(node, t.Declare) or node.value is None or node.variable in self.values.memory:
                    continue
                variable, value = node.variable, node.value
                reference = isinstance(variable.type, Reference)
                if self.values.definitions.get(variable) != 1 or not (reference or self.values.of(variable) > STRIP):
                    continue
                size = self._size(value, sizes, place=reference)
                if size <= REMADE_NODES_MAX:
                    sizes[variable] = size
                    self.remade[variable] = node

    def _size(self, node: t.Expression, sizes: dict[t.Variable, int], *, place: bool = False) -> int:
        """Return how large an expression is with what it is made of; huge, if it cannot be computed twice."""
        huge = REMADE_NODES_MAX + 1
        if isinstance(node, t.Name):
            variable = node.variable
            if variable in sizes:
                return sizes[variable]
            if variable.storage in ("shared", "dynamic", "constant") or variable in self.values.memory:
                return 1 if place else huge
            fixed = self.values.of(variable) == BLOCK and self.values.definitions.get(variable, 0) <= 1
            return 1 if fixed else huge
        if isinstance(node, t.Index):
            return 1 + self._size(node.base, sizes) + self._size(node.index, sizes) if place else huge
        if isinstance(node, t.Unary):
            if node.op in CHANGES or (node.op == "*" and not place):
                return huge
            return 1 + self._size(node.operand, sizes, place=node.op == "&")
        if isinstance(node, t.Cast):
            return 1 + self._size(node.operand, sizes, place=node.kind == "decay")
        if isinstance(node, t.Member):
            thread = isinstance(node.object, t.ThreadName)
            return 1 if thread else 1 + self._size(node.object, sizes, place=place)
        if isinstance(node, t.Binary) and (node.op not in ("/", "%") or constant(node.right) is not None):
            return huge if node.op == "," else 1 + self._size(node.left, sizes) + self._size(node.right, sizes)
        if isinstance(node, t.Conditional):
            return 1 + sum(self._size(part, sizes) for part in (node.condition, node.yes, node.no))
        return 1 if isinstance(node, t.Literal) else huge

    def uses(self, node: t.TreeNode) -> set[t.Variable]:
        """Return the variables of a thread or a block that a node needs, and those that these are remade of."""
        found: set[t.Variable] = set()
        stack: list[t.TreeNode] = [node]
        while stack:
            for part in t.walk(stack.pop()):
                variable = part.variable if isinstance(part, t.Name | t.Declare) else None
                if isinstance(part, Wait):
                    variable = part.target
                if isinstance(part, Region) and part.vote is not None:
                    stack.append(part.vote)
                if variable is None or variable.storage != "local" or variable in found:
                    continue
                found.add(variable)
                if variable in self.remade:
                    stack.append(self.remade[variable])
        return found

    def _place(self) -> None:
        seen: dict[t.Variable, set[int]] = {}
        for item in self.items:
            for variable, place in self._places(item):
                seen.setdefault(variable, set()).add(place)
        for variable, places in seen.items():
            if self.values.of(variable) == BLOCK and variable not in self.remade:
                if len(places) > 1 or 0 in places:
                    self.hoisted.add(variable)
            elif len(places) > 1 and variable not in self.remade:
                self.carried.add(variable)
        for variable in self.carried:
            if isinstance(variable.type, Reference):
                raise Fallback(f"{variable.name}: a reference is used on both sides of a barrier")

    def _places(self, node: t.Statement) -> Iterator[tuple[t.Variable, int]]:
        """Yield which variables are used in which regions; outside of regions is place 0."""
        if isinstance(node, Region):
            place = 1 + next(k for k, region in enumerate(self.regions) if region is node)
            for statement in node.body:
                yield from ((variable, place) for variable in self.uses(statement))
            if node.vote is not None:
                for argument in node.vote.arguments:
                    yield from ((variable, place) for variable in self.uses(argument))
                if node.vote.target is not None:
                    yield node.vote.target, 0
            return
        if isinstance(node, t.Declare):
            yield node.variable, 0
        for part in t.parts(node):
            if isinstance(part, t.Statement):
                yield from self._places(part)
            else:
                yield from ((variable, 0) for variable in self.uses(part))

    # ---- once for each block

    def _cut(self, body: Sequence[t.Statement]) -> list[t.Statement]:
        out: list[t.Statement] = []
        pending: list[t.Statement] = []

        def flush(vote: Wait | None = None) -> None:
            first, last = self._shared_ends(pending)
            out.extend(pending[:first])
            if pending[first:last] or vote is not None:
                out.extend(self._regions(pending[first:last], vote))
            out.extend(pending[last:])
            pending.clear()

        for node in _without_blocks(body):
            if isinstance(node, t.Declare) and node.variable in self.remade:
                continue
            if isinstance(node, Wait) and node.function in BARRIERS:
                flush(node if node.target is not None else None)
            elif _has_barrier(node) or _leaves(node) or self._returns_together(node):
                flush()
                out.append(self._control(node))
            else:
                pending.append(node)
                if _may_return(node):
                    flush()
        flush()
        return out

    def _shared_ends(self, body: Sequence[t.Statement]) -> tuple[int, int]:
        """Return which statements of a region to be remain: uniform ones at its ends are done once for the block.

        That is, if others see what they assign; else each strip may as well do it.
        """
        inside = _count_names(body)
        first, last = 0, len(body)
        if all(map(self.is_uniform, body)):
            return last, last
        for place, node in enumerate(body):
            if not self.is_uniform(node):
                break
            if any(self._names[v] > inside[v] for v in self.uses(node) & changed_in([node])):
                first = place + 1
        while last > first and self.is_uniform(body[last - 1]):
            last -= 1
        return first, last

    def _regions(self, body: list[t.Statement], vote: Wait | None) -> Iterator[Region]:
        """Yield one region, or two: loops before the first warp function need not run warp by warp."""
        whole = self._region(body, vote)
        first_wait = next((place for place, node in enumerate(body) if waits(node)), 0)
        loops = [place for place, node in enumerate(body[:first_wait]) if _has_loop(node)]
        if loops and not whole.ordered:
            yield self._region(body[: loops[-1] + 1], None)
            whole = self._region(body[loops[-1] + 1 :], vote)
        yield whole

    def _region(self, body: list[t.Statement], vote: Wait | None) -> Region:
        line = body[0].line if body else vote.line if vote else 0
        whole_warps = any(waits(node) for node in body)
        return Region(line, body, whole_warps, any(map(_may_return, body)), any(map(self._is_ordered, body)), vote)

    def _returns_together(self, node: t.Statement) -> bool:
        if isinstance(node, t.Return):
            return True
        if not isinstance(node, t.If) or not _may_return(node) or self.values.level(node.condition) > BLOCK:
            return False
        branches = [*node.yes.body, *(node.no.body if node.no else [])]
        return any(self._returns_together(part) for part in _without_blocks(branches))

    def _control(self, node: t.Statement) -> t.Statement:
        if isinstance(node, t.Jump | t.Return):
            return node
        if isinstance(node, t.If) and self.is_condition(node.condition):
            no = None if node.no is None else t.Block(node.line, self._cut(node.no.body))
            return t.If(node.line, node.condition, t.Block(node.line, self._cut(node.yes.body)), no)
        if isinstance(node, t.Loop) and self.values.loop_level(node) == BLOCK and self.is_condition(node.condition):
            steps = list(_steps(node))
            if all(self.is_uniform(step) for step in steps):
                inner = t.Block(node.line, self._cut(node.body.body))
                return t.Loop(node.line, node.condition, node.step, inner, node.do)
            if not node.do and not any(isinstance(part, t.Jump) and part.kind == "continue" for part in t.walk(node)):
                body = self._cut([*node.body.body, *steps])
                return t.Loop(node.line, node.condition, None, t.Block(node.line, body))
        raise Fallback(f"line {node.line}: control flow around a barrier is not uniform")

    def is_condition(self, node: t.Expression | None, level: int = BLOCK) -> bool:
        """Whether an expression is the same in the whole block (or strip), and may be computed once for all."""
        return node is None or (self.values.level(node) <= level and not self._writes_memory(node))

    def is_uniform(self, node: t.Statement, level: int = BLOCK) -> bool:
        """Whether a statement does no more than assign a variable of this level."""
        if isinstance(node, t.Declare):
            free = node.value is None or not self._writes_memory(node.value)
            return free and self.values.of(node.variable) <= level and not isinstance(node.variable.type, Reference)
        if not isinstance(node, t.Evaluate) or self._writes_memory(node.value):
            return False
        place = assigned(node.value)
        base = None if place is None else root(place)
        return isinstance(base, t.Name) and base.variable.storage == "local" and self.values.of(base.variable) <= level

    # ---- once for each strip

    def pieces(self, region: Region, *, full: bool) -> list[Piece]:
        """Return what a strip does in a region; ``full``: all of its threads are there."""
        lockstep = full and not region.ordered
        self.strides = set(self._find_strides(region.body)) if lockstep else set()
        while True:
            made = self._pieces(region.body, lockstep, region.whole_warps)
            broken = {variable for variable in self.strides if _lanes_change(made, variable)}
            if not broken:
                return made
            self.strides -= broken

    def _find_strides(self, body: Sequence[t.Statement]) -> Iterator[t.Variable]:
        """Yield the variables that one loop after their declaration uses and nothing else, and that may be strides."""
        nodes = list(_without_blocks(body))
        for place, node in enumerate(nodes):
            for part in t.parts(node):
                inner = part.body if isinstance(part, t.Block) else []
                yield from self._find_strides(inner)
            if not isinstance(node, t.Declare) or not self._may_stride(node):
                continue
            users = [other for other in nodes[place + 1 :] if node.variable in self.uses(other)]
            if len(users) == 1 and isinstance(users[0], t.Loop) and self._moves(users[0], node.variable):
                yield node.variable

    def _may_stride(self, node: t.Declare) -> bool:
        variable = node.variable
        if variable in self.remade or variable in self.carried or variable in self.values.memory or node.value is None:
            return False
        wide = isinstance(variable.type, Scalar) and variable.type.kind in "iu" and variable.type.bits >= _INDEX_BITS
        return wide and self.values.of(variable) > BLOCK and self._growth(node.value) == 1

    def _moves(self, loop: t.Loop, variable: t.Variable) -> bool:
        """Whether all that assigns a variable in a loop adds to it what is the same in all lanes."""
        moves = {id(part.value) for part in t.walk(loop) if isinstance(part, t.Evaluate)}
        moves |= {id(step.value) for step in _steps(loop) if isinstance(step, t.Evaluate)}
        for part in t.walk(loop):
            place = assigned(part)
            if place is None or variable not in variables_of(place):
                continue
            if id(part) not in moves or not isinstance(place, t.Name):
                return False
            if isinstance(part, t.Assign):
                added = part.op in ("+", "-") and isinstance(part.compute, Scalar) and part.compute.kind in "iu"
                if not added or self.values.level(part.right) > BLOCK or self._writes_memory(part.right):
                    return False
        return True

    def _growth(self, node: t.Expression) -> int | None:
        """Return by how much an integer grows from lane to lane along a row: 0, 1, or None for anything else."""
        if isinstance(node, t.Member) and isinstance(node.object, t.ThreadName):
            return int(node.object.name == "threadIdx" and node.field.name == "x")
        if isinstance(node, t.Name) and node.variable in self.remade:
            value = self.remade[node.variable].value
            return None if value is None else self._growth(value)
        if isinstance(node, t.Cast) and node.kind == "value" and isinstance(node.type, Scalar):
            inner, of = self._growth(node.operand), node.operand.type
            small = isinstance(of, Scalar) and of.kind in "iu" and node.type.bits <= of.bits and node.type.kind in "iu"
            small |= isinstance(node.operand, t.Member)  # a thread's number, which does not wrap
            return inner if inner == 0 or (small and node.type.bits >= _INDEX_BITS) else None
        if isinstance(node, t.Binary) and node.op in ("+", "-"):
            left, right = self._growth(node.left), self._growth(node.right)
            if left is None or right is None or left + right > 1 or (node.op == "-" and right):
                return None
            return left + right
        if self.values.level(node) == BLOCK and not self._writes_memory(node):
            return 0
        parts = [self._growth(part) for part in t.parts(node) if isinstance(part, t.Expression)]
        return 0 if isinstance(node, t.Binary) and parts == [0, 0] else None

    def turns_loops(self) -> bool:
        """Whether full strips go through loops together."""
        return any(_turns_loops(self.pieces(region, full=True)) for region in self.regions)

    def _pieces(self, body: Sequence[t.Statement], lockstep: bool, warps: bool) -> list[Piece]:
        out: list[Piece] = []
        group: list[t.Statement] = []

        def flush() -> None:
            if group:
                out.append(Lanes(list(group), serial=any(map(_has_loop, group))))
                group.clear()

        for node in _without_blocks(body):
            if isinstance(node, t.Declare) and node.variable in self.remade:
                continue
            made = self._piece(node, lockstep, warps)
            if made is None:
                if group and lockstep and _has_loop(node) != _has_loop(group[-1]):
                    flush()
                group.append(node)
            else:
                flush()
                out.extend(made)
        flush()
        return out

    def _piece(self, node: t.Statement, lockstep: bool, warps: bool) -> list[Piece] | None:
        """Return the pieces of one statement; None: it is a part of ``Lanes``."""
        if isinstance(node, Wait):
            return [Warp(node)]
        if lockstep and (variable := self._stride(node)) is not None:
            return [Stride(variable, node)]
        if isinstance(node, t.Jump):
            return [Leave(node.kind)]
        if waits(node) or _leaves(node):
            if isinstance(node, t.If) and self.values.level(node.condition) <= WARP:
                return [self._branch(node, lockstep, warps)]
            if isinstance(node, t.Loop) and self.values.loop_level(node) <= WARP:
                return [self._repeat(node, lockstep, warps)]
            raise Fallback(f"line {node.line}: control flow around a warp function is not uniform")
        if (lockstep or warps) and self.is_uniform(node, STRIP):
            return [Uniform(node)]
        if not lockstep or _may_return(node):
            return None
        if isinstance(node, t.If) and _has_loop(node) and self.is_condition(node.condition, STRIP):
            return [self._branch(node, lockstep, warps)]
        if isinstance(node, t.Loop):
            return self._unrolled(node, warps)
        return None

    def _stride(self, node: t.Statement) -> t.Variable | None:
        if isinstance(node, t.Declare):
            return node.variable if node.variable in self.strides else None
        place = assigned(node.value) if isinstance(node, t.Evaluate) else None
        variable = place.variable if isinstance(place, t.Name) else None
        return variable if variable in self.strides else None

    def _branch(self, node: t.If, lockstep: bool, warps: bool) -> Branch:
        if self._writes_memory(node.condition):
            raise Fallback(f"line {node.line}: a condition around a warp function writes memory")
        no = node.no.body if node.no else []
        yes = self._pieces(node.yes.body, lockstep, warps)
        level = self.values.level(node.condition)
        return Branch(node.condition, level, yes, self._pieces(no, lockstep, warps))

    def _repeat(self, node: t.Loop, lockstep: bool, warps: bool) -> Repeat:
        level = BLOCK if node.condition is None else self.values.level(node.condition)
        test = node.condition
        if test is not None and (self._writes_memory(test) or (level > STRIP and _assigns(test))):
            raise Fallback(f"line {node.line}: the condition of a loop around a warp function has effects")
        body = self._pieces(node.body.body, lockstep, warps)
        return Repeat(node, level, body, self._pieces(list(_steps(node)), lockstep, warps))

    def _unrolled(self, node: t.Loop, warps: bool) -> list[Piece] | None:
        """Turn a loop inside out, if that is possible and leaves lanes without loops."""
        together = self.values.loop_level(node) <= STRIP and self.is_condition(node.condition, STRIP)
        if not _jumps_plainly(node.body):
            return None
        if together:
            repeat = self._repeat(node, True, warps)
            return None if _is_serial([*repeat.body, *repeat.step]) else [repeat]
        if (lockstep := masked(node, self.values)) is not None:
            return [lockstep]
        if node.do or node.condition is None or _leaves(node.body):
            return None
        if _assigns(node.condition) or self._writes_memory(node.condition):
            return None
        body, step = self._pieces(node.body.body, True, warps), self._pieces(list(_steps(node)), True, warps)
        return None if _is_serial([*body, *step]) else [Divergent(node, body, step)]

    def _writes_memory(self, node: t.Expression) -> bool:
        """Whether evaluating it may write anything but local variables by their names."""
        for part in t.walk(node):
            place = assigned(part)
            base = None if place is None else root(place)
            if base is not None and not (isinstance(base, t.Name) and _is_value(base.variable)):
                return True
            if isinstance(part, t.Call) and self.values.has_effect(part):
                return True
        return False

    # ---- order

    def _is_ordered(self, node: t.Statement) -> bool:
        """Whether the order in which lanes do this may show."""
        dropped, kinds = set(), set()
        for part in _reached(node):
            if isinstance(part, t.Evaluate):
                value = part.value
                while isinstance(value, t.Cast) and value.type == VOID:
                    value = value.operand
                dropped.add(id(value))
            if not isinstance(part, t.Call) or isinstance(part.function, t.Function):
                continue
            name = part.function
            if name == "printf":
                return True
            if name.startswith("atomic"):
                if id(part) not in dropped or t.is_float(part.type) or name in ("atomicExch", "atomicCAS"):
                    return True
                kinds.add(name)
        return bool(kinds) and not any(self._atomics <= group for group in _COMMUTING)

    def may_vectorise(self, lanes: Lanes) -> bool:
        """Whether lanes have no memory in common that one of them writes, atomics and private memory included."""
        if lanes.serial:
            return False
        for statement in lanes.body:
            for node in t.walk(statement):
                if isinstance(node, t.Return) or (isinstance(node, t.Call) and str(node.function).startswith("atomic")):
                    return False
                if isinstance(node, t.Declare) and node.variable in self.values.memory:
                    return False
                shared = self.facts.private_memory or self.facts.has_atomics
                if shared and isinstance(node, t.Call) and isinstance(node.function, t.Function):
                    return False
        return True


def _kinds_of_atomics(kernel: t.Kernel) -> set[str]:
    calls = (node for function in kernel.functions for node in t.walk(body_of(function)) if isinstance(node, t.Call))
    return {call.function for call in calls if isinstance(call.function, str) and call.function.startswith("atomic")}


def _count_names(body: Sequence[t.Statement]) -> Counter[t.Variable]:
    """Count how often variables are named."""
    return Counter(node.variable for part in body for node in t.walk(part) if isinstance(node, t.Name | t.Declare))


def _without_blocks(body: Sequence[t.Statement]) -> Iterator[t.Statement]:
    """Yield statements, those of nested blocks in their place: no two variables have one name."""
    for node in body:
        if isinstance(node, t.Block):
            yield from _without_blocks(node.body)
        else:
            yield node


def _reached(node: t.TreeNode) -> Iterator[t.TreeNode]:
    """Yield a node, all below it, and the functions it calls."""
    seen: set[t.Function] = set()
    stack: list[t.TreeNode] = [node]
    while stack:
        for part in t.walk(stack.pop()):
            yield part
            if isinstance(part, t.Call) and isinstance(part.function, t.Function) and part.function not in seen:
                seen.add(part.function)
                stack.append(body_of(part.function))


def _steps(node: t.Loop) -> Iterator[t.Statement]:
    stack = [node.step] if node.step is not None else []
    while stack:
        step = stack.pop()
        if isinstance(step, t.Binary) and step.op == ",":
            stack += [step.right, step.left]
        else:
            yield t.Evaluate(node.line, step)


def _has_barrier(node: t.Statement) -> bool:
    return any(isinstance(part, Wait) and part.function in BARRIERS for part in t.walk(node))


def _may_return(node: t.Statement) -> bool:
    return any(isinstance(part, t.Return) for part in t.walk(node))


def _has_loop(node: t.Statement) -> bool:
    return any(isinstance(part, t.Loop | t.Switch) for part in t.walk(node))


def _leaves(node: t.Statement, kinds: tuple[str, ...] = ("break", "continue")) -> bool:
    """Whether a statement may break or continue a loop around it."""
    if isinstance(node, t.Jump):
        return node.kind in kinds
    if isinstance(node, t.Loop):
        return False
    if isinstance(node, t.Switch):
        kinds = tuple(kind for kind in kinds if kind != "break")
    return any(_leaves(part, kinds) for part in t.parts(node) if isinstance(part, t.Statement))


def _jumps_plainly(body: t.Statement) -> bool:
    """Whether the jumps out of a loop's body stand under ``if`` only."""
    if isinstance(body, t.Switch):
        return not _leaves(body)
    if isinstance(body, t.Loop):
        return True
    return all(_jumps_plainly(part) for part in t.parts(body) if isinstance(part, t.Statement))


def _turns_loops(pieces: Sequence[Piece]) -> bool:
    return any(
        isinstance(piece, Repeat | Divergent | Masked)
        or (isinstance(piece, Branch) and _turns_loops([*piece.yes, *piece.no]))
        for piece in pieces
    )


def _is_serial(pieces: Sequence[Piece]) -> bool:
    """Whether some of the lanes in it hold loops."""
    for piece in pieces:
        if isinstance(piece, Lanes) and piece.serial:
            return True
        inner = (
            []
            if isinstance(piece, Lanes | Masked)
            else [getattr(piece, name, []) for name in ("yes", "no", "body", "step")]
        )
        if any(map(_is_serial, inner)):
            return True
    return False


def _is_value(variable: t.Variable) -> bool:
    return variable.storage == "local" and not isinstance(variable.type, Reference)


def _lanes_change(pieces: Sequence[Piece], variable: t.Variable) -> bool:
    """Whether lanes assign a variable in these pieces, the last iterations of divergent loops not looked at."""
    for piece in pieces:
        if isinstance(piece, Lanes):
            if any(variable in variables_of(place) for node in piece.body for place in _assigned_in(node)):
                return True
        elif any(_lanes_change(getattr(piece, name, []), variable) for name in ("yes", "no", "body", "step")):
            return True
    return False


def _assigned_in(node: t.TreeNode) -> Iterator[t.Expression]:
    for part in t.walk(node):
        place = assigned(part)
        if place is not None:
            yield place


def _assigns(node: t.Expression) -> bool:
    return any(assigned(part) is not None for part in t.walk(node))
