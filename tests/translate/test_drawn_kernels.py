"""Kernels that hypothesis draws: every code shape, and NVRTC with the PTX interpreter, give the same bits.

hypothesis makes each choice of ``kernel_generator`` (expressions, control flow, barriers, shared memory, shuffles), so
that a kernel that fails is made smaller before it is shown. The same few are drawn each time; ``make fuzz`` sets
``DEPIN_FUZZ_EXAMPLES``, for more, and for others each time.
"""

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from kernel_generator import Generated, generate, unit
from strict_host import StrictHost

from depin_node.compute.devices.gpu import strict
from depin_node.compute.translate import CompiledKernel, compile_unit
from depin_node.compute.translate.shapes import Shape

EXAMPLES = int(os.environ.get("DEPIN_FUZZ_EXAMPLES", "0"))
KERNELS = 4
"""Of one unit: what a compiler costs is mostly the same for one and for several."""
DRAWS = st.randoms(use_true_random=False)


def drawn(examples: int) -> Any:
    """Return the settings of a test that draws so many units, if nobody asks for more."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def compiled(kernels: Sequence[Generated], shape: Shape | None = None) -> tuple[CompiledKernel, ...]:
    return compile_unit(unit(kernels), [kernel.name for kernel in kernels], _shape=shape).kernels


def canonical(arrays: Sequence[np.ndarray]) -> list[bytes]:
    """Return outputs as devices hand them out: with one NaN."""
    return [
        np.where(np.isnan(a), a.dtype.type(np.nan), a).tobytes() if a.dtype.kind == "f" else a.tobytes() for a in arrays
    ]


def bits(host: Any, kernel: CompiledKernel, of: Generated) -> list[bytes]:
    return canonical(host.run(kernel, of.grid, of.block, of.arguments(), fuel=10**9))


@drawn(4)
@given(draw=DRAWS)
def test_shapes_agree_on_kernels_that_wait(host: Any, draw: random.Random) -> None:
    """Most take the fission shape by themselves; results of atomics, too, are those of the coroutines."""
    kernels = [generate(draw, f"k{k}") for k in range(KERNELS)]
    for natural, slow, kernel in zip(compiled(kernels), compiled(kernels, "coroutine"), kernels, strict=True):
        assert bits(host, natural, kernel) == bits(host, slow, kernel), (natural.shape, kernel.source)


@drawn(2)
@given(draw=DRAWS)
def test_shapes_agree_on_kernels_that_never_wait(host: Any, draw: random.Random) -> None:
    kernels = [generate(draw, f"k{k}", waits=False) for k in range(KERNELS)]
    shapes: list[Shape | None] = [None, "loop", "fission", "coroutine"]
    for *of_shapes, kernel in zip(*(compiled(kernels, shape) for shape in shapes), kernels, strict=True):
        found = [bits(host, one, kernel) for one in of_shapes]
        assert all(other == found[0] for other in found), kernel.source


@pytest.mark.parametrize("architecture", [strict.ARCHITECTURES[0], strict.ARCHITECTURES[-1]])
@drawn(3)
@given(draw=DRAWS)
def test_ptx_agrees_with_every_shape(host: Any, architecture: int, draw: random.Random) -> None:
    kernels = [generate(draw, f"k{k}", waits=k > 0, strict=True) for k in range(KERNELS)]
    natural, slow, gpu = compiled(kernels), compiled(kernels, "coroutine"), StrictHost(architecture)
    for one, other, kernel in zip(natural, slow, kernels, strict=True):
        assert one.exact, one.notes
        arguments = kernel.arguments()
        wanted = canonical(gpu.run(one.cuda, one.entry, one.parameters, kernel.grid, kernel.block, arguments))
        assert bits(host, one, kernel) == bits(host, other, kernel) == wanted, (one.shape, kernel.source)


def test_what_is_drawn_waits_and_mostly_takes_the_fast_shape() -> None:
    chance = random.Random(1)
    kernels = [generate(chance, f"k{k}") for k in range(12)]
    text = unit(kernels)
    for word in ("__syncthreads()", "__shared__", "_sync(0xffffffffu", "atomicAdd", "for (", "while (", "exchange(s"):
        assert word in text.partition('extern "C"')[2]
    assert sum(kernel.shape == "fission" for kernel in compiled(kernels)) > len(kernels) // 2


def test_a_kernel_that_fails_is_made_small() -> None:
    seen = settings(max_examples=200, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    kernels = DRAWS.map(lambda draw: generate(draw, "k"))
    small = find(kernels, lambda kernel: "__ballot_sync" in kernel.source, settings=seen)
    assert small.source.count("\n") < 20
