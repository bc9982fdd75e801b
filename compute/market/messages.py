"""What requesters and providers say to each other on ``market/2``: one stream for each pair, PROTOCOL.md has
the table.

Requester                     Provider
   Offer       ─────────────►            terms: what an attempt may use
               ◄─────────────  Bid       a window, slots, a rate; reserves nothing; or Decline with a code
   Award       ─────────────►
               ◄─────────────  Accept    now there is an agreement; or Decline, busy for example
   Work        ─────────────►            once a job: program, inputs, a grant for their blobs
   Tasks       ─────────────►            many tasks, one signature
               ◄─────────────  Commits   answers fixed, not shown; failures with their codes
   Price       ─────────────►            what each task costs, after the first answer: before further tasks
   CommitSet   ─────────────►            these answers are in: show them; says who sends the bytes, or keeps them
               ◄─────────────  Reveals   root and salt; then the bytes, in DATA frames under signed hashes
   Release     ─────────────►            the bytes may go
   Receipt     ─────────────►
               ◄─────────────  Countersign

Signed is what a third party may have to check. Nothing here tells the verification policy while it matters.
"""

from enum import IntEnum, StrEnum
from typing import Annotated, ClassVar

import msgspec
from blake3 import blake3

from depin_node.compute.jobs.job import DEVICE_CLASSES_MAX, INPUTS_MAX, InputRef, Limits, Tolerances
from depin_node.compute.market.pricing import PRICE_MAX_US, SPEED_MAX
from depin_node.compute.trust.chain import Place
from depin_node.core.wire import Digest, Message, Name, Uint, encode
from depin_node.crypto.envelope import Signed

VERIFIED_BY_MAX = 64
PROTOCOL = "market/2"
BATCH_MAX = 128
"""Tasks in one message: beyond 32 the signature no longer counts; this bounds what one bad message can
hold."""
GATHERED = 16
"""So many items are worth a message of their own: from here on its fixed cost is a few per cent of each (measured)."""
LINGER_S = 0.05
"""What the peer can do without for now waits so long for company at most; far below the deadlines that it bears on."""
WINDOW_MAX = 1024
SLOTS_MAX = 256
OUTPUTS_MAX = 64
LOG_BYTES_MAX = 4096
"""Of what a task has printed; the rest stays with the provider."""
TASK_OUTPUT_BYTES_MAX = 1 << 32
RECEIPT_TASKS_MAX = 256
GRANT_BYTES_MAX = 8 * 1024
DATA_BYTES_MAX = 64 * 1024 - 64
"""Payload of one ``DATA`` frame; with its headers it fits one Noise message of libp2p."""
FRAME_BYTES_MAX = 64 * 1024
STAY_S = 3600
"""How long a provider keeps results that stay with it: until then the requester fetches them, or has them computed
again."""
LIFETIME_S = 60
"""Signed messages on an open stream are read at once; this allows for a peer's wrong clock besides
``SKEW_S_MAX``."""

_AGREEMENT_LABEL = b"depin/agreement/v1\0"
_WORK_LABEL = b"depin/work-body/v1\0"
_DIGEST_LABEL = b"depin/message-digest/v1\0"
_INPUTS_LABEL = b"depin/receipt-inputs/v1\0"
_OUTPUTS_LABEL = b"depin/receipt-outputs/v1\0"


class Kind(IntEnum):
    """The kind byte of a frame on ``market/2``."""

    OFFER = 1
    BID = 2
    DECLINE = 3
    AWARD = 4
    ACCEPT = 5
    WORK = 6
    TASKS = 7
    COMMITS = 8
    COMMIT_SET = 9
    REVEALS = 10
    DATA = 11
    UPLOAD = 12
    RELEASE = 13
    CANCEL = 14
    PROGRESS = 15
    RECEIPT = 16
    COUNTERSIGN = 17
    END = 18
    PRICE = 19


