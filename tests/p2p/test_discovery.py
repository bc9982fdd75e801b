"""The discovery machine alone, event by event."""

import random
from collections import Counter
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import Address
from depin_node.p2p.advert import Offer, sign_advert
from depin_node.p2p.dialling import BOOK_MAX, Book
from depin_node.p2p.directory import Directory
from depin_node.p2p.discovery import Discovery
from depin_node.p2p.discovery_events import (
    Announce,
    AskPeers,
    Blame,
    CatchUp,
    Changed,
    Dial,
    DialEnded,
    Disconnect,
    Follow,
    Forward,
    Gossiped,
    PeerConnected,
    PeerLost,
    Spread,
    Tell,
    Tick,
    Told,
)
from depin_node.p2p.hearing import ORIGIN_BURST, ORIGIN_PER_S, SPREAD_BURST
from depin_node.p2p.mesh_config import MeshConfig

US = Identity(bytes([255]) * 32)
PEERS = [Identity(number.to_bytes(32, "big")) for number in range(1, 31)]
WALL_S = 1_800_000_000


def at(seconds):
    ns = round(seconds * SECOND_NS)
    return Now(ns, WALL_S * SECOND_NS + ns)


def address(number):
    return Address("ip4", f"10.{number}.0.1", 4001, PEERS[number].key)


def advert(number, *, seq=1, seconds=0):
    return sign_advert(
        PEERS[number], "net", Offer(), [str(address(number))], seq=seq, now=at(seconds), lifetime_s=14_000
    )


def machine(*, first=(), remembered=(), seed=1, **config):
    return Discovery(
        Directory("net", US.key),
        MeshConfig(**config),
        random.Random(seed),
        first_peers=[address(number) for number in first],
        remembered=[address(number) for number in remembered],
        now=at(0),
    )


def run(discovery, start_s, end_s, answer=None):
    """Let time pass; ``answer`` maps an effect to the events that it brings. Return effects with their times."""
    done, now_s = [], start_s
    while (wake_s := discovery.wake_ns / SECOND_NS) <= end_s:
        now_s = max(now_s, wake_s)
        waiting = [Tick()]
        while waiting:
            effects = discovery.handle(waiting.pop(0), at(now_s))
            for effect in effects:
                done.append((now_s, effect))
                waiting += answer(effect) if answer else []
    return done


def kinds(effects, kind):
    return [(seconds, effect) for seconds, effect in effects if isinstance(effect, kind)]


def connect(discovery, number, seconds=0.0):
    return discovery.handle(PeerConnected(PEERS[number].key, str(address(number)), True), at(seconds))


def test_it_announces_itself_at_once_and_dials_anchors_then_first_peers_then_others_it_remembers():
    discovery = machine(first=[0, 1], remembered=[2, 3, 4], dials_max=5)
    effects = run(discovery, 0, 0)
    assert [type(effect) for _, effect in effects] == [Follow, Announce, Dial, Dial, Dial, Dial, Dial]
    assert [effect.peer for _, effect in kinds(effects, Dial)] == [PEERS[number].key for number in (2, 3, 0, 1, 4)]


def test_who_floods_its_own_advert_is_blamed_and_who_passes_it_on_is_not():
    discovery = machine()
    connect(discovery, 0)
    connect(discovery, 1)
    said = [discovery.handle(Gossiped(PEERS[0].key, advert(0, seq=seq)), at(1)) for seq in range(1, 12)]
    assert Forward() in said[7]
    assert [effect.peer for effects in said[8:] for effect in effects] == 3 * [PEERS[0].key]
    assert all(isinstance(effect, Blame) for effects in said[8:] for effect in effects)
    assert discovery.handle(Gossiped(PEERS[1].key, advert(0, seq=20)), at(1)) == []


def times_dialled_in_vain(discovery, end_s):
    effects = run(
        discovery, 0, end_s, lambda effect: [DialEnded(effect.peer, "no")] if isinstance(effect, Dial) else []
    )
    return [seconds for seconds, _ in kinds(effects, Dial)]


def test_a_peer_that_does_not_answer_is_dialled_less_and_less_often():
    discovery = machine(remembered=[0])
    times = times_dialled_in_vain(discovery, 200)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] < 1
    assert all(pause < 22 for pause in pauses)  # 15 s, a third more, and the next tick
    assert 10 < len(times) < 30


def test_a_first_peer_may_just_be_coming_up_and_is_dialled_every_few_seconds_until_it_seems_gone():
    times = times_dialled_in_vain(machine(first=[0]), 3600)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert max(pause for pause, seconds in zip(pauses, times, strict=False) if seconds < 60) < 4
    assert max(pauses[-20:]) > 10


