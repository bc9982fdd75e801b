"""A job: what a user asked for, in the words that every part of the node shares.

``Job`` is signed by its requester (``SignedJob``), kept in the journal and never changed; ``JobView`` is how
it stands now, for the control API and the command line.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from blake3 import blake3

from depin_node.core.wire import Digest, Message, Name, Uint, encode
from depin_node.crypto.envelope import Signed

_JOB_LABEL = b"depin/job/v1\0"
TASKS_MAX = 1_000_000
INPUTS_MAX = 64
BUFFERS_MAX = 256
OUTPUTS_MAX = 64
DEVICE_CLASSES_MAX = 8
REPLICAS_MAX = 15
PARTS_MAX = 64
"""Parts of a result that are believed and audited each by itself."""
WHOLE_SECONDS_MAX = 10 * 365 * 86_400
"""Bound of a job's deadline and budget."""


class InputRef(Message, frozen=True):
    """The bytes of one input buffer: ``buffer`` is its index in the program; its blob has ``size_bytes``."""

    buffer: Annotated[int, msgspec.Meta(ge=0, lt=BUFFERS_MAX)]
    blob: Digest
    size_bytes: Uint


class Limits(Message, frozen=True):
    """What one attempt of one task may use."""

    seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    memory_mib: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
AGREED_AUDITS = 1 / 512
"""The share of agreed results that users have audited by default: next to no work, and accomplices that agree on
wrong answers again and again are found."""


class Tolerance(Message, frozen=True):
    """How far an element of two honest answers may be apart: |a - b| <= ``relative`` · max(|a|, |b|) + ``absolute`` ·
    the largest finite |element| of either answer. Integers and booleans are equal or not."""

    relative: Share
    absolute: Share


Tolerances = Annotated[tuple[Tolerance, ...], msgspec.Meta(max_length=OUTPUTS_MAX)]
"""One for each output of a program, in its order; none: answers are compared bit for bit."""


class Quorum(Message, frozen=True, tag="quorum"):
    """Accept a result that ``k`` of at most ``n`` answers agree on, from different groups; 2k > n. The share
    ``audits`` of the accepted ones is run once more by the requester's own node: accomplices agree too."""

    k: Annotated[int, msgspec.Meta(ge=1, le=REPLICAS_MAX)]
    n: Annotated[int, msgspec.Meta(ge=1, le=REPLICAS_MAX)]
    audits: Share = 0.0

    def __post_init__(self) -> None:
        if not self.k <= self.n < 2 * self.k:
            raise ValueError(f"quorum({self.k}, {self.n}): k must be at most n and more than half of n")


class Lead(Message, frozen=True, tag="lead"):
    """Accept the answer that ``d`` more groups gave than any other: wrong with probability 1/(1+((1-f)/f)^d)."""

    d: Annotated[int, msgspec.Meta(ge=1, le=REPLICAS_MAX)]
    audits: Share = 0.0


class Confidence(Message, frozen=True, tag="confidence"):
    """Expect at most a share 1 - ``p`` of wrong results among the settled, if hostile groups hold at most the share
    ``f`` of what is drawn. Single attempts and secret audits; a result is provisional until it is settled.

    ``parts``: the share is of so many parts of each result, cut by blocks, instead of whole results. Audits run parts,
    and cost as much less; a result with a few wrong blocks is as wrong as they are many.
    """

    p: Annotated[float, msgspec.Meta(ge=0.5, le=0.999999)]
    f: Annotated[float, msgspec.Meta(ge=0.001, le=0.45)]
    parts: Annotated[int, msgspec.Meta(ge=1, le=PARTS_MAX)] = 1


class Algebraic(Message, frozen=True, tag="algebraic"):
    """Accept what a check of this node's proves, without a second run: programs of single array operations."""


Policy = Quorum | Lead | Confidence | Algebraic
"""How a result comes to be believed (design.md, part 6; docs/verification.md)."""


def describe(policy: Policy) -> str:
    """Return a policy in the words of receipts and of the command line."""
    if isinstance(policy, Quorum):
        return f"quorum {policy.k} of {policy.n}{_audited(policy.audits)}"
    if isinstance(policy, Lead):
        return f"lead {policy.d}{_audited(policy.audits)}"
    if isinstance(policy, Confidence):
        return f"confidence {policy.p:g} at {policy.f:g}" + (f" of {policy.parts} parts" if policy.parts > 1 else "")
    return "algebraic"


def _audited(share: float) -> str:
    return f", audits {share:.2g}" if share else ""


class Results(StrEnum):
    """Where the results of a job go that are too large for the journal."""

    COME = "come"
    """To the requester, as they are accepted."""
    STAY = "stay"
    """Nowhere: those who computed them keep them for an hour, and the requester fetches what it wants."""