class DeclineCode(StrEnum):
    """Why a lender does not take an offer or an award."""

    BUSY = "busy"
    TOO_LARGE = "too_large"
    UNSUPPORTED_CLASS = "unsupported_class"
    MEMORY = "memory"
    TIME = "time"
    NOT_LENDING = "not_lending"
    PRICE = "price"
    DRAINING = "draining"
    GROUP_LIMIT = "group_limit"
    BANNED = "banned"
    CREDIT = "credit"
    UNSIGNED = "unsigned"


class EndCode(StrEnum):
    """Why one side ends an agreement; none of them is an accusation."""

    IDLE = "idle"
    EXPIRED = "expired"
    DRAINING = "draining"
    RECEIPTS = "receipts"
    DONE = "done"
    STALLED = "stalled"
    RESOURCE = "resource"
    PRICE = "price"
    """Too much for the requester, or too little for the provider."""


class FailCode(StrEnum):
    """Why an attempt ended without an answer. The first seven come from the task itself, the others from the
    provider."""

    REJECTED = "rejected"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    TRAPPED = "trapped"
    NO_RESULT = "no_result"
    FUEL = "fuel"
    CRASHED = "crashed"
    NO_BLOB = "no_blob"
    RESOURCE = "resource"


TASK_FAULTS = frozenset(
    {
        FailCode.REJECTED,
        FailCode.FAILED,
        FailCode.TIMED_OUT,
        FailCode.OUT_OF_MEMORY,
        FailCode.TRAPPED,
        FailCode.NO_RESULT,
        FailCode.FUEL,
    }
)
"""Codes that would come back on every provider; the same one from enough groups fails the job."""


class Want(IntEnum):
    """What a requester wants of an answer's bytes once it is shown."""

    ROOT = 0
    """Nothing: another sends them."""
    BYTES = 1
    """That they follow."""
    STAY = 2
    """That the provider keeps them for ``STAY_S``: they are fetched as blobs by whom the requester grants them."""


class Verdict(StrEnum):
    """What became of an answer. Provisional ones get another verdict later; the others are for good."""

    ACCEPTED = "accepted"
    """Settled: believed for good."""
    REJECTED = "rejected"
    """Wrong, or outvoted."""
    UNUSED = "unused"
    """Shown, honest work as far as anybody knows, and not needed."""
    PROVISIONAL = "provisional"
    """Used for now; the provider's next settlement decides."""
    VOID = "void"
    """Was provisional; its provider was caught before it was settled."""


AttemptNumber = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
TaskIndex = Annotated[int, msgspec.Meta(ge=0, le=2**32)]
WorkNumber = Annotated[int, msgspec.Meta(ge=0, le=2**32)]
Micros = Annotated[int, msgspec.Meta(ge=0, le=PRICE_MAX_US)]


class Terms(Message, frozen=True):
    """What an attempt may use under an agreement. ``output_bytes_max`` is for one task, all its outputs
    together."""

    device_classes: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=DEVICE_CLASSES_MAX)]
    limits: Limits
    output_bytes_max: Annotated[int, msgspec.Meta(ge=0, le=TASK_OUTPUT_BYTES_MAX)]

    def cover(self, other: "Terms", device_class: str) -> bool:
        """Tell whether work under ``other`` may run under these, on ``device_class``."""
        return (
            device_class in other.device_classes
            and self.limits.seconds >= other.limits.seconds
            and self.limits.memory_mib >= other.limits.memory_mib
            and self.output_bytes_max >= other.output_bytes_max
        )


class MarketMessage(Signed, frozen=True):
    """Base of what is signed here. ``KIND`` is its frame."""

    KIND: ClassVar[Kind]
    SIZE_BYTES_MAX: ClassVar[int] = 1024
    LIFETIME_S_MAX: ClassVar[int] = LIFETIME_S