def test_a_first_peer_that_was_never_met_is_looked_for_beside_others():
    discovery = machine(first=[0])
    run(discovery, 0, 0)
    discovery.handle(DialEnded(PEERS[0].key, "refused"), at(0.1))
    for number in range(1, 9):
        connect(discovery, number, 0.2)
    refused = lambda effect: [DialEnded(effect.peer, "refused")] if isinstance(effect, Dial) else []  # noqa: E731
    dials = [s for s, dial in kinds(run(discovery, 0.3, 30, refused), Dial) if dial.peer == PEERS[0].key]
    assert len(dials) >= 8
    connect(discovery, 0, 30)
    discovery.handle(PeerLost(PEERS[0].key), at(31))  # met once: now it is one of many
    assert len([1 for _, dial in kinds(run(discovery, 31, 61, refused), Dial) if dial.peer == PEERS[0].key]) <= 2


def test_what_an_answer_teaches_goes_on_to_others_by_gossip_but_not_without_end():
    discovery = machine()
    connect(discovery, 0)
    teach = Told(PEERS[0].key, [advert(number) for number in range(2, 6)])
    assert not any(isinstance(effect, Spread) for effect in discovery.handle(teach, at(0)))  # there is nobody else
    connect(discovery, 1)
    taught = [advert(number) for number in range(4, 9)]
    (spread,) = [e for e in discovery.handle(Told(PEERS[0].key, taught), at(0)) if isinstance(e, Spread)]
    assert {data for _, data in spread.adverts} == set(taught[2:])  # two were known
    assert {topic for topic, _ in spread.adverts} <= discovery.sharding.topics()
    discovery._hearing._spread.spend(SPREAD_BURST, at(0))
    assert not any(isinstance(effect, Spread) for effect in discovery.handle(Told(PEERS[0].key, [advert(9)]), at(0.01)))


def test_a_dead_peers_advert_that_comes_after_it_was_dialled_does_not_make_it_reachable():
    discovery = machine(first=[0])
    run(discovery, 0, 0)
    discovery.handle(DialEnded(PEERS[0].key, "refused"), at(1))
    connect(discovery, 1, 2)
    discovery.handle(Told(PEERS[1].key, [advert(0)]), at(2))
    assert discovery.directory.get(PEERS[0].key).is_unreachable
    discovery.handle(Gossiped(PEERS[0].key, advert(0, seq=2)), at(3))  # it lives after all
    assert not discovery.directory.get(PEERS[0].key).is_unreachable


def test_no_dial_is_forgotten_to_be_counted():
    discovery = machine(first=range(10), dials_max=3)
    assert len(kinds(run(discovery, 0, 10), Dial)) == 3  # none of them ends


def test_with_few_neighbours_it_asks_and_dials_at_most_one_of_an_answer():
    discovery = machine()
    run(discovery, 0, 0)
    connect(discovery, 0)
    asked = kinds(run(discovery, 0, 1), AskPeers)
    assert [effect.peer for _, effect in asked] == [PEERS[0].key]
    told = Told(PEERS[0].key, [advert(number) for number in range(1, 9)], are_live=True)
    assert len([e for e in discovery.handle(told, at(1)) if isinstance(e, Dial)]) == 1


def test_it_asks_again_only_after_an_answer():
    discovery = machine()
    run(discovery, 0, 0)
    connect(discovery, 0)
    assert len(kinds(run(discovery, 0, 60), AskPeers)) == 1
    discovery.handle(Told(PEERS[0].key, [], are_live=True), at(60))
    assert len(kinds(run(discovery, 60, 120), AskPeers)) == 1
    discovery.handle(PeerLost(PEERS[0].key), at(120))  # it took the question with it
    connect(discovery, 1, 120)
    assert len(kinds(run(discovery, 120, 180), AskPeers)) == 1


def test_a_small_mesh_is_asked_less_and_less_until_something_changes():
    discovery = machine()
    run(discovery, 0, 0)
    connect(discovery, 0)

    def nobody_new(effect):
        return [Told(effect.peer, [], are_live=True)] if isinstance(effect, AskPeers) else []

    times = [seconds for seconds, _ in kinds(run(discovery, 0, 300, nobody_new), AskPeers)]
    assert sum(seconds < 10 for seconds in times) >= 2
    assert sum(seconds > 100 for seconds in times) <= 20
    connect(discovery, 1, 300)
    assert len(kinds(run(discovery, 300, 310, nobody_new), AskPeers)) >= 2


