"""Each elementwise function in CUDA C, by the kind of its operands: one closed table.

In the text ``{0}``, ``{1}`` and ``{2}`` are operands, ``{T}`` their C type, ``{s}`` the suffix of C's float functions.
Functions of ours begin with ``_``; ``HELPERS`` has their text. What the standard leaves open (an integer divided by
zero, a shift by too much) gives the number that NumPy gives, and never a trap.
"""

from typing import Final, NamedTuple


class Word(NamedTuple):
    """One function: the kinds of operands that it takes, each with its text; and what comes out.

    Attributes:
        texts: by the letters of kinds (``KINDS`` in dtypes.py).
        result: ``same``, ``bool``, or ``real`` for the parts of complex numbers.
        discrete: whether its value jumps: it must not be decided by a tolerant operand.
        cost: operations, about, as far as it decides whether to compute something twice.
    """

    texts: dict[str, str]
    result: str = "same"
    discrete: bool = False
    cost: int = 1


def _maths(name: str, cost: int = 20) -> Word:
    return Word({"f": f"{name}{{s}}({{0}})"}, cost=cost)


def _complex_maths(name: str, cost: int = 20) -> Word:
    return Word({"f": f"{name}{{s}}({{0}})", "c": f"{name}({{0}})"}, cost=cost)


def _numbers(text: str) -> Word:
    return Word({"iufc": text})


def _comparison(sign: str, kinds: str) -> Word:
    return Word({kinds: f"({{0}} {sign} {{1}})"}, "bool", discrete=True)


