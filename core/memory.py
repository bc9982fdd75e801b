"""Memory that a node has let go of stays with it for a while: what comes next is put there.

Else the C library gives a buffer of a megabyte back to the system as soon as nobody needs it, and the next one is
found, and made zeros, page by page: thousands of times in a job whose results are large. Where the host of a virtual
machine has taken the memory meanwhile, that takes longer than to fill it.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 32 << 20
_OWN_BYTES = 4 << 20
"""What is larger is mapped, and gone when it is freed."""


def keep_freed() -> None:
    """Keep what is freed from now on, up to 32 MiB; for the whole process. Does nothing where there is no glibc."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_TRIM_THRESHOLD, _KEPT_BYTES)
        tune(_MMAP_THRESHOLD, _OWN_BYTES)