def test_with_enough_neighbours_it_asks_nobody_and_dials_nobody_it_is_told_of():
    discovery = machine()
    run(discovery, 0, 0)
    for number in range(8):
        connect(discovery, number)
    effects = run(discovery, 0, 600)
    assert not kinds(effects, AskPeers) + kinds(effects, Dial)
    told = Told(PEERS[0].key, [advert(number) for number in range(8, 20)], are_live=True)
    assert not any(isinstance(effect, Dial) for effect in discovery.handle(told, at(600)))


def test_who_tells_an_advert_that_has_expired_by_our_clock_only_is_not_blamed():
    discovery = machine()
    connect(discovery, 0)
    dead = sign_advert(PEERS[1], "net", Offer(), [str(address(1))], seq=1, now=at(-600), lifetime_s=500)
    effects = discovery.handle(Told(PEERS[0].key, [dead, advert(2)]), at(0))
    assert [effect for effect in effects if isinstance(effect, Blame)] == []
    assert [effect.peer for effect in effects if isinstance(effect, Tell)] == [PEERS[2].key]


def test_adverts_it_is_told_while_catching_up_are_not_dialled():
    discovery = machine()
    connect(discovery, 0)
    told = Told(PEERS[0].key, [advert(number) for number in range(1, 9)])
    assert {type(effect) for effect in discovery.handle(told, at(1))} == {Tell}


def test_after_an_hour_of_suspension_all_that_is_due_is_done_once_and_lost_peers_are_dialled():
    """The boot clock goes on while a machine sleeps: it wakes up with every time in the past."""
    discovery = machine(first=[0])
    run(discovery, 0, 0)
    discovery.handle(DialEnded(PEERS[0].key, None), at(0))
    for number in range(4):
        connect(discovery, number)
        discovery.handle(Told(PEERS[number].key, [advert(number)]), at(0))
    run(discovery, 0, 60)
    woken = run(discovery, 3660, 3660.5)
    assert len(kinds(woken, Announce)) == 1
    assert len(kinds(woken, CatchUp)) == 1
    assert len(kinds(woken, AskPeers)) <= 1
    for number in range(4):
        discovery.handle(PeerLost(PEERS[number].key), at(3661))
    assert {dial.peer for _, dial in kinds(run(discovery, 3661, 3662), Dial)} == {peer.key for peer in PEERS[:4]}


def test_it_announces_at_its_interval_and_soon_after_a_change_but_not_more_often():
    discovery = machine()
    connect(discovery, 0)
    quiet = [seconds for seconds, _ in kinds(run(discovery, 0, 300), Announce)]
    assert 300 / 21 < len(quiet) < 300 / 9
    changed = []
    for tenth in range(3001, 3101):
        discovery.handle(Changed(), at(tenth / 10))
        changed += kinds(run(discovery, tenth / 10, tenth / 10), Announce)
    assert 9 <= len(changed) <= 11


def test_the_interval_grows_with_the_mesh():
    config = MeshConfig()
    for peers, interval_s in ((0, 15), (15, 15), (100, 100), (4000, 4000), (10_000, 4800)):
        assert config.announce_interval_s(peers) == interval_s
        assert config.advert_lifetime_s(peers) == max(60, 3 * interval_s)


def test_news_are_passed_on_once_whoever_brings_them():
    discovery = machine()
    news = Gossiped(PEERS[0].key, advert(0, seq=5))
    assert Forward() in discovery.handle(news, at(0))
    assert Forward() not in discovery.handle(news, at(0))
    assert Forward() not in discovery.handle(Gossiped(PEERS[0].key, advert(0, seq=4)), at(0))
    assert Forward() in discovery.handle(Gossiped(PEERS[1].key, advert(2)), at(0))
    assert [Blame] == [type(e) for e in discovery.handle(Gossiped(PEERS[1].key, b"garbage"), at(0))]


def test_adverts_of_one_group_go_on_only_so_often_however_many_its_nodes_are():
    discovery = machine()

    def forwarded(group, numbers, seconds):
        passed = 0
        for number in numbers:
            identity = Identity(bytes([group]) + number.to_bytes(31, "big"))
            where = Address("ip4", f"{group}.7.{number % 256}.{number // 256}", 4001, identity.key)
            data = sign_advert(identity, "net", Offer(), [str(where)], seq=1, now=at(seconds), lifetime_s=14_000)
            passed += Forward() in discovery.handle(Gossiped(PEERS[0].key, data), at(seconds))
        return passed

    assert forwarded(203, range(1, ORIGIN_BURST + 50), 0) == ORIGIN_BURST
    assert forwarded(198, range(1, 20), 0) == 19  # another group has its own
    assert forwarded(203, range(1000, 1050), 5) == 5 * ORIGIN_PER_S


