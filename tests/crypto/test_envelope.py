from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.compute.jobs.job import Limits, Quorum, Results, SignedJob
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Name, decode, encode
from depin_node.crypto.envelope import NOBODY, Envelope, Signed, read_kept, sign, verify, verify_signature
from depin_node.crypto.identity import Identity

ALICE, BOB = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
WALL_S = 1_800_000_000
NOW = Now(5, WALL_S * SECOND_NS)


class Greeting(Signed, frozen=True):
    TYPE: ClassVar[str] = "greeting"
    SIZE_BYTES_MAX: ClassVar[int] = 256
    text: Name


class Farewell(Greeting, frozen=True):
    TYPE: ClassVar[str] = "farewell"


class GreetingV2(Greeting, frozen=True):
    VERSION: ClassVar[int] = 2


def hello(**changed):
    fields = {"to": BOB.key, "expires_s": WALL_S + 30, "seq": 7, "text": "hello"} | changed
    return Greeting(**fields)


def test_a_signed_message_arrives():
    data = sign(ALICE, "net", hello())
    got = verify(data, Greeting, "net", to=BOB.key, now=NOW)
    assert (got.sender, got.payload, got.data) == (ALICE.key, hello(), data)


def test_golden_vector():
    payload = "94c420" + BOB.key.hex() + "ce6b49d21e07a568656c6c6f"
    envelope = decode(sign(ALICE, "net", hello()), Envelope, size_bytes_max=1000)
    assert envelope.payload.hex() == payload
    assert envelope.signature.hex() == GOLDEN_SIGNATURE


GOLDEN_SIGNATURE = (
    "5ab255c8b5e49845320263757ffbb7dfcb92df3f268a525ab7b656624609ef10"
    "8d9bddae39cb2c36e99dc722364bb75e94ecf8faf34f3efa0e2e888305de5200"
)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (hello(to=ALICE.key), "another peer"),
        (hello(to=NOBODY), "another peer"),
        (hello(to=b"short"), "another peer"),
        (hello(expires_s=WALL_S - 61), "expired 61 s ago"),
        (hello(expires_s=0), "expired"),
        (hello(expires_s=WALL_S + 661), "longer"),
        (hello(expires_s=2**63 - 1), "longer"),
    ],
)
def test_misaddressed_and_expired_messages_are_violations(message, why):
    with pytest.raises(PeerViolation, match=why):
        verify(sign(ALICE, "net", message), Greeting, "net", to=BOB.key, now=NOW)


def test_a_minute_of_skew_is_allowed():
    for seconds in (-60, 660):
        verify(sign(ALICE, "net", hello(expires_s=WALL_S + seconds)), Greeting, "net", to=BOB.key, now=NOW)


@pytest.mark.parametrize(("kind", "network"), [(Greeting, "other"), (Farewell, "net"), (GreetingV2, "net")])
def test_a_message_is_of_one_network_type_and_version(kind, network):
    signed = f"depin/{network}/{kind.TYPE}/v{kind.VERSION}"
    with pytest.raises(PeerViolation, match=f"the signature is not the sender's for {signed}$"):
        verify(sign(ALICE, "net", hello()), kind, network, to=BOB.key, now=NOW)


@given(st.data())
def test_no_changed_byte_goes_through(data):
    raw = bytearray(sign(ALICE, "net", hello()))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerViolation):
        verify(raw, Greeting, "net", to=BOB.key, now=NOW)


def test_the_signature_of_another_key_is_refused():
    stolen = decode(sign(ALICE, "net", hello()), Envelope, size_bytes_max=1000)
    with pytest.raises(PeerViolation, match="signature"):
        verify_signature(encode(Envelope(BOB.key, stolen.signature, stolen.payload)), Greeting, "net")


def test_keys_of_small_order_sign_nothing():
    # With the neutral element as its key and R, and S = 0, a lax verifier accepts this for every message.
    neutral = b"\x01" + bytes(31)
    payload = encode(hello())
    with pytest.raises(PeerViolation, match="signature"):
        verify_signature(encode(Envelope(neutral, neutral + bytes(32), payload)), Greeting, "net")


def test_oversized_payloads_are_refused_before_the_signature():
    with pytest.raises(PeerViolation, match="allowed"):
        verify(b"\x93" + bytes(1000), Greeting, "net", to=BOB.key, now=NOW)


class Salutation(Greeting, frozen=True):
    VERSION: ClassVar[int] = 3
    tone: Name = "plain"


class NextSalutation(Salutation, frozen=True):
    VERSION: ClassVar[int] = 4


def test_what_an_older_version_has_kept_is_read_with_the_defaults_of_what_it_did_not_know():
    kept = sign(ALICE, "net", hello())
    assert read_kept(kept, Salutation, "net") == Salutation(BOB.key, WALL_S + 30, 7, "hello", "plain")
    with pytest.raises(PeerViolation):  # from a peer it is a message of another version
        verify(kept, Salutation, "net", to=BOB.key, now=NOW)


@pytest.mark.parametrize(
    ("kept", "network"),
    [
        (sign(ALICE, "net", hello()), "other"),
        (sign(ALICE, "net", hello())[:-1] + b"!", "net"),
        (sign(ALICE, "net", NextSalutation(BOB.key, 1, 1, "hello")), "net"),
        (sign(ALICE, "net", Farewell(BOB.key, 1, 1, "hello")), "net"),
    ],
    ids=["of another network", "changed", "of a newer version", "of another type"],
)
def test_nothing_else_is_read_as_kept(kept, network):
    with pytest.raises(PeerViolation, match="signature is not the sender's"):
        read_kept(kept, Salutation, network)


def test_a_job_of_the_journal_of_24_november_2026_is_read():
    """Version 1 of ``SignedJob``: without ``results``, ``deadline_s``, ``budget_s``, ``tolerances`` and ``audits``."""
    envelope = bytes.fromhex(
        "93c4205004b2a9ece1f4a136d9099a26682cd30d6fa6848a48ad7c67ac72395b8f5c8ac440539bbfb7cd87bdf30e4779b0d50858305f6d3d"
        "abc3323180b4c61113871db65efc64da091fcd61e64ed7a46e9b715f75fd5c9aca3b97fc51b7204ce21ddb120bc4aa94c400ce6b0a7133cf"
        "0006614ff180370b9ad9203566653865303731666133303863636235373861346166313932636632313932a968696c6c7368616465c420e9"
        "24f97d1e18c77b2dfe28bc1c4770bcf6fbef67e8479afe31611635e1125953cd16a0919300c4201eae7c9f4086ecf0a7a8ff4fddfe77421d"
        "a15c37e5fa9a504c9778f0b596ee76ce00043b101891a67761736d2d3193a671756f72756d0203923ccd0100ce6b0a6edb"
    )
    job = read_kept(envelope, SignedJob, "depin").job
    assert (job.name, job.tasks, job.policy, job.limits) == ("hillshade", 24, Quorum(2, 3), Limits(60, 256))
    assert (job.results, job.deadline_s, job.budget_s, job.tolerances) == (Results.COME, 0, 0, ())
