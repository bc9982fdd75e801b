"""Elementwise and reduction kernels: CuPy's words in, plain CUDA C and a launch of it out.

::

    ElementwiseKernel | ReductionKernel  +  arrays, numbers
        parameters.py   what the parameter strings declare, and which types the arguments make of it
        arguments.py    which argument is what, and the shape of the loop by broadcasting
        layout.py       how arrays lie under that loop, and which tile of the result a block owns
        source.py       the text: parameters, user fragments, and whose line an error is in
        words.py        members of CuPy's objects in fragments, put in plain words
        elementwise.py, reduction.py
        rows.py         large launches, cut into rows
        adopt.py        CuPy's own kernel objects become ours
    ──► Lowered: a RawKernel with its grid, block and arguments, from here on as if the user had written it

The source does not depend on the lengths of arrays, only on their types and on which axes are broadcast, so that one
compilation serves all sizes. It is CUDA C that NVRTC takes as it is; what it says about order is all there is: an
element of the result is made by one thread, or by the lanes of one block in the order that reduction.py gives.
"""

from depin_node.compute.programs.generated.adopt import Kernel, adopt
from depin_node.compute.programs.generated.elementwise import ElementwiseKernel
from depin_node.compute.programs.generated.reduction import ReductionKernel
from depin_node.compute.programs.generated.source import Lowered

__all__ = ["ElementwiseKernel", "Kernel", "Lowered", "ReductionKernel", "adopt"]
