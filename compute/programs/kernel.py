"""Kernels and arguments: ``RawKernel`` and ``RawModule`` as in CuPy; ``Out`` and ``InOut`` say what pointers do not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from depin_node.compute.programs.program import DTYPE_BYTES
from depin_node.core.errors import ConfigError

if TYPE_CHECKING:
    from depin_node.compute.translate import CompiledKernel, CompiledUnit


@dataclass(frozen=True)
class UnitSource:
    """What a unit is compiled from."""

    code: str = field(repr=False)
    names: tuple[str, ...]
    options: tuple[str, ...]
    name_expressions: tuple[str, ...]
    filename: str

    def compile(self, *, trial: bool = False) -> "CompiledUnit":
        """Compile it, or its variant for a trial.

        Raises:
            ConfigError: the source has errors (a CompileError, with file and line), or there is no compiler here.
        """
        from depin_node.compute.translate import compile_unit

        expressions = self.name_expressions
        return compile_unit(
            self.code, self.names, self.options, name_expressions=expressions, filename=self.filename, trial=trial
        )


class Launched:
    """A kernel that is launched, not called: a call, as in CuPy, is told what to write instead."""

    name: str
    launch_arguments = "args=(…)"

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse. Raises ``ConfigError``."""
        launch = f"launch(kernel, {self.launch_arguments})"
        raise ConfigError(
            f"{self.name} is launched, not called: mesh.{launch}, or depin_node.client.local.{launch} on this machine"
        )


