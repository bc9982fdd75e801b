import pytest

from depin_node.compute.market.messages import Countersign, Meters, Receipt, Settled, Verdict, digest
from depin_node.compute.trust.chain import Place, origin
from depin_node.compute.trust.receipts import count, verify_receipt
from depin_node.core.errors import PeerViolation
from depin_node.crypto.envelope import sign
from depin_node.crypto.identity import Identity

REQUESTER, PROVIDER, OTHER = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
SETTLED = (
    Settled(0, 5, b"c" * 32, b"o" * 32, Verdict.ACCEPTED, 12),
    Settled(1, 6, b"d" * 32, b"o" * 32, Verdict.REJECTED, 13),
    Settled(2, 7, b"e" * 32, b"o" * 32, Verdict.UNUSED, 14),
)


def receipt(to=PROVIDER.key):
    fields = (b"a" * 32, 0, b"j" * 32, b"i" * 32, "wasm-1", SETTLED, 0, True, "quorum 2 of 3")
    message = Receipt(to, 100, 7, *fields, Place(1, 0, origin(REQUESTER.key)))
    return sign(REQUESTER, "net", message)


def countersign(of, by=PROVIDER, to=REQUESTER.key):
    return sign(by, "net", Countersign(to, 100, 8, digest(of), Meters(25, 0, 0, ""), Place(2, 0, origin(by.key))))


def test_a_receipt_and_its_countersignature_hold_for_ever():
    ours = receipt()
    verified = verify_receipt(ours, countersign(ours), "net")
    assert (verified.sender, count(verified.payload)) == (REQUESTER.key, (1, 1))
    assert verify_receipt(ours, None, "net").payload == verified.payload


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (lambda ours: countersign(receipt(OTHER.key)), "another receipt"),
        (lambda ours: countersign(ours, by=OTHER), "not by the provider"),
        (lambda ours: countersign(ours, to=OTHER.key), "not by the provider"),
        (lambda ours: ours, "signature"),
        (lambda ours: b"", "malformed"),
    ],
)
def test_what_does_not_belong_together_is_refused(theirs, why):
    ours = receipt()
    with pytest.raises(PeerViolation, match=why):
        verify_receipt(ours, theirs(ours), "net")


def test_a_receipt_is_of_one_network_and_not_to_be_changed():
    ours = receipt()
    with pytest.raises(PeerViolation, match="signature"):
        verify_receipt(ours, None, "other")
    for at in (40, len(ours) - 20):
        with pytest.raises(PeerViolation):
            verify_receipt(ours[:at] + bytes([ours[at] ^ 1]) + ours[at + 1 :], None, "net")
