"""A job in a file: TOML, checked key by key, so that a mistake is answered with its place and the way out.

One launch::

    name = "hillshade"
    device_class = "wasm-1"       # whose answers are compared: what ``depin-node peers`` shows; this is the default.
                                  # Several, ["wasm-1", "cuda:…"]: answers of different classes are compared as numbers
    results = "come"              # or "stay": large ones stay with those who compute them until they are asked for
    [kernel]    file, name, options = []
    [launch]    grid, block: one to three integers or expressions; shared_mem = 0
    [args]      one entry for each parameter, in the kernel's order:
                { in = "a.npy" } | { inout = "a.npz:key", tile = […] } | { in = "job:ID:output" }
                { out = "float32", shape = […], tile = […] }
                { int32 = 1 } (any dtype; an integer may be an expression, a complex number is [1.0, 2.0])
    [constants] name = "a.npy" for each __constant__ without a value
    [shards]    by = "blocks", count = 1
                by = "axis", count, axis = 0, halo = 0, edge = "none", fill = 0: how arrays are cut. An array of
                [args] may differ: whole = true, or axis, halo, edge, fill; an out array has no halo by default
    [verify]    policy = "quorum", k = 2, n = 3 | "lead", d = 3 | "confidence", p = 0.999, f = 0.2 | "algebraic"
                parts = 16: confidence counts, and audits, so many parts of each result by themselves
                audits = 0.002: the share of what was agreed on (quorum, lead) that this node runs once more
                relative = 6e-5, absolute = 4e-6: how far numbers may be apart that are as good, where the bits of the
                program are not defined, or device classes differ; by default what its dtypes can hold
    [limits]    seconds = 60, memory_mib = 512      # of one task; of all: deadline_s = 3600, budget_s = 100

Several steps have ``[kernels]``, ``[arrays]`` and ``[[steps]]`` instead; see ``job_steps.py``.

Expressions (``expressions.py``) may use the shapes of input arrays and the integer scalars above them; grid, shapes and
tiles all integer scalars; grid and scalars of what is cut along an axis also ``shard``. Files are found relative to the
job file, and never loaded as pickles.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depin_node.compute.jobs.job import (
    AGREED_AUDITS,
    DEVICE_CLASSES_MAX,
    PARTS_MAX,
    REPLICAS_MAX,
    WHOLE_SECONDS_MAX,
    Algebraic,
    Confidence,
    Lead,
    Policy,
    Quorum,
    Tolerance,
)
from depin_node.compute.programs.builder import Bound, ProgramBuilder
from depin_node.compute.programs.expressions import Value
from depin_node.compute.programs.job_arrays import CUT_KEYS, References, load_along, load_array, load_cut
from depin_node.compute.programs.job_steps import load_steps
from depin_node.compute.programs.kernel import Along, In, InOut, Out, RawKernel
from depin_node.compute.programs.program import DTYPE_BYTES, SLICES_MAX, SOURCE_BYTES_MAX, TASKS_MAX
from depin_node.compute.programs.toml_table import Table, did_you_mean, read_text, read_toml
from depin_node.core.errors import ConfigError

NAME_CHARACTERS_MAX = 64
SECONDS_MAX = 86_400
MEMORY_MIB_MAX = 4096
DEVICE_CLASS = "wasm-1"
DEFAULTS = {"seconds": 60, "memory_mib": 512}

_ARGUMENT_KEYS = {
    "in": {"in", *CUT_KEYS},
    "inout": {"inout", "tile", *CUT_KEYS},
    "out": {"out", "shape", "tile", *CUT_KEYS},
}
_SINGLE = ("kernel", "launch", "args", "constants")
_SEVERAL = ("kernels", "arrays", "numbers", "steps", "combine")
_COMMON = ("name", "device_class", "results", "shards", "verify", "limits")


@dataclass(frozen=True)
class JobFile:
    """A job file, its arrays open and its expressions worked out where they can be; no kernel is compiled yet.

    ``builder`` is the program of a file of several steps; one launch is what the other attributes say.
    """

    name: str
    shards: int
    along: Along | None
    policy: Policy
    seconds: int
    memory_mib: int
    path: Path
    builder: ProgramBuilder | None = None
    kernel: RawKernel | None = None
    grid: tuple[int | str, ...] = ()
    block: tuple[int, ...] = ()
    shared_mem: int = 0
    device_classes: tuple[str, ...] = (DEVICE_CLASS,)
    tolerance: Tolerance | None = None
    results: str = "come"
    deadline_s: int = 0
    budget_s: int = 0
    args: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, int | str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)

    def bind(self) -> Bound:
        """Compile the kernels and make the program.

        Raises:
            ConfigError: naming this file, or the kernel's with the line.
        """
        return self.compiled()[0]

    def compiled(self) -> tuple[Bound, tuple[str, ...]]:
        """Return the program as ``bind`` does, and the compiler's notes."""
        builder = self.builder or self._one_launch()
        try:
            return builder.build(), builder.notes
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error

    def _one_launch(self) -> ProgramBuilder:
        assert self.kernel is not None
        parameters = self.kernel.compile().parameters
        names = [parameter.name for parameter in parameters if not getattr(parameter, "constant_bytes", 0)]
        if list(self.args) != names:
            unknown = [name for name in self.args if name not in names]
            missing = [name for name in names if name not in self.args]
            if unknown:
                what = f"{unknown[0]} is none of them{did_you_mean(unknown[0], names)}"
            else:
                what = f"{', '.join(missing)} is missing" if missing else "the order has to be theirs"
            raise ConfigError(
                f"{self.path}: [args] has {', '.join(self.args) or 'nothing'}, the kernel's parameters are "
                f"{', '.join(names)}: {what}"
            )
        builder = ProgramBuilder(shards=self.shards, along=self.along)
        for name, value in self.numbers.items():
            builder.define(name, value)
        builder.launch(
            self.kernel,
            self.grid,
            self.block,
            list(self.args.values()),
            shared_mem=self.shared_mem,
            constants=self.constants,
        )
        return builder


