"""What a block and its strips consist of in the fission shape (fission.py), and what statements may do."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission_calls import Wait, variables_of
from depin_node.compute.translate.masks import Masked
from depin_node.compute.translate.semantics import BARRIERS
from depin_node.compute.translate.uniformity import assigned, reached


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
class Whole:
    """Declares a variable as the result of a function that the strip computes as a whole."""

    declaration: t.Declare


@dataclass
class Leave:
    """``break`` or ``continue`` of a ``Repeat``."""

    kind: str


Piece = Lanes | Uniform | Stride | Branch | Repeat | Divergent | Masked | Warp | Whole | Leave


@dataclass
class Region(t.Statement):
    """What lies between two barriers.

    Attributes:
        body: statements, without blocks among them.
        whole_warps: it has warp functions.
        returns: threads may end in it.
        ordered: lanes have to run one after the other.
        vote: a barrier that counts, at its end.
        follows_barrier: all threads have waited just before.
    """

    body: list[t.Statement]
    whole_warps: bool
    returns: bool
    ordered: bool
    vote: Wait | None = None
    follows_barrier: bool = False


def count_names(body: Sequence[t.Statement]) -> Counter[t.Variable]:
    """Count how often variables are named."""
    return Counter(node.variable for part in body for node in t.walk(part) if isinstance(node, t.Name | t.Declare))


def without_blocks(body: Sequence[t.Statement]) -> Iterator[t.Statement]:
    """Yield statements, those of nested blocks in their place: no two variables have one name."""
    for node in body:
        if isinstance(node, t.Block):
            yield from without_blocks(node.body)
        else:
            yield node


def steps(node: t.Loop) -> Iterator[t.Statement]:
    """Yield the step of a loop, cut at its commas."""
    stack = [node.step] if node.step is not None else []
    while stack:
        step = stack.pop()
        if isinstance(step, t.Binary) and step.op == ",":
            stack += [step.right, step.left]
        else:
            yield t.Evaluate(node.line, step)


def has_barrier(node: t.Statement) -> bool:
    """Whether a block waits in it."""
    return any(isinstance(part, Wait) and part.function in BARRIERS for part in t.walk(node))


def has_loop(node: t.Statement) -> bool:
    """Whether it has what keeps a loop around it from becoming SIMD."""
    return any(isinstance(part, t.Loop | t.Switch) for part in t.walk(node))


def leaves(node: t.Statement, kinds: tuple[str, ...] = ("break", "continue")) -> bool:
    """Whether a statement may break or continue a loop around it."""
    if isinstance(node, t.Jump):
        return node.kind in kinds
    if isinstance(node, t.Loop):
        return False
    if isinstance(node, t.Switch):
        kinds = tuple(kind for kind in kinds if kind != "break")
    return any(leaves(part, kinds) for part in t.parts(node) if isinstance(part, t.Statement))


def jumps_plainly(body: t.Statement) -> bool:
    """Whether the jumps out of a loop's body stand under ``if`` only."""
    if isinstance(body, t.Switch):
        return not leaves(body)
    if isinstance(body, t.Loop):
        return True
    return all(jumps_plainly(part) for part in t.parts(body) if isinstance(part, t.Statement))


def turns_loops(pieces: Sequence[Piece]) -> bool:
    """Whether the lanes of a strip go through loops together in it."""
    return any(
        isinstance(piece, Repeat | Divergent | Masked)
        or (isinstance(piece, Branch) and turns_loops([*piece.yes, *piece.no]))
        for piece in pieces
    )


def weigh(node: t.TreeNode) -> int:
    """Count what takes long: functions of the header, and divisions."""
    weight = 0
    for part in t.walk(node):
        called = part.function if isinstance(part, t.Call) else None
        if isinstance(called, t.Function):
            weight += sum(map(_takes_long, reached(called)))
        weight += _takes_long(part)
    return weight


def _takes_long(node: t.TreeNode) -> bool:
    if isinstance(node, t.Call):
        return not isinstance(node.function, t.Function)
    return isinstance(node, t.Binary) and node.op == "/" and t.is_float(node.type)


def streams(pieces: Sequence[Piece]) -> bool:
    """Whether the lanes of a strip go through memory together in one loop, and there are no other loops."""
    loops = [piece for piece in pieces if isinstance(piece, Divergent)]
    inner = [part for loop in loops for part in (*loop.body, *loop.step)]
    others = [piece for piece in pieces if not isinstance(piece, Divergent)]
    moved = any(isinstance(part, Stride) for part in inner)
    return moved and not turns_loops([*inner, *others]) and not is_serial([*inner, *others])


def is_serial(pieces: Sequence[Piece]) -> bool:
    """Whether some of the lanes in it hold loops."""
    for piece in pieces:
        if isinstance(piece, Lanes) and piece.serial:
            return True
        inner = (
            []
            if isinstance(piece, Lanes | Masked)
            else [getattr(piece, name, []) for name in ("yes", "no", "body", "step")]
        )
        if any(map(is_serial, inner)):
            return True
    return False


def lanes_change(pieces: Sequence[Piece], variable: t.Variable) -> bool:
    """Whether lanes assign a variable in these pieces, the last iterations of divergent loops not looked at."""
    for piece in pieces:
        if isinstance(piece, Lanes):
            if any(variable in variables_of(place) for node in piece.body for place in _assigned_in(node)):
                return True
        elif any(lanes_change(getattr(piece, name, []), variable) for name in ("yes", "no", "body", "step")):
            return True
    return False


def _assigned_in(node: t.TreeNode) -> Iterator[t.Expression]:
    for part in t.walk(node):
        place = assigned(part)
        if place is not None:
            yield place
