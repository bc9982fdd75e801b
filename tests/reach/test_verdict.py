"""What peers say becomes a verdict, an address, a kind of NAT, and places at relays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.p2p.reach.messages import Answer, Outcome
from depin_node.p2p.reach.verdict import (
    Ask,
    Came,
    Changed,
    Effect,
    Event,
    Listens,
    Nat,
    NotPlaced,
    Placed,
    Reachability,
    ReachConfig,
    Reserve,
    Seen,
    Tick,
    Unseen,
    Verdict,
    Went,
)

INSIDE, OUTSIDE, PORT, FROM = "192.168.1.5", "203.0.113.7", 4701, 40_000


class Node:
    """The machine and its clock; answers questions by ``tells``: (outcome, host, outer port) for each peer."""

    def __init__(self, *, is_local: bool = False, **config: float) -> None:
        self.ns = 10**12
        self.machine = Reachability(ReachConfig(**config), self.now())  # type: ignore[arg-type]
        self.asked: list[bytes] = []
        self.skew_s = 0
        self.tells: dict[bytes, tuple[Outcome, str, int]] = {}
        self.gives: dict[bytes, bool] = {}
        self.reserved: list[bytes] = []
        self.do(Listens(frozenset({INSIDE}), (PORT,), is_local))

    def now(self) -> Now:
        return Now(self.ns, self.ns)

    def do(self, event: Event) -> list[Effect]:
        effects = self.machine.handle(event, self.now())
        for effect in effects:
            if isinstance(effect, Ask):
                self.asked.append(effect.peer)
                if effect.peer in self.tells:
                    outcome, host, port = self.tells[effect.peer]
                    self.do(
                        Seen(
                            effect.peer,
                            Answer(host, port, called=True, outcome=outcome, wall_s=self.skew_s + self.ns // SECOND_NS),
                            effect.port,
                            FROM,
                        )
                    )
                else:
                    self.do(Unseen(effect.peer))
            if isinstance(effect, Reserve):
                self.reserved.append(effect.peer)
                self.do(Placed(effect.peer, 600.0) if self.gives.get(effect.peer) else NotPlaced(effect.peer))
        return effects

    def come(self, *peers: bytes, direct: bool = True, dialled: bool = True) -> None:
        for peer in peers:
            self.do(Came(peer, group=peer[:1], direct=direct, dialled=dialled))

    def run(self, seconds: float = 30.0) -> None:
        end = self.ns + int(seconds * SECOND_NS)
        while self.machine.wake_ns <= end:
            self.ns = max(self.ns, self.machine.wake_ns)
            self.do(Tick())
        self.ns = end


def test_several_groups_that_reach_us_make_us_public() -> None:
    node = Node()
    node.tells = dict.fromkeys((b"a1", b"a2", b"b1"), (Outcome.REACHED, OUTSIDE, 5000))
    node.come(b"a1", b"a2")
    node.run()
    assert node.machine.view.verdict is Verdict.UNKNOWN, "two peers of one group are one voice"
    assert len(node.asked) == 1
    node.come(b"b1")
    node.run()
    view = node.machine.view
    assert view.verdict is Verdict.PUBLIC
    assert view.external == ((OUTSIDE, PORT),)
    assert view.nat is Nat.ENDPOINT_INDEPENDENT
    assert view.mapped == (OUTSIDE, 5000)
    assert not node.reserved


def test_open_ipv6_does_not_make_up_for_ipv4_behind_a_nat() -> None:
    """Many have IPv4 only: for them there have to be relays."""
    node = Node()
    node.do(Listens(frozenset({INSIDE, "2001:db8::5"}), (PORT,), is_local=False))
    by_ipv6 = dict.fromkeys((b"a", b"b", b"c", b"d"), (Outcome.REACHED, "2001:db8::5", FROM))
    node.tells = by_ipv6 | dict.fromkeys((b"e", b"f"), (Outcome.NOT_REACHED, OUTSIDE, 5000))
    node.gives = {b"e": True}
    node.come(*node.tells)
    node.run()
    assert (node.machine.view.verdict, node.machine.view.relays) == (Verdict.PRIVATE, (b"e",))
    node.tells |= dict.fromkeys((b"e", b"f", b"g"), (Outcome.REACHED, OUTSIDE, 5000))
    node.come(b"g")
    node.run(7200)
    assert node.machine.view.verdict is Verdict.PUBLIC


def test_our_own_address_needs_no_other() -> None:
    node = Node()
    node.tells = dict.fromkeys((b"a", b"b"), (Outcome.REACHED, INSIDE, FROM))
    node.come(b"a", b"b")
    node.run()
    assert (node.machine.view.verdict, node.machine.view.nat) == (Verdict.PUBLIC, Nat.NONE)
    assert node.machine.view.external == ()


def test_who_cannot_be_called_looks_for_relays_in_different_groups_and_renews_them() -> None:
    node = Node()
    peers = (b"a1", b"a2", b"b", b"c")
    node.tells = {peer: (Outcome.NOT_REACHED, OUTSIDE, 5000 + peer[0]) for peer in peers}
    node.gives = {b"a1": True, b"a2": True, b"b": False, b"c": True}
    node.come(*peers)
    node.run()
    view = node.machine.view
    assert view.verdict is Verdict.PRIVATE
    assert view.nat is Nat.ADDRESS_DEPENDENT
    assert len(view.relays) == 2
    assert {relay[:1] for relay in view.relays} == {b"a", b"c"}
    before = len(node.reserved)
    node.run(310)
    assert len(node.reserved) >= before + 2, "renewed at half of its time"
    node.do(Went(view.relays[0]))
    assert view.relays[0] not in node.machine.view.relays
    node.gives[b"b"] = True
    node.run(60)
    assert len(node.machine.view.relays) == 2


def test_peers_that_called_us_or_came_by_a_relay_are_no_relays() -> None:
    node = Node()
    node.tells = dict.fromkeys((b"a", b"b"), (Outcome.NOT_REACHED, OUTSIDE, 5000))
    node.gives = {b"a": True, b"b": True, b"c": True}
    node.come(b"a", b"b", dialled=False)
    node.come(b"c", direct=False)
    node.run()
    assert node.machine.view.verdict is Verdict.PRIVATE
    assert not node.reserved
    assert b"c" not in node.asked


def test_a_neighbour_inside_does_not_hide_the_nat() -> None:
    node = Node()
    node.tells = dict.fromkeys((b"a", b"b", b"e"), (Outcome.REACHED, INSIDE, FROM))
    node.tells |= {b"c": (Outcome.NOT_REACHED, OUTSIDE, 1), b"d": (Outcome.NOT_REACHED, OUTSIDE, 1)}
    node.come(*node.tells)
    node.run()
    assert node.machine.view.verdict is Verdict.PRIVATE


def test_a_neighbour_inside_and_one_peer_outside_are_enough_to_look_for_a_relay() -> None:
    """Two lenders behind one router, and one first peer: each can call the other, nobody else can."""
    node = Node()
    node.gives = {b"1 first": True}
    node.tells = {
        b"0 neighbour": (Outcome.REACHED, INSIDE, FROM),
        b"1 first": (Outcome.NOT_REACHED, OUTSIDE, 31_000),
    }
    node.come(b"0 neighbour", b"1 first")
    node.run()
    view = node.machine.view
    assert (view.verdict, view.nat, view.relays) == (Verdict.UNKNOWN, Nat.UNKNOWN, (b"1 first",))


@pytest.mark.parametrize("lie", [(Outcome.REACHED, "198.51.100.1", 9), (Outcome.NOT_REACHED, "198.51.100.1", 9)])
def test_one_liar_changes_nothing(lie: tuple[Outcome, str, int]) -> None:
    for truth, verdict in ((Outcome.REACHED, Verdict.PUBLIC), (Outcome.NOT_REACHED, Verdict.PRIVATE)):
        node = Node()
        node.tells = dict.fromkeys((b"a", b"b", b"c"), (truth, OUTSIDE, 5000))
        node.tells[b"x"] = lie
        node.come(b"x", b"a", b"b", b"c")
        node.run()
        view = node.machine.view
        assert view.verdict is verdict
        assert all(host == OUTSIDE for host, _ in view.external)
        assert view.nat is Nat.ENDPOINT_INDEPENDENT


@pytest.mark.parametrize("truth", [Outcome.REACHED, Outcome.NOT_REACHED])
def test_two_liars_do_not_outvote_those_who_see_us_at_our_public_address(truth: Outcome) -> None:
    node = Node()
    node.do(Listens(frozenset({INSIDE, OUTSIDE}), (PORT,), is_local=False))
    node.tells = dict.fromkeys((b"a", b"b", b"c"), (truth, OUTSIDE, FROM))
    lie = Outcome.NOT_REACHED if truth is Outcome.REACHED else Outcome.REACHED
    node.tells |= dict.fromkeys((b"x", b"y"), (lie, "198.51.100.1", 9))
    node.come(*node.tells)
    node.run()
    assert node.machine.view.verdict is (Verdict.PUBLIC if truth is Outcome.REACHED else Verdict.PRIVATE)
    assert node.machine.view.external == ()


def test_when_our_address_changes_opinions_are_formed_anew() -> None:
    node = Node()
    node.tells = dict.fromkeys((b"a", b"b"), (Outcome.REACHED, INSIDE, FROM))
    node.come(b"a", b"b")
    node.run()
    assert node.machine.view.verdict is Verdict.PUBLIC
    effects = node.do(Listens(frozenset({"10.9.9.9"}), (PORT,), is_local=False))
    assert Changed() in effects
    node.run()
    assert node.asked.count(b"a") == 2


def test_a_node_on_loopback_asks_nobody() -> None:
    node = Node(is_local=True)
    node.come(b"a", b"b")
    node.run(3600)
    assert node.machine.view.verdict is Verdict.LOCAL
    assert not node.asked


def test_old_opinions_are_asked_for_again_and_then_forgotten() -> None:
    node = Node(ask_again_s=100.0)
    node.tells = dict.fromkeys((b"a", b"b"), (Outcome.REACHED, INSIDE, FROM))
    node.come(b"a", b"b")
    node.run(250)
    assert node.asked.count(b"a") == 3
    node.do(Went(b"a"))
    node.do(Went(b"b"))
    node.run(350)
    assert node.machine.view.verdict is Verdict.UNKNOWN


def test_the_middle_of_what_clocks_say_is_told() -> None:
    node = Node()
    node.tells = dict.fromkeys((b"a", b"b", b"c"), (Outcome.REACHED, INSIDE, FROM))
    for peer, skew_s in ((b"a", 30), (b"b", -5), (b"c", 10**9)):
        node.skew_s = skew_s
        node.come(peer)
        node.run()
    assert node.machine.view.skew_s == 30


PEERS = st.sampled_from([bytes([group, number]) for group in range(6) for number in range(3)])
ANSWERS = st.builds(
    Answer,
    st.sampled_from(["", INSIDE, OUTSIDE, "2001:db8::1"]),
    st.integers(0, 65535),
    st.booleans(),
    st.sampled_from(Outcome),
    st.integers(0, 2**40),
)
EVENTS = st.one_of(
    st.builds(Came, PEERS, st.integers(0, 5), st.booleans(), st.booleans()),
    st.builds(Went, PEERS),
    st.builds(Seen, PEERS, ANSWERS, st.just(PORT), st.sampled_from([0, FROM])),
    st.builds(Unseen, PEERS),
    st.builds(Placed, PEERS, st.floats(1, 1e6)),
    st.builds(NotPlaced, PEERS),
    st.just(Tick()),
    st.builds(Listens, st.frozensets(st.sampled_from([INSIDE, OUTSIDE])), st.just((PORT,)), st.booleans()),
)


@given(st.lists(st.tuples(EVENTS, st.integers(0, 10 * SECOND_NS)), max_size=80))
def test_whatever_happens_it_stays_bounded_and_consistent(events: list[tuple[Event, int]]) -> None:
    machine, ns = Reachability(ReachConfig(), Now(0, 0)), 0
    for event, later in events:
        ns += later
        effects = machine.handle(event, Now(ns, ns))
        view = machine.view
        assert sum(isinstance(effect, Ask) for effect in effects) <= 1
        assert set(view.relays) <= machine.peers
        assert all(effect.peer in machine.peers for effect in effects if isinstance(effect, Ask | Reserve))
        assert not (view.verdict is Verdict.PUBLIC and view.reached < 2)
        assert isinstance(event, Tick) is False or machine.wake_ns > ns
