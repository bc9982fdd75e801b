"""Random kernels: what NVRTC makes of them gives the bits of WebAssembly in the PTX interpreter."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_generator import generate, unit
from strict_host import StrictHost

from depin_node.compute.devices.gpu import strict
from depin_node.compute.translate import compile_unit

KERNELS = 4
"""Of one unit: what a compiler costs is mostly the same for one and for several."""


@pytest.mark.parametrize("architecture", [strict.ARCHITECTURES[0], strict.ARCHITECTURES[-1]])
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(draw=st.randoms(use_true_random=False))
def test_random_kernels_give_the_bits_of_wasm(host, architecture: int, draw: random.Random) -> None:
    kernels = [generate(draw, f"k{n}", waits=n > 0, strict=True) for n in range(KERNELS)]
    compiled, gpu = compile_unit(unit(kernels), [kernel.name for kernel in kernels]), StrictHost(architecture)
    for drawn, kernel in zip(kernels, compiled.kernels, strict=True):
        assert kernel.exact, kernel.notes
        arguments = drawn.arguments()
        wanted = host.run(kernel, drawn.grid, drawn.block, arguments)
        got = gpu.run(compiled.cuda, kernel.entry, kernel.parameters, drawn.grid, drawn.block, arguments)
        for mine, theirs in zip(got, wanted, strict=True):
            for array in (mine, theirs):
                if array.dtype.kind == "f":
                    array[np.isnan(array)] = np.nan
            assert mine.tobytes() == theirs.tobytes(), drawn.source