def test_it_introduces_only_who_it_has_dialled_itself():
    discovery = machine()
    for number in range(4):
        discovery.handle(Told(PEERS[0].key, [advert(number)]), at(0))
    connect(discovery, 0)  # dialled
    for number, host in ((1, "10.1.0.1"), (2, "203.0.113.7")):  # called from where it says it is, and from elsewhere
        discovery.handle(PeerConnected(PEERS[number].key, f"/ip4/{host}/tcp/50000", False), at(0))
    connect(discovery, 4)
    discovery.handle(PeerLost(PEERS[4].key), at(0))
    connect(discovery, 5)
    discovery.handle(Told(PEERS[0].key, [advert(4), advert(5)]), at(0))
    discovery.handle(DialEnded(PEERS[4].key, "refused"), at(0))
    assert set(discovery.introductions(PEERS[3].key, 16)) == {advert(0), advert(5)}
    assert discovery.introductions(PEERS[5].key, 16) == [advert(0)]
    assert len(discovery.introductions(PEERS[3].key, 1)) == 1
    assert set(discovery.remembered()) == {str(address(number)) for number in (0, 1, 4, 5)}


def test_too_many_connections_are_dropped_but_not_new_ones_nor_those_in_use():
    discovery = machine(connections_high=10, settle_s=10)
    for number in range(20):
        discovery.handle(PeerConnected(PEERS[number].key, str(address(number)), False), at(0))
    used = PEERS[3].key
    discovery.kept = lambda peer: peer == used
    assert not kinds(run(discovery, 0, 9), Disconnect)
    dropped = Counter(effect.peer for _, effect in kinds(run(discovery, 9, 18), Disconnect))
    assert len(dropped) >= 10
    assert used not in dropped


def test_a_book_is_bounded():
    book = Book()
    for number in range(BOOK_MAX + 10):
        book.put(number.to_bytes(4, "big"), number)
    assert book.get((9).to_bytes(4, "big")) is None
    assert book.get((10).to_bytes(4, "big")) == 10


numbers = st.integers(0, 29)
events = st.lists(
    st.one_of(
        st.tuples(st.just("connected"), numbers, st.booleans()),
        st.tuples(st.just("lost"), numbers),
        st.tuples(st.just("dial ended"), numbers, st.booleans()),
        st.tuples(st.just("gossip"), numbers, numbers, st.integers(0, 3)),
        st.tuples(st.just("told"), numbers, st.lists(numbers, max_size=8), st.booleans()),
        st.tuples(st.just("garbage"), numbers),
        st.tuples(st.just("changed")),
        st.tuples(st.just("wait"), st.floats(0, 30)),
    ),
    max_size=100,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(events, st.integers(0, 9))
def test_whatever_happens_dials_and_questions_stay_bounded_and_time_goes_on(events, seed):
    """Lost, doubled, reordered and made-up events; what holds is checked after each."""
    discovery = machine(first=[0, 1], remembered=[2], seed=seed)
    seconds, dialling = 0.0, set()
    config = discovery.config

    def check(effects):
        for effect in effects:
            match effect:
                case Dial(peer, addresses):
                    assert peer not in dialling
                    assert addresses
                    assert peer not in discovery.neighbours
                    dialling.add(peer)
                case AskPeers(peer) | CatchUp(peer):
                    assert peer in discovery.neighbours
        assert len(dialling) <= config.dials_max

    for event in events:
        match event:
            case ("connected", number, outbound):
                key = PEERS[number].key
                event = PeerConnected(key, str(address(number)), outbound)
            case ("lost", number):
                event = PeerLost(PEERS[number].key)
            case ("dial ended", number, failed):
                dialling.discard(PEERS[number].key)
                event = DialEnded(PEERS[number].key, "no" if failed else None)
            case ("gossip", author, number, seq):
                event = Gossiped(PEERS[author].key, advert(number, seq=seq))
            case ("told", teller, told, are_live):
                event = Told(PEERS[teller].key, [advert(number) for number in told], are_live)
            case ("garbage", number):
                event = Gossiped(PEERS[number].key, b"garbage")
            case ("changed",):
                event = Changed()
            case ("wait", pause):
                end = seconds + pause
                for _ in range(1000):
                    wake_s = discovery.wake_ns / SECOND_NS
                    if wake_s > end:
                        break
                    seconds = max(seconds, wake_s)
                    check(discovery.handle(Tick(), at(seconds)))
                    assert discovery.wake_ns > at(seconds).boottime_ns  # else the shell would spin
                else:
                    raise AssertionError("more than thirty ticks a second")
                seconds = end
                continue
        check(discovery.handle(event, at(seconds)))
