"""The directory as a machine: what it keeps, what it gives up, whom it draws."""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import decode, encode
from depin_node.crypto.envelope import SKEW_S_MAX
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import Owners, certify, revoke
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.advert import DeviceOffer, DigestLine, Offer, sign_advert
from depin_node.p2p.directory import DIGEST_MAX, Digest, Directory, DirectoryLimits, Need, Taken
from depin_node.p2p.directory_protocol import REQUEST_BYTES_MAX, CatchUpRequest, ShardLine
from depin_node.p2p.shards import CAPABILITIES, Shard

US = Identity(bytes([255]) * 32)
PEERS = [Identity(number.to_bytes(32, "big")) for number in range(1, 41)]
WALL_S = 1_800_000_000
WASM = DeviceOffer("wasm-1", 512, 1, 1)
LENDER = Offer(lending=True, devices=(WASM,))
NEED = Need(frozenset({"wasm-1"}), 256)
EVERYWHERE = [Shard(name, 0, 0) for name in CAPABILITIES]


def at(seconds):
    return Now(seconds * SECOND_NS, (WALL_S + seconds) * SECOND_NS)


def signed(peer, *, seq=1, host=None, offer=LENDER, lifetime_s=600, leaving=False, certificate=b""):
    if host is None:
        host = f"10.{PEERS.index(peer)}.0.1"
    address = f"/ip4/{host}/tcp/4001/p2p/{peer_id(peer.key)}"
    return sign_advert(
        peer,
        "net",
        offer,
        [address] if host else [],
        seq=seq,
        now=at(0),
        lifetime_s=lifetime_s,
        leaving=leaving,
        certificate=certificate,
    )


def directory(**limits):
    return Directory("net", US.key, limits=DirectoryLimits(**limits) if limits else None)


def keys(entries):
    return {entry.key for entry in entries}


def test_only_a_newer_advert_replaces_one():
    d = directory()
    assert d.receive(signed(PEERS[0], seq=5), at(0)) == (Taken.DISCOVERED, PEERS[0].key)
    for seq, taken in ((5, Taken.KNOWN), (4, Taken.KNOWN), (6, Taken.UPDATED), (5, Taken.KNOWN)):
        assert d.receive(signed(PEERS[0], seq=seq), at(0))[0] is taken
    assert d.get(PEERS[0].key).advert.seq == 6


def test_adverts_of_another_network_are_refused():
    with pytest.raises(PeerViolation, match="signature"):
        Directory("other", US.key).receive(signed(PEERS[0]), at(0))


def test_an_advert_is_forgotten_when_it_would_no_longer_be_taken():
    d = directory()
    data = signed(PEERS[0], lifetime_s=60)
    d.receive(data, at(0))
    assert d.expire(at(60 + SKEW_S_MAX)) == []
    assert keys(d.expire(at(61 + SKEW_S_MAX))) == {PEERS[0].key}
    with pytest.raises(PeerViolation, match="expired"):
        d.receive(data, at(61 + SKEW_S_MAX))


def test_who_left_stays_gone_for_as_long_as_its_older_adverts_hold():
    d = directory()
    d.receive(signed(PEERS[0], seq=2, leaving=True), at(0))
    assert d.receive(signed(PEERS[0], seq=1), at(0))[0] is Taken.KNOWN
    assert (d.peers(), d.candidates(NEED, 9, random.Random(0))) == ([], [])


def test_our_own_advert_from_others_is_only_noted():
    d = directory()
    d.keep_own(signed(US, seq=3, host=""), at(0))
    assert d.receive(signed(US, seq=9, host=""), at(0)) == (Taken.OURSELVES, US.key)
    assert (d.get(US.key).advert.seq, d.own_seq_seen, d.peers()) == (3, 9, [])


def test_a_peer_may_change_its_advert_a_few_times_at_once_and_then_once_a_second():
    d = directory(adverts_burst=3)
    taken = [d.receive(signed(PEERS[0], seq=seq), at(0))[0] for seq in range(1, 6)]
    assert taken == [Taken.DISCOVERED, Taken.UPDATED, Taken.UPDATED, Taken.TOO_OFTEN, Taken.TOO_OFTEN]
    assert d.receive(signed(PEERS[0], seq=9), at(1))[0] is Taken.UPDATED
    assert d.receive(signed(PEERS[0], seq=10), at(1))[0] is Taken.TOO_OFTEN


