import os
import re

import pytest

from depin_node.bootstrap.config import DEFAULT_LISTEN, FIELDS, NodeConfig, Waits, load, unknown_variables
from depin_node.bootstrap.node import _network_limits, data_port
from depin_node.core.errors import ConfigError
from depin_node.p2p.network import NetworkLimits

FLAGS = {"disk_mib": 1}
ENVIRON = {"DEPIN_DISK_MIB": "2"}
TOML = "disk_mib = 3\n"


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        (FLAGS, ENVIRON, TOML, 1),
        ({}, ENVIRON, TOML, 2),
        ({"disk_mib": None}, {}, TOML, 3),
        ({}, {}, "", 10_240),
    ],
)
def test_flag_beats_environment_beats_file_beats_default(tmp_path, flags, environ, toml, expected):
    file = tmp_path / "config.toml"
    file.write_text(toml)
    assert load(file, flags=flags, environ=environ).disk_mib == expected


def test_every_setting_has_one_name_in_file_and_environment(tmp_path):
    examples = {
        "network_id": ("testnet", '"testnet"'),
        "listen": ("/ip4/0.0.0.0/tcp/1", '"/ip4/0.0.0.0/tcp/1"'),
        "data_listen": ("off", '"off"'),
        "first_peers": ("a, b", '["a", "b"]'),
        "trusted_peers": ("c", '["c"]'),
        "pre_shared_key_file": ("/k", '"/k"'),
        "allowed_peers": ("d", '["d"]'),
        "bootstrap_only": ("true", "true"),
        "relay": ("false", "false"),
        "relay_bulk": ("true", "true"),
        "upnp": ("false", "false"),
        "mdns": ("false", "false"),
        "lend": ("true", "true"),
        "slots": ("3", "3"),
        "memory_mib": ("77", "77"),
        "work_max": ("1000", "1000"),
        "task_seconds": ("60", "60"),
        "price_millicredits": ("5", "5"),
        "unpaid_share": ("0.5", "0.5"),
        "price_max_millicredits": ("6", "6"),
        "audits_here": ("false", "false"),
        "disk_mib": ("9", "9"),
        "control_port": ("1234", "1234"),
        "log_level": ("debug", '"debug"'),
        "devices": ("cpu, MIG-1a/2, a.b:C", '["cpu", "MIG-1a/2", "a.b:C"]'),
        "device_path": ("/x", '"/x"'),
    }
    assert set(examples) == set(FIELDS) - {"waits", "limits"}
    file = tmp_path / "config.toml"
    file.write_text("\n".join(f"{key} = {toml}" for key, (_, toml) in examples.items()))
    from_file = load(file, flags={}, environ={})
    from_environ = load(
        tmp_path / "none", flags={}, environ={f"DEPIN_{key.upper()}": text for key, (text, _) in examples.items()}
    )
    assert from_file == from_environ
    assert from_file.first_peers == ("a", "b")
    assert all(getattr(from_file, key) != getattr(NodeConfig(), key) for key in examples)


