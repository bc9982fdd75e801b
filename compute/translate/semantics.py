"""What a kernel does, as far as its text tells: barriers, recursion, private memory, and whether its bits are defined.

Answers lean to the safe side. *Synchronising* functions wait for other threads, themselves or in what they call; a
kernel with one needs fission or coroutines. *Private memory* is a thread's own memory that optimisers may be unable to
keep in registers (arrays, addresses of locals): then the loop shape may not promise independent iterations.

Exact means: no float atomics, no atomic whose result is used, no bits of a NaN made visible where they could not be
made canonical, no fences between blocks. (Uninitialised memory reads as zeros, here.) That no thread depends on
another's unsynchronised writes cannot be read from the text; submission tries it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.types import (
    F32,
    F64,
    I32,
    I64,
    U32,
    U64,
    VOID,
    Array,
    Pointer,
    Record,
    Reference,
    Type,
    homogeneous,
)

BARRIERS = frozenset({"__syncthreads", "__syncthreads_count", "__syncthreads_and", "__syncthreads_or"})
WARP_FUNCTIONS = frozenset(
    {
        *("__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"),
        *("__ballot_sync", "__any_sync", "__all_sync"),
    }
)
SYNCHRONISING = BARRIERS | WARP_FUNCTIONS
FENCES = frozenset({"__threadfence", "__threadfence_system"})
_ORDER = "the order of threads is not defined, and rounding depends on it"
_SELECTING = ("atomicMax_", "atomicMin_")
"""Atomics on floats that round nothing, and so do not depend on the order."""
_ORDERED = ("atomicExch", "atomicCAS")
"""Atomics whose effect depends on the order even if the result is dropped."""


@dataclass
class Facts:
    """What the pass found; ``notes`` are sentences for the user, each with its line: why the bits are not defined."""

    synchronising: set[t.Function] = field(default_factory=set)
    recursive: set[t.Function] = field(default_factory=set)
    has_atomics: bool = False
    prints: bool = False
    private_memory: bool = False
    punned_unions: set[Record] = field(default_factory=set)
    """Unions that show a float's bits as something else: floats stored in them are made canonical."""
    canonical: bool = False
    """What is stored into memory is floats alone, made canonical as they are stored (stores.py)."""
    trial: bool = False
    """The variant for a trial is wanted: threads say what they do in shared memory (print_trial.py)."""
    notes: list[str] = field(default_factory=list)


def analyse(kernel: t.Kernel) -> Facts:
    """Return the facts about a kernel.

    Raises:
        Unsupported: a synchronising function is of a form that no shape can run.
    """
    facts = Facts()
    calls = {function: list(_callees(function)) for function in kernel.functions}
    for function in kernel.functions:
        reached = _reach(function, calls)
        if any(_synchronises(other) for other in (function, *reached)):
            facts.synchronising.add(function)
            if isinstance(function.result, Reference):
                text = f"{function.name}: a function that waits for other threads cannot return a reference"
                raise Unsupported(text, function.line, 1)
        if function in reached:
            facts.recursive.add(function)
    facts.punned_unions = {record for record in kernel.records if record.is_union and _is_punned(record)}
    elements = {homogeneous(variable.type.element) for variable in kernel.dynamic if isinstance(variable.type, Array)}
    if len(elements) > 1:
        line = kernel.dynamic[-1].line
        facts.notes.append(f"line {line}: dynamic shared memory has several types: the bits of NaNs may differ")
    for function in kernel.functions:
        _Reader(facts, function).read()
    return facts


def _callees(function: t.Function) -> Iterator[t.Function]:
    for node in t.walk(body_of(function)):
        if isinstance(node, t.Call) and isinstance(node.function, t.Function):
            yield node.function


def body_of(function: t.Function) -> t.Block:
    """Return a lowered function's body."""
    assert function.body is not None
    return function.body