class Offer(MarketMessage, frozen=True):
    """A requester asks for a bid. ``price_max`` is in millicredits per reference-second; 0 offers nothing."""

    TYPE: ClassVar[str] = "offer"
    KIND: ClassVar[Kind] = Kind.OFFER

    terms: Terms
    price_max: Uint
    duration_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Bid(MarketMessage, frozen=True):
    """A provider's answer. ``window`` attempts may be open at once, ``slots`` of them run at the same
    time. ``price`` is in millicredits per reference-second; ``speed``, by which what a slot took becomes
    reference-seconds, in thousandths of the reference core's (``pricing``)."""

    TYPE: ClassVar[str] = "bid"
    VERSION: ClassVar[int] = 2
    KIND: ClassVar[Kind] = Kind.BID

    offer: Digest
    device_class: Name
    window: Annotated[int, msgspec.Meta(ge=1, le=WINDOW_MAX)]
    slots: Annotated[int, msgspec.Meta(ge=1, le=SLOTS_MAX)]
    price: Uint
    duration_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    speed: Annotated[int, msgspec.Meta(ge=1, le=SPEED_MAX)]


class Decline(MarketMessage, frozen=True):
    """A provider's refusal; ``about`` is the digest of the offer or the award."""

    TYPE: ClassVar[str] = "decline"
    KIND: ClassVar[Kind] = Kind.DECLINE

    about: Digest
    code: DeclineCode


class Award(MarketMessage, frozen=True):
    """The requester takes the bid as it stands."""

    TYPE: ClassVar[str] = "award"
    KIND: ClassVar[Kind] = Kind.AWARD

    bid: Digest


class Accept(MarketMessage, frozen=True):
    """The provider is bound. ``agreement`` is ``agreement_id`` of bid and award; its duration begins now, at
    each end."""

    TYPE: ClassVar[str] = "accept"
    KIND: ClassVar[Kind] = Kind.ACCEPT

    agreement: Digest


class WorkBody(Message, frozen=True):
    """A program over inputs, as both ends understand it: what a commitment is about. ``tolerances`` says how far an
    answer's outputs may be from another's that is as good; none: bit for bit."""

    job: Digest
    program: Digest
    program_bytes: Uint
    inputs: Annotated[tuple[InputRef, ...], msgspec.Meta(max_length=INPUTS_MAX)]
    tasks: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    terms: Terms
    tolerances: Tolerances = ()


class Work(MarketMessage, frozen=True):
    """Announces a job's work under an agreement. ``grant`` lets the provider pull the blobs from the requester;
    receipts name inputs and outputs by hashes keyed with ``receipt_key``, so that who is shown two receipts does not
    see whether they are about equal data."""

    TYPE: ClassVar[str] = "work"
    VERSION: ClassVar[int] = 3
    KIND: ClassVar[Kind] = Kind.WORK
    SIZE_BYTES_MAX: ClassVar[int] = 16 * 1024

    agreement: Digest
    work: WorkNumber
    body: WorkBody
    grant: Annotated[bytes, msgspec.Meta(max_length=GRANT_BYTES_MAX)]
    receipt_key: Digest