# Bounds


def test_room_is_made_first_by_expired_adverts():
    d = directory(entries_max=3)
    d.receive(signed(PEERS[0], lifetime_s=600), at(0))
    d.receive(signed(PEERS[1], lifetime_s=1), at(0))
    d.receive(signed(PEERS[2], lifetime_s=600), at(0))
    d.receive(signed(PEERS[3]), at(100))
    assert keys(d.peers()) == {PEERS[0].key, PEERS[2].key, PEERS[3].key}


def test_then_by_the_longest_unheard_of_the_largest_group():
    d = directory(entries_max=4)
    d.receive(signed(PEERS[9]), at(0))  # the oldest, alone in its group
    for number in range(3):
        d.receive(signed(PEERS[number], host=f"10.99.0.{number}"), at(1))
    d.receive(signed(PEERS[0], host="10.99.0.0", seq=2), at(2))  # heard again
    d.receive(signed(PEERS[5]), at(3))
    assert keys(d.peers()) == {PEERS[number].key for number in (9, 0, 2, 5)}


def test_a_group_has_a_limit_of_its_own():
    d = directory(group_max=2)
    for number in range(5):
        d.receive(signed(PEERS[number], host=f"10.99.0.{number}"), at(0))
    d.receive(signed(PEERS[5]), at(0))
    assert keys(d.peers()) == {PEERS[3].key, PEERS[4].key, PEERS[5].key}


def test_a_group_has_its_limit_also_when_peers_are_seen_elsewhere_than_they_claim():
    d = directory(group_max=3)
    for number in range(10):
        d.receive(signed(PEERS[number]), at(0))
        d.connected(PEERS[number].key, "/ip4/203.0.113.7/tcp/50000")
        d.lost(PEERS[number].key)
    assert keys(d.peers()) == {PEERS[number].key for number in (7, 8, 9)}


def test_connected_peers_and_ourselves_stay():
    d = directory(entries_max=4)
    d.keep_own(signed(US, host=""), at(0))
    d.receive(signed(PEERS[0]), at(0))
    d.connected(PEERS[0].key, f"/ip4/10.0.0.1/tcp/999/p2p/{peer_id(PEERS[0].key)}")
    for number in range(1, 30):
        d.receive(signed(PEERS[number], host=f"10.99.0.{number}"), at(0))
    assert len(d) == 4
    assert keys(d.peers()) == {PEERS[0].key, PEERS[28].key, PEERS[29].key}
    assert d.get(US.key) is not None


