"""The Python SDK: kernels as in CuPy, launched on the mesh."""

from depin_node.client.futures import Future, JobFailed, NobodySuitable
from depin_node.client.mesh import Mesh
from depin_node.compute.jobs.job import Limits
from depin_node.compute.jobs.job import Quorum as quorum  # noqa: N813 - reads as the policy's name: quorum(2, 3)
from depin_node.compute.programs.generated import ElementwiseKernel, ReductionKernel
from depin_node.compute.programs.kernel import In, InOut, Out, RawKernel, RawModule

__all__ = [
    "ElementwiseKernel",
    "Future",
    "In",
    "InOut",
    "JobFailed",
    "Limits",
    "Mesh",
    "NobodySuitable",
    "Out",
    "RawKernel",
    "RawModule",
    "ReductionKernel",
    "quorum",
]
