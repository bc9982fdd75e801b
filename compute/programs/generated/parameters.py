"""CuPy's parameter strings, ``'float32 x, T y, raw T z'``, and the types that arguments give them.

A type is the name of a NumPy dtype, or a *type variable*: one letter, which stands for the same type wherever it is
written. Arrays decide what it stands for, outputs first; numbers convert to what was decided (CuPy's user guide,
"Type-generic kernels").
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from depin_node.core.errors import ConfigError

C_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
    "float16": "float16",
    "complex64": "complex<float>",
    "complex128": "complex<double>",
}
"""The C type of each dtype, as CuPy names it."""

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_REFUSED = {
    "cudaTextureObject_t": "textures are not supported: pass the array as raw",
    "CIndexer": "CIndexer is CuPy's own: _ind is there without being declared",
    "CArray": "CArray is CuPy's own: declare the array as raw",
}


@dataclass(frozen=True)
class ParameterInfo:
    """One declared parameter. ``type`` is a dtype's name, or one letter: a type variable."""

    name: str
    type: str
    raw: bool

    @property
    def generic(self) -> bool:
        """Whether arguments decide its type."""
        return len(self.type) == 1

    @property
    def c_type(self) -> str:
        """How its type is called in the source."""
        return self.type if self.generic else C_TYPES[self.type]

    def __str__(self) -> str:
        return f"{'raw ' if self.raw else ''}{self.type} {self.name}"


def parse_parameters(text: str, what: str, taken: Sequence[ParameterInfo] = ()) -> tuple[ParameterInfo, ...]:
    """Read a parameter string.

    Args:
        text: CuPy's notation; may be empty.
        what: what to call it in errors: ``in_params`` or ``out_params``.
        taken: parameters declared before, whose names are used up.

    Raises:
        ConfigError: with the declaration that is wrong, and what is right.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{what}: expected text such as 'T x, raw float32 y', not {type(text).__name__}")
    found: list[ParameterInfo] = []
    for part in text.split(",") if text.strip() else ():
        info = _parse_one(part, what)
        if any(other.name == info.name for other in (*taken, *found)):
            raise ConfigError(f"{what}: two parameters are called {info.name}")
        found.append(info)
    return tuple(found)


def _parse_one(part: str, what: str) -> ParameterInfo:
    words = part.split()
    if len(words) < 2:
        raise ConfigError(f"{what}: {part.strip()!r} is no declaration: expected [raw] TYPE NAME")
    *keywords, kind, name = words
    for keyword in keywords:
        if keyword != "raw":
            extra = ": declare what is written in out_params" if keyword == "_non_const" else ""
            raise ConfigError(f"{what}: unknown keyword {keyword!r} in {part.strip()!r}; only raw is known{extra}")
    if not _IDENTIFIER.fullmatch(name):
        raise ConfigError(f"{what}: {name!r} cannot be a parameter's name")
    if name == "i" or name.startswith("_"):
        raise ConfigError(f"{what}: the name {name!r} is reserved: i is the index, and so are names that begin with _")
    return ParameterInfo(
        name, kind if len(kind) == 1 else dtype_name(kind, f"{what}: {part.strip()!r}"), "raw" in words
    )


def dtype_name(kind: object, where: str) -> str:
    """Return NumPy's name of a dtype that kernels can have.

    Raises:
        ConfigError: beginning with ``where``.
    """
    if isinstance(kind, str) and kind in _REFUSED:
        raise ConfigError(f"{where}: {_REFUSED[kind]}")
    try:
        name = np.dtype(kind).name  # type: ignore[call-overload]
    except TypeError:
        raise ConfigError(
            f"{where}: {kind!r} is no type: expected one letter (a type variable) or one of {', '.join(C_TYPES)}"
        ) from None
    if name not in C_TYPES:
        raise ConfigError(f"{where}: elements of type {name} are not supported")
    return str(name)


def resolve_types(
    parameters: Sequence[ParameterInfo], outputs: int, dtypes: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Decide the type variables.

    Args:
        parameters: inputs, then outputs.
        outputs: how many of them are outputs.
        dtypes: of the arrays given, by the parameter's name; numbers and outputs left out are not in it.

    Returns:
        The dtype of each parameter by its name, and of each type variable.

    Raises:
        ConfigError: two arrays disagree, or nothing decides a variable.
    """
    inputs = len(parameters) - outputs
    variables: dict[str, str] = {}
    deciders: dict[str, str] = {}
    for info in (*parameters[inputs:], *parameters[:inputs]):
        dtype = dtypes.get(info.name)
        if dtype is None:
            continue
        if not info.generic:
            if dtype != info.type:
                raise ConfigError(
                    f"{info.name} is {info.type}, its array is {dtype}: convert it with astype({info.type!r})"
                )
        elif variables.setdefault(info.type, dtype) != dtype:
            raise ConfigError(
                f"{info.type} is {variables[info.type]} by {deciders[info.type]} and {dtype} by {info.name}: "
                f"convert one of them, or declare two type variables"
            )
        deciders.setdefault(info.type, info.name)
    for position, info in enumerate(parameters):
        if info.generic and info.type not in variables:
            instead = f"Out(dtype, shape) for {info.name}" if position >= inputs else f"an array for {info.name}"
            raise ConfigError(f"nothing decides {info.type}, the type of {info.name}: only arrays do; give {instead}")
    return {p.name: variables[p.type] if p.generic else p.type for p in parameters}, variables