def load_job(path: Path, references: References | None = None) -> JobFile:
    """Read a job file and what it names.

    Args:
        path: of the file.
        references: gives what ``job:ID:output`` stands for; None: there is no node to ask.

    Raises:
        ConfigError: naming the file, the key, and what is right there.
    """
    job = Table(path, "", read_toml(path))
    several = "steps" in job.values or "arrays" in job.values
    job.allow(*_COMMON, *(_SEVERAL if several else _SINGLE))
    name = job.text("name")
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        raise job.error("name", f"expected 1 to {NAME_CHARACTERS_MAX} printable characters")
    shards, verify, limits = (job.table(key, optional=True) for key in ("shards", "verify", "limits"))
    count, along = _cut(shards)
    if several:
        what: dict[str, Any] = {"builder": load_steps(job, count, along, references)}
    else:
        what = _one_launch(job, along, references)
    policy = _policy(verify)
    limits.allow("seconds", "memory_mib", "deadline_s", "budget_s")
    for whole in ("deadline_s", "budget_s"):
        what[whole] = limits.integer(whole, 1, WHOLE_SECONDS_MAX, 0) if whole in limits.values else 0
    seconds = limits.integer("seconds", 1, SECONDS_MAX, DEFAULTS["seconds"])
    memory_mib = limits.integer("memory_mib", 1, MEMORY_MIB_MAX, DEFAULTS["memory_mib"])
    what["device_classes"] = _device_classes(job)
    what["tolerance"] = _tolerance(verify)
    what["results"] = job.text("results") if "results" in job.values else "come"
    if what["results"] not in ("come", "stay"):
        raise job.error("results", '"come" (to the node) or "stay" (with those who compute them)')
    return JobFile(name, count, along, policy, seconds, memory_mib, path, **what)


