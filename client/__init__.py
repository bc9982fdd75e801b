"""The Python SDK: kernels as in CuPy, and functions of the array API standard, run on the mesh."""

from depin_node.client.futures import Future, JobFailed, NobodySuitable
from depin_node.client.mesh import Mesh
from depin_node.compute.jobs.job import Algebraic as algebraic  # noqa: N813 - these read as the policies' names
from depin_node.compute.jobs.job import Confidence as confidence  # noqa: N813
from depin_node.compute.jobs.job import Lead as lead  # noqa: N813
from depin_node.compute.jobs.job import Limits
from depin_node.compute.jobs.job import Quorum as quorum  # noqa: N813
from depin_node.compute.programs.arrays import Spec, Split, TraceError, trace
from depin_node.compute.programs.arrays import namespace as xp
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.generated import ElementwiseKernel, ReductionKernel
from depin_node.compute.programs.kernel import Along, In, InOut, Out, RawKernel, RawModule, Reference

__all__ = [
    "Along",
    "ElementwiseKernel",
    "Future",
    "In",
    "InOut",
    "JobFailed",
    "Limits",
    "Mesh",
    "NobodySuitable",
    "Out",
    "ProgramBuilder",
    "RawKernel",
    "RawModule",
    "ReductionKernel",
    "Reference",
    "Spec",
    "Split",
    "TraceError",
    "algebraic",
    "confidence",
    "lead",
    "quorum",
    "trace",
    "xp",
]
