"""The arrays of a program being written: what they begin with, how they are cut, and what expressions may name."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from depin_node.compute.programs import arguments as a
from depin_node.compute.programs.arguments import Array
from depin_node.compute.programs.expressions import Shard, Symbol, Value, evaluate, shard
from depin_node.compute.programs.kernel import Along, Cutting, Reference
from depin_node.compute.programs.program import (
    DIMENSIONS_MAX,
    DTYPE_BYTES,
    HALO_MAX,
    LENGTH_MAX,
    SLICES_MAX,
    Buffer,
    Cut,
    Parameter,
)
from depin_node.core.errors import ConfigError

Number = int | str | Symbol
"""An integer, or an expression of one."""
EDGES = ("clamp", "wrap", "reflect", "constant", "none")


def check_shards(shards: Any) -> None:
    """Raise ``ConfigError`` unless ``shards`` is a positive integer."""
    if not isinstance(shards, int | np.integer) or shards < 1:
        raise ConfigError(f"shards = {shards!r}: expected a positive integer")


@dataclass(frozen=True, eq=False)
class Named:
    """An array of a program: what steps are given. ``shape`` is that of the whole, however it is cut."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def other(self) -> "Other":
        """In ``combine``: the other task's row of a partial result, which is merged into this one's."""
        return Other(self)


@dataclass(frozen=True)
class Other:
    """See ``Named.other``."""

    array: Named


