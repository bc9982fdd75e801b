"""The node's log: for people on stderr, as JSON lines in a bounded set of files.

Everything goes through the standard library's root logger, so that what libraries log lands in the same place. What
peers wrote is made harmless before anything prints it, and one event is at most a few KiB.
"""

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from depin_node.core.errors import ConfigError
from depin_node.core.text import printable

FILE_BYTES_MAX = 4 << 20
FILES_KEPT = 4
VALUE_LENGTH_MAX = 2_000
_TRACE_LENGTH_MAX = 20_000
_NOISY = ("libp2p", "multiaddr", "hypercorn", "httpx", "httpcore", "async_service", "zeroconf", "urllib3")

_Event = MutableMapping[str, Any]


def set_up(level: str, file: Path | None) -> None:
    """Send the log of this process to stderr and, if given, to ``file`` (mode 0600, rotated, at most 20 MiB in all).

    Raises:
        ConfigError: the file cannot be written.
    """
    shared: list[Callable[[Any, str, _Event], Any]] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _harmless,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_formatter(shared, structlog.dev.ConsoleRenderer(colors=colours)))
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(_rotating(file))
        handlers[-1].setFormatter(_formatter(shared, structlog.processors.JSONRenderer(default=str)))
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


class _PrivateRotatingFileHandler(logging.handlers.RotatingFileHandler):
    """Makes each new file readable by its owner only."""

    def _open(self) -> Any:
        return open(
            self.baseFilename,
            self.mode,
            encoding="utf-8",
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def _rotating(file: Path) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _PrivateRotatingFileHandler(file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT)
    except OSError as error:
        raise ConfigError(f"{file}: the log cannot be written: {error.strerror}") from error


def _formatter(shared: list[Callable[[Any, str, _Event], Any]], renderer: Any) -> logging.Formatter:
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, renderer])


def _harmless(_logger: Any, _method: str, event: _Event) -> _Event:
    for key, value in event.items():
        if key.startswith("_"):
            continue
        if isinstance(value, bytes):
            event[key] = value[:64].hex()
        elif key == "exception":
            event[key] = printable(str(value), keep="\n\t", length_max=_TRACE_LENGTH_MAX)
        elif not isinstance(value, bool | int | float | None):
            event[key] = printable(str(value), length_max=VALUE_LENGTH_MAX)
    return event
