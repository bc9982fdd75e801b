"""What a requester's conversations ask of the shell, and tell the scheduler."""

import msgspec

from depin_node.compute.market.messages import FailCode, Terms, WorkBody
from depin_node.compute.trust.chain import Entry


class Evidence(msgspec.Struct, frozen=True):
    """Two signed messages of one peer that fix an answer, and what is needed to read them.

    ``work`` is the id of work ``number`` under the agreement, whose ``body`` says what was to be computed.
    """

    agreement: bytes
    work: bytes
    task: int
    attempt: int
    commits: bytes
    reveals: bytes
    number: int = 0
    body: WorkBody | None = None


class StoreAgreement(msgspec.Struct, frozen=True):
    """Store this, then call ``stored``; nothing is promised before."""

    agreement: bytes
    bid: bytes
    award: bytes
    seq: int


class StoreReceipt(msgspec.Struct, frozen=True):
    """Store this as the next entry of the log, then call ``send_receipt`` with it."""

    receipt: bytes
    envelope: bytes
    job: bytes
    entry: Entry
    busy_us: int


class StoreCountersign(msgspec.Struct, frozen=True):
    """A provider confirmed a receipt: keep it with the receipt. ``busy_us`` is the work that the receipt counts."""

    receipt: bytes
    envelope: bytes
    busy_us: int


class BidHeard(msgspec.Struct, frozen=True):
    """The provider would take the work."""

    slots: int
    window: int
    price: int


class Agreed(msgspec.Struct, frozen=True):
    """The provider is bound."""

    agreement: bytes
    device_class: str
    slots: int
    window: int
    terms: Terms
    duration_s: int


class Declined(msgspec.Struct, frozen=True):
    """The provider will not, for now; the conversation is over."""

    code: str


class Priced(msgspec.Struct, frozen=True):
    """What each task of a job costs with this provider, in µs of the reference core, from now on and up to here."""

    job: bytes
    task_us: int


class Committed(msgspec.Struct, frozen=True):
    """These attempts' answers are fixed: (attempt, commitment, run time in µs by the provider's word)."""

    items: list[tuple[int, bytes, int]]


class Failed(msgspec.Struct, frozen=True):
    """These attempts ended without an answer: (attempt, code)."""

    items: list[tuple[int, FailCode]]


class Revealed(msgspec.Struct, frozen=True):
    """These answers were shown, and open their commitments: (attempt, root)."""

    items: list[tuple[int, bytes]]


class Delivered(msgspec.Struct, frozen=True):
    """All bytes of an attempt's outputs are here, and have the root that was revealed. ``log`` is whatever the
    provider says that the task printed."""

    attempt: int
    root: bytes
    outputs: list[bytearray]
    log: bytes = b""


class Stayed(msgspec.Struct, frozen=True):
    """The provider keeps the bytes of an attempt's outputs, which have the root that was revealed: one blob each."""

    attempt: int
    root: bytes
    blobs: tuple[bytes, ...]
    log: bytes = b""


class Ended(msgspec.Struct, frozen=True):
    """The provider ended the agreement, or let a deadline pass; the conversation is over."""

    code: str


Event = (
    StoreAgreement
    | StoreReceipt
    | StoreCountersign
    | BidHeard
    | Agreed
    | Declined
    | Priced
    | Committed
    | Failed
    | Revealed
    | Delivered
    | Stayed
    | Ended
)
