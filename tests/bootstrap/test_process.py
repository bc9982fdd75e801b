"""Nodes as processes: what they print, how they start, refuse to start, and end."""

import errno
import json
import logging
import os
import signal
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from nodes import depin_node

from depin_node.bootstrap.config import DEFAULT_LISTEN, DEFAULT_LISTEN_IPV6, NodeConfig, default_listen, load
from depin_node.bootstrap.node import PORTS_TRIED, _listen_addresses, _open_lan, _open_network
from depin_node.cli import main as cli_main
from depin_node.crypto.identity import Identity
from depin_node.p2p import lan
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.mesh import open_mesh

pytestmark = pytest.mark.net


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_node_comes_up_answers_and_ends_in_order(nodes):
    a = nodes.start()
    assert a.ready["event"] == "ready"
    assert a.ready["pid"] == a.process.pid
    assert a.address.startswith("/ip4/127.0.0.1/tcp/")
    assert a.address.endswith(a.peer)
    status = a.json("status")
    assert status["peer"] == a.peer
    assert status["addresses"] == [a.address]
    assert not status["lending"]
    assert a.peer in a.run("status").stdout
    assert a.stop(signal.SIGTERM) == 0
    assert not (a.data_dir / "control.json").exists()
    assert a.process.stdout.read() == b""
    assert "Traceback" not in a.stderr.read_text()
    assert a.run("status").returncode == 3


def test_ctrl_c_ends_it_too_and_its_peers_know_at_once(nodes):
    a, b = nodes.mesh(1)
    assert [peer["peer"] for peer in a.json("peers")] == [b.peer]
    assert b.stop(signal.SIGINT) == 0
    deadline = time.monotonic() + 20
    while a.json("peers"):
        assert time.monotonic() < deadline, "the peer that left is still listed"
    assert "Traceback" not in b.stderr.read_text()


def test_a_terminal_that_goes_ends_it_in_order_but_not_under_nohup(nodes):
    a = nodes.start()
    assert a.stop(signal.SIGHUP) == 0
    assert json.loads(a.log().splitlines()[-1])["event"] == "stopped"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the child inherits it
    try:
        b = nodes.start(data_dir=a.data_dir)
    finally:
        signal.signal(signal.SIGHUP, before)
    b.process.send_signal(signal.SIGHUP)
    assert b.json("status")["peer"] == a.peer
    assert b.stop(signal.SIGTERM) == 0


def test_a_second_signal_ends_at_once_and_a_restart_is_clean(nodes):
    a = nodes.start()
    os.kill(a.process.pid, signal.SIGSTOP)  # so that both signals wait for it
    a.process.send_signal(signal.SIGTERM)
    a.process.send_signal(signal.SIGINT)
    os.kill(a.process.pid, signal.SIGCONT)
    assert a.process.wait(30) == 130
    b = nodes.start(data_dir=a.data_dir)
    assert b.peer == a.peer
    assert b.json("status")["pid"] == b.process.pid


def test_kill_9_leaves_a_stale_control_file_that_says_not_running(nodes):
    a = nodes.start()
    a.kill()
    assert (a.data_dir / "control.json").exists()
    done = a.run("status")
    assert done.returncode == 3
    assert "the last one died" in done.stderr
    assert "start it with: depin-node start" in done.stderr


def test_another_process_on_the_old_port_is_not_taken_for_the_node(nodes):
    a, b = nodes.start(), nodes.start()
    stale = json.loads((a.data_dir / "control.json").read_text())
    a.kill()
    stale["pid"], stale["url"] = os.getpid(), b.ready["control"]
    (a.data_dir / "control.json").write_text(json.dumps(stale))
    done = a.run("status")
    assert done.returncode == 3
    assert "another process listens where it said" in done.stderr
    stale["url"] = f"http://127.0.0.1:{free_port()}"
    (a.data_dir / "control.json").write_text(json.dumps(stale))
    done = a.run("status")
    assert done.returncode == 3
    assert "nothing listens where it said" in done.stderr


def test_one_node_a_data_directory(nodes):
    a = nodes.start()
    done = depin_node("start", "--data-dir", a.data_dir)
    assert done.returncode == 1
    assert f"a node is already running on {a.data_dir} (process {a.process.pid})" in done.stderr
    assert a.json("status")["pid"] == a.process.pid


async def test_the_usual_port_may_move():
    """On loopback here: no test listens on the machine's interfaces, as the default does."""
    identity = Identity.generate()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if port > 65_000:
            pytest.skip("the system gave a port that has too few after it")
        usual = NodeConfig(listen=f"/ip4/127.0.0.1/tcp/{port}", listen_is_default=True)
        async with AsyncExitStack() as stack:
            network = await _open_network(stack, usual, identity)
            assert port < int(network.addresses()[0].split("/")[4]) < port + PORTS_TRIED


