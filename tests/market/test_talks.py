"""The two ends of a conversation, message by message: what each may say, when, and what else becomes of it."""

import pytest
from msgspec.structs import replace
from talk_pair import (
    ASKED,
    BODY,
    DIGEST,
    NAMED,
    OUTPUTS,
    PLACE,
    PROVIDER,
    REQUESTER,
    SIZES,
    SOMETHING,
    TERMS,
    Pair,
    due,
)

from depin_node.compute.jobs.job import Limits
from depin_node.compute.market import happenings as hp
from depin_node.compute.market import messages as m
from depin_node.compute.market import provider as pm
from depin_node.compute.market import requester as rm
from depin_node.compute.market.dues import RECEIPT_S
from depin_node.compute.market.lender import Quote
from depin_node.compute.market.messages import DeclineCode, EndCode, FailCode, Kind, Verdict, Want
from depin_node.compute.market.transfer import frames as data_frames
from depin_node.compute.trust.evidence import encode_case, verify_case
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import encode
from depin_node.crypto.commitment import Answer, result_root, verify_opening
from depin_node.crypto.envelope import Envelope, decode, sign, verify_signature


def test_the_whole_way_of_an_attempt():
    pair = Pair().commit()
    assert pair.take(hp.Committed).items[0][0] == 0
    pair.r.ask(0, DIGEST, Want.BYTES, pair.now)
    assert pair.to_provider() == [Kind.COMMIT_SET]
    assert pair.to_requester() == [Kind.REVEALS, Kind.DATA, Kind.DATA]
    root = result_root(output.blob for output in NAMED)
    revealed, delivered = pair.heard
    assert revealed == hp.Revealed([(0, root)])
    assert (delivered.root, [bytes(output) for output in delivered.outputs]) == (root, OUTPUTS)
    pair.heard.clear()
    assert pair.r.release(0, Verdict.ACCEPTED, pair.now) == []
    pair.heard += pair.r.close_work(0, "quorum 1 of 1", pair.now)
    stored = pair.take(hp.StoreReceipt)
    pair.r.send_receipt(stored)
    assert pair.to_provider() == [Kind.RELEASE, Kind.CANCEL, Kind.RECEIPT]
    assert [type(order) for order in pair.ordered] == [pm.Free, pm.Forget, pm.StoreReceipt]
    pair.p.send_countersign(pair.take(pm.StoreReceipt))
    assert pair.to_requester() == [Kind.COUNTERSIGN]
    assert pair.take(hp.StoreCountersign).receipt == stored.receipt
    receipt = verify_signature(stored.envelope, m.Receipt, "net").payload
    key = pair.pens[0].receipt_key(BODY.job)
    output = m.keyed_output(key, root)
    assert receipt.settled == (m.Settled(0, 7, receipt.settled[0].commitment, output, Verdict.ACCEPTED, 55),)
    assert (receipt.inputs, receipt.device_class) == (m.keyed_inputs(key, BODY), "wasm-1")
    assert (receipt.final, receipt.verified_by) == (True, "quorum 1 of 1")


def test_evidence_shows_a_third_party_who_answered_what_to_which_program():
    pair = Pair().reveal()
    evidence = pair.r.evidence(0)
    commits = verify_signature(evidence.commits, m.Commits, "net")
    reveals = verify_signature(evidence.reveals, m.Reveals, "net")
    assert commits.sender == reveals.sender == PROVIDER.key
    assert commits.payload.work == evidence.work
    assert evidence.work == m.work_id(evidence.agreement, 0, BODY)
    (commit,), (reveal,) = commits.payload.commits, reveals.payload.reveals
    answer = Answer("net", evidence.work, evidence.task, m.attempt_bytes(evidence.attempt), PROVIDER.key)
    verify_opening(commit.commitment, answer, reveal.root, reveal.salt)
    with pytest.raises(PeerViolation):
        verify_opening(commit.commitment, replace_task(answer), reveal.root, reveal.salt)


def replace_task(answer):
    return Answer(answer.network, answer.agreement, answer.task + 1, answer.attempt, answer.peer)


