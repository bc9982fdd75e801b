"""What partners ask each other about their logs, on ``receipts/1``; PROTOCOL.md has the table."""

from typing import Annotated

import msgspec

from depin_node.compute.trust.export import Record
from depin_node.compute.trust.heads import HAVES_MAX, Run
from depin_node.core.wire import Digest, Message, Uint
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES

PROTOCOL = "receipts/1"
LISTED_MAX = 256
FETCHED_MAX = 8
OTHERS_MAX = 4
RUN_BYTES_MAX = Run.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES
_RunBytes = Annotated[bytes, msgspec.Meta(max_length=RUN_BYTES_MAX)]


class Since(Message, frozen=True, tag="since"):
    """How did your log go on? ``haves``: links of it that I know, the newest first; none at the first look."""

    haves: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=HAVES_MAX)]


class Listing(Message, frozen=True, tag="list"):
    """Which receipts between us do you hold, before this one of yours (0: the newest)?"""

    before: Uint


class Fetch(Message, frozen=True, tag="fetch"):
    """Hand me these receipts."""

    receipts: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=FETCHED_MAX)]


class Question(Message, frozen=True):
    """A request."""

    what: Since | Listing | Fetch


class Shown(Message, frozen=True):
    """A run of the answerer's log, empty bytes if it is empty, and the newest runs of some other logs."""

    run: _RunBytes
    others: Annotated[tuple[_RunBytes, ...], msgspec.Meta(max_length=OTHERS_MAX)]


class Listed(Message, frozen=True):
    """Receipts, the newest first; ask on with ``next``, 0 if there are no more."""

    receipts: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=LISTED_MAX)]
    next: Uint


class Fetched(Message, frozen=True):
    """Receipts with their countersignatures."""

    records: Annotated[tuple[Record, ...], msgspec.Meta(max_length=FETCHED_MAX)]
