"""Taking CuPy's own kernel objects as they are. CuPy is not imported: who has such an object has done so."""

from typing import Any

from depin_node.compute.programs.generated.elementwise import ElementwiseKernel
from depin_node.compute.programs.generated.reduction import ReductionKernel
from depin_node.compute.programs.kernel import RawKernel
from depin_node.core.errors import ConfigError

Kernel = RawKernel | ElementwiseKernel | ReductionKernel


def adopt(kernel: Any) -> Kernel:
    """Return ``kernel`` if it is ours, or ours for a ``cupy.RawKernel``, ``ElementwiseKernel`` or ``ReductionKernel``.

    Raises:
        ConfigError: it is none of them, or uses what is not supported.
    """
    if isinstance(kernel, Kernel):
        return kernel
    kind = type(kernel).__name__ if type(kernel).__module__.partition(".")[0] == "cupy" else ""
    if kind == "ElementwiseKernel":
        return ElementwiseKernel(
            _declarations(kernel.in_params, const=True),
            _declarations(kernel.out_params),
            kernel.operation,
            kernel.name,
            kernel.reduce_dims,
            kernel.preamble,
            kernel.no_return,
            kernel.return_tuple,
            **kernel.kwargs,
        )
    if kind == "ReductionKernel":
        return ReductionKernel(
            _declarations(kernel.in_params, const=True),
            _declarations(kernel.out_params),
            kernel.map_expr,
            kernel.reduce_expr,
            kernel.post_map_expr,
            kernel.identity,
            kernel.name,
            kernel.reduce_type,
            kernel.reduce_dims,
            kernel.preamble,
            kernel.options,
        )
    try:
        return RawKernel.of(kernel)
    except ConfigError:
        raise ConfigError(
            f"expected a RawKernel, ElementwiseKernel or ReductionKernel, ours or CuPy's, not {type(kernel).__name__}"
        ) from None


def _declarations(parameters: Any, *, const: bool = False) -> str:
    """Return the parameter string that CuPy has read."""
    texts = []
    for parameter in parameters:
        words = ["raw"] * parameter.raw + ["_non_const"] * (const and not parameter.is_const)
        kind = parameter.ctype if parameter.dtype is None else parameter.dtype.name
        texts.append(" ".join([*words, kind, parameter.name]))
    return ", ".join(texts)