class Tasks(MarketMessage, frozen=True):
    """Attempts ``first_attempt``, ``first_attempt + 1``, … run ``tasks`` of ``work``; numbers rise within an
    agreement."""

    TYPE: ClassVar[str] = "tasks"
    KIND: ClassVar[Kind] = Kind.TASKS

    agreement: Digest
    work: WorkNumber
    first_attempt: AttemptNumber
    tasks: Annotated[tuple[TaskIndex, ...], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class Commit(Message, frozen=True):
    """One answer to a task, fixed. ``elapsed_us`` is what the provider reports to have run."""

    attempt: AttemptNumber
    task: TaskIndex
    commitment: Digest
    elapsed_us: Micros


class Failure(Message, frozen=True):
    """One attempt without an answer."""

    attempt: AttemptNumber
    code: FailCode


class Commits(MarketMessage, frozen=True):
    """Answers to tasks of one work, and failures, as they come.

    ``work`` is the work's id, or zeros without commitments: with the task it says what a commitment is to, signed by
    who answers, so that nobody can claim that an answer was to something else.
    """

    TYPE: ClassVar[str] = "commits"
    VERSION: ClassVar[int] = 2
    KIND: ClassVar[Kind] = Kind.COMMITS
    SIZE_BYTES_MAX: ClassVar[int] = 16 * 1024

    agreement: Digest
    work: Digest
    commits: Annotated[tuple[Commit, ...], msgspec.Meta(max_length=BATCH_MAX)]
    failures: Annotated[tuple[Failure, ...], msgspec.Meta(max_length=BATCH_MAX)]


class Price(MarketMessage, frozen=True):
    """What each answer of a work costs, its first ones included, in µs of the reference core: fixed once, after the
    first commitment. A work that ends before more tasks are sent needs none: its receipt says it."""

    TYPE: ClassVar[str] = "price"
    KIND: ClassVar[Kind] = Kind.PRICE

    agreement: Digest
    work: WorkNumber
    task_us: Micros


class SetEntry(Message, frozen=True):
    """``digest`` seals all commitments that are in for the task of ``attempt``; ``want`` says what is to become of the
    bytes."""

    attempt: AttemptNumber
    digest: Digest
    want: Want


class CommitSet(MarketMessage, frozen=True):
    """The requester fixes which answers it has, and asks to show them."""

    TYPE: ClassVar[str] = "commit_set"
    VERSION: ClassVar[int] = 2
    KIND: ClassVar[Kind] = Kind.COMMIT_SET
    SIZE_BYTES_MAX: ClassVar[int] = 16 * 1024

    agreement: Digest
    entries: Annotated[tuple[SetEntry, ...], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class Output(Message, frozen=True):
    """One output of a task; its bytes follow in ``DATA`` frames if they were asked for."""

    blob: Digest
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=TASK_OUTPUT_BYTES_MAX)]


class Reveal(Message, frozen=True):
    """Opens one commitment. ``outputs`` and ``log`` are empty unless the bytes were asked for, or asked to stay.

    ``log`` is the beginning of what the task printed: what anybody may write, part of no answer and never compared.
    """

    attempt: AttemptNumber
    root: Digest
    salt: Digest
    outputs: Annotated[tuple[Output, ...], msgspec.Meta(max_length=OUTPUTS_MAX)]
    log: Annotated[bytes, msgspec.Meta(max_length=LOG_BYTES_MAX)]


