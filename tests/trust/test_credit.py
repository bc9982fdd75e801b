import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledgers import Keeper

from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.statements import put_countersign, put_receipt, put_tally
from depin_node.compute.market.messages import Receipt, Verdict, digest
from depin_node.compute.trust.credit import (
    SECOND_US,
    UNPAID_SHARE,
    UNSIGNED_HALF_LIFE_S,
    UNSIGNED_US_MAX,
    WINDOW_S,
    Credit,
    Refusal,
)
from depin_node.compute.trust.receipts import busy_us
from depin_node.core.clock import SECOND_NS, Now
from depin_node.crypto.envelope import verify_signature

A, B = b"a" * 32, b"b" * 32
DAY_US = int(UNPAID_SHARE * WINDOW_S * SECOND_US)


def at(seconds, booted_s=1_000_000):
    return Now(int(seconds * SECOND_NS), int((booted_s + seconds) * SECOND_NS))


def lender(slots=1, share=UNPAID_SHARE, listed=()):
    credit = Credit((), (), at(0), listed=listed)
    credit.lend(slots, share)
    return credit


def test_strangers_together_get_their_share_and_no_more():
    credit = lender()
    assert credit.left_us(at(0)) == DAY_US  # a day's worth, at once
    for number in range(10):  # identities are free
        credit.ran(bytes([number]) * 32, DAY_US // 10, at(0))
    assert credit.refusal(b"x" * 32, at(0)) is Refusal.CREDIT
    assert credit.refusal(b"x" * 32, at(10)) is None
    credit.ran(A, 2 * SECOND_US, at(10))
    assert credit.refusal(A, at(10)) is Refusal.CREDIT
    assert credit.left_us(at(3 * WINDOW_S)) == DAY_US  # what was not drawn for long is gone


def test_credit_grows_with_what_both_have_done():
    credit = lender()
    credit.ran(B, 2 * DAY_US, at(0))  # nothing is left for strangers
    credit.gave(A, 100)
    assert credit.refusal(A, at(0)) is Refusal.CREDIT
    credit.received(A, 60)
    assert credit.refusal(A, at(0)) is None  # its debt is 40, its limit 60
    credit.gave(A, 20)
    assert credit.refusal(A, at(0)) is Refusal.CREDIT
    credit.received(A, 1000)
    credit.ran(A, 10**9, at(0))  # on credit: not from the strangers' share
    assert credit.left_us(at(0)) == -DAY_US


def test_who_only_borrows_lives_on_the_share():
    credit = lender()
    credit.gave(A, 10**12)
    assert credit.refusal(A, at(0)) is None
    credit.ran(A, DAY_US, at(0))
    assert credit.refusal(A, at(0)) is Refusal.CREDIT


def test_who_does_not_sign_finds_no_taker_for_a_while():
    credit = lender()
    credit.unsigned(A, UNSIGNED_US_MAX, at(0))
    assert credit.refusal(A, at(0)) is None
    credit.unsigned(A, SECOND_US, at(0))
    assert credit.refusal(A, at(0)) is Refusal.UNSIGNED
    assert credit.refusal(A, at(UNSIGNED_HALF_LIFE_S)) is None
    credit.unsigned(B, 5 * UNSIGNED_US_MAX, at(0))
    credit.gave(B, 51 * UNSIGNED_US_MAX)
    assert credit.refusal(B, at(0)) is None  # a tenth of what it signs for is borne


def test_the_operator_may_trust_and_may_give_without_limit():
    credit = lender(listed=[A])
    credit.ran(B, DAY_US, at(0))
    credit.unsigned(A, 10**12, at(0))
    credit.ran(A, 10**12, at(0))
    assert credit.refusal(A, at(0)) is None
    assert credit.left_us(at(0)) == 0
    generous = lender(share=1)
    generous.ran(A, 10**15, at(0))
    assert generous.refusal(A, at(0)) is None
    miser = lender(share=0)
    assert miser.refusal(A, at(10**6)) is Refusal.CREDIT


def test_a_restart_gives_strangers_nothing(tmp_path):
    journal = Journal(tmp_path / "journal")
    credit = lender()
    credit.ran(A, DAY_US, at(0))
    credit.unsigned(B, 2 * UNSIGNED_US_MAX, at(0))
    journal.apply([put_tally(tally) for tally in credit.changes(at(0))])
    assert not credit.changes(at(0))
    again = Credit(journal.balances(), journal.tallies(), at(5, booted_s=1_000_000))
    again.lend(1, UNPAID_SHARE)
    assert again.left_us(at(5)) == pytest.approx(5 * UNPAID_SHARE * SECOND_US)
    assert again.refusal(B, at(5)) is Refusal.UNSIGNED
    journal.close()


class Accounts(RuleBasedStateMachine):
    """One node keeps its accounts with two partners through crashes: what the journal confirmed counts once, however
    often it is written, and nothing else does."""

    def __init__(self):
        super().__init__()
        self.node, self.partners = Keeper(1), [Keeper(2), Keeper(3)]
        self.journal = Journal(":memory:")
        self.credit = Credit((), (), at(0))
        self.given, self.received = [0, 0], [0, 0]
        self.writes = []
        self.open = []

    @rule(who=st.integers(0, 1), verdicts=st.lists(st.sampled_from(Verdict), min_size=1, max_size=4))
    def lends(self, who, verdicts):
        self.partners[who].pay(self.node, verdicts)
        record = self.node.records[-1]
        amount = self.amount(record.receipt, verdicts)
        name = digest(record.receipt)
        write = put_receipt(
            name, "provider", self.partners[who].key, name, record.receipt, record.countersign, 1, amount
        )
        self.journal.apply([write])
        self.writes.append(write)
        self.credit.gave(self.partners[who].key, amount)
        self.given[who] += amount

    @rule(who=st.integers(0, 1), verdicts=st.lists(st.sampled_from(Verdict), min_size=1, max_size=4))
    def borrows(self, who, verdicts):
        self.node.pay(self.partners[who], verdicts)
        record = self.node.records[-1]
        amount = self.amount(record.receipt, verdicts)
        name = digest(record.receipt)
        write = put_receipt(name, "requester", self.partners[who].key, name, record.receipt, None, 1, amount)
        self.journal.apply([write])
        self.writes.append(write)
        self.open.append((who, name, record.countersign, amount))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def is_confirmed(self, data):
        who, name, countersign, amount = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        write = put_countersign(name, countersign)
        self.journal.apply([write])
        self.writes.append(write)
        self.credit.received(self.partners[who].key, amount)
        self.received[who] += amount

    @precondition(lambda self: self.writes)
    @rule(data=st.data())
    def writes_once_more(self, data):
        """As after a crash between a transaction and its acknowledgement."""
        self.journal.apply([data.draw(st.sampled_from(self.writes))])

    @rule()
    def crashes(self):
        self.credit = Credit(self.journal.balances(), self.journal.tallies(), at(0))

    def amount(self, envelope, verdicts):
        receipt = verify_signature(envelope, Receipt, "net").payload
        assert busy_us(receipt) == 1000 * sum(verdict in (Verdict.ACCEPTED, Verdict.UNUSED) for verdict in verdicts)
        return busy_us(receipt)

    @invariant()
    def every_receipt_counts_once(self):
        accounts = dict(self.credit.accounts(at(0)))
        for who, partner in enumerate(self.partners):
            account = accounts.get(partner.key)
            counted = (account.given_us, account.received_us) if account else (0, 0)
            assert counted == (self.given[who], self.received[who])

    def teardown(self):
        self.journal.close()


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
