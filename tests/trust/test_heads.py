"""Forks are proven from what two partners have seen; nodes that crash or are restored are never taken for forkers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from ledgers import NETWORK, Keeper

from depin_node.compute.trust.evidence import Fork, encode_case, verify_case
from depin_node.compute.trust.heads import HAVES_MAX, LINKS_MAX, RUNS_MAX, Run, Step, Witness, conflict, links
from depin_node.core.errors import PeerViolation
from depin_node.crypto.envelope import sign, verify_signature


def work(node, entries=1):
    """Have a node work for somebody."""
    for _ in range(entries):
        Keeper(200).pay(node)


def read(run):
    return verify_signature(run, Run, NETWORK)


def contradiction(one, other):
    """Compare all that two witnesses have seen of one log."""
    for run in other._runs:
        forked = one.contradiction(run)
        if forked:
            return forked
    return None


class Honest(RuleBasedStateMachine):
    """A node works for anybody, crashes, and is restored from backups; three partners look at its log now and then."""

    @initialize()
    def begin(self):
        self.node = Keeper(1)
        self.witnesses = [Witness(self.node.key, NETWORK) for _ in range(3)]
        self.backups = [self.node.backup()]

    @rule(entries=st.integers(1, 6))
    def works(self, entries):
        work(self.node, entries)

    @rule()
    def restarts(self):
        self.node.restart()

    @rule(entries=st.integers(1, 3))
    def loses_what_it_was_writing(self, entries):
        """Signed, never stored, never sent: a crash, or a full disk."""
        lost = [self.node.log.add(bytes([number]) * 32) for number in range(entries)]
        self.node.log.note_lost(lost[0], self.node.next())
        assert not self.node.log.note_stored(lost[-1])

    @rule()
    def is_backed_up(self):
        self.backups.append(self.node.backup())

    @rule(data=st.data())
    def is_restored(self, data):
        self.node.restore(data.draw(st.sampled_from(self.backups)))

    @rule(who=st.integers(0, 2))
    def is_looked_at(self, who):
        assert self.node.shown_to(self.witnesses[who]) is None

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def partners_compare(self, one, other):
        assert contradiction(self.witnesses[one], self.witnesses[other]) is None

    @rule(who=st.integers(0, 2))
    def a_partner_restarts(self, who):
        runs = [run.data for run in self.witnesses[who]._runs]
        again = Witness(self.node.key, NETWORK, runs)
        assert again.haves() == self.witnesses[who].haves()
        self.witnesses[who] = again


TestHonest = Honest.TestCase
TestHonest.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(
    before=st.integers(0, 6),
    ours=st.integers(1, 6),
    theirs=st.integers(1, 6),
    looked=st.booleans(),
    restarts=st.sampled_from(["neither", "one", "both"]),
)
@settings(max_examples=60, deadline=None)
def test_a_fork_is_proven_from_two_partners_views(before, ours, theirs, looked, restarts):
    """The forker keeps two logs from some entry on, one for each partner, and goes on with both."""
    one, other = Keeper(1), Keeper(1)
    a, b = Witness(one.key, NETWORK), Witness(one.key, NETWORK)
    work(one, before)
    other.restore(one.backup())
    other.log.epoch = one.log.epoch  # an honest node would have begun a new one
    other.seq = one.seq + 1000
    looked = looked and before > 0  # of an empty log there is nothing to see
    if looked:
        assert one.shown_to(a) is None
        assert one.shown_to(b) is None
    if restarts in ("one", "both"):
        one.restart()
    if restarts == "both":
        other.restart()
    work(one, ours)
    work(other, theirs)
    assert one.shown_to(a) is None
    assert other.shown_to(b) is None
    if not looked:  # who began to look later than the fork was made sees it once both logs are past that point
        work(other, ours + 4)
        assert other.shown_to(b) is None
    one.seq = other.seq + 1000  # it goes on with the first
    work(one, 1 if looked else theirs + 4)
    assert one.shown_to(a) is None
    forked = contradiction(a, b)
    assert forked is not None
    data = encode_case(NETWORK, one.key, Fork(*forked))
    assert verify_case(data, NETWORK).accused == one.key  # anybody can see it
    assert contradiction(b, a) is not None


def test_one_partner_that_is_shown_both_sees_it_at_once():
    node = Keeper(1)
    witness = Witness(node.key, NETWORK)
    work(node)
    backup, epoch = node.backup(), node.log.epoch
    work(node)
    assert node.shown_to(witness) is None
    node.restore(backup)
    node.log.epoch = epoch
    work(node)
    assert node.shown_to(witness) is not None


def test_a_restored_node_shows_a_branch():
    node = Keeper(1)
    witness = Witness(node.key, NETWORK)
    work(node)
    backup = node.backup()
    work(node)
    assert node.shown_to(witness) is None
    node.restore(backup)
    assert node.shown_to(witness) is None
    assert witness.branches == 0  # nothing new was signed yet
    work(node)
    assert node.shown_to(witness) is None
    assert witness.branches == 1


def test_what_is_refused_and_what_is_nothing_new():
    node, stranger = Keeper(1), Keeper(2)
    witness = Witness(node.key, NETWORK)
    work(node, 6)
    work(stranger, 6)
    run = node.show(())
    assert witness.take(run) == (True, None)
    assert witness.take(run) == (False, None)
    with pytest.raises(PeerViolation, match="another's"):
        witness.take(stranger.show(()))
    loose = sign(node.identity, NETWORK, Run(b"", 1, 9**9, node.log.epoch, 3, b"?" * 32, (Step(1, b"d" * 32),), False))
    with pytest.raises(PeerViolation, match="does not follow"):
        witness.take(loose)
    with pytest.raises(PeerViolation, match="signature"):
        witness.take(run[:-1] + bytes([run[-1] ^ 1]))
    assert not conflict(read(run), read(stranger.show(())))


def test_it_is_bounded():
    node = Keeper(1)
    witness = Witness(node.key, NETWORK)
    previous, first = bytes(32), 0
    for number in range(2 * RUNS_MAX):
        steps = tuple(Step(1, bytes([number, at]) * 16) for at in range(100))
        run = sign(node.identity, NETWORK, Run(b"", 1, 2 + number, 1, first, previous, steps, True))
        assert witness.take(run) == (True, None)
        previous, first = list(links(read(run).payload))[-1].link, first + 100
    assert len(witness._runs) == RUNS_MAX
    assert len(witness._links) <= LINKS_MAX
    assert len(witness.haves()) <= HAVES_MAX
    assert witness.haves()[0] == previous
