"""The typed tree: a kernel after the front end, with everything implicit made explicit.

Every conversion is a ``Cast``, every call names the one function that is meant, templates are gone (each instance is a
function of its own), methods and constructors are functions that take or make their object, references remain. What a
node means does not depend on where it is printed, so passes can analyse it, rearrange it and print it in any shape.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from depin_node.compute.translate.types import Field, Record, Scalar, Type


@dataclass(eq=False)
class Variable:
    """``storage``: local, parameter, shared, dynamic (``extern __shared__``) or constant."""

    name: str
    cpp: str
    type: Type
    storage: str
    line: int = 0


@dataclass(eq=False)
class Function:
    """A function of the user's. ``self_type`` is set for methods, whose object is ``self``."""

    name: str
    cpp: str
    result: Type
    line: int
    parameters: list[Variable] = field(default_factory=list)
    body: "Block | None" = None
    self_variable: Variable | None = None
    starts_as_zeros: bool = False
    """Of a constructor: it leaves out elements that are zero."""
    constructs: bool = False
    """A constructor: it returns ``self_variable``."""
    hidden: dict[str, Variable] = field(default_factory=dict)
    """The last of the parameters: pointers to the ``__constant__`` data that the host sets."""


@dataclass
class Expression:
    """Every expression has a type and a line."""

    type: Type
    line: int


@dataclass
class Literal(Expression):
    """A constant, as C++ text of exactly its type."""

    text: str


@dataclass
class Name(Expression):
    """A variable."""

    variable: Variable


@dataclass
class ThreadName(Expression):
    """``threadIdx``, ``blockIdx``, ``blockDim`` or ``gridDim``."""

    name: str


@dataclass
class Unary(Expression):
    """``op``: + - ~ ! & * ++ -- and the postfix forms ``p++`` and ``p--``."""

    op: str
    operand: Expression


@dataclass
class Binary(Expression):
    """Arithmetic, comparison, logic, or the comma."""

    op: str
    left: Expression
    right: Expression


@dataclass
class Assign(Expression):
    """``op`` is empty or that of a compound assignment, which computes in ``compute``."""

    op: str
    left: Expression
    right: Expression
    compute: Type


@dataclass
class Conditional(Expression):
    """``?:``."""

    condition: Expression
    yes: Expression
    no: Expression


@dataclass
class Index(Expression):
    """A pointer's element."""

    base: Expression
    index: Expression


@dataclass
class Member(Expression):
    """A member of an object."""

    object: Expression
    field: Field
    record: Record | None
    """None: a vector type of the device header."""


@dataclass
class Cast(Expression):
    """``kind``: value (numbers), decay (array to pointer), bits (pointer to pointer), null, truth (pointer to bool)."""

    kind: str
    operand: Expression


@dataclass
class Call(Expression):
    """A call of a function of the user's, or of the device header by name."""

    function: "Function | str"
    arguments: list[Expression]


@dataclass
class Initialise(Expression):
    """``{a, b, c}`` of an array or a record; what is missing is zero. Of a union, ``member`` is what is initialised."""

    items: list[Expression]
    member: Field | None = None


@dataclass
class Temporary(Expression):
    """A value that a reference is bound to."""

    operand: Expression


@dataclass
class Statement:
    """Every statement has a line."""

    line: int


@dataclass
class Block(Statement):
    """``{ … }``."""

    body: list[Statement]


@dataclass
class Declare(Statement):
    """A local variable; without a value it starts as zeros, unless ``bare``: inside a switch C++ forbids that."""

    variable: Variable
    value: Expression | None
    bare: bool = False


@dataclass
class Evaluate(Statement):
    """An expression for its effect."""

    value: Expression


@dataclass
class If(Statement):
    """``if``."""

    condition: Expression
    yes: Block
    no: Block | None


@dataclass
class Loop(Statement):
    """``for`` and ``while`` (``start`` in a block around it); ``do``: the condition comes after the body."""

    condition: Expression | None
    step: Expression | None
    body: Block
    do: bool = False


@dataclass
class Switch(Statement):
    """``switch``."""

    value: Expression
    body: Block


@dataclass
class Case(Statement):
    """A label: ``value`` is None for ``default``."""

    value: Literal | None


@dataclass
class Jump(Statement):
    """``break`` or ``continue``."""

    kind: str


@dataclass
class Return(Statement):
    """``return``."""

    value: Expression | None


TreeNode: TypeAlias = Expression | Statement


@dataclass
class Global:
    """A table of constants: ``__constant__``, ``constexpr``, ``static const``."""

    variable: Variable
    value: Expression


@dataclass
class Kernel:
    """One kernel of a unit: the functions and the shared memory that are reachable from it, in the unit's order.

    Kernels of one unit share their functions, so passes that rearrange make a new tree and leave this one alone.
    """

    entry: Function
    functions: list[Function]
    records: list[Record]
    """Of the whole unit."""
    shared: list[Variable]
    """Static shared arrays."""
    dynamic: list[Variable]
    """``extern __shared__`` arrays: all of them begin where the dynamic memory does."""


@dataclass
class Unit:
    """A whole source: the kernels that were asked for, in that order, and what they have in common."""

    kernels: list[Kernel]
    functions: list[Function]
    """All that any kernel reaches."""
    records: list[Record]
    """Members before what holds them."""
    globals: list[Global]
    """Each after those that its value names."""


@functools.cache
def _children(kind: type) -> tuple[str, ...]:
    """Return the fields of a kind of node that may hold others: ``fields`` takes as long as all else of a pass."""
    return tuple(item.name for item in fields(kind) if item.name not in ("type", "line"))


def parts(node: TreeNode) -> Iterator[TreeNode]:
    """Yield the direct children of a node, in order of evaluation as written."""
    for name in _children(type(node)):  # type: ignore[arg-type]  # a class has a hash, if its instances have none
        value = getattr(node, name)
        if isinstance(value, Expression | Statement):
            yield value
        elif isinstance(value, list):
            yield from value


def walk(node: TreeNode) -> Iterator[TreeNode]:
    """Yield a node and everything below it, parents first."""
    stack: list[TreeNode] = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(list(parts(top))))


def is_float(type_: Type) -> bool:
    """Whether it is float or double."""
    return isinstance(type_, Scalar) and type_.kind == "f"
