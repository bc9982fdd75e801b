"""NVRTC, NVIDIA's compiler library, by ctypes: CUDA text to PTX and to CUBINs, without a GPU and without CuPy.

The process that reads a stranger's text should load as little as possible: this is the library and nothing around it.
Callers run it in a process of its own, with limits (a template can keep any C++ compiler busy for ever). The library
is that of the ``nvidia-cuda-nvrtc`` wheel, or the system's. Options are ours alone, see ``strict.py``.
"""

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from depin_node.core.errors import ConfigError, TaskError

_SUCCESS = 0
_LIBRARIES = ("libnvrtc.so.13", "libnvrtc.so.12")
_FOLDERS = ("cu13/lib", "cuda_nvrtc/lib")
"""Where the wheels put it, below the namespace package ``nvidia``."""
LOG_CHARACTERS_MAX = 2000


class NvrtcError(TaskError):
    """A text that NVRTC does not take; its log is in the message."""

    code = "nvrtc"


@functools.cache
def _library() -> ctypes.CDLL:
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise ConfigError("NVRTC was not found: install depin-node[cuda12] or depin-node[cuda13]")


def _candidates() -> list[str]:
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    wheels = [str(place / folder / name) for place in places for folder in _FOLDERS for name in _LIBRARIES]
    return [path for path in wheels if Path(path).exists()] + list(_LIBRARIES)


def version() -> tuple[int, int]:
    """Return NVRTC's version.

    Raises:
        ConfigError: there is no NVRTC.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def architectures() -> tuple[int, ...]:
    """Return the architectures that this NVRTC makes CUBINs for: 75 is sm_75.

    Raises:
        ConfigError: there is no NVRTC.
    """
    count = ctypes.c_int()
    _check(_library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    numbers = (ctypes.c_int * count.value)()
    _check(_library().nvrtcGetSupportedArchs(numbers))
    return tuple(numbers)


def to_ptx(text: str, options: Sequence[str]) -> str:
    """Compile to PTX.

    Raises:
        NvrtcError: the text is not taken.
        ConfigError: there is no NVRTC.
    """
    return _compile(text, options, "PTX").rstrip(b"\0").decode("ascii")


def to_cubin(text: str, options: Sequence[str]) -> bytes:
    """Compile to a CUBIN; ``options`` name a real architecture. Raises as ``to_ptx``."""
    return _compile(text, options, "CUBIN")


def _compile(text: str, options: Sequence[str], kind: str) -> bytes:
    library, program = _library(), ctypes.c_void_p()
    source = text.encode()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernel.cu", 0, None, None))
    try:
        words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), words) != _SUCCESS:
            log = _fetch(program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace")
            raise NvrtcError(f"NVRTC refuses the kernel: {log[:LOG_CHARACTERS_MAX]}")
        return _fetch(program, kind)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _fetch(program: ctypes.c_void_p, what: str) -> bytes:
    library, size = _library(), ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, data))
    return data.raw


def _check(status: int) -> None:
    if status != _SUCCESS:
        raise NvrtcError(f"NVRTC failed: {_library().nvrtcGetErrorString(status).decode()}")
