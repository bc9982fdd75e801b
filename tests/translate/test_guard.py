"""Which leading conditions may be tested at a row's ends."""

from pathlib import Path
from typing import Any

import pytest

from depin_node.compute.translate.frontend import check_options, parse
from depin_node.compute.translate.guard import Guard, find_guard
from depin_node.compute.translate.index import Index
from depin_node.compute.translate.lower import Lowering
from depin_node.compute.translate.toolchain import Toolchain

I = "int i = blockIdx.x * blockDim.x + threadIdx.x;"  # noqa: E741
TAKEN = [
    f"{I} if (i < n) x[i] = 1;",
    f"{I} if (i >= n) return; x[i] = 1;",
    f"{I} if (!(i < n && i >= m)) {{ return; }} x[i] = 1;",
    f"{I} int j = blockIdx.y; float v = x[3]; if (j >= m || n <= i) return; x[i] = v;",
    "const long i = (long)blockIdx.x * blockDim.x + threadIdx.x; if (i < (long)n * m) {{ x[i] = 1; x[i + 1] = 2; }}",
    "int r = n - 1 - (int)threadIdx.x; if (r < 0) return; x[r] = 1;",
    f"{I} if (-i > -n) x[i] = 1;",
    f"{I} int rows = n / m, rest = n % m; if (i < rows && i + blockIdx.y / 3 < rest) x[i] = 1;",
]
LEFT = [
    f"{I} if (i % 2 == 0) return; x[i] = 1;",
    f"{I} if (i == n) return; x[i] = 1;",
    f"{I} if (i / m < n) x[i] = 1;",
    f"{I} if (i < n || i > m) x[i] = 1;",
    f"{I} if (i < n && x[i] > 0) x[i] = 1;",
    f"{I} if (i * i < n) x[i] = 1;",
    f"{I} if ((i & 3) < n) x[i] = 1;",
    f"{I} if (i < n) x[i] = 1; else x[i] = 2;",
    f"{I} if (i < n) x[i] = 1; x[0] = 2;",
    f"{I} i += 3; if (i < n) x[i] = 1;",
    f"{I} if (i++ < n) x[i] = 1;",
    f"{I} int j = atomicAdd(&n, 1); if (i < n) x[i] = j;",
    "unsigned char i = threadIdx.x / 3; if (i < n) x[i] = 1;",
    "bool b = threadIdx.x; if (b < n) x[0] = 1;",
    "x[0] = 1; if (threadIdx.x < n) x[1] = 2;",
    "if (threadIdx.x < 2.5f) x[1] = 2;",
]


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Guard | None]:
    """All kernels in one source: one run of clang."""
    bodies = [*TAKEN, *LEFT]
    source = "\n".join(f"__global__ void k{i}(float* x, int n, int m) {{ {b} }}" for i, b in enumerate(bodies))
    folder: Path = tmp_path_factory.mktemp("guards")
    tree = parse(source, check_options((), "k.cu"), Toolchain(folder, "k.cu", 60), None)
    unit = Lowering(Index(tree)).unit([f"k{i}" for i in range(len(bodies))])
    return {body: find_guard(kernel.entry) for body, kernel in zip(bodies, unit.kernels, strict=True)}


@pytest.mark.parametrize("body", TAKEN)
def test_conjunctions_of_affine_comparisons_are_taken(guards: Any, body: str) -> None:
    assert guards[body] is not None


@pytest.mark.parametrize("body", LEFT)
def test_everything_else_is_left(guards: Any, body: str) -> None:
    assert guards[body] is None
