"""What goes into the scheduler and what comes out: its events and its effects."""

from collections.abc import Callable, Mapping, Sequence
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
    """An answer that was shown, with its bytes; and the classes of the devices that it came from."""

    root: bytes
    device_classes: frozenset[str]
    outputs: Sequence[bytes | bytearray]


class Kept(NamedTuple):
    """An answer on its provider's tab (``verification/settlement.py``), as the journal has it."""

    task: int
    peer: bytes
    root: bytes
    draw: int
    is_confirmed: bool


# Events.


class Submitted(msgspec.Struct, frozen=True):
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
    caught: frozenset[bytes] = frozenset()
    """The providers that were found out in it before a restart."""
    by_peers: bool = False
    """Whether peers of the provider's device class get the same bits, so that they can audit where this node cannot."""
    can_walk: bool = False
    """Whether this node can do single steps of the job's tasks, so that disputes are walked."""
    part_bytes: int = 0
    """What travels of inputs for each task, where each is given a part of them."""
    spent_us: int = 0
    """What its answers have cost before a restart, by receipts."""
    panels: KeptPanels = NO_PANELS
    """Who agreed on what before a restart, and what of it is to be audited."""


class Audited(msgspec.Struct, frozen=True):
    """This node has run a task of a job itself, or parts of it: the root of what it got; empty if it could not. What is
    as good as the answer (whose root ``Audit`` gave) has the answer's root; ``is_far``: no rounding explains the
    difference."""

    job_id: bytes
    task: int
    answer: bytes
    root: bytes
    is_far: bool = True


class Compared(msgspec.Struct, frozen=True):
    """Answers to an open task were compared as numbers; ``sequence`` is that of ``Compare``."""

    job_id: bytes
    task: int
    sequence: int
    roots: tuple[bytes, ...]
    found: Nearness


class Checked(msgspec.Struct, frozen=True):
    """An answer to an open task was checked; ``sequence`` is that of ``Check``."""

    job_id: bytes
    task: int
    sequence: int
    root: bytes
    finding: Finding


class Walked(msgspec.Struct, frozen=True):
    """A dispute over an open task was walked; ``sequence`` is that of ``Walk``. ``liars`` did the ``step``th of its
    steps wrongly; if there are none, ``why`` it could not be told."""

    job_id: bytes
    task: int
    sequence: int
    liars: tuple[bytes, ...]
    step: int
    why: str


class CancelAsked(msgspec.Struct, frozen=True):
    """The user wants the job no more."""

    job_id: bytes


class Candidates(msgspec.Struct, frozen=True):
    """Who might be asked now, in the order to ask; and how many known peers will not do, by reason."""

    items: tuple[Candidate, ...]
    unsuitable: Mapping[str, int]


class Heard(msgspec.Struct, frozen=True):
    """Something came of a conversation."""

    peer: bytes
    event: TalkEvent


class Gone(msgspec.Struct, frozen=True):
    """A conversation is over: ``code`` says why (lost, unreachable, violation, …), ``detail`` in words, if any."""

    peer: bytes
    code: str
    detail: str = ""


class ResultsStored(msgspec.Struct, frozen=True):
    """These results are durable."""

    job_id: bytes
    tasks: int


class StoringFailed(msgspec.Struct, frozen=True):
    """A job's results cannot be stored: the disk is full, for example."""

    job_id: bytes
    error: JobError


class HandedOver(msgspec.Struct, frozen=True):
    """Another node of the same owner goes on with a job; ``error`` tells which."""

    job_id: bytes
    error: JobError


class Tick(msgspec.Struct, frozen=True):
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
    | HandedOver
    | Tick
)


# Effects.


class Ask(msgspec.Struct, frozen=True):
    """Open a conversation and offer these terms."""

    peer: bytes
    terms: Terms
    price_max: int
    duration_s: int


class OpenWork(msgspec.Struct, frozen=True):
    """Announce the work of a job under the agreement with ``peer``."""

    peer: bytes
    work: int
    job_id: bytes


class Assign(msgspec.Struct, frozen=True):
    """Send attempts of ``tasks``, numbered from ``first_attempt``."""

    peer: bytes
    work: int
    first_attempt: int
    tasks: list[int]


class AskReveal(msgspec.Struct, frozen=True):
    """The set of answers is fixed: have this one shown; ``want`` says what of its bytes."""

    peer: bytes
    attempt: int
    set_digest: bytes
    want: Want


class AskUpload(msgspec.Struct, frozen=True):
    """Have the bytes of a shown answer sent."""

    peer: bytes
    attempt: int


