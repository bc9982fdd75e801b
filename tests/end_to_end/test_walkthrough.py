"""The README's four terminals: A, then B, C and D that lend and join by A; B submits; A dies; C submits."""

import signal
from pathlib import Path

import numpy as np
import pytest

HILLSHADE = Path(__file__).resolve().parents[2] / "examples" / "hillshade"
pytestmark = [pytest.mark.net, pytest.mark.slow]


def submit(node, tmp_path, name):
    output = tmp_path / name
    done = node.run("submit", HILLSHADE / "hillshade.toml", "--wait", "--output", output)
    assert done.returncode == 0, done.stderr
    (file,) = output.glob("*.npy")
    return np.load(file)


def test_the_mesh_outlives_its_first_peer(nodes, tmp_path):
    a = nodes.start()
    assert "0.0.0.0" not in a.address
    others = [nodes.spawn("--lend", "--slots", 1, "--peer", a.address) for _ in range(3)]
    b, c, _ = (node.wait_ready() for node in others)
    before = submit(b, tmp_path, "before")
    a.process.send_signal(signal.SIGKILL)
    a.process.wait()
    after = submit(c, tmp_path, "after")
    assert before.shape == (344, 403)
    assert before.tobytes() == after.tobytes()  # exact programs in one class: every bit, whoever ran it