INLINE_BYTES_MAX = 64 * 1024
"""Results of a task up to this size live in the requester's journal, wherever larger ones go."""


class Job(Message, frozen=True):
    """What is to be computed.

    ``key`` is the client's idempotency key: the same key is the same job. ``device_classes`` are those whose
    results will do. Answers are compared bit for bit, within one class; unless ``tolerances`` says, for each output,
    how far those of a tolerant program, or of different classes, may be apart. ``tasks`` is the
    program's shard count. ``results`` says where large results go. ``created_s`` is wall time, seconds since the Unix
    epoch; ``deadline_s`` counts from then. ``budget_s`` is what all answers together may cost, in
    reference-seconds (``market/pricing.py``). 0 means without end.
    """

    key: Name
    name: Name
    program: Digest
    program_bytes: Uint
    inputs: Annotated[tuple[InputRef, ...], msgspec.Meta(max_length=INPUTS_MAX)]
    tasks: Annotated[int, msgspec.Meta(ge=1, le=TASKS_MAX)]
    device_classes: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=DEVICE_CLASSES_MAX)]
    policy: Policy
    limits: Limits
    created_s: Uint
    results: Results = Results.COME
    deadline_s: Annotated[int, msgspec.Meta(ge=0, le=WHOLE_SECONDS_MAX)] = 0
    budget_s: Annotated[int, msgspec.Meta(ge=0, le=WHOLE_SECONDS_MAX)] = 0
    tolerances: Tolerances = ()


def job_id(requester: bytes, job: Job) -> bytes:
    """Return the 32-byte id of ``job`` as submitted by the node with the key ``requester``."""
    return blake3(_JOB_LABEL + requester + encode(job)).digest()


class SignedJob(Signed, frozen=True):
    """A job with its requester's signature: what the journal keeps."""

    TYPE: ClassVar[str] = "job"
    VERSION: ClassVar[int] = 5
    SIZE_BYTES_MAX: ClassVar[int] = 16 * 1024

    job: Job


END_STATES = frozenset({"done", "failed", "cancelled", "taken_over"})
"""How a job can have ended on a node; what was taken over goes on at another node of its owner."""


class JobError(msgspec.Struct, frozen=True):
    """Why a job ended without a result: a stable word, and a sentence for the user with what to do about it."""

    code: str
    message: str


class ProviderView(msgspec.Struct, frozen=True):
    """One provider's part in a job; ``state``: ``asked``, ``working``, ``finished`` (it worked until the job was over),
    ``declined``, ``lost``, ``caught``, ``left``, ``barred`` (its numbers differ: it gets no more of this job).
    ``run_s`` is how long its answers ran, by its own word; ``price_s`` what each of them costs since its last probe,
    in reference-seconds."""

    peer: str
    state: str
    tasks_done: int
    tasks_running: int
    reason: str = ""
    attempts_failed: int = 0
    run_s: float = 0.0
    price_s: float = 0.0


class Verification(msgspec.Struct, frozen=True):
    """What checking found and cost: tasks accepted, of these not yet settled, tasks whose answers disagreed, and the
    peer ids that were caught.

    ``earlier`` of the accepted were so before this node went on with the job, after a restart say: what they cost is
    not counted. ``attempts`` were run by providers, ``audits`` by this node (in tasks: who ran a quarter of a task's
    blocks ran a quarter of it), which checked ``checks`` answers without running the task; ``groups`` is the mean
    number of different groups whose answers agreed; ``confidence`` the expected share of right results among the
    settled, if hostile groups hold at most ``hostile_share`` and act together.
    """

    agreed: int
    disputed: int
    liars: tuple[str, ...]
    policy: str = ""
    provisional: int = 0
    earlier: int = 0
    attempts: int = 0
    audits: float = 0
    groups: float = 0.0
    confidence: float | None = None
    checks: int = 0
    hostile_share: float = 0.0


class JobView(msgspec.Struct, frozen=True):
    """How a job stands. Ids are hex, peers are peer ids, times wall seconds; ``stages_s`` counts from
    submission.

    ``state``: ``queued`` (nobody works on it yet), ``running``, or one of ``END_STATES``.
    ``lacks``: why those who are known cannot do it, while nothing of it runs.
    """

    id: str
    name: str
    state: str
    tasks_total: int
    tasks_done: int
    tasks_running: int
    attempts_failed: int
    providers: tuple[ProviderView, ...]
    created_s: float
    started_s: float | None
    finished_s: float | None
    error: JobError | None
    stages_s: dict[str, float]
    verification: Verification
    lacks: str = ""