def test_bytes_can_be_asked_for_later_and_again():
    pair = Pair().reveal(upload=False)
    assert [type(event) for event in pair.heard] == [hp.Revealed]
    for _ in range(2):
        pair.heard.clear()
        pair.r.ask_upload(0, pair.now)
        assert pair.to_provider() == [Kind.UPLOAD]
        assert pair.to_requester() == [Kind.REVEALS, Kind.DATA, Kind.DATA]
        assert [bytes(output) for output in pair.take(hp.Delivered).outputs] == OUTPUTS


def test_answers_wait_for_company_as_long_as_more_of_their_work_are_to_run():
    pair = Pair(window_max=8).work(1, 2, 3, 5)
    pair.p.finished(0, NAMED, 55)
    assert pair.p.has_output()
    assert not pair.p.is_urgent()
    pair.to_requester()
    pair.r.ask(0, DIGEST, Want.ROOT, pair.now)
    pair.to_provider()
    assert pair.p.has_output()
    assert not pair.p.is_urgent()
    pair.p.finished(1, NAMED, 55)
    assert pair.p.is_urgent()  # as much to tell as there is to come
    assert pair.to_requester() == [Kind.COMMITS, Kind.REVEALS]


def test_the_last_answer_of_a_work_does_not_wait_for_those_of_others():
    pair = Pair(window_max=8).work(1, 2, 3, 5)
    pair.r.open_work(1, BODY, b"grant", lambda task: SIZES, pair.prices, pair.now)
    pair.r.assign(1, 4, [4], pair.now)
    pair.to_provider()
    pair.p.finished(4, NAMED, 55)
    assert pair.p.is_urgent()
    pair.to_requester()
    pair.r.ask(4, DIGEST, Want.ROOT, pair.now)
    pair.to_provider()
    assert pair.p.is_urgent()
    assert pair.to_requester() == [Kind.REVEALS]
    pair.p.finished(0, NAMED, 55)
    assert not pair.p.is_urgent()


def staying():
    pair = Pair().commit()
    pair.r.ask(0, DIGEST, Want.STAY, pair.now)
    assert pair.to_provider() == [Kind.COMMIT_SET]
    assert pair.take(pm.Keep).attempts == [0]
    assert not pair.p.has_output()  # nothing is shown before it is put away
    pair.heard.clear()
    return pair


def test_bytes_that_stay_are_named_once_they_are_put_away():
    pair = staying()
    pair.p.kept(0, is_here=True)
    assert pair.to_requester() == [Kind.REVEALS]
    root = result_root(output.blob for output in NAMED)
    assert pair.heard == [
        hp.Stayed(0, root, tuple(output.blob for output in NAMED)),
        hp.Revealed([(0, root)]),
    ]
    pair.r.ask_upload(0, pair.now)  # they can be had all the same
    pair.heard.clear()
    pair.to_provider()
    assert pair.to_requester() == [Kind.REVEALS, Kind.DATA, Kind.DATA]
    assert [bytes(output) for output in pair.take(hp.Delivered).outputs] == OUTPUTS


def test_a_provider_without_room_shows_its_answer_and_keeps_nothing():
    pair = staying()
    pair.p.kept(0, is_here=False)
    pair.to_requester()
    assert [type(event) for event in pair.heard] == [hp.Revealed]


@pytest.mark.parametrize("outputs", [NAMED[:1], (replace(NAMED[0], size_bytes=1), *NAMED[1:])])
def test_what_stays_must_be_what_was_committed_to(outputs):
    pair = staying()
    root = result_root(output.blob for output in NAMED)
    with pytest.raises(PeerViolation):
        pair.provider_says(m.Reveals, pair.r.agreement, (m.Reveal(0, root, pair.p._attempts[0].salt, outputs, b""),))


def test_an_answer_that_was_released_while_it_was_put_away_is_not_shown():
    pair = staying()
    pair.r.release(0, None, pair.now)
    pair.to_provider()
    pair.p.kept(0, is_here=True)
    assert pair.to_requester() == []


def test_what_a_task_printed_comes_with_its_bytes_and_only_then():
    pair = Pair().work()
    pair.p.finished(0, NAMED, 1, b"x" * (m.LOG_BYTES_MAX + 1))
    pair.to_requester()
    pair.r.ask(0, DIGEST, Want.ROOT, pair.now)
    pair.to_provider()
    pair.heard.clear()
    pair.to_requester()
    assert [type(event) for event in pair.heard] == [hp.Revealed]
    assert b"xxxx" not in pair.r.evidence(0).reveals
    pair.r.ask_upload(0, pair.now)
    pair.to_provider()
    pair.to_requester()
    assert pair.take(hp.Delivered).log == b"x" * m.LOG_BYTES_MAX


