import pytest

from depin_node.bootstrap.first_peers import FIRST_PEERS_MAX, REMEMBERED_MAX, first_peers, remembered_peers
from depin_node.core.errors import ConfigError
from depin_node.crypto.identity import Identity, peer_id

ID = peer_id(Identity(bytes(32)).key)


def address(port):
    return f"/ip4/127.0.0.1/tcp/{port}/p2p/{ID}"


def test_named_ones_come_before_those_of_the_file_and_each_once(tmp_path):
    file = tmp_path / "peers.txt"
    file.write_text(f"# friends\n\n{address(2)}  # again\n {address(3)}\n")
    assert first_peers([address(1), address(2)], file) == (address(1), address(2), address(3))
    assert first_peers([], tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/ip4/127.0.0.1/tcp/1", r"peers\.txt:2: .*is not an address"),
        (f"/ip4/0.0.0.0/tcp/1/p2p/{ID}", r"peers\.txt:2: .*every address"),
        ("/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", r"peers\.txt:2: "),
    ],
)
def test_a_wrong_address_names_file_and_line(tmp_path, line, message):
    file = tmp_path / "peers.txt"
    file.write_text(f"{address(1)}\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        first_peers([], file)


def test_a_wrong_flag_says_so(tmp_path):
    with pytest.raises(ConfigError, match="first_peers: 'x' is not an address"):
        first_peers(["x"], tmp_path / "none")


def test_the_list_is_bounded(tmp_path):
    file = tmp_path / "peers.txt"
    file.write_text("\n".join(address(1 + n) for n in range(FIRST_PEERS_MAX + 1)))
    with pytest.raises(ConfigError, match="more than the 64 allowed"):
        first_peers([], file)
    file.write_bytes(b"#" * 70_000)
    with pytest.raises(ConfigError, match="more than 65536 bytes"):
        first_peers([], file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        first_peers([], file)


def test_remembered_ones_that_no_longer_parse_are_left_out():
    many = [address(1 + n) for n in range(100)]
    assert remembered_peers(["rubbish", *many]) == tuple(many[:REMEMBERED_MAX])
