"""Array programs: a function written against the array API standard becomes steps of a program.

::

    function ─ trace.py ─► a graph of symbolic arrays (array.py; namespace.py and the modules behind it make it)
        schedule.py   what lies in memory, what is computed where it is used
        emit.py       one kernel's text: words.py for functions, indices.py for places
        kernels.py    elementwise, reductions, scans, sorts
        lower.py      steps: launches of generated kernels, which are exact, and operations of the device's library
        binding.py    the program, and the arrays it starts from
"""

from depin_node.compute.programs.arrays.binding import bind_traced
from depin_node.compute.programs.arrays.dtypes import TraceError
from depin_node.compute.programs.arrays.trace import Spec, Split, Traced, trace

__all__ = ["Spec", "Split", "TraceError", "Traced", "bind_traced", "trace"]
