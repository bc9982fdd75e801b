"""Kernels and arguments: ``RawKernel`` as in CuPy, and ``Out`` and ``InOut`` for what a pointer alone does not tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from depin_node.core.errors import ConfigError

if TYPE_CHECKING:
    from depin_node.compute.translate import CompiledKernel


class RawKernel:
    """A kernel in CUDA C, with the arguments of ``cupy.RawKernel``.

    It is compiled when it is first needed. Of CuPy's arguments, ``backend`` is without effect (one compiler serves all
    providers); ``translate_cucomplex``, ``enable_cooperative_groups`` and ``jitify`` are refused if set.

    Args:
        code: CUDA source; the kernel may be ``extern "C"`` or not.
        name: of the ``__global__`` function.
        options: ``-D``, ``-U`` and ``-std=`` as for NVRTC.
        backend: ``nvrtc`` or ``nvcc``.
        translate_cucomplex: refused.
        enable_cooperative_groups: refused.
        jitify: refused.
        filename: what compile errors call the source.

    Raises:
        ConfigError: a refused argument.
    """

    def __init__(
        self,
        code: str,
        name: str,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        *,
        enable_cooperative_groups: bool = False,
        jitify: bool = False,
        filename: str = "kernel.cu",
    ) -> None:
        if not isinstance(code, str) or not isinstance(name, str):
            raise ConfigError("RawKernel takes the source and the kernel's name as text")
        if backend not in ("nvrtc", "nvcc"):
            raise ConfigError(f"backend {backend!r} is not known: nvrtc and nvcc are, and mean the same here")
        for argument, given, instead in (
            ("translate_cucomplex", translate_cucomplex, "use two floats (float2) instead of cuComplex"),
            ("enable_cooperative_groups", enable_cooperative_groups, "blocks of one launch run on different machines"),
            ("jitify", jitify, "the source has to be complete, without includes"),
        ):
            if given:
                raise ConfigError(f"{argument} is not supported: {instead}")
        self.code, self.name, self.options, self.filename = code, name, tuple(options), filename
        self._compiled: CompiledKernel | None = None

    @classmethod
    def of(cls, kernel: Any) -> "RawKernel":
        """Return ``kernel`` if it is ours, or ours for a ``cupy.RawKernel``.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(kernel, cls):
            return kernel
        try:
            return cls(kernel.code, kernel.name, kernel.options)
        except AttributeError:
            raise ConfigError(f"expected a RawKernel, not {type(kernel).__name__}") from None

    def compile(self) -> "CompiledKernel":
        """Compile it, once.

        Raises:
            ConfigError: the source has errors (a CompileError, with file and line), or there is no compiler here.
        """
        if self._compiled is None:
            from depin_node.compute.translate import compile_kernel

            self._compiled = compile_kernel(self.code, self.name, self.options, filename=self.filename)
        return self._compiled

    def __repr__(self) -> str:
        return f"RawKernel({self.name!r})"


@dataclass(frozen=True)
class Out:
    """An array that the kernel fills, returned as a new one; it starts as zeros.

    Attributes:
        dtype: of its elements.
        shape: an int or a tuple of ints.
        tile: the part of it that one block owns (see ``program.py``); None: all of it belongs to a launch in one shard.
    """

    dtype: Any
    shape: int | Sequence[int]
    tile: int | Sequence[int] | None = None


@dataclass(frozen=True)
class InOut:
    """An array that the kernel reads and writes, returned as a new one; ``array`` itself does not change."""

    array: Any = field(repr=False)
    tile: int | Sequence[int] | None = None


@dataclass(frozen=True)
class In:
    """An array that the kernel reads; a plain array means the same."""

    array: Any = field(repr=False)
