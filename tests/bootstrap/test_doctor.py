"""What ``depin-node doctor`` finds, of a node that runs and of one that does not."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from depin_node.bootstrap import owner_files
from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.data_dir import claim
from depin_node.bootstrap.doctor import Finding, Patient, Report, ask_peers, examine, peers_to_ask
from depin_node.compute.jobs.journal import Journal
from depin_node.core import clock
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.local import DataDir
from depin_node.core.views import DeviceView, LanView, PeerView, ReachView, StatusView
from depin_node.crypto import identity as identities
from depin_node.crypto.identity import Identity, peer_id
from depin_node.crypto.ownership import certify, revoke
from depin_node.p2p.libp2p.hello import REASONS
from depin_node.p2p.libp2p.host import open_libp2p
from depin_node.p2p.reach.relay import reserve, serve_relayed
from depin_node.p2p.reach.service import ReachSettings, open_reach

PEER, OTHER = peer_id(bytes(32)), peer_id(bytes([1]) * 32)
FIRST = f"/ip4/192.0.2.1/tcp/4701/p2p/{OTHER}"
DEVICE = DeviceView("wasm-1", 1024, 1, 1, layers=("landlock: on",), model="a processor")


def status(reach: ReachView | None = None, **changes) -> StatusView:
    values = {
        "peer": PEER, "version": "0.1.0", "network_id": "depin", "pid": 1, "data_dir": "/x", "started_s": 0.0,
        "addresses": (f"/ip4/192.0.2.7/tcp/4701/p2p/{PEER}",), "lending": False, "slots": 0, "peers_connected": 3,
        "peers_known": 5, "jobs": {}, "tasks_lent": 0, "blobs_bytes": 0, "counters": {},
        "reach": reach or ReachView("public", "none", reached=2, skew_s=1),
    }  # fmt: skip
    return StatusView(**(values | changes))


def peer(**changes) -> PeerView:
    values = {
        "peer": OTHER, "address": FIRST, "connected": True, "lending": False, "devices": (), "price_millicredits": 0,
        "protocol_min": 2, "protocol_max": 2,
        "version": "0.1.0", "group": "g",
    }  # fmt: skip
    return PeerView(**(values | changes))


def examined(tmp_path: Path, reasons=None, **changes) -> tuple[Report, dict[str, Finding]]:
    tmp_path.chmod(0o700)
    values = {
        "data_dir": DataDir(tmp_path), "config": NodeConfig(disk_mib=1), "status": status(), "peers": [peer()],
        "devices": [DEVICE],
    }  # fmt: skip
    report = examine(Patient(**(values | changes)), reasons or {})
    return report, {finding.name: finding for finding in report.findings}


def test_local_networks_are_told_of(tmp_path):
    _, found = examined(tmp_path, status=status(lan=LanView(("192.168.1.2/24",), 3)))
    assert found["mdns"].says == "on 192.168.1.2/24; nodes were heard 3 times"
    _, found = examined(tmp_path, config=NodeConfig(disk_mib=1, mdns=False))
    assert found["mdns"].says == "off (mdns = false)"


def test_all_is_well(tmp_path):
    report, found = examined(tmp_path)
    assert report.exit_code == 0, report
    assert {"config", "data", "node", "listens", "reachable", "nat", "first peers", "peers", "clock"} <= set(found)
    assert {"versions", "devices", "sandbox", "disk", "admission"} <= set(found)


@pytest.mark.parametrize(
    ("free_bytes", "is_ok", "says"),
    [(6 << 20, False, "6 MB free"), (65 << 20, True, "68 MB free"), (2 << 30, True, "2.1 GB")],
)
def test_a_disk_without_room_for_the_journal_is_not_ok(tmp_path, monkeypatch, free_bytes, is_ok, says):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=4 << 30, free=free_bytes))
    _, found = examined(tmp_path)
    assert found["disk"].ok == is_ok
    assert says in found["disk"].says


@pytest.mark.parametrize(
    ("name", "says", "changes"),
    [
        ("config", "no_such", {"config": None, "config_error": "config.toml: unknown key 'no_such'"}),
        ("config", "DEPIN_DISC_MIB", {"environ": {"DEPIN_DISC_MIB": "1"}}),
        ("reachable", "no relay", {"status": status(ReachView("private", "endpoint-independent", missed=3))}),
        ("clock", "behind", {"status": status(ReachView("public", "none", reached=2, skew_s=90))}),
        ("clock", "ahead of", {"status": status(ReachView("public", "none", reached=2, skew_s=-90))}),
        ("versions", "1 peers speak none", {"peers": [peer(protocol_min=3, protocol_max=4)]}),
        ("devices", "broken", {"devices": [DeviceView("sm_89", 1, 0, 0, unusable="broken")]}),
        ("devices", "no worker", {"devices": None, "devices_error": "no worker can be started"}),
        ("sandbox", "seccomp", {"devices": [DeviceView("wasm-1", 1, 1, 1, layers_missing=("seccomp: no",))]}),
        ("listens", "nowhere", {"status": status(addresses=())}),
        ("mdns", "in use", {"status": status(lan=LanView((), 0, "192.168.1.2/24: Address already in use"))}),
        ("peers", "0 connected", {"status": status(peers_connected=0, first_peers=(FIRST,))}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_what_to_do(tmp_path, name, says, changes):
    report, _ = examined(tmp_path, reasons={FIRST: ""}, **changes)
    wrong = [finding for finding in report.findings if not finding.ok]
    assert {finding.name for finding in wrong} == {name}
    assert says in wrong[0].says
    assert wrong[0].do or name == "devices"
    assert report.exit_code == 1


def test_what_is_not_wrong_but_could_be_better_has_advice(tmp_path):
    relayed = ReachView("private", "address-dependent", missed=2, relays=("r1", "r2"))
    report, found = examined(tmp_path, status=status(relayed))
    assert report.exit_code == 0
    assert "2 relays" in found["reachable"].says
    assert found["reachable"].do
    _, found = examined(tmp_path, peers=[peer(protocol_max=3)])
    assert found["versions"].do == "update"


def test_nobody_reachable_is_an_exit_code_of_its_own(tmp_path):
    config = NodeConfig(first_peers=(FIRST,))
    report, found = examined(tmp_path, {FIRST: "connection refused"}, status=None, config=config, devices=[DEVICE])
    assert report.exit_code == 3
    assert "connection refused" in found["first peers"].says
    patient = Patient(DataDir(tmp_path), config)
    assert peers_to_ask(patient) == [FIRST]


def test_where_this_machine_has_no_network_it_is_to_look_at_its_own(tmp_path):
    why = f"{FIRST}: cannot connect: [Errno 101] Network is unreachable"
    _, found = examined(tmp_path, {FIRST: why}, status=None, config=NodeConfig(first_peers=(FIRST,)), devices=[DEVICE])
    assert found["first peers"].says == f"0 of 1 answer; {why}"
    assert "this machine has no way there" in found["first peers"].do


def test_a_first_peer_that_is_not_on_our_own_list_is_told_of(tmp_path):
    config = NodeConfig(first_peers=(FIRST,), allowed_peers=("12D3KooWother",))
    report, _ = examined(tmp_path, {FIRST: ""}, status=None, config=config, devices=[DEVICE])
    (wrong,) = [finding for finding in report.findings if not finding.ok]
    assert (wrong.name, wrong.says) == ("first peers", f"not on our own allowed_peers, so never connected: {FIRST}")
    known = NodeConfig(first_peers=(FIRST,), allowed_peers=(FIRST.rpartition("/")[2],))
    report, _ = examined(tmp_path, {FIRST: ""}, status=None, config=known, devices=[DEVICE])
    assert report.exit_code == 0


def test_while_it_is_not_known_how_peers_reach_us_a_relay_is_told_of(tmp_path):
    _, found = examined(tmp_path, status=status(ReachView("unknown", "unknown", missed=1, relays=("r1",))))
    assert found["reachable"].says.endswith("(0 groups of peers could call us, 1 could not), so far by way of 1 relay")
    assert "first peers in two networks" in found["reachable"].do


def test_a_running_node_is_asked_whom_it_was_told_to_join_by(tmp_path):
    alone = status(peers_connected=0, first_peers=(FIRST, f"/ip4/192.0.2.7/tcp/4701/p2p/{PEER}"))
    assert peers_to_ask(Patient(DataDir(tmp_path), NodeConfig(), status=alone)) == [FIRST], "nobody asks himself"
    report, found = examined(tmp_path, {FIRST: "connection refused"}, status=alone)
    assert report.exit_code == 3
    assert not found["peers"].ok
    assert found["peers"].do == "see first peers"
    assert "connection refused" in found["first peers"].says


def test_first_peers_that_answer_and_are_not_connected_may_be_of_another_network(tmp_path):
    alone = status(peers_connected=0, first_peers=(FIRST,))
    _, found = examined(tmp_path, {FIRST: ""}, status=alone)
    assert found["first peers"].ok
    assert not found["peers"].ok
    assert "another network_id" in found["peers"].do


def test_a_node_that_starts_is_told_of_and_not_advised_to_start(tmp_path):
    with claim(DataDir(tmp_path)):
        _, found = examined(tmp_path, status=None)
    assert "is starting" in found["node"].says
    assert "listens" not in found, "what it listens on is in use, by itself"
    _, found = examined(tmp_path, status=None)
    assert found["node"].says == "none is running here"
    assert "listens" in found


@pytest.mark.parametrize("listen", ["foo", "/ip4/127.0.0.1/tcp/abc", "/ip4/127.0.0.1/tcp/", "/dns4/localhost/tcp/4711"])
def test_what_start_refuses_to_listen_on_is_not_called_free(tmp_path, listen):
    _, found = examined(tmp_path, status=None, config=NodeConfig(disk_mib=1, listen=listen))
    assert not found["listens"].ok
    assert "no address to listen on" in found["listens"].says


def test_a_directory_that_others_can_read_and_a_damaged_identity(tmp_path):
    (tmp_path / "identity").write_text("x")
    (tmp_path / "identity").chmod(0o600)
    tmp_path.chmod(0o755)
    report = examine(Patient(DataDir(tmp_path), NodeConfig(), devices=[DEVICE]), {})
    wrong = {finding.name: finding for finding in report.findings if not finding.ok}
    assert set(wrong) == {"data", "identity"}
    assert "chmod 700" in wrong["data"].do


def test_a_directory_that_is_not_there_is_wrong(tmp_path):
    report = examine(Patient(DataDir(tmp_path / "typo"), NodeConfig(), devices=[DEVICE]), {})
    (wrong,) = [finding for finding in report.findings if not finding.ok]
    assert (wrong.name, wrong.says) == ("data", f"{tmp_path / 'typo'} is not there")
    assert (report.exit_code, report.runs) == (1, False)


def test_a_journal_is_looked_through_while_no_node_has_it(tmp_path):
    path = DataDir(tmp_path).journal
    Journal(path).close()
    names = sorted(tmp_path.iterdir())
    _, found = examined(tmp_path, status=None)
    assert found["journal"].ok
    assert sorted(tmp_path.iterdir()) == names
    assert "journal" not in examined(tmp_path)[1], "it is the running node's"
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"x" * 5000)
    _, found = examined(tmp_path, status=None)
    assert "the journal is damaged" in found["journal"].says
    path.write_bytes(b"x" * 5000)
    _, found = examined(tmp_path, status=None)
    assert "the journal is damaged (file is not a database); move it away" in found["journal"].says
    path.write_bytes(b"")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    assert "newer depin-node (schema 999" in examined(tmp_path, status=None)[1]["journal"].says


def test_a_journal_of_a_node_that_was_killed_is_whole(tmp_path):
    Journal(tmp_path / "journal.sqlite").close()
    kill = (
        "import os, sqlite3; db = sqlite3.connect('journal.sqlite'); db.execute('PRAGMA journal_mode = WAL');"
        "db.execute('CREATE TABLE t (x)'); db.commit(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", kill], cwd=tmp_path, check=False)
    assert (tmp_path / "journal.sqlite-wal").stat().st_size > 0
    assert examined(tmp_path, status=None)[1]["journal"].ok
    assert (tmp_path / "journal.sqlite-wal").stat().st_size > 0, "that is the next node's to take"


@pytest.mark.net
def test_the_command_without_and_with_a_node(nodes):
    first = nodes.start("--bootstrap-only")
    node = nodes.start("--peer", first.address)
    done = node.run("doctor", "--json", "--no-devices")
    report = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert done.returncode == 0, report
    assert found["first peers"]["says"] == "1 of 1 answer"
    assert "loopback" in found["reachable"]["says"]
    assert node.stop() == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = first.address.replace(f"/tcp/{first.address.split('/')[4]}/", f"/tcp/{taken.getsockname()[1]}/")
        taken.close()
        done = node.run("doctor", "--no-devices", env={"DEPIN_FIRST_PEERS": dead})
    assert done.returncode == 3
    assert "WRONG  first peers" in done.stdout
    assert "no node is running" in done.stderr
    assert os.linesep in done.stdout


@pytest.mark.net
async def test_a_first_peer_behind_a_relay_answers_only_if_it_does_itself():
    there, gone = Identity(b"g" * 32), Identity(b"a" * 32)
    async with (
        open_libp2p(b"r" * 32, network_id="depin") as network,
        open_libp2p(there.seed, network_id="depin") as behind,
        open_reach(network, advertise=lambda _: None, settings=ReachSettings(relay_always=True)),
    ):
        relay = network.addresses()[0]
        serve_relayed(behind, lambda _: True, lambda *_: None)
        await behind.dial(relay)
        await reserve(behind, network.key, timeout_s=5.0)
        ways = [f"{relay}/p2p-circuit/p2p/{peer_id(identity.key)}" for identity in (there, gone)]
        reasons = await ask_peers(ways, NodeConfig(network_id="depin"))
    assert [bool(reasons[way]) for way in ways] == [False, True], reasons


def test_a_certificate_that_ends_or_was_revoked_is_told_of(tmp_path):
    node, owner, now = identities.create(tmp_path / "identity"), Identity(b"o" * 32), clock.now()
    data_dir = DataDir(tmp_path)
    assert "owner" not in examined(tmp_path)[1]

    owner_files.write(data_dir.owner_certificate, certify(owner, "depin", node.key, now=now, days=90))
    found = examined(tmp_path)[1]["owner"]
    assert (found.ok, found.do) == (True, "")
    assert f"{peer_id(owner.key)}; the certificate holds for" in found.says

    owner_files.write(data_dir.owner_certificate, certify(owner, "depin", node.key, now=now, days=3))
    found = examined(tmp_path)[1]["owner"]
    assert found.ok
    assert "owner certify" in found.do

    later = Now(now.boottime_ns, now.wall_ns + SECOND_NS)
    owner_files.write(data_dir.owner_revoked, revoke(owner, "depin", [node.key], None, now=later))
    found = examined(tmp_path)[1]["owner"]
    assert not found.ok
    assert "was revoked" in found.says

    owner_files.write(data_dir.owner_certificate, certify(owner, "other", node.key, now=now, days=90))
    found = examined(tmp_path)[1]["owner"]
    assert not found.ok
    assert "another network id than 'depin'" in found.says


@pytest.mark.parametrize(
    ("refusal", "do"), [("not_allowed", f"put {PEER} on its allowed_peers"), ("pre_shared_key", "pre_shared_key_file")]
)
def test_a_first_peer_that_will_not_have_us_is_told_of_with_what_to_do(tmp_path, refusal, do):
    refused = {FIRST: f"{OTHER} {REASONS[refusal]}"}
    report, found = examined(tmp_path, refused, status=status(first_peers=(FIRST,), peers_connected=0))
    assert not found["first peers"].ok
    assert do in found["first peers"].do
    if refusal == "not_allowed":  # we ask as a stranger: a connected node is on the list all the same
        report, found = examined(tmp_path, refused, status=status(first_peers=(FIRST,), peers_connected=1))
        assert report.exit_code == 0


def test_more_memory_lent_than_there_is_is_told_of(tmp_path):
    assert "memory" not in examined(tmp_path)[1]
    found = examined(tmp_path, config=NodeConfig(disk_mib=1, lend=True, slots=1, memory_mib=64))[1]["memory"]
    assert found.ok
    found = examined(tmp_path, config=NodeConfig(disk_mib=1, lend=True, slots=1024, memory_mib=1 << 20))[1]["memory"]
    assert not found.ok
    assert "1024 slots may take 1048576.0 GiB" in found.says
