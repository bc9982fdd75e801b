"""The demo as ``make demo`` runs it, with and without its liar: its claims come from the records, not from a script."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "hillshade" / "demo.py"
pytestmark = [pytest.mark.net, pytest.mark.slow]


def run_demo(tmp_path, *args):
    done = subprocess.run(
        [sys.executable, DEMO, "--output", tmp_path, *args], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "hillshade.png").read_bytes().startswith(b"\x89PNG")
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_the_liar_is_caught_and_the_killed_lender_replaced(tmp_path):
    story, facts = run_demo(tmp_path)
    assert facts.pop("seconds") > 0
    assert facts == {
        "verified": True,
        "liar_caught": True,
        "survived_kill": True,
        "providers": 4,
        "matches_reference": True,
    }
    assert "caught: liar" in story
    assert "lost: slow" in story


def test_without_a_liar_nobody_is_caught(tmp_path):
    story, facts = run_demo(tmp_path, "--no-liar")
    assert facts["liar_caught"] is False
    assert facts["verified"] is True
    assert facts["survived_kill"] is True
    assert "caught" not in story.splitlines()[:-1]