@pytest.mark.parametrize(
    ("listen", "is_on"), [("/ip4/0.0.0.0/tcp/4701", True), ("/ip4/127.0.0.1/tcp/0,/ip6/::1/tcp/0", False)]
)
async def test_a_node_that_comes_up_without_a_network_asks_the_later_one_for_nodes(monkeypatch, listen, is_on):
    monkeypatch.setattr(lan, "interfaces", list)
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(MemoryFabric(1).open(Identity(bytes(32)).key, host="127.0.0.1"))
        mesh = await stack.enter_async_context(open_mesh(network, Identity(bytes(32))))
        assert (await _open_lan(stack, NodeConfig(listen=listen), network, mesh) is not None) == is_on


def test_a_node_listens_by_ipv6_too_where_there_is_a_way_out_by_it(monkeypatch):
    assert load(Path("/nowhere"), flags={}, environ={}).listen == default_listen()

    def no_way(self, address):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    both = [DEFAULT_LISTEN, f"{DEFAULT_LISTEN},{DEFAULT_LISTEN_IPV6}"]
    assert default_listen() in both
    ports = [
        [part.split("/")[-1] for part in listen.split(",")]
        for listen in _listen_addresses(NodeConfig(listen=both[1], listen_is_default=True))
    ]
    assert ports[:2] == [["4701", "4701"], ["4702", "4702"]]
    monkeypatch.setattr(socket.socket, "connect", no_way)
    assert default_listen() == DEFAULT_LISTEN


def test_a_named_port_that_is_taken_is_an_error(nodes, tmp_path):
    a = nodes.start()
    port = a.address.split("/")[4]
    done = depin_node("start", "--data-dir", tmp_path / "x", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "--listen" in done.stderr


def test_first_peers_that_do_not_answer_are_told_of_and_so_is_the_one_that_does(nodes):
    a = nodes.start()
    a.stop()
    b = nodes.start("--peer", a.address)
    deadline = time.monotonic() + 60
    while "no peer can be reached yet" not in b.log():
        assert time.monotonic() < deadline
        assert b.json("peers") == []
    assert a.peer in b.log()
    nodes.start(data_dir=a.data_dir, listen=a.address.partition("/p2p/")[0])
    while "joined the mesh" not in b.log():
        assert time.monotonic() < deadline
        b.json("peers")


def test_first_peers_come_from_the_file_too(nodes):
    a = nodes.start()
    b = nodes.spawn("--log-level", "debug")
    b.wait_ready().stop()
    (b.data_dir / "peers.txt").write_text(f"# my friend\n{a.address}\n")
    b = nodes.start(data_dir=b.data_dir)
    deadline = time.monotonic() + 20
    while [peer["peer"] for peer in b.json("peers")] != [a.peer]:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("prepare", "args", "code", "message"),
    [
        (lambda d: (d / "config.toml").write_text("slotz = 1"), [], 2, "unknown key 'slotz'; did you mean 'slots'?"),
        (lambda d: (d / "config.toml").write_text("[waits"), [], 2, "config.toml: not TOML"),
        (
            lambda d: (d / "config.toml").write_text('trusted_peers = ["me"]'),
            [],
            2,
            "trusted_peers: 'me' is not the peer",
        ),
        (lambda d: None, ["--config", "/none.toml"], 2, "/none.toml: no such configuration file"),
        (lambda d: (d / "peers.txt").write_text("nonsense"), [], 2, "peers.txt:1: 'nonsense' is not an address"),
        (lambda d: None, ["--peer", "nonsense"], 2, "first_peers: 'nonsense' is not an address"),
        (lambda d: None, ["--network-id", "No Such"], 2, "--network-id: "),
        (lambda d: None, ["--listen", "127.0.0.1:1"], 2, "127.0.0.1:1"),
        (lambda d: (d / "identity").write_text("damaged"), [], 2, "the identity is damaged"),
        (lambda d: (d / "identity").touch(0o644), [], 2, "chmod 600"),
        (lambda d: (d / "identity").mkdir(), [], 2, "the identity cannot be read"),
        (lambda d: (d / "logs").write_text(""), [], 2, "the log cannot be written"),
    ],
)
def test_what_keeps_a_node_from_starting_is_said_in_one_line(tmp_path, capfd, own_logs, prepare, args, code, message):
    tmp_path.chmod(0o700)
    prepare(tmp_path)
    if (tmp_path / "identity").is_file() and "chmod" not in message:
        (tmp_path / "identity").chmod(0o600)
    start = ["start", "--data-dir", str(tmp_path), "--listen", "/ip4/127.0.0.1/tcp/0", *args]
    assert cli_main.run(start) == code
    out, err = capfd.readouterr()
    assert message in err
    assert err.startswith("depin-node: ")
    assert len(err.splitlines()) == 1
    assert out == ""


@pytest.fixture
def own_logs():
    """Let a node that runs in this process set up its log, and put back ours."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    for handler in logging.root.handlers:
        if handler not in handlers:
            handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def test_a_control_port_that_is_taken_is_an_error(nodes, tmp_path):
    a = nodes.start()
    port = a.ready["control"].rpartition(":")[2]
    done = depin_node("start", "--data-dir", tmp_path / "x", "--listen", "/ip4/127.0.0.1/tcp/0", "--control-port", port)
    assert done.returncode == 1
    assert f"control_port {port} on 127.0.0.1 cannot be used" in done.stderr
