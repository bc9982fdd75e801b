from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.wire import decode
from depin_node.crypto.envelope import Envelope, sign
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import Address, peer_id
from depin_node.p2p.advert import ADVERT_BYTES_MAX, DeviceOffer, DigestLine, Offer, read_advert, sign_advert
from depin_node.p2p.groups import group_of, own_group
from depin_node.p2p.shards import place_of

ALICE = Identity(bytes([1]) * 32)
WALL_S = 1_800_000_000
NOW = Now(5, WALL_S * SECOND_NS)
OFFER = Offer(
    lending=True, devices=(DeviceOffer("wasm-1", 512, 4, 3, "CPU", 4000, 70_000, 9),), price=250, software="0.1.0"
)
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{peer_id(ALICE.key)}"


def signed(offer=OFFER, addresses=(ADDRESS,), **changed):
    return sign_advert(ALICE, "net", offer, addresses, **({"seq": 7, "now": NOW, "lifetime_s": 60} | changed))


def test_an_advert_arrives():
    data = signed()
    read = read_advert(data, "net", NOW)
    verified = read.verified
    assert verified.sender == ALICE.key
    assert [str(address) for address in read.addresses] == [ADDRESS]
    assert (read.place, read.capabilities) == (place_of(ALICE.key), ("cpu",))
    assert read.line == DigestLine(ALICE.key[:8], 7)
    assert (verified.payload.devices, verified.payload.price, verified.payload.expires_s) == (
        OFFER.devices,
        250,
        WALL_S + 60,
    )


def test_golden_vector():
    envelope = decode(signed(), Envelope, size_bytes_max=ADVERT_BYTES_MAX)
    assert envelope.payload.hex() == (
        "9cc400ce6b49d23c0791b72f6970342f3139322e302e322e312f7463702f343030310202c39198a67761736d2d31cd020004"
        "03a3435055cd0fa0ce0001117009ccfaa5302e312e30c2c400"
    )
    assert envelope.signature.hex() == GOLDEN_SIGNATURE


GOLDEN_SIGNATURE = (
    "f7d64b323ff8ec3da0e62c0cf3c67e4d5286493426d3a340e1494f55790c3acadea75cead62f460f5b953a056a3e6ca79940"
    "558aff84d86333d15f8f2457230f"
)


@given(
    st.lists(st.integers(1, 65_535), max_size=12),
    st.lists(st.text(min_size=1, max_size=64), max_size=8),
)
def test_it_holds_as_many_addresses_as_fit_into_1_kib(ports, classes):
    offer = Offer(devices=tuple(DeviceOffer(name, 1 << 20, 1000, 1000) for name in classes))
    addresses = [f"/ip6/2001:db8:1234:5678:1234:5678:1234:{p:x}/tcp/{p}/p2p/{peer_id(ALICE.key)}" for p in ports]
    if sum(len(name.encode()) + 16 for name in classes) > 750:  # up to eight names of 64 characters, four bytes each
        with suppress(ConfigError):
            signed(offer, addresses)
        return
    data = signed(offer, addresses)
    read = read_advert(data, "net", NOW).addresses
    assert len(data) <= ADVERT_BYTES_MAX
    assert [address.port for address in read] == ports[: len(read)]
    longer = len(data) + len(addresses[0]) if addresses else 0
    assert len(read) == min(len(ports), 8) or longer > ADVERT_BYTES_MAX


@pytest.mark.parametrize("where", ["/ip6/2001:db8::1%x", "/dns4/0x7f.1", "/ip6/::ffff:0.0.0.0"])
def test_one_address_that_cannot_be_dialled_is_too_many(where):
    honest = read_advert(signed(), "net", NOW).verified.payload
    bad = msgspec.structs.replace(honest, addresses=(*honest.addresses, f"{where}/tcp/4001"))
    with pytest.raises(PeerViolation):
        read_advert(sign(ALICE, "net", bad), "net", NOW)


def test_addresses_that_would_void_it_are_left_out():
    us = peer_id(ALICE.key)
    data = signed(
        addresses=[f"/ip4/0.0.0.0/tcp/1/p2p/{us}", f"/ip6/::/tcp/1/p2p/{us}", f"/ip4/a/tcp/1/p2p/{us}", ADDRESS]
    )
    assert [str(address) for address in read_advert(data, "net", NOW).addresses] == [ADDRESS]


def test_devices_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="at most 1024 fit"):
        signed(Offer(devices=(DeviceOffer("é" * 64, 1, 1, 1),) * 8))


def test_too_many_devices_are_refused():
    with pytest.raises(ConfigError, match="at most 8"):
        signed(Offer(devices=OFFER.devices * 9))


@given(st.data())
def test_no_changed_byte_goes_through(data):
    raw = bytearray(signed())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerViolation):
        read_advert(bytes(raw), "net", NOW)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("ip4", "192.0.2.1"), ("ip4", "192.0.200.9"), True),
        (("ip4", "192.0.2.1"), ("ip4", "192.1.2.1"), False),
        (("ip6", "2001:db8::1"), ("ip6", "2001:db8:ffff::1"), True),
        (("ip6", "2001:db8::1"), ("ip6", "2001:db9::1"), False),
        (("ip6", "::ffff:192.0.2.1"), ("ip4", "192.0.9.9"), True),
        (("dns", "a.example.org"), ("dns4", "B.Example.ORG."), True),
        (("dns", "a.example.org"), ("dns", "example.com"), False),
        (("ip4", "127.0.0.1"), ("ip4", "127.0.0.1"), False),
        (("ip6", "::1"), ("ip6", "::1"), False),
        (("ip6", "::ffff:127.0.0.1"), ("ip6", "::ffff:127.0.0.1"), False),
        (("dns", "localhost"), ("dns", "localhost"), False),
    ],
)
def test_groups(one, other, same):
    a, b = Address(*one, 1, bytes(32)), Address(*other, 1, bytes([1]) * 32)
    assert (group_of(a) == group_of(b)) is same


def test_a_loopback_node_is_its_own_group():
    assert group_of(Address("ip4", "127.1.2.3", 1, ALICE.key)) == own_group(ALICE.key)
