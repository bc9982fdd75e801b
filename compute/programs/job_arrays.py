"""Arrays of a job file: NumPy files, outputs of other jobs, and how each is cut."""

from collections.abc import Callable
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from depin_node.compute.programs.arguments import Array
from depin_node.compute.programs.kernel import Along, Cutting, Reference
from depin_node.compute.programs.program import DIMENSIONS_MAX, HALO_MAX
from depin_node.compute.programs.program_arrays import EDGES
from depin_node.compute.programs.toml_table import Table
from depin_node.core.errors import ConfigError

References = Callable[[str, str | None], Reference]
"""Gives the reference to an output of a job, by the job's id and the output's name."""
CUT_KEYS = ("whole", "axis", "halo", "edge", "fill")


def load_along(table: Table, default: Along | None) -> Along:
    """Return how an array is cut: ``axis``, ``halo``, ``edge`` and ``fill`` of a table.

    Raises:
        ConfigError: naming the key.
    """
    default = default or Along()
    edge = table.get("edge", default.edge)
    if edge not in EDGES:
        raise table.error("edge", f"{edge!r} is not known; known are: {', '.join(EDGES)}")
    axis = table.integer("axis", 0, DIMENSIONS_MAX - 1, default.axis)
    return Along(axis, table.integer("halo", 0, HALO_MAX, default.halo), edge, table.get("fill", default.fill))


def load_cut(table: Table, along: Along | None) -> Cutting:
    """Return how one array is cut, where the file cuts its arrays as ``along``. Raises ``ConfigError``."""
    given = [key for key in CUT_KEYS if key in table.values]
    if not given:
        return "default"
    if along is None:
        raise table.error(given[0], 'this goes with [shards] by = "axis"')
    if table.get("whole", False) is not False:
        if table.values["whole"] is not True or len(given) > 1:
            raise table.error("whole", "expected true, and then neither axis nor halo nor edge")
        return None
    return load_along(table, Along(along.axis) if "out" in table.values else along)


def load_array(table: Table, name: str, value: Any, references: References | None) -> Array | Reference:
    """Return the array of a file, or the reference to a job's output.

    Raises:
        ConfigError: it cannot be read; names the key.
    """
    if not isinstance(value, str):
        raise table.error(name, f'expected a file, such as "a.npy", not {value!r}')
    if value.startswith("job:"):
        _, job, output = (*value.split(":", 2), "")[:3]
        if references is None:
            raise table.error(name, f"{value} is on a node: this goes with a running node only")
        try:
            return references(job, output or None)
        except ConfigError as error:
            raise table.error(name, str(error)) from error
    file, member, path = value, "", table.path.parent / value
    try:
        if not path.exists():  # else its name has a colon
            file, _, member = value.partition(":")
            path = table.path.parent / file
        if path.is_fifo():  # it would be waited for, and has no place to begin at
            raise table.error(name, f"{path} is a pipe: an array is read from a file, in any order")
        with path.open("rb") as opened:
            begins = opened.read(len(MAGIC_PREFIX))
            if begins.startswith(b"PK"):
                return _load_member(table, name, file, member, opened)
        if begins != MAGIC_PREFIX:  # else NumPy takes it for a pickle, and says how to load that
            raise table.error(name, f"{path} is not a NumPy file: it does not begin as a .npy or .npz does")
        if member:
            raise table.error(name, f"{path} holds one array: say just {file}")
        with np.errstate(over="raise"):  # a size that no file has
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except OSError as error:
        raise table.error(name, f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, ArithmeticError, BadZipFile) as error:
        reason = str(error).partition("\n")[0]  # after that NumPy says how to load pickles
        raise table.error(name, f"{path} is not a NumPy file: {reason}") from error


def _load_member(table: Table, name: str, file: str, member: str, opened: BinaryIO) -> Array:
    opened.seek(0)
    with np.load(opened, allow_pickle=False) as archive:
        if not member:
            raise table.error(name, f"{file} holds several arrays: say which, as {file}:KEY")
        if member not in archive:
            raise table.error(name, f"{file} has no {member!r}; it has: {', '.join(archive)[:500]}")
        array: Array = archive[member]
        if not isinstance(array, np.ndarray):  # an archive may hold anything
            raise table.error(name, f"{file}:{member} is no array")
        return array