def test_many_logs_share_no_message_that_they_do_not_fit():
    pair = Pair(window_max=1000).agree()
    pair.r.open_work(0, BODY, b"", lambda task: SIZES, pair.prices, pair.now)
    pair.r.assign(0, 0, [n % 50 for n in range(100)], pair.now)
    pair.to_provider()
    for attempt in range(100):
        pair.p.finished(attempt, NAMED, 1, b"%d" % attempt * 4000)
    pair.to_requester()
    for attempt in range(100):
        pair.r.ask(attempt, DIGEST, Want.BYTES, pair.now)
    pair.to_provider()
    while pair.to_requester():
        pass
    logs = [event.log for event in pair.heard if isinstance(event, hp.Delivered)]
    assert logs == [(b"%d" % attempt * 4000)[: m.LOG_BYTES_MAX] for attempt in range(100)]


def test_a_log_that_was_not_asked_for_is_a_violation():
    pair = Pair().commit()
    pair.r.ask(0, DIGEST, Want.ROOT, pair.now)
    root = result_root(output.blob for output in NAMED)
    salt = pair.p._attempts[0].salt
    with pytest.raises(PeerViolation, match="not asked for"):
        pair.provider_says(m.Reveals, pair.r.agreement, (m.Reveal(0, root, salt, (), b"x"),))


def test_an_answer_that_was_shown_is_paid_even_if_its_bytes_were_asked_for_once_more():
    pair = Pair().reveal(upload=False)
    pair.r.ask_upload(0, pair.now)
    pair.to_provider()
    pair.heard.clear()
    pair.r.release(0, Verdict.UNUSED, pair.now)  # the job was cancelled meanwhile
    pair.heard += pair.r.close_work(0, "", pair.now)
    pair.r.send_receipt(pair.take(hp.StoreReceipt))
    assert pair.to_provider() == [Kind.RELEASE, Kind.CANCEL, Kind.RECEIPT]
    assert isinstance(pair.ordered[-1], pm.StoreReceipt)


def test_many_attempts_share_messages_of_128():
    pair = Pair(window_max=1000).agree()
    pair.r.open_work(0, BODY, b"", lambda task: SIZES, pair.prices, pair.now)
    pair.r.assign(0, 0, [n % 50 for n in range(300)], pair.now)
    assert pair.to_provider() == [Kind.WORK, Kind.TASKS]
    assert [len(order.items) for order in pair.ordered if isinstance(order, pm.Run)] == [128]
    assert pair.to_provider() == [Kind.TASKS]
    assert pair.to_provider() == [Kind.TASKS]
    for attempt in range(300):
        pair.p.finished(attempt, NAMED, 1)
    while pair.to_requester():
        pass
    assert sum(len(event.items) for event in pair.heard if isinstance(event, hp.Committed)) == 300


def test_what_was_never_sent_needs_no_release():
    pair = Pair().agree()
    pair.r.open_work(0, BODY, b"", lambda task: SIZES, pair.prices, pair.now)
    pair.r.assign(0, 0, [1, 2, 3], pair.now)
    pair.r.release(1, None, pair.now)
    assert pair.to_provider() == [Kind.WORK, Kind.TASKS]
    assert pair.to_provider() == [Kind.TASKS]
    assert [order.items for order in pair.ordered if isinstance(order, pm.Run)] == [[(0, 1)], [(2, 3)]]


@pytest.mark.parametrize("finished", [False, True])
def test_what_crosses_a_release_is_ignored(finished):
    pair = Pair().work()
    if finished:
        pair.p.finished(0, NAMED, 1)
    else:
        pair.p.failed(0, FailCode.CRASHED, pair.now)
    pair.heard.clear()
    pair.r.release(0, None, pair.now)
    pair.to_requester()  # it was on its way
    assert pair.heard == []
    assert pair.to_provider() == [Kind.RELEASE]
    pair.p.finished(0, NAMED, 1)  # a worker that was not stopped in time
    pair.p.failed(0, FailCode.CRASHED, pair.now)
    assert pair.to_requester() == []


