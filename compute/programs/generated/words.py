"""Members of CuPy's objects in the user's fragments, put in plain words.

``_ind.size()`` becomes a number, ``_ind.get()[1]`` a digit of the index, and of a raw array z (here a pointer to
contiguous elements) ``z.size()``, ``z.shape()[0]``, ``z.strides()[0]`` and ``z.ndim`` become numbers. Other members are
refused by name.
"""

import re
from math import prod

from depin_node.compute.programs.generated.arguments import Argument, Arguments
from depin_node.compute.programs.generated.source import Signature
from depin_node.core.errors import ConfigError


def put_in_words(
    text: str, label: str, signature: Signature, arguments: Arguments, indexers: dict[str, tuple[tuple[int, ...], str]]
) -> str:
    """Replace members of raw arrays and of index objects by plain names, which are added to ``signature``.

    Args:
        text: a fragment.
        label: what to call it in errors.
        signature: of the kernel.
        arguments: the raw ones count.
        indexers: by name, such as ``_ind``: the shape, and what the names of digits begin with (empty: none are known).

    Raises:
        ConfigError: a member that is not there.
    """
    for argument in (*arguments.inputs, *arguments.outputs):
        if not argument.info.raw or argument.number is not None:
            continue
        text = _raw_in_words(text, label, signature, argument)
    for name, (shape, digits) in indexers.items():

        def indexer(
            match: re.Match[str], shape: tuple[int, ...] = shape, name: str = name, digits: str = digits
        ) -> str:
            axis = _axis(match, shape, label)
            if match["member"] == "size":
                return signature.number(f"{name}_size", prod(shape))
            if match["member"] == "ndim":
                return str(len(shape))
            if match["member"] == "get" and axis is not None and digits:
                return f"{digits}{axis}"
            known = "size(), ndim and get()[0], get()[1], … with literal indices" if digits else "size() and ndim"
            raise ConfigError(f"{label}: {match[0].strip()!r} is not supported: of {name} there are {known}")

        text = _members(name).sub(indexer, text)
    return text


def _raw_in_words(text: str, label: str, signature: Signature, argument: Argument) -> str:
    name, shape = argument.info.name, argument.shape or ()
    several = re.search(rf"(?<![\w.]){name}\s*\[\s*(\{{|_\w*ind\s*\.\s*get\s*\(\s*\)\s*\])", text)
    if several:
        raise ConfigError(f"{label}: {several[0]!r}: a raw array takes one index here, that of its element in C order")

    def member(match: re.Match[str]) -> str:
        axis = _axis(match, shape, label)
        if match["member"] == "size":
            return signature.number(f"_{name}_size", prod(shape))
        if match["member"] == "ndim":
            return str(len(shape))
        if match["member"] == "shape" and axis is not None:
            return signature.number(f"_{name}_shape{axis}", shape[axis])
        if match["member"] == "strides" and axis is not None:
            item_bytes = f"(ptrdiff_t)sizeof({argument.info.c_type})"
            return f"({signature.number(f'_{name}_step{axis}', prod(shape[axis + 1 :]))} * {item_bytes})"
        raise ConfigError(
            f"{label}: {match[0].strip()!r} is not supported: of a raw array there are size(), ndim, "
            "shape()[0] and strides()[0] with literal indices"
        )

    return _members(name).sub(member, text)


def _members(name: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w.]){name}\s*\.\s*(?P<member>\w+)(?:\s*\(\s*\))?(?:\s*\[\s*(?P<axis>\d+)\s*\])?", re.ASCII
    )


def _axis(match: re.Match[str], shape: tuple[int, ...], label: str) -> int | None:
    if match["axis"] is None or int(match["axis"]) >= len(shape):
        if match["axis"] is not None:
            raise ConfigError(f"{label}: {match[0].strip()!r}: there are {len(shape)} axes")
        return None
    return int(match["axis"])
