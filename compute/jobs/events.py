"""What goes into the scheduler and what comes out: its events and its effects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from depin_node.compute.jobs.job import Job, JobError
from depin_node.compute.jobs.panels import NO_PANELS, KeptPanels
from depin_node.compute.market.happenings import Event as TalkEvent
from depin_node.compute.market.messages import EndCode, Terms, Verdict, Want
from depin_node.compute.verification.dispute import Party
from depin_node.compute.verification.findings import Finding, Nearness

OutputSizes = Callable[[int], tuple[int, ...]]
"""Bytes of each output of a task, by its index."""


class Candidate(NamedTuple):
    """A peer that lends, as the directory knows it: the class of each device and the memory of its slots, in MiB.
    ``group``: peers that may have one owner have the same; ``is_fellow``: its owner is this
    node's."""

    peer: bytes
    group: str
    devices: tuple[tuple[str, int], ...]
    price: int
    is_fellow: bool = False


class Shown(NamedTuple):
    """An answer that was shown, with its bytes; and the class of the device that it came from."""

    root: bytes
    device_class: str
    outputs: Sequence[bytes | bytearray]


class Kept(NamedTuple):
    """An answer on its provider's tab (``verification/settlement.py``), as the journal has it."""

    task: int
    peer: bytes
    root: bytes
    draw: int
    is_confirmed: bool


# Events.


@dataclass(frozen=True)
class Submitted:
    """A job to do. ``done`` has a byte for each task, 1 for those with a stored result."""

    job_id: bytes
    job: Job
    done: bytearray
    sizes: OutputSizes
    output_bytes_max: int
    can_audit: bool = False
    """Whether this node can run the job's tasks itself, on a device of its own."""
    parts: int = 1
    """Into how many parts each result is cut, if parts are what is audited."""
    kept: tuple[Kept, ...] = ()
    """Answers from before a restart that are on a tab."""
    caught: int = 0
    """How many providers were caught in it before a restart."""
    by_peers: bool = False
    """Whether peers of the provider's device class get the same bits, so that they can audit where this node cannot."""
    can_walk: bool = False
    """Whether this node can do single steps of the job's tasks, so that disputes are walked."""
    spent_us: int = 0
    """What its answers have cost before a restart, by receipts."""
    panels: KeptPanels = NO_PANELS
    """Who agreed on what before a restart, and what of it is to be audited."""


@dataclass(frozen=True)
class Audited:
    """This node has run a task of a job itself, or parts of it: the root of what it got; empty if it could not. What is
    as good as the answer (whose root ``Audit`` gave) has the answer's root; ``is_far``: no rounding explains the
    difference."""

    job_id: bytes
    task: int
    answer: bytes
    root: bytes
    is_far: bool = True


@dataclass(frozen=True)
class Compared:
    """Answers to an open task were compared as numbers; ``sequence`` is that of ``Compare``."""

    job_id: bytes
    task: int
    sequence: int
    roots: tuple[bytes, ...]
    found: Nearness


@dataclass(frozen=True)
class Checked:
    """An answer to an open task was checked; ``sequence`` is that of ``Check``."""

    job_id: bytes
    task: int
    sequence: int
    root: bytes
    finding: Finding


@dataclass(frozen=True)
class Walked:
    """A dispute over an open task was walked; ``sequence`` is that of ``Walk``. ``liars`` did the ``step``th of its
    steps wrongly; if there are none, ``why`` it could not be told."""

    job_id: bytes
    task: int
    sequence: int
    liars: tuple[bytes, ...]
    step: int
    why: str


@dataclass(frozen=True)
class CancelAsked:
    """The user wants the job no more."""

    job_id: bytes


@dataclass(frozen=True)
class Candidates:
    """Who might be asked now, in the order to ask; and how many known peers will not do, by reason."""

    items: tuple[Candidate, ...]
    unsuitable: Mapping[str, int]


@dataclass(frozen=True)
class Heard:
    """Something came of a conversation."""

    peer: bytes
    event: TalkEvent


@dataclass(frozen=True)
class Gone:
    """A conversation is over: ``code`` says why (lost, unreachable, violation, …)."""

    peer: bytes
    code: str


@dataclass(frozen=True)
class ResultsStored:
    """These results are durable."""

    job_id: bytes
    tasks: int


@dataclass(frozen=True)
class StoringFailed:
    """A job cannot go on here: its results cannot be stored (the disk is full, for example), or a fellow goes on."""

    job_id: bytes
    error: JobError


@dataclass(frozen=True)
class Tick:
    """Time passes: about once a second."""


Event = (
    Submitted
    | Audited
    | Compared
    | Checked
    | Walked
    | CancelAsked
    | Candidates
    | Heard
    | Gone
    | ResultsStored
    | StoringFailed
    | Tick
)


# Effects.


@dataclass(frozen=True)
class Ask:
    """Open a conversation and offer these terms."""

    peer: bytes
    terms: Terms
    price_max: int
    duration_s: int


@dataclass(frozen=True)
class OpenWork:
    """Announce the work of a job under the agreement with ``peer``."""

    peer: bytes
    work: int
    job_id: bytes


@dataclass(frozen=True)
class Assign:
    """Send attempts of ``tasks``, numbered from ``first_attempt``."""

    peer: bytes
    work: int
    first_attempt: int
    tasks: list[int]


@dataclass(frozen=True)
class AskReveal:
    """The set of answers is fixed: have this one shown; ``want`` says what of its bytes."""

    peer: bytes
    attempt: int
    set_digest: bytes
    want: Want