def _reach(function: t.Function, calls: dict[t.Function, list[t.Function]]) -> set[t.Function]:
    seen: set[t.Function] = set()
    stack = list(calls[function])
    while stack:
        other = stack.pop()
        if other not in seen:
            seen.add(other)
            stack.extend(calls[other])
    return seen


def _synchronises(function: t.Function) -> bool:
    return any(isinstance(node, t.Call) and node.function in SYNCHRONISING for node in t.walk(body_of(function)))


def _is_punned(record: Record) -> bool:
    parts = [homogeneous(member.type) for member in record.fields]
    kinds = {part and part[0] for part in parts}
    return len(kinds) > 1 and any(kind is None or t.is_float(kind) for kind in kinds)


def has_array(type_: Type) -> bool:
    """Whether a value of this type holds an array."""
    if isinstance(type_, Record):
        return type_.is_union or any(has_array(member.type) for member in type_.fields)
    return isinstance(type_, Array)


def root(place: t.Expression) -> t.Expression:
    """Return what an lvalue is a part of: ``v`` of ``v.a[2].b``; of ``p->a`` the dereference."""
    while True:
        if isinstance(place, t.Member):
            place = place.object
        elif isinstance(place, t.Index) and isinstance(place.base, t.Cast) and place.base.kind == "decay":
            place = place.base.operand
        else:
            return place


def through_union(place: t.Expression, unions: set[Record]) -> bool:
    """Whether an lvalue is a part of one of these unions."""
    while True:
        if isinstance(place, t.Member):
            if place.record in unions:
                return True
            place = place.object
        elif isinstance(place, t.Index) and isinstance(place.base, t.Cast) and place.base.kind == "decay":
            place = place.base.operand
        else:
            return False


def reinterprets(cast: t.Expression) -> bool:
    """Whether a pointer cast shows floats as something else, or something else as floats."""
    if not (isinstance(cast, t.Cast) and cast.kind == "bits"):
        return False
    ends = [type_.target for type_ in (cast.type, cast.operand.type) if isinstance(type_, Pointer)]
    parts = [homogeneous(end) for end in ends]
    scalars = {part and part[0] for part in parts}
    return len(scalars) > 1 and any(scalar is None or t.is_float(scalar) for scalar in scalars)


def visible_bits(node: t.Expression) -> t.Expression | None:
    """Return the float whose bits ``*(int*)&x`` reads: there they can be made canonical."""
    if isinstance(node, t.Unary) and node.op == "*" and isinstance(node.operand, t.Cast):
        cast = node.operand
        if cast.kind == "bits" and isinstance(cast.operand, t.Unary) and cast.operand.op == "&":
            source = cast.operand.operand
            if (source.type == F32 and node.type in (I32, U32)) or (source.type == F64 and node.type in (I64, U64)):
                return source
    return None


def _wrapped(function: t.Function) -> t.Call | None:
    """Return the atomic that a function of our library consists of: it counts where the user's source calls it."""
    body = body_of(function).body
    if function.line or len(body) != 1 or not isinstance(body[0], t.Return):
        return None
    calls = (node for node in t.walk(body[0]) if isinstance(node, t.Call) and isinstance(node.function, str))
    return next((call for call in calls if str(call.function).startswith("atomic")), None)


