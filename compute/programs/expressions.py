"""Integer expressions over array shapes, scalars and a task's slice: ``ceil(cols / 16)``, ``z.shape[0] + shard.rows``.

::

    sum     = product { ("+" | "-") product }
    product = sign { ("*" | "/" | "//" | "%") sign }
    sign    = { "+" | "-" } value
    value   = integer | call | name [ "." attribute ] | "(" sum ")"
    attribute = "shape" "[" ["-"] integer "]" | "size" | "ndim"               of an array
              | "start" | "stop" | "rows" | "index" | "count"                 of ``shard``
    call    = ("ceil" | "floor" | "abs" | "min" | "max") "(" sum { "," sum } ")"

Numbers are exact fractions, so ``ceil(a / b)`` is right for every a and b; the whole has to come out as an integer.
Text and depth are bounded, and nothing else can be said: no attribute but those, no call but those.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor, prod

from depin_node.core.errors import ConfigError

CHARACTERS_MAX = 256
DEPTH_MAX = 16
BITS_MAX = 256
"""Of a numerator or denominator on the way."""

Value = int | tuple[int, ...] | Mapping[str, int]
"""What a name stands for: a number, the shape of an array, or numbers by their names."""

_TOKEN = re.compile(r"\s*(?:(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)|(?P<sign>//|[-+*/%().,\[\]]))", re.ASCII)
_FUNCTIONS = {"ceil": (1, 1), "floor": (1, 1), "abs": (1, 1), "min": (1, 16), "max": (1, 16)}


def evaluate(text: str, names: Mapping[str, Value]) -> int:
    """Return the value of ``text``.

    Raises:
        ConfigError: with the place, what is wrong and what would be right.
    """
    if len(text) > CHARACTERS_MAX:
        raise ConfigError(f"an expression of {len(text)} characters; at most {CHARACTERS_MAX} are allowed")
    parser = _Parser(text, names)
    value = parser.sum(0)
    if parser.token:
        raise parser.error(f"{parser.token!r} is not expected here")
    if value.denominator != 1:
        raise ConfigError(f"{text!r} is {value}, not an integer: use ceil(…) or floor(…)")
    return int(value)


class _Parser:
    def __init__(self, text: str, names: Mapping[str, Value]) -> None:
        self.text, self.names = text, names
        self.end = 0
        self.next()

    def next(self) -> None:
        """Go to the next token; at the end it is empty."""
        self.at = self.end
        match = _TOKEN.match(self.text, self.end)
        if match:
            self.at, self.end = match.start(match.lastgroup or 0), match.end()
            self.kind, self.token = str(match.lastgroup), match[match.lastgroup or 0]
            return
        rest = self.text[self.end :].strip()
        self.kind, self.token = "end", ""
        self.at = len(self.text) - len(self.text[self.end :].lstrip()) if rest else len(self.text)
        if rest:
            raise self.error(f"{rest[0]!r} means nothing")

    def error(self, reason: str) -> ConfigError:
        return ConfigError(f"in {self.text!r}, at character {self.at + 1}: {reason}")

    def accept(self, *tokens: str) -> str:
        """Take one of ``tokens`` if it comes next, else return nothing."""
        token = self.token if self.kind == "sign" and self.token in tokens else ""
        if token:
            self.next()
        return token

    def expect(self, token: str) -> None:
        if not self.accept(token):
            found = repr(self.token) if self.token else "the end"
            raise self.error(f"expected {token!r}, found {found}")

    def sum(self, depth: int) -> Fraction:
        if depth > DEPTH_MAX:
            raise self.error(f"more than {DEPTH_MAX} levels deep")
        value = self.product(depth)
        while operator := self.accept("+", "-"):
            right = self.product(depth)
            value = self.bounded(value + right if operator == "+" else value - right)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.sign(depth)
        while operator := self.accept("*", "//", "/", "%"):
            right = self.sign(depth)
            if operator == "*":
                value = self.bounded(value * right)
                continue
            if not right:
                raise self.error("this divides by zero")
            value = (
                value / right if operator == "/" else Fraction(value // right if operator == "//" else value % right)
            )
            value = self.bounded(value)
        return value

    def sign(self, depth: int) -> Fraction:
        negative = False
        while operator := self.accept("+", "-"):
            negative ^= operator == "-"
        value = self.value(depth)
        return -value if negative else value

    def value(self, depth: int) -> Fraction:
        kind, token = self.kind, self.token
        if kind == "number":
            self.next()
            return self.bounded(Fraction(int(token)))
        if kind == "name":
            return self.call(token, depth) if token in _FUNCTIONS and token not in self.names else self.name()
        if self.accept("("):
            value = self.sum(depth + 1)
            self.expect(")")
            return value
        found = repr(token) if token else "the end"
        raise self.error(f"expected a number, a name or '(', found {found}")

    def call(self, function: str, depth: int) -> Fraction:
        self.next()
        self.expect("(")
        values = [self.sum(depth + 1)]
        while self.accept(","):
            values.append(self.sum(depth + 1))
        least, most = _FUNCTIONS[function]
        if not least <= len(values) <= most:
            raise self.error(f"{function} takes {'one argument' if most == 1 else f'{least} to {most} arguments'}")
        self.expect(")")
        if function in ("ceil", "floor"):
            return Fraction(ceil(values[0]) if function == "ceil" else floor(values[0]))
        return abs(values[0]) if function == "abs" else min(values) if function == "min" else max(values)

    def name(self) -> Fraction:
        name = self.token
        if name not in self.names:
            known = ", ".join(sorted(self.names)) or "none"
            raise self.error(f"{name!r} is not known here; known are: {known}")
        value = self.names[name]
        self.next()
        if not self.accept("."):
            if isinstance(value, int):
                return self.bounded(Fraction(value))
            known = f"{name}.shape[0], {name}.size or {name}.ndim"
            if isinstance(value, Mapping):
                known = ", ".join(f"{name}.{key}" for key in value)
            raise self.error(f"{name} is no number by itself: say {known}")
        if isinstance(value, int):
            raise self.error(f"{name} is a number and has no attributes")
        attribute = self.token
        if isinstance(value, Mapping):
            if attribute not in value:
                raise self.error(f"{name} has {', '.join(value)}")
            self.next()
            return self.bounded(Fraction(value[attribute]))
        if attribute not in ("shape", "size", "ndim"):
            raise self.error("an array has shape[…], size and ndim")
        self.next()
        if attribute != "shape":
            return Fraction(prod(value) if attribute == "size" else len(value))
        self.expect("[")
        negative, axis = bool(self.accept("-")), self.token
        if self.kind != "number":
            raise self.error("expected the number of an axis")
        position = -int(axis) if negative else int(axis)
        if not -len(value) <= position < len(value):
            raise self.error(f"{name} has {len(value)} axes")
        self.next()
        self.expect("]")
        return Fraction(value[position])

    def bounded(self, value: Fraction) -> Fraction:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS_MAX:
            raise self.error("the number becomes too large")
        return value


class Symbol:
    """An expression that grows by Python's operators: ``-(-shard.rows // 16)`` is a text for ``evaluate``."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Symbol({self.text!r})"

    def _with(self, sign: str, other: "Symbol | int", *, swapped: bool = False) -> "Symbol":
        if not isinstance(other, Symbol | int):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        return Symbol(f"({left} {sign} {right})")

    def __add__(self, other: "Symbol | int") -> "Symbol":
        return self._with("+", other)

    def __radd__(self, other: int) -> "Symbol":
        return self._with("+", other, swapped=True)

    def __sub__(self, other: "Symbol | int") -> "Symbol":
        return self._with("-", other)

    def __rsub__(self, other: int) -> "Symbol":
        return self._with("-", other, swapped=True)

    def __mul__(self, other: "Symbol | int") -> "Symbol":
        return self._with("*", other)

    def __rmul__(self, other: int) -> "Symbol":
        return self._with("*", other, swapped=True)

    def __floordiv__(self, other: "Symbol | int") -> "Symbol":
        return self._with("//", other)

    def __mod__(self, other: "Symbol | int") -> "Symbol":
        return self._with("%", other)

    def __neg__(self) -> "Symbol":
        return Symbol(f"(-{self.text})")


class Shard:
    """The numbers of a task's slice: rows [start, stop) of the axis that is cut; its index among ``count`` tasks."""

    start, stop, rows = Symbol("shard.start"), Symbol("shard.stop"), Symbol("shard.rows")
    index, count = Symbol("shard.index"), Symbol("shard.count")


shard = Shard()
