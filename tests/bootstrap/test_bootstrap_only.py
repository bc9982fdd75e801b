"""A first peer: others meet by it, and it takes and lends nothing."""

import time

import pytest

pytestmark = pytest.mark.net


def test_two_meet_by_a_first_peer_that_takes_no_jobs(nodes, tmp_path):
    first = nodes.start("--bootstrap-only")
    a, b = (nodes.spawn("--peer", first.address) for _ in range(2))
    a.wait_ready()
    b.wait_ready()
    end = time.monotonic() + 60
    while {peer["peer"] for peer in a.json("peers")} != {first.peer, b.peer}:
        assert time.monotonic() < end
        time.sleep(0.2)  # between two looks at another process
    status = first.json("status")
    assert status["reach"]["serves"], "it passes circuits on whether or not anybody has called it back"
    assert not status["lending"]
    refused = first.run("job", "list")
    assert (refused.returncode, "--bootstrap-only" in refused.stderr) == (2, True)
    assert a.json("status")["reach"]["verdict"] == "local"


def test_a_first_peer_cannot_lend(nodes):
    node = nodes.spawn("--bootstrap-only", "--lend")
    assert node.process.wait(60) == 2
    assert "--bootstrap-only" in node.stderr.read_text()
