"""What is said on ``dispute/1``: what do your arrays hold after so many steps of a task of mine? PROTOCOL.md has it.

Asked by a requester of who works for it, while the job's work is open. The answer is signed: two of them, and the step
between, are what a walk is decided on.
"""

from typing import Annotated, ClassVar

import msgspec

from depin_node.compute.jobs.job import BUFFERS_MAX
from depin_node.core.wire import Digest, Message
from depin_node.crypto.envelope import Signed

PROTOCOL = "dispute/1"
STEPS_MAX = 1 << 24


class StateAt(Message, frozen=True):
    """What do the arrays hold after ``step`` steps of a task? ``keep``: and keep them, so that I can fetch them."""

    job: Digest
    task: Annotated[int, msgspec.Meta(ge=0, le=2**32)]
    step: Annotated[int, msgspec.Meta(ge=1, le=STEPS_MAX)]
    keep: bool


class TaskState(Signed, frozen=True):
    """The answer: the blob ids of the arrays that are no inputs, in the program's order (``programs/walk.py``)."""

    TYPE: ClassVar[str] = "task_state"
    SIZE_BYTES_MAX: ClassVar[int] = 16 * 1024
    LIFETIME_S_MAX: ClassVar[int] = 60

    job: Digest
    task: Annotated[int, msgspec.Meta(ge=0, le=2**32)]
    step: Annotated[int, msgspec.Meta(ge=1, le=STEPS_MAX)]
    state: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=BUFFERS_MAX)]
