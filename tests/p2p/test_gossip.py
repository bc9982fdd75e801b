"""The gossip machine: whole meshes of it driven from a seed, and each rule by itself."""

import random
from collections import defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import decode, encode
from depin_node.p2p import gossip
from depin_node.p2p.gossip import (
    EAGER,
    HAVE,
    IDS_BYTES_MAX,
    POST,
    TOPICS,
    WANT,
    Gossip,
    Ids,
    Judge,
    Post,
    Punish,
    Send,
    Topics,
    message_id,
)
from depin_node.p2p.network import Verdict

TOPIC = "notes/1"


def at(seconds: float) -> Now:
    return Now(int(seconds * SECOND_NS), 0)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class World:
    """Machines joined by links that lose, delay and reorder frames; a set of them swallows all messages."""

    def __init__(self, seed: int, size: int, degree: int, *, loss: float = 0.0, deaf: frozenset[int] = frozenset()):
        self.chance = random.Random(seed)
        self.loss, self.deaf, self.seconds = loss, deaf, 0.0
        self.nodes = [Gossip(1000, random.Random(seed + n)) for n in range(size)]
        self.got: dict[int, list[bytes]] = defaultdict(list)
        self.frames = 0
        self.waiting: deque[tuple[int, int, int, bytes]] = deque()
        links = {(n, (n + 1) % size) for n in range(size)}
        while len(links) < size * degree // 2:
            links.add(tuple(self.chance.sample(range(size), 2)))  # type: ignore[arg-type]
        for node in self.nodes:
            node.subscribe(TOPIC)
        for a, b in {*links, *((b, a) for a, b in links)}:
            self.nodes[a].joined(key(b), at(0))
        for a, b in {*links, *((b, a) for a, b in links)}:
            self.carry_out(a, self.nodes[a].heard(key(b), TOPICS, self.nodes[b].greeting(), at(0)))

    def carry_out(self, number, effects):
        for effect in effects:
            match effect:
                case Send(peer, kind, body):
                    self.waiting.append((number, int.from_bytes(peer, "big"), kind, body))
                case Judge():
                    self.got[number].append(effect.data)
                    if number not in self.deaf:
                        self.carry_out(number, self.nodes[number].judged(effect, Verdict.ACCEPT, at(self.seconds)))

    def publish(self, number, data):
        self.carry_out(number, self.nodes[number].publish(TOPIC, data, at(self.seconds)))

    def run(self, seconds):
        end = self.seconds + seconds
        while self.seconds < end:
            while self.waiting:
                self.waiting.rotate(-self.chance.randrange(len(self.waiting)))
                source, target, kind, body = self.waiting.popleft()
                self.frames += 1
                if self.chance.random() >= self.loss and (source not in self.deaf or kind == TOPICS):
                    heard = self.nodes[target].heard(key(source), kind, body, at(self.seconds))
                    self.carry_out(target, heard)
            self.seconds += 0.05
            for number, node in enumerate(self.nodes):
                wake_ns = node.wake_ns
                if wake_ns is not None and wake_ns <= at(self.seconds).boottime_ns:
                    self.carry_out(number, node.tick(at(self.seconds)))


@pytest.mark.parametrize("seed", range(3))
def test_everybody_hears_everything_once_at_little_cost(seed):
    world = World(seed, 100, 8)
    for number in range(20):
        world.publish(number, b"n%d" % number)
    world.run(4)
    for number in range(100):
        others = {b"n%d" % n for n in range(20)} - ({b"n%d" % number} if number < 20 else set())
        assert sorted(world.got[number]) == sorted(others)
    assert world.frames < 20 * 100 * 8  # four messages and some lists of ids; flooding would take seven messages


def test_dropped_frames_are_made_up_for():
    world = World(1, 60, 8, loss=0.1)
    for number in range(10):
        world.publish(number, b"n%d" % number)
    world.run(20)
    assert sum(map(len, world.got.values())) >= 0.99 * 10 * 59


