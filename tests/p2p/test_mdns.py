"""Multicast DNS: what is said on a local network, and how little of what is heard there is believed."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import Address
from depin_node.p2p.mdns import (
    ADDRESSES_MAX,
    PACKETS_BURST,
    PORT,
    SIGHTED_BURST,
    Beacon,
    Say,
    answer,
    query,
    read,
)

US, THEM = Identity(bytes([1]) * 32).key, Identity(bytes([2]) * 32).key
NAME = b"q" * 32
HOST = "192.168.7.2"


def at(seconds: float) -> Now:
    return Now(int(seconds * SECOND_NS), 0)


def beacon() -> Beacon:
    return Beacon(US, random.Random(1), at(0))


def where(host: str = HOST, key: bytes = THEM, port: int = 4701) -> Address:
    return Address("ip4", host, port, key)


def said(machine: Beacon, until_s: float) -> list[tuple[float, Say]]:
    found, now_s = [], 0.0
    while (now_s := max(now_s, machine.wake_ns / SECOND_NS)) <= until_s:
        found += [(now_s, say) for say in machine.tick(at(now_s))]
    return found


def test_what_is_said_is_understood_and_is_what_other_implementations_of_libp2p_say():
    assert query() == bytes.fromhex("000000000001000000000000") + b"\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01"
    packet = answer(NAME, [str(where()), "/ip4/10.0.0.1/udp/1/quic-v1"])
    assert read(query()).asks
    assert read(packet).addresses == (str(where()), "/ip4/10.0.0.1/udp/1/quic-v1")
    # As go-libp2p packs it: the names of the records point at the one name that is written out.
    service, text = b"\x04_p2p\x04_udp\x05local\0", b"dnsaddr=" + str(where()).encode()
    compressed = (
        struct.pack(">6H", 0, 0x8400, 0, 1, 0, 1)
        + service + struct.pack(">2HIH", 12, 1, 120, 35) + b"\x20" + NAME + b"\xc0\x0c"
        + struct.pack(">H", 0xC000 | 12 + len(service) + 10)
        + struct.pack(">2HIH", 16, 0x8001, 120, 1 + len(text)) + bytes([len(text)]) + text
    )  # fmt: skip
    assert read(compressed).addresses == (str(where()),)


def test_a_newcomer_asks_and_tells_at_once_and_then_asks_less_and_less():
    times = said(beacon(), 3600)
    assert {say for seconds, say in times if seconds == 0} == {Say.QUERY, Say.ANSWER}
    asked = [seconds for seconds, say in times if say is Say.QUERY]
    assert len([seconds for seconds in asked if seconds < 60]) >= 3
    assert len(asked) <= 16
    assert [say for _, say in times].count(Say.ANSWER) == 1  # nobody asked


def test_however_often_it_is_asked_it_answers_once_a_second():
    machine, answers = beacon(), 0
    machine.tick(at(0))
    for tenth in range(100):
        machine.heard(query(), HOST, PORT, at(tenth / 10))
        if machine.wake_ns <= at(tenth / 10).boottime_ns:
            answers += machine.tick(at(tenth / 10)).count(Say.ANSWER)
    assert 8 <= answers <= 10


@pytest.mark.parametrize(
    "lie",
    [
        where("192.168.7.9"),  # another host of the network
        where("203.0.113.7"),
        where(key=US),
        "/ip4/192.168.7.2/udp/4701/quic-v1",
        f"{where(key=US)}/p2p-circuit/p2p/x",
        "",
    ],
    ids=["neighbour", "stranger", "ourselves", "transport", "circuit", "nothing"],
)
def test_only_where_the_sender_itself_is_will_be_dialled(lie):
    packet = answer(NAME, [str(lie), str(where())])
    assert beacon().heard(packet, HOST, PORT, at(0)) == [where()]
    assert beacon().heard(packet, HOST, 40_000, at(0)) == []  # who answers does so from the port of responders


def test_a_flood_is_not_read_and_many_names_of_one_host_are_not_dialled():
    machine = beacon()
    many = [
        answer(NAME, [str(where(key=Identity(bytes([3, n]) + bytes(30)).key, port=p)) for p in range(1, 20)])
        for n in range(200)
    ]
    found = [machine.heard(packet, HOST, PORT, at(0)) for packet in many]
    assert max(map(len, found)) <= ADDRESSES_MAX
    assert sum(map(len, found)) == SIGHTED_BURST
    asked = beacon()
    for _ in range(PACKETS_BURST):
        asked.heard(b"rubbish", HOST, PORT, at(0))
    assert asked.heard(answer(NAME, [str(where())]), HOST, PORT, at(0)) == []
    assert asked.heard(answer(NAME, [str(where())]), HOST, PORT, at(1)) == [where()]


def test_a_name_that_leads_in_a_circle_ends():
    head = struct.pack(">6H", 0, 0x8400, 0, 1, 0, 0)
    assert read(head + b"\xc0\x0c" + struct.pack(">2HIH", 16, 1, 1, 0)) is None
    assert read(head + b"\x01a\xc0\x0c" * 40 + struct.pack(">2HIH", 16, 1, 1, 0)) is None


@pytest.mark.parametrize(("pointers", "is_read"), [(8, True), (9, False)])
def test_a_chain_of_pointers_is_not_followed_far(pointers, is_read):
    chain, links = 12 + 11, bytearray(b"\0")  # the first record's data: the root, and pointers each to the last
    for _ in range(pointers - 1):
        links += struct.pack(">H", 0xC000 | chain + max(0, len(links) - 2))
    fields = struct.pack(">2HI", 10, 1, 1)
    first = b"\0" + fields + struct.pack(">H", len(links)) + links
    second = struct.pack(">H", 0xC000 | chain + len(links) - 2) + fields + b"\0\0"
    assert (read(struct.pack(">6H", 0, 0x8400, 0, 2, 0, 0) + first + second) is not None) == is_read


@given(st.binary(max_size=300), st.integers(0, 200))
def test_whatever_comes_is_read_or_refused(data, cut):
    whole = answer(NAME, [str(where())])
    for packet in (data, whole[:cut] + data, query()[:12] + data):
        machine = beacon()
        assert all(address.host == HOST for address in machine.heard(packet, HOST, PORT, at(0)))