class ReleaseAttempt(msgspec.Struct, frozen=True):
    """The attempt is over; with a verdict it goes into a receipt. ``keeps``: what its provider signed may still be
    needed, until the job is over: its answer is to be audited."""

    peer: bytes
    attempt: int
    verdict: Verdict | None
    keeps: bool = False


class CloseWork(msgspec.Struct, frozen=True):
    """No more of this work with ``peer``: the last receipt."""

    peer: bytes
    work: int
    verified_by: str


class EndAgreement(msgspec.Struct, frozen=True):
    """Close the conversation with ``peer``."""

    peer: bytes
    code: EndCode


class StoreResult(msgspec.Struct, frozen=True):
    """A task's result is accepted: store it, then tell ``ResultsStored``. ``log`` is what it printed; ``tab``, if it is
    provisional, its provider and its draw; ``panel``, if agreed results are audited, the number of who agreed."""

    job_id: bytes
    task: int
    root: bytes
    outputs: list[bytearray]
    log: bytes
    tab: tuple[bytes, int] | None = None
    panel: int = 0


class NoteHolders(msgspec.Struct, frozen=True):
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


class Caught(msgspec.Struct, frozen=True):
    """An answer is wrong, as far as this node can tell: keep its evidence and ban the peer. Comes before the attempt is
    released, or is about one whose messages were kept.

    ``is_opinion``: it lost a vote, and those who won may be in league. Nobody is banned for that: what it signed is
    judged by running the task again, where that can be done.
    """

    peer: bytes
    attempt: int
    job_id: bytes
    task: int
    reason: str
    is_opinion: bool = False


class Cleared(msgspec.Struct, frozen=True):
    """A peer that lost a vote of a job was right: nothing of that is held against it."""

    peer: bytes
    job_id: bytes


class Compare(msgspec.Struct, frozen=True):
    """Compare answers to a task as numbers, then tell ``Compared``."""

    job_id: bytes
    task: int
    sequence: int
    answers: tuple[Shown, ...]


class Check(msgspec.Struct, frozen=True):
    """Check an answer without running the task, with random numbers from ``seed``; then tell ``Checked``."""

    job_id: bytes
    task: int
    sequence: int
    root: bytes
    outputs: list[bytearray]
    seed: bytes


class Walk(msgspec.Struct, frozen=True):
    """Two providers, each with the root that it signed, differ about a task: find the first step that one of them did
    wrongly, then tell ``Walked``."""

    job_id: bytes
    task: int
    sequence: int
    parties: tuple[Party, Party]


class Audit(msgspec.Struct, frozen=True):
    """Run a task here, then tell ``Audited``. Its answer has ``root``, and came from a device of ``device_class``
    (empty: not known any more). ``parts``: which of its parts are to be run; empty: all of it at once."""

    job_id: bytes
    task: int
    root: bytes
    device_class: str
    parts: tuple[int, ...] = ()


class NotePanel(msgspec.Struct, frozen=True):
    """Keep who the members of a panel are: results that name its ``number`` follow."""

    job_id: bytes
    number: int
    peers: tuple[bytes, ...]


class NoteAudit(msgspec.Struct, frozen=True):
    """An agreed result is to be audited (``is_open``), or its audit is over: a restart goes on with those that are."""

    job_id: bytes
    task: int
    device_class: str
    is_open: bool


class Settle(msgspec.Struct, frozen=True):
    """Results are provisional no more; ``confirmed`` by an audit, their tab goes on."""

    job_id: bytes
    tasks: tuple[int, ...]
    confirmed: bool


class Void(msgspec.Struct, frozen=True):
    """Results are believed no more: forget them."""

    job_id: bytes
    tasks: tuple[int, ...]


class Ban(msgspec.Struct, frozen=True):
    """A peer's accepted answer was wrong, as this node found itself: have nothing to do with it any more, and tell
    others what proves it, if that was kept."""

    peer: bytes
    job_id: bytes
    task: int
    reason: str


class Verified(msgspec.Struct, frozen=True):
    """Answers of a peer were found right; ``by_established``: by this node itself, or with an established peer."""

    peer: bytes
    device_class: str
    answers: int
    by_established: bool


class SettleAttempts(msgspec.Struct, frozen=True):
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


class Note(msgspec.Struct, frozen=True):
    """Something worth telling happened to a job."""

    job_id: bytes
    event: JobEvent


class JobEnded(msgspec.Struct, frozen=True):
    """Store the state, after the results; then tell whoever waits. ``state``: one of ``END_STATES``."""

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
    | Cleared
    | Note
    | JobEnded
)
