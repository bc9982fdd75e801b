"""What a user is told when a kernel does not compile."""

from collections.abc import Sequence
from dataclasses import dataclass

from depin_node.core.errors import ConfigError

DIAGNOSTICS_MAX = 20
CHARACTERS_MAX = 400


@dataclass(frozen=True)
class Diagnostic:
    """One finding. ``line`` and ``column`` count from 1; 0 means that the finding has no place in the source."""

    text: str
    line: int = 0
    column: int = 0
    file: str = ""


class CompileError(ConfigError):
    """A kernel was not translated. The message has one line for each finding: ``hillshade.cu:12:9: error: …``.

    Attributes:
        file: the file of the first finding.
        line: its line, counted from 1; 0 if it has none.
        column: its column, likewise.
        diagnostics: all findings.
    """

    code = "compile"

    def __init__(self, diagnostics: Sequence[Diagnostic], filename: str) -> None:
        self.diagnostics = tuple(diagnostics)
        first = self.diagnostics[0]
        self.file, self.line, self.column = first.file or filename, first.line, first.column
        lines = [_line(found, filename) for found in diagnostics[:DIAGNOSTICS_MAX]]
        if len(diagnostics) > DIAGNOSTICS_MAX:
            lines.append(f"{filename}: … and {len(diagnostics) - DIAGNOSTICS_MAX} more")
        super().__init__("\n".join(lines))


class Unsupported(Exception):
    """A construct that this compiler does not translate, at its place."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.diagnostic = Diagnostic(text, line, column)


def _line(found: Diagnostic, filename: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in found.text)[:CHARACTERS_MAX]
    file = "".join(c if c.isprintable() else "?" for c in found.file or filename)[:CHARACTERS_MAX]
    place = f"{file}:{found.line}:{found.column}" if found.line else file
    return f"{place}: error: {text}"
