"""A minimal host for compiled kernels: memory, arguments, run. The device proper is tested in tests/devices."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import wasmtime

from depin_node.compute.translate import CompiledKernel
from depin_node.compute.translate.abi import pack_arguments

ALIGNMENT = 256
PAGE = 65536


class Host:
    """Runs compiled kernels on NumPy arrays, in an engine that allows no more than the real device does."""

    trap = (wasmtime.Trap, wasmtime.WasmtimeError)

    def __init__(self) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        config.wasm_relaxed_simd = False
        config.cranelift_nan_canonicalization = False
        self.engine = wasmtime.Engine(config)

    def run(
        self,
        kernel: CompiledKernel,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared_mem: int = 0,
        blocks: tuple[int, int] | None = None,
        fuel: int = 10**11,
    ) -> list[np.ndarray]:
        """Run blocks of a launch; return what all array arguments hold afterwards, in order."""
        module = wasmtime.Module(self.engine, kernel.module)
        store = wasmtime.Store(self.engine)
        store.set_fuel(fuel)
        limits = module.imports[0].type.limits
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        size = sum(-(-a.nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT for a in arrays)
        memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(limits.min + -(-size // PAGE), None)))
        exports = wasmtime.Instance(store, module, [memory]).exports(store)
        start = ctypes.addressof(memory.data_ptr(store).contents)
        data = np.ctypeslib.as_array((ctypes.c_ubyte * memory.data_len(store)).from_address(start))
        top, values, places = limits.min * PAGE, [], []
        for parameter, argument in zip(kernel.parameters, arguments, strict=True):
            if not isinstance(argument, np.ndarray):
                values.append(argument)
                continue
            assert parameter.kind == "pointer"
            raw = np.ascontiguousarray(argument).reshape(-1).view(np.uint8)
            data[top : top + raw.size] = raw
            places.append((top, argument))
            values.append(top)
            top += -(-raw.size // ALIGNMENT) * ALIGNMENT
        packed = pack_arguments(kernel.parameters, values)
        at = exports["argbuf"](store)
        data[at : at + len(packed)] = np.frombuffer(packed, np.uint8)
        grid3, block3 = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        first, last = blocks or (0, grid3[0] * grid3[1] * grid3[2])
        exports[f"run{kernel.entry}"](store, first, last, *grid3, *block3, shared_mem)
        results = [data[p : p + a.nbytes].copy().view(a.dtype).reshape(a.shape) for p, a in places]
        self.log = b""
        if kernel_log := exports.get("log"):
            at = kernel_log(store)
            length = int(data[at : at + 4].view("<u4")[0])
            self.log = data[at + 4 : at + 4 + length].tobytes()
        self.fuel_used = fuel - store.get_fuel()
        return results