class ProgramArrays:
    """Named arrays, and integers by name.

    Args:
        shards: tasks to cut the program into.
        along: how its arrays are cut, where they do not say it themselves; None: they are not.

    Raises:
        ConfigError: the cut is wrong.
    """

    shard: Shard = shard
    """The numbers of a task's slice, for grids and scalars."""

    def __init__(self, *, shards: int = 1, along: Along | None = None) -> None:
        check_shards(shards)
        if along is not None and shards > SLICES_MAX:
            raise ConfigError(f"shards = {shards}: at most {SLICES_MAX} slices are possible")
        self.shards, self._along = int(shards), along
        self.buffers: list[Buffer] = []
        self.named: dict[Named, int] = {}
        self.inputs: dict[int, Array | Reference] = {}
        self._tables: list[tuple[int, ...]] = []
        self._length = 0
        self._defined: dict[str, Number] = {}

    def input(self, name: str, array: Any, *, cut: Cutting = "default") -> Named:
        """Add an array that steps read: a NumPy array or a ``Reference``. Raises ``ConfigError``."""
        return self._array(name, "in", array, None, cut)

    def inout(self, name: str, array: Any, *, tile: Any = None, cut: Cutting = "default") -> Named:
        """Add an array that begins as ``array``, changes, and is a result. Raises ``ConfigError``."""
        return self._array(name, "inout", array, tile, cut)

    def out(self, name: str, dtype: Any, shape: Any, *, tile: Any = None, cut: Cutting = "default") -> Named:
        """Add an array that begins as zeros and is a result. Raises ``ConfigError``."""
        return self._zeros(name, "out", dtype, shape, tile, cut)

    def temp(self, name: str, dtype: Any, shape: Any, *, cut: Cutting = "default") -> Named:
        """Add an array of each task's own that begins as zeros and goes with it. Raises ``ConfigError``."""
        return self._zeros(name, "temp", dtype, shape, None, cut)

    def partial(self, name: str, dtype: Any, shape: Any) -> Named:
        """Add a result of ``shape`` that each task has one of; the whole has the tasks as its first axis."""
        shape = a.lengths(f"{name}: shape", shape)
        dtype = self.dtype(name, dtype)
        cut = None
        if self._along is not None:
            cut = Cut(0, self._table(tuple(range(self.shards + 1))), 0, "none", b"")
        elif self.shards > 1:
            raise ConfigError(f"{name}: partial results are for programs that are cut along an axis: give along=")
        return self._add(Buffer(name, "out", dtype, (self.shards, *shape), (), cut))

    def define(self, name: str, value: Number) -> None:
        """Let expressions call an integer, or an expression of what is known, by a name."""
        self._defined[name] = value

    def _array(self, name: str, role: str, array: Any, tile: Any, cut: Cutting) -> Named:
        if not isinstance(array, np.ndarray | Reference):
            raise ConfigError(f"{name}: expected a NumPy array or a reference, not {type(array).__name__}")
        dtype, shape = self.dtype(name, array.dtype), tuple(array.shape)
        if not all(shape):
            raise ConfigError(f"{name}: the array is empty {shape}")
        tiles = () if tile is None else a.lengths(f"{name}: tile", tile)
        buffer = Buffer(name, role, dtype, shape, tiles, self._cut(name, role, dtype, shape, cut))  # type: ignore[arg-type]
        named = self._add(buffer)
        self.inputs[self.named[named]] = a.taken(array) if isinstance(array, np.ndarray) else array
        return named

    def _zeros(self, name: str, role: str, dtype: Any, shape: Any, tile: Any, cut: Cutting) -> Named:
        shape = a.lengths(f"{name}: shape", shape)
        tiles = () if tile is None else a.lengths(f"{name}: tile", tile)
        dtype = self.dtype(name, dtype)
        return self._add(Buffer(name, role, dtype, shape, tiles, self._cut(name, role, dtype, shape, cut)))  # type: ignore[arg-type]

    def dtype(self, name: str, dtype: Any) -> str:
        """Return the name of an array's dtype. Raises ``ConfigError`` if there is none, or arrays cannot have it."""
        try:
            found = np.dtype(dtype)
        except TypeError:
            raise ConfigError(f"{name}: {dtype!r} is no dtype") from None
        if found.name not in DTYPE_BYTES:
            raise ConfigError(f"{name}: arrays of {found} are not possible; possible are: {', '.join(DTYPE_BYTES)}")
        return str(found.name)

    def _add(self, buffer: Buffer) -> Named:
        names = {other.name for other in self.buffers}
        if not isinstance(buffer.name, str) or not buffer.name or buffer.name in names | {"shard"}:
            raise ConfigError(f"an array is called {buffer.name!r}: names are texts, each once, and not 'shard'")
        if len(buffer.shape) > DIMENSIONS_MAX or max(buffer.shape, default=1) > LENGTH_MAX:
            raise ConfigError(
                f"{buffer.name} of shape {buffer.shape}: an array has at most {DIMENSIONS_MAX} axes, each of at most "
                f"{LENGTH_MAX:,} elements"
            )
        named = Named(buffer.name, buffer.dtype, buffer.shape)
        self.named[named] = len(self.buffers)
        self.buffers.append(buffer)
        return named

    def _cut(self, name: str, role: str, dtype: str, shape: tuple[int, ...], cut: Cutting) -> Cut | None:
        if self._along is None:
            if isinstance(cut, Along):
                raise ConfigError(f"{name} is cut along an axis, the program is not: give along= there")
            return None
        if cut == "default":
            cut = Along(self._along.axis) if role == "out" else self._along
        if cut is None:
            return None
        assert isinstance(cut, Along)
        if cut.edge not in EDGES:
            raise ConfigError(f"{name}: edge {cut.edge!r} is not known; known are: {', '.join(EDGES)}")
        if not 0 <= cut.axis < len(shape):
            raise ConfigError(
                f"{name} of shape {shape} has no axis {cut.axis} for a cut: cut=None (whole = true) gives it whole"
            )
        length = shape[cut.axis]
        if not self._length:
            if length < self.shards:
                raise ConfigError(f"{name} has {length} rows, which are fewer than {self.shards} shards")
            self._length = length
        if length != self._length:
            raise ConfigError(
                f"{name} has {length} rows along axis {cut.axis}, the arrays before it {self._length}: "
                "all that are cut have equally many; cut=None (whole = true) gives one whole"
            )
        if not 0 <= cut.halo <= HALO_MAX:
            raise ConfigError(f"{name}: halo = {cut.halo}: expected 0 to {HALO_MAX}")
        table = self._table(tuple(task * length // self.shards for task in range(self.shards + 1)))
        fill = b""
        if cut.edge == "constant":
            fill = a.scalar(Parameter("fill", False, dtype, 1, False), cut.fill).data  # type: ignore[arg-type]
        return Cut(cut.axis, table, cut.halo, cut.edge, fill)  # type: ignore[arg-type]

    def _table(self, table: tuple[int, ...]) -> int:
        if table not in self._tables:
            self._tables.append(table)
        return self._tables.index(table)

    def index(self, array: Any, what: str) -> int:
        """Return the number of an array of this program. Raises ``ConfigError``."""
        if array not in self.named:
            shown = array.name if isinstance(array, Named) else repr(array)
            raise ConfigError(f"{what}: {shown} is no array of this program")
        return self.named[array]

    def halo(self, array: Named) -> int:
        """Return how many rows of its neighbours a task holds of an array."""
        cut = self.buffers[self.named[array]].cut
        return cut.halo if cut is not None else 0

    def depends(self, text: str) -> bool:
        """Tell whether an expression may differ from task to task."""
        names = {"shard"}
        for name, value in self._defined.items():
            if any(known in str(value) for known in names):
                names.add(name)
        return self._along is not None and any(name in text for name in names)

    def names(self, task: int) -> dict[str, Value]:
        """Return what expressions may name, for a task."""
        names: dict[str, Value] = {buffer.name: buffer.shape for buffer in self.buffers}
        if self._along is not None:
            count, length = self.shards, self._length
            start, stop = task * length // count, (task + 1) * length // count
            names["shard"] = {"start": start, "stop": stop, "rows": stop - start, "index": task, "count": count}
        for name, value in self._defined.items():
            names[name] = value if isinstance(value, int) else evaluate(str(value), names)
        return names