class _Reader:
    """Reads one function; ``read`` adds to the facts."""

    def __init__(self, facts: Facts, function: t.Function) -> None:
        self.facts, self.function = facts, function
        self._dropped: set[int] = set()
        self._places: set[int] = set()
        self._canonical: set[int] = set()

    def read(self) -> None:
        for variable in self.function.parameters:
            self._private(variable)
        if self.function.self_variable is not None:
            self._private(self.function.self_variable)
        for node in t.walk(body_of(self.function)):
            self._node(node)

    def _note(self, line: int, text: str) -> None:
        sentence = f"line {line}: {text}" if line else text
        if sentence not in self.facts.notes:
            self.facts.notes.append(sentence)

    def _private(self, variable: t.Variable) -> None:
        if not isinstance(variable.type, Reference) and has_array(variable.type):
            self.facts.private_memory = True

    def _node(self, node: t.TreeNode) -> None:
        if isinstance(node, t.Declare):
            self._private(node.variable)
        elif isinstance(node, t.Evaluate):
            value = node.value
            while isinstance(value, t.Cast) and value.type == VOID:
                value = value.operand
            self._dropped.add(id(value))
        elif isinstance(node, t.Assign):
            self._places.add(id(node.left))
            self._written(node)
        elif isinstance(node, t.Unary):
            self._unary(node)
        elif isinstance(node, t.Cast) and reinterprets(node) and id(node) not in self._canonical:
            self._note(node.line, "floats are read as another type through a pointer: the bits of NaNs may differ")
        elif isinstance(node, t.Call):
            self._call(node)

    def _written(self, node: t.Assign) -> None:
        if isinstance(root(node.left), t.Conditional):
            self.facts.private_memory = True
        if node.op and t.is_float(node.left.type) and through_union(node.left, self.facts.punned_unions):
            self._note(node.line, "a float in a union is changed in place: the bits of NaNs may differ")
        if isinstance(node.type, Record) and through_union(node.left, self.facts.punned_unions):
            self._note(node.line, "a struct is copied into a union: the bits of NaNs may differ")

    def _unary(self, node: t.Unary) -> None:
        if visible_bits(node) is not None and id(node) not in self._places:
            self._canonical.add(id(node.operand))
            assert isinstance(node.operand, t.Cast)
            self._places.add(id(node.operand.operand))
        elif node.op == "&" and id(node) not in self._places:
            base = root(node.operand)
            if isinstance(base, t.Conditional) or _is_local(base):
                self.facts.private_memory = True
            if t.is_float(node.operand.type) and through_union(node.operand, self.facts.punned_unions):
                self._note(node.line, "the address of a float in a union is taken: the bits of NaNs may differ")

    def _call(self, node: t.Call) -> None:
        if isinstance(node.function, t.Function):
            for parameter, argument in zip(node.function.parameters, node.arguments, strict=True):
                if isinstance(parameter.type, Reference) and isinstance(root(argument), t.Conditional):
                    self.facts.private_memory = True
            inner = _wrapped(node.function)
            if inner is not None:
                self._atomic(node, inner, node.function.name)
            return
        name = node.function
        for argument in node.arguments:  # the header's functions are always inlined: &x stays a register
            self._places.add(id(argument))
        if name in FENCES:
            self._note(node.line, f"{name} suggests that blocks read what others write: their order is not defined")
        self.facts.prints |= name == "printf"
        if name.startswith("atomic"):
            self.facts.has_atomics = True
            if _wrapped(self.function) is not node:
                self._atomic(node, node, name)

    def _atomic(self, node: t.Call, inner: t.Call, name: str) -> None:
        """Judge a call of an atomic of the header: ``inner``, which is the call itself or what it wraps."""
        target = inner.arguments[0].type
        element = target.target if isinstance(target, Pointer) else target
        rounds = t.is_float(element) and inner.function not in _SELECTING
        if rounds or inner.function == "atomicAdd_half":
            kind = "half" if not rounds else "float" if element == F32 else "double"
            self._note(node.line, f"{name} on {kind}: {_ORDER}")
        elif any(reinterprets(part) for part in t.walk(node.arguments[0]) if isinstance(part, t.Cast)):
            self._note(node.line, f"{name} on memory that holds floats: {_ORDER}")
        elif id(node) not in self._dropped:
            self._note(node.line, f"the result of {name} is used: it depends on the order of threads")
        elif inner.function in _ORDERED:
            self._note(node.line, f"the effect of {name} depends on the order of threads")


def _is_local(place: t.Expression) -> bool:
    return isinstance(place, t.Name) and place.variable.storage in ("local", "parameter")
