"""Recording an operation of the device's library: one call, and an array for each of its results."""

from collections.abc import Mapping
from typing import Any

from depin_node.compute.programs.arrays.array import Array, as_array
from depin_node.compute.programs.arrays.dtypes import TraceError
from depin_node.compute.programs.arrays.elementwise import astype
from depin_node.compute.programs.operations import Attribute, Spec, plan
from depin_node.core.errors import TaskRejected


def call(name: str, *arrays: Any, **attributes: Attribute) -> tuple[Array, ...]:
    """Return the results of an operation of ``programs.operations``, all of them tolerant.

    Raises:
        TraceError: it does not take these arrays.
    """
    inputs = tuple(as_array(array) for array in arrays)
    try:
        planned = plan(name, [Spec(array.kind, array.shape) for array in inputs], attributes)
    except TaskRejected as error:
        raise TraceError(str(error)) from None
    recorded: Mapping[str, Any] = {"name": name, "attributes": attributes, "plan": planned}
    first = planned.results[0]
    node = Array("call", inputs, recorded, first.dtype, first.shape, tolerant=True)
    return tuple(
        Array("operation", (node,), {"part": part}, spec.dtype, spec.shape) for part, spec in enumerate(planned.results)
    )


def floating(x: Any, function: str) -> Array:
    """Return a float or complex array. Raises ``TraceError`` for others."""
    array = as_array(x)
    if array.dtype.kind not in "fc":
        raise TraceError(f"{function} takes floats and complex; this array is {array.kind}: convert it with xp.astype")
    return array


def as_complex(x: Any, function: str) -> Array:
    """Return a float or complex array as complex."""
    x = floating(x, function)
    return x if x.dtype.kind == "c" else astype(x, {"float32": "complex64", "float64": "complex128"}[x.kind])
