"""The text of the trial variant: each thread says what it reads and stores in memory that it shares, and which elements
of the arrays that the kernel was given (headers/races.h).

Reads and stores are reported at the whole lvalue (``s[i].x`` is four bytes of ``s[i]``); whose memory it is in is seen
when it runs, so that it does not matter what a pointer came from. Where an lvalue goes on as one (an address that is
taken, an array that decays) nothing is reported; bound to a reference it counts as read. Atomics, and the loads and
stores that are functions, report what they are given the address of; other functions that store through a pointer
(``sincosf``, ``memcpy``) do not.
"""

from typing import Final

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.print_cpp import Printer
from depin_node.compute.translate.semantics import root, visible_bits
from depin_node.compute.translate.types import Array, Reference

_KINDS: Final = ("READ", "Add", "Min", "Max", "And", "Or", "Xor", "Inc", "Dec", "Exch", "CAS")
"""Of atomics, by their place here: those of one kind commute (``Exch`` and ``CAS`` do not, which the text tells)."""


def _access(function: str) -> str | None:
    """Return what a function of the device header does to what its first argument leads to, or None."""
    if function.startswith("atomic"):
        kind = function.removeprefix("atomic").partition("_")[0].replace("Sub", "Add")
        return str(_KINDS.index(kind))
    return "cuda::READ" if function.startswith("__ld") else "cuda::STORE" if function.startswith("__st") else None


class TrialPrinter(Printer):
    """Prints functions that report what they do."""

    _as_place = False
    """Whether the expression that is printed next is a place whose value is not taken."""
    _as_address = False
    """Whether the element that is printed next need not be there: an end of an array has an address too."""

    def expression(self, node: t.Expression) -> str:
        """Return an expression; a value that is taken of memory is reported."""
        is_place, self._as_place = self._as_place, False
        text = super().expression(node)
        return text if is_place or not _is_reported(node) else f"cuda::seen(k, {text})"

    def _place_of(self, node: t.Expression) -> str:
        self._as_place = True
        return self.expression(node)

    def place(self, node: t.Expression) -> str:
        """Return an lvalue that is written."""
        if visible_bits(node) is None:
            self._as_place = True
        return super().place(node)

    def _index(self, node: t.Index) -> str:
        is_address, self._as_address = self._as_address, False
        if is_address or isinstance(node.base.type, Array) or _decays(node.base):
            return super()._index(node)
        base, index = self.expression(node.base), self.expression(node.index)
        name = "" if self._function is None else f"{self._function.name}, "
        return f'cuda::element(k, {base}, {index}, "{name}line {node.line}: ")'

    def _member(self, node: t.Member) -> str:
        return f"{self._place_of(node.object)}.{node.field.name}"

    def _cast(self, node: t.Cast) -> str:
        if node.kind == "decay":
            self._as_place = True
        return super()._cast(node)

    def _unary(self, node: t.Unary) -> str:
        changes = node.op in ("++", "--", "p++", "p--")
        if visible_bits(node) is None and (changes or node.op == "&"):
            self._as_address = node.op == "&" and isinstance(node.operand, t.Index)
            operand = self._place_of(node.operand)
            if changes and _is_memory(node.operand):
                operand = f"cuda::changed(k, {operand})"
            return f"({operand}{node.op[1:]})" if node.op[0] == "p" else f"({node.op}{operand})"
        return super()._unary(node)

    def _call(self, node: t.Call) -> str:
        access = _access(node.function) if isinstance(node.function, str) else None
        if access is None:
            return super()._call(node)
        place, *others = (self.expression(argument) for argument in node.arguments)
        return f"cuda::{node.function}({', '.join([f'cuda::given(k, {place}, {access})', *others])})"

    def _assign(self, node: t.Assign) -> str:
        text = super()._assign(node)
        return f"cuda::stored(k, {text})" if _is_memory(node.left) else text

    def _target(self, node: t.Assign) -> str:
        text = super()._target(node)
        if not _is_memory(node.left):
            return text
        return f"cuda::stored_to(k, cuda::seen(k, {text}))" if node.op else f"cuda::stored_to(k, {text})"


def _decays(node: t.Expression) -> bool:
    return isinstance(node, t.Cast) and node.kind == "decay"


def _is_reported(node: t.Expression) -> bool:
    lvalue = isinstance(node, t.Index | t.Member | t.Name) or (isinstance(node, t.Unary) and node.op == "*")
    return lvalue and not isinstance(node.type, Array) and visible_bits(node) is None and _is_memory(node)


def _is_memory(place: t.Expression) -> bool:
    """Whether a place may be in memory that threads share."""
    base = root(place)
    if isinstance(base, t.Name):
        return isinstance(base.variable.type, Reference) or base.variable.storage in ("shared", "dynamic")
    return isinstance(base, t.Index) or (isinstance(base, t.Unary) and base.op == "*")