def test_a_late_commitment_is_void():
    pair = Pair().work(7, 8)
    pair.r.release(0, None, pair.now)  # replaced elsewhere, its set is sealed
    pair.p.finished(0, NAMED, 1)
    pair.p.finished(1, NAMED, 1)
    pair.heard.clear()
    pair.to_requester()
    assert pair.heard == [hp.Priced(BODY.job, 1), hp.Committed([(1, pair.r._attempts[1].commitment, 1)])]


def test_a_decline_carries_its_code_and_ends_the_talk():
    pair = Pair()
    pair.lender.withdraw(0)
    pair.r.propose(TERMS, 0, 3600, pair.now)
    pair.to_provider()
    assert pair.to_requester() == [Kind.DECLINE]
    assert pair.heard == [hp.Declined("not_lending")]


def test_an_award_may_be_declined_as_busy():
    pair = Pair().bid()

    class Other:
        def is_idle(self):
            return False

    pair.lender.take(Other(), "elsewhere", Quote("wasm-1", 4, 2, 0, 60, (0,)))
    pair.r.stored(pair.now)
    pair.to_provider()
    assert pair.to_requester() == [Kind.DECLINE]
    assert pair.heard[-1] == hp.Declined("busy")


OFFER = (TERMS, 0, 60)
BID = (b"o" * 32, "wasm-1", 4, 2, 0, 60, 1000)
WORK = SOMETHING  # the id of no work

PROVIDER_MAY_NOT = {
    "bid before an offer": (Pair, m.Bid, BID),
    "bid for another offer": (lambda: proposed(Pair()), m.Bid, BID),
    "accept before an award": (lambda: proposed(Pair()), m.Accept, (SOMETHING,)),
    "accept another agreement": (lambda: Pair().bid(), m.Accept, (SOMETHING,)),
    "decline something else": (lambda: Pair().bid(), m.Decline, (SOMETHING, DeclineCode.BUSY)),
    "bid twice": (lambda: Pair().bid(), m.Bid, BID),
    "commit without an agreement": (Pair, m.Commits, (SOMETHING, WORK, (m.Commit(0, 7, SOMETHING, 1),), ())),
    "commit under another agreement": (
        lambda: Pair().work(),
        m.Commits,
        (SOMETHING, WORK, (m.Commit(0, 7, SOMETHING, 1),), ()),
    ),
    "countersign nothing": (lambda: Pair().work(), m.Countersign, (SOMETHING, m.Meters(1, 0, 0, ""), PLACE)),
    "offer": (Pair, m.Offer, OFFER),
}


def proposed(pair):
    pair.r.propose(TERMS, 0, 3600, pair.now)
    pair.to_provider()
    return pair


@pytest.mark.parametrize("name", PROVIDER_MAY_NOT)
def test_a_provider_may_not(name):
    make, kind, fields = PROVIDER_MAY_NOT[name]
    with pytest.raises(PeerViolation):
        make().provider_says(kind, *fields)


REVEAL = m.Reveal(0, SOMETHING, SOMETHING, (), b"")
ABOUT_ATTEMPTS = {
    "commit twice": ("commit", m.Commits, (WORK, (m.Commit(0, 7, SOMETHING, 1),), ())),
    "fail after committing": ("commit", m.Commits, (WORK, (), (m.Failure(0, FailCode.TRAPPED),))),
    "commit what was never asked": ("work", m.Commits, (WORK, (m.Commit(9, 7, SOMETHING, 1),), ())),
    "commit nothing": ("work", m.Commits, (WORK, (), ())),
    "commit to another work": ("work", m.Commits, (WORK, (m.Commit(0, 7, SOMETHING, 1),), ())),
    "reveal unasked": ("commit", m.Reveals, ((REVEAL,),)),
    "reveal twice": ("reveal", m.Reveals, ((REVEAL,),)),
    "reveal what was never asked": ("work", m.Reveals, ((replace(REVEAL, attempt=9),),)),
}


@pytest.mark.parametrize("name", ABOUT_ATTEMPTS)
def test_a_provider_may_not_say_of_an_attempt(name):
    stage, kind, fields = ABOUT_ATTEMPTS[name]
    pair = getattr(Pair(), stage)()
    with pytest.raises(PeerViolation):
        pair.provider_says(kind, pair.r.agreement, *fields)


