"""The Python SDK: kernels as in CuPy, and functions of the array API standard, run on the mesh."""

from depin_node.client.futures import Future, JobFailed, NobodySuitable
from depin_node.client.mesh import Mesh
from depin_node.client.policies import algebraic, confidence, lead, quorum
from depin_node.client.settings import Limits
from depin_node.compute.jobs.job import Tolerance
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
    "Tolerance",
    "TraceError",
    "algebraic",
    "confidence",
    "lead",
    "quorum",
    "trace",
    "xp",
]