def test_neighbours_that_swallow_everything_cut_nobody_off():
    """Half of all nodes pass nothing on; whoever is connected through the others hears all."""
    world = World(2, 100, 10, deaf=frozenset(range(0, 100, 2)))
    world.publish(1, b"hello")
    world.run(20)
    assert all(world.got[number] == [b"hello"] for number in range(3, 100, 2))


def neighbour(node=None):
    node = node or Gossip(1000, random.Random(1))
    node.subscribe(TOPIC)
    node.joined(key(1), at(0))
    node.heard(key(1), TOPICS, encode(Topics((TOPIC,))), at(0))
    return node


def test_a_neighbour_is_told_of_late_messages_once_for_each_topic_that_it_begins_to_want():
    node = neighbour()
    node.publish(TOPIC, b"a", at(0))
    node.tick(at(2))

    def told(*topics):
        return [effect.kind for effect in node.heard(key(1), TOPICS, encode(Topics(topics)), at(2))]

    assert told(TOPIC, "others/1") == []
    assert told("others/1") == []
    assert told(TOPIC, "others/1") == [HAVE]
    node.heard(key(1), TOPICS, encode(Topics(())), at(3))
    assert node.heard(key(1), TOPICS, encode(Topics((TOPIC,))), at(11)) == []  # old news


def post(data, topic=TOPIC):
    return encode(Post(topic, data))


def test_an_id_is_of_topic_and_content():
    assert len({message_id("a", b"bc"), message_id("ab", b"c"), message_id("a", b"b")}) == 3


def test_golden_vectors():
    assert encode(Topics((TOPIC,))).hex() == "9191a76e6f7465732f31"
    assert post(b"x").hex() == "92a76e6f7465732f31c40178"
    assert encode(Ids((bytes(32),))) == b"\x91\x91\xc4\x20" + bytes(32)
    assert (TOPICS, POST, HAVE, WANT) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0, b""),
        (5, b""),
        (TOPICS, b""),
        (TOPICS, encode(Topics(("x",)))[:-1]),
        (TOPICS, b"\x91\xdc\x00\x41" + b"\xa1x" * 65),
        (POST, b"\xff" * 30),
        (POST, post(b"x") + b"\0"),
        (HAVE, encode(Post("x", b""))),
        (HAVE, b"\x91\x90"),
        (WANT, b"\x91\xdc\x00\x81" + b"\xc4\x20" * 129),
    ],
)
def test_what_is_malformed_is_a_violation(kind, body):
    with pytest.raises(PeerViolation):
        neighbour().heard(key(1), kind, body, at(0))


def test_a_flood_has_to_wait_and_others_do_not():
    node = neighbour()
    node.joined(key(2), at(0))
    for number in range(2000):
        node.heard(key(1), POST, post(b"%d" % number), at(1))
    assert node.wait_s(key(1), at(1)) > 20
    assert node.wait_s(key(2), at(1)) == 0
    assert node.wait_s(key(1), at(100)) == 0


def test_who_has_shown_that_it_has_a_message_is_not_told_of_it():
    node, peers = Gossip(1000, random.Random(1)), [key(number) for number in range(1, EAGER + 4)]
    node.subscribe(TOPIC)
    for peer in peers:
        node.joined(peer, at(0))
        node.heard(peer, TOPICS, node.greeting(), at(0))
    eager = {effect.peer for effect in node.publish(TOPIC, b"news", at(0))}
    sent_it, named_it, silent = (peer for peer in peers if peer not in eager)
    node.heard(sent_it, POST, encode(Post(TOPIC, b"news")), at(0.1))
    node.heard(named_it, HAVE, encode(Ids((message_id(TOPIC, b"news"),))), at(0.2))
    assert [(effect.peer, effect.kind) for effect in node.tick(at(1))] == [(silent, HAVE)]


