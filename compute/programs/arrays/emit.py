"""One kernel's text: the value of an array's element, as a function of its index.

``Body.value`` walks from an array back to what lies in memory, and writes one line for each array on the way: views
change the index (``indices.py``), elementwise functions compute (``words.py``), what is created is a function of the
index alone. What lies in memory becomes a pointer parameter of the kernel. The same array at the same place is computed
once.

The lines depend on dtypes and shapes only: fractions become parameters too, and only whole numbers stand in the text.
Parameters and variables are numbered in the order of their first use. So equal steps, as a loop in Python records them,
have equal texts and share one kernel.
"""

import math
from collections.abc import Callable
from typing import Final

from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.dtypes import BITS, KINDS, REAL_OF, integer_range
from depin_node.compute.programs.arrays.indices import VIEWS, Index, source_index
from depin_node.compute.programs.arrays.words import HELPERS, WORDS
from depin_node.compute.programs.generated.parameters import C_TYPES

CREATED: Final = frozenset({"full", "arange", "linspace", "eye"})
"""Operations whose elements are functions of the index alone."""
COMPUTED: Final = frozenset({*WORDS, "astype", "where", "take", "take_along", "search", "random"})
"""Operations whose elements are computed from one element of each input."""
WIDE_MIN: Final = 2**31
"""Arrays of so many elements need indices of 64 bits."""


class Body:
    """The lines of one kernel or function, being written.

    Args:
        in_memory: tells whether an array lies in memory.
        wide: whether indices have 64 bits.
    """

    def __init__(self, in_memory: Callable[[Array], bool], *, wide: bool) -> None:
        self._in_memory = in_memory
        self.index_type = "long long" if wide else "int"
        self.lines: list[str] = []
        self.reads: dict[Array, str] = {}
        """The arrays that it reads in memory, with the names of their pointers."""
        self.scalars: dict[tuple[str, float], str] = {}
        """The numbers that it takes, by dtype and value, with their names."""
        self.helpers: set[str] = set()
        self._names: dict[str, str] = {}
        self._values: dict[tuple[Array, tuple[str, ...]], str] = {}

    @property
    def uses_digits(self) -> bool:
        """Whether an index had to be cut into digits, or joined from them."""
        return bool(self._names)

    @property
    def declarations(self) -> list[str]:
        """The parameters for what it reads, and for numbers."""
        pointers = [f"const {C_TYPES[array.kind]}* __restrict__ {name}" for array, name in self.reads.items()]
        return [*pointers, *(f"const {C_TYPES[kind]} {name}" for (kind, _), name in self.scalars.items())]

    @property
    def arguments(self) -> str:
        """The names of those parameters, each with a comma, to pass them on."""
        return "".join(f"{name}, " for name in (*self.reads.values(), *self.scalars.values()))

    def let(self, text: str) -> str:
        """Declare an index; see ``indices.Let``."""
        if text not in self._names:
            unsigned = text.replace("u", "ull") if self.index_type == "long long" else text
            self._names[text] = self._line(self.index_type, unsigned)
        return self._names[text]

    def _line(self, c_type: str, text: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"const {c_type} {name} = ({c_type})({text});")
        return name

    def pointer(self, array: Array) -> str:
        """Return the name of the pointer to an array in memory."""
        return self.reads.setdefault(array, f"p{len(self.reads)}")

    def value(self, array: Array, index: Index) -> str:
        """Return the C text of the element of ``array`` at ``index``: a name or a number."""
        while array.op in VIEWS and not self._in_memory(array):
            index, array = source_index(array, index, self.let), array.inputs[0]
        if array.op == "full":
            return self._number(array)
        place = index.flat
        key = (array, (place,))
        if key not in self._values:
            text = f"{self.pointer(array)}[{place}]" if self._in_memory(array) else self.computed(array, index)
            self._values[key] = self._line(C_TYPES[array.kind], text)
        return self._values[key]

    def computed(self, array: Array, index: Index) -> str:
        """Return the C text that computes the element of ``array`` at ``index``, even if it lies in memory too."""
        if array.op == "full":
            return self._number(array)
        if array.op in CREATED:
            return _created(array, index)
        if array.op == "random":
            return self._random(array, index)
        if array.op in ("take", "take_along"):
            return self._taken(array, index)
        if array.op == "search":
            return self._searched(array, index)
        operands = [self.value(operand, index) for operand in array.inputs]
        if array.op == "astype":
            return _converted(operands[0], array.inputs[0].kind, array.kind)
        if array.op == "where":
            return "{} ? {} : {}".format(*operands)
        kind = array.inputs[0].kind
        texts = WORDS[array.op].texts
        text = next(text for kinds, text in texts.items() if KINDS[kind] in kinds)
        real = REAL_OF.get(kind, kind)
        text = text.format(*operands, T=C_TYPES[kind], s="f" if real == "float32" else "")
        self._help(text)
        return text

    def _number(self, array: Array) -> str:
        value = array.attributes["value"]
        if KINDS[array.kind] != "f" or not math.isfinite(value) or float(value).is_integer():
            return literal(value, array.kind)
        return self.scalars.setdefault((array.kind, float(value)), f"f{len(self.scalars)}")

    def _help(self, text: str) -> None:
        self.helpers |= {name for name in HELPERS if f"{name}(" in text}

    def _random(self, array: Array, index: Index) -> str:
        """Words of Philox by the key, the element's number and the stream."""
        key = self.value(array.inputs[0], Index((), self.let, flat=lambda: "0"))
        self.helpers.add("_philox")
        words = f"v{len(self.lines)}"
        stream = array.attributes["stream"]
        self.lines.append(f"const _Words {words} = _philox({key}, (unsigned long long){index.flat}, {stream}ull);")
        first = array.attributes["word"]
        if array.kind == "uint32":
            return f"{words}.w[{first}]"
        return f"((unsigned long long){words}.w[{first + 1}] << 32) | {words}.w[{first}]"

    def _taken(self, array: Array, index: Index) -> str:
        source, where = array.inputs
        axis, digits = array.attributes["axis"], list(index.digits)
        if array.op == "take_along":
            found = self.value(where, index)
            digits[axis] = self._checked(found, where, source.shape[axis])
        else:
            own = digits[axis : axis + where.ndim]
            found = self.value(where, Index(where.shape, self.let, digits=own.copy))
            digits[axis : axis + where.ndim] = [self._checked(found, where, source.shape[axis])]
        return self.value(source, Index(source.shape, self.let, digits=digits.copy))

    def _checked(self, found: str, where: Array, length: int) -> str:
        """Return an index from the end counted from the start; an index that is out of range ends the task."""
        if KINDS[where.kind] == "i":
            found = self._line("long long", f"{found} < 0 ? (long long){found} + {length} : (long long){found}")
        self.lines.append(f"if ((unsigned long long){found} >= {length}ull) __trap();")
        return self._line(self.index_type, found)

    def _searched(self, array: Array, index: Index) -> str:
        values, wanted = array.inputs[0], array.inputs[1]
        value = self.value(wanted, index)
        order = self.pointer(array.inputs[2]) if len(array.inputs) > 2 else "(const long long*)0"
        self.helpers.add("_search")
        right = str(array.attributes["right"]).lower()
        return f"_search({self.pointer(values)}, {values.size}, {order}, {value}, {right})"