def test_the_waits_live_in_a_table(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("[waits]\ndial = 2\nsuitable = 0.5\n")
    assert load(file, flags={}, environ={}).waits == Waits(dial=2.0, suitable=0.5)


def test_the_limits_live_in_a_table_and_mean_what_the_network_means(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("[limits]\nconnections = 8\nbuffered_mib = 1\nexempt_loopback = false\n")
    limits = _network_limits(load(file, flags={}, environ={}))
    assert (limits.connections_max, limits.buffered_bytes_max, limits.exempt_loopback) == (8, 1 << 20, False)
    assert _network_limits(NodeConfig()) == NetworkLimits()


def test_a_list_of_peers_that_has_become_empty_is_not_taken_for_none(tmp_path):
    """Without a list everybody may connect."""
    file = tmp_path / "config.toml"
    file.write_text("allowed_peers = []")
    with pytest.raises(ConfigError, match="allowed_peers: a list of at least one peer id"):
        load(file, flags={}, environ={})


def test_only_an_unnamed_listen_address_may_move(tmp_path):
    file = tmp_path / "config.toml"
    assert load(file, flags={}, environ={}).listen_is_default
    assert not load(file, flags={"listen": DEFAULT_LISTEN}, environ={}).listen_is_default
    file.write_text("listen_is_default = true")
    with pytest.raises(ConfigError, match="unknown key"):
        load(file, flags={}, environ={})


@pytest.mark.parametrize(
    ("listen", "data_listen", "expected"),
    [
        ("/ip4/192.0.2.1/tcp/4001", "", (["192.0.2.1"], 0)),
        ("/ip4/0.0.0.0/tcp/1,/ip6/::/tcp/1", "", (["0.0.0.0", "::"], 0)),
        ("/ip4/192.0.2.1/tcp/1,/ip4/192.0.2.2/tcp/2", "", (["192.0.2.1"], 0)),
        ("/ip4/0.0.0.0/tcp/1", "/ip4/0.0.0.0/tcp/4702", (["0.0.0.0"], 4702)),
        ("/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/4702,/ip4/0.0.0.0/tcp/4702", (["::", "0.0.0.0"], 4702)),
        ("/ip4/0.0.0.0/tcp/1", "/ip4/0.0.0.0/tcp/0,/ip6/::1/tcp/0", (["0.0.0.0", "::1"], 0)),
    ],
)
def test_where_data_channels_connect(listen, data_listen, expected):
    assert data_port(NodeConfig(listen=listen, data_listen=data_listen)) == expected


@pytest.mark.parametrize(
    ("data_listen", "message"),
    [
        ("/ip4/0.0.0.0/tcp/1,/ip6/::/tcp/2", "several ports"),
        ("/ip4/192.0.2.1/tcp/1,/ip4/192.0.2.2/tcp/1", "two hosts of a family"),
        ("/ip4/0.0.0.0/tcp/65536", "should look like"),
        ("/ip4/0.0.0.0/tcp/-1", "should look like"),
        ("/ip4/0.0.0.0/udp/1", "should look like"),
        ("/ip4/::/tcp/1", "should look like"),
        ("/dns4/example.org/tcp/1", "should look like"),
        ("0.0.0.0:1", "should look like"),
        ("/ip4/0.0.0.0/tcp/1,", "should look like"),
    ],
)
def test_a_data_port_that_is_none_is_an_error(data_listen, message):
    with pytest.raises(ConfigError, match=f"data_listen.*{message}"):
        data_port(NodeConfig(data_listen=data_listen))


@pytest.mark.parametrize(
    ("toml", "environ", "flags", "message"),
    [
        ("disk_mb = 1", {}, {}, r"config\.toml: unknown key 'disk_mb'; did you mean 'disk_mib'\?"),
        ("[waits]\ndail = 1", {}, {}, r"config\.toml: waits: unknown key 'dail'; did you mean 'dial'\?"),
        ("[waits]\ndial = 0", {}, {}, r"config\.toml: waits: .*> 0.*dial"),
        ("[limits]\nconections = 1", {}, {}, r"limits: unknown key 'conections'; did you mean 'connections'\?"),
        ("waits = 3", {}, {}, r"config\.toml: waits: Expected `object`"),
        ('lend = "yes"', {}, {}, r"config\.toml: lend: Expected `bool`, got `str`; it is 'yes'"),
        ("slots = -1", {}, {}, r"config\.toml: slots: .*>= 0; it is '-1'"),
        ("slots = 1.5", {}, {}, r"config\.toml: slots: Expected `int`"),
        ('network_id = "Big Net"', {}, {}, r"config\.toml: network_id: "),
        ("first_peers = [1]", {}, {}, r"config\.toml: first_peers: Expected `str`"),
        ('log_level = "loud"', {}, {}, r"config\.toml: log_level: "),
        ("not toml", {}, {}, r"config\.toml: not TOML: "),
        ("a = '\udcff'", {}, {}, r"config\.toml: not TOML: "),
        ("", {"DEPIN_SLOTS": "many"}, {}, r"DEPIN_SLOTS: Expected `int`, got `str`; it is 'many'"),
        ("", {"DEPIN_LEND": "perhaps"}, {}, r"DEPIN_LEND: Expected `bool`"),
        ("", {}, {"control_port": 70_000}, r"--control-port: .*65535; it is '70000'"),
        ('devices = ["\x1b[2J"]', {}, {}, r"not TOML"),
        (r'devices = ["\u001b[2J"]', {}, {}, r"devices: .*x1b\[2J"),
        ("", {"DEPIN_DEVICES": "cpu, first"}, {}, r"DEPIN_DEVICES: each is cpu, gpu, the UUID of .*'cpu, first'"),
        ("", {}, {"devices": ("GPU 0",)}, r"--device: each is cpu, gpu, the UUID of .*; it is 'GPU 0'$"),
    ],
)
def test_wrong_settings_name_their_source_and_key(tmp_path, toml, environ, flags, message):
    file = tmp_path / "config.toml"
    file.write_bytes(toml.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message) as caught:
        load(file, flags=flags, environ=environ)
    assert "\x1b" not in str(caught.value)


def test_a_named_file_must_exist_and_be_small(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load(tmp_path / "none.toml", flags={}, environ={}, file_must_exist=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, flags={}, environ={})
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="at most"):
        load(big, flags={}, environ={})


def test_unknown_variables_are_pointed_out_not_refused(tmp_path):
    environ = {"DEPIN_LENDS": "1", "DEPIN_TCP_ADDR": "x", "DEPIN_DATA_DIR": "/", "DEPIN_LEND": "1", "OTHER": ""}
    assert unknown_variables(environ) == [
        "DEPIN_LENDS means nothing to depin-node; did you mean 'DEPIN_LEND'?",
        "DEPIN_TCP_ADDR means nothing to depin-node",
    ]
    assert load(tmp_path / "none", flags={}, environ=environ).lend


def test_slots_of_the_processor():
    assert NodeConfig(slots=5).slots_of_processor() == 5
    assert NodeConfig().slots_of_processor() == max(1, (os.cpu_count() or 1) - 1)


def test_every_setting_is_explained():
    from depin_node.bootstrap import config

    with open(config.__file__) as opened:
        source = opened.read()
    for name in [*FIELDS, *Waits.__struct_fields__]:
        assert re.search(rf'^    {name}: .*\n    """', source, re.MULTILINE), name