def asked():
    pair = Pair().commit()
    pair.r.ask(0, DIGEST, Want.BYTES, pair.now)
    pair.to_provider()
    (_, body), *_ = pair.p.drain(pair.now)
    (true,) = verify_signature(body, m.Reveals, "net").payload.reveals
    return pair, true


def test_an_opening_that_misses_its_commitment_is_a_proven_lie():
    pair, true = asked()
    with pytest.raises(rm.ProvenLie) as caught:
        pair.provider_says(m.Reveals, pair.r.agreement, (replace(true, root=SOMETHING),))
    evidence = caught.value.evidence
    assert verify_signature(evidence.commits, m.Commits, "net").sender == PROVIDER.key
    (reveal,) = verify_signature(evidence.reveals, m.Reveals, "net").payload.reveals
    assert reveal.root == SOMETHING
    case = encode_case("net", PROVIDER.key, caught.value.proof)
    assert verify_case(case, "net").kind == "bad_opening"


def test_two_commitments_to_one_attempt_are_a_proven_lie():
    pair = Pair().commit()
    work = pair.r._attempts[0].work.id
    with pytest.raises(rm.ProvenLie) as caught:
        pair.provider_says(m.Commits, pair.r.agreement, work, (m.Commit(0, 7, SOMETHING, 1),), ())
    assert verify_case(encode_case("net", PROVIDER.key, caught.value.proof)).accused == PROVIDER.key


def test_a_second_root_for_one_attempt_is_a_proven_lie():
    pair = Pair().reveal(upload=False)
    pair.r.ask_upload(0, pair.now)
    pair.to_provider()
    (_, body), *_ = pair.p.drain(pair.now)
    (true,) = verify_signature(body, m.Reveals, "net").payload.reveals
    with pytest.raises(rm.ProvenLie) as caught:
        pair.provider_says(m.Reveals, pair.r.agreement, (replace(true, root=SOMETHING),))
    assert verify_case(encode_case("net", PROVIDER.key, caught.value.proof)).kind == "two_results"


@pytest.mark.parametrize(
    "outputs",
    [(), NAMED[:2], (NAMED[0], NAMED[0], NAMED[2]), tuple(replace(output, size_bytes=1 << 30) for output in NAMED)],
    ids=["none", "too few", "others", "too large"],
)
def test_outputs_have_to_be_those_of_the_root(outputs):
    pair, true = asked()
    with pytest.raises(PeerViolation):
        pair.provider_says(m.Reveals, pair.r.agreement, (replace(true, outputs=outputs),))


def test_a_bid_may_not_ask_for_more_than_was_offered():
    for change in ({"price": 5}, {"device_class": "cuda"}):
        pair = proposed(Pair())
        (_, body), *_ = pair.p.drain(pair.now)
        bid = replace(verify_signature(body, m.Bid, "net").payload, seq=1 << 60, **change)
        with pytest.raises(PeerViolation, match="bid"):
            pair.r.receive(Kind.BID, sign(PROVIDER, "net", bid), pair.now)


