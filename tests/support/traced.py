"""Traced functions run on a WebAssembly device in this process, and what the array API says they should give."""

import array_api_strict as strict
import numpy as np
from device_programs import run_all

from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.arrays import bind_traced, trace

strict.set_array_api_strict_flags(api_version="2024.12")
LIMITS = TaskLimits(30.0, 1 << 30)
DEVICE = WasmDevice()


def run(function, *arguments, shards=1, device=DEVICE):
    """Trace a function, run it, and return its results in a list."""
    bound = bind_traced(trace(function, *arguments, shards=shards))
    return run_all(device, bound.program, *(bound.inputs[index] for index in bound.program.inputs), limits=LIMITS)


def expected(function, *arrays, namespace=strict):
    """Return what a function ``f(xp, *arrays)`` gives on values, as NumPy arrays."""
    with np.errstate(all="ignore"):
        given = [namespace.asarray(array) for array in arrays] if namespace is strict else arrays
        return [np.asarray(result) for result in function(namespace, *given)]


def assert_as_standard(function, *arrays, rtol=1e-12, atol=1e-13, namespace=strict):
    """Hold the results of ``f(xp, *arrays)``, a list, traced, against those of a namespace of the standard."""
    found = run(lambda *symbols: function(symbols[0].__array_namespace__(), *symbols), *arrays)
    wanted = expected(function, *arrays, namespace=namespace)
    assert len(found) == len(wanted)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"result {number}"
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=f"result {number}")
