"""Checks how a job is to be run before anything is compiled for it or sent: in the words of the caller."""

from typing import Any, get_type_hints

import msgspec

from depin_node.compute.jobs import job
from depin_node.compute.jobs.job import Job, Policy, Tolerance
from depin_node.compute.programs.jobfile import DEFAULTS
from depin_node.core.errors import ConfigError
from depin_node.core.text import did_you_mean
from depin_node.core.wire import Message

_MADE_BY: dict[str, tuple[Any, str]] = {
    "verify": (Policy, "quorum(k, n), lead(d), confidence(p, f) or algebraic()"),
    "limits": (job.Limits, "Limits(seconds, memory_mib)"),
    "tolerance": (Tolerance, "Tolerance(relative, absolute)"),
}
_HINTS = get_type_hints(Job, include_extras=True)


def Limits(  # noqa: N802 - a constructor: the message itself has no defaults
    seconds: int = DEFAULTS["seconds"], memory_mib: int = DEFAULTS["memory_mib"], **others: Any
) -> job.Limits:
    """Return what one task may use; by default as in a job file.

    Args:
        seconds: of wall time.
        memory_mib: for the kernel and all arrays of a task, in MiB.
        others: nothing.

    Raises:
        ConfigError: it has no such limit.
    """
    for other in others:
        raise ConfigError(
            f"Limits has no {other!r}{did_you_mean(other, ('seconds', 'memory_mib'))}; it takes seconds and memory_mib,"
            " of one task; deadline_s and budget_s, of the whole job, are arguments of launch and run"
        )
    return job.Limits(seconds, memory_mib)


def check_settings(**settings: Any) -> None:
    """Check ``verify``, ``limits``, ``tolerance`` and fields of ``Job``, by name; None but of ``verify`` is a default.

    Raises:
        ConfigError: one is not what it can be; names it.
    """
    for name, value in settings.items():
        if value is None and name != "verify":
            continue
        if name in _MADE_BY:
            kind, made_by = _MADE_BY[name]
            if not isinstance(value, kind):
                raise ConfigError(f"{name}: give {made_by}, not {value!r}")
            _check_fields(name, value)
        else:
            _check(name, value, _HINTS[name])


def _check_fields(name: str, value: Message) -> None:
    hints = get_type_hints(type(value), include_extras=True)
    for field in value.__struct_fields__:
        _check(f"{name}: {field}", getattr(value, field), hints[field])


def _check(name: str, value: Any, kind: Any) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {error}; it is {value!r}") from error