def _created(array: Array, index: Index) -> str:
    attributes, c_type = array.attributes, C_TYPES[array.kind]
    if array.op == "eye":
        row, column = index.digits
        return f"{column} - {row} == {attributes['k']} ? ({c_type})1 : ({c_type})0"
    start, step = attributes["start"], attributes["step"]
    if array.op == "arange" and KINDS[array.kind] in "iu":
        return f"{literal(start, 'int64')} + (long long){index.flat} * {literal(step, 'int64')}"
    text = f"{literal(start, 'float64')} + (double){index.flat} * {literal(step, 'float64')}"
    if array.op == "linspace" and attributes["last"] is not None:
        text = f"{index.flat} == {array.size - 1} ? {literal(attributes['last'], 'float64')} : {text}"
    return f"floor({text})" if KINDS[array.kind] in "iu" else text  # as NumPy's linspace


def _converted(operand: str, source: str, target: str) -> str:
    c_type = C_TYPES[target]
    if target == "bool":
        return f"{operand} != ({C_TYPES[source]})0"
    if KINDS[target] == "c":
        real = C_TYPES[REAL_OF[target]]
        if KINDS[source] == "c":
            return f"{c_type}(({real}){operand}.real(), ({real}){operand}.imag())"
        return f"{c_type}(({real}){operand}, ({real})0)"
    if (
        KINDS[source] == "f" and KINDS[target] in "iu" and BITS[target] < 32
    ):  # C's own goes by way of 32 bits, and wraps
        low, high = integer_range(target)
        return f"({c_type})((int){operand} < {low} ? {low} : (int){operand} > {high} ? {high} : (int){operand})"
    return f"({c_type}){operand}"


def literal(value: complex, kind: str) -> str:
    """Return a number as a C constant of a dtype."""
    c_type = C_TYPES[kind]
    if KINDS[kind] == "b":
        return str(bool(value)).lower()
    if KINDS[kind] == "c":
        real = REAL_OF[kind]
        return f"{c_type}({literal(complex(value).real, real)}, {literal(complex(value).imag, real)})"
    assert not isinstance(value, complex)
    if KINDS[kind] in "iu":
        suffix = "ull" if KINDS[kind] == "u" else "ll"
        if int(value) == -(2**63):
            return f"(-{2**63 - 1}ll - 1)"
        return f"(({c_type}){int(value)}{suffix})"
    if math.isnan(value):
        return f"(({c_type})NAN)"
    if math.isinf(value):
        return f"(({c_type}){'-' if value < 0 else ''}INFINITY)"
    return f"(({c_type}){float(value)!r})"