events = st.lists(
    st.one_of(
        st.tuples(st.just("advert"), st.integers(0, 39), st.integers(0, 5), st.integers(0, 3), st.booleans()),
        st.tuples(st.sampled_from(["connected", "lost", "unreachable"]), st.integers(0, 39)),
        st.tuples(st.just("wait"), st.integers(0, 90)),
        st.tuples(st.just("expire")),
    ),
    max_size=120,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(events)
def test_whatever_comes_in_whatever_order_the_directory_is_bounded_and_in_order(events):
    """Replayed, reordered, late, from connected and unconnected peers: what holds is checked after every event."""
    d, now_s, connected, newest = directory(entries_max=12, group_max=5), 0, set(), {}
    for event in events:
        match event:
            case ("advert", number, seq, block, leaving):
                peer = PEERS[number]
                data = signed(peer, seq=seq, host=f"10.{block}.0.{number}", lifetime_s=30 * (seq + 1), leaving=leaving)
                before = d.get(peer.key)
                if 30 * (seq + 1) < now_s - SKEW_S_MAX:
                    with pytest.raises(PeerViolation, match="expired"):
                        d.receive(data, at(now_s))
                    continue
                taken, key = d.receive(data, at(now_s))
                assert key == peer.key
                if taken in (Taken.DISCOVERED, Taken.UPDATED):
                    assert before is None or seq > before.advert.seq
                    assert d.get(key).data == data
                    newest[key] = seq
                else:
                    assert d.get(key) == before
            case ("connected", number) if len(connected) < 4:
                connected.add(PEERS[number].key)
                d.connected(PEERS[number].key, f"/ip4/172.{number}.0.1/tcp/50000")
            case ("lost", number):
                connected.discard(PEERS[number].key)
                d.lost(PEERS[number].key)
            case ("unreachable", number):
                d.unreachable(PEERS[number].key)
            case ("wait", seconds):
                now_s += seconds
            case ("expire",):
                d.expire(at(now_s))
        check(d, connected, newest, 12, 5)


def check(d, connected, newest, entries_max, group_max):
    entries = d.peers() + [e for e in map(d.get, newest) if e is not None and e.advert.leaving]
    assert len(entries) == len(d) <= entries_max
    sizes = Counter(entry.group for entry in entries if not entry.is_connected)
    assert all(size <= group_max for size in sizes.values())
    for entry in entries:
        assert entry.is_connected == (entry.key in connected)
        assert entry.advert.seq == newest[entry.key]
        assert not (entry.is_connected and entry.is_unreachable)
    assert sorted(key for members in d._groups.values() for key in members) == sorted(keys(entries))
    assert all(d.get(key).group == group for group, members in d._groups.items() for key in members)
    drawn = d.candidates(NEED, 99, random.Random(0))
    assert len(keys(drawn)) == len(drawn)
    assert len(drawn) + sum(d.why_nobody(NEED).values()) == len(d.peers())


# Catching up


SHARDS = [Shard(name, bits, prefix) for name in CAPABILITIES for bits in (0, 1, 2) for prefix in range(1 << bits)]
OFFERS = [Offer(), LENDER, Offer(lending=True, devices=(WASM, DeviceOffer("cuda:sm_90", 512, 1, 1)))]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(OFFERS), st.sampled_from((30, 600)), st.sampled_from(SHARDS)),
        max_size=40,
    )
)
def test_members_of_a_shard_are_who_lies_in_it_whatever_came_and_went(steps):
    d = directory(group_max=5, entries_max=8)
    for seq, (number, offer, lifetime_s, shard) in enumerate(steps, 1):
        d.receive(
            signed(PEERS[number], seq=seq, offer=offer, lifetime_s=lifetime_s, host=f"10.{number % 2}.0.1"), at(0)
        )
        if seq % 9 == 0:
            d.expire(at(30 + SKEW_S_MAX + 1))
        known = [entry for number in range(12) if (entry := d.get(PEERS[number].key))]
        inside = {e.key for e in known if shard.capability in e.capabilities and shard.has_place(e.place)}
        assert keys(d.within([shard])) == inside
        assert d.count(shard) == len(inside)
        assert len(d.within(SHARDS[:2])) == len(keys(d.within(SHARDS[:2])))


def test_two_directories_that_exchange_what_is_missing_know_the_same():
    a, b = directory(), directory()
    for number, peer in enumerate(PEERS):
        if number % 3:
            a.receive(signed(peer, seq=1 + number % 2), at(0))
        if number % 2:
            b.receive(signed(peer, seq=2), at(0))
    rng = random.Random(1)
    while missing := a.missing_from(b.digest(EVERYWHERE), EVERYWHERE, 7, rng):
        assert len(missing) <= 7
        assert [b.receive(data, at(0))[0] for data in missing].count(Taken.KNOWN) == 0
    for data in b.missing_from(a.digest(EVERYWHERE), EVERYWHERE, 99, rng):
        a.receive(data, at(0))
    assert {(e.key, e.advert.seq) for e in a.peers()} == {(e.key, e.advert.seq) for e in b.peers()}
    assert (
        a.missing_from(b.digest(EVERYWHERE), EVERYWHERE, 99, rng)
        == b.missing_from(a.digest(EVERYWHERE), EVERYWHERE, 99, rng)
        == []
    )


def test_the_largest_request_to_catch_up_is_taken():
    lines = tuple(DigestLine(number.to_bytes(8, "big"), 2**63 - 1) for number in range(DIGEST_MAX))
    request = CatchUpRequest(bytes(1024), (ShardLine(2, 16, 2**16 - 1),) * 3, Digest(lines))
    assert decode(encode(request), CatchUpRequest, size_bytes_max=REQUEST_BYTES_MAX) == request


# Candidates


def fill(d, offers):
    for peer, offer in zip(PEERS, offers, strict=False):
        d.receive(signed(peer, offer=offer), at(0))


