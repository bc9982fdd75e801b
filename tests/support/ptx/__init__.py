"""An interpreter of the PTX that strict kernels are compiled to: how the GPU side is tested without a GPU.

``parse.py`` reads the text, ``arithmetic.py`` has the instructions, ``machine.py`` runs a launch: all threads at once
as NumPy arrays, each thread with a program counter of its own, as GPUs since Volta have it. What PTX leaves open (bits
of NaNs, what a lane reads from one that does not take part, a shift's or a division's odd cases) gets values that no
test expects. It shows that NVRTC's output computes what wasm computes, if the hardware does what PTX's manual says;
that it does can only be shown on hardware.
"""

from .machine import DEADLOCK, PtxError, Trap, run_kernel
from .parse import Module, parse

__all__ = ["DEADLOCK", "Module", "PtxError", "Trap", "parse", "run_kernel"]
