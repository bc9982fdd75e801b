"""Receipts: what was run, how it was verified, what it cost, signed by both sides; checkable by anybody,
offline."""

from collections import Counter

from depin_node.compute.market.messages import Countersign, Receipt, Verdict, digest
from depin_node.core.errors import PeerViolation
from depin_node.crypto.envelope import Verified, verify_signature

PAID = frozenset({Verdict.ACCEPTED, Verdict.UNUSED})
"""Verdicts that count as honest work."""


def verify_receipt(requester: bytes, provider: bytes | None, network: str) -> Verified[Receipt]:
    """Check a receipt's envelope and, if there is one, the provider's countersignature.

    Args:
        requester: the envelope of the ``Receipt``.
        provider: the envelope of the ``Countersign``, or None if the provider has not confirmed it.
        network: the network id that both were signed for.

    Raises:
        PeerViolation: a signature is wrong, or the two do not belong together.
    """
    receipt = verify_signature(requester, Receipt, network)
    if provider is not None:
        countersign = verify_signature(provider, Countersign, network)
        if countersign.payload.receipt != digest(requester):
            raise PeerViolation("the countersignature is of another receipt")
        if countersign.sender != receipt.payload.to or countersign.payload.to != receipt.sender:
            raise PeerViolation("the countersignature is not by the provider that the receipt names")
    return receipt


def count(receipt: Receipt) -> tuple[int, int]:
    """Return how many answers a receipt accepts for good and how many it refuses."""
    verdicts = Counter(settled.verdict for settled in receipt.settled)
    return verdicts[Verdict.ACCEPTED], verdicts[Verdict.REJECTED] + verdicts[Verdict.VOID]


def busy_us(receipt: Receipt) -> int:
    """Return what the answers that a receipt counts as honest work cost together, in µs of the reference core.

    Unused ones count: they were asked for and shown. Provisional ones do not yet.
    """
    return sum(settled.price_us for settled in receipt.settled if settled.verdict in PAID)