def test_why_nobody_counts_the_first_thing_that_each_lacks():
    d = directory()
    gpu, small = DeviceOffer("cuda:sm_90", 80_000, 1, 1), DeviceOffer("wasm-1", 100, 1, 1)
    fill(
        d,
        [
            Offer(),
            Offer(),
            Offer(lending=True, devices=(gpu,)),
            Offer(lending=True, devices=(small, gpu)),
            LENDER,
            LENDER,
            LENDER,
        ],
    )
    d.unreachable(PEERS[4].key)
    d.receive(signed(PEERS[6], host="", seq=2), at(0))
    assert d.candidates(NEED, 9, random.Random(0), exclude={PEERS[5].key}) == []
    assert d.why_nobody(NEED, exclude={PEERS[5].key}) == {
        "not lending": 2,
        "no device of the class": 1,
        "too little memory": 1,
        "unreachable": 2,
        "excluded": 1,
    }


def test_a_peer_that_cannot_be_dialled_is_a_candidate_while_it_is_connected():
    d = directory()
    d.receive(signed(PEERS[0], host=""), at(0))
    assert d.candidates(NEED, 1, random.Random(0)) == []
    d.connected(PEERS[0].key, "/ip4/10.1.2.3/tcp/50000")
    assert len(d.candidates(NEED, 1, random.Random(0))) == 1
    d.lost(PEERS[0].key)
    assert d.candidates(NEED, 1, random.Random(0)) == []


def test_candidates_are_uniform_over_groups_and_repeat_with_the_seed():
    d = directory()
    for number in range(10):  # one owner with ten nodes
        d.receive(signed(PEERS[number], host=f"10.99.0.{number}"), at(0))
    for number in range(10, 14):
        d.receive(signed(PEERS[number]), at(0))
    drawn = Counter(d.candidates(NEED, 1, random.Random(seed))[0].group for seed in range(2000))
    assert len(drawn) == 5
    assert all(330 < count < 470 for count in drawn.values())
    first_five = d.candidates(NEED, 5, random.Random(1))
    assert len({entry.group for entry in first_five}) == 5
    assert first_five == d.candidates(NEED, 5, random.Random(1))
    everyone = d.candidates(NEED, 99, random.Random(1))
    assert (len(everyone), len(keys(everyone))) == (14, 14)


def test_a_peers_group_is_where_it_was_seen_not_where_it_says_it_is():
    d = directory()
    d.receive(signed(PEERS[0], host="10.99.0.1"), at(0))
    d.receive(signed(PEERS[1], host="10.98.0.1"), at(0))
    for peer in PEERS[:2]:
        d.connected(peer.key, "/ip4/203.0.113.7/tcp/50000")
        d.lost(peer.key)
    d.receive(signed(PEERS[0], host="10.97.0.1", seq=2), at(1))
    assert {entry.group for entry in d.peers()} == {"ip 203.0.0.0/16"}


def test_claimed_loopback_addresses_make_no_groups_on_a_node_that_strangers_can_reach():
    d = Directory("net", US.key, dials_loopback=False)
    for peer in PEERS[:5]:
        d.receive(signed(peer, host="127.0.0.1"), at(0))
    assert {entry.group for entry in d.peers()} == {"no address"}
    assert d.candidates(NEED, 9, random.Random(0)) == []
    d.connected(PEERS[0].key, "/ip4/127.0.0.1/tcp/50000")  # it is on this machine, and was met
    assert keys(d.candidates(NEED, 9, random.Random(0))) == {PEERS[0].key}


def test_listed_peers_count_as_their_own_group():
    d = Directory("net", US.key, listed=[PEERS[0].key])
    for number in range(3):
        d.receive(signed(PEERS[number], host=f"10.99.0.{number}"), at(0))
    assert len({entry.group for entry in d.peers()}) == 2


# Owners

OWNER = Identity(bytes([7]) * 32)


def owned(peer, *, owner=OWNER, **changed):
    return signed(peer, certificate=certify(owner, "net", peer.key, now=at(0), days=30), **changed)


def groups(d, *numbers):
    return [d.get(PEERS[number].key).group for number in numbers]


def seen(d, number, host):
    d.connected(PEERS[number].key, f"/ip4/{host}/tcp/4001")


