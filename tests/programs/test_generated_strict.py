"""Generated elementwise and reduction kernels give the same bits in the PTX interpreter and in WebAssembly."""

from typing import Any

import numpy as np
import pytest
from kernel_host import Host
from strict_host import StrictHost

from depin_node.compute.programs.generated import ElementwiseKernel, Lowered, ReductionKernel
from depin_node.compute.programs.kernel import In, InOut, Out


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DEPIN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


rng = np.random.default_rng(3)
X, Y = rng.random((2, 37, 129), dtype="float32") * np.float32(8) - np.float32(4)
D, K = rng.normal(size=(5, 6, 7)), rng.integers(-1000, 1000, (13, 11), "int32")
Z = (rng.normal(size=(9, 10)) + 1j * rng.normal(size=(9, 10))).astype("complex64")
SPECIAL = rng.choice(np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan], "f4"), (20, 37))
H = rng.random((6, 20)).astype("float16")


def each(parameters: str, out: str, operation: str, *args: Any, **options: Any) -> Lowered:
    return ElementwiseKernel(parameters, out, operation, "each").lower(args, **options)


def reduce(map_: str, join: str, post: str, identity: str | None, *args: Any, **options: Any) -> Lowered:
    parameters = ", ".join(f"T {name}" for name, _ in zip("xw", args, strict=False))
    return ReductionKernel(parameters, "T y", map_, join, post, identity, "reduce").lower(args, **options)


LAUNCHES = {
    "maths": lambda: each("T x, T y", "T z", "z = exp(-x * x) * sin(y) / (1 + x * x) + pow(fabs(y), x)", X, Y),
    "double": lambda: each("T x", "T z", "z = erf(x) + cbrt(x) * log1p(fabs(x)) - atan2(x, T(2))", D),
    "views": lambda: each("T x, T y", "T z", "z = x - y", X[::3, 1::2], Y[::3, 1::2]),
    "broadcast": lambda: each("T x, T y", "T z", "z = x / y", X, X[:, :1]),
    "integers": lambda: each("T x, T y", "T z", "z = (x << 3) % (y | 1) ^ x * y", K, K[::-1]),
    "raw": lambda: each("raw T x", "T z", "z = x[i + 1 < n ? i + 1 : 0] - x[i]", X[0].copy(), size=129),
    "several": lambda: each("T x", "T a, int32 b", "a = floor(x); b = x < 0 ? -1 : (int)(x * 3)", X),
    "complex": lambda: each("T x, T y", "T z", "z = x * y + conj(x) / (y + T(1))", Z, Z[::-1]),
    "half": lambda: each("T x, T y", "T z", "z = x * y + x", H, H[::-1]),
    "sum": lambda: reduce("x", "a + b", "y = a", "0", X),
    "norm of rows": lambda: reduce("x * x", "a + b", "y = sqrt(a)", "0", X, axis=1),
    "largest of rows": lambda: reduce("x", "max(a, b)", "y = a", None, SPECIAL, axis=1),
    "smallest": lambda: each("T x, T y", "T z", "z = min(x, y)", SPECIAL, SPECIAL[::-1]),
    "largest of columns": lambda: reduce("x", "a > b ? a : b", "y = a", None, D, axis=(0, 2), keepdims=True),
    "dot": lambda: reduce("x * w", "a + b", "y = a", "0", K, K[::-1]),
    "sum of complex": lambda: reduce("x", "a + b", "y = a", "0", Z, axis=0),
}


@pytest.fixture(scope="module")
def hosts() -> tuple[Host, StrictHost]:
    return Host(), StrictHost()


def value(argument: Any) -> Any:
    if isinstance(argument, In | InOut):
        return np.ascontiguousarray(argument.array)
    if isinstance(argument, Out):
        return np.zeros(argument.shape, argument.dtype)
    return argument.item() if isinstance(argument, np.generic) else argument


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_same_bits(name: str, hosts: tuple[Host, StrictHost]) -> None:
    launch = LAUNCHES[name]()
    kernel = launch.kernel.compile()
    assert kernel.exact
    arguments = [value(argument) for argument in launch.args]
    grid, block = np.atleast_1d(launch.grid).tolist(), np.atleast_1d(launch.block).tolist()
    wanted = hosts[0].run(kernel, grid, block, arguments)
    got = hosts[1].run(kernel.cuda, kernel.entry, kernel.parameters, grid, block, arguments)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.tobytes() == theirs.tobytes()