WORDS: Final[dict[str, Word]] = {
    # arithmetic
    "add": _numbers("({0} + {1})"),
    "subtract": _numbers("({0} - {1})"),
    "multiply": _numbers("({0} * {1})"),
    "divide": Word({"fc": "({0} / {1})"}, cost=4),
    "floor_divide": Word(
        {
            "i": "_floor_divide({0}, {1})",
            "u": "({1} == 0 ? ({T})0 : ({T})({0} / {1}))",
            "f": "_floor_quotient({0}, {1})",
        },
        discrete=True,
        cost=20,
    ),
    "remainder": Word(
        {"i": "_modulo({0}, {1})", "u": "({1} == 0 ? ({T})0 : ({T})({0} % {1}))", "f": "_floor_modulo({0}, {1})"},
        discrete=True,
        cost=20,
    ),
    "pow": Word({"iu": "_power({0}, {1})", "f": "pow{s}({0}, {1})", "c": "pow({0}, {1})"}, cost=40),
    "negative": _numbers("(-{0})"),
    "square": _numbers("({0} * {0})"),
    "reciprocal": Word({"fc": "(({T})1 / {0})"}, cost=4),
    "abs": Word({"i": "({0} < 0 ? -{0} : {0})", "u": "{0}", "f": "fabs{s}({0})", "c": "abs({0})"}, "real"),
    "sign": Word(
        {
            "i": "(({0} > 0) - ({0} < 0))",
            "u": "({0} > 0)",
            "f": "({0} != {0} ? {0} : ({T})(({0} > 0) - ({0} < 0)))",
            "c": "({0} == ({T})0 ? ({T})0 : {0} / ({T})abs({0}))",
        },
        discrete=True,
    ),
    "maximum": Word({"iu": "({0} > {1} ? {0} : {1})", "f": "({0} > {1} || {0} != {0} ? {0} : {1})"}),
    "minimum": Word({"iu": "({0} < {1} ? {0} : {1})", "f": "({0} < {1} || {0} != {0} ? {0} : {1})"}),
    # rounding
    "ceil": Word({"f": "ceil{s}({0})"}, discrete=True),
    "floor": Word({"f": "floor{s}({0})"}, discrete=True),
    "trunc": Word({"f": "trunc{s}({0})"}, discrete=True),
    "round": Word({"f": "rint{s}({0})"}, discrete=True),
    # roots, exponentials, logarithms
    "sqrt": _complex_maths("sqrt", 4),
    "exp": _complex_maths("exp"),
    "expm1": _maths("expm1"),
    "log": _complex_maths("log"),
    "log1p": _maths("log1p"),
    "log2": _maths("log2"),
    "log10": _maths("log10"),
    "logaddexp": Word({"f": "_logaddexp({0}, {1})"}, cost=40),
    "hypot": Word({"f": "hypot{s}({0}, {1})"}, cost=20),
    # trigonometry
    "sin": _complex_maths("sin"),
    "cos": _complex_maths("cos"),
    "tan": _complex_maths("tan"),
    "asin": _complex_maths("asin"),
    "acos": _complex_maths("acos"),
    "atan": _complex_maths("atan"),
    "sinh": _complex_maths("sinh"),
    "cosh": _complex_maths("cosh"),
    "tanh": _complex_maths("tanh"),
    "asinh": _complex_maths("asinh"),
    "acosh": _complex_maths("acosh"),
    "atanh": _complex_maths("atanh"),
    "atan2": Word({"f": "atan2{s}({0}, {1})"}, cost=30),
    # bits and signs
    "bitwise_and": Word({"biu": "({0} & {1})"}, discrete=True),
    "bitwise_or": Word({"biu": "({0} | {1})"}, discrete=True),
    "bitwise_xor": Word({"biu": "({0} ^ {1})"}, discrete=True),
    "bitwise_invert": Word({"b": "(!{0})", "iu": "(~{0})"}, discrete=True),
    "bitwise_left_shift": Word({"iu": "_shift_left({0}, {1})"}, discrete=True),
    "bitwise_right_shift": Word({"iu": "_shift_right({0}, {1})"}, discrete=True),
    "copysign": Word({"f": "copysign{s}({0}, {1})"}),
    "nextafter": Word({"f": "_nextafter({0}, {1})"}, discrete=True),
    "signbit": Word({"f": "(copysign{s}(({T})1, {0}) < 0)"}, "bool", discrete=True),
    # questions
    "equal": _comparison("==", "biufc"),
    "not_equal": _comparison("!=", "biufc"),
    "less": _comparison("<", "iuf"),
    "less_equal": _comparison("<=", "iuf"),
    "greater": _comparison(">", "iuf"),
    "greater_equal": _comparison(">=", "iuf"),
    "logical_and": Word({"b": "({0} && {1})"}, "bool", discrete=True),
    "logical_or": Word({"b": "({0} || {1})"}, "bool", discrete=True),
    "logical_xor": Word({"b": "({0} != {1})"}, "bool", discrete=True),
    "logical_not": Word({"b": "(!{0})"}, "bool", discrete=True),
    "isnan": Word({"f": "({0} != {0})", "c": "({0} != {0})"}, "bool", discrete=True),
    "isinf": Word(
        {"f": "(fabs{s}({0}) == INFINITY)", "c": "(fabs({0}.real()) == INFINITY || fabs({0}.imag()) == INFINITY)"},
        "bool",
        discrete=True,
    ),
    "isfinite": Word(
        {"f": "(fabs{s}({0}) < INFINITY)", "c": "(fabs({0}.real()) < INFINITY && fabs({0}.imag()) < INFINITY)"},
        "bool",
        discrete=True,
    ),
    # complex numbers
    "real": Word({"c": "{0}.real()"}, "real"),
    "imag": Word({"c": "{0}.imag()"}, "real"),
    "conj": Word({"c": "conj({0})"}),
}

