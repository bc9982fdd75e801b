"""A job file of several steps.

::

    name = "heat"
    [kernels.diffuse]         file, name = the table's, options = []; kernels of one file are compiled together
    [arrays]                  { in = "a.npy" } | { inout = "a.npy" } | { out = "float32", shape = […] }
                              { temp = "float32", shape = […] } | { partial = "float32", shape = […] }
    [numbers]                 rows = "u.shape[0]": integers or expressions, for the expressions below them
    [[steps]]                 launch = "diffuse", grid, block, args = ["u", "v", "rows", 0.1], shared_mem = 0, radius,
                              constants = { name = "a.npy" }
    [[steps]]                 operation = "matmul", inputs = ["a", "b"], outputs = ["c"], attributes = { … }
    [[steps]]                 swap = ["u", "v"]
    [[steps]]                 repeat = 100, steps = [ … ]
    [[steps]]                 until = "done", max = 100, steps = [ … ]
    [combine]                 how = "sum"; or launch, grid, block, args as of a step, with "sums" and "sums.other"

In ``args`` a text is an array if there is one of that name, else an expression; a complex number is a list of two.
Steps in a loop may be written as ``[[steps.steps]]`` below it.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.expressions import Value, evaluate
from depin_node.compute.programs.job_arrays import CUT_KEYS, References, load_array, load_cut
from depin_node.compute.programs.kernel import Along, RawKernel, RawModule
from depin_node.compute.programs.program import DTYPE_BYTES, SOURCE_BYTES_MAX
from depin_node.compute.programs.program_arrays import Named, Other
from depin_node.compute.programs.toml_table import Table, did_you_mean, read_text
from depin_node.core.errors import ConfigError

_ARRAYS = {
    "in": ("in", *CUT_KEYS),
    "inout": ("inout", "tile", *CUT_KEYS),
    "out": ("out", "shape", "tile", *CUT_KEYS),
    "temp": ("temp", "shape", *CUT_KEYS),
    "partial": ("partial", "shape"),
}
_STEPS = {
    "launch": ("launch", "grid", "block", "args", "shared_mem", "radius", "constants"),
    "operation": ("operation", "inputs", "outputs", "attributes"),
    "swap": ("swap",),
    "repeat": ("repeat", "steps"),
    "until": ("until", "max", "steps"),
}
LOOP_MAX = 1 << 24


def load_steps(job: Table, shards: int, along: Along | None, references: References | None) -> ProgramBuilder:
    """Read the program of a job file of several steps.

    Raises:
        ConfigError: naming the file, the key, and what is right there.
    """
    return _Reader(job, shards, along, references).builder


class _Reader:
    def __init__(self, job: Table, shards: int, along: Along | None, references: References | None) -> None:
        self.builder = ProgramBuilder(shards=shards, along=along)
        self._along, self._references = along, references
        self._arrays: dict[str, Named] = {}
        self._kernels = _kernels(job.table("kernels", optional=True))
        numbers = job.table("numbers", optional=True)
        for name, value in numbers.values.items():
            if not isinstance(value, int | str) or isinstance(value, bool):
                raise numbers.error(name, f"expected an integer or an expression, not {value!r}")
            self.builder.define(name, value)
        self._read_arrays(job.table("arrays"), numbers.values)
        self._read_steps(job, "steps")
        if "combine" in job.values:
            self._read_combine(job.table("combine"))

    def _read_arrays(self, arrays: Table, numbers: Mapping[str, int | str]) -> None:
        tables = {name: arrays.table(name) for name in arrays.values}
        kinds = {name: _kind(table, _ARRAYS, "arrays have") for name, table in tables.items()}
        shapes: dict[str, Value] = {}
        loaded = {}
        for name, table in tables.items():
            table.allow(*_ARRAYS[kinds[name]])
            if kinds[name] in ("in", "inout"):
                loaded[name] = array = load_array(arrays, name, table.require(kinds[name]), self._references)
                shapes[name] = array.shape
        for name, value in numbers.items():
            with suppress(ConfigError):  # it names what is not known yet, or a task's slice: shapes cannot use it
                shapes[name] = evaluate(str(value), shapes)
        for name, table in tables.items():
            try:
                self._arrays[name] = self._array(name, kinds[name], table, loaded.get(name), shapes)
            except ConfigError as error:
                if str(table.path) in str(error):
                    raise
                raise arrays.error(name, str(error)) from error
            shapes[name] = self._arrays[name].shape

    def _array(self, name: str, kind: str, table: Table, loaded: Any, shapes: Mapping[str, Value]) -> Named:
        builder = self.builder
        cut = load_cut(table, self._along)
        tile = table.expressions("tile", table.get("tile"), shapes) if "tile" in table.values else None
        if kind == "in":
            return builder.input(name, loaded, cut=cut)
        if kind == "inout":
            return builder.inout(name, loaded, tile=tile, cut=cut)
        dtype = table.text(kind)
        if dtype not in DTYPE_BYTES:
            raise table.error(kind, f"dtype {dtype!r} is not known; known are: {', '.join(DTYPE_BYTES)}")
        shape = table.expressions("shape", table.require("shape"), shapes)
        if kind == "partial":
            return builder.partial(name, dtype, shape)
        if kind == "temp":
            return builder.temp(name, dtype, shape, cut=cut)
        return builder.out(name, dtype, shape, tile=tile, cut=cut)

    def _read_steps(self, table: Table, key: str) -> None:
        steps = table.require(key)
        if not isinstance(steps, list) or not steps:
            raise table.error(key, "expected steps: [[steps]], or a list of tables")
        for number, values in enumerate(steps, 1):
            where = f"{table.name}.{key}" if table.name else key
            step = Table(table.path, f"{where} {number}", values)
            kind = _kind(step, _STEPS, "steps are")
            step.allow(*_STEPS[kind])
            try:
                self._read_step(kind, step)
            except ConfigError as error:
                if str(table.path) in str(error):
                    raise
                raise step.error(kind, str(error)) from error

    def _read_step(self, kind: str, step: Table) -> None:
        builder = self.builder
        if kind == "launch":
            builder.launch(
                *self._launch(step),
                shared_mem=step.integer("shared_mem", 0, 1 << 20, 0),
                radius=step.integer("radius", 0, 1 << 20) if "radius" in step.values else None,
                constants=self._constants(step),
            )
        elif kind == "operation":
            attributes = step.table("attributes", optional=True).values
            named = {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
            inputs, outputs = (self._listed(step, key) for key in ("inputs", "outputs"))
            builder.operation(step.text("operation"), inputs, outputs, **named)
        elif kind == "swap":
            pair = self._listed(step, "swap")
            if len(pair) != 2:
                raise step.error("swap", "expected the names of two arrays")
            builder.swap(*pair)
        elif kind == "repeat":
            with builder.repeat(step.integer("repeat", 1, LOOP_MAX)):
                self._read_steps(step, "steps")
        else:
            with builder.until(self._named(step, "until", step.text("until")), max=step.integer("max", 1, LOOP_MAX)):
                self._read_steps(step, "steps")

    def _launch(self, step: Table) -> tuple[RawKernel, Any, Any, list[Any]]:
        name = step.text("launch")
        if name not in self._kernels:
            raise step.error("launch", f"there is no kernel {name!r}{did_you_mean(name, self._kernels)}")
        args = step.get("args", [])
        if not isinstance(args, list):
            raise step.error("args", "expected a list")
        return self._kernels[name], step.require("grid"), step.require("block"), [self._argument(a) for a in args]

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.endswith(".other") and value.removesuffix(".other") in self._arrays:
            return Other(self._arrays[value.removesuffix(".other")])
        return self._arrays.get(value, value)

    def _constants(self, step: Table) -> dict[str, Any]:
        table = step.table("constants", optional=True)
        return {name: load_array(table, name, value, None) for name, value in table.values.items()}

    def _listed(self, step: Table, key: str) -> list[Named]:
        names = step.require(key)
        if not isinstance(names, list):
            raise step.error(key, "expected a list of names of arrays")
        return [self._named(step, key, name) for name in names]

    def _named(self, step: Table, key: str, name: Any) -> Named:
        if not isinstance(name, str) or name not in self._arrays:
            hint = did_you_mean(name, self._arrays) if isinstance(name, str) else ""
            raise step.error(key, f"there is no array {name!r}{hint}")
        return self._arrays[name]

    def _read_combine(self, table: Table) -> None:
        if "how" in table.values:
            table.allow("how")
            try:
                self.builder.combine(table.text("how"))
            except ConfigError as error:
                raise table.error("how", str(error)) from error
            return
        table.allow("launch", "grid", "block", "args", "shared_mem")
        self.builder.combine(*self._launch(table), shared_mem=table.integer("shared_mem", 0, 1 << 20, 0))


def _kind(table: Table, kinds: Mapping[str, tuple[str, ...]], what: str) -> str:
    found = [kind for kind in kinds if kind in table.values]
    if len(found) != 1:
        unknown = next((key for key in table.values if key not in kinds), "")
        hint = did_you_mean(unknown, kinds) if not found else ""
        raise table.error(unknown or "?", f"{what} one of {', '.join(kinds)}{hint}")
    return found[0]


def _kernels(table: Table) -> dict[str, RawKernel]:
    """Return the kernels, those of one file and the same options as functions of one module."""
    entries: dict[tuple[Path, tuple[str, ...]], dict[str, str]] = {}
    for key in table.values:
        kernel = table.table(key)
        kernel.allow("file", "name", "options")
        options = kernel.get("options", [])
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise kernel.error("options", "expected a list of text")
        name = kernel.text("name") if "name" in kernel.values else key
        entries.setdefault((table.path.parent / kernel.text("file"), tuple(options)), {})[key] = name
    kernels: dict[str, RawKernel] = {}
    for (file, options), names in entries.items():
        code = read_text(file, table.path, SOURCE_BYTES_MAX)
        instances = [name for name in names.values() if not name.isidentifier()]
        module = RawModule(code=code, options=options, name_expressions=instances, filename=str(file))
        kernels |= {key: module.get_function(name) for key, name in names.items()}
    return kernels
