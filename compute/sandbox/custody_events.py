"""What happens to one GPU that is lent, and what is to be done about it: the vocabulary of ``custody``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CustodyLimits:
    """How long each step may take, in seconds.

    Attributes:
        start_s: from a worker's start until it says that it is ready: the import of CuPy, a context, the modules.
        grace_s: beyond an attempt's own deadline, which the worker keeps by itself between two ranges of blocks.
        kill_s: from SIGKILL to the end of the process; one that waits inside the driver does not end.
        context_s: from the end of the process until the driver has given its context back.
        look_s: between two looks at who holds a context.
        test_s: for the known-answer set in a fresh worker.
        crashes_max: workers in a row that died without one good attempt before the device itself is doubted.
    """

    start_s: float = 60.0
    grace_s: float = 5.0
    kill_s: float = 10.0
    context_s: float = 10.0
    look_s: float = 0.25
    test_s: float = 120.0
    crashes_max: int = 3


# What happens


@dataclass(frozen=True)
class Wanted:
    """Somebody wants the device for an agreement."""

    lease: str


@dataclass(frozen=True)
class Returned:
    """The agreement is over; what still runs is not wanted any more."""

    lease: str


@dataclass(frozen=True)
class Ready:
    """The worker has its context and waits for a program."""


@dataclass(frozen=True)
class Began:
    """The worker began an attempt that may take ``seconds``."""

    attempt: int
    seconds: float


@dataclass(frozen=True)
class Ended:
    """The worker ended an attempt and said how. ``context_lost``: no call to the device will succeed again in it."""

    attempt: int
    context_lost: bool


@dataclass(frozen=True)
class Exited:
    """The worker's process is gone and reaped."""

    detail: str


@dataclass(frozen=True)
class Contexts:
    """The driver's answer to ``Look``: whether a process of ours still holds a context on the device."""

    held: bool


@dataclass(frozen=True)
class Tested:
    """How the known-answer set went in the worker that was spawned for it."""

    passed: bool
    detail: str


@dataclass(frozen=True)
class Doubted:
    """The driver reported something that makes what the device computes now doubtful, but may be over by itself."""

    detail: str


@dataclass(frozen=True)
class Broken:
    """The device is gone, or its memory has uncorrectable errors: it needs its operator."""

    detail: str


@dataclass(frozen=True)
class Heat:
    """Whether the driver slows the device down because it is too hot; results stay right."""

    hot: bool


@dataclass(frozen=True)
class Tick:
    """A moment that ``WakeAt`` asked for, or any other."""


Event = Wanted | Returned | Ready | Began | Ended | Exited | Contexts | Tested | Doubted | Broken | Heat | Tick


# What is to be done


@dataclass(frozen=True)
class Grant:
    """The agreement has the device; a worker for it follows."""

    lease: str


@dataclass(frozen=True)
class Refuse:
    """The agreement does not get it."""

    lease: str
    reason: str


@dataclass(frozen=True)
class Spawn:
    """Start a worker: for the agreement that has the device, or to run the known-answer set."""

    test: bool


@dataclass(frozen=True)
class Kill:
    """End the worker's process, now."""


@dataclass(frozen=True)
class Fail:
    """The attempt ended without a word from the worker; ``code`` is that of a ``TaskError``."""

    attempt: int
    code: str
    reason: str


@dataclass(frozen=True)
class Look:
    """Ask the driver who holds a context, and come back with ``Contexts``."""


@dataclass(frozen=True)
class Revoke:
    """The agreement loses the device for good."""

    lease: str
    reason: str


@dataclass(frozen=True)
class Available:
    """Nobody has the device: who waits may ask again."""


@dataclass(frozen=True)
class Withdraw:
    """Take the device out of what is lent; only a new start of the node brings it back."""

    reason: str


@dataclass(frozen=True)
class WakeAt:
    """Send a ``Tick`` at this time of the boot clock, in ns, or later."""

    boottime_ns: int


Effect = Grant | Refuse | Spawn | Kill | Fail | Look | Revoke | Available | Withdraw | WakeAt
