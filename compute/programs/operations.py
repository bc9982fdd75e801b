"""Array operations that the device's own library runs: the closed table of what they take, give and cost.

A program names an operation of this table; ``plan`` says, before anything runs, which arrays come out, how many
floating-point operations that takes and how much memory beside the arrays. Whoever receives a program from a stranger
calls it too, so nothing here trusts its arguments. ``devices/array_operations.py`` has the other half of the table: how
a device with NumPy's functions executes each.

The results depend on the library (blocking, instruction sets), so a program with an operation is *tolerant*: its
results are compared within a tolerance, never by hash.

Memory is what NumPy takes over LAPACK, rounded up; m × n are the last two axes of the first array, k = min(m, n), and
what comes before them are batches, computed one after the other. Work is the usual leading terms (Golub & Van Loan,
*Matrix Computations*, 4th ed.); a complex operation counts as four real ones, a Fourier transform of N elements as
5·N·log2(N).
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, log2, prod
from typing import Final, NamedTuple

from depin_node.core.errors import TaskRejected

Attribute = int | float | tuple[int, ...]
Shape = tuple[int, ...]

LIBRARY_BYTES: Final = 96 << 20
"""What a BLAS takes for itself when it is first used (OpenBLAS 0.3, one thread, maps 32 MiB), with room to spare."""
TRANSFORM_LENGTH_MAX: Final = 1 << 31
_REAL_OF: Final = {"float32": "float32", "float64": "float64", "complex64": "float32", "complex128": "float64"}
_COMPLEX_OF: Final = {"float32": "complex64", "float64": "complex128", "complex64": "complex64"}
_BYTES: Final = {"float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
FLOATING: Final = frozenset(_BYTES)


class Spec(NamedTuple):
    """An array: NumPy's name of its dtype, and its shape."""

    dtype: str
    shape: Shape

    @property
    def size_bytes(self) -> int:
        """Of all elements, for the dtypes of this table."""
        return prod(self.shape) * _BYTES[self.dtype]


class Plan(NamedTuple):
    """What an operation makes and takes.

    Attributes:
        results: in order.
        flops: floating-point operations, about.
        scratch_bytes: an upper bound of the memory that it needs beside inputs and outputs.
    """

    results: tuple[Spec, ...]
    flops: int
    scratch_bytes: int


class _Matrix(NamedTuple):
    """The first input of an operation on matrices."""

    batch: Shape
    m: int
    n: int
    dtype: str

    @property
    def k(self) -> int:
        return min(self.m, self.n)

    @property
    def work(self) -> int:
        """Real operations for one, times the number of matrices."""
        return prod(self.batch) * (4 if self.dtype.startswith("complex") else 1)

    @property
    def real(self) -> str:
        return _REAL_OF[self.dtype]

    def of(self, *lengths: int, dtype: str = "") -> Spec:
        """Return an array for each matrix."""
        return Spec(dtype or self.dtype, (*self.batch, *lengths))

    def scratch(self, results: Sequence[Spec], elements: int) -> int:
        """Return the bytes of the results (the library makes its own), a copy of one matrix and a workspace."""
        own = sum(result.size_bytes for result in results)
        return own + (self.m * self.n + elements) * _BYTES[self.dtype] + LIBRARY_BYTES


def plan(name: str, inputs: Sequence[Spec], attributes: Mapping[str, Attribute]) -> Plan:
    """Return what the operation ``name`` does with such arrays.

    Args:
        name: of ``OPERATIONS``.
        inputs: the arrays, in order, all of one dtype.
        attributes: all that the operation has, by name.

    Raises:
        TaskRejected: there is no such operation, or it does not take these; says what it takes.
    """
    if name not in OPERATIONS:
        raise TaskRejected(f"there is no array operation {name!r}; there are: {', '.join(OPERATIONS)}")
    kind = OPERATIONS[name]
    if len(inputs) != kind.inputs:
        raise TaskRejected(f"{name} takes {kind.inputs} arrays, {len(inputs)} are given")
    for spec in inputs:
        if spec.dtype not in kind.dtypes:
            raise TaskRejected(f"{name} takes {', '.join(sorted(kind.dtypes))}; an array is {spec.dtype}")
        if spec.dtype != inputs[0].dtype:
            raise TaskRejected(f"{name}: the arrays are {inputs[0].dtype} and {spec.dtype}: convert one with astype")
        if not all(spec.shape):
            raise TaskRejected(f"{name}: an array of shape {spec.shape} has no elements")
    if set(attributes) != set(kind.attributes):
        expected = ", ".join(kind.attributes) or "none"
        raise TaskRejected(f"{name} has the attributes {expected}; given are: {', '.join(attributes) or 'none'}")
    for attribute, type_ in kind.attributes.items():
        value = attributes[attribute]
        many = isinstance(value, tuple) and all(type(item) is int for item in value)
        if not (many if type_ is tuple else type(value) is type_):
            raise TaskRejected(f"{name}: {attribute} = {value!r}: expected {_WORDS[type_]}")
    return kind.plan(name, inputs, attributes)