class RawKernel(Launched):
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

    launch_arguments = "grid, block, args"

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
        _check_arguments(backend, translate_cucomplex, enable_cooperative_groups, jitify)
        self.code, self.name, self.options, self.filename = code, name, tuple(options), filename
        self.module = RawModule(code=code, options=options, filename=filename)

    @classmethod
    def of(cls, kernel: Any) -> "RawKernel":
        """Return ``kernel`` if it is ours, or ours for a ``cupy.RawKernel``.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(kernel, cls):
            return kernel
        try:
            ours = cls(kernel.code, kernel.name, kernel.options)
        except AttributeError:
            raise ConfigError(f"expected a RawKernel, not {type(kernel).__name__}") from None
        state = kernel.__getstate__() if type(kernel).__module__.partition(".")[0] == "cupy" else {}
        # CuPy keeps the instances that a kernel of a module was chosen from in its state alone
        ours.module.name_expressions = tuple(state.get("name_expressions") or ())
        return ours

    def compile(self) -> "CompiledKernel":
        """Compile it, once.

        Raises:
            ConfigError: the source has errors (a CompileError, with file and line), or there is no compiler here.
        """
        return self.module.compile_function(self.name)

    def __repr__(self) -> str:
        return f"RawKernel({self.name!r})"


class RawModule:
    """A CUDA source with several kernels, or instances of templates, with the arguments of ``cupy.RawModule``.

    Kernels that ``get_function`` has returned are compiled together, into one unit, when one of them is first needed.
    ``__constant__`` data that the host sets (``get_global`` in CuPy) is passed where the kernel is launched:
    ``constants={"name": array}``.

    Args:
        code: CUDA source.
        path: refused: a compiled file runs on one kind of GPU only.
        options: ``-D``, ``-U`` and ``-std=`` as for NVRTC.
        backend: ``nvrtc`` or ``nvcc``.
        translate_cucomplex: refused.
        enable_cooperative_groups: refused.
        name_expressions: the instances of templates, such as ``scale<float>``, that ``get_function`` may be asked for.
        jitify: refused.
        filename: what compile errors call the source.

    Raises:
        ConfigError: a refused argument.
    """

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: bool = False,
        filename: str = "kernel.cu",
    ) -> None:
        if path is not None or not isinstance(code, str):
            raise ConfigError(
                "RawModule takes the source as text in code: a compiled file runs on one kind of GPU only"
            )
        _check_arguments(backend, translate_cucomplex, enable_cooperative_groups, jitify)
        self.code, self.options, self.filename = code, tuple(options), filename
        self.name_expressions = tuple(name_expressions or ())
        self._functions: dict[str, RawKernel] = {}
        self._compiled: dict[str, CompiledKernel] = {}
        self.source: UnitSource | None = None
        """Of the unit that was compiled last."""

    @classmethod
    def of(cls, module: Any) -> "RawModule":
        """Return ``module`` if it is ours, or ours for a ``cupy.RawModule``.

        Raises:
            ConfigError: it is neither, or it has no source.
        """
        if isinstance(module, cls):
            return module
        try:
            return cls(
                code=module.code,
                path=module.file_path,
                options=module.options,
                enable_cooperative_groups=module.enable_cooperative_groups,
                name_expressions=module.name_expressions,
            )
        except AttributeError:
            raise ConfigError(f"expected a RawModule, not {type(module).__name__}") from None

    def get_function(self, name: str) -> RawKernel:
        """Return the kernel of that name, or of that name expression, one of ``name_expressions``.

        Raises:
            ConfigError: an expression that is not one of them.
        """
        if not name.isidentifier() and name not in self.name_expressions:
            raise ConfigError(f"{name!r} is not one of the module's name_expressions: add it there")
        if name not in self._functions:
            kernel = RawKernel(self.code, name, self.options, filename=self.filename)
            kernel.module = self
            self._functions[name] = kernel
        return self._functions[name]

    def compile_function(self, name: str) -> "CompiledKernel":
        """Compile the kernel of that name, together with all that ``get_function`` has returned.

        Raises:
            ConfigError: the source has errors (a CompileError, with file and line), or there is no compiler here.
        """
        if name not in self._compiled:
            names = tuple(dict.fromkeys([*self._functions, name]))
            self.source = UnitSource(self.code, names, self.options, self.name_expressions, self.filename)
            self._compiled = {kernel.name: kernel for kernel in self.source.compile().kernels}
        return self._compiled[name]

    def __repr__(self) -> str:
        return f"RawModule({len(self._functions)} functions)"


def _check_arguments(backend: str, translate_cucomplex: bool, cooperative_groups: bool, jitify: bool) -> None:
    if backend not in ("nvrtc", "nvcc"):
        raise ConfigError(f"backend {backend!r} is not known: nvrtc and nvcc are, and mean the same here")
    for argument, given, instead in (
        ("translate_cucomplex", translate_cucomplex, "include <cuComplex.h> as it is, or <cupy/complex.cuh>"),
        ("enable_cooperative_groups", cooperative_groups, "blocks of one launch run on different machines"),
        ("jitify", jitify, "the source has to be complete, without includes"),
    ):
        if given:
            raise ConfigError(f"{argument} is not supported: {instead}")


@dataclass(frozen=True)
class Along:
    """How an array is cut into the tasks' slices: along ``axis``, with ``halo`` rows of the neighbours on either side.

    Attributes:
        axis: of the array.
        halo: rows.
        edge: what rows beyond the array's ends are: ``clamp`` (the outermost row), ``wrap`` (the other end),
            ``reflect`` (mirrored at the outermost row), ``constant`` (``fill``), ``none`` (they are not there, so that
            the first and the last task hold fewer).
        fill: the element of edge ``constant``.
    """

    axis: int = 0
    halo: int = 0
    edge: str = "none"
    fill: Any = 0


Cutting = Along | None | Literal["default"]
"""How an array is cut: so; not at all, each task has the whole; or as all arrays of the program are."""


@dataclass(frozen=True)
class Reference:
    """An array that is on the local node already: the 32-byte id of its blob, and what it is.

    Attributes:
        blob: of the elements in C order, little-endian.
        dtype: NumPy's name.
        shape: of the array.
    """

    blob: bytes
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the array."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __repr__(self) -> str:
        return f"Reference({self.blob.hex()[:12]}…, {self.dtype!r}, {self.shape})"


@dataclass(frozen=True)
class Out:
    """An array that the kernel fills, returned as a new one; it starts as zeros.

    Attributes:
        dtype: of its elements.
        shape: an int or a tuple of ints.
        tile: the part of it that one block owns (see ``owners.py``); None: all of it belongs to one shard.
        cut: how it is cut if the program is cut along an axis; by default like all arrays, without a halo.
    """

    dtype: Any
    shape: int | Sequence[int]
    tile: int | Sequence[int] | None = None
    cut: Cutting = "default"


@dataclass(frozen=True)
class InOut:
    """An array that the kernel reads and writes, returned as a new one; ``array`` itself does not change."""

    array: Any = field(repr=False)
    tile: int | Sequence[int] | None = None
    cut: Cutting = "default"


@dataclass(frozen=True)
class In:
    """An array that the kernel reads; a plain array means the same."""

    array: Any = field(repr=False)
    cut: Cutting = "default"
