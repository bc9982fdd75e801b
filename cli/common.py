"""What commands share: the options that every command takes, JSON or text on stdout, tables."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from depin_node.client import Mesh
    from depin_node.core.local import DataDir

C = TypeVar("C", bound=Callable[..., Any])


@dataclass
class Settings:
    """The options that may stand before or after the command."""

    data_dir: str | None = None
    debug: bool = False

    def located(self) -> "DataDir":
        """Return the data directory to work on."""
        from depin_node.core.local import DataDir

        return DataDir.locate(self.data_dir)

    def repeated(self) -> str:
        """Return the options that another command needs to reach the same node, to be shown after it."""
        return f" --data-dir {shlex.quote(self.data_dir)}" if self.data_dir else ""

    def mesh(self) -> "Mesh":
        """Return a connection to the running node. Raises ``NotRunningError``."""
        from depin_node.client import Mesh

        return Mesh(self.located().path)


pass_settings = click.make_pass_decorator(Settings)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:  # not given here leaves what was given before the command
        setattr(ctx.ensure_object(Settings), param.name or "", value)


def global_options(command: C) -> C:
    """Add ``--data-dir`` and ``--debug``."""
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, callback=_keep, help="Show tracebacks."),
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False),
            metavar="DIR",
            expose_value=False,
            callback=_keep,
            help="The node's data directory.  [env: DEPIN_DATA_DIR]",
        ),
    ):
        command = option(command)
    return command


def json_option(command: C) -> C:
    """Add ``--json``, as the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def emit(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print ``value`` on stdout: as one JSON document, or as ``text()``."""
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(value).decode())
    else:
        click.echo(text())


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return left-aligned columns. Cells may come from strangers: they are made printable."""
    from depin_node.core.text import printable

    cells = [list(headings), *([printable(str(cell), length_max=100) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def reference(seconds: float, digits: int = 3) -> str:
    """Return a cost, in reference-seconds, for people: not ``s``, which is time by somebody's clock."""
    return f"{seconds:.{digits}f} ref-s"


def note(text: str) -> None:
    """Tell the user something that is not data: on stderr."""
    from depin_node.core.text import printable

    click.echo(printable(text, keep="\n"), err=True)


def on_terminal() -> bool:
    """Tell whether progress may be drawn on stderr."""
    return sys.stderr.isatty()


def ago(seconds: float) -> str:
    """Return a duration for people: ``42 s``, ``3 min``, ``5 h``, ``2 d``."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
