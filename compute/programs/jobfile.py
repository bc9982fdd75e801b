"""A job in a file: TOML, checked key by key, so that a mistake is answered with its place and the way out.

::

    name = "hillshade"
    [kernel]   file, name, options = []
    [launch]   grid, block: one to three integers or expressions; shared_mem = 0
    [args]     one entry for each parameter, in the kernel's order:
               { in = "a.npy" } | { inout = "a.npz:key", tile = […] }
               { out = "float32", shape = […], tile = […] } | { int32 = 1 } (any dtype; an integer may be an expression)
    [shards]   by = "blocks", count = 1
    [verify]   policy = "quorum", k = 2, n = 3
    [limits]   seconds = 60, memory_mib = 512

Expressions (``expressions.py``) may use the shapes of input arrays and the integer scalars above them; grid, shapes and
tiles all integer scalars. Files are found relative to the job file, and never loaded as pickles.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np

from depin_node.compute.programs.arguments import Array
from depin_node.compute.programs.binding import Bound, bind
from depin_node.compute.programs.expressions import Value, evaluate
from depin_node.compute.programs.kernel import In, InOut, Out, RawKernel
from depin_node.compute.programs.program import DTYPE_BYTES, SOURCE_BYTES_MAX, TASKS_MAX
from depin_node.core.errors import ConfigError

FILE_BYTES_MAX = 1 << 20
REPLICAS_MAX = 15
NAME_CHARACTERS_MAX = 64
SECONDS_MAX = 86_400
MEMORY_MIB_MAX = 4096
DEFAULTS = {"count": 1, "k": 2, "n": 3, "seconds": 60, "memory_mib": 512}

_ARGUMENT_KEYS = {"in": {"in"}, "inout": {"inout", "tile"}, "out": {"out", "shape", "tile"}}


@dataclass(frozen=True)
class JobFile:
    """A job file, its arrays open and its expressions worked out; the kernel is not compiled yet."""

    name: str
    kernel: RawKernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_mem: int
    args: Mapping[str, Any]
    shards: int
    k: int
    n: int
    seconds: int
    memory_mib: int
    path: Path

    def bind(self, *, local: bool = False) -> Bound:
        """Compile the kernel and make the program.

        Raises:
            ConfigError: naming this file, or the kernel's with the line.
        """
        names = [parameter.name for parameter in self.kernel.compile().parameters]
        if list(self.args) != names:
            unknown = [name for name in self.args if name not in names]
            raise ConfigError(
                f"{self.path}: [args] has {', '.join(self.args) or 'nothing'}, the kernel's parameters are "
                f"{', '.join(names)}{_did_you_mean(unknown[0], names) if unknown else ''}"
            )
        try:
            return bind(
                self.kernel,
                self.grid,
                self.block,
                list(self.args.values()),
                shared_mem=self.shared_mem,
                shards=self.shards,
                local=local,
            )
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error


def load_job(path: Path) -> JobFile:
    """Read a job file and what it names.

    Raises:
        ConfigError: naming the file, the key, and what is right there.
    """
    job = _Table(path, "", _read_toml(path))
    job.allow("name", "kernel", "launch", "args", "shards", "verify", "limits")
    name = job.text("name")
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        raise job.error("name", f"expected 1 to {NAME_CHARACTERS_MAX} printable characters")
    kernel = _kernel(job.table("kernel"))
    args, names = _arguments(job.table("args"))
    launch = job.table("launch")
    launch.allow("grid", "block", "shared_mem")
    grid, block = (_dimensions(launch, key, names) for key in ("grid", "block"))
    shared_mem = launch.expression("shared_mem", launch.get("shared_mem", 0), names)
    shards, verify, limits = (job.table(key, optional=True) for key in ("shards", "verify", "limits"))
    shards.allow("by", "count")
    if shards.get("by", "blocks") != "blocks":
        raise shards.error("by", 'this release cuts by "blocks" only')
    verify.allow("policy", "k", "n")
    if verify.get("policy", "quorum") != "quorum":
        raise verify.error("policy", 'this release has "quorum" only, with k and n')
    limits.allow("seconds", "memory_mib")
    k, n = (verify.integer(key, 1, REPLICAS_MAX) for key in ("k", "n"))
    if not k <= n < 2 * k:
        raise verify.error("k", f"k = {k}, n = {n}: k must be at most n, and more than half of it")
    return JobFile(
        name=name,
        kernel=kernel,
        grid=grid,
        block=block,
        shared_mem=shared_mem,
        args=args,
        shards=shards.integer("count", 1, TASKS_MAX),
        k=k,
        n=n,
        seconds=limits.integer("seconds", 1, SECONDS_MAX),
        memory_mib=limits.integer("memory_mib", 1, MEMORY_MIB_MAX),
        path=path,
    )


class _Table:
    """A table of the file, whose errors name file, table and key."""

    def __init__(self, path: Path, name: str, values: Any) -> None:
        self.path, self.name, self.values = path, name, values
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {name}: expected a table")

    def error(self, key: str, reason: str) -> ConfigError:
        where = f"[{self.name}] {key}" if self.name else key
        return ConfigError(f"{self.path}: {where}: {reason}")

    def allow(self, *keys: str) -> None:
        for key in self.values:
            if key not in keys:
                raise self.error(key, f"unknown key{_did_you_mean(key, keys)}; known are: {', '.join(keys)}")

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def require(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(key, "is missing")
        return self.values[key]

    def text(self, key: str) -> str:
        value = self.require(key)
        if not isinstance(value, str):
            raise self.error(key, f"expected text, not {value!r}")
        return value

    def integer(self, key: str, least: int, most: int) -> int:
        value = self.get(key, DEFAULTS[key])
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(key, f"expected an integer from {least} to {most}, not {value!r}")
        return value

    def table(self, key: str, *, optional: bool = False) -> "_Table":
        return _Table(self.path, key, self.get(key, {}) if optional else self.require(key))

    def expression(self, key: str, value: Any, names: Mapping[str, Value]) -> int:
        if isinstance(value, str):
            try:
                return evaluate(value, names)
            except ConfigError as error:
                raise self.error(key, str(error)) from error
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self.error(key, f"expected an integer or an expression, not {value!r}")

    def expressions(self, key: str, values: Any, names: Mapping[str, Value]) -> tuple[int, ...]:
        items = values if isinstance(values, list) else [values]
        numbers = tuple(self.expression(key, value, names) for value in items)
        for item, number in zip(items, numbers, strict=True):
            if number < 1:
                raise self.error(key, f"{item!r} is {number}; expected at least 1")
        return numbers


def _did_you_mean(key: str, keys: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, keys, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _read_toml(path: Path) -> dict[str, Any]:
    text = _read_text(path, path, FILE_BYTES_MAX)
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _read_text(path: Path, job: Path, size_bytes_max: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
    except OSError as error:
        where = "" if path == job else f"{job}: "
        raise ConfigError(f"{where}cannot read {path}: {error.strerror}") from error
    if len(data) > size_bytes_max:
        raise ConfigError(f"{path}: more than {size_bytes_max >> 10} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error


def _kernel(table: _Table) -> RawKernel:
    table.allow("file", "name", "options")
    options = table.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise table.error("options", "expected a list of text")
    file = table.path.parent / table.text("file")
    source = _read_text(file, table.path, SOURCE_BYTES_MAX)
    return RawKernel(source, table.text("name"), options, filename=str(file))


def _dimensions(table: _Table, key: str, names: Mapping[str, Value]) -> tuple[int, ...]:
    numbers = table.expressions(key, table.require(key), names)
    if not 1 <= len(numbers) <= 3:
        raise table.error(key, "expected one to three lengths: x, y, z")
    return numbers


def _arguments(table: _Table) -> tuple[dict[str, Any], dict[str, Value]]:
    """Return the arguments, in order, and what expressions may name."""
    entries = {name: _entry(table, name, value) for name, value in table.values.items()}
    args: dict[str, Any] = dict.fromkeys(entries)
    names: dict[str, Value] = {}
    for name, (kind, entry) in entries.items():
        if kind in ("in", "inout"):
            array = _load_array(table, name, entry[kind])
            args[name], names[name] = array, array.shape
    for name, (kind, entry) in entries.items():
        if kind in DTYPE_BYTES:
            args[name] = value = _scalar(table, name, kind, entry[kind], names)
            if isinstance(value, int):
                names[name] = value
    for name, (kind, entry) in entries.items():
        tile = table.expressions(name, entry["tile"], names) if "tile" in entry else None
        if kind == "out":
            if "shape" not in entry:
                raise table.error(name, "an output needs its shape")
            args[name] = Out(entry["out"], table.expressions(name, entry["shape"], names), tile)
        elif kind in ("in", "inout"):
            args[name] = InOut(args[name], tile) if kind == "inout" else In(args[name])
    return args, names


def _entry(table: _Table, name: str, value: Any) -> tuple[str, dict[str, Any]]:
    kinds = (*_ARGUMENT_KEYS, *DTYPE_BYTES)
    shown = '{ in = "file.npy" }, { out = "float32", shape = […] }, { inout = "file.npy" } or { int32 = 1 }'
    if not isinstance(value, dict):
        raise table.error(name, f"expected {shown}")
    found = [key for key in value if key in kinds]
    if len(found) != 1:
        unknown = next((key for key in value if key not in {*kinds, "shape", "tile"}), None)
        raise table.error(name, f"expected {shown}{_did_you_mean(unknown, kinds) if unknown else ''}")
    kind = found[0]
    allowed = _ARGUMENT_KEYS.get(kind, {kind})
    for key in value:
        if key not in allowed:
            raise table.error(name, f"{key!r} does not go with {kind!r}{_did_you_mean(key, allowed)}")
    if kind == "out" and value["out"] not in DTYPE_BYTES:
        raise table.error(name, f"dtype {value['out']!r} is not known; known are: {', '.join(DTYPE_BYTES)}")
    return kind, value


def _scalar(table: _Table, name: str, dtype: str, value: Any, names: Mapping[str, Value]) -> Any:
    if dtype.startswith("complex") and isinstance(value, list):
        if len(value) != 2 or not all(isinstance(part, int | float) and not isinstance(part, bool) for part in value):
            raise table.error(name, f"expected a {dtype} as [real, imaginary], not {value!r}")
        return complex(*value)
    if isinstance(value, list):
        return [_scalar(table, name, dtype, item, names) for item in value]
    if isinstance(value, str):
        return table.expression(name, value, names)
    if isinstance(value, bool) != (dtype == "bool") or not isinstance(value, bool | int | float):
        raise table.error(name, f"expected a {dtype}, not {value!r}")
    return value


def _load_array(table: _Table, name: str, value: Any) -> Array:
    if not isinstance(value, str):
        raise table.error(name, f'expected a file, such as "a.npy", not {value!r}')
    file, _, member = value.partition(":")
    path = table.path.parent / file
    try:
        with path.open("rb") as opened:
            if opened.read(2) == b"PK":
                return _load_member(table, name, value, opened)
        if member:
            raise table.error(name, f"{path} holds one array: say just {file}")
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except OSError as error:
        raise table.error(name, f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, BadZipFile) as error:
        raise table.error(name, f"{path} is not a NumPy file: {error}") from error


def _load_member(table: _Table, name: str, value: str, opened: BinaryIO) -> Array:
    file, _, member = value.partition(":")
    opened.seek(0)
    with np.load(opened, allow_pickle=False) as archive:
        if not member:
            raise table.error(name, f"{file} holds several arrays: say which, as {file}:KEY")
        if member not in archive:
            raise table.error(name, f"{file} has no {member!r}; it has: {', '.join(archive)[:500]}")
        array: Array = archive[member]
        return array
