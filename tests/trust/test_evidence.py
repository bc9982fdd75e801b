"""What proves a lie to a third party, and above all what does not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import NETWORK, Keeper
from msgspec.structs import replace

from depin_node.compute.jobs.job import InputRef, Limits
from depin_node.compute.market.messages import (
    Award,
    Bid,
    Commit,
    Commits,
    Reveal,
    Reveals,
    Terms,
    WorkBody,
    agreement_id,
    attempt_bytes,
    digest,
    work_id,
)
from depin_node.compute.trust.evidence import (
    BLOBS_BYTES_MAX,
    CASE_BYTES_MAX,
    BadOpening,
    Fork,
    NotHereError,
    TwoResults,
    WrongResult,
    case_digest,
    encode_case,
    verify_case,
)
from depin_node.compute.trust.heads import Run, Step
from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import Answer, commit
from depin_node.crypto.envelope import sign

REQUESTER, LIAR, OTHER = Keeper(1), Keeper(2), Keeper(3)
PROGRAM, DATA = b"the program", b"the input"
RIGHT, WRONG, SALT = b"r" * 32, b"w" * 32, b"s" * 32
BODY = WorkBody(
    b"j" * 32,
    blob_id(PROGRAM),
    len(PROGRAM),
    (InputRef(0, blob_id(DATA), len(DATA)),),
    50,
    Terms(("wasm-1",), Limits(10, 64), 100),
)


def say(keeper, kind, *fields, to=REQUESTER.key):
    return sign(keeper.identity, NETWORK, kind(to, 100, keeper.next(), *fields))


class Told:
    """What a provider signed about attempt 5, task 7: a commitment to one root, an opening of another."""

    def __init__(self, committed=WRONG, shown=WRONG, device_class="wasm-1", by=LIAR):
        self.by = by
        self.bid = say(by, Bid, b"o" * 32, device_class, 4, 2, 0, 60, 1000)
        self.award = say(REQUESTER, Award, digest(self.bid), to=by.key)
        self.agreement = agreement_id(self.bid, self.award)
        self.work = work_id(self.agreement, 0, BODY)
        self.commits = self.commits_to(committed)
        self.reveals = say(by, Reveals, self.agreement, (Reveal(5, shown, SALT, (), b""),))

    def commits_to(self, root, attempt=5, agreement=None):
        answer = Answer(NETWORK, self.work, 7, attempt_bytes(5), self.by.key)
        one = Commit(attempt, 7, commit(answer, root, SALT), 12)
        return say(self.by, Commits, agreement or self.agreement, self.work, (one,), ())

    def wrong(self, **changes):
        fields = {
            "bid": self.bid,
            "award": self.award,
            "work": 0,
            "body": BODY,
            "commits": self.commits,
            "reveals": self.reveals,
            "attempt": 5,
            "blobs": (PROGRAM, DATA),
        }
        return WrongResult(**(fields | changes))


def execute(body, task, blobs):
    """Runs the program again."""
    assert (body, task, blobs) == (BODY, 7, (PROGRAM, DATA))
    return RIGHT


def case(proof, accused=LIAR.key, network=NETWORK):
    return encode_case(network, accused, proof)


def run(keeper, *digests, epoch=10, first=0, previous=b"p" * 32, steps_epoch=None):
    steps = tuple(Step(steps_epoch or epoch, name) for name in digests)
    return sign(keeper.identity, NETWORK, Run(b"", 100, keeper.next(), epoch, first, previous, steps, False))


def proofs():
    told = Told(shown=RIGHT)
    return {
        "two_results": TwoResults(told.commits, told.commits_to(RIGHT)),
        "bad_opening": BadOpening(told.commits, told.reveals, 5),
        "wrong_result": Told().wrong(),
        "fork": Fork(run(LIAR, b"a" * 32, b"b" * 32), run(LIAR, b"a" * 32, b"c" * 32)),
    }


@pytest.mark.parametrize("kind", proofs())
def test_what_proves(kind):
    data = case(proofs()[kind])
    proven = verify_case(data, NETWORK, execute)
    assert (proven.accused, proven.kind, proven.digest) == (LIAR.key, kind, case_digest(data))
    assert proven.reason


def test_two_roots_shown_prove_too():
    told, other = Told(), Told(shown=RIGHT)
    shown = say(LIAR, Reveals, told.agreement, (Reveal(5, RIGHT, SALT, (), b""),))
    assert verify_case(case(TwoResults(told.reveals, shown))).kind == "two_results"
    with pytest.raises(PeerViolation):  # of two agreements: each has an attempt 5
        verify_case(case(TwoResults(told.reveals, other.reveals)))


def nothings():
    honest, told, tolerant = Told(RIGHT, RIGHT), Told(), Told(device_class="cuda:sm_90")
    framed = Told(by=OTHER)
    return {
        "an honest opening": (BadOpening(honest.commits, honest.reveals, 5), LIAR.key),
        "the same answer twice": (TwoResults(honest.commits, honest.commits_to(RIGHT)), LIAR.key),
        "answers to two attempts": (TwoResults(told.commits, told.commits_to(RIGHT, attempt=6)), LIAR.key),
        "answers under two agreements": (
            TwoResults(told.commits, told.commits_to(RIGHT, agreement=honest.agreement)),
            LIAR.key,
        ),
        "a commitment beside a reveal": (TwoResults(told.commits, told.reveals), LIAR.key),
        "another's lie": (TwoResults(framed.commits, framed.commits_to(RIGHT)), LIAR.key),
        "one of two by another": (TwoResults(told.commits, framed.commits_to(RIGHT)), LIAR.key),
        "no attempt of that number": (BadOpening(told.commits, told.reveals, 6), LIAR.key),
        "an opening under another agreement": (BadOpening(told.commits, honest.reveals, 5), LIAR.key),
        "a right result": (honest.wrong(), LIAR.key),
        "a class without defined bits": (tolerant.wrong(), LIAR.key),
        "another work": (told.wrong(work=1), LIAR.key),
        "another program": (told.wrong(body=replace(BODY, program=b"x" * 32)), LIAR.key),
        "a bid of another agreement": (told.wrong(bid=honest.bid, award=honest.award), LIAR.key),
        "a bid by another": (told.wrong(bid=framed.bid, award=framed.award), LIAR.key),
        "bytes that the work does not name": (told.wrong(blobs=(PROGRAM, b"else")), LIAR.key),
        "too many bytes": (told.wrong(blobs=(PROGRAM, bytes(BLOBS_BYTES_MAX))), LIAR.key),
        "a wrong result that is not opened": (Told(RIGHT, WRONG).wrong(), LIAR.key),
        "runs that agree": (Fork(run(LIAR, b"a" * 32), run(LIAR, b"a" * 32, b"b" * 32)), LIAR.key),
        "runs of two logs": (Fork(run(LIAR, b"a" * 32), run(OTHER, b"b" * 32)), LIAR.key),
        "a restart between two runs": (
            Fork(run(LIAR, b"a" * 32, epoch=10), run(LIAR, b"b" * 32, epoch=LIAR.next())),
            LIAR.key,
        ),
    }


@pytest.mark.parametrize("name", nothings())
def test_what_proves_nothing(name):
    proof, accused = nothings()[name]
    with pytest.raises(PeerViolation):
        verify_case(case(proof, accused), NETWORK, execute)


def test_an_old_log_written_on_is_a_fork():
    old, new = LIAR.next(), LIAR.next()
    later = run(LIAR, b"b" * 32, epoch=new)
    assert verify_case(case(Fork(run(LIAR, b"a" * 32, epoch=old), later))).kind == "fork"


def test_a_wrong_result_is_believed_only_where_it_can_be_run_again():
    data = case(Told().wrong())
    for runner in (None, lambda body, task, blobs: None):
        with pytest.raises(NotHereError):
            verify_case(data, NETWORK, runner)


def test_a_case_that_holds_too_little_to_be_run_again_says_so():
    with pytest.raises(NotHereError) as caught:
        verify_case(case(Told().wrong(blobs=())), NETWORK, None)
    assert "it takes the program and all inputs, and 2 of them are not in the case" in str(caught.value)
    with pytest.raises(NotHereError) as caught:
        verify_case(case(Told().wrong()), NETWORK, None)
    assert "are not in the case" not in str(caught.value)


def test_the_network_counts():
    data = case(proofs()["fork"])
    with pytest.raises(PeerViolation, match="another network"):
        verify_case(data, "other")
    with pytest.raises(PeerViolation, match="signature"):
        verify_case(case(proofs()["fork"], network="other"), "other")


@given(st.sampled_from(sorted(proofs())), st.data())
@settings(max_examples=150, deadline=None)
def test_no_changed_bit_leaves_a_proof(kind, data):
    whole = bytearray(CASES[kind])
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PeerViolation):
        verify_case(bytes(whole), NETWORK, lambda body, task, blobs: RIGHT if body == BODY and task == 7 else None)


CASES = {kind: case(proof) for kind, proof in proofs().items()}


@given(st.binary(max_size=300))
def test_noise_is_refused(data):
    with pytest.raises(PeerViolation):
        verify_case(data)


def test_size_is_bounded():
    with pytest.raises(PeerViolation, match="more than"):
        verify_case(bytes(CASE_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="at most"):
        case(Told().wrong(blobs=(bytes(CASE_BYTES_MAX),)))


def test_golden_vectors():
    keeper = Keeper(9)
    first, second = run(keeper, b"a" * 32), run(keeper, b"b" * 32)
    assert digest(first).hex()[:16] == "cdc71e7fc87a5f02"
    assert case_digest(encode_case("net", keeper.key, Fork(first, second))).hex()[:16] == "a79598b2b6fc8f6a"