HELPERS: Final[dict[str, str]] = {
    "_floor_divide": """
template <typename T> __device__ __forceinline__ T _floor_divide(T a, T b) {
    if (b == 0) return 0;
    if (b == (T)-1) return (T)(-a);
    const T q = (T)(a / b);
    return (T)(q - (((T)(a % b) != 0) && ((a < 0) != (b < 0)) ? 1 : 0));
}""",
    "_modulo": """
template <typename T> __device__ __forceinline__ T _modulo(T a, T b) {
    if (b == 0 || b == (T)-1) return 0;
    const T r = (T)(a % b);
    return r != 0 && (r < 0) != (b < 0) ? (T)(r + b) : r;
}""",
    "_floor_quotient": """
template <typename T> __device__ __forceinline__ T _floor_quotient(T a, T b) {
    if (b == 0) return a / b;
    const T r = fmod(a, b);
    T q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;
    if (q == 0) return copysign((T)0, a / b);
    const T whole = floor(q);
    return q - whole > (T)0.5 ? whole + 1 : whole;
}""",
    "_floor_modulo": """
template <typename T> __device__ __forceinline__ T _floor_modulo(T a, T b) {
    const T r = fmod(a, b);
    if (r == 0) return copysign((T)0, b);
    return (r < 0) != (b < 0) ? r + b : r;
}""",
    "_power": """
template <typename T> __device__ __forceinline__ T _power(T a, T b) {
    if (b < 0) return a == 1 ? (T)1 : a == (T)-1 ? (T)(b & 1 ? -1 : 1) : (T)0;
    T result = 1;
    while (b != 0) {
        if (b & 1) result = (T)(result * a);
        a = (T)(a * a);
        b = (T)(b >> 1);
    }
    return result;
}""",
    "_logaddexp": """
template <typename T> __device__ __forceinline__ T _logaddexp(T a, T b) {
    if (a == b) return a + (T)0.6931471805599453;
    const T d = a - b;
    return d > 0 ? a + log1p(exp(-d)) : d <= 0 ? b + log1p(exp(d)) : d;
}""",
    "_shift_left": """
template <typename T> __device__ __forceinline__ T _shift_left(T a, T b) {
    return b < 0 || b >= (T)(8 * sizeof(T)) ? (T)0 : (T)((unsigned long long)a << b);
}""",
    "_shift_right": """
template <typename T> __device__ __forceinline__ T _shift_right(T a, T b) {
    return b < 0 || b >= (T)(8 * sizeof(T)) ? (T)(a < 0 ? -1 : 0) : (T)(a >> b);
}""",
    "_nextafter": """
__device__ __forceinline__ float _nextafter(float a, float b) {
    if (a != a || b != b) return a + b;
    if (a == b) return b;
    if (a == 0) return copysignf(__int_as_float(1), b);
    return __int_as_float(__float_as_int(a) + ((a < b) == (a > 0) ? 1 : -1));
}
__device__ __forceinline__ double _nextafter(double a, double b) {
    if (a != a || b != b) return a + b;
    if (a == b) return b;
    if (a == 0) return copysign(__longlong_as_double(1ll), b);
    return __longlong_as_double(__double_as_longlong(a) + ((a < b) == (a > 0) ? 1 : -1));
}""",
    "_search": """
template <typename T> __device__ __forceinline__ bool _before(T a, T b) { return a < b || (b != b && a == a); }
template <typename T> __device__ __forceinline__ long long _search(
    const T* a, long long n, const long long* order, T value, bool right) {
    long long low = 0, high = n;
    while (low < high) {
        const long long middle = (low + high) / 2;
        const T found = a[order ? order[middle] : middle];
        if (right ? !_before(value, found) : _before(found, value)) low = middle + 1; else high = middle;
    }
    return low;
}""",
    "_philox": """
struct _Words { unsigned int w[4]; };
__device__ __forceinline__ _Words _philox(
    unsigned long long key, unsigned long long counter, unsigned long long stream) {
    unsigned int k0 = (unsigned int)key, k1 = (unsigned int)(key >> 32);
    unsigned int c0 = (unsigned int)counter, c1 = (unsigned int)(counter >> 32);
    unsigned int c2 = (unsigned int)stream, c3 = (unsigned int)(stream >> 32);
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ULL * c0, p1 = 0xCD9E8D57ULL * c2;
        c0 = (unsigned int)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned int)p1;
        c2 = (unsigned int)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned int)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    _Words words;
    words.w[0] = c0; words.w[1] = c1; words.w[2] = c2; words.w[3] = c3;
    return words;
}""",
}
"""Functions that texts call. ``_philox`` is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as
easy as 1, 2, 3*, SC 2011), with the words of its counter as (counter low, counter high, stream low, stream high)."""