def _device_classes(job: Table) -> tuple[str, ...]:
    given = job.values.get("device_class", DEVICE_CLASS)
    names = given if isinstance(given, list) else [given]
    if not 1 <= len(names) <= DEVICE_CLASSES_MAX or not all(isinstance(name, str) and name for name in names):
        raise job.error("device_class", f"expected the name of a device class, or up to {DEVICE_CLASSES_MAX} of them")
    return tuple(dict.fromkeys(names))


def _tolerance(verify: Table) -> Tolerance | None:
    if not verify.values.keys() & {"relative", "absolute"}:
        return None
    return Tolerance(verify.number("relative", 0, 1, 0), verify.number("absolute", 0, 1, 0))


def _policy(verify: Table) -> Policy:
    name = verify.get("policy", "quorum")
    numeric = "policy", "relative", "absolute"
    if name == "quorum":
        verify.allow(*numeric, "k", "n", "audits")
        k, n = verify.integer("k", 1, REPLICAS_MAX, 2), verify.integer("n", 1, REPLICAS_MAX, 3)
        if not k <= n < 2 * k:
            raise verify.error("k", f"k = {k}, n = {n}: k must be at most n, and more than half of it")
        return Quorum(k, n, verify.number("audits", 0, 1, AGREED_AUDITS if k > 1 else 0.0))
    if name == "lead":
        verify.allow(*numeric, "d", "audits")
        return Lead(verify.integer("d", 1, REPLICAS_MAX, 3), verify.number("audits", 0, 1, AGREED_AUDITS))
    if name == "confidence":
        verify.allow(*numeric, "p", "f", "parts")
        p, f = verify.number("p", 0.5, 0.999999, 0.999), verify.number("f", 0.001, 0.45, 0.2)
        return Confidence(p, f, verify.integer("parts", 1, PARTS_MAX, 1))
    if name == "algebraic":
        verify.allow(*numeric)
        return Algebraic()
    raise verify.error("policy", f'{name!r} is not known; known are: "quorum", "lead", "confidence", "algebraic"')


def _cut(shards: Table) -> tuple[int, Along | None]:
    by = shards.get("by", "blocks")
    if by == "axis":
        shards.allow("by", "count", "axis", "halo", "edge", "fill")
        return shards.integer("count", 1, SLICES_MAX), load_along(shards, None)
    shards.allow("by", "count")
    if by != "blocks":
        raise shards.error("by", f'{by!r} is not known; known are: "blocks", "axis"')
    return shards.integer("count", 1, TASKS_MAX, 1), None


def _one_launch(job: Table, along: Along | None, references: References | None) -> dict[str, Any]:
    kernel = _kernel(job.table("kernel"))
    args, names, numbers = _arguments(job.table("args"), along, references)
    constants = job.table("constants", optional=True)
    arrays = {name: load_array(constants, name, value, None) for name, value in constants.values.items()}
    launch = job.table("launch")
    launch.allow("grid", "block", "shared_mem")
    numbers_of_slices = {name for name, value in numbers.items() if isinstance(value, str)}
    return {
        "kernel": kernel,
        "grid": _dimensions(launch, "grid", names, numbers_of_slices if along else None),
        "block": _dimensions(launch, "block", names, None),
        "shared_mem": launch.expression("shared_mem", launch.get("shared_mem", 0), names),
        "args": args,
        "numbers": numbers,
        "constants": arrays,
    }


def _kernel(table: Table) -> RawKernel:
    table.allow("file", "name", "options")
    options = table.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise table.error("options", "expected a list of text")
    file = table.path.parent / table.text("file")
    source = read_text(file, table.path, SOURCE_BYTES_MAX)
    return RawKernel(source, table.text("name"), options, filename=str(file))