_Planner = Callable[[str, Sequence[Spec], Mapping[str, Attribute]], Plan]
_WORDS: Final = {int: "an integer", float: "a float", tuple: "integers"}


class Kind(NamedTuple):
    """One operation of the table."""

    inputs: int
    plan: _Planner
    attributes: Mapping[str, type] = {}
    dtypes: frozenset[str] = FLOATING


def _matrix(name: str, spec: Spec, *, square: bool = False) -> _Matrix:
    if len(spec.shape) < 2:
        raise TaskRejected(f"{name} takes matrices, at least two axes; an array has the shape {spec.shape}")
    *batch, m, n = spec.shape
    if square and m != n:
        raise TaskRejected(f"{name} takes square matrices, not {m} × {n}")
    return _Matrix(tuple(batch), m, n, spec.dtype)


def _matmul(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    left, right = _matrix(name, inputs[0]), _matrix(name, inputs[1])
    if left.n != right.m:
        raise TaskRejected(
            f"{name}: {inputs[0].shape} by {inputs[1].shape}: {left.n} columns do not meet {right.m} rows"
        )
    batch = _broadcast(name, left.batch, right.batch)
    result = Spec(left.dtype, (*batch, left.m, right.n))
    work = 8 if left.dtype.startswith("complex") else 2
    copies = sum(spec.size_bytes for spec in inputs)
    return Plan((result,), work * prod(result.shape) * left.n, copies + result.size_bytes + LIBRARY_BYTES)


def _broadcast(name: str, left: Shape, right: Shape) -> Shape:
    length = max(len(left), len(right))
    pairs = list(zip((1,) * (length - len(left)) + left, (1,) * (length - len(right)) + right, strict=True))
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise TaskRejected(f"{name}: the batches {left} and {right} do not broadcast together")
    return tuple(max(pair) for pair in pairs)


def _flag(name: str, attributes: Mapping[str, Attribute], attribute: str) -> bool:
    value = attributes[attribute]
    if value not in (0, 1):
        raise TaskRejected(f"{name}: {attribute} = {value!r}: expected 0 or 1")
    return bool(value)


def _cholesky(name: str, inputs: Sequence[Spec], attributes: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0], square=True)
    _flag(name, attributes, "upper")
    results = (a.of(a.n, a.n),)
    return Plan(results, a.work * a.n**3 // 3, a.scratch(results, 0))


def _solve(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a, b = _matrix(name, inputs[0], square=True), _matrix(name, inputs[1])
    if b.m != a.n:
        raise TaskRejected(f"{name}: {a.n} equations, but {b.m} rows on the right-hand side")
    result = Spec(a.dtype, (*_broadcast(name, a.batch, b.batch), a.n, b.n))
    batches = prod(result.shape[:-2])
    work = (4 if a.dtype.startswith("complex") else 1) * batches * (2 * a.n**3 // 3 + 2 * a.n * a.n * b.n)
    return Plan((result,), work, a.scratch((result,), a.n * b.n + 2 * a.n))


def _inv(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0], square=True)
    results = (a.of(a.n, a.n),)
    return Plan(results, a.work * 2 * a.n**3, a.scratch(results, a.n * a.n + 2 * a.n))


def _det(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0], square=True)
    results = (a.of(),)
    return Plan(results, a.work * 2 * a.n**3 // 3, a.scratch(results, 2 * a.n))


def _slogdet(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0], square=True)
    results = (a.of(), a.of(dtype=a.real))
    return Plan(results, a.work * 2 * a.n**3 // 3, a.scratch(results, 2 * a.n))


def _qr(name: str, inputs: Sequence[Spec], attributes: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0])
    inner = a.m if _flag(name, attributes, "complete") else a.k
    results = (a.of(a.m, inner), a.of(inner, a.n))
    batches = sum(result.size_bytes for result in results) + inputs[0].size_bytes  # the factors of all, side by side
    return Plan(results, a.work * 4 * a.m * inner * a.n, a.scratch(results, a.m * inner + 64 * (a.m + a.n)) + batches)


def _svd(name: str, inputs: Sequence[Spec], attributes: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0])
    full = _flag(name, attributes, "full")
    u, v = (a.m, a.n) if full else (a.k, a.k)
    results = (a.of(a.m, u), a.of(a.k, dtype=a.real), a.of(v, a.n))
    own = a.m * u + v * a.n + _svd_work(a)
    return Plan(results, a.work * (4 * max(a.m, a.n) ** 2 * a.k + 22 * a.k**3), a.scratch(results, own))


def _svd_work(a: _Matrix) -> int:
    """LAPACK's xGESDD: work, rwork and iwork together, of its documentation, for either job."""
    return 8 * a.k * a.k + 16 * a.k + 2 * a.m * a.n + 64 * (a.m + a.n)


