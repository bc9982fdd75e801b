"""The fission shape's plan: where a kernel's body is cut into loops over threads.

A prepared body (fission_calls.py) is cut at its barriers into *regions*. Control flow around barriers has to be uniform
over the block and stays outside, as do assignments of uniform variables between regions. Each region becomes a loop
over *strips* of neighbouring threads; a region with warp functions has strips of a whole warp, and is cut once more, at
those, where control flow has to be uniform over the warp. What is left are *lanes*: statements for one thread after the
other, which compilers turn into SIMD. In a region without effects whose order shows, loops are turned inside out too:
uniform ones go around the lanes, others run for the whole strip as long as all of its lanes do.

    body ─► Region, If, Loop, Wait (barriers)      once for each block
    Region ─► Lanes, Uniform, Branch, Repeat, Divergent, Masked, Warp, Whole     once for each strip

A strip whose threads are all there runs that as it is; others (the end of a row, threads that have returned) run a
second version, thread by thread under a mask.

The coroutine shape runs a warp until it waits, lane by lane, then the next; so does this one. What may come out
differently is the order of what different lanes do between two waits. Where that shows (atomics whose result is used
or that do not commute, float atomics, printf), the lanes run one after the other through what lies between the waits.

Refuses (``Fallback``): barriers under control flow that is not uniform, warp functions under control flow that does not
look uniform over a warp (if it looks so and is not, the kernel traps where it would have deadlocked), and what
fission_calls.py refuses.
"""

from collections.abc import Iterator, Sequence

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission_calls import Fallback, Wait, may_return, prepare, strip_function, waits
from depin_node.compute.translate.fission_pieces import (
    Branch,
    Divergent,
    Lanes,
    Leave,
    Piece,
    Region,
    Repeat,
    Stride,
    Uniform,
    Warp,
    Whole,
    count_names,
    has_barrier,
    has_loop,
    is_serial,
    jumps_plainly,
    lanes_change,
    leaves,
    steps,
    turns_loops,
    weigh,
    without_blocks,
)
from depin_node.compute.translate.fission_variables import Variables
from depin_node.compute.translate.masks import masked
from depin_node.compute.translate.semantics import BARRIERS, Facts, body_of
from depin_node.compute.translate.types import VOID, Reference
from depin_node.compute.translate.uniformity import BLOCK, STRIP, WARP, Uniformity, assigned, changed_in

LANES_WEIGHT = 3
"""Functions and divisions after which what is spread goes on in another loop."""
SPREAD_WEIGHT_MAX = 32
"""More than this is not spread: the code is there twice then, and takes long to compile."""
LANE_BYTES_MAX = 2 << 10
"""What one thread may carry over waits."""
_COMMUTING = (
    {"atomicAdd", "atomicSub"},
    *({name} for name in ("atomicAnd", "atomicOr", "atomicXor", "atomicMin", "atomicMax", "atomicInc", "atomicDec")),
)