BAD_DATA = {
    "short": lambda bodies: [bodies[0][:18]],
    "too long": lambda bodies: [bodies[0] + bytes(70_000)],
    "out of order": lambda bodies: [bodies[1]],
    "twice": lambda bodies: [bodies[0], bodies[0]],
    "more than announced": lambda bodies: [bodies[0] + b"!"],
    "other bytes": lambda bodies: [bodies[0][:-1] + b"!"],
    "another attempt": lambda bodies: [bytes([9]) + bodies[0][1:]],
    "after the end": lambda bodies: [*bodies, bodies[1]],
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bytes_have_to_be_the_signed_ones_in_order(name):
    pair, true = asked()
    pair.provider_says(m.Reveals, pair.r.agreement, (true,))
    bodies = [b"".join(parts) for parts in data_frames(0, [memoryview(output) for output in OUTPUTS])]

    def receive_all():
        for body in BAD_DATA[name](bodies):
            pair.r.receive(Kind.DATA, body, pair.now)

    with pytest.raises(PeerViolation):
        receive_all()


def test_bytes_that_nobody_asked_for_are_a_violation():
    pair = Pair().reveal(upload=False)
    (parts, *_) = data_frames(0, [memoryview(output) for output in OUTPUTS])
    with pytest.raises(PeerViolation):
        pair.r.receive(Kind.DATA, b"".join(parts), pair.now)


REQUESTER_MAY_NOT = {
    "award nothing": ("", m.Award, lambda pair: (SOMETHING,)),
    "award another bid": ("bid", m.Award, lambda pair: (SOMETHING,)),
    "offer under an agreement": ("agree", m.Offer, lambda pair: OFFER),
    "open work without an agreement": ("bid", m.Work, lambda pair: (SOMETHING, 0, BODY, b"", SOMETHING)),
    "open work under another agreement": ("agree", m.Work, lambda pair: (SOMETHING, 0, BODY, b"", SOMETHING)),
    "open a work twice": ("work", m.Work, lambda pair: (pair.p.agreement, 0, BODY, b"", SOMETHING)),
    "open work beyond the terms": (
        "agree",
        m.Work,
        lambda pair: (pair.p.agreement, 0, replace(BODY, terms=replace(TERMS, limits=Limits(11, 64))), b"", SOMETHING),
    ),
    "send tasks of no work": ("agree", m.Tasks, lambda pair: (pair.p.agreement, 0, 0, (1,))),
    "send tasks beyond the work": ("work", m.Tasks, lambda pair: (pair.p.agreement, 0, 5, (50,))),
    "use a number again": ("work", m.Tasks, lambda pair: (pair.p.agreement, 0, 0, (1,))),
    "overfill the window": ("work", m.Tasks, lambda pair: (pair.p.agreement, 0, 5, (1, 2, 3, 4))),
    "ask before a commitment": ("work", m.CommitSet, lambda pair: (pair.p.agreement, (ASKED,))),
    "ask twice": ("reveal", m.CommitSet, lambda pair: (pair.p.agreement, (ASKED,))),
    "ask for what never was": ("work", m.CommitSet, lambda pair: (pair.p.agreement, (replace(ASKED, attempt=9),))),
    "pay for what was not given": ("reveal", m.Receipt, lambda pair: due(pair, commitment=SOMETHING)),
    "pay for another answer": ("release", m.Receipt, lambda pair: due(pair, output=SOMETHING)),
    "pay under another agreement": ("release", m.Receipt, lambda pair: due(pair, agreement=SOMETHING)),
    "pay for another work": ("release", m.Receipt, lambda pair: due(pair, work=1)),
    "pay for other inputs": ("release", m.Receipt, lambda pair: due(pair, inputs=SOMETHING)),
    "pay for another device": ("release", m.Receipt, lambda pair: due(pair, device_class="cuda")),
    "pay another price": ("release", m.Receipt, lambda pair: due(pair, price=1)),
    "pay twice": ("settle", m.Receipt, lambda pair: due(pair)),
    "pay one task less than another": ("priced", m.Receipt, lambda pair: due(pair)),
    "end a work that is open by its receipt": ("release", m.Receipt, lambda pair: due(pair, final=True)),
    "fix a price before an answer": ("work", m.Price, lambda pair: (pair.p.agreement, 0, 55)),
    "fix two prices": ("priced", m.Price, lambda pair: (pair.p.agreement, 0, 55)),
    "fix the price of no work": ("priced", m.Price, lambda pair: (pair.p.agreement, 1, 56)),
    "send on and on without a price": ("reveal", m.Tasks, lambda pair: (pair.p.agreement, 0, 4, (1,))),
    "bid": ("", m.Bid, lambda pair: BID),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTER_MAY_NOT)
def test_a_requester_may_not(name):
    stage, kind, fields = REQUESTER_MAY_NOT[name]
    pair = getattr(Pair(), stage)() if stage else Pair()
    with pytest.raises(PeerViolation):
        pair.requester_says(kind, *fields(pair))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Kind.RELEASE, m.Release((9,))),
        (Kind.UPLOAD, m.Upload((0,))),
        (Kind.CANCEL, m.Cancel(3)),
        (Kind.PROGRESS, m.Progress(0, 0)),
    ],
)
def test_a_requester_may_not_say_unsigned(kind, message):
    pair = Pair().work()
    with pytest.raises(PeerViolation):
        pair.p.receive(kind, encode(message), pair.now)


def test_the_same_frame_twice_is_a_replay():
    pair = Pair()
    pair.r.propose(TERMS, 0, 60, pair.now)
    (frame,) = pair.r.drain(pair.now)
    pair.p.receive(*frame, pair.now)
    with pytest.raises(PeerViolation, match="replayed"):
        pair.p.receive(*frame, pair.now)