def _dimensions(table: Table, key: str, names: Mapping[str, Value], sliced: set[str] | None) -> tuple[Any, ...]:
    """Return a grid or block; what depends on a task's slice stays an expression, where that is allowed."""
    values = table.require(key)
    items = values if isinstance(values, list) else [values]
    numbers: tuple[Any, ...] = tuple(
        item if sliced is not None and _is_sliced(item, sliced) else table.expressions(key, [item], names)[0]
        for item in items
    )
    if not 1 <= len(numbers) <= 3:
        raise table.error(key, "expected one to three lengths: x, y, z")
    return numbers


def _is_sliced(value: Any, sliced: set[str]) -> bool:
    """Whether an expression may differ from task to task: it names ``shard``, or a number that does."""
    return isinstance(value, str) and not {"shard", *sliced}.isdisjoint(re.findall(r"\w+", value))


def _arguments(
    table: Table, along: Along | None, references: References | None
) -> tuple[dict[str, Any], dict[str, Value], dict[str, int | str]]:
    """Return the arguments, in order, what expressions may name, and the integers among the arguments."""
    entries = {name: _entry(table, name, value) for name, value in table.values.items()}
    args: dict[str, Any] = dict.fromkeys(entries)
    names: dict[str, Value] = {}
    numbers: dict[str, int | str] = {}
    for name, (kind, entry) in entries.items():
        if kind in ("in", "inout"):
            array = load_array(table, name, entry[kind], references)
            args[name], names[name] = array, array.shape
    for name, (kind, entry) in entries.items():
        if kind in DTYPE_BYTES:
            if along is not None and _is_sliced(entry[kind], {n for n, v in numbers.items() if isinstance(v, str)}):
                args[name] = numbers[name] = entry[kind]
                continue
            args[name] = value = _scalar(table, name, kind, entry[kind], names)
            if isinstance(value, int):
                names[name] = numbers[name] = value
    for name, (kind, entry) in entries.items():
        if kind in DTYPE_BYTES:
            continue
        tile = table.expressions(name, entry["tile"], names) if "tile" in entry else None
        cut = load_cut(Table(table.path, f"args.{name}", entry), along)
        if kind == "out":
            if "shape" not in entry:
                raise table.error(name, "an output needs its shape")
            args[name] = Out(entry["out"], table.expressions(name, entry["shape"], names), tile, cut)
        else:
            args[name] = InOut(args[name], tile, cut) if kind == "inout" else In(args[name], cut)
    return args, names, numbers


def _entry(table: Table, name: str, value: Any) -> tuple[str, dict[str, Any]]:
    kinds = (*_ARGUMENT_KEYS, *DTYPE_BYTES)
    shown = '{ in = "file.npy" }, { out = "float32", shape = […] }, { inout = "file.npy" } or { int32 = 1 }'
    if not isinstance(value, dict):
        raise table.error(name, f"expected {shown}")
    found = [key for key in value if key in kinds]
    if len(found) != 1:
        unknown = next((key for key in value if key not in {*kinds, "shape", "tile", *CUT_KEYS}), None)
        raise table.error(name, f"expected {shown}{did_you_mean(unknown, kinds) if unknown else ''}")
    kind = found[0]
    allowed = _ARGUMENT_KEYS.get(kind, {kind})
    for key in value:
        if key not in allowed:
            raise table.error(name, f"{key!r} does not go with {kind!r}{did_you_mean(key, allowed)}")
    if kind == "out" and value["out"] not in tuple(DTYPE_BYTES):  # also what cannot be a key
        raise table.error(name, f"dtype {value['out']!r} is not known; known are: {', '.join(DTYPE_BYTES)}")
    return kind, value


def _scalar(table: Table, name: str, dtype: str, value: Any, names: Mapping[str, Value]) -> Any:
    if isinstance(value, list):
        return [_scalar(table, name, dtype, item, names) for item in value]
    if isinstance(value, str):
        return table.expression(name, value, names)
    if isinstance(value, bool) != (dtype == "bool") or not isinstance(value, bool | int | float):
        raise table.error(name, f"expected a {dtype}, not {value!r}")
    return value