class Plan(Variables):
    """Where a kernel is cut, and where its variables live.

    Attributes:
        items: the block's statements: ``Region``, and what is done once for each block.
        values: levels of variables and expressions.
        remade: variables that are computed anew wherever they are used, by their declarations.
        hoisted: uniform variables that more than one region uses.
        carried: variables of one thread each that more than one region uses.
        returns: whether some threads may end before others.
    """

    def __init__(self, kernel: t.Kernel, facts: Facts, *, apart: bool = False) -> None:
        self.facts, self._spread = facts, False
        body = prepare(kernel, facts, apart=apart)
        self._names = count_names(body)
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
        self._check_order()
        self.returns = any(region.returns for region in self.regions)
        self.hoisted: set[t.Variable] = set()
        self.carried: set[t.Variable] = set()
        self._place()

    # ---- once for each block

    def _cut(self, body: Sequence[t.Statement]) -> list[t.Statement]:
        out: list[t.Statement] = []
        pending: list[t.Statement] = []
        waited = False

        def flush(vote: Wait | None = None) -> None:
            nonlocal waited
            first, last = self._shared_ends(pending)
            out.extend(pending[:first])
            if pending[first:last] or vote is not None:
                made = list(self._regions(pending[first:last], vote))
                made[0].follows_barrier, waited = waited, False
                out.extend(made)
            out.extend(pending[last:])
            pending.clear()

        for node in without_blocks(body):
            if isinstance(node, t.Declare) and node.variable in self.remade:
                continue
            if isinstance(node, Wait) and node.function in BARRIERS:
                flush(node if node.target is not None else None)
                waited = True
            elif has_barrier(node) or leaves(node) or self._returns_together(node):
                flush()
                out.append(self._control(node))
                waited = False
            else:
                pending.append(node)
                if may_return(node):
                    flush()
        flush()
        return out

    def _shared_ends(self, body: Sequence[t.Statement]) -> tuple[int, int]:
        """Return which statements of a region to be remain: uniform ones at its ends are done once for the block.

        That is, if others see what they assign; else each strip may as well do it.
        """
        inside = count_names(body)
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
        loops = [place for place, node in enumerate(body[:first_wait]) if has_loop(node)]
        if loops and not whole.ordered:
            yield self._region(body[: loops[-1] + 1], None)
            whole = self._region(body[loops[-1] + 1 :], vote)
        yield whole

    def _region(self, body: list[t.Statement], vote: Wait | None) -> Region:
        line = body[0].line if body else vote.line if vote else 0
        whole_warps = any(waits(node) for node in body)
        return Region(line, body, whole_warps, any(map(may_return, body)), any(map(self._is_ordered, body)), vote)

    def _returns_together(self, node: t.Statement) -> bool:
        if isinstance(node, t.Return):
            return True
        if not isinstance(node, t.If) or not may_return(node) or self.values.level(node.condition) > BLOCK:
            return False
        branches = [*node.yes.body, *(node.no.body if node.no else [])]
        return any(self._returns_together(part) for part in without_blocks(branches))

    def _control(self, node: t.Statement) -> t.Statement:
        if isinstance(node, t.Jump | t.Return):
            return node
        if isinstance(node, t.If) and self.is_condition(node.condition):
            no = None if node.no is None else t.Block(node.line, self._cut(node.no.body))
            return t.If(node.line, node.condition, t.Block(node.line, self._cut(node.yes.body)), no)
        if isinstance(node, t.Loop) and self.values.loop_level(node) == BLOCK and self.is_condition(node.condition):
            advance = list(steps(node))
            if all(map(self.is_uniform, advance)):
                inner = t.Block(node.line, self._cut(node.body.body))
                return t.Loop(node.line, node.condition, node.step, inner, node.do)
            if not node.do and not any(isinstance(part, t.Jump) and part.kind == "continue" for part in t.walk(node)):
                body = self._cut([*node.body.body, *advance])
                return t.Loop(node.line, node.condition, None, t.Block(node.line, body))
        raise Fallback(f"line {node.line}: control flow around a barrier is not uniform")

    # ---- once for each strip

    def pieces(self, region: Region, *, full: bool) -> list[Piece]:
        """Return what a strip does in a region; ``full``: all of its threads are there."""
        lockstep = full and not region.ordered
        self.strides = set(self._find_strides(region.body)) if lockstep else set()
        while True:
            made = self._pieces(region.body, lockstep, region.whole_warps)
            broken = {variable for variable in self.strides if lanes_change(made, variable)}
            if not broken:
                return list(self._spread_out(made)) if lockstep and self._spread else made
            self.strides -= broken

    def spreads(self) -> bool:
        """Have long calculations done in several loops over lanes; return whether there are any.

        A processor looks ahead a hundred operations: in short loops it finds other lanes to go on with.
        """
        body = [node for region in self.regions for node in region.body]
        self._spread = sum(map(weigh, body)) <= SPREAD_WEIGHT_MAX
        return self._spread and any(len(self.pieces(region, full=True)) > 1 for region in self.regions)

    def turns_loops(self) -> bool:
        """Whether full strips go through loops together."""
        return any(turns_loops(self.pieces(region, full=True)) for region in self.regions)

    def _pieces(self, body: Sequence[t.Statement], lockstep: bool, warps: bool) -> list[Piece]:
        out: list[Piece] = []
        group: list[t.Statement] = []

        def flush() -> None:
            if group:
                out.append(Lanes(list(group), serial=any(map(has_loop, group))))
                group.clear()

        for node in without_blocks(body):
            if isinstance(node, t.Declare) and node.variable in self.remade:
                continue
            made = self._piece(node, lockstep, warps)
            if made is None:
                if group and lockstep and has_loop(node) != has_loop(group[-1]):
                    flush()
                group.append(node)
            else:
                flush()
                out.extend(made)
        flush()
        return out

    def _spread_out(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if not isinstance(piece, Lanes) or any(map(self._is_reference, piece.body)):
                yield piece
                continue
            weight, group = 0, list[t.Statement]()
            for node in piece.body:
                group.append(node)
                weight += weigh(node)
                if weight >= LANES_WEIGHT:
                    yield Lanes(group, piece.serial)
                    weight, group = 0, []
            if group:
                yield Lanes(group, piece.serial)

    def _is_reference(self, node: t.Statement) -> bool:
        return isinstance(node, t.Declare) and isinstance(node.variable.type, Reference)

    def _piece(self, node: t.Statement, lockstep: bool, warps: bool) -> list[Piece] | None:
        """Return the pieces of one statement; None: it is a part of ``Lanes``."""
        if isinstance(node, Wait):
            return [Warp(node)]
        if lockstep and (variable := self._stride(node)) is not None:
            return [Stride(variable, node)]
        if isinstance(node, t.Jump):
            return [Leave(node.kind)]
        if waits(node) or leaves(node):
            if isinstance(node, t.If) and self.values.level(node.condition) <= WARP:
                return [self._branch(node, lockstep, warps)]
            if isinstance(node, t.Loop) and self.values.loop_level(node) <= WARP:
                return [self._repeat(node, lockstep, warps)]
            raise Fallback(f"line {node.line}: control flow around a warp function is not uniform")
        if (lockstep or warps) and self.is_uniform(node, STRIP):
            return [Uniform(node)]
        if lockstep and self._spread and self._is_whole(node):
            assert isinstance(node, t.Declare)
            return [Whole(node)]
        if not lockstep or may_return(node):
            return None
        if isinstance(node, t.If) and has_loop(node) and self.is_condition(node.condition, STRIP):
            return [self._branch(node, lockstep, warps)]
        if isinstance(node, t.Loop):
            return self._unrolled(node, warps)
        return None

    def _is_whole(self, node: t.Statement) -> bool:
        """Whether a strip may compute what it declares as a whole."""
        if not isinstance(node, t.Declare) or strip_function(node.value) is None or not self.is_of_lanes(node.variable):
            return False
        assert isinstance(node.value, t.Call)
        return not _assigns(node.value) and not self._writes_memory(node.value)

    def is_of_lanes(self, variable: t.Variable) -> bool:
        """Whether a strip keeps a value of it for each lane."""
        local = variable.storage == "local" and self.values.of(variable) > STRIP
        return local and not any(variable in kinds for kinds in (self.values.memory, self.remade, self.strides))

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
        return Repeat(node, level, body, self._pieces(list(steps(node)), lockstep, warps))

    def _unrolled(self, node: t.Loop, warps: bool) -> list[Piece] | None:
        """Turn a loop inside out, if that is possible and leaves lanes without loops."""
        together = self.values.loop_level(node) <= STRIP and self.is_condition(node.condition, STRIP)
        if not jumps_plainly(node.body):
            return None
        if together:
            repeat = self._repeat(node, True, warps)
            return None if is_serial([*repeat.body, *repeat.step]) else [repeat]
        if (lockstep := masked(node, self.values)) is not None:
            return [lockstep]
        if node.do or node.condition is None or leaves(node.body):
            return None
        if _assigns(node.condition) or self._writes_memory(node.condition):
            return None
        body, step = self._pieces(node.body.body, True, warps), self._pieces(list(steps(node)), True, warps)
        return None if is_serial([*body, *step]) else [Divergent(node, body, step)]

    # ---- order

    def _check_order(self) -> None:
        """Make sure that each lane does what is ordered before the next one does, from one wait to the next.

        That holds within lanes. So what is ordered may not go on in other lanes before all have waited.
        """
        first = next((region for region in self.regions if region.ordered), None)
        for region in self.regions:
            if (
                region.ordered
                and not region.follows_barrier
                and not (region is first and any(region is item for item in self.items))
            ):
                raise Fallback(f"line {region.line}: what depends on the order of threads is cut here")
            parts = [waits(node) if waits(node) or self._is_ordered(node) else None for node in region.body]
            known = [part for part in parts if part is not None] if region.ordered and region.whole_warps else []
            mixed = any(waits(node) and self._is_ordered(node) for node in region.body)
            if known and (mixed or sum(not part and (k == 0 or known[k - 1]) for k, part in enumerate(known)) > 1):
                raise Fallback(f"line {region.line}: what depends on the order of threads is cut by a warp function")

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


def _assigns(node: t.Expression) -> bool:
    return any(assigned(part) is not None for part in t.walk(node))
