"""What each arithmetic instruction computes, on arrays of one element for each thread.

Sources: PTX ISA, "Instruction Set". NumPy rounds +, −, ×, ÷ and √ of float32 and float64 as IEEE 754 says, to nearest
even, denormals included; ``fma`` is computed with exact fractions. Integer arithmetic wraps.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .parse import Instruction, dtype

Lanes = NDArray[np.generic]
NAN32, NAN64 = np.uint32(0x7FFFFFFF), np.uint64(0x7FFFFFFFFFFFFFFF)
"""What float instructions make for NaN: for float as GPUs do, for double (where PTX leaves it open) likewise. Neither
is what WebAssembly calls canonical: a kernel that lets the bits of a NaN be seen differs."""


def quiet(values: Lanes) -> Lanes:
    """Return the values of a float instruction with its NaN."""
    bad = np.isnan(values)
    if bad.any():
        bits = values.view(f"u{values.itemsize}")
        bits[bad] = NAN32 if values.itemsize == 4 else NAN64
    return values


def fma(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """Return a × b + c, rounded once."""
    plain = a * b + c
    result = plain.copy()
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    for k in np.nonzero(finite)[0]:
        exact = Fraction(float(a[k])) * Fraction(float(b[k])) + Fraction(float(c[k]))
        if exact:
            result[k] = nearest(exact, a.dtype)
    return quiet(result)


def nearest(exact: Fraction, type_: np.dtype) -> float:
    """Round a fraction that is not 0 to nearest even."""
    digits, least, most = (24, -149, 128) if type_.itemsize == 4 else (53, -1074, 1024)
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    rounded = round(size / unit) * unit  # Python's round is to nearest even
    value = np.inf if rounded >= Fraction(2) ** most else float(rounded)
    return -value if exact < 0 else value


def _extreme(a: Lanes, b: Lanes, larger: bool) -> Lanes:
    """One NaN is ignored, and -0 is less than +0 (PTX ISA, min and max)."""
    a_wins = (a > b) | ((a == b) & ~np.signbit(a)) if larger else (a < b) | ((a == b) & np.signbit(a))
    result = np.where(np.isnan(a) | (~np.isnan(b) & ~a_wins), b, a)
    return quiet(result)


def _bits(values: Lanes) -> Lanes:
    return values.view(f"u{values.itemsize}")


def _shift_left(a: Lanes, b: Lanes) -> Lanes:
    width = a.itemsize * 8
    return np.where(b < width, a << np.minimum(b, width - 1).astype(a.dtype), 0).astype(a.dtype)


def _shift_right(a: Lanes, b: Lanes) -> Lanes:
    width = a.itemsize * 8
    if a.dtype.kind == "i":
        return a >> np.minimum(b, width - 1).astype(a.dtype)
    return np.where(b < width, a >> np.minimum(b, width - 1).astype(a.dtype), 0).astype(a.dtype)


def _divide(a: Lanes, b: Lanes) -> Lanes:
    """A division by zero gives a value that PTX leaves open: all ones."""
    zero = b == 0
    safe = np.where(zero, 1, b).astype(b.dtype)
    if a.dtype.kind == "u":
        q = a // safe
    else:
        with np.errstate(over="ignore"):
            negative = (a < 0) != (safe < 0)
            size = _magnitude(a) // _magnitude(safe)
            q = np.where(negative, (~size + np.asarray(1, size.dtype)), size).astype(size.dtype).view(a.dtype)
    return np.where(zero, np.array(-1).astype(a.dtype), q)


def _magnitude(a: Lanes) -> Lanes:
    bits = a.view(f"u{a.itemsize}")
    return np.where(a < 0, ~bits + np.asarray(1, bits.dtype), bits).astype(bits.dtype)


def _remainder(a: Lanes, b: Lanes) -> Lanes:
    return (a - _divide(a, b) * b).astype(a.dtype)


def _wide(a: Lanes, b: Lanes) -> Lanes:
    type_ = f"{a.dtype.kind}{a.itemsize * 2}"
    return a.astype(type_) * b.astype(type_)


def _high(a: Lanes, b: Lanes) -> Lanes:
    if a.itemsize < 8:
        return (_wide(a, b) >> (a.itemsize * 8)).astype(a.dtype)
    values = [(int(x) * int(y)) >> 64 for x, y in zip(a, b, strict=True)]
    return np.array([v & (2**64 - 1) for v in values], "u8").view(a.dtype)


def _count(values: Lanes, function: Callable[[int, int], int]) -> Lanes:
    bits, width = _bits(values), values.itemsize * 8
    return np.array([function(int(v), width) for v in bits], "u4")


def _find(values: Lanes) -> Lanes:
    signed = values.dtype.kind == "i"
    width = values.itemsize * 8
    found = [int(~v if signed and v < 0 else v) for v in values.tolist()]
    return np.array([(v & (2**width - 1)).bit_length() - 1 for v in found], "i8").astype("u4")


def _reverse(values: Lanes) -> Lanes:
    width = values.itemsize * 8
    return np.array([int(f"{int(v):0{width}b}"[::-1], 2) for v in values], values.dtype)


def _permute(a: Lanes, b: Lanes, selector: Lanes) -> Lanes:
    both, result = a.astype("u8") | b.astype("u8") << np.uint64(32), np.zeros(len(a), "u4")
    for place in range(4):
        control = (selector >> np.uint32(4 * place)) & np.uint32(15)
        byte = (both >> (np.uint64(8) * (control & np.uint32(7)).astype("u8"))).astype("u4") & np.uint32(255)
        byte = np.where(control & np.uint32(8), np.where(byte & np.uint32(128), 255, 0), byte).astype("u4")
        result |= byte << np.uint32(8 * place)
    return result


def _funnel(words: Sequence[str]) -> Callable[..., Lanes]:
    left, wrap = words[0] == "l", words[1] == "wrap"

    def shift(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        n = (c & np.uint32(31) if wrap else np.minimum(c, 32)).astype("u8")
        both = b.astype("u8") << np.uint64(32) | a.astype("u8")
        return ((both << n) >> np.uint64(32) if left else both >> n).astype("u4")

    return shift


def _extract(a: Lanes, start: Lanes, length: Lanes) -> Lanes:
    width, result = a.itemsize * 8, []
    for v, s, n in zip(a.tolist(), (start & 255).tolist(), (length & 255).tolist(), strict=True):
        bits = v & (2**width - 1)
        field = (bits >> s) & ((1 << n) - 1) if s < width else 0
        if a.dtype.kind == "i" and n:
            sign = bits >> min(s + n - 1, width - 1) & 1
            if sign:
                field |= -1 << max(min(n, width - s), 0)
        result.append(field & (2**width - 1))
    return np.array(result, f"u{a.itemsize}").view(a.dtype)


def _insert(a: Lanes, b: Lanes, start: Lanes, length: Lanes) -> Lanes:
    width, result = a.itemsize * 8, []
    for low, v, s, n in zip(a.tolist(), b.tolist(), (start & 255).tolist(), (length & 255).tolist(), strict=True):
        mask = (((1 << n) - 1) << s) & (2**width - 1)
        result.append((v & ~mask) | ((low << s) & mask))
    return np.array(result, a.dtype)


def _dot(words: Sequence[str]) -> Callable[..., Lanes]:
    """dp4a: four bytes by four bytes; dp2a: two halves of a by the low or high two bytes of b."""
    kinds = [word[0].replace("s", "i") for word in words[-2:]]
    halves = words[0] in ("lo", "hi")

    def dot(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        x = np.ascontiguousarray(a).view(kinds[0] + ("2" if halves else "1")).reshape(len(a), -1).astype("i8")
        y = np.ascontiguousarray(b).view(kinds[1] + "1").reshape(-1, 4).astype("i8")
        if halves:
            y = y[:, :2] if words[0] == "lo" else y[:, 2:]
        return ((x * y).sum(1) + c.astype("i8")).astype("u4")

    return dot


_COMPARE: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "eq": np.equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "ne": lambda a, b: (a != b) & ~_unordered(a, b),
    "num": lambda a, b: ~_unordered(a, b),
    "nan": lambda a, b: _unordered(a, b),
    "equ": lambda a, b: (a == b) | _unordered(a, b),
    "neu": lambda a, b: a != b,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
}
_ROUND: dict[str, Callable[[Lanes], Lanes]] = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def _unordered(a: Lanes, b: Lanes) -> Lanes:
    return np.isnan(a) | np.isnan(b) if a.dtype.kind == "f" else np.zeros(len(a), bool)


def _convert(words: Sequence[str]) -> tuple[str, str, Callable[[Lanes], Lanes]]:
    to, source = words[-2:]
    target, kind = dtype(to), (dtype(to).kind, dtype(source).kind)
    rounding = next((word for word in words if word in _ROUND), "")

    def convert(a: Lanes) -> Lanes:
        if kind == ("f", "f"):
            return quiet((_ROUND[rounding](a) if rounding else a).astype(target))
        if kind[0] == "f" or kind[1] != "f":
            return a.astype(target)
        return _to_integer(_ROUND[rounding](a), target, source)

    return to, source, convert


def _to_integer(a: Lanes, target: np.dtype, source: str) -> Lanes:
    """Saturate; a NaN gives 0 if both sides have 32 bits, else the top bit (PTX ISA, cvt)."""
    info = np.iinfo(target)
    result = np.empty(len(a), target)
    for k, value in enumerate(a.tolist()):
        if value != value:
            result[k] = 0 if source != "f64" and target.itemsize < 8 else (info.min if info.min else info.max // 2 + 1)
        else:
            result[k] = info.max if value >= info.max else info.min if value <= info.min else int(value)
    return result


def decode(instruction: Instruction) -> tuple[str, list[str], Callable[..., Lanes]]:
    """Return the result's type, the operands' types and the function of an arithmetic instruction.

    Raises:
        KeyError: it is none, or none that strict kernels may have.
    """
    op, words = instruction.op, instruction.words
    if op == "cvt":
        to, source, function = _convert(words)
        return to, [source], function
    if op == "setp" and len(words) == 2:
        return "pred", [words[1]] * 2, _COMPARE[words[0]]
    if op == "selp":
        return words[0], [words[0], words[0], "pred"], lambda a, b, p: np.where(p, a, b)
    if op == "shf":
        return "b32", ["b32"] * 3, _funnel(words)
    if op in ("dp4a", "dp2a"):
        return "u32", ["u32"] * 3, _dot(words)
    type_ = words[-1]
    one, two, three = [type_], [type_] * 2, [type_] * 3
    if type_ in ("f32", "f64"):
        functions: dict[tuple[str, ...], tuple[list[str], Callable[..., Lanes]]] = {
            ("add", "rn"): (two, lambda a, b: quiet(a + b)),
            ("sub", "rn"): (two, lambda a, b: quiet(a - b)),
            ("mul", "rn"): (two, lambda a, b: quiet(a * b)),
            ("div", "rn"): (two, lambda a, b: quiet(a / b)),
            ("rcp", "rn"): (one, lambda a: quiet(a.dtype.type(1) / a)),
            ("sqrt", "rn"): (one, lambda a: quiet(np.sqrt(a))),
            ("fma", "rn"): (three, fma),
            ("min",): (two, lambda a, b: _extreme(a, b, larger=False)),
            ("max",): (two, lambda a, b: _extreme(a, b, larger=True)),
            ("abs",): (one, lambda a: quiet(np.abs(a))),
            ("neg",): (one, lambda a: quiet(-a)),
            ("mov",): (one, lambda a: a),
            ("copysign",): (two, lambda a, b: np.copysign(b, a)),
        }
        parts, function = functions[(op, *words[:-1])]
        return type_, parts, function
    if op == "mul" and words[0] == "wide":
        wide = type_[0] + str(int(type_[1:]) * 2)
        return wide, two, _wide
    if op == "mad" and words[0] == "wide":
        wide = type_[0] + str(int(type_[1:]) * 2)
        return wide, [type_, type_, wide], lambda a, b, c: _wide(a, b) + c
    plain: dict[tuple[str, ...], tuple[list[str], Callable[..., Lanes]]] = {
        ("mov",): (one, lambda a: a),
        ("add",): (two, lambda a, b: a + b),
        ("sub",): (two, lambda a, b: a - b),
        ("mul", "lo"): (two, lambda a, b: a * b),
        ("mul", "hi"): (two, _high),
        ("mad", "lo"): (three, lambda a, b, c: a * b + c),
        ("div",): (two, _divide),
        ("rem",): (two, _remainder),
        ("neg",): (one, lambda a: (~_bits(a) + np.asarray(1, _bits(a).dtype)).view(a.dtype)),
        ("abs",): (one, lambda a: _magnitude(a).view(a.dtype)),
        ("min",): (two, np.minimum),
        ("max",): (two, np.maximum),
        ("and",): (two, lambda a, b: a & b),
        ("or",): (two, lambda a, b: a | b),
        ("xor",): (two, lambda a, b: a ^ b),
        ("not",): (one, lambda a: ~a),
        ("shl",): ([type_, "u32"], _shift_left),
        ("shr",): ([type_, "u32"], _shift_right),
        ("prmt",): (["b32"] * 3, _permute),
        ("bfe",): ([type_, "u32", "u32"], _extract),
        ("bfi",): ([type_, type_, "u32", "u32"], _insert),
        ("brev",): (one, _reverse),
        ("sad",): (three, lambda a, b, c: c + np.where(a < b, b - a, a - b).astype(c.dtype)),
    }
    if op in ("popc", "clz", "bfind"):
        counts = {"popc": lambda v, _: v.bit_count(), "clz": lambda v, width: width - v.bit_length()}
        return "u32", one, _find if op == "bfind" else (lambda a: _count(a, counts[op]))
    parts, function = plain[(op, *words[:-1])]
    return type_, parts, function
