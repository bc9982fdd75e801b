"""Signing and reading for one end of ``market/2``: sequence numbers, expiry, replay, and who may say what.

A conversation has two channels a direction, each with rising sequence numbers: ``market`` for what is sent as
soon as it is signed, ``receipts`` for what is signed first, stored, and sent when that is done.
"""

from collections.abc import Iterable
from typing import TypeVar

from blake3 import blake3

from depin_node.compute.market.messages import (
    LIFETIME_S,
    SIGNED_KINDS,
    UNSIGNED_BYTES_MAX,
    UNSIGNED_KINDS,
    Countersign,
    Kind,
    MarketMessage,
    Receipt,
    Unsigned,
    digest,
)
from depin_node.compute.trust.chain import Entry, Head, Log
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import decode
from depin_node.crypto.envelope import Verified, sign, verify
from depin_node.crypto.identity import Identity
from depin_node.crypto.replay import ReplayGuard, Sequence

M = TypeVar("M", bound=MarketMessage)
_RECEIPT_CONTEXT = "depin-node market 2026 receipt key v1"
Frame = tuple[int, bytes]
"""Kind and body."""


def channel_of(kind: type[MarketMessage]) -> str:
    """Return the replay channel of a message type."""
    return "receipts" if kind in (Receipt, Countersign) else "market"


class Pen:
    """One node's hand: shared by all its conversations, since its sequence numbers are."""

    def __init__(
        self, identity: Identity, network: str, sequence: Sequence, guard: ReplayGuard, stored: Head | None = None
    ) -> None:
        """``stored`` is how far the log of this node goes, None if it is empty."""
        self.key = identity.key
        self.network = network
        self.log = Log(identity.key, sequence.next(), stored)
        self._receipt_secret = blake3(identity.seed, derive_key_context=_RECEIPT_CONTEXT).digest()
        self._identity = identity
        self._sequence = sequence
        self._guard = guard

    def sign(self, kind: type[M], to: bytes, now: Now, *fields: object) -> bytes:
        """Return the envelope of a new message of ``kind`` to ``to``, with its own ``fields`` in order."""
        expires_s = now.wall_ns // SECOND_NS + LIFETIME_S
        return sign(self._identity, self.network, kind(to, expires_s, self._sequence.next(), *fields))

    def sign_entry(self, kind: type[M], to: bytes, now: Now, *fields: object) -> tuple[bytes, Entry]:
        """Return a new message that goes into the log, where its last field says; and its entry, to be stored with
        it."""
        envelope = self.sign(kind, to, now, *fields, self.log.place())
        return envelope, self.log.add(digest(envelope))

    def note_stored(self, entry: Entry, *, is_stored: bool) -> bool:
        """An entry was stored, or could not be; return whether its message may be sent."""
        if is_stored:
            return self.log.note_stored(entry)
        self.log.note_lost(entry, self._sequence.next())
        return False

    def receipt_key(self, job: bytes) -> bytes:
        """Return the key by which receipts name the inputs and outputs of one of our jobs."""
        return blake3(job, key=self._receipt_secret).digest()

    def next_seq(self) -> int:
        """Return a sequence number for something else that this node signs."""
        return self._sequence.next()

    def read(
        self, kind: int, body: bytes, sender: bytes, allowed: Iterable[int], now: Now
    ) -> Verified[MarketMessage] | Unsigned:
        """Check and decode the body of a frame that ``sender``, as the connection proves, has sent.

        Raises:
            PeerViolation: not a kind this end may hear; malformed, forged, misaddressed, expired, replayed,
            or signed
                by somebody else.
        """
        if kind not in allowed:
            raise PeerViolation(f"market: a frame of kind {kind} from this side")
        if kind in UNSIGNED_KINDS:
            return decode(body, UNSIGNED_KINDS[kind], size_bytes_max=UNSIGNED_BYTES_MAX)
        message_type = SIGNED_KINDS[Kind(kind)]
        verified = verify(body, message_type, self.network, to=self.key, now=now)
        if verified.sender != sender:
            raise PeerViolation(f"{message_type.TYPE}: signed by another peer than the one that sent it")
        self._guard.accept(sender, channel_of(message_type), verified.payload.seq)
        return verified
