"""CUDA C to WebAssembly: a small compiler that runs where a kernel is submitted. ``compiler.py`` tells its way.

Names are loaded when first used: workers import ``abi`` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depin_node.compute.translate.compiler import (
        CompiledKernel,
        CompiledUnit,
        Parameter,
        compile_kernel,
        compile_unit,
    )
    from depin_node.compute.translate.errors import CompileError
    from depin_node.compute.translate.toolchain import compiler_available

__all__ = [
    "CompileError",
    "CompiledKernel",
    "CompiledUnit",
    "Parameter",
    "compile_kernel",
    "compile_unit",
    "compiler_available",
]
_MODULES = {"CompileError": "errors", "compiler_available": "toolchain"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'compiler')}"), name)
