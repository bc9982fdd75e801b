"""Reading TOML key by key, so that a mistake is answered with its place and the way out."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from depin_node.compute.programs.expressions import Value, evaluate
from depin_node.core.errors import ConfigError

FILE_BYTES_MAX = 1 << 20


class Table:
    """A table of the file, whose errors name file, table and key."""

    def __init__(self, path: Path, name: str, values: Any) -> None:
        self.path, self.name, self.values = path, name, values
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {name}: expected a table")

    def error(self, key: str, reason: str) -> ConfigError:
        """Return the error of a key, with its place."""
        where = f"[{self.name}] {key}" if self.name else key
        return ConfigError(f"{self.path}: {where}: {reason}")

    def allow(self, *keys: str) -> None:
        """Refuse all keys but these."""
        for key in self.values:
            if key not in keys:
                raise self.error(key, f"unknown key{did_you_mean(key, keys)}; known are: {', '.join(keys)}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or what is meant without it."""
        return self.values.get(key, default)

    def require(self, key: str) -> Any:
        """Return a value that has to be there."""
        if key not in self.values:
            raise self.error(
                key, "is missing" if self.name else "is missing: a key of the file itself, above its first [table]"
            )
        return self.values[key]

    def text(self, key: str) -> str:
        """Return a text that has to be there."""
        value = self.require(key)
        if not isinstance(value, str):
            raise self.error(key, f"expected text, not {value!r}")
        return value

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return an integer within bounds."""
        value = self.require(key) if default is None else self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(key, f"expected an integer from {least} to {most}, not {value!r}")
        return value

    def number(self, key: str, least: float, most: float, default: float) -> float:
        """Return a number within bounds."""
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(key, f"expected a number from {least:g} to {most:g}, not {value!r}")
        return float(value)

    def table(self, key: str, *, optional: bool = False) -> "Table":
        """Return a table in this one."""
        if not (optional or self.name or key in self.values):
            raise self.error(key, f"is missing: the table [{key}]")
        return Table(
            self.path, f"{self.name}.{key}" if self.name else key, self.get(key, {}) if optional else self.require(key)
        )

    def expression(self, key: str, value: Any, names: Mapping[str, Value]) -> int:
        """Return what an integer or an expression is."""
        if isinstance(value, str):
            try:
                return evaluate(value, names)
            except ConfigError as error:
                raise self.error(key, str(error)) from error
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self.error(key, f"expected an integer or an expression, not {value!r}")

    def expressions(self, key: str, values: Any, names: Mapping[str, Value]) -> tuple[int, ...]:
        """Return what positive integers or expressions are; a single one is a list of one."""
        items = values if isinstance(values, list) else [values]
        numbers = tuple(self.expression(key, value, names) for value in items)
        for item, number in zip(items, numbers, strict=True):
            if number < 1:
                raise self.error(key, f"{item!r} is {number}; expected at least 1")
        return numbers


def did_you_mean(key: str, keys: Iterable[str]) -> str:
    """Return a hint at the key that was perhaps meant, or nothing."""
    close = difflib.get_close_matches(key, keys, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a job file says. Raises ``ConfigError``."""
    text = read_text(path, path, FILE_BYTES_MAX)
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def read_text(path: Path, job: Path, size_bytes_max: int) -> str:
    """Return the text of a file that ``job`` names. Raises ``ConfigError``."""
    try:
        with path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        where = "" if path == job else f"{job}: "
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{where}cannot read {path}: {reason}") from error
    if len(data) > size_bytes_max:
        raise ConfigError(f"{path}: more than {size_bytes_max >> 10} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error
