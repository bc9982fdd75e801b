"""A host for the strict GPU path without a GPU: NVRTC compiles a kernel's CUDA text, the PTX interpreter runs it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ptx import Module, parse, run_kernel

from depin_node.compute.devices.gpu import nvrtc, strict
from depin_node.compute.devices.gpu.ptx import check_entry, why_not_strict
from depin_node.compute.translate.abi import Slot, pack_arguments


class StrictHost:
    """Compiles each text once, for one architecture: NVRTC has another optimiser from 100 on."""

    def __init__(self, architecture: int = strict.ARCHITECTURES[0]) -> None:
        self.architecture = architecture
        self._modules: dict[str, tuple[str, Module]] = {}

    def compile(self, cuda: str) -> tuple[str, Module]:
        """Return the PTX of a text, as it is and parsed."""
        if cuda not in self._modules:
            ptx = nvrtc.to_ptx(strict.whole_text(cuda), strict.options(self.architecture, real=False))
            self._modules[cuda] = ptx, parse(ptx)
        return self._modules[cuda]

    def run(
        self,
        cuda: str,
        entry: int,
        parameters: Sequence[Slot],
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared_mem: int = 0,
        blocks: tuple[int, int] | None = None,
        strictly: bool = True,
    ) -> list[np.ndarray]:
        """Run blocks of a launch; return what all array arguments hold afterwards, in order."""
        ptx, module = self.compile(cuda)
        if strictly:
            assert why_not_strict(ptx) == []
        name = check_entry(ptx, entry, parameters)
        grid3, block3 = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        first, last = blocks or (0, grid3[0] * grid3[1] * grid3[2])
        values: list[Any] = [np.int64(first).tobytes(), *(np.uint32(v).tobytes() for v in (*grid3, shared_mem))]
        for parameter, argument in zip(parameters, arguments, strict=True):
            values.append(argument if isinstance(argument, np.ndarray) else pack_arguments([parameter], [argument]))
        return run_kernel(module, name, last - first, block3, values, shared_mem=shared_mem)