def test_nodes_of_one_owner_are_one_group_wherever_they_are():
    d = directory()
    for number in range(3):
        d.receive(owned(PEERS[number]), at(0))
    d.receive(signed(PEERS[3]), at(0))
    assert len(set(groups(d, 0, 1, 2))) == 1
    assert len(set(groups(d, 0, 3))) == 2
    assert d.get(PEERS[1].key).owner == OWNER.key
    seen(d, 1, "203.0.113.9")  # who was connected counts, not who claims
    assert set(groups(d, 0, 1, 2)) == {"ip 203.0.0.0/16"}
    seen(d, 2, "198.51.100.9")
    assert set(groups(d, 0, 1, 2)) == {"ip 203.0.0.0/16"}


def test_owners_make_no_new_groups_of_one_address_range():
    d = directory()
    for number in range(0, 20, 2):  # ten owners: one node each where the attacker is, one that claims to be elsewhere
        owner = Identity(bytes([100 + number]) * 32)
        d.receive(owned(PEERS[number + 1], owner=owner), at(0))
        d.receive(owned(PEERS[number], owner=owner, host="10.99.0.1"), at(0))
        seen(d, number, f"10.99.0.{number + 1}")
    assert set(groups(d, *range(20))) == {"ip 10.99.0.0/16"}


def test_who_the_operator_listed_counts_as_its_own_whoever_owns_it():
    d = Directory("net", US.key, listed=[PEERS[1].key])
    for number in range(3):
        d.receive(owned(PEERS[number]), at(0))
    assert len(set(groups(d, 0, 1, 2))) == 2


def test_a_forged_or_borrowed_certificate_is_a_violation_and_an_expired_one_is_none():
    d = directory()
    borrowed = certify(OWNER, "net", PEERS[1].key, now=at(0), days=30)
    with pytest.raises(PeerViolation, match="another node"):
        d.receive(signed(PEERS[0], certificate=borrowed), at(0))
    with pytest.raises(PeerViolation):
        d.receive(signed(PEERS[0], certificate=bytes(64)), at(0))
    expired = certify(OWNER, "net", PEERS[0].key, now=at(-40 * 86_400), days=30)
    d.receive(signed(PEERS[0], certificate=expired), at(0))
    assert d.get(PEERS[0].key).owner is None


def test_a_revoked_node_is_no_fellow_and_counts_where_it_is():
    ours = certify(OWNER, "net", US.key, now=at(0), days=30)
    d = Directory("net", US.key, owners=Owners("net", US.key, ours))
    for number in range(3):
        d.receive(owned(PEERS[number]), at(0))
        seen(d, number, f"10.{number}.0.1")
    assert all(d.is_fellow(PEERS[number].key, at(1)) for number in range(3))
    assert d.revoked(revoke(OWNER, "net", [PEERS[1].key], None, now=at(5)), at(5)) == OWNER.key
    assert [d.is_fellow(PEERS[number].key, at(6)) for number in range(3)] == [True, False, True]
    assert groups(d, 0, 1, 2) == ["ip 10.0.0.0/16", "ip 10.1.0.0/16", "ip 10.0.0.0/16"]
    d.receive(owned(PEERS[1], seq=2), at(6))  # it goes on showing it
    assert not d.is_fellow(PEERS[1].key, at(6))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3), st.sampled_from(["hear", "see", "lose"])), max_size=60)
)
def test_fleets_and_groups_agree_whatever_happens(events):
    d = directory(entries_max=8, group_max=3)
    seqs = Counter()
    for number, place, what in events:
        peer = PEERS[number]
        seqs[number] += 1
        if what == "hear":
            fleet = {} if place == 3 else {"owner": Identity(bytes([200 + place]) * 32)}
            make = owned if fleet else signed
            d.receive(make(peer, seq=seqs[number], host=f"10.{place}.0.1", **fleet), at(10 * sum(seqs.values())))
        elif what == "see":
            seen(d, number, f"10.{place}.0.9")
        else:
            d.lost(peer.key)
        entries = {entry.key: entry for entry in d.peers()}
        for owner, fleet in d._fleets.items():
            assert fleet.members
            assert {entries[key].owner for key in fleet.members} == {owner}
            assert {entries[key].group for key in fleet.members} == {fleet.group}
        assert {key for fleet in d._fleets.values() for key in fleet.members} == {
            key for key, entry in entries.items() if entry.owner
        }
        assert {key: group for group, members in d._groups.items() for key in members} == {
            key: entry.group for key, entry in entries.items()
        }