def test_after_the_end_only_receipts_count():
    pair = Pair().work()
    assert pair.p.end(EndCode.EXPIRED) == [pm.Free([0]), pm.Over("expired")]
    pair.to_requester()
    assert pair.heard[-1] == hp.Ended("expired")
    assert pair.p.receive(Kind.TASKS, b"crossed", pair.now) == []
    assert pair.r.receive(Kind.COMMITS, b"crossed", pair.now) == []
    assert pair.lender.slots_free(0) == 2


# Deadlines.


def test_nobody_waits_for_ever_for_an_answer_to_an_offer():
    pair = proposed(Pair())
    pair.at_s += rm.NEGOTIATE_S
    assert pair.r.tick(pair.now) == []
    pair.at_s += 1
    assert pair.r.tick(pair.now) == [hp.Ended("no_answer")]


def test_silence_ends_it_and_progress_does_not():
    pair = Pair().work()
    for _ in range(3):
        pair.at_s += rm.SILENCE_S - 1
        assert pair.p.tick(pair.now) == []
        assert pair.to_requester() == [Kind.PROGRESS]
        if pair.at_s < 100 + 2 * rm.GRACE_S:
            assert pair.r.tick(pair.now) == []
    pair = Pair().work()
    pair.at_s += rm.SILENCE_S + 1
    assert pair.r.tick(pair.now) == [hp.Ended("silent")]


def test_the_oldest_attempt_has_its_limit_and_some_grace():
    pair = Pair().work(1, 2)
    pair.p.finished(1, NAMED, 1)  # the younger one: the elder is still to come
    pair.to_requester()
    limit_s = TERMS.limits.seconds + rm.GRACE_S
    ended = None
    for _ in range(limit_s + 2):
        pair.at_s += 1
        pair.p.tick(pair.now)
        pair.to_requester()
        ended = pair.r.tick(pair.now)
        if ended:
            break
    assert ended == [hp.Ended("stalled")]
    assert pair.at_s == 100 + limit_s + 1


def test_who_commits_and_does_not_show_is_given_up():
    pair = Pair().commit()
    pair.r.ask(0, DIGEST, Want.ROOT, pair.now)
    for _ in range(rm.GRACE_S + 1):
        pair.at_s += 1
        pair.r.receive(Kind.PROGRESS, encode(m.Progress(1, 1)), pair.now)
        ended = pair.r.tick(pair.now)
    assert ended == [hp.Ended("stalled")]


def test_an_agreement_ends_when_idle_or_expired():
    pair = Pair().agree()
    pair.at_s += pm.IDLE_S + 1
    assert pair.p.tick(pair.now)[-1] == pm.Over("idle")
    pair = Pair().work()
    pair.at_s += 10_000
    assert pair.p.tick(pair.now)[-1] == pm.Over("expired")


def test_salts_do_not_repeat_and_tell_nothing_of_each_other():
    pair = Pair().work(1, 2)
    for attempt in (0, 1):
        pair.p.finished(attempt, NAMED, 1)
    first, second = pair.p._attempts.values()
    assert first.salt != second.salt
    assert first.commitment != second.commitment


def test_provisional_answers_get_their_verdict_later_and_once():
    pair = Pair().release()
    pair.requester_says(m.Receipt, *due(pair, verdict=Verdict.PROVISIONAL))
    first = pair.take(pm.StoreReceipt)
    assert verify_signature(first.countersign, m.Countersign, "net").payload.meters == m.Meters(0, 0, 0, "")
    pair.requester_says(m.Receipt, *due(pair, verdict=Verdict.VOID))
    second = pair.take(pm.StoreReceipt)
    assert verify_signature(second.countersign, m.Countersign, "net").payload.meters == m.Meters(55, 9, 70, "rapl")
    assert second.entry.previous == first.entry.link
    with pytest.raises(PeerViolation, match="not given"):
        pair.requester_says(m.Receipt, *due(pair))