class Reveals(MarketMessage, frozen=True):
    """Answers shown, after a ``CommitSet``."""

    TYPE: ClassVar[str] = "reveals"
    VERSION: ClassVar[int] = 2
    KIND: ClassVar[Kind] = Kind.REVEALS
    SIZE_BYTES_MAX: ClassVar[int] = 48 * 1024

    agreement: Digest
    reveals: Annotated[tuple[Reveal, ...], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class Upload(Message, frozen=True):
    """Asks for the bytes of an attempt that was revealed without them; answered by ``Reveals`` with
    outputs."""

    attempts: Annotated[tuple[AttemptNumber, ...], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class Release(Message, frozen=True):
    """The requester needs nothing more of these attempts."""

    attempts: Annotated[tuple[AttemptNumber, ...], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class Cancel(Message, frozen=True):
    """Everything of this work that has not been released is void."""

    work: WorkNumber


class Progress(Message, frozen=True):
    """A sign of life while attempts are open: how many have ended so far under the agreement, and how many
    are open."""

    ended: Uint
    open: Uint


class End(Message, frozen=True):
    """The agreement is over; what was not revealed is void."""

    code: EndCode


class Settled(Message, frozen=True):
    """One answer in a receipt; ``output`` is its root, keyed (``keyed_output``). ``price_us`` is what each task of its
    work costs, in µs of the reference core."""

    attempt: AttemptNumber
    task: TaskIndex
    commitment: Digest
    output: Digest
    verdict: Verdict
    price_us: Micros


class Receipt(MarketMessage, frozen=True):
    """What a requester owes a provider for: signed after the results are stored.

    ``inputs`` is the work's body, keyed (``keyed_inputs``): program, inputs and terms. ``verified_by`` is empty until
    ``final``, when nothing can be gained any more from knowing the policy. ``place`` is in the requester's log.
    """

    TYPE: ClassVar[str] = "receipt"
    VERSION: ClassVar[int] = 2
    KIND: ClassVar[Kind] = Kind.RECEIPT
    SIZE_BYTES_MAX: ClassVar[int] = 48 * 1024

    agreement: Digest
    work: WorkNumber
    job: Digest
    inputs: Digest
    device_class: Name
    settled: Annotated[tuple[Settled, ...], msgspec.Meta(min_length=0, max_length=RECEIPT_TASKS_MAX)]
    price: Uint
    final: bool
    verified_by: Annotated[str, msgspec.Meta(max_length=VERIFIED_BY_MAX)]
    place: Place


class Meters(Message, frozen=True):
    """What the answers of a receipt took, by the provider's word alone.

    ``fuel`` counts wasm instructions; ``energy_mj`` is 0 where nothing measures it, ``energy_by`` (``nvml``, ``rapl``)
    empty then.
    """

    busy_us: Uint
    fuel: Uint
    energy_mj: Uint
    energy_by: Annotated[str, msgspec.Meta(max_length=16)]


class Countersign(MarketMessage, frozen=True):
    """The provider confirms a receipt, by its digest. ``place`` is in the provider's log."""

    TYPE: ClassVar[str] = "countersign"
    VERSION: ClassVar[int] = 2
    KIND: ClassVar[Kind] = Kind.COUNTERSIGN

    receipt: Digest
    meters: Meters
    place: Place


Unsigned = Upload | Release | Cancel | Progress | End

SIGNED_KINDS: dict[int, type[MarketMessage]] = {
    message.KIND: message
    for message in (
        Offer,
        Bid,
        Decline,
        Award,
        Accept,
        Work,
        Tasks,
        Commits,
        Price,
        CommitSet,
        Reveals,
        Receipt,
        Countersign,
    )
}
UNSIGNED_KINDS: dict[int, type[Unsigned]] = {
    Kind.UPLOAD: Upload,
    Kind.RELEASE: Release,
    Kind.CANCEL: Cancel,
    Kind.PROGRESS: Progress,
    Kind.END: End,
}
UNSIGNED_BYTES_MAX = 2048
FROM_REQUESTER = frozenset(
    {Kind.OFFER, Kind.AWARD, Kind.WORK, Kind.TASKS, Kind.COMMIT_SET, Kind.UPLOAD, Kind.RELEASE, Kind.CANCEL, Kind.END}
    | {Kind.PRICE, Kind.RECEIPT}
)
FROM_PROVIDER = frozenset(
    {Kind.BID, Kind.DECLINE, Kind.ACCEPT, Kind.COMMITS, Kind.REVEALS, Kind.DATA, Kind.PROGRESS, Kind.COUNTERSIGN}
    | {Kind.END}
)


def digest(envelope: bytes) -> bytes:
    """Return the 32-byte name of a signed message, from its envelope."""
    return blake3(_DIGEST_LABEL + envelope).digest()


def agreement_id(bid: bytes, award: bytes) -> bytes:
    """Return the 32-byte id of the agreement that these two envelopes make; ``Accept`` signs it."""
    return blake3(_AGREEMENT_LABEL + digest(bid) + digest(award)).digest()


def work_id(agreement: bytes, work: int, body: WorkBody) -> bytes:
    """Return the 32 bytes that commitments bind an answer to: which program over which inputs, under which
    agreement."""
    return blake3(_WORK_LABEL + agreement + work.to_bytes(8, "little") + encode(body)).digest()


def keyed_inputs(key: bytes, body: WorkBody) -> bytes:
    """Return how a receipt names program, inputs and terms: who is given ``key`` can check them."""
    return blake3(_INPUTS_LABEL + encode(body), key=key).digest()


def keyed_output(key: bytes, root: bytes) -> bytes:
    """Return how a receipt names an answer's root."""
    return blake3(_OUTPUTS_LABEL + root, key=key).digest()


def attempt_bytes(attempt: int) -> bytes:
    """Return the 16 bytes by which commitments name an attempt."""
    return attempt.to_bytes(16, "little")
