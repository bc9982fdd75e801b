"""What nodes of one owner say to each other about jobs, on ``jobs/1``: so that another can go on with one.

Each node asks its fellows (``crypto/ownership.py``) what they work on, and keeps of each job what it would take to go
on with it: the job as its requester signed it, the results that are settled, who was caught, what was spent. Every
answer is signed by who works on the job (``JobState``), since whoever goes on with it answers for it.

A job has an *epoch*: 0 where it was submitted, one more with each node that takes it over. Of two nodes that have the
same job the one with the higher epoch goes on, and the other ends it, as soon as they hear of each other.
"""

from typing import Annotated, ClassVar

import msgspec

from depin_node.compute.jobs.job import TASKS_MAX
from depin_node.core.wire import Digest, Key, Message, Uint
from depin_node.crypto.envelope import Signed

PROTOCOL = "jobs/1"
JOBS_MAX = 64
"""Jobs of one fellow that a node keeps copies of."""
HAVE_BYTES_MAX = 4096
RESULTS_MAX = 256
RESULT_BYTES_MAX = 128 * 1024
"""What results in one answer may hold between them, but for the last."""
BLOBS_MAX = 64
CAUGHT_MAX = 256
_ENVELOPE_BYTES_MAX = 20 * 1024

Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**32)]
Task = Annotated[int, msgspec.Meta(ge=0, lt=TASKS_MAX)]


class Working(Message, frozen=True, tag="working"):
    """Which jobs do you work on, or have you taken over?"""


class More(Message, frozen=True, tag="more"):
    """What of a job's settled results do I lack? ``have``: a bit for each task from ``first`` on, lowest bit first."""

    job: Digest
    first: Task
    have: Annotated[bytes, msgspec.Meta(max_length=HAVE_BYTES_MAX)]


class Taken(Message, frozen=True, tag="taken"):
    """I go on with this job: end it, and answer when it has ended."""

    job: Digest
    epoch: Epoch


class Question(Message, frozen=True):
    """What a fellow asks."""

    what: Working | More | Taken


class Line(Message, frozen=True):
    """A job and its epoch; ``open``: it is worked on here."""

    job: Digest
    epoch: Epoch
    open: bool


class Lines(Message, frozen=True):
    """The answer to ``Working`` and ``Taken``."""

    jobs: Annotated[tuple[Line, ...], msgspec.Meta(max_length=2 * JOBS_MAX)]


class CopiedOutput(Message, frozen=True):
    """One output of a task: its bytes if they are few, else its blob."""

    inline: bytes
    blob: Digest | None
    size_bytes: Uint


class CopiedResult(Message, frozen=True):
    """A settled result."""

    task: Task
    root: Digest
    outputs: Annotated[tuple[CopiedOutput, ...], msgspec.Meta(max_length=64)]


class JobState(Signed, frozen=True):
    """A part of a job's state, by who works on it. ``grant`` is for the blobs that the job and these results name;
    ``caught`` are the peers that get no more of it, which is opinion and bans nobody: what proves a lie is told as
    evidence; ``spent_us`` what its answers have cost so far."""

    TYPE: ClassVar[str] = "job_state"
    SIZE_BYTES_MAX: ClassVar[int] = 320 * 1024
    LIFETIME_S_MAX: ClassVar[int] = 60

    job: Digest
    envelope: Annotated[bytes, msgspec.Meta(max_length=_ENVELOPE_BYTES_MAX)]
    epoch: Epoch
    spent_us: Uint
    caught: Annotated[tuple[Key, ...], msgspec.Meta(max_length=CAUGHT_MAX)]
    results: Annotated[tuple[CopiedResult, ...], msgspec.Meta(max_length=RESULTS_MAX)]
    more: bool
    grant: Annotated[bytes, msgspec.Meta(max_length=4096)]


def bits(tasks: bytes | bytearray) -> bytes:
    """Return a bit for each byte of ``tasks`` that is not 0, lowest bit first."""
    packed = bytearray(-(-len(tasks) // 8))
    for number, is_set in enumerate(tasks):
        if is_set:
            packed[number // 8] |= 1 << number % 8
    return bytes(packed)


def has_bit(packed: bytes, number: int) -> bool:
    """Tell whether a bit is set; those beyond the end are not."""
    return number // 8 < len(packed) and bool(packed[number // 8] >> number % 8 & 1)