def test_asking_for_much_costs_as_much_as_sending_it():
    node = neighbour()
    for number in range(200):
        node.publish(TOPIC, b"%d" % number, at(0))
    ids = tuple(message_id(TOPIC, b"%d" % number) for number in range(128))
    for _ in range(10):
        answers = node.heard(key(1), WANT, encode(Ids(ids)), at(0))
        assert len(answers) == 128
    assert node.wait_s(key(1), at(0)) > 10


def test_who_hands_on_rubbish_is_punished_and_an_odd_mistake_is_not():
    node, punished = neighbour(), 0
    for number in range(100):  # one in twenty-five: no
        (judge,) = node.heard(key(1), POST, post(b"%d" % number), at(number))
        verdict = Verdict.REJECT if number % 25 == 0 else Verdict.ACCEPT
        punished += any(isinstance(e, Punish) for e in node.judged(judge, verdict, at(number)))
    assert not punished
    for number in range(100, 110):
        (judge,) = node.heard(key(1), POST, post(b"%d" % number), at(number))
        punished += any(isinstance(e, Punish) for e in node.judged(judge, Verdict.REJECT, at(number)))
    assert punished == 1


def test_what_is_ignored_or_rejected_goes_nowhere():
    node = neighbour()
    node.joined(key(2), at(0))
    node.heard(key(2), TOPICS, encode(Topics((TOPIC,))), at(0))
    for verdict, data in ((Verdict.IGNORE, b"old"), (Verdict.REJECT, b"bad")):
        (judge,) = node.heard(key(1), POST, post(data), at(0))
        assert node.judged(judge, verdict, at(0)) == []
        wanted = encode(Ids((message_id(TOPIC, data),)))
        assert node.heard(key(2), WANT, wanted, at(0)) == []


def test_topics_that_nobody_wants_are_not_sent():
    node = neighbour()
    node.joined(key(2), at(0))
    assert [e.peer for e in node.publish(TOPIC, b"x", at(0))] == [key(1)]
    assert node.heard(key(1), POST, post(b"y", topic="other/1"), at(0)) == []


kinds = st.sampled_from((0, TOPICS, POST, HAVE, WANT, 9))
bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(post, st.binary(max_size=3)),
    st.lists(st.integers(0, 300), min_size=1, max_size=128).map(
        lambda numbers: encode(Ids(tuple(message_id(TOPIC, b"%d" % n) for n in numbers)))
    ),
    st.just(encode(Topics((TOPIC,)))),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 5), kinds, bodies, st.floats(0, 1)), max_size=80))
def test_whatever_comes_all_stays_bounded(frames):
    node, seconds = Gossip(1000, random.Random(1)), 0.0
    node.subscribe(TOPIC)
    for number, kind, body, pause in frames:
        node.joined(key(number), at(seconds))
        seconds += pause
        effects = []
        try:
            effects = node.heard(key(number), kind, body, at(seconds))
        except PeerViolation:
            node.left(key(number))
        for effect in effects:
            if isinstance(effect, Judge):
                node.judged(effect, random.Random(number).choice(list(Verdict)), at(seconds))
        node.tick(at(seconds))
        assert node.wake_ns is None or node.wake_ns > at(seconds).boottime_ns  # else the shell would spin
        assert len(effects) <= gossip.STORED_MAX
        assert len(node._missing) <= gossip.MISSING_MAX
        assert len(node._stored) <= gossip.STORED_MAX


def test_a_new_neighbour_is_told_of_what_is_news_only():
    """Told of all that is stored, newcomers got adverts that had expired, and took those who told them for hostile."""
    node = Gossip(1000, random.Random(1))
    node.subscribe(TOPIC)
    node.publish(TOPIC, b"old", at(0))
    node.publish(TOPIC, b"new", at(60))
    node.joined(key(1), at(61))
    other = Gossip(1000, random.Random(2))
    other.subscribe(TOPIC)
    (told,) = node.heard(key(1), TOPICS, other.greeting(), at(61))
    assert isinstance(told, Send)
    (wanted,) = decode(told.body, Ids, size_bytes_max=IDS_BYTES_MAX).ids
    assert wanted == message_id(TOPIC, b"new")
