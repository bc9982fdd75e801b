"""Where the variables of the fission shape live, and what statements do to them; fission.py is what uses this.

Besides arrays for lanes and for blocks there are two cheaper ways. What is a simple function of the thread's place is
*remade*: computed anew wherever it is used, so that addresses stay plain functions of the lane. A *stride* (``for (i =
blockIdx.x * blockDim.x + threadIdx.x; i < n; i += uniform)``) grows by one from lane to lane, and all lanes move it on
by the same, so that the first lane's value is enough, and neighbouring lanes load neighbouring elements.
"""

from collections.abc import Iterator, Sequence

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission_calls import Fallback, Wait, variables_of
from depin_node.compute.translate.fission_pieces import Region, steps, without_blocks
from depin_node.compute.translate.semantics import root
from depin_node.compute.translate.types import Reference, Scalar
from depin_node.compute.translate.uniformity import BLOCK, CHANGES, STRIP, Uniformity, assigned, constant

REMADE_NODES_MAX = 24
"""Of what is remade: the nodes of its expression."""
_INDEX_BITS = 32


class Variables:
    """The variables of a plan; ``Plan`` says what the attributes are."""

    values: Uniformity
    remade: dict[t.Variable, t.Declare]
    hoisted: set[t.Variable]
    carried: set[t.Variable]
    items: list[t.Statement]
    regions: list[Region]

    def _remake(self, body: Sequence[t.Statement]) -> None:
        sizes: dict[t.Variable, int] = {}
        for statement in body:
            for node in t.walk(statement):
                if not isinstance(node, t.Declare) or node.value is None or node.variable in self.values.memory:
                    continue
                variable, value = node.variable, node.value
                reference = isinstance(variable.type, Reference)  # what is assigned to it goes where it refers to
                is_fixed = self.values.definitions.get(variable) == 1 and self.values.of(variable) > STRIP
                if not (reference or is_fixed):
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
            if isinstance(variable.type, Reference) and not place:
                return huge  # what it refers to may have changed since
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

    def _find_strides(self, body: Sequence[t.Statement]) -> Iterator[t.Variable]:
        """Yield the variables that one loop after their declaration uses and nothing else, and that may be strides."""
        nodes = list(without_blocks(body))
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
        moves |= {id(step.value) for step in steps(loop) if isinstance(step, t.Evaluate)}
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


def _is_value(variable: t.Variable) -> bool:
    return variable.storage == "local" and not isinstance(variable.type, Reference)
