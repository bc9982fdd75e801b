"""Addresses: what is taken, what is refused, and that printing and parsing agree."""

import pytest

from depin_node.core.errors import ConfigError
from depin_node.p2p.addresses import Address, parse, peer_id

KEY = bytes(range(32))
ID = "12D3KooW9pP4Seg3kZYhySpuVjn1RPdQBsUFZKiFxGMGQN5MeL6A"  # of KEY, as libp2p writes it


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{ID}", None),
        (f"/ip6/2001:DB8:0:0::1/tcp/1/p2p/{ID}", f"/ip6/2001:db8::1/tcp/1/p2p/{ID}"),
        (f"/ip6/::ffff:192.0.2.1/tcp/1/p2p/{ID}", f"/ip4/192.0.2.1/tcp/1/p2p/{ID}"),
        (f"/ip6/::FFFF:7f00:1/tcp/1/p2p/{ID}", f"/ip4/127.0.0.1/tcp/1/p2p/{ID}"),
        (f"/dns/example.org/tcp/65535/p2p/{ID}", None),
        (f"/dns/0x7f.example/tcp/1/p2p/{ID}", None),
        (f"/dns/1.0x7g/tcp/1/p2p/{ID}", None),
        (f"/dns4/a-b.example/tcp/0004001/p2p/{ID}", ConfigError),
        (f"/dns4/localhost/tcp/04001/p2p/{ID}", f"/dns4/localhost/tcp/4001/p2p/{ID}"),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{peer_id(bytes(32))}/p2p-circuit/p2p/{ID}", None),
    ],
)
def test_good_addresses_have_one_form(text: str, shown: str | type[ConfigError] | None) -> None:
    if shown is ConfigError:
        with pytest.raises(ConfigError):
            parse(text)
        return
    address = parse(text)
    assert str(address) == (shown or text)
    assert parse(str(address)) == address
    assert address.peer == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "127.0.0.1:4001",
        "/ip4/192.0.2.1/tcp/4001",
        f"/ip4/192.0.2.1/udp/4001/p2p/{ID}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ID}/",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ID}/p2p-circuit/p2p/{ID}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ID}/p2p-relay/p2p/{peer_id(bytes(32))}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/x/p2p-circuit/p2p/{ID}",
        f"/p2p/{peer_id(bytes(32))}/p2p-circuit/p2p/{ID}",
        f"ip4/192.0.2.1/tcp/4001/p2p/{ID}",
        f"/ip4/192.0.2.256/tcp/4001/p2p/{ID}",
        f"/ip4/192.0.2.01/tcp/4001/p2p/{ID}",
        f"/ip4/::1/tcp/4001/p2p/{ID}",
        f"/ip6/192.0.2.1/tcp/4001/p2p/{ID}",
        f"/ip6/2001:db8::1%x/tcp/4001/p2p/{ID}",  # libp2p takes none of them, and a dial ended the node
        f"/ip6/2001:db8::1%\n/tcp/4001/p2p/{ID}",
        f"/ip6/::ffff:192.0.2.1%é/tcp/4001/p2p/{ID}",
        f"/ip6/2001:db8::1%{'x' * 400}/tcp/4001/p2p/{ID}",
        f"/ip6/{'x' * 400}:/tcp/4001/p2p/{ID}",
        f"/dns4/192.0.2.1/tcp/4001/p2p/{ID}",  # one machine, and each spelling another host and group
        f"/dns4/0x7f.0x0.0x00.0x1/tcp/4001/p2p/{ID}",
        f"/dns/0X7F000001/tcp/4001/p2p/{ID}",
        f"/dns/a.0x/tcp/4001/p2p/{ID}",
        f"/dns/127.1/tcp/4001/p2p/{ID}",
        f"/ip4/192.0.2.1/tcp/0/p2p/{ID}",
        f"/ip4/192.0.2.1/tcp/65536/p2p/{ID}",
        f"/ip4/192.0.2.1/tcp/-1/p2p/{ID}",
        f"/ip4/192.0.2.1/tcp/४००१/p2p/{ID}",
        f"/dns/-bad-/tcp/1/p2p/{ID}",
        f"/dns/a b/tcp/1/p2p/{ID}",
        f"/dns/{'a' * 64}/tcp/1/p2p/{ID}",
        f"/dns/{'a.' * 130}a/tcp/1/p2p/{ID}",
        f"/unix/x/tcp/1/p2p/{ID}",
        "/ip4/192.0.2.1/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # of an RSA key
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ID[:-1]}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ID}{'1' * 10_000}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ID[:-1]}0",
    ],
)
def test_bad_addresses_are_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_wildcards_are_known() -> None:
    assert parse(f"/ip4/0.0.0.0/tcp/1/p2p/{ID}").is_wildcard
    assert parse(f"/ip6/::/tcp/1/p2p/{ID}").is_wildcard
    assert parse(f"/ip6/::ffff:0.0.0.0/tcp/1/p2p/{ID}").is_wildcard
    assert not parse(f"/ip4/127.0.0.1/tcp/1/p2p/{ID}").is_wildcard
    assert not Address("dns", "example.org", 1, KEY).is_wildcard


def test_the_id_of_a_key_is_that_of_libp2p() -> None:
    assert peer_id(KEY) == ID