@dataclass(frozen=True)
class AskUpload:
    """Have the bytes of a shown answer sent."""

    peer: bytes
    attempt: int


@dataclass(frozen=True)
class ReleaseAttempt:
    """The attempt is over; with a verdict it goes into a receipt. ``keeps``: what its provider signed may still be
    needed, until the job is over: its answer is to be audited."""

    peer: bytes
    attempt: int
    verdict: Verdict | None
    keeps: bool = False


@dataclass(frozen=True)
class CloseWork:
    """No more of this work with ``peer``: the last receipt."""

    peer: bytes
    work: int
    verified_by: str


@dataclass(frozen=True)
class EndAgreement:
    """Close the conversation with ``peer``."""

    peer: bytes
    code: EndCode


@dataclass(frozen=True)
class StoreResult:
    """A task's result is accepted: store it, then tell ``ResultsStored``. ``log`` is what it printed; ``tab``, if it is
    provisional, its provider and its draw; ``panel``, if agreed results are audited, the number of who agreed."""

    job_id: bytes
    task: int
    root: bytes
    outputs: list[bytearray]
    log: bytes
    tab: tuple[bytes, int] | None = None
    panel: int = 0


@dataclass(frozen=True)
class NoteHolders:
    """A task's result is accepted and stays where it is: note its blobs and who keeps them, then tell
    ``ResultsStored``."""

    job_id: bytes
    task: int
    root: bytes
    blobs: tuple[bytes, ...]
    holders: tuple[bytes, ...]
    log: bytes
    tab: tuple[bytes, int] | None = None
    panel: int = 0


@dataclass(frozen=True)
class Caught:
    """An answer is wrong, as far as this node can tell: keep its evidence and ban the peer. Comes before the attempt is
    released, or is about one whose messages were kept."""

    peer: bytes
    attempt: int
    job_id: bytes
    task: int
    reason: str


@dataclass(frozen=True)
class Compare:
    """Compare answers to a task as numbers, then tell ``Compared``."""

    job_id: bytes
    task: int
    sequence: int
    answers: tuple[Shown, ...]


@dataclass(frozen=True)
class Check:
    """Check an answer without running the task, with random numbers from ``seed``; then tell ``Checked``."""

    job_id: bytes
    task: int
    sequence: int
    root: bytes
    outputs: list[bytearray]
    seed: bytes


@dataclass(frozen=True)
class Walk:
    """Two providers, each with the root that it signed, differ about a task: find the first step that one of them did
    wrongly, then tell ``Walked``."""

    job_id: bytes
    task: int
    sequence: int
    parties: tuple[Party, Party]


@dataclass(frozen=True)
class Audit:
    """Run a task here, then tell ``Audited``. Its answer has ``root``, and came from a device of ``device_class``
    (empty: not known any more). ``parts``: which of its parts are to be run; empty: all of it at once."""

    job_id: bytes
    task: int
    root: bytes
    device_class: str
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class NotePanel:
    """Keep who the members of a panel are: results that name its ``number`` follow."""

    job_id: bytes
    number: int
    peers: tuple[bytes, ...]


@dataclass(frozen=True)
class NoteAudit:
    """An agreed result is to be audited (``is_open``), or its audit is over: a restart goes on with those that are."""

    job_id: bytes
    task: int
    device_class: str
    is_open: bool


@dataclass(frozen=True)
class Settle:
    """Results are provisional no more; ``confirmed`` by an audit, their tab goes on."""

    job_id: bytes
    tasks: tuple[int, ...]
    confirmed: bool


@dataclass(frozen=True)
class Void:
    """Results are believed no more: forget them."""

    job_id: bytes
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Ban:
    """A peer's accepted answer was wrong, as this node found itself: have nothing to do with it any more, and tell
    others what proves it, if that was kept."""

    peer: bytes
    job_id: bytes
    task: int
    reason: str


@dataclass(frozen=True)
class Verified:
    """Answers of a peer were found right; ``by_established``: by this node itself, or with an established peer."""

    peer: bytes
    device_class: str
    answers: int
    by_established: bool


@dataclass(frozen=True)
class SettleAttempts:
    """Provisional answers to ``tasks`` of a work get their last verdict."""

    peer: bytes
    work: int
    tasks: tuple[int, ...]
    verdict: Verdict


class JobEvent(msgspec.Struct, frozen=True):
    """One line of a job's story, for people. ``at_s`` is wall time; ``task`` is -1 where it is about no one
    task."""

    at_s: float
    kind: str
    peer: str = ""
    task: int = -1
    detail: str = ""


@dataclass(frozen=True)
class Note:
    """Something worth telling happened to a job."""

    job_id: bytes
    event: JobEvent


@dataclass(frozen=True)
class JobEnded:
    """Store the state, after the results; then tell whoever waits. ``state``: done, failed or cancelled."""

    job_id: bytes
    state: str
    error: JobError | None


TalkEffect = OpenWork | Assign | AskReveal | AskUpload | ReleaseAttempt | SettleAttempts | CloseWork | EndAgreement
"""What is for the conversation with ``peer``."""
Effect = (
    TalkEffect
    | Ask
    | StoreResult
    | NoteHolders
    | Compare
    | Check
    | Walk
    | Audit
    | NotePanel
    | NoteAudit
    | Settle
    | Void
    | Ban
    | Verified
    | Caught
    | Note
    | JobEnded
)