def _svdvals(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0])
    results = (a.of(a.k, dtype=a.real),)
    return Plan(results, a.work * 4 * a.m * a.n * a.k, a.scratch(results, _svd_work(a)))


def _eigh(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0], square=True)
    results = (a.of(a.n, dtype=a.real), a.of(a.n, a.n))
    return Plan(results, a.work * 9 * a.n**3, a.scratch(results, 5 * a.n * a.n + 80 * a.n))


def _eigvalsh(name: str, inputs: Sequence[Spec], _: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0], square=True)
    results = (a.of(a.n, dtype=a.real),)
    return Plan(results, a.work * 4 * a.n**3 // 3, a.scratch(results, 2 * a.n * a.n + 80 * a.n))


def _pinv(name: str, inputs: Sequence[Spec], attributes: Mapping[str, Attribute]) -> Plan:
    a = _matrix(name, inputs[0])
    rtol = attributes["rtol"]
    if not isinstance(rtol, float) or not 0 <= rtol <= 1:
        raise TaskRejected(f"{name}: rtol = {rtol!r}: expected a number from 0 to 1")
    results = (a.of(a.n, a.m),)
    factors = (a.of(a.m, a.k), a.of(a.k, a.n), a.of(a.n, a.m))  # of all matrices at once, and again scaled
    flops = a.work * (4 * max(a.m, a.n) ** 2 * a.k + 22 * a.k**3 + 2 * a.m * a.n * a.k)
    own = a.m * a.k + a.k * a.n + _svd_work(a)
    return Plan(results, flops, a.scratch((*results, *factors, *factors, inputs[0]), own))


def _transform(name: str, inputs: Sequence[Spec], attributes: Mapping[str, Attribute]) -> Plan:
    x, axes, lengths = inputs[0], attributes["axes"], attributes["lengths"]
    assert isinstance(axes, tuple)
    assert isinstance(lengths, tuple)
    ndim = len(x.shape)
    if not axes or len(axes) != len(lengths) or len(set(axes)) < len(axes):
        raise TaskRejected(f"{name}: axes = {axes}, lengths = {lengths}: expected different axes with a length each")
    if not all(0 <= axis < ndim for axis in axes):
        raise TaskRejected(f"{name}: axes = {axes} of an array with {ndim} axes: expected 0 to {ndim - 1}")
    if not all(1 <= length < TRANSFORM_LENGTH_MAX for length in lengths):
        raise TaskRejected(f"{name}: lengths = {lengths}: expected positive numbers below 2**31")
    dtype = x.dtype
    shape, padded = list(x.shape), list(x.shape)
    for axis, length in zip(axes, lengths, strict=True):
        shape[axis] = padded[axis] = length
    if name == "rfftn":
        shape[axes[-1]] = lengths[-1] // 2 + 1
    result = Spec(_REAL_OF[dtype] if name == "irfftn" else _COMPLEX_OF.get(dtype, dtype), tuple(shape))
    complex_bytes = max(prod(padded), prod(x.shape), prod(shape)) * 2 * _BYTES[_REAL_OF[dtype]]
    flops = sum(ceil(5 * prod(padded) * log2(max(2, length))) for length in lengths)
    # the steps along axes hand complex arrays on, of which two live at a time; a length with a large prime factor is
    # convolved at up to twice its size, with its factors beside (Bluestein)
    return Plan((result,), flops, 4 * complex_bytes + 16 * 16 * max(lengths) + (1 << 20))


_REAL, _COMPLEX = frozenset(("float32", "float64")), frozenset(("complex64", "complex128"))
_LENGTHS: Final = {"axes": tuple, "lengths": tuple}

OPERATIONS: Final[Mapping[str, Kind]] = {
    "matmul": Kind(2, _matmul),
    "cholesky": Kind(1, _cholesky, {"upper": int}),
    "solve": Kind(2, _solve),
    "inv": Kind(1, _inv),
    "det": Kind(1, _det),
    "slogdet": Kind(1, _slogdet),
    "qr": Kind(1, _qr, {"complete": int}),
    "svd": Kind(1, _svd, {"full": int}),
    "svdvals": Kind(1, _svdvals),
    "eigh": Kind(1, _eigh),
    "eigvalsh": Kind(1, _eigvalsh),
    "pinv": Kind(1, _pinv, {"rtol": float}),
    "fftn": Kind(1, _transform, _LENGTHS, _COMPLEX),
    "ifftn": Kind(1, _transform, _LENGTHS, _COMPLEX),
    "rfftn": Kind(1, _transform, _LENGTHS, _REAL),
    "irfftn": Kind(1, _transform, _LENGTHS, _COMPLEX),
}
"""By the standard's names. The Fourier transforms are over ``axes``, one or more, cut or padded to ``lengths``;
flags are 0 or 1; matrices always have two axes: a vector is one column."""
