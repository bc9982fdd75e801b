"""Every error this project raises on purpose, by who has to act on it.

A message says what was wrong, why, and what to do about it; it is shown to users as it stands. Peers never see
messages: they get the ``code``.
"""


class DepinError(Exception):
    """The root of all errors raised on purpose. ``code`` is the stable word that peers and ``--json`` get."""

    code = "error"


class ConfigError(DepinError):
    """A file, flag, environment variable or argument of the local user is wrong."""

    code = "config"


class TransportError(DepinError):
    """A peer could not be reached, went away or took too long; trying again or elsewhere may help."""

    code = "transport"


class PeerViolation(DepinError):
    """A peer broke the protocol: malformed, oversized, forged, replayed or contradictory. Costs it reputation."""

    code = "violation"


class PeerStale(PeerViolation):
    """What a peer sent was good once and has expired: where it may have been long under way, that is nobody's fault."""

    code = "stale"


class ResourceError(DepinError):
    """This machine is short of something: disk, memory, descriptors, slots."""

    code = "resource"


class TaskError(DepinError):
    """A task ended without a result."""

    code = "failed"


class TaskRejected(TaskError):
    """The task was refused before it ran: malformed, too large, or against a limit."""

    code = "rejected"


class TaskTimedOut(TaskError):
    """The task passed its deadline or used up its fuel."""

    code = "timed_out"


class TaskOutOfMemory(TaskError):
    """The task wanted more memory than its limit."""

    code = "out_of_memory"


class TaskTrapped(TaskError):
    """The kernel itself broke a rule: it wrote outside its memory, divided by zero, or deadlocked at a barrier."""

    code = "trapped"


class NotFoundError(ConfigError):
    """What the local user asked for by name is not on this node."""

    code = "not_found"


class TaskCrashed(TaskError):
    """The worker that ran the task died under it."""

    code = "crashed"


class TaskNoResult(TaskError):
    """The numbers of the task have no such result: a singular matrix, an iteration that does not converge."""

    code = "no_result"