def test_verdicts_do_not_wait_long_for_their_receipt():
    pair = Pair().release()
    assert not pair.r.tick(pair.now)
    pair.at_s += RECEIPT_S + 1
    (stored,) = pair.r.tick(pair.now)
    receipt = verify_signature(stored.envelope, m.Receipt, "net").payload
    assert (len(receipt.settled), receipt.final, receipt.verified_by) == (1, False, "")
    assert not pair.r.tick(pair.now)
    pair.r.send_receipt(stored)
    pair.to_provider()
    assert pair.take(pm.StoreReceipt).busy_us == 55
    assert pair.p.unsigned_us() == 0


def test_a_work_with_its_last_receipt_is_forgotten():
    pair = Pair().release()
    pair.p.receive(Kind.CANCEL, encode(m.Cancel(0)), pair.now)
    pair.requester_says(m.Receipt, *due(pair, final=True))
    assert pair.p._accounts.get(0) is None
    assert not pair.p._accounts._owed
    with pytest.raises(PeerViolation, match="last receipt"):
        pair.requester_says(m.Receipt, *due(pair))


def test_a_provider_has_not_run_for_longer_than_it_was_engaged():
    pair = Pair().work(7, 8)
    pair.at_s += 10
    pair.p.finished(0, NAMED, 15_000_000)
    pair.p.finished(1, NAMED, 15_000_000)
    pair.to_requester()
    believed = [item[2] for event in pair.heard if isinstance(event, hp.Committed) for item in event.items]
    assert believed == [15_000_000, 6_000_000]  # two slots, a second's grace


def test_golden_vectors():
    """One message of each type, byte for byte: a change of any is a change of the protocol."""
    commit = m.Commit(5, 7, b"c" * 32, 12)
    messages = [
        m.Offer(PROVIDER.key, 1, 2, TERMS, 3, 60),
        m.Bid(REQUESTER.key, 1, 2, DIGEST, "wasm-1", 4, 2, 0, 60, 1500),
        m.Decline(REQUESTER.key, 1, 2, DIGEST, DeclineCode.BUSY),
        m.Award(PROVIDER.key, 1, 2, DIGEST),
        m.Accept(REQUESTER.key, 1, 2, DIGEST),
        m.Work(PROVIDER.key, 1, 2, DIGEST, 0, BODY, b"grant", DIGEST),
        m.Tasks(PROVIDER.key, 1, 2, DIGEST, 0, 300, (1, 2)),
        m.Commits(REQUESTER.key, 1, 2, DIGEST, DIGEST, (commit,), (m.Failure(6, FailCode.TRAPPED),)),
        m.Price(PROVIDER.key, 1, 2, DIGEST, 3, 1234),
        m.CommitSet(PROVIDER.key, 1, 2, DIGEST, (m.SetEntry(5, DIGEST, Want.BYTES),)),
        m.Reveals(REQUESTER.key, 1, 2, DIGEST, (m.Reveal(5, DIGEST, DIGEST, NAMED[:1], b"7\n"),)),
        m.Receipt(
            PROVIDER.key, 1, 2, DIGEST, 0, DIGEST, DIGEST, "wasm-1",
            (m.Settled(5, 7, DIGEST, DIGEST, Verdict.ACCEPTED, 12),), 0, True, "quorum 2 of 3", PLACE,
        ),
        m.Countersign(REQUESTER.key, 1, 2, DIGEST, m.Meters(12, 34, 7, "rapl"), PLACE),
    ]  # fmt: skip
    found = {}
    for message in messages:
        envelope = sign(PROVIDER if message.to == REQUESTER.key else REQUESTER, "net", message)
        assert decode(envelope, Envelope, size_bytes_max=1 << 16).payload == encode(message)
        assert verify_signature(envelope, type(message), "net").payload == message
        found[message.TYPE] = m.digest(envelope).hex()[:16]
    assert found == GOLDEN


GOLDEN = {
    "offer": "a524a052cb0b427c",
    "bid": "8a8ded1486fed475",
    "decline": "e4ffcb6ea8f971e6",
    "award": "ea190553f9295450",
    "accept": "ec6437a0c9113016",
    "work": "a47fa1183decf272",
    "tasks": "eaa5406e5619f491",
    "commits": "a8f2233deec33b50",
    "price": "254a91cfe7dd0f77",
    "commit_set": "ccc4e53239333d3a",
    "reveals": "9edc85e2f9c00e7e",
    "receipt": "6681923c43611bc9",
    "countersign": "1ddc6ff591e26d1f",
}
